"""``landscape ratios``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.ratios import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure_all
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "The ratios"),
)
def command(
    context: typer.Context,
    given: Given,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Saved models; without any, the checkpoints that landscape.toml names.",
            metavar="[CHECKPOINT]...",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare the gradient with the one at SAM's perturbed weights, parameter by parameter.

    With g = ∇L(w) and g' = ∇L(w + ρg/‖g‖), every parameter falls into one class of r = g'/g: ckpt1 (r > 1),
    ckpt2 (0 < r < 1), ckpt3 (r < −1), ckpt4 (−1 < r < 0), or one of the named special cases (equal, dead, …).
    With them come a histogram of r, the classes' shares of ‖g‖² and ‖g'‖², ‖g'‖/‖g‖ and the angle between
    both gradients.

    Late in training ckpt3 and ckpt4 grow already because ‖g‖ shrinks at fixed ρ; --relative takes ρ in units
    of ‖g‖ and tells the two apart.

    Examples:
      landscape ratios ckpt.pt
      landscape ratios
      landscape ratios runs/*.pt --minibatch 128 --batches 32
      landscape ratios ckpt.pt --relative --rho 1
      landscape ratios ckpt.pt --perturb adaptive --rho 0.5 --rho-sweep
    """
    measure_all(
        context, "ratios", Settings, checkpoints or [], given, json=json, dry_run=dry_run, quiet=quiet
    )
