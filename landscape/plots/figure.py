"""From any result to a figure, and from a figure to a file."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.files import printable, replace_atomically
from landscape.plots.spectrum import spectrum
from landscape.plots.style import style
from landscape.results import Result

__all__ = ["figure_for", "save"]

#: The picture of each kind of result: called as ``plot(result, **options)``.
_PLOTS: Mapping[str, Callable[..., Axes]] = {"eigen": spectrum}


def figure_for(result: Result, **options: Any) -> Figure:
    """The figure of a result, by its kind; options that are None are left out.

    Raises:
        InputError: a kind without a picture, or an option that its picture does not have.
    """
    plot = _PLOTS.get(result.kind)
    if plot is None:
        raise InputError(
            f"there is no picture of a {result.kind} result", do=f"there is one of: {', '.join(_PLOTS)}"
        )
    given = {name: value for name, value in options.items() if value is not None}
    keywords = inspect.signature(plot).parameters.values()
    known = [p.name for p in keywords if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if unknown := sorted(set(given) - set(known)):
        raise InputError(
            f"the picture of a {result.kind} result has no option {', '.join(unknown)}",
            do=f"it has: {', '.join(known)}",
        )
    figure = plot(result, **given).get_figure()
    assert isinstance(figure, Figure)
    return figure


def save(figure: Figure, path: str | Path, result: Result) -> None:
    """Write a PNG (160 dots per inch), PDF or SVG by suffix, with run and checkpoint in its metadata.

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
    picture = io.BytesIO()
    with style(**{"svg.hashsalt": "landscape"}):
        figure.savefig(picture, format=suffix, dpi=160, metadata=_metadata(suffix, result))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, lambda file: file.write(picture.getvalue()))
    except OSError as error:
        raise InputError(
            f"cannot write {printable(path)}",
            found=error.strerror or str(error),
            do="check the folder and the room on the disk, or choose another name",
        ) from error


def _metadata(suffix: str, result: Result) -> dict[str, Any]:
    """The same two sentences under the names that each format has for them, and no date."""
    title, source = f"landscape {result.kind}", _source(result)
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
