"""What a residual proves about eigenvalues, and what a random start proves about missed ones."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["intervals", "missed_share", "missed_value", "refined_intervals"]


def intervals(values: np.ndarray, residuals: np.ndarray, floor: float) -> np.ndarray:
    """θ ± (residual + floor), (k, 2): a symmetric matrix has an eigenvalue in each (Parlett 1998, thm 4.5.1)."""
    width = residuals + floor
    return np.stack([values - width, values + width], axis=1)


def refined_intervals(
    values: np.ndarray, residuals: np.ndarray, floor: float, wanted: np.ndarray
) -> np.ma.MaskedArray:
    """Kato–Temple intervals (k, 2) of the ``wanted`` among all Ritz pairs (values descending).

    With ε the residual of θ = yᵀHy and (a, b) an interval around θ with only one eigenvalue λ in it,
    θ − ε²/(b − θ) ≤ λ ≤ θ + ε²/(θ − a) (Kato 1949; Parlett 1998, §10.6 for the symmetric form). a and b are
    taken from the intervals of the neighbouring Ritz pairs: valid only if no eigenvalue was missed between
    them. Masked where intervals touch. The floor is added to ε, and once more to θ, which was measured too.
    """
    epsilon = residuals + floor
    low, high = values - epsilon, values + epsilon
    refined = np.ma.masked_all((len(wanted), 2))
    for row, i in enumerate(wanted):
        others = np.arange(len(values)) != i
        above = low[others & (values >= values[i]) & (np.arange(len(values)) < i)]
        below = high[others & (np.arange(len(values)) > i)]
        b = above.min() if len(above) else math.inf
        a = below.max() if len(below) else -math.inf
        if b > high[i] and a < low[i]:
            square = epsilon[i] ** 2
            refined[row] = (
                max(low[i], values[i] - square / (b - values[i]) - floor),
                min(high[i], values[i] + square / (values[i] - a) + floor),
            )
    return refined


def missed_share(size: int, steps: int, probability: float) -> float | None:
    """ε such that, after ``steps`` Lanczos steps from a uniformly random start in ``size`` dimensions,
    λmax − θ > ε(λmax − λmin) has at most this ``probability``; None if no ε < 1 does.

    Kuczyński & Woźniakowski 1992, theorem 4.2: 1.648 √n exp(−√ε (2k − 1)).
    """
    if steps < 1:
        return None
    root = math.log(1.648 * math.sqrt(size) / probability) / (2 * steps - 1)
    return root**2 if 0 <= root < 1 else (0.0 if root < 0 else None)


def missed_value(
    top: float, bottom: float, size: int, steps: int, probability: float = 0.05
) -> tuple[float, float, float] | None:
    """(ε, upper bound on λmax, lower bound on λmin), both bounds holding together with 1 − ``probability``.

    The statement is used at both ends, each at half the probability, because λmax − λmin itself is only
    known from below: λmax − λmin ≤ (θ1 − θm)/(1 − 2ε).
    """
    epsilon = missed_share(size, steps, probability / 2)
    if epsilon is None or epsilon >= 0.5:
        return None
    reach = epsilon * (top - bottom) / (1 - 2 * epsilon)
    return epsilon, top + reach, bottom - reach
