"""``landscape inspect``: what a checkpoint holds, without executing anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Console
from ..options import Debug, Json, Quiet

if TYPE_CHECKING:
    pass

#: Keys listed without --all.
ABRIDGED = 20


def command(
    checkpoint: Annotated[Path, typer.Argument(help="The saved model.", metavar="CHECKPOINT")],
    all_keys: Annotated[bool, typer.Option("--all", help="List every key, however many there are.")] = False,
    state_key: Annotated[
        str | None,
        typer.Option("--state-key", help="Which entry of the checkpoint holds the weights.", metavar="KEY"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a checkpoint holds: format, keys, shapes, number of parameters.

    Nothing in the file is executed, so this is safe for files that you were sent.

    Examples:
      landscape inspect ckpt.pt
      landscape inspect model.safetensors --all
    """
    from landscape.checkpoint import inspect_checkpoint

    console = Console("inspect", json=json, quiet=quiet)
    inspection = inspect_checkpoint(checkpoint, state_key=state_key)
    console.emit(inspection=inspection.to_json())
