"""g100.metrics against scikit-learn, SciPy and an AUPRO computed threshold by threshold from its definition."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from g100.foundations.errors import G100Error
from g100.foundations.metrics import at_threshold, auroc, average_precision, f1_at, f1_max
from g100.foundations.regions import PIXEL_SCORES, aupimo, aupro, pixel_scores, pro_curve, regions_at

property_test = settings(deadline=None, max_examples=50)
seeds = st.integers(0, 2**32 - 1)


def sample(seed, dtype=np.float64):
    "Labels of both classes, and scores with many ties or with none."
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    y = rng.permutation(np.append([0, 1], rng.integers(0, 2, n - 2)))
    s = rng.integers(0, rng.integers(1, 12), n) if rng.random() < 0.6 else rng.normal(size=n)
    return y, s.astype(dtype)


def scene(seed):
    "Three small masks (one of them empty) and maps with ties; at least one defect pixel and one normal pixel."
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 7, 6)) < rng.uniform(0.05, 0.6)
    masks[1] = False
    masks[0, 0, 0] = True
    return masks, rng.integers(0, rng.integers(1, 20), masks.shape).astype(np.float32)


def aupro_by_thresholds(masks, maps, limit):
    "Eq. 1 and 2 of the regions' chapter word by word, in Python loops; the area by a fine sum of the piecewise linear curve."
    regions = []
    for i, mask in enumerate(masks):
        label, n = ndimage.label(mask, ndimage.generate_binary_structure(2, 2))
        regions += [maps[i][label == k] for k in range(1, n + 1)]
    points = [(0.0, 0.0)]
    for t in sorted({float(v) for v in maps.ravel()}, reverse=True):
        points.append((np.mean(maps[~masks] >= t), np.mean([np.mean(r >= t) for r in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


@property_test
@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_auroc_and_average_precision_are_those_of_scikit_learn(seed, dtype):
    y, s = sample(seed, dtype)
    assert auroc(y, s) == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert auroc(y, s) == pytest.approx(mannwhitneyu(s[y == 1], s[y == 0]).statistic / (y.sum() * (1 - y).sum()))
    assert average_precision(y, s) == pytest.approx(average_precision_score(y, s), abs=1e-12)


@property_test
@example(148170, np.float32)  # two thresholds whose F1 differ by rounding alone
@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_f1_max_is_the_best_and_its_threshold_reaches_it_strictly(seed, dtype):
    y, s = sample(seed, dtype)
    f1, tau = f1_max(y, s)
    assert f1 == pytest.approx(f1_score(y, s > tau))
    assert f1 == pytest.approx(max(f1_score(y, s >= t) for t in s))
    equally_good = [t for t in s if f1_score(y, s > t, zero_division=0) == pytest.approx(f1)]
    assert not equally_good or max(equally_good) == tau


def test_of_equally_good_thresholds_the_highest_is_taken():
    "F1 is 2/3 with the highest score alone called abnormal, and with all four."
    assert f1_max([1, 0, 0, 1], [4.0, 3.0, 2.0, 1.0]) == (pytest.approx(2 / 3), 3.0)


@property_test
@given(seeds)
def test_at_threshold_is_scikit_learn_at_a_strict_threshold(seed):
    y, s = sample(seed)
    tau = float(np.median(s))
    got = at_threshold(y, s, tau)
    assert got["abnormal_recall"] == pytest.approx(recall_score(y, s > tau))
    assert got["normal_recall"] == pytest.approx(recall_score(1 - y, s <= tau))
    if (s > tau).any():
        assert got["precision"] == pytest.approx(precision_score(y, s > tau))
    else:
        assert got["precision"] is None


def test_undefined_is_none_and_never_zero():
    for y in ([0, 0, 0], [1, 1, 1]):
        s = [0.1, 0.2, 0.3]
        assert auroc(y, s) is None and average_precision(y, s) is None and f1_max(y, s) == (None, None)
    assert at_threshold([0, 0], [0.1, 0.2], 0.15) == {"normal_recall": 0.5, "abnormal_recall": None, "precision": 0.0}
    assert at_threshold([1], [0.1], np.inf) == {"normal_recall": None, "abnormal_recall": 0.0, "precision": None}
    for full in (False, True):
        assert aupro(np.full((2, 4, 4), full), np.zeros((2, 4, 4))) is None
        assert pro_curve(np.full((2, 4, 4), full), np.zeros((2, 4, 4))) == (None, None)


def test_pixel_arrays_of_any_shape():
    masks, maps = scene(5)
    assert auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert average_precision(masks, maps) == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))


@property_test
@given(seeds, st.floats(0.01, 1.0))
def test_aupro_is_its_definition(seed, limit):
    masks, maps = scene(seed)
    assert aupro(masks, maps, limit) == pytest.approx(aupro_by_thresholds(masks, maps, limit), abs=1e-12)


def aupimo_by_thresholds(masks, maps, good, low, high):
    "Eq. 3 and 4 of the regions' chapter word by word: every value is a threshold, a step function of the rate is integrated."
    values = [np.inf, *sorted({float(v) for a in maps for v in np.ravel(a)}, reverse=True)]
    rate = np.array([np.mean([np.mean(a >= t) for a, g in zip(maps, good, strict=True) if g]) for t in values])
    corners = sorted({low, high, *(r for r in rate if low < r < high)})
    found = []
    for mask, a in zip(masks, maps, strict=True):
        recall = np.array([np.mean(a[mask] >= t) if mask.any() else np.nan for t in values])
        steps = zip(corners, corners[1:], strict=False)
        area = sum(np.max(recall[rate <= r], initial=0.0) * (np.log(s) - np.log(r)) for r, s in steps)
        found.append(area / np.log(high / low) if mask.any() else np.nan)
    return np.array(found)


@property_test
@given(seeds, st.floats(1e-3, 0.2), st.floats(1.5, 50))
def test_aupimo_is_its_definition(seed, low, times):
    masks, maps = scene(seed)
    rng = np.random.default_rng(seed)
    masks, maps = [*masks, np.zeros((4, 9), bool)], [*maps, rng.integers(0, 9, (4, 9)).astype(np.float32)]  # of another size
    high, good = min(1.0, low * times), [False, True, False, True]
    mine = aupimo(masks, maps, (low, high), good)
    np.testing.assert_allclose(mine, aupimo_by_thresholds(masks, maps, good, low, high), rtol=0, atol=1e-12)
    assert np.isnan(mine[[1, 3]]).all() and not np.isnan(mine[0])


def test_aupimo_of_perfect_and_worthless_maps():
    masks = np.zeros((3, 20, 20), bool)
    masks[1, 5:9, 5:9], masks[2, :2, :2] = True, True
    perfect = masks + np.random.default_rng(0).random(masks.shape) / 2
    assert aupimo(masks, perfect)[1:].tolist() == [1, 1] and aupimo(masks, np.ones(masks.shape))[1:].tolist() == [0, 0]
    half = perfect.copy()
    half[1, 5:7] = 0
    assert aupimo(masks, half)[1] == pytest.approx(1 / 2)
    # a picture without a mask counts as good only where nobody says that it is not
    assert aupimo(masks, masks[[1, 1, 2]] * 1.0)[1] == 0 and np.isnan(aupimo(masks, perfect)[0])
    with pytest.raises(G100Error, match="none"):
        aupimo(masks, perfect, good=[False, False, False])


@property_test
@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_f1_at_a_threshold_is_that_of_scikit_learn(seed, dtype):
    y, s = sample(seed, dtype)
    for tau in (float(np.median(s)), float(s.max()), float(s.min()) - 1):
        assert f1_at(y, s, tau) == pytest.approx(f1_score(y, s > tau, zero_division=0), abs=1e-12)
        assert f1_at(y, s, tau) <= f1_max(y, s)[0] + 1e-12


@property_test
@given(seeds)
def test_all_at_once_are_those_one_by_one(seed):
    masks, maps = scene(seed)
    good, tau = np.array([False, True, False]), float(np.median(maps))
    found = pixel_scores([regions_at(mask, mask.shape)[0] for mask in masks], maps, tau, good)
    each = aupimo(masks, maps, good=good)
    y, s = masks, maps
    alone = (auroc(y, s), average_precision(y, s), aupro(y, s), f1_max(y, s)[0], f1_at(y, s, tau), aupro(y, s, 0.05))
    assert [found[name] for name in PIXEL_SCORES] == pytest.approx([*alone, np.nanmean(each)], abs=1e-12)
    np.testing.assert_array_equal(found["pictures"], each)
    assert set(found) == {*PIXEL_SCORES, "pictures"}


def test_what_pixels_cannot_tell_is_none():
    nothing = pixel_scores([np.zeros((4, 4), np.int32)], [np.zeros((4, 4))], 0.0, np.array([True]))
    assert set(nothing.values()) == {None}
    some = pixel_scores([np.eye(4, dtype=np.int32)], [np.eye(4)], 0.5, np.array([False]))
    assert some["aupimo"] is None and some["pictures"] is None and some["aupro"] == some["seg_f1"] == 1


@property_test
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_regions_keep_their_numbers_at_another_size(seed, h, w):
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_dilation(rng.random((23, 31)) < 0.01, iterations=int(rng.integers(1, 3)))
    label, n = ndimage.label(mask, np.ones((3, 3)))
    found, counted = regions_at(mask, (h, w))
    assert counted == n and found.shape == (h, w)
    under = label[np.ix_(((2 * np.arange(h) + 1) * 23) // (2 * h), ((2 * np.arange(w) + 1) * 31) // (2 * w))]
    gone = [k for k in range(1, n + 1) if k not in under]
    np.testing.assert_array_equal(found[found == under], under[found == under])
    assert all((found == k).sum() <= 1 for k in gone), "no more than one cell"
    for k in set(found[found != under].tolist()):
        ((r, c),) = np.argwhere(found == k)
        assert k in gone and k in label[r * 23 // h : (r + 1) * 23 // h + 1, c * 31 // w : (c + 1) * 31 // w + 1]
    if len(gone) == 1 and (under == 0).all():
        assert set(gone) <= set(found.ravel().tolist())


def test_no_crack_vanishes_or_falls_to_pieces():
    mask = np.eye(64, dtype=bool) | np.eye(64, k=-30, dtype=bool)
    for size in (64, 32, 20, 8):
        found, n = regions_at(mask, (size, size))
        assert n == 2 and set(np.unique(found)) == {0, 1, 2}
    dot = np.zeros((90, 90), bool)
    dot[40, 41] = True
    assert regions_at(dot, (9, 9))[0].sum() == 1 and regions_at(dot, (90, 90))[0].tolist() == dot.astype(int).tolist()
    assert regions_at(np.zeros((5, 5), bool), (2, 2))[1] == 0


@property_test
@given(seeds)
def test_metrics_see_only_the_order_of_the_scores(seed):
    masks, maps = scene(seed)
    other = np.exp(maps.astype(np.float64) / 7) - 3
    for metric in (aupro, auroc, average_precision):
        assert metric(masks, other) == pytest.approx(metric(masks, maps), abs=1e-12)


@property_test
@given(seeds)
def test_the_pro_curve_rises_from_zero_to_one(seed):
    fpr, pro = pro_curve(*scene(seed))
    for axis in (fpr, pro):
        assert axis[0] == 0 and axis[-1] == 1 and (np.diff(axis) >= 0).all()


def test_perfect_constant_and_inverted_maps():
    masks, _ = scene(1)
    for limit in (0.05, 0.3, 1.0):
        assert aupro(masks, masks.astype(float), limit) == pytest.approx(1)
        assert aupro(masks, np.ones(masks.shape), limit) == pytest.approx(limit / 2)
        assert aupro(masks, 1.0 - masks, limit) == pytest.approx(0)


def test_the_last_trapezoid_is_cut_at_the_limit():
    "Two defect pixels, four normal ones; one normal pixel ties with the second defect pixel."
    mask = np.array([[True, True, False, False, False, False]])
    a = np.array([[5.0, 3.0, 3.0, 1.0, 1.0, 1.0]])
    # corners (0, 0) (0, 1/2) (1/4, 1) (1, 1); up to 1/8 the line rises from 1/2 to 3/4
    assert aupro([mask], [a], limit=1 / 8) == pytest.approx(5 / 8)
    assert aupro([mask], [a], limit=1 / 4) == pytest.approx(3 / 4)
    assert aupro([mask], [a], limit=1 / 2) == pytest.approx(7 / 8)


def test_regions_are_global_and_8_connected():
    diagonal = np.eye(4, dtype=bool)
    single = np.zeros((4, 4), bool)
    single[0, 3] = True
    fpr, pro = pro_curve([diagonal, single], [diagonal.astype(float), np.zeros((4, 4))])
    assert pro[2] == pytest.approx(1 / 2)  # the diagonal is one region of two, the other is missed
    assert fpr[2] == 0
    # one false pixel in a picture counts among the normal pixels of all pictures
    fpr, _ = pro_curve([single, ~np.ones((4, 4), bool)], [single * 1.0, np.eye(1, 16).reshape(4, 4)])
    assert fpr[2] == pytest.approx(1 / 31)


def test_pictures_of_different_sizes_and_grey_masks():
    masks, maps = scene(2)
    grey = np.where(masks, 0.6, 0.5)
    assert aupro(list(grey), list(maps)) == aupro(masks, maps)
    wide_mask, wide_map = np.zeros((5, 9), bool), np.ones((5, 9))
    assert 0 <= aupro([*masks, wide_mask], [*maps, wide_map]) <= 1


@pytest.mark.parametrize("call, says", [
    (lambda: auroc([0, 1], [0.1, np.nan]), "NaN"),
    (lambda: auroc([0, 1], [0.1, np.inf]), "infinite"),
    (lambda: auroc([0, 1, 1], [0.1, 0.2]), "same shape"),
    (lambda: auroc([0, -1], [0.1, 0.2]), "unknown label"),
    (lambda: at_threshold([0, 1], [0.1, 0.2], float("nan")), "threshold"),
    (lambda: aupro(np.zeros((1, 4, 4)), np.zeros((1, 4, 5))), "picture 0"),
    (lambda: aupro(np.zeros((2, 4, 4)), np.zeros((1, 4, 4))), "one length"),
    (lambda: aupro([], []), "one length"),
    (lambda: aupro(np.full((1, 4, 4), 255), np.zeros((1, 4, 4))), "mask of picture 0"),
    (lambda: aupro(np.full((1, 4, 4), np.nan), np.zeros((1, 4, 4))), "mask of picture 0"),
    (lambda: aupro(np.eye(4)[None], np.full((1, 4, 4), np.nan)), "map of picture 0"),
    (lambda: aupro(np.eye(4)[None], np.eye(4)[None], limit=0), "limit"),
    (lambda: aupro(np.eye(4)[None], np.eye(4)[None], limit=1.5), "limit"),
    (lambda: aupimo(np.eye(4)[None], np.eye(4)[None]), "good pictures"),
    (lambda: aupimo(np.eye(4)[None], np.eye(4)[None], (0, 0.1)), "limit"),
    (lambda: aupimo(np.eye(4)[None], np.eye(4)[None], (0.1, 1.1)), "limit"),
    (lambda: aupimo(np.eye(4)[None], np.eye(4)[None], (0.1, 0.1)), "lower one"),
    (lambda: f1_at([0, 1], [0.1, 0.2], float("nan")), "threshold"),
    (lambda: pixel_scores([np.eye(4, dtype=int)], [np.eye(4)], float("nan"), [False]), "threshold"),
    (lambda: pixel_scores([np.eye(4, dtype=int)], [np.ones((4, 5))], 0.0, [False]), "picture 0"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(G100Error, match=says) as error:
        call()
    assert "\n" not in str(error.value)
