"""``landscape init``: write a configuration to fill in."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from landscape.errors import InputError

from ..console import Console
from ..options import Debug, Json, Quiet


def command(
    checkpoint: Annotated[Path, typer.Argument(help="The saved model.", metavar="CHECKPOINT")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("landscape.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    state_key: Annotated[
        str | None,
        typer.Option("--state-key", help="Which entry of the checkpoint holds the weights.", metavar="KEY"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a commented landscape.toml for a checkpoint, to be filled in.

    It says what model, loss and data belong to the checkpoint, so that landscape eigen needs no options.
    Nothing in the checkpoint is executed, and an existing file is kept unless --force is given.

    Examples:
      landscape init ckpt.pt
      landscape init ckpt.pt -o experiments/landscape.toml
    """
    from landscape.checkpoint import inspect_checkpoint
    from landscape.project import template

    console = Console("init", json=json, quiet=quiet)
    text = template(inspect_checkpoint(checkpoint, state_key=state_key))
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{output} exists already", do="give another name with -o FILE, or --force to replace it"
        ) from None
    console.out(f"wrote {output}")
    console.note(f"Fill in model, data and loss there, then: landscape eigen {shlex.quote(str(checkpoint))}")
    console.emit(file=str(output))
