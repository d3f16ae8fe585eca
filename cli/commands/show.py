"""``landscape show``: what is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.errors import StoreError

from ..console import Console
from ..numbers import duration
from ..options import Debug, Json, Quiet
from ..stored import FOLDER, open_file, read, result_files

if TYPE_CHECKING:
    from landscape.store import Header


def command(
    file: Annotated[
        Path | None, typer.Argument(help="Result file; without it, those in ./landscape-results.")
    ] = None,
    run: Annotated[
        str | None, typer.Argument(help="Run to show in full; the start of its id will do.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show stored results: the files, the runs in one file, or one run in full.

    A run is shown with its settings, what was measured, how it was computed (enough to do it again), and
    every figure with its error.

    Examples:
      landscape show
      landscape show landscape-results/ckpt-1a2b3c4d.h5
      landscape show landscape-results/ckpt-1a2b3c4d.h5 eigen-5f0c
    """
    console = Console("show", json=json, quiet=quiet)
    if file is None:
        _show_files(console)
    elif run is None:
        _show_runs(console, file)
    else:
        _show_run(console, file, run)


def _show_files(console: Console) -> None:
    listed = [_summary(path) for path in result_files()]
    if listed:
        console.table(["file", "runs", "problem"], [[f["path"], f["runs"], f["error"] or ""] for f in listed])
    else:
        console.note(f"No result files in {FOLDER}: landscape eigen CHECKPOINT makes one.")
    console.emit(files=listed)


def _summary(path: Path) -> dict[str, Any]:
    """One file for the list, also when it cannot be read."""
    try:
        return {"path": str(path), "runs": len(open_file(path).runs()), "error": None}
    except StoreError as error:
        return {"path": str(path), "runs": None, "error": error.what}


def _show_runs(console: Console, path: Path) -> None:
    from ..views import run_object

    file = open_file(path)
    headers = file.runs()
    if console.json:
        console.emit([run_object(file.read(header.id), path) for header in headers])
        return
    if not headers:
        console.note("This file holds no runs.")
        return
    console.table(["run", "kind", "status", "started", "took", "step", "command"], map(_row, headers))


def _row(header: Header) -> list[str]:
    step = "" if header.checkpoint_step is None else str(header.checkpoint_step)
    took = duration(header.seconds)
    return [header.id, header.kind, header.status, _to_the_second(header.started), took, step, header.command]


def _to_the_second(started: str) -> str:
    """2026-01-02T03:04:05+00:00, whatever the fractions."""
    return re.sub(r"\.\d+", "", started)


def _show_run(console: Console, path: Path, run: str) -> None:
    from ..views import print_provenance, print_result, run_object

    result, _ = read(open_file(path), run)
    if result.provenance is not None:
        print_provenance(console, result.provenance)
    console.out(f"status {result.status}")
    console.out()
    print_result(console, result)
    console.emit([run_object(result, path)])
