"""``landscape show``: what is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.errors import StoreError
from landscape.files import printable

from ..console import Console
from ..numbers import brief, duration
from ..options import Debug, Json, Quiet
from ..stored import FOLDER, open_file, read, result_files

if TYPE_CHECKING:
    from landscape.store import Header
    from landscape.study.overview import Cell, Overview


def command(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Result file, or a folder of them; without it, the files in ./landscape-results are listed.",
            metavar="[FILE|DIR]",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Argument(help="Run to show in full; the start of its id will do.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show stored results: a folder at a glance, the runs in one file, or one run in full.

    A run is shown with its settings, what was measured, how it was computed (enough to do it again), and
    every figure with its error. A folder is shown as a table of its checkpoints in training order with their
    main figures: of each kind the runs that ask the same of most checkpoints, of each checkpoint the latest.

    Examples:
      landscape show
      landscape show landscape-results
      landscape show landscape-results/ckpt-1a2b3c4d.h5
      landscape show landscape-results/ckpt-1a2b3c4d.h5 eigen-5f0c
    """
    console = Console("show", json=json, quiet=quiet)
    if file is None:
        _show_files(console)
    elif file.is_dir():
        _show_folder(console, file, run)
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


def _show_folder(console: Console, folder: Path, run: str | None) -> None:
    """The checkpoints and their main figures; or one run, whose file is found."""
    from landscape.study import open_runs
    from landscape.study.overview import overview

    from ..views import run_object

    runs = open_runs(folder)
    for text in runs.unreadable:
        console.warn(f"Left out: {text}")
    if run is not None:
        found = runs.find(run)
        _show_run(console, found.file, found.header.id)
        return
    files = len({entry.file for entry in runs})
    console.note(
        f"{printable(folder)} is a folder of {files} result file{'' if files == 1 else 's'} with "
        f"{len(runs)} run{'' if len(runs) == 1 else 's'}; landscape show FILE lists the runs of one."
    )
    if console.json:
        objects = [run_object(entry.read(), entry.file) for entry in runs]
        console.emit(objects, unreadable=list(runs.unreadable))
    else:
        _print_overview(console, overview(runs))


def _print_overview(console: Console, table: Overview) -> None:
    if table.lines:
        labels = [column.measure.label for column in table.columns]
        names = [
            column.measure.label + (f" ({column.kind})" if labels.count(column.measure.label) > 1 else "")
            for column in table.columns
        ]
        header = ["checkpoint", "step", "epoch", *names]
        rows = [
            [line.checkpoint, _when(line.step), _when(line.epoch), *map(_cell, line.cells)]
            for line in table.lines
        ]
        console.table(header, rows)
        console.out()
        said: dict[str, list[str]] = {}
        for i, name in enumerate(names):
            for meaning in dict.fromkeys(_meaning(cell) for line in table.lines if (cell := line.cells[i])):
                said.setdefault(meaning, []).append(name)
        for meaning, whose in said.items():
            console.out(f"{meaning}: {', '.join(whose)}")
    for text in table.left_out:
        console.note(f"Left out of {text}.")


def _when(number: int | None) -> str:
    return "" if number is None else str(number)


def _cell(cell: Cell | None) -> str:
    """``value ± error``, and the status where the run is not complete."""
    if cell is None:
        return ""
    reading, ended = cell.reading, "" if cell.status == "complete" else f" ({cell.status})"
    error = reading.standard_error if reading.error is None else reading.error
    return brief(reading.value, error) + ended


def _meaning(cell: Cell) -> str:
    """What the ± of a cell is."""
    if cell.reading.error is not None:
        return f"± is {cell.reading.meaning} (none where it is zero)"
    return "without ±" if cell.reading.standard_error is None else "± is the standard error"


def _show_run(console: Console, path: Path, run: str) -> None:
    from ..views import print_provenance, print_result, run_object

    result, _ = read(open_file(path), run)
    if result.provenance is not None:
        print_provenance(console, result.provenance)
    console.out(f"status {result.status}")
    console.out()
    print_result(console, result)
    console.emit([run_object(result, path)])
