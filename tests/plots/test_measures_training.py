"""Measures over training: the right points at the right steps, errors told apart, training runs together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots import figure_of_series, figure_of_study, series_views
from landscape.plots.lines import LOOKS, Line, value_scale
from landscape.plots.measures_training import DRAWN, SERIES, STUDIED, layers, study, training
from landscape.plots.style import new_figure
from landscape.results import Result
from landscape.results.measures import MEASURES, Reading, measures_of
from tests.plots.ratios_support import ratios_result
from tests.plots.support import figure_of
from tests.plots.test_noise import noise_result
from tests.plots.test_reweight import result as reweight_result
from tests.plots.test_sharpness import sharpness_result
from tests.results.samples import density_result
from tests.support.slice_results import barrier_result, line_result
from tests.support.training_results import at_checkpoint, eigen_at, trace_at, trainings


def _of(kind: str, count: int = 4, names: Sequence[str] = ("sgd", "sam")) -> list[Any]:
    return [result for result in trainings(count, names) if result.kind == kind]


def _lines(ax: Axes) -> list[np.ndarray]:
    """(t, 2) points of each line with error bars."""
    bars = [c for c in ax.containers if isinstance(c, ErrorbarContainer) and c.lines[0] is not None]
    return [np.asarray(c.lines[0].get_xydata()) for c in bars if c.lines[0].get_linestyle() != "None"]


def _bars(ax: Axes, i: int = 0) -> np.ndarray:
    """(t, 2) the ends of the error bars of the i-th line."""
    bars = [c for c in ax.containers if isinstance(c, ErrorbarContainer) and c.lines[0] is not None]
    return np.array([segment[:, 1] for segment in bars[i].lines[2][0].get_segments()])


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def _band(ax: Axes) -> np.ndarray:
    """(2,) lowest and highest ends of the first band."""
    band = next(c for c in ax.collections if isinstance(c, PolyCollection))
    points = band.get_paths()[0].vertices
    return np.array([points[:, 1].min(), points[:, 1].max()])


def test_two_training_runs_are_lines_of_one_panel() -> None:
    results = _of("eigen")
    ax = training([results[i] for i in (3, 0, 7, 1, 5, 2, 4, 6)])
    for points, values in zip(_lines(ax), ([8, 9, 10, 11], [4, 4.5, 5, 5.5]), strict=True):
        np.testing.assert_allclose(points, np.c_[[0, 10, 20, 30], values])
    np.testing.assert_allclose(
        _bars(ax, 1), np.c_[[3.999, 4.499, 4.999, 5.499], [4.001, 4.501, 5.001, 5.501]]
    )
    np.testing.assert_allclose(_band(ax), [7.875, 11.125])
    figure = figure_of(ax)
    labels = [panel.get_ylabel().split("\n")[0] for panel in figure.axes]
    assert labels == ["λmax", "λmin (seen)", "loss"]
    assert figure.axes[2].get_xlabel() == "Training step"
    assert _legend(figure) == [
        "sgd", "sam", "± residual and noise floor", "± standard error over the data"
    ]  # fmt: skip


def test_lines_are_told_apart_without_colours() -> None:
    assert len({(look.marker, look.line) for look in LOOKS}) == len(LOOKS)
    lines = {line.get_marker() for line in training(_of("eigen")).get_lines()}
    assert {"o", "s"} <= lines


def test_what_is_not_complete_is_hollow() -> None:
    results = _of("eigen", names=["sgd"])
    results[2] = dataclasses.replace(results[2], status="not_converged")
    ax = training(results)
    hollow = [
        line for line in ax.get_lines() if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]
    (drawn,) = hollow
    np.testing.assert_allclose(np.asarray(drawn.get_xydata()), [[20, 10]])
    assert "not complete" in _legend(figure_of(ax))
    assert "not complete" not in _legend(figure_of(training(_of("eigen"))))


def test_the_learning_rate_is_a_line_beside_the_largest_eigenvalue() -> None:
    figure = figure_of_series(_of("eigen"), learning_rate=0.1)
    found = [
        [line.get_ydata()[0] for line in ax.get_lines() if set(line.get_ydata()) == {20.0}]
        for ax in figure.axes
    ]
    assert found == [[20.0], [], []]
    assert "2/η = 20 (η = 0.1)" in _legend(figure)


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        (_of("eigen"), {"learning_rate": 0.1, "measure": ["loss"]}, "(?s)beside λmax"),
        (_of("eigen"), {"learning_rate": -1.0}, "(?s)positive and finite"),
        (_of("eigen"), {"measure": ["trace"]}, "(?s)eigen runs have no measure 'trace'.*lambda_max"),
        (_of("eigen"), {"measure": ["running_average"]}, "(?s)these eigen runs have no running_average"),
        (_of("trace"), {"learning_rate": 0.1}, "(?s)no option learning_rate"),
        (_of("eigen"), {"per_layer": True, "learning_rate": 0.1}, "(?s)draws the layers alone"),
        (_of("trace"), {"per_layer": True, "measure": ["trace"]}, "(?s)draws the layers alone.*--measure"),
        (_of("eigen"), {"per_layer": True}, "(?s)no layer that all these runs have"),
        (_of("eigen", 1, ["a"]), {}, "(?s)two checkpoints or more"),
    ],
)
def test_what_cannot_be_drawn(results: list[Result], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figure_of_series(results, **options)


def test_the_step_of_other_matrices_is_not_bounded() -> None:
    fisher = [dataclasses.replace(result, operator="fisher") for result in _of("eigen")]
    with pytest.raises(InputError, match=r"(?s)the Hessian alone.*fisher"):
        figure_of_series(fisher, learning_rate=0.1)
    assert "loss² / weight²" in training(fisher).get_ylabel()


def test_measures_are_chosen_in_their_order() -> None:
    figure = figure_of_series(_of("trace"), measure=["accuracy", "trace"])
    assert [ax.get_ylabel().split("\n")[0] for ax in figure.axes] == ["accuracy", "Tr"]


def test_a_missing_figure_is_a_gap() -> None:
    results = _of("trace", names=["sgd"])
    results[1] = dataclasses.replace(results[1], trace=float("nan"))
    (points,) = _lines(training(results))
    assert np.isnan(points[1, 1])
    np.testing.assert_allclose(points[[0, 2, 3], 1], [40, 38, 37])


def test_uneven_sides_are_drawn_as_they_are() -> None:
    results = [at_checkpoint(density_result(), f"a{i}.pt", i) for i in range(2)]
    figure = figure_of_series(results, measure=["negative_share"])
    np.testing.assert_allclose(_bars(figure.axes[0]), [[0, 0.125], [0, 0.125]])


@pytest.mark.parametrize(
    ("values", "scale"), [([1, 99], "linear"), ([0.1, 11], "log"), ([-1, 500], "linear"), ([], "linear")]
)
def test_an_axis_is_logarithmic_over_two_decades(values: list[float], scale: str) -> None:
    ax = new_figure().add_subplot()
    value_scale(ax, np.array(values, dtype=float))
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert not values or scale == "linear" or low < min(values) < max(values) < high


def _each() -> list[list[Result]]:
    makers = (
        density_result, ratios_result, sharpness_result, reweight_result, noise_result, line_result,
        barrier_result,
    )  # fmt: skip
    return [[at_checkpoint(make(), f"{n}-{i}.pt", i) for n in "ab" for i in (1, 2)] for make in makers]


@pytest.mark.parametrize("results", [_of("eigen"), _of("trace"), *_each()], ids=lambda r: type(r[0]).__name__)
def test_every_kind_has_a_time_series(results: list[Result]) -> None:
    kind = results[0].kind
    assert "training" in series_views(kind)
    view = "measures" if kind == "ratios" else "training"
    figure = figure_of_series(results, view)
    figure.canvas.draw()
    for ax in figure.axes:
        assert len(_lines(ax)) == 2
        assert ax.get_ylabel()


def test_what_is_drawn_are_measures() -> None:
    for chosen in (DRAWN, STUDIED):
        for kind, names in chosen.items():
            assert set(names) <= {measure.name for measure in measures_of(kind)}
    assert set(SERIES) == set(DRAWN) == set(MEASURES) == set(STUDIED)


def test_eigenvalues_are_lines_of_each_training_run() -> None:
    figure = figure_of_series(_of("eigen"), "eigenvalues", learning_rate=0.5)
    left, right = figure.axes
    assert [left.get_title(loc="left"), right.get_title(loc="left")] == ["sgd", "sam"]
    first, second = _lines(right)
    np.testing.assert_allclose(first[:, 1], [4, 4.5, 5, 5.5])
    np.testing.assert_allclose(second[:, 1], [2, 2.25, 2.5, 2.75])
    assert left.get_ylim() == right.get_ylim()
    assert _legend(figure)[:3] == ["λ₁", "λ₂", "2/η = 4 (η = 0.5)"]
    nothing = [dataclasses.replace(r, eigenvalues=np.zeros(0)) for r in _of("eigen")]
    with pytest.raises(InputError, match="no eigenvalues"):
        figure_of_series(nothing, "eigenvalues")


def test_eigenvalues_are_counted_from_the_end_they_were_found_at() -> None:
    values = np.array([4.0, 3.0, -2.0, -5.0])
    names = {
        "largest": [("λ₁", 4), ("λ₂", 3), ("λ₃", -2), ("λ₄", -5)],
        "smallest": [("λₙ", -5), ("λₙ₋₁", -2), ("λₙ₋₂", 3), ("λₙ₋₃", 4)],
        "both": [("λ₁", 4), ("λ₂", 3), ("λₙ", -5), ("λₙ₋₁", -2)],
        "magnitude": [("θ₁", -5), ("θ₂", 4), ("θ₃", 3), ("θ₄", -2)],
    }
    for which, expected in names.items():
        own = {"which": which, "eigenvalues": values, "residuals": np.ones(4), "standard_errors": np.ones(4)}
        results = [dataclasses.replace(r, **own) for r in _of("eigen", names=["sgd"])]
        figure = figure_of_series(results, "eigenvalues")
        assert _legend(figure)[:4] == [name for name, _ in expected]
        lines = _lines(figure.axes[0])
        np.testing.assert_allclose([line[0, 1] for line in lines[:4]], [value for _, value in expected])
    with pytest.raises(InputError, match="different ends"):
        figure_of_series([dataclasses.replace(results[0], which="both"), *results[1:]], "eigenvalues")


def test_one_scale_for_panels_of_the_same_values() -> None:
    wide = [eigen_at(f"a{i}.pt", i, 10.0**i) for i in range(4)] + [
        eigen_at(f"b{i}.pt", i, 5.0) for i in range(2)
    ]
    figure = figure_of_series(wide, "eigenvalues")
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log"]


def test_layers_of_traces_have_a_panel_each() -> None:
    ax = layers(_of("trace"))
    first, second = figure_of(ax).axes
    np.testing.assert_allclose(_lines(first)[0][:, 1], 0.75 * np.array([40, 39, 38, 37]))
    np.testing.assert_allclose(_lines(second)[1][:, 1], 0.25 * np.array([30, 29, 28, 27]))
    np.testing.assert_allclose(_bars(second)[0], [9.75, 10.25])
    assert first.get_title(loc="left") == "0\n2,000 parameters"
    assert "95 %" in " ".join(_legend(figure_of(ax)))


def test_layers_that_not_all_results_have_are_not_drawn() -> None:
    results = _of("trace", names=["sgd"])
    names = np.array(["0", "9"], dtype=object)
    results[1] = dataclasses.replace(results[1], layers=names)
    assert len(figure_of(layers(results)).axes) == 1


def test_errors_of_a_density_s_layers_are_over_probes() -> None:
    results = [at_checkpoint(density_result(), f"a{i}.pt", i) for i in range(3)]
    figure = figure_of_series(results, per_layer=True)
    assert _legend(figure) == ["± standard error over probes"]


def test_a_study_shows_every_kind_on_the_same_steps() -> None:
    results = {"eigen": _of("eigen"), "trace": _of("trace", names=["sam"])}
    figure = figure_of_study(results)
    upper, middle, lower = figure.axes
    assert [ax.get_ylabel().split("\n")[0] for ax in figure.axes] == ["λmax", "Tr", "loss"]
    assert [len(_lines(ax)) for ax in (upper, middle, lower)] == [2, 1, 2]
    sam = [
        c.lines[0].get_color() for c in middle.containers if isinstance(c, ErrorbarContainer) and c.lines[0]
    ]
    assert sam[0] == LOOKS[1].colour  # as in the panel that has both
    assert "± residual and noise floor (λmax)" in _legend(figure)
    assert upper.get_shared_x_axes().joined(upper, lower)


def test_a_study_of_chosen_measures() -> None:
    results = {"eigen": _of("eigen"), "trace": _of("trace")}
    ax = study(results, measure=["trace.loss", "lambda_max", "trace"], learning_rate=0.1)
    labels = [panel.get_ylabel().split("\n")[0] for panel in figure_of(ax).axes]
    assert labels == ["loss", "λmax", "Tr"]
    with pytest.raises(InputError, match=r"(?s)no measure nothing.*lambda_max"):
        study(results, measure=["nothing"])
    with pytest.raises(InputError, match="beside λmax"):
        study(results, measure=["trace"], learning_rate=0.1)


def test_times_that_are_not_the_same_have_axes_of_their_own() -> None:
    epochs = [trace_at(f"sgd-{i}.pt", None, 5.0 + i, epoch=i) for i in range(3)]
    figure = figure_of_study({"eigen": _of("eigen"), "trace": epochs})
    words = [ax.get_xlabel() for ax in figure.axes]
    assert words == ["Training step", "Epoch", "Training step"]


def test_a_line_without_errors() -> None:
    line = Line("a", np.arange(2.0), [Reading(1.0), None], [True, True], LOOKS[0])
    assert np.isnan(line.sides()).all()
    assert np.isnan(line.deviations()).all()
    np.testing.assert_equal(line.values(), [1.0, np.nan])


def test_names_are_harmless() -> None:
    results = [eigen_at(f"$x_{{\x1b}}$-{n}{i}.pt", i, 3.0) for n in "ab" for i in range(2)]
    figure = figure_of(training(results))
    figure.canvas.draw()
    assert all("\x1b" not in text for text in _legend(figure))
