"""``landscape slice``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.slice import Settings
from landscape.project import ProblemSettings
from landscape.run import RunSettings

from ..measure import measure
from ..options import Debug, DryRun, Given, Group, Json, Quiet, with_options


@with_options(
    Group(ProblemSettings, "The problem", special=True),
    Group(RunSettings, "The run"),
    Group(Settings, "The slice"),
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
    """The loss along a line or over a plane through the weights.

    One --along draws a line, two a plane; the point w + x·d₁ + y·d₂ has the coordinates x and y. A slice
    shows one or two of as many dimensions as there are parameters: what is flat in it may be steep elsewhere.
    Random directions are scaled filter by filter, as the weights are, so that networks can be compared;
    between two checkpoints the barrier is how far the loss rises above the straight line from end to end.

    Every finished row is kept: after Ctrl-C the same command goes on. Standard errors are those of the
    difference to the centre, on the same examples. The directions are stored beside the results, and
    --along saved:HASH uses them again, HASH being the last 16 digits of their file's name.

    Examples:
      landscape slice ckpt.pt
      landscape slice ckpt.pt --along eigen --along eigen --range auto:41
      landscape slice ckpt.pt --along random --test-data net.py:test
      landscape slice a.pt --along to:b.pt
      landscape slice a.pt --along to:b.pt --along to:c.pt --refine
      landscape slice z.pt --along pca --along pca --trajectory 'runs/*.pt'
    """
    measure(context, "slice", Settings, checkpoint, given, json=json, dry_run=dry_run, quiet=quiet)
