"""A second look, from a random vector orthogonal to the pairs found.

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

from landscape.linalg.eigenpairs import Which, select, wanted_count
from landscape.linalg.lanczos import Krylov, combine, orthogonalise, tridiagonalise
from landscape.linalg.operator import Operator, norm

__all__ = ["Locked", "verify"]


@dataclass(frozen=True)
class Locked:
    """Orthonormal vectors (l, n) in the operator's dtype with their products (l, n) float64.

    ``values`` (l,) are their Rayleigh quotients, descending; ``residuals`` (l,) are ‖Hy − θy‖, taken from
    the vectors themselves. ``products`` counts what was spent; ``passes_done`` the complements searched.
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
        rows = torch.linalg.qr(vectors.double().T).Q.T.to(operator.dtype).contiguous()
        return cls._rotated(rows, operator.apply(rows), products=len(rows))

    @classmethod
    def _rotated(cls, rows: Tensor, images: Tensor, products: int) -> Locked:
        """Rayleigh–Ritz in the span of ``rows``, whose products are ``images``."""
        projected = combine(images, rows.T.contiguous()) if len(rows) else images.new_zeros((0, 0))
        values, rotation = np.linalg.eigh(((projected + projected.T) / 2).cpu().numpy())
        turn = torch.from_numpy(np.ascontiguousarray(rotation[:, ::-1].T)).to(rows.device)
        vectors, images = combine(turn, rows).to(rows.dtype), turn @ images
        residuals = [
            norm(w - theta * y.double()) for w, theta, y in zip(images, values[::-1], vectors, strict=True)
        ]
        return cls(vectors, images, values[::-1].copy(), np.array(residuals), products)

    def keep(self, indices: np.ndarray) -> Locked:
        """Only these pairs."""
        rows = torch.from_numpy(indices).to(self.vectors.device)
        return replace(
            self,
            vectors=self.vectors[rows],
            images=self.images[rows],
            values=self.values[indices],
            residuals=self.residuals[indices],
        )


def _merge(locked: Locked, krylov: Krylov, lead: int) -> Locked:
    """Rayleigh–Ritz in the span of the locked vectors and those of the search (rows ``lead`` on)."""
    m = krylov.steps
    columns = torch.from_numpy(np.ascontiguousarray(krylov.coefficients[: m + 1, lead:m].T))
    found_images = combine(columns.to(krylov.basis.device), krylov.basis[: m + 1])
    rows = torch.cat([locked.vectors, krylov.basis[lead:m]])
    return Locked._rotated(rows, torch.cat([locked.images, found_images]), locked.products)


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
    """Search complements of the pairs, ``steps`` products each, until one holds nothing that is wanted.

    A search goes on beyond ``steps`` while it holds a pair that belongs among the wanted ones but has not
    converged. Yields, after each product, the pairs as they stand and whether all is done; the caller
    limits the number of products.

    Args:
        start: random vectors (n,) float64, by number of the search and of the vector in it.
    """
    size = operator.size
    while True:
        lead = len(locked.values)
        if lead >= size or steps == 0:
            yield locked, True
            return
        room = min(size - lead, max(4 * steps, 64))
        search = locked.searched
        krylov = _complement(operator, locked, start(search, 0), room)
        spent, better = 0, locked
        fresh = partial(_later, start, search)
        for state in tridiagonalise(operator, krylov, fresh):
            spent += 1
            full = state.exhausted or state.steps == state.capacity
            if spent < min(steps, room) and not full:
                yield replace(locked, products=locked.products + spent), False
                continue
            merged = _merge(locked, state, lead)
            better = merged.keep(select(merged.values, k, which))
            settled = better.residuals <= np.maximum(tol * np.abs(better.values), floor)
            if settled.all() or full:
                break
            yield replace(locked, products=locked.products + spent), False
        changed = _changed(locked, better, k, which, floor, tol)
        locked = replace(better, products=locked.products + spent, searched=locked.searched + 1)
        complete = len(locked.values) == wanted_count(k, which, size)
        yield locked, not changed and complete
        if not changed and complete:
            return


def _complement(operator: Operator, locked: Locked, vector: Tensor, room: int) -> Krylov:
    """A decomposition that goes on from the locked vectors with ``vector``, made orthogonal to them."""
    lead = len(locked.values)
    krylov = Krylov.start(operator, vector, lead + room)
    first = vector.to(operator.device)
    orthogonalise(first, locked.vectors)
    krylov.basis[:lead], krylov.basis[lead] = locked.vectors, first / norm(first)
    krylov.steps, krylov.scale = lead, float(np.abs(locked.values).max(initial=0.0))
    return krylov


def _later(start: Callable[[int, int], Tensor], search: int, breakdown: int) -> Tensor:
    return start(search, 1 + breakdown)


def _changed(before: Locked, after: Locked, k: int, which: Which, floor: float, tol: float) -> bool:
    """Whether the search brought in a pair that was not there: the wanted values moved by more than errors."""
    if len(before.values) != len(after.values):
        return True
    allowed = before.residuals + floor + np.maximum(tol * np.abs(before.values), floor)
    return bool((np.abs(before.values - after.values) > allowed).any())
