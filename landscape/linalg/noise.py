"""What a product can be wrong by: the floor below which no residual is claimed."""

from __future__ import annotations

import math

import scipy.stats
import torch
from torch import Tensor

from landscape.linalg.lanczos import Krylov, rounding_unit
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


def noise_floor(krylov: Krylov, error: float, length: float) -> float:
    """What the products behind ``krylov`` can be wrong by, and its relation by rounding.

    Args:
        error: what one product was found to be wrong by.
        length: the length of that product. Errors grow with the products they belong to, so the error is
            carried over to the longest product so far. 0: not known, the error is taken as it is.
    """
    growth = max(1.0, krylov.scale / length) if length > 0 else 1.0
    return error * growth + rounding_floor(krylov.basis.dtype, krylov.scale, krylov.steps) + krylov.drift


def rounding_floor(dtype: torch.dtype, scale: float, steps: int) -> float:
    """Rounding of a basis and of a Ritz vector in it, for products of length up to ``scale``."""
    return 2 * scale * rounding_unit(dtype, steps + 1)
