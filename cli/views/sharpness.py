"""``landscape sharpness`` in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import SharpnessResult

from ..console import Console
from ..numbers import at_most, duration, figure, value_and_error, with_error
from .common import counted, percent

__all__ = ["print_result"]

#: Errors below this part of a value leave it six digits: more say nothing that anybody reads.
_FINE = 5e-7
_ABSENT = "—"
#: Relative errors of the slope from which the direction itself is in doubt.
_VISIBLE = 1e-5


def print_result(console: Console, result: SharpnessResult) -> None:
    """At what distance, then the rise beside its expansion, the sweep, and what belongs to them."""
    console.out(f"{result.measure}: {result.where}")
    if not math.isfinite(result.increase):
        console.out("no figure yet: a limit stopped the run too early")
        return
    console.out()
    lines = list(_summary(result))
    console.pairs(lines[:1])
    console.out()
    console.table(["", "value", "±", "what"], list(_terms(result)))
    console.out()
    if result.rho_sweep is not None:
        console.table(*_sweep(result))
        console.out()
    console.pairs(lines[1:])


def _terms(result: SharpnessResult) -> Iterator[list[str]]:
    """The rise and its terms; then the mean over random directions and what the trace predicts."""
    if result.measure != "average":
        error = "rounding" if result.m is None else "standard error over groups"
        own = result.noise if result.m is None else result.increase_error
        yield ["rise", *_value(result.increase, own), f"L(w + ε) − L(w); ± {error}"]
        first = "εᵀg" if result.steps else f"εᵀg = {_dual(result)}"
        for name, text, value, its_error in (
            ("slope", first, result.first_order, result.first_order_error),
            ("curvature", "½εᵀHε", result.second_order, result.second_order_error),
            ("remainder", "what these two leave of the rise", result.remainder, result.remainder_error),
        ):
            if value is not None:
                yield [name, *_value(value, its_error), text]
    if result.random_mean is not None:
        percent = f"{100 * result.confidence:g} %"
        size = f"‖ε‖₂ = {figure(result.random_length, 4)}"
        text = f"mean rise over {counted(result.directions, 'random pair')} ±ε, {size}; ± {percent}"
        yield ["random", *_value(result.random_mean, _half(result.random_interval)), text]
    if result.predicted_mean is not None:
        text = f"‖ε‖²Tr(H)/(2n), Tr(H) from {result.trace_source}"
        yield ["from trace", *_value(result.predicted_mean, _half(result.predicted_interval)), text]
    if result.random_difference is not None:
        text = "random − from trace"
        yield [
            "difference", *_value(result.random_difference, _half(result.random_difference_interval)), text
        ]  # fmt: skip


def _direction(result: SharpnessResult) -> Iterator[tuple[str, str]]:
    """How well ε is known, where rounding of the gradient turns it visibly."""
    if not result.first_order or result.first_order_error is None or not math.isfinite(result.first_order):
        return
    off = abs(result.first_order_error / result.first_order)
    if off > _VISIBLE:
        yield (
            "direction",
            f"the gradient is known to about {percent(off)} % only, and ε lies along it: the figures are "
            "those of this ε; --dtype float64 knows it better",
        )


def _dual(result: SharpnessResult) -> str:
    """The first-order rise of the ball in words: the dual norm of the gradient."""
    if result.measure == "keskar":
        return "ρ Σ(|w| + 1)|g|"
    q = math.inf if result.p == 1 else 1.0 if math.isinf(result.p) else result.p / (result.p - 1)
    norm = {1.0: "₁", 2.0: "₂", math.inf: "∞"}.get(q, f"_{q:.4g}")
    return f"ρ‖{'T' if result.measure == 'asam' else ''}g‖{norm}"


def _value(value: float, error: float | None) -> tuple[str, str]:
    """A value and its error in two cells."""
    if not math.isfinite(value):
        return "not finite", _ABSENT
    if error is None or not math.isfinite(error):
        return figure(value, 4), _ABSENT
    if error <= _FINE * abs(value):
        return figure(value, 6), at_most(error, 2)
    return value_and_error(value, error)


def _half(interval: np.ndarray | None) -> float | None:
    return None if interval is None else float(interval[1] - interval[0]) / 2


def _sweep(result: SharpnessResult) -> tuple[list[str], list[list[str]]]:
    """The rise at each length beside its expansion; every row is of the same norm, m and steps."""
    assert result.rho_sweep is not None
    assert result.sweep_increases is not None
    assert result.sweep_errors is not None
    average = result.measure == "average"
    header = ["ρ", "rise", "±", *([] if average else [_dual(result)])]
    if result.sweep_second is not None:
        header.append("ρ²Tr(H)/(2n)" if average else "with curvature")
    rows = []
    errors = np.ma.filled(result.sweep_errors, np.nan)
    for k, radius in enumerate(result.rho_sweep):
        row = [figure(float(radius), 4), *_value(float(result.sweep_increases[k]), float(errors[k]))]
        first = 0.0 if result.sweep_first is None else float(result.sweep_first[k])
        if not average:
            row.append(_finite(first))
        if result.sweep_second is not None:
            row.append(_finite(first + float(result.sweep_second[k])))
        rows.append(row)
    return header, rows


def _finite(value: float) -> str:
    return figure(value, 4) if math.isfinite(value) else _ABSENT


def _summary(result: SharpnessResult) -> Iterator[tuple[str, str]]:
    yield "sharpness", f"{_headline(result)} at {result.where}"
    if result.measure == "keskar":
        yield "keskar", _keskar(result)
    if (found := _caution(result)) is not None:
        yield "caution", found
    yield from _direction(result)
    if result.measure != "average" and result.increase_error is None:
        yield "over data", result.error_method
    if not math.isclose(result.length, result.radius, rel_tol=1e-9):
        yield "length", f"‖ε‖₂ = {figure(result.length, 4)}{' on average over groups' if result.m else ''}"
    if result.flat_groups:
        yield "flat", f"{counted(result.flat_groups, 'group')} with a gradient of zero: nothing moved them"
    if result.empty_groups:
        yield "empty", f"{counted(result.empty_groups, 'group')} without loss terms, left out"
    if result.hessian_trace is not None and result.second_order is not None:
        written, right = figure(result.hessian_trace / 2), figure(result.second_order)
        yield (
            "as written",
            f"½Tr(H) = {written} where ½εᵀHε = {right} stands: the second-order term as first written down, "
            "right neither for one ε nor on average, where it is ρ²Tr(H)/(2n)",
        )
    if result.hessian_trace is not None:
        value, half = result.hessian_trace, _half(result.hessian_trace_interval)
        if half is None or not math.isfinite(half):
            yield "trace", f"{figure(value, 4)}, without an interval, from {result.trace_source}"
        else:
            level = f"{100 * result.confidence:g} %"
            yield "trace", f"{with_error(value, half)} ({level}), from {result.trace_source}"
    if result.squared_norm_ratio is not None:
        yield (
            "‖w‖²/ρ²",
            f"{figure(result.squared_norm_ratio, 4)}: what the bound of Foret et al. 2021 (theorem 1) "
            "depends on, which holds with high probability only; nothing is claimed from it",
        )
    yield "rounding", f"{at_most(result.noise, 2)} at most in a difference of losses ({result.arithmetic})"
    spent = (
        counted(result.gradients, "gradient"),
        counted(result.evaluations, "loss", "losses"),
        counted(result.products, "product"),
    )
    yield "cost", f"{', '.join(spent)} over the data, {duration(result.seconds)}"


def _headline(result: SharpnessResult) -> str:
    """The rise with the error that it has as a figure about the data."""
    if result.increase_error is None:
        return f"{figure(result.increase, 4)}, without an error over the data,"
    what = "standard error over groups" if result.m else "standard error over the data, ε fixed"
    if result.measure == "average":
        what = f"{100 * result.confidence:g} % interval over directions"
    return f"{with_error(result.increase, result.increase_error)} ({what})"


def _keskar(result: SharpnessResult) -> str:
    text = "100 (max L − L)/(1 + L) in percent, a lower bound: the ascent need not have found the maximum"
    if result.keskar is None:
        return "not defined: 1 + L is not positive"
    if result.keskar_error is None:
        return f"{figure(result.keskar, 4)}: {text}"
    return f"{with_error(result.keskar, result.keskar_error)}: {text}"


def _caution(result: SharpnessResult) -> str | None:
    """What keeps the rise from being a measurement of sharpness."""
    if abs(result.increase) <= result.noise:
        return (
            f"the rise is no larger than what rounding can do ({at_most(result.noise, 2)}): not "
            "resolved, so take a larger --rho"
        )
    if result.increase < 0 and result.measure != "average":
        return (
            "the loss falls at this point, so ρ is beyond where the slope holds; --steps finds a higher one"
        )
    return None
