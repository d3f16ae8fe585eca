"""What is drawn of a density is what was measured."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots.density import density
from landscape.plots.style import GREEN, VERMILLION
from landscape.results.density import DensityResult, kernel_widths, smoothed
from landscape.store import ResultFile
from tests.results.samples import assert_same, provenance

_N = 400


def density_result(scale: float = 1.0, **changes: Any) -> DensityResult:
    """Two probes of unequal length: outliers at 3, 1 and −0.5 (times ``scale``) and a bulk around zero."""
    bulk = np.linspace(0.2, -0.2, 9) * scale
    nodes = np.ma.MaskedArray(np.zeros((2, 12)), mask=False)
    nodes[0] = np.concatenate([[3 * scale, scale], bulk, [-0.5 * scale]])
    nodes[1, :11] = np.concatenate([[3 * scale, scale], 1.1 * bulk[:-1], [-0.5 * scale]])
    nodes[1, 11] = np.ma.masked
    mask = np.ma.getmaskarray(nodes)
    known = np.ma.MaskedArray(np.isin(np.asarray(nodes) / scale, [3, 1, -0.5]) & ~mask, mask=mask)
    weights = np.ma.MaskedArray(np.where(known.filled(False), 1 / _N, 0.0), mask=mask)
    for row, found in zip(weights, known.filled(True), strict=True):
        row[~found] = (1 - 3 / _N) / (~found).sum()
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": 0.1,
        "examples": 1797,
        "terms": 1797.0,
        "parameters": _N,
        "accuracy": 0.9,
        "method": "stochastic Lanczos quadrature",
        "operator": "hessian",
        "nodes": nodes,
        "weights": weights,
        "measured_weights": weights * 1.0,
        "residuals": np.ma.MaskedArray(np.full((2, 12), 1e-3 * scale), mask=mask),
        "converged": known,
        "outliers": np.array([3.0, 1.0, -0.5]) * scale,
        "outlier_residuals": np.full(3, 1e-6) * scale,
        "outlier_weights": np.full(3, 1 / _N),
        "wasserstein_bound": np.array([0.01, 0.012]) * scale,
        "moments": np.array([0.01, 0.1]),
        "moment_errors": np.array([0.001, 0.01]),
        "trace": 3.0,
        "trace_error": 0.5,
        "trace_interval": np.array([2.0, 4.0]),
        "negative_share": 0.4,
        "negative_share_bounds": np.array([0.3, 0.6]),
        "lambda_max": 3.0 * scale,
        "lambda_max_residual": 1e-6,
        "lambda_min": -0.5 * scale,
        "lambda_min_residual": 1e-6,
        "noise_floor": 1e-9 * scale,
        "products": 23,
        "passes": 23,
        "steps": 12,
        "seconds": 1.5,
        "provenance": provenance(),
    }
    return DensityResult(**fields | changes)


def per_layer() -> DensityResult:
    one = density_result()
    nodes = np.ma.stack([one.nodes, 0.1 * one.nodes])
    weights = np.ma.stack([one.weights, one.weights])
    names = np.array(["0.weight", "2.$bias"], dtype=object)
    return density_result(layers=names, layer_nodes=nodes, layer_weights=weights)


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _right(ax: Axes) -> Axes | None:
    return next((other for other in _figure(ax).axes if other is not ax), None)


def _curve(ax: Axes) -> np.ndarray:
    """Points (n, 2) of the first curve."""
    return next(xy for xy in (np.asarray(line.get_xydata()) for line in ax.get_lines()) if len(xy) > 100)


def _legend(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_sticks_stand_at_the_outliers_and_end_at_their_share() -> None:
    right = _right(density(density_result(outlier_weights=np.array([0.25, 1 / _N, 1 / _N]))))
    assert right is not None
    positive, negative = right.get_lines()
    assert np.allclose(positive.get_xydata(), [[3.0, 0.25], [1.0, 1 / _N]])
    assert np.allclose(negative.get_xydata(), [[-0.5, 1 / _N]])
    assert (to_hex(positive.get_color()).upper(), to_hex(negative.get_color()).upper()) == (GREEN, VERMILLION)
    assert positive.get_marker() != negative.get_marker()
    assert right.get_ylim()[0] < 1 / _N < 0.25 < right.get_ylim()[1]


def test_the_curve_is_the_mean_of_the_probes_without_the_outliers() -> None:
    """Its area is the bulk's share of the eigenvalues; with a bandwidth it is the sum of such kernels."""
    result = density_result()
    x, y = _curve(density(result, bandwidth=0.03)).T
    assert np.trapezoid(y, x) == pytest.approx(1 - 3 / _N, rel=1e-3)
    kernels = np.zeros_like(x)
    for nodes, weights, known in zip(result.nodes, result.weights, result.converged, strict=True):
        for node, weight in zip(nodes[~known].compressed(), weights[~known].compressed(), strict=True):
            kernels += weight * np.exp(-((x - node) ** 2) / (2 * 0.03**2)) / (0.03 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(y, kernels / 2, atol=1e-12)


def test_the_band_goes_from_the_least_to_the_largest_of_the_probes() -> None:
    ax = density(density_result())
    (band,) = ax.collections
    x, y = _curve(ax).T
    corners = np.asarray(band.get_paths()[0].vertices)
    middle = float(np.interp(0.1, x, y))
    near = corners[np.abs(corners[:, 0] - 0.1) < 2e-3, 1]
    assert near.min() < middle < near.max()
    one = density_result()
    alone = {
        name: getattr(one, name)[:1]
        for name in ("nodes", "weights", "measured_weights", "residuals", "converged", "wasserstein_bound")
    }
    assert not density(density_result(**alone)).collections


def test_words() -> None:
    ax = density(density_result(status="not_converged"))
    assert ax.get_xlabel() == "Hessian eigenvalue λ (loss / weight²)"
    assert ax.get_ylabel() == "Density (share of eigenvalues per unit of λ)"
    assert ax.get_title(loc="left").endswith("400 parameters · 1,797 examples · not converged")
    assert _legend(ax) == [
        "least to largest of the probes",
        "bulk: 2 probes × 12 steps, 23 products,\nWasserstein-1 error of a probe ≤ 0.012",
        "2 eigenvalues found, exact share",
        "1 negative eigenvalue found, exact share",
    ]
    assert (ax.get_xscale(), ax.get_yscale()) == ("symlog", "log")


def test_a_curve_for_each_layer() -> None:
    ax = density(per_layer())
    assert _legend(ax) == ["least to largest of the probes", "0.weight", r"2.\$bias"]
    assert _right(ax) is None
    wide, narrow = (np.asarray(line.get_xydata()) for line in ax.get_lines())
    assert narrow[:, 1].max() == pytest.approx(10 * wide[:, 1].max(), rel=0.05)
    _figure(ax).canvas.draw()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e7])
def test_everything_drawn_lies_inside(scale: float) -> None:
    ax = density(density_result(scale))
    figure = _figure(ax)
    figure.canvas.draw()
    low, high = ax.get_xlim()
    assert low < -0.5 * scale < 3 * scale < high
    peak = max(line.get_ydata().max() for line in ax.get_lines())  # type: ignore[union-attr]
    assert ax.get_ylim()[0] < peak < ax.get_ylim()[1]
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert len(set(labels)) == len(labels) > 2
    width, height = figure.canvas.get_width_height()
    artists: list[Any] = [ax._left_title, ax.xaxis.label, ax.yaxis.label, ax.get_legend()]  # type: ignore[attr-defined]
    for artist in artists:
        box = artist.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_odd_spectra_are_drawn() -> None:
    """One value only (a multiple of the identity), zero only, and what is not finite."""
    for value in (2.0, 0.0, -1e-8):
        one = np.ma.MaskedArray([[value]], mask=False)
        whole = np.ma.MaskedArray([[1.0]], mask=False)
        result = density_result(
            nodes=one, weights=whole, measured_weights=whole, residuals=one * 0, converged=whole.astype(bool),
            outliers=np.array([value]), outlier_weights=np.ones(1), outlier_residuals=np.zeros(1),
            lambda_max=value, lambda_min=value, wasserstein_bound=np.zeros(1),
        )  # fmt: skip
        ax = density(result)
        right = _right(ax)
        assert right is not None
        assert np.allclose(right.get_lines()[0].get_xydata(), [[value, 1.0]])
        _figure(ax).canvas.draw()
    failed = density(density_result(lambda_max=math.nan))
    assert [t.get_text() for t in failed.texts] == ["not finite"]


def test_an_axes_that_is_given_is_used() -> None:
    axes = Figure().subplots(1, 2)
    assert density(density_result(), axes[1]) is axes[1]
    assert not axes[0].lines


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_a_wrong_bandwidth_is_an_error(wrong: float) -> None:
    with pytest.raises(InputError, match="bandwidth"):
        density(density_result(), bandwidth=wrong)


@pytest.mark.parametrize("make", [density_result, per_layer])
def test_a_stored_result_comes_back_and_gives_the_same_picture(tmp_path: Path, make: Any) -> None:
    result = make()
    ResultFile(tmp_path / "r.h5").add(result)
    back = ResultFile(tmp_path / "r.h5").read(provenance().id)
    assert isinstance(back, DensityResult)
    names = [None if r.layers is None else r.layers.tolist() for r in (result, back)]
    assert names[0] == names[1]
    assert_same(dataclasses.replace(result, layers=None), dataclasses.replace(back, layers=None))
    drawn, again = (density(r) for r in (result, back))
    for one, other in zip(drawn.get_lines(), again.get_lines(), strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    assert _legend(drawn) == _legend(again)


def test_every_field_is_described() -> None:
    described = {q.name for q in DensityResult.quantities()}
    assert described == {f.name for f in dataclasses.fields(DensityResult)} - {"provenance"}
    for q in DensityResult.quantities():
        assert q.text.endswith(".")
        assert not q.error or q.error in described


def test_kernels() -> None:
    """Mass and mean of the nodes; widths grow with the nodes' distances and never vanish."""
    nodes = np.array([2.0, 1.0, 0.3, 0.2, 0.1, 0.0, -0.1, -0.2])
    weights = np.full(8, 1 / 8)
    x = np.linspace(-3, 8, 20_001)
    y = smoothed(nodes, weights, x)
    assert np.trapezoid(y, x) == pytest.approx(1.0, rel=1e-6)
    assert np.trapezoid(x * y, x) == pytest.approx(nodes.mean(), rel=1e-6)
    widths = kernel_widths(nodes)
    assert widths[0] == pytest.approx(0.4), "a fifth of the value, not its distance to the others"
    assert widths[5] == pytest.approx(0.2)
    assert (kernel_widths(np.array([1.0, 1.0])) == 0.05).all()
    assert (kernel_widths(np.zeros(3)) > 0).all()
    assert kernel_widths(np.zeros(0)).shape == (0,)
    rows = density_result().smoothed(x, width=0.1)
    assert rows.shape == (2, len(x))
    np.testing.assert_allclose(np.trapezoid(rows, x, axis=1), 1.0, rtol=1e-6)


def test_of_many_layers_those_with_the_largest_eigenvalues() -> None:
    one = density_result()
    scales = np.where(np.arange(14) % 7 < 2, 0.1, 1.0 + np.arange(14))
    result = density_result(
        layers=np.array([f"block.{i}" for i in range(14)], dtype=object),
        layer_nodes=np.ma.stack([scale * one.nodes for scale in scales]),
        layer_weights=np.ma.stack([one.weights] * 14),
    )
    ax = density(result)
    names = [f"block.{i}" for i in range(14) if scales[i] > 1]
    assert _legend(ax) == ["least to largest of the probes", *names]
    legend = ax.get_legend()
    assert legend is not None
    title = legend.get_title().get_text()
    assert title == "The 10 of 14 layers with the largest eigenvalues, each its own block"


def test_ticks_near_zero_do_not_touch() -> None:
    """Small eigenvalues are written as powers of ten."""
    ax = density(density_result(1e-4))
    figure = _figure(ax)
    figure.canvas.draw()
    low, high = ax.get_xlim()
    labels = [t.label1 for t in ax.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
    assert any(label.get_text() == "$-10^{-5}$" for label in labels)
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("low", [0.0, -1e-3])
def test_a_bulk_that_goes_beyond_the_least_eigenvalue_is_not_cut(low: float) -> None:
    """Kernels at zero have two sides, also where there is no negative eigenvalue: all mass is on the axis."""
    one = density_result()
    wide = np.ma.abs(one.nodes) * 0.05 + np.ma.MaskedArray(np.zeros(one.nodes.shape))
    result = density_result(
        lambda_min=low,
        outliers=np.array([3.0, 1.0]),
        outlier_weights=np.full(2, 1 / _N),
        outlier_residuals=np.full(2, 1e-6),
        layers=np.array(["0", "2"], dtype=object),
        layer_nodes=np.ma.stack([wide, 1e-3 * wide]),
        layer_weights=np.ma.stack([one.weights, one.weights]),
    )
    ax = density(result, bandwidth=0.1)
    for curve in (np.asarray(line.get_xydata()) for line in ax.get_lines()):
        assert np.trapezoid(curve[:, 1], curve[:, 0]) == pytest.approx(1.0, rel=1e-3)
        assert max(curve[0, 1], curve[-1, 1]) < 1e-5 * curve[:, 1].max()
