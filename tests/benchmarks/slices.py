"""What ``landscape slice`` costs, in bare forward passes over the same data.

    python -m tests.benchmarks.slices [PART ...] [--workloads NAME ...] [--runs NAME ...] [--repeats 7]

One thread, CPU time of the process. The unit is ``loss_fn(model(x), y).item()`` under ``no_grad`` at weights
that stay as they are, on the user's own batch; a grid costs as many units as it has points, plus what is said
here. Units and points come in turns, a row of each, within one run: what else the machine does hits both.

grids
    The whole of ``landscape slice`` with its default channels (loss, error, accuracy), from identity and
    determinism check to the stored result, every row written; without the store; and in a single piece.
    Beside it its points alone, one by one and by ``vmap`` over 4 and 16 sets of weights; a plain loop that
    writes the weights of each point and evaluates them; the planes of loss-landscapes and landscaper, if they
    are installed. The last three measure the loss only. Aims: 1.1 on the digits, 1.06 on ResNet-20.
fixed
    What does not grow with the grid, and what a written row costs.
refine
    49×49 points of the digits by ``--refine``: points evaluated, the worst error and CPU time against all.
jobs
    ``--jobs 2`` against one: seconds on the clock, which depend on what else runs, so the load is given, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import landscape
from landscape.analyses.slice import Settings
from landscape.results import SliceResult
from landscape.run import RunSettings, execute
from landscape.slices.batched import rows
from landscape.slices.evaluate import Surface
from landscape.store import PartialFile
from tests.benchmarks.planes import Plane, Unit, landscaper, loss_landscapes
from tests.benchmarks.workloads import Workload, digits_mlp, language_model, measured, resnet

__all__ = ["RUNS", "WORKLOADS", "Fixed", "Grid", "Jobs", "Refined", "slice_of", "times"]

#: Name to points on each axis and the workload, whose data are one batch.
WORKLOADS: dict[str, tuple[int, Callable[[], Workload]]] = {
    "digits": (21, lambda: digits_mlp(1797)),
    "resnet-64": (11, lambda: resnet(64)),
    "transformer-32": (7, lambda: language_model(32)),
}

#: Of refinement and processes: points on each axis.
FINE = 49


class Watch:
    """An observer that makes a bare pass for each point, as soon as a row is done."""

    def __init__(self, unit: Unit) -> None:
        self._unit, self._done = unit, 0

    def note(self, text: str) -> None:
        """Nothing is said."""

    def progress(self, done: int, total: int | None, text: str) -> None:
        if done > self._done:
            self._unit(done - self._done)
        self._done = done


# --- whole runs ------------------------------------------------------------------------------------------


def slice_of(
    load: Workload,
    n: int,
    *,
    unit: Unit | None = None,
    store: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    **options: Any,
) -> SliceResult:
    """``landscape slice``, two random directions, n×n points from −1 to 1."""
    problem = landscape.Problem(
        load.model, "cross_entropy", list(load.batches), memory=8 << 30, batch_size=batch_size
    )
    settings = Settings(range=(f"-1:1:{n}",), **options)
    observer = None if unit is None else Watch(unit)
    with tempfile.TemporaryDirectory() as folder:
        run = RunSettings(seed=seed, output=str(Path(folder) / "slice.h5"))
        result = execute("slice", problem, settings, run, observer=observer, store=store)
    assert isinstance(result, SliceResult)
    return result


def _ours(load: Workload, n: int, unit: Unit) -> SliceResult:
    return slice_of(load, n, unit=unit)


def _unstored(load: Workload, n: int, unit: Unit) -> SliceResult:
    return slice_of(load, n, unit=unit, store=False)


def _whole(load: Workload, n: int, unit: Unit) -> SliceResult:
    return slice_of(load, n, unit=unit, batch_size=len(load.batches[0][0]))


def _loop(load: Workload, n: int, unit: Unit) -> None:
    Plane(load).losses(np.linspace(-1, 1, n), unit)


def _points(load: Workload, n: int, unit: Unit, at_once: int) -> None:
    """The points alone, ``at_once`` in a call: no loss and gradient before, nothing stored."""
    problem = landscape.Problem(load.model, "cross_entropy", list(load.batches), memory=8 << 30)
    directions = torch.stack(
        [torch.cat([part.reshape(-1) for part in one.values()]) for one in Plane(load).directions]
    )
    surface = Surface(problem, directions, problem.examples)
    coordinates = np.linspace(-1, 1, n).tolist()
    for first in coordinates:
        rows(surface, [(first, second) for second in coordinates], at_once)
        unit(n)


#: What is compared: name to a function of a workload, points on an axis, and the unit to call in between.
RUNS: dict[str, Callable[[Workload, int, Unit], Any]] = {
    "landscape slice": _ours,
    "not stored": _unstored,
    "in one piece": _whole,
    "points alone": partial(_points, at_once=1),
    "4 points at once": partial(_points, at_once=4),
    "16 points at once": partial(_points, at_once=16),
    "plain loop": _loop,
    "loss-landscapes": loss_landscapes,
    "landscaper": landscaper,
}

#: Runs that take longer and are repeated less often.
SLOW, FEW = ("4 points at once", "16 points at once", "landscaper"), 3

#: Runs that need a package of this name.
PACKAGES = {"loss-landscapes": "loss_landscapes", "landscaper": "landscaper"}


def times(run: Callable[[Workload, int, Unit], Any], load: Workload, n: int) -> tuple[float, float, Any]:
    """(CPU seconds of a run over those of n² bare passes made in between, seconds of one, its result)."""
    unit, start = Unit(load), time.process_time()
    result = run(load, n, unit)
    own = time.process_time() - start - unit.seconds
    each = unit.seconds / unit.passes
    return own / (n * n * each), each, result


@dataclass
class Grid:
    """One workload; in each list one entry a repetition."""

    workload: str
    points: int
    unit_seconds: list[float] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    ratios: dict[str, list[float]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        each = 1e3 * statistics.median(self.unit_seconds)
        yield f"{self.workload}, {self.points} points; a bare pass: {each:.2f} ms; pieces of {self.pieces}"
        for name, values in self.ratios.items():
            yield f"    {name:20} {spread(values)}"


def spread(values: list[float]) -> str:
    """The median, and the least and the largest."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def grids(names: list[str], wanted: list[str], repeats: int) -> Iterator[Grid]:
    """Every run that is wanted on every workload, in turns; the first turn, on a small grid, warms up."""
    for name in names:
        n, build = WORKLOADS[name]
        load = build()
        row = Grid(load.name, n * n)
        runs = {what: RUNS[what] for what in wanted if _installed(PACKAGES.get(what))}
        for turn in range(repeats + 1):
            for what, run in runs.items():
                if turn > FEW and what in SLOW:
                    continue
                ratio, each, result = times(run, load, n if turn else 3)
                if turn:
                    row.ratios.setdefault(what, []).append(ratio)
                    row.unit_seconds.append(each)
                if turn and what == "landscape slice":
                    row.pieces.append(result.provenance.strategy["micro_batch"])
        yield row


def _installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None


@dataclass
class Fixed:
    """CPU milliseconds of what does not grow with the grid, and of a row that is written; in bare passes."""

    workload: str
    fixed: list[float] = field(default_factory=list)
    fixed_passes: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    write_passes: list[float] = field(default_factory=list)
    write_clock: list[float] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.workload:28} fixed {spread(self.fixed)} ms, {spread(self.fixed_passes)} passes; a row "
            f"written {spread(self.write)} ms ({spread(self.write_clock)} on the clock), "
            f"{spread(self.write_passes)} passes"
        )


def fixed(names: list[str], repeats: int) -> Iterator[Fixed]:
    """The CPU time of a whole run less that of its rows, and of writing the state."""
    for name in names:
        n, build = WORKLOADS[name]
        load = build()
        row = Fixed(load.name)
        for turn in range(repeats + 1):
            unit, points, writes = Unit(load), _Timed(), _Timed()
            start = time.process_time()
            with (
                mock.patch.object(Surface, "row", points.around(Surface.row)),
                mock.patch.object(PartialFile, "write", writes.around(PartialFile.write)),
            ):
                slice_of(load, n, unit=unit)
            whole = time.process_time() - start - unit.seconds
            if turn:
                each, spent = unit.seconds / unit.passes, whole - points.seconds - writes.seconds
                row.fixed.append(1e3 * spent)
                row.fixed_passes.append(spent / each)
                row.write.append(1e3 * writes.seconds / writes.calls)
                row.write_clock.append(1e3 * writes.clock / writes.calls)
                row.write_passes.append(writes.seconds / writes.calls / each)
        yield row


class _Timed:
    """Calls of a function and their time."""

    def __init__(self) -> None:
        self.calls, self.seconds, self.clock = 0, 0.0, 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            start, clock = time.process_time(), time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.calls += 1
                self.seconds += time.process_time() - start
                self.clock += time.perf_counter() - clock

        return timed


@dataclass
class Refined:
    """One seed's plane of the digits. Errors relative to the range of the losses of the full grid."""

    seed: int
    points: int
    evaluated: int
    worst: float
    estimated: float
    worst_standard: float
    loss_range: float
    cpu_ratio: float

    def line(self) -> str:
        return (
            f"seed {self.seed}: {self.evaluated} of {self.points} points evaluated "
            f"({self.evaluated / self.points:.1%}), worst error {self.worst:.2e} (estimated "
            f"{self.estimated:.2e}) of a range of {self.loss_range:.3g}, at most {self.worst_standard:.2f} "
            f"standard errors; CPU time {self.cpu_ratio:.3f} of "
            "the full grid's"
        )


def refined(repeats: int) -> Iterator[Refined]:
    """The same plane refined and whole, one for each seed."""
    load = digits_mlp(1797)
    slice_of(load, 3)
    for seed in range(repeats):
        start = time.process_time()
        full = slice_of(load, FINE, seed=seed)
        middle = time.process_time()
        coarse = slice_of(load, FINE, seed=seed, refine=True)
        end = time.process_time()
        span, off = float(np.ptp(full.loss)), np.abs(np.asarray(coarse.loss) - full.loss)
        errors = np.where(full.standard_errors > 0, full.standard_errors, np.inf)  # zero at the centre
        assert coarse.interpolation_errors is not None
        yield Refined(
            seed,
            int(full.loss.size),
            int(coarse.evaluated.sum()),
            float(off.max()) / span,
            float(np.max(coarse.interpolation_errors)) / span,
            float((off / errors).max()),
            span,
            (end - middle) / (middle - start),
        )


@dataclass
class Jobs:
    """Seconds on the clock, and the load of the machine (1 minute) before."""

    one: float
    two: float
    load: float

    def line(self) -> str:
        return (
            f"--jobs 1: {self.one:.2f} s, --jobs 2: {self.two:.2f} s, ratio {self.two / self.one:.2f}; "
            f"load {self.load:.1f}"
        )


def jobs(repeats: int) -> Iterator[Jobs]:
    """One process and two, in turns."""
    load = digits_mlp(1797)
    slice_of(load, 3)
    for _ in range(repeats):
        seconds = []
        for count in (1, 2):
            start = time.perf_counter()
            slice_of(load, FINE, jobs=count)
            seconds.append(time.perf_counter() - start)
        yield Jobs(*seconds, os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan)


def main() -> None:
    parts = ("grids", "fixed", "refine", "jobs")
    parser = argparse.ArgumentParser(description="What a slice costs, in bare forward passes.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="of the grids")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(parts):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    wanted, rows = args.parts or parts, dict[str, list[dict[str, Any]]]()
    few = min(FEW, args.repeats)
    with measured():
        made: dict[str, Iterator[Any]] = {
            "grids": grids(args.workloads, args.runs, args.repeats),
            "fixed": fixed(args.workloads, args.repeats),
            "refine": refined(few),
            "jobs": jobs(few),
        }
        for part in wanted:
            print(part)
            for row in made[part]:
                rows.setdefault(part, []).append(asdict(row))
                print(*(row.lines() if isinstance(row, Grid) else [row.line()]), sep="\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
