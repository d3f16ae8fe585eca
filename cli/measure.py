"""What every measuring command does: resolve the problem, run (or plan), print what came out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from landscape.errors import DONE
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from .console import Console, Reporter
from .numbers import duration, figure, size
from .options import Given

if TYPE_CHECKING:
    from landscape.project import Resolved
    from landscape.results import Result
    from landscape.run import Plan

__all__ = ["measure"]


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
    from landscape.run import execute, exit_code, plan, stored_path

    from .views import advice

    console = Console(kind, json=json, quiet=quiet)
    given.build(settings, {})  # what is wrong there is said before a model is loaded
    resolved = _resolve(console, checkpoint, given)
    table = resolved.config.verb(kind, RunSettings) if resolved.config else {}
    own: Any = given.build(settings, table)
    run = given.build(RunSettings, table)
    if dry_run:
        _print_plan(console, plan(kind, resolved.problem, own, run))
        return
    with Reporter(console) as reporter:
        line = shlex.join(["landscape", *context.obj])
        result = execute(kind, resolved.problem, own, run, observer=reporter, command=line)
    _print(console, result, stored_path(resolved.problem, run))
    code = exit_code(result)
    if code != DONE:
        console.warn(f"{result.status}: {advice(result)} (exit code {code})")
    raise typer.Exit(code)


def _resolve(console: Console, checkpoint: Path, given: Given) -> Resolved:
    """The problem, and on stderr where its parts came from; where parts are missing, a file to fill in."""
    from landscape.project import NothingToGoOn, resolve

    settings = given.build(ProblemSettings, {})
    try:
        resolved = resolve(checkpoint, settings, given=given.of(ProblemSettings), start=Path.cwd())
    except NothingToGoOn as error:
        if error.template:
            console.note(f"A landscape.toml to paste and fill in:\n\n{error.template}")
        raise
    for note in resolved.notes:
        console.note(note)
    return resolved


def _print(console: Console, result: Result, file: Path) -> None:
    from .views import drawable, print_result, run_object

    print_result(console, result)
    provenance = result.provenance
    if provenance is not None:
        console.out(f"seed {provenance.seed}, {'given' if provenance.seed_given else 'drawn'}")
        console.out(f"stored in {shlex.quote(str(file))} as run {provenance.id}")
        if drawable(result):
            console.out(f"to see it: landscape plot {shlex.quote(str(file))} {provenance.id}")
    console.emit([run_object(result, file)])


def _print_plan(console: Console, plan: Plan) -> None:
    from landscape.results import jsonable

    console.pairs(
        [
            ("run", plan.id),
            ("data", f"{plan.examples} examples; {plan.parameters} parameters"),
            ("products", f"about {plan.products}, at most {plan.at_most}"),
            ("time", f"about {duration(plan.seconds)} ({figure(plan.gradients)} gradients over the data)"),
            ("memory", f"about {size(plan.memory_bytes)}"),
        ]
    )
    for note in plan.notes:
        console.note(note)
    console.emit(plan=jsonable(plan.to_json()))
