"""``landscape eigen``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.analyses.eigen import Settings
from landscape.errors import DONE
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..console import Console, Reporter
from ..numbers import duration, figure, size
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options

if TYPE_CHECKING:
    from landscape.project import Resolved
    from landscape.results import Result
    from landscape.run import Plan


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "Eigenvalues"),
)
def command(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="The saved model.", metavar="CHECKPOINT")],
    given: Given,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Largest (or smallest) eigenvalues of the Hessian, each with its error.

    λmax is the sharpest curvature of the loss; 2/λmax is the largest stable learning rate of gradient
    descent. Each value comes with an interval that holds an eigenvalue, and with its standard error over the
    data. The same command again shows the stored result, or goes on where an interrupted run stopped.

    Examples:
      landscape eigen ckpt.pt
      landscape eigen ckpt.pt -k 10 --which both --tol 1e-4
      landscape eigen ckpt.pt --model net.py:build --data data.npz --loss cross_entropy
    """
    from landscape.run import execute, exit_code, plan, stored_path

    from ..views import ADVICE

    console = Console("eigen", json=json, quiet=quiet)
    resolved = _resolve(console, checkpoint, given)
    table = resolved.config.verb("eigen", RunSettings) if resolved.config else {}
    own, run = given.build(Settings, table), given.build(RunSettings, table)
    if dry_run:
        _print_plan(console, plan("eigen", resolved.problem, own, run))
        return
    with Reporter(console) as reporter:
        line = shlex.join(["landscape", *context.obj])
        result = execute("eigen", resolved.problem, own, run, observer=reporter, command=line)
    _print(console, result, stored_path(resolved.problem, run))
    code = exit_code(result)
    if code != DONE:
        console.warn(f"{result.status}: {ADVICE.get(result.status, 'see landscape show')} (exit code {code})")
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
    from ..views import print_result, run_object

    print_result(console, result)
    provenance = result.provenance
    if provenance is not None:
        console.out(f"seed {provenance.seed}, {'given' if provenance.seed_given else 'drawn'}")
        console.out(f"stored in {shlex.quote(str(file))} as run {provenance.id}")
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
