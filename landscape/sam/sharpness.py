"""How much the loss rises near the weights: steepest points of balls, ascent in them, and the expansion.

The sharpness of SAM is the largest L(w + ε) − L(w) over ‖ε‖_p ≤ ρ (Foret et al. 2021, §2); of ASAM over
‖T⁻¹ε‖_p ≤ ρ with T = |w| + η on weights (Kwon et al. 2021, §3); of Keskar et al. (2017, §2.2.2) over the box
|ε_i| ≤ ρ(|w_i| + 1). All of them are balls in ν = T⁻¹ε, and whatever point of a ball is evaluated, its
increase is a lower bound of the largest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.products import DataOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import LandscapeError
from landscape.linalg.operator import norm as length_of
from landscape.machine import is_out_of_memory
from landscape.problem import Problem
from landscape.sam.losses import Losses
from landscape.sam.passes import inner, loss_and_gradient, norm
from landscape.sam.perturbation import Perturbation, Perturbed, p_norm, random_step, steepest

__all__ = ["Around", "Ascent", "Ball", "Increase", "ascend", "ball_of", "groups_of", "slope_error"]

#: The length of a step of the ascent in units of ρ: how it grows after a step that rose, shrinks after one
#: that did not, and when there is nothing left to try.
_LONGER, _SHORTER, _LEAST = 2.0, 0.25, 2.0**-20
#: Examples on which the rounding of a gradient is measured.
_SAMPLE = 64


@dataclass(frozen=True)
class Ball:
    """ε = Tν with ‖ν‖_p ≤ ρ.

    Attributes:
        weights: float64, one tensor a parameter.
        scales: η for each parameter where T = |w| + η, None where T = 1.
        p: the norm, in [1, ∞].
    """

    weights: Sequence[Tensor]
    scales: Sequence[float | None]
    p: float

    def steepest(self, gradient: Sequence[Tensor], radius: float = 1.0) -> Perturbed:
        """The ε of the ball of this ``radius`` that maximises εᵀg."""
        return steepest(gradient, self.weights, self.scales, radius, self.p)

    def inside(self, step: Sequence[Tensor], radius: float) -> list[Tensor]:
        """The nearest point of the ball at p = 2 and p = ∞; shortened towards w at any other p."""
        if math.isinf(self.p):
            return [self._clipped(part, i, radius) for i, part in enumerate(step)]
        length = p_norm([self._divided(part, i) for i, part in enumerate(step)], self.p)
        return list(step) if length <= radius else [part * (radius / length) for part in step]

    def random(self, radius: float, seed: int) -> list[Tensor]:
        """A point on the surface of the ball, its direction in ν isotropic."""
        draws = random_step(self.weights, 1.0, seed, "ascent")
        step = [draw * self._scale(i) for i, draw in enumerate(draws)]
        length = p_norm([self._divided(part, i) for i, part in enumerate(step)], self.p)
        return [part * (radius / length) for part in step]

    def _scale(self, i: int) -> Tensor:
        eta, w = self.scales[i], self.weights[i]
        return torch.ones_like(w) if eta is None else w.abs() + eta

    def _divided(self, part: Tensor, i: int) -> Tensor:
        """ν of a part of ε; where T = 0 the weight cannot move, so both are zero."""
        return part if self.scales[i] is None else (part / self._scale(i)).where(part != 0, 0.0)

    def _clipped(self, part: Tensor, i: int, radius: float) -> Tensor:
        limit = radius * self._scale(i)
        return part.clamp(-limit, limit)


def ball_of(kind: str, names: Sequence[str], weights: Sequence[Tensor], p: float, eta: float) -> Ball:
    """The ball of a kind of sharpness around float64 ``weights``."""
    if kind == "keskar":
        return Ball(weights, [1.0] * len(weights), math.inf)
    rule = Perturbation("adaptive" if kind == "asam" else "gradient", p=p, eta=eta)
    return Ball(weights, rule.steps([torch.zeros_like(w) for w in weights], weights, names, 0.0).scales, p)


@dataclass(frozen=True)
class Ascent:
    """The highest point that an ascent saw, and how many gradients it took."""

    step: list[Tensor]
    gradients: int


def ascend(
    problem: Problem, micro_batch: int, ball: Ball, start: Sequence[Tensor], radius: float, steps: int
) -> Ascent:
    """Projected gradient ascent within a ball from ``start``, the highest point kept.

    A trial goes from the highest point so far along the steepest direction of its gradient in the ball's own
    norm, and back into the ball; its length is doubled after a rise, quartered otherwise. At p = 2 it rests
    only where T∇L(w + ε) = μν, as Lagrange's condition asks of a maximum on the sphere.
    """
    tensors = problem.selection.tensors

    def look(step: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        at = [(w.detach().double() + e).to(w.dtype) for w, e in zip(tensors, step, strict=True)]
        value, gradient = loss_and_gradient(problem, problem.pieces(micro_batch), at)
        return value, [part.double() for part in gradient]

    best, reach, taken = list(start), 1.0, 1
    value, gradient = look(best)
    while taken <= steps and reach >= _LEAST:
        push = ball.steepest(gradient, reach * radius) if math.isfinite(norm(gradient)) else None
        if not math.isfinite(value) or push is None or push.factor == 0:
            break
        trial = ball.inside([e + push.part(i) for i, e in enumerate(best)], radius)
        found, its_gradient = look(trial)
        taken += 1
        if found > value or math.isnan(found):
            best, value, gradient, reach = trial, found, its_gradient, _LONGER * reach
        else:
            reach *= _SHORTER
    return Ascent(best, taken)


@dataclass(frozen=True)
class Increase:
    """What the loss does at a point ε of a ball; ``second`` is NaN where it was not asked for.

    Attributes:
        length: ‖ε‖₂.
        increase: L(w + ε) − L(w), which may be infinite or NaN.
        first, second: εᵀg and ½εᵀHε.
    """

    length: float
    increase: float
    first: float
    second: float


class Around:
    """The loss of some examples around the weights: gradient, steepest direction, increases along it.

    Attributes:
        base: the loss at the weights.
        gradient: float64, one tensor a parameter.
        direction: the steepest point of the ball of radius 1, all zeros where the gradient is.
        slope: εᵀg there; ‖g‖_q for T = 1.
        gradients, evaluations, products: the work done so far, for these examples.
    """

    def __init__(
        self, problem: Problem, losses: Losses, ball: Ball, strategy: Strategy,
        *, seed: int, operator: DataOperator | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.losses, self.ball, self.strategy, self.seed = problem, losses, ball, strategy, seed
        found = loss_and_gradient(problem, problem.pieces(strategy.micro_batch))[1]
        self.gradient = [part.double() for part in found]
        self.base = losses.at()
        self.direction = ball.steepest(self.gradient).parts()
        self.slope = inner(self.gradient, self.direction)
        self.gradients, self.evaluations, self.products = 1, 1, 0
        self._operator = operator

    @property
    def flat(self) -> bool:
        """Whether the gradient is zero, so that there is no steepest direction."""
        return not self.slope

    @cached_property
    def operator(self) -> DataOperator:
        """The Hessian of these examples."""
        if self._operator is not None:
            return self._operator
        return HessianOperator(self.problem, Strategy(self.strategy.micro_batch, 1, 0, 0))

    @cached_property
    def curvature(self) -> float:
        """dᵀHd of the steepest direction d of radius 1."""
        return self.form(self.direction)

    def form(self, step: Sequence[Tensor]) -> float:
        """εᵀHε, with one product."""
        unit, length = self.unit(step)
        if not length:
            return 0.0
        self.products += 1
        return length**2 * float(unit.double() @ self.operator.apply(unit[None])[0])

    def unit(self, step: Sequence[Tensor]) -> tuple[Tensor, float]:
        """(ε as a unit vector (n,) in the arithmetic of products, ‖ε‖₂)."""
        flat = torch.cat([part.reshape(-1) for part in step])
        length = length_of(flat)
        return (flat / (length or 1.0)).to(self.problem.dtype), length

    def point(self, radius: float, steps: int) -> list[Tensor]:
        """The steepest point of the ball, or the highest one that an ascent of ``steps`` finds from there."""
        start = [radius * part for part in self.direction]
        if not steps:
            return start
        if self.flat:
            start = self.ball.random(radius, self.seed)
        found = ascend(self.problem, self.strategy.micro_batch, self.ball, start, radius, steps)
        self.gradients += found.gradients
        return found.step

    def increase(self, step: Sequence[Tensor]) -> float:
        """L(w + ε) − L(w)."""
        self.evaluations += 1
        return self.losses.at(step) - self.base

    def measure(self, radius: float, steps: int, expansion: bool) -> tuple[Increase, list[Tensor]]:
        """What the loss does at the point of the ball of this radius, and that point."""
        step = self.point(radius, steps)
        second = math.nan
        if expansion:
            second = (radius * radius * self.curvature if not steps else self.form(step)) / 2
        found = Increase(norm(step), self.increase(step), inner(self.gradient, step), second)
        return found, step

    def noise(self, step: Sequence[Tensor], increase: float) -> float:
        """What rounding does to ``increase`` at ε: that from other pieces, and the roundoff of two losses."""
        self.evaluations += 2
        other = self.losses.in_other_pieces(step) - self.losses.in_other_pieces()
        return abs(increase - other) + self.roundoff(increase)

    def roundoff(self, increase: float) -> float:
        """What a difference of two losses is wrong by at least."""
        unit = torch.finfo(self.losses.problem.dtype).eps
        return 2 * unit * (abs(self.base) + abs(self.base + increase))


def slope_error(problem: Problem, step: Sequence[Tensor]) -> float:
    """Estimate of the rounding error of εᵀg: of a few examples' gradient, float32 against float64.

    To first order the error of a float64 gradient is the same multiple of its own unit roundoff (Higham 2002,
    §3.1). The gradient of a few examples is longer than that of all, and twice the difference is taken. Where
    the model does not run in both, it is the roundoff of ‖g‖‖ε‖.
    """
    try:
        return _slope_error(problem, step)
    except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
        if is_out_of_memory(error):
            raise
        gradient = loss_and_gradient(problem, [problem.sample(_SAMPLE)])[1]
        return 4 * torch.finfo(problem.dtype).eps * norm(gradient) * norm(step)


def _slope_error(problem: Problem, step: Sequence[Tensor]) -> float:
    double, single = problem.in_dtype(torch.float64), problem.in_dtype(torch.float32)
    piece = single.recast(problem.sample(_SAMPLE))
    low = loss_and_gradient(single, [piece])[1]
    high = loss_and_gradient(double, [double.recast(piece)])[1]
    share = problem.share(piece)
    found = abs(inner([a.double() - b for a, b in zip(low, high, strict=True)], step)) / share
    eps = {dtype: torch.finfo(dtype).eps for dtype in (problem.dtype, torch.float32, torch.float64)}
    rounding = eps[torch.float64] * norm(high) / share * norm(step)
    return 2 * (found * eps[problem.dtype] / eps[torch.float32] + rounding)


def groups_of(examples: int, size: int, seed: int) -> list[Tensor]:
    """Random disjoint groups of ``size`` examples (row numbers, ascending); the last may have fewer."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(examples, generator=generator)
    return [order[first : first + size].sort().values for first in range(0, examples, size)]
