"""The weights of examples are drawn where they are, in the right colour, with medians that are medians."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots import figure_for, save
from landscape.plots.reweight import VIEWS, parts, weights
from landscape.plots.style import BLUE, VERMILLION
from landscape.results import ReweightResult
from tests.plots.support import assert_all_inside, figure_of, legend, line
from tests.results.samples import provenance


def result(n: int = 400, *, marked: bool = True, **changes: Any) -> ReweightResult:
    """Losses over four decades; a fifth of the labels noisy, of high loss and small weight."""
    rng = np.random.default_rng(0)
    noisy = np.arange(n) % 5 == 0
    loss = np.exp(rng.normal(np.where(noisy, 1.0, -3.0), 1.0))
    weight = 1 + 1 / (1 + loss) + 0.02 * rng.normal(size=n)
    two = np.zeros((3, 2))
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": 0.1,
        "examples": n,
        "terms": float(n),
        "parameters": 2410,
        "p": 2.0,
        "rho": 0.05,
        "relative": False,
        "weight_decay": 0.0,
        "index": np.arange(n),
        "example_loss": np.ma.MaskedArray(loss),
        "example_gradient_norm": np.ma.MaskedArray(loss),
        "weight": np.ma.MaskedArray(weight),
        "logit_weight": np.ma.MaskedArray(weight + 0.1),
        "jacobian_weight": np.ma.MaskedArray(0 * weight + 1.02),
        "rounding": 1e-6,
        "noisy": noisy if marked else None,
        "zero_gradients": 0,
        "without_terms": 0,
        "overflowed": 0,
        "rank_correlation": -0.9,
        "rank_correlation_interval": np.array([-0.95, -0.85]),
        "groups": np.array(["all", "clean", "noisy"], dtype=object),
        "group_examples": np.array([n, n - int(noisy.sum()), int(noisy.sum())]),
        **{f"median_{name}": np.ones(3) for name in ("losses", "weights")},
        **{f"median_{name}_weights": np.ones(3) for name in ("logit", "jacobian")},
        **{f"median_{name}_intervals": two for name in ("loss", "weight", "logit_weight", "jacobian_weight")},
        "method": "vectorised",
        "separable": True,
        "chunk": 100,
        "seconds": 1.0,
        "provenance": provenance("20250102-reweight-0a1b"),
    }
    return ReweightResult(**fields | changes)


def test_every_example_is_a_point_of_its_group() -> None:
    of = result()
    ax = weights(of)
    assert of.noisy is not None
    for label, chosen, colour in (("clean", ~of.noisy, BLUE), ("noisy", of.noisy, VERMILLION)):
        points = line(ax, f"{label} labels (")
        assert points is not None
        assert points.get_color() == colour
        drawn = np.asarray(points.get_xydata())
        assert np.array_equal(drawn, np.c_[of.example_loss.data[chosen], of.weight.data[chosen]])
    assert ax.get_xscale() == "log"
    assert ax.get_yscale() == "linear"
    assert line(ax, "1: as in SGD") is not None


def test_without_marks_there_is_one_group() -> None:
    ax = weights(result(marked=False))
    assert legend(ax) == ["examples (400)", "examples: running median, quartiles", "1: as in SGD"]


@pytest.mark.parametrize("label", ["clean labels", "noisy labels"])
def test_the_running_median_is_the_median_of_its_neighbours(label: str) -> None:
    """Each point of the line: as many of its bin's weights above as below, and the quartiles likewise."""
    of = result()
    ax = weights(of)
    running = line(ax, f"{label}: running median")
    assert running is not None
    at, middle = np.asarray(running.get_xydata()).T
    assert len(at) >= 5
    assert (np.diff(at) > 0).all()
    assert of.noisy is not None
    chosen = of.noisy if label.startswith("noisy") else ~of.noisy
    loss, weight = of.example_loss.data[chosen], of.weight.data[chosen]
    order = np.argsort(loss)
    ranks = np.searchsorted(loss[order], at)
    assert ranks[0] >= 5
    assert ranks[-1] <= len(loss) - 5
    for place, value in zip(ranks, middle, strict=True):  # near the median of the nearest dozen
        near = weight[order][max(0, place - 30) : place + 30]
        assert np.quantile(near, 0.1) < value < np.quantile(near, 0.9)
    band = next(c for c in ax.collections if isinstance(c, PolyCollection))
    assert len(band.get_paths()) == 1


def test_bins_hold_every_example_once_and_enough() -> None:
    from landscape.plots.reweight import _BIN, _bins

    rng = np.random.default_rng(3)
    for loss in (np.exp(rng.normal(size=300)), np.ones(50), rng.exponential(size=13), np.zeros(0)):
        bins = _bins(loss, logarithmic=bool(len(loss) and loss.min() > 0))
        assert sorted(np.concatenate(bins).tolist()) == list(range(len(loss)))
        assert len(bins) == 1 or min(map(len, bins)) >= _BIN
        for left, right in itertools.pairwise(bins):
            assert loss[left].max() <= loss[right].min()


def test_what_has_no_weight_is_not_drawn_but_counted() -> None:
    of = result(marked=False)
    mask = np.arange(400) < 30
    of = replace(
        of,
        weight=np.ma.MaskedArray(of.weight.data, mask=mask),
        zero_gradients=20,
        overflowed=10,
        example_loss=np.ma.MaskedArray(np.where(mask, 0.0, of.example_loss.data)),
    )
    ax = weights(of)
    points = line(ax, "examples (370)")
    assert points is not None
    assert len(np.asarray(points.get_xydata())) == 370
    assert "30 without a weight" in ax.get_title(loc="left")
    assert ax.get_xscale() == "log"


def test_losses_that_are_not_positive_have_a_linear_axis() -> None:
    of = result(marked=False)
    ax = weights(replace(of, example_loss=of.example_loss - 1.0))
    assert ax.get_xscale() == "linear"
    assert line(ax, "examples: running median") is not None


def test_weights_of_many_sizes_have_a_logarithmic_axis() -> None:
    of = result()
    assert weights(replace(of, weight=of.weight**8)).get_yscale() == "log"


def test_few_examples_have_no_running_median() -> None:
    ax = weights(result(15))
    assert all("median" not in text for text in legend(ax))


def test_the_parts_stand_side_by_side_on_one_scale() -> None:
    of = result()
    ax = parts(of)
    left, right = figure_of(ax).axes
    assert left is ax
    for panel, values in ((left, of.logit_weight), (right, of.jacobian_weight)):
        drawn = np.asarray(panel.get_lines()[0].get_ydata())
        assert of.noisy is not None
        assert np.array_equal(drawn, values.data[~of.noisy])
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim() == right.get_xlim()
    assert "Logit" in left.get_ylabel()
    assert "Jacobian" in right.get_ylabel()
    explained = legend(left) + legend(right)
    assert len(explained) == len(set(explained)) == 5


@pytest.mark.parametrize("draw", [weights, parts])
@pytest.mark.parametrize("marked", [True, False])
def test_nothing_is_cut_off(draw: Any, marked: bool) -> None:
    assert_all_inside(figure_of(draw(result(marked=marked))))


@pytest.mark.parametrize("draw", [weights, parts])
def test_into_the_users_own_axes(draw: Any) -> None:
    figure = Figure()
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    assert draw(result(), ax=ax) is ax
    other: Axes = figure.add_subplot(2, 1, 1)
    assert draw(result(), ax=other) is other


def test_views_are_those_that_the_result_has(tmp_path: Path) -> None:
    of = result()
    none = np.ma.masked_all(400)
    assert [name for name, view in VIEWS.items() if view.of(of)] == ["weights", "parts"]
    whole = replace(of, logit_weight=none, jacobian_weight=none)
    assert [name for name, view in VIEWS.items() if view.of(whole)] == ["weights"]
    empty = replace(whole, weight=none)
    assert not any(view.of(empty) for view in VIEWS.values())
    with pytest.raises(InputError, match="nothing to draw"):
        weights(empty)
    with pytest.raises(InputError):
        figure_for(empty)
    for suffix in ("png", "pdf", "svg"):
        save(figure_for(of), tmp_path / f"w.{suffix}", of)
        assert (tmp_path / f"w.{suffix}").stat().st_size > 1000


def test_losses_of_zero_stand_at_the_left_edge_of_a_logarithmic_axis() -> None:
    of = result(marked=False)
    loss = np.array(of.example_loss, dtype=float)
    loss[:3] = 0.0
    ax = weights(replace(of, example_loss=loss))
    assert ax.get_xscale() == "log"
    assert "of loss 0 at the left edge" in ax.get_xlabel()
    points = line(ax, f"examples ({np.ma.count(of.weight)})")
    assert points is not None
    drawn = np.asarray(points.get_xdata())
    assert drawn.min() == loss[loss > 0].min() / 2
    assert of.example_loss[0] != 0
