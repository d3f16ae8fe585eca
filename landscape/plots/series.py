"""What pictures over several checkpoints share: when each was saved, and what they are called."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import printable, saved_at, training_name
from landscape.results import CheckpointReference, DataResult, Result

R = TypeVar("R", bound=Result)

__all__ = ["TrainingRun", "series_caption", "time_axis", "training_runs"]

#: Characters of a line of a title.
_LINE = 95
_FIELDS = {"step": "Training step", "epoch": "Epoch", "number": "Number in the checkpoint's name"}
#: A checkpoint is early if saved before this share of the time.
_EARLY = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingRun(Generic[R]):
    """The results on the checkpoints of one training run, in the order of training."""

    name: str
    results: tuple[R, ...]
    at: NDArray[np.float64]
    words: str


def training_runs(results: Sequence[R]) -> list[TrainingRun[R]]:
    """The results apart by training run, each in its order.

    That is by step, where all know theirs, else by epoch, else by the numbers in their names where these tell
    them apart, else as given. Checkpoints are of one training run if their names differ in numbers only; a
    set that this would break into single ones is one run, unless two of them are of the same step.

    Raises:
        InputError: fewer than two results, or two of one name and step.
    """
    if len(results) < 2:
        raise InputError(
            "a picture over training needs runs on two checkpoints or more",
            found=str(len(results)),
            do="give the result files of several checkpoints",
        )
    groups: dict[str, list[R]] = {}
    for result in results:
        groups.setdefault(training_name(_stem(result)), []).append(result)
    field = next((f for f in _FIELDS if all(_when(result, f) is not None for result in results)), None)
    if field == "number" and any(_same_times(group) for group in groups.values()):
        field = None
    when = [_when(result, field) for result in results] if field else []
    apart = min(map(len, groups.values())) > 1 or len(set(when)) < len(when)
    if not apart:
        groups = {_stem(results[0]): list(results)}
    return [_ordered(name, group, field) for name, group in groups.items()]


def _ordered(name: str, results: Sequence[R], field: str | None) -> TrainingRun[R]:
    if field is None:
        at = np.arange(1, len(results) + 1, dtype=np.float64)
        return TrainingRun(name, tuple(results), at, "Checkpoint, in the order given")
    by_time: defaultdict[int, list[R]] = defaultdict(list)
    for result in results:
        by_time[_when(result, field) or 0].append(result)
    for time, same in by_time.items():
        if len(same) > 1:
            raise InputError(
                f"several checkpoints are of {field} {time}: they cannot be of one training run",
                found=", ".join(printable(_name(result)) for result in same),
                do="give the files of one training run",
            )
    times = sorted(by_time)
    at = np.array(times, dtype=np.float64)
    return TrainingRun(name, tuple(by_time[time][0] for time in times), at, _FIELDS[field])


def _when(result: Result, field: str) -> int | None:
    reference = _checkpoint(result)
    return None if reference is None else saved_at(field, _stem(result), reference.step, reference.epoch)


def _same_times(results: Sequence[Result]) -> bool:
    """Whether the numbers in the names of some are the same."""
    numbers = [_when(result, "number") for result in results]
    return len(set(numbers)) < len(numbers)


def series_caption(runs: Sequence[TrainingRun[R]]) -> str:
    """Which checkpoints, of how many parameters and examples, and how many are not complete."""
    results = [result for run in runs for result in run.results]
    ends = dict.fromkeys(_shortened(_name(result)) for result in (results[0], results[-1]))
    parts = [" to ".join(ends)] * (len(runs) == 1) + [f"{len(results)} checkpoints"]
    first = results[0]
    if isinstance(first, DataResult):
        parts += [f"{first.parameters:,} parameters", f"{first.examples:,} examples"]
    if unfinished := sum(result.status != "complete" for result in results):
        parts.append(f"{unfinished} not complete")
    text = textwrap.fill(" · ".join(printable(part) for part in parts), _LINE)
    return text.replace("$", r"\$")


def time_axis(ax: Axes, at_times: Floats, most: int = 8) -> None:
    """Whole steps; logarithmic where most checkpoints are crowded at the beginning."""
    positive = at_times[at_times > 0]
    if len(positive) > 2 and (positive < _EARLY * positive.max()).mean() > 0.5:
        scale: dict[str, Any] = {"value": "log"}
        if len(positive) < len(at_times):
            scale = {"value": "symlog", "linthresh": float(positive.min()), "linscale": 0.5}
        ax.set_xscale(**scale)
        ax.set_xticks(_powers(at_times))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))


def _powers(at_times: Floats) -> list[float]:
    """Powers of ten among the times, and zero if it is; a time of its own where there are none."""
    low, high = float(at_times[at_times > 0].min()), float(at_times.max())
    powers = [10.0**k for k in range(16) if low <= 10.0**k <= high]
    return [0.0] * bool((at_times == 0).any()) + (powers or [high])


def _checkpoint(result: Result) -> CheckpointReference | None:
    return result.provenance.checkpoint if result.provenance else None


def _name(result: Result) -> str:
    """The checkpoint's file, without its folders."""
    reference = _checkpoint(result)
    return (
        "weights" if reference is None else reference.path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    )


def _stem(result: Result) -> str:
    """The same without its ending."""
    return PurePosixPath(_name(result)).stem


def _shortened(name: str, limit: int = 24) -> str:
    half = limit // 2 - 1
    return name if len(name) <= limit else f"{name[:half]}…{name[-half:]}"
