"""Nearest neighbours against scikit-learn and against float64."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from g100.algorithms import neighbors as module
from g100.algorithms.neighbors import Neighbors
from g100.foundations.errors import G100Error


@pytest.fixture(autouse=True, params=["float32", "bfloat16"])
def products(request, monkeypatch):
    "Everything holds with products in float32 and, on any machine, in bfloat16."
    monkeypatch.setattr(module, "_matrix_units", lambda device: request.param == "bfloat16")
    return request.param


def reference(bank, Z, k=1):
    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.asarray(bank, np.float64))
    return found.kneighbors(np.asarray(Z, np.float64))


def cloud(N, D=32, seed=0):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("M", [1, 2, 31, 32, 33, 500, 3276])
@pytest.mark.parametrize("n", [1, 300])
def test_as_scikit_learn(M, n):
    bank, Z = cloud(M), cloud(n, seed=1)
    distance, index = Neighbors(bank).nearest(Z)
    d, i = reference(bank, Z)
    np.testing.assert_allclose(distance, d[:, 0], rtol=1e-5)
    assert np.array_equal(index, i[:, 0])


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 120), st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.data())
def test_k_neighbours_as_scikit_learn(M, n, D, seed, data):
    k = data.draw(st.integers(1, M))
    bank, Z = cloud(M, D, seed), cloud(n, D, seed + 1)
    distances, indices = Neighbors(bank).kneighbors(Z, k)
    d, i = reference(bank, Z, k)
    assert distances.shape == indices.shape == (n, k)
    np.testing.assert_allclose(distances, d, rtol=1e-4, atol=1e-6)
    assert bool((distances.diff(dim=1) >= 0).all())
    assert all(len(set(row)) == k for row in indices.tolist())
    pairs = np.linalg.norm(Z.double().numpy()[:, None] - bank.double().numpy()[indices], axis=2)
    np.testing.assert_allclose(pairs, distances, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
def test_a_bank_vector_has_distance_zero_to_itself(offset):
    bank = cloud(700) + offset
    near = Neighbors(bank)
    distance, index = near.nearest(bank)
    assert bool((distance == 0).all()) and torch.equal(index, torch.arange(700))
    assert bool((near.kneighbors(bank, 3)[0][:, 0] == 0).all())


def test_near_twins_that_the_product_cannot_tell_apart():
    bank = cloud(300) + 100
    bank[150:] = bank[:150] + 1e-3 * cloud(150, seed=2)
    Z = bank + 2e-4 * cloud(300, seed=3)
    distance, index = Neighbors(bank).nearest(Z)
    d, i = reference(bank, Z)
    truth = np.square(Z.double().numpy()[:, None] - bank.double().numpy()).sum(2) ** 0.5
    np.testing.assert_allclose(distance, truth.min(1), rtol=1e-5)
    assert np.array_equal(index, truth.argmin(1))
    naive = Z.square().sum(1)[:, None] + bank.square().sum(1) - 2 * Z @ bank.T
    assert not np.allclose(naive.clamp(min=0).sqrt().amin(1), truth.min(1), rtol=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("longest", [30, 1e5])
def test_the_error_bound_holds_for_every_pair(dtype, offset, longest, products):
    bank = cloud(400).to(dtype) * torch.logspace(-2, np.log10(longest), 400)[:, None].to(dtype) + offset
    Z = (cloud(200, seed=1) + offset).to(dtype)
    near = Neighbors(bank)
    for z, S, norm, lost in module._blocks(Z, near.centre, near.table):
        assert (S.dtype == torch.bfloat16) == (products == "bfloat16" and dtype == torch.float32)
        m, q, centre = (np.asarray(v, np.longdouble) for v in (near.bank, z, near.centre))
        truth = np.square(q[:, None] - m).sum(2) / 2 - np.square(q - centre).sum(1)[:, None] / 2
        S = np.asarray(S[:, :400].double(), np.longdouble)
        rounding = 1.01 * 2.0**-8 * np.abs(S) if near.table.dtype == torch.bfloat16 else 0
        length = torch.as_tensor(np.linalg.norm((m - centre).astype(np.float64), axis=1), dtype=dtype)
        bound = module._error(norm[:, None], lost[:, None], length, *near.bounds[1:])
        assert (np.abs(S - truth) - rounding <= np.asarray(bound, np.longdouble)).all()


def pairs_looked_at(monkeypatch, ask) -> int:
    "How many pairs of a query and a bank vector are computed directly."
    seen, direct = [], module._distances
    with monkeypatch.context() as patch:
        patch.setattr(module, "_distances", lambda Z, bank, row, column: seen.append(len(row)) or direct(Z, bank, row, column))
        ask()
    return sum(seen)


@pytest.mark.parametrize("times", [1e3, 1e5, -1e8])
@pytest.mark.parametrize("which", [0, 999, slice(0, 1000, 5)])
def test_long_vectors_cost_nothing(monkeypatch, times, which):
    "As many pairs are looked at as without them, nearly; with their length in the bound, all million would be."
    bank, Z = cloud(1000) + 3, cloud(1000, seed=1) + 3
    spoilt = bank.clone()
    spoilt[which] *= times
    few, k_few = (pairs_looked_at(monkeypatch, ask) for ask in asks(Neighbors(bank), Z))
    found, k_found = (pairs_looked_at(monkeypatch, ask) for ask in asks(Neighbors(spoilt), Z))
    assert found < 3 * few and k_found < 3 * k_few
    d, i = reference(spoilt, Z, 5)
    distance, index = Neighbors(spoilt).nearest(Z)
    np.testing.assert_allclose(distance, d[:, 0], rtol=1e-5)
    assert np.array_equal(index, i[:, 0]) and np.array_equal(Neighbors(spoilt).kneighbors(Z, 5)[1], i)


def asks(near, Z):
    return lambda: near.nearest(Z), lambda: near.kneighbors(Z, 5)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(0, 6), st.data())
def test_vectors_of_all_lengths(seed, M, powers, data):
    "Lengths from 10^-p to 10^p in the bank and among the queries: whoever matters is never left out."
    g = torch.Generator().manual_seed(seed)
    length = [10 ** (powers * (2 * torch.rand(n, 1, generator=g) - 1)) for n in (M, 80)]
    bank, Z = cloud(M, 8, seed) * length[0], cloud(80, 8, seed + 1) * length[1]
    Z[:20] = bank[torch.randint(M, (20,), generator=g)] * (1 + 1e-3 * torch.randn(20, 1, generator=g))
    k = data.draw(st.integers(1, M))
    truth = np.linalg.norm(Z.double().numpy()[:, None] - bank.double().numpy(), axis=2)
    np.testing.assert_allclose(Neighbors(bank).nearest(Z)[0], truth.min(1), rtol=1e-5)
    np.testing.assert_allclose(Neighbors(bank).kneighbors(Z, k)[0], np.sort(truth)[:, :k], rtol=1e-5)


def test_duplicates_give_the_first():
    bank = torch.cat([cloud(5)] * 40)
    distance, index = Neighbors(bank).nearest(cloud(5))
    assert bool((distance == 0).all()) and index.tolist() == [0, 1, 2, 3, 4]
    distances, indices = Neighbors(torch.ones(100, 3)).kneighbors(torch.ones(4, 3), 100)
    assert bool((distances == 0).all()) and sorted(indices[0].tolist()) == list(range(100))


@pytest.mark.parametrize("budget", [1, 2**16, 2**20, 2**30])
def test_chunks_do_not_matter(monkeypatch, budget):
    bank, Z = cloud(900), cloud(1000, seed=1)
    whole = Neighbors(bank).nearest(Z)
    monkeypatch.setitem(module._BLOCK, "cpu", budget)
    parts = Neighbors(bank).nearest(Z)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_scaling_scales_distances():
    bank, Z = cloud(200), cloud(50, seed=1)
    torch.testing.assert_close(Neighbors(8 * bank).nearest(8 * Z)[0], 8 * Neighbors(bank).nearest(Z)[0])


def test_coarse_products_are_switched_off_and_back():
    bank = cloud(600) + 10
    Z = bank + 1e-2 * cloud(600, seed=1)
    expected = Neighbors(bank).nearest(Z)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = Neighbors(bank).nearest(Z)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_types():
    bank, Z = cloud(64), cloud(10, seed=1)
    expected = Neighbors(bank).nearest(Z)
    for b, z in ((bank.numpy(), Z.numpy()), (bank, Z.double()), (bank.double(), Z)):
        distance, index = Neighbors(b).nearest(z)
        assert torch.equal(index, expected[1])
        torch.testing.assert_close(distance.float(), expected[0])
    half = Neighbors(bank.half())
    assert half.nearest(Z)[0].dtype == torch.float32 and len(half) == 64


def test_no_queries():
    near = Neighbors(cloud(50))
    assert [tuple(v.shape) for v in near.nearest(torch.zeros(0, 32))] == [(0,), (0,)]
    assert [tuple(v.shape) for v in near.kneighbors(torch.zeros(0, 32), 3)] == [(0, 3), (0, 3)]


@pytest.mark.parametrize("k", [0, -1, 51])
def test_impossible_k(k):
    with pytest.raises(G100Error, match=r"1\.\.50"):
        Neighbors(cloud(50)).kneighbors(cloud(2), k)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_inf(bad):
    X = cloud(5)
    X[2, 3] = bad
    with pytest.raises(G100Error, match="bank holds NaN or Inf"):
        Neighbors(X)
    with pytest.raises(G100Error, match="Z holds NaN or Inf"):
        Neighbors(cloud(5)).nearest(X)


def test_wrong_shapes():
    with pytest.raises(G100Error, match="empty"):
        Neighbors(torch.zeros(0, 3))
    with pytest.raises(G100Error, match="bank must be a float matrix"):
        Neighbors(torch.zeros(3))
    with pytest.raises(G100Error, match=r"\(N, 32\), as wide as the bank"):
        Neighbors(cloud(5)).nearest(torch.zeros(4, 31))


def flat_cloud(N, D=128, seed=0, rank=12):
    "Vectors that hardly leave a subspace, as features do."
    g = torch.Generator().manual_seed(99)
    return cloud(N, rank, seed) @ torch.randn(rank, D, generator=g) + 0.3 * cloud(N, D, seed + 50)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_a_shorter_product_finds_the_same(offset, products):
    bank, Z = flat_cloud(3000) + offset, torch.cat([flat_cloud(900, seed=1), 40 * cloud(30, 128, 2)]) + offset
    Z[:50] = bank[100:150]
    bank[2000:2010] = bank[100:110]  # twins: the first is named
    near = Neighbors(bank)
    assert (near.short is None) == (products == "bfloat16")
    distance, index = near.nearest(Z)
    d, i = reference(bank, Z)
    np.testing.assert_allclose(distance[50:], d[50:, 0], rtol=1e-5)
    assert np.array_equal(index[50:], i[50:, 0]) and index[:50].tolist() == list(range(100, 150))
    assert bool((distance[:50] == 0).all())


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.floats(-4, 4), st.floats(0, 5), st.integers(1, 60))
def test_bounds_of_a_shorter_product_are_bounds(seed, power, longest, rank):
    "Whatever lengths and directions: no lower bound lies above the true value by more than the error that is allowed for."
    scale = 10.0**power * 10 ** (longest * torch.rand(1500, 1, generator=torch.Generator().manual_seed(seed)))
    bank, Z = flat_cloud(1500, seed=seed, rank=rank) * scale, flat_cloud(100, seed=seed + 1, rank=rank) * 10.0**power
    centre = bank.median(0).values
    short = module._shortened(bank - centre)
    if short is None:
        return
    near = Neighbors(bank)
    for z, S, norm, _ in module._blocks(Z, centre, short.table, short.left):
        m, q, c = (np.asarray(v, np.longdouble) for v in (bank, z, centre))
        truth = np.square(q[:, None] - m).sum(2) / 2 - np.square(q - c).sum(1)[:, None] / 2
        length = torch.as_tensor(np.linalg.norm((m - c).astype(np.float64), axis=1), dtype=torch.float32)
        slack = module._slack(bank.shape[1], bank.dtype)
        bound = module._error(norm[:, None], torch.zeros(len(z), 1), length, 3 * short.theta, slack)
        assert (np.asarray(S[:, :1500], np.longdouble) - truth <= np.asarray(bound, np.longdouble)).all()
    d = np.linalg.norm(Z.double().numpy()[:, None] - bank.double().numpy(), axis=2).min(1)
    np.testing.assert_allclose(near.nearest(Z)[0], d, rtol=1e-5)


def test_where_nothing_is_near_the_whole_product_is_taken():
    bank = flat_cloud(2000)
    far = 1e3 * cloud(3000, 128, seed=3)
    near = Neighbors(bank)
    d, i = reference(bank, far)
    distance, index = near.nearest(far)
    np.testing.assert_allclose(distance, d[:, 0], rtol=1e-5)
    assert (index.numpy() == i[:, 0]).mean() > 0.99
