"""The result of ``landscape sharpness`` from a saved state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.analyses.base import Saved
from landscape.analyses.sharpness import Settings
from landscape.analyses.sharpness_work import CONFIDENCE, ROW, random_average
from landscape.analyses.work import problem_fields
from landscape.problem import Problem
from landscape.results import SharpnessResult
from landscape.sam.average import Average, average

__all__ = ["sharpness_result"]


def sharpness_result(problem: Problem, settings: Settings, saved: Saved) -> SharpnessResult:
    """The result of a saved state, of as much as was done."""
    c, radius = saved.counters, saved.counters["radii"][0]
    table = _Table(saved.arrays["rows"], len(settings.lengths), settings.m is not None)
    random = _random_fields(problem, settings, saved)
    if settings.kind == "average":
        kinds = _average_fields(settings, problem.size, saved, random)
    else:
        kinds = _maximum(settings, c, table)
    euclidean = settings.kind == "average" or (settings.kind == "sam" and settings.p == 2)
    return SharpnessResult(
        status="complete" if settings.kind != "average" or c["met"] else "not_converged",
        measure=settings.kind,
        rho=settings.rho,
        relative=settings.relative,
        radius=radius,
        p=settings.norm,
        eta={"asam": settings.eta, "keskar": 1.0}.get(settings.kind),
        steps=settings.ascent,
        m=settings.m,
        arithmetic=c["arithmetic"],
        noise=c["noise"],
        squared_norm_ratio=(c["weights"] / radius) ** 2 if euclidean else None,
        confidence=CONFIDENCE,
        evaluations=round(c["evaluations"]),
        gradients=round(c["gradients"]),
        products=round(c["products"]),
        seconds=c["seconds"],
        **kinds,
        **random,
        **problem_fields(problem, saved),
    )


class _Table:
    """The rows of groups and lengths; weighted means over the groups that are there."""

    def __init__(self, rows: np.ndarray, lengths: int, grouped: bool) -> None:
        self.lengths, self.grouped = lengths, grouped
        self.at = [rows[k::lengths] for k in range(lengths)]

    def column(self, name: str, k: int = 0) -> np.ndarray:
        """A column (groups,) at the k-th length."""
        return self.at[k][:, ROW.index(name)]

    def mean(self, values: np.ndarray, k: int = 0) -> tuple[float, float]:
        """(mean weighted by terms, its standard error over groups), NaN where there is none."""
        terms = self.column("terms", k)
        count = len(values)
        if not count:
            return math.nan, math.nan
        total = terms.sum()
        mean = float((terms * values).sum() / total)
        if count < 2:
            return mean, math.nan
        # Cochran 1977, §2.11: the error of a ratio, for groups that differ in size.
        spread = (terms**2 * (values - mean) ** 2).sum()
        return mean, float(np.sqrt(count / (count - 1) * spread) / total)


def _maximum(settings: Settings, c: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    """What was measured at a point of each group's ball."""
    groups = len(table.at[0])
    increases = table.column("increase")
    increase, spread = table.mean(increases)
    fields: dict[str, Any] = {
        "groups": groups,
        "flat_groups": int(table.column("flat").sum()),
        "empty_groups": len(c["empty"]),
        "increase": increase,
        "length": table.mean(table.column("length"))[0],
    }
    error = spread if table.grouped else float(table.column("data_error")[0]) if groups else math.nan
    fields["increase_error"] = _known(error)
    fields["error_method"] = _method(table, c)
    if table.grouped:
        last = table.column("examples").min() if groups else math.nan
        fields |= {
            "last_group": int(last) if groups and last < (settings.m or 0) else None,
            "group_increases": increases.copy(),
            "group_terms": table.column("terms").copy(),
        }
    fields |= _terms(settings, c, table)
    if settings.kind == "keskar":
        fields |= _keskar(table, error)
    if settings.rho_sweep:
        fields |= _sweep(settings, c, table)
    return fields


def _method(table: _Table, c: Mapping[str, Any]) -> str:
    if not table.grouped:
        return str(c["error_method"])
    groups = len(table.at[0])
    return f"spread of {groups} groups" if groups > 1 else "not computed: one group"


def _terms(settings: Settings, c: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    """The expansion; of groups with standard errors over them, of all data with what rounding does."""
    first, second, increase = (table.column(name) for name in ("first", "second", "increase"))
    found: dict[str, tuple[float, float]] = {"first_order": table.mean(first)}
    if settings.expansion:
        found |= {"second_order": table.mean(second), "remainder": table.mean(increase - first - second)}
    if not table.grouped:
        errors = {"first_order": c["first_error"], "second_order": c["second_error"]}
        errors["remainder"] = sum(errors.values()) + c["noise"]
        found = {name: (value, errors[name]) for name, (value, _) in found.items()}
    values = {name: _known(value) for name, (value, _) in found.items()}
    return values | {f"{name}_error": _known(error) for name, (_, error) in found.items()}


def _keskar(table: _Table, error: float) -> dict[str, Any]:
    """Keskar et al. 2017, eq. 4: 100 (max f − f)/(1 + f), for each group with its own f."""
    base = table.column("base")
    if not len(base) or not (base > -1).all():
        return {}
    value, spread = table.mean(100 * table.column("increase") / (1 + base))
    whole = 100 * error / (1 + float(base[0]))
    return {"keskar": value, "keskar_error": _known(spread if table.grouped else whole)}


def _sweep(settings: Settings, c: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    """Increase and expansion at each length that all the groups so far have been to."""
    groups = min(len(rows) for rows in table.at)
    whole = _Table(np.empty((0, len(ROW))), table.lengths, table.grouped)
    whole.at = [rows[:groups] for rows in table.at]
    ks = range(1, table.lengths)
    with np.errstate(all="ignore"):
        means = np.array([[whole.mean(whole.column(name, k), k) for k in ks] for name in _SWEPT])
    errors = means[0, :, 1]
    if not table.grouped:
        errors = np.array([whole.column("data_error", k)[0] if groups else math.nan for k in ks])
    return {
        "rho_sweep": np.array(c["radii"][1:]),
        "sweep_increases": np.where(np.isfinite(means[0, :, 0]), means[0, :, 0], np.nan),
        "sweep_errors": np.ma.masked_invalid(errors),
        "sweep_first": means[1, :, 0],
        "sweep_second": means[2, :, 0] if settings.expansion else None,
    }


_SWEPT = ("increase", "first", "second")


def _average_fields(settings: Settings, size: int, saved: Saved, random: Mapping[str, Any]) -> dict[str, Any]:
    """The mean over random directions as the sharpness itself."""
    c, mean, interval = saved.counters, random.get("random_mean"), random.get("random_interval")
    half = math.nan if interval is None else float(interval[1] - interval[0]) / 2
    looks = saved.arrays["looks"]
    found: dict[str, Any] = {
        "groups": 1,
        "increase": math.nan if mean is None else mean,
        "increase_error": _known(half),
        "error_method": "half of the 95 % interval over random directions",
        "length": c["radii"][0],
        "look_directions": looks[:, 0].copy(),
        "look_means": looks[:, 1].copy(),
        "look_half_widths": looks[:, 2].copy(),
    }
    if settings.rho_sweep:
        found |= _average_sweep(size, saved, random)
    return found


def _average_sweep(size: int, saved: Saved, random: Mapping[str, Any]) -> dict[str, Any]:
    c, table = saved.counters, saved.arrays["random"]
    radii = np.array(c["radii"][1:])
    with np.errstate(all="ignore"):
        found = [
            random_average(table, c, radius, size, _risk(saved), column)
            for column, radius in enumerate(radii, start=1)
        ]
    means = np.array([one.mean for one in found])
    trace = random.get("hessian_trace")
    return {
        "rho_sweep": radii,
        "sweep_increases": np.where(np.isfinite(means), means, np.nan),
        "sweep_errors": np.ma.masked_invalid([one.half_width for one in found]),
        "sweep_first": np.zeros(len(radii)),
        "sweep_second": None if trace is None else radii**2 * trace / (2 * size),
    }


def _risk(saved: Saved) -> float:
    """The risk of the look at which it stopped, or all of it if no look was reached."""
    looks = saved.arrays["looks"]
    return float(looks[-1, 3]) if len(looks) else 1 - CONFIDENCE


def _random_fields(problem: Problem, settings: Settings, saved: Saved) -> dict[str, Any]:
    """The mean over random directions, and the trace that predicts it."""
    c, table, n, radius = (
        saved.counters,
        saved.arrays["random"],
        problem.size,
        saved.counters["random_length"],
    )
    if not len(table):
        return {}
    if len(saved.arrays["looks"]):  # what came after the last look has no interval of its own
        table = table[: int(saved.arrays["looks"][-1, 0])]
    risk = _risk(saved)
    mean = random_average(table, c, radius, n, risk)
    fields: dict[str, Any] = {
        "directions": len(table),
        "random_length": radius,
        "random_mean": mean.mean,
        "random_interval": _interval(mean),
        "direction_increases": table[:, 0].copy(),
    }
    if not settings.expansion:
        return fields
    scale, forms = radius**2 / (2 * n), table[:, -2]
    if c["trace"] is not None:
        trace = Average(c["trace"]["trace"], c["trace"]["half_width"])
        width = math.hypot(mean.half_width, scale * trace.half_width)
        difference = Average(mean.mean - scale * trace.mean, width)
        source = f"the stored trace run {c['trace']['id']}".rstrip()
    else:
        fields["direction_curvatures"] = forms.copy()
        trace = _hutchinson(table, n, risk, c["trace_error"])
        apart = average(table[:, 0] - radius**2 / 2 * forms, risk)
        difference = Average(apart.mean, apart.half_width + c["noise"] + scale * c["trace_error"])
        source = "the same directions"
    return fields | {
        "hessian_trace": trace.mean,
        "hessian_trace_interval": _interval(trace),
        "trace_source": source,
        "predicted_mean": scale * trace.mean,
        "predicted_interval": scale * _interval(trace),
        "random_difference": difference.mean,
        "random_difference_interval": _interval(difference),
    }


def _hutchinson(table: np.ndarray, size: int, risk: float, error: float) -> Average:
    """n times the mean of uᵀHu, by the interval of a mean rise of ½ρ²uᵀHu at ρ² = 2n."""
    forms = np.column_stack([size * table[:, -2], table[:, -2:]])
    found = random_average(forms, {"trace": None, "noise": 0.0}, math.sqrt(2 * size), size, risk)
    return Average(found.mean, found.half_width + error)


def _interval(found: Average) -> np.ndarray:
    return found.mean + found.half_width * np.array([-1.0, 1.0])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
