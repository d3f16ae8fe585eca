"""``landscape rm``: delete stored runs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.errors import InputError, StoreError

from ..console import Console
from ..options import Debug, Json, Quiet
from ..stored import choose, open_file

if TYPE_CHECKING:
    from landscape.store import ResultFile


def command(
    file: Annotated[Path, typer.Argument(help="Result file.")],
    runs: Annotated[list[str], typer.Argument(help="Runs to delete; the start of an id will do.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Delete runs from a result file, with the vectors and masks that lie beside it; the other runs stay.

    On a terminal you are asked first; elsewhere --yes is needed.

    Examples:
      landscape rm landscape-results/ckpt-1a2b3c4d.h5 eigen-5f0c
      landscape rm landscape-results/ckpt-1a2b3c4d.h5 eigen-5f0c eigen-77ab --yes
    """
    console = Console("rm", json=json, quiet=quiet)
    stored = open_file(file)
    ids = list(dict.fromkeys(choose(stored, run).id for run in runs))
    if not yes and not _confirmed(console, ids):
        console.warn("Nothing was deleted.")
        raise typer.Exit(InputError.exit_code)
    vectors = _vectors(stored, ids)
    stored.remove(ids)
    for path in vectors - _vectors(stored, [header.id for header in stored.runs()]):
        path.unlink(missing_ok=True)
    console.out(f"deleted {', '.join(ids)}")
    console.emit(deleted=ids, file=str(file))


def _vectors(stored: ResultFile, ids: list[str]) -> set[Path]:
    """The files beside the results that hold these runs' vectors and masks; of runs that can be read."""
    found = set()
    for run in ids:
        with contextlib.suppress(StoreError):
            result = stored.read(run)
            names = [getattr(result, name) for name in result.apart.values()]
            found |= {stored.path.parent / Path(name).name for name in names if name is not None}
    return found


def _confirmed(console: Console, ids: list[str]) -> bool:
    if not sys.stdin.isatty():
        raise InputError("deleting needs a confirmation, and there is no terminal to ask on", do="add --yes")
    console.warn(f"Delete {', '.join(ids)}? This cannot be undone. [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
