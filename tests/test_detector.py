"""The contract that every detector keeps, on a small one; test_patchcore.py asks the same of PatchCore."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError

from g100.foundations.pictures import as_image_set
from g100.foundations.detector import Detector, fresh_folder, load, split
from g100.foundations.errors import G100Error
from g100.foundations.maps import tile_starts
from tests.toys import MeanPicture, line_of, pictures, spotted

pytestmark = [
    pytest.mark.xdist_group("detector"),  # its fixtures are made once
    pytest.mark.filterwarnings("ignore:.*false-positive rate.*"),
]
SETTINGS = {"image_size": 32, "sigma": 1.0, "device": "cpu"}


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
    with pytest.raises(ValueError, match="sigmaa"):
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
    np.full((2, 3, 8, 8), np.nan), np.full((2, 3, 8, 8), np.inf), np.full((2, 3, 8, 8), 2.0), np.zeros((2, 8)),
    np.zeros((2, 8, 8, 3), np.int32), [], 7, "nowhere",
])  # fmt: skip
def test_wrong_input_is_one_line(fitted, wrong):
    with pytest.raises(G100Error) as error:
        fitted.inspect(wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("parameters, word", [
    ({"calibration": 0.0}, "calibration"), ({"calibration": 1.0}, "calibration"), ({"target_fpr": 0.0}, "target_fpr"),
    ({"image_score": "maximum"}, "did you mean 'max'"), ({"device": "abacus"}, "device"), ({"batch_size": 0}, "batch_size"),
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
    with pytest.raises(G100Error, match="29 labels for 30"):
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
    assert sorted(os.listdir(tmp_path / "model")) == ["model.json", "model.safetensors"]


def test_an_existing_folder_is_replaced_only_by_force(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    with pytest.raises(G100Error, match="exists"):
        fitted.save(tmp_path / "model")
    fitted.save(tmp_path / "model", force=True)
    assert os.listdir(tmp_path) == ["model"]


def broken(tmp_path, fitted, how):
    folder = fitted.save(tmp_path / "model")
    tensors, card = folder / "model.safetensors", folder / "model.json"
    if how == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-7])
    elif how == "empty":
        tensors.write_bytes(b"")
    elif how == "no tensors":
        tensors.unlink()
    elif how == "no card":
        card.unlink()
    elif how == "half a card":
        card.write_text(card.read_text()[:40])
    elif how == "other version":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"format": 99}))
    elif how == "other algorithm":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"algorithm": "mean-pictur"}))
    elif how == "other parameters":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"parameters": {"colour": 1}}))
    elif how == "pickle":
        (folder / "model.pkl").write_bytes(pickle.dumps({}))
    elif how == "pickle as tensors":
        tensors.write_bytes(pickle.dumps({}))
    return folder


@pytest.mark.parametrize("how", [
    "truncated", "empty", "no tensors", "no card", "half a card", "other version", "other algorithm",
    "other parameters", "pickle", "pickle as tensors",
])  # fmt: skip
def test_a_broken_model_is_one_line_that_names_it(fitted, tmp_path, how):
    folder = broken(tmp_path, fitted, how)
    with pytest.raises(G100Error) as error:
        load(folder)
    assert "\n" not in str(error.value) and ("model" in str(error.value) or "mean-pictur" in str(error.value))


def test_a_missing_model_is_named():
    with pytest.raises(G100Error, match="nowhere"):
        load("nowhere")


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), fresh_folder(tmp_path / "a" / "b") as draft:
        (draft / "half").write_text("half")
        raise RuntimeError
    assert not list((tmp_path / "a").iterdir())


def test_a_failed_replacement_keeps_the_old(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").write_text("kept")
    with pytest.raises(RuntimeError), fresh_folder(tmp_path / "old", force=True):
        raise RuntimeError
    assert (tmp_path / "old" / "kept").read_text() == "kept" and os.listdir(tmp_path) == ["old"]


def test_a_killed_save_leaves_no_model(tmp_path):
    code = f"""
import time
from g100.foundations.detector import fresh_folder
with fresh_folder({str(tmp_path / "model")!r}) as draft:
    (draft / "model.safetensors").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.05)
    assert not (tmp_path / "model").exists()
    for left in tmp_path.iterdir():
        with pytest.raises(G100Error):
            load(left)


def test_every_listed_algorithm_keeps_the_constructor_contract():
    from g100.foundations.detector import ALGORITHMS, algorithm

    for name in ALGORITHMS:
        cls = algorithm(name)
        assert issubclass(cls, Detector) and clone(cls()).get_params() == cls().get_params()
        assert cls.__doc__, name


# --- large pictures, judged in crops ---


@dataclass(eq=False, repr=False, kw_only=True)
class Roughness(Detector):
    "The absolute difference to the mean of the 3 x 3 pixels around: the same everywhere in a picture, but at its border."

    def _fit(self, images):
        self.seen_ = images

    def _raw_map(self, x):
        grey = x.mean(1, keepdim=True)
        return (grey - F.avg_pool2d(grey, 3, 1, 1, count_include_pad=False))[:, 0].abs()


TILED = SETTINGS | {"sigma": 0.0, "tile": 32}


def large(h: int = 83, w: int = 101, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiled():
    return Roughness(**TILED, overlap=8).fit(list(pictures(100, 40)))


def test_a_map_in_crops_is_the_map_of_the_whole_where_crops_see_as_far(tiled):
    "Where no crop that covers a pixel ends within the filter's reach of it, both maps are the same."
    x = large()
    whole = Roughness(**TILED | {"tile": None, "image_size": x.shape[:2]})
    whole._settle()
    expected = whole._judge(whole.view_.image(x)[None])[0][0].numpy()
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
    assert tiled.counts_ == {"train": 80, "calibration": 20} and len(tiled.seen_) == 80 * 4
    assert tiled.seen_[0].shape == (32, 32, 3) and len(tiled.calibration_scores_) == 20


def test_pictures_of_several_sizes_keep_theirs(tiled):
    verdicts = tiled.inspect([large(40, 50), large(32, 32), large(60, 33)])
    assert [m.shape for m in verdicts.map] == [m.shape for m in verdicts.mask] == [(40, 50), (32, 32), (60, 33)]
    assert verdicts.is_anomalous.shape == (3,)


def test_crops_are_judged_in_batches(tiled, monkeypatch):
    seen, judge = [], tiled._judge
    monkeypatch.setattr(tiled, "_judge", lambda x: seen.append(len(x)) or judge(x))
    tiled.inspect([large(83, 101)])
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
