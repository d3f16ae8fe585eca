"""Gauss rules of a vector's spectral measure, from its Lanczos coefficients, and what they prove of it.

The spectral measure of a unit vector v is vᵀδ(λ − H)v; the m-point Gauss rule that m Lanczos steps from v
give has Ritz values as nodes and squared first components of their coordinates as weights (Golub & Welsch
1969), and is exact for polynomials of degree 2m − 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.linalg.eigenpairs import ritz_pairs
from landscape.linalg.lanczos import Krylov

__all__ = [
    "Floats",
    "Function",
    "Rule",
    "corrected",
    "cumulative",
    "distances",
    "extremes",
    "gauss",
    "is_invariant",
    "wasserstein",
    "wasserstein_bound",
]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]

#: Nodes this close, relative to the largest, are one: a copy arrives with its residual squared.
_EQUAL = 1e-8
#: Products with noise make copies as far apart as the noise; but beyond this a bulk would be drawn together.
_NOISY = 1e-5


@dataclass(frozen=True)
class Rule:
    """One probe's Gauss rule; nodes descending, all arrays (m,).

    Attributes:
        nodes: Ritz values.
        measured: squared first components; they sum to 1.
        residuals: ‖Hy − θy‖ for the products as computed.
        converged: whether the node stands for an eigenvalue.
        single: whether that eigenvalue gets the weight 1/n.
        weights: the corrected weights; they sum to 1.
    """

    nodes: Floats
    measured: Floats
    residuals: Floats
    converged: NDArray[np.bool_]
    single: NDArray[np.bool_]
    weights: Floats


def is_invariant(relation: np.ndarray, floor: float = 0.0) -> bool:
    """Whether the last product of H̄ (m + 1, m) fell into the space, but for ``floor`` and rounding."""
    scale = np.linalg.norm(relation, axis=0).max()
    rounding = 16 * np.finfo(np.float64).eps * scale * relation.shape[1] ** 0.5
    return bool(relation[-1, -1] <= floor + rounding)


def gauss(relation: np.ndarray, floor: float) -> tuple[Floats, Floats, Floats]:
    """(nodes, weights, residuals) of the Gauss rule of H̄ (m + 1, m), nodes equal but for rounding as one.

    In exact arithmetic a vector sees one eigenvector of a repeated eigenvalue; rounding brings in others at
    the same value, among which the weight is then split at random. Their part of v is Σ √wᵢ yᵢ, of residual
    at most Σ √wᵢ rᵢ / √Σ wᵢ, and the spread of their values.
    """
    steps = relation.shape[1]
    pairs = ritz_pairs(Krylov(torch.empty(0), relation, np.zeros(steps), steps))
    weights = pairs.coordinates[0] ** 2
    largest = float(np.abs(pairs.values).max())
    close = _EQUAL * largest + min(2 * floor, _NOISY * largest)
    groups = np.split(np.arange(steps), np.flatnonzero(-np.diff(pairs.values) > close) + 1)
    nodes, mass, residuals = pairs.values.copy(), weights.copy(), pairs.residuals.copy()
    for group in groups:
        if len(group) > 1 and (whole := weights[group].sum()) > 0:
            share = weights[group] / whole
            nodes[group] = share @ pairs.values[group]
            spread = np.sqrt(share @ (pairs.values[group] - nodes[group]) ** 2)
            residuals[group] = np.sqrt(share) @ pairs.residuals[group] + spread
            mass[group] = whole
    first = [group[0] for group in groups]
    return nodes[first], mass[first], residuals[first]


def corrected(
    nodes: Floats,
    measured: Floats,
    residuals: Floats,
    converged: NDArray[np.bool_],
    single: NDArray[np.bool_],
    size: int,
) -> Rule:
    """1/n for single eigenvalues; the others share the rest of the mass as measured."""
    weights = np.full(len(nodes), 1 / size)
    if not single.all():
        left, rest = 1 - single.sum() / size, measured[~single]
        weights[~single] = left * (rest / rest.sum() if rest.any() else 1 / len(rest))
    return Rule(nodes, measured, residuals, converged, single, weights)


def distances(nodes: Floats) -> Floats:
    """From each node to the nearest other one; 0 for a single node, which has nothing to be small against."""
    if len(nodes) == 1:
        return np.zeros(1)
    gaps = -np.diff(nodes)
    nearest: Floats = np.minimum(np.append(gaps, np.inf), np.insert(gaps, 0, np.inf))
    return nearest


def extremes(rule: Rule, increasing: Function) -> tuple[float, float]:
    """Means of ``increasing`` with each unknown node's mass at the next unknown node below, and above."""
    values, free = increasing(rule.nodes), ~rule.converged
    known = float(rule.weights[~free] @ values[~free])
    if not free.any():
        return known, known
    mass, unknown = rule.weights[free], values[free]
    top = increasing(np.array([rule.nodes[0] + rule.residuals[0]]))
    bottom = increasing(np.array([rule.nodes[-1] - rule.residuals[-1]]))
    low = known + float(mass @ np.append(unknown[1:], bottom))
    return low, known + float(mass @ np.insert(unknown[:-1], 0, top))


def wasserstein_bound(nodes: Floats, weights: Floats, residuals: Floats) -> float:
    """W1 between a vector's spectral measure and its Gauss rule (nodes descending), at most.

    The smaller of two bounds. The first: between two nodes, the cumulative measure differs from the rule's
    by at most the larger of their weights (Chen, Trogdon & Ubaru 2021); beyond the ends by w r/2 in
    all, since the Gauss rule is exact for (θ − λ)ℓ(λ)², ℓ the node's Lagrange polynomial, and ℓ² ≥ 1 there,
    so the mean excess is at most E|λ − θ|ℓ²/2 ≤ √(E(λ − θ)²ℓ² · Eℓ²)/2. The second: v is Σ √wᵢ yᵢ, and for
    f with slopes of at most 1 ‖(f(H) − f(θᵢ))yᵢ‖ ≤ rᵢ, so vᵀf(H)v is within Σ √wᵢ rᵢ of the rule's
    (Kantorovich–Rubinstein).
    """
    inside = float(np.maximum(weights[1:], weights[:-1]) @ -np.diff(nodes))
    ends = float(weights[0] * residuals[0] + weights[-1] * residuals[-1]) / 2
    return min(inside + ends, float(np.sqrt(weights) @ residuals))


def cumulative(nodes: Floats, weights: Floats, at: Floats) -> Floats:
    """Share of the mass at or below each of ``at`` (any shape); nodes in any order, masked ones left out."""
    values, mass = _flat(nodes, weights)
    total = np.concatenate([[0.0], np.cumsum(mass)])
    share: Floats = total[np.searchsorted(values, at, side="right")] / total[-1]
    return share


def wasserstein(nodes: Floats, weights: Floats, others: Floats, other_weights: Floats | None = None) -> float:
    """W1 (earth mover's) distance of two distributions: ∫ |difference of the cumulative shares|.

    Args:
        nodes, weights: any shape (rows of probes count equally), in any order, masked ones left out.
        others: the other's nodes, or eigenvalues.
        other_weights: theirs; equal if not given.
    """
    other_weights = np.ones_like(others) if other_weights is None else other_weights
    grid = np.sort(np.concatenate([_flat(nodes, weights)[0], _flat(others, other_weights)[0]]))
    apart = cumulative(nodes, weights, grid[:-1]) - cumulative(others, other_weights, grid[:-1])
    return float(np.abs(apart) @ np.diff(grid))


def _flat(nodes: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Nodes ascending, and their weights, without the masked ones."""
    kept = ~(np.ma.getmaskarray(np.asanyarray(nodes)) | np.ma.getmaskarray(np.asanyarray(weights)))
    values, mass = np.asarray(nodes)[kept], np.asarray(weights)[kept]
    order = np.argsort(values, kind="stable")
    return values[order], mass[order]
