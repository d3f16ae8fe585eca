"""What a residual proves about eigenvalues, and what a random start proves about missed ones."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["intervals", "missed_share", "missed_value", "refined_intervals", "unclaimed"]


def intervals(values: np.ndarray, residuals: np.ndarray, floor: float) -> np.ndarray:
    """θ ± (residual + floor), (k, 2): a symmetric matrix has an eigenvalue in each (Parlett 1998, 4.5.1)."""
    width = residuals + floor
    return np.stack([values - width, values + width], axis=1)


def refined_intervals(
    values: np.ndarray, residuals: np.ndarray, floor: float, wanted: np.ndarray
) -> np.ma.MaskedArray:
    """Kato–Temple intervals (k, 2) of the ``wanted`` among all Ritz pairs (values descending).

    With ε the residual of θ = yᵀHy and (a, b) an interval around θ with only one eigenvalue λ in it,
    θ − ε²/(b − θ) ≤ λ ≤ θ + ε²/(θ − a) (Kato 1949; Parlett 1998, §10.6 for the symmetric form). a and b are
    taken from the intervals of the neighbouring Ritz pairs: valid only if no eigenvalue was missed between
    them. Masked where intervals touch. The floor is added to ε, and it is taken that yᵀHy may lie anywhere
    within the floor of θ, since θ was measured too.
    """
    epsilon = residuals + floor
    low, high = values - epsilon, values + epsilon
    refined: np.ma.MaskedArray = np.ma.MaskedArray(np.zeros((len(wanted), 2)), mask=True)
    for row, i in enumerate(wanted):
        b = low[:i].min(initial=math.inf)
        a = high[i + 1 :].max(initial=-math.inf)
        if a < low[i] and high[i] < b:
            square = epsilon[i] ** 2
            refined[row] = (
                max(low[i], values[i] - floor - square / (b - values[i] - floor)),
                min(high[i], values[i] + floor + square / (values[i] - a - floor)),
            )
    return refined


def unclaimed(
    values: np.ndarray, residuals: np.ndarray, known: np.ndarray, known_residuals: np.ndarray, floor: float
) -> np.ndarray:
    """Indices, ascending, of the Ritz pairs that do not stand for one of the ``known`` pairs.

    Each known pair stands for at most one Ritz pair: the nearest whose interval touches its own.
    """
    free = np.ones(len(values), dtype=bool)
    for value, residual in zip(known, known_residuals, strict=True):
        distance = np.where(free, np.abs(values - value), math.inf)
        touching = np.flatnonzero(distance <= residuals + residual + 2 * floor)
        if len(touching):
            free[touching[distance[touching].argmin()]] = False
    return np.flatnonzero(free)


def missed_share(size: int, steps: int, probability: float) -> float | None:
    """ε such that, after ``steps`` Lanczos steps from a uniformly random start in ``size`` dimensions,
    λmax − θ > ε(λmax − λmin) has at most this ``probability``; None if no ε < 1 does.

    Kuczyński & Woźniakowski 1992, theorem 4.2: 1.648 √n exp(−√ε (2k − 1)), k the dimension of the Krylov
    space. A space of full dimension misses nothing.

    After 30 steps in a million dimensions, at 95 %:

    >>> round(missed_share(10**6, 30, 0.05), 4)
    0.0311
    """
    if steps < 1:
        return None
    if steps >= size:
        return 0.0
    root = math.log(1.648 * math.sqrt(size) / probability) / (2 * steps - 1)
    return root**2 if root < 1 else None


def missed_value(
    top: float, bottom: float, size: int, steps: int, probability: float = 0.05
) -> tuple[float, float, float] | None:
    """(ε, upper bound on λmax, lower bound on λmin), both bounds holding together with 1 − ``probability``.

    The statement is used at both ends, each at half the probability, because λmax − λmin itself is only
    known from below: λmax − λmin ≤ (θ1 − θm)/(1 − 2ε). None if a missed eigenvalue could lie farther out
    than the whole range found (ε > 1/3), which would say nothing.
    """
    epsilon = missed_share(size, steps, probability / 2)
    if epsilon is None or epsilon > 1 / 3:
        return None
    reach = epsilon * (top - bottom) / (1 - 2 * epsilon)
    return epsilon, top + reach, bottom - reach
