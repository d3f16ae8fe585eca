"""``landscape compare``: two or more checkpoints or training runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.errors import InputError

from ..console import Console
from ..options import Debug, Json, Quiet
from .plot import check_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from landscape.results import Result


def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Result files, FILE#RUN for the runs in one whose ids begin so, folders, or patterns in "
            "quotes. The first is what the others are held against.",
            metavar="A B...",
        ),
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Compare runs of this kind only; again and again for several."),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="Compare this figure only, such as lambda_max or trace.effective_dimension; again and again "
            "for several. Default: all; of training runs the main ones.",
            metavar="NAME",
        ),
    ] = None,
    correlate: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--correlate",
            help="Rank correlation of two figures over the checkpoints instead, with intervals: "
            "--correlate lambda_max gap.",
            metavar="X Y",
        ),
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Compare also what was not measured alike; in what it differs is said."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Draw it too, into this file: .png, .pdf or .svg."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare checkpoints or training runs: figures side by side, their differences with errors.

    Files of single checkpoints are compared as they are: a column for each, the difference from the first and
    whether it is more than the errors. Folders, and files whose names tell several checkpoints of two
    training runs apart (mlp-sgd-epoch010, mlp-sam-epoch010), are compared over training, matched by step,
    epoch or the number in the name.

    Two questions are answered apart. Do the figures differ for the very data they were measured on? Bounds
    add up, intervals over random vectors add in quadrature. And by more than other data of the same source
    would explain? Standard errors add in quadrature, as if they were independent.

    Examples:
      landscape compare landscape-results/mlp-sgd-1a2b3c4d.h5 landscape-results/mlp-sam-5e6f7a8b.h5
      landscape compare a.h5#eigen b.h5#eigen --measure lambda_max -o lambda.png
      landscape compare landscape-results --kind eigen --kind trace -o sgd-sam.pdf
      landscape compare 'runs/sgd-*.h5' 'runs/sam-*.h5' --correlate lambda_max accuracy
    """
    console = Console("compare", json=json, quiet=quiet)
    if output is not None:
        check_picture(output)
    if correlate is None:
        _compare(console, sources, kind, measure, mixed, output)
        return
    for option, value in (("--kind", kind), ("--measure", measure)):
        if value:
            raise InputError(f"{option} is for comparing, --correlate names its two figures")
    _correlate(console, sources, correlate, mixed, output)


def _compare(
    console: Console, sources: list[str], kinds: list[str] | None, measures: list[str] | None, mixed: bool,
    output: Path | None,
) -> None:  # fmt: skip
    from landscape.study.compare import compared

    from ..views.compare import print_comparison

    found = compared(sources, kinds=kinds or None, measures=measures or None, mixed=mixed)
    print_comparison(console, found.comparison)
    if output is not None:
        from landscape.plots.compare import compared as draw

        figure = draw(found.comparison, found.results, measure=measures or None)
        every = [result for of in found.results.values() for results in of.values() for result in results]
        _save(console, figure, output, every)
    console.emit(comparison=found.comparison.to_json(), picture=None if output is None else str(output))


def _correlate(
    console: Console, sources: list[str], names: tuple[str, str], mixed: bool, output: Path | None
) -> None:
    from landscape.study.correlation import correlated

    from ..views.compare import print_correlations

    found, results = correlated(sources, *names, mixed=mixed)
    print_correlations(console, found)
    if output is not None:
        from landscape.plots.compare import scatter

        _save(console, scatter(found), output, results)
    console.emit(
        correlations=[one.to_json() for one in found], picture=None if output is None else str(output)
    )


def _save(console: Console, figure: Figure, path: Path, results: Sequence[Result]) -> None:
    from landscape.plots import save

    save(figure, path, results)
    console.out(str(path))
