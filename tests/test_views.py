"g100.foundations.views: geometry, the way back, batches in their order and in bounded memory."

import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from torchvision.transforms.v2 import functional as tv

from g100.foundations.pictures import WORKERS
from g100.foundations.sources import as_image_set
from g100.foundations.views import View, ahead, batches, content, geometry, nearest, on_picture, own_colours
from tests.test_pictures import few, save, some_set
from tests.toys import line_of

# ---- views


@few
@given(st.integers(4, 90), st.integers(4, 90), st.integers(3, 40), st.integers(0, 20))
def test_view_is_torchvisions_resize_and_crop(H, W, size, more):
    picture = np.random.default_rng(H * W).integers(0, 256, (H, W, 3), dtype=np.uint8)
    x = torch.from_numpy(picture).permute(2, 0, 1) / 255
    theirs = tv.center_crop(tv.resize(x, [size + more], antialias=True), [size, size])
    ours = View(size, size + more).image(picture)
    assert ours.shape == (3, size, size) and ours.dtype == torch.float32 and torch.allclose(ours, theirs, atol=1e-5)
    straight = tv.resize(x, [size, size + 1], antialias=True)
    assert torch.allclose(View((size, size + 1)).image(picture), straight, atol=1e-5)
    assert ours.min() >= 0 and ours.max() <= 1


@few
@given(st.integers(20, 90), st.integers(20, 90), st.integers(8, 30), st.integers(0, 12))
def test_back_returns_positions(H, W, size, more):
    "A picture of its own coordinates returns to where it was, and the more exactly away from the borders."
    view = View(size, size + more)
    rows, columns = np.mgrid[:H, :W]
    place = np.stack([(rows + 0.5) / H, (columns + 0.5) / W, 0 * rows], 2).astype(np.float32)
    seen = view.image(place)
    cell = min(H, W) / (size + more)
    for channel, side in ((0, H), (1, W)):
        back = view.back(seen[channel], (H, W))
        assert back.shape == (H, W) and back.dtype == np.float32
        gap = np.abs(back - place[..., channel]) * side
        assert np.nanmax(gap) <= 0.75 * max(cell, 1) + 0.5
        inner = binary_erosion(np.isfinite(back), np.ones((3, 3)), iterations=int(2 * cell) + 2)
        assert gap[inner].max(initial=0) <= 0.25 * max(cell, 1) + 0.1


def test_back_is_nan_just_outside_the_crop():
    view = View(50, 100)
    back = view.back(np.ones((50, 50)), (100, 200))
    inside = np.zeros((100, 200), bool)
    inside[25:75, 75:125] = True
    assert (np.isfinite(back) == inside).all() and (back[inside] == 1).all()
    assert np.isfinite(View(50).back(np.ones((50, 50)), (100, 200))).all()
    assert "shape" in line_of(view.back, np.ones((10, 10)), (100, 200))


@few
@given(st.integers(1, 60), st.integers(1, 60))
def test_masks_take_the_value_under_the_centre(n, N):
    exact = [int((Fraction(i) + Fraction(1, 2)) * N / n) for i in range(n)]
    assert nearest(n, N).tolist() == exact
    mask = np.random.default_rng(n * N).random((N, N)) > 0.5
    assert (View(n).mask(mask) == mask[np.ix_(exact, exact)]).all()


def test_mask_and_picture_are_cut_alike():
    mask = np.zeros((60, 140), bool)
    mask[20:44, 60:100] = True
    view = View(32, 48)
    picture = view.image(np.repeat(mask[..., None], 3, 2).astype(np.float32))[0].numpy() > 0.5
    assert (picture != view.mask(mask)).mean() < 0.05 and view.mask(mask).any()


@few
@given(st.integers(4, 90), st.integers(4, 90), st.integers(3, 40), st.integers(3, 40))
def test_padding_holds_the_whole_picture_in_its_own_shape(H, W, h, w):
    picture = np.random.default_rng(H * W).integers(0, 256, (H, W, 3), dtype=np.uint8)
    view = View((h, w), fit="pad")
    rh, rw, *_ = geometry(view, H, W)
    assert (rh == h or rw == w) and rh <= h and rw <= w
    assert abs(rh - H * min(h / H, w / W)) <= 1 and abs(rw - W * min(h / H, w / W)) <= 1
    seen_, part = view.image(picture), content(view, (H, W))
    assert seen_.shape == (3, h, w)
    inside = seen_[:, part[0], part[1]]
    assert torch.equal(inside, View((rh, rw)).image(picture)), "what is inside is the picture, resized"
    above, below = part[0].start, h - part[0].stop
    assert abs(above - below) <= 1 and abs(part[1].start - (w - part[1].stop)) <= 1, "in the middle"
    if above:
        assert torch.equal(seen_[:, 0, part[1]], inside[:, 0]), "the border is continued"


@few
@given(st.integers(20, 90), st.integers(20, 90), st.integers(12, 30), st.integers(12, 30))
def test_a_padded_map_returns_to_its_picture(H, W, h, w):
    view = View((h, w), fit="pad")
    rows, columns = np.mgrid[:H, :W]
    place = np.stack([(rows + 0.5) / H, (columns + 0.5) / W, 0 * rows], 2).astype(np.float32)
    x = view.image(place)
    for channel, side in ((0, H), (1, W)):
        map = x[channel].clone()
        outside = torch.ones_like(map, dtype=torch.bool)
        outside[content(view, (H, W))] = False
        map[outside] = 1e6  # what is said of the padding is not heard
        back = view.back(map, (H, W))
        cell = max(1, max(H / h, W / w))
        assert np.isfinite(back).all() and np.abs(back - place[..., channel]).max() * side <= 0.75 * cell + 0.5
    half = view.back(x[0], (H, W), (H // 2, W // 2))
    assert half.shape == (H // 2, W // 2) and half.max() <= 1


def test_a_map_is_laid_back_at_another_size_in_one_interpolation():
    map = np.random.default_rng(0).random((12, 12)).astype(np.float32)
    np.testing.assert_allclose(View(12).back(map, (100, 60), (50, 30)), View(12).back(map, (50, 30)), atol=1e-6)
    cropped = View(12, 16).back(map, (64, 96), (32, 48))
    whole = View(12, 16).back(map, (64, 96))
    assert (np.isfinite(cropped) == np.isfinite(whole)[::2, ::2]).mean() > 0.99


def test_masks_and_grids_know_the_padding():
    mask = np.ones((20, 60), bool)
    view = View(30, fit="pad")
    found = view.mask(mask)
    assert found.sum() == 30 * 10 and found[10:20].all()
    assert on_picture(view, (20, 60), (30, 30)).tolist() == found.tolist()
    assert on_picture(view, (20, 60), (6, 6)).sum() == 2 * 6 and on_picture(View(30), (20, 60), (6, 6)).all()
    assert on_picture(view, (1, 900), (5, 5)).any(), "a picture thinner than a cell lies in the nearest one"


@few
@given(st.integers(4, 90), st.integers(4, 90), st.integers(3, 40), st.integers(3, 40))
def test_a_crop_without_a_size_of_its_own_cuts_as_little_as_can_be(H, W, h, w):
    view = View((h, w), fit="crop")
    rh, rw, top, left = geometry(view, H, W)
    assert rh >= h and rw >= w and (rh == h or rw == w) and top >= 0 and left >= 0
    assert view.image(np.zeros((H, W, 3), np.uint8)).shape == (3, h, w) and view.mask(np.ones((H, W), bool)).all()
    assert View(8, 8).fit == "crop" and View(8).fit == "stretch"


def test_views_that_make_no_sense():
    assert "did you mean 'pad'" in line_of(lambda: View(8, fit="pads"))
    assert "leave resize out" in line_of(lambda: View(8, 9, "pad"))
    assert "larger than resize" in line_of(View, 256, 224)
    assert "larger than resize" in line_of(View, (100, 230), 224)
    for size, resize in ((0, None), ((3, 4, 5), None), (2.5, None), ("a", None), (8, 0), ((8, -1), None)):
        line_of(View, size, resize)
    assert View(7).shape == (7, 7) and View([7, 8]).shape == (7, 8) and View((7, 8)) == View([7, 8])
    hash(View([7, 8]))


def test_read_only_arrays_and_strides_pass_without_a_warning(recwarn):
    picture = np.broadcast_to(np.uint8(7), (9, 9, 3))
    assert View(4).image(picture).max() == pytest.approx(7 / 255) and not recwarn.list
    assert View(4).image(np.zeros((9, 9, 3), np.uint8)[::-1, ::2]).max() == 0


# ---- batches


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_batches_keep_the_order(size):
    images, view = some_set(), View(4)
    got = list(batches(images, view, size))
    assert all(len(b) == size for b in got[:-1]) and len(torch.cat(got)) == 7
    assert torch.equal(torch.cat(got), torch.stack([view.image(images[i]) for i in range(7)]))


def test_only_a_few_are_ahead_and_threads_end():
    lock, running, done, before = threading.Lock(), [0], [0], threading.active_count()

    def work(i):
        with lock:
            running[0] += 1
        time.sleep(0.001 * (i % 3))
        return i

    for i in ahead(work, range(60), depth=5):
        assert running[0] - i <= 5 + 1
        done[0] += 1
        if i == 30:
            break
    time.sleep(0.1)
    assert running[0] < 60 and threading.active_count() <= before + WORKERS
    assert list(ahead(lambda i: i * i, range(9), depth=0)) == [i * i for i in range(9)]


def test_batches_name_the_broken_picture_and_show_progress(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("G100_BARS", "1")
    for i in range(5):
        save(tmp_path / f"{i}.png")
    assert len(list(batches(as_image_set(tmp_path), View(8), 2, "scoring"))) == 3
    assert "scoring" in capsys.readouterr().err
    (tmp_path / "3.png").write_bytes(b"")
    assert "3.png" in line_of(list, batches(as_image_set(tmp_path), View(8), 2))
    assert capsys.readouterr().err == ""
    line_of(list, batches(some_set(), View(8), 0))


# ---- strips


def test_a_strip_is_refused_by_name_before_it_explodes(tmp_path):
    cropped, straight = View(8, 9), View(8)
    for H, W in ((101, 1), (1, 4000), (5, 501)):
        strip = np.zeros((H, W, 3), np.uint8)
        for work, *args in ((cropped.image, strip), (cropped.mask, strip[..., 0]), (cropped.back, np.zeros((8, 8)), (H, W))):
            line = line_of(work, *args)
            assert f"{H} x {W} pixels" in line and "no resize, no crop" in line
        assert straight.image(strip).shape == (3, 8, 8) and straight.back(np.zeros((8, 8)), (H, W)).shape == (H, W)
    assert cropped.image(np.zeros((100, 1, 3), np.uint8)).shape == (3, 8, 8)
    save(tmp_path / "strip.png", strip)
    assert line_of(list, batches(as_image_set(tmp_path), cropped, 2)).startswith("strip.png: a picture of 5 x 501 pixels")


@pytest.mark.parametrize("view", [View(24), View((20, 31), fit="pad"), View(16, resize=20), View(40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_grey_picture_is_seen_as_one_in_colour_is(view, dtype):
    "One colour that is shown thrice is what each colour of a picture in colour would be, to the last bit."
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (37, 40), np.uint8) if dtype == np.uint8 else rng.random((37, 40), np.float32)
    grey = np.repeat(grey[..., None], 3, axis=2)
    coloured = grey.copy()
    coloured[..., 1] = grey[::-1, :, 1]
    for look in (lambda image: view.image(image).numpy(), view.pixels):
        seen, other = look(grey), look(coloured)
        assert seen.shape == other.shape == (3, *view.shape) and seen.flags.c_contiguous and seen.flags.writeable
        assert np.array_equal(seen[0], other[0]) and np.array_equal(seen[2], other[2]) and np.array_equal(seen[1], seen[0])
        assert not np.array_equal(seen[1], other[1])
    assert own_colours(grey).shape == (37, 40, 1) and own_colours(coloured) is coloured
    near = grey.copy()
    near[5, 7, 2] = near[5, 7, 2] - near.dtype.type(1) if dtype == np.uint8 else 0.5 * near[5, 7, 2]
    assert own_colours(near) is near
