"""Certified eigenpairs by Lanczos with thick restarts (Wu & Simon 2000; Krylov–Schur form, Stewart 2001).

The residual of every Ritz pair with respect to the products as computed is known after each product, for
nothing, so the search stops at the first product at which all wanted pairs have converged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from landscape.linalg.lanczos import Krylov, combine, rounding_unit, tridiagonalise
from landscape.linalg.operator import Operator

__all__ = [
    "Pairs",
    "Which",
    "basis_size",
    "eigenpairs",
    "has_converged",
    "ritz_pairs",
    "select",
    "wanted_count",
]

Which = Literal["largest", "smallest", "both", "magnitude"]


@dataclass(frozen=True)
class Pairs:
    """Ritz pairs, values algebraically descending.

    Attributes:
        values: (m,) float64.
        residuals: (m,) ‖Hy − θy‖ for the products as computed.
        coordinates: (m, m), column i the pair's vector in the basis.
        among: all the pairs that these were selected from.
    """

    values: np.ndarray
    residuals: np.ndarray
    coordinates: np.ndarray
    among: Pairs | None = None

    def __getitem__(self, indices: np.ndarray) -> Pairs:
        return Pairs(self.values[indices], self.residuals[indices], self.coordinates[:, indices], self)

    def vectors(self, basis: Tensor) -> Tensor:
        """The Ritz vectors as rows, (pairs, n) float64."""
        weights = torch.from_numpy(self.coordinates.T.copy()).to(basis.device)
        return combine(weights, basis[: weights.shape[1]])


def ritz_pairs(krylov: Krylov) -> Pairs:
    """All Ritz pairs of a decomposition with at least one step.

    The small matrices are torch's work, too: NumPy's own pool of threads would spin against torch's.
    """
    projected = torch.from_numpy(krylov.projected)
    values, coordinates = torch.linalg.eigh((projected + projected.T) / 2)
    values, coordinates = values.flip(0), coordinates.flip(1)
    relation = torch.from_numpy(krylov.relation) @ coordinates
    relation[:-1] -= coordinates * values
    residuals = torch.linalg.vector_norm(relation, dim=0)
    return Pairs(values.numpy(), residuals.numpy(), coordinates.numpy())


def wanted_count(k: int, which: Which, size: int) -> int:
    """How many pairs are asked for in a space of ``size`` dimensions (``both``: k from each end)."""
    return min(size, 2 * k if which == "both" else k)


def select(values: np.ndarray, k: int, which: Which) -> np.ndarray:
    """Indices, ascending, of the wanted ones among descending ``values``."""
    m = len(values)
    if m <= wanted_count(k, which, m):
        return np.arange(m)
    if which == "largest":
        return np.arange(k)
    if which == "smallest":
        return np.arange(m - k, m)
    if which == "both":
        return np.concatenate([np.arange(k), np.arange(m - k, m)])
    return np.sort(np.argsort(-np.abs(values), kind="stable")[:k])


def has_converged(values: np.ndarray, residuals: np.ndarray, tol: float, floor: float) -> np.ndarray:
    """Residual ≤ max(tol·|θ|, floor), for each pair."""
    converged: np.ndarray = residuals <= np.maximum(tol * np.abs(values), floor)
    return converged


def basis_size(k: int, which: Which, size: int, bytes_available: int, itemsize: int) -> int:
    """How many vectors the basis may hold before a restart: all that memory allows, up to 256 beyond 3k + 10.

    Restarts only cost products, so the basis is as long as it can be; beyond a few hundred vectors the
    orthogonalisation would cost more than they save.
    """
    needed = 3 * wanted_count(k, which, size) + 10
    affordable = bytes_available // max(1, size * itemsize)
    return min(size, max(needed, min(affordable, needed + 256)))


def restart(krylov: Krylov, k: int, which: Which) -> None:
    """Truncate, in place, to an invariant subspace of QᵀHQ that holds the wanted Ritz vectors and a few more.

    The subspace is spanned by Schur vectors of the matrix as computed, not of its symmetric part, so
    H Q = Q₊ H̄ stays exact although noise makes it unsymmetric. Each restart adds its rounding to what is
    lost, as independent errors add.
    """
    m = krylov.steps
    wanted = wanted_count(k, which, m)
    # Noise can pair eigenvalues up as complex ones, which stay or go together: one more than asked may stay.
    keep = min(m - 2, wanted + (m - wanted) // 2)
    schur, rotation = scipy.linalg.schur(krylov.projected)
    descending = np.argsort(-np.diag(schur), kind="stable")
    kept = select(np.diag(schur)[descending], keep // 2 if which == "both" else keep, which)
    chosen = np.zeros(m, dtype=np.int32)
    chosen[descending[kept]] = 1
    schur, rotation, *_, size, _, _, info = scipy.linalg.lapack.dtrsen(chosen, schur, rotation, job=b"N")
    if info != 0:
        raise ArithmeticError(f"LAPACK dtrsen could not reorder the Schur form (info {info})")
    size = int(size)
    leading = rotation[:, :size]
    last = krylov.coefficients[m, :m] @ leading
    # Whatever takes memory comes first: if it runs out here, nothing has been changed.
    rows = combine(torch.from_numpy(leading.T.copy()).to(krylov.basis.device), krylov.basis[:m])
    following = krylov.basis[m].clone()
    rounding = krylov.scale * rounding_unit(krylov.basis.dtype, m)
    krylov.lost[:size] = np.sqrt(krylov.lost[:m] ** 2 @ leading**2 + rounding**2)
    krylov.lost[size:] = 0.0
    krylov.coefficients[:] = 0.0
    krylov.coefficients[:size, :size] = schur[:size, :size]
    krylov.coefficients[size, :size] = last
    krylov.basis[:size], krylov.basis[size] = rows, following
    krylov.steps = size


def eigenpairs(
    operator: Operator,
    krylov: Krylov,
    *,
    k: int,
    which: Which,
    tol: float,
    floor: Callable[[Krylov], float],
    fresh: Callable[[int], Tensor],
) -> Iterator[tuple[Krylov, Pairs, bool]]:
    """Search for the wanted pairs, restarting when the basis is full.

    Yields, after each product, the decomposition, the wanted pairs as they stand, and whether the search is
    over: all converged, or the whole space spanned. The caller limits the number of products.

    Args:
        floor: what a product can be wrong by, asked for at each step.
        fresh: the i-th random vector (n,), for invariant subspaces.

    Raises:
        ValueError: the basis is shorter than the space and has no room for two vectors more than wanted.
    """
    needed = wanted_count(k, which, operator.size)
    if krylov.capacity < min(operator.size, needed + 2):
        raise ValueError(f"a basis of {krylov.capacity} vectors is too short for {needed} pairs")
    if krylov.steps == krylov.capacity and not krylov.exhausted:
        restart(krylov, k, which)
    for state in tridiagonalise(operator, krylov, fresh):
        every = ritz_pairs(state)
        pairs = every[select(every.values, k, which)]
        converged = has_converged(pairs.values, pairs.residuals, tol, floor(state))
        done = len(pairs.values) == needed and bool(converged.all())
        yield state, pairs, done or state.exhausted
        if done or state.exhausted:
            return
        if state.steps == state.capacity:
            restart(state, k, which)
