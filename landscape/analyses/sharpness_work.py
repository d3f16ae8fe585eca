"""The work behind ``landscape sharpness``: group by group, length by length, direction by direction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.sharpness import Settings
from landscape.analyses.work import Work
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy, choose_strategy
from landscape.errors import ComputationError, ConfigurationError
from landscape.linalg.operator import norm as length_of
from landscape.linalg.probes import derived_seed
from landscape.problem import Evaluation, Problem
from landscape.results import Result, TraceResult
from landscape.sam.average import Average, average, looks_of, variance_of_forms, variance_of_trace
from landscape.sam.losses import losses_of
from landscape.sam.perturbation import random_step
from landscape.sam.sharpness import Around, Ball, ball_of, groups_of, slope_error

__all__ = ["CONFIDENCE", "ROW", "SharpnessWork", "random_average"]

CONFIDENCE = 0.95
#: What is known of a group at a length: its columns.
ROW = (
    *("examples", "terms", "base", "length", "increase", "first", "second", "data_error", "roundoff", "flat"),
)


class SharpnessWork(Work):
    """One run of ``sharpness``.

    Attributes:
        rows: one a group and length, as :data:`ROW` says.
        random: one a direction: the rise at each length, then uᵀHu and ‖Hu‖² (NaN without products).
        looks: (directions, mean, half-width, risk) whenever the interval was looked at.
    """

    def __init__(
        self, problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
    ) -> None:
        self.settings = settings
        if settings.m is not None and settings.m > problem.examples:
            raise ConfigurationError(
                f"-m {settings.m} is more than all the data",
                found=f"{problem.examples} examples",
                do="leave -m out to perturb for all data at once",
            )
        super().__init__(problem, start)
        self.losses = losses_of(problem, self.strategy["micro_batch"])
        arrays = start.saved.arrays if start.saved is not None else {}
        self.rows = [list(map(float, row)) for row in arrays.get("rows", ())]
        self.random = [list(map(float, row)) for row in arrays.get("random", ())]
        self.looks = [list(map(float, row)) for row in arrays.get("looks", ())]
        if start.saved is None:
            self.counters |= {
                **dict.fromkeys(("evaluations", "products", "noise", "trace_error"), 0.0),
                **dict.fromkeys(("first_error", "second_error"), math.nan),
                "gradients": 1.0,
                "empty": [],
                "base": None,
                "random_length": None,
                "error_method": "",
                "arithmetic": str(self.losses.problem.dtype).removeprefix("torch."),
                "trace": _stored(inputs.get("trace")),
                "weights": length_of(self.weights_flat()),
            }
        self._check_radius()

    def weights_flat(self) -> Tensor:
        return self.problem.selection.flat()

    def evaluate(self) -> Evaluation:
        """Loss and gradient, and with them the way products are to be made, if there are to be any."""
        if self.strategy or not self.settings.expansion:
            return super().evaluate()
        reserved = min(self.problem.memory // 2, 10 * 8 * self.problem.size)
        chosen, evaluation = choose_strategy(self.problem, reserved)
        self.strategy = chosen.to_json()
        return evaluation

    @cached_property
    def pieces(self) -> Strategy:
        return Strategy(**{name: self.strategy[name] for name in Strategy.__dataclass_fields__})

    @cached_property
    def operator(self) -> HessianOperator:
        """The Hessian of all the data."""
        return HessianOperator(self.problem, self.pieces)

    @cached_property
    def weights(self) -> list[Tensor]:
        return [w.detach().double() for w in self.problem.selection.tensors]

    @cached_property
    def ball(self) -> Ball:
        s, names = self.settings, self.problem.selection.layout.names
        return ball_of(s.kind, names, self.weights, s.norm, s.eta)

    @property
    def radii(self) -> list[float]:
        """The lengths, in the units of the weights."""
        return [self.settings.rho * self._unit * factor for factor in self.settings.lengths]

    @property
    def _unit(self) -> float:
        return float(self.counters["gradient_norm"]) if self.settings.relative else 1.0

    def _check_radius(self) -> None:
        radius = self.radii[0]
        if not radius > 0:
            raise ComputationError(
                "the gradient is zero, and --relative takes ρ in units of it",
                do="leave --relative out",
            )

    @cached_property
    def groups(self) -> list[Tensor | None]:
        """Row numbers of each group; None for all the data."""
        if self.settings.m is None:
            return [None]
        seed = derived_seed(self.seed, "groups")
        return list(groups_of(self.problem.examples, self.settings.m, seed))

    def run(self) -> Iterator[State]:
        """Groups and their lengths, then random directions."""
        yield self._state("measuring")
        if self.settings.kind != "average":
            yield from self._maxima()
        if self.settings.directions:
            yield from self._directions()
        yield self._state("done", over=True)

    def _maxima(self) -> Iterator[State]:
        """A row for each group and length."""
        count = len(self.radii)
        for g, rows in enumerate(self.groups):
            if g in self.counters["empty"] or len(self.rows) >= (g + 1 - self._empty_before(g)) * count:
                continue
            around = self._around(rows)
            if around is None:
                self.counters["empty"].append(g)
                continue
            for k in range(len(self.rows) - (g - self._empty_before(g)) * count, count):
                self.rows.append(self._row(around, k))
                yield self._state(self._words(g, k))
        if self.rows and not self.settings.ascent and all(row[ROW.index("flat")] for row in self.rows):
            raise _no_direction()

    def _empty_before(self, g: int) -> int:
        return sum(other < g for other in self.counters["empty"])

    def _around(self, rows: Tensor | None) -> Around | None:
        """The loss of a group around the weights; None if it has no terms."""
        problem, losses, operator = self.problem, self.losses, None
        if rows is None:
            operator = self.operator if self.settings.expansion else None
        else:
            problem, losses = problem.minibatch(rows), losses.on(rows)
            if next(problem.pieces(self.pieces.micro_batch), None) is None:
                return None
        seed = derived_seed(self.seed, "ascent", 0 if rows is None else int(rows[0]))
        found = Around(problem, losses, self.ball, self.pieces, seed=seed, operator=operator)
        if rows is None and found.flat and not self.settings.ascent:
            raise _no_direction()
        return found

    def _row(self, around: Around, k: int) -> list[float]:
        """A group at the k-th length; the first is ρ itself, the others are the sweep's."""
        s, radius, problem = self.settings, self.radii[k], around.problem
        before = around.gradients
        found, step = around.measure(radius, s.ascent, s.expansion and k == 0)
        first, second, error = found.first, found.second, math.nan
        if k == 0:
            self._check(found.increase, around.base, radius)
            if len(self.rows) == 0:
                self._errors(around, step, found.increase)
        else:
            first = radius * around.slope
            second = radius**2 * around.curvature / 2 if s.expansion else math.nan
        if s.m is None:
            known = around.losses.data_error(step, around.base)
            error = known.value
            if k == 0:
                self.counters["error_method"] = known.method
        share = problem.examples / self.problem.examples
        products = s.expansion * (int(k == 0) + int(k == 1 and s.ascent > 0))
        evaluations = 1 + (k == 0) + (s.m is None) * (1 + (k == 0))
        self._spent(share * ((k == 0) + around.gradients - before), share * evaluations, share * products)
        roundoff = around.roundoff(found.increase)
        return [
            *map(float, (problem.examples, problem.terms, around.base, found.length, found.increase)),
            *map(float, (first, second, error, roundoff, around.flat)),
        ]

    def _check(self, increase: float, base: float, radius: float) -> None:
        if not math.isfinite(increase):
            raise ComputationError(
                f"the loss is {base + increase} at a distance of ρ from the weights",
                found=f"ρ = {radius:g}, and a loss of {base:g} at the weights",
                do="take a smaller --rho, or --dtype float64",
            )

    def _errors(self, around: Around, step: list[Tensor], increase: float) -> None:
        """What rounding does to the terms, measured once."""
        c, share = self.counters, around.problem.examples / self.problem.examples
        c["noise"] = around.noise(step, increase)
        c["first_error"] = slope_error(around.problem, step)
        if self.settings.expansion:
            unit, length = around.unit(step)
            c["second_error"] = length**2 / 2 * around.operator.error(unit) if length else 0.0
        self._spent(0.0, 2 * share, 0.0)

    def _directions(self) -> Iterator[State]:
        """Random directions until the interval is narrow enough, or there are as many as allowed."""
        c, s = self.counters, self.settings
        points = looks_of(s.directions, s.tolerance, CONFIDENCE)
        if c["base"] is None:
            c["base"] = self.losses.at()
            c["random_length"] = self._random_length()
            self._spent(0.0, 1.0, 0.0)
        while len(self.looks) < len(points) and not self._narrow():
            count, risk = points[len(self.looks)]
            while len(self.random) < count:
                self.random.append(self._direction(len(self.random)))
                if len(self.random) < count:
                    yield self._state(self._random_words(), total=self._expected(points))
            found = random_average(self._table, c, c["random_length"], self.problem.size, risk)
            self.looks.append([float(count), found.mean, found.half_width, risk])
            yield self._state(self._random_words(), total=self._expected(points))

    def _random_length(self) -> float:
        """ρ where it is Euclidean; else the length of the ε that were found, for the same distance."""
        s = self.settings
        if s.kind == "average" or (s.kind == "sam" and s.p == 2):
            return self.radii[0]
        first = np.array(self.rows)[:: len(self.radii)]
        terms, lengths = (first[:, ROW.index(name)] for name in ("terms", "length"))
        return float((terms * lengths).sum() / terms.sum())

    def _narrow(self) -> bool:
        """Whether the last interval is as narrow as asked for."""
        if not self.looks or not self.settings.tolerance:
            return False
        _, mean, width, _ = self.looks[-1]
        return width <= self.settings.tolerance * abs(mean)

    @property
    def _table(self) -> np.ndarray:
        return np.array(self.random)

    def _direction(self, i: int) -> list[float]:
        """The rise along ±u at each length, and the curvature along u."""
        c, s = self.counters, self.settings
        radii = self.radii if s.kind == "average" else [c["random_length"]]
        direction = random_step(self.weights, 1.0, self.seed, f"direction {i}")
        rises = [self._rise(direction, radius) for radius in radii]
        if not math.isfinite(rises[0]):
            beside = "" if s.kind == "average" else ", or --no-expansion"
            raise ComputationError(
                f"the loss is not finite at a distance of {radii[0]:g} in a random direction",
                found=f"a loss of {c['base']:g} at the weights",
                do=f"take a smaller --rho, or --dtype float64{beside}",
            )
        if i == 0:
            c["noise"] = max(c["noise"], self._random_noise(direction, radii[0], rises[0]))
        self._spent(0.0, 2.0 * len(radii), 0.0)
        if not s.expansion or c["trace"] is not None:
            return [*rises, math.nan, math.nan]
        return [*rises, *self._curvature(direction, first=i == 0)]

    def _rise(self, direction: list[Tensor], radius: float) -> float:
        plus, minus = (self.losses.at(direction, sign * radius) for sign in (1.0, -1.0))
        return (plus + minus) / 2 - float(self.counters["base"])

    def _random_noise(self, direction: list[Tensor], radius: float, rise: float) -> float:
        """What rounding does to the rise along a direction."""
        losses, base = self.losses, float(self.counters["base"])
        ends = [losses.in_other_pieces([sign * radius * part for part in direction]) for sign in (1.0, -1.0)]
        self._spent(0.0, 3.0, 0.0)
        unit = torch.finfo(losses.problem.dtype).eps
        other = sum(ends) / 2 - losses.in_other_pieces()
        return abs(rise - other) + 2 * unit * (2 * abs(base) + abs(rise))

    def _curvature(self, direction: list[Tensor], first: bool) -> tuple[float, float]:
        """uᵀHu and ‖Hu‖² of a direction."""
        unit = torch.cat([part.reshape(-1) for part in direction]).to(self.problem.dtype)
        image = self.operator.apply(unit[None])[0]
        self._spent(0.0, 0.0, 1.0)
        if first:
            self.counters["trace_error"] = self.problem.size * self.operator.error(unit)
        squared = float(unit.double() @ unit.double())  # not quite 1 in float32
        return float(unit.double() @ image) / squared, float(image @ image) / squared

    def _spent(self, gradients: float, evaluations: float, products: float) -> None:
        """Count work, in passes over all the data."""
        self.counters["gradients"] += gradients
        self.counters["evaluations"] += evaluations
        self.counters["products"] += products

    def _words(self, g: int, k: int) -> str:
        group = f"group {g + 1} of {len(self.groups)}" if len(self.groups) > 1 else "all data"
        return group if len(self.radii) == 1 else f"{group}, length {k + 1} of {len(self.radii)}"

    def _random_words(self) -> str:
        if self.looks and len(self.looks[-1]) and math.isfinite(self.looks[-1][2]):
            return f"random directions: {self.looks[-1][1]:.3g} ± {self.looks[-1][2]:.2g}"
        return "random directions"

    def _expected(self, points: list[tuple[int, float]]) -> int:
        """Directions until the end: the half-width falls as the root of their number."""
        most = points[-1][0]
        if not self.looks or not self.settings.tolerance:
            return most
        count, mean, width, _ = self.looks[-1]
        aim = self.settings.tolerance * abs(mean)
        if not (aim > 0 and math.isfinite(width)):
            return most
        wanted = min(float(most), count * (width / aim) ** 2)
        return next(int(point) for point, _ in points if point >= wanted)

    def _state(self, text: str, over: bool = False, total: int | None = None) -> State:
        count = 0 if self.settings.kind == "average" else len(self.groups) * len(self.radii)
        most = self.settings.directions if total is None else total
        done = len(self.rows) + len(self.random)
        return self.state(text, self._save, done=done, total=count + most, over=over)

    def _save(self) -> Saved:
        s = self.settings
        width = len(self.radii) if s.kind == "average" else 1
        arrays = {
            "rows": np.array(self.rows, dtype=float).reshape(len(self.rows), len(ROW)),
            "random": np.array(self.random, dtype=float).reshape(len(self.random), width + 2),
            "looks": np.array(self.looks, dtype=float).reshape(len(self.looks), 4),
        }
        reached = self._narrow() or not s.tolerance
        return Saved(
            {**arrays, **self.extra},
            {**self.counters, "empty": list(self.counters["empty"]), "met": reached, "radii": self.radii},
        )


def random_average(
    table: np.ndarray, counters: Mapping[str, Any], radius: float, size: int, risk: float, column: int = 0
) -> Average:
    """The mean rise over the directions so far with its interval, rounding included.

    Where curvatures are known, of the same directions or from a stored trace, they give a second estimate of
    the variance of ½ρ²uᵀHu, see :func:`landscape.sam.average.average`.
    """
    stored, forms, squares = counters["trace"], table[:, -2], table[:, -1]
    variance = None
    if len(forms) and np.isfinite(forms).all():
        variance = variance_of_forms(forms, squares, size)
    elif stored is not None and stored["frobenius"] is not None:
        variance = variance_of_trace(stored["trace"], stored["frobenius"] ** 2, size)
    found = average(table[:, column], risk, None if variance is None else (radius**2 / 2) ** 2 * variance)
    return Average(found.mean, found.half_width + counters["noise"])


def _stored(result: Result | None) -> dict[str, Any] | None:
    """What is needed of a stored trace."""
    if not isinstance(result, TraceResult) or not np.isfinite(result.interval).all():
        return None
    known = math.isfinite(result.frobenius)
    return {
        "trace": result.trace,
        "half_width": result.half_width,
        "frobenius": result.frobenius if known else None,
        "id": result.provenance.id if result.provenance else "",
    }


def _no_direction() -> ComputationError:
    return ComputationError(
        "the gradient is zero, so no direction is the steepest",
        found="a critical point of the loss",
        do="use --kind average, or --steps 20, which begins at a random point",
    )
