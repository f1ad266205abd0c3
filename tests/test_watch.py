"""The audit against folds by hand, the alarm against Monte Carlo and Ville's bound."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from g100.experiments.watch import PERTURBATIONS, Monitor, audit, bets, online_p_values, perturbed
from g100.foundations.detector import Inspection
from tests.benchmarks.robustness import SETTINGS as MEASURED
from tests.toys import MeanPicture, line_of, pictures, spotted

SETTINGS = {"image_size": 32, "sigma": 1.0}
pytestmark = pytest.mark.filterwarnings("ignore:.*false-positive rate.*")


@pytest.fixture(scope="module")
def fitted():
    return MeanPicture(**SETTINGS).fit(pictures(100))


def of(scores) -> Inspection:
    "An inspection that holds nothing but scores."
    scores = np.asarray(scores, dtype=float)
    blank = np.zeros((len(scores), 1, 1))
    return Inspection(tuple(map(str, range(len(scores)))), scores, blank, blank > 0, scores > np.inf)


# --- the audit ---


def test_the_audit_says_what_the_calibration_keeps():
    X = pictures(22)
    seen, crossed = audit(MeanPicture(**SETTINGS), X), MeanPicture(**SETTINGS, calibration="cross").fit(X)
    np.testing.assert_array_equal(seen.score, crossed.calibration_scores_)
    np.testing.assert_array_equal(seen.map.max(axis=(1, 2)), crossed.calibration_.peaks)
    assert seen.calibration.threshold == crossed.threshold_ and seen.calibration.method == "cross"
    assert len(seen) == 22 and seen.images is not None and seen[3].score[0] == seen.score[3]


def test_the_audit_finds_what_was_hidden_and_leaves_the_detector_alone():
    detector, X = MeanPicture(**SETTINGS), np.concatenate([pictures(40), spotted(3)[0]])
    seen = audit(detector, X)
    assert set(np.argsort(-seen.score)[:3]) == {40, 41, 42} and (seen.p_value[40:] <= 4 / 44).all()
    assert not hasattr(detector, "fitted_") and detector.calibration == 0.2
    assert seen.map[40:].max(axis=(1, 2)).min() > seen.map[:40].max()


def test_the_audit_of_crops_has_maps_as_large_as_pictures():
    seen = audit(MeanPicture(**SETTINGS | {"image_size": 16}, tile=24, overlap=0), [*pictures(6, 48), *pictures(4, 72)])
    assert [m.shape for m in seen.map] == [(48, 48)] * 6 + [(72, 72)] * 4 and [m.dtype for m in seen.mask] == [bool] * 10


def test_what_cannot_be_audited_is_one_line():
    assert "at least 2" in line_of(lambda: audit(MeanPicture(**SETTINGS), pictures(1)))
    assert "labelled abnormal" in line_of(lambda: audit(MeanPicture(**SETTINGS), pictures(4), y=[0, 1, 0, 0]))


# --- the p-values of a stream ---


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_p_values_lie_between_those_of_all_ties_higher_and_none(reference, scores):
    found, past = online_p_values(sorted(reference), scores, np.random.default_rng(0)), list(reference)
    for p, s in zip(found, scores, strict=True):
        higher, equal = sum(x > s for x in past), sum(x == s for x in past)
        assert higher <= p * (len(past) + 1) <= higher + equal + 1
        past.append(s)


def test_p_values_of_a_stream_are_uniform_and_independent():
    rng = np.random.default_rng(1)
    draws = rng.integers(0, 20, (3000, 18)).astype(float)
    p = np.array([online_p_values(sorted(row[:8]), row[8:], rng) for row in draws])
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in p.T)
    assert np.abs(np.corrcoef(p.T) - np.eye(10)).max() < 0.08


def test_a_bet_on_a_uniform_number_is_fair():
    capital = np.array([0.2, 1.0, 3.0])
    mean = np.mean([bets(capital, p).sum() for p in (np.arange(1000) + 0.5) / 1000])
    assert mean == pytest.approx(capital.sum()) and (bets(capital, 0.0) > 0).all() and (bets(capital, 1.0) > 0).all()


# --- the alarm ---


def test_the_alarm_rings_wrongly_no_more_often_than_it_says(fitted):
    "Streams of 1000, with the reference drawn anew each time; Ville's bound holds for every length."
    rang = 0
    for seed in range(20):
        scores, monitor = np.random.default_rng(seed).gamma(3, size=1040), Monitor(fitted, false_alarm=0.05, seed=seed)
        monitor.reference = sorted(scores[:40].tolist())
        rang += monitor.watch(of(scores[40:]))
    assert rang <= 3  # the probability of more is 0.016 at a rate of 0.05


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_a_drift_either_way_is_seen_soon(shift, fitted):
    scores, monitor = np.random.default_rng(3).normal(size=500), Monitor(fitted, false_alarm=0.01)
    monitor.reference = sorted(scores[:100].tolist())
    assert not monitor.watch(of(scores[100:400])) and monitor.alarm is None and "no drift seen" in repr(monitor)
    assert monitor.watch(of(scores[400:] + shift)) and 300 < monitor.alarm < 350
    assert f"picture {monitor.alarm}" in repr(monitor) and len(monitor.capital) == 401 and np.isfinite(monitor.capital).all()


def test_pictures_are_watched_in_parts_as_at_once(fitted):
    X = pictures(30, seed=5)
    one, other = Monitor(fitted), Monitor(fitted)
    one.watch(X)
    for i in range(0, 30, 7):
        other.watch(fitted.inspect(X[i : i + 7]))
    np.testing.assert_allclose(one.capital, other.capital)
    dark = (X * 0.8).astype(np.uint8)
    assert one.watch(dark) and one.alarm >= 30


def test_which_scores_are_the_reference(fitted):
    assert Monitor(fitted).reference == sorted(map(float, fitted.calibration_scores_))
    X = pictures(9, seed=7)
    np.testing.assert_allclose(Monitor(fitted, reference=X).reference, np.sort(-fitted.score_samples(X)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crossed = MeanPicture(**SETTINGS, calibration="cross").fit(pictures(20))
    assert Monitor(crossed).reference == []  # other models made those scores
    assert Monitor(crossed.recalibrate(pictures(20, seed=2))).reference != []


@pytest.mark.parametrize("rate", [0, 1, float("nan"), -0.5])
def test_a_rate_that_is_none_is_one_line(rate, fitted):
    assert "false_alarm" in line_of(lambda: Monitor(fitted, false_alarm=rate))


# --- what a camera can do wrong ---


@pytest.fixture(scope="module")
def photograph():
    "Something smooth with an edge, (60, 80, 3), in colours that differ."
    rows, columns = np.mgrid[:60, :80]
    grey = 90 + 60 * np.sin(rows / 9) * np.cos(columns / 7) + 40 * (columns > 50)
    return np.stack([grey, 0.8 * grey, 255 - grey], axis=2).astype(np.uint8)


def by_definition(kind: str, x: np.ndarray, s: float) -> np.ndarray:
    "The same by other libraries, or by the formula."
    if kind == "gamma":
        return np.vectorize(lambda v: 255 * (v / 255) ** (1 + s))(x)
    if kind == "gain":
        return x - s * x
    if kind == "blur":
        return ndimage.gaussian_filter(x.astype(float), (0.6 * s, 0.6 * s, 0), mode="mirror")
    if kind == "JPEG":
        Image.fromarray(x).save(stored := io.BytesIO(), "JPEG", quality=round(100 - s))
        return np.asarray(Image.open(stored))
    if kind == "shift":
        return np.pad(x, ((round(0.6 * s), 0), (round(0.6 * s), 0), (0, 0)), mode="edge")[:60, :80]
    return ndimage.rotate(x.astype(float), s, reshape=False, order=1, mode="nearest")


@pytest.mark.parametrize("kind, strength, most", [
    ("gamma", 0.5, 0.51), ("gain", 0.3, 0.51), ("blur", 2.0, 2.0), ("JPEG", 40, 6.0), ("shift", 5, 0), ("rotation", 7, 2.0),
])  # fmt: skip
def test_pictures_go_wrong_as_defined(photograph, kind, strength, most):
    before = photograph.copy()
    found, wanted = perturbed(photograph, kind, strength), by_definition(kind, photograph, strength)
    inner = slice(8, -8), slice(8, -8)  # borders are continued in different ways
    difference = np.abs(found.astype(float) - wanted)[inner]
    assert np.quantile(difference, 0.99) <= most and found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    assert np.abs(wanted - photograph.astype(float))[inner].max() > 3 * max(most, 0.5), "it must differ from doing nothing"
    np.testing.assert_array_equal(photograph, before)


def test_a_quarter_turn_is_numpys():
    x = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(perturbed(x, "rotation", 90), np.rot90(x))


def test_noise_has_its_standard_deviation_and_is_the_same_again():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = perturbed(grey, "noise", 6).astype(float) - 128
    assert abs(noise.std() - np.hypot(6, 12**-0.5)) < 0.1 and abs(noise.mean()) < 0.1
    np.testing.assert_array_equal(perturbed(grey, "noise", 6), perturbed(grey, "noise", 6))


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_more_is_worse_and_nothing_is_nothing(photograph, kind):
    strengths = [strength for one, strength in MEASURED if one == kind]
    assert strengths == sorted(strengths) and len(strengths) > 2
    grain = np.random.default_rng(0).integers(-20, 21, (300, 320, 3))
    large = (np.tile(photograph, (5, 4, 1)) + grain).clip(0, 255).astype(np.uint8)
    lost = [np.abs(perturbed(large, kind, s).astype(float) - large).mean() for s in strengths]
    assert lost[0] > 0 and (np.diff(lost) > 0).all() and perturbed(large, kind, 0) is large


def test_another_perturbation_is_one_line():
    assert "did you mean 'blur'" in line_of(perturbed, np.zeros((8, 8, 3), np.uint8), "blurr", 1)
