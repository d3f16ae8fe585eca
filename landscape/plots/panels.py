"""What pictures of several panels share: where the panels are, their legend, and how numbers are written."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation

__all__ = [
    "CURVATURES",
    "legend_below",
    "matrix_name",
    "panel_below",
    "plain",
    "sentence",
    "shown",
    "text_width",
    "unit",
    "with_error",
]

#: What a column of a legend takes beside its texts (inches at 8 points).
_HANDLE = 0.55

#: The matrices, as within a sentence.
_NAMES = {
    "hessian": "Hessian",
    "gauss-newton": "Gauss–Newton",
    "fisher": "Fisher",
    "empirical-fisher": "empirical Fisher",
    "noise": "gradient noise",
    "finite-difference": "finite-difference Hessian",
}


def matrix_name(operator: str) -> str:
    """The matrix, as within a sentence."""
    return _NAMES.get(operator, operator)


#: Matrices whose λmax bounds the step of gradient descent.
CURVATURES = ("hessian", "finite-difference")


def unit(operator: str) -> str:
    """The unit of its eigenvalues: second moments of gradients are in squares of the loss."""
    squares = operator in ("fisher", "empirical-fisher", "noise")
    return "loss² / weight²" if squares else "loss / weight²"


def sentence(operator: str) -> str:
    """The matrix, at the beginning of a label."""
    name = matrix_name(operator)
    return name[:1].upper() + name[1:]


def panel_below(ax: Axes, heights: tuple[float, float], *, shared: bool = False) -> Axes:
    """A second panel in the lower part of ``ax``, both ``heights`` being relative to each other.

    Panels that are ``shared`` have one x axis, labelled below the lower one, and stand close together.
    """
    figure, place = ax.get_figure(), ax.get_subplotspec()
    assert isinstance(figure, Figure | SubFigure)
    other = ax if shared else None
    if place is not None:
        grid = place.subgridspec(2, 1, height_ratios=heights, hspace=0.08 if shared else None)
        ax.set_subplotspec(grid[0])
        lower = figure.add_subplot(grid[1], sharex=other)
    else:
        box, gap = ax.get_position(), 0.04 if shared else 0.2
        share = heights[1] / sum(heights) * (1 if shared else 1 - gap)
        ax.set_position(
            (box.x0, box.y0 + (share + gap) * box.height, box.width, (1 - gap - share) * box.height)
        )
        lower = figure.add_axes((box.x0, box.y0, box.width, share * box.height), sharex=other)
    if shared:
        ax.tick_params(labelbottom=False)
    return lower


def legend_below(ax: Axes, *, inches: float = 0.45, left: float = 0.0) -> None:
    """The legend of ``ax``, each text once and error bars last, that far below it.

    ``left`` is what labels take at the left of ``ax`` (inches): the legend is centred below both.
    """
    entries: dict[str, Artist | Container] = {}
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        entries.setdefault(label, handle)
    figure = ax.get_figure(root=True)
    if not entries or figure is None:
        return
    labels = sorted(entries, key=lambda label: isinstance(entries[label], ErrorbarContainer))
    place = ax.transAxes + ScaledTranslation(-left / 2, -inches, figure.dpi_scale_trans)
    room = min(figure.get_figwidth() - 0.9, 1.3 * ax.bbox.width / figure.dpi)
    ax.legend(
        [entries[label] for label in labels], labels, loc="upper center", bbox_to_anchor=(0.5, 0.0),
        bbox_transform=place, ncols=_columns(labels, room), borderaxespad=0.0,
    )  # fmt: skip


def _columns(labels: list[str], room: float) -> int:
    """As many columns as fit into so many inches, by the lengths of the texts, and shorten the legend."""
    for columns in (4, 3, 2):
        if -(-len(labels) // columns) == -(-len(labels) // (columns - 1)):
            continue
        parts = [part.tolist() for part in np.array_split(labels, columns) if len(part)]  # as legends do
        if sum(_HANDLE + max(text_width(label, 8.0) for label in part) for part in parts) <= room:
            return columns
    return 1


def text_width(text: str, points: float) -> float:
    """Width in inches of the longest line of a text in so many points."""
    font = FontProperties(size=points)
    lines = text.replace(r"\$", "$").splitlines()
    widths = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines]
    return float(max(widths, default=0.0)) / 72


def plain(value: float, _: object = None) -> str:
    """A number on an axis, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def shown(value: float, digits: int = 3) -> str:
    """A number without an error of its own."""
    return f"{value:.{digits}g}".replace("-", "−")


def with_error(value: float, error: float) -> str:
    """``value ± error`` to the error's second significant digit, the error rounded up to hold the value."""
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return shown(value, 4)
    place = max(math.floor(math.log10(error)) - 1, math.floor(math.log10(abs(value) or error)) - 14)
    unit = 10.0**place
    rounded = round(value / unit) * unit
    bound = math.ceil((error + abs(value - rounded)) / unit - 1e-6) * unit
    largest = max(abs(value), bound)
    if 1e-4 <= largest < 1e6:
        places = max(-place, 0)
        text = f"{rounded:.{places}f} ± {bound:.{places}f}"
    else:
        digits = [
            max(math.floor(math.log10(size)) - place, 0) if size else 0 for size in (abs(rounded), bound)
        ]
        text = f"{rounded:.{digits[0]}e} ± {bound:.{digits[1]}e}"
    return text.replace("-", "−")
