"""``landscape plot``: a picture of a stored run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscape.errors import InputError

from ..console import Console
from ..options import Debug, Json, Quiet
from ..stored import open_file, read

#: Endings that a picture may have.
FORMATS = (".png", ".pdf", ".svg")


def command(
    file: Annotated[Path, typer.Argument(help="Result file.")],
    run: Annotated[
        str | None, typer.Argument(help="Run to draw (default: the latest); the start of its id will do.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Picture to write: .png, .pdf or .svg. Default: beside the result file."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            help="Draw 2/η, the sharpest curvature that gradient descent with step η bears.",
        ),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(
            "--bandwidth",
            help="Density: smooth the bulk with kernels of this standard deviation, in units of the "
            "eigenvalues. Default: as wide as the nodes lie apart.",
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            "--view",
            help="Which picture: history, spectrum or layers of eigenvalues; trace; layers or density of a "
            "density; sweep of finite differences. Default: the first that the run has.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw a stored run: a spectrum, a running average, a trace or a density, with error bars and layers.

    The picture says which run and checkpoint it shows; an existing picture of the same name is replaced.

    Examples:
      landscape plot landscape-results/ckpt-1a2b3c4d.h5
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 -o spectrum.pdf --learning-rate 0.1
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 density-5e6f7a8b --bandwidth 0.01
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 eigen-9c0d1e2f --view sweep
    """
    from ..views import run_object  # imported late, like the pictures: they are slow to load

    console = Console("plot", json=json, quiet=quiet)
    if output is not None and output.suffix.lower() not in FORMATS:
        raise InputError(
            f"cannot write a picture as {output.name}", do=f"end its name in {', '.join(FORMATS)}"
        )
    for option, value in (("--learning-rate", learning_rate), ("--bandwidth", bandwidth)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{option} is a positive number", found=str(value))
    from landscape.plots import figure_for, save

    result, among = read(open_file(file), run)
    name = result.provenance.id if result.provenance else result.kind
    if run is None and among > 1:
        console.note(f"The file holds {among} runs; this is the latest, {name}.")
    figure = figure_for(result, view, learning_rate=learning_rate, bandwidth=bandwidth)
    path = output or file.with_name(f"{file.stem}-{name}{f'-{view}' if view else ''}.png")
    save(figure, path, result)
    console.out(str(path))
    console.emit([run_object(result, file)], picture=str(path))
