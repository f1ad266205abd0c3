"""Thresholds against exact integer arithmetic, the Beta distribution and Monte Carlo coverage."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from g100.foundations.calibration import conformal_threshold, guaranteed_fpr, min_max, normals_needed
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
    (lambda: min_max(0.5, 1.0, 1.0), "low < high"),
    (lambda: min_max(0.5, 2.0, 1.0), "low < high"),
    (lambda: min_max(0.5, float("nan"), 1.0), "finite"),
    (lambda: min_max(0.5, 0.0, float("inf")), "finite"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(G100Error, match=says) as error:
        call()
    assert "\n" not in str(error.value)
