"""What is drawn of a sharpness run is what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from landscape.errors import InputError
from landscape.plots.figure import figure_for, save
from landscape.plots.sharpness import sweep, terms
from landscape.plots.style import BLUE
from landscape.results import SharpnessResult
from landscape.store import ResultFile
from tests.plots.support import assert_all_inside, bar_widths, ends, figure_of, legend, line, notes
from tests.results.samples import assert_same, provenance

RADII = 0.05 * np.geomspace(0.01, 10, 10)


def sharpness_result(**changes: Any) -> SharpnessResult:
    """A slope of 0.1 and a curvature of 2 along it; of 10 parameters, with a trace of 4."""
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": 0.1,
        "examples": 1797,
        "terms": 1797.0,
        "parameters": 10,
        "measure": "sam",
        "rho": 0.05,
        "relative": False,
        "radius": 0.05,
        "p": 2.0,
        "steps": 0,
        "groups": 1,
        "arithmetic": "float64",
        "increase": 0.0075,
        "increase_error": 0.001,
        "error_method": "examples' own differences at this ε",
        "noise": 1e-16,
        "length": 0.05,
        "first_order": 0.005,
        "first_order_error": 1e-10,
        "second_order": 0.0025,
        "second_order_error": 1e-9,
        "remainder": -1e-5,
        "remainder_error": 1e-9,
        "squared_norm_ratio": 400.0,
        "directions": 16,
        "random_length": 0.05,
        "random_mean": 5.1e-4,
        "random_interval": np.array([4e-4, 6.2e-4]),
        "hessian_trace": 4.0,
        "hessian_trace_interval": np.array([3.0, 5.0]),
        "trace_source": "the same directions",
        "predicted_mean": 5e-4,
        "predicted_interval": np.array([3.75e-4, 6.25e-4]),
        "random_difference": 1e-5,
        "random_difference_interval": np.array([-1e-5, 3e-5]),
        "direction_increases": np.full(16, 5e-4),
        "direction_curvatures": np.full(16, 0.4),
        "evaluations": 62,
        "gradients": 2,
        "products": 17,
        "seconds": 1.0,
        "provenance": provenance("sharpness-0a1b", command="landscape sharpness runs/mlp-sgd.pt"),
    }
    return SharpnessResult(**fields | changes)


def swept(**changes: Any) -> SharpnessResult:
    first, second = 0.1 * RADII, RADII**2
    fields: dict[str, Any] = {
        "rho_sweep": RADII,
        "sweep_increases": first + second,
        "sweep_errors": np.ma.MaskedArray(0.1 * first, mask=np.arange(10) == 9),
        "sweep_first": first,
        "sweep_second": second,
    }
    return sharpness_result(**fields | changes)


def xy(ax: Any, label: str) -> np.ndarray:
    found = line(ax, label)
    assert found is not None, label
    return np.asarray(found.get_xydata())


def test_the_sweep_shows_measured_and_predicted_log_log() -> None:
    ax = sweep(swept())
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(xy(ax, "measured"), np.stack([RADII, 0.1 * RADII + RADII**2], axis=1))
    curve = xy(ax, "first order")
    np.testing.assert_allclose(curve[:, 1], 0.1 * curve[:, 0])
    curve = xy(ax, "with ½εᵀHε")
    np.testing.assert_allclose(curve[:, 1], 0.1 * curve[:, 0] + curve[:, 0] ** 2)
    bars = ends(ax, "standard error over the data, ε fixed")
    assert len(bars) == 9  # the last one was not computed
    np.testing.assert_allclose([high - low for _, low, high in bars], 0.2 * 0.1 * RADII[:9])
    assert "rounding: 1e−16 (float64), below the picture" in legend(ax)
    assert "‖ε‖₂ ≤ ρ, ρ as below, all data at once, first-order point" in ax.get_title(loc="left")
    assert_all_inside(figure_of(ax))


def test_falls_and_what_is_not_finite_are_told_apart() -> None:
    rises = 0.1 * RADII
    rises[3], rises[4], rises[9] = -1e-3, 0.0, np.nan
    ax = sweep(swept(sweep_increases=rises, noise=1e-4))
    hollow = line(ax, "measured, negative")
    assert hollow is not None
    assert hollow.get_markerfacecolor() == "none"
    np.testing.assert_allclose(hollow.get_xydata(), [[RADII[3], 1e-3]])
    assert len(xy(ax, "measured")) == 7
    assert xy(ax, "not finite")[:, 0] == pytest.approx([RADII[9]])
    assert xy(ax, "no rise at all")[:, 0] == pytest.approx([RADII[4]])
    floor = line(ax, "rounding: 0.0001")
    assert floor is not None
    assert set(np.asarray(floor.get_ydata())) == {1e-4}
    assert_all_inside(figure_of(ax))


def test_errors_that_reach_to_zero_leave_the_axis_alone() -> None:
    ax = sweep(swept(sweep_errors=np.ma.MaskedArray(10 * RADII, mask=False)))
    low, high = ax.get_ylim()
    assert low > 1e-6
    assert high < 20
    assert len(ends(ax, "standard error over the data, ε fixed")) == 10


def test_the_sweep_of_an_average_has_the_interval_of_the_trace() -> None:
    ax = sweep(
        swept(
            measure="average",
            increase=5.1e-4,
            increase_error=1e-4,
            sweep_first=np.zeros(10),
            sweep_second=RADII**2 * 0.2,
            sweep_increases=RADII**2 * 0.21,
            first_order=None,
            second_order=None,
            remainder=None,
        )
    )
    curve = xy(ax, "ρ²Tr(H)/(2n)")
    np.testing.assert_allclose(curve[:, 1], 0.2 * curve[:, 0] ** 2)
    assert "its 95 % interval" in legend(ax)
    assert "95 % interval over directions" in legend(ax)
    assert line(ax, "first order") is None
    assert_all_inside(figure_of(ax))


def test_groups_and_no_expansion() -> None:
    ax = sweep(swept(m=128, groups=15, last_group=5, sweep_second=None))
    assert line(ax, "with") is None
    assert ends(ax, "standard error over groups")
    assert "m = 128 (15 groups, the last of 5)" in ax.get_title(loc="left")
    assert_all_inside(figure_of(ax))


def test_the_terms_are_bars_with_their_errors() -> None:
    ax = terms(sharpness_result())
    assert bar_widths(ax) == pytest.approx([0.0075, 0.005, 0.0025, -1e-5])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["rise L(w + ε) − L(w)", "slope εᵀg", "curvature ½εᵀHε", "remainder"]
    assert notes(ax)[0] == "0.0075 ± 0.0010"
    assert notes(ax)[1] == "0.005"
    assert to_hex(ax.patches[0].get_facecolor()).upper() == BLUE
    figure = figure_of(ax)
    assert len(figure.axes) == 2
    assert bar_widths(figure.axes[1]) == pytest.approx([5.1e-4, 5e-4, 1e-5])
    assert "‖ε‖₂ = 0.05" in figure.axes[1].get_title(loc="left")
    assert_all_inside(figure)


def test_terms_of_an_average_or_of_no_expansion_alone() -> None:
    alone = terms(sharpness_result(random_mean=None, second_order=None, remainder=None))
    assert bar_widths(alone) == pytest.approx([0.0075, 0.005])
    assert len(figure_of(alone).axes) == 1
    mean = terms(sharpness_result(measure="average", first_order=None))
    assert bar_widths(mean) == pytest.approx([5.1e-4, 5e-4, 1e-5])
    assert_all_inside(figure_of(mean))


def test_the_sweep_comes_first_and_the_terms_where_there_is_none(tmp_path: Path) -> None:
    assert figure_for(swept()).axes[0].get_xscale() == "log"
    assert figure_for(sharpness_result()).axes[0].get_xscale() == "linear"
    with pytest.raises(InputError, match="no sweep"):
        figure_for(sharpness_result(), "sweep")
    with pytest.raises(InputError, match="nothing to draw"):
        figure_for(swept(increase=float("nan")))
    with pytest.raises(InputError, match="--rho-sweep"):
        sweep(sharpness_result())
    with pytest.raises(InputError, match="nothing to draw"):
        terms(sharpness_result(first_order=None, random_mean=None))
    for suffix in ("png", "pdf", "svg"):
        save(figure_for(swept()), tmp_path / f"a.{suffix}", swept())
        assert (tmp_path / f"a.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "‖ε‖₂ ≤ ρ, ρ = 0.05, all data at once, first-order point"),
        ({"p": 1.0, "steps": 1}, "‖ε‖₁ ≤ ρ, ρ = 0.05, all data at once, 1 step of ascent"),
        ({"p": float("inf"), "relative": True}, "‖ε‖∞ ≤ ρ, ρ = 0.05·‖g‖ = 0.05, all data"),
        ({"measure": "asam", "eta": 0.01, "p": 1.5}, "‖ε/T‖_1.5 ≤ ρ, T = |w| + 0.01 on weights, ρ = 0.05"),
        ({"measure": "keskar", "p": float("inf"), "steps": 10}, "|ε| ≤ ρ(|w| + 1), ρ = 0.05"),
        ({"measure": "average"}, "‖ε‖₂ = ρ, ρ = 0.05, all data at once, 16 random pairs ±ε"),
        ({"m": 8, "groups": 7, "last_group": 2}, "m = 8 (7 groups, the last of 2), first-order point"),
    ],
)
def test_a_result_says_what_it_is_of(changes: dict[str, Any], words: str) -> None:
    assert words in sharpness_result(**changes).where


def test_a_stored_result_comes_back(tmp_path: Path) -> None:
    result = swept(group_increases=np.array([1.0, 2.0]), group_terms=np.array([3.0, 1.0]))
    file = ResultFile(tmp_path / "a.h5")
    file.add(result)
    assert_same(file.read("sharpness-0a1b"), result)
