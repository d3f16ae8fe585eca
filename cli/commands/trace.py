"""``landscape trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.trace import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "The trace"),
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
    """Trace of the Hessian (the sum of its eigenvalues), in all and layer by layer, with 95 % intervals.

    The trace divided by the number of parameters is the mean curvature: how much the loss rises, on average,
    in a random direction. The command stops when the interval is within --tol of the trace; the interval
    covers the truth as it says also for this stopping. With it come the Frobenius norm and the effective
    dimension (Σλ)²/Σλ².

    Examples:
      landscape trace ckpt.pt
      landscape trace ckpt.pt --tol 0.005
      landscape trace ckpt.pt --operator gauss-newton
      landscape trace ckpt.pt --diagonal
    """
    measure(context, "trace", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
