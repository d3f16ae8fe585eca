"""How ``landscape batch`` is set up, shown while it runs, and summed up."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from landscape.project import BatchSettings, ProblemSettings

from .console import Console, is_terminal, safe
from .numbers import brief, duration
from .options import Given

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from landscape.batches import BatchResult, Report, Snapshot

__all__ = ["BatchReporter", "batch"]

#: Failures of one text are said once, with so many of their checkpoints.
_NAMED = 4


def batch(
    context: typer.Context,
    checkpoints: Sequence[str],
    given: Given,
    *,
    json: bool,
    dry_run: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Carry it out, print what came of it, and leave with its exit code."""
    from landscape.batches import planned_batch, run_batch

    console = Console("batch", json=json, quiet=quiet)
    line = shlex.join(["landscape", *context.obj])
    plan = planned_batch(
        checkpoints, given.of(ProblemSettings), given.of(BatchSettings), start=Path.cwd(), command=line
    )
    with BatchReporter(console, plan.settings.jobs) as reporter:
        result = run_batch(plan, observer=reporter, dry_run=dry_run, debug=debug)
    if dry_run:
        _print_plan(console, result, plan.settings.jobs)
    else:
        _print(console, result)
    _emit(console, result)
    raise typer.Exit(result.exit_code)


def _emit(console: Console, result: BatchResult) -> None:
    """One object: the results of every run that is stored, and what was done."""
    if not console.json:
        return
    from landscape.store import ResultFile

    from .views import run_object

    stored = [one for one in result.reports if one.id and one.file is not None]
    runs = [run_object(ResultFile(one.file).read(one.id), one.file) for one in stored if one.file is not None]
    console.emit(runs, **result.to_json())


def _print(console: Console, result: BatchResult) -> None:
    for row in _summary(result):
        console.out(row)
    _failures(console, result)


def _summary(result: BatchResult) -> list[str]:
    """What was done, in one to four lines."""
    computed, found = result.of("computed"), result.of("found")
    files = {one.file for one in (*computed, *found)}
    folder = _here(result.folder)
    said = [f"{len(computed)} computed in {duration(result.seconds)}"]
    said += [f"{len(found)} were stored already"] if found else []
    said += [f"{len(result.of('failed'))} failed"] if result.of("failed") else []
    lines = [f"{', '.join(said)}; {len(files)} result files in {folder}"]
    unfinished = [one for one in computed if one.status != "complete"]
    if unfinished:
        names = ", ".join(f"{one.path.name} {one.kind}" for one in unfinished[:_NAMED])
        more = ", …" if len(unfinished) > _NAMED else ""
        lines.append(f"{len(unfinished)} not as accurate as asked for, or stopped by a limit: {names}{more}")
    saved = result.warm_starts
    if saved is not None:
        lines.append(
            f"warm starts: {saved.warm_products} products instead of {saved.cold_products} on "
            f"{saved.path.name}, where both were tried ({100 * saved.saving:.0f} % saved)"
        )
    if result.stopped:
        lines.append(f"{result.stopped}: the same command goes on from here")
    elif files:
        lines.append(f"to see it: landscape show {folder}; landscape report {folder}")
    return lines


def _here(folder: Path) -> str:
    """The folder as one would type it here."""
    inside = folder.is_relative_to(Path.cwd())
    return shlex.quote(str(folder.relative_to(Path.cwd()) if inside else folder))


def _failures(console: Console, result: BatchResult) -> None:
    """Each error once, with the checkpoints that it stopped."""
    same: dict[str, list[Report]] = {}
    for one in result.of("failed"):
        same.setdefault(one.error, []).append(one)
    for error, reports in same.items():
        names = list(dict.fromkeys(one.path.name for one in reports))
        shown = ", ".join(names[:_NAMED]) + (
            f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        )
        kinds = ", ".join(dict.fromkeys(one.kind for one in reports))
        console.warn(f"failed: {shown} ({kinds})\n{error}")


def _print_plan(console: Console, result: BatchResult, jobs: int) -> None:
    """What would be done, in the order of training."""
    rows = [
        [one.path.name, "" if one.step is None else one.step, one.kind, *_planned(one)]
        for one in result.reports
    ]
    console.table(["checkpoint", "step", "analysis", "products", "time"], rows)
    console.out()
    to_do = result.of("planned")
    time = f", about {duration(sum(one.seconds for one in to_do) / jobs)} of work" if to_do else ""
    found = f"{len(result.of('found'))} stored already"
    console.out(f"{len(to_do)} to compute{time}; {found}, in {_here(result.folder)}")
    _failures(console, result)


def _planned(one: Report) -> tuple[str, str]:
    """Products and time of what would be computed; of the rest, why not."""
    if one.outcome == "planned":
        return f"about {one.products}" if one.products else "", f"about {duration(one.seconds)}"
    return "", "stored already" if one.outcome == "found" else "cannot be done"


class BatchReporter:
    """An observer of a batch: a line for each analysis done or, on a terminal, a table that lives."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console, self._jobs = console, jobs
        self._shows = is_terminal(sys.stderr) and not console.quiet
        self._live: Live | None = None
        self._said: set[str] = set()

    def __enter__(self) -> BatchReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line, once: sixty checkpoints may give cause for the same."""
        about, _, what = text.partition(": ")
        if what.startswith("seed "):  # of each run; said once for all
            what = "no --seed: each run draws its own and stores it, and this command finds it again"
        if what not in self._said:
            self._said.add(what)
            self._line(f"{about}: {what}")

    def reported(self, report: Report) -> None:
        """What came of one analysis; those found done are counted at the end."""
        new = report.error not in self._said
        self._said.add(report.error)
        if report.outcome == "computed" or (report.outcome == "failed" and new):
            self._line(_told(report))

    def changed(self, snapshot: Snapshot) -> None:
        """How it stands, in a table below what was said."""
        if not self._shows:
            return
        if self._live is None:
            from rich.console import Console as RichConsole
            from rich.live import Live

            self._live = Live(console=RichConsole(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(_table(snapshot), refresh=True)

    def _line(self, text: str) -> None:
        if self._live is None:
            self._console.note(text)
        elif not self._console.quiet:
            self._live.console.print(safe(text), markup=False, highlight=False, soft_wrap=True)


def _told(report: Report) -> str:
    """One line: which checkpoint, which analysis, its main figures or what went wrong."""
    name = f"{report.path.name} {report.kind}"
    if report.outcome == "failed":
        return f"{name}: failed: {report.error.splitlines()[0]}"
    status = "" if report.status == "complete" else f", {report.status.replace('_', ' ')}"
    return f"{name}: {', '.join([*_figures(report), duration(report.seconds)])}{status}"


def _figures(report: Report) -> list[str]:
    """The main measures of a result, with what they may be off by."""
    from landscape.results.measures import measures_of

    found = []
    for measure in measures_of(report.kind):
        reading = report.readings.get(measure.name) if measure.main else None
        if reading is not None:
            shown = brief(reading.value, reading.error)
            found.append(f"{measure.label.partition(' (')[0]} {shown}")
    return found


def _table(snapshot: Snapshot) -> Table:
    """What each process is at, and the whole."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for one in snapshot.running:
        share = "" if not one.total else f"{one.done}/{one.total}"
        table.add_row(
            Text(safe(one.path.name)), Text(one.kind), Text(share, justify="right"), Text(safe(one.text))
        )
    left = "" if snapshot.seconds_left is None else f"about {duration(snapshot.seconds_left)} left"
    counts = [f"{snapshot.computed} computed", f"{snapshot.found} stored already"]
    counts += [f"{snapshot.failed} failed"] if snapshot.failed else []
    bar = ProgressBar(total=max(1, snapshot.total), completed=snapshot.done, width=20)
    table.add_row(bar, Text(f"{snapshot.done}/{snapshot.total}"), Text(left), Text(", ".join(counts)))
    return table
