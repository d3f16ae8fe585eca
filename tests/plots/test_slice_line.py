"""What is drawn of a line is what was measured, and what is predicted is the closed form."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.text import Annotation

from landscape.errors import InputError
from landscape.plots.slice_line import barrier, line
from tests.support.slice_results import CENTRE, CURVATURE, SLOPE, barrier_result, line_result


def drawn(ax: Axes, label: str) -> Any:
    return next(one for one in ax.get_lines() if one.get_label() == label)


def lower(ax: Axes) -> Axes:
    figure = ax.get_figure()
    assert figure is not None
    return figure.axes[1]


def reach(ax: Axes, label: str, at: float) -> tuple[float, float]:
    """Lowest and highest of a band's corners at a coordinate."""
    bands = [one for one in ax.collections if isinstance(one, PolyCollection) and one.get_label() == label]
    corners = bands[0].get_paths()[0].vertices
    heights = corners[np.isclose(corners[:, 0], at), 1]
    return float(heights.min()), float(heights.max())


def test_losses_and_their_bands() -> None:
    result = line_result()
    ax = line(result)
    assert np.array_equal(drawn(ax, "train").get_ydata(), result.loss)
    assert np.array_equal(drawn(ax, "test").get_ydata(), result.test_loss)
    low, high = reach(ax, "± standard error of the rise above the centre", 1.0)
    assert (low, high) == pytest.approx((result.loss[-1] - 0.05, result.loss[-1] + 0.05))
    below = lower(ax)
    assert np.array_equal(drawn(below, "train").get_ydata(), result.accuracies)
    assert np.array_equal(drawn(below, "test").get_ydata(), result.test_accuracies)
    assert below.get_xlabel() == "eigen:1\n(1 = 0.4 ‖w‖)"
    title = ax.get_title(loc="left")
    assert "a 1-D slice of 6,570 dimensions · 1,797 examples · 360 test examples" in title


def test_the_parabola_is_the_second_order_expansion() -> None:
    ax = line(line_result())
    curve = next(one for one in ax.get_lines() if one.get_gid() == "parabola")
    t = np.asarray(curve.get_xdata())
    assert np.allclose(curve.get_ydata(), CENTRE + SLOPE * t + CURVATURE * t**2 / 2, rtol=1e-14)
    assert curve.get_linestyle() == "--"
    assert curve.get_label() == "centre + slope·t + ½λt², λ = 3.00 ± 0.20"
    low, high = reach(ax, "interval of λ", 1.0)
    assert (low, high) == pytest.approx((CENTRE + SLOPE + 2.8 / 2, CENTRE + SLOPE + 3.2 / 2))
    without = line(line_result(curvatures=None))
    assert not [one for one in without.get_lines() if one.get_gid() == "parabola"]


def test_the_parabola_does_not_stretch_the_picture() -> None:
    near = line(line_result()).get_ylim()
    far = line(line_result(curvatures=np.array([1e6]), curvature_errors=np.array([1e5]))).get_ylim()
    assert near == far
    masked = line_result(curvatures=np.ma.masked_all(1))
    assert not [one for one in line(masked).get_lines() if one.get_gid() == "parabola"]


def test_the_second_axis_is_in_units_of_the_weights() -> None:
    ax = line(line_result(relative_norms=np.array([0.25])))
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    top = ax.child_axes[0]
    assert top.get_xlabel() == "in units of ‖w‖"
    assert top.get_xlim() == pytest.approx((-0.25, 0.25))
    assert not line(line_result(relative_norms=np.array([np.inf]))).child_axes


def test_the_centre_is_marked_with_its_error() -> None:
    mark = next(one for one in line(line_result()).get_lines() if one.get_gid() == "centre")
    assert mark.get_label() == "centre 0.200 ± 0.010"
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([0], [CENTRE])


def test_not_finite_and_not_reached_are_told_apart() -> None:
    values = np.asarray(line_result().loss).copy()
    values[3], values[4] = np.nan, np.inf
    mask = np.arange(21) >= 15
    result = line_result(loss=np.ma.array(values, mask=mask), test_loss=None, accuracies=None)
    result = dataclasses.replace(result, test_accuracies=None)
    ax = line(result)
    crosses = drawn(ax, "train: not finite")
    assert np.array_equal(crosses.get_xdata(), result.x[[3, 4]])
    heights = drawn(ax, "train").get_ydata()
    assert np.array_equal(np.isfinite(heights), np.isfinite(values) & ~mask)
    grey = next(one for one in ax.patches if one.get_label() == "not reached")
    assert grey.get_x() == pytest.approx((result.x[14] + result.x[15]) / 2)
    assert grey.get_x() + grey.get_width() == pytest.approx(1.0)


def test_a_point_without_neighbours_is_seen() -> None:
    values = np.full(101, np.nan)
    values[:80] = values[90] = 0.5
    result = line_result(np.linspace(-1, 1, 101), np.ma.array(values), test_loss=None)
    dots = [one for one in line(result).get_lines() if one.get_marker() == "."]
    assert [one.get_xdata().tolist() for one in dots] == [[result.x[90]]]


def test_many_orders_of_magnitude_are_logarithmic() -> None:
    assert line(line_result(loss=lambda t: 10 ** (8 * np.abs(t) - 2))).get_yscale() == "log"
    assert (
        line(line_result(loss=lambda t: 10 ** (8 * np.abs(t)) - 2, test_loss=None)).get_yscale() == "linear"
    )


def test_another_quantity_is_drawn_alone() -> None:
    result = line_result(metric_names=np.array(["margin"], dtype=object), metrics=np.ma.ones((1, 21)))
    ax = line(result, metric="margin")
    figure = ax.get_figure()
    assert figure is not None
    assert len(figure.axes) == 1
    assert ax.get_ylabel() == "margin"
    assert drawn(ax, "train").get_ydata().tolist() == [1.0] * 21
    assert {str(one.get_label()) for one in line(result, metric="accuracy").get_lines()} >= {"train", "test"}
    with pytest.raises(InputError, match="no mass"):
        line(result, metric="mass")


def arrow(ax: Axes) -> Annotation | None:
    found = [one for one in ax.texts if isinstance(one, Annotation) and one.arrow_patch is not None]
    return found[0] if found else None


def test_the_arrow_is_as_long_as_the_barrier() -> None:
    result = barrier_result()
    ax = barrier(result)
    found = arrow(ax)
    assert found is not None
    (at, top), (foot_at, foot) = found.xy, found.xyann
    assert at == foot_at == 0.5
    assert top - foot == pytest.approx(0.8)
    assert top == pytest.approx(float(result.loss[20]))
    straight = drawn(ax, "straight line between both ends")
    assert np.allclose(straight.get_ydata(), [0.2, 0.4])
    assert foot == pytest.approx(np.interp(at, straight.get_xdata(), straight.get_ydata()))
    assert {text.get_text() for text in ax.texts} >= {"barrier 0.800 ± 0.020", "mlp-sgd.pt", "mlp-other.pt"}


def test_the_loss_with_interpolated_statistics_is_beside_it() -> None:
    result = barrier_result()
    ax = barrier(result)
    raw = drawn(ax, "running statistics interpolated (barrier 1.4)")
    assert np.array_equal(raw.get_ydata(), result.saved_loss)
    assert "BatchNorm recalibrated at each point" in ax.get_title(loc="left")
    both = np.concatenate([np.asarray(v)[10:31] for v in (result.loss, result.saved_loss)])
    low, high = ax.get_ylim()
    assert low < both.min()
    assert high > both.max()
    assert high < float(result.loss.max())  # what is far beyond both ends leaves the picture


def test_no_barrier_is_said() -> None:
    x = barrier_result().x
    ax = barrier(
        barrier_result(loss=np.ma.array(0.2 + 0.2 * x), barrier=0.0, barrier_at=0.0, saved_loss=None)
    )
    assert arrow(ax) is None
    assert "no barrier" in " ".join(text.get_text() for text in ax.texts)
    with pytest.raises(InputError, match="no barrier to draw"):
        barrier(line_result())
