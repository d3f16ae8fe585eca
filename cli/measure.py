"""What every measuring command does: resolve the problem, run (or plan), print what came out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from landscape.errors import DONE, Interrupted, LandscapeError
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from .console import Console, Reporter
from .numbers import duration, figure, size
from .options import Given

if TYPE_CHECKING:
    from landscape.problem import Problem
    from landscape.project import Resolved
    from landscape.results import Result
    from landscape.run import Plan

__all__ = ["measure", "measure_all"]

#: The commands that show test data and metrics beside the loss.
_BESIDE = ("slice",)


def measure(
    context: typer.Context,
    kind: str,
    settings: type,
    checkpoint: Path,
    given: Given,
    *,
    json: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Carry out the analysis ``kind`` on a checkpoint, and leave with its exit code."""
    measure_all(context, kind, settings, [checkpoint], given, json=json, dry_run=dry_run, quiet=quiet)


def measure_all(
    context: typer.Context,
    kind: str,
    settings: type,
    checkpoints: Sequence[Path],
    given: Given,
    *,
    json: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """The same on each checkpoint, on those of the configuration if there are none; the highest exit code."""
    from landscape.project import configured_checkpoints
    from landscape.run import exit_code

    from .views import advice, print_together, run_object

    console = Console(kind, json=json, quiet=quiet)
    given.build(settings, {})  # what is wrong there is said before a model is loaded
    if not checkpoints:
        checkpoints = configured_checkpoints(given.build(ProblemSettings, {}), Path.cwd())
    line = shlex.join(["landscape", *context.obj])
    done: list[tuple[Result, Path]] = []
    plans: list[Plan] = []
    failed: list[dict[str, str]] = []
    code = DONE
    for number, checkpoint in enumerate(checkpoints, 1):
        if len(checkpoints) > 1:
            console.out(f"{checkpoint} ({number} of {len(checkpoints)})")
        try:
            work = _prepare(console, kind, settings, checkpoint, given)
            if dry_run:
                plans.append(_plan(console, kind, work))
                continue
            result = _carry_out(console, kind, work, line)
        except LandscapeError as error:
            if len(checkpoints) == 1 or isinstance(error, Interrupted):
                raise
            console.warn(f"{checkpoint}: {error}")
            failed.append({"checkpoint": str(checkpoint), "error": str(error)})
            code = max(code, error.exit_code)
            continue
        _print(console, result, work.file)
        done.append((result, work.file))
        code = max(code, found := exit_code(result))
        if found != DONE:
            console.warn(f"{result.status}: {advice(result)} (exit code {found})")
        if len(checkpoints) > 1:
            console.out()
    if dry_run:
        _emit_plans(console, plans)
        raise typer.Exit(code)
    if len(done) > 1:
        print_together(console, done)
    if failed:
        console.warn(f"{len(failed)} of {len(checkpoints)} checkpoints failed: the messages are above")
    more = {"failed": failed} if failed else {}
    console.emit([run_object(result, file) for result, file in done], **more)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Work:
    """What is to be done on one checkpoint."""

    problem: Problem
    settings: Any
    run: RunSettings
    file: Path


def _prepare(console: Console, kind: str, settings: type, checkpoint: Path, given: Given) -> _Work:
    from landscape.run import stored_path

    resolved = _resolve(console, kind, checkpoint, given)
    table = resolved.config.verb(kind, RunSettings) if resolved.config else {}
    run = given.build(RunSettings, table)
    own: Any = given.build(settings, table)
    return _Work(resolved.problem, own, run, stored_path(resolved.problem, run))


def _carry_out(console: Console, kind: str, work: _Work, line: str) -> Result:
    from landscape.run import execute

    with Reporter(console) as reporter:
        return execute(kind, work.problem, work.settings, work.run, observer=reporter, command=line)


def _resolve(console: Console, kind: str, checkpoint: Path, given: Given) -> Resolved:
    """The problem, and on stderr where its parts came from; where parts are missing, a file to fill in."""
    from landscape.project import NothingToGoOn, resolve

    settings = given.build(ProblemSettings, {})
    try:
        own = given.of(ProblemSettings)
        resolved = resolve(checkpoint, settings, given=own, start=Path.cwd(), beside=kind in _BESIDE)
    except NothingToGoOn as error:
        if error.template:
            console.note(f"A landscape.toml to paste and fill in:\n\n{error.template}")
        raise
    for note in resolved.notes:
        console.note(note)
    return resolved


def _print(console: Console, result: Result, file: Path) -> None:
    from .views import drawable, print_result

    print_result(console, result)
    provenance = result.provenance
    if provenance is not None:
        console.out(f"seed {provenance.seed}, {'given' if provenance.seed_given else 'drawn'}")
        console.out(f"stored in {shlex.quote(str(file))} as run {provenance.id}")
        if drawable(result):
            console.out(f"to see it: landscape plot {shlex.quote(str(file))} {provenance.id}")


def _plan(console: Console, kind: str, work: _Work) -> Plan:
    """What one run would take, in words."""
    from landscape.run import plan as make_plan

    plan = make_plan(kind, work.problem, work.settings, work.run)
    products = [("products", f"about {plan.products}, at most {plan.at_most}")] if plan.at_most else []
    console.pairs(
        [
            ("run", plan.id),
            ("data", f"{plan.examples} examples; {plan.parameters} parameters"),
            *products,
            ("time", f"about {duration(plan.seconds)} ({figure(plan.gradients)} gradients over the data)"),
            ("memory", f"about {size(plan.memory_bytes)}"),
        ]
    )
    for note in plan.notes:
        console.note(note)
    return plan


def _emit_plans(console: Console, plans: Sequence[Plan]) -> None:
    """One plan as ``plan``, several as ``plans``."""
    from landscape.results import jsonable

    listed = [jsonable(plan.to_json()) for plan in plans]
    if len(listed) == 1:
        console.emit(plan=listed[0])
    else:
        console.emit(plans=listed)
