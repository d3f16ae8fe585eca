"""What is drawn of the noise of gradients is what was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from landscape.errors import InputError
from landscape.plots import figure_for
from landscape.plots.figure import save
from landscape.plots.noise import alignment, batches, overview
from landscape.results import NoiseResult
from landscape.store import ResultFile
from tests.results.samples import assert_same, provenance

_COUNT, _TRACE, _NORM = 1000, 6.0, 0.2


def noise_result(**changes: Any) -> NoiseResult:
    """A result against both matrices, with mini-batches of 1 to 256."""
    sizes = 2 ** np.arange(9)
    predicted = _NORM**2 + (_COUNT - sizes) / (_COUNT - 1) * _TRACE / sizes
    measured = np.ma.MaskedArray(predicted * 1.05, mask=False)
    pairs = np.array([[3.0, 1.0], [4.0, 2.0]])
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": _NORM,
        "examples": _COUNT,
        "terms": float(_COUNT),
        "parameters": 400,
        "accuracy": 0.9,
        "provenance": provenance("noise-aaaa1111"),
        "method": "exact on the top eigenspaces, random vectors for the rest",
        "matrices": np.array(["gauss-newton", "hessian"], dtype=object),
        "confidence": 0.95,
        "cosines": np.array([0.9, -0.3]),
        "cosine_intervals": np.array([[0.88, 0.91], [-0.4, -0.2]]),
        "curvature_cosine": 0.98,
        "curvature_cosine_interval": np.array([0.97, 0.99]),
        "noise_trace": _TRACE,
        "noise_trace_error": 0.5,
        "noise_frobenius": 2.0,
        "noise_frobenius_interval": np.array([1.9, 2.1]),
        "traces": np.array([16.0, 19.0]),
        "trace_intervals": np.array([[15.0, 17.0], [18.0, 20.0]]),
        "frobenius": np.array([4.0, 5.0]),
        "frobenius_intervals": np.array([[3.9, 4.1], [4.9, 5.1]]),
        "data_loss": 0.25,
        "k": 2,
        "top_eigenvalues": pairs,
        "top_residuals": pairs * 1e-3,
        "shares": np.array([0.7, 0.6]),
        "share_errors": np.array([0.01, 0.02]),
        "share_space_errors": np.array([0.005, 0.01]),
        "chance_share": 0.005,
        "diagonal_correlations": np.array([0.95, 0.9]),
        "diagonal_intervals": np.array([[0.9, 0.99], [0.85, 0.95]]),
        "diagonal_reliabilities": np.array([0.8, 0.6]),
        "noise_scale": _TRACE / _NORM**2,
        "noise_scale_error": 12.0,
        "batch_sizes": sizes,
        "batch_draws": np.full(9, 32),
        "gradient_squares": measured,
        "gradient_square_errors": measured * 0.1,
        "predicted_squares": predicted,
        "counted_examples": _COUNT,
        "exact_dimensions": 6,
        "probes": 8,
        "look_products": np.array([60]),
        "look_cosines": np.array([[0.9, -0.3]]),
        "look_half_widths": np.array([[0.02, 0.1]]),
        "noise_floor": 1e-6,
        "noise_floors": np.array([2e-6, 3e-6]),
        "products": 60,
        "passes": 30,
        "seconds": 1.0,
    }
    return NoiseResult(**(fields | changes))


def line(ax: Axes, label: str) -> Any:
    return next(found for found in ax.get_lines() if found.get_label() == label)


def texts(ax: Axes) -> str:
    return " ".join(text.get_text() for text in ax.texts)


def test_bars_are_the_figures_and_their_intervals() -> None:
    ax = alignment(noise_result())
    widths = sorted(patch.get_width() for patch in ax.patches)
    assert np.allclose(widths, sorted([0.9, -0.3, 0.7, 0.6, 0.95, 0.9]))
    assert "0.900 ± 0.020" in texts(ax)
    reach = 1.96 * 0.01 + 0.005
    ends = [s[:, 0].tolist() for c in ax.collections for s in getattr(c, "get_segments", list)()]
    assert any(np.allclose(pair, [0.7 - reach, 0.7 + reach]) for pair in ends)
    chance = [found for found in ax.get_lines() if np.allclose(found.get_xdata(), 0.005)]
    assert len(chance) == 2
    low, high = ax.get_xlim()
    assert low < -0.4
    assert high > 1.0


def test_points_are_the_roots_of_the_squares() -> None:
    result = noise_result()
    ax = batches(result)
    points = line(ax, "measured mini-batches")
    assert np.allclose(points.get_xdata(), result.batch_sizes)
    assert np.allclose(points.get_ydata(), np.sqrt(result.gradient_squares))
    curve = line(ax, "predicted from Tr C")
    at = np.interp(np.log(result.batch_sizes), np.log(curve.get_xdata()), np.log(curve.get_ydata()))
    assert np.allclose(np.exp(2 * at), result.predicted_squares, rtol=1e-2)
    assert np.isclose(curve.get_ydata()[-1], _NORM)
    assert np.allclose(line(ax, "full gradient").get_ydata(), _NORM)
    assert "noise scale 150" in texts(ax)
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_error_bars_never_reach_below_zero() -> None:
    ax = batches(noise_result(gradient_square_errors=noise_result().gradient_squares * 3))
    for collection in ax.collections:
        for segment in getattr(collection, "get_segments", list)():
            assert (segment[:, 1] > 0).all()


def test_what_is_not_known_is_not_drawn() -> None:
    nothing = np.full(2, np.nan)
    result = noise_result(
        cosines=nothing, cosine_intervals=np.full((2, 2), np.nan), share_space_errors=np.ones(2)
    )
    ax = overview(result)
    assert len(ax.patches) == 2
    assert texts(ax).count("not known") == 4
    with pytest.raises(InputError, match="no alignment to draw"):
        figure_for(result, "alignment")


def test_no_noise_and_no_gradient_are_said() -> None:
    masked = np.ma.masked_all(9)
    result = noise_result(
        gradient_norm=0.0, noise_trace=0.0, noise_scale=None, gradient_squares=masked,
        gradient_square_errors=masked,
    )  # fmt: skip
    assert "all gradients are zero" in texts(batches(result))


def test_one_matrix_alone() -> None:
    both = noise_result()
    alone = {
        name: getattr(both, name)[:1]
        for name in (
            *("matrices", "cosines", "cosine_intervals", "shares", "share_errors", "share_space_errors"),
            *("diagonal_correlations", "diagonal_intervals"),
        )
    }
    assert len(alignment(noise_result(**alone)).patches) == 3


@pytest.mark.parametrize("view", [None, "overview", "alignment", "batches"])
def test_every_view_is_saved(tmp_path: Path, view: str | None) -> None:
    result = noise_result()
    save(figure_for(result, view), tmp_path / "x.png", result)
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_stored_result_is_the_same(tmp_path: Path) -> None:
    result = noise_result()
    file = ResultFile(tmp_path / "r.h5")
    file.add(result)
    again = file.read("noise-aaaa1111")
    assert_same(again, result)
    assert isinstance(again, NoiseResult)
    points = [line(batches(r), "measured mini-batches").get_ydata() for r in (result, again)]
    assert np.array_equal(*points)


def test_a_run_stopped_at_once_has_no_picture() -> None:
    empty = np.zeros(0)
    nothing: dict[str, Any] = dict.fromkeys(("batch_sizes", "batch_draws", "predicted_squares"), empty)
    nothing |= dict.fromkeys(("gradient_squares", "gradient_square_errors"), np.ma.masked_all(0))
    result = noise_result(cosines=np.full(2, math.nan), noise_trace=math.nan, **nothing)
    with pytest.raises(InputError):
        figure_for(result)
