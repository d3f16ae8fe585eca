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

__all__ = ["Floor", "Found", "find"]


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
        return noise_floor(self.operator.dtype, self.error, self.length, krylov.scale, krylov.steps)


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
    for _, pairs, done in eigenpairs(
        operator,
        krylov,
        k=k,
        which=which,
        tol=tol,
        floor=floor,
        fresh=lambda i: gaussian(n, seed, "fresh", i),
    ):
        products += 1
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
        for locked, done in verify(
            operator,
            locked,
            k=k,
            which=which,
            steps=check,
            floor=level,
            tol=tol,
            start=lambda search, i: gaussian(n, seed, "verify", search, i),
        ):
            products = spent + locked.products
            if done or products >= at_most:
                break
        pairs = Pairs(locked.values, locked.residuals, np.zeros((0, 0)))
        vectors = locked.vectors.double()
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    converged = has_converged(pairs.values, pairs.residuals, tol, level)
    return Found(
        pairs.values, pairs.residuals, vectors, level, converged, products, done, krylov, every, wanted
    )
