"""When to look at an estimate and when to stop, so that the interval at which one stops covers as it says.

Intervals are looked at after 8, 16, 32, … probes and at the end of the budget, never in between. The risk of
missing the truth is shared among all the looks that the budget allows (Bonferroni), so whichever look ends
the search, its interval holds the truth with the whole confidence. Testing after every probe would not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

from landscape.linalg.operator import Operator

__all__ = ["Draw", "Goal", "Look", "Stage", "TraceEstimator", "half_width", "quantile", "stages"]

#: ``draw(name, i)``: the i-th random vector (n,) for the purpose ``name``, the same at every call.
Draw = Callable[[str, int], Tensor]

_FIRST_LOOK = 8


@dataclass(frozen=True)
class Goal:
    """When to stop.

    Attributes:
        budget: products at most; those of a basis taken over do not count.
        tol, atol: stop when the half-width is at most max(tol·|trace|, atol); both 0: look once, at the end.
        confidence: of the interval, at whatever look it stops.
    """

    budget: int
    tol: float = 0.0
    atol: float = 0.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f"a budget of {self.budget} products: at least one is needed")
        if not (self.tol >= 0 and self.atol >= 0):
            raise ValueError(f"tolerances must not be negative: tol {self.tol}, atol {self.atol}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"a confidence is between 0 and 1, not {self.confidence}")

    @property
    def can_stop(self) -> bool:
        """Whether any interval could end the search before the budget does."""
        return self.tol > 0 or self.atol > 0

    def reached(self, look: Look) -> bool:
        """Whether the interval is narrow enough (never, if there is none)."""
        return look.half_width <= max(self.tol * abs(look.trace), self.atol)


@dataclass(frozen=True)
class Stage:
    """A point at which to look: the size of the basis, the number of probes, and the risk spent there."""

    rows: int
    probes: int
    risk: float


@dataclass(frozen=True)
class Look:
    """Estimates and their intervals at one moment; NaN where something is not known.

    Attributes:
        products: spent so far.
        rows: dimension of the subspace whose trace is exact.
        probes: random vectors that the rest is estimated from.
        confidence: of this look's intervals, each by itself: higher than the goal's if looks are several.
        trace, half_width: Tr H ± half_width.
        frobenius, frobenius_low, frobenius_high: ‖H‖_F and its interval.
        participation, participation_low, participation_high: (Tr H)²/‖H‖_F² and its interval: the number
            of eigenvalues, were all those that are not zero equal.
        layers, layer_half_widths: (L,) trace of each diagonal block, in the order of the blocks given.
    """

    products: int
    rows: int
    probes: int
    confidence: float
    trace: float
    half_width: float
    frobenius: float
    frobenius_low: float
    frobenius_high: float
    participation: float
    participation_low: float
    participation_high: float
    layers: np.ndarray
    layer_half_widths: np.ndarray

    @property
    def reason(self) -> str:
        """Why there is no interval; empty if there is one."""
        if np.isfinite(self.half_width):
            return ""
        return f"{self.products} products leave {self.probes} random vectors: an interval needs at least 2"


def quantile(probes: int, risk: float) -> float:
    """Student's t at 2p − 1 degrees of freedom, p ``probes``: exceeded in size with probability ``risk``."""
    return -float(stdtrit(2 * probes - 1, risk / 2))


def half_width(values: np.ndarray, second: np.ndarray, risk: float) -> np.ndarray:
    """Half-widths t·√(max(s², v)/p) of the means of ``values`` (p, …), NaN below two of them.

    s² is the sample variance. A handful of values of a skew distribution may all miss what makes the
    variance large, therefore ``second``, v (…), another estimate of the variance of one value from the same
    probes. Together they are worth about 2p − 1 degrees of freedom (tests/benchmarks/coverage.py measures
    the coverage of this rule).
    """
    p = len(values)
    if p < 2:
        return np.full(np.shape(values)[1:], np.nan)
    width: np.ndarray = quantile(p, risk) * np.sqrt(np.maximum(values.var(axis=0, ddof=1), second) / p)
    return width


def stages(
    goal: Goal, allocate: Callable[[int], tuple[int, int]], complete: tuple[int, int] | None = None
) -> list[Stage]:
    """The looks that a budget allows, with the risk shared equally among them.

    Args:
        allocate: products → (rows of the basis, probes).
        complete: (products, rows) that make the basis span the whole space, where that can be done.
    """
    points: list[tuple[int, int]] = []
    if complete is not None and complete[0] <= goal.budget:
        early = _doubling(goal, allocate, allocate(complete[0] // 2)[1])
        points = [point for point in early if complete[0] + point[1] <= goal.budget]
        if points or not early:
            points.append((complete[1], points[-1][1] if points else 0))
    if not points:
        # A look just before the last one would cost confidence and save nothing.
        points = [*_doubling(goal, allocate, allocate(goal.budget)[1] / 2**0.5), allocate(goal.budget)]
    risk = (1 - goal.confidence) / len(points)
    return [Stage(rows, probes, risk) for rows, probes in points]


def _doubling(goal: Goal, allocate: Callable[[int], tuple[int, int]], limit: float) -> list[tuple[int, int]]:
    """The looks at 8, 16, 32, … probes up to ``limit``; none if no look can end the search."""
    points, probes, total = [], _FIRST_LOOK, _FIRST_LOOK
    while goal.can_stop and probes <= limit:
        while allocate(total)[1] < probes:
            total += 1
        points.append(allocate(total))
        probes *= 2
    return points


class TraceEstimator(ABC):
    """A trace estimate that grows product by product, and can be saved and taken up after any of them.

    Attributes:
        products: made so far.
        looks: every look so far; the last one is the result.
        done: nothing more is to be done: the goal is reached, the budget spent, or the value exact.
    """

    def __init__(self, operator: Operator, goal: Goal, blocks: Sequence[slice], floor: float) -> None:
        self.operator, self.goal, self.floor = operator, goal, floor
        self.blocks = _checked(blocks, operator.size)
        self.products = 0
        self.looks: list[Look] = []
        self.done = False
        self.stages = self.plan()

    @abstractmethod
    def plan(self) -> list[Stage]:
        """The looks to come."""

    @abstractmethod
    def next_vector(self) -> Tensor:
        """The vector (n,) in the operator's dtype whose product is due. Changes nothing."""

    @abstractmethod
    def take(self, product: Tensor) -> None:
        """Take in the product (n,) float64 with :meth:`next_vector`."""

    @abstractmethod
    def complete(self, stage: Stage) -> bool:
        """Whether ``stage`` is reached."""

    @abstractmethod
    def look(self, risk: float) -> Look:
        """The estimates as they stand, with intervals that miss with probability ``risk``."""

    @property
    def stage(self) -> Stage:
        """The stage on the way."""
        return self.stages[min(len(self.looks), len(self.stages) - 1)]

    @property
    def met(self) -> bool:
        """Whether the last look's interval is as narrow as asked for."""
        return bool(self.looks) and self.goal.reached(self.looks[-1])

    def extend(self, product: Tensor) -> Look | None:
        """Take in a product; the look, if this was the moment for one."""
        self.take(product)
        self.products += 1
        if not self.complete(self.stage):
            return None
        look = self.look(self.stage.risk)
        self.looks.append(look)
        self.done = self.goal.reached(look) or len(self.looks) == len(self.stages) or self.exact
        return look

    @property
    def exact(self) -> bool:
        """Whether the basis spans the whole space."""
        return False

    def step(self) -> Look | None:
        """One product; the look, if this was the moment for one."""
        return self.extend(self.operator.apply(self.next_vector()[None])[0])

    def run(self) -> Iterator[Look | None]:
        """Step until done, yielding after each product."""
        while not self.done:
            yield self.step()

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to go on, with :meth:`counters`."""
        scalars = [[getattr(look, name) for name in _SCALARS] for look in self.looks]
        layers = [[look.layers, look.layer_half_widths] for look in self.looks]
        count = len(self.looks)
        return {
            "looks": np.array(scalars, dtype=float).reshape(count, len(_SCALARS)),
            "look_layers": np.array(layers, dtype=float).reshape(count, 2, len(self.blocks)),
        }

    def counters(self) -> dict[str, Any]:
        """Small numbers that belong to :meth:`arrays`."""
        return {"products": self.products, "done": self.done}

    def restore(self, arrays: Mapping[str, np.ndarray], counters: Mapping[str, Any]) -> None:
        """Go on from what was saved, in an estimator made with the same arguments."""
        self.products, self.done = int(counters["products"]), bool(counters["done"])
        self.looks = [
            _look(scalars, *layers)
            for scalars, layers in zip(arrays["looks"], arrays["look_layers"], strict=True)
        ]


_SCALARS = [field.name for field in fields(Look) if not field.name.startswith("layer")]
_COUNTS = ("products", "rows", "probes")


def _look(scalars: np.ndarray, layers: np.ndarray, widths: np.ndarray) -> Look:
    named: dict[str, Any] = dict(zip(_SCALARS, map(float, scalars), strict=True))
    counts = {name: int(named.pop(name)) for name in _COUNTS}
    return Look(**counts, **named, layers=layers, layer_half_widths=widths)


def _checked(blocks: Sequence[slice], size: int) -> tuple[slice, ...]:
    """Blocks as given, each within 0 … size, ascending and disjoint."""
    end = 0
    for block in blocks:
        if block.step not in (None, 1) or not end <= block.start <= block.stop <= size:
            raise ValueError(f"blocks must be ascending, disjoint and within 0 … {size}; found {block}")
        end = block.stop
    return tuple(blocks)
