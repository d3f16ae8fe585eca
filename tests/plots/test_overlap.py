"""Overlaps are drawn as they were found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes

from landscape.analyses.overlap import Settings, combine
from landscape.errors import InputError
from landscape.plots.figure import figure_for
from landscape.plots.overlap import LIFTS, SHARES, distance, matrix
from landscape.plots.style import new_figure
from landscape.results import OverlapResult
from tests.plots.support import assert_all_inside, ends, figure_of, legend, line
from tests.support.ratio_runs import random_runs, ratios_run

N = 2003


def result_of(count: int = 3, **settings: Any) -> OverlapResult:
    return combine(random_runs(N, [100 * (i + 1) for i in range(count)]), Settings(**settings))


def fields(ax: Axes) -> np.ndarray:
    """The numbers behind the colours."""
    (image,) = ax.get_images()
    values = image.get_array()
    assert values is not None
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)


def test_the_matrix_holds_the_lifts_and_says_the_shares() -> None:
    result = result_of(3)
    ax = matrix(result)
    np.testing.assert_array_equal(fields(ax), np.ma.filled(result.lifts, np.nan))
    said = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in ax.texts}
    assert set(said) == {(i, j) for i in range(3) for j in range(3) if i != j}
    for (i, j), text in said.items():
        share, lift = text.split("\n")
        assert share == f"{100 * result.shares[i, j]:.0f} %"
        assert float(lift.removeprefix("× ")) == pytest.approx(result.lifts[i, j], rel=5e-3)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["100", "200", "300"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["100", "200", "300"]
    assert ax.get_ylabel() == "A: ckpt1 at this training step"
    assert ax.get_title(loc="left").splitlines() == [
        "ckpt1 (r > 1) · 2,003 parameters",
        "gradient, ρ = 0.05, p = 2",
    ]


def test_chance_is_white_and_both_sides_are_as_far() -> None:
    (image,) = matrix(result_of()).get_images()
    low, high = image.get_clim()
    assert low * high == pytest.approx(1)
    assert high == 1.25, "what is hardly different from chance does not look as if it were"
    red, green, blue, _ = image.to_rgba(np.array([[1.0]]))[0, 0]  # type: ignore[union-attr]
    assert min(red, green, blue) > 0.95


@pytest.mark.parametrize(("count", "lines"), [(LIFTS, 2), (LIFTS + 1, 1), (SHARES, 1), (SHARES + 1, 0)])
def test_many_steps_say_less_in_each_field(count: int, lines: int) -> None:
    ax = matrix(result_of(count))
    assert len(ax.texts) == (count * (count - 1) if lines else 0)
    assert all(len(t.get_text().splitlines()) == lines for t in ax.texts)
    assert_all_inside(figure_of(ax))


def test_the_share_over_the_distance_beside_chance() -> None:
    result = result_of(4)
    upper, lower = figure_of(distance(result)).axes
    share = np.asarray(upper.get_lines()[-1].get_xydata())
    np.testing.assert_allclose(share[:, 0], [100, 200, 300])
    np.testing.assert_allclose(share[:, 1], result.shares[0, 1:])
    chance = result.sizes / N
    spread = 2 * result.deviations[0] / result.sizes[0]
    bars = ends(upper, "by chance, ± 2 standard deviations")
    assert len(bars) == 3
    for j, (place, low, high) in enumerate(bars, start=1):
        assert place == 100 * j
        assert (low + high) / 2 == pytest.approx(chance[j])
        assert (high - low) / 2 == pytest.approx(spread[j])
    assert upper.get_ylabel() == "Share of ckpt1 at step 100\nstill in ckpt1"
    assert lower.get_xlabel() == "Distance in training steps"


def test_the_lifts_of_all_pairs_beside_one() -> None:
    result = result_of(4)
    _, lower = figure_of(distance(result)).axes
    first, others = line(lower, "from step 100"), line(lower, "from a later one")
    assert first is not None
    assert others is not None
    np.testing.assert_allclose(np.asarray(first.get_ydata()), result.lifts[0, 1:])
    later = [result.lifts[i, j] for i in (1, 2, 3) for j in range(i + 1, 4)]
    np.testing.assert_allclose(np.asarray(others.get_ydata()), later)
    assert others.get_xdata().tolist() == [100, 200, 100]  # type: ignore[union-attr]
    (bars,) = (
        c.lines[2][0] for c in lower.containers if c.lines[2] and len(c.lines[2][0].get_segments()) > 1
    )  # type: ignore[attr-defined]
    spread = [2 * result.deviations[i, j] / result.expected[i, j] for i in range(4) for j in range(i + 1, 4)]
    for ((_, low), (_, high)), half in zip(bars.get_segments(), spread, strict=True):
        assert (low, high) == pytest.approx((1 - half, 1 + half))
    assert legend(lower) == ["from a later one", "from step 100", "by chance, ± 2 standard deviations"]


def test_chance_stays_within_what_can_be() -> None:
    upper, lower = figure_of(distance(hard()["mixed, without steps"])).axes
    ((_, low, high),) = ends(upper, "by chance, ± 2 standard deviations")
    assert 0 <= low < high == 1
    assert lower.get_xlabel() == "Distance in saved models"


def test_two_steps_are_a_point() -> None:
    figure = figure_of(distance(result_of(2)))
    assert line(figure.axes[1], "from a later one") is None
    assert_all_inside(figure)


def hard() -> dict[str, OverlapResult]:
    nobody = [ratios_run([1] * 9, step=step) for step in (1, 2, 3)]
    apart = [ratios_run(classes, step=s) for s, classes in enumerate(([0] * 5 + [1] * 5, [1] * 5 + [0] * 5))]
    empty_first = [
        ratios_run([1] * 9, step=1),
        ratios_run([0] * 9, step=2),
        ratios_run([0] * 4 + [1] * 5, step=3),
    ]
    rare = [ratios_run([0] + [1] * 999, step=s) for s in (1, 2)]
    at_once = [ratios_run([0, 1, 0, 1], step=5, run=f"ratios-{'$' * 40}{i}") for i in range(3)]
    named = [
        ratios_run([0, 1, 0], step=None, epoch=e, rho=r, run=f"ratios-{r}")
        for e, r in ((1, 0.1), (None, 0.2))
    ]
    return {
        "an empty class": combine(nobody, Settings()),
        "nothing in common": combine(apart, Settings()),
        "empty at first": combine(empty_first, Settings()),
        "a thousand times chance": combine(rare, Settings()),
        "one step three times": combine(at_once, Settings()),
        "mixed, without steps": combine(named, Settings(mixed=True)),
        "other classes": result_of(5, ratio_class="ckpt2", with_class="ckpt3"),
        "thirty steps": result_of(30),
    }


@pytest.mark.parametrize("name", hard())
def test_everything_drawn_lies_inside(name: str) -> None:
    result = hard()[name]
    assert_all_inside(figure_of(matrix(result)))
    if result.sizes[:-1].any():
        assert_all_inside(figure_of(distance(result)))


def test_nothing_in_common_is_as_blue_as_can_be_and_undefined_is_grey() -> None:
    cases = hard()
    values = fields(matrix(cases["nothing in common"]))
    assert values[0, 1] == values[1, 0] == pytest.approx(0.1)
    ax = matrix(cases["an empty class"])
    assert np.isnan(fields(ax)).all()
    assert {t.get_text() for t in ax.texts} == {"—"}


def test_an_empty_class_has_no_shares_to_draw() -> None:
    result = hard()["an empty class"]
    with pytest.raises(InputError, match="no parameter in ckpt1"):
        distance(result)
    with pytest.raises(InputError, match="no distance to draw"):
        figure_for(result, "distance")


def test_the_views_of_a_result() -> None:
    result = result_of()
    assert len(figure_for(result).axes) == 2, "the matrix and its scale of colours"
    assert len(figure_for(result, "distance").axes) == 2, "shares above, lifts below"
    with pytest.raises(InputError, match="no view 'spectrum'"):
        figure_for(result, "spectrum")


def test_into_axes_of_the_callers_and_settings_are_left_alone() -> None:
    before = dict(rcParams)
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2)
    assert matrix(result_of(), left) is left
    assert distance(result_of(), right) is right
    figure.canvas.draw()
    assert dict(rcParams) == before
