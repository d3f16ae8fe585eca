"""``landscape reweight``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.reweight import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem"),
    Group(RunSettings, "The run"),
    Group(Settings, "The weights"),
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
    """How SAM would weigh every single example, against its loss, with clean and noisy labels apart.

    With one example a batch, SAM steps along ∇l(w + ε) instead of ∇l(w), which weighs the example by the
    ratio of their lengths (Baek et al. 2024). In a linear model examples of low loss get the larger weights,
    which are rarely the wrongly labelled ones; here is what happens in yours. The weight is taken
    apart: the logit part perturbs only what the loss sees of the outputs, the Jacobian part (J-SAM) only how
    the outputs depend on the weights.

    Which labels are noisy says --noisy, or an array noisy or clean_y beside x and y in an array file.

    Examples:
      landscape reweight ckpt.pt
      landscape reweight ckpt.pt --noisy data.py:wrong_labels
      landscape reweight ckpt.pt --rho 0.2 --samples 2000
      landscape reweight ckpt.pt --relative --rho 0.1
    """
    measure(context, "reweight", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
