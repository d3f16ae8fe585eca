"""From any result to a figure, and from a figure to a file."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.files import printable, replace_atomically
from landscape.plots.density import density
from landscape.plots.history import history
from landscape.plots.layers import density_layers, layers, spectrum_and_layers
from landscape.plots.measures_training import SERIES, study
from landscape.plots.style import style
from landscape.plots.sweep import sweep
from landscape.plots.trace import trace
from landscape.plots.view import View, has
from landscape.results import DensityResult, Result

__all__ = ["figure_for", "views_of", "figure_of_series", "figure_of_study", "save", "series_views"]


def _whole(result: DensityResult, *, bandwidth: float | None = None) -> Axes:
    """The density of the whole matrix, also of a result with layers."""
    return density(dataclasses.replace(result, layers=None), bandwidth=bandwidth)


_SWEEP = View(sweep, has("rho_sweep"))

#: The pictures of each kind of result by name; the first that a result has is drawn unless told otherwise.
_VIEWS: Mapping[str, Mapping[str, View]] = {
    "eigen": {
        "history": View(history, has("history")),
        "spectrum": View(spectrum_and_layers, has("eigenvalues")),
        "layers": View(layers, has("layers")),
        "sweep": _SWEEP,
    },
    "trace": {"trace": View(trace, has("look_products")), "sweep": _SWEEP},
    "density": {
        "layers": View(density, has("layers")),
        "density": View(_whole, has("nodes")),
        "bars": View(density_layers, has("layers")),
        "sweep": _SWEEP,
    },
}
#: The module of the pictures of each other kind, where they stand as VIEWS.
_MODULES = {
    kind: f"landscape.plots.{kind}"
    for kind in ("ratios", "overlap", "sharpness", "reweight", "noise", "slice", "monitor")
}
#: What a run that was stopped before there was anything to draw has not yet.
_MISSING = {"eigen": "eigenvalue", "trace": "estimate", "density": "density"}


def _of_kind(kind: str) -> Mapping[str, View]:
    """The pictures of a kind of result, none of an unknown one."""
    if kind in _MODULES:
        views: Mapping[str, View] = importlib.import_module(_MODULES[kind]).VIEWS
        return views
    return _VIEWS.get(kind, {})


def series_views(kind: str) -> Mapping[str, View]:
    """The pictures of several results of a kind, over the checkpoints that they are of.

    A module of pictures may have some as ``SERIES``, called as ``draw(results, **options)``; those that every
    kind with measures has follow. The first is drawn unless told otherwise.
    """
    own: Mapping[str, View] = {}
    if kind in _MODULES:
        own = getattr(importlib.import_module(_MODULES[kind]), "SERIES", {})
    return {**own, **SERIES.get(kind, {})}


def figure_of_series(results: Sequence[Result], view: str | None = None, **options: Any) -> Figure:
    """The figure of several results of one kind; options that are None are left out.

    Args:
        view: which of the pictures of several results, by name; the first without.

    Raises:
        InputError: results of several kinds, a kind without such a picture, or one that does not have this
            view or option; or what the picture itself finds wrong.
    """
    kinds = list(dict.fromkeys(result.kind for result in results))
    if len(kinds) != 1:
        raise InputError(
            "one picture over checkpoints shows runs of one kind",
            found=", ".join(kinds) or "no runs",
            do="choose the runs of one kind",
        )
    there = {name: v.draw for name, v in series_views(kinds[0]).items() if v.of(results)}
    if not there:
        raise InputError(f"there is no picture of several {kinds[0]} runs", do="draw them one by one")
    if view is not None and view not in there:
        raise InputError(
            f"there is no picture {printable(view)!r} of several {kinds[0]} runs",
            do=f"there is: {', '.join(there)}",
        )
    return _drawn(there, _first(there, options) if view is None else view, results, options)


def figure_of_study(results: Mapping[str, Sequence[Result]], **options: Any) -> Figure:
    """The figure of the main measures of several kinds of results over the same training runs.

    Args:
        results: by kind, of two checkpoints or more each; options that are None are left out.

    Raises:
        InputError: nothing to draw, or an option or measure that there is not.
    """
    return _drawn({"study": study}, "study", results, options)


def _first(there: Mapping[str, Callable[..., Axes]], options: Mapping[str, Any]) -> str:
    """The first picture that has all options given, if there is one; else the first."""
    given = {option for option, value in options.items() if value is not None}
    return next((name for name in there if given <= set(_options(there[name]))), next(iter(there)))


def figure_for(result: Result, view: str | None = None, **options: Any) -> Figure:
    """The figure of a result, by its kind; options that are None are left out.

    Args:
        view: which of its pictures, by name; the first that there is without.

    Raises:
        InputError: a kind without a picture, a result that does not have this one or any, or an option that
            the picture does not have.
    """
    there = views_of(result)
    name = _checked(result, view, there)
    return _drawn(there, _first(there, options) if view is None else name, result, options)


def _drawn(
    there: Mapping[str, Callable[..., Axes]], name: str, of: Any, options: Mapping[str, Any]
) -> Figure:
    """The picture called so of a result, or of several, if it has these options."""
    given = {option: value for option, value in options.items() if value is not None}
    known = _options(there[name])
    if unknown := sorted(set(given) - set(known)):
        others = [other for other, draw in there.items() if not set(given) - set(_options(draw))]
        raise InputError(
            f"the {name} picture has no option {', '.join(unknown)}",
            do=f"it has{': ' + ', '.join(known) if known else ' none'}"
            + (f"; {', '.join(others)} has it" if others else ""),
        )
    figure = there[name](of, **given).get_figure()
    assert isinstance(figure, Figure)
    return figure


def _options(draw: Callable[..., Axes]) -> list[str]:
    """The options of a picture."""
    keywords = inspect.signature(draw).parameters.values()
    return [p.name for p in keywords if p.kind is inspect.Parameter.KEYWORD_ONLY]


def views_of(result: Result) -> dict[str, Callable[..., Axes]]:
    """The pictures that there are of a result, by name; at least one."""
    views = _of_kind(result.kind)
    if not views:
        raise InputError(
            f"there is no picture of {result.kind} results",
            do=f"there are of: {', '.join((*_VIEWS, *_MODULES))}",
        )
    there = {name: view.draw for name, view in views.items() if view.of(result)}
    if not there:
        raise InputError(
            f"there is no {_MISSING.get(result.kind, 'figure')} yet, and so nothing to draw",
            found=f"a run that is {result.status.replace('_', ' ')}",
            do="run it again with more products or more time",
        )
    return there


def _checked(result: Result, view: str | None, there: Mapping[str, Any]) -> str:
    """The name of the view asked for, or of the first."""
    if view is None:
        return next(iter(there))
    if view not in there:
        missing = f"this run has no {view} to draw"
        unknown = f"{result.kind} runs have no view {printable(view)!r}"
        raise InputError(
            missing if view in _of_kind(result.kind) else unknown, do=f"it has: {', '.join(there)}"
        )
    return view


def save(figure: Figure, path: str | Path, result: Result | Sequence[Result]) -> None:
    """Write a PNG (160 dots per inch), PDF or SVG by suffix, with runs and checkpoints in its metadata.

    The same figure gives the same bytes. ``path`` is replaced in one step, or left as it is.

    Raises:
        InputError: another suffix, or a place that cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in ("png", "pdf", "svg"):
        raise InputError(
            f"cannot tell the format of {printable(path)}",
            found=f"the suffix {printable(path.suffix)!r}" if suffix else "no suffix",
            do="end the name in .png, .pdf or .svg",
        )
    results = [result] if isinstance(result, Result) else list(result)
    picture = io.BytesIO()
    # Planes keep their aspect whatever the paper, which no layout can foresee: it is cut to what is drawn.
    cut = "tight" if any(one.kind == "slice" for one in results) else None
    with style(**{"svg.hashsalt": "landscape"}):
        metadata = _metadata(suffix, results)
        figure.savefig(picture, format=suffix, dpi=160, metadata=metadata, bbox_inches=cut)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, lambda file: file.write(picture.getvalue()))
    except OSError as error:
        raise InputError(
            f"cannot write {printable(path)}",
            found=error.strerror or str(error),
            do="check the folder and the room on the disk, or choose another name",
        ) from error


def _metadata(suffix: str, results: Sequence[Result]) -> dict[str, Any]:
    """The same two sentences under the names that each format has for them, and no date."""
    title = f"landscape {', '.join(dict.fromkeys(result.kind for result in results))}"
    source = " | ".join(map(_source, results))
    if suffix == "png":
        return {"Title": title, "Description": source, "Software": "landscape"}
    if suffix == "pdf":
        return {"Title": title, "Subject": source, "Creator": "landscape", "CreationDate": None}
    return {"Title": title, "Description": source, "Creator": "landscape", "Date": None}


def _source(result: Result) -> str:
    provenance = result.provenance
    if provenance is None:
        return "run not stored"
    checkpoint = provenance.checkpoint
    if checkpoint is None:
        return printable(f"run {provenance.id}")
    return printable(f"run {provenance.id}; checkpoint {checkpoint.path}; SHA-256 {checkpoint.sha256}")
