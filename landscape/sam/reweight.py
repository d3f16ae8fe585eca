"""How SAM weighs single examples (Baek, Kolter & Raghunathan 2024, "Why is SAM robust to label noise?").

With one example a batch (1-SAM, §3), SAM steps along ∇l(w + ε) with ε = ρ∇l/‖∇l‖ instead of ∇l, which weighs
the example by ‖∇l(w + ε)‖/‖∇l(w)‖. The gradient is J(w)ᵀ r(w), J the Jacobian of the outputs and
r = ∂l/∂outputs. Perturbing r alone (the logit scale) or J alone (J-SAM, §4) takes the weight apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.sam.per_example import Example, Point, Weights
from landscape.sam.perturbation import conjugate

__all__ = [
    "FIGURES",
    "OneSam",
    "area",
    "figures",
    "gradients",
    "length",
    "median",
    "rank_correlation",
    "step",
]

#: What :func:`figures` finds of an example, in order.
FIGURES = (
    "loss",
    "gradient_norm",
    "perturbed_norm",
    "logit_norm",
    "jacobian_norm",
    "hits",
    "labels",
    "terms",
)
#: Quantile of the normal distribution that 95 % intervals reach to.
_NORMAL = 1.959963984540054

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OneSam:
    """ε_i: the steepest step of length ``rho`` (a multiple of ‖∇l_i‖₂ if ``relative``) in the p-norm."""

    rho: float = 0.05
    relative: bool = False
    p: float = 2.0


def length(gradient: Weights) -> Tensor:
    """‖·‖₂ in float64. Squares of float64 numbers could underflow, so those are scaled first."""
    scale = _largest(gradient).double() if gradient[0].dtype == torch.float64 else None
    scaled = gradient if scale is None else tuple(part / _not_zero(scale) for part in gradient)
    # Converted first: the norm that converts as it goes is three times slower.
    squares = sum(torch.linalg.vector_norm(part.double()).square() for part in scaled)
    assert isinstance(squares, Tensor)
    return squares.sqrt() if scale is None else squares.sqrt() * scale


def _largest(gradient: Weights) -> Tensor:
    return torch.stack([part.abs().amax() for part in gradient if part.numel()]).amax()


def _not_zero(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def step(gradient: Weights, how: OneSam) -> Weights:
    """ε that maximises εᵀ∇l at ‖ε‖_p = ρ (Foret et al. 2021, eq. 2); zero where the gradient is.

    In units of the largest entry, so that gradients of any size have a direction.
    """
    q = conjugate(how.p)
    largest = _largest(gradient)
    units = tuple(part / _not_zero(largest) for part in gradient)
    radius = how.rho * length(gradient) if how.relative else torch.full_like(largest.double(), how.rho)
    if math.isinf(q):  # all on the largest entries, shared equally where several are the same
        sizes = tuple((unit.abs() == 1).to(unit.dtype) for unit in units)
        total = _total(sizes)
    elif q == 2:
        factor = (radius / _not_zero(length(units))).to(largest.dtype)
        return tuple(factor * unit for unit in units)
    else:
        sizes = tuple(unit.abs().pow(q - 1) for unit in units)
        total = _total(tuple(unit.abs().pow(q) for unit in units)) ** (1 / how.p)
    factor = (radius / _not_zero(total)).to(largest.dtype)
    return tuple(factor * size * unit.sign() for size, unit in zip(sizes, units, strict=True))


def _total(sizes: Weights) -> Tensor:
    total = sum(size.sum(dtype=torch.float64) for size in sizes)
    assert isinstance(total, Tensor)
    return total


def gradients(example: Example, here: Point, how: OneSam) -> Iterator[Weights]:
    """The gradients that the weights are ratios of lengths of, one after the other (they may be large).

    J(w)ᵀr(w), J(w+ε)ᵀr(w+ε) and, where outputs lie between, J(w)ᵀr(w+ε) (the logit part) and J(w+ε)ᵀr(w)
    (the Jacobian part: J-SAM). With ρ = 0 they are all the same one.
    """
    plain = here.gradient()
    yield plain
    if how.rho == 0:
        yield from [plain] * (3 if example.of.separable else 1)
        return
    there = example.at(tuple(w + e for w, e in zip(example.weights, step(plain, how), strict=True)))
    del plain
    yield there.gradient()
    if example.of.separable:
        yield here.pull(there.residual)
        yield there.pull(here.residual)


def figures(example: Example, how: OneSam) -> tuple[Tensor, ...]:
    """The :data:`FIGURES` of an example, float64; the logit and Jacobian parts NaN where there are none."""
    here = example.at(example.weights)
    lengths = [length(gradient) for gradient in gradients(example, here, how)]
    lengths += [torch.full_like(lengths[0], math.nan)] * (4 - len(lengths))
    found = (here.loss, *lengths, here.hits, here.labels, here.terms)
    return tuple(figure.double() for figure in found)


def rank_correlation(x: Floats, y: Floats) -> tuple[float, tuple[float, float]]:
    """Spearman's correlation of two samples, ties sharing their ranks, with its 95 % interval.

    The interval is Fisher's z with the standard error √((1 + r²/2)/(n − 3)) (Bonett & Wright 2000). A
    perfect order is taken, on its inner side, for one that lacks an exchange of neighbours. NaN for fewer
    than 4 pairs, or where one of them does not vary.
    """
    n, nothing = len(x), (math.nan, (math.nan, math.nan))
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nothing
    found = float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
    most = 1 - 12 / (n * (n**2 - 1))
    z = math.atanh(max(-most, min(most, found)))
    half = _NORMAL * math.sqrt((1 + found**2 / 2) / (n - 3))
    return found, (min(math.tanh(z - half), found), max(math.tanh(z + half), found))


def _ranks(values: Floats) -> Floats:
    """Ranks from 1 on, their mean where values are the same."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def median(values: Floats) -> tuple[float, tuple[float, float]]:
    """The median with an interval that holds that of the population with 95 % chance at least.

    Its ends are order statistics (David & Nagaraja 2003, §7.1): nothing is assumed of the distribution. NaN
    for fewer than 6 values, of which even the extremes are not enough.
    """
    from scipy.stats import binom

    n = len(values)
    if not n:
        return math.nan, (math.nan, math.nan)
    ordered = np.sort(values)
    rank = int(binom.ppf(0.025, n, 0.5))  # the largest r with P[fewer than r below the median] ≤ 2.5 %
    if rank < 1:
        return float(np.median(ordered)), (math.nan, math.nan)
    return float(np.median(ordered)), (float(ordered[rank - 1]), float(ordered[n - rank]))


def area(high: Floats, low: Floats) -> tuple[float, tuple[float, float]]:
    """P[a value of ``high`` exceeds one of ``low``], ties half (the area under the ROC curve).

    The interval is that of Newcombe (2006, part 2, method 5): the values whose own standard error reaches to
    what was found, so that it is not empty at 0 and 1. NaN where a sample is empty.
    """
    m, n = len(high), len(low)
    if not (m and n):
        return math.nan, (math.nan, math.nan)
    ranks = _ranks(np.concatenate([high, low]))
    found = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    return found, (_reaching(found, m, n, 0.0), _reaching(found, m, n, 1.0))


def _reaching(found: float, m: int, n: int, end: float) -> float:
    """The area between ``found`` and ``end`` that is 1.96 of its own standard errors away (by bisection)."""
    inner, outer = found, end
    for _ in range(60):
        middle = (inner + outer) / 2
        within = abs(middle - found) <= _NORMAL * _area_error(middle, m, n)
        inner, outer = (middle, outer) if within else (inner, middle)
    return inner


def _area_error(value: float, m: int, n: int) -> float:
    """Hanley & McNeil 1982 for exponential distributions, both samples taken for of the mean size."""
    others = (m + n) / 2 - 1
    spread = 1 + others * ((1 - value) / (2 - value) + value / (1 + value))
    return math.sqrt(value * (1 - value) * spread / (m * n))
