"""The work behind ``landscape density``, product by product, and its result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.density import Settings
from landscape.analyses.work import MatrixWork, common_fields, itemsize
from landscape.linalg.density import Quadrature, Rule, probe, quadrature
from landscape.linalg.lanczos import Krylov, inner
from landscape.linalg.noise import noise_floor
from landscape.linalg.operator import Operator, norm
from landscape.linalg.probes import gaussian
from landscape.parameters import layers
from landscape.problem import Problem
from landscape.results import DensityResult, EigenResult, Result, TraceResult

__all__ = ["DensityWork", "density_result"]


class DensityWork(MatrixWork):
    """One run of ``density``: first the whole matrix, then its blocks if asked for.

    A *section* is the whole matrix (number 0) or a layer's block (1, 2, …); each has its probes.
    """

    def __init__(
        self, problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
    ) -> None:
        self.settings = settings
        depth = min(settings.steps, problem.size) + 1
        super().__init__(problem, settings, start, problem.size * itemsize(problem) * depth)
        groups = list(layers(problem.selection.layout).values()) if settings.per_layer else []
        self.sections: list[Operator] = [self.operator, *(self.operator.block(g) for g in groups)]
        self.relations: dict[tuple[int, int], np.ndarray] = {}
        self.overlaps: dict[tuple[int, int], np.ndarray] = {}
        self.krylov: Krylov | None = None
        if start.saved is None:
            self.counters |= {"errors": [0.0] * len(self.sections), "floors": [0.0] * len(self.sections)}
            self.counters |= _compared(inputs)
            return
        for name, array in start.saved.arrays.items():
            if name.startswith("relation_"):
                _, section, row = name.split("_")
                self.relations[int(section), int(row)] = array
                self.overlaps[int(section), int(row)] = start.saved.arrays[f"overlap_{section}_{row}"]
        if "basis" in start.saved.arrays:
            self._restore(start.saved.arrays)

    def run(self) -> Iterator[State]:
        """Every probe of every section that is not done yet."""
        yield self._state("measuring")
        for section, operator in enumerate(self.sections):
            for row in range(self.settings.probes):
                if (section, row) not in self.relations:
                    yield from self._probe(section, row, operator)
        yield self._state("done", over=True)

    def _depth(self, operator: Operator) -> int:
        return min(self.settings.steps, operator.size)

    def _probe(self, section: int, row: int, operator: Operator) -> Iterator[State]:
        """Lanczos from one random vector; an interrupted one goes on."""
        draw = partial(gaussian, operator.size, self.seed, "density", section, row)
        if self.krylov is None:
            self.krylov = Krylov.start(operator, draw(0), self._depth(operator))
        krylov = self.krylov
        floor = partial(self._floor, section, operator)
        for _ in probe(operator, krylov, self._depth(operator), lambda i: draw(1 + i), floor):
            self.spent(1, 1)
            floor(krylov)
            yield self._state(f"probe {row + 1} of {self.settings.probes}" + (", layers" if section else ""))
        self.relations[section, row] = krylov.relation.copy()
        following = gaussian(
            operator.size, self.seed, "density", section, (row + 1) % self.settings.probes, 0
        )
        unit = (following / norm(following)).to(krylov.basis.device)
        self.overlaps[section, row] = inner(unit[None], krylov.basis[: krylov.steps])[0].cpu().numpy()
        self.krylov = None

    def _floor(self, section: int, operator: Operator, krylov: Krylov) -> float:
        """What a product can be wrong by, the largest so far in this section."""
        c = self.counters
        if c["errors"][section] == 0.0:
            image = krylov.basis[int(not krylov.exhausted)].double()
            c["errors"][section] = self.product_error(image, operator)
        found = noise_floor(krylov, c["errors"][section], 0.0)
        c["floors"][section] = max(c["floors"][section], found)
        c["floor"] = c["floors"][0]
        return found

    def _state(self, text: str, over: bool = False) -> State:
        total = sum(self.settings.probes * self._depth(operator) for operator in self.sections)
        return self.state(text, self._save, done=self.counters["products"], total=total, over=over)

    def _save(self) -> Saved:
        arrays = {f"relation_{section}_{row}": a for (section, row), a in self.relations.items()}
        arrays |= {f"overlap_{section}_{row}": a for (section, row), a in self.overlaps.items()}
        counters = {**self.counters, "probes": len(self.relations)}
        krylov = self.krylov
        if krylov is not None and krylov.steps:
            m = krylov.steps
            arrays |= {
                "basis": krylov.basis[: m + 1].cpu().numpy(),
                "relation": krylov.relation.copy(),
                "lost": krylov.lost[:m].copy(),
            }
            counters["krylov"] = [krylov.exhausted, krylov.breakdowns, krylov.scale]
        return Saved({**arrays, **self.extra}, counters)

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The probe that was under way: the first one that is not done."""
        places = [(s, r) for s in range(len(self.sections)) for r in range(self.settings.probes)]
        section, row = next(place for place in places if place not in self.relations)
        operator, m = self.sections[section], len(arrays["lost"])
        first = gaussian(operator.size, self.seed, "density", section, row, 0)
        krylov = Krylov.start(operator, first, self._depth(operator))
        krylov.basis[: m + 1] = torch.from_numpy(np.array(arrays["basis"]))
        krylov.coefficients[: m + 1, :m] = arrays["relation"]
        krylov.lost[:m] = arrays["lost"]
        krylov.exhausted, krylov.breakdowns, krylov.scale = self.counters.pop("krylov")
        krylov.steps, self.krylov = m, krylov


def _compared(inputs: Mapping[str, Result]) -> dict[str, Any]:
    """What runs of their own say of the trace and of λmax."""
    found: dict[str, Any] = {}
    trace, eigen = inputs.get("trace"), inputs.get("eigen")
    if isinstance(trace, TraceResult):
        found |= {"trace_run": trace.trace, "trace_run_interval": trace.interval.tolist()}
    if isinstance(eigen, EigenResult) and math.isfinite(eigen.lambda_max):
        reach = eigen.lambda_max_residual + eigen.noise_floor
        found |= {
            "lambda_max_run": eigen.lambda_max,
            "lambda_max_run_interval": [eigen.lambda_max - reach, eigen.lambda_max + reach],
        }
    return found


def density_result(problem: Problem, settings: Settings, saved: Saved) -> DensityResult:
    """The result of a saved state; an unfinished probe counts as far as it went if it is all there is."""
    c, relations = saved.counters, _relations(saved)
    own = relations.get(0, [])
    fields = common_fields(problem, settings, saved)
    wanted = settings.probes * (1 + len(layers(problem.selection.layout)) * settings.per_layer)
    complete = c["probes"] == wanted
    compared: dict[str, Any] = {}
    for name in ("trace_run", "lambda_max_run"):
        if name in c:
            compared |= {name: c[name], f"{name}_interval": np.array(c[f"{name}_interval"])}
    common = {
        **fields,
        **compared,
        "status": "complete" if complete else "not_converged",
        "method": "stochastic Lanczos quadrature",
        "steps": settings.steps,
    }
    if not own:
        return DensityResult(**common, **_nothing())
    found = quadrature(own, problem.size, c["floor"], _overlaps(saved, 0, len(own), settings.probes))
    return DensityResult(
        **common, **_figures(found, settings, c["floor"]), **_layers(problem, settings, saved)
    )


def _relations(saved: Saved) -> dict[int, list[np.ndarray]]:
    """H̄ of each probe, by section."""
    found: dict[int, list[np.ndarray]] = {}
    names = [name for name in saved.arrays if name.startswith("relation_")]
    for name in sorted(names, key=lambda name: [int(n) for n in name.split("_")[1:]]):
        found.setdefault(int(name.split("_")[1]), []).append(saved.arrays[name])
    if not found and "relation" in saved.arrays:
        found[0] = [saved.arrays["relation"]]
    return found


def _figures(found: Quadrature, settings: Settings, floor: float) -> dict[str, Any]:
    """What is read off the density."""
    trace, moments = found.trace(), found.moments(4)
    negative, least, most = found.negative_share(floor)
    highest, lowest = found.lambda_max, found.lambda_min
    # One node each says nothing of how far eigenvalues are apart, unless it is the only one there is.
    unknown = math.nan if all(_is_point(row[0]) for row in found.rules) else 0.0
    reach = 1.959964 * trace.error + unknown
    figures: dict[str, Any] = {
        "nodes": found.nodes,
        "weights": found.weights,
        "measured_weights": found.measured,
        "residuals": found.residuals,
        "converged": np.ma.MaskedArray(found.converged, mask=np.ma.getmaskarray(found.nodes)),
        "outliers": found.outliers.values,
        "outlier_residuals": found.outliers.residuals,
        "outlier_weights": found.outliers.weights,
        "wasserstein_bound": found.wasserstein_bounds,
        "moments": np.array([moment.value for moment in moments]),
        "moment_errors": np.array([moment.error for moment in moments]) + unknown,
        "trace": trace.value,
        "trace_error": trace.error + unknown,
        "trace_interval": np.array([trace.value - reach, trace.value + reach]),
        "negative_share": negative.value,
        "negative_share_bounds": np.array([least, most]) + 0.0,  # no −0
        "lambda_max": highest[0],
        "lambda_max_residual": highest[1],
        "lambda_min": lowest[0],
        "lambda_min_residual": lowest[1],
    }
    if settings.effective_dimension is not None:
        figures |= _effective_dimension(found, settings.effective_dimension, unknown)
    return figures


def _is_point(rule: Rule) -> bool:
    return len(rule.nodes) == 1 and not rule.converged[0]


def _effective_dimension(found: Quadrature, z: float, unknown: float) -> dict[str, Any]:
    estimate = found.effective_dimension(z)
    low, high = found.bounds(lambda x: np.maximum(x, 0.0) / (np.maximum(x, 0.0) + z))
    return {
        "effective_dimension": estimate.value,
        "effective_dimension_error": estimate.error + unknown,
        "effective_dimension_bounds": found.size * np.array([max(low, 0.0), min(high, 1.0)]),
        "effective_dimension_z": z,
    }


def _overlaps(saved: Saved, section: int, rows: int, probes: int) -> list[np.ndarray] | None:
    """What each probe saw of the next one's start, once all probes of a section are done."""
    if rows < max(2, probes):
        return None
    return [saved.arrays[f"overlap_{section}_{row}"] for row in range(rows)]


def _layers(problem: Problem, settings: Settings, saved: Saved) -> dict[str, Any]:
    """The density of each layer's block, rows padded to one length."""
    relations, layout = _relations(saved), problem.selection.layout
    groups, c = list(layers(layout).items()), saved.counters
    sections = sorted(section for section in relations if section > 0)
    if not sections:
        return {}
    found = [
        quadrature(
            relations[s],
            layout.count(groups[s - 1][1]),
            c["floors"][s],
            _overlaps(saved, s, len(relations[s]), settings.probes),
        )
        for s in sections
    ]
    width = max(one.nodes.shape[1] for one in found)
    shape = (len(found), len(relations[0]), width)
    nodes: np.ma.MaskedArray = np.ma.MaskedArray(np.zeros(shape), mask=True)
    weights = nodes.copy()
    for i, one in enumerate(found):
        p, m = one.nodes.shape
        nodes[i, :p, :m], weights[i, :p, :m] = one.nodes, one.weights
    names = [groups[s - 1][0] for s in sections]
    ends = [(one.lambda_max, one.lambda_min) for one in found]
    floors = np.array([c["floors"][s] for s in sections])
    return {
        "layers": np.array(names, dtype=object),
        "layer_parameters": np.array([one.size for one in found]),
        "layer_traces": np.array([one.trace().value for one in found]),
        "layer_trace_errors": np.array([one.trace().error for one in found]),
        "layer_ends": np.array([[value for value, _ in pair] for pair in ends]),
        "layer_end_errors": np.array([[residual for _, residual in pair] for pair in ends]) + floors[:, None],
        "layer_nodes": nodes,
        "layer_weights": weights,
    }


def _nothing() -> dict[str, Any]:
    """The figures of a run that was stopped before its first product."""
    empty: np.ma.MaskedArray = np.ma.MaskedArray(np.zeros((0, 0)), mask=True)
    names = ("trace", "trace_error", "negative_share", "lambda_max", "lambda_max_residual", "lambda_min")
    return {
        **dict.fromkeys(("nodes", "weights", "measured_weights", "residuals"), empty),
        "converged": np.ma.MaskedArray(np.zeros((0, 0), dtype=bool), mask=True),
        **{n: np.zeros(0) for n in ("outliers", "outlier_residuals", "outlier_weights", "wasserstein_bound")},
        **{n: np.zeros(0) for n in ("moments", "moment_errors")},
        **dict.fromkeys((*names, "lambda_min_residual"), math.nan),
        "trace_interval": np.full(2, math.nan),
        "negative_share_bounds": np.full(2, math.nan),
    }
