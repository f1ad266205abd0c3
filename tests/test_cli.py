"""The command line and the report: what is left in the folder, and what is said when something is wrong."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import papermill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from g100.experiments.cli import parse_settings
from g100.foundations.errors import G100Error
from g100.experiments.experiment import overlay_name, run_experiment, write_results
from g100.experiments.report import checkpoint_of, template, to_html
from tests.toys import mvtec_folder, pictures, refused

pytestmark = pytest.mark.xdist_group("cli")  # its fixtures are made once

COLUMNS = """algorithm dataset category seed params backbone image_size counts threshold_image threshold_pixel target_fpr
normal_recall abnormal_recall precision_image image_auroc image_aupr image_f1_max pixel_auroc pixel_aupr aupro
pixel_f1_max fit_seconds seconds_per_image peak_memory_mb versions machine commit dataset_sha256""".split()
TINY = ["--backbone", "resnet18", "--weights", "random", "--set", "image_size=64", "--set", "sigma=2", "--device", "cpu"]


def g100(*words) -> subprocess.CompletedProcess:
    "The installed command, in a process of its own."
    command = [Path(sys.executable).parent / "g100", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mvtec_folder(tmp_path_factory.mktemp("data") / "bottle", size=64)


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "result"
    done = g100("run", "patchcore", "--data", f"mvtec:{folder}", "--out", out, *TINY)
    assert done.returncode == 0, done.stderr
    return out, done


def test_run_leaves_everything_and_says_where(result):
    out, done = result
    left = {p.name for p in out.iterdir()}
    assert left == {"metrics.json", "scores.csv", "report.ipynb", "report.html", "model", "pictures"}
    assert len(list((out / "pictures").rglob("*.png"))) == 16
    for name in ("report.html", "pictures", "scores.csv", "model"):
        assert str(out / name) in done.stdout
    assert "image_auroc" in done.stdout and "remembering" in done.stderr, "a live progress bar"
    assert sorted(p.name for p in out.parent.iterdir()) == ["result"], "no drafts are left"


def test_the_row_has_its_columns_and_sound_values(result, folder):
    row = json.loads((result[0] / "metrics.json").read_text())
    assert list(row) == COLUMNS
    assert row["counts"] == {"train": 24, "calibration": 6, "test_normal": 8, "test_abnormal": 8}
    assert row["image_auroc"] == 1.0 and row["pixel_auroc"] > 0.8 and 0 < row["aupro"] <= 1
    assert row["category"] == "bottle" and row["params"]["image_size"] == 64 and len(row["dataset_sha256"]) == 64


def test_the_row_is_what_its_parts_say(result):
    "Recalls and AUROC again, from the table of scores."
    from sklearn.metrics import roc_auc_score

    row = json.loads((result[0] / "metrics.json").read_text())
    with (result[0] / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    y, s = (np.array([float(line[key]) for line in scores]) for key in ("label", "score"))
    called = np.array([int(line["is_anomalous"]) for line in scores])
    assert row["image_auroc"] == pytest.approx(roc_auc_score(y, s))
    assert row["normal_recall"] == (called[y == 0] == 0).mean() and row["abnormal_recall"] == (called[y == 1] == 1).mean()


def test_the_page_asks_nobody_and_hides_nothing(result):
    page = (result[0] / "report.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']?(https?:)?//", page), "self-contained"
    assert page.count("data:image/png;base64") >= 5
    for word in ("Who saw what", "No test picture has set anything", "In hindsight", "In [", "random weights"):
        assert (word.lower() in page.lower()) == (word != "In ["), word
    assert "remembering" not in page, "progress bars stay out"


def test_inspect_judges_new_pictures(within, result, folder, tmp_path):
    out = tmp_path / "verdicts"
    done = within("inspect", result[0] / "model", folder / "test" / "spot", folder / "test" / "good" / "000.png", "--out", out)
    assert done.returncode == 0, done.stderr
    with (out / "verdicts.csv").open() as file:
        verdicts = list(csv.DictReader(file))
    assert len(verdicts) == 9 and all(v["is_anomalous"] == "1" for v in verdicts if "spot" in v["name"])
    for verdict in verdicts:
        assert Image.open(out / "pictures" / verdict["picture"]).size == (64, 64)


def test_every_picture_has_an_overlay_of_its_own(within, result, tmp_path):
    "Names that would be one, were folders flattened or extensions cut off."
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    colours = {"a/b.png": (9, 9, 200), "a_b.png": (9, 200, 9), "a_b.jpg": (200, 9, 9), "a_b.jpg.png": (9, 9, 9)}
    for name, colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(photos / name)
    assert within("inspect", result[0] / "model", photos, "--out", tmp_path / "out").returncode == 0
    with (tmp_path / "out" / "verdicts.csv").open() as file:
        shown = {verdict["name"]: tmp_path / "out" / "pictures" / verdict["picture"] for verdict in csv.DictReader(file)}
    assert set(shown) == set(colours) and len(set(shown.values())) == len(colours)
    assert len({file.read_bytes() for file in shown.values()}) == len(colours), "nobody has written over another's"


IMAGE = st.from_regex(r"([ab_.]{1,3}/){0,2}[ab_]{1,2}(\.png|\.jpg|\.PNG)(\.png)?", fullmatch=True)


@settings(deadline=None, max_examples=300)
@given(st.sets(IMAGE.filter(lambda name: "//" not in name and "/./" not in f"/{name}"), min_size=2))
def test_names_of_overlays_are_as_many_as_names_and_lie_inside(names):
    made = {overlay_name(name) for name in names}
    assert len(made) == len(names) and all(name.endswith(".png") for name in made)
    assert not any(name.startswith("/") or ".." in name.split("/") for name in made)
    assert overlay_name("/etc/a.png") == "root/etc/a.png" and overlay_name("b/a.png") == "b/a.png"


def test_inspect_and_run_give_the_same_scores(within, result, folder, tmp_path):
    within("inspect", result[0] / "model", folder / "test", "--out", tmp_path / "verdicts")
    tables = []
    for file in (result[0] / "scores.csv", tmp_path / "verdicts" / "verdicts.csv"):
        with file.open() as text:
            tables.append({Path(line["name"]).parts[-2:]: line["score"] for line in csv.DictReader(text)})
    assert tables[0] == tables[1]


def test_papermill_alone_runs_the_template(folder, tmp_path):
    parameters = {"data": f"folder:{folder}", "out": str(tmp_path / "result"), "limit_train": 20}
    parameters["parameters"] = {"backbone": "resnet18", "weights": "random", "image_size": 64, "device": "cpu"}
    papermill.execute_notebook(
        template("experiment"), tmp_path / "report.ipynb", parameters, kernel_name="python3", progress_bar=False
    )
    assert json.loads((tmp_path / "result" / "metrics.json").read_text())["counts"]["train"] == 16
    assert "seeded sample of 20" in to_html(tmp_path / "report.ipynb", tmp_path / "page.html").read_text()


# --- what goes wrong: exit code 2, one line, nothing left ---


@pytest.mark.parametrize("words, said", [
    (("patchcor",), "did you mean 'patchcore'"), (("patchcore", "--set", "coreset_ration=1"), "did you mean 'coreset_ratio'"),
    (("patchcore", "--set", "coreset_ratio"), "KEY=VALUE"), (("patchcore", "--set", "coreset_ratio=0"), "coreset_ratio=0"),
    (("patchcore", "--weights", "nowhere.safetensors", "--backbone", "resnet18"), "nowhere.safetensors"),
])  # fmt: skip
def test_run_refuses_in_one_line(within, folder, tmp_path, words, said):
    refused(within("run", *words, "--data", f"mvtec:{folder}", "--out", tmp_path / "out"), said)
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize("spec, said", [
    ("mvtek:x", "did you mean 'mvtec'"), ("mvtec:nowhere", "nowhere"), ("elpv:duo", "duo"), ("mvtec:", "mvtec:DIR"),
])  # fmt: skip
def test_run_refuses_data_in_one_line(within, tmp_path, spec, said):
    refused(within("run", "patchcore", "--data", spec, "--out", tmp_path / "out"), said)
    assert not list(tmp_path.iterdir())


def test_an_unreadable_picture_is_named_or_left_out(within, folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "train" / "good" / "005.png").write_bytes(b"")
    broken = (data / "test" / "spot" / "003.png").read_bytes()
    (data / "test" / "spot" / "003.png").write_bytes(broken[: len(broken) // 2])
    refused(g100("run", "patchcore", "--data", f"mvtec:{data}", "--out", tmp_path / "out", *TINY), "005.png")
    assert not (tmp_path / "out").exists()
    done = g100("run", "patchcore", "--data", f"mvtec:{data}", "--out", tmp_path / "out", *TINY, "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "005.png" in page and "003.png" in page, "what was left out is listed"
    refused(within("inspect", tmp_path / "out" / "model", data / "test", "--out", tmp_path / "verdicts"), "003.png")
    done = within("inspect", tmp_path / "out" / "model", data / "test", "--out", tmp_path / "verdicts", "--skip-unreadable")
    assert done.returncode == 0 and "003.png" in done.stderr


def test_an_existing_result_is_kept_unless_forced(within, result, folder):
    before = (result[0] / "metrics.json").read_bytes()
    words = ("run", "patchcore", "--data", f"mvtec:{folder}", "--out", result[0], *TINY)
    refused(within(*words), "exists", "--force")
    assert (result[0] / "metrics.json").read_bytes() == before
    assert g100(*words, "--force").returncode == 0


def test_inspect_refuses_what_is_no_model(within, folder, tmp_path):
    refused(within("inspect", tmp_path, folder / "test", "--out", tmp_path / "out"), "model.json")
    refused(within("inspect", tmp_path / "none", folder / "test", "--out", tmp_path / "out"), "no such model folder")


def test_list_names_what_there_is(within):
    done = within("list", "--backbones", "resnet18")
    assert done.returncode == 0
    for word in ("patchcore", "elpv:mono", "mvtec:DIR", "lite0", "resnet18"):
        assert word in done.stdout


def test_settings_are_json_where_they_can_be():
    given = ["a=1", "b=0.5", "c=[1, 2]", "d=resnet18", "e=None", "f=true", "g=a=b"]
    expected = {"a": 1, "b": 0.5, "c": [1, 2], "d": "resnet18", "e": None, "f": True, "g": "a=b"}
    assert parse_settings(given) == expected


# --- the experiment as a library ---


def test_no_masks_no_pixel_metrics(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, image in enumerate(pictures(25, 48)):
        Image.fromarray(image).save(flat / f"{i}.png")
    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 48, "verbose": False}
    done = run_experiment("patchcore", f"folder:{flat}", parameters=parameters)
    for column in ("image_auroc", "image_aupr", "abnormal_recall", "pixel_auroc", "aupro", "pixel_f1_max"):
        assert done.row[column] is None
    assert done.row["normal_recall"] is not None and any("false-positive rate" in remark for remark in done.remarks)
    write_results(done, tmp_path / "result")
    with pytest.raises(G100Error, match="finished result"):
        write_results(done, tmp_path / "result")


def test_same_seed_same_row(folder):
    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 64, "verbose": False}
    rows = [run_experiment("patchcore", f"mvtec:{folder}", parameters=parameters, seed=3).row for _ in range(2)]
    measured = {"fit_seconds", "seconds_per_image", "peak_memory_mb"}
    assert [{k: v for k, v in row.items() if k not in measured} for row in rows][0] == {
        k: v for k, v in rows[1].items() if k not in measured
    }


# --- a training that is cut off ---

SMALL = {"image_size": 32, "ks": [4, 8], "width": 4, "depth": 1, "epochs": 1, "sigma": 1, "device": "cpu"}


def test_force_starts_a_training_again(within, tmp_path):
    (tmp_path / "out.checkpoint").write_text("half a training")
    words = ("run", "riad", "--data", "elpv:mono", "--out", tmp_path / "out")
    refused(within(*words, "--resume"), "out.checkpoint", "delete it")
    assert (tmp_path / "out.checkpoint").read_text() == "half a training"
    assert checkpoint_of(tmp_path / "out", force=True, resume=False) == tmp_path / "out.checkpoint"
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_the_users_own_is_left_alone(folder, tmp_path):
    parameters = SMALL | {"verbose": False, "checkpoint": str(tmp_path / "mine")}
    done = run_experiment("riad", f"mvtec:{folder}", parameters=parameters, checkpoint=tmp_path / "another")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and done.row["params"]["checkpoint"] == "mine"
