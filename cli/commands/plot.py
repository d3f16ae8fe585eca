"""``landscape plot``: a picture of a stored run, or of the runs on several checkpoints."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.errors import InputError
from landscape.files import natural_order

from ..console import Console
from ..options import Debug, Json, Quiet
from ..series import STUDY, Drawn, has_series, read_series
from ..stored import open_file, read, runs_of

#: Endings that a picture may have.
FORMATS = (".png", ".pdf", ".svg")

_Options = dict[str, Any]


def command(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Result file, or a folder of them, then, if wanted, the RUN to draw (default: the latest; "
            "the start of its id will do). Runs in several result files are drawn in one picture.",
            metavar="FILE... [RUN]",
        ),
    ],
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
            help="Which picture: history, spectrum or layers of eigenvalues; trace; layers or density of "
            "a density; histogram, layers or sweep of ratios; matrix or distance of an overlap; sweep or "
            "terms of a sharpness; weights or parts of a re-weighting; overview, alignment or batches of "
            "noise; barrier or line, plane or surface, and trajectory of a slice; sweep of finite "
            "differences; overview, curvature or ratios of a monitor. Of several checkpoints: training of "
            "every kind, eigenvalues of eigen, measures of ratios; study of all kinds at once. "
            "Default: the first that the run has.",
        ),
    ] = None,
    per_layer: Annotated[
        bool,
        typer.Option(
            "--per-layer",
            help="Ratios, traces, eigenvalues or densities over training: a panel for each layer.",
        ),
    ] = False,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="Over training: draw this figure instead of the usual ones, such as effective_dimension of "
            "traces; again and again for several.",
            metavar="NAME",
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels",
            help="Slices, planes: contours at quantile, log or linear levels. Default: what shows most.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Slices, planes: draw the train or the test data. Default: train."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="Slices: draw accuracy, error (the standard error), gradient_norm, saved_loss, "
            "interpolation_error or a metric of your own instead of the loss.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw a stored run, or the runs on several checkpoints, with error bars.

    One run: a spectrum, a trace, a density, ratios, a slice of the loss and more, with its layers. Several
    result files, or --view training: how the figures change over training, of the latest run on each
    checkpoint with the same settings; what is left out is said. Checkpoints whose names differ in numbers
    only are of one training run; several of them are drawn beside each other. With several kinds of runs in
    the files, the picture shows the main figures of each, or RUN is the beginning of the ids to draw, such as
    ratios.

    The picture says which runs and checkpoints it shows; an existing picture of the same name is replaced.

    Examples:
      landscape plot landscape-results/ckpt-1a2b3c4d.h5
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 -o spectrum.pdf --learning-rate 0.1
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 density-5e6f7a8b --bandwidth 0.01
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 eigen-9c0d1e2f --view sweep
      landscape plot landscape-results/*.h5
      landscape plot landscape-results/*.h5 eigen --learning-rate 0.1
      landscape plot landscape-results/mlp-sgd-*.h5 ratios --per-layer
      landscape plot landscape-results/ckpt-1a2b3c4d.h5 slice --levels log --data test
    """
    console = Console("plot", json=json, quiet=quiet)
    files, run = _files_and_run(names)
    if output is not None:
        check_picture(output)
    for option, value in (("--learning-rate", learning_rate), ("--bandwidth", bandwidth)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{option} is a positive number", found=str(value))
    options = {
        "learning_rate": learning_rate, "bandwidth": bandwidth, "per_layer": per_layer or None,
        "levels": levels, "data": data, "metric": metric, "measure": measure or None,
    }  # fmt: skip
    if len(files) > 1 or (view is not None and has_series(files[0], view)):
        _draw_series(console, files, run, view, output, options)
    else:
        _draw_one(console, files[0], run, view, output, options)


def check_picture(path: Path) -> None:
    """Refuse a picture of another format, before anything is read."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"cannot write a picture as {path.name}", do=f"end its name in {', '.join(FORMATS)}")


def _files_and_run(names: list[str]) -> tuple[list[Path], str | None]:
    """What exists or ends in .h5 is a file, the other is the run; where nothing is, the first is the file."""
    names = [inside for name in names for inside in _in_folder(name)]
    is_file = [name.endswith(".h5") or Path(name).is_file() for name in names]
    if not any(is_file):
        is_file[0] = True
    others = [name for name, file in zip(names, is_file, strict=True) if not file]
    if len(others) > 1:
        raise InputError(
            "more than one argument is no result file, and one run can be named",
            found=", ".join(others),
            do="landscape show lists the result files of this folder",
        )
    files = [Path(name) for name, file in zip(names, is_file, strict=True) if file]
    return runs_of(list(dict.fromkeys(files))), others[0] if others else None


def _in_folder(name: str) -> list[str]:
    """The result files of a folder, or what a pattern in quotes matches; anything else as it is."""
    path = Path(name)
    if name and path.is_dir():
        inside = sorted(path.glob("*.h5"), key=natural_order)
        if not inside:
            raise InputError(f"no result files in the folder {path}", do="landscape batch makes them")
        return [str(file) for file in inside]
    if glob.has_magic(name) and not path.exists():
        return sorted(glob.glob(name), key=lambda found: natural_order(Path(found))) or [name]
    return [name]


def _draw_one(
    console: Console, file: Path, run: str | None, view: str | None, output: Path | None, options: _Options
) -> None:
    from landscape.plots import figure_for, save

    from ..views import run_object  # imported late, like the pictures: they are slow to load

    result, among = read(open_file(file), run)
    name = result.provenance.id if result.provenance else result.kind
    if run is None and among > 1:
        console.note(f"The file holds {among} runs; this is the latest, {name}.")
    figure = figure_for(result, view, **options)
    parts = (file.stem, name, view, options["data"], _in_name(options["metric"] or ""))
    path = output or file.with_name("-".join(part for part in parts if part) + ".png")
    save(figure, path, result)
    console.out(str(path))
    console.emit([run_object(result, file)], picture=str(path))


def _in_name(part: str) -> str:
    """A part of a file's name: a metric of the user's may be called anything."""
    return re.sub(r"[^\w.=+-]+", "_", part)


def _draw_series(
    console: Console, files: list[Path], run: str | None, view: str | None, output: Path | None,
    options: _Options,
) -> None:  # fmt: skip
    """The runs on several checkpoints in one picture, beside the first file unless told otherwise."""
    from landscape.plots import figure_of_series, figure_of_study, save

    from ..views import run_object

    several = view == STUDY or (view is None and not options["per_layer"])
    drawn = read_series(files, run, view, several=several)
    for text in drawn.left_out:
        console.note(f"Left out: {text}.")
    results = {kind: series.results for kind, series in drawn.series.items()}
    if view == STUDY or len(results) > 1:
        figure = figure_of_study(results, **options)
    else:
        figure = figure_of_series(next(iter(results.values())), view, **options)
    every = [one.result for one in drawn.runs]
    path = output or files[0].with_name(_series_name(files, drawn, view, options))
    save(figure, path, every)
    console.out(str(path))
    console.emit([run_object(one.result, one.file) for one in drawn.runs], picture=str(path))


def _series_name(files: list[Path], drawn: Drawn, view: str | None, options: _Options) -> str:
    """The picture's name: the file if it is one, the kind if it is one, the view, and what was chosen."""
    from landscape.plots import series_views

    kinds = list(drawn.series)
    parts = [files[0].stem] * (len(files) == 1) + kinds * (len(kinds) == 1 and view != STUDY)
    parts.append(view or (next(iter(series_views(kinds[0]))) if len(kinds) == 1 else STUDY))
    parts += ["layers"] * bool(options["per_layer"])
    parts += [_in_name(name) for name in options["measure"] or ()]
    return "-".join(parts) + ".png"
