"Engines, exported models and judging without torch: the same verdicts, and one line for whatever is wrong with a folder."

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom

from g100.algorithms.kdad import KDAD
from g100.algorithms.patchcore import PatchCore
from g100.foundations import line, runtime
from g100.foundations.calibration import _tail
from g100.foundations.detector import load
from g100.foundations.engines import Engine, chosen_engine, made_for, onnx_graph, points_outside, quantised
from g100.foundations.maps import Mosaic, full_size, image_score
from g100.foundations.overlay import opened
from g100.foundations.runtime import as_wide, compared, laid_together, load_exported, pooled, write_exported
from g100.foundations.sources import as_image_set
from g100.foundations.views import View
from tests.notebooks import ROOT
from tests.test_contract import short
from tests.toys import MeanPicture, line_of, pictures, refused, spotted

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.xdist_group("engines"),  # what is fitted and exported is so once
]
NET = {"backbone": "resnet18", "weights": "random"}
SMALL = {"patchcore": {}, "semi-ort": {}, "riad": {"ks": (8,), "shuffle": 1}, "favae": NET, "kdad": NET | {"levels": (1, 2)},
         "fcdd": NET}  # fmt: skip
GOOD, SEEN = pictures(24, 64), np.concatenate([pictures(8, 80, seed=7), spotted(8, 80)[0]])


@lru_cache
def detector(name: str):
    return short(name, **SMALL[name]).fit(GOOD, device="cpu")


@lru_cache
def exported(name: str):
    return runtime.exported_from(detector(name), "onnx", "fp32", None)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("name", SMALL)
def test_an_exported_model_says_what_the_detector_says(name, engine, tmp_path):
    "Verdicts and masks are equal, scores to 1e-4, maps nearly; for any number of pictures, after the folder was read again."
    model = exported(name)
    model = replace(model, engine=Engine(engine, "fp32", made_for(engine, model.engine.graph["graph.onnx"])))
    again = load_exported(write_exported(replace(model, card=dict(model.card) | {"certificate": {}}), tmp_path / "out"))
    old, new = detector(name).inspect(SEEN), again.inspect(SEEN)
    told = compared(old, new)
    assert told["verdicts_changed"] == 0 and told["score_difference"] < 1e-4 and told["map_difference"] < 1e-3
    assert told["mask_difference"] < 1e-3 and (old.is_anomalous == new.is_anomalous).all()
    np.testing.assert_allclose(old.p_value, new.p_value, atol=1e-9)
    np.testing.assert_allclose(again.inspect(SEEN[:1]).score, old.score[:1], rtol=1e-4)
    assert again.threshold == pytest.approx(detector(name).threshold_) and "pictures calibrated" in repr(again)


MISSING = ("torch", "torchvision", "timm", "sklearn", "scipy", "safetensors", "psutil", "tqdm", "pydantic", "filelock",
           "joblib", "matplotlib", "onnx", "onnxscript", "openvino", "nncf", "typer")  # fmt: skip


def test_the_runtimes_wheel_judges_where_nothing_but_an_engine_is_installed(tmp_path):
    model = exported("patchcore")
    write_exported(replace(model, card=dict(model.card) | {"certificate": {}}), tmp_path / "out")
    np.save(tmp_path / "x.npy", SEEN)
    subprocess.run([sys.executable, ROOT / "runtime" / "build.py", tmp_path], check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("g100_runtime-*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import numpy as np
import g100
assert "site" in g100.__file__.split("/")[-3:], g100.__file__
from g100.runtime import load_exported
found = load_exported("out").inspect(np.load("x.npy"))
np.savez("said.npz", score=found.score, map=found.map, mask=found.mask, is_anomalous=found.is_anomalous)
assert not set({MISSING}) & set(sys.modules)
found._repr_html_(), found.table(), found.normalised()
"""
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    old, new = detector("patchcore").inspect(SEEN), np.load(tmp_path / "said.npz")
    np.testing.assert_allclose(new["score"], old.score, rtol=1e-4)
    np.testing.assert_array_equal(new["is_anomalous"], old.is_anomalous)


# ---- an engine from the first feature to the last verdict


@pytest.mark.parametrize("engine", [pytest.param("onnx", marks=pytest.mark.slow), "openvino"])
def test_fit_in_an_engine_learns_its_features_and_is_saved_with_it(engine, tmp_path):
    old, x = detector("patchcore"), SEEN
    new = short("patchcore", engine=engine).fit(GOOD, device="cpu")
    assert new.fitted_.engine.name == engine and old.fitted_.engine is None
    np.testing.assert_allclose(new.inspect(x).score, old.inspect(x).score, rtol=1e-4)
    np.testing.assert_array_equal(new.inspect(x).is_anomalous, old.inspect(x).is_anomalous)
    again = load(new.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.inspect(x).score, new.inspect(x).score)
    assert again.fitted_.engine.graph == new.fitted_.engine.graph and again.get_params()["engine"] == engine


def test_what_learns_by_itself_goes_into_the_engine_as_a_whole():
    old, new = MeanPicture().fit(GOOD, device="cpu"), MeanPicture(engine="onnx").fit(GOOD, device="cpu")
    assert new.fitted_.judge.engine is not None
    np.testing.assert_allclose(new.inspect(SEEN).map, old.inspect(SEEN).map, rtol=1e-5)
    new.sigma = 2.0
    engine = new.fitted_.judge.engine
    assert engine is not None and new.recalibrate(GOOD).fitted_.judge.engine is engine, "what calibrates makes no graph"


@pytest.mark.slow
def test_models_of_the_others_judge_in_the_engine_too():
    cross = MeanPicture(engine="onnx", calibration="cross").fit(GOOD, device="cpu")
    expected = MeanPicture(calibration="cross").fit(GOOD, device="cpu").calibration_scores_
    np.testing.assert_allclose(cross.calibration_scores_, expected, rtol=1e-5)


def test_int8_is_quantised_on_good_pictures_and_stays_near():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3)).eval()
    graph = made_for("openvino", onnx_graph(net, (24, 24), ("out",)))
    x = np.random.default_rng(0).random((8, 3, 24, 24), np.float32)
    eight = Engine("openvino", "int8", quantised(graph, [x]))
    exact, near = net(torch.from_numpy(x)).detach().numpy(), eight(x)[0]
    assert b"FakeQuantize" in eight.graph["graph.xml"] and 0 < np.abs(exact - near).max() < 0.05 * np.abs(exact).max()


def test_precisions_and_engines_that_cannot_be_are_one_line():
    assert "engine='openvino'" in line_of(chosen_engine, "onnx", "bf16")
    assert "engine='openvino'" in line_of(chosen_engine, "torch", "int8")
    assert "did you mean 'openvino'" in line_of(chosen_engine, "openvin", "fp32")
    assert chosen_engine("auto", "int8") == "openvino" and chosen_engine("torch", "fp32") == "torch"
    assert "engine" in line_of(PatchCore(engine="tensorrt").fit, GOOD)
    assert "precision" in line_of(PatchCore(precision="fp8").fit, GOOD)


def test_a_missing_extra_is_one_line_and_auto_does_without(monkeypatch):
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert chosen_engine("auto", "fp32") == "torch"
    assert 'pip install "g100[onnx]"' in line_of(PatchCore(engine="onnx").fit, GOOD)
    assert 'pip install "g100[openvino]"' in line_of(detector("patchcore").export, "nowhere", "openvino")


def test_the_command_exports_and_says_what_was_compared(within, tmp_path):
    model, good = detector("patchcore").save(tmp_path / "model"), tmp_path / "good"
    good.mkdir()
    for i, picture in enumerate(pictures(4, 70, seed=5)):
        Image.fromarray(picture).save(good / f"{i}.png")
    done = within("export", model, "--out", tmp_path / "out", "--check", good)
    assert done.returncode == 0 and "compared on 4 pictures (the pictures given): 0 verdicts changed" in done.stdout
    assert load_exported(tmp_path / "out").card["certificate"]["pictures"] == 4
    refused(within("export", model, "--out", tmp_path / "two", "--engine", "torch"), "`save`")
    refused(within("export", model, "--out", tmp_path / "two", "--precision", "int8"), "engine='openvino'")
    refused(within("export", model, "--out", tmp_path / "out"), "exists")


# ---- the command inspects with an exported model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "A folder of good and spotted pictures, one of another size, one that is no picture."
    place = tmp_path_factory.mktemp("photos")
    for i, picture in enumerate(SEEN):
        Image.fromarray(picture if i != 3 else picture[:50]).save(place / f"{i:02d}.png")
    (place / "99.png").write_bytes(b"no picture")
    return place


def told_by(within, *words) -> list[dict]:
    "The rows of JSON that `g100 inspect` gives."
    done = within("inspect", *words, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_inspect_takes_an_exported_model_as_it_takes_a_model(engine, within, photos, tmp_path):
    "Table, JSON, page, masks, maps and COCO: the same verdicts as the detector's, and those of `load_exported`."
    detector("patchcore").save(tmp_path / "model")
    made = runtime.exported_from(detector("patchcore"), engine, "fp32", None)
    write_exported(replace(made, card=dict(made.card) | {"certificate": {}}), tmp_path / "exported")
    old, new = (told_by(within, tmp_path / name, photos, "--out", tmp_path / f"{name}-out", "--masks", "--maps", "--coco")
                for name in ("model", "exported"))  # fmt: skip
    direct = load_exported(tmp_path / "exported").inspect([photos / row["name"] for row in new[:-1]])
    for i, (a, b) in enumerate(zip(old[:-1], new[:-1], strict=True)):
        assert all(a[key] == b[key] for key in ("name", "is_anomalous", "unlike"))
        for key in ("score", "threshold", "p_value"):
            np.testing.assert_allclose(b[key], a[key], rtol=1e-4)
        assert (b["score"], b["is_anomalous"]) == (float(direct.score[i]), bool(direct.is_anomalous[i]))
        masks, maps = (tmp_path / "exported-out" / kind / b["name"] for kind in ("masks", "maps"))
        assert np.array(Image.open(masks)).shape == ((50, 80) if i == 3 else (80, 80))
        np.testing.assert_array_equal(np.load(maps.with_suffix(".npy")), direct.map[i])
    assert old[-1]["error"] == new[-1]["error"] and "99.png" in new[-1]["error"]
    outs = [tmp_path / f"{name}-out" for name in ("model", "exported")]
    assert len({frozenset(p.relative_to(out) for p in out.rglob("*")) for out in outs}) == 1, "the same files"
    assert all('"name":"PatchCore"' in (out / "index.html").read_text() for out in outs)


def test_inspect_draws_the_line_of_an_exported_model_where_it_is_told_to(within, folder, photos, tmp_path):
    seen, model = sorted(photos.glob("[01]*.png")), load_exported(folder)
    for rate in (0.2, 0.4):
        rows = told_by(within, folder, *seen, "--target-fpr", rate, "--out", tmp_path / str(rate))
        expected = model.inspect(list(map(str, seen)), target_fpr=rate)
        assert {row["threshold"] for row in rows} == {expected.calibration.threshold} != {model.threshold}
        assert [row["is_anomalous"] for row in rows] == expected.is_anomalous.tolist()
    rows = told_by(within, folder, *seen, "--threshold", "1e9")
    assert {row["threshold"] for row in rows} == {1e9} and not any(row["is_anomalous"] for row in rows)
    refused(within("inspect", folder, *seen, "--json", "--target-fpr", "1e-6"), "target_fpr=1e-06", "promise")


def test_a_folder_is_watched_with_an_exported_model(within, folder, photos, tmp_path, monkeypatch):
    def once(place, seen, settle):
        yield [(name, line.state_of(place / name)) for name in line.images_below(place) if name not in seen]
        raise KeyboardInterrupt

    monkeypatch.setattr(line, "arrivals", once)
    words = ("--watch", photos, "--out", tmp_path / "out", "--masks")
    done = within("inspect", folder, *words)
    assert done.returncode == 130 and "has the verdicts so far" in done.stderr
    rows = [json.loads(row) for row in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()[1:]]
    files = sorted(photos.glob("[01]*.png"))
    assert [row["is_anomalous"] for row in rows[:-1]] == load_exported(folder).inspect(files).is_anomalous.tolist()
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == len(files) and rows[-1]["error"]
    detector("patchcore").save(tmp_path / "model")
    refused(within("inspect", tmp_path / "model", *words), "belongs to")


def test_what_an_exported_model_cannot_is_one_line(within, folder, photos, tmp_path):
    for words, why in ((("--evidence",), "maps and scores alone"), (("--device", "cuda:0"), "computes on the CPU"),
                       (("--algorithm", "os:system"), "asks for no class")):  # fmt: skip
        refused(within("inspect", folder, photos, "--out", tmp_path / "out", *words), words[0], why, "exported from")
    for words in (("update", folder, photos), ("export", folder, "--out", tmp_path / "out")):
        refused(within(*words), "exported model", "exported from")
    assert "exported model" in line_of(load, folder) and not (tmp_path / "out").exists()
    assert within("inspect", folder, photos / "00.png", "--json", "--device", "cpu").returncode == 0


def test_inspect_refuses_a_bad_exported_folder_in_one_line(within, copy, photos, tmp_path):
    graph, card = (copy / "graph.onnx").read_bytes(), (copy / "exported.json").read_text()

    def says(*words):
        refused(within("inspect", copy, photos, "--out", tmp_path / "out"), *words)
        assert not (tmp_path / "out").exists()

    (copy / "graph.onnx").write_bytes(graph[:-1])
    says("graph.onnx was altered")
    (copy / "graph.onnx").write_bytes(graph)
    for bad, word in ((card[:-20], "export the model, again"), (card.replace('"fp32"', '"bf16"'), "altered"), ("[]", "again")):
        (copy / "exported.json").write_text(bad)
        says("cannot be opened as an exported model", word)
    (copy / "exported.json").write_text(card)
    for change in ({"batch_size": 0}, {"batch_size": -3}, {"format": 3}, {"precision": None, "engine": "torch"}):
        resealed(copy, **change)
        says("cannot be opened")
        (copy / "exported.json").write_text(card)
    (copy / "graph.onnx").unlink()
    says("graph.onnx")
    (copy / "exported.json").unlink()
    says("model.json")


# ---- what is refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = replace(exported("patchcore"), card=dict(exported("patchcore").card) | {"certificate": {}})
    return write_exported(model, tmp_path_factory.mktemp("exported") / "out")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def resealed(where, **changes):
    "The card with changes, and with a hash that fits them."
    card = json.loads((where / "exported.json").read_text()) | changes
    (where / "exported.json").write_text(json.dumps(card | {"sha256": runtime.sealed(card)}))


def test_folders_that_were_changed_are_one_line(copy, tmp_path):
    graph, card = (copy / "graph.onnx").read_bytes(), (copy / "exported.json").read_text()
    assert "no such folder" in line_of(load_exported, tmp_path / "none")
    for bad in (graph[:-1], graph[: len(graph) // 2], b"", graph[:-1] + b"\0"):
        (copy / "graph.onnx").write_bytes(bad)
        assert "graph.onnx was altered" in line_of(load_exported, copy)
    (copy / "graph.onnx").write_bytes(graph)
    for bad in ("", "{", "[]", "{}", "1e999", card[: len(card) // 2], card.replace('"fp32"', '"bf16"')):
        (copy / "exported.json").write_text(bad)
        assert "copy" in line_of(load_exported, copy)
    (copy / "exported.json").write_text(card)
    for changes, word in (({"format": 9}, "format 9"), ({"engine": "tensorrt"}, "KeyError"), ({"scoring": {}}, "Key"),
                          ({"calibration": {"scores": ["x"]}}, "copy")):  # fmt: skip
        resealed(copy, **changes)
        assert word in line_of(load_exported, copy)
        (copy / "exported.json").write_text(card)
    (copy / "graph.onnx").unlink()
    line_of(load_exported, copy)


def test_a_graph_that_is_none_and_one_of_another_size_are_one_line(copy):
    for bad in (b"no graph", onnx_graph(torch.nn.Conv2d(3, 1, 3), (64, 64), ("out",))):
        (copy / "graph.onnx").write_bytes(bad)
        resealed(copy, graph={"graph.onnx": hashlib.sha256(bad).hexdigest()})
        line_of(load_exported, copy)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_graph_that_takes_another_number_of_pictures_is_one_line_when_it_is_asked(engine, copy):
    fixed = onnx.ModelProto.FromString((copy / "graph.onnx").read_bytes())
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shape = onnx.helper.make_node("Constant", [], ["as one"], value_ints=[1, 3, 64, 64])
    first = onnx.helper.make_node("Reshape", ["pixels", "as one"], ["one picture"])
    for node in fixed.graph.node:
        node.input[:] = ["one picture" if name == "pixels" else name for name in node.input]
    nodes = [shape, first, *fixed.graph.node]
    del fixed.graph.node[:]
    fixed.graph.node.extend(nodes)
    graph = made_for(engine, fixed.SerializeToString())
    for name, data in graph.items():
        (copy / name).write_bytes(data)
    resealed(copy, engine=engine, graph={name: hashlib.sha256(data).hexdigest() for name, data in graph.items()})
    model = load_exported(copy)
    assert model.inspect(SEEN[:1]).score.shape == (1,)
    assert "cannot compute the graph for pictures (8, 3, 64, 64)" in line_of(model.inspect, SEEN[:8])


def test_a_graph_of_a_later_engine_says_which_one(copy):
    later = onnx.ModelProto.FromString((copy / "graph.onnx").read_bytes())
    later.ir_version = 10**6
    (copy / "graph.onnx").write_bytes(data := later.SerializeToString())
    resealed(copy, engine_version="99.1", graph={"graph.onnx": hashlib.sha256(data).hexdigest()})
    assert "exported with 99.1, and here is" in line_of(load_exported, copy)


def test_scorings_that_fit_no_picture_are_one_line(copy):
    card = json.loads((copy / "exported.json").read_text())
    for change in ({"tile": 0}, {"tile": -5}, {"tile": "64"}, {"tile": 64, "overlap": 64}, {"opening": -3}):
        resealed(copy, scoring=card["scoring"] | change)
        line_of(load_exported, copy)
    resealed(copy, scoring=card["scoring"] | {"view": card["scoring"]["view"] | {"size": [32, 32]}})
    assert "cannot be opened" in line_of(load_exported, copy)


def test_external_data_is_refused_wherever_it_stands(copy, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4))
    numbers = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    numbers.external_data.add(key="location", value="../secret")
    empty = onnx.helper.make_graph([], "inner", [], [], [numbers])
    places = [
        onnx.helper.make_graph([], "g", [], [], [numbers]),
        onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["w"], value=numbers)], "g", [], []),
        onnx.helper.make_graph([onnx.helper.make_node("If", ["c"], ["w"], then_branch=empty, else_branch=empty)], "g", [], []),
    ]
    for graph in places:
        data = onnx.helper.make_model(graph).SerializeToString()
        assert points_outside(data)
        (copy / "graph.onnx").write_bytes(data)
        resealed(copy, graph={"graph.onnx": hashlib.sha256(data).hexdigest()})
        assert "another file" in line_of(load_exported, copy)
    assert not points_outside(exported("patchcore").engine.graph["graph.onnx"])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_gone_through(data):
    try:
        points_outside(data)
    except (ValueError, RecursionError):
        pass


def test_in_full_precision_a_verdict_that_differs_is_refused_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "exported_from", lambda *args: off)
    model = exported("patchcore")
    off = replace(model, engine=Off(*(getattr(model.engine, name) for name in ("name", "precision", "graph"))))
    assert "verdicts differ" in line_of(detector("patchcore").export, tmp_path / "out")
    assert not list(tmp_path.iterdir())


class Off(Engine):
    "An engine that is wrong."

    def __call__(self, x):
        maps, scores = super().__call__(x)
        return [maps, 3 * scores]


def test_the_threshold_of_a_part_set_aside_is_the_engines_own(tmp_path):
    model = MeanPicture(calibration=0.3).fit(GOOD, device="cpu")
    again = load_exported(model.export(tmp_path / "out", "onnx") and tmp_path / "out")
    held = model.fitted_.held_out
    old, new = model.inspect(held), again.inspect(held)
    np.testing.assert_array_equal(old.is_anomalous, new.is_anomalous)
    assert again.threshold in new.score and again.card["certificate"]["compared_on"] == "calibration"


# ---- NumPy says what torch says


VIEWS = [View(32), View((20, 48)), View(24, resize=40), View(40, fit="pad"), View((64, 30), fit="crop")]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(50, 70), (32, 32), (19, 23), (140, 90)])
def test_views_are_the_same_without_torch(view, size):
    rng = np.random.default_rng(0)
    for image in (rng.integers(0, 256, (*size, 3), np.uint8), rng.random((*size, 3), np.float32)):
        np.testing.assert_allclose(view.pixels(image), view.image(image).numpy(), atol=3e-5)


def test_maps_are_read_and_laid_the_same_without_torch():
    raw = np.random.default_rng(0).random((9, 7, 9)).astype(np.float32)
    t = torch.from_numpy(raw)
    for size, sigma in (((7, 9), 0.0), ((28, 31), 0.0), ((28, 31), 1.7), ((5, 4), 0.0)):
        np.testing.assert_allclose(as_wide(raw, size, sigma), full_size(t, size, sigma).numpy(), rtol=1e-5, atol=1e-6)
    for how in ("max", "mean", "top_percent"):
        np.testing.assert_allclose(pooled(raw, how), image_score(t, how).numpy(), rtol=1e-6)
    scoring = runtime.Scoring(View(32), tile=40, overlap=10)
    mosaic = Mosaic((100, 100), 40, 10)
    mosaic.lay(t[: len(mosaic.corners)])
    np.testing.assert_allclose(laid_together((100, 100), scoring, raw[: len(mosaic.corners)]), mosaic.map.numpy(), atol=1e-6)
    wide = runtime.Scoring(View(32, fit="pad"), sigma=1.0, map_opening=3)
    maps, scores = runtime.read_raw(raw, wide, (slice(4, 28), slice(0, 32)))
    part = opened(full_size(full_size(t, (32, 32))[:, 4:28], (24, 32), 1.0), 3)
    np.testing.assert_allclose(maps, part.numpy(), atol=1e-6)
    np.testing.assert_allclose(scores, image_score(part, "max").numpy(), rtol=1e-5)


CROPS, PADDED = {"tile": 40, "overlap": 8, "image_size": 32}, {"framing": "pad"}


@pytest.mark.parametrize("how", [CROPS, PADDED, PADDED | {"studentise": True}])
def test_crops_and_padded_pictures_are_judged_the_same(how, tmp_path):
    wide = np.pad(SEEN, ((0, 0), (0, 0), (0, 23), (0, 0)), mode="reflect")
    model = MeanPicture(**{"image_size": 48} | how).fit(wide[:8], device="cpu")
    write_exported(replace(made := runtime.exported_from(model, "onnx", "fp32", None),
                           card=dict(made.card) | {"certificate": {}}), tmp_path / "out")  # fmt: skip
    old, new = model.inspect(wide), load_exported(tmp_path / "out").inspect(wide)
    np.testing.assert_allclose(new.score, old.score, rtol=1e-4)
    assert new.map.shape == old.map.shape and (new.is_anomalous == old.is_anomalous).mean() > 0.9
    np.testing.assert_allclose(new.map, old.map, rtol=1e-5, atol=1e-4)


def test_what_is_usual_lies_beside_the_graph_of_padded_pictures(tmp_path):
    model = MeanPicture(image_size=48, studentise=True, **PADDED).fit(SEEN, device="cpu")
    made = runtime.exported_from(model, "onnx", "fp32", None)
    folder = write_exported(replace(made, card=dict(made.card) | {"certificate": {}}), tmp_path / "out")
    assert (folder / "usual.npy").stat().st_size == 128 + 8 * 48 * 48
    assert json.loads((folder / "exported.json").read_text())["format"] == 2, "older code, which would overlook it, refuses it"
    good = np.load(folder / "usual.npy")
    np.testing.assert_array_equal(good[1], model.fitted_.judge.usual.spread.numpy())
    wrong = [np.zeros_like(good), good[:1], good.astype(np.float64), good[:, :-1], np.full_like(good, np.nan)]
    promised = file_of(good).replace(b"(2, 48, 48)", b"(9, 99, 99)")
    for bad in [*(file_of(array) for array in wrong), b"", promised, file_of(np.array([{}]), allow_pickle=True)]:
        (folder / "usual.npy").write_bytes(bad)
        assert "usual.npy was altered" in line_of(load_exported, folder)
        hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("graph.onnx", "usual.npy")}
        resealed(folder, graph=hashes)
        line_of(load_exported, folder)
        resealed(folder, graph=hashes | {"usual.npy": hashlib.sha256(file_of(good)).hexdigest()})
    (folder / "usual.npy").write_bytes(file_of(good))
    assert load_exported(folder).inspect(SEEN).map.shape == model.inspect(SEEN).map.shape


def file_of(array: np.ndarray, **options) -> bytes:
    "The array as a .npy file."
    np.save(file := io.BytesIO(), array, **options)
    return file.getvalue()


@given(st.integers(1, 3000), st.floats(0.001, 0.999))
@settings(max_examples=60, deadline=None)
def test_the_tail_of_a_binomial_is_scipys(n, p):
    m = int((n + 1) * p)
    np.testing.assert_allclose(_tail(m, n, p), binom.sf(np.arange(m), n, p), atol=1e-10)


@pytest.mark.slow
def test_kdads_gradients_are_exported_unrolled_and_its_loss_says_why_not():
    model = KDAD(method="plain", image_size=32, width=4, levels=(1, 2), **NET).build((32, 32))
    x = torch.rand(3, 3, 32, 32)
    graph = Engine("onnx", "fp32", {"graph.onnx": onnx_graph(model.exportable((32, 32)), (32, 32), ("raw",))})
    np.testing.assert_allclose(graph(x.numpy())[0], model(x).detach().numpy(), rtol=1e-3, atol=1e-7)
    assert "loss" in line_of(model.exportable, (32, 32), False)


def test_pictures_are_decoded_and_named_where_they_fail(folder, tmp_path):
    model = load_exported(folder)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert "bad.png" in line_of(model.inspect, tmp_path / "bad.png")
    with pytest.raises(ValueError, match="target_fpr"):
        model.inspect(SEEN[:1], target_fpr=1e-6)
    assert len(model.inspect(as_image_set(SEEN), target_fpr=0.3)) == len(SEEN)
