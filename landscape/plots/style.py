"""How every picture looks: colours that the colour-blind and a printer tell apart, words on the axes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from landscape.files import printable
from landscape.results import ProblemResult, Result

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "VERMILLION", "caption", "new_figure", "style"]

# Okabe & Ito (2008), Color Universal Design; each is told apart in grey by its marker as well.
BLUE, VERMILLION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#7F7F7F"

_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "text.usetex": False,
}


@contextlib.contextmanager
def style(**changes: Any) -> Iterator[None]:
    """Matplotlib settings for our pictures inside the block; the user's are back after it."""
    settings: Any = _STYLE | changes
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float = 6.0, height: float = 4.0) -> Figure:
    """An empty figure (inches) of its own: no window, no pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def caption(result: Result) -> str:
    """One line: which checkpoint, how many parameters and examples, and the status unless complete."""
    parts = []
    checkpoint = result.provenance.checkpoint if result.provenance else None
    if checkpoint is not None:
        parts.append(_shortened(checkpoint.path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]))
        parts += [f"step {checkpoint.step:,}"] if checkpoint.step is not None else []
    if isinstance(result, ProblemResult):
        parts += [_counted(result.parameters, "parameter"), _counted(result.examples, "example")]
    if result.status != "complete":
        parts.append(result.status.replace("_", " "))
    return " · ".join(printable(part) for part in parts).replace("$", r"\$")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _shortened(name: str, limit: int = 40) -> str:
    half = limit // 2 - 1
    return name if len(name) <= limit else f"{name[:half]}…{name[-half:]}"
