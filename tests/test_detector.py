"""The contract that every detector keeps, on a small one; test_patchcore.py asks the same of PatchCore."""

import base64
import dataclasses
import json
import os
import pickle
import platform
import re
import stat
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from torch import nn

from g100.foundations.detector import Detector, Inspection, Scoring, load
from g100.foundations.errors import G100Error
from g100.foundations.lessons import Judge, folds, generator, pick_device, split
from g100.foundations.maps import full_size, tile_starts
from g100.foundations.overlay import overlay
from g100.foundations.pictures import ImageSet
from g100.foundations.sources import as_image_set
from g100.foundations.store import write_model
from g100.foundations.views import View
from tests.toys import Mean, MeanPicture, line_of, pictures, spotted

pytestmark = [
    pytest.mark.xdist_group("detector"),  # its fixtures are made once
    pytest.mark.filterwarnings("ignore:.*false-positive rate.*"),
]
SETTINGS = {"image_size": 32, "sigma": 1.0}


@pytest.fixture(scope="module")
def fitted():
    return MeanPicture(**SETTINGS).fit(pictures(100))


# --- scikit-learn's contract: what check_estimator checks, where it has a meaning for pictures ---


def test_constructor_only_stores_its_parameters():
    parameters = MeanPicture().get_params()
    made = MeanPicture(**parameters)
    assert vars(made) == parameters and not any(name.endswith("_") for name in vars(made))


def test_clone_and_set_params(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "threshold_")
    assert copy.set_params(sigma=3.0).sigma == 3.0
    with pytest.raises(G100Error, match="sigmaa.*did you mean 'sigma'"):
        copy.set_params(sigmaa=3.0)


def test_repr_shows_changed_parameters():
    assert repr(MeanPicture(sigma=2.0)) == "MeanPicture(sigma=2.0)"
    assert "MeanPicture" in MeanPicture()._repr_html_()


def test_is_an_outlier_detector():
    assert is_outlier_detector(MeanPicture())


@pytest.mark.parametrize("method", ["inspect", "predict", "score_samples", "decision_function", "anomaly_map"])
def test_unfitted_call_raises(method):
    with pytest.raises(NotFittedError):
        getattr(MeanPicture(), method)(pictures(2))


def test_unfitted_save_raises(tmp_path):
    with pytest.raises(NotFittedError):
        MeanPicture().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_fit_returns_self_and_is_idempotent():
    detector = MeanPicture(**SETTINGS)
    assert detector.fit(pictures(40)) is detector
    first = detector.score_samples(pictures(5, seed=3))
    np.testing.assert_array_equal(detector.fit(pictures(40)).score_samples(pictures(5, seed=3)), first)


def test_fit_does_not_change_its_input_or_its_parameters():
    X = pictures(20)
    before, detector = X.copy(), MeanPicture(**SETTINGS)
    parameters = detector.get_params()
    with pytest.warns(UserWarning, match="false-positive rate"):
        detector.fit(X)
    assert (before == X).all() and detector.get_params() == parameters


def test_scores_do_not_depend_on_batch_or_company(fitted):
    X = pictures(7, seed=4)
    together = fitted.score_samples(X)
    alone = np.concatenate([fitted.score_samples(X[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_signs_and_verdicts_agree(fitted):
    X = np.concatenate([pictures(20, seed=5), spotted(20)[0]])
    verdicts = fitted.inspect(X)
    np.testing.assert_array_equal(fitted.score_samples(X), -verdicts.score)
    np.testing.assert_array_equal(fitted.decision_function(X) < 0, verdicts.is_anomalous)
    np.testing.assert_array_equal(fitted.predict(X), np.where(verdicts.is_anomalous, -1, 1))
    assert verdicts.is_anomalous[20:].all(), "every bright square is found"


def test_fit_predict_is_fit_then_predict():
    X = pictures(40)
    detector = MeanPicture(**SETTINGS)
    np.testing.assert_array_equal(detector.fit_predict(X), clone(detector).fit(X).predict(X))


# --- what may be given ---


def test_all_inputs_give_the_same(fitted, tmp_path):
    from PIL import Image

    X = pictures(6, seed=6)
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    floats = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    expected = fitted.score_samples(X)
    for given in (tmp_path, str(tmp_path), paths, X[..., 0], floats, floats.numpy(), as_image_set(X)):
        np.testing.assert_allclose(fitted.score_samples(given), expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [
    np.full((2, 3, 8, 8), np.nan), np.full((2, 3, 8, 8), np.inf), np.full((2, 3, 8, 8), 2.0), np.zeros(8),
    np.zeros((2, 8, 8, 3), np.int32), [], 7, "nowhere",
])  # fmt: skip
def test_wrong_input_is_one_line(fitted, wrong):
    with pytest.raises(G100Error) as error:
        fitted.inspect(wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("parameters, word", [
    ({"calibration": 0.0}, "calibration"), ({"calibration": 1.0}, "calibration"), ({"target_fpr": 0.0}, "target_fpr"),
    ({"image_score": "maximum"}, "did you mean 'max'"), ({"batch_size": 0}, "batch_size"), ({"opening": 2}, "opening"),
    ({"sigma": -1}, "sigma"), ({"image_size": 0}, "size"), ({"resize": 16}, "resize"), ({"opening": 0}, "opening"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(parameters, word):
    with pytest.raises(G100Error, match=word) as error:
        MeanPicture(**SETTINGS | parameters).fit(pictures(30))
    assert "\n" not in str(error.value)


def test_abnormal_pictures_do_not_teach():
    images = as_image_set(pictures(30))
    with pytest.raises(G100Error, match="1 of 30"):
        MeanPicture(**SETTINGS).fit(images, y=np.eye(30, dtype=int)[3])
    with pytest.raises(G100Error, match=r"y has shape \(29,\) for 30 pictures"):
        MeanPicture(**SETTINGS).fit(images, y=np.zeros(29))
    with pytest.raises(G100Error, match="at least 2"):
        MeanPicture(**SETTINGS).fit(images[:1])


# --- calibration ---


def test_split_is_disjoint_complete_and_seeded():
    images = as_image_set(pictures(53))
    train, held_out = split(images, 0.2, seed=1)
    assert len(held_out) == 11 and sorted(train.names + held_out.names) == sorted(images.names)
    assert split(images, 0.2, seed=1)[1].names == held_out.names != split(images, 0.2, seed=2)[1].names


def test_held_out_pictures_do_not_teach():
    "Changing a held-out picture changes the threshold, and nothing that was learnt."
    X = pictures(50)
    detector = MeanPicture(**SETTINGS).fit(X)
    held_out = int(split(as_image_set(X), 0.2, 0)[1].names[0])
    X[held_out, :8, :8] = 255
    other = MeanPicture(**SETTINGS).fit(X)
    assert torch.equal(detector.mean_, other.mean_) and other.threshold_ > detector.threshold_


def test_false_positive_rate_is_kept_on_average():
    rates = []
    for seed in range(5):
        detector = MeanPicture(**SETTINGS, seed=seed, target_fpr=0.1, calibration=0.5).fit(pictures(200, seed=10 + seed))
        rates.append(detector.inspect(pictures(200, seed=100 + seed)).is_anomalous.mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.04)


def test_pixel_threshold_marks_few_good_pictures_and_the_defects(fitted):
    good, (bad, masks) = fitted.inspect(pictures(200, seed=8)), spotted(20)
    assert good.mask.any(axis=(1, 2)).mean() < 0.15
    found = fitted.inspect(bad).mask
    overlap = (found & masks).sum((1, 2)) / (found | masks).sum((1, 2))
    assert overlap.mean() > 0.6


def test_inspect_streams(fitted):
    parts = list(fitted.inspect_batches(pictures(40)))
    assert [len(part) for part in parts] == [16, 16, 8]


# --- saving and loading ---


def test_saved_and_loaded_detectors_agree_to_the_bit(fitted, tmp_path):
    again = load(fitted.save(tmp_path / "model"), device="cpu")
    X = pictures(5, seed=9)
    a, b = fitted.inspect(X), again.inspect(X)
    assert all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("score", "map", "mask", "is_anomalous"))
    assert again.get_params() == fitted.get_params() and again.color_range_ == fitted.color_range_
    assert sorted(os.listdir(tmp_path / "model")) == [".g100", "model.json", "model.safetensors"]


def test_an_existing_folder_is_replaced_only_by_force(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    with pytest.raises(G100Error, match="exists"):
        fitted.save(tmp_path / "model")
    fitted.save(tmp_path / "model", force=True)
    assert os.listdir(tmp_path) == ["model"]


def broken(tmp_path, fitted, how):
    folder = fitted.save(tmp_path / "model")
    tensors, card = folder / "model.safetensors", folder / "model.json"
    text = card.read_text()
    if how == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-7])
    elif how == "empty":
        tensors.write_bytes(b"")
    elif how == "no tensors":
        tensors.unlink()
    elif how == "no card":
        card.unlink()
    elif how == "half a card":
        card.write_text(text[:40])
    elif how == "altered card":
        card.write_text(text.replace('"sigma": 1.0', '"sigma": 2.0'))
    elif how == "threshold without a value":
        card.write_text(json.dumps(json.loads(text) | {"fitted": {"threshold": float("nan")}}))
    elif how == "other version":
        card.write_text(json.dumps(json.loads(text) | {"format": 1}))
    elif how == "pickle":
        (folder / "model.pkl").write_bytes(pickle.dumps({}))
    elif how == "pickle as tensors":
        tensors.write_bytes(pickle.dumps({}))
    elif how == "tensors of another model":
        other = MeanPicture(**SETTINGS, seed=1).fit(pictures(30)).save(tmp_path / "other")
        tensors.write_bytes((other / "model.safetensors").read_bytes())
    else:  # what only a foreign writer can have made, with every hash right
        read, state = json.loads(text), {name: t.clone() for name, t in fitted.fitted_.tensors().items()}
        wrong = {"other algorithm": {"algorithm": "mean-pictur"}, "other parameters": {"parameters": {"colour": 1}}}
        read.update(wrong.get(how, {}))
        if how == "a weight that is nan":
            state["model.mean"][0, 0, 0] = float("nan")
        if how == "no scores":
            del state["calibration.scores"]
        write_model(folder, read, state, force=True)
    return folder


@pytest.mark.parametrize("how", [
    "truncated", "empty", "no tensors", "no card", "half a card", "altered card", "threshold without a value", "other version",
    "other algorithm", "other parameters", "pickle", "pickle as tensors", "tensors of another model", "a weight that is nan",
    "no scores",
])  # fmt: skip
def test_a_broken_model_is_one_line_that_names_it(fitted, tmp_path, how):
    folder = broken(tmp_path, fitted, how)
    with pytest.raises(G100Error) as error:
        load(folder)
    assert "\n" not in str(error.value) and ("model" in str(error.value) or "mean-pictur" in str(error.value))


def test_a_missing_model_is_named():
    with pytest.raises(G100Error, match="nowhere"):
        load("nowhere")


def test_saved_files_can_be_read_by_whom_the_users_settings_say(fitted, tmp_path):
    before = os.umask(0o022)
    try:
        folder = fitted.save(tmp_path / "model")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}


def test_run_options_are_no_part_of_the_model(fitted, tmp_path):
    again = MeanPicture(**SETTINGS).fit(pictures(100), device="cpu", verbose=True)
    assert again.get_params() == fitted.get_params()
    card = json.loads((again.save(tmp_path / "model") / "model.json").read_text())
    assert not {"device", "verbose", "checkpoint", "resume"} & set(card["parameters"])
    for name in ("device", "verbose", "checkpoint", "resume"):
        assert f"{name} is no parameter of MeanPicture any more" in line_of(lambda n: MeanPicture(**{n: None}), name)
        assert name in line_of(lambda n: MeanPicture().set_params(**{n: None}), name)
    assert "did you mean 'image_size'" in line_of(lambda: MeanPicture(image_siz=3))


# --- a fitted detector judges by what was fitted, whatever happens to it ---


def judged(detector):
    verdicts = detector.inspect(np.concatenate([pictures(5, seed=9), spotted(5)[0]]))
    said = verdicts.score, verdicts.mask, verdicts.is_anomalous
    return [a.tolist() for a in said], detector.threshold_, detector.counts_


@pytest.mark.filterwarnings("ignore:.*at fit and is.*")
@pytest.mark.parametrize("changed", [
    {"image_score": "mean", "sigma": 0}, {"target_fpr": 0.5}, {"opening": 9}, {"image_size": 16},
])  # fmt: skip
def test_a_parameter_set_after_the_fit_moves_no_verdict(changed, tmp_path):
    detector = MeanPicture(**SETTINGS).fit(pictures(60))
    before = judged(detector)
    detector.set_params(**changed)
    assert judged(detector) == before
    again = load(detector.save(tmp_path / "model"), device="cpu")
    assert judged(again) == before and again.get_params() == MeanPicture(**SETTINGS).get_params()


def test_a_changed_parameter_is_named_with_the_way_to_go_on():
    detector = MeanPicture(**SETTINGS).fit(pictures(60)).set_params(sigma=0.0, batch_size=3)
    with pytest.warns(UserWarning, match="sigma was 1.0 at fit and is 0.0 now.*recalibrate") as heard:
        detector.inspect(pictures(2))
    assert len(heard) == 1, "the size of a batch decides nothing"
    with pytest.warns(UserWarning, match="image_size was 32 at fit and is 16 now.*: verdicts are those of the fit; fit again"):
        detector.set_params(sigma=1.0, image_size=16).inspect(pictures(2))
    assert "image_size was 32" in line_of(detector.recalibrate, pictures(30))


def test_recalibrating_is_fitting_with_the_new_values_but_for_who_calibrates():
    new = {"sigma": 0.0, "image_score": "top_percent", "target_fpr": 0.1, "opening": 1}
    detector = MeanPicture(**SETTINGS).fit(pictures(60))
    expected = MeanPicture(**SETTINGS | new).fit(pictures(60))
    held_out = split(as_image_set(pictures(60)), 0.2, 0)[1]
    assert judged(detector.set_params(**new).recalibrate(held_out)) == judged(expected)
    detector.recalibrate(pictures(40, seed=3))
    assert detector.counts_["calibration"] == 40 and torch.equal(detector.mean_, expected.mean_)


class Failing(MeanPicture):
    "Fails while it learns, or gives nan, if it is told to."

    how = None

    def learn(self, model, lessons):
        super().learn(model, lessons)
        if isinstance(self.how, BaseException):
            raise self.how
        if self.how == "nan":
            model.mean[0, 0, 0] = float("nan")


@pytest.mark.parametrize("how", [
    KeyboardInterrupt(), MemoryError(), G100Error("max_memory"), "nan", {"target_fpr": 0.0}, {"target_fpr": float("nan")},
    {"calibration": 7}, {"image_score": "x"},
])  # fmt: skip
def test_a_refit_that_fails_leaves_the_old_detector_to_the_bit(how):
    detector = Failing(**SETTINGS).fit(pictures(60))
    before, record = judged(detector), detector.fitted_
    if isinstance(how, dict):
        detector.set_params(**how)
    else:
        detector.how = how
    with pytest.raises(KeyboardInterrupt if isinstance(how, KeyboardInterrupt) else G100Error):
        detector.fit(pictures(80, seed=5))
    assert detector.fitted_ is record
    if isinstance(how, dict):
        detector.set_params(**{name: getattr(MeanPicture(), name) for name in how})
    assert judged(detector) == before


def test_what_is_not_a_number_is_refused_and_not_called_good():
    poisoned = Judge(Mean((32, 32)), Scoring(View(32)))
    poisoned.model.mean[0, 3, 3] = float("nan")
    detector = MeanPicture(**SETTINGS).fit(pictures(60))
    detector.model_.mean[1, 2, 2] = float("inf")
    assert "000000: its map or score is not finite" in line_of(detector.inspect, pictures(3))
    fresh = Failing(**SETTINGS)
    fresh.how = "nan"
    assert "not finite" in line_of(fresh.fit, pictures(30))
    assert not hasattr(fresh, "threshold_")


# --- where and how ---


def test_auto_on_a_gpu_names_the_gpu(monkeypatch):
    "torch.cuda.set_device refuses a device without an index."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device("auto") == torch.device("cuda", 1) and pick_device("auto").index is not None
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device("auto") == torch.device("cuda", 3)


def test_a_device_that_is_not_there_is_one_line():
    assert "device='abacus'" in line_of(lambda: MeanPicture(**SETTINGS).fit(pictures(30), device="abacus"))


FAULTS = """
import resource
import torch
from g100.foundations.engines import keep_freed
from g100.foundations.lessons import pick_device

def faults():
    "Of a block of 64 MiB that is filled and freed five times."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
pick_device("cpu")
faults()
print(first, faults(), keep_freed())
"""


def counted(before: str = "", **variables: str) -> tuple[int, int, bool]:
    "Page faults of a process, which does something before, until and after a device is picked; whether its allocator was told."
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD", "GLIBC"))}
    words = [sys.executable, "-c", before + FAULTS]
    done = subprocess.run(words, env=clean | variables, capture_output=True, text=True, check=True)
    first, after, told = done.stdout.split()
    return int(first), int(after), told == "True"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_on_the_cpu_freed_memory_is_kept_unless_the_environment_says_otherwise():
    first, after, told = counted()
    assert told and after < first / 10
    first, after, told = counted("import distributed", MALLOC_TRIM_THRESHOLD_="65536")  # a worker of Dask
    assert told and after < first / 10
    assert not counted(MALLOC_TRIM_THRESHOLD_="65536")[2]
    first, after, told = counted(MALLOC_ARENA_MAX="2")
    assert not told and after > first / 2


def test_processes_draw_numbers_of_their_own():
    draws = [torch.rand(4, generator=generator(0, "step", 7, rank)).tolist() for rank in range(3)]
    assert draws[0] != draws[1] != draws[2] and draws[0] == torch.rand(4, generator=generator(0, "step", 7)).tolist()


def test_every_listed_algorithm_keeps_the_constructor_contract():
    from g100.foundations.detector import ALGORITHMS, algorithm

    for name in ALGORITHMS:
        cls = algorithm(name)
        assert issubclass(cls, Detector) and clone(cls()).get_params() == cls().get_params()
        assert cls.__doc__, name


# --- large pictures, judged in crops ---


class Rough(nn.Module):
    "The absolute difference to the mean of the 3 x 3 pixels around: the same everywhere in a picture, but at its border."

    def forward(self, x):
        grey = x.mean(1, keepdim=True)
        return (grey - F.avg_pool2d(grey, 3, 1, 1, count_include_pad=False))[:, 0].abs()


class Roughness(Detector):
    "It has nothing to learn, and notes what it was shown."

    def build(self, size):
        return Rough()

    def learn(self, model, lessons):
        lessons.notes["seen"] = [len(lessons.images), *lessons.images[0].shape]


TILED = SETTINGS | {"sigma": 0.0, "tile": 32}


def large(h: int = 83, w: int = 101, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiled():
    return Roughness(**TILED, overlap=8).fit(list(pictures(100, 40)))


def test_a_map_in_crops_is_the_map_of_the_whole_where_crops_see_as_far(tiled):
    "Where no crop that covers a pixel ends within the filter's reach of it, both maps are the same."
    x = large()
    view = View(x.shape[:2])
    expected = Judge(Rough(), Scoring(view, sigma=0.0))(view.image(x)[None])[0][0].numpy()
    found, near = tiled.inspect([x]).map[0], np.zeros(x.shape[:2], bool)
    for axis, n in enumerate(x.shape[:2]):
        for a in tile_starts(n, 32, 8):
            for edge in (a, a + 31):
                near[(edge, slice(None)) if axis == 0 else (slice(None), edge)] |= edge not in (0, n - 1)
    assert found.shape == expected.shape and (~near).mean() > 0.6
    np.testing.assert_allclose(found[~near], expected[~near], atol=1e-6)
    assert np.abs(found - expected).max() < 0.01, "nor is there a seam where crops end"


def test_the_score_in_crops_is_the_highest_of_the_crops_as_pictures(tiled):
    x = large(32, 56)
    crops = [x[:, left : left + 32].copy() for left in (0, 24)]
    alone = Roughness(**TILED | {"tile": None}).fit(pictures(100, 32)).inspect(crops)
    assert alone.score[0] != alone.score[1]
    np.testing.assert_allclose(tiled.inspect([x]).score, [alone.score.max()], rtol=1e-6)


def test_without_overlap_the_map_is_the_maps_of_the_parts_side_by_side():
    detector = Roughness(**TILED, overlap=0).fit(list(pictures(100, 64)))
    x, half = large(32, 64), Roughness(**TILED | {"tile": None}).fit(pictures(100, 32))
    sides = half.anomaly_map([x[:, :32].copy(), x[:, 32:].copy()])
    np.testing.assert_allclose(detector.anomaly_map([x])[0], np.concatenate(list(sides), axis=1), atol=1e-7)


def test_crops_are_judged_at_the_size_of_the_network():
    detector = Roughness(**TILED | {"image_size": 16}, overlap=16).fit(list(pictures(100, 64)))
    assert detector.anomaly_map([large(50, 70)]).shape == (1, 50, 70)


def test_crops_teach_and_pictures_calibrate(tiled):
    assert tiled.counts_ == {"train": 80, "calibration": 20} and tiled.seen_ == [80 * 4, 32, 32, 3]
    assert len(tiled.calibration_scores_) == 20


def test_pictures_of_several_sizes_keep_theirs(tiled):
    verdicts = tiled.inspect([large(40, 50), large(32, 32), large(60, 33)])
    assert [m.shape for m in verdicts.map] == [m.shape for m in verdicts.mask] == [(40, 50), (32, 32), (60, 33)]
    assert verdicts.is_anomalous.shape == (3,)


def test_crops_are_judged_in_batches(tiled):
    seen = []
    hook = tiled.model_.register_forward_hook(lambda model, inputs, maps: seen.append(len(maps)))
    tiled.inspect([large(83, 101)])
    hook.remove()
    assert max(seen) <= tiled.batch_size and sum(seen) == len(tile_starts(83, 32, 8)) * len(tile_starts(101, 32, 8))


@pytest.mark.parametrize("parameters, word", [
    ({"overlap": 32}, "overlap=32: wants .* below tile=32"), ({"overlap": 40}, "overlap=40"), ({"overlap": -1}, "overlap=-1"),
    ({"tile": 0}, "tile=0"), ({"tile": 64}, "less than tile=64; choose tile=40"), ({"resize": 48}, "resize=48 with tile"),
])  # fmt: skip
def test_wrong_tiling_is_one_line_that_names_it(parameters, word):
    with pytest.raises(G100Error, match=word) as error:
        Roughness(**TILED | parameters).fit(pictures(30, 40))
    assert "\n" not in str(error.value)


def test_a_picture_smaller_than_a_crop_is_refused_by_name(tiled):
    assert "000001 has 31 x 50 pixels, less than tile=32" in line_of(tiled.inspect, [large(), large(31, 50)])


@pytest.fixture(scope="module")
def seen():
    "Verdicts on pictures with strange names, two of them spotted."
    names = ["a.png", "<img src=x onerror=alert(1)>", "$x_1$", "d&\"'", "e"]
    images = [*np.full((3, 48, 48, 3), 128, np.uint8), *spotted(2, 48)[0]]
    found = ImageSet(images, names, [0, 0, 0, 1, 1], ["good"] * 3 + ["spot"] * 2, [None] * 5)
    return MeanPicture(image_size=32, sigma=1.0).fit(pictures(30, 48), device="cpu").inspect(found)


def test_an_inspection_is_taken_apart_as_an_array_is(seen):
    np.testing.assert_array_equal(seen[1:3].score, seen.score[1:3])
    np.testing.assert_array_equal(seen[seen.is_anomalous].map, seen.map[seen.is_anomalous])
    np.testing.assert_array_equal(seen[[4, 0]].mask, seen.mask[[4, 0]])
    assert seen[-1].names == seen["e"].names == ("e",) and len(seen[1]) == 1 and len(seen[:0]) == 0
    assert [part.names[0] for part in seen] == list(seen.names)
    assert seen[[4, 0]].images.names == ("e", "a.png")
    assert Inspection.join([seen[:2], seen[2:]]).images.names == seen.names
    assert "did you mean 'a.png'" in line_of(lambda: seen["a.pn"])
    with pytest.raises(IndexError):
        seen[5]


def test_the_table_of_an_inspection_is_plain(seen):
    rows = json.loads(json.dumps(seen.table()))
    assert [row["name"] for row in rows] == list(seen.names)
    assert [row["is_anomalous"] for row in rows] == seen.is_anomalous.tolist() == [False] * 3 + [True] * 2
    np.testing.assert_allclose([row["score"] for row in rows], seen.score)
    np.testing.assert_allclose([row["marked"] for row in rows], seen.mask.mean(axis=(1, 2)))


def test_an_inspection_shows_itself(seen):
    page = seen._repr_html_()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(sources) == 5 and page.count("<b>abnormal</b>") == 2
    first = cv2.imdecode(np.frombuffer(base64.b64decode(sources[0]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    worst = int(np.argmax(seen.score))
    low_high = seen.calibration.color_range
    np.testing.assert_array_equal(first, overlay(seen.images[worst], seen.map[worst], seen.mask[worst], View(32), low_high))
    assert repr(seen).startswith("Inspection(5 pictures: 2 called abnormal; 6 good pictures calibrate")


def test_an_inspection_plots_one_picture(seen, tmp_path):
    for which in (1, "$x_1$"):
        figure = seen.plot(which)
        figure.savefig(tmp_path / "one.png")
        assert figure.axes[0].get_title() == (seen.names[which] if isinstance(which, int) else which)
    bare = dataclasses.replace(seen, images=None)
    assert bare._repr_html_() is None and "does not know its pictures" in line_of(bare.plot)


def test_large_pictures_in_crops_are_shown_small():
    detector = MeanPicture(image_size=16, sigma=0.0, tile=32).fit(pictures(30, 64), device="cpu")
    seen = detector.inspect([pictures(1, 200)[0], pictures(1, 64)[0]])
    assert seen._repr_html_().count("<img") == 2
    assert seen.plot(0).axes[1].images[0].get_array().shape == (200, 200, 3)


# --- every picture teaches; thresholds that are moved ---


def test_any_detector_can_be_judged_across_folds():
    "K + 1 times learning, for an algorithm that has nothing better; against folds by hand."
    X = pictures(23)
    detector = MeanPicture(**SETTINGS, calibration="cross", target_fpr=0.1).fit(X)
    scores = np.zeros(23)
    for held in folds(23, 0):
        mean = np.delete(X, held, axis=0).astype(np.float64).mean(axis=(0,)) / 255
        raw = torch.from_numpy(np.abs(X[held] / 255 - mean).mean(axis=3)).float()
        scores[held] = full_size(raw, 32, detector.sigma).amax((1, 2)).numpy()
    np.testing.assert_allclose(detector.calibration_scores_, scores, rtol=1e-4)
    np.testing.assert_allclose(detector.mean_.permute(1, 2, 0), X.mean(axis=0) / 255, rtol=1e-4)
    assert detector.counts_ == {"train": 23, "calibration": 23} and len(detector.fitted_.held_out) == 23


def test_crops_of_a_picture_are_left_out_together():
    X = pictures(11, size=48)
    detector = MeanPicture(**SETTINGS | {"image_size": 24}, tile=24, overlap=0, calibration="cross", target_fpr=0.3).fit(X)
    held = folds(11, 0)[0]
    alone = MeanPicture(**SETTINGS | {"image_size": 24}, tile=24, overlap=0, calibration=0.5, target_fpr=0.3)
    others = np.delete(X, held, axis=0)
    model = alone.fit(np.concatenate([others, others])).fitted_.model  # any, to be filled by hand
    model.mean.copy_(torch.from_numpy(others / 255.0).unfold(1, 24, 24).unfold(2, 24, 24).mean((0, 1, 2)))
    expected = alone.inspect(X[held]).score
    np.testing.assert_allclose(detector.calibration_scores_[held], expected, rtol=1e-4)


def test_the_method_and_the_scores_are_saved(tmp_path):
    detector = MeanPicture(**SETTINGS, calibration="cross", confidence=0.6, target_fpr=0.2).fit(pictures(20))
    again = load(detector.save(tmp_path / "model"))
    assert (again.calibration_.method, again.calibration_.confidence, again.calibration) == ("cross", 0.6, "cross")
    np.testing.assert_array_equal(again.calibration_scores_, detector.calibration_scores_)
    assert again.threshold_ == detector.threshold_
    fresh = again.recalibrate(pictures(15, seed=8))
    assert fresh.calibration_.method == "split" and fresh.counts_ == {"train": 20, "calibration": 15}


def test_the_threshold_is_moved_from_the_scores_that_are_kept():
    detector, X = MeanPicture(**SETTINGS, calibration="cross", target_fpr=0.1).fit(pictures(40)), pictures(300, seed=9)
    seen, stricter = detector.inspect(X), detector.inspect(X, target_fpr=0.03)
    np.testing.assert_array_equal(seen.is_anomalous, seen.p_value <= 0.1)
    np.testing.assert_array_equal(stricter.is_anomalous, seen.p_value <= 0.03)
    assert not (stricter.is_anomalous & ~seen.is_anomalous).any() and stricter.calibration.target_fpr == 0.03
    assert all((few <= many).all() for few, many in zip(stricter.mask, seen.mask, strict=True))
    assert detector.threshold_ == seen.calibration.threshold and detector.target_fpr == 0.1
    said = line_of(lambda: detector.inspect(X[:1], target_fpr=0.01))
    assert said.startswith("target_fpr=0.01: 40 good pictures") and "needs 99" in said and "0.024" in said


def test_a_p_value_needs_a_calibration():
    alone = Inspection(("a",), np.zeros(1), np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool), np.zeros(1, bool))
    assert "calibration" in line_of(lambda: alone.p_value) and alone.table()[0]["p_value"] is None


def test_what_has_no_scale_cannot_be_normalised(fitted):
    verdicts = fitted.inspect(pictures(3))
    for record, word in (
        (dataclasses.replace(verdicts.calibration, lowest=None), "the lowest value of the maps was not kept"),
        (dataclasses.replace(verdicts.calibration, lowest=float(verdicts.calibration.peaks.max())), "low < high"),
        (None, "does not know its calibration"),
    ):
        assert word in line_of(dataclasses.replace(verdicts, calibration=record).normalised)


def test_a_models_own_score_is_normalised_by_the_held_out_scores(fitted):
    verdicts = fitted.inspect(np.concatenate([pictures(20, seed=3), spotted(5)[0]]))
    own = dataclasses.replace(verdicts, scoring=dataclasses.replace(verdicts.scoring, image_score="its own"))
    scaled, held = own.normalised(), fitted.calibration_scores_
    np.testing.assert_allclose(scaled.score, (own.score - held.min()) / (held.max() - held.min()), rtol=1e-5)
    assert (scaled.calibration.scores.min(), scaled.calibration.scores.max()) == pytest.approx((0, 1))
    np.testing.assert_array_equal(scaled.map, verdicts.normalised().map)
    np.testing.assert_array_equal(scaled.score > np.float32(scaled.calibration.threshold), verdicts.is_anomalous)


def test_a_model_saved_before_the_lowest_value_was_kept_is_loaded(fitted, tmp_path):
    card = {"algorithm": "mean-picture"} | fitted.fitted_.card()
    assert card["fitted"].pop("lowest") == fitted.calibration_.lowest
    folder = write_model(tmp_path / "model", card, fitted.fitted_.tensors())
    with pytest.raises(G100Error, match="lowest"):
        load(folder).inspect(pictures(2)).normalised()


def test_few_are_said_beside_the_verdicts():
    with pytest.warns(UserWarning, match="needs 19"):
        seen = MeanPicture(**SETTINGS).fit(pictures(10)).inspect(pictures(2, seed=3))
    assert "2 good pictures calibrate" in repr(seen) and "needs 19" in seen._repr_html_()


def test_copies_are_told(tmp_path):
    X = pictures(9)
    with pytest.warns(UserWarning, match=r"1 good picture\(s\) are there twice, the first: 000009 is 000004"):
        MeanPicture(**SETTINGS, calibration="cross", target_fpr=0.3).fit(np.concatenate([X, X[4:5]]))
    for i, x in enumerate([*X, X[2]]):
        Image.fromarray(x).save(tmp_path / f"{i}.png")
    with pytest.warns(UserWarning, match="9.png is 2.png"):
        MeanPicture(**SETTINGS, calibration="cross", target_fpr=0.3).fit(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MeanPicture(**SETTINGS, calibration="cross", target_fpr=0.3).fit(X)


@pytest.mark.parametrize("parameters, n, says", [
    ({"calibration": "corss"}, 9, "calibration='corss'"), ({"calibration": "cross"}, 1, "1 good picture"),
    ({"confidence": 1.0}, 9, "confidence=1.0"), ({"confidence": 0.0}, 9, "confidence=0.0"),
])  # fmt: skip
def test_what_cannot_be_calibrated_is_one_line(parameters, n, says):
    assert says in line_of(lambda: MeanPicture(**SETTINGS | parameters).fit(pictures(n)))
