"""``landscape batch``: every analysis on every checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from landscape.project import BatchSettings, ProblemSettings

from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(BatchSettings, "The batch"),
    Group(ProblemSettings, "The problem", special=True),
)
def command(
    context: typer.Context,
    given: Given,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            help="Saved models, or patterns in quotes such as 'runs/*.pt'; without any, the checkpoints that "
            "landscape.toml names.",
            metavar="[CHECKPOINT]...",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run analyses on all checkpoints of a training run, or of several, and keep what comes of it.

    Each checkpoint gets one result file. What is stored already (same file, same code, data and settings) is
    passed over in milliseconds; a checkpoint that fails is said at the end and stops nothing; after Ctrl-C,
    a kill or a power cut the same command goes on. --jobs N processes share the work; jobs of a cluster's
    array each take a --shard of it and meet in the folder.

    Options of the analyses come from their tables in landscape.toml (\\[eigen], …) or from --set; those of
    the batch itself may stand in a table \\[batch].

    Examples:
      landscape batch 'runs/*.pt'
      landscape batch 'runs/*.pt' --run eigen,trace,density --set eigen.k=10 --jobs 2 --seed 0
      landscape batch --run ratios --shard 3/16 -o /scratch/results
    """
    from ..batches import batch

    batch(context, checkpoints or [], given, json=json, dry_run=dry_run, quiet=quiet, debug=debug)
