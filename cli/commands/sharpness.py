"""``landscape sharpness``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.sharpness import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "The sharpness"),
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
    """How much the loss rises within a distance ρ of the weights, and what that rise is made of.

    The rise L(w + ε) − L(w) along SAM's ε (or ASAM's, or in Keskar's box, or on average over random ε) stands
    beside its expansion: the slope εᵀg = ρ‖g‖, the curvature ½εᵀHε, and what they leave. Of the largest rise
    in a ball, any point of it gives a lower bound; --steps looks for a higher one. The mean over random
    directions stands beside ρ²Tr(H)/(2n), which it is for small ρ: only there does the trace come in.

    Figures of different ρ, norm, m or steps do not compare: each one says which it is of.

    Examples:
      landscape sharpness ckpt.pt
      landscape sharpness ckpt.pt --rho 0.1 --steps 20 --rho-sweep
      landscape sharpness ckpt.pt -m 128
      landscape sharpness ckpt.pt --kind asam --rho 0.5
      landscape sharpness ckpt.pt --kind keskar --rho 0.001
      landscape sharpness ckpt.pt --kind average --tol 0.05
    """
    measure(context, "sharpness", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
