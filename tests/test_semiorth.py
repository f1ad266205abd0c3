"""SemiOrthogonal against NumPy, SciPy and scikit-learn; the theorem; and its contract."""

import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from sklearn.base import clone
from sklearn.covariance import EmpiricalCovariance

from g100.algorithms import gaussians, semiorth
from g100.algorithms.alignment import shift_gain, windows
from g100.algorithms.gaussians import accumulate, fit_bytes, forgetting, largest_k, left_out, pack, unpack, whitenings
from g100.algorithms.semiorth import SemiOrthogonal
from g100.algorithms.subspace import embed, haar
from g100.foundations.detector import load
from g100.foundations.errors import G100Error
from g100.foundations.lessons import Judge, Lessons, Options, calibrated, split
from g100.foundations.maps import full_size
from g100.foundations.sources import as_image_set
from g100.foundations.store import read_model
from g100.foundations.views import View
from tests.toys import pictures, spotted

SETTINGS = {"backbone": "resnet18", "weights": "random", "image_size": 64, "levels": (1, 2, 3), "sigma": 1.0, "k": 20,
            "calibration": 0.2}  # fmt: skip
CROSS = SETTINGS | {"calibration": "cross"}
CPU = Options(torch.device("cpu"))
pytestmark = [
    pytest.mark.xdist_group("semiorth"),
    pytest.mark.filterwarnings(
        "ignore:.*RANDOM weights.*", "ignore:.*false-positive rate.*", "ignore:.*pictures teach covariances.*"
    ),
]


@pytest.fixture
def fitted():
    return SemiOrthogonal(**SETTINGS).fit(pictures(60, 64))


def tensor(images) -> torch.Tensor:
    return torch.stack([View(64).image(image) for image in images])


def at_once(detector, taught, held_out):
    "The module, the notes and the calibration that these pictures give, without a split."
    scoring = detector.scoring()
    model, lessons = detector.build(scoring.view.shape).eval(), Lessons(taught, scoring, 16, CPU)
    detector.learn(model, lessons)
    return model, lessons.notes, calibrated(detector, Judge(model, scoring), held_out, CPU)


def all_numbers(detector) -> dict[str, torch.Tensor]:
    "A copy of all that the detector's verdicts follow from."
    return {name: value.clone() for name, value in detector.fitted_.tensors().items()}


def equal(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in some.items())


def direct_features(detector, images) -> np.ndarray:
    "Embedded features (P, N, k), the direct way: up-sample, join, then multiply by W; float64."
    with torch.inference_mode():
        levels = detector.fitted_.model.backbone(tensor(images))
        grid = levels[0].shape[2:]
        x = torch.cat([F.interpolate(phi, grid, mode=detector.upsampling) for phi in levels], 1)
        return (x.flatten(2).permute(2, 0, 1).double() @ detector.W_.double()).numpy()


# --- Theorem 1 ---


def residual(C, W, order):
    return np.linalg.norm(np.linalg.inv(C) - W @ np.linalg.solve(W.T @ C @ W, W.T), order)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 8), st.data())
def test_theorem_bounds_every_subspace_and_is_reached(F, data):
    k, seed = data.draw(st.integers(1, F - 1)), data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    lam = np.sort(rng.uniform(0.1, 10, F))
    U = stats.ortho_group.rvs(F, random_state=seed)
    C, W = (U * lam) @ U.T, rng.normal(size=(F, k))
    bounds = {"fro": np.sqrt((lam[k:] ** -2.0).sum()), 2: 1 / lam[k]}
    for order, bound in bounds.items():
        assert residual(C, W, order) >= bound * (1 - 1e-8)
        assert residual(C, U[:, :k] @ rng.normal(size=(k, k)), order) == pytest.approx(bound, rel=1e-5)
    assert residual(C, U[:, F - k :], "fro") >= bounds["fro"] * (1 - 1e-8)


def test_random_subspace_keeps_eigenvectors_on_average():
    lam = np.array([0.1, 0.5, 1.0, 3.0, 9.0])
    C, mean = np.diag(lam), np.zeros((5, 5))
    for seed in range(1000):
        W = haar(5, 2, seed).double().numpy()
        mean += W @ np.linalg.solve(W.T @ C @ W, W.T) / 1000
    rho = lam * mean.diagonal()
    assert rho.sum() == pytest.approx(2, abs=1e-6) and (0 < rho).all() and (rho < 1).all()
    scaled = np.sqrt(lam[:, None] * lam) * mean
    assert np.abs(scaled - np.diag(rho)).max() < 0.06


# --- the Haar distribution ---


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.data())
def test_columns_are_orthonormal(F, data):
    W = haar(F, data.draw(st.integers(1, F)), data.draw(st.integers(0, 2**31))).double()
    torch.testing.assert_close(W.T @ W, torch.eye(W.shape[1], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("entry", [(0, 0), (3, 1), (5, 2)])
def test_entries_have_the_marginal_of_the_haar_distribution(entry):
    sample = np.array([haar(6, 3, seed)[entry].item() for seed in range(800)])
    assert stats.kstest((1 + sample) / 2, stats.beta(2.5, 2.5).cdf).pvalue > 0.01


def test_traces_are_those_of_scipy():
    "The trace is the sum of the cosines of the eigenvalues' phases."
    ours = [haar(5, 5, seed).trace().item() for seed in range(800)]
    theirs = np.trace(stats.ortho_group.rvs(5, size=800, random_state=1), axis1=1, axis2=2)
    plain = np.linalg.qr(np.random.default_rng(0).normal(size=(800, 5, 5)))[0].trace(axis1=1, axis2=2)
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01 > stats.ks_2samp(plain, theirs).pvalue


def test_determinants_are_balanced():
    signs = [float(np.linalg.det(haar(4, 4, seed).numpy())) > 0 for seed in range(400)]
    assert 0.4 < np.mean(signs) < 0.6


def test_seed_decides():
    assert torch.equal(haar(10, 4, 1), haar(10, 4, 1)) and not torch.equal(haar(10, 4, 1), haar(10, 4, 2))


# --- embedding ---


@pytest.mark.parametrize("how", ["bilinear", "nearest"])
@pytest.mark.parametrize("grids", [((12, 10), (6, 5), (3, 3)), ((7, 9), (4, 5))])
def test_embedding_commutes_with_upsampling(how, grids):
    torch.manual_seed(0)
    levels = [torch.randn(3, 4 + i, *grid, dtype=torch.float64) for i, grid in enumerate(grids)]
    W = haar(sum(phi.shape[1] for phi in levels), 5).double()
    direct = torch.cat([F.interpolate(phi, grids[0], mode=how) for phi in levels], 1)
    expected = torch.einsum("bchw,ck->hwbk", direct, W).flatten(0, 1)
    torch.testing.assert_close(embed(levels, W, how), expected, rtol=1e-12, atol=1e-12)


# --- the stream ---


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 10**6))
def test_any_batches_give_the_covariance_of_numpy(sizes, k, seed):
    z = torch.randn(3, sum(sizes), k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 5 + 2
    mean, scatter, n = torch.zeros(3, k, dtype=torch.float64), torch.zeros(3, k, k, dtype=torch.float64), 0
    for part in z.split(sizes, dim=1):
        n = accumulate(mean, scatter, n, part)
    assert n == sum(sizes)
    for p in range(3):
        expected = np.atleast_2d(np.cov(z[p].numpy().T, bias=True))
        np.testing.assert_allclose(scatter[p].numpy() / n, expected, atol=1e-10)
        np.testing.assert_allclose(mean[p], z[p].numpy().mean(0), atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_single_precision_survives_far_from_the_origin(offset):
    z = (offset + np.random.default_rng(0).normal(size=(400, 6))).astype(np.float32)
    mean, scatter, n = torch.zeros(1, 6), torch.zeros(1, 6, 6), 0
    for part in torch.from_numpy(z).split(16):
        n = accumulate(mean, scatter, n, part[None])
    assert np.abs(scatter[0].numpy() / n - np.cov(z.T.astype(float), bias=True)).max() < 5e-3


def test_triangles_are_packed_and_unpacked_exactly():
    M = torch.randn(700, 7, 7)
    assert torch.equal(unpack(pack(M)), M.tril()) and pack(M).shape == (700, 28)
    assert unpack(pack(M).half()).dtype == torch.float32


def test_whitening_is_the_inverse_of_the_cholesky_factor():
    z = torch.randn(300, 5, 9)
    scatter = z.mT @ z
    found = torch.cat([block for _, block in whitenings(scatter, 5, 0.3)]).double()
    C = scatter.double() / 5 + 0.3 * torch.eye(9)
    torch.testing.assert_close(found.mT @ found, torch.linalg.inv(C), rtol=1e-3, atol=1e-4)
    assert torch.equal(found, found.tril())


# --- the whole, against NumPy, SciPy and scikit-learn ---


def test_distances_are_those_of_scipy_and_scikit_learn(fitted):
    good = split(as_image_set(pictures(60, 64)), 0.2, 0)[0]
    learnt = direct_features(fitted, [good[i] for i in range(len(good))])
    new = spotted(3, 64)[0]
    seen, raw = direct_features(fitted, new), fitted.fitted_.model(tensor(new)).flatten(1).numpy()
    for p in range(0, len(learnt), 37):
        model = EmpiricalCovariance().fit(learnt[p])
        np.testing.assert_allclose(model.covariance_, np.cov(learnt[p].T, bias=True), atol=1e-12)
        scale = np.abs(model.covariance_).max()
        S = unpack(fitted.scatter_)[p].numpy() / fitted.seen_
        np.testing.assert_allclose(S, np.tril(model.covariance_), atol=1e-5 * scale)
        np.testing.assert_allclose(fitted.mean_[p], model.location_, rtol=1e-4, atol=1e-5)
        VI = np.linalg.inv(model.covariance_ + fitted.epsilon * np.eye(20))
        expected = [mahalanobis(z, model.location_, VI) for z in seen[p]]
        np.testing.assert_allclose(raw[:, p], expected, rtol=1e-3)


def test_map_is_upsampled_and_smoothed(fitted):
    x = tensor(spotted(2, 64)[0])
    maps, scores = fitted.fitted_.judge(x)
    torch.testing.assert_close(maps, full_size(fitted.fitted_.model(x), (64, 64), 1.0))
    assert maps.shape == (2, 64, 64) and scores.shape == (2,)


def test_full_width_does_not_depend_on_the_rotation():
    parameters = SETTINGS | {"backbone": "lite0", "weights": "embedded", "levels": (1,), "k": 24}  # a network without the seed
    teach, held = split(as_image_set(pictures(30, 64)), 0.2, 0)
    maps = []
    for seed in (0, 1):
        model, *_ = at_once(SemiOrthogonal(**parameters, seed=seed), teach, held)
        maps.append(model(tensor([held[0]])))
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-3)


def test_batch_size_does_not_matter_beyond_rounding(fitted):
    other = SemiOrthogonal(**SETTINGS, batch_size=5).fit(pictures(60, 64))
    x = spotted(4, 64)[0]
    np.testing.assert_allclose(other.score_samples(x), fitted.score_samples(x), rtol=1e-3)


def test_memory_does_not_grow_with_pictures(fitted):
    more = SemiOrthogonal(**SETTINGS).fit(pictures(90, 64))
    kept, its = ({name: b.shape for name, b in d.fitted_.model.named_buffers()} for d in (fitted, more))
    assert kept == its and kept["whitening"] == (256, 20, 20) and kept["scatter"] == (256, 210)
    assert kept["picture"] == (3, 64, 64)


def test_fit_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SemiOrthogonal(**SETTINGS).fit(pictures(10, 64)).partial_fit(pictures(10, 64, seed=1))
    assert torch.equal(torch.rand(3), expected)


# --- partial_fit ---


@pytest.mark.parametrize("parameters", [
    {"storage": "full"}, {"storage": "packed"}, {"tile": 48, "overlap": 16, "image_size": 32, "levels": (1, 2)},
])  # fmt: skip
def test_partial_fit_is_fitting_all_at_once(parameters):
    parts = pictures(50, 64, seed=1), pictures(30, 64, seed=2), pictures(21, 64, seed=3)
    detector = SemiOrthogonal(**SETTINGS | parameters)
    for part in parts:
        assert detector.partial_fit(part, device="cpu") is detector
    taught, held = zip(*(split(as_image_set(part), 0.2, 0) for part in parts), strict=True)

    def stack(sets):
        return np.stack([images[i] for images in sets for i in range(len(images))])

    crops = 4 if "tile" in parameters else 1
    model, notes, calibration = at_once(
        SemiOrthogonal(**SETTINGS | parameters), as_image_set(stack(taught)), as_image_set(stack(held))
    )
    assert detector.seen_ == notes["seen"] == crops * len(stack(taught))
    assert detector.counts_ == {"train": len(stack(taught)), "calibration": len(stack(held))}
    scale = model.scatter.abs().max()
    torch.testing.assert_close(detector.scatter_ / scale, model.scatter / scale, rtol=0, atol=2e-6)
    torch.testing.assert_close(detector.mean_, model.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(detector.calibration_scores_, calibration.scores, rtol=1e-3)
    assert detector.threshold_ == pytest.approx(calibration.threshold, rel=1e-3)
    assert detector.pixel_threshold_ == pytest.approx(calibration.pixel_threshold, rel=1e-3)


def test_partial_fit_after_loading_calibrates_on_the_new_and_says_so(tmp_path):
    first, second = pictures(50, 64, seed=1), pictures(50, 64, seed=2)
    detector = SemiOrthogonal(**SETTINGS).fit(first)
    again = load(detector.save(tmp_path / "model"), device="cpu")
    with pytest.warns(UserWarning, match="10 new ones alone"):
        again.partial_fit(second)
    detector.partial_fit(second)
    assert torch.equal(again.whitening_, detector.whitening_) and torch.equal(again.mean_, detector.mean_)
    assert again.counts_ == {"train": 80, "calibration": 10} and detector.counts_["calibration"] == 20


@pytest.mark.parametrize("change, word", [
    ({"image_size": 32}, "image_size"), ({"k": 10}, "k was 20"), ({"seed": 5}, "seed"),
    ({"levels": (1, 2)}, "levels"), ({"upsampling": "nearest"}, "upsampling"), ({"tile": 32}, "tile"),
    ({"epsilon": 0.1}, "epsilon"),
])  # fmt: skip
def test_partial_fit_refuses_changed_parameters(fitted, change, word):
    before = all_numbers(fitted)
    with pytest.raises(G100Error, match=f"partial_fit: .*{word}") as error:
        fitted.set_params(**change).partial_fit(pictures(10, 64))
    assert "\n" not in str(error.value) and equal(all_numbers(fitted), before)


def test_partial_fit_takes_over_what_is_done_to_maps_afterwards(fitted):
    fitted.set_params(sigma=2.0, image_score="max", batch_size=7).partial_fit(pictures(10, 64))
    assert (fitted.fitted_.scoring.sigma, fitted.fitted_.scoring.image_score) == (2.0, "max")
    with torch.inference_mode():
        maps = full_size(fitted.fitted_.model(tensor(spotted(2, 64)[0])), (64, 64), 2.0)
    np.testing.assert_allclose(fitted.inspect(spotted(2, 64)[0]).score, maps.amax((1, 2)).numpy(), rtol=1e-5)


def test_partial_fit_stays_on_its_device(fitted, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("g100.algorithms.semiorth.pick_device", torch.device)
        with pytest.raises(G100Error, match="partial_fit: device meta, but the detector is on cpu"):
            fitted.partial_fit(pictures(10, 64), device="meta")
    fitted.partial_fit(pictures(10, 64), device="cpu")


def test_partial_fit_refuses_another_shape(fitted):
    with pytest.raises(G100Error, match="width / height 2.00"):
        fitted.partial_fit(np.zeros((10, 32, 64), np.uint8))
    fitted.partial_fit(pictures(10, 128))  # another size of the same shape is resized


def test_partial_fit_refuses_unreadable_files_before_it_learns(fitted, tmp_path):
    from PIL import Image

    for i, picture in enumerate(pictures(6, 64)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    record = fitted.fitted_
    with pytest.raises(G100Error, match="3.png"):
        fitted.partial_fit(tmp_path)
    assert fitted.fitted_ is record


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("module, where", [(gaussians, "accumulate"), (gaussians, "whitenings"), (semiorth, "calibrated")])
def test_partial_fit_that_breaks_off_leaves_the_old_detector(fitted, monkeypatch, module, where, problem):
    x, more, calls, works = spotted(3, 64)[0], pictures(30, 64, seed=4), [], getattr(module, where)
    record, before, scores = fitted.fitted_, all_numbers(fitted), fitted.score_samples(x)

    def breaks(*args):
        calls.append(where)
        if where != "accumulate" or len(calls) == 2:  # after the first batch
            raise problem
        return works(*args)

    with monkeypatch.context() as patched:
        patched.setattr(module, where, breaks)
        with pytest.raises(problem):
            fitted.partial_fit(more)
    assert calls and fitted.fitted_ is record and equal(all_numbers(fitted), before)
    np.testing.assert_array_equal(fitted.score_samples(x), scores)
    again = SemiOrthogonal(**SETTINGS).fit(pictures(60, 64)).partial_fit(more)
    assert equal(all_numbers(fitted.partial_fit(more)), all_numbers(again)) and not equal(all_numbers(again), before)


def test_partial_fit_leaves_the_old_record_as_it_was(fitted):
    record, before = fitted.fitted_, all_numbers(fitted)
    fitted.partial_fit(pictures(30, 64, seed=4))
    assert fitted.fitted_ is not record and fitted.fitted_.model.backbone is record.model.backbone
    assert all(torch.equal(value, before[name]) for name, value in record.tensors().items())
    assert record.notes["seen"] == 48 and fitted.seen_ == 72 and len(fitted.fitted_.held_out) == 18


def test_partial_fit_refuses_abnormal_pictures_and_single_ones(fitted):
    with pytest.raises(G100Error, match="good pictures only"):
        fitted.partial_fit(pictures(4, 64), y=[0, 0, 1, 0])
    with pytest.raises(G100Error, match="at least 2"):
        fitted.partial_fit(pictures(1, 64))


# --- storage ---


@pytest.mark.parametrize("storage", ["full", "packed", "half"])
def test_saved_detector_is_equal_to_the_bit(storage, tmp_path):
    detector = SemiOrthogonal(**SETTINGS, storage=storage).fit(pictures(40, 64))
    again = load(detector.save(tmp_path / "model"), device="cpu")
    x = spotted(4, 64)[0]
    np.testing.assert_array_equal(again.inspect(x).map, detector.inspect(x).map)
    np.testing.assert_array_equal(again.score_samples(x), detector.score_samples(x))
    assert again.get_params() == detector.get_params() and again.counts_ == detector.counts_
    assert (again.seen_, again.aspect_) == (detector.seen_, detector.aspect_)
    assert equal(all_numbers(again), all_numbers(detector)) and torch.equal(again.whitening_, detector.whitening_)


@pytest.mark.parametrize("storage, numbers", [("full", 2 * 210), ("packed", 2 * 210), ("half", 210 / 2)])
def test_saved_model_holds_triangles(storage, numbers, tmp_path):
    detector = SemiOrthogonal(**SETTINGS, storage=storage).fit(pictures(40, 64))
    tensors = read_model(detector.save(tmp_path / "model"))[1]
    learnt = {name: t.nbytes for name, t in tensors.items() if name.startswith("model.") and "backbone" not in name}
    assert sum(learnt.values()) == 4 * (448 * 20 + 256 * 20 + 256 * numbers + 3 * 64 * 64), learnt


def test_state_of_one_model_fills_another_that_was_fitted():
    one, other = (SemiOrthogonal(**SETTINGS, seed=seed).fit(pictures(40, 64)).fitted_.model for seed in (0, 1))
    x, kept = tensor(spotted(2, 64)[0]), one.state_dict()
    assert not torch.equal(other(x), one(x))
    other.load_state_dict(kept)
    assert torch.equal(other(x), one(x))
    other.whitening.zero_()
    assert one(x).min() > 0


@pytest.mark.parametrize("storage", ["full", "packed", "half"])
def test_exported_program_says_what_the_detector_says(storage):
    judge = SemiOrthogonal(**SETTINGS, storage=storage).fit(pictures(10, 64), device="cpu").fitted_.judge
    x = tensor(np.concatenate([spotted(4, 64)[0], pictures(3, 64, seed=7)]))
    program = torch.export.export(judge, (x[:2],), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}})
    for n in (1, 3, 7):
        with torch.no_grad():
            (maps, scores), (its, its_scores) = judge(x[:n]), program.module()(x[:n])
        torch.testing.assert_close(its, maps, rtol=1e-5, atol=1e-5 * float(maps.max()))
        torch.testing.assert_close(its_scores, scores, rtol=1e-5, atol=0)


def test_storages_agree():
    X = pictures(40, 64)
    full, packed, half = (SemiOrthogonal(**SETTINGS, storage=s).fit(X) for s in ("full", "packed", "half"))
    x = spotted(4, 64)[0]
    np.testing.assert_array_equal(packed.score_samples(x), full.score_samples(x))
    np.testing.assert_allclose(half.score_samples(x), full.score_samples(x), rtol=2e-3)
    size = full.whitening_.nbytes
    assert packed.whitening_.nbytes < 0.55 * size and half.whitening_.nbytes < 0.28 * size
    with pytest.raises(G100Error, match="storage='half'"):
        half.partial_fit(pictures(10, 64))


# --- evidence ---


def coloured(n: int, size: tuple[int, int], seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize("parameters", [
    {}, {"calibration": 0.2}, {"window": 3}, {"storage": "half"}, {"framing": "pad"}, {"framing": "crop"},
])  # fmt: skip
def test_the_mean_of_the_pictures_that_taught_is_shown(parameters, tmp_path):
    "Against numpy's, in the frame of the network; kept by a saved model, and going on with it."
    first, more = coloured(24, (64, 80), 0), coloured(15, (64, 80), 1)
    detector = SemiOrthogonal(**CROSS | parameters).fit(first, device="cpu")
    view, share = detector.fitted_.scoring.view, detector.calibration
    taught = as_image_set(first) if share == "cross" else split(as_image_set(first), share, 0)[0]
    seen = [view.image(taught[i]).numpy() for i in range(len(taught))]
    again = load(detector.save(tmp_path / "model"), device="cpu")
    for each in (detector, again):
        told = each.evidence([first[0]], (0.3, 0.4))["seen"]
        assert list(told) == [f"mean of {len(seen)} good pictures"]
        np.testing.assert_allclose(*told.values(), np.mean(seen, axis=0).transpose(1, 2, 0), atol=1e-6)
    if parameters.get("storage") == "half":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.partial_fit(more)
    new = as_image_set(more) if share == "cross" else split(as_image_set(more), share, 0)[0]
    seen += [view.image(new[i]).numpy() for i in range(len(new))]
    ((title, found),) = again.evidence([first[0]], (0.3, 0.4))["seen"].items()
    assert title == f"mean of {len(seen)} good pictures"
    np.testing.assert_allclose(found, np.mean(seen, axis=0).transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("framing", ["stretch", "pad"])
def test_the_distance_told_is_that_of_the_place(framing):
    "By the map of the network's input, and the fewest directions by brute force."
    images = coloured(30, (40, 64), 0)
    detector = SemiOrthogonal(**CROSS, framing=framing).fit(images, device="cpu")
    model, view = detector.fitted_.model, detector.fitted_.scoring.view
    with torch.inference_mode():
        x = view.image(images[3])[None]
        raw, z = model(x)[0], model.embedded(x)[0][:, 0].double()
    for y, x in ((0, 0), (7, 9), (15, 15)):
        said = detector.evidence([images[3]], ((y + 0.5) / 16, (x + 0.5) / 16))["said"]
        white, p = model.whitening[16 * y + x].double(), 16 * y + x
        squares = np.sort(((white @ (z[p] - model.mean[p])) ** 2).numpy())[::-1]
        few = next(k for k in range(1, 21) if squares[:k].sum() >= squares.sum() / 2)
        assert f"Here the picture is {raw[y, x]:.3g} standard deviations" in said
        assert f"; {few} of 20 directions hold {100 * squares[:few].sum() / squares.sum():.0f} % of its square." in said


def test_crops_rest_on_no_place():
    detector = SemiOrthogonal(**CROSS | {"tile": 48, "overlap": 16, "image_size": 32, "levels": (1, 2)}).fit(pictures(30, 64))
    assert detector.evidence(pictures(1, 64), (0.5, 0.5)) is None


# --- memory ---


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5000), st.integers(1, 64), st.sampled_from(["full", "half"]), st.integers(10**5, 10**10), st.booleans())
def test_largest_k_is_the_largest_that_fits(positions, batch, storage, limit, cross):
    k = largest_k(positions, batch, storage, limit, cross)
    assert k == 0 or fit_bytes(positions, k, batch, storage, cross) <= limit
    assert fit_bytes(positions, k + 1, batch, storage, cross) > limit


def test_memory_is_refused_with_the_k_that_fits():
    X, limit = pictures(20, 64), fit_bytes(256, 10, 16) / 1e9
    with pytest.raises(G100Error, match="max_memory=.*k=20.*k=10 would fit"):
        SemiOrthogonal(**SETTINGS, max_memory=limit).fit(X)
    SemiOrthogonal(**SETTINGS | {"k": 10}, max_memory=limit).fit(X)
    with pytest.raises(G100Error, match="no k would fit"):
        SemiOrthogonal(**SETTINGS, max_memory=1e-6).fit(X)


def test_estimate_is_printed_before_the_work(capsys, monkeypatch):
    monkeypatch.setenv("G100_BARS", "1")
    SemiOrthogonal(**SETTINGS).fit(pictures(10, 64), verbose=True)
    lines = capsys.readouterr().err
    assert lines.index("SemiOrthogonal: 256 covariances of 20 x 20") < lines.index("learning")


# --- pictures that are not aligned ---


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3).map(lambda half: 2 * half + 1), st.integers(0, 99))
def test_windows_stay_inside_and_begin_with_themselves(h, w, side, seed):
    near = windows((h, w), side).numpy()
    assert near.shape == (h * w, min(side, h) * min(side, w)) and (near[:, 0] == np.arange(h * w)).all()
    y, x = np.divmod(near, w)
    for coordinate, length in ((y, h), (x, w)):
        low, high, own = coordinate.min(1), coordinate.max(1), coordinate[:, 0]
        assert (high - low == min(side, length) - 1).all() and (low <= own).all() and (own <= high).all()


@pytest.mark.parametrize("crops", [1, 2])
def test_a_window_shares_a_gaussian_and_forgets_the_whole_window_of_a_picture(crops):
    z = np.random.default_rng(0).normal(size=(12, 14, 3)) + np.random.default_rng(1).normal(size=(12, 1, 3))
    near, tensor = windows((3, 4), 3), torch.from_numpy(z)
    mean = tensor.mean(1)
    scatter = (tensor - mean[:, None]).mT @ (tensor - mean[:, None])
    centre, among, count = gaussians.shared(mean, scatter, 14, near)
    white = forgetting(among, count, 9 * crops, 0.1)
    found = left_out(tensor.unflatten(1, (14 // crops, crops)), centre, white, count, near).flatten(1).numpy()
    for p, i in ((0, 0), (5, 7), (11, 13)):
        first = i // crops * crops
        rest = np.delete(z, range(first, first + crops), axis=1)[near[p].numpy()].reshape(-1, 3)
        expected = mahalanobis(z[p, i], rest.mean(0), np.linalg.inv(np.cov(rest.T, bias=True) + 0.1 * np.eye(3)))
        np.testing.assert_allclose(found[p, i], expected, rtol=1e-5)


def test_a_window_is_in_the_maps_the_saved_model_and_the_update(tmp_path):
    X, more, test = pictures(14, 64), pictures(6, 64, seed=1), pictures(4, 64, seed=2)
    parameters = {**SETTINGS, "calibration": "cross", "window": 3}
    once, twice = SemiOrthogonal(**parameters).fit(np.concatenate([X, more])), SemiOrthogonal(**parameters).fit(X)
    twice.partial_fit(more)
    np.testing.assert_allclose(twice.inspect(test).map, once.inspect(test).map, rtol=2e-3)
    np.testing.assert_allclose(np.sort(twice.calibration_scores_), np.sort(once.calibration_scores_), rtol=2e-3)
    alone = SemiOrthogonal(**{**parameters, "window": 1}).fit(X)
    assert alone.model_.centre is None and not np.allclose(alone.inspect(test).map, twice.inspect(test).map, rtol=0.05)
    np.testing.assert_array_equal(load(once.save(tmp_path / "model")).inspect(test).map, once.inspect(test).map)


def test_displaced_pictures_are_told_apart_from_still_ones():
    rng = np.random.default_rng(0)
    wide = gaussian_filter(rng.random((96, 96, 3)), (3, 3, 0))
    wide = (255 * (wide - wide.min()) / np.ptp(wide)).astype(np.uint8)
    cut = [np.stack([wide[y : y + 64, x : x + 64] for y, x in at]) for at in (rng.integers(12, 21, (20, 2)), [(16, 16)] * 20)]
    moved, still = (np.clip(part + rng.normal(0, 4, part.shape), 0, 255).astype(np.uint8) for part in cut)
    with pytest.warns(UserWarning, match="displaced against one another: .* window=9"):
        moved = SemiOrthogonal(**SETTINGS).fit(moved)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        still = SemiOrthogonal(**SETTINGS).fit(still)
    assert not any("displaced" in str(warning.message) for warning in heard)
    assert moved.shift_gain_ > 0.15 > still.shift_gain_ and shift_gain(torch.rand(2, 3, 5, 5)) == 0


# --- presets, parameters, warnings ---


def test_paper_is_the_published_recipe():
    recipe = SemiOrthogonal.paper().get_params()
    assert (recipe["backbone"], recipe["weights"], recipe["levels"]) == ("wide_resnet50_2", "pretrained", (1, 2, 3))
    assert (recipe["resize"], recipe["image_size"], recipe["k"], recipe["epsilon"]) == (256, 256, 300, 0.01)
    assert (recipe["upsampling"], recipe["sigma"], recipe["image_score"]) == ("nearest", 4.0, "max")
    assert SemiOrthogonal.paper(k=100).k == 100


def test_clone_carries_parameters_only(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and vars(copy).keys() == copy.get_params().keys()


@pytest.mark.parametrize("parameters, word", [
    ({"k": 0}, "k=0"), ({"k": 449}, "k=449.*448"), ({"epsilon": 0}, "epsilon"), ({"epsilon": -1.0}, "epsilon"),
    ({"epsilon": float("nan")}, "epsilon"), ({"upsampling": "bicubic"}, "upsampling"), ({"storage": "hal"}, "half"),
    ({"storage": "half", "epsilon": 1e-9}, "epsilon"), ({"backbone": "resnet81"}, "resnet"),
    ({"levels": (9,)}, "level"), ({"image_score": "maxx"}, "max"), ({"epsilon": 1e-30}, "epsilon"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(parameters, word):
    with pytest.raises(G100Error, match=word) as error:
        SemiOrthogonal(**SETTINGS | parameters).fit(pictures(10, 64))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("default:.*pictures teach covariances.*")
def test_too_few_pictures_are_told_what_epsilon_does():
    with pytest.warns(UserWarning, match=r"8 pictures teach .*at least 13 directions nothing but epsilon=0.01"):
        SemiOrthogonal(**SETTINGS).fit(pictures(10, 64))


def test_differing_aspects_are_told():
    mixed = [picture[:32] if i % 2 else picture for i, picture in enumerate(pictures(30, 64))]
    images = as_image_set(pictures(30, 64))
    images = type(images)(mixed, images.names, images.labels, images.defects, images.masks)
    with pytest.warns(UserWarning, match="differing aspect .*1.00 to 2.00.* stretched"):
        SemiOrthogonal(**SETTINGS).fit(images)


# --- every picture teaches ---


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 25), st.integers(0, 10**6))
def test_leaving_out_in_closed_form_is_learning_anew(m, k, others, seed):
    "Any numbers of vectors, left out, left in and of dimensions: fewer than dimensions too."
    n, rng = others + m, np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(3, 2, (2, n, k)))
    mean, scatter = torch.zeros(2, k, dtype=torch.float64), torch.zeros(2, k, k, dtype=torch.float64)
    accumulate(mean, scatter, 0, z)
    found = left_out(z[:, None, :m], mean, forgetting(scatter, n, m, 0.1), n)[:, 0].numpy()
    for p in range(2):
        model = EmpiricalCovariance().fit(z[p, m:].numpy())
        VI = np.linalg.inv(model.covariance_ + 0.1 * np.eye(k))
        expected = [mahalanobis(v, model.location_, VI) for v in z[p, :m].numpy()]
        np.testing.assert_allclose(found[p], expected, rtol=1e-5)


@pytest.mark.parametrize("parameters, kept", [
    ({}, None), ({}, 7), ({}, 0), ({"storage": "half"}, None),
    ({"tile": 48, "overlap": 16, "image_size": 32, "levels": (1, 2)}, 10),
])  # fmt: skip
def test_every_picture_is_judged_by_the_statistics_of_the_others(parameters, kept, monkeypatch):
    if kept is not None:  # of so many images the features are kept, the rest goes through the network again
        monkeypatch.setattr(semiorth, "room", lambda *args: kept)
    X = pictures(34, 64)
    detector = SemiOrthogonal(**CROSS | parameters).fit(X, device="cpu")
    assert detector.calibration_.method == "cross" and detector.counts_ == {"train": 34, "calibration": 34}
    for i in (0, 6, 20, 33):
        _, _, alone = at_once(detector, as_image_set(np.delete(X, i, 0)), as_image_set(X[[i]]))
        tolerance = 2e-3 if parameters.get("storage") else 5e-4
        np.testing.assert_allclose(detector.calibration_scores_[i], alone.scores[0], rtol=tolerance)
        np.testing.assert_allclose(detector.calibration_.peaks[i], alone.peaks[0], rtol=tolerance)
    model, *_ = at_once(detector, as_image_set(X), as_image_set(X[:1]))
    assert torch.equal(model.whitening, detector.whitening_) and torch.equal(model.mean, detector.mean_)


def test_crops_of_pictures_of_several_sizes_are_left_out_together():
    X = [*pictures(20, 64), *pictures(8, 80)]
    detector = SemiOrthogonal(**CROSS | {"tile": 48, "overlap": 16, "image_size": 32, "levels": (1, 2)}).fit(X, device="cpu")
    for i in (3, 24):
        rest = [x for j, x in enumerate(X) if j != i]
        _, _, alone = at_once(detector, as_image_set(rest), as_image_set([X[i]]))
        np.testing.assert_allclose(detector.calibration_scores_[i], alone.scores[0], rtol=5e-4)


@pytest.mark.parametrize("parameters", [{}, {"storage": "packed"}])
def test_partial_fit_of_all_that_teach_is_fitting_all_at_once(parameters):
    parts = pictures(30, 64, seed=1), pictures(11, 64, seed=2), pictures(1, 64, seed=3)
    detector = SemiOrthogonal(**CROSS | parameters)
    for part in parts:
        detector.partial_fit(part, device="cpu")
    whole = SemiOrthogonal(**CROSS | parameters).fit(np.concatenate(parts), device="cpu")
    assert detector.counts_ == whole.counts_ == {"train": 42, "calibration": 42} and detector.seen_ == 42
    np.testing.assert_allclose(detector.calibration_scores_, whole.calibration_scores_, rtol=1e-3)
    np.testing.assert_allclose(detector.mean_, whole.mean_, rtol=1e-4, atol=1e-5)
    assert detector.calibration_.method == "cross"


def test_pictures_that_never_taught_are_not_left_out():
    detector = SemiOrthogonal(**CROSS).fit(pictures(30, 64)).recalibrate(pictures(25, 64, seed=5))
    assert detector.calibration_.method == "split" and detector.counts_ == {"train": 30, "calibration": 25}
    with pytest.warns(UserWarning, match="the 12 new ones alone"):
        detector.partial_fit(pictures(12, 64, seed=6))
    assert detector.counts_ == {"train": 42, "calibration": 12} and detector.calibration_.method == "cross"


@pytest.mark.parametrize("where", ["crossed", "told_across", "whiten"])
def test_partial_fit_that_breaks_off_among_the_scores_leaves_the_old_detector(monkeypatch, where):
    detector = SemiOrthogonal(**CROSS).fit(pictures(30, 64))
    record, before = detector.fitted_, all_numbers(detector)

    def breaks(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(semiorth, where, breaks)
    with pytest.raises(KeyboardInterrupt):
        detector.partial_fit(pictures(5, 64, seed=2))
    assert detector.fitted_ is record and equal(all_numbers(detector), before)


def test_one_picture_cannot_be_judged_by_others():
    with pytest.raises(G100Error, match="at least 2") as error:
        SemiOrthogonal(**CROSS).fit(pictures(1, 64))
    assert "\n" not in str(error.value)


def test_what_is_kept_stays_within_the_limit():
    detector = SemiOrthogonal(**CROSS)
    needs, one = fit_bytes(256, 20, 16, cross=True), 4 * 256 * 20
    assert semiorth.room(detector, 10**6, 256) == semiorth.KEPT // one and semiorth.room(detector, 5, 256) == 5
    assert semiorth.room(detector.set_params(max_memory=(needs + 3.5 * one) / 1e9), 100, 256) == 3
    assert semiorth.room(detector.set_params(max_memory=0.9 * needs / 1e9), 100, 256) == 0


# --- on several machines ---


def mailed(work, calls):
    "Other machines in this process: all that travels is pickled."
    for call in calls:
        yield pickle.loads(pickle.dumps(work(*pickle.loads(pickle.dumps(call)))))


@pytest.mark.parametrize("parameters", [
    {}, {"calibration": 0.2}, {"storage": "half"}, {"tile": 48, "overlap": 16, "image_size": 32, "levels": (1, 2)},
])  # fmt: skip
def test_machines_together_say_what_one_says(parameters, monkeypatch):
    monkeypatch.setattr(semiorth, "SHARD", 1)
    X = [*pictures(20, 64), *pictures(9, 80)] if "tile" in parameters else pictures(37, 64)
    here, there = (SemiOrthogonal(**CROSS | parameters) for _ in range(2))
    here.fit(X, device="cpu")
    there.fit(X, device="cpu", spread=mailed)
    assert there.counts_ == here.counts_ and there.fitted_.notes == here.fitted_.notes
    torch.testing.assert_close(there.mean_, here.mean_, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there.picture_, here.picture_, rtol=1e-5, atol=1e-5)
    tolerance = 2e-3 if "storage" in parameters else 2e-4
    np.testing.assert_allclose(there.calibration_scores_, here.calibration_scores_, rtol=tolerance)
    x = spotted(3, 64)[0]
    np.testing.assert_allclose(there.score_samples(x), here.score_samples(x), rtol=tolerance)


@given(st.integers(1, 10**6), st.integers(1, 256))
def test_work_is_dealt_out_to_many_and_in_parts_that_fit(images, batch_size):
    parts = semiorth.dealt(images, batch_size)
    sizes = -(-images // parts), images // parts
    assert sizes[1] >= 1 and sizes[0] <= semiorth.SHARD * batch_size
    assert parts >= min(semiorth.PARTS, -(-images // batch_size))


def test_moments_of_parts_are_those_of_the_whole():
    z = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0)) + 2
    mean, scatter, seen = torch.zeros(3, 5), torch.zeros(3, 5, 5), 0
    for part in z.split([1, 24, 15], dim=1):
        centre = part.mean(1)
        off = part - centre[:, None]
        seen = gaussians.add_moments(mean, scatter, seen, (part.shape[1], centre, off.mT @ off))
    assert seen == 40
    for p in range(3):
        np.testing.assert_allclose(scatter[p] / 40, np.cov(z[p].numpy().T, bias=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean, z.mean(1))
