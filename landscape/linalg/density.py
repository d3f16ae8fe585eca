"""The spectral density by stochastic Lanczos quadrature, every known eigenvalue at its exact weight.

The distribution of the n eigenvalues, mass 1/n on each, is the mean over random unit vectors v of the
spectral measure vᵀδ(λ − H)v. For one v, m Lanczos steps give the Gauss rule of that measure: Ritz values
are its nodes, squared first components of their coordinates its weights (Golub & Welsch 1969; Lin, Saad &
Yang 2016; Ubaru, Chen & Saad 2017). Three things are added here.

**Exact weights.** A Ritz value whose residual r is at most a hundredth of the distance d to the next one
stands for an eigenvalue, which is off by about r²/d, a ten-thousandth of d. Its measured weight is a χ²₁
variable over n; its true one is 1/n, and the rest of the rule shares the rest of the mass, in the measured
proportions: v without its components along known eigenvectors is uniform on the sphere of their complement,
so what is left is unbiased there. An eigenvalue is repeated, and keeps its measured weight, where that weight
is too large for a single one (beyond the 99.9 % point of χ², summed over the probes that found it), where a
probe found several vectors of it, or where two probes found different ones (:func:`_same_vector`). With a
single probe only the weight tells. The error: an eigenvalue of multiplicity k that passes as a single one
lacks (k − 1)/n, and one single eigenvalue in a thousand keeps its measured weight.

**Two depths.** The Gauss rule of m − 1 steps comes with that of m for nothing. Their nodes interlace, their
cumulative weights are off in opposite directions, and their mean is closer to the measure than either: the
same idea as Laurie's (1996) averaged rules, with no node that is not a Ritz value. It matters where much of
the mass is concentrated (of a net's Hessian, at zero) and the nodes of one rule straddle that point.

**Bounds.** See :func:`wasserstein_bound` and :meth:`Quadrature.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.linalg.eigenpairs import ritz_pairs
from landscape.linalg.gauss import (
    Floats,
    Function,
    Rule,
    corrected,
    cumulative,
    distances,
    extremes,
    gauss,
    is_invariant,
    wasserstein,
    wasserstein_bound,
)
from landscape.linalg.lanczos import Krylov, tridiagonalise
from landscape.linalg.operator import Operator

__all__ = [
    "Estimate",
    "Outliers",
    "Quadrature",
    "Rule",
    "cumulative",
    "is_invariant",
    "probe",
    "quadrature",
    "wasserstein",
    "wasserstein_bound",
]

#: A Ritz value stands for an eigenvalue if its residual is at most this share of the distance to the next.
#: On the digits Hessian anything from 1e-6 to 0.3 gives the same distance to the exact spectrum; but what 0.1
#: leaves in the values of the largest exceeds the standard errors of the third and fourth moments.
_ISOLATED = 0.01
#: Chance that a single eigenvalue is taken for a repeated one, and keeps its measured weight, which is then
#: at least 7 to 11 times too large: one of the largest in a hundred would raise W1 on the digits by a third.
_CHANCE = 1e-3


@dataclass(frozen=True)
class Estimate:
    """A number from the probes: its value and standard error, and each probe's own."""

    value: float
    error: float
    each: Floats


@dataclass(frozen=True)
class Outliers:
    """Eigenvalues that some probe found, descending: (k,) values, residuals and weights."""

    values: Floats
    residuals: Floats
    weights: Floats


@dataclass(frozen=True)
class Quadrature:
    """Nodes and weights of the density, a row per probe; nodes descending, padding masked.

    Attributes:
        nodes: (p, m) Ritz values of both depths; where converged, the deeper one's stands for both.
        weights: (p, m) corrected weights; each row sums to 1.
        measured: (p, m) weights as measured; each row sums to 1.
        residuals: (p, m) ‖Hy − θy‖ of each.
        converged: (p, m) which stand for an eigenvalue; false in the padding.
        outliers: the eigenvalues that they stand for, each once.
        wasserstein_bounds: (p,) W1 between the measured row and the spectral measure of its own vector, at
            most. How far that measure is from the distribution of eigenvalues is the sampling error, which
            the standard errors speak of.
        rules: the rules that each row was made of, the deeper one first.
        size: n.
    """

    nodes: np.ma.MaskedArray
    weights: np.ma.MaskedArray
    measured: np.ma.MaskedArray
    residuals: np.ma.MaskedArray
    converged: NDArray[np.bool_]
    outliers: Outliers
    wasserstein_bounds: Floats
    rules: tuple[tuple[Rule, ...], ...]
    size: int

    @property
    def lambda_max(self) -> tuple[float, float]:
        """The largest Ritz value of all probes, a lower bound on λmax, and its residual."""
        return max((float(r[0].nodes[0]), float(r[0].residuals[0])) for r in self.rules)

    @property
    def lambda_min(self) -> tuple[float, float]:
        """The smallest Ritz value of all probes, an upper bound on λmin, and its residual."""
        return min((float(r[0].nodes[-1]), float(r[0].residuals[-1])) for r in self.rules)

    def expectation(self, function: Function) -> Estimate:
        """Mean of ``function`` over the eigenvalues, with a standard error over probes.

        Known eigenvalues count exactly. What is left is a quadratic form vᵀf(H)v in the N dimensions of
        their complement, whose variance over the unit sphere is 2/(N + 2) times that of f over the
        eigenvalues there. The larger of this and the variance seen between probes is taken: with two probes
        the latter says little, while the former rests on the weights that were measured. The error of the
        quadrature is not in it; it is none for polynomials of degree below twice the steps less two.
        """
        rows = [_row_mean(row, function, self.size) for row in self.rules]
        each = np.array([mean for mean, _ in rows])
        variance = float(np.mean([known for _, known in rows]))
        if len(each) > 1:
            variance = max(variance, float(each.var(ddof=1)))
        return Estimate(float(each.mean()), (variance / len(each)) ** 0.5, each)

    def moments(self, count: int = 4) -> list[Estimate]:
        """Moments 1 … ``count`` about zero of the distribution of eigenvalues."""
        return [self.expectation(partial(_power, q)) for q in range(1, count + 1)]

    def trace(self) -> Estimate:
        """Sum of the eigenvalues: n times the first moment."""
        mean = self.expectation(lambda x: x)
        return Estimate(self.size * mean.value, self.size * mean.error, self.size * mean.each)

    def effective_dimension(self, z: float) -> Estimate:
        """Σ λ/(λ + z) over the positive eigenvalues, z > 0 (MacKay 1992; Maddox et al. 2020)."""
        if not z > 0:
            raise ValueError(f"the effective dimension needs z > 0, not {z}")
        mean = self.expectation(lambda x: np.maximum(x, 0.0) / (np.maximum(x, 0.0) + z))
        return Estimate(self.size * mean.value, self.size * mean.error, self.size * mean.each)

    def negative_share(self, floor: float) -> tuple[Estimate, float, float]:
        """Share of the eigenvalues below −``floor``, and its bounds (those of :meth:`bounds`)."""

        def below(x: Floats) -> Floats:
            return (x < -floor).astype(np.float64)

        low, high = self.bounds(lambda x: -below(x))
        return self.expectation(below), max(0.0, -high), min(1.0, -low)

    def bounds(self, increasing: Function) -> tuple[float, float]:
        """Least and largest mean over the eigenvalues of an ``increasing`` function, mean over probes.

        Chebyshev, Markov and Stieltjes (Szegő 1975, §3.41): the cumulative measure crosses each step of its
        Gauss rule's, so the mass of a node lies, at worst, at the next node below or above. Nodes that
        stand for known eigenvalues stay. Holds for the spectral measure of the probes' own vectors; two
        standard errors of the mean are added on either side for the rest.
        """
        low, high = [], []
        for row in self.rules:
            pairs = [extremes(rule, increasing) for rule in row]
            low.append(max(pair[0] for pair in pairs))
            high.append(min(pair[1] for pair in pairs))
        reach = 2 * self.expectation(increasing).error
        return float(np.mean(low)) - reach, float(np.mean(high)) + reach


def _power(q: int, x: Floats) -> Floats:
    power: Floats = x**q
    return power


def probe(
    operator: Operator,
    krylov: Krylov,
    steps: int,
    fresh: Callable[[int], Tensor],
    floor: Callable[[Krylov], float] = lambda _: 0.0,
) -> Iterator[Krylov]:
    """Lanczos from the vector that ``krylov`` began with, a product at a time, until ``steps`` are done.

    Ends earlier if the space is invariant: its Gauss rule is then exact, and more steps would say nothing of
    the vector.

    Args:
        fresh: the i-th random vector (n,). The kernel takes one where a space is invariant; the probe is
            over then, and nothing of it is used.
        floor: what a product can be wrong by, asked for at each step.
    """
    if krylov.steps >= steps or (krylov.steps and is_invariant(krylov.relation, floor(krylov))):
        return
    for state in tridiagonalise(operator, krylov, fresh):
        yield state
        if state.steps >= steps or is_invariant(state.relation, floor(state)):
            return


def quadrature(
    relations: Sequence[np.ndarray],
    size: int,
    floor: float = 0.0,
    overlaps: Sequence[Floats] | None = None,
) -> Quadrature:
    """The density from each probe's H̄, (m + 1, m) float64 (:attr:`Krylov.relation`).

    Args:
        size: n.
        floor: what a product can be wrong by, added to each residual.
        overlaps: of each probe, the inner products (m,) of its basis with the next probe's start vector, of
            unit length (after the last comes the first); of two probes at least. They tell repeated
            eigenvalues from single ones.
    """
    if not relations:
        raise ValueError("a density needs at least one probe")
    found = [gauss(relation, floor) for relation in relations]
    converged = [
        _converged(nodes, residuals, relation, floor)
        for (nodes, _, residuals), relation in zip(found, relations, strict=True)
    ]
    seen = [None] * len(found) if overlaps is None else list(map(_seen, relations, overlaps, found))
    outliers, single = _outliers(found, converged, size, floor, seen)
    rules = [
        _rules(relation, rule, known, alone, size, floor)
        for relation, rule, known, alone in zip(relations, found, converged, single, strict=True)
    ]
    rows = [_merged(row) for row in rules]
    width = max(len(row.nodes) for row in rows)

    def stack(name: str) -> np.ma.MaskedArray:
        out: np.ma.MaskedArray = np.ma.MaskedArray(np.zeros((len(rows), width)), mask=True)
        for i, row in enumerate(rows):
            out[i, : len(row.nodes)] = getattr(row, name)
        return out

    return Quadrature(
        nodes=stack("nodes"),
        weights=stack("weights"),
        measured=stack("measured"),
        residuals=stack("residuals"),
        converged=np.array([np.pad(row.converged, (0, width - len(row.nodes))) for row in rows]),
        outliers=outliers,
        wasserstein_bounds=np.array([_row_bound(row, floor) for row in rules]),
        rules=tuple(rules),
        size=size,
    )


def _converged(nodes: Floats, residuals: Floats, relation: np.ndarray, floor: float) -> NDArray[np.bool_]:
    """All nodes of a space that is invariant but for rounding; with noise, those that stand apart from it."""
    if is_invariant(relation, floor if len(nodes) == 1 else 0.0):
        return np.ones(len(nodes), dtype=bool)
    converged: NDArray[np.bool_] = residuals + floor <= _ISOLATED * distances(nodes)
    return converged


def _outliers(
    found: Sequence[tuple[Floats, Floats, Floats]],
    converged: Sequence[NDArray[np.bool_]],
    size: int,
    floor: float,
    seen: Sequence[Floats | None],
) -> tuple[Outliers, list[NDArray[np.bool_]]]:
    """The eigenvalues found, each once, and which nodes of each probe stand for a single one."""
    single = [known.copy() for known in converged]
    values, residuals, weights = [], [], []
    for group in _same(found, converged, floor):
        best = min(group, key=lambda at: found[at[0]][2][at[1]])
        mass = sum(found[i][1][j] for i, j in group)
        whole = any(len(single[i]) == size for i, _ in group)  # as many values as dimensions
        heavy = size * mass > scipy.stats.chi2.isf(_CHANCE, len(group))
        repeated = not whole and (heavy or not _same_vector(found, seen, group, size))
        if repeated:
            for i, j in group:
                single[i][j] = False
        values.append(found[best[0]][0][best[1]])
        residuals.append(found[best[0]][2][best[1]])
        weights.append(mass / len(group) if repeated else 1 / size)
    for alone, (nodes, _, _) in zip(single, found, strict=True):
        if alone.all() and len(alone) < size:  # an exhausted space with too few values: some are repeated
            alone[:] = _but_zero(nodes, floor)
    order = np.argsort(-np.array(values), kind="stable")
    arrays = (np.array(column, dtype=np.float64)[order] for column in (values, residuals, weights))
    return Outliers(*arrays), single


def _seen(relation: np.ndarray, overlap: Floats, found: tuple[Floats, Floats, Floats]) -> Floats:
    """Squared component of the next start vector along each node's vector; NaN where there are several."""
    steps = relation.shape[1]
    pairs = ritz_pairs(Krylov(torch.empty(0), relation, np.zeros(steps), steps))
    squares = (pairs.coordinates.T @ overlap) ** 2
    node = np.abs(pairs.values[:, None] - found[0]).argmin(axis=1)
    components: Floats = np.bincount(node, squares, len(found[0])).astype(np.float64)
    components[np.bincount(node, minlength=len(found[0])) > 1] = np.nan
    return components


def _same_vector(
    found: Sequence[tuple[Floats, Floats, Floats]],
    seen: Sequence[Floats | None],
    group: Sequence[tuple[int, int]],
    size: int,
) -> bool:
    """Whether the probes of a group found one and the same vector, as they must of a single eigenvalue.

    Of a repeated one each probe finds the vector nearest to its own start. So the next start's component
    along this probe's vector is less than that along its own, which is the root of its weight: they agree
    to a thousandth, and what the residuals allow, with a chance of 3 % for a twofold eigenvalue.
    """
    nodes = dict(group)
    for i, j in group:
        here, following = seen[i], (i + 1) % len(found)
        if here is None:
            continue
        if np.isnan(here[j]):  # rounding brought in a second vector of the same eigenvalue
            return False
        if following not in nodes:
            continue
        there = found[following][1][nodes[following]]
        spread = sum(found[a][2][b] / max(distances(found[a][0])[b], 1e-300) for a, b in group)
        allowed = (1e-3 + 5 * spread) * max(there, 1 / size) ** 0.5
        if abs(here[j] ** 0.5 - there**0.5) > allowed:
            return False
    return True


def _but_zero(nodes: Floats, floor: float) -> NDArray[np.bool_]:
    """Which nodes of an exhausted space are single: all but the null space's; none if it has no node."""
    rounding = 16 * np.finfo(np.float64).eps * float(np.abs(nodes).max())
    zero: NDArray[np.bool_] = np.abs(nodes) <= floor + rounding * len(nodes) ** 0.5
    return ~zero if zero.sum() == 1 else np.zeros(len(nodes), dtype=bool)


def _same(
    found: Sequence[tuple[Floats, Floats, Floats]], converged: Sequence[NDArray[np.bool_]], floor: float
) -> list[list[tuple[int, int]]]:
    """Converged nodes (probe, node) by eigenvalue: at most one of each probe, intervals that touch."""
    places = [(i, int(j)) for i, known in enumerate(converged) for j in np.flatnonzero(known)]
    places.sort(key=lambda at: -found[at[0]][0][at[1]])
    groups: list[list[tuple[int, int]]] = []
    for i, j in places:
        last = groups[-1] if groups else []
        reach = found[i][2][j] + 2 * floor
        touching = all(found[a][0][b] - found[i][0][j] <= found[a][2][b] + reach for a, b in last)
        if last and touching and i not in {a for a, _ in last}:
            last.append((i, j))
        else:
            groups.append([(i, j)])
    return groups


def _rules(
    relation: np.ndarray,
    found: tuple[Floats, Floats, Floats],
    converged: NDArray[np.bool_],
    single: NDArray[np.bool_],
    size: int,
    floor: float,
) -> tuple[Rule, ...]:
    """The rule of all steps and, unless the space is exhausted, that of one step less."""
    deep = corrected(*found, converged, single, size)
    if converged.all() or relation.shape[1] == 1 or is_invariant(relation, floor):
        return (deep,)
    nodes, measured, residuals = gauss(relation[:-1, :-1], floor)
    if converged.sum() >= len(nodes):
        return (deep,)
    known, alone = np.zeros(len(nodes), dtype=bool), np.zeros(len(nodes), dtype=bool)
    for i in np.flatnonzero(converged):
        twin = np.argmin(np.where(known, np.inf, np.abs(nodes - deep.nodes[i])))
        known[twin], alone[twin] = True, single[i]
    return deep, corrected(nodes, measured, residuals, known, alone, size)


def _merged(rules: tuple[Rule, ...]) -> Rule:
    """One row: half of each rule, the converged nodes of the shallower one at those of the deeper one."""
    if len(rules) == 1:
        return rules[0]
    deep, shallow = rules
    rest = ~shallow.converged
    weights, measured = deep.weights / 2, deep.measured / 2
    weights[deep.converged] += shallow.weights[shallow.converged] / 2
    measured[deep.converged] += shallow.measured[shallow.converged] / 2
    nodes = np.concatenate([deep.nodes, shallow.nodes[rest]])
    order = np.argsort(-nodes, kind="stable")
    empty = np.zeros(int(rest.sum()), dtype=bool)
    return Rule(
        nodes[order],
        np.concatenate([measured, shallow.measured[rest] / 2])[order],
        np.concatenate([deep.residuals, shallow.residuals[rest]])[order],
        np.concatenate([deep.converged, empty])[order],
        np.concatenate([deep.single, empty])[order],
        np.concatenate([weights, shallow.weights[rest] / 2])[order],
    )


def _row_bound(rules: tuple[Rule, ...], floor: float) -> float:
    """The mean of the rules' own bounds, and what merging their converged nodes moved."""
    bound = np.mean([wasserstein_bound(r.nodes, r.measured, r.residuals + floor) for r in rules])
    if len(rules) == 1:
        return float(bound)
    deep, shallow = rules
    moved = np.abs(deep.nodes[deep.converged] - shallow.nodes[shallow.converged])
    return float(bound + shallow.measured[shallow.converged] @ moved / 2)


def _row_mean(rules: tuple[Rule, ...], function: Function, size: int) -> tuple[float, float]:
    """(mean of ``function`` by one probe, its variance over the sphere of the complement of known pairs)."""
    row = _merged(rules)
    values = function(row.nodes)
    mean, rest = float(row.weights @ values), ~row.single
    dimension = size - int(row.single.sum())
    if not rest.any() or dimension < 1:
        return mean, 0.0
    share = row.weights[rest] / row.weights[rest].sum()
    spread = float(share @ (values[rest] - share @ values[rest]) ** 2)
    return mean, (dimension / size) ** 2 * 2 / (dimension + 2) * spread
