"g100.experiments.plots: what is painted over a picture."

import numpy as np
import pytest

from g100.experiments.plots import HEAT, heat, relative


@pytest.mark.parametrize("shape", [(7, 9), (1, 300_000), (700, 900), (3, 262_144)])
def test_heat_is_the_equation_whatever_the_size(shape):
    "A large picture is painted some rows at a time; not a bit depends on it."
    rng = np.random.default_rng(0)
    image, map = rng.integers(0, 256, (*shape, 3), dtype=np.uint8), rng.normal(size=shape).astype(np.float32)
    map[:, ::5] = np.nan
    color = HEAT(np.nan_to_num(relative(map, (-0.5, 1.5)), nan=0.0))
    wanted = ((1 - color[..., 3:]) * image + color[..., 3:] * 255 * color[..., :3]).round().astype(np.uint8)
    painted = heat(image, map, (-0.5, 1.5))
    assert painted.dtype == np.uint8 and (painted == wanted).all()
    assert (painted[:, ::5] == image[:, ::5]).all(), "where nobody looked nothing is painted"
