"""The running average is drawn as it went, beside Lanczos, and said to be what it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from landscape.errors import InputError
from landscape.plots.figure import save
from landscape.plots.history import history
from landscape.plots.style import new_figure
from landscape.results import EigenResult
from tests.results.samples import eigen_result

QUOTIENT = "Rayleigh quotient of v, all data"
GRADIENT = "‖v‖: gradient-direction curvature ‖Hu‖, not λmax"


def _result(norms: ArrayLike = (1.0, 2.0, 2.5, 2.8), **changes: Any) -> EigenResult:
    """Converged to a little below λmax = 3 ± 0.1, evaluated at each iteration."""
    lengths = np.asarray(norms, dtype=float)
    fields: dict[str, Any] = {
        "method": "running-average",
        "perturb": "iterate",
        "new_weight": 0.1,
        "history": lengths,
        "rayleigh": lengths + 0.1,
        "evaluation_residuals": 10.0 ** -np.arange(len(lengths)),
        "reference_eigenvalues": np.array([3.0, 1.0]),
        "reference_intervals": np.array([[2.9, 3.1], [0.95, 1.05]]),
    }
    return eigen_result([lengths[-1]] if len(lengths) else [1.0], **fields | changes)


def _line(ax: Axes, label: str) -> Line2D | None:
    return next((line for line in ax.get_lines() if str(line.get_label()).startswith(label)), None)


def _panels(ax: Axes) -> list[Axes]:
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    return figure.axes


def _words(ax: Axes) -> str:
    return ax.get_title(loc="left").splitlines()[-1]


def _legend(ax: Axes) -> list[str]:
    legend = _panels(ax)[-1].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_norms_and_quotients_by_iteration() -> None:
    result = _result()
    ax = history(result)
    norms, quotients = _line(ax, "‖v‖"), _line(ax, QUOTIENT)
    assert norms is not None
    assert quotients is not None
    assert np.array_equal(norms.get_xydata(), np.c_[[1, 2, 3, 4], result.history])
    assert np.array_equal(quotients.get_xydata(), np.c_[[1, 2, 3, 4], result.rayleigh])
    assert ax.get_ylabel() == "Hessian curvature (loss / weight²)"
    assert ax.get_ylim()[0] == 0


def test_the_reference_is_a_line_in_its_band() -> None:
    """The largest one, wherever it stands, with its own interval."""
    ax = history(
        _result(
            reference_eigenvalues=np.array([1.0, 3.0]),
            reference_intervals=np.array([[0.9, 1.1], [2.9, 3.2]]),
        )
    )
    line = _line(ax, "λmax by Lanczos")
    assert line is not None
    assert line.get_label() == "λmax by Lanczos, 3 ± 0.2"
    assert set(line.get_ydata()) == {3.0}
    bands = [(p.get_y(), p.get_y() + p.get_height()) for p in ax.patches if isinstance(p, Rectangle)]
    assert bands == [(2.9, pytest.approx(3.2))]
    without = history(_result(reference_eigenvalues=None, reference_intervals=None))
    assert _line(without, "λmax") is None
    assert not without.patches
    assert "Lanczos" not in _words(without)


def test_residuals_have_a_panel_of_their_own() -> None:
    ax = history(_result())
    upper, lower = _panels(ax)
    assert upper is ax
    assert lower.get_yscale() == "log"
    (line,) = lower.get_lines()
    assert np.array_equal(line.get_xydata(), np.c_[[1, 2, 3, 4], [1, 0.1, 0.01, 0.001]])
    assert lower.get_xlim() == upper.get_xlim()
    assert lower.get_xlabel() == "Iteration (weight of the new product: 0.1)"
    above, below = upper.get_position(), lower.get_position()
    assert below.y1 < above.y0
    assert _legend(ax)[:3] == ["‖v‖", QUOTIENT, "λmax by Lanczos, 3 ± 0.1"]


@pytest.mark.parametrize("residuals", [None, np.full(4, np.nan)])
def test_no_panel_where_nothing_was_evaluated(residuals: np.ndarray | None) -> None:
    ax = history(_result(evaluation_residuals=residuals, rayleigh=residuals))
    assert _panels(ax) == [ax]
    assert _line(ax, "Rayleigh") is None
    assert ax.get_xlabel().startswith("Iteration")
    assert ax.xaxis.get_tick_params()["labelbottom"]


def test_few_evaluations_are_points() -> None:
    """Only those there were, each marked; a dense curve has no marks."""
    quotients = np.full(500, np.nan)
    quotients[49::50] = np.linspace(1, 3, 10)
    residuals = np.where(np.isfinite(quotients), 0.5, np.nan)
    norms = np.linspace(1, 3, 500)
    ax = history(_result(norms, rayleigh=quotients, evaluation_residuals=residuals))
    line, panel = _line(ax, QUOTIENT), _panels(ax)[1]
    assert line is not None
    assert np.array_equal(line.get_xdata(), np.arange(50, 501, 50))
    assert line.get_marker() == "D"
    assert np.array_equal(panel.get_lines()[0].get_xdata(), np.arange(50, 501, 50))
    dense = _line(history(_result(norms, rayleigh=norms, evaluation_residuals=norms)), QUOTIENT)
    assert dense is not None
    assert dense.get_marker() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "converged to ‖v‖ = 2.8, 0.933 × λmax by Lanczos"),
        ({"status": "not_converged"}, "stopped before it converged: ‖v‖ = 2.8, 0.933 × λmax by Lanczos"),
        ({"perturb": "gradient"}, "‖v‖ has settled at 2.8, 0.933 × λmax by Lanczos"),
        (
            {"status": "oscillating", "rayleigh": np.array([-1.0, -4.0, -5.0, np.nan])},
            "oscillating: v flips its sign at each step (λ ≈ −5), so ‖v‖ = 2.8 is no eigenvalue",
        ),
        (
            {"status": "oscillating", "rayleigh": None},
            "oscillating: v flips its sign at each step, so ‖v‖ = 2.8 is no eigenvalue",
        ),
        ({"reference_eigenvalues": np.array([-1.0])}, "converged to ‖v‖ = 2.8"),
        ({"reference_eigenvalues": np.array([1000.0])}, "converged to ‖v‖ = 2.8, 0.0028 × λmax by Lanczos"),
    ],
)
def test_what_it_came_to_is_said(changes: dict[str, Any], words: str) -> None:
    assert _words(history(_result(**changes))) == words


def test_the_gradients_reading_is_never_called_the_top_eigenvalue() -> None:
    ax = history(_result(perturb="gradient"))
    assert _line(ax, GRADIENT) is not None
    assert GRADIENT in _legend(ax)
    assert GRADIENT not in _legend(history(_result()))


def test_negative_quotients_show_zero_and_true_minus_signs() -> None:
    ax = history(_result([2.0] * 4, rayleigh=np.full(4, -3.0), status="oscillating"))
    assert ax.get_ylim()[0] < -3
    assert any(set(line.get_ydata()) == {0.0} for line in ax.get_lines())
    assert ax.yaxis.get_major_formatter()(-3.0, 0) == "−3"


def test_a_wide_range_is_logarithmic() -> None:
    assert history(_result(np.geomspace(1, 1e-4, 20))).get_yscale() == "log"
    assert history(_result(np.linspace(1, 3, 20))).get_yscale() == "linear"
    negative = _result(np.geomspace(1, 1e-4, 20), rayleigh=np.full(20, -1.0))
    assert history(negative).get_yscale() == "linear"


def test_the_noise_floor_where_the_residual_comes_near_it() -> None:
    text = "below the noise floor 0.01"
    assert text in _legend(history(_result(noise_floor=1e-2)))
    assert not any("noise floor" in label for label in _legend(history(_result(noise_floor=1e-9))))
    assert not any("noise floor" in label for label in _legend(history(_result(noise_floor=0.0))))


@pytest.mark.parametrize(
    "changes",
    [
        {"history": np.array([1.0]), "rayleigh": np.array([1.0]), "evaluation_residuals": np.array([0.1])},
        {"history": np.zeros(4), "rayleigh": np.zeros(4), "evaluation_residuals": np.zeros(4)},
        {"history": np.array([1.0, np.nan, np.inf, np.nan])},
        {"reference_intervals": np.array([[2.9, np.nan], [1.0, 1.0]])},
        {"reference_intervals": None},
        {"reference_eigenvalues": np.array([np.nan, np.nan])},
        {"new_weight": None},
    ],
)
def test_odd_ones_are_drawn(changes: dict[str, Any]) -> None:
    """One iteration, zeros, numbers that are none: a picture, and no warning."""
    ax = history(_result(**changes))
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    assert _line(ax, "‖v‖") is not None


@pytest.mark.parametrize("values", [None, np.zeros(0)])
def test_a_result_without_a_history_is_refused(values: np.ndarray | None) -> None:
    with pytest.raises(InputError, match="no history") as caught:
        history(_result(history=values, method="lanczos"))
    assert "lanczos" in str(caught.value)


def test_into_axes_of_the_callers() -> None:
    """One place among several, and one that belongs to no grid; neither touches the neighbours."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    figure.canvas.draw()
    before = left.get_position().bounds
    ax = history(_result(), right)
    assert ax is right
    figure.canvas.draw()
    assert len(figure.axes) == 3
    assert left.get_position().bounds[0] == pytest.approx(before[0], abs=0.01)
    assert figure.axes[2].get_position().x0 > left.get_position().x1
    free = Figure()
    FigureCanvasAgg(free)
    ax = history(_result(), free.add_axes((0.2, 0.3, 0.7, 0.6)))
    upper, lower = free.axes
    assert upper is ax
    assert (lower.get_position().y0, upper.get_position().y1) == (
        pytest.approx(0.3),
        pytest.approx(0.9, abs=0.03),
    )
    assert lower.get_position().y1 < upper.get_position().y0


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_result_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    result = _result()
    files = []
    for i in range(2):
        figure = history(dataclasses.replace(result)).get_figure()
        assert isinstance(figure, Figure)
        files.append(tmp_path / f"{i}.{suffix}")
        save(figure, files[-1], result)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size > 1000


def test_all_words_lie_inside_the_figure() -> None:
    """Titles, labels and the legend, for the longest texts there are."""
    for changes in ({"perturb": "gradient"}, {"status": "oscillating", "rayleigh": np.full(4, -1.234e-5)}):
        ax = history(_result(**changes))
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        figure.canvas.draw()
        canvas = figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        box = figure.get_tightbbox(canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_the_users_settings_are_theirs() -> None:
    before = dict(rcParams)
    history(_result())
    assert dict(rcParams) == before
    assert "pyplot" not in dir(matplotlib) or not matplotlib.pyplot.get_fignums()
