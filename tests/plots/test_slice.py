"""The pictures of slices: which a result has, surfaces, trajectories, and whatever a loss may be."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpl_toolkits.mplot3d import Axes3D

from landscape.errors import InputError
from landscape.plots import figure_for, save
from landscape.plots.slice import VIEWS, plane, surface, trajectory
from landscape.plots.slice_surface import _finer, _refined
from landscape.results import SliceResult
from landscape.store import ResultFile
from tests.results.samples import assert_same
from tests.support.slice_results import barrier_result, line_result, plane_result, with_trajectory


def views(result: SliceResult) -> list[str]:
    return [name for name, view in VIEWS.items() if view.of(result)]


def test_which_pictures_there_are() -> None:
    assert views(line_result()) == ["line"]
    assert views(barrier_result()) == ["barrier", "line"]
    assert views(barrier_result(barrier=np.nan)) == ["line"]
    assert views(plane_result()) == ["plane", "surface"]
    assert views(with_trajectory(plane_result())) == ["plane", "surface", "trajectory"]
    assert views(with_trajectory(line_result())) == ["line", "trajectory"]
    assert views(plane_result(loss=np.ma.masked_all((21, 17)))) == []
    assert views(plane_result(loss=lambda a, b: np.nan * a)) == ["plane"]
    with pytest.raises(InputError, match="no figure yet"):
        figure_for(line_result(loss=np.ma.masked_all(21), status="partial"))


def _some(values: np.ndarray, seed: int) -> np.ndarray:
    """Some of the values broken."""
    draws = np.random.default_rng(seed).random(values.shape)
    return np.where(draws < 0.2, np.nan, np.where(draws > 0.9, np.inf, values))


_LOSSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": lambda r: 0 * r + 0.69,
    "zero": lambda r: 0 * r,
    "negative": lambda r: -3 - r,
    "huge range": lambda r: 10 ** (10.6 * r - 3),
    "huge range, negative": lambda r: 10 ** (10 * r) - 5,
    "nearly beyond floats": lambda r: 10 ** (135 * r),
    "broken": lambda r: _some(1 + r**2, 1),
    "broken huge": lambda r: _some(10 ** (10 * r - 3), 2),
    "all NaN": lambda r: np.nan * r,
    "all infinite": lambda r: np.inf + 0 * r,
    "one finite": lambda r: np.where(np.arange(r.size).reshape(r.shape) == 3, 0.5, np.nan),
    "a row": lambda r: np.where(np.arange(r.size).reshape(r.shape) < r.shape[-1], 1 + r, np.nan),
}


def _quick(name: str) -> Any:
    """Some are enough where time is short."""
    quick = name in ("constant", "broken huge", "huge range, negative", "all NaN", "one finite")
    return pytest.param(name, marks=() if quick else pytest.mark.long)


@pytest.mark.parametrize("name", [_quick(name) for name in _LOSSES])
def test_every_loss_can_be_drawn_without_a_warning(name: str) -> None:
    loss = _LOSSES[name]
    results = [
        plane_result(loss=lambda a, b: loss(np.hypot(a, b))),
        with_trajectory(plane_result([-1.0, 0.0, 2.0], [0.0, 1.0], lambda a, b: loss(np.hypot(a, b)))),
        line_result(loss=lambda t: loss(np.abs(t))),
        with_trajectory(line_result([0.0, 1.0], lambda t: loss(np.abs(t)))),
    ]
    for result in results:
        for view in views(result):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                picture = io.BytesIO()
                figure_for(result, view).savefig(picture, format="png", dpi=50)
            assert picture.tell() > 3_000


@pytest.mark.parametrize(
    ("view", "result"),
    [
        ("barrier", barrier_result()),
        ("line", line_result()),
        ("plane", with_trajectory(plane_result())),
        ("surface", plane_result()),
        ("trajectory", with_trajectory(plane_result())),
    ],
)
def test_every_format_and_a_figure_of_the_users(tmp_path: Path, view: str, result: SliceResult) -> None:
    from matplotlib.figure import Figure

    for ending in ("pdf", "svg"):
        save(figure_for(result, view), tmp_path / f"x.{ending}", result)
        assert (tmp_path / f"x.{ending}").stat().st_size > 8_000
    figure = Figure()
    ax = figure.add_subplot(projection="3d" if view == "surface" else None)
    assert VIEWS[view].draw(result, ax=ax) is ax
    figure.savefig(tmp_path / "own.png")


def test_grids_of_two_by_two_and_of_thirty_thousand(tmp_path: Path) -> None:
    large = plane_result(
        np.linspace(-1, 1, 201), np.linspace(-1, 1, 151), lambda a, b: np.sin(5 * a) * np.cos(4 * b) + 2
    )
    for view in ("plane", "surface"):
        small = plane_result([0, 1], [0, 1])
        save(figure_for(small, view), tmp_path / "x.png", small)
    save(figure_for(large, "plane"), tmp_path / "x.pdf", large)
    assert (tmp_path / "x.pdf").stat().st_size < 2_000_000


class Recorded:
    """What a surface was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[tuple[np.ndarray, ...], dict[str, Any]]] = []
        original = Axes3D.plot_surface

        def plot_surface(ax: Axes3D, *args: np.ndarray, **options: Any) -> Any:
            self.calls.append((args, options))
            return original(ax, *args, **options)

        monkeypatch.setattr(Axes3D, "plot_surface", plot_surface)


def test_a_surface_stands_over_its_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    result = plane_result([-1.0, 0.0, 0.5, 2.0], [-1.0, 0.0, 1.0], lambda a, b: 2 + np.sin(4 * a) + 0.9 * b)
    surface(result, levels="linear")
    (x, y, z), options = recorded.calls[0]
    for i, j in np.ndindex(result.loss.shape):
        at = np.isclose(x, result.x[i]) & np.isclose(y, np.asarray(result.y)[j])
        assert np.allclose(z[at], result.loss[i, j])
        assert at.sum() == 1
    # The same colours as in the plane: dark where low, but for shadows.
    lowest, highest = (np.unravel_index(int(found), z.shape) for found in (z.argmin(), z.argmax()))
    assert options["facecolors"][lowest][:3].sum() < options["facecolors"][highest][:3].sum()


def test_a_surface_far_above_the_rest_is_cut_off_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    result = plane_result(loss=lambda a, b: np.exp(9 * np.hypot(a, b)) - 2)
    ax: Any = surface(result)
    cut = float(np.quantile(np.asarray(result.loss), 0.95))
    assert recorded.calls[0][0][2].max() == pytest.approx(cut)
    label = ax.get_zlabel()
    assert f"cut off at {cut / 1e4:.2f}×10⁴: 5 % lie above" in label
    heights: Any = surface(result, levels="linear")
    assert "cut off" in heights.get_zlabel()
    even: Any = surface(plane_result())
    assert "cut off" not in even.get_zlabel()


def test_a_logarithmic_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    result = plane_result(loss=lambda a, b: 10 ** (6 * np.hypot(a, b)))
    ax: Any = surface(result)
    assert recorded.calls[0][0][2].max() == pytest.approx(6 * np.sqrt(2))
    assert "logarithmic" in ax.get_zlabel()


def test_finer_facets_keep_every_known_value() -> None:
    values = _some(np.random.default_rng(0).random((6, 4)), 4)
    values[~np.isfinite(values)] = np.nan
    fine = _refined(values)
    steps = [(large - 1) // (small - 1) for large, small in zip(fine.shape, values.shape, strict=True)]
    assert np.array_equal(fine[:: steps[0], :: steps[1]], values, equal_nan=True)
    x, y = np.array([0.0, 1, 4, 5, 7, 8]), np.array([-1.0, 0, 3, 4])
    flat = _refined(2 * x[:, None] - 3 * y)
    assert np.allclose(flat, 2 * _finer(x)[:, None] - 3 * _finer(y))


@pytest.mark.parametrize("make", [plane_result, line_result])
def test_a_trajectory_has_its_own_losses_beside_the_slice(make: Callable[[], SliceResult]) -> None:
    result = with_trajectory(make())
    ax = trajectory(result)
    figure = ax.get_figure()
    assert figure is not None
    lower = figure.axes[1]
    lines = {str(one.get_label()): one for one in lower.get_lines()}
    assert np.array_equal(lines["checkpoint"].get_xdata(), result.point_steps)
    assert np.array_equal(lines["checkpoint"].get_ydata(), result.point_losses)
    assert np.array_equal(lines["the slice at its projection"].get_ydata(), result.point_slice_losses)
    losses, errors = np.asarray(result.point_losses), np.asarray(result.point_errors)
    ends = np.array([segment[:, 1] for one in lower.collections for segment in one.get_segments()])
    known = errors > 0
    assert np.allclose(ends, np.stack([losses - errors, losses + errors], axis=1)[known])
    assert "71 % of the variance" in ax.get_xlabel()
    assert "0.4 ‖w‖" in ax.get_xlabel()
    if result.y is not None:
        assert "18 % of the variance" in ax.get_ylabel()
        assert "variance" not in plane(result).get_ylabel()
    dots = next(one for one in ax.collections if one.get_gid() == "trajectory")
    assert np.allclose(np.asarray(dots.get_offsets())[:, 0], np.asarray(result.point_coordinates)[:, 0])


def test_a_trajectory_whose_losses_are_not_known() -> None:
    nothing = np.full(12, np.nan)
    result = with_trajectory(plane_result(), point_losses=nothing, point_slice_losses=nothing)
    figure = trajectory(result).get_figure()
    assert figure is not None
    assert "no finite loss" in [text.get_text() for text in figure.axes[1].texts]
    with pytest.raises(InputError, match="no trajectory to draw"):
        trajectory(plane_result())


def test_a_stored_slice_looks_the_same(tmp_path: Path) -> None:
    result = with_trajectory(plane_result())
    mask = np.zeros(result.loss.shape, dtype=bool)
    mask[15:] = True
    result = dataclasses.replace(result, loss=np.ma.array(_some(result.loss, 3), mask=mask), status="partial")
    ResultFile(tmp_path / "r.h5").add(result)
    again = ResultFile(tmp_path / "r.h5").read("slice-aaaa1111")
    assert_same(again, result)
    for name, one in (("a.png", result), ("b.png", again)):
        save(figure_for(one), tmp_path / name, result)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
