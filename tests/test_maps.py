"""g100.maps against torch's interpolation, SciPy's Gaussian filter, scikit-image's morphology and matplotlib's colours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import LinearSegmentedColormap
from scipy import ndimage
from skimage.morphology import opening as skimage_opening

from g100.foundations.errors import G100Error
from g100.foundations.maps import Mosaic, full_size, gaussian_kernel, image_score, smooth, tile_starts, tile_weights, upsample
from g100.foundations.overlay import (
    VERDICT,
    as_uint8,
    draw_outline,
    heat,
    heat_colors,
    opened,
    outline,
    overlay,
    relative,
    segment,
)
from g100.foundations.views import View

property_test = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 30)


def grid(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def blobs(seed, n=2, size=24):
    "Random bool masks of smooth shapes."
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(n, size, size)), (0, rng.uniform(0.5, 3), rng.uniform(0.5, 3)))
    return noise > np.quantile(noise, rng.uniform(0.1, 0.95))


@property_test
@given(seeds, sizes, sizes, sizes, sizes)
def test_upsample_is_torchs_bilinear_interpolation(seed, h, w, H, W):
    P = grid(seed, 2, h, w)
    expected = F.interpolate(P[:, None], size=(H, W), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(upsample(P, (H, W)), expected, atol=1e-12, rtol=0)


@property_test
@given(seeds, sizes, sizes, st.floats(0.05, 40))
def test_smooth_is_scipys_gaussian_filter(seed, H, W, sigma):
    A = grid(seed, 2, H, W)
    expected = np.stack([ndimage.gaussian_filter(a, sigma) for a in A.numpy()])
    np.testing.assert_allclose(smooth(A, sigma).numpy(), expected, atol=1e-12)


def test_full_size_is_both_in_float32():
    P = grid(0, 3, 28, 20, dtype=torch.float32)
    up = F.interpolate(P[:, None], size=(224, 160), mode="bilinear", align_corners=False)[:, 0].numpy()
    expected = np.stack([ndimage.gaussian_filter(a, 4) for a in up])
    np.testing.assert_allclose(full_size(P, (224, 160), 4).numpy(), expected, atol=1e-5)


@property_test
@given(seeds, st.floats(-1e3, 1e3), sizes, sizes, st.floats(0, 20))
def test_constants_stay_constant_and_maps_add(seed, c, h, H, sigma):
    P, Q = grid(seed, 1, h, h), grid(seed + 1, 1, h, h)
    constant = full_size(torch.full((1, h, h), c, dtype=torch.float64), H, sigma)
    torch.testing.assert_close(constant, torch.full_like(constant, c))
    both = full_size(c * P + Q, H, sigma)
    torch.testing.assert_close(both, c * full_size(P, H, sigma) + full_size(Q, H, sigma), atol=1e-9, rtol=1e-9)


@property_test
@given(seeds, sizes, sizes, st.floats(0, 20))
def test_no_value_leaves_the_range_of_the_grid(seed, h, H, sigma):
    P = grid(seed, 1, h, h)
    A = full_size(P, H, sigma)
    assert P.min() - 1e-9 <= A.min() and A.max() <= P.max() + 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shape_dtype_and_device_are_kept(dtype):
    P = grid(0, 2, 5, 7, dtype=dtype)
    A = full_size(P, (20, 21), 1.5)
    assert A.shape == (2, 20, 21) and A.dtype == dtype and A.device == P.device
    torch.testing.assert_close(A.double(), full_size(P.double(), (20, 21), 1.5), atol=2e-2, rtol=0)
    assert full_size(P, 20).shape == (2, 20, 20) and full_size(P[:0], 20).shape == (0, 20, 20)
    assert full_size(P.to("meta"), 8, 1.0).device.type == "meta"


def test_gradients_pass_even_when_the_first_call_was_an_inference():
    with torch.inference_mode():
        full_size(torch.zeros(1, 3, 3), 13, 1.25)
    P = torch.ones(1, 3, 3, requires_grad=True)
    full_size(P, 13, 1.25).sum().backward()
    assert P.grad.sum().item() == pytest.approx(13 * 13, rel=1e-5)


def test_gaussian_kernel():
    g = gaussian_kernel(2.0)
    assert len(g) == 17 and g.sum() == pytest.approx(1)
    assert g[8] / g[10] == pytest.approx(np.exp(0.5))
    assert gaussian_kernel(0).tolist() == [1.0]


def test_image_score():
    A = grid(3, 4, 30, 41)
    flat = np.sort(A.flatten(1).numpy(), axis=1)
    np.testing.assert_allclose(image_score(A), flat[:, -1])
    np.testing.assert_allclose(image_score(A, "mean"), flat.mean(axis=1))
    np.testing.assert_allclose(image_score(A, "top_percent"), flat[:, -13:].mean(axis=1))  # ceil(12.3)
    tiny = grid(3, 2, 2, 2)
    np.testing.assert_allclose(image_score(tiny, "top_percent"), image_score(tiny, "max"))


@property_test
@given(seeds, st.sampled_from([1, 3, 5, 7, 9]))
def test_opening_removes_only_and_is_idempotent(seed, diameter):
    masks = blobs(seed)
    once = segment(masks.astype(float), 0.5, opening=diameter)
    assert once.dtype == bool and not (once & ~masks).any()
    assert (segment(once.astype(float), 0.5, opening=diameter) == once).all()
    larger = masks | blobs(seed + 1)
    assert not (once & ~segment(larger.astype(float), 0.5, opening=diameter)).any()


@property_test
@given(seeds)
def test_opening_is_scikit_images_away_from_the_border(seed):
    mask = np.pad(blobs(seed, n=1)[0], 8)
    cross = ndimage.generate_binary_structure(2, 1)
    assert (segment(mask[None].astype(float), 0.5)[0] == skimage_opening(mask, cross)).all()


def test_segment_is_strict_and_takes_tensors_arrays_and_nan():
    A = np.array([[[0.0, 1.0, 2.0, np.nan]]])
    for maps in (A, torch.from_numpy(A)):
        assert segment(maps, 1.0, opening=1).tolist() == [[[False, False, True, False]]]
    assert segment(A, float("inf"), opening=1).sum() == 0
    assert A[0, 0, 2] == 2.0
    assert segment(np.zeros((0, 4, 4)), 0.0).shape == (0, 4, 4)


def test_a_defect_cut_by_the_border_survives_the_opening():
    A = np.zeros((1, 12, 12))
    A[0, :4, :4] = 1
    assert segment(A, 0.5, opening=3)[0, 0, 0]


@property_test
@given(seeds)
def test_outline_is_the_mask_minus_its_erosion(seed):
    mask = blobs(seed, n=1)[0]
    assert (outline(mask) == mask & ~ndimage.binary_erosion(mask)).all()


@pytest.mark.parametrize("call, says", [
    (lambda: full_size(torch.zeros(4, 4), 8), "shape"),
    (lambda: full_size(torch.zeros(1, 4, 4, dtype=torch.int64), 8), "floating"),
    (lambda: full_size(np.zeros((1, 4, 4)), 8), "torch"),
    (lambda: full_size(torch.zeros(1, 4, 0), 8), "shape"),
    (lambda: full_size(torch.zeros(1, 4, 4), 0), "size"),
    (lambda: full_size(torch.zeros(1, 4, 4), 8, -1), "sigma"),
    (lambda: smooth(torch.zeros(1, 4, 4), float("nan")), "sigma"),
    (lambda: image_score(torch.zeros(1, 4, 4), "maxx"), "did you mean 'max'"),
    (lambda: segment(np.zeros((4, 4)), 0.5), "shape"),
    (lambda: segment(np.zeros((1, 4, 4)), 0.5, opening=4), "opening"),
    (lambda: segment(np.zeros((1, 4, 4)), 0.5, opening=0), "opening"),
    (lambda: segment(np.zeros((1, 4, 4)), float("nan")), "threshold"),
    (lambda: outline(np.zeros((1, 4, 4))), "shape"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(G100Error, match=says) as error:
        call()
    assert "\n" not in str(error.value)


# --- large pictures in crops ---


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_crops_cover_a_side_and_share_what_was_asked_for(n, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    if n < tile:
        with pytest.raises(G100Error, match=f"shorter than tile={tile}"):
            tile_starts(n, tile, overlap)
        return
    starts = tile_starts(n, tile, overlap)
    assert starts[0] == 0 and starts[-1] == n - tile
    assert all(b - a <= tile - overlap for a, b in zip(starts, starts[1:], strict=False))
    assert len(starts) == 1 + np.ceil((n - tile) / (tile - overlap))


def test_without_overlap_a_multiple_is_split_into_disjoint_crops():
    assert tile_starts(96, 32, 0).tolist() == [0, 32, 64]
    assert all((w == 1).all() for w in tile_weights(96, 32, 0)[1])


@property_test
@given(st.integers(20, 90), st.integers(4, 20), st.integers(0, 3), st.floats(-5, 5))
def test_a_mosaic_keeps_constants_and_what_crops_agree_on(n, tile, overlap, constant):
    size, flat, whole = (n, n + 7), Mosaic((n, n + 7), tile, overlap), Mosaic((n, n + 7), tile, overlap)
    flat.lay(torch.full((len(flat.corners), 3, 3), constant))
    torch.testing.assert_close(flat.map, torch.full(size, constant))
    truth = torch.rand(size, generator=torch.Generator().manual_seed(n))
    for part in torch.stack([truth[r : r + tile, c : c + tile] for r, c in whole.corners]).split(5):
        whole.lay(part)
    torch.testing.assert_close(whole.map, truth)


def test_weights_of_a_mosaic_have_no_jumps():
    _, weights = tile_weights(500, 100, 40)
    assert weights[1:, 0].max() < 0.01 and np.abs(np.diff(weights, axis=1)).max() < 0.06


@pytest.mark.parametrize("overlap", [-1, 32, 40])
def test_an_overlap_outside_the_tile_is_refused(overlap):
    with pytest.raises(G100Error, match=rf"overlap={overlap}: wants .* below tile=32"):
        tile_starts(100, 32, overlap)


# --- the grey opening ---


@property_test
@given(st.integers(0, 1000), st.sampled_from([1, 3, 5, 7]), st.integers(5, 20), st.integers(5, 20))
def test_an_opened_map_has_the_opened_masks_at_every_threshold(seed, diameter, H, W):
    maps = torch.rand(2, H, W, generator=torch.Generator().manual_seed(seed)).mul(5).round()
    cleared = opened(maps, diameter)
    for t in range(5):
        np.testing.assert_array_equal(segment(maps, t, diameter), (cleared > t).numpy())
    assert torch.equal(opened(cleared, diameter), cleared) and (cleared <= maps).all()


def test_a_kept_matrix_is_not_kept_while_a_network_is_traced():
    "A stand-in without values in the cache would be given to the next who asks."

    class Smooth(torch.nn.Module):
        def forward(self, x):
            return full_size(x.mean(1), (23, 29), 1.7)

    x = torch.rand(2, 3, 7, 11)
    program = torch.export.export(Smooth(), (x,)).module()
    torch.testing.assert_close(program(x), Smooth()(x))
    again = Smooth()(x)
    assert type(again) is torch.Tensor and again.isfinite().all()


# --- the map on its picture ---

STOPS = [(0, (0.1, 0.3, 0.7, 0)), (0.35, (0.1, 0.5, 0.8, 0.1)), (0.5, (1, 0.85, 0.2, 0.45)), (1, (0.8, 0, 0, 0.75))]
THEIRS = LinearSegmentedColormap.from_list("theirs", STOPS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_colours_are_those_that_matplotlib_makes_of_the_stops(dtype):
    edges = (np.arange(257) / 256).astype(dtype)
    beside = np.nextafter(edges[1:], dtype(0)), np.nextafter(edges[:-1], dtype(1))
    r = np.concatenate([np.linspace(0, 1, 10_007, dtype=dtype), edges, *beside])
    assert r.dtype == dtype
    np.testing.assert_allclose(heat_colors(r), THEIRS(r), rtol=0, atol=1e-15)
    assert heat_colors(np.array([[np.nan, 1]]))[..., 3].tolist() == [[0, 0.75]]


@property_test
@given(seeds, sizes, sizes, st.floats(-3, 3), st.floats(0.01, 5))
def test_heat_is_the_picture_under_its_colours(seed, H, W, low, span):
    "As matplotlib would colour it, rounded once."
    rng = np.random.default_rng(seed)
    image, map = rng.integers(0, 256, (H, W, 3), dtype=np.uint8), rng.normal(size=(H, W)).astype(np.float32)
    map[rng.random((H, W)) < 0.1] = np.nan
    color = THEIRS(np.nan_to_num(np.clip((map - low) / span, 0, 1)))
    expected = (1 - color[..., 3:]) * image + color[..., 3:] * 255 * color[..., :3]
    found = heat(image, map, (low, low + span))
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(found[np.isnan(map)], image[np.isnan(map)])


def test_relative_cuts_off_at_both_ends_and_keeps_what_is_not_known():
    found = relative(np.array([-9.0, 2.0, 3.0, 4.0, 99.0, np.nan]), (2.0, 4.0))
    np.testing.assert_array_equal(found, [0, 0, 0.5, 1, 1, np.nan])


def test_an_overlay_has_the_pictures_own_size_and_leaves_it_as_it_was():
    picture = np.full((300, 200, 3), 0.5)
    map, mask = np.zeros((32, 32), np.float32), np.zeros((32, 32), bool)
    map[8:16, 8:16], mask[8:16, 8:16] = 9, True
    found = overlay(picture, map, mask, View(32), (0, 2))
    assert found.shape == (300, 200, 3) and found.dtype == np.uint8 and (picture == 0.5).all()
    red = (found == VERDICT).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert abs(rows[0] - 75) <= 3 and abs(rows[-1] - 150) <= 3 and abs(columns[0] - 50) <= 3 and abs(columns[-1] - 100) <= 3
    assert not red[90:135, 60:90].any() and (found[110, 75] != as_uint8(picture)[110, 75]).any(), "an outline, and heat inside"
    np.testing.assert_array_equal(found[200:], as_uint8(picture)[200:])
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    drawn = draw_outline(np.zeros((40, 40, 3), np.uint8), mask, (1, 2, 3))
    np.testing.assert_array_equal((drawn == (1, 2, 3)).all(axis=2), outline(mask))


@pytest.mark.parametrize("shape", [(7, 9), (1, 300_000), (700, 900), (3, 262_144)])
def test_heat_is_the_equation_whatever_the_size(shape):
    "A large picture is painted some rows at a time; not a bit depends on it."
    rng = np.random.default_rng(0)
    image, map = rng.integers(0, 256, (*shape, 3), dtype=np.uint8), rng.normal(size=shape).astype(np.float32)
    map[:, ::5] = np.nan
    color = heat_colors(relative(map, (-0.5, 1.5)))
    wanted = ((1 - color[..., 3:]) * image + color[..., 3:] * 255 * color[..., :3]).round().astype(np.uint8)
    painted = heat(image, map, (-0.5, 1.5))
    assert painted.dtype == np.uint8 and (painted == wanted).all()
    assert (painted[:, ::5] == image[:, ::5]).all(), "where nobody looked nothing is painted"
