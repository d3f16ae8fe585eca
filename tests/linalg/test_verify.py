"""The second look: what it costs, when it ends, what it finds that a search cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape.linalg.operator import MatrixOperator
from landscape.linalg.probes import gaussian
from landscape.linalg.verify import Locked, verify
from tests.support.search import find
from tests.support.spectra import NoisyOperator, digits_like, rotated


class _Counting(MatrixOperator):
    """Counts its products."""

    products = 0

    def apply(self, vectors: Tensor) -> Tensor:
        self.products += len(vectors)
        return super().apply(vectors)


def _verify(operator: MatrixOperator, locked: Locked, k: int, steps: int = 10, at_most: int = 500, **options):  # type: ignore[no-untyped-def]
    settings = {"which": "largest", "tol": 1e-5, "floor": 1e-13, **options}
    for state, done in verify(
        operator,
        locked,
        k=k,
        steps=steps,
        start=lambda search, i: gaussian(operator.size, 5, search, i),
        **settings,
    ):
        yield state, done
        if done or state.products >= at_most:
            return


def _vectors(matrix: Tensor, indices: list[int]) -> Tensor:
    """Exact eigenvectors by rank, largest first."""
    return torch.linalg.eigh(matrix).eigenvectors.flip(1).T[indices].contiguous()


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_nothing_missed_costs_what_was_asked_for(steps: int) -> None:
    matrix = rotated(digits_like(100, 0), 0)
    operator = _Counting(matrix)
    locked = Locked.measure(operator, _vectors(matrix, [0, 1, 2]))
    states = list(_verify(operator, locked, 3, steps))
    assert operator.products == 3 + steps
    assert [state.products for state, _ in states] == list(range(4, 4 + steps))
    assert [done for _, done in states] == [False] * (steps - 1) + [True]
    assert states[-1][0].searched == 1
    assert torch.equal(states[-1][0].vectors, locked.vectors)


@pytest.mark.parametrize("missing", [[0], [1], [0, 2]])
def test_missed_pairs_are_found_and_measured(missing: list[int]) -> None:
    """Every product is counted, one by one; every reported residual is that of the vector itself."""
    matrix = rotated(digits_like(100, 0), 0)
    operator = _Counting(matrix)
    kept = [i for i in range(4 + len(missing)) if i not in missing]
    locked = Locked.measure(operator, _vectors(matrix, kept))
    counts = []
    for state, done in _verify(operator, locked, 4):  # noqa: B007
        counts.append(state.products)
        assert state.products == operator.products
    assert done
    assert np.diff([4, *counts]).max() == 1
    np.testing.assert_allclose(state.values, digits_like(100, 0)[:4], rtol=1e-8)
    images = state.vectors @ matrix
    assert torch.allclose(images, state.images, atol=1e-12)
    exact = torch.linalg.vector_norm(images - torch.from_numpy(state.values)[:, None] * state.vectors, dim=1)
    np.testing.assert_allclose(state.residuals, exact, atol=1e-13)


def test_too_few_pairs_are_made_up() -> None:
    matrix = rotated(digits_like(60, 0), 0)
    operator = MatrixOperator(matrix)
    for state, done in _verify(operator, Locked.measure(operator, _vectors(matrix, [2])), 5):  # noqa: B007
        pass
    assert done
    np.testing.assert_allclose(state.values, digits_like(60, 0)[:5], rtol=1e-8)


@pytest.mark.parametrize("size", [1, 3])
def test_the_whole_space_needs_no_search(size: int) -> None:
    operator = _Counting(rotated(np.arange(1.0, size + 1), 0))
    locked = Locked.measure(operator, torch.eye(size, dtype=torch.float64))
    np.testing.assert_allclose(locked.values, np.arange(size, 0.0, -1.0), rtol=1e-12)
    assert [done for _, done in _verify(operator, locked, 5)] == [True]
    assert operator.products == size


def test_it_ends_under_noise() -> None:
    """What cannot converge is not searched for ever: it ends when nothing gets better."""
    matrix = rotated(digits_like(80, 0), 0)
    operator = NoisyOperator(matrix, 0.05, 3)
    locked = Locked.measure(operator, _vectors(matrix, [0, 2, 3]))
    states = list(_verify(operator, locked, 3, tol=1e-9, floor=1e-9, at_most=5000))
    assert states[-1][1]
    assert states[-1][0].products < 1000
    np.testing.assert_allclose(states[-1][0].values, digits_like(80, 0)[:3], atol=0.2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_it_goes_on_from_the_pairs_of_the_last_search(dtype: torch.dtype) -> None:
    """Bit for bit, as a run does that was killed."""
    matrix = rotated(np.array([5.0, 4.0, 4.0, 4.0, 3.0, *np.linspace(1, -1, 30)]), 0)
    operator = MatrixOperator(matrix, dtype)
    locked = Locked.measure(operator, _vectors(matrix, [0, 1, 4]))
    states = list(_verify(operator, locked, 4, floor=1e-6))
    assert states[-1][0].searched > 1
    middle = next(state for state, _ in states if state.searched == 1)
    *_, (resumed, done) = _verify(operator, middle, 4, floor=1e-6)
    assert done
    for name in ("vectors", "images"):
        assert torch.equal(getattr(resumed, name), getattr(states[-1][0], name))
    for name in ("values", "residuals", "products", "searched"):
        assert np.array_equal(getattr(resumed, name), getattr(states[-1][0], name))


def test_a_start_without_the_top_eigenvector_is_found_out() -> None:
    """Exactly what a single Krylov space can never see."""
    eigenvalues = digits_like(60, 0)
    matrix = rotated(eigenvalues, 0)
    top = _vectors(matrix, [0])[0]
    start = gaussian(60, 1)
    start -= (start @ top) * top
    operator = MatrixOperator(matrix)
    assert find(operator, 2, start=start).values[0] < eigenvalues[0] - 0.1
    np.testing.assert_allclose(find(operator, 2, start=start, check=8).values, eigenvalues[:2], rtol=1e-5)


def test_nothing_of_the_callers_is_changed() -> None:
    matrix = rotated(np.array([2.0, 2.0, *np.linspace(1, 0, 20)]), 0)
    operator, given = MatrixOperator(matrix), {}

    def start(search: int, i: int) -> Tensor:
        return given.setdefault((search, i), gaussian(22, search, i))

    vectors = _vectors(matrix, [0, 2])
    locked = Locked.measure(operator, vectors)
    before = [t.clone() for t in (matrix, vectors, locked.vectors, locked.images)]
    for state, done in verify(  # noqa: B007
        operator, locked, k=2, which="largest", steps=5, tol=1e-6, floor=1e-13, start=start
    ):
        if done:
            break
    assert state.searched > 1
    for tensor, copied in zip((matrix, vectors, locked.vectors, locked.images), before, strict=True):
        assert torch.equal(tensor, copied)
    for (search, i), vector in given.items():
        assert torch.equal(vector, gaussian(22, search, i))
