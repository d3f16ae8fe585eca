"""``landscape density``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.density import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "The density"),
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
    """Spectral density of the Hessian: how its eigenvalues are distributed, from a few products.

    Stochastic Lanczos quadrature: the largest and smallest eigenvalues one by one, the bulk as a curve, and
    what follows from it: moments, the share of negative curvature, the trace. The raw nodes and weights are
    stored, so pictures can be smoothed again (landscape plot --bandwidth).

    Examples:
      landscape density ckpt.pt
      landscape density ckpt.pt --probes 4 --steps 100
      landscape density ckpt.pt --operator gauss-newton --effective-dimension 0.01
      landscape density ckpt.pt --per-layer
    """
    measure(context, "density", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
