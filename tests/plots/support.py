"""Made-up results with layers and sweeps, and a way to read what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from landscape.results import EigenResult, TraceResult
from tests.results.samples import eigen_result, provenance

#: Products, estimate and half-width at each look.
LOOKS = ((19, 36.5, 9.5), (32, 34.75, 4.75), (64, 34.25, 2.75), (100, 34.5, 1.75))


def trace_result(
    values: ArrayLike = (24.0, 8.0, 2.5),
    half: ArrayLike = (0.5, 0.25, 0.125),
    looks: Sequence[tuple[float, float, float]] = LOOKS,
    **changes: Any,
) -> TraceResult:
    """A trace with these layers, looked at so often."""
    traces, widths = np.asarray(values, dtype=float), np.asarray(half, dtype=float)
    table = np.array(looks, dtype=float).reshape(-1, 3)
    last = table[-1] if len(table) else np.full(3, np.nan)
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": 0.1,
        "examples": 1797,
        "terms": 1797.0,
        "parameters": 2410,
        "method": "krylov",
        "operator": "hessian",
        "noise_floor": 1e-6,
        "products": 100,
        "passes": 100,
        "seconds": 1.0,
        "trace": float(last[1]),
        "interval": last[1] + last[2] * np.array([-1.0, 1.0]),
        "half_width": float(last[2]),
        "confidence": 0.95,
        "exact_dimensions": 50,
        "probes": 50,
        "frobenius": 3.0,
        "frobenius_interval": np.array([2.0, 4.0]),
        "effective_dimension": 3.0,
        "effective_dimension_interval": np.array([2.0, 4.0]),
        "layers": np.array([f"{2 * i}" for i in range(len(traces))], dtype=object),
        "layer_parameters": np.full(len(traces), 5),
        "layer_traces": traces,
        "layer_intervals": np.stack([traces - widths, traces + widths], axis=1),
        "look_products": table[:, 0].astype(int),
        "look_traces": table[:, 1],
        "look_half_widths": table[:, 2],
        "provenance": provenance("20250102-trace-0a1b", command="landscape trace runs/mlp-sgd.pt"),
    }
    return TraceResult(**fields | changes)


def per_layer(values: ArrayLike = ((3.0, -1.0), (0.5, -0.25)), **changes: Any) -> EigenResult:
    """An eigen run with these eigenvalues (layer, pair) ± 0.125, of layers called 0, 2, 4, …"""
    pairs = np.asarray(values, dtype=float)
    fields: dict[str, Any] = {
        "which": "both" if pairs.shape[1] > 1 else "largest",
        "layers": np.array([f"{2 * i}" for i in range(len(pairs))], dtype=object),
        "layer_parameters": np.full(len(pairs), 5),
        "layer_eigenvalues": pairs,
        "layer_intervals": np.stack([pairs - 0.125, pairs + 0.125], axis=-1),
        "layer_converged": np.ones(pairs.shape, dtype=bool),
    }
    return eigen_result(**fields | changes)


def long_names(count: int) -> np.ndarray:
    """Names of modules as transformers have them."""
    parts = ("query", "key", "value", "output.dense", "intermediate.dense", "layer_norm")
    return np.array(
        [f"encoder.layers.{i // 6}.self_attention.{parts[i % 6]}" for i in range(count)], dtype=object
    )


def figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    return figure


def line(ax: Axes, label: str) -> Line2D | None:
    """The first line whose label begins like this."""
    return next((found for found in ax.get_lines() if str(found.get_label()).startswith(label)), None)


def ends(ax: Axes, label: str) -> list[tuple[float, float, float]]:
    """(place, low, high) of the error bars with this label, upright or lying."""
    found = []
    for container in ax.containers:
        if container.get_label() == label:
            (lines,) = container.lines[2]  # type: ignore[attr-defined]
            assert isinstance(lines, LineCollection)
            for segment in lines.get_segments():
                (x0, y0), (x1, y1) = (map(float, point) for point in np.asarray(segment))
                found.append((x0, y0, y1) if x0 == x1 else (y0, x0, x1))
    return found


def legend(ax: Axes) -> list[str]:
    box = ax.get_legend()
    return [] if box is None else [text.get_text() for text in box.get_texts()]


def notes(ax: Axes) -> list[str]:
    """The texts beside the bars, from top to bottom."""
    return [text.get_text() for text in sorted(ax.texts, key=lambda text: float(text.xy[1]))]  # type: ignore[attr-defined]


def bar_widths(ax: Axes) -> list[float]:
    """The bars from top to bottom, each from zero to its value."""
    return [float(p.get_width()) for p in sorted(ax.patches, key=lambda p: p.get_y())]  # type: ignore[attr-defined]


def assert_all_inside(figure: Figure) -> None:
    """Nothing that is drawn is cut off by the figure, and no panel's words reach into another's data."""
    figure.canvas.draw()
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    for ax in figure.axes:
        words = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]  # type: ignore[attr-defined]
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            low, high = sorted(limits)
            words += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        box = ax.get_legend()
        for artist in [*words, *([box] if box is not None else [])]:
            if not artist.get_visible() or (hasattr(artist, "get_text") and not artist.get_text()):
                continue
            place = artist.get_window_extent(renderer)
            assert -0.5 <= place.x0 <= place.x1 <= width + 0.5, artist
            assert -0.5 <= place.y0 <= place.y1 <= height + 0.5, artist
            for other in figure.axes:
                if other is not ax:
                    assert not other.get_window_extent().overlaps(place), (artist, other)
        if box is not None:
            assert not ax.get_window_extent().overlaps(box.get_window_extent(renderer))
