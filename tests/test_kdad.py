"""KDAD: loss, maps, gradients and opening against their definitions; both cloners; its contract; what it refuses."""

from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from g100.algorithms.kdad import (
    KDAD,
    METHODS,
    Disagreement,
    PublishedCloner,
    SlimCloner,
    check_taps,
    direction,
    discrepancy,
    discrepancy_map,
    picture_loss,
    unrolled,
)
from g100.algorithms.saliency import guided, input_gradient, smooth_gradient
from g100.foundations.detector import filled, load
from g100.foundations.errors import G100Error
from g100.foundations.features import Backbone, Teacher
from g100.foundations.lessons import Judge, generator, own_randomness
from g100.foundations.overlay import opened
from g100.foundations.sources import as_image_set
from tests.toys import judged_twice, line_of, pictures, seeded, spotted

SETTINGS = {"image_size": 32, "width": 4, "epochs": 3, "train_batch": 6, "batch_size": 8, "sigma": 1.0}
SETTINGS |= {"smoothgrad_n": 3, "levels": (1, 2, 3), "studentise": False}  # maps as they are
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*false-positive rate.*"),
    pytest.mark.filterwarnings("ignore:.*RANDOM weights.*"),
]


@pytest.fixture(scope="module")
def fitted():
    return KDAD(**SETTINGS | {"epochs": 10}).fit(pictures(30, 32), device="cpu")


def read_by(fitted: KDAD, method: str, **parameters) -> KDAD:
    "A detector with the same networks that reads them by another method; its thresholds are not its own."
    detector = KDAD(**fitted.get_params() | {"method": method} | parameters)
    told = {name: getattr(detector, name) for name in ("value_weight", "pool", "seed", *KDAD.unseen)}
    judge = Judge(Disagreement(fitted.teacher_, fitted.cloner_, **told), detector.scoring()).eval()
    detector.fitted_ = replace(fitted.fitted_, judge=judge, parameters=detector.get_params())
    return detector


def some_taps(seed: int = 0, n: int = 3, shapes=((6, 8, 8), (10, 4, 4), (12, 2, 2)), dtype=torch.float64):
    "Taps of n pictures by two imaginary networks."
    random = seeded(seed)
    a = [torch.randn(n, *shape, generator=random, dtype=dtype) for shape in shapes]
    return a, [f + 0.5 * torch.randn(f.shape, generator=random, dtype=dtype) for f in a]


# --- the loss ---


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 3))
def test_loss_is_its_definition(seed, weight):
    a, b = some_taps(seed)
    found = picture_loss(a, b, weight)
    for i in range(3):
        expected = 0.0
        for p, q in zip(a, b, strict=True):
            u, v = p[i].numpy().ravel(), q[i].numpy().ravel()
            expected += 1 - u @ v / np.sqrt((u @ u) * (v @ v)) + weight * np.mean((u - v) ** 2)
        assert found[i].item() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_direction_is_half_the_square_on_the_unit_sphere_and_knows_no_length(seed, scale):
    (a, *_), (b, *_) = some_taps(seed)
    unit = [f.flatten(1) / f.flatten(1).norm(dim=1, keepdim=True) for f in (a, b)]
    torch.testing.assert_close(direction(a, b), (unit[0] - unit[1]).square().sum(1) / 2)
    torch.testing.assert_close(direction(a, scale * b), direction(a, b))


def test_equal_taps_cost_nothing():
    a, _ = some_taps()
    assert picture_loss(a, a).abs().max() < 1e-12 and discrepancy(a[0], a[0]).abs().max() == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 3))
def test_the_mean_of_the_discrepancy_is_the_loss(seed, weight):
    a, b = some_taps(seed)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(discrepancy(p, q, weight).mean((1, 2)), picture_loss([p], [q], weight))
    torch.testing.assert_close(discrepancy_map(a, b, weight).mean((1, 2)), picture_loss(a, b, weight))


def test_discrepancy_points_at_the_position_that_differs():
    a, _ = some_taps()
    b = a[0].clone()
    b[1, :, 5, 2] += 3
    d = discrepancy(a[0], b)
    assert d[1].argmax() == 5 * 8 + 2 and d[[0, 2]].abs().max() == 0


# --- the networks ---


@pytest.mark.parametrize("levels", [(0, 1, 2, 3, 4), (1, 3), (2,)])
@pytest.mark.parametrize("size", [(64, 64), (70, 45)])
def test_slim_cloner_has_the_shapes_of_its_source(levels, size):
    source = Teacher(Backbone("lite0", levels, "random"))
    cloner = SlimCloner(source.channels, source.strides, 4).eval()
    check_taps(source, cloner, torch.zeros(1, 3, *size))


def test_published_cloner_layer_by_layer():
    widths = [16, 16, "M", 16, 128, "M", 16, 16, 256, "M", 16, 16, 512, "M", 16, 16, 512, "M"]
    expected, before = [], 3
    for i, width in enumerate(widths):
        if width == "M":
            expected.append(("pool", 2))
            continue
        expected.append(("conv", before, width, (3, 3), (1, 1), None))
        expected += [("norm", width)] * (widths[i + 1] != "M") + [("relu",)]
        before = width
    found = []
    for m in PublishedCloner().modules():
        if isinstance(m, nn.Conv2d):
            found.append(("conv", m.in_channels, m.out_channels, m.kernel_size, m.padding, m.bias))
        elif isinstance(m, nn.BatchNorm2d):
            found.append(("norm", m.num_features))
        elif isinstance(m, nn.ReLU):
            found.append(("relu",))
        elif isinstance(m, nn.MaxPool2d):
            found.append(("pool", m.kernel_size))
    assert found == expected


def test_published_cloner_begins_with_xaviers_weights():
    for m in PublishedCloner().modules():
        if isinstance(m, nn.Conv2d):
            bound = (6 / (9 * m.in_channels + 9 * m.out_channels)) ** 0.5
            assert m.weight.abs().max() <= bound and m.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_paper_source_is_vggs_poolings():
    model, x, found = KDAD.paper(weights="random").build((64, 64)), torch.rand(1, 3, 64, 64), []
    with torch.no_grad():
        y = x
        for m in model.teacher.backbone.net.children():
            y = m(y)
            found += [y] if isinstance(m, nn.MaxPool2d) else []
        taps = model.source(x)
        last = F.max_pool2d(y, 2)  # timm cuts the network before its last pooling
    assert [t.shape[1] for t in taps] == [128, 256, 512, 512] and model.strides == [4, 8, 16, 32]
    for a, b in zip(taps, [*found[1:], last], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


# --- gradients ---


def net64(seed: int = 0, channels=(5, 7), strides=(2, 4)):
    torch.manual_seed(seed)
    return SlimCloner(channels, strides, 4).double().eval()


def losses64():
    source, cloner = net64(0), net64(1)
    return lambda x: picture_loss(source(x), cloner(x))


def test_batched_gradients_are_the_ones_of_each_picture():
    x, losses = torch.rand(5, 3, 16, 24, dtype=torch.float64, generator=seeded()), losses64()
    value, gradient = input_gradient(losses, x)
    for i in range(5):
        y = x[i : i + 1].clone().requires_grad_()
        losses(y)[0].backward()
        torch.testing.assert_close(gradient[i : i + 1], y.grad, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(value[i], losses(x[i : i + 1])[0])


def test_gradient_is_the_slope_through_both_networks():
    x, losses = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=seeded()), losses64()
    gradient = input_gradient(losses, x)[1]
    for seed in range(3):
        v = torch.randn(x.shape, dtype=torch.float64, generator=seeded(seed))
        with torch.no_grad():
            slope = (losses(x + 1e-7 * v) - losses(x - 1e-7 * v)) / 2e-7
        torch.testing.assert_close((gradient * v).sum((1, 2, 3)), slope, rtol=1e-3, atol=1e-6)


def test_gradients_are_had_in_inference_mode():
    losses = losses64()
    with torch.inference_mode():
        x = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=seeded())
        assert input_gradient(losses, x)[1].abs().max() > 0 and not torch.is_grad_enabled()


def test_gradient_is_where_the_receptive_fields_of_the_disagreement_are():
    "A cloner that answers as the source but at one position: the gradient stays near it."
    source = net64()
    bump = torch.zeros(1, 5, 32, 32, dtype=torch.float64)
    bump[..., 4, 4] = 1.0

    def losses(x):
        f = source(x)[0]
        return (bump * f).square().sum((1, 2, 3))

    gradient = input_gradient(losses, torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=seeded()))[1]
    assert gradient[..., :14, :14].abs().max() > 0 and gradient[..., 14:, :].abs().max() == 0


def guided_by_hand(x, layers, top):
    "What comes back to x through Linear layers with ReLU between them, the positive part only."
    inputs = [x]
    for i, layer in enumerate(layers):
        inputs.append(layer(inputs[-1]).clamp_min(0) if i < len(layers) - 1 else layer(inputs[-1]))
    back = top
    for i in reversed(range(len(layers))):
        back = back @ layers[i].weight
        if i:
            back = back.clamp_min(0) * (inputs[i] > 0)
    return back


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.booleans())
def test_guided_passes_positive_gradients_only(seed, inplace):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 1)]
    net = nn.Sequential(layers[0], nn.ReLU(inplace=inplace), layers[1], nn.ReLU6(inplace=inplace), layers[2])
    x = torch.randn(3, 4)
    with guided(net):
        _, found = input_gradient(lambda y: net(y)[:, 0], x)
    with torch.no_grad():
        torch.testing.assert_close(found, guided_by_hand(x, layers, torch.ones(3, 1)))
    y = x.clone().requires_grad_()
    net(y).sum().backward()
    torch.testing.assert_close(input_gradient(lambda y: net(y)[:, 0], x)[1], y.grad)  # the hooks are gone


@pytest.mark.parametrize("source_too", [True, False])
def test_guided_map_guides_the_networks_it_says(fitted, source_too):
    x, model = torch.rand(2, 3, 32, 32, generator=seeded()), fitted.fitted_.model
    with guided(model.cloner), guided(model.teacher) if source_too else nullcontext():
        expected = input_gradient(model.losses, x)[1].abs().sum(1)
    torch.testing.assert_close(read_by(fitted, "guided", guide_source=source_too).fitted_.model(x), expected)
    assert not torch.allclose(read_by(fitted, "guided", guide_source=not source_too).fitted_.model(x), expected)


def test_guided_hooks_go_even_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(RuntimeError), guided(net):
        raise RuntimeError
    assert not net[1]._forward_hooks


def test_smooth_gradient_of_a_quadratic_is_its_gradient_at_the_mean_noise():
    "For L = |x|^2 the gradient is 2 x, so the mean over noisy copies is 2 (x + mean noise)."
    x = torch.rand(2, 3, 4, 4, generator=seeded())
    noise = torch.stack([torch.randn(1, 3, 4, 4, generator=generator(7, "validation", j)) for j in range(5)]).mean(0)
    found = smooth_gradient(lambda y: y.square().sum((1, 2, 3)), x, 5, 0.1, 7)
    torch.testing.assert_close(found, 2 * (x + 0.1 * noise))
    torch.testing.assert_close(smooth_gradient(lambda y: y.square().sum((1, 2, 3)), x, 4, 0.0, 7), 2 * x)


# --- opening ---


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([3, 5, 7]), st.tuples(st.integers(1, 14), st.integers(1, 14)))
def test_opening_is_opencvs_and_commutes_with_thresholds(seed, diameter, size):
    maps = torch.rand(2, *size, generator=seeded(seed))
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
    for before, after in zip(maps.numpy(), opened(maps, diameter).numpy(), strict=True):
        np.testing.assert_array_equal(after, cv2.morphologyEx(before, cv2.MORPH_OPEN, element))
        for t in np.quantile(before, [0.1, 0.5, 0.8]):
            mask = cv2.morphologyEx((before > t).astype(np.uint8), cv2.MORPH_OPEN, element)
            np.testing.assert_array_equal(after > t, mask > 0)


def test_opening_twice_is_opening_once_and_never_adds():
    maps = torch.rand(2, 20, 20, generator=seeded())
    once = opened(maps, 5)
    assert torch.equal(opened(once, 5), once) and (once <= maps).all() and torch.equal(opened(maps, 1), maps)


# --- the contract ---


@pytest.mark.parametrize("method", METHODS)
def test_repeated_scoring_is_bit_identical(fitted, method):
    first = judged_twice(read_by(fitted, method), spotted(6, 32)[0])
    assert np.isfinite(first.map).all() and (first.map >= 0).all() and first.map.shape == (6, 32, 32)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_does_not_depend_on_the_other_pictures(fitted, method):
    detector, x = read_by(fitted, method), spotted(6, 32)[0]
    together = detector.inspect(x).map
    np.testing.assert_allclose(detector.inspect(x[4:5]).map, together[4:5], rtol=1e-3, atol=1e-4 * together.max())


def test_maps_are_not_stretched_picture_by_picture(fitted):
    bad, good = fitted.inspect(spotted(6, 32)[0]).map, fitted.inspect(pictures(6, 32, seed=5)).map
    assert good.max(axis=(1, 2)).max() < bad.max(axis=(1, 2)).min()


@pytest.mark.parametrize("how", ["loss", "max", "top_percent"])
def test_defects_score_higher_than_good_pictures(fitted, how):
    detector = read_by(fitted, "discrepancy", image_score=how)
    good, bad = detector.inspect(pictures(20, 32, seed=7)).score, detector.inspect(spotted(20, 32)[0]).score
    assert bad.min() > good.max()


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_as_score_is_the_loss_of_the_picture(fitted, method):
    x = torch.from_numpy(spotted(3, 32)[0]).permute(0, 3, 1, 2) / 255
    model = fitted.fitted_.model
    with torch.no_grad():
        expected = picture_loss(model.source(x), model.cloner(x), fitted.value_weight)
    maps, score = read_by(fitted, method).fitted_.model.scored(x)
    torch.testing.assert_close(score.detach(), expected)
    torch.testing.assert_close(maps, read_by(fitted, method).fitted_.model(x))
    torch.testing.assert_close(read_by(fitted, method, image_score="loss").fitted_.judge(x)[1].detach(), expected)


@pytest.mark.parametrize("method", METHODS[1:])
def test_gradient_maps_are_smoothed_and_then_opened(fitted, method):
    x = torch.rand(3, 3, 32, 32, generator=seeded())
    rough, cleared = (read_by(fitted, method, opening=opening).fitted_.judge(x)[0] for opening in (1, 3))
    assert torch.equal(cleared, opened(rough, 3)) and not torch.equal(cleared, rough)


def test_discrepancy_maps_are_not_opened_and_have_the_grid_of_the_first_tap(fitted):
    x = torch.rand(3, 3, 32, 32, generator=seeded())
    assert torch.equal(*(read_by(fitted, "discrepancy", opening=opening).fitted_.judge(x)[0] for opening in (1, 3)))
    assert fitted.fitted_.model(x).shape == (3, 8, 8)


@pytest.mark.parametrize("method", METHODS)
def test_saved_detector_judges_to_the_bit(fitted, tmp_path, method):
    detector, x = read_by(fitted, method), spotted(6, 32)[0]
    again = load(detector.save(tmp_path / "model"), device="cpu")
    first, second = detector.inspect(x), again.inspect(x)
    np.testing.assert_array_equal(first.map, second.map)
    np.testing.assert_array_equal(first.score, second.score)
    assert again.history_ == fitted.history_ and len(again.history_) == 10


@pytest.mark.parametrize("parameters", [{}, {"method": "guided", "pool": True, "levels": (0, 1, 2)}])
def test_model_built_without_weights_and_filled_is_the_model(parameters):
    "Nothing that judges is outside the state."
    detector = KDAD(**SETTINGS | {"epochs": 1} | parameters).fit(pictures(10, 32), device="cpu")
    with torch.device("meta"):
        empty = detector.build((32, 32))
    assert all(t.device.type == "meta" for t in empty.state_dict().values())
    model, x = filled(empty, detector.fitted_.model.state_dict()), torch.rand(2, 3, 32, 32, generator=seeded())
    assert torch.equal(model(x), detector.fitted_.model(x))


def test_training_does_not_see_how_maps_are_read(fitted):
    other = KDAD(**SETTINGS | {"epochs": 10, "method": "guided", "smoothgrad_n": 1, "guide_source": False})
    other.fit(pictures(30, 32), device="cpu")
    mine, theirs = fitted.fitted_.model.state_dict(), other.fitted_.model.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# --- export ---

BATCH = torch.export.Dim("batch", min=1, max=256)


@pytest.mark.parametrize("how", ["top_percent", "loss"])
def test_exported_discrepancy_agrees_on_any_number_of_pictures(fitted, how):
    judge, x = read_by(fitted, "discrepancy", image_score=how).fitted_.judge, torch.rand(9, 3, 32, 32, generator=seeded())
    program = torch.export.export(judge, (x[:3],), dynamic_shapes={"x": {0: BATCH}}).module()
    for n in (1, 2, 9):
        for mine, exported in zip(judge(x[:n]), program(x[:n]), strict=True):
            torch.testing.assert_close(exported, mine)


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_gradient_is_not_exported_as_another_map(fitted, method):
    """torch.export (2.14) does not trace a backward pass inside `forward`: `torch.func.grad` ends in "Cannot access data
    pointer of Tensor that doesn't have storage", `torch.autograd.grad` leaves stand-ins without values in the program."""
    model, x = read_by(fitted, method).fitted_.model, torch.rand(3, 3, 32, 32, generator=seeded())
    said = line_of(lambda: torch.export.export(model, (x,), dynamic_shapes={"x": {0: BATCH}}))
    assert f"method='{method}'" in said and "unrolled(model, size)" in said and 'or take method="discrepancy"' in said


@pytest.mark.parametrize("size", [(32, 32), (7, 11)])
@pytest.mark.parametrize("how", [{"method": "plain"}, {"method": "guided"}, {"method": "guided", "guide_source": False}])
def test_unrolled_gradient_is_exported_and_agrees_on_any_number_of_pictures(how, size):
    torch.manual_seed(0)
    teacher = Teacher(Backbone("lite0", (0,)))
    model = Disagreement(teacher, SlimCloner(teacher.channels, teacher.strides, 4), **how).eval()
    x = torch.rand(9, 3, *size, generator=seeded())
    before = model(x)
    program = torch.export.export(unrolled(model, size), (x[:4],), dynamic_shapes=({0: BATCH},)).module()
    for n in (1, 3, 9):
        torch.testing.assert_close(program(x[:n]), model(x[:n]))
    assert torch.equal(model(x), before)  # the tracer has left nothing in the model


@pytest.mark.parametrize("method", ["discrepancy", "smoothgrad"])
def test_what_is_not_unrolled_says_why(fitted, method):
    said = line_of(unrolled, read_by(fitted, method).fitted_.model, (32, 32))
    assert f"method='{method}'" in said and '"plain" and "guided"' in said


# --- the method that was asked for, or none ---


def test_unknown_method_is_refused_by_the_model(fitted):
    said = line_of(lambda: Disagreement(fitted.teacher_, fitted.cloner_, "evil"))
    assert said == f"unknown method 'evil'; known: {', '.join(sorted(METHODS))}"


def test_method_set_after_fit_changes_no_verdict_and_is_said(fitted):
    "It was taken for the plain gradient."
    detector, x = read_by(fitted, "discrepancy"), spotted(3, 32)[0]
    expected = detector.inspect(x).map
    detector.set_params(method="evil")
    with pytest.warns(UserWarning, match="method was 'discrepancy' at fit and is 'evil' now"):
        np.testing.assert_array_equal(detector.inspect(x).map, expected)
    assert "unknown method 'evil'" in line_of(lambda: detector.fit(pictures(10, 32), device="cpu"))


SILU = {"backbone": "efficientnet_b0", "weights": "random", "epochs": 1}


def test_guiding_a_source_without_rectifiers_is_refused():
    "It was the plain gradient through the source, under another name."
    detector = KDAD(**SETTINGS | SILU | {"method": "guided"})
    said = line_of(lambda: detector.fit(pictures(10, 32), device="cpu"))
    assert "guided" in said and "efficientnet_b0 has no rectifier" in said
    assert all(way in said for way in ("another method", "a backbone with ReLUs", "guide_source=False"))


def test_source_without_rectifiers_is_read_in_other_ways():
    alone = KDAD(**SETTINGS | SILU | {"method": "guided", "guide_source": False}).fit(pictures(10, 32), device="cpu")
    assert np.isfinite(alone.inspect(pictures(2, 32)).map).all()
    plain = KDAD(**SETTINGS | SILU).fit(pictures(10, 32), device="cpu")
    titles = [axis.get_title().partition("\n")[0] for axis in plain.explain(pictures(1, 32)).axes]
    assert {"plain", "smoothgrad"} <= set(titles) and "guided" not in titles


# --- training ---


def test_training_lowers_the_validation_loss_and_leaves_the_source_alone(fitted):
    assert fitted.history_[-1]["validation"] < fitted.history_[0]["validation"]
    fresh = Backbone("lite0", fitted.levels).state_dict()
    kept = fitted.teacher_.backbone.state_dict()
    assert all(torch.equal(fresh[name], kept[name]) for name in fresh)


def test_only_good_training_pictures_standardise(fitted):
    teach = pictures(30, 32)[np.sort(np.random.default_rng(0).permutation(30)[6:])]
    x = torch.from_numpy(teach).permute(0, 3, 1, 2) / 255
    for f in fitted.teacher_(x):
        assert f.mean((0, 2, 3)).abs().max() < 1e-3
        assert (f.square().mean((0, 2, 3)) > 0.9).float().mean() > 0.5 and f.square().mean() < 1.01


def test_normalise_false_shows_the_source_the_picture_itself(fitted):
    x, teacher = torch.rand(2, 3, 32, 32, generator=seeded()), Teacher(fitted.teacher_.backbone, normalise=False)
    teacher.load_state_dict(fitted.teacher_.state_dict())
    with torch.no_grad():
        for i, (a, f) in enumerate(zip(Disagreement(teacher, fitted.cloner_).source(x), teacher.backbone.net(x), strict=True)):
            mean, std = (teacher.get_buffer(f"{what}{i}") for what in ("mean", "std"))
            torch.testing.assert_close(a, (f - mean) / std, rtol=1e-3, atol=1e-3)


def test_explanation_is_a_figure_of_one_picture(fitted, tmp_path):
    for method in METHODS:
        figure = read_by(fitted, method).explain(spotted(1, 32)[0])
        titles = [axis.get_title().partition("\n0 to")[0] for axis in figure.axes]
        assert {"picture", "stride 4", "stride 8", "stride 16", "plain", "smoothgrad", "guided"} <= set(titles)
        assert any(title.startswith(f"{method}: ") for title in titles) and figure.get_figwidth() <= 7.5
    figure.savefig(tmp_path / "explained.png")
    assert "explain wants one picture, not 2" in line_of(fitted.explain, as_image_set(pictures(2, 32)))


@pytest.mark.parametrize("flip", ["", "h"])
def test_a_source_that_remembers_changes_nothing(flip, monkeypatch):
    "And it is asked once: with enough room, never again after the first epoch."
    asked, answer = [], Disagreement.source
    monkeypatch.setattr(Disagreement, "source", lambda model, x: asked.append(len(x)) or answer(model, x))
    settings = SETTINGS | {"epochs": 6, "calibration": 0.5, "flip": flip}
    fits = []
    for room in (1.0, 0.0):
        asked.clear()
        fits.append((KDAD(**settings, cache_gigabytes=room).fit(pictures(20, 32), device="cpu"), len(asked)))
    (a, few), (b, many) = fits
    for row, other in zip(a.history_, b.history_, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert row["validation"] == pytest.approx(other["validation"], rel=1e-3)
    assert few < many / 2 if not flip else few <= many + 3


# --- the paper ---


def test_paper_is_the_published_recipe():
    recipe = KDAD.paper().get_params()
    assert (recipe["backbone"], recipe["weights"], recipe["image_size"]) == ("vgg16", "pretrained", 128)
    assert (recipe["levels"], recipe["pool"], recipe["cloner"]) == ((0, 1, 2, 3), True, "published")
    assert (recipe["epochs"], recipe["train_batch"], recipe["learning_rate"]) == (601, 64, 1e-3)
    assert (recipe["optimizer"], recipe["schedule"], recipe["validation"]) == ("adam", "constant", 0.0)
    assert (recipe["value_weight"], recipe["method"], recipe["image_score"]) == (0.5, "guided", "loss")
    assert recipe["smoothgrad_n"] == 50 and recipe["smoothgrad_noise"] == pytest.approx(0.05**2)  # the published code squares
    assert not recipe["guide_source"] and not recipe["standardise"] and not recipe["normalise"] and recipe["sigma"] == 4.0
    assert KDAD.paper(epochs=2, normalise=True).normalise


def test_paper_takes_one_training_step_and_judges():
    detector = KDAD.paper(weights="random", epochs=1, train_batch=2, calibration=0.3).fit(pictures(3, 128), device="cpu")
    with own_randomness(0, torch.device("cpu")):
        fresh = detector.build((128, 128))
    pairs = zip(fresh.cloner.parameters(), detector.cloner_.parameters(), strict=True)
    assert all(not torch.equal(before, after) for before, after in pairs)
    x = torch.from_numpy(pictures(1, 128)).permute(0, 3, 1, 2) / 255
    shapes = [tuple(f.shape[1:]) for f in detector.fitted_.model.source(x)]
    assert shapes == [(128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
    assert np.isfinite(detector.history_[0]["loss"]) and np.isfinite(detector.inspect(pictures(1, 128)).score).all()


# --- what is refused ---


@pytest.mark.parametrize("wrong, word", [
    ({"method": "gradients"}, "unknown method 'gradients'"), ({"cloner": "thin"}, "unknown cloner 'thin'"),
    ({"image_size": 15}, "image_size=15 is below the source's stride, 16; 64 would do"),
    ({"image_size": (64, 12)}, "below the source's stride, 16"),
    ({"image_size": 31, "backbone": "vgg16", "levels": (0, 1, 2, 3), "pool": True}, "source's stride, 32"),
    ({"cloner": "published"}, "cloner: its taps .* have other shapes than those of the source"),
    ({"backbone": "resnet10t", "weights": "random", "pool": True, "image_size": 70}, "other shapes"),
    ({"levels": (3, 2)}, "levels"), ({"levels": (1, 9)}, "no level 9"), ({"backbone": "lite"}, "unknown backbone"),
    ({"width": 0}, "width=0"), ({"smoothgrad_n": 0}, "smoothgrad_n=0"), ({"value_weight": -1.0}, "value_weight=-1"),
    ({"value_weight": float("nan")}, "value_weight=nan"), ({"smoothgrad_noise": -0.1}, "smoothgrad_noise"),
    ({"opening": 2}, "opening=2"), ({"flip": "x"}, "flip"), ({"epochs": 0}, "epochs"),
    ({"image_score": "maximum"}, "image_score"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(wrong, word):
    with pytest.raises(G100Error, match=word) as error:
        KDAD(**SETTINGS | wrong).fit(pictures(10, 32), device="cpu")
    assert "\n" not in str(error.value)


def test_one_number_a_channel_cannot_be_normalised():
    few = KDAD(**SETTINGS | {"image_size": 16})
    assert "one position at stride 16: batch norm needs 2 pictures" in line_of(lambda: few.fit(pictures(2, 16), device="cpu"))
    enough = KDAD(**SETTINGS | {"image_size": 16, "epochs": 1}).fit(pictures(8, 16), device="cpu")
    assert enough.inspect(pictures(1, 16)).map.shape == (1, 16, 16)


class Blind(nn.Module):
    "Taps of the right shapes, the second of which does not follow the picture's derivative."

    def forward(self, x):
        return [F.avg_pool2d(x, 2), F.avg_pool2d(x, 4).detach()]


def test_a_tap_without_a_derivative_is_named():
    pooled = SlimCloner((3, 3), (2, 4), 2).eval()
    x = torch.zeros(1, 3, 16, 16)
    check_taps(pooled, pooled, x)
    assert "source: tap 1 is not differentiable" in line_of(check_taps, Blind(), pooled, x)
    assert "cloner: tap 1 is not differentiable" in line_of(check_taps, pooled, Blind(), x)
    assert "other shapes" in line_of(check_taps, pooled, SlimCloner((3, 4), (2, 4), 2).eval(), x)
