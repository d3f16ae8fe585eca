"""``landscape plot``: a picture of a stored run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.errors import InputError

from ..console import Console
from ..options import Debug, Json, Quiet
from ..stored import open_file, read

if TYPE_CHECKING:
    from landscape.results import Result

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
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw a stored run: for eigenvalues the spectrum with its error bars.

    The picture says which run and checkpoint it shows; an existing picture of the same name is replaced.

    Examples:
      landscape plot landscape-results/ckpt-1a2b3c4d.h5
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 -o spectrum.pdf --learning-rate 0.1
    """
    from ..views import run_object

    console = Console("plot", json=json, quiet=quiet)
    if output is not None and output.suffix.lower() not in FORMATS:
        raise InputError(
            f"cannot write a picture as {output.name}", do=f"end its name in {', '.join(FORMATS)}"
        )
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise InputError("--learning-rate is a positive number", found=str(learning_rate))
    result, among = read(open_file(file), run)
    name = result.provenance.id if result.provenance else result.kind
    if run is None and among > 1:
        console.note(f"The file holds {among} runs; this is the latest, {name}.")
    path = output or file.with_name(f"{file.stem}-{name}.png")
    _draw(result, path, learning_rate)
    console.out(str(path))
    console.emit([run_object(result, file)], picture=str(path))


def _draw(result: Result, path: Path, learning_rate: float | None) -> None:
    from landscape.plots import figure_for, save

    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure_for(result, learning_rate=learning_rate), path, result)
