"""The Lanczos process with full reorthogonalisation, every coefficient kept.

For a symmetric H it builds, one product at a time, an orthonormal basis with

    H Q_m = Q_{m+1} H̄        (Q: rows q_1 … q_{m+1};  H̄: (m+1, m))

In exact arithmetic H̄ is tridiagonal; here all coefficients of the orthogonalisation are kept, so the
relation holds for the products *as computed*, noise included, and ‖H̄s − θs‖ is the residual of the Ritz
pair (θ, Qs) with respect to them. It stays exact through restarts in Krylov–Schur form (Stewart 2001, "A
Krylov–Schur algorithm for large eigenproblems", SIAM J. Matrix Anal. Appl. 23).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.operator import Operator, norm

__all__ = ["Krylov", "combine", "inner", "orthogonalise", "rounding_unit", "tridiagonalise"]

#: Elements converted to float64 at once: small enough for a processor's cache, large enough for a GPU.
_CHUNK = {"cpu": 1 << 17, "cuda": 1 << 25}


def _columns(rows: Tensor) -> Iterator[slice]:
    width = max(1, _CHUNK.get(rows.device.type, 1 << 17) // max(1, rows.shape[0]))
    for first in range(0, rows.shape[1], width):
        yield slice(first, first + width)


def rounding_unit(dtype: torch.dtype, steps: int) -> float:
    """Rounding, relative to ‖H‖, of a relation whose ``steps`` vectors were once rotated or made orthogonal.

    Vectors are stored with half a unit of their ``dtype``; the sums in float64 add √steps of its own units.
    """
    return float(torch.finfo(dtype).eps + 4 * torch.finfo(torch.float64).eps * steps**0.5)


def combine(coefficients: Tensor, rows: Tensor) -> Tensor:
    """``coefficients @ rows`` in float64, without a float64 copy of ``rows`` (m, n)."""
    if rows.dtype == torch.float64:
        return coefficients @ rows
    out = coefficients.new_empty((*coefficients.shape[:-1], rows.shape[1]))
    for part in _columns(rows):
        out[..., part] = coefficients @ rows[:, part].double()
    return out


def inner(vectors: Tensor, rows: Tensor) -> Tensor:
    """``vectors @ rows.T`` (l, m) in float64, for ``vectors`` (l, n) float64 and ``rows`` (m, n)."""
    out = vectors.new_zeros((vectors.shape[0], rows.shape[0]))
    for part in _columns(rows):
        out += vectors[:, part] @ rows[:, part].double().T
    return out


def orthogonalise(vector: Tensor, rows: Tensor) -> Tensor:
    """Remove from ``vector`` (n,) float64, in place, its components along orthonormal ``rows``; return them.

    Classical Gram–Schmidt twice (Giraud et al. 2005: twice is enough). The first coefficients may be taken
    in the rows' own precision, since the second pass, in float64, corrects them; the correction being
    tiny, its own subtraction may again use that precision. So the rows are converted only once.
    """
    first = (rows @ vector.to(rows.dtype)).double()
    second = torch.zeros_like(first)
    for part in _columns(rows):
        block = rows[:, part].double()
        vector[part] -= first @ block
        second += block @ vector[part]
    vector -= second.to(rows.dtype) @ rows
    return first + second


@dataclass
class Krylov:
    """A Krylov–Schur decomposition under construction.

    Attributes:
        basis: (capacity + 1, n), rows orthonormal; the first ``steps + 1`` are in use.
        coefficients: H̄, (capacity + 1, capacity) float64; the first ``steps`` columns are in use.
        steps: number of columns, m.
        exhausted: the basis spans the whole space.
        breakdowns: how many times the space was found invariant and a fresh random vector taken.
        lost: (capacity,) by how much each column of the relation is off: what was dropped from its product
            in an invariant subspace, and the rounding of restarts.
        scale: length of the longest product so far, a lower bound on ‖H‖.
    """

    basis: Tensor
    coefficients: np.ndarray
    lost: np.ndarray
    steps: int = 0
    exhausted: bool = False
    breakdowns: int = 0
    scale: float = 0.0

    @classmethod
    def start(cls, operator: Operator, vector: Tensor, capacity: int) -> Krylov:
        """Begin from ``vector`` (n,), any length but zero."""
        capacity = min(capacity, operator.size)
        # Not zeroed: memory that is never touched is never taken.
        basis = torch.empty((capacity + 1, operator.size), dtype=operator.dtype, device=operator.device)
        vector = vector.to(operator.device, torch.float64)
        basis[0] = vector / norm(vector)
        return cls(basis, np.zeros((capacity + 1, capacity)), np.zeros(capacity))

    @property
    def capacity(self) -> int:
        return int(self.coefficients.shape[1])

    @property
    def projected(self) -> np.ndarray:
        """QᵀHQ as computed, (m, m); symmetric but for the noise of the products."""
        return self.coefficients[: self.steps, : self.steps]

    @property
    def relation(self) -> np.ndarray:
        """H̄, (m + 1, m)."""
        return self.coefficients[: self.steps + 1, : self.steps]

    @property
    def drift(self) -> float:
        """By how much the relation is off for a Ritz vector, at most."""
        return float(self.lost[: self.steps].max(initial=0.0))

    def next_vector(self) -> Tensor:
        """The basis vector whose product is due, (n,)."""
        return self.basis[self.steps]

    def extend(self, product: Tensor, fresh: Callable[[int], Tensor]) -> None:
        """Take in the product with :meth:`next_vector`, (n,) float64.

        ``fresh(i)`` gives the i-th random vector, for the case that the basis spans an invariant subspace.
        """
        m, n = self.steps, self.basis.shape[1]
        product = product.clone()
        scale = max(self.scale, norm(product))
        column = orthogonalise(product, self.basis[: m + 1])
        length, exhausted = norm(product), m + 1 == n
        # What is left of a vector that lay in the span is rounding, not a direction.
        if not exhausted and length > 8 * torch.finfo(self.basis.dtype).eps * scale:
            self.basis[m + 1] = product.div_(length)
            following, lost = length, 0.0
        else:
            self.basis[m + 1] = 0.0 if exhausted else self._direction(fresh(self.breakdowns), m + 1)
            following, lost = 0.0, length
            self.breakdowns += not exhausted
        # Nothing that could fail comes after this: the relation is that of before or that of after the step.
        self.coefficients[: m + 1, m] = column.cpu().numpy()
        self.coefficients[m + 1, m], self.lost[m] = following, lost
        self.scale, self.exhausted, self.steps = scale, exhausted, m + 1

    def _direction(self, vector: Tensor, rows: int) -> Tensor:
        """A random vector made orthogonal to the basis so far, of unit length."""
        vector = vector.to(self.basis.device, torch.float64, copy=True)
        orthogonalise(vector, self.basis[:rows])
        return vector.div_(norm(vector))


def tridiagonalise(operator: Operator, krylov: Krylov, fresh: Callable[[int], Tensor]) -> Iterator[Krylov]:
    """One product per step; yields ``krylov`` after each. Stops when the basis spans the space.

    The caller may truncate ``krylov`` between steps (a restart) and must do so before it is full.
    """
    while not krylov.exhausted:
        if krylov.steps == krylov.capacity:
            raise ValueError("the basis is full: restart it before the next step")
        krylov.extend(operator.apply(krylov.next_vector()[None])[0], fresh)
        yield krylov
