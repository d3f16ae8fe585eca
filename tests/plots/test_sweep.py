"""The sweep of the finite differences' step is drawn as it went."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from landscape.curvature import finite_difference
from landscape.errors import InputError
from landscape.plots import sweep
from landscape.plots.style import GREEN
from landscape.plots.sweep import PLATEAU
from landscape.results import EigenResult
from tests.plots.support import assert_all_inside, figure_of, legend, line, trace_result
from tests.results.samples import eigen_result

ERRORS = (1.0, 0.1, 1.5e-3, 1e-3, 1.9e-3, 0.01, 1.5e-3)


def _swept(errors: ArrayLike = ERRORS, **changes: Any) -> EigenResult:
    """Steps 1e-6, 1e-5, …; the fourth was chosen."""
    values = np.asarray(errors, dtype=float)
    fields: dict[str, Any] = {
        "operator": "finite-difference",
        "difference": "central",
        "rho": 1e-3,
        "rho_error": 1e-3,
        "rho_against": "double backward",
        "rho_sweep": 10.0 ** (np.arange(len(values)) - 6),
        "rho_errors": values,
    }
    return eigen_result(**fields | changes)


def test_errors_over_steps_on_logarithmic_axes() -> None:
    result = _swept()
    ax = sweep(result)
    points = line(ax, "central differences")
    assert points is not None
    assert np.array_equal(points.get_xydata(), np.c_[result.rho_sweep, result.rho_errors])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "Step ρ along a direction of large curvature (weight)"
    assert ax.get_ylabel() == "Relative error of a product\nagainst double backward"


def test_the_chosen_step_is_a_line() -> None:
    chosen = line(sweep(_swept()), "ρ = ")
    assert chosen is not None
    assert np.ravel(chosen.get_xdata()).tolist() == [1e-3, 1e-3]
    assert chosen.get_color() == GREEN
    assert chosen.get_label() == "ρ = 0.001, error 0.001"


@pytest.mark.parametrize(
    ("errors", "first", "last"),
    [
        (ERRORS, 2, 4),  # not the last one, which is beyond the hill
        ((1e-3, 1e-3, 1.0), 0, 1),
        ((1.0, np.inf, 1e-3), 2, 2),
        ((1.0, 1.0, 1.0), 0, 2),
    ],
)
def test_the_plateau_is_a_band_half_a_step_wider(errors: ArrayLike, first: int, last: int) -> None:
    result = _swept(errors)
    (band,) = sweep(result).patches
    box = band.get_path().get_extents(band.get_patch_transform())
    exponents = (max(first - 0.5, 0) - 6, min(last + 0.5, len(np.asarray(errors)) - 1) - 6)
    assert (np.log10(box.x0), np.log10(box.x1)) == pytest.approx(exponents)


def test_the_plateau_is_the_one_in_which_the_step_is_chosen() -> None:
    assert finite_difference._PLATEAU == PLATEAU


def test_steps_without_an_error_to_draw_are_marked() -> None:
    ax = sweep(_swept((np.inf, np.nan, 1e-3, 0.0, 0.1)))
    crosses, triangles, points = (line(ax, n) for n in ("no finite product", "no error at all", "central"))
    assert crosses is not None
    assert triangles is not None
    assert points is not None
    assert np.allclose(crosses.get_xdata(), [1e-6, 1e-5])
    assert np.allclose(triangles.get_xdata(), [1e-3])
    assert np.allclose(points.get_xydata(), [[1e-4, 1e-3], [1e-2, 0.1]])
    nothing = sweep(_swept((np.inf, np.inf), rho=None, rho_error=None))
    assert not nothing.patches
    assert legend(nothing) == ["central differences", "no finite product"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "errors": np.geomspace(1e-99, 1e99, 60),
            "rho_against": "neighbouring rho",
            "difference": "as-written",
        },
        {"errors": (1e-3,), "rho": 1e-6},
        {"errors": (np.inf, np.nan), "rho": None, "rho_against": None, "rho_error": None},
        {"errors": (0.0, 0.0, np.inf)},
    ],
)
def test_everything_drawn_lies_inside(changes: dict[str, Any]) -> None:
    assert_all_inside(figure_of(sweep(_swept(**changes))))


def test_one_sided_differences_are_called_so() -> None:
    assert "one-sided differences, as written" in legend(sweep(_swept(difference="as-written")))


def test_traces_have_sweeps_too() -> None:
    result = trace_result(rho_sweep=np.array([1e-3, 1e-2]), rho_errors=np.array([0.1, 0.2]))
    assert line(sweep(result), "finite differences") is not None


def test_a_result_without_a_sweep_is_refused() -> None:
    with pytest.raises(InputError, match="no sweep") as caught:
        sweep(eigen_result())
    assert "--rho-sweep" in str(caught.value)


def test_an_axes_that_is_given_is_used_and_settings_are_left_alone() -> None:
    before = dict(rcParams)
    axes = Figure().subplots(1, 2)
    assert sweep(_swept(), axes[1]) is axes[1]
    assert not axes[0].lines
    assert dict(rcParams) == before
