"""The mean rise of the loss over random directions, with its interval.

For ε uniform on the sphere ‖ε‖₂ = ρ the mean of εᵀHε is ρ²Tr(H)/n and that of εᵀg is zero, so

    E[L(w + ε)] − L(w) = ρ²Tr(H)/(2n) + O(ρ⁴).

From pairs ±ε the part of the rise that is odd in ε drops out before anything is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from landscape.linalg.looks import Goal, half_width, stages

__all__ = ["Average", "average", "looks_of", "variance_of_forms", "variance_of_trace"]


@dataclass(frozen=True)
class Average:
    """A mean over directions with the half-width of its interval (NaN below two of them)."""

    mean: float
    half_width: float


def looks_of(budget: int, tol: float, confidence: float) -> list[tuple[int, float]]:
    """(directions, risk spent) of each look that a budget allows: at 8, 16, 32, … and at its end."""
    goal = Goal(budget, tol=tol, confidence=confidence)
    return [(stage.probes, stage.risk) for stage in stages(goal, lambda directions: (0, directions))]


def average(values: Sequence[float] | np.ndarray, risk: float, variance: float | None = None) -> Average:
    """The mean of independent ``values`` (p,) and its half-width by Student's t.

    Where most of the curvature lies in a few directions the values are skew, and a handful may all miss
    what makes their variance large: 8 values of a matrix of rank one covered 87 %, not 95 %. ``variance`` is
    another estimate of the variance of one value, see :func:`landscape.linalg.looks.half_width`.
    """
    values = np.asarray(values, dtype=np.float64)
    p = len(values)
    if p < 2:
        return Average(float(values.mean()) if p else math.nan, math.nan)
    if variance is not None:
        return Average(float(values.mean()), float(half_width(values, np.asarray(variance), risk)))
    width = -float(stdtrit(p - 1, risk / 2)) * math.sqrt(float(values.var(ddof=1)) / p)
    return Average(float(values.mean()), width)


def variance_of_forms(forms: np.ndarray, squares: np.ndarray, size: int) -> float:
    """Variance of uᵀHu, u uniform on the unit sphere of R^n, from uᵀHu and ‖Hu‖² (p,) of some of them."""
    return variance_of_trace(size * float(np.mean(forms)), size * float(np.mean(squares)), size)


def variance_of_trace(trace: float, square: float, size: int) -> float:
    """Variance of uᵀHu from Tr H and ‖H‖_F²: 2(n‖H‖_F² − (Tr H)²)/(n²(n + 2))."""
    return max(0.0, 2 * (size * square - trace**2) / (size**2 * (size + 2)))
