"""``landscape export``: stored runs for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.errors import InputError

from ..console import Console
from ..options import Debug, Json, Quiet
from ..stored import FOLDER

if TYPE_CHECKING:
    from landscape.study import Runs

_STDOUT = Path("-")


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Result files or folders (default: ./landscape-results), then, if wanted, the RUN to "
            "export, or the beginning of the ids of several.",
            metavar="[FILE|DIR]... [RUN]",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="csv, json or npz. Default: as the output's name ends, else csv.",
            metavar="csv|json|npz",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, an existing one being replaced; with several quantities as csv, a folder. "
            "Default, or -: stdout (not for npz on a terminal).",
        ),
    ] = None,
    quantity: Annotated[
        list[str] | None,
        typer.Option(
            "--quantity",
            help="Only this quantity, such as eigenvalues, element by element (repeatable); all: every "
            "array. Default: csv has the measures of each run, json and npz have everything.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export stored runs as CSV, JSON or npz.

    csv: one row for each run and measure, with its error, what that error is, and the standard error over the
    data; with --quantity one row for each element of an array, with its errors beside it. Numbers have all
    their digits; nan is a number that came out so, an empty cell was not computed. Text that a spreadsheet
    would take for a formula begins with an apostrophe.

    json: the runs as --json prints them, with all arrays and how each was obtained; null for what is not
    finite or was not computed.

    npz: every quantity as an array by its name, of several runs as RUN/NAME; NAME_mask is true where an
    element was not computed. numpy.load reads it without pickle.

    Examples:
      landscape export landscape-results > measures.csv
      landscape export landscape-results eigen -o eigenvalues.csv --quantity eigenvalues
      landscape export landscape-results/ckpt-1a2b3c4d.h5 --quantity all -o tables
      landscape export landscape-results/ckpt-1a2b3c4d.h5 density-5e6f -o density.npz
      landscape export landscape-results -o runs.json
    """  # fmt: skip
    from landscape.study.export import export

    console = Console("export", json=json, quiet=quiet)
    runs = _runs(console, names or [str(FOLDER)])
    quantities = quantity or []
    if output is None or output == _STDOUT:
        _print(console, runs, format, quantities)
        return
    written = export(runs, output, format=format, quantities=quantities)
    for path in written:
        console.out(str(path))
    console.emit(exported=[header.id for header in runs.runs()], files=[str(path) for path in written])


def _runs(console: Console, names: list[str]) -> Runs:
    """The runs of what exists or ends in .h5; one name that does neither begins the ids of those wanted."""
    from landscape.study import Runs, open_runs

    is_path = [name.endswith(".h5") or Path(name).exists() for name in names]
    others = [name for name, path in zip(names, is_path, strict=True) if not path]
    if len(others) > 1:
        raise InputError(
            "more than one argument is no file or folder, and one run can be named",
            found=", ".join(others),
            do="landscape show lists the result files of this folder",
        )
    paths = [name for name, path in zip(names, is_path, strict=True) if path] or [str(FOLDER)]
    found = Runs(())
    for path in paths:
        found += open_runs(path)
    for text in found.unreadable:
        console.warn(f"Left out: {text}")
    if not others:
        return found
    chosen = found.where(id=others[0])
    if not chosen:
        raise InputError(
            f"there is no run whose id begins with {others[0]!r}, and no such file",
            found=f"{len(found)} runs of {', '.join(found.kinds) or 'no kind'} in {', '.join(paths[:3])}",
            do="landscape show FILE lists the runs of a file",
        )
    return chosen


def _print(console: Console, runs: Runs, format: str | None, quantities: list[str]) -> None:
    """On stdout: ``--json`` is the format json."""
    from landscape.study.export import ALL, FORMATS, csv_text, json_text, npz_bytes

    chosen = format or ("json" if console.json else "csv")
    if chosen not in FORMATS:
        raise InputError(f"cannot export as {chosen!r}", do=f"choose one of {', '.join(FORMATS)}")
    if console.json and chosen != "json":
        raise InputError(f"--json and {chosen} both go to stdout", do="add -o FILE")
    if chosen == "csv" and (len(quantities) > 1 or ALL in quantities):
        raise InputError("several quantities make a CSV file each", do="name a folder for them with -o")
    if chosen == "npz":
        if sys.stdout.isatty():
            raise InputError("an npz archive is not for a terminal", do="add -o FILE.npz")
        sys.stdout.buffer.write(npz_bytes(runs, quantities))
        return
    text = csv_text(runs, *quantities) if chosen == "csv" else json_text(runs, quantities)
    sys.stdout.write(text)
