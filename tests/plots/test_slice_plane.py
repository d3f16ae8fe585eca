"""What is drawn of a plane lies where it was measured."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from PIL import Image

from landscape.errors import InputError
from landscape.plots.slice_fields import edges, field
from landscape.plots.slice_levels import scale
from landscape.plots.slice_plane import plane
from landscape.results import SliceResult
from tests.support.slice_results import plane_result, with_trajectory


def artist(ax: Axes, gid: str) -> Any:
    found = [one for one in ax.get_children() if one.get_gid() == gid]
    assert len(found) == 1, gid
    return found[0]


def mesh(ax: Axes) -> QuadMesh:
    return next(one for one in ax.collections if isinstance(one, QuadMesh))


def labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def bar(ax: Axes) -> Axes:
    return next(child for child in ax.child_axes if child.get_ylabel())


def rendered(ax: Axes) -> np.ndarray:
    """The picture as (rows from below, columns, 3)."""
    file = io.BytesIO()
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(file, format="png", dpi=figure.dpi)
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)[::-1] / 255


def skewed() -> SliceResult:
    """A grid with more columns than rows, as unlike its transpose as can be, spaced unevenly."""
    return plane_result(
        [-1.0, -0.6, 0.0, 0.6, 1.3, 1.7, 3.0], [-1.0, 0.0, 1.5], lambda a, b: 2 + np.sin(4 * a) + 0.9 * b
    )


def test_a_value_is_drawn_at_its_coordinates() -> None:
    result = skewed()
    ax = plane(result)
    drawn = mesh(ax)
    found = scale(field(result))
    assert found is not None
    expected = np.clip(np.floor(found.bands(np.asarray(result.loss))), 0, len(found.levels) - 2) + 0.5
    assert np.array_equal(np.ma.getdata(drawn.get_array()).reshape(3, 7), expected.T)
    corners = drawn.get_coordinates()
    assert np.array_equal(corners[0, :, 0], edges(result.x))
    assert np.array_equal(corners[:, 0, 1], edges(np.asarray(result.y)))


def test_the_pixels_have_the_colours_of_the_losses() -> None:
    result = skewed()
    ax = plane(result, levels="linear")
    picture = rendered(ax)
    found = scale(field(result), "linear")
    assert found is not None
    count = len(found.levels) - 1
    palette = matplotlib.colormaps["viridis"].resampled(count)(np.arange(count))[:, :3]
    bands = found.bands(np.asarray(result.loss))
    checked = 0
    for i, x in enumerate(result.x[1:-1], 1):
        column, row = ax.transData.transform((x, 0.02))
        if x == 0:
            continue  # the mark of the centre
        colour = picture[int(row), int(column)]
        band = int(np.abs(palette - colour).sum(axis=1).argmin())
        assert abs(band + 0.5 - bands[i, 1]) < 1.3, (i, band, bands[i, 1])
        checked += 1
    assert checked == 4
    assert np.ptp(bands[1:-1, 1]) > 4


def test_levels_and_their_choice_are_on_the_colour_bar() -> None:
    result = plane_result()
    for kind, words in (("quantile", "at quantiles"), ("log", "logarithmic"), ("linear", "even")):
        ax = plane(result, levels=kind)
        found = scale(field(result), kind)
        assert found is not None
        assert words in bar(ax).get_ylabel()
        assert [text.get_text() for text in bar(ax).get_yticklabels()] == found.ticks()[1]


def test_hatched_are_the_points_that_are_not_finite_and_no_others() -> None:
    generator = np.random.default_rng(5)
    result = plane_result(np.linspace(-1, 2, 14), np.linspace(-2, 1, 9))
    values = np.asarray(result.loss).copy()
    draws = generator.random(values.shape)
    values[draws < 0.2] = np.nan
    values[draws > 0.9] = np.inf
    unknown = (draws > 0.5) & (draws < 0.6)
    ax = plane(dataclasses.replace(result, loss=np.ma.array(values, mask=unknown)))
    hatched = artist(ax, "not finite")
    middles = [(edges(c)[1:] + edges(c)[:-1]) / 2 for c in result.coordinates]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = hatched.get_path().contains_points(points).reshape(values.shape)
    wrong = ~np.isfinite(values) & ~unknown
    assert np.array_equal(inside, wrong)
    assert hatched.get_hatch()
    assert f"not finite ({wrong.sum()} of {(~unknown).sum()} points)" in labels(ax)
    assert "not reached" in labels(ax)
    blank = np.ma.getmaskarray(mesh(ax).get_array()).reshape(9, 14)
    assert np.array_equal(blank.T, wrong | unknown)


def test_what_was_not_reached_is_grey() -> None:
    result = plane_result()
    mask = np.zeros(result.loss.shape, dtype=bool)
    mask[12:] = True
    ax = plane(dataclasses.replace(result, loss=np.ma.array(result.loss, mask=mask), status="partial"))
    column, row = ax.transData.transform((0.8, 0.03))  # before the layout is known
    picture = rendered(ax)
    column, row = ax.transData.transform((0.8, 0.03))
    assert np.allclose(picture[int(row), int(column)], to_rgb("#D9D9D9"), atol=0.01)
    assert "partial" in ax.get_title(loc="left")
    assert "not reached" not in labels(plane(result))


@pytest.mark.parametrize("norms", [(2.0, 2.0), (2.0, 1.0), (0.5, 1.2)])
def test_lengths_are_those_in_parameter_space(norms: tuple[float, float]) -> None:
    ax = plane(plane_result([-1, 0, 2], [-1, 0, 1], direction_norms=np.array(norms)))
    rendered(ax)
    origin, right, up = (ax.transData.transform(place) for place in ((0, 0), (1, 0), (0, 1)))
    per_weight = (right[0] - origin[0]) / norms[0], (up[1] - origin[1]) / norms[1]
    assert per_weight[0] == pytest.approx(per_weight[1], rel=1e-6)


def test_a_plane_too_long_to_be_seen_is_stretched_and_says_so() -> None:
    ax = plane(plane_result([-50, 0, 50], [-1, 0, 1]))
    assert "stretched" in ax.get_ylabel()
    rendered(ax)
    box = ax.get_window_extent()
    assert 2.5 < box.width / box.height < 3.5
    long = plane_result([-5, 0, 5], [-1, 0, 1], axes=np.array(["x", "direction 2 " * 4], dtype=object))
    assert max(map(len, plane(long).get_ylabel().splitlines())) <= 24
    tall = plane(plane_result([-1, 0, 1], [-50, 0, 50]))
    assert "stretched" in tall.get_xlabel()
    assert "stretched" not in plane(plane_result()).get_xlabel()


def test_the_centre_and_the_lowest_point_are_marked() -> None:
    result = plane_result(loss=lambda a, b: 1 + (a - 0.5) ** 2 + (b + 0.25) ** 2)
    ax = plane(result)
    assert [v[0] for v in artist(ax, "centre").get_data()] == [0, 0]
    lowest = artist(ax, "lowest")
    assert [v[0] for v in lowest.get_data()] == [0.5, -0.25]
    assert result.minimum == (1.0, (0.5, -0.25))
    error = float(result.standard_errors[15, 6])
    assert lowest.get_label().startswith("lowest loss 1 (rise 0.800 ± ")
    assert float(lowest.get_label().split("± ")[1].rstrip(")")) == pytest.approx(error, abs=1.1e-3)
    assert "centre 0.200 ± 0.010" in labels(ax)
    away = plane(plane_result([1, 2, 3], [1, 2, 3]))
    assert not [one for one in away.lines if one.get_gid() == "centre"]


def test_evaluated_points_are_dotted_where_others_were_interpolated() -> None:
    result = plane_result()
    some = np.zeros(result.loss.shape, dtype=bool)
    some[::4, ::3] = True
    dots = next(
        line
        for line in plane(dataclasses.replace(result, evaluated=some)).lines
        if str(line.get_label()).startswith("evaluated")
    )
    places = set(zip(*(v.tolist() for v in dots.get_data()), strict=True))
    assert places == {(x, y) for x in result.x[::4] for y in np.asarray(result.y)[::3]}
    assert dots.get_label() == f"evaluated ({some.sum()} of {some.size})"
    assert not [one for one in labels(plane(result)) if one.startswith("evaluated")]


def test_other_data_and_other_quantities() -> None:
    result = plane_result(gradient_norms=np.ma.array(np.full((21, 17), 3.0)))
    for options, name, values in (
        ({"data": "test"}, "Test loss", result.test_loss),
        ({"metric": "accuracy"}, "Accuracy", result.accuracies),
        ({"metric": "error"}, "Standard error of the loss's rise", result.standard_errors),
        ({"metric": "margin"}, "margin", None if result.metrics is None else result.metrics[0]),
        ({"metric": "gradient_norm"}, "Gradient norm (loss / weight)", result.gradient_norms),
    ):
        found = field(result, **options)
        assert values is not None
        assert np.array_equal(found.values, np.ma.filled(values, np.nan))
        assert name in bar(plane(result, **options)).get_ylabel().replace("\n", " ")
    assert "360 test examples" in plane(result, data="test").get_title(loc="left")
    assert "1,797 examples" in plane(result).get_title(loc="left")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"metric": "mass"},
            "no mass on the train data.*train: loss, error, accuracy, margin; test: loss",
        ),
        ({"data": "test", "metric": "margin"}, "no margin on the test data"),
        ({"data": "valid"}, "train or test"),
        ({"levels": "even"}, "one of quantile, log, linear"),
    ],
)
def test_what_there_is_not(options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        plane(plane_result(), **options)


def test_a_trajectory_is_drawn_in_the_order_of_its_steps() -> None:
    result = with_trajectory(plane_result(), 9)
    shuffled = np.random.default_rng(2).permutation(9)
    mixed = dataclasses.replace(
        result,
        **{
            name: getattr(result, name)[shuffled]
            for name in ("point_names", "point_steps", "point_coordinates", "point_distances", "point_losses")
        },
    )
    assert result.point_coordinates is not None
    for one in (result, mixed):
        dots = artist(plane(one), "trajectory")
        assert np.allclose(dots.get_offsets(), result.point_coordinates)
        assert (np.diff(dots.get_sizes()) < 0).all()  # nearer and nearer
        brightness = dots.get_facecolors()[:, :3] @ [0.299, 0.587, 0.114]
        assert (np.diff(brightness) < 0).all()


def test_a_trajectory_of_unknown_steps_is_in_the_order_given_and_says_what_lies_outside() -> None:
    result = with_trajectory(plane_result(), 9, point_steps=np.ma.masked_all(9))
    ax = plane(dataclasses.replace(result, point_coordinates=3 * np.asarray(result.point_coordinates)))
    outside = (np.abs(3 * np.asarray(result.point_coordinates)) > 1).any(axis=1).sum()
    assert outside > 0
    assert f"{outside} of 9 checkpoints lie outside" in labels(ax)
    assert "trajectory, checkpoint 1" in labels(ax)
    assert ax.get_xlim() == (-1, 1)


def test_ends_have_their_names() -> None:
    ends = {
        "point_names": np.array(["runs/b.pt", "runs/c$x$.pt"], dtype=object),
        "point_roles": np.array(["end", "end"], dtype=object),
        "point_coordinates": np.array([[1.0, 0.0], [0.4, 0.9]]),
    }
    ax = plane(plane_result(**ends))
    assert {"b.pt", r"c\$x\$.pt"} <= {text.get_text() for text in ax.texts}
    assert "other ends" in labels(ax)
    rendered(ax)


def test_the_slice_says_what_it_is() -> None:
    ax = plane(plane_result(batchnorm="saved", angle=63.0))
    title = ax.get_title(loc="left").replace("\n", " · ")
    for words in ("a 2-D slice of 6,570 dimensions", "BatchNorm as saved", "63° apart, made orthogonal"):
        assert words in title
    assert ax.get_xlabel() == "random:1\n(1 = 0.4 ‖w‖)"
    assert "drawn at 90°" in plane(plane_result(orthogonal=False, angle=63.0)).get_title(loc="left")
    assert "apart" not in plane(plane_result(angle=89.7)).get_title(loc="left")
