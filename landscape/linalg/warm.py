"""Where a search begins that knows eigenvectors of a neighbouring matrix: another checkpoint's."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.eigenpairs import Which
from landscape.linalg.lanczos import combine
from landscape.linalg.operator import norm

__all__ = ["random_length", "warm_vector", "weights"]

#: What an eigenvector that the known ones know nothing of gets of the start, relative to one of them: so many
#: times the tolerance. Measured (tests/benchmarks/README.md): from 30 on a new outlier is found.
_SHARE = 30.0
#: Least length of the random part, that of the known part being 1: so much is free.
_LEAST = 0.1


def warm_vector(rows: Tensor, random: Tensor, which: Which = "largest", tol: float = 1e-3) -> Tensor:
    """A start vector (n,) float64 from known eigenvectors and a random vector.

    One vector that is rich in all of them costs a Krylov space one product for each eigenvalue that it has to
    tell apart, and a few more for what the eigenvectors have turned since. A combination of them alone would
    never see an eigenvector that all of them are orthogonal to, and with little of it the search would be
    over before it shows. With more of it in the start than the tolerance allows a residual to hold, no pair
    beside it converges.

    Args:
        rows: (j, n) of any length, in the order of the pairs of ``which``.
        random: (n,), uniformly distributed on a sphere.
        tol: residual, relative to the eigenvalue, at which the search will stop.
    """
    unit = torch.nn.functional.normalize(rows, dim=1)
    known = combine(torch.from_numpy(weights(len(rows), which)).to(rows.device), unit)
    length = norm(known)
    # Rows that cancel each other, or are zero, know nothing.
    known = known / length if length > 1e-6 else torch.zeros_like(known)
    share = random_length(len(rows), rows.shape[1], tol) / norm(random)
    return known + share * random.to(known)


def weights(count: int, which: Which) -> np.ndarray:
    """How much of each known eigenvector, (count,): the farther from the end of the spectrum, the more.

    Those nearest to the end stand out soon in any case; the last of the wanted ones converges last.
    """
    rank = np.arange(1.0, count + 1)
    if which == "smallest":
        rank = rank[::-1].copy()
    elif which == "both":
        rank = np.minimum(rank, rank[::-1])
    return np.ones(count) if which == "magnitude" else rank


def random_length(count: int, size: int, tol: float) -> float:
    """Length of the random part, that of the known part being 1.

    A random vector of this length has 1/√size of it along a given eigenvector, the known part 1/√count.

    >>> round(random_length(5, 6570, 1e-3), 2)
    1.09
    """
    return max(_LEAST, min(1.0, _SHARE * tol) * math.sqrt(size / count))
