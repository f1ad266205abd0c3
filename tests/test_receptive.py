"""What a position has seen: receptive fields against gradients, and spreading against a transposed convolution."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from g100.algorithms.receptive import receptive_field, spread
from g100.foundations.features import Backbone
from tests.toys import seeded

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights.*")

# --- the receptive field ---


@pytest.mark.parametrize("name, level, size", [
    ("lite0", 1, (64, 96)), ("lite0", 2, (160, 136)), ("resnet18", 1, (96, 128)), ("vgg11_bn", 1, (64, 64)),
    ("vgg11_bn", 2, (128, 96)),
])  # fmt: skip
def test_receptive_field_is_where_gradients_are(name, level, size):
    fields, net = receptive_field(name, level, size), Backbone(name, (level,), "random").double()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)  # timm closes the blocks of a ResNet at first
    x = torch.rand(4, 3, *size, dtype=torch.float64, generator=seeded()).requires_grad_()
    features = net(x)[0]
    middle = [n // 2 for n in features.shape[2:]]
    (slope,) = torch.autograd.grad(features[:, :, *middle].sum(), x)
    for axis in range(2):
        seen = slope.abs().sum((0, 1, 3 - axis)).nonzero()[:, 0]
        centre = fields[axis].start + middle[axis] * fields[axis].jump
        first, last = centre - fields[axis].size / 2, centre + fields[axis].size / 2
        assert (seen.min().item(), seen.max().item() + 1) == (max(first, 0), min(last, size[axis]))


def test_receptive_fields_that_are_known():
    "VGG-11 to stride 8: 62 pixels, as the paper says; the first stage of ResNet-18: 43."
    assert receptive_field("vgg11_bn", 2, (224, 224))[0][:2] == (62, 8)
    assert receptive_field("resnet18", 1, (224, 224))[1][:2] == (43, 4)
    assert receptive_field("lite0", 2, (160, 160))[0][:2] == (67, 8)


# --- up-sampling ---


@settings(deadline=None, max_examples=40)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(1, 9), st.integers(1, 40), st.floats(0.7, 12))
def test_spreading_is_a_transposed_convolution(grid, j, n, std):
    a, size = torch.rand(2, *grid, dtype=torch.float64, generator=seeded(n)), tuple(j * q for q in grid)
    reach = 2 * (n + j)
    t = torch.arange(-reach, reach, dtype=torch.float64) + 0.5 * (j % 2 == 0)
    taps = torch.exp(-0.5 * (t / std) ** 2) * (t.abs() <= max(n, j) / 2)
    kernel = torch.outer(taps, taps)[None, None]
    first = int(round((t[0] + j / 2 - 0.5).item()))  # the pixel that the first tap of position 0 falls on

    def transposed(maps):
        whole = F.conv_transpose2d(maps[:, None], kernel, stride=j)[:, 0]
        return whole[:, -first : size[0] - first, -first : size[1] - first]

    torch.testing.assert_close(spread(a, size, (n, n), std), transposed(a) / transposed(torch.ones_like(a)))
    if j % 2 == 0:
        scale = 3.7 * j * j / kernel.sum() if n >= j else None
        if scale is not None:
            torch.testing.assert_close(spread(a, size, (n, n), std, gain=3.7), scale * transposed(a))


def test_a_flat_map_stays_flat_or_grows_by_the_gain():
    flat = torch.ones(1, 28, 28)
    torch.testing.assert_close(spread(flat, (224, 224), (62, 62), 12.0), torch.ones(1, 224, 224))
    grown = spread(flat, (224, 224), (62, 62), 12.0, gain=3.7)
    assert grown[0, 112, 112].item() == pytest.approx(3.7, rel=0.02) and grown[0, 0, 0] < 0.4 * 3.7


def test_a_peak_is_spread_around_its_cell():
    a = torch.zeros(1, 8, 8)
    a[0, 2, 5] = 1.0
    A = spread(a, (64, 64), (67, 67), 8.0, gain=1.0)[0]
    weight = A / A.sum()
    at = torch.arange(64) + 0.5
    assert A.argmax() in (19 * 64 + 43, 19 * 64 + 44, 20 * 64 + 43, 20 * 64 + 44)
    assert (weight.sum(1) * at).sum().item() == pytest.approx(20, abs=0.3)
