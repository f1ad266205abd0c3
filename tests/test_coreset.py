"""The coreset against the plain greedy, brute force and its own definition."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from g100.algorithms import coreset as module
from g100.algorithms.coreset import k_center_greedy, project
from g100.algorithms.merging import Summary, merged
from g100.foundations.errors import G100Error


def farthest_first(X, n, start):
    "The greedy in float64 from differences: no expansion, no batches."
    X = np.asarray(X, np.float64)
    gap, index, radius = np.full(len(X), np.inf), [int(start)], []
    while True:
        gap = np.minimum(gap, np.square(X - X[index[-1]]).sum(1))
        radius.append(np.sqrt(gap.max()))
        if len(index) == n:
            return np.array(index), np.array(radius)
        gap_left = gap.copy()
        gap_left[index] = -1
        index.append(int(gap_left.argmax()))


def curved(N, D=24, latent=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    z, A, B = (torch.randn(*shape, generator=g) for shape in ((N, latent), (latent, 40), (40, D)))
    return torch.tanh(z @ A) @ B + 0.1 * torch.randn(N, D, generator=g)


def covering(X, index):
    return cdist(np.asarray(X, np.float64), np.asarray(X, np.float64)[np.asarray(index)]).min(1).max()


@pytest.mark.parametrize("buffer", [2, 7, 64, 512, 5000])
@pytest.mark.parametrize("seed", [0, 3])
def test_picks_are_those_of_the_plain_greedy(buffer, seed):
    X = curved(3000)
    got = k_center_greedy(X, 250, seed=seed, buffer=buffer)
    index, radius = farthest_first(X, 250, got.index[0])
    assert np.array_equal(got.index.numpy(), index)
    np.testing.assert_allclose(got.radius.numpy(), radius, rtol=1e-5)


def test_radius_is_the_covering_radius_of_every_prefix():
    X = curved(800)
    got = k_center_greedy(X, 60)
    for k in (1, 2, 17, 60):
        assert got.radius[k - 1].item() == pytest.approx(covering(X, got.index[:k]), rel=1e-5)
    assert bool((got.radius.diff() <= 0).all())


def test_a_prefix_is_what_a_shorter_run_returns():
    X = curved(1500)
    long = k_center_greedy(X, 200)
    for k in (1, 50, 200):
        short, prefix = k_center_greedy(X, k), long.prefix(k)
        assert torch.equal(short.index, prefix.index) and len(prefix) == k
        torch.testing.assert_close(short.radius, prefix.radius)
    for k in (0, 201):
        with pytest.raises(G100Error, match="1..200"):
            long.prefix(k)


@settings(deadline=None, max_examples=50)
@given(st.integers(4, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_never_more_than_twice_the_optimum(N, n, seed):
    X = torch.randn(N, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 5.0])
    best = min(covering(X, list(c)) for c in combinations(range(N), n))
    got = k_center_greedy(X, n, seed=seed)
    assert covering(X, got.index) <= 2 * best * (1 + 1e-5) + 1e-6
    assert got.radius[-1].item() / 2 <= best * (1 + 1e-4) + 1e-6


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(0, 10**6), st.integers(2, 80), st.data())
def test_grids_full_of_ties_and_duplicates(N, seed, buffer, data):
    n = data.draw(st.integers(1, N))
    X = torch.randint(0, 3, (N, 2), generator=torch.Generator().manual_seed(seed)).float()
    got = k_center_greedy(X, n, seed=seed, buffer=buffer)
    assert len(set(got.index.tolist())) == n
    for k in range(1, n + 1):
        assert got.radius[k - 1].item() == pytest.approx(covering(X, got.index[:k]), abs=2e-3)
        later = cdist(X, X[got.index[:k]]).min(1)
        if k < n:
            assert later[got.index[k]] == pytest.approx(later.max(), abs=2e-3)


def test_all_equal_points():
    got = k_center_greedy(torch.full((300, 4), 7.25), 300)
    assert sorted(got.index.tolist()) == list(range(300))
    assert got.radius.max().item() < 1e-3


def test_every_point_twice():
    half = curved(400)
    X = torch.cat([half, half])
    got = k_center_greedy(X, 800)
    assert sorted(got.index.tolist()) == list(range(800))
    assert {int(i) % 400 for i in got.index[:400]} == set(range(400))
    assert got.radius[-1] == 0 and got.radius[399].item() < 2e-3 * X.norm(dim=1).max().item()


def test_all_points_are_picked_once():
    X = curved(700)
    got = k_center_greedy(X, 700, buffer=100)
    assert sorted(got.index.tolist()) == list(range(700)) and got.radius[-1] == 0


def test_far_from_the_origin():
    X = (curved(2000) * 64).round() / 64
    here, there = k_center_greedy(X, 150), k_center_greedy(X + 1024, 150)
    assert torch.equal(here.index, there.index)
    torch.testing.assert_close(here.radius, there.radius, rtol=1e-4, atol=0)


def test_chunks_do_not_matter(monkeypatch):
    X = curved(2500)
    whole = k_center_greedy(X, 120)
    monkeypatch.setattr(module, "_chunks", lambda N, *_: (slice(i, min(i + 77, N)) for i in range(0, N, 77)))
    parts = k_center_greedy(X, 120)
    assert torch.equal(whole.index, parts.index)
    torch.testing.assert_close(whole.radius, parts.radius, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    X = curved(900).to(dtype)
    got = k_center_greedy(X, 40)
    assert torch.equal(got.index, k_center_greedy(X.double(), 40).index)


def test_input_is_neither_changed_nor_required_to_be_contiguous():
    X = curved(600)
    before = X.clone()
    assert torch.equal(k_center_greedy(X.T.contiguous().T, 30).index, k_center_greedy(X.numpy(), 30).index)
    assert torch.equal(X, before)


def test_seed():
    X = curved(500)
    assert torch.equal(k_center_greedy(X, 20, seed=5).index, k_center_greedy(X, 20, seed=5).index)
    assert len({int(k_center_greedy(X, 1, seed=s).index[0]) for s in range(20)}) > 10


@pytest.mark.parametrize("n", [0, -1, 11])
def test_impossible_numbers_of_centres(n):
    with pytest.raises(G100Error, match=r"1\.\.10"):
        k_center_greedy(torch.randn(10, 3), n)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_inf(bad):
    X = torch.randn(50, 3)
    X[20, 1] = bad
    with pytest.raises(G100Error, match="NaN or Inf"):
        k_center_greedy(X, 5)


@pytest.mark.parametrize("X", [torch.zeros(0, 3), torch.zeros(3, 0), torch.zeros(3), torch.zeros(3, 3).int()])
def test_wrong_shapes_and_types(X):
    with pytest.raises(G100Error, match="float matrix"):
        k_center_greedy(X, 1)
    with pytest.raises(G100Error, match="float matrix"):
        project(X, 1)


def test_projection_keeps_distances_as_chi_square_predicts():
    X = curved(300, D=200)
    ratio = torch.pdist(project(X, 256, seed=1).double()).square() / torch.pdist(X.double()).square()
    assert abs(ratio.mean().item() - 1) < 0.05
    step = (X[0] - X[1])[None] / (X[0] - X[1]).norm()
    spread = np.mean([(project(step, 64, seed=s).square().sum().item() - 1) ** 2 for s in range(400)])
    assert spread == pytest.approx(2 / 64, rel=0.25)


def test_projection_is_seeded_linear_and_keeps_the_dtype():
    X = curved(100)
    assert torch.equal(project(X, 8, seed=1), project(X, 8, seed=1))
    assert not torch.allclose(project(X, 8, seed=1), project(X, 8, seed=2))
    torch.testing.assert_close(project(2 * X, 8), 2 * project(X, 8))
    assert project(X.half(), 8).dtype == torch.float32 and project(X, 8).shape == (100, 8)
    with pytest.raises(G100Error, match="dim=0"):
        project(X, 0)


# --- merge and reduce ---


def pieces(X, blocks, k):
    return [Summary(X[b], (torch.as_tensor(b),)).reduced(min(k, len(b))) for b in blocks]


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 10), st.integers(1, 3), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_merged_and_reduced_within_the_certificate_and_four_times_the_optimum(N, n, m, seed, sorted_by_place):
    "The theorem of merge and reduce against brute force over all centres that are points, in float64."
    g = torch.Generator().manual_seed(seed)
    X = (torch.randn(N, 2, generator=g) * torch.tensor([1.0, 5.0])).double()
    order = X[:, 1].argsort() if sorted_by_place else torch.randperm(N, generator=g)
    got = merged(pieces(X, [b.numpy() for b in order.chunk(m)], n)).reduced(n, seed=seed)
    best = min(covering(X, list(c)) for c in combinations(range(N), n))
    assert covering(X, got.along[0]) <= got.radius + 1e-12
    assert got.radius <= 4 * best * (1 + 1e-9) + 1e-5
    assert torch.equal(X[got.along[0]], got.points)


@settings(deadline=None, max_examples=30)
@given(st.integers(20, 200), st.integers(1, 4), st.floats(0, 1000), st.integers(0, 10**6))
def test_the_certificate_holds_through_a_cascade_in_float32_with_duplicates(N, levels, offset, seed):
    X = (curved(N, D=8, seed=seed) + offset)[torch.randint(N, (2 * N,), generator=torch.Generator().manual_seed(seed))]
    parts, n = [Summary(x, (tag,)) for x, tag in zip(X.split(40), torch.arange(2 * N).split(40), strict=True)], 20
    for _ in range(levels):
        parts = [part.reduced(min(n, len(part)), seed=seed) for part in parts]
        parts, n = [merged(parts[i : i + 2]) for i in range(0, len(parts), 2)], max(2, n - 3)
    got = merged(parts)
    assert covering(X, got.along[0]) <= got.radius


def test_one_block_is_the_greedy_and_what_goes_along_stays_with_its_point():
    X = curved(600)
    one, same = Summary(X, (torch.arange(600), X.double())).reduced(50, seed=3), k_center_greedy(X, 50, seed=3)
    assert torch.equal(one.along[0], same.index) and torch.equal(one.points, X[same.index]) and len(one) == 50
    assert torch.equal(one.along[1], one.points.double())
    assert one.radius == pytest.approx(float(same.radius[-1]), rel=1e-3) and one.radius >= float(same.radius[-1])
    alone = merged([one])
    assert alone.radius == one.radius and torch.equal(alone.points, one.points)


def test_merging_takes_the_larger_radius_and_reducing_adds():
    X = curved(300)
    a, b = Summary(X[:200]).reduced(5), Summary(X[200:]).reduced(50)
    both = merged([a, b])
    assert both.radius == max(a.radius, b.radius) and both.along == ()
    assert both.reduced(7).radius == pytest.approx(both.radius + float(k_center_greedy(both.points, 7).radius[-1]), rel=1e-3)


def test_the_greedy_goes_on_from_centres_that_are_there():
    "As the rest of a run that has picked them itself; and against the definition for centres from elsewhere."
    X = curved(1200)
    whole = k_center_greedy(X, 100)
    gap = torch.cdist(X, X[whole.index[:40]], compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    rest = k_center_greedy(X, 60, gap=gap)
    assert torch.equal(rest.index, whole.index[40:])
    torch.testing.assert_close(rest.radius, whole.radius[40:], rtol=1e-4, atol=0)
    others = curved(50, seed=1) + 3
    gap = torch.from_numpy(cdist(X, others).min(1)).float()
    got = k_center_greedy(X, 9, gap=gap)
    assert got.index[0] == gap.argmax() and torch.equal(gap, torch.from_numpy(cdist(X, others).min(1)).float())
    for k in (1, 9):
        truth = cdist(X, torch.cat([others, X[got.index[:k]]])).min(1).max()
        assert got.radius[k - 1].item() == pytest.approx(truth, rel=1e-4)
