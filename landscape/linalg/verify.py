"""A second look, from random vectors orthogonal to the pairs found.

A Krylov space sees one vector of each eigenspace only, so a repeated eigenvalue is found once; and a start
vector may happen to be poor in an eigenvector. Products from a fresh random start in the complement of the
pairs find both. The pairs themselves get one product each, so their residuals rest on nothing earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.eigenpairs import Pairs, Which, has_converged, select, wanted_count
from landscape.linalg.lanczos import Krylov, combine, inner, orthogonalise, tridiagonalise
from landscape.linalg.operator import Operator, norm

__all__ = ["Locked", "verify"]


@dataclass(frozen=True)
class Locked:
    """Pairs whose residuals are measured: each from a product of its own.

    Attributes:
        vectors: (l, n), orthonormal rows in the operator's dtype.
        images: (l, n) float64, their products.
        values: (l,) their Rayleigh quotients, descending.
        residuals: (l,) ‖Hy − θy‖.
        products: how many products were spent.
        searched: how many searches of the complement are over.
    """

    vectors: Tensor
    images: Tensor
    values: np.ndarray
    residuals: np.ndarray
    products: int = 0
    searched: int = 0

    @classmethod
    def measure(cls, operator: Operator, vectors: Tensor) -> Locked:
        """One product per vector (l, n), which are orthonormalised first."""
        rows = _orthonormal(vectors, operator.dtype)
        return cls.rotated(rows, operator.apply(rows), products=len(rows))

    @classmethod
    def rotated(cls, rows: Tensor, images: Tensor, products: int, searched: int = 0) -> Locked:
        """Rayleigh–Ritz in the span of orthonormal ``rows`` (l, n), whose products are ``images``."""
        projected = inner(images, rows).cpu().numpy()
        values, rotation = _descending(projected)
        turn = torch.from_numpy(rotation.T.copy()).to(rows.device)
        vectors, images = combine(turn, rows).to(rows.dtype), turn @ images
        return cls(vectors, images, values, _residuals(vectors, images, values), products, searched)


def verify(
    operator: Operator,
    locked: Locked,
    *,
    k: int,
    which: Which,
    steps: int,
    tol: float,
    floor: float,
    start: Callable[[int, int], Tensor],
) -> Iterator[tuple[Locked, bool]]:
    """Search complements of the pairs, ``steps`` ≥ 1 products each, until one holds nothing that is wanted.

    A search goes on beyond ``steps`` while it holds a pair that belongs among the wanted ones but has not
    converged. If it changes the pairs, they are measured anew, and the complement is searched again. Yields,
    after each product, the pairs as they stand and whether all is done; the caller limits the number of
    products. Every search but the last replaces a wanted value by one that provably differs, or brings
    unconverged pairs nearer, so there are only so many.

    Args:
        start: random vectors (n,) float64, by number of the search and of the vector in it.
    """
    size = operator.size
    wanted = wanted_count(k, which, size)
    while len(locked.values) < size:
        spent, room = locked.products, min(size - len(locked.values), max(4 * steps, 64))
        krylov = _complement(operator, locked, partial(start, locked.searched), room)
        lead = krylov.steps
        for state in tridiagonalise(operator, krylov, partial(_later, start, locked.searched)):
            spent += 1
            full = state.steps == state.capacity
            if full or state.steps - lead >= steps:
                better, vectors = _merged(locked, state, k, which)
                if full or has_converged(better, tol, floor).all():
                    break
            yield replace(locked, products=spent), False
        settled = len(locked.values) == wanted and bool(has_converged(_pairs(locked), tol, floor).all())
        if settled and not _differ(_pairs(locked), better, floor):
            yield replace(locked, products=spent, searched=locked.searched + 1), True
            return
        ...
    yield locked, True
