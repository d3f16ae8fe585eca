"""``landscape noise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.noise import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "The noise"),
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
    """Noise of mini-batch gradients: how it lies in the curvature, and the gradient's norm by batch size.

    The covariance C of the examples' gradients is compared with the Gauss-Newton matrix G and the Hessian H.
    The cosine Tr(CG)/(‖C‖‖G‖) is 1 where the noise is a multiple of the curvature, 0 where they live in
    different directions. With it come the share of the noise in the top -k eigenvectors beside chance, the
    correlation of the diagonals, the noise scale Tr(C)/‖gradient‖², and the norms of the gradients of
    mini-batches beside what Tr(C) predicts. Intervals cover 95 %, also for the moment at which it stops.

    Examples:
      landscape noise ckpt.pt
      landscape noise ckpt.pt -k 20 --tol 0.002
      landscape noise ckpt.pt --against hessian
      landscape noise ckpt.pt --samples 2000 --seed 1
    """
    measure(context, "noise", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
