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

from landscape.linalg.eigenpairs import Which, has_converged, select, wanted_count
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
        values, turn = _descending(inner(images, rows))
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
    converged. Pairs that it changed are measured anew, and their complement is searched in turn. Each search
    but the last provably replaces an eigenvalue by another or halves the residuals of pairs that had not
    converged, so there are only so many.

    Yields, after each product, the pairs as they stand (those of the last search that is over) and whether
    all is done; the caller limits the number of products.

    Args:
        start: random vectors (n,) float64, by number of the search and of the vector in it.
    """
    size = operator.size
    wanted = wanted_count(k, which, size)
    while len(locked.values) < size:
        better = locked
        for better, over in _search(operator, locked, k, which, steps, tol, floor, start):
            if not over:
                yield replace(locked, products=better.products), False
        same = len(locked.values) == wanted and not _differ(locked, better, floor)
        if same and has_converged(locked.values, locked.residuals, tol, floor).all():
            yield replace(locked, products=better.products, searched=better.searched), True
            return
        yield replace(locked, products=better.products), False
        rows, images = _orthonormal(better.vectors, operator.dtype), torch.zeros_like(better.images)
        for i, row in enumerate(rows):
            images[i] = operator.apply(row[None])[0]
            if i + 1 < len(rows):
                yield replace(locked, products=better.products + i + 1), False
        before = locked.residuals.max(initial=0.0)
        locked = Locked.rotated(rows, images, better.products + len(rows), better.searched)
        stalled = same and locked.residuals.max() > before / 2
        yield locked, stalled
        if stalled:
            return
    yield locked, True


def _search(
    operator: Operator,
    locked: Locked,
    k: int,
    which: Which,
    steps: int,
    tol: float,
    floor: float,
    start: Callable[[int, int], Tensor],
) -> Iterator[tuple[Locked, bool]]:
    """Search the complement once: (the pairs, not measured, with the products so far; whether it is over)."""
    lead = len(locked.values)
    krylov = _complement(operator, locked, start(locked.searched, 0), max(4 * steps, 64))
    for state in tridiagonalise(operator, krylov, partial(_later, start, locked.searched)):
        spent = locked.products + state.steps - lead
        full = state.exhausted or state.steps == state.capacity
        if state.steps - lead < steps and not full:
            yield replace(locked, products=spent), False
            continue
        better = replace(_merged(locked, state, k, which), products=spent, searched=locked.searched + 1)
        over = full or bool(has_converged(better.values, better.residuals, tol, floor).all())
        yield better, over
        if over:
            return


def _complement(operator: Operator, locked: Locked, vector: Tensor, room: int) -> Krylov:
    """A decomposition that goes on from the locked vectors with ``vector``, made orthogonal to them."""
    lead = len(locked.values)
    krylov = Krylov.start(operator, vector, lead + room)
    first = vector.to(operator.device, torch.float64, copy=True)
    orthogonalise(first, locked.vectors)
    krylov.basis[:lead], krylov.basis[lead] = locked.vectors, first / norm(first)
    krylov.steps, krylov.scale = lead, float(np.abs(locked.values).max(initial=0.0))
    return krylov


def _later(start: Callable[[int, int], Tensor], search: int, breakdown: int) -> Tensor:
    return start(search, 1 + breakdown)


def _merged(locked: Locked, krylov: Krylov, k: int, which: Which) -> Locked:
    """The wanted pairs by Rayleigh–Ritz in the span of the locked vectors and those of the search."""
    lead, m, basis = len(locked.values), krylov.steps, krylov.basis
    searched = torch.from_numpy(krylov.coefficients[: m + 1, lead:m]).to(basis.device)
    values, coordinates = _descending(torch.cat([inner(locked.images, basis[:m]).T, searched[:m]], dim=1))
    chosen = select(values, k, which)
    rows = coordinates[torch.from_numpy(chosen).to(basis.device)]
    vectors = combine(rows, basis[:m]).to(basis.dtype)
    images = rows[:, :lead] @ locked.images + combine(rows[:, lead:] @ searched.T, basis[: m + 1])
    return Locked(vectors, images, values[chosen], _residuals(vectors, images, values[chosen]))


def _differ(before: Locked, after: Locked, floor: float) -> bool:
    """Whether a wanted eigenvalue is provably another: its intervals before and after do not touch."""
    touching = before.residuals + after.residuals + 2 * floor
    return bool((np.abs(before.values - after.values) > touching).any())


def _orthonormal(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    rows: Tensor = torch.linalg.qr(vectors.double().T).Q.T
    return rows.to(dtype).contiguous()


def _descending(matrix: Tensor) -> tuple[np.ndarray, Tensor]:
    """Eigenvalues, descending, and eigenvectors (as rows) of the symmetric part."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values.flip(0).cpu().numpy(), vectors.flip(1).T.contiguous()


def _residuals(vectors: Tensor, images: Tensor, values: np.ndarray) -> np.ndarray:
    """‖Hy − θy‖ of each row."""
    return np.array(
        [norm(w - theta * y.double()) for w, theta, y in zip(images, values, vectors, strict=True)]
    )
