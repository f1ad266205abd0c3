"""FAVAE: its loss and score against their definitions, the networks against those of the port; its contract; errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import nn
from torch.distributions import Normal, kl_divergence

from g100.algorithms.favae import FAVAE, Remembering, check_grids, fingerprint, shares, strides_of
from g100.algorithms.vae import VAE, kl, sampled, squared
from g100.foundations.errors import G100Error
from g100.foundations.features import Backbone, Teacher
from g100.foundations.lessons import Lessons, Options, own_randomness
from g100.foundations.maps import full_size, image_score
from g100.foundations.sources import as_image_set
from tests.toys import line_of, pictures, seeded, spotted

SETTINGS = {"image_size": 32, "width": 4, "z": 8, "levels": (1, 2), "sigma": 1.0, "epochs": 3}
SETTINGS |= {"train_batch": 6, "batch_size": 8, "studentise": False}  # maps as they are
pytestmark = [
    pytest.mark.xdist_group("favae"),  # its fixtures are made once
    pytest.mark.filterwarnings("ignore:.*false-positive rate.*"),
    pytest.mark.filterwarnings("ignore:.*RANDOM weights.*"),
]


@pytest.fixture(scope="module")
def fitted():
    return FAVAE(**SETTINGS | {"epochs": 24}).fit(pictures(40, 32), device="cpu")


def settled(**parameters):
    "A detector, its module, which has not learnt, and what would be trained in it."
    detector = FAVAE(**SETTINGS | parameters)
    detector.check()
    model = detector.build((32, 32)).eval()
    lessons = Lessons(as_image_set(pictures(6, 32)), detector.scoring(), 4, Options(torch.device("cpu")))
    return detector, model, detector.objective(model, lessons)


# --- the two terms ---


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 12), st.floats(0, 3))
def test_kl_is_that_of_torch_distributions(seed, batch, z, scale):
    mean, log_var = scale * torch.randn(2, batch, z, generator=seeded(seed), dtype=torch.float64)
    q, p = Normal(mean, (log_var / 2).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(kl(mean, log_var), kl_divergence(q, p).sum(1))
    assert (kl(mean, log_var) >= -1e-12).all() and kl(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


def test_codes_have_the_mean_and_the_variance_asked_for():
    mean, log_var = torch.tensor([[0.5, -2.0, 0.0]]), torch.tensor([[0.0, 1.5, -3.0]])
    z = sampled(mean.repeat(50_000, 1), log_var.repeat(50_000, 1), seeded())
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0).log(), log_var[0], atol=0.03, rtol=0)
    assert torch.equal(sampled(mean, log_var, seeded(3)), sampled(mean, log_var, seeded(3)))
    assert not torch.equal(sampled(mean, log_var, seeded(3)), sampled(mean, log_var, seeded(4)))


def test_gradients_pass_through_the_draw():
    mean, log_var = torch.zeros(1, 4, requires_grad=True), torch.zeros(1, 4, requires_grad=True)
    z = sampled(mean, log_var, seeded())
    by_mean, by_log_var = torch.autograd.grad(z.sum(), (mean, log_var))
    torch.testing.assert_close(by_mean, torch.ones(1, 4))
    torch.testing.assert_close(by_log_var, z.detach() / 2)


# --- loss and score ---


def naive_loss(detector: FAVAE, model: nn.Module, x: torch.Tensor, z: torch.Tensor, mean: torch.Tensor,
               log_var: torch.Tensor) -> float:  # fmt: skip
    "Eq. 1 in numpy, sum by sum, the mean over the pictures."
    painted, guesses = model.vae.decode(z)
    features, total = model.teacher(x), 0.0
    for i in range(len(x)):
        total += detector.pixel_weight * ((x[i].numpy() - painted[i].numpy()) ** 2).sum(dtype=np.float64)
        for a, b in zip(features, guesses, strict=True):
            total += detector.feature_weight * ((a[i].numpy() - b[i].numpy()) ** 2).sum(dtype=np.float64)
        m, v = mean[i].numpy().astype(float), np.exp(log_var[i].numpy().astype(float))
        total += detector.kl_weight * 0.5 * (m**2 + v - 1 - np.log(v)).sum()
    return total / len(x)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8).filter(lambda v: len(v) % 2 == 0))
def test_a_bounded_code_is_never_less_certain_than_the_prior(given_numbers):
    "sigma^2 = 1 / (1 + exp(-h)) whatever the encoder says: the loss stays finite, and a small variance is exp(h)."
    free, bound = (VAE((16, 16), (), (), 2, len(given_numbers) // 2, bounded=b).eval() for b in (False, True))
    for net in (free, bound):
        net.encoder.forward = lambda x: torch.tensor([given_numbers]).chunk(2, dim=1)
    h, log_var = (net(torch.zeros(1, 3, 16, 16))[3].double() for net in (free, bound))
    assert torch.allclose(log_var.exp(), 1 / (1 + (-h).exp())) and (log_var <= 0).all()
    assert kl(torch.zeros_like(h), log_var).isfinite().all()


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (100.0, 1.0, 2.0), (0.0, 3.0, 0.0)])
def test_loss_is_the_sum_of_sums_of_the_paper(weights):
    names = ("pixel_weight", "feature_weight", "kl_weight")
    detector, model, (network, loss, validation_loss) = settled(**dict(zip(names, weights, strict=True)))
    x = torch.rand(3, 3, 32, 32, generator=seeded())
    with torch.no_grad():
        _, _, mean, log_var = network(x)
        z = sampled(mean, log_var, seeded(5))
        drawn, at_mean = loss(network, x, seeded(5)).item(), validation_loss(network, x, seeded(5)).item()
        assert drawn == pytest.approx(naive_loss(detector, model, x, z, mean, log_var), rel=1e-5)
        assert at_mean == pytest.approx(naive_loss(detector, model, x, mean, mean, log_var), rel=1e-5)


def test_score_is_the_sum_of_the_up_sampled_squares(fitted):
    x = torch.from_numpy(spotted(3, 32)[0]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        mean, _ = fitted.vae_.encoder(x)
        painted, guesses = fitted.vae_.decode(mean)
        expected = fitted.pixel_weight * (x - painted).square().sum(1)
        for a, b in zip(fitted.teacher_(x), guesses, strict=True):
            level = (a - b).square().sum(1, keepdim=True)
            expected += fitted.feature_weight * F.interpolate(level, (32, 32), mode="bilinear")[:, 0]
        torch.testing.assert_close(fitted.fitted_.model(x), expected, rtol=1e-4, atol=1e-3)
        maps, scores = fitted.fitted_.judge(x)
        torch.testing.assert_close(maps, full_size(expected, 32, 1.0), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(scores, image_score(maps, "top_percent"))
        parts = shares(fitted.fitted_.model, x[:1], 1.0)
        torch.testing.assert_close(sum(parts.values()), maps[0], rtol=1e-4, atol=1e-3)
    assert list(parts) == ["pixels", "stride 4", "stride 8"]


def test_squared_sums_over_the_channels():
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(squared(a, b), F.mse_loss(a, b, reduction="none").sum(1))


def test_training_validation_and_scoring_read_the_same_levels():
    "Every pass through the decoder hands the same layers, and no others, to the adapters."
    seen, outputs, x = [], [], torch.rand(2, 3, 32, 32)
    _, model, (network, loss, validation_loss) = settled()
    for adapter in network.adapters:
        adapter.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    for layer in network.decoder.layers:
        layer.register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad():
        for work in (lambda: loss(network, x, seeded()), lambda: validation_loss(network, x, seeded()), lambda: model(x)):
            seen.clear(), outputs.clear()
            work()
            assert [next(i for i, o in enumerate(outputs) if o is given) for given in seen] == [4, 2]


def test_model_exports_and_agrees_on_other_batches(fitted):
    model, x = fitted.fitted_.model, torch.rand(5, 3, 32, 32, generator=seeded())
    exported = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    with torch.no_grad():
        for batch in (x[:1], x[:3], x):
            torch.testing.assert_close(exported(batch), model(batch), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("normalise", [True, False])
def test_model_built_without_weights_is_the_fitted_one_once_filled(normalise):
    parameters = SETTINGS | {"epochs": 1, "normalise": normalise}
    model, x = FAVAE(**parameters).fit(pictures(10, 32), device="cpu").fitted_.model, torch.rand(2, 3, 32, 32)
    with torch.device("meta"):
        empty = FAVAE(**parameters).build((32, 32))
    assert all(t.is_meta for t in empty.state_dict().values())
    empty.to_empty(device="cpu").eval().load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(empty(x), model(x))


# --- the networks ---


def test_paper_builds_the_layers_of_the_port():
    recipe = FAVAE.paper()
    net = VAE((128, 128), (128, 256, 512), strides_of(recipe.backbone, recipe.levels), recipe.width, recipe.z)
    shapes = {name: tuple(w.shape) for name, w in net.named_parameters() if name.endswith("weight") and w.ndim == 4}
    rows = [(128, 3, 4), (128, 128, 4), (256, 128, 3), (256, 256, 4), (512, 256, 3), (512, 512, 4), (512, 512, 3), (32, 512, 3)]
    expected = {f"encoder.layers.{i}.0.weight": (b, a, k, k) for i, (b, a, k) in enumerate(rows)}
    expected["encoder.code.weight"], expected["decoder.code.0.weight"] = (200, 32, 8, 8), (100, 32, 8, 8)
    expected |= {f"decoder.layers.{i}.weight": (b, a, k, k) for i, (b, a, k) in enumerate(rows[::-1])}
    for i, c in enumerate((128, 256, 512)):
        expected |= {f"adapters.{i}.0.weight": (c, c, 1, 1), f"adapters.{i}.2.weight": (c, c, 1, 1)}
    assert shapes == expected and strides_of(recipe.backbone, recipe.levels) == [2, 4, 8]
    assert all(m.negative_slope == 0.2 for m in net.modules() if isinstance(m, nn.LeakyReLU))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 16
    painted, features, mean, log_var = net.eval()(torch.zeros(1, 3, 128, 128))
    assert painted.shape == (1, 3, 128, 128) and mean.shape == log_var.shape == (1, 100)
    assert [tuple(f.shape[1:]) for f in features] == [(128, 64, 64), (256, 32, 32), (512, 16, 16)]


def test_paper_taps_the_blocks_of_vgg_behind_their_relus():
    recipe = FAVAE.paper()
    source = Backbone("vgg16", recipe.levels, "random")
    assert [name for name, m in source.net.named_modules() if isinstance(m, nn.Conv2d)][-1] == "features_21"
    x = torch.rand(1, 3, 64, 64)
    found = Teacher(source, recipe.normalise)(x)
    y, expected = x, []
    for name, layer in source.net.named_children():
        y = layer(y)
        if name in ("features_8", "features_15", "features_22"):  # conv2_2, conv3_3, conv4_3
            expected.append(y.clone())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_paper_takes_one_training_step_and_judges():
    recipe = FAVAE.paper(weights="random", epochs=1, train_batch=2, validation=0.0, calibration=0.3)
    detector = clone(recipe).fit(pictures(3, 128), device="cpu")
    with own_randomness(recipe.seed, torch.device("cpu")):
        fresh = recipe.build((128, 128)).vae
    for (name, before), after in zip(fresh.named_parameters(), detector.vae_.parameters(), strict=True):
        assert not torch.equal(before, after) and after.isfinite().all(), name
    assert np.isfinite(detector.history_[0]["loss"]) and np.isfinite(detector.inspect(pictures(1, 128)).score).all()


def test_paper_is_the_reference_recipe():
    recipe = FAVAE.paper().get_params()
    assert (recipe["backbone"], recipe["weights"], recipe["levels"]) == ("vgg16", "pretrained", (0, 1, 2))
    assert (recipe["image_size"], recipe["z"], recipe["width"], recipe["sigma"]) == (128, 100, 128, 4.0)
    assert (recipe["epochs"], recipe["train_batch"], recipe["learning_rate"]) == (100, 64, 5e-3)
    assert (recipe["optimizer"], recipe["schedule"], recipe["weight_decay"]) == ("adam", "constant", 1e-5)
    assert (recipe["pixel_weight"], recipe["feature_weight"], recipe["kl_weight"]) == (1.0, 1.0, 1.0)
    assert not recipe["standardise"] and not recipe["normalise"] and recipe["image_score"] == "max"
    assert FAVAE.paper(epochs=2, normalise=True).normalise


@pytest.mark.parametrize("size, strides", [((32, 48), (2, 4, 8, 16)), ((64, 32), (16,)), ((32, 32), (4, 8))])
def test_features_lie_on_the_grids_of_their_strides(size, strides):
    painted, features, *_ = VAE(size, range(3, 3 + len(strides)), strides, 2, 5)(torch.rand(2, 3, *size))
    assert painted.shape == (2, 3, *size) and 0 <= painted.min() and painted.max() <= 1
    assert [tuple(f.shape) for f in features] == [(2, 3 + i, size[0] // s, size[1] // s) for i, s in enumerate(strides)]


# --- the teacher, asked once ---


def test_what_is_remembered_is_what_the_teacher_says():
    teacher, x, asked = settled()[1].teacher, torch.rand(5, 3, 32, 32, generator=seeded()), []
    with torch.no_grad():
        source = Remembering(lambda y: asked.append(len(y)) or teacher(y), x.split(2), 1.0)
        assert asked == [2, 2, 1] and len(source.kept) == 5
        for maps, expected in zip(source(x[[4, 0, 2]]), teacher(x), strict=True):
            torch.testing.assert_close(maps, expected[[4, 0, 2]])
        assert asked == [2, 2, 1], "it was not asked again"
        mixed = torch.cat([x[:1], x[:1].flip(3)])
        for maps, expected in zip(source(mixed), teacher(mixed), strict=True):
            torch.testing.assert_close(maps, expected)
        assert asked == [2, 2, 1, 2], "but for a picture that is new"


def test_no_more_is_remembered_than_there_is_room_for():
    teacher, x = settled()[1].teacher, torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        each = sum(m[0].nbytes for m in teacher(x))
        assert len(Remembering(teacher, x.split(2), 4.5 * each / 1e9).kept) == 4
        none = Remembering(teacher, x.split(2), 0.0)
        assert not none.kept and torch.equal(none(x)[0], teacher(x)[0])


def test_a_picture_is_known_by_its_content_alone():
    x = torch.rand(1, 3, 8, 8)
    assert fingerprint(x[0]) == fingerprint(x.to(memory_format=torch.channels_last)[0]) == fingerprint(x.clone()[0])
    changed = x.clone()
    changed[0, 2, 7, 7] += 1e-6
    assert fingerprint(changed[0]) != fingerprint(x[0]) != fingerprint(x.flip(3)[0])


@pytest.mark.parametrize("flip", ["", "h"])
def test_remembering_changes_nothing(flip):
    a, b = (FAVAE(**SETTINGS, cache_gigabytes=room, flip=flip).fit(pictures(20, 32), device="cpu") for room in (1.0, 0.0))
    for row, other in zip(a.history_, b.history_, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert row["validation"] == pytest.approx(other["validation"], rel=1e-3)


# --- the contract ---


def test_reconstruction_of_held_out_pictures_gets_better(fitted):
    "Smoothed over a third of the training, without exception."
    held_out = np.convolve([row["validation"] for row in fitted.history_], np.ones(8) / 8, mode="valid")
    assert (np.diff(held_out) < 0).all()


def test_explain_shows_the_painting_and_the_parts(fitted):
    figure = fitted.explain(as_image_set(spotted(1, 32)[0]))
    titles = [axis.get_title().split("\n")[0].split(",")[0] for axis in figure.axes]
    assert titles == ["picture", "painted", "pixels", "stride 4", "stride 8", "map"]
    assert "explain wants one picture, not 2" in line_of(fitted.explain, pictures(2, 32))


def test_large_pictures_are_judged_in_crops():
    large = [np.tile(picture, (2, 2, 1)) for picture in pictures(10, 32)]
    detector = FAVAE(**SETTINGS | {"epochs": 1}, tile=32, overlap=16).fit(large, device="cpu")
    found = detector.inspect([np.tile(spotted(1, 32)[0][0], (3, 2, 1))])
    assert found.map.shape == (1, 96, 64) and np.isfinite(found.map).all()


# --- what is refused ---


@pytest.mark.parametrize("wrong, word", [
    ({"image_size": 40}, "image_size=40: wants multiples of 16 from 32 on, such as 32"),
    ({"image_size": 16}, "such as 32"), ({"image_size": (64, 100)}, "such as 96"), ({"image_size": 0}, "size=0"),
    ({"image_size": 32.5}, "size=32.5"),
    ({"levels": (2, 4)}, "stride 32 is none of the decoder's"), ({"levels": (3, 2)}, "levels"),
    ({"levels": (9,)}, "no level 9"), ({"backbone": "lite"}, "unknown backbone"), ({"weights": "imagenet"}, "unknown weights"),
    ({"backbone": "vgg16"}, "embedded"), ({"z": 0}, "z=0"), ({"width": 0}, "width=0"),
    ({"pixel_weight": -1.0}, "pixel_weight=-1"), ({"kl_weight": float("nan")}, "kl_weight=nan"),
    ({"pixel_weight": 0.0, "feature_weight": 0.0}, "nothing is left to learn"),
    ({"tile": 32, "overlap": 32}, "overlap=32"), ({"tile": 64}, "less than tile=64; choose tile=32 or smaller"),
    ({"flip": "x"}, "flip"), ({"epochs": 0}, "epochs"), ({"image_score": "maximum"}, "image_score"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(wrong, word):
    with pytest.raises(G100Error, match=word) as error:
        FAVAE(**SETTINGS | wrong).fit(pictures(10, 32), device="cpu")
    assert "\n" not in str(error.value)


class Elsewhere(nn.Module):
    "Features on grids that are not the decoder's."

    def forward(self, x):
        return [F.avg_pool2d(x, 4)[..., 1:], F.avg_pool2d(x, 8)]


def test_features_on_other_grids_are_named():
    line = line_of(check_grids, Elsewhere(), VAE((32, 32), (3, 3), (4, 8), 2, 5).eval(), (32, 32), "lite0")
    assert "backbone='lite0': its features [(3, 8, 7), (3, 4, 4)] do not lie on the decoder's grids" in line


def test_a_picture_smaller_than_a_crop_is_refused():
    detector = FAVAE(**SETTINGS | {"epochs": 1}, tile=32).fit(pictures(10, 40), device="cpu")
    assert "31 x 31 pixels, less than tile=32" in line_of(detector.inspect, pictures(1, 31))
