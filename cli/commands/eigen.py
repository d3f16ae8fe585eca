"""``landscape eigen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.eigen import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


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
      landscape eigen ckpt.pt --operator gauss-newton --per-layer
      landscape eigen ckpt.pt --method running-average --perturb gradient --minibatch 1
      landscape eigen ckpt.pt --model net.py:build --data data.npz --loss cross_entropy
    """
    measure(context, "eigen", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
