"""FCDD: loss and whitening against their definitions; labels; its contract; refusals."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from g100.algorithms.fcdd import (
    FCDD,
    Network,
    as_tensors,
    behind,
    by_label,
    fcdd_loss,
    log1mexp,
    moments,
    pseudo_huber,
    some,
    whitening,
)
from g100.algorithms.receptive import spread
from g100.foundations.detector import filled, load
from g100.foundations.errors import G100Error
from g100.foundations.features import Backbone, Teacher
from g100.foundations.lessons import Judge
from g100.foundations.loop import train
from g100.foundations.pictures import ImageSet
from g100.foundations.sources import as_image_set
from g100.foundations.views import View, batches
from tests.benchmarks.fcdd import Placed
from tests.toys import line_of, pictures, seeded, spotted

SETTINGS = {"image_size": 64, "levels": (2, 3), "epochs": 2, "train_batch": 8, "batch_size": 8}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*false-positive rate.*"),
    pytest.mark.filterwarnings("ignore:.*RANDOM weights.*"),
]


def fit(images, *args, told: dict = {}, **parameters) -> FCDD:  # noqa: B006 - read only
    "A small detector, fitted on the CPU; `told` is what `fit` is told beside labels and masks."
    return FCDD(**SETTINGS | parameters).fit(images, *args, device="cpu", **told)


@pytest.fixture(scope="module")
def fitted():
    return fit(pictures(30, 64))


def labelled_set(good: int = 20, bad: int = 4, size: int = 64, masks: bool = True) -> ImageSet:
    found, where = spotted(bad, size)
    images = [*pictures(good, size), *found]
    names, labels = [f"{i:03d}" for i in range(len(images))], [0] * good + [1] * bad
    defects = ["good"] * good + ["spot"] * bad
    return ImageSet(images, names, labels, defects, [None] * good + (list(where) if masks else [None] * bad))


def weights_of(detector: FCDD) -> list[torch.Tensor]:
    return list(detector.model_.state_dict().values())


def same(a: FCDD, b: FCDD) -> bool:
    return all(torch.equal(*pair) for pair in zip(weights_of(a), weights_of(b), strict=True))


# --- the loss ---


def test_pseudo_huber_is_its_definition_and_near_zero_half_the_square():
    z = 10 * torch.randn(3, 5, 4, 4, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(pseudo_huber(z), (z.square().sum(1) + 1).sqrt() - 1)
    small = torch.tensor([1e-3, 1e-6, 1e-9]).view(3, 1, 1, 1)
    torch.testing.assert_close(pseudo_huber(small).flatten(), torch.tensor([5e-7, 5e-13, 5e-19]), rtol=1e-5, atol=0)


@settings(deadline=None, max_examples=100)
@given(st.floats(1e-9, 80))
def test_log1mexp_in_single_precision_is_that_of_double(h):
    h = float(np.float32(h))
    found = log1mexp(torch.tensor(h, dtype=torch.float32)).item()
    assert found == pytest.approx(math.log(-math.expm1(-h)), rel=2e-3 if h < 1e-8 else 1e-5, abs=1e-7)


def test_log1mexp_and_its_slope_are_finite_at_zero():
    h = torch.zeros(1, requires_grad=True)
    value = log1mexp(h)
    value.sum().backward()
    assert value.isfinite() and h.grad.isfinite() and h.grad > 0
    assert torch.log(1 - torch.exp(-torch.tensor(1e-9))) == -math.inf  # what it stands in for


def naive_loss(A, G):
    good = sum(a for a, g in zip(A, G, strict=True) if not g) / len(A)
    bad = sum(a for a, g in zip(A, G, strict=True) if g) / len(A)
    return good - math.log(1 - math.exp(-bad)) if any(G) else good


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0, 1), st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_loss_is_the_sum_over_pixels(seed, share, size):
    random = seeded(seed)
    A = 0.01 + 5 * torch.rand(3, *size, dtype=torch.float64, generator=random)
    G = torch.rand(3, *size, generator=random) < share
    found = fcdd_loss(A, G)
    for i in range(3):
        expected = naive_loss(A[i].flatten().tolist(), G[i].flatten().tolist())
        assert found[i].item() == pytest.approx(expected, rel=1e-8)


def test_loss_of_a_label_is_that_of_the_mean():
    A = torch.rand(2, 4, 6, dtype=torch.float64, generator=seeded())
    G = torch.tensor([False, True])[:, None, None].expand(2, 4, 6)
    h = A.mean(dim=(1, 2))
    torch.testing.assert_close(fcdd_loss(A, G), torch.stack([h[0], -torch.log(1 - torch.exp(-h[1]))]))


def test_slopes_of_the_loss():
    z = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=seeded(), requires_grad=True)
    G = torch.rand(3, 8, 10, generator=seeded()) < 0.4
    G[0] = False
    assert torch.autograd.gradcheck(lambda z: fcdd_loss(spread(pseudo_huber(z), (8, 10), (5, 5), 2.0), G), (z,))


def test_good_pictures_pull_in_and_anomalies_push_out():
    z = torch.randn(2, 1, 4, 4, generator=seeded(), requires_grad=True)
    G = torch.tensor([False, True])[:, None, None].expand(2, 4, 4)
    fcdd_loss(pseudo_huber(z), G).sum().backward()
    assert (z.grad[0] * z[0] > 0).all() and (z.grad[1] * z[1] < 0).all()


# --- the network ---


def test_frozen_layers_are_frozen_in_weights_and_statistics():
    net = Network(Teacher(Backbone("vgg11_bn", (2,), "random")), (64, 64), channels=1, frozen=1).train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    optimizer = torch.optim.SGD([w for w in net.parameters() if w.requires_grad], 0.1)
    for seed in range(2):
        fcdd_loss(net(torch.rand(2, 3, 64, 64, generator=seeded(seed))), torch.ones(2, 64, 64)).mean().backward()
        optimizer.step()
    moved = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    modules = {name.removeprefix("teacher.backbone.net.").rsplit(".", 1)[0] for name in moved}
    assert modules == {"features_15", "features_16", "features_18", "features_19", "heads.0"}
    assert {"running_mean", "running_var"} <= {name.rsplit(".", 1)[1] for name in moved if "features_16" in name}


def test_layers_behind_a_level():
    backbone = Backbone("resnet18", (1, 2), "random")
    names = {name for name, layer in backbone.net.named_modules() if layer in behind(backbone, 1)}
    assert "layer2.0.conv1" in names and not any(name.startswith(("conv1", "bn1", "layer1")) for name in names)
    assert behind(backbone, 2) == []


def test_head_by_levels_is_the_head_of_all_channels():
    net = Network(Teacher(Backbone("lite0", (2, 3, 4))), (64, 96), channels=7).double()
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=seeded())
    with torch.no_grad():
        W = torch.cat([head.weight for head in net.heads], dim=1)
        torch.testing.assert_close(net.z(x), F.conv2d(net.features(x), W, net.heads[0].bias))
    assert net.z(x).shape == (2, 7, 8, 12) and net(x).shape == (2, 64, 96)
    assert [head.bias is None for head in net.heads] == [False, True, True]


def test_moments_are_those_of_all_positions():
    f = torch.randn(5, 6, 3, 4, generator=seeded()) * torch.arange(1, 7).view(1, 6, 1, 1) + 2
    mean, covariance = moments(f.split(2))
    rows = f.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-10)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 8))
def test_whitened_squares_are_mahalanobis_distances(seed, C):
    rows = torch.randn(200, C, dtype=torch.float64, generator=seeded(seed)) @ torch.randn(
        C, C, dtype=torch.float64, generator=seeded(seed + 1)
    )
    mean, covariance = rows.mean(0), torch.cov(rows.T, correction=0)
    W, b = whitening(mean, covariance, C)
    loaded = np.linalg.inv(covariance.numpy() + np.trace(covariance) / C / 100 * np.eye(C))
    expected = np.einsum("nc,cd,nd->n", rows - mean, loaded, rows - mean) / C
    np.testing.assert_allclose((rows @ W.T + b).square().sum(1), expected, rtol=1e-6)


def test_fewer_channels_keep_the_distances_in_the_mean():
    torch.manual_seed(0)
    rows = torch.randn(4000, 30, dtype=torch.float64)
    for K in (1, 5, 30):
        W, b = whitening(rows.mean(0), torch.cov(rows.T), K)
        assert W.shape == (K, 30) and (rows @ W.T + b).square().sum(1).mean().item() == pytest.approx(1, rel=0.03)


def test_training_begins_at_the_distance_from_the_good_pictures():
    images = pictures(20, 64)
    began = fit(images, epochs=1, learning_rate=1e-30)
    x = next(batches(as_image_set(images), began.view_, 8))
    with torch.no_grad():
        mean, covariance = moments([began.model_.features(x)])
        assert began.model_.z(x).square().sum(1).mean().item() == pytest.approx(1, rel=0.15)
    assert mean.shape == (152,) and began.model_.heads[0].weight.shape == (152, 40, 1, 1)


# --- what the network is shown ---


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 0.99), st.integers(1, 40), st.integers(0, 100))
def test_shares_are_rounded_at_random(share, n, seed):
    random = seeded(seed)
    drawn = [some(share, n, random) for _ in range(200)]
    assert set(drawn) <= {math.floor(share * n), math.floor(share * n) + 1}
    assert abs(np.mean(drawn) - share * n) < 0.2


def test_a_share_of_a_batch_is_spoilt_and_the_rest_is_not():
    x = torch.rand(10, 3, 64, 64, generator=seeded())
    for supervision in ("mask", "label"):
        detector = FCDD(**SETTINGS | {"supervision": supervision, "abnormal": 0.3})
        shown, truth = detector.shown(x, seeded(1))
        spoilt = (shown != x).flatten(1).any(1)
        assert spoilt.sum() == 3 and torch.equal(spoilt, truth.flatten(1).any(1))
        assert truth[spoilt].all() == (supervision == "label")
        assert torch.equal(torch.where(truth[:, None], x, shown), x) or supervision == "label"


def test_labelled_pictures_take_their_share_with_their_masks():
    x = torch.rand(16, 3, 64, 64, generator=seeded())
    known = torch.full((2, 3, 64, 64), 0.25), torch.zeros(2, 64, 64, dtype=torch.bool)
    known[1][:, :5] = True
    detector = FCDD(**SETTINGS | {"abnormal": 0.5, "labelled_share": 0.75})
    shown, truth = detector.shown(x, seeded(), known)
    given_ = (shown == 0.25).flatten(1).all(1)
    assert given_.sum() == 6 and all(torch.equal(m, known[1][0]) for m in truth[given_])
    assert truth.flatten(1).any(1).sum() == 8 and torch.equal(shown[8:], x[8:])


def test_labelled_pictures_are_flipped_with_their_masks():
    known = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    known[0][..., :3, :2], known[1][..., :3, :2] = 1.0, True
    detector = FCDD(**SETTINGS | {"flip": "hv", "abnormal": 0.9, "labelled_share": 0.99})
    shown, truth = detector.shown(torch.full((40, 3, 8, 8), 0.5), seeded(), known)
    taken = (shown != 0.5).flatten(1).all(1)
    assert taken.sum() >= 35
    assert torch.equal(shown[taken, 0] == 1, truth[taken]) and len({m.numpy().tobytes() for m in truth[taken]}) == 4


@pytest.mark.parametrize(("place", "pictures", "good"), [("synthetic", 16, 8), ("good", 16, 4), ("beside", 20, 8)])
def test_the_other_places_that_were_measured_are_what_they_say(place, pictures, good):
    x, known = torch.rand(16, 3, 64, 64, generator=seeded()), (torch.full((2, 3, 64, 64), 0.25), torch.ones(2, 64, 64).bool())
    detector = Placed(**SETTINGS | {"abnormal": 0.5})
    detector.place = place
    shown, truth = detector.shown(x, seeded(), known)
    marked = truth.flatten(1).any(1)
    assert len(shown) == pictures and torch.equal(shown[:16][~marked[:16]], x[~marked[:16]]) and (~marked).sum() == good
    first = {"synthetic": 0, "good": 8, "beside": 16}[place]
    assert torch.equal((shown == 0.25).flatten(1).all(1), torch.arange(pictures) // 4 == first // 4)
    if place == "synthetic":
        as_ever = FCDD(**SETTINGS | {"abnormal": 0.5}).shown(x, seeded(), known)
        assert torch.equal(shown, as_ever[0]) and torch.equal(truth, as_ever[1])


# --- labels and masks ---


@pytest.mark.parametrize("y, abnormal", [
    (None, "c"), ([0, 1, 0], "b"), ([1, -1, 1], "b"), (np.array([True, False, False]), "a"), ([0, 0, 0], ""),
])  # fmt: skip
def test_pictures_are_sorted_by_labels_of_both_conventions_and_unknown_ones_are_good(y, abnormal):
    images = ImageSet(pictures(3, 8), ["a", "b", "c"], [0, -1, 1], ["?"] * 3, [None] * 3)
    good, bad = by_label(images, y)
    assert bad.names == tuple(abnormal) and good.names == tuple(n for n in "abc" if n not in abnormal)
    assert not good.labels.any() and (bad.labels == 1).all()


def test_labelled_pictures_as_the_network_sees_them():
    mask, speck = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    mask[:32], speck[1, 1] = True, True
    images = ImageSet(pictures(3, 64), ["a", "b", "c"], [1] * 3, ["?"] * 3, [mask, speck, None])
    x, truth = as_tensors(images, View(16))
    torch.testing.assert_close(x, next(batches(images, View(16), 3)))
    assert truth[0, :8].all() and not truth[0, 8:].any() and truth[1:].all()  # a mask that vanishes leaves the label


def test_pictures_are_sorted_by_label_with_their_masks(tmp_path):
    images, mask = as_image_set(pictures(4, 8)), np.zeros((8, 8), np.uint8)
    mask[2:4] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    for given_ in (mask, mask > 0, tmp_path / "m.png", str(tmp_path / "m.png")):
        good, bad = by_label(images, [0, 1, 0, 1], [None, given_, None, None])
        assert good.names == images[[0, 2]].names and bad.names == images[[1, 3]].names
        assert np.array_equal(bad.mask(0), mask > 0) and bad.mask(1) is None


@pytest.mark.parametrize("y, masks, words", [
    ([0, 2, 0], None, "y[1] is 2"), ([-1, 0, 1], None, "y["), ([0, 1], None, "y has shape"),
    ([1, 1, 1], None, "leave y out when all pictures are good"), ([-1, -1, -1], None, "all 3 pictures"),
    (None, [None, np.ones((8, 8)), None], "masks without labels"),
    ([0, 1, 0], [None, np.ones((8, 8))], "masks: 2 for 3 pictures"),
    ([0, 1, 0], [None, np.zeros((8, 8)), None], "its mask marks nothing"),
    ([0, 1, 0], [np.ones((8, 8)), None, None], "good, but its mask marks something"),
    ([0, 1, 0], [None, np.ones((8, 9)), None], "must agree"), ([0, 1, 0], [None, "/no/mask.png", None], "/no/mask.png"),
])  # fmt: skip
def test_labels_and_masks_that_make_no_sense(y, masks, words):
    assert words in line_of(fit, pictures(3, 8), y, masks)


def test_labelled_anomalies_teach_and_do_not_calibrate():
    both, detector = labelled_set(), fit(labelled_set())
    without = fit(both.normals)
    assert detector.counts_ == without.counts_ | {"labelled_abnormal": 4} and without.counts_["labelled_abnormal"] == 0
    assert len(detector.calibration_scores_) == 4 and set(vars(detector)) == {*detector.get_params(), "fitted_"}
    assert not same(detector, without)
    began = [torch.equal(a, b) for a, b in zip(detector.teacher_.state_dict().values(),
                                               without.teacher_.state_dict().values(), strict=True)]  # fmt: skip
    assert all(began)  # the features are standardised by good pictures alone
    assert same(detector, fit(both, [1] * 20 + [-1] * 4))
    assert not same(detector, fit(labelled_set(masks=False)))


def test_a_defect_that_was_labelled_is_seen_better():
    "A faint stain that confetti does not resemble: with examples of it the gap to good pictures grows."
    stain = pictures(12, 64, seed=3).astype(int)
    stain[:, 20:44, 20:44] += 9
    stain = stain.clip(0, 255).astype(np.uint8)
    good, new = pictures(30, 64), pictures(12, 64, seed=9)
    gaps = []
    for images, y in ((good, None), (np.concatenate([good, stain[:6]]), [0] * 30 + [1] * 6)):
        detector = fit(images, y, epochs=6, learning_rate=1e-3)
        a, b = detector.inspect(stain[6:]).score, detector.inspect(new).score
        gaps.append((a.mean() - b.mean()) / b.std())
    assert gaps[1] > gaps[0]


def test_tiles_and_labels_do_not_go_together():
    assert "tile=64 with labelled" in line_of(FCDD(**SETTINGS, tile=64).fit, labelled_set())


def test_tiles_of_good_pictures():
    detector = fit(pictures(8, 96), epochs=1, tile=64)
    assert detector.examples_.shape == (4, 3, 64, 64) and detector.inspect(pictures(1, 96)).map.shape == (1, 96, 96)


# --- the contract ---


def test_the_frozen_network_is_as_it_was(fitted):
    fresh = Backbone("lite0", (2, 3)).state_dict()
    kept = fitted.teacher_.backbone.state_dict()
    assert all(torch.equal(fresh[name], kept[name]) for name in fresh)


@pytest.mark.parametrize("how", ["top_percent", "coarse_mean", "max"])
def test_defects_score_higher_than_good_pictures(fitted, how):
    judge = Judge(fitted.model_, replace(fitted.scoring_, image_score=how))
    with torch.inference_mode():
        good, bad = (judge(next(batches(as_image_set(images), fitted.view_, 20)))[1]
                     for images in (pictures(20, 64, seed=7), spotted(20, 64)[0]))  # fmt: skip
    assert bad.min() > good.max()


def test_maps_are_high_where_the_defect_is(fitted):
    found, masks = spotted(8, 64)
    for map, mask in zip(fitted.anomaly_map(found), masks, strict=True):
        assert map[mask].mean() > 1.5 * map[~mask].mean()


def test_coarse_mean_is_the_mean_of_the_network_s_map(fitted):
    x = torch.rand(3, 3, 64, 64, generator=seeded())
    with torch.inference_mode():
        maps, score = Judge(fitted.model_, replace(fitted.scoring_, image_score="coarse_mean"))(x)
        z = fitted.model_.z(x)
        torch.testing.assert_close(score, ((z.square().sum(1) + 1).sqrt() - 1).mean((1, 2)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(maps, spread(pseudo_huber(z), (64, 64), (67, 67), 8.0), rtol=1e-4, atol=1e-5)
        assert torch.equal(fitted.fitted_.judge.usual(maps), fitted.fitted_.judge(x)[0])


@pytest.mark.parametrize("parameters", [
    {}, {"channels": 3, "start": "random", "gain": 3.7, "image_score": "coarse_mean", "image_size": (64, 96)},
    {"backbone": "resnet10t", "weights": "random", "levels": (1, 2), "frozen": 1},
])  # fmt: skip
def test_exported_graph_says_the_same_of_any_number_of_pictures(parameters):
    judge = fit(pictures(12, 64), epochs=1, **parameters).fitted_.judge
    x = torch.rand(5, 3, *judge.scoring.view.shape, generator=seeded())
    graph = torch.export.export(judge, (x[:2],), dynamic_shapes=({0: torch.export.Dim("B", min=1)},)).module()
    with torch.no_grad():
        for some_of_them in (x, x[:1], x[1:4]):
            for mine, its in zip(judge(some_of_them), graph(some_of_them), strict=True):
                torch.testing.assert_close(its, mine, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [None, 1])
def test_network_from_the_meta_device_with_its_state_is_the_fitted_one(fitted, frozen):
    build = FCDD(**SETTINGS | {"frozen": frozen}).build
    with torch.device("meta"):
        empty = build((64, 64))
    assert all(w.is_meta for w in [*empty.parameters(), *empty.buffers()]) and empty.field == build((64, 64)).field
    assert all(type(number) in (int, float) for field in empty.field for number in field)
    again, x = filled(empty, fitted.model_.state_dict()), torch.rand(2, 3, 64, 64, generator=seeded())
    with torch.inference_mode():
        assert torch.equal(again(x), fitted.model_(x)) and torch.equal(again.examples, fitted.examples_)
    moving = [name for name, w in again.named_parameters() if w.requires_grad]
    assert any(name.startswith("teacher") for name in moving) == (frozen is not None)


@pytest.mark.parametrize("parameters", [
    {}, {"channels": 3, "start": "random", "kind": "mixed", "standardise": False},
    {"backbone": "resnet10t", "weights": "random", "levels": (1, 2), "frozen": 1, "learning_rate": 1e-3},
])  # fmt: skip
def test_saved_detector_judges_to_the_bit(parameters, tmp_path):
    detector = fit(pictures(12, 64), **{"epochs": 1} | parameters)
    again, x = load(detector.save(tmp_path / "model"), device="cpu"), spotted(6, 64)[0]
    np.testing.assert_array_equal(again.inspect(x).map, detector.inspect(x).map)
    np.testing.assert_array_equal(again.inspect(x).score, detector.inspect(x).score)
    assert again.history_ == detector.history_ and again.field_ == detector.field_ and again.counts_ == detector.counts_
    assert torch.equal(again.examples_, detector.examples_) and torch.equal(again.example_masks_, detector.example_masks_)


def test_fit_that_was_cut_off_goes_on_to_the_same_detector(tmp_path, monkeypatch):
    monkeypatch.setitem(train.__kwdefaults__, "every", 0)
    whole, told = fit(labelled_set(), epochs=4), {"checkpoint": tmp_path / "c", "resume": True}
    loss, calls = FCDD.loss, []

    def cut_off(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return loss(self, *args, **kwargs)

    monkeypatch.setattr(FCDD, "loss", cut_off)
    with pytest.raises(KeyboardInterrupt):
        fit(labelled_set(), epochs=4, told=told)
    monkeypatch.setattr(FCDD, "loss", loss)
    resumed = fit(labelled_set(), epochs=4, told=told)
    assert same(whole, resumed) and len(resumed.history_) == 4


def test_checkpoint_of_a_run_with_other_lessons_is_refused(tmp_path):
    told = {"checkpoint": tmp_path / "c"}
    first, told = fit(labelled_set(), epochs=1, told=told), told | {"resume": True}
    again = partial(fit, epochs=1, told=told)
    others = {"kind": "scar", "supervision": "label", "abnormal": 0.5, "labelled_share": 0.25, "field_std": 9.0}
    for name, value in others.items():
        assert f"belongs to another run: {name} was " in line_of(partial(again, **{name: value}), labelled_set())
    for other in (labelled_set(bad=3), labelled_set(masks=False), labelled_set().normals):
        assert "belongs to another run: labelled pictures was " in line_of(again, other)
    other = again(labelled_set(), sigma=2.0, opening=5, image_score="coarse_mean")
    assert same(first, other) and other.history_ == first.history_  # what only judging sees may differ


def test_explanation_is_a_figure_of_one_picture(fitted, tmp_path):
    figure = fitted.explain(spotted(1, 64)[0])
    titles = [axis.get_title().partition("\n")[0] for axis in figure.axes]
    assert titles[:5] == ["picture", "map of 8 x 8", "brought to size", "marked", "taught with: confetti"]
    assert all(axis.images for axis in figure.axes) and figure.get_figwidth() <= 7.5
    figure.savefig(tmp_path / "explained.png")


# --- the paper ---


def test_paper_is_the_published_recipe():
    recipe = FCDD.paper().get_params()
    assert (recipe["backbone"], recipe["weights"], recipe["image_size"]) == ("vgg11_bn", "pretrained", 224)
    assert (recipe["levels"], recipe["frozen"], recipe["channels"], recipe["start"]) == ((2,), 1, 1, "random")
    assert (recipe["kind"], recipe["supervision"], recipe["abnormal"]) == ("confetti", "label", 0.5)
    assert (recipe["epochs"], recipe["passes"], recipe["train_batch"]) == (200, 10, 128)
    assert (recipe["optimizer"], recipe["learning_rate"], recipe["weight_decay"]) == ("sgd", 1e-3, 1e-4)
    assert (recipe["schedule"], recipe["field_std"], recipe["gain"]) == ("exponential", 12.0, 3.7)
    assert (recipe["image_score"], recipe["standardise"], recipe["validation"]) == ("coarse_mean", False, 0.0)
    assert FCDD.paper(epochs=2).epochs == 2 and FCDD.paper().recipe().epochs == 2000


def test_paper_has_the_published_layers_and_takes_a_training_step():
    recipe = FCDD.paper(weights="random", epochs=1, passes=1, train_batch=2, calibration=0.3)
    detector = recipe.fit(pictures(3, 224), device="cpu")
    net = detector.model_
    convolutions = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [
        (64, 3, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3), (512, 256, 3, 3), (512, 512, 3, 3), (1, 512, 1, 1)
    ]  # fmt: skip
    assert net.heads[0].bias.shape == (1,) and detector.field_[0][:2] == (62, 8)
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 3
    fresh = Backbone("vgg11_bn", (2,), "random").state_dict()
    kept = net.teacher.backbone.state_dict()
    moved = {name.split(".")[1] for name in fresh if not torch.equal(fresh[name], kept[name])}
    assert moved == {"features_15", "features_16", "features_18", "features_19"}
    with torch.inference_mode():
        assert net.z(torch.rand(1, 3, 224, 224)).shape == (1, 1, 28, 28)
    assert len(detector.history_) == 1 and np.isfinite(detector.history_[0]["loss"])


# --- what is refused ---


@pytest.mark.parametrize("wrong, word", [
    ({"kind": "confeti"}, "did you mean 'confetti'"), ({"supervision": "masks"}, "unknown supervision 'masks'"),
    ({"start": "whitend"}, "did you mean 'whitened'"), ({"abnormal": 0.0}, "abnormal=0.0: wants a number in"),
    ({"labelled_share": 1.0}, "labelled_share=1.0"),
    ({"field_std": 0.0}, "field_std=0.0"),
    ({"gain": -1.0}, "gain=-1.0"),
    ({"passes": 0}, "passes=0"), ({"channels": 0}, "channels=0"), ({"channels": 153}, "channels=153: the features have 152"),
    ({"image_size": 40}, "image_size=40 is not a multiple of 16, the stride of level 3 of lite0; try 48"),
    ({"image_size": (64, 50)}, "not a multiple of 16"), ({"levels": (3, 2)}, "levels"), ({"levels": (2, 9)}, "no level 9"),
    ({"frozen": 9}, "no level 9"), ({"backbone": "lite"}, "unknown backbone"), ({"flip": "x"}, "flip"),
    ({"epochs": 0}, "epochs"), ({"image_score": "maximum"}, "image_score"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(wrong, word):
    with pytest.raises(G100Error, match=word) as error:
        fit(pictures(10, 64), **wrong)
    assert "\n" not in str(error.value)
