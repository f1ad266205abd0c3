"""GMS against NumPy as its equations are written, SSIM against scikit-image, and the gradients of both."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import prewitt_h, prewitt_v
from skimage.metrics import structural_similarity

from g100.algorithms.similarity import C, gms, gms_scales, gradient_magnitude, grey, msgms, msgms_loss, ssim, ssim_loss
from g100.foundations.errors import G100Error
from g100.foundations.maps import full_size

seeds = st.integers(0, 2**32 - 1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blend(seed: int, h: int = 24, w: int = 31) -> tuple[torch.Tensor, torch.Tensor]:
    "Two related pictures: smooth structure, flat parts, and noise of a strength that depends on the seed."
    strength = 10.0 ** (-(seed % 5))
    a = noise(2, 3, h, w, seed=seed)
    a[..., : w // 3] = 0.25
    return a, (a + strength * (noise(2, 3, h, w, seed=seed + 1) - 0.5)).clamp(0, 1)


# --- GMS ---


def gms_numpy(a, b, c=0.0026):
    "Eq. 1 without eps, and Eq. 3, for the inner pixels."
    h = np.array([[1, 0, -1]] * 3) / 3
    out = np.empty((a.shape[0] - 2, a.shape[1] - 2))
    for r, s in np.ndindex(*out.shape):
        u, v = (np.hypot((p[r : r + 3, s : s + 3] * h).sum(), (p[r : r + 3, s : s + 3] * h.T).sum()) for p in (a, b))
        out[r, s] = (2 * u * v + c) / (u**2 + v**2 + c)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_gms_is_its_equation(seed):
    a, b = blend(seed)
    for channel in range(3):
        expected = gms_numpy(a[1, channel].numpy(), b[1, channel].numpy())
        np.testing.assert_allclose(gms(a, b)[1, channel, 1:-1, 1:-1], expected, atol=1e-4)


def test_gradient_magnitude_is_that_of_scikit_image():
    "Its Prewitt filters are means of three as well, over a step of two pixels."
    a, _ = blend(3)
    expected = np.hypot(prewitt_h(a[0, 1].numpy()), prewitt_v(a[0, 1].numpy()))[1:-1, 1:-1]
    np.testing.assert_allclose(gradient_magnitude(a)[0, 1, 1:-1, 1:-1], expected, atol=2e-6)


def test_no_frame_around_a_flat_picture():
    assert gradient_magnitude(torch.ones(1, 2, 7, 9)).max() < 1e-5


def test_gradient_is_largest_at_the_corner_of_the_cube():
    edge = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 1, 1]])[None, None]
    assert gradient_magnitude(edge)[0, 0, 1, 1] == pytest.approx((10 / 9) ** 0.5)


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_gms_is_symmetric_and_in_its_range(seed):
    a, b = blend(seed)
    found = gms(a, b)
    assert (found > C / (10 / 9 + C) - 1e-9).all() and (found <= 1 + 1e-12).all()
    assert torch.equal(found, gms(b, a)) and (gms(a, a) == 1).all()


def test_c_is_scaled_with_the_square_of_the_data_range():
    a, b = blend(1)
    torch.testing.assert_close(gms(a, b), gms(255 * a, 255 * b, c=C * 255**2), atol=1e-4, rtol=0)
    assert C == pytest.approx(170 / 255**2, rel=0.01)


def test_gms_at_its_half_value():
    "A painted step on a flat picture whose gradient is sqrt(c) has GMS one half."
    step = torch.zeros(1, 1, 5, 8, dtype=torch.float64)
    step[..., 4:] = C**0.5
    assert gms(torch.zeros_like(step), step)[0, 0, 2, 4].item() == pytest.approx(0.5, abs=1e-4)


# --- scales ---


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(16, 24), st.integers(16, 24))
def test_msgms_range_shape_and_identity(seed, h, w):
    a, b = blend(seed, h, w)
    map = msgms(a, b)
    assert map.shape == (2, h, w) and (map > 0).all() and (map <= 1 + 1e-12).all()
    torch.testing.assert_close(msgms(a, a), torch.ones(2, h, w, dtype=a.dtype))
    assert 0 <= msgms_loss(a, b) < 1 and msgms_loss(a, a) == 0


def test_loss_weighs_every_scale_the_same():
    a, b = blend(0, 32, 32)
    scales = gms_scales(a, b)
    assert [tuple(s.shape[2:]) for s in scales] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    by_hand = np.mean([1 - gms(x, y).mean().item() for x, y in pyramid(grey(a), grey(b))])
    assert msgms_loss(a, b).item() == pytest.approx(by_hand)


def pyramid(a, b):
    for _ in range(4):
        yield a, b
        a, b = (x.unflatten(2, (-1, 2)).mean(3).unflatten(3, (-1, 2)).mean(4) for x in (a, b))


def by_divisible_sides(a, b):
    "Map and loss of Eq. 6 for sides that 8 divides: plain pooling, every scale enlarged to the picture."
    size, scales = tuple(a.shape[2:]), []
    a, b = grey(a), grey(b)
    for _ in range(4):
        scales.append(gms(a, b))
        a, b = torch.nn.functional.avg_pool2d(a, 2), torch.nn.functional.avg_pool2d(b, 2)
    map = torch.stack([full_size(s[:, 0], size) for s in scales]).mean(dim=0)
    return map, torch.stack([(1 - s).mean() for s in scales]).mean()


@pytest.mark.parametrize("h, w", [(16, 16), (40, 56), (224, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_continued_where_eight_divides_the_sides(h, w, dtype):
    a, b = (x.to(dtype) for x in blend(1, h, w))
    map, loss = by_divisible_sides(a, b)
    assert torch.equal(msgms(a, b), map) and torch.equal(msgms_loss(a, b), loss)


SIDES = [(37, 51), (33, 53), (39, 55), (38, 52), (40, 56)]


def one_scale(a, b, s: int):
    "The map of scale s alone, at full size: Eq. 6 with s scales and with one fewer."
    return s * msgms(a, b, s) - (s - 1) * msgms(a, b, s - 1) if s > 1 else msgms(a, b, 1)


@pytest.mark.parametrize("h, w", SIDES)
@pytest.mark.parametrize("s", [1, 2, 3, 4])
def test_a_spot_is_found_where_it_is_at_every_scale(h, w, s):
    "A square around row 16 and column 24: its response is the same on all sides of that point."
    flat, spot = torch.zeros(2, 1, 1, h, w, dtype=torch.float64)
    spot[..., 12:20, 20:28] = 0.5
    seen = (1 - one_scale(flat, spot, s))[0, 4:28, 12:36]
    assert seen.max() > 0.5
    for axes in ((0,), (1,), (0, 1)):
        torch.testing.assert_close(seen, seen.flip(axes))
    torch.testing.assert_close(seen, seen.T)


@pytest.mark.parametrize("h, w", SIDES)
def test_a_picture_is_continued_by_its_border_values(h, w):
    "Flat at its right and lower border, it has the map of the picture whose flat part goes on to the next multiple of 8."
    a, b = blend(0, 40, 56)
    a[..., 23:, :] = a[..., 39:] = b[..., 23:, :] = b[..., 39:] = 0.5
    torch.testing.assert_close(msgms(a[..., :h, :w], b[..., :h, :w]), msgms(a, b)[:, :h, :w])


@pytest.mark.parametrize("h, w", SIDES)
@pytest.mark.parametrize("s", [1, 2, 3, 4])
def test_the_last_pixels_are_seen_at_every_scale(h, w, s):
    flat, spot = torch.zeros(2, 1, 1, h, w, dtype=torch.float64)
    spot[..., h - 1 :, w - 1 :] = 1
    seen = (1 - one_scale(flat, spot, s))[0]
    assert seen.max() > 0.05 and seen[-1, -1].item() == pytest.approx(seen.max().item())


@pytest.mark.parametrize("h, w", SIDES)
def test_scales_cover_the_picture_and_the_loss_is_their_mean(h, w):
    a, b = blend(0, h, w)
    scales = gms_scales(a, b)
    assert [tuple(s.shape[2:]) for s in scales] == [(-(-h // 2**s), -(-w // 2**s)) for s in range(4)]
    assert msgms_loss(a, b).item() == pytest.approx(np.mean([1 - s.mean().item() for s in scales]))


def test_one_scale_is_gms():
    a, b = blend(2)
    torch.testing.assert_close(msgms(a, b, scales=1), gms(grey(a), grey(b))[:, 0])


# --- SSIM ---


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_ssim_is_that_of_scikit_image(seed, data_range):
    a, b = (data_range * x for x in blend(seed))
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    ours = ssim(a, b, data_range=data_range)[1, 2]
    number, map = structural_similarity(a[1, 2].numpy(), b[1, 2].numpy(), full=True, **how)
    np.testing.assert_allclose(ours, map, atol=1e-9)
    assert ours[5:-5, 5:-5].mean().item() == pytest.approx(number, abs=1e-9)


def test_ssim_in_single_precision():
    a, b = blend(2, 96, 96)
    torch.testing.assert_close(ssim(a.float(), b.float()).double(), ssim(a, b), atol=2e-3, rtol=0)
    assert abs(ssim_loss(a.float(), b.float()) - ssim_loss(a, b)) < 1e-5


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_ssim_is_symmetric_and_in_its_range(seed):
    a, b = blend(seed)
    found = ssim(a, b)
    assert (found > -1).all() and (found <= 1 + 1e-12).all()
    torch.testing.assert_close(found, ssim(b, a))
    torch.testing.assert_close(ssim(a, a), torch.ones_like(a))


def test_ssim_tells_a_negative_and_gms_does_not():
    a = noise(1, 1, 32, 32)
    assert ssim(a, 1 - a).mean() < -0.5 and (gms(a, 1 - a) > 1 - 1e-9).all()


# --- gradients ---


@pytest.mark.parametrize("loss", [msgms_loss, ssim_loss])
def test_derivatives_are_those_of_finite_differences(loss):
    a, b = (x[:1, :2, :16, :16].contiguous() for x in blend(1, 16, 16))
    assert torch.autograd.gradcheck(lambda p: loss(a, p), b.requires_grad_())


@pytest.mark.parametrize("loss", [msgms_loss, ssim_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("painted", [0.0, 0.5, 1.0])
def test_gradient_is_finite_on_flat_pictures(loss, dtype, painted):
    for real in (torch.full((1, 3, 32, 32), 0.5, dtype=dtype), noise(1, 3, 32, 32).to(dtype)):
        J = torch.full_like(real, painted).requires_grad_()
        loss(real, J).backward()
        assert J.grad.isfinite().all()


@pytest.mark.parametrize("loss", [msgms_loss, ssim_loss])
def test_descending_paints_the_picture(loss):
    real = noise(1, 1, 16, 16)
    J = (real + 0.1 * (noise(1, 1, 16, 16, seed=9) - 0.5)).requires_grad_()
    optimizer, first = torch.optim.Adam([J], 1e-3), loss(real, J).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss(real, J).backward()
        optimizer.step()
    assert loss(real, J) < 0.5 * first


# --- what is refused ---


@pytest.mark.parametrize("a, b, word", [
    (torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32), "one shape"),
    (torch.rand(3, 32, 32), torch.rand(3, 32, 32), "one shape"),
    (torch.rand(1, 3, 32, 32), torch.ones(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
    (torch.rand(1, 3, 32, 15), torch.rand(1, 3, 32, 15), "32 x 15"),
])  # fmt: skip
def test_what_cannot_be_compared_is_named(a, b, word):
    with pytest.raises(G100Error, match=word) as error:
        msgms(a, b)
    assert "\n" not in str(error.value)


def test_even_window_is_refused():
    with pytest.raises(G100Error, match="window=10"):
        ssim(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32), window=10)
