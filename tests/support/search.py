"""The way the pieces of ``landscape.linalg`` are put together: search, then verify, then what is claimed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.bounds import intervals
from landscape.linalg.eigenpairs import Pairs, Which, eigenpairs, has_converged, ritz_pairs, select
from landscape.linalg.lanczos import Krylov
from landscape.linalg.noise import noise_floor
from landscape.linalg.operator import Operator
from landscape.linalg.probes import gaussian
from landscape.linalg.verify import Locked, verify

__all__ = ["Floor", "Found", "check_claims", "exact_residuals", "find", "matched"]


@dataclass
class Floor:
    """What a product can be wrong by, measured at the second vector of the search."""

    operator: Operator
    error: float = -1.0
    length: float = 0.0

    def __call__(self, krylov: Krylov) -> float:
        if self.error < 0:
            vector = krylov.basis[1] if bool(krylov.basis[1].any()) else krylov.basis[0]
            self.error = self.operator.error(vector)
        if self.length == 0.0 and krylov.steps == 2:
            self.length = float(np.linalg.norm(krylov.relation[:, 1]))
        return noise_floor(krylov, self.error, self.length)


@dataclass(frozen=True)
class Found:
    """What a run would report."""

    values: np.ndarray
    residuals: np.ndarray
    vectors: Tensor
    floor: float
    converged: np.ndarray
    products: int
    over: bool
    krylov: Krylov
    every: Pairs
    wanted: np.ndarray

    @property
    def intervals(self) -> np.ndarray:
        return intervals(self.values, self.residuals, self.floor)


def find(
    operator: Operator,
    k: int,
    which: Which = "largest",
    *,
    tol: float = 1e-3,
    capacity: int | None = None,
    seed: int = 0,
    start: Tensor | None = None,
    check: int = 0,
    at_most: int = 3000,
) -> Found:
    """Search, with ``check`` > 0 verify with that many products a time, and stop at ``at_most`` products."""
    n = operator.size
    floor = Floor(operator)
    vector = gaussian(n, seed, "start") if start is None else start
    krylov = Krylov.start(operator, vector, n if capacity is None else capacity)
    products, done = 0, False
    for _, _, over in eigenpairs(
        operator,
        krylov,
        k=k,
        which=which,
        tol=tol,
        floor=floor,
        fresh=lambda i: gaussian(n, seed, "fresh", i),
    ):
        products, done = products + 1, over
        if products >= at_most:
            break
    level = floor(krylov)
    every = ritz_pairs(krylov)
    wanted = select(every.values, k, which)
    pairs = every[wanted]
    vectors = pairs.vectors(krylov.basis)
    if check:
        locked = Locked.measure(operator, vectors)
        spent = products
        for state, over in verify(
            operator,
            locked,
            k=k,
            which=which,
            steps=check,
            floor=level,
            tol=tol,
            start=lambda search, i: gaussian(n, seed, "verify", search, i),
        ):
            locked, done, products = state, over, spent + state.products
            if done or products >= at_most:
                break
        pairs = Pairs(locked.values, locked.residuals, np.zeros((0, 0)))
        vectors = locked.vectors.double()
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    converged = has_converged(pairs.values, pairs.residuals, tol, level)
    return Found(
        pairs.values, pairs.residuals, vectors, level, converged, products, done, krylov, every, wanted
    )


def matched(bounds: np.ndarray, eigenvalues: np.ndarray) -> bool:
    """Whether each interval (k, 2) can be given an eigenvalue of its own that lies in it."""
    free = np.sort(eigenvalues).tolist()
    for low, high in sorted(bounds.tolist(), key=lambda interval: interval[1]):
        inside = [value for value in free if low <= value <= high]
        if not inside:
            return False
        free.remove(inside[0])
    return True


def exact_residuals(found: Found, matrix: Tensor) -> np.ndarray:
    """‖Hy − θy‖ of the reported pairs with the exact matrix, in float64."""
    vectors = found.vectors
    return torch.linalg.vector_norm(
        vectors @ matrix - torch.from_numpy(found.values)[:, None] * vectors, dim=1
    ).numpy()


def check_claims(found: Found, matrix: Tensor, eigenvalues: np.ndarray, tol: float, label: str = "") -> None:
    """Every claim that a run makes about its pairs, against the exact matrix and its eigenvalues."""
    # The reference itself is exact to rounding only.
    rounding = 1e-15 * len(eigenvalues) ** 0.5 * np.abs(eigenvalues).max(initial=0.0)
    exact = exact_residuals(found, matrix)
    assert (exact <= found.residuals + found.floor + rounding).all(), f"{label}: residuals claim too much"
    claimed = np.maximum(tol * np.abs(found.values), found.floor) + found.floor + rounding
    assert (exact <= claimed)[found.converged].all(), f"{label}: called converged, but is not"
    widened = found.intervals + np.array([-rounding, rounding])
    assert matched(widened, eigenvalues), f"{label}: intervals without an eigenvalue of their own"
    assert (np.diff(found.values) <= 0).all(), f"{label}: values not descending"
    gram = found.vectors @ found.vectors.T
    assert torch.allclose(gram, torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-5), (
        f"{label}: not orthonormal"
    )
