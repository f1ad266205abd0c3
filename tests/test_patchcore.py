"""PatchCore against scikit-learn, closed forms and the authors' way of pooling; and its contract."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from g100 import PatchCore, load
from g100.algorithms import bank, patchcore
from g100.algorithms.bank import fit_bytes, projected_dim, remembered, thinned
from g100.algorithms.coreset import k_center_greedy
from g100.algorithms.merging import Summary
from g100.algorithms.neighbors import Neighbors
from g100.algorithms.patchcore import PatchMemory, origin_of, patch_features, picked, pool_patches, reweight
from g100.foundations.errors import G100Error
from g100.foundations.lessons import Judge, Lessons, Options, folds, judged, split
from g100.foundations.sources import as_image_set
from tests.toys import pictures, spotted

SETTINGS = {"backbone": "resnet18", "weights": "random", "image_size": 64, "sigma": 1.0}
pytestmark = [
    pytest.mark.xdist_group("patchcore"),  # its fixtures are made once
    pytest.mark.filterwarnings("ignore:.*RANDOM weights.*", "ignore:.*false-positive rate.*"),
]


@pytest.fixture(scope="module")
def fitted():
    return PatchCore(**SETTINGS, coreset_ratio=0.1, calibration=0.2).fit(pictures(30, 64), device="cpu")


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2) / 255


# --- Eq. 7 ---


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 12)), elements=st.floats(0, 1e4)))
def test_weight_lies_between_its_bounds(distances):
    d = torch.from_numpy(np.sort(distances, axis=1))
    w = reweight(d)
    assert ((w >= 1 - 1 / d.shape[1] - 1e-9) & (w <= 1)).all()


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 12)), elements=st.floats(0, 50)))
def test_weight_is_equation_7_where_it_does_not_overflow(d):
    expected = 1 - np.exp(d[:, 0]) / np.exp(d).sum(1)
    np.testing.assert_allclose(reweight(torch.from_numpy(d)).numpy(), expected, atol=1e-12)


def test_weight_of_large_distances_is_finite():
    assert reweight(torch.tensor([[1e4, 1.1e4, 2e4]])).isfinite().all()


def test_weight_of_a_single_neighbour_is_one():
    assert reweight(torch.tensor([[3.0], [0.0]])).tolist() == [1.0, 1.0]


# --- patch features ---


def test_mean_over_the_neighbourhood_by_hand_zeros_beyond_the_border():
    phi = torch.arange(12.0).reshape(1, 1, 3, 4)
    pooled = pool_patches(phi, 3)[0, 0]
    assert pooled[1, 1] == phi[0, 0, :, :3].mean() and pooled[0, 0] == phi[0, 0, :2, :2].sum() / 9
    assert torch.equal(pool_patches(phi, 1), phi)


def test_published_pooling_is_adaptive_over_channels_and_neighbours():
    phi = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    padded = F.pad(phi, (1, 1, 1, 1))
    vector = torch.stack([padded[0, c, 2 + i, 1 + j] for c in range(4) for i in range(3) for j in range(3)])
    pooled = pool_patches(phi, 3, dim=7)[0, :, 2, 1]
    torch.testing.assert_close(pooled, F.adaptive_avg_pool1d(vector[None], 7)[0])


def test_features_are_on_the_finest_grid():
    levels = [torch.randn(2, 8, 12, 10), torch.randn(2, 16, 6, 5)]
    assert patch_features(levels, 3).shape == (2, 24, 12, 10)
    assert patch_features(levels, 3, dim=20).shape == (2, 20, 12, 10)


# --- the whole, against scikit-learn ---


def test_maps_and_scores_are_those_of_scikit_learn(fitted):
    x, model = tensor(spotted(3, 64)[0]), fitted.fitted_.model
    with torch.inference_mode():
        z = model.patches(x)
        maps, scores = (found.numpy() for found in model.scored(x))
    h, w = z.shape[1:3]
    z, bank = z.flatten(1, 2).double().numpy(), fitted.bank_.double().numpy()
    search = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(bank)
    distance, member = (found[..., 0].reshape(3, -1) for found in search.kneighbors(np.concatenate(z), 1))
    np.testing.assert_allclose(maps, distance.reshape(3, h, w), rtol=1e-4)
    for i in range(3):
        star = distance[i].argmax()
        around = search.kneighbors(bank[member[i, star]][None], 9, return_distance=False)[0]
        e = np.exp(np.linalg.norm(bank[around] - z[i, star], axis=1))
        assert scores[i] == pytest.approx((1 - np.exp(distance[i, star]) / e.sum()) * distance[i, star], rel=1e-4)


def test_full_bank_gives_training_patches_distance_zero():
    X = pictures(6, 64)
    detector = PatchCore(**SETTINGS | {"sigma": 0}, coreset_ratio=1.0, calibration=0.5, image_score="max").fit(X)
    train, held_out = split(as_image_set(X), 0.5, 0)
    assert detector.inspect(train).score.max() < 1e-4 < detector.inspect(held_out).score.min()


def test_bank_is_the_coreset_of_the_training_patches(fitted):
    assert len(fitted.bank_) == round(0.1 * 24 * 64) and fitted.bank_neighbors_.shape == (len(fitted.bank_), 9)
    assert len(torch.unique(fitted.bank_, dim=0)) == len(fitted.bank_)
    assert (fitted.radius_.diff() <= 1e-5).all()


@pytest.mark.parametrize("how", ["max", "top_percent", "mean", "reweighted"])
def test_every_way_from_map_to_score_and_saving_it(how, tmp_path):
    detector = PatchCore(**SETTINGS, image_score=how, calibration=0.5).fit(pictures(8, 64))
    again = load(detector.save(tmp_path / "model"))
    x = spotted(4, 64)[0]
    scores = detector.score_samples(x)
    assert np.isfinite(scores).all() and (scores < 0).all()
    np.testing.assert_array_equal(again.score_samples(x), scores)
    np.testing.assert_array_equal(again.anomaly_map(x), detector.anomaly_map(x))


def test_another_score_is_taken_over_by_recalibrating(fitted):
    detector, good = copy.deepcopy(fitted), pictures(8, 64, seed=3)
    detector.set_params(image_score="reweighted").recalibrate(good)
    with torch.inference_mode():
        expected = detector.fitted_.model.scored(tensor(good))[1].numpy()
    np.testing.assert_allclose(detector.calibration_scores_, expected, rtol=1e-5)


def test_fit_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    PatchCore(**SETTINGS, calibration=0.5).fit(pictures(4, 64))
    assert torch.equal(torch.rand(3), expected)


def test_an_interrupted_fit_leaves_the_old_detector(fitted, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    detector, x = copy.deepcopy(fitted), spotted(2, 64)[0]
    before, record = detector.score_samples(x), detector.fitted_
    monkeypatch.setattr("g100.algorithms.bank.k_center_greedy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(pictures(8, 64, seed=4))
    assert detector.fitted_ is record
    np.testing.assert_array_equal(detector.score_samples(x), before)


# --- the module ---


def test_search_follows_the_bank(fitted):
    model, x = copy.deepcopy(fitted.fitted_.model), tensor(spotted(2, 64)[0])
    with torch.inference_mode():
        first = model(x)
        searched = model.search[1]
        assert torch.equal(model(x), first) and model.search[1] is searched  # made once
        model.bank = model.bank[:50].clone()
        few = model(x)
        assert (few >= first).all() and (few > first).any()
        model.load_state_dict(model.state_dict() | {"bank": model.bank + 1})  # the same tensor with other numbers
        assert (model(x) != few).any()
        z = model.patches(x).flatten(0, 2)
        expected = torch.cdist(z, model.bank, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        torch.testing.assert_close(model(x).flatten(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_plain_search_is_the_certified_one_up_to_rounding(offset):
    torch.manual_seed(0)
    bank, z = offset + torch.randn(500, 40), offset + torch.randn(300, 40)
    z[:50] = bank[100:150]
    distance, member = picked(z, bank)
    exact = torch.cdist(z.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    torch.testing.assert_close(distance.double(), exact, rtol=1e-4, atol=1e-4)
    assert (distance[:50] == 0).all() and torch.equal(member[:50], torch.arange(100, 150))


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200])
def test_plain_search_picks_the_nearest_of_any_number_of_members(size):
    torch.manual_seed(size)
    bank, z = torch.randn(size, 7), torch.randn(90, 7)
    distance, member = picked(z, bank)
    each = np.linalg.norm(z.double().numpy()[:, None] - bank.double().numpy(), axis=2)
    np.testing.assert_array_equal(member, each.argmin(1))
    np.testing.assert_allclose(distance, each.min(1), rtol=1e-5)


@pytest.mark.parametrize("how", ["top_percent", "reweighted"])
def test_exported_program_says_what_the_detector_says(how):
    parameters = SETTINGS | {"backbone": "lite0", "weights": "embedded", "image_score": how}
    judge = PatchCore(**parameters, calibration=0.5).fit(pictures(8, 64), device="cpu").fitted_.judge
    x = tensor(np.concatenate([spotted(4, 64)[0], pictures(3, 64, seed=7)]))
    program = torch.export.export(judge, (x[:2],), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}})
    for n in (1, 3, 7):
        with torch.no_grad():
            (maps, scores), (its, its_scores) = judge(x[:n]), program.module()(x[:n])
        torch.testing.assert_close(its, maps, rtol=0, atol=1e-3 * float(maps.max()))
        torch.testing.assert_close(its_scores, scores, rtol=0, atol=1e-3 * float(scores.max()))


# --- memory ---


def test_memory_is_estimated():
    assert projected_dim(152, 128) is None and projected_dim(1024, 128) == 128 and projected_dim(1024, None) is None
    assert fit_bytes(1000, 152, 128) == 4 * 1000 * 152 and fit_bytes(1000, 1024, 128) <= 1.25 * 4 * 1000 * 1024
    assert fit_bytes(1000, 152, 128, cross=True) == 4 * 1200 * 152  # a fold beside the matrix, or its projection
    assert fit_bytes(1000, 1024, 128, cross=True) == 4 * (1000 * (1024 + 128) + 200 * 128)


@pytest.mark.parametrize("calibration", ["cross", 0.2])
def test_too_small_a_memory_is_refused_with_the_smallest_that_works(calibration):
    parameters = SETTINGS | {"calibration": calibration, "coreset_ratio": 0.05}
    with pytest.raises(G100Error, match=r"max_memory=0.001 GB.*at least 0.00\d+ GB.*bank_size") as error:
        PatchCore(**parameters, max_memory=0.001).fit(pictures(50, 64))
    assert "\n" not in str(error.value)
    least = float(str(error.value).split("at least ")[1].split()[0])
    detector = PatchCore(**parameters, max_memory=least).fit(pictures(50, 64))
    assert detector.covering_["blocks"] == (4 if calibration == "cross" else 3)
    with pytest.raises(G100Error, match="max_memory"):
        PatchCore(**parameters, max_memory=least - 2e-5).fit(pictures(50, 64))


def test_estimate_is_printed_before_the_work(capsys, monkeypatch):
    monkeypatch.setenv("G100_BARS", "1")
    PatchCore(**SETTINGS, calibration=0.2).fit(pictures(10, 64), verbose=True)
    lines = capsys.readouterr().err
    assert lines.index("PatchCore: 8 x 64 patches x 384 features") < lines.index("remembering")
    PatchCore(**SETTINGS, max_memory=0.003).fit(pictures(40, 64), verbose=True)
    assert "0.01 GB, in 3 blocks" in capsys.readouterr().err.replace("0.00 GB", "0.01 GB")


# --- more pictures than fit ---

LITTLE = 0.0035  # GB: 16 pictures of 64 x 64 pixels at a time
SOME = {
    "plain": {}, "split": {"calibration": 0.2, "max_memory": 0.0024}, "wide": {"feature_dim": 512, "projection_dim": 64},
    "tiles": {"tile": 32, "overlap": 0, "image_size": 32, "levels": (1, 2), "max_memory": 0.005},
    "pad": {"framing": "pad"}, "reweighted": {"image_score": "reweighted"}, "studentise": {"studentise": True},
}  # fmt: skip


def some_slow(names, slow: set) -> list:
    "The names, these marked as slow."
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def uneven(n: int) -> list[np.ndarray]:
    "Pictures of which every other one is half as high."
    return [p[:32] if i % 2 else p for i, p in enumerate(pictures(n, 64))]


@pytest.mark.parametrize("name", some_slow(SOME, {"wide", "reweighted", "split"}))
def test_in_blocks_the_bank_covers_as_certified_and_all_that_belongs_to_it_is_right(name):
    X = uneven(34) if name == "pad" else pictures(34, 64)
    parameters = SETTINGS | {"coreset_ratio": 0.05, "max_memory": LITTLE} | SOME[name]
    detector = PatchCore(**parameters).fit(X, device="cpu")
    whole = PatchCore(**parameters | {"max_memory": None}).fit(X, device="cpu")
    assert detector.covering_["blocks"] > 1 == whole.covering_["blocks"] and detector.counts_ == whole.counts_
    assert abs(len(detector.bank_) - len(whole.bank_)) <= 1
    taught = as_image_set(X) if name != "split" else split(as_image_set(X), 0.2, 0)[0]
    for one in (detector, whole):
        assert one.covering_radius(taught) <= one.covering_["bound"]
    assert detector.covering_radius(taught) <= 1.5 * whole.covering_radius(taught)
    lessons = Lessons(taught, detector.fitted_.scoring, 16, Options(torch.device("cpu")))
    features = remembered(detector, detector.fitted_.model, lessons)[0].flatten(1, 2)
    names = list(lessons.images.names)
    for member in range(0, len(detector.bank_), 7):
        name, y, x = origin_of(detector.remembered_, member)
        h, w = detector.remembered_["grid"]
        patch = features[names.index(name), int(y * h) * w + int(x * w)]
        torch.testing.assert_close(patch, detector.bank_[member], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(detector.threshold_, whole.threshold_, rtol=0.25)


def test_in_blocks_every_picture_asked_is_judged_by_a_bank_of_the_others():
    X = np.concatenate([pictures(44, 64), spotted(1, 64)[0]])
    parameters = SETTINGS | {"sigma": 0, "image_score": "max", "coreset_ratio": 0.1, "batch_size": 4}
    detector = PatchCore(**parameters, max_memory=0.004).fit(X, device="cpu")
    assert detector.covering_["blocks"] > 1
    assert detector.calibration_scores_.argmax() == 44 and len(detector.calibration_scores_) == 45
    assert detector.calibration_scores_[44] > 1.5 * detector.inspect(X[44:]).score[0]


def test_of_many_pictures_a_sample_is_asked(monkeypatch):
    monkeypatch.setattr(bank, "ASKED", (10, 20))
    X = pictures(60, 64)
    detector = PatchCore(**SETTINGS, max_memory=LITTLE, coreset_ratio=0.02).fit(X, device="cpu")
    n = detector.counts_["calibration"]
    assert n == len(detector.calibration_scores_) == len(detector.fitted_.held_out) and 10 <= n <= 15
    whole = PatchCore(**SETTINGS, coreset_ratio=0.02).fit(X, device="cpu")
    assert whole.counts_["calibration"] == 60
    which = [int(name) for name in detector.fitted_.held_out.names]
    np.testing.assert_allclose(detector.calibration_scores_, whole.calibration_scores_[which], rtol=0.2)


def test_what_waits_is_thinned_again_and_the_certificate_says_so(monkeypatch):
    X, parameters = pictures(64, 64), SETTINGS | {"coreset_ratio": 0.1, "max_memory": 0.004, "batch_size": 4}
    reduced = []
    monkeypatch.setattr(Summary, "reduced", lambda self, n, seed=0: reduced.append(n) or original(self, n, seed=seed))
    detector = PatchCore(**parameters).fit(X, device="cpu")
    assert len(reduced) > 5 * detector.covering_["blocks"] and len(detector.bank_) == round(0.1 * 64 * 64)
    assert detector.covering_radius(X) <= detector.covering_["bound"]


original = Summary.reduced


def test_a_bank_has_a_largest_size():
    X = pictures(20, 64)
    detector = PatchCore(**SETTINGS, coreset_ratio=0.5, bank_size=100).fit(X)
    small = PatchCore(**SETTINGS, coreset_ratio=100 / (20 * 64)).fit(X)
    assert len(detector.bank_) == 100 and torch.equal(detector.bank_, small.bank_)
    np.testing.assert_array_equal(detector.calibration_scores_, small.calibration_scores_)
    assert len(PatchCore(**SETTINGS, coreset_ratio=0.5, bank_size=None).fit(X).bank_) == 640


# --- presets and parameters ---


def test_paper_is_the_published_recipe():
    recipe = PatchCore.paper().get_params()
    assert recipe["backbone"] == "wide_resnet50_2" and recipe["weights"] == "pretrained"
    assert (recipe["resize"], recipe["image_size"], recipe["levels"]) == (256, 224, (2, 3))
    assert (recipe["feature_dim"], recipe["patch_size"], recipe["coreset_ratio"]) == (1024, 3, 0.1)
    assert (recipe["sigma"], recipe["image_score"]) == (4.0, "reweighted")
    assert PatchCore.paper(coreset_ratio=0.01).coreset_ratio == 0.01


def test_projection_is_used_where_features_are_wide():
    detector = PatchCore(**SETTINGS | {"levels": (2, 3)}, feature_dim=512, projection_dim=64, coreset_ratio=0.05)
    detector.fit(pictures(8, 64))
    assert detector.bank_.shape[1] == 512


@pytest.mark.parametrize("parameters, word", [
    ({"coreset_ratio": 0}, "coreset_ratio"), ({"coreset_ratio": 1.5}, "coreset_ratio"), ({"n_neighbors": 0}, "n_neighbors"),
    ({"patch_size": 2}, "patch_size"), ({"backbone": "resnet81"}, "resnet"), ({"weights": "embeded"}, "embedded"),
    ({"weights": "embedded"}, "resnet18"), ({"levels": (7,)}, "level"), ({"image_score": "reweigthed"}, "reweighted"),
])  # fmt: skip
def test_wrong_parameter_is_one_line_that_names_it(parameters, word):
    with pytest.raises(G100Error, match=word) as error:
        PatchCore(**SETTINGS | parameters).fit(pictures(10, 64))
    assert "\n" not in str(error.value)


def test_radius_matches_the_coreset_of_the_same_matrix(fitted):
    teach, options = split(as_image_set(pictures(30, 64)), 0.2, 0)[0], Options(torch.device("cpu"))
    images, seen = remembered(fitted, fitted.fitted_.model, Lessons(teach, fitted.fitted_.scoring, 16, options))
    memory = images.flatten(0, 2)
    assert seen.all() and seen.shape == images.shape[:3]
    again = k_center_greedy(memory, len(fitted.bank_), seed=0)
    assert fitted.radius_[-1] == pytest.approx(float(again.radius[-1]), rel=1e-5)
    assert torch.equal(memory[again.index], fitted.bank_)


# --- every picture teaches ---


def banks_by_hand(detector: PatchCore, X) -> list[tuple[np.ndarray, Judge]]:
    "Each fold and the judge of the others, in two steps of thinning: from pictures to the end, nothing shared."
    model, scoring = detector.build((64, 64)).eval(), detector.scoring()
    lessons = Lessons(as_image_set(X), scoring, 7, Options(torch.device("cpu")))
    with torch.inference_mode():
        z = torch.cat([model.patches(x) for x in lessons.batches("")])
        parts = folds(len(lessons.pictures), detector.seed)
        crops = len(z) // len(lessons.pictures)
        images = [np.flatnonzero(np.isin(np.arange(len(z)) // crops, part)) for part in parts]
        found = []
        for k, part in enumerate(parts):
            few = [z[rows].flatten(0, 2) for j, rows in enumerate(images) if j != k]
            thin = [p[k_center_greedy(p, -(-int(2e3 * detector.coreset_ratio) * len(p) // 1000)).index] for p in few]
            other = copy.deepcopy(model)
            size = max(1, round(detector.coreset_ratio * sum(map(len, few))))
            thinned(detector, other, torch.cat(thin), torch.cat(thin), size)
            found.append((part, Judge(other, scoring)))
    return found


@pytest.mark.parametrize("parameters", [
    {}, {"image_score": "reweighted"}, {"tile": 32, "overlap": 0, "image_size": 32, "levels": (1, 2)},
])  # fmt: skip
def test_every_picture_is_judged_by_a_bank_of_the_others(parameters):
    X = pictures(23, 64)
    detector = PatchCore(**SETTINGS | parameters, coreset_ratio=0.1, projection_dim=None).fit(X, device="cpu")
    images, scores, peaks = as_image_set(X), np.zeros(23), np.zeros(23)
    for part, judge in banks_by_hand(detector, X):
        for i in part:
            maps, score = next(judged(judge, images[[i]], torch.device("cpu"), 16))
            scores[i], peaks[i] = score[0], maps.max()
    np.testing.assert_allclose(detector.calibration_scores_, scores, rtol=1e-4)
    np.testing.assert_allclose(detector.calibration_.peaks, peaks, rtol=1e-4)
    assert detector.calibration_.method == "cross" and detector.counts_ == {"train": 23, "calibration": 23}


def test_the_final_bank_is_that_of_all_pictures():
    X = pictures(12, 64)
    detector = PatchCore(**SETTINGS, coreset_ratio=0.1).fit(X, device="cpu")
    lessons = Lessons(as_image_set(X), detector.fitted_.scoring, 16, Options(torch.device("cpu")))
    alone = detector.build((64, 64)).eval()
    detector.learn(alone, lessons)
    assert torch.equal(alone.bank, detector.bank_) and torch.equal(alone.bank_neighbors, detector.bank_neighbors_)


def test_a_fold_with_a_spot_of_its_own_is_judged_by_those_without():
    "A picture like no other has the highest score although it teaches the final model, to which it is then known."
    X = np.concatenate([pictures(14, 64), spotted(1, 64)[0]])
    detector = PatchCore(**SETTINGS | {"sigma": 0}, coreset_ratio=1.0, image_score="max").fit(X, device="cpu")
    assert detector.calibration_scores_.argmax() == 14 and detector.inspect(X).score.max() < 1e-4


@pytest.mark.parametrize("n", [2, 3])
def test_fewer_pictures_than_folds_are_left_out_one_by_one(n):
    detector = PatchCore(**SETTINGS, target_fpr=0.5).fit(pictures(n, 64))
    assert len(detector.calibration_scores_) == n and detector.counts_ == {"train": n, "calibration": n}


def test_features_are_extracted_once(monkeypatch):
    looked, patches = [], PatchMemory.patches
    monkeypatch.setattr(PatchMemory, "patches", lambda self, x: looked.append(len(x)) or patches(self, x))
    PatchCore(**SETTINGS).fit(pictures(12, 64))
    assert sum(looked) == 12 + 1  # one of zeros, for the shapes


# --- more pictures later ---

UPDATED = {
    "plain": {}, "split": {"calibration": 0.2, "max_memory": 0.0024}, "wide": {"feature_dim": 512, "projection_dim": 64},
    "max": {"image_score": "max"}, "pad": {"framing": "pad"}, "studentise": {"studentise": True},
    "tiles": {"tile": 32, "overlap": 0, "image_size": 32, "levels": (1, 2)}, "in blocks": {"max_memory": 0.0035},
}  # fmt: skip


def first_and_more(name: str) -> tuple:
    make = uneven if name == "pad" else lambda n, seed=0: pictures(n, 64, seed)
    return make(24), make(40) if name == "in blocks" else pictures(12, 64, seed=5)


def numbers(detector: PatchCore) -> dict:
    return {name: value.clone() for name, value in detector.fitted_.tensors().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", some_slow(UPDATED, {"wide", "max", "in blocks"}))
def test_a_bank_that_grows_keeps_its_members_and_no_score_rises(name, tmp_path):
    X, more = first_and_more(name)
    detector = PatchCore(**SETTINGS | UPDATED[name], coreset_ratio=0.05).fit(X, device="cpu")
    record, before, x = detector.fitted_, numbers(detector), np.concatenate([spotted(4, 64)[0], pictures(9, 64, seed=9)])
    verdicts = detector.inspect(x)
    again = load(detector.save(tmp_path / "model"), device="cpu")
    assert detector.partial_fit(more) is detector and detector.fitted_ is not record
    assert all(torch.equal(value, before[key]) for key, value in record.tensors().items())
    m, later = len(record.model.bank), detector.inspect(x)
    assert torch.equal(detector.bank_[:m], record.model.bank) and len(detector.bank_) > m
    assert (later.score <= verdicts.score * (1 + 1e-6)).all() and (later.map <= verdicts.map + 1e-5 * verdicts.map.max()).all()
    assert (later.score < verdicts.score).any()
    assert detector.threshold_ == record.calibration.threshold and detector.calibration_ is record.calibration
    assert detector.counts_["train"] == record.counts["train"] + len(more)
    exact = Neighbors(detector.bank_).kneighbors(detector.bank_, 9)[0]
    found = torch.linalg.vector_norm(detector.bank_[detector.bank_neighbors_] - detector.bank_[:, None], dim=2)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
    assert detector.covering_radius(more) <= detector.covering_["bound"]
    again.partial_fit(more)
    assert same(numbers(again), numbers(detector)) and again.fitted_.notes == detector.fitted_.notes


@pytest.mark.parametrize("name", some_slow(["plain", "split", "wide", "pad", "studentise", "tiles"], {"wide", "pad"}))
def test_a_bank_that_keeps_its_size_has_new_thresholds_from_the_new_pictures(name):
    X, more = first_and_more(name)
    detector = PatchCore(**SETTINGS | UPDATED[name], coreset_ratio=0.05).fit(X, device="cpu")
    m, bound = len(detector.bank_), detector.covering_["bound"]
    detector.partial_fit(more, keep_size=True)
    taught = split(as_image_set(more), 0.2, 0)[0] if name == "split" else more
    assert len(detector.bank_) == m == len(detector.bank_neighbors_) == len(detector.radius_)
    assert len(detector.calibration_scores_) == (3 if name == "split" else 12) == len(detector.fitted_.held_out)
    assert detector.covering_["bound"] > bound and detector.counts_["train"] == len(X) - 5 * (name == "split") + len(taught)
    for seen in ((X, taught) if name != "split" else (taught,)):
        assert detector.covering_radius(seen) <= detector.covering_["bound"]
    if name == "split":
        held = split(as_image_set(more), 0.2, 0)[1]
        np.testing.assert_allclose(detector.calibration_scores_, detector.inspect(held).score, rtol=1e-5)


def test_where_members_come_from_is_told_after_an_update():
    X, more = pictures(10, 64), {f"late {i}": p for i, p in enumerate(pictures(6, 64, seed=5))}
    late = as_image_set(list(more.values()))
    late = type(late)(late.images, list(more), late.labels, late.defects, late.masks)
    for keep in (False, True):
        detector = PatchCore(**SETTINGS, coreset_ratio=0.1, target_fpr=0.2).fit(X, device="cpu")
        detector.partial_fit(late, keep_size=keep)
        pool = {str(name): p for name, p in zip(as_image_set(X).names, X, strict=True)} | more
        places = [origin_of(detector.remembered_, i) for i in range(len(detector.bank_))]
        assert {"late" in name for name, _, _ in places} == {True, False}
        with torch.inference_mode():
            for member, (name, y, x) in list(zip(detector.bank_, places, strict=True))[::5]:
                z = detector.fitted_.model.patches(tensor(pool[name][None]))[0]
                torch.testing.assert_close(z[int(y * 8), int(x * 8)], member, rtol=1e-4, atol=1e-4)


def test_with_eq_7_the_thresholds_are_made_anew():
    detector = PatchCore(**SETTINGS, coreset_ratio=0.1, image_score="reweighted", target_fpr=0.2).fit(pictures(12, 64))
    m = len(detector.bank_)
    detector.partial_fit(pictures(8, 64, seed=5))
    assert len(detector.bank_) > m and len(detector.calibration_scores_) == detector.counts_["calibration"] == 8


def test_a_false_alarm_that_joins_is_good_from_then_on_and_the_others_keep_their_verdicts():
    x = spotted(1, 64)[0]
    detector = PatchCore(**SETTINGS, coreset_ratio=0.2, image_score="max").fit(pictures(30, 64))
    good = pictures(40, 64, seed=11)
    called = detector.inspect(good).is_anomalous
    assert detector.inspect(x).is_anomalous.all()
    detector.partial_fit(np.concatenate([x] * 3))
    assert not detector.inspect(x).is_anomalous.any() and not (detector.inspect(good).is_anomalous & ~called).any()


@pytest.mark.parametrize("change, word", [
    ({"image_size": 32}, "image_size.*fit anew"), ({"patch_size": 5}, "patch_size"), ({"seed": 5}, "seed"),
    ({"sigma": 2.0}, "sigma.*recalibrate"), ({"target_fpr": 0.2}, "target_fpr.*recalibrate"),
    ({"bank_size": 100}, "bank_size=100"),
])  # fmt: skip
def test_an_update_refuses_changed_parameters_and_a_full_bank(fitted, change, word):
    detector = copy.deepcopy(fitted)
    before = numbers(detector)
    with pytest.raises(G100Error, match=f"partial_fit: .*{word}") as error:
        detector.set_params(**change).partial_fit(pictures(10, 64))
    assert "\n" not in str(error.value) and same(numbers(detector), before)


def test_an_update_refuses_abnormal_pictures_and_another_device(fitted, monkeypatch):
    detector = copy.deepcopy(fitted)
    with pytest.raises(G100Error, match="good pictures only"):
        detector.partial_fit(pictures(4, 64), y=[0, 0, 1, 0])
    monkeypatch.setattr(patchcore, "pick_device", torch.device)
    with pytest.raises(G100Error, match="partial_fit: device meta, but the detector is on cpu"):
        detector.partial_fit(pictures(4, 64), device="meta")


@pytest.mark.parametrize("where", ["shape_of", "summarised", "grown", "renewed", "notes_after", "recorded"])
@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_an_update_that_breaks_off_leaves_the_old_detector(where, problem, monkeypatch):
    detector = PatchCore(**SETTINGS, coreset_ratio=0.05, target_fpr=0.2).fit(pictures(10, 64), device="cpu")
    record, before = detector.fitted_, numbers(detector)

    def breaks(*args, **kwargs):
        raise problem

    monkeypatch.setattr(bank, where, breaks)
    with pytest.raises(problem):
        detector.partial_fit(pictures(6, 64, seed=5), keep_size=where in ("renewed", "recorded"))
    assert detector.fitted_ is record and same(numbers(detector), before)


def test_a_first_partial_fit_is_a_fit():
    X = pictures(8, 64)
    one, other = (PatchCore(**SETTINGS, target_fpr=0.2) for _ in range(2))
    assert same(numbers(one.partial_fit(X, device="cpu")), numbers(other.fit(X, device="cpu")))


# --- on several machines ---


def mailed(work, calls):
    "Other machines in this process: all that travels is pickled."
    for call in calls:
        yield pickle.loads(pickle.dumps(work(*pickle.loads(pickle.dumps(call)))))


@pytest.mark.parametrize("name", some_slow(["plain", "split", "wide", "tiles", "pad", "reweighted"], {"wide", "pad", "split"}))
def test_machines_together_say_what_one_says_with_the_same_blocks(name, monkeypatch):
    parameters = SOME[name] | ({"max_memory": 0.0025} if name == "split" else {})
    monkeypatch.setattr(bank, "SHARD", 3 if "tile" in parameters else 1)
    monkeypatch.setattr(bank, "AGAIN", 1)
    monkeypatch.setattr(bank, "STAYS", 2)  # so little that nothing is thinned twice
    X = uneven(34) if "framing" in parameters else pictures(34, 64)
    kinds = SETTINGS | {"coreset_ratio": 0.05, "max_memory": 0.0035} | parameters
    here = PatchCore(**kinds).fit(X, device="cpu")
    there = PatchCore(**kinds).fit(X, device="cpu", spread=mailed)
    assert there.covering_ == here.covering_ and there.covering_["blocks"] > 1
    assert same(numbers(there), numbers(here)) and there.fitted_.notes == here.fitted_.notes
    free = PatchCore(**kinds | {"max_memory": None}).fit(X, device="cpu", spread=mailed)
    assert torch.equal(free.bank_, there.bank_)


def test_other_pictures_under_the_same_names_are_noticed_there(tmp_path):
    for i, picture in enumerate(pictures(4, 64)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")

    def elsewhere(harm):
        def spread(work, calls):
            harm()
            return mailed(work, calls)
        return spread

    for harm, word in ((lambda: Image.fromarray(pictures(1, 64, 9)[0]).save(tmp_path / "2.png"), "copy the data again"),
                       (lambda: (tmp_path / "2.png").unlink(), "2.png")):  # fmt: skip
        detector = PatchCore(**SETTINGS, target_fpr=0.5)
        with pytest.raises(G100Error, match=f"worker .*{word}") as error:
            detector.fit(tmp_path, device="cpu", spread=elsewhere(harm))
        assert "\n" not in str(error.value) and not hasattr(detector, "fitted_")
