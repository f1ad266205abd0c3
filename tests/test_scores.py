"""Maps measured by what good pictures show: the sums, the module, and that no picture takes part in measuring itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from g100.algorithms.semiorth import SemiOrthogonal
from g100.experiments.watch import audit
from g100.foundations.detector import algorithm, load
from g100.foundations.errors import G100Error
from g100.foundations.lessons import folds, split
from g100.foundations.runtime import load_exported
from g100.foundations.scores import Usual, sums, usual
from g100.foundations.sources import as_image_set
from g100.foundations.store import read_model, write_model
from tests.toys import MeanPicture, line_of, pictures, spotted

SETTINGS = {"image_size": 16, "sigma": 1.0, "studentise": True, "target_fpr": 0.1}


def by_hand(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Mean and denominator of Eq. 1, from maps (n, H, W), by NumPy alone."
    variance = np.var(maps.astype(np.float64), axis=0)
    return maps.mean(0), np.sqrt(variance + variance.mean())


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_sums_add_up_to_mean_and_spread(n, H, W, seed):
    maps = np.random.default_rng(seed).normal(3, 2, (n, H, W))
    found = usual(sums(torch.from_numpy(maps[:1]), (H, W)) + sums(torch.from_numpy(maps[1:]), (H, W)))
    mean, spread = by_hand(maps)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-5)
    if n > 1 and spread.min() > 1e-3:
        np.testing.assert_allclose(found.spread, spread, rtol=1e-4)
    else:
        assert (found.spread > 0).all()


def test_a_place_that_no_picture_shows_is_measured_by_the_others():
    maps = torch.randn(20, 4, 6, generator=torch.Generator().manual_seed(0))
    found = usual(sums(maps, (8, 6), (slice(2, 6), slice(0, 6))))
    mean, spread = by_hand(maps.numpy())
    np.testing.assert_allclose(found.mean[2:6], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean[0], np.full(6, mean.mean()), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.spread[7], np.full(6, np.sqrt(2 * maps.numpy().var(0).mean())), rtol=1e-4)
    assert torch.equal(found(maps, (slice(2, 6), slice(0, 6))), (maps - found.mean[2:6]) / found.spread[2:6])


def test_maps_that_are_all_alike_are_measured_by_1():
    found = usual(sums(torch.full((5, 3, 3), 7.0), (3, 3)))
    assert torch.equal(found.spread, torch.ones(3, 3))
    assert torch.equal(found(torch.full((1, 3, 3), 9.0)), torch.full((1, 3, 3), 2.0))


def plain_maps(detector: MeanPicture, mean: np.ndarray, X: np.ndarray) -> np.ndarray:
    "The maps of a mean picture (16, 16, 3) in [0, 1] for X, without studentising."
    plain = MeanPicture(image_size=16, sigma=1.0).fit(X)
    plain.fitted_.model.mean.copy_(torch.from_numpy(mean).permute(2, 0, 1))
    return plain.inspect(X).map


def test_with_a_part_set_aside_those_that_teach_say_what_is_usual():
    X = pictures(30, 16)
    detector = MeanPicture(**SETTINGS, calibration=0.3, seed=4).fit(X)
    numbers = as_image_set(X)
    teach, held = split(numbers, 0.3, 4)
    at = [numbers.names.index(name) for name in teach.names]
    maps = plain_maps(detector, X[at].mean(0, dtype=np.float64).astype(np.float32) / 255, X)
    mean, spread = by_hand(maps[at])
    np.testing.assert_allclose(detector.fitted_.judge.usual.mean, mean, rtol=1e-4, atol=1e-6)
    found = detector.inspect(X)
    np.testing.assert_allclose(found.map, (maps - mean) / spread, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.score, found.map.max((1, 2)))
    scores = sorted(found.score[[numbers.names.index(name) for name in held.names]])
    np.testing.assert_allclose(np.sort(detector.calibration_scores_), scores, rtol=1e-5)


def test_across_folds_no_picture_takes_part_in_measuring_itself():
    X, scores = pictures(23, 16), np.zeros(23)
    detector = MeanPicture(**SETTINGS, calibration="cross", seed=1).fit(X)
    parts, maps = folds(23, 1), np.zeros((23, 16, 16), np.float32)
    for held in parts:
        mean = np.delete(X, held, axis=0).mean(0, dtype=np.float64).astype(np.float32) / 255
        maps[held] = plain_maps(detector, mean, X)[held]
    for held in parts:
        mean, spread = by_hand(np.delete(maps, held, axis=0))
        scores[held] = ((maps[held] - mean) / spread).max((1, 2))
    np.testing.assert_allclose(detector.calibration_scores_, scores, rtol=1e-3)
    mean, spread = by_hand(maps)
    np.testing.assert_allclose(detector.fitted_.judge.usual.mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(detector.fitted_.judge.usual.spread, spread, rtol=1e-3)


@pytest.mark.parametrize("more", [{"framing": "pad"}, {"tile": 24, "overlap": 8}, {"image_size": (16, 24)}])
@pytest.mark.parametrize("calibration", [0.3, "cross"])
def test_it_goes_with_every_view_and_is_saved(tmp_path, more, calibration):
    X = pictures(20, 40)[:, :32]
    detector = MeanPicture(**SETTINGS | {"target_fpr": 0.2} | more, calibration=calibration).fit(X)
    found = detector.inspect(spotted(3, 40)[0])
    assert np.isfinite(found.score).all() and found.is_anomalous.all()
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").inspect(spotted(3, 40)[0]).map, found.map)


def test_pictures_of_other_shapes_are_padded_to_where_nothing_is_usual(tmp_path):
    for i, x in enumerate(pictures(20, 40)[:, :20]):
        Image.fromarray(x).save(tmp_path / f"{i:02}.png")
    detector = MeanPicture(**SETTINGS | {"target_fpr": 0.2}, framing="pad", calibration=0.3).fit(tmp_path)
    tall = detector.inspect(pictures(2, 40, seed=5)[:, :, :20])
    assert np.isfinite(tall.map).all() and tall.map.shape == (2, 16, 8)


def test_recalibrating_keeps_what_is_usual_and_refuses_another_smoothing():
    detector = MeanPicture(**SETTINGS, calibration=0.3).fit(pictures(30, 16))
    known = detector.fitted_.judge.usual
    detector.set_params(image_score="mean").recalibrate(pictures(20, 16, seed=3))
    assert detector.fitted_.judge.usual is known and len(detector.calibration_scores_) == 20
    assert "sigma was 1.0 at fit" in line_of(detector.set_params(sigma=3.0).recalibrate, pictures(20, 16, seed=3))


def test_an_audit_measures_each_picture_by_others():
    X = pictures(23, 16)
    found = audit(MeanPicture(**SETTINGS, seed=1), X)
    fitted = MeanPicture(**SETTINGS, calibration="cross", seed=1).fit(X)
    np.testing.assert_array_equal(found.score, fitted.calibration_scores_)


@pytest.mark.parametrize("calibration", [0.3, "cross"])
def test_more_pictures_are_measured_too(calibration):
    settings = SETTINGS | {"image_size": 64, "levels": (2,), "k": 8, "weights": "random", "target_fpr": 0.2}
    detector = SemiOrthogonal(**settings, calibration=calibration).fit(pictures(30, 64))
    before = detector.fitted_.judge.usual
    detector.partial_fit(pictures(30, 64, seed=5))
    after, maps = detector.fitted_.judge.usual, detector.inspect(pictures(40, 64, seed=6)).map
    assert (after is before) == (calibration != "cross")
    assert abs(maps.mean()) < 1 and np.abs(maps).max() < 20
    assert "sigma was" in line_of(detector.set_params(sigma=2.5).partial_fit, pictures(9, 64, seed=7))


@pytest.mark.parametrize("wrong", [torch.full((16, 16), float("nan")), torch.zeros(16, 16), torch.ones(16, 15),
                                   torch.ones(16, 16, dtype=torch.int64), None])  # fmt: skip
def test_a_spread_that_is_none_is_refused(tmp_path, wrong):
    folder = MeanPicture(**SETTINGS, calibration=0.3).fit(pictures(30, 16)).save(tmp_path / "model")
    card, tensors = read_model(folder)
    tensors.pop("usual.spread")
    if wrong is not None:
        tensors["usual.spread"] = wrong
    write_model(folder, card, tensors, True)
    with pytest.raises(G100Error, match=r"usual\.spread"):
        load(folder)


def test_a_studentised_judge_is_exported_with_any_number_of_pictures():
    detector = MeanPicture(**SETTINGS, calibration=0.3).fit(pictures(30, 16))
    judge, x = detector.fitted_.judge, torch.rand(3, 3, 16, 16)
    exported = torch.export.export(judge, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)).module()
    for n in (1, 7):
        x = torch.rand(n, 3, 16, 16)
        for a, b in zip(exported(x), judge(x), strict=True):
            torch.testing.assert_close(a, b)
    assert isinstance(judge.usual, Usual)


@pytest.mark.parametrize("framing", ["stretch", "pad"])
def test_an_exported_model_measures_too(framing, tmp_path):
    tall = slice(None) if framing == "stretch" else slice(4, 12)  # so that something is padded
    settings = SETTINGS | {"target_fpr": 0.2, "framing": framing}
    detector = MeanPicture(**settings, calibration=0.3).fit(pictures(30, 16)[:, tall], device="cpu")
    X = spotted(5, 16)[0][:, tall]
    detector.export(tmp_path / "graph", engine="onnx")
    found, asked = detector.inspect(X), load_exported(tmp_path / "graph").inspect(X)
    assert found.map.shape[1:] == ((16, 16) if framing == "stretch" else (8, 16))
    np.testing.assert_allclose(asked.map, found.map, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(asked.is_anomalous, found.is_anomalous)


LEARNERS = {
    "riad": {"ks": (4, 8), "width": 4, "depth": 2}, "favae": {"width": 4, "z": 8, "levels": (1, 2)}, "kdad": {"width": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_trained_measures_its_maps_by_default_and_is_saved_so(name, tmp_path):
    "Training does not see it: the same weights with the plain map give the measured one by Eq. 1."
    cls, small = algorithm(name), LEARNERS[name] | {"image_size": 32, "sigma": 1.0, "epochs": 1, "train_batch": 6}
    good, new = pictures(20, 32), pictures(4, 32)
    measured, plain = (cls(**small | more).fit(good, device="cpu") for more in ({}, {"studentise": False}))
    known = measured.fitted_.judge.usual
    A, Z = plain.inspect(new).map, measured.inspect(new).map
    np.testing.assert_allclose(Z, (A - known.mean.numpy()) / known.spread.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(load(measured.save(tmp_path / "model"), "cpu").inspect(new).map, Z)
    assert not cls.paper().studentise


def test_the_benchmark_of_learners_counts_each_region_once():
    "Two regions a picture, masks and maps of another size than the pictures': the same numbers as from the metrics."
    from g100.foundations.metrics import auroc
    from g100.foundations.pictures import ImageSet
    from g100.foundations.regions import aupro
    from tests.benchmarks.learners import columns

    bad, masks = spotted(5, 32)
    masks[:, 0, 0] = True
    detector = MeanPicture(**SETTINGS | {"image_size": 32}).fit(pictures(30, 32), device="cpu")
    labels, both = [0] * 5 + [1] * 5, [*pictures(5, 32, seed=3), *bad]
    images = ImageSet(both, map(str, range(10)), labels, ["-"] * 10, [None] * 5 + [*masks])
    maps = detector.inspect(images).map
    found, truth = columns(detector, images, maps), np.concatenate([np.zeros_like(masks), masks])
    assert found["pixel_auroc"] == round(auroc(truth.ravel(), maps.ravel()), 4) > 0.5
    assert found["aupro"] == round(aupro(truth, maps), 4)
