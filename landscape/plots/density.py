"""The spectral density: where the eigenvalues are, and how many."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.bars import layers_shown, short_names
from landscape.plots.panels import plain, sentence, unit
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.results.density import DensityResult, kernel_widths, smoothed

__all__ = ["density"]

#: At most this many decades on either side of zero; smaller values lie in the linear part around it.
_DECADES = 6
#: A kernel is drawn to so many standard deviations, where it has fallen to 4e-6 of its peak.
_SEEN = 5.0
#: Points of a curve, evenly spaced on the axis as drawn.
_POINTS = 1500
#: Of more layers than this only some are drawn; they are told apart by colour and dashes.
_CURVES = 10
_COLOURS, _DASHES = (BLUE, VERMILLION, GREEN, BLACK, GREY), ("-", "--", ":", "-.")

Floats = NDArray[np.float64]


def density(result: DensityResult, ax: Axes | None = None, *, bandwidth: float | None = None) -> Axes:
    """Draw the density of the eigenvalues of ``result``, into ``ax`` or a new figure.

    The curve is the bulk, smoothed by Gaussian kernels as wide as the nodes lie apart, or of the standard
    deviation ``bandwidth``; the band goes from the least to the largest of the probes. Eigenvalues that were
    found stand as sticks of their exact share (1/n, or what was measured of a repeated one) on a scale of
    their own to the right, negative ones in a colour and with a marker of their own. A result with layers is
    drawn as a curve for each layer's own block, without sticks: of more than 10 layers for the 10 with the
    largest eigenvalues.

    Raises:
        InputError: a bandwidth that is not positive and finite.
    """
    if bandwidth is not None and not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise InputError("the bandwidth must be positive and finite", found=repr(bandwidth))
    with style():
        curves = 0 if result.layers is None else min(len(result.layers), _CURVES)
        ax = new_figure(6.4, 4.4 + 0.1 * curves).add_subplot() if ax is None else ax
        ax.set_title(caption(result), loc="left")
        ax.set_xlabel(f"{sentence(result.operator)} eigenvalue λ ({unit(result.operator)})")
        ax.set_ylabel("Density (share of eigenvalues per unit of λ)")
        if np.isfinite([result.lambda_min, result.lambda_max]).all():
            _draw(ax, result, bandwidth)
        else:
            ax.text(0.5, 0.5, "not finite", transform=ax.transAxes, ha="center", color=BLACK)
    return ax


def _draw(ax: Axes, result: DensityResult, bandwidth: float | None) -> None:
    curves = _curves(result)
    widths = {label: _widths(*rows, bandwidth) for label, rows in curves.items()}
    typical = min((_typical(widths[k], w) for k, (_, w) in curves.items()), default=0.0)
    grid = _scale(ax, result, typical, [_reach(nodes, widths[k]) for k, (nodes, _) in curves.items()])
    top, bottom = 0.0, math.inf
    for i, (label, (nodes, weights)) in enumerate(curves.items()):
        width, colour = widths[label], _COLOURS[i % len(_COLOURS)]
        dashes = _DASHES[i // len(_COLOURS) % len(_DASHES)]
        triples = zip(nodes, weights, width, strict=True)
        rows = np.stack([smoothed(n, share, grid, np.ma.filled(w, 1.0)) for n, share, w in triples])
        if len(rows) > 1:
            band = "least to largest of the probes" if i == 0 else None
            low, high = rows.min(axis=0), rows.max(axis=0)
            ax.fill_between(grid, low, high, color=colour, alpha=0.25, linewidth=0, label=band)
        ax.plot(grid, rows.mean(axis=0), dashes, color=colour, linewidth=1.3, label=label)
        top, bottom = max(top, rows.max()), min(bottom, float((weights / width).min()) / 8)
    if curves:
        ax.set_yscale("log")
        ax.set_ylim(max(bottom, top * 1e-8), 3 * top)
    right = _sticks(ax, result) if result.layers is None else None
    _legend(ax, right, _title(result))


def _curves(result: DensityResult) -> dict[str, tuple[np.ma.MaskedArray, np.ma.MaskedArray]]:
    """Nodes and weights (probe, node) of each curve by its label, without what has no weight to be seen."""
    if result.layers is not None and result.layer_nodes is not None and result.layer_weights is not None:
        kept = _layers_kept(result.layer_nodes)
        names = short_names([str(result.layers[i]) for i in kept])
        rows = {n: (result.layer_nodes[i], result.layer_weights[i]) for n, i in zip(names, kept, strict=True)}
    else:
        found = np.ma.MaskedArray(result.weights, mask=np.ma.filled(result.converged, True))
        rows = {_label(result): (result.nodes, found)}
    seen = {label: _seen(nodes, weights, result.parameters) for label, (nodes, weights) in rows.items()}
    return {label: pair for label, pair in seen.items() if pair[1].count(axis=1).all()}


def _layers_kept(nodes: np.ma.MaskedArray) -> NDArray[np.int_]:
    """The layers that are drawn: those with the largest eigenvalues, in the model's order."""
    sizes = np.ma.filled(np.ma.abs(nodes), 0.0).reshape(len(nodes), -1).max(axis=1)
    return layers_shown(sizes, _CURVES)[0]


def _seen(
    nodes: np.ma.MaskedArray, weights: np.ma.MaskedArray, parameters: int
) -> tuple[np.ma.MaskedArray, np.ma.MaskedArray]:
    """The same without nodes of less than a hundredth of an eigenvalue: their kernels would only be gaps."""
    hidden = np.ma.getmaskarray(nodes) | np.ma.getmaskarray(weights)
    hidden |= np.ma.getdata(weights) * parameters < 0.01
    return np.ma.MaskedArray(nodes, mask=hidden), np.ma.MaskedArray(weights, mask=hidden)


def _widths(
    nodes: np.ma.MaskedArray, weights: np.ma.MaskedArray, bandwidth: float | None
) -> np.ma.MaskedArray:
    """The kernel's standard deviation at each node (probe, node)."""
    widths = np.ma.MaskedArray(np.full(nodes.shape, bandwidth or 1.0), mask=np.ma.getmaskarray(weights))
    if bandwidth is None:
        for row, values in zip(widths, nodes, strict=True):
            row[~np.ma.getmaskarray(row)] = kernel_widths(values.compressed())
    return widths


def _typical(widths: np.ma.MaskedArray, weights: np.ma.MaskedArray) -> float:
    """The kernel of most of the mass: geometric mean by weight."""
    return float(np.exp(np.ma.average(np.ma.log(widths), weights=weights)))


def _reach(nodes: np.ma.MaskedArray, widths: np.ma.MaskedArray) -> tuple[float, float]:
    """From where to where kernels can be seen: also those at zero have two sides."""
    return float((nodes - _SEEN * widths).min()), float((nodes + _SEEN * widths).max())


def _scale(ax: Axes, result: DensityResult, width: float, reaches: Sequence[tuple[float, float]]) -> Floats:
    """Choose the axis, linear inside the kernels at zero and as wide as all; returns points even on it."""
    low, high = min(result.lambda_min, 0.0), max(result.lambda_max, 0.0)
    largest = max(high, -low) or max(result.noise_floor, 1e-300)
    threshold = 10.0 ** math.floor(math.log10(min(largest / 2, max(width, largest * 10.0**-_DECADES))))
    ax.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    locator = SymmetricalLogLocator(base=10, linthresh=threshold)
    locator.set_params(numticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(FuncFormatter(_power))
    low = min([2 * low - threshold, *(reach[0] for reach in reaches)])
    high = max([2 * high + threshold, *(reach[1] for reach in reaches)])
    ax.set_xlim(low, high)
    transform = ax.xaxis.get_transform()
    first, last = (float(end) for end in transform.transform(np.array([low, high])))
    points: Floats = transform.inverted().transform(np.linspace(first, last, _POINTS))
    return points


def _power(value: float, _: object = None) -> str:
    """A power of ten on the axis, in few characters."""
    if value == 0 or 1e-2 <= abs(value) < 1e4:
        return plain(value)
    return f"${'-' if value < 0 else ''}10^{{{round(math.log10(abs(value)))}}}$"


def _sticks(ax: Axes, result: DensityResult) -> Axes | None:
    """The eigenvalues that were found, on a logarithmic scale of shares to the right."""
    if not len(result.outliers):
        return None
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    right.set_yscale("log")
    shares = np.asarray(result.outlier_weights)
    bottom = 1 / (30 * result.parameters)
    right.set_ylim(bottom, max(3.0 * shares.max(), 30 / result.parameters))
    right.set_ylabel("Share of eigenvalues at a stick")
    negative = np.asarray(result.outliers) < 0
    kinds = [("eigenvalue", ~negative, GREEN, "o"), ("negative eigenvalue", negative, VERMILLION, "D")]
    for noun, chosen, colour, marker in kinds:
        x, y = np.asarray(result.outliers)[chosen], shares[chosen]
        if len(x):
            noun = noun if len(x) == 1 else f"{noun}s"
            right.vlines(x, bottom, y, color=colour, linewidth=0.9)
            label = f"{len(x)} {noun} found, exact share"
            right.plot(x, y, marker, color=colour, markersize=3.5, label=label)
    return right


def _label(result: DensityResult) -> str:
    probes = len(result.nodes)
    counted = f"{probes} probe{'s' if probes != 1 else ''} × {result.steps} steps"
    bound = float(np.max(result.wasserstein_bound))
    return f"bulk: {counted}, {result.products} products,\nWasserstein-1 error of a probe ≤ {bound:.2g}"


def _title(result: DensityResult) -> str | None:
    """What the curves of a result with layers are."""
    count = 0 if result.layers is None else len(result.layers)
    if count > _CURVES:
        return f"The {_CURVES} of {count} layers with the largest eigenvalues, each its own block"
    return "Layers, each its own block" if count else None


def _legend(ax: Axes, right: Axes | None, title: str | None) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if right is not None:
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    if handles:
        ax.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, title=title,
            title_fontsize="small",
        )  # fmt: skip
