"""What a product can be wrong by: the floor below which no residual is claimed."""

from __future__ import annotations

import math

import scipy.stats
import torch
from torch import Tensor

from landscape.linalg.operator import Operator, norm

__all__ = ["noise_floor", "repeated_error", "rounding_floor"]

#: Chance that the floor from repeated products is too low for one pair.
_CHANCE = 1e-4


def repeated_error(operator: Operator, vector: Tensor) -> float:
    """Estimate of ‖Ev‖ for a unit ``vector`` (n,) when a product repeated gives another answer.

    With independent errors of variance σ² per entry, ‖Ev‖²/σ² ~ χ²(n); σ² is estimated from differences of
    repeated products with d degrees of freedom, so ‖Ev‖² exceeds σ̂² n F(n, d) with a known chance. At least
    64 degrees of freedom, however small the matrix. Zero for a product that always gives the same.
    """
    differences = max(1, math.ceil(64 / operator.size))
    rows = vector.to(operator.dtype)[None]
    squares = 0.0
    for _ in range(differences):
        squares += norm(operator.apply(rows)[0] - operator.apply(rows)[0]) ** 2 / 2
        if squares == 0.0:
            return 0.0
    variance = squares / (differences * operator.size)
    quantile = scipy.stats.f.ppf(1 - _CHANCE, operator.size, differences * operator.size)
    return math.sqrt(variance * operator.size * quantile)


def rounding_floor(dtype: torch.dtype, scale: float, steps: int) -> float:
    """Rounding of the basis vectors and of the orthogonalisation, for products of length up to ``scale``.

    Each stored vector is rounded to half a unit, and so is each restart's rotation of them; the sums in
    float64 add √steps of its own units.
    """
    double = torch.finfo(torch.float64).eps
    return scale * (4 * torch.finfo(dtype).eps / 2 + 4 * double * math.sqrt(steps + 1))


def noise_floor(dtype: torch.dtype, error: float, length: float, scale: float, steps: int) -> float:
    """What any product so far can be wrong by, from the ``error`` of one product of this ``length``.

    Errors grow with the products they belong to, so the error is carried over to products of length up to
    ``scale``. ``length`` 0: not known, the error is taken as it is.
    """
    growth = max(1.0, scale / length) if length > 0 else 1.0
    return error * growth + rounding_floor(dtype, scale, steps)
