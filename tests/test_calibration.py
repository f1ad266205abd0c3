"""Thresholds against exact integer arithmetic, the Beta distribution and Monte Carlo coverage."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from g100.foundations.calibration import (
    Calibration,
    conformal_p_values,
    conformal_threshold,
    guaranteed_fpr,
    least_fpr,
    min_max,
    normals_needed,
)
from g100.foundations.errors import G100Error
from g100.foundations.metrics import auroc

property_test = settings(deadline=None, max_examples=50)
percents = st.integers(1, 99)
score_lists = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


@property_test
@given(score_lists, percents)
def test_the_threshold_is_the_order_statistic(scores, percent):
    n = len(scores)
    k = -((-(n + 1) * (100 - percent)) // 100)  # ceil((n + 1) (1 - alpha)) in integers
    assert conformal_threshold(scores, percent / 100) == sorted(scores)[min(k, n) - 1]


@property_test
@given(score_lists, percents, st.randoms())
def test_order_does_not_matter_and_a_smaller_rate_gives_no_lower_threshold(scores, percent, random):
    tau = conformal_threshold(scores, percent / 100)
    assert min(scores) <= tau <= max(scores)
    assert conformal_threshold(scores, percent / 200) >= tau
    random.shuffle(scores)
    assert conformal_threshold(scores, percent / 100) == tau


@property_test
@given(st.integers(1, 500), percents)
def test_leave_one_out_counts_the_guarantee_exactly(n, percent):
    "Of n + 1 distinct scores, each once the new one, exactly m lie above the threshold of the others (Theorem 1)."
    n = min(n, 60)
    scores = np.random.default_rng(n).permutation(n + 1).astype(float)
    beyond = sum(scores[i] > conformal_threshold(np.delete(scores, i), percent / 100) for i in range(n + 1))
    assert beyond / (n + 1) == pytest.approx(guaranteed_fpr(n, percent / 100))


@property_test
@given(st.integers(1, 5000), percents)
def test_the_guarantee_holds_as_soon_as_there_are_enough_normals(n, percent):
    enough = n >= normals_needed(percent / 100)
    assert (guaranteed_fpr(n, percent / 100) <= percent / 100) == enough
    if not enough:
        assert guaranteed_fpr(n, percent / 100) == 1 / (n + 1)


def test_known_numbers():
    assert [normals_needed(a) for a in (0.5, 0.1, 0.05, 0.01, 0.001)] == [1, 9, 19, 99, 999]
    assert conformal_threshold(range(1, 20), 0.05) == 19 and conformal_threshold(range(1, 40), 0.05) == 38
    assert conformal_threshold(range(1, 100), 0.29) == 71  # 100 * 0.29 < 29 in floating point
    assert conformal_threshold(torch.tensor([3.0, 1.0, 2.0]), 0.5) == 2.0
    assert conformal_threshold(np.float32([1, 2, 3]), np.float64(0.5)) == 2.0
    assert normals_needed(0.9) == 1 and guaranteed_fpr(1, 0.9) == 0.5


@pytest.mark.parametrize("n, alpha", [(7, 0.05), (19, 0.05), (50, 0.1), (99, 0.29)])
def test_monte_carlo_coverage(n, alpha):
    "The rate over many calibrations is the guaranteed one, for continuous scores; with ties it is not higher."
    scores = np.random.default_rng(n).gamma(2, size=(40_000, n + 1))
    taus = np.array([conformal_threshold(row[:n], alpha) for row in scores])
    expected = guaranteed_fpr(n, alpha)
    assert (scores[:, n] > taus).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected / 40_000))
    tied = np.floor(scores[:10_000] * 3)
    taus = np.array([conformal_threshold(row[:n], alpha) for row in tied])
    assert (tied[:, n] > taus).mean() <= expected


@pytest.mark.parametrize("n, alpha, m", [(19, 0.05, 1), (99, 0.05, 5), (10, 0.05, 1), (60, 0.3, 18)])
def test_the_realised_rate_of_one_calibration_is_beta(n, alpha, m):
    scores = np.random.default_rng(n).normal(size=(3000, n))
    rates = stats.norm.sf([conformal_threshold(row, alpha) for row in scores])
    assert stats.kstest(rates, stats.beta(m, n + 1 - m).cdf).pvalue > 0.01
    assert stats.kstest(rates, stats.beta(m + 1, n - m).cdf).pvalue < 1e-6  # the test has the power to fail


@property_test
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=50, unique=True), st.integers(0, 2**32 - 1))
def test_min_max_changes_no_ranking_and_hits_its_ends(scores, seed):
    s = np.array(scores, dtype=float)
    scaled = min_max(s, s.min(), s.max())
    assert scaled.min() == 0 and scaled.max() == 1
    assert (np.argsort(scaled) == np.argsort(s)).all()
    y = np.random.default_rng(seed).integers(0, 2, s.size)
    assert auroc(y, scaled) == auroc(y, s)


def test_min_max_is_not_clipped_and_keeps_the_kind():
    assert min_max(np.array([-1.0, 5.0]), 0.0, 2.0).tolist() == [-0.5, 2.5]
    assert min_max(1.0, 0.0, 4.0) == 0.25
    scaled = min_max(torch.tensor([1.0], dtype=torch.float32), 0.0, 4.0)
    assert scaled.dtype == torch.float32 and scaled.tolist() == [0.25]


@pytest.mark.parametrize("call, says", [
    (lambda: conformal_threshold([], 0.1), "scores is empty"),
    (lambda: conformal_threshold([1.0, float("nan")], 0.1), "NaN"),
    (lambda: conformal_threshold([1.0, float("inf")], 0.1), "infinite"),
    (lambda: conformal_threshold([1.0], 0), "target_fpr"),
    (lambda: conformal_threshold([1.0], 1), "target_fpr"),
    (lambda: conformal_threshold([1.0], float("nan")), "target_fpr"),
    (lambda: guaranteed_fpr(0, 0.1), "n must be"),
    (lambda: guaranteed_fpr(5, -0.1), "target_fpr"),
    (lambda: normals_needed(2), "target_fpr"),
    (lambda: conformal_threshold([1.0, 2.0], 0.1, 1.0), "confidence=1.0"),
    (lambda: normals_needed(0.1, 0), "confidence=0"),
    (lambda: conformal_p_values([], [1.0]), "at least one"),
    (lambda: conformal_p_values([1.0], [float("nan")]), "NaN"),
    (lambda: min_max(0.5, 1.0, 1.0), "low < high"),
    (lambda: min_max(0.5, 2.0, 1.0), "low < high"),
    (lambda: min_max(0.5, float("nan"), 1.0), "finite"),
    (lambda: min_max(0.5, 0.0, float("inf")), "finite"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(G100Error, match=says) as error:
        call()
    assert "\n" not in str(error.value)


# --- a promise for one calibration ---


@property_test
@given(st.integers(1, 400), percents, st.integers(1, 99))
def test_the_rank_with_confidence_is_the_largest_that_the_beta_distribution_allows(n, percent, sure):
    alpha, confidence = percent / 100, sure / 100
    m = n + 1 - int(conformal_threshold(np.arange(1, n + 1), alpha, confidence))
    kept = [float(stats.beta(j, n + 1 - j).cdf(alpha)) for j in (m, m + 1) if j <= n]
    enough = n >= normals_needed(alpha, confidence)
    most = max(1, int((n + 1) * percent / 100 + 1e-9))
    assert (kept[0] >= confidence - 1e-9 and (n + 1) * percent >= 100) == enough and (enough or m == 1)
    assert m <= most and (m == most or len(kept) == 1 or kept[1] < confidence + 1e-9)


@pytest.mark.parametrize("n, alpha, confidence", [(71, 0.05, 0.9), (200, 0.05, 0.9), (45, 0.05, 0.9), (120, 0.1, 0.99)])
def test_monte_carlo_confidence(n, alpha, confidence):
    scores = np.random.default_rng(n).normal(size=(4000, n))
    rates = stats.norm.sf([conformal_threshold(row, alpha, confidence) for row in scores])
    plain = stats.norm.sf([conformal_threshold(row, alpha) for row in scores])
    assert (rates <= alpha).mean() >= confidence - 4 * math.sqrt(confidence * (1 - confidence) / 4000)
    assert (plain <= alpha).mean() < confidence  # the average promise is the weaker one


@property_test
@given(percents, st.integers(1, 99))
def test_as_many_as_needed_are_enough_and_one_less_is_not(percent, sure):
    for confidence in (None, sure / 100):
        n = normals_needed(percent / 100, confidence)
        assert least_fpr(n, confidence) <= percent / 100 + 1e-9
        assert n == 1 or least_fpr(n - 1, confidence) > percent / 100 - 1e-9


# --- p-values ---


@property_test
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.integers(-1, 10), min_size=1, max_size=10))
def test_p_values_count_and_ties_count_as_higher(calibration, scores):
    p = conformal_p_values(np.float32(calibration), np.float32(scores))
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    assert p.tolist() == expected


@property_test
@given(st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=60), percents, st.one_of(st.none(), st.just(0.9)))
def test_a_verdict_is_a_p_value_that_was_compared(scores, percent, confidence):
    record = Calibration(np.float32(scores), np.float32(scores), 0.0, percent / 100, confidence)
    new = np.unique(np.float32([*scores, *np.nextafter(np.float32(scores), np.float32(9)), -9, 9]))
    np.testing.assert_array_equal(new > record.threshold, record.p_values(new) <= record.promised_fpr + 1e-12)


def test_p_values_of_good_scores_are_not_too_small():
    draws = np.random.default_rng(0).integers(0, 15, (20_000, 26))
    p = np.array([conformal_p_values(row[:25], row[25:])[0] for row in draws])
    for u in (0.04, 0.1, 0.3, 0.7):
        assert (p <= u).mean() <= u + 0.01


# --- the record ---


def record(n: int, **more) -> Calibration:
    return Calibration(np.arange(1.0, n + 1), np.arange(2.0, n + 2), 0.5, **{"target_fpr": 0.05} | more)


def test_a_threshold_is_moved_by_the_scores_that_are_kept():
    moved = record(99).at(0.01)
    assert (moved.threshold, moved.pixel_threshold, moved.target_fpr) == (99.0, 100.0, 0.01)
    assert record(99).at(0.5).threshold == 50.0 and record(200, confidence=0.9).at(0.1).confidence == 0.9


@pytest.mark.parametrize("n, rate, more, says", [
    (98, 0.01, {}, "98 .* 0.010, not 0.01, which needs 99"), (71, 0.01, {}, "0.014"),
    (60, 0.02, {"confidence": 0.9}, "with confidence 0.9, which needs 114"),
])  # fmt: skip
def test_what_cannot_be_promised_is_refused_with_what_can(n, rate, more, says):
    with pytest.raises(G100Error, match=says) as error:
        record(n, **more).at(rate)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"target_fpr={rate}: {n} good pictures")


def test_a_shortage_is_said_and_none_where_there_is_none():
    assert record(19).shortage is None and record(45, confidence=0.9).shortage is None
    assert "18 good pictures calibrate" in record(18).shortage and "needs 45" in record(44, confidence=0.9).shortage
    with pytest.warns(UserWarning, match="needs 19"):
        record(18).warn_if_few()


# --- cross-conformal ---


def nearest(Z, X):
    return np.sqrt(((Z[:, None] - X) ** 2).sum(-1)).min(1)


def test_the_plain_cross_p_value_of_a_distance_is_never_below_that_of_cv_plus():
    "Proposition 5, picture by picture; and the rate of CV+ is far below the bound of Theorem 4."
    rng, calls = np.random.default_rng(0), []
    for _ in range(60):
        X, Z = rng.normal(size=(30, 4)), rng.normal(size=(40, 4))
        parts = np.array_split(np.arange(30), 5)
        R = np.concatenate([nearest(X[f], np.delete(X, f, 0)) for f in parts])
        plain = conformal_p_values(R, nearest(Z, X))
        beaten = sum((nearest(X[f], np.delete(X, f, 0)) >= nearest(Z, np.delete(X, f, 0))[:, None]).sum(1) for f in parts)
        plus = (1 + beaten) / 31
        assert (plain >= plus).all()
        calls.append(((plain <= 0.1).mean(), (plus <= 0.1).mean()))
    assert np.mean(calls, axis=0)[0] <= np.mean(calls, axis=0)[1] < 0.14
