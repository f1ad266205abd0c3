"""RIAD: masks, painting, loss and score against their definitions; its contract; what it refuses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import nn

from g100.algorithms.riad import RIAD, UNet, distance, inpaint, masks, painting_loss
from g100.algorithms.similarity import gms_scales, msgms, msgms_loss
from g100.foundations.errors import G100Error
from g100.foundations.lessons import generator
from g100.foundations.sources import as_image_set
from tests.toys import pictures, seeded

SETTINGS = {"image_size": 32, "ks": (4, 8), "width": 4, "depth": 2, "shuffle": 2, "sigma": 1.0}
SETTINGS |= {"epochs": 3, "train_batch": 6, "batch_size": 8}
pytestmark = pytest.mark.filterwarnings("ignore:.*false-positive rate.*")


@pytest.fixture(scope="module")
def fitted():
    return RIAD(**SETTINGS | {"epochs": 8}).fit(pictures(30, 32), device="cpu")


# --- masks ---

grids = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4, 8, 16]))


@settings(deadline=None, max_examples=50)
@given(grids, st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_masks_are_disjoint_complete_and_of_equal_size(grid, n, batch, seed):
    rows, columns, k = grid
    hidden = masks((rows * k, columns * k), k, n, seeded(seed), batch)
    assert hidden.shape == (batch, n, rows * k, columns * k) and hidden.dtype == torch.bool
    assert (hidden.sum(dim=1) == 1).all()
    pixels = hidden.sum(dim=(2, 3))
    assert (pixels.max(1).values - pixels.min(1).values <= k * k).all()
    cells = hidden.unflatten(3, (columns, k)).unflatten(2, (rows, k)).transpose(3, 4).flatten(4)
    assert (cells.all(dim=4) == cells.any(dim=4)).all()


def test_masks_depend_on_the_seed_and_differ_within_a_batch():
    a = masks((32, 32), 4, 3, seeded(1), 4)
    assert torch.equal(a, masks((32, 32), 4, 3, seeded(1), 4))
    assert not torch.equal(a, masks((32, 32), 4, 3, seeded(2), 4)) and not torch.equal(a[0], a[1])


def test_every_cell_is_dealt_to_every_set_equally_often():
    share = masks((24, 24), 4, 3, seeded(), 3000).float().mean(0)
    assert (share - 1 / 3).abs().max() < 0.05


# --- the network ---


def test_shuffle_loses_nothing():
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), x)


@pytest.mark.parametrize("width, depth, shuffle, size", [(4, 2, 1, (16, 32)), (4, 3, 2, (48, 32)), (8, 1, 4, (16, 16))])
def test_unet_keeps_the_size_and_the_range(width, depth, shuffle, size):
    y = UNet(width, depth, shuffle)(torch.rand(2, 3, *size))
    assert y.shape == (2, 3, *size) and y.abs().max() <= 1


def test_paper_builds_the_layers_of_the_port():
    recipe = RIAD.paper()
    net = UNet(recipe.width, recipe.depth, recipe.shuffle)
    convolutions = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    going_down = [tuple(m[0].weight.shape) for m in (net.stem, *net.downs)]
    assert going_down == [(64, 3, 3, 3), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (512, 512, 4, 4)]
    going_up = [tuple(m.weight.shape) for m in net.ups]
    assert going_up == [(512, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4)]
    assert tuple(net.head.weight.shape) == (3, 64, 3, 3) and len(convolutions) == 10 + 4 + 8 + 1


# --- painting ---


def test_painting_is_the_sum_over_the_masks():
    net, x, hidden = UNet(4, 2, 1).eval(), torch.rand(2, 3, 16, 16), masks((16, 16), 4, 3, seeded())
    with torch.no_grad():
        parts = [net((2 * x - 1) * (~hidden[0, i])) * 0.5 + 0.5 for i in range(3)]
        expected = sum(part * hidden[0, i] for i, part in enumerate(parts))
        torch.testing.assert_close(inpaint(net, x, hidden), expected)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([2, 4, 8]))
def test_no_hidden_pixel_is_seen(seed, k):
    "A painted part does not change when what was hidden with it does."
    net, x = UNet(4, 2, 1).eval(), torch.rand(1, 3, 16, 16, generator=seeded(seed))
    hidden = masks((16, 16), k, 2, seeded(seed))
    changed = torch.where(hidden[:, 0, None], torch.rand(x.shape, generator=seeded(seed + 1)), x)
    with torch.no_grad():
        a, b = inpaint(net, x, hidden), inpaint(net, changed, hidden)
    assert torch.equal(a[..., hidden[0, 0]], b[..., hidden[0, 0]]) and not torch.equal(a, b)


def test_loss_is_the_sum_of_its_three_parts():
    x, y = torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "full": True}
    similar = [structural_similarity(x[i, c].numpy(), y[i, c].numpy(), **how)[1] for i in range(2) for c in range(3)]
    expected = ((x - y) ** 2).mean() + 2 * msgms_loss(x, y) + 3 * (1 - np.mean(similar))
    assert distance(x, y, 2.0, 3.0).item() == pytest.approx(expected.item())
    assert distance(x, x).item() == pytest.approx(0, abs=1e-9)


# --- the model ---


def test_every_k_counts_the_same(fitted):
    model, x = fitted.fitted_.model, torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        each = [1 - msgms(x, painted) for painted in model.paintings(x)]
        torch.testing.assert_close(model(x), (each[0] + each[1]) / 2)
        scales = [1 - F.interpolate(s, (32, 32), mode="bilinear")[:, 0] for s in gms_scales(x, model.paintings(x)[0])]
        torch.testing.assert_close(each[0], sum(scales) / 4)


def test_masks_for_judging_are_those_of_the_seed(fitted):
    model = fitted.fitted_.model
    for hidden, k in zip(fitted.hidden_, (4, 8), strict=True):
        assert torch.equal(hidden, masks((32, 32), k, 3, generator(0, "validation", k))[0])
    assert "hidden" in model.state_dict() and not torch.equal(RIAD(**SETTINGS).build((32, 32)).deal(1).hidden, model.hidden)


def test_model_exports_and_agrees_on_other_batches(fitted):
    model, x = fitted.fitted_.model, torch.rand(5, 3, 32, 32, generator=seeded())
    exported = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    with torch.no_grad():
        for batch in (x[:1], x[:3], x):
            torch.testing.assert_close(exported(batch), model(batch))


def test_model_built_without_weights_is_the_fitted_one_once_filled(fitted):
    model, x = fitted.fitted_.model, torch.rand(2, 3, 32, 32)
    with torch.device("meta"):
        empty = RIAD(**SETTINGS).build((32, 32))
    assert all(t.is_meta for t in empty.state_dict().values())
    empty.to_empty(device="cpu").eval().load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(empty(x), model(x))


# --- training ---


def test_a_batch_is_trained_on_one_side_and_validated_on_all():
    detector, x = RIAD(**SETTINGS, gms_weight=2.0, ssim_weight=3.0), torch.rand(2, 3, 32, 32, generator=seeded())
    network, loss, validation_loss = detector.objective(detector.build((32, 32)).eval(), None)
    weights = {"gms_weight": 2.0, "ssim_weight": 3.0}
    sides = set()
    with torch.no_grad():
        for seed in range(8):
            random = seeded(seed)
            k = (4, 8)[int(torch.randint(2, (1,), generator=random))]
            expected = distance(x, inpaint(network, x, masks((32, 32), k, 3, random)), **weights)
            assert loss(network, x, seeded(seed)).item() == pytest.approx(expected.item())
            sides.add(k)
        random = seeded()
        each = [painting_loss(network, x, k, 3, random, **weights).item() for k in (4, 8)]
        assert validation_loss(network, x, seeded()).item() == pytest.approx(sum(each) / 2)
    assert sides == {4, 8}


# --- the contract ---


def test_paper_is_the_reference_recipe():
    recipe = RIAD.paper().get_params()
    assert (recipe["image_size"], recipe["width"], recipe["depth"], recipe["shuffle"]) == (256, 64, 4, 1)
    assert (recipe["ks"], recipe["n"], recipe["epochs"], recipe["train_batch"]) == ((2, 4, 8, 16), 3, 300, 4)
    assert (recipe["learning_rate"], recipe["schedule"], recipe["optimizer"]) == (1e-4, "step", "adam")
    assert (recipe["weight_decay"], recipe["validation"], recipe["patience"]) == (1e-5, 0.2, 20)
    assert RIAD.paper(epochs=2).epochs == 2


@pytest.mark.slow
def test_paper_takes_one_training_step():
    detector = RIAD.paper()
    detector.check()
    net, loss_of, _ = detector.objective(detector.build((256, 256)).train(), None)
    x = torch.rand(1, 3, 256, 256)
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)
    first = net.head.weight.detach().clone()
    loss = loss_of(net, x, seeded())
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and not torch.equal(first, net.head.weight)
    assert all(w.grad is not None and w.grad.isfinite().all() for w in net.parameters())


def test_explain_shows_a_row_for_each_side(fitted):
    axes = fitted.explain(as_image_set(pictures(1, 32))).axes
    assert len(axes) == 2 * 7 + 1 and [axes[1].get_ylabel(), axes[8].get_ylabel()] == ["k = 4", "k = 8"]  # and a colour bar
    assert [axis.get_title() for axis in axes[:3]] == ["picture", "a view", "painted"] and axes[7].get_title() == "final map"
    assert (axes[1].images[0].get_array()[fitted.hidden_[0, 0].numpy()] == 0).all()


@pytest.mark.parametrize("wrong, word", [
    ({"image_size": 12}, "image_size=12 is too small for k=8; 16 would do"),
    ({"image_size": 36}, "not a multiple of k=8; try 40"),
    ({"image_size": 40, "ks": (4,), "depth": 3}, "shuffle"), ({"ks": ()}, "ks="), ({"ks": (0, 4)}, "ks="),
    ({"ks": (2.5,)}, "ks="), ({"n": 1}, "n=1"), ({"n": 17}, "at most the 16 cells of k=8"), ({"width": 0}, "width"),
    ({"flip": "x"}, "flip"), ({"epochs": 0}, "epochs"), ({"image_score": "maximum"}, "image_score"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(wrong, word):
    with pytest.raises(G100Error, match=word) as error:
        RIAD(**SETTINGS | wrong).fit(pictures(10, 32))
    assert "\n" not in str(error.value)
