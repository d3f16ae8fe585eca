"""The work behind ``landscape trace``, product by product, and its result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.inputs import taken_over
from landscape.analyses.trace import Settings
from landscape.analyses.work import MatrixWork, common_fields, itemsize
from landscape.linalg.complement import ComplementTrace
from landscape.linalg.noise import rounding_floor
from landscape.linalg.operator import norm
from landscape.linalg.subspace import KrylovSpace
from landscape.linalg.trace import (
    Goal,
    Look,
    TraceEstimator,
    draws,
    hutchinson,
    hutchpp,
    krylov_trace,
    room,
    xtrace,
)
from landscape.parameters import Layout, layers
from landscape.problem import Problem
from landscape.results import EigenResult, Result, TraceResult

__all__ = ["TraceWork", "trace_result"]

CONFIDENCE = 0.95
#: Random vectors below which Frobenius norm and effective dimension get no interval: it covered 86 to 92 %.
_FEWEST = 15
#: What a look says, as it is saved.
_FIGURES = (
    *("products", "rows", "probes", "trace", "half_width", "frobenius", "frobenius_low", "frobenius_high"),
    *("participation", "participation_low", "participation_high"),
)


class TraceWork(MatrixWork):
    """One run of ``trace``."""

    kept = ("diagonal",)

    def __init__(
        self, problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
    ) -> None:
        self.settings = settings
        vectors = problem.size * itemsize(problem)
        super().__init__(
            problem, settings, start, min(problem.memory // 2, 3 * settings.max_products * vectors)
        )
        if start.saved is None:
            found = inputs.get("eigen")
            rows, stored = room(problem.memory // 2, problem.size, itemsize(problem), settings.max_products)
            self.strategy.setdefault("rows", rows)
            self.strategy.setdefault("stored", max(8, stored))
            self.counters["taken_over"] = 0
            self.estimator = self._estimator(found if isinstance(found, EigenResult) else None)
            return
        arrays, counters = start.saved.arrays, self.counters
        if counters["taken_over"]:
            found = _as_result(arrays, counters["taken_over"])
            self.estimator = self._estimator(found)
        else:
            self.estimator = self._estimator(None)
        own = {n.removeprefix("trace_"): a for n, a in arrays.items() if n.startswith("trace_")}
        self.estimator.restore(own, counters["estimator"])
        self.estimator.floor = counters["floor"]

    def _estimator(self, found: Any) -> TraceEstimator:
        s, problem = self.settings, self.problem
        draw = draws(problem.size, self.seed, s.method)
        goal = Goal(s.max_products, s.tol, s.atol, CONFIDENCE)
        blocks = _blocks(problem.selection.layout) if s.per_layer else []
        if s.method == "xtrace":
            return xtrace(self.operator, draw, goal)
        rows, stored = self.strategy["rows"], self.strategy["stored"]
        options: dict[str, Any] = {"blocks": blocks, "stored": stored, "diagonal": s.diagonal}
        if s.method == "hutchinson":
            return hutchinson(self.operator, draw, goal, **options)
        if s.method == "hutch++":
            return hutchpp(self.operator, draw, goal, rows=rows, **options)
        krylov = None
        if found is not None:
            krylov = taken_over(self.operator, found, rows)
            self.counters["taken_over"] = krylov.steps
        return krylov_trace(self.operator, draw, goal, krylov=krylov, rows=rows, **options)

    def run(self) -> Iterator[State]:
        """Products until the interval is as narrow as asked for, or the budget is spent."""
        estimator = self.estimator
        yield self._state("measuring")
        if self.counters["taken_over"] and not estimator.products:
            assert isinstance(estimator, ComplementTrace)
            assert isinstance(estimator.space, KrylovSpace)
            self._known_already(estimator.space)
        while not estimator.done:
            self._step()
            yield self._state(self._words())
        if self.settings.diagonal:
            assert isinstance(estimator, ComplementTrace)
            values, errors = estimator.diagonal()
            errors = np.hypot(errors, self.counters["floor"])
            if self.settings.spatial_average:
                layout = self.problem.selection.layout
                values, errors = spatial_average(layout, values), spatial_average(layout, errors)
            self.extra["diagonal"] = np.stack([values, errors])
        yield self._state("done", over=True)

    def _step(self) -> None:
        """One product; the first one shows what products are wrong by."""
        estimator, c = self.estimator, self.counters
        vector = estimator.next_vector()
        product = self.operator.apply(vector[None])[0]
        if not (estimator.products or c["taken_over"]):
            scale = norm(product) / norm(vector)
            rounding = rounding_floor(self.problem.dtype, scale, 1)
            c["floor"] = estimator.floor = self.product_error(product) + rounding
        estimator.extend(product)
        self.spent(1, 1)

    def _known_already(self, space: KrylovSpace) -> None:
        """What products are off by, from a basis taken over; the value itself where that is the whole space.

        The next product is that of the last Krylov vector, and short; that of the first one is known.
        """
        estimator, krylov, c = self.estimator, space.krylov, self.counters
        rows = krylov.basis[: krylov.steps + 1]
        image = torch.from_numpy(krylov.relation[:, 0].copy()).to(rows) @ rows
        rounding = rounding_floor(self.problem.dtype, krylov.scale, 1)
        c["floor"] = estimator.floor = self.product_error(image.double()) + rounding
        if estimator.exact:
            estimator.looks.append(estimator.look(1 - CONFIDENCE))
            estimator.done = True

    def _words(self) -> str:
        if not self.estimator.looks:
            return "trace"
        look = self.estimator.looks[-1]
        return f"trace {look.trace:.4g} ± {look.half_width:.2g}"

    def _expected(self) -> int:
        """Products until the end: a half-width falls at least as the root of the number of products."""
        estimator, goal = self.estimator, self.estimator.goal
        if not estimator.looks or not goal.can_stop:
            return goal.budget
        look = estimator.looks[-1]
        aim = max(goal.tol * abs(look.trace), goal.atol)
        if not (math.isfinite(look.half_width) and aim > 0):
            return goal.budget
        return min(goal.budget, math.ceil(look.products * max(1.0, look.half_width / aim)))

    def _state(self, text: str, over: bool = False) -> State:
        return self.state(text, self._save, done=self.counters["products"], total=self._expected(), over=over)

    def _save(self) -> Saved:
        estimator = self.estimator
        looks = list(estimator.looks)
        if not looks and estimator.products:
            looks = [estimator.look(1 - CONFIDENCE)]
        own = {f"trace_{name}": array for name, array in estimator.arrays().items()}
        figures = np.array([[getattr(look, name) for name in _FIGURES] for look in looks], dtype=float)
        arrays = {
            **own,
            **self.extra,
            "figures": figures.reshape(len(looks), len(_FIGURES)),
            "layer_figures": _layer_figures(looks),
        }
        counters = {
            **self.counters,
            "estimator": estimator.counters(),
            "met": estimator.met or not (estimator.goal.can_stop or (looks and looks[-1].reason)),
            "exact": estimator.exact,
            "over": estimator.done,
        }
        return Saved(arrays, counters)


def _layer_figures(looks: list[Look]) -> np.ndarray:
    """(2, layers) traces and half-widths of the last look."""
    return np.stack([looks[-1].layers, looks[-1].layer_half_widths]) if looks else np.zeros((2, 0))


def _as_result(arrays: Mapping[str, np.ndarray], rows: int) -> Any:
    """What was taken over at the beginning, out of a saved state."""

    class Kept:
        krylov_basis = arrays["trace_space_basis"][: rows + 1]
        krylov_relation = arrays["trace_space_relation"][: rows + 1, :rows]

    return Kept


def _blocks(layout: Layout) -> list[slice]:
    """Where each layer lies in the vector; its parameters follow each other."""
    where = dict(layout.slices())
    return [slice(where[members[0]].start, where[members[-1]].stop) for members in layers(layout).values()]


def spatial_average(layout: Layout, diagonal: np.ndarray) -> np.ndarray:
    """The mean over the positions of each convolution kernel (n,), (Yao et al. 2021, eq. 10); others stay.

    Of standard errors it is an upper bound: that of a mean is at most the mean of them.
    """
    parts = []
    for part in layout.split(torch.from_numpy(diagonal)):
        if part.ndim > 2:
            dims = tuple(range(2, part.ndim))
            part = part.mean(dims, keepdim=True).expand_as(part)
        parts.append(part.reshape(-1))
    return torch.cat(parts).numpy()


def trace_result(problem: Problem, settings: Settings, saved: Saved) -> TraceResult:
    """The result of a saved state."""
    c, a = saved.counters, saved.arrays
    looks = [dict(zip(_FIGURES, map(float, row), strict=True)) for row in a["figures"]]
    last = looks[-1] if looks else dict.fromkeys(_FIGURES, math.nan)
    probes = 0 if math.isnan(last["probes"]) else int(last["probes"])
    return TraceResult(
        status="complete" if c["over"] and (c["met"] or c["exact"]) else "not_converged",
        method=settings.method,
        trace=last["trace"],
        interval=np.array([last["trace"] - last["half_width"], last["trace"] + last["half_width"]]),
        half_width=last["half_width"],
        confidence=CONFIDENCE,
        interval_reason="" if math.isfinite(last["half_width"]) else _reason(c["products"], probes),
        exact_dimensions=0 if math.isnan(last["rows"]) else int(last["rows"]),
        taken_over=c["taken_over"],
        probes=probes,
        frobenius=last["frobenius"],
        frobenius_interval=_enough(probes, last, "frobenius"),
        effective_dimension=last["participation"],
        effective_dimension_interval=_enough(probes, last, "participation"),
        look_products=np.array([look["products"] for look in looks]),
        look_traces=np.array([look["trace"] for look in looks]),
        look_half_widths=np.array([look["half_width"] for look in looks]),
        spatial_average=settings.spatial_average,
        diagonal=a.get("diagonal"),
        **_layer_fields(problem, a["layer_figures"]),
        **common_fields(problem, settings, saved),
    )


def _reason(products: int, probes: int) -> str:
    """Why there is no interval."""
    spent = f"{products} product{'' if products == 1 else 's'}"
    found = "no random vector" if probes == 0 else "one random vector"
    return f"{spent} gave {found}, and an interval takes at least 2"


def _enough(probes: int, last: Mapping[str, float], name: str) -> np.ndarray:
    """An interval of a nonlinear function of the estimates; a few random vectors are not enough for one."""
    if 0 < probes < _FEWEST:
        return np.full(2, math.nan)
    return np.array([last[f"{name}_low"], last[f"{name}_high"]])


def _layer_fields(problem: Problem, figures: np.ndarray) -> dict[str, Any]:
    layout = problem.selection.layout
    groups = layers(layout)
    if figures.shape[1] != len(groups):
        return {}
    traces, widths = figures
    return {
        "layers": np.array(list(groups), dtype=object),
        "layer_parameters": np.array([layout.count(members) for members in groups.values()]),
        "layer_traces": traces,
        "layer_intervals": np.stack([traces - widths, traces + widths], axis=1),
    }
