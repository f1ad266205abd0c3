"""PatchCore against scikit-learn, closed forms and the authors' way of pooling; and its contract."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.neighbors import NearestNeighbors

from g100 import PatchCore, load
from g100.algorithms.patchcore import fit_bytes, patch_features, pool_patches, projected_dim, reweight
from g100.algorithms.coreset import k_center_greedy
from g100.foundations.errors import G100Error
from tests.toys import pictures, spotted

SETTINGS = {"backbone": "resnet18", "weights": "random", "image_size": 64, "sigma": 1.0, "device": "cpu"}
pytestmark = [
    pytest.mark.xdist_group("patchcore"),  # its fixtures are made once
    pytest.mark.filterwarnings("ignore:.*RANDOM weights.*", "ignore:.*false-positive rate.*"),
]


@pytest.fixture(scope="module")
def fitted():
    return PatchCore(**SETTINGS, coreset_ratio=0.1).fit(pictures(30, 64))


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
    x = torch.from_numpy(spotted(3, 64)[0]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        z = fitted._features(x)
    h, w = z.shape[2:]
    z, bank = z.permute(0, 2, 3, 1).flatten(1, 2).double().numpy(), fitted.bank_.double().numpy()
    search = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(bank)
    distance, member = (found[..., 0].reshape(3, -1) for found in search.kneighbors(np.concatenate(z), 1))
    fitted.set_params(image_score="reweighted")
    maps, scores = (found.numpy() for found in fitted._judge(x))
    raw = F.interpolate(torch.from_numpy(distance.reshape(3, 1, h, w)), (64, 64), mode="bilinear")[:, 0].numpy()
    assert np.abs(maps.mean((1, 2)) - raw.mean((1, 2))).max() < 0.05 * raw.mean()
    for i in range(3):
        star = distance[i].argmax()
        around = search.kneighbors(bank[member[i, star]][None], 9, return_distance=False)[0]
        e = np.exp(np.linalg.norm(bank[around] - z[i, star], axis=1))
        assert scores[i] == pytest.approx((1 - np.exp(distance[i, star]) / e.sum()) * distance[i, star], rel=1e-4)


def test_full_bank_gives_training_patches_distance_zero():
    X = pictures(6, 64)
    detector = PatchCore(**SETTINGS | {"sigma": 0}, coreset_ratio=1.0, calibration=0.5, image_score="max").fit(X)
    from g100.foundations.pictures import as_image_set
    from g100.foundations.detector import split

    train, held_out = split(as_image_set(X), 0.5, 0)
    assert detector.inspect(train).score.max() < 1e-4 < detector.inspect(held_out).score.min()


def test_bank_is_the_coreset_of_the_training_patches(fitted):
    assert len(fitted.bank_) == round(0.1 * 24 * 64) and fitted.bank_neighbors_.shape == (len(fitted.bank_), 9)
    assert len(torch.unique(fitted.bank_, dim=0)) == len(fitted.bank_)
    assert (fitted.radius_.diff() <= 1e-5).all()


def test_saved_detector_needs_no_weights(fitted, tmp_path):
    fitted.set_params(image_score="reweighted")
    again = load(fitted.save(tmp_path / "model"), device="cpu")
    x = spotted(4, 64)[0]
    np.testing.assert_array_equal(again.inspect(x).map, fitted.inspect(x).map)
    np.testing.assert_array_equal(again.score_samples(x), fitted.score_samples(x))


@pytest.mark.parametrize("how", ["max", "top_percent", "mean", "reweighted"])
def test_every_way_from_map_to_score(fitted, how):
    scores = fitted.set_params(image_score=how).score_samples(pictures(3, 64))
    assert np.isfinite(scores).all() and (scores < 0).all()


# --- memory ---


def test_memory_is_estimated_and_refused():
    with pytest.raises(G100Error, match=r"max_memory=0.001 GB.*limit-train"):
        PatchCore(**SETTINGS, max_memory=0.001).fit(pictures(40, 64))
    assert projected_dim(152, 128) is None and projected_dim(1024, 128) == 128 and projected_dim(1024, None) is None
    assert fit_bytes(1000, 152, 128) == 4 * 1000 * 152 and fit_bytes(1000, 1024, 128) <= 1.25 * 4 * 1000 * 1024


def test_what_the_refusal_says_would_fit_fits():
    needs = fit_bytes(40 * 64, 384, 128) / 1e9
    with pytest.raises(G100Error, match="would fit") as error:
        PatchCore(**SETTINGS, max_memory=needs / 2, calibration=0.2).fit(pictures(50, 64))
    fits = int(str(error.value).split(";")[1].split()[0])
    PatchCore(**SETTINGS, max_memory=needs / 2, calibration=0.001).fit(pictures(fits + 1, 64))


def test_estimate_is_printed_before_the_work(capsys):
    PatchCore(**SETTINGS, verbose=True).fit(pictures(10, 64))
    lines = capsys.readouterr().err
    assert lines.index("PatchCore: 8 x 64 patches x 384 features") < lines.index("remembering")


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
    from g100.foundations.pictures import as_image_set
    from g100.foundations.detector import split

    with torch.inference_mode():
        memory = fitted._memory(split(as_image_set(pictures(30, 64)), 0.2, 0)[0])
    again = k_center_greedy(memory, len(fitted.bank_), seed=0)
    assert fitted.radius_[-1] == pytest.approx(float(again.radius[-1]), rel=1e-5)
