"""``landscape report``: one page about all stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.errors import InputError

from ..console import Console, Reporter
from ..numbers import size
from ..options import Debug, Json, Quiet
from ..stored import FOLDER


def command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of result files, or result files. Default: ./landscape-results.",
            metavar="[DIR|FILE]...",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Page to write (.html); an existing one is replaced."),
    ] = Path("report.html"),
    title: Annotated[str | None, typer.Option("--title", help="Title of the page.")] = None,
    figures: Annotated[
        str,
        typer.Option(
            "--figures",
            help="Draw every run (all), or those of the last checkpoint of each training run (last), "
            "which is faster; pictures over training are drawn always.",
            metavar="all|last",
        ),
    ] = "all",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one page about stored runs: tables, pictures, what they mean, and how they were made.

    A single HTML file that loads nothing from anywhere: checkpoints in a table to be sorted and filtered,
    measures over training, every run with its pictures, numbers, settings and the command that makes it
    again, and how to read each figure. It has a light and a dark theme and can be printed.

    The same runs give the same page, byte by byte. Result files that cannot be read are listed on it.

    Examples:
      landscape report
      landscape report landscape-results -o report.html --title "SGD and SAM on digits"
      landscape report landscape-results/mlp-sgd-*.h5 -o sgd.html --figures last
    """
    from landscape.reports import write_report
    from landscape.study import Runs, open_runs

    from ..views.common import counted

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"cannot write a page as {output.name}", do="end its name in .html")
    console = Console("report", json=json, quiet=quiet)
    runs = Runs(())
    for source in sources or [FOLDER]:
        runs += open_runs(source)
    with Reporter(console) as reporter:
        written = write_report(runs, output, title=title, figures=figures, progress=reporter.progress)
    for text in written.unreadable:
        console.warn(f"Left out: {text}")
    runs_on = f"{counted(written.runs, 'run')} on {counted(written.checkpoints, 'checkpoint')}"
    console.note(f"{runs_on}, {counted(written.figures, 'picture')}, {size(written.size)}")
    console.out(str(written.path))
    console.emit(
        report=str(written.path),
        checkpoints=written.checkpoints,
        count=written.runs,
        figures=written.figures,
        bytes=written.size,
        unreadable=list(written.unreadable),
    )
