"""Searches that begin from another matrix's eigenvectors: as right as others, and shorter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape.linalg.eigenpairs import Which, select
from landscape.linalg.operator import MatrixOperator, norm
from landscape.linalg.probes import gaussian
from landscape.linalg.warm import random_length, warm_vector, weights
from tests.support.search import Found, check_claims, find
from tests.support.spectra import digits_like, rotated

SIZE, K = 300, 5
OUTLIERS = np.array([2.9, 2.5, 2.2, 1.6, 1.03])
SPECTRUM = np.sort(digits_like(SIZE, seed=0))[::-1]


def eigenvectors(matrix: Tensor, k: int = K, which: Which = "largest") -> Tensor:
    """The wanted exact eigenvectors as rows, in the order of descending eigenvalues."""
    values, columns = torch.linalg.eigh(matrix)
    rows = columns.T.flip(0)
    return rows[torch.from_numpy(select(values.flip(0).numpy(), k, which))].contiguous()


def from_rows(
    matrix: Tensor, rows: Tensor, which: Which = "largest", *, seed: int = 0, check: int = 0
) -> Found:
    start = warm_vector(rows, gaussian(len(matrix), seed, "warm"), which, 1e-3)
    return find(MatrixOperator(matrix), K, which, start=start, check=check)


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_exact_eigenvectors_leave_little_to_do(which: Which) -> None:
    """A product for each, and what it takes to filter the random part."""
    bulk = 0.02 * np.random.default_rng(0).standard_normal(SIZE).clip(-3, 3)
    ends = {"largest": [OUTLIERS], "smallest": [-OUTLIERS], "both": [OUTLIERS, -2 * OUTLIERS]}[which]
    spectrum = np.sort(np.concatenate([*ends, bulk]))[::-1]
    matrix = rotated(spectrum, seed=3)
    rows = eigenvectors(matrix, which=which)
    warm, cold = from_rows(matrix, rows, which), find(MatrixOperator(matrix), K, which)
    check_claims(warm, matrix, spectrum, 1e-3)
    np.testing.assert_allclose(warm.values, spectrum[select(spectrum, K, which)], rtol=1e-5)
    assert warm.products <= len(rows) + 3
    assert warm.products < cold.products


def test_nothing_but_known_eigenvectors_is_found_in_as_many_products_plus_one() -> None:
    """Of rank k: the space of the start is invariant after k products, one more for the random part."""
    spectrum = np.concatenate([[3.0, 2.5, 1.4, 1.1, 0.7], np.zeros(SIZE - K)])
    matrix = rotated(spectrum, seed=1)
    found = from_rows(matrix, eigenvectors(matrix))
    assert found.products <= K + 1
    np.testing.assert_allclose(found.values, spectrum[:K], rtol=1e-5)


def test_a_neighbour_is_found_sooner_and_as_well() -> None:
    rows = eigenvectors(rotated(SPECTRUM, seed=2))
    change = rotated(np.linspace(-0.1, 0.1, SIZE), seed=9)
    matrix = rotated(SPECTRUM, seed=2) + change
    exact = torch.linalg.eigvalsh(matrix).flip(0).numpy()
    cold = [find(MatrixOperator(matrix), K, seed=seed) for seed in range(4)]
    warm = [from_rows(matrix, rows, seed=seed) for seed in range(4)]
    for found in warm:
        check_claims(found, matrix, exact, 1e-3)
        np.testing.assert_allclose(found.values, exact[:K], rtol=1e-5)
    assert sum(found.products for found in warm) <= 0.85 * sum(found.products for found in cold)


@pytest.mark.parametrize("place", [0, K - 1], ids=["a new largest one", "the last of the wanted"])
def test_what_the_known_ones_know_nothing_of_is_found(place: int) -> None:
    """Without its random part the start would lie in an invariant subspace that does not hold it."""
    matrix = rotated(SPECTRUM, seed=4)
    every = eigenvectors(matrix, K + 1)
    rows = every[[i for i in range(K + 1) if i != place]]
    known = torch.from_numpy(weights(K, "largest")) @ rows
    blind = find(MatrixOperator(matrix), K, start=known)
    assert np.abs(blind.values - SPECTRUM[place]).min() > 0.05
    for seed in range(5):
        found = from_rows(matrix, rows, seed=seed)
        np.testing.assert_allclose(found.values, SPECTRUM[:K], rtol=1e-5)


def test_verification_finds_what_a_warm_start_cannot() -> None:
    """A Krylov space sees one vector of each eigenspace, whatever it begins from."""
    spectrum = np.sort(np.concatenate([[SPECTRUM[0]] * 2, SPECTRUM]))[::-1]
    matrix = rotated(spectrum, seed=5)
    rows = eigenvectors(matrix, K + 2)[[0, 3, 4, 5, 6]]
    once = from_rows(matrix, rows)
    assert np.sum(np.isclose(once.values, spectrum[0], rtol=1e-3)) == 1
    found = from_rows(matrix, rows, check=10)
    np.testing.assert_allclose(found.values, spectrum[:K], rtol=1e-5)


def test_the_last_of_the_wanted_weighs_most() -> None:
    assert weights(4, "largest").tolist() == [1, 2, 3, 4]
    assert weights(4, "smallest").tolist() == [4, 3, 2, 1]
    assert weights(6, "both").tolist() == [1, 2, 3, 3, 2, 1]
    assert weights(3, "magnitude").tolist() == [1, 1, 1]


def test_an_unknown_eigenvector_gets_its_share_of_the_start() -> None:
    """30 times the tolerance of a known one's, at most as much, and never a part too short to matter."""
    n, j = 40_000, 4
    assert random_length(j, n, 1e-3) / n**0.5 == pytest.approx(0.03 / j**0.5)
    assert random_length(j, n, 0.5) / n**0.5 == pytest.approx(1 / j**0.5)
    assert random_length(j, n, 0.0) == 0.1
    rows, random = torch.eye(j, n, dtype=torch.float64), gaussian(n, 0, "random")
    start = warm_vector(rows, random, "magnitude", 1e-3)
    assert norm(start[:j]) == pytest.approx(1, abs=0.1)
    assert norm(start[j:]) == pytest.approx(random_length(j, n, 1e-3), rel=1e-3)


def test_the_length_of_rows_and_their_dtype_do_not_matter() -> None:
    rows, random = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 50))), gaussian(50, 0, "random")
    before = rows.clone(), random.clone()
    start = warm_vector(rows, random)
    lengths = torch.tensor([[1e-12], [3.0], [1e9]], dtype=torch.float64)
    torch.testing.assert_close(warm_vector(rows * lengths, random), start)
    torch.testing.assert_close(warm_vector(rows.float(), 7 * random), start, rtol=1e-6, atol=1e-6)
    assert start.dtype == torch.float64
    torch.testing.assert_close((rows, random), before, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [[[0.0] * 6], [[1.0, 2, 0, 0, 0, 0], [-0.5, -1, 0, 0, 0, 0]]])
def test_rows_that_know_nothing_leave_the_random_part(rows: list[list[float]]) -> None:
    random = gaussian(6, 0, "random")
    start = warm_vector(torch.tensor(rows, dtype=torch.float64), random, "magnitude")
    torch.testing.assert_close(start / norm(start), random / norm(random))
