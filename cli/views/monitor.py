"""What a monitor measured, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from landscape.results import MonitorResult

from ..console import Console
from ..numbers import duration, figure, with_error
from .common import counted, percent

__all__ = ["print_result"]

#: Of more measurements than this, some are left out, evenly.
MOST = 16
NONE = "—"
_MAIN = ("ckpt1", "ckpt2", "ckpt3", "ckpt4")

Cell = Callable[[int], str]


def print_result(console: Console, result: MonitorResult) -> None:
    """A line for each measurement, then what the figures are of and what they cost."""
    count = len(result.steps)
    if not count:
        console.out("no measurement was made yet")
    else:
        columns = dict(_columns(result))
        rows = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
        console.table(list(columns), [[cell(int(i)) for cell in columns.values()] for i in rows])
        if count > len(rows):
            console.out(f"({len(rows)} of {count} measurements; --json has all)")
    console.out()
    console.pairs(_summary(result))


def _columns(result: MonitorResult) -> Iterator[tuple[str, Cell]]:
    """The columns that there is anything in."""
    yield "step", lambda i: str(int(result.steps[i]))
    if result.losses is not None:
        yield "loss", _cells(result.losses, None, 4)
    if result.lambda_max is not None:
        yield "λmax", _cells(result.lambda_max, result.lambda_max_errors)
    if result.trace is not None:
        yield "trace", _cells(result.trace, result.trace_half_widths)
    if result.h_norms is not None:
        yield "‖h_t‖", _cells(result.h_norms, None)
    if result.fractions is not None:
        for i, name in enumerate(result.classes):
            if name in _MAIN:
                yield f"{name} %", _shares(result.fractions[:, i])
        yield "cos(g, g')", _cells(result.cosines, None, 4)


def _cells(values: np.ndarray | None, errors: np.ndarray | None, digits: int = 3) -> Cell:
    def cell(i: int) -> str:
        value = None if values is None else values[i]
        if value is None or np.ma.is_masked(value):
            return NONE
        if errors is None or np.ma.is_masked(errors[i]):
            return figure(float(value), digits)
        return with_error(float(value), float(errors[i]))

    return cell


def _shares(values: Any) -> Cell:
    return lambda i: NONE if np.ma.is_masked(values[i]) else figure(100 * float(values[i]), 3)


def _summary(result: MonitorResult) -> Iterator[tuple[str, str]]:
    probe = f"{counted(result.examples, 'probe example')}, {counted(result.parameters, 'parameter')}"
    if result.lambda_max is not None:
        yield (
            "λmax",
            f"of {probe}; ± is residual and noise floor: an eigenvalue lies there, and a larger one may have "
            "been missed",
        )
    if result.fractions is not None:
        yield "ratios", f"r = g'/g of {_source(result)}{_uncertain(result)}"
    if result.h_norms is not None:
        yield "h_t", _average(result)
    yield "measured", _measured(result)
    yield (
        "cost",
        f"{figure(result.cost_percent, 2)} % of the training time ({duration(result.monitor_seconds)} of "
        f"{duration(result.training_seconds)}), and once {duration(result.once_seconds)} to set up and begin",
    )


def _source(result: MonitorResult) -> str:
    if result.source == "training":
        return "single training batches, in the training's own mode"
    return "the probe data, in eval mode: two more gradients at each measurement"


def _uncertain(result: MonitorResult) -> str:
    if result.uncertain is None:
        return ""
    worst = float(np.ma.filled(np.ma.asarray(result.uncertain).sum(1), 0.0).max(initial=0.0))
    return f"; rounding may have moved at most {percent(worst)} % of the parameters"


def _average(result: MonitorResult) -> str:
    taken = "every step" if result.average_every_step else "the measured steps"
    slip = ", as first written (no bias correction)" if result.as_written else ""
    noise = ", which bounds nothing on mini-batches" if result.source == "training" else ""
    return (
        f"gradient-direction curvature ‖Hu‖, not λmax{noise}; running average over {taken}, weight of the "
        f"new {figure(result.new_weight)}{slip}; the document's step is 1/‖h_t‖"
    )


def _measured(result: MonitorResult) -> str:
    parts = [f"{counted(len(result.steps), 'time')} in {counted(result.total_steps, 'step')}"]
    if result.put_off:
        parts.append(f"{counted(result.put_off, 'time')} less than asked for, to keep to the budget")
    if result.failed:
        parts.append(f"{counted(result.failed, 'figure')} could not be measured")
    return ", ".join(parts)
