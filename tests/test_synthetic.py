"""Synthetic anomalies: what is promised of all of them, each against its definition, and the test set made of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from g100.algorithms.synthetic import (
    FINEST,
    KINDS,
    at_least_one,
    confetti,
    cutpaste,
    ink,
    moved,
    perlin,
    perlin_noise,
    rectangles,
    scar,
    settled,
    synthetic,
    synthetic_test,
)  # fmt: skip
from g100.foundations.pictures import ImageSet
from g100.foundations.sources import as_image_set
from tests.toys import line_of, pictures, seeded, spotted

NAMES = (*KINDS, "mixed")


def batch(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=seeded(seed))


def spread_out(mask: torch.Tensor) -> tuple[int, int]:
    "Rows and columns that the smallest upright box around a mask (H, W) has."
    r, c = mask.nonzero().T
    return int(r.max() - r.min()) + 1, int(c.max() - c.min()) + 1


# --- what is promised of each ---


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.integers(1, 5), st.tuples(st.integers(3, 40), st.integers(3, 40)))
def test_changed_only_where_the_mask_is_and_never_beyond_the_range(kind, seed, n, size):
    x = batch(n, size, seed)
    y, mask = synthetic(x, kind, seeded(seed))
    assert y.shape == x.shape and y.dtype == x.dtype and mask.shape == (n, *size) and mask.dtype == torch.bool
    assert y.min() >= 0 and y.max() <= 1 and y.isfinite().all()
    assert mask.flatten(1).any(dim=1).all()
    assert torch.equal(torch.where(mask[:, None], x, y), x)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(NAMES), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 1000))
def test_flat_pictures_are_spoilt_within_the_promise(kind, grey, seed):
    x = torch.full((3, 3, 24, 24), grey)
    y, mask = synthetic(x, kind, seeded(seed))
    assert y.min() >= 0 and y.max() <= 1 and mask.flatten(1).any(dim=1).all()
    assert torch.equal(torch.where(mask[:, None], x, y), x)


@pytest.mark.parametrize("kind", NAMES)
def test_the_seed_is_all_that_counts(kind):
    x = batch(6, (48, 40))
    kept = x.clone()
    before = torch.get_rng_state()
    a, b, c = (synthetic(x, kind, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and torch.equal(x, kept)
    assert not torch.equal(a[1], c[1])


@pytest.mark.parametrize("kind", NAMES)
def test_every_picture_gets_a_defect_of_its_own(kind):
    mask = synthetic(batch(1, (64, 64)).expand(8, -1, -1, -1), kind, seeded())[1]
    assert len({m.numpy().tobytes() for m in mask}) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_most_defects_change_most_of_their_pixels(kind):
    x = batch(40, (96, 96))
    y, mask = synthetic(x, kind, seeded())
    assert ((y != x).any(dim=1) & mask).sum() > 0.9 * mask.sum()


def test_mixed_draws_each_kind_for_a_picture_and_equally_often(monkeypatch):
    marks = {kind: i / 8 for i, kind in enumerate(KINDS)}
    for kind, value in marks.items():
        monkeypatch.setitem(KINDS, kind, lambda x, _, v=value: (torch.full_like(x, v), torch.ones_like(x[:, 0]).bool()))
    y = synthetic(torch.ones(2000, 3, 2, 2), "mixed", seeded())[0][:, 0, 0, 0]
    for value in marks.values():
        assert abs((y == value).float().mean() - 1 / len(KINDS)) < 0.04
    assert torch.isin(y, torch.tensor(list(marks.values()))).all()


# --- the parts ---


@settings(deadline=None, max_examples=40)
@given(st.floats(0, math.pi), st.floats(0, 30), st.floats(0, 20), st.floats(1, 30), st.floats(1, 30))
def test_rectangles_are_those_of_the_definition(angle, r, c, a, b):
    found = rectangles((30, 20), torch.tensor([r, c]), torch.tensor([a, b]), torch.tensor(angle))
    for i, j in ((0, 0), (14, 9), (29, 19), (int(min(r, 29)), int(min(c, 19)))):
        u = math.cos(angle) * (i + 0.5 - r) + math.sin(angle) * (j + 0.5 - c)
        v = -math.sin(angle) * (i + 0.5 - r) + math.cos(angle) * (j + 0.5 - c)
        if min(abs(abs(u) - a / 2), abs(abs(v) - b / 2)) > 1e-4:
            assert bool(found[i, j]) == (abs(u) <= a / 2 and abs(v) <= b / 2)


@pytest.mark.parametrize("rate", [0.05, 0.6, 0.9, 3.0])
def test_numbers_of_squares_are_poisson_without_zero(rate):
    drawn = at_least_one(rate, 50_000, seeded()).numpy()
    assert drawn.min() == 1 and drawn.max() <= 12
    for k in (1, 2, 3, 4):
        share = poisson.pmf(k, rate) / poisson.sf(0, rate)
        assert abs((drawn == k).mean() - share) < 5 * math.sqrt(share / 50_000) + 1e-4


def test_shifted_pictures_are_rolled_ones():
    x, rows, columns = batch(3, (7, 9)), torch.tensor([0, 5, -3]), torch.tensor([8, -1, 20])
    for i, y in enumerate(moved(x, rows, columns)):
        assert torch.equal(y, x[i].roll((-int(rows[i]), -int(columns[i])), (1, 2)))


def test_ink_takes_light_away_as_much_as_the_published_rates_and_sizes_say():
    added = ink(torch.full((400, 3, 112, 112), 0.5), seeded())
    assert added.max() <= 0 and added.min() < -0.9
    area = (31**2 + 46**2 / 12) / 224**2  # of a square with a side of 8 to 54 pixels, as a share of the picture
    coloured, white = (rate / -math.expm1(-rate) for rate in (1.8e-5 * 224**2, 1.2e-5 * 224**2))
    taken = -added.mean().item() / (area * (coloured / 2 + white))
    assert 0.8 < taken < 1.0  # the rest lies beyond the border


def test_confetti_is_turned_where_ink_would_not_be_seen():
    "On black nothing can be taken away, on white nothing added."
    for grey, sign in ((0.0, 1), (1.0, -1)):
        y, mask = confetti(torch.full((8, 3, 64, 64), grey), seeded())
        assert (sign * (y - grey).mean(dim=(1, 2, 3)) > 0).all() and mask.float().mean() < 0.6


def test_a_pasted_patch_comes_from_the_same_picture():
    "Where nothing but place changes: each pasted value is, up to brightness and contrast, one of the picture."
    x = (torch.arange(30)[:, None] + 40.0 * torch.arange(40)).expand(5, 3, 30, 40) / 2000
    y, mask = cutpaste(x, seeded())
    for before, after, m in zip(x, y, mask, strict=True):
        a, b = spread_out(m)
        assert m.sum() == a * b and 0.01 <= a * b / 1200 <= 0.17 and 0.2 < a / b < 4.5
        patch = after[0][m].view(a, b)
        inner = patch[(patch > 0).all(1) & (patch < 1).all(1)]
        if len(inner) > 1:  # not clipped: a plane, with the slopes of the picture's times one contrast
            down, across = inner.diff(dim=0), inner.diff(dim=1)
            torch.testing.assert_close(across, torch.full_like(across, across.mean().item()), rtol=1e-2, atol=1e-4)
            assert 0.89 < across.mean() / (before[0, 0, 1] - before[0, 0, 0]) < 1.11 and down.std() < 1e-3


def test_scars_are_thin():
    mask = scar(batch(64, (256, 256)), seeded())[1]
    pixels = mask.sum(dim=(1, 2))
    assert pixels.max() <= 1.2 * 25 * 16 and pixels.float().mean() < 1.3 * 17.5 * 9
    assert max(max(spread_out(m)) for m in mask) <= math.hypot(25, 16) + 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, FINEST), st.integers(1, FINEST))
def test_perlin_noise_is_nothing_on_the_lattice_and_bounded(seed, rows, columns):
    "Samples lie at pixel centres; with 3 pixels a cell the middle one of 2 n + 1 is half-way between lattice points."
    noise = perlin_noise((3 * rows, 3 * columns), torch.tensor([[rows, columns]]), seeded(seed))[0]
    assert noise.shape == (3 * rows, 3 * columns) and noise.abs().max() <= math.sqrt(0.5) + 1e-6
    fine = perlin_noise((1000, 1000), torch.tensor([[1, 1]]), seeded(seed))[0]
    assert max(fine[0, 0].abs(), fine[-1, -1].abs(), fine[0, -1].abs()) < 2e-3


def test_perlin_noise_has_no_edges_between_its_cells():
    noise = perlin_noise((512, 512), torch.tensor([[8, 4]]), seeded())[0].double()
    steps = noise.diff(dim=0).abs().amax(dim=1)
    at_borders = steps[[64 * i - 1 for i in range(1, 8)]]
    assert at_borders.max() <= steps.max() and noise.diff(n=2, dim=0).abs().max() < 30 * (8 / 512) ** 2


def test_perlin_covers_the_share_that_it_drew_and_blends():
    x = batch(64, (64, 64))
    y, mask = perlin(x, seeded())
    share = mask.float().mean(dim=(1, 2))
    assert 0.0097 <= share.min() and share.max() <= 0.151 and share.max() > 0.12 and share.min() < 0.03
    dark = torch.zeros(2, 3, 64, 64)
    dark[1] = 1.0
    first = perlin(dark, seeded(5))
    assert (first[0][0].amax(0)[first[1][0]] > 0).any()  # what is blended in is the other picture


def test_nothing_visible_is_replaced_by_a_defect_in_the_middle():
    x = batch(2, (9, 12))
    mask = torch.zeros(2, 9, 12, dtype=torch.bool)
    mask[1, 0, 0] = True
    y, found = settled(x, 1 - x, mask)
    assert torch.equal(found[0].nonzero()[[0, -1]], torch.tensor([[3, 4], [5, 7]])) and found[0].sum() == 12
    assert torch.equal(found[1], mask[1]) and torch.equal(y[1, :, 0, 0], 1 - x[1, :, 0, 0])
    assert torch.equal(y[0, :, 3:6, 4:8], (1 - x)[0, :, 3:6, 4:8]) and torch.equal(y[0, :, :3], x[0, :, :3])


def test_unknown_kind_names_the_nearest():
    assert "did you mean 'confetti'" in line_of(synthetic, batch(1, (8, 8)), "confeti", seeded())


# --- a test set ---


@pytest.mark.parametrize("kind", NAMES)
def test_synthetic_test_has_each_picture_good_and_spoilt(kind):
    good = as_image_set(pictures(5, 24))
    test = synthetic_test(good, kind, seed=2)
    assert len(test) == 10 and test.labels.tolist() == [0] * 5 + [1] * 5 and test.has_masks
    assert test.names == (*good.names, *(f"synthetic/{name}" for name in good.names))
    assert set(test.defects) == {"good", f"synthetic {kind}"}
    for i in range(5):
        before, after, mask = test[i], test[i + 5], test.mask(i + 5)
        assert np.array_equal(before, good[i]) and after.dtype == np.uint8 and after.shape == before.shape
        assert mask.any() and np.array_equal(after[~mask], before[~mask]) and not test.mask(i).any()
    assert not all(np.array_equal(test[i], test[i + 5]) for i in range(5))


def test_a_synthetic_picture_depends_on_seed_and_place_alone():
    good = as_image_set(pictures(6, 24))
    test, fewer, other = synthetic_test(good), synthetic_test(good[:3]), synthetic_test(good, seed=1)
    for i in range(3):
        np.testing.assert_array_equal(test[6 + i], fewer[3 + i])
        np.testing.assert_array_equal(test.mask(6 + i), fewer.mask(3 + i))
    assert test.sha256 == synthetic_test(good).sha256 != other.sha256


def test_sizes_and_types_stay():
    kept = [np.random.default_rng(i).random((20 + i, 30, 3), dtype=np.float32) for i in range(3)]
    good = ImageSet(kept, ["a", "b", "c"], [0, -1, 0], ["good"] * 3, [None] * 3)
    test = synthetic_test(good, "cutpaste")
    assert [test[3 + i].shape for i in range(3)] == [k.shape for k in kept] and test[3].dtype == np.float32


def test_abnormal_pictures_are_refused_and_named():
    found, masks = spotted(3, 24)
    bad = ImageSet(found, ["a", "b", "c"], [0, 1, 0], ["good", "spot", "good"], [None, masks[1], None])
    line = line_of(synthetic_test, bad)
    assert "b is labelled abnormal" in line and "wants good pictures" in line
    assert "unknown kind" in line_of(synthetic_test, bad.normals, "scratch")
