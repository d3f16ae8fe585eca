"""Gradient ratios over training: the right points at the right steps, and training runs kept apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots import figure_of_series
from landscape.plots.ratio_classes import COLOURS
from landscape.plots.ratios_training import training, training_by_layer
from landscape.plots.series import training_runs
from landscape.results import CLASSES, RatiosResult
from tests.plots.ratios_support import gradients, over_training, ratios_result
from tests.plots.support import assert_all_inside, figure_of, legend, long_names
from tests.results.samples import provenance

NAMES = list(CLASSES)


def _points(ax: Axes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (t, 2) of a class, and the ends (t, 2) of its error bars."""
    for container in ax.containers:
        if not isinstance(container, ErrorbarContainer) or container.lines[0] is None:
            continue
        points = container.lines[0]
        if points.get_color() == COLOURS[name]:
            segments = container.lines[2][0].get_segments()
            return np.asarray(points.get_xydata()), np.array([s[:, 1] for s in segments if len(s)])
    raise AssertionError(name)


def _named(
    *names: str, step: int | None = None, epoch: int | None = None, **changes: Any
) -> list[RatiosResult]:
    return [
        ratios_result(*gradients(300, seed=i), name=name, step=step, epoch=epoch, **changes)
        for i, name in enumerate(names)
    ]


def test_shares_at_their_steps_with_their_errors() -> None:
    results = over_training(5, 0.004)
    ax = training([results[i] for i in (3, 0, 4, 1, 2)])
    points, bars = _points(ax, "ckpt3")
    shares = [float(r.fractions[NAMES.index("ckpt3")]) for r in results]
    np.testing.assert_allclose(points, np.c_[np.arange(5) * 100.0, shares])
    np.testing.assert_allclose(bars, np.c_[np.array(shares) - 0.004, np.array(shares) + 0.004])
    upper, norms, angles = figure_of(ax).axes
    assert upper is ax
    (drawn,) = (c.lines[0] for c in norms.containers)  # type: ignore[attr-defined]
    np.testing.assert_allclose(drawn.get_ydata(), [r.gradient_norm_ratio for r in results])
    assert angles.get_xlabel() == "Training step"
    assert "± standard error over mini-batches" in legend(angles)
    assert "5 checkpoints" in ax.get_title(loc="left")


def test_of_full_batches_the_bars_are_what_is_uncertain() -> None:
    ax = training(over_training(3, None))
    points, bars = _points(ax, "ckpt1")
    np.testing.assert_allclose(bars[:, 1] - points[:, 1], 0.0003)
    assert "± share whose class rounding may have changed" in legend(figure_of(ax).axes[2])


def test_an_unknown_error_is_no_bar() -> None:
    unknown = over_training(3, None, minibatch=8, uncertain=np.full(10, np.nan))
    _, bars = _points(training(unknown), "ckpt1")
    assert not np.isfinite(bars).any()
    known, _ = _points(training(over_training(3, None)), "ckpt1")
    assert len(known) == 3


@pytest.mark.parametrize(
    ("results", "words", "at"),
    [
        (over_training(3), "Training step", [0, 100, 200]),
        ([r for i in (2, 1, 4) for r in _named(f"a{i}.pt", epoch=i)], "Epoch", [1, 2, 4]),
        (_named("b.pt", "a.pt", "c.pt"), "Checkpoint, in the order given", [1, 2, 3]),
        ([*_named("a3.pt", step=5), *_named("a2.pt")], "Number in the checkpoint's name", [2, 3]),
        ([*_named("a-epoch7.pt"), *_named("a-6.pt", epoch=6)], "Epoch", [6, 7]),
    ],
)
def test_the_time_is_the_step_else_the_epoch_else_the_order(
    results: list[RatiosResult], words: str, at: list[int]
) -> None:
    (run,) = training_runs(results)
    assert run.words == words
    assert run.at.tolist() == at
    if words.startswith("Checkpoint"):
        assert run.results == tuple(results)


def test_training_runs_are_told_apart_by_name() -> None:
    sgd = over_training(3)
    sam = [
        ratios_result(*gradients(seed=9), error=0.01, name=f"mlp-sam-epoch{i:03}.pt", step=100 * i)
        for i in range(2)
    ]
    runs = training_runs([*sam, *sgd])
    assert [(run.name, run.at.tolist()) for run in runs] == [
        ("mlp-sam", [0, 100]),
        ("mlp-sgd", [0, 100, 200]),
    ]
    ax = training([*sam, *sgd])
    figure = figure_of(ax)
    assert len(figure.axes) == 6
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert sorted(filter(None, titles)) == ["mlp-sam: 2 checkpoints", "mlp-sgd: 3 checkpoints"]
    beside = next(a for a in figure.axes if a.get_title(loc="left").startswith("mlp-sgd"))
    assert len(_points(ax, "ckpt1")[0]) == 2
    assert len(_points(beside, "ckpt1")[0]) == 3
    assert ax.get_ylim() == beside.get_ylim()
    assert_all_inside(figure)
    with pytest.raises(InputError, match="figure of their own"):
        training([*sam, *sgd], Figure().add_subplot())
    with pytest.raises(InputError, match="mlp-sam, mlp-sgd"):
        training_by_layer([*sam, *sgd])


def test_names_alone_do_not_break_up_a_run() -> None:
    """best.pt and last.pt are one run, unless they are of the same step."""
    best, last = _named("best.pt", step=3)[0], _named("last.pt", step=9)[0]
    (run,) = training_runs([last, best])
    assert run.results == (best, last)
    assert len(training_runs([best, *_named("last.pt", step=3)])) == 2


def test_two_checkpoints_of_one_run_and_step() -> None:
    with pytest.raises(InputError, match="several checkpoints are of step 7") as caught:
        training(_named("run/a-1.pt", "run/a-2.pt", step=7))
    assert "a-1.pt, a-2.pt" in str(caught.value)


@pytest.mark.parametrize("draw", [training, training_by_layer])
def test_one_result_is_not_a_series(draw: Any) -> None:
    with pytest.raises(InputError, match="two checkpoints or more"):
        draw(over_training(1))


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        ([0, 100, 200, 300], "linear"),
        ([18, 36, 90, 180, 5400], "log"),
        ([0, 36, 90, 180, 5400], "symlog"),
        ([10, 5000], "linear"),
    ],
)
def test_checkpoints_crowded_at_the_beginning_get_a_logarithmic_axis(steps: list[int], scale: str) -> None:
    results = [ratios_result(*gradients(300, seed=s), step=s, name=f"a-{s}.pt") for s in steps]
    ax = training(results)
    assert ax.get_xscale() == scale
    figure = figure_of(ax)
    assert_all_inside(figure)
    low, high = ax.get_xlim()
    assert low < min(steps) < max(steps) < high


def test_a_panel_for_each_layer() -> None:
    results = over_training(4, 0.004)
    ax = training_by_layer(results)
    panels = [a for a in figure_of(ax).axes if a.get_visible()]
    assert [a.get_title(loc="left") for a in panels] == [
        "0\n3,585 parameters", "2\n1,791 parameters", "4\n1,194 parameters"
    ]  # fmt: skip
    points, bars = _points(panels[1], "ckpt2")
    shares = [float(r.layer_fractions[1, NAMES.index("ckpt2")]) for r in results]  # type: ignore[index]
    np.testing.assert_allclose(points[:, 1], shares)
    np.testing.assert_allclose(bars[:, 1] - bars[:, 0], 0.008)
    assert {a.get_ylim() for a in panels} == {ax.get_ylim()}


def test_only_layers_that_all_have_and_of_many_the_largest() -> None:
    results = [
        dataclasses.replace(
            ratios_result(*gradients(20_000, seed=i), layers=40, step=i, name=f"a{i}.pt"),
            layers=long_names(40),
        )
        for i in range(2)
    ]
    figure = figure_of(training_by_layer(results))
    assert sum(a.get_visible() for a in figure.axes) == 32
    title = figure.get_suptitle()
    assert title.endswith("the 32 largest of 40 layers")
    renamed = np.array(["new", *long_names(40)[1:]], dtype=object)
    other = dataclasses.replace(results[1], layers=renamed)
    assert "32 largest of 39 layers" in figure_of(training_by_layer([results[0], other])).get_suptitle()
    with pytest.raises(InputError, match="no layer that all"):
        training_by_layer([results[0], ratios_result(step=9)])


@pytest.mark.parametrize(
    "results",
    [
        over_training(2),
        over_training(12, None),
        over_training(3, status="not_converged"),
        over_training(3, gradient_norm_ratio=np.nan, cosine=np.nan),
        _named("$x$\x1b.pt", "b.pt", "y" * 60 + ".pt"),
    ],
)
def test_everything_drawn_lies_inside(results: list[RatiosResult]) -> None:
    assert_all_inside(figure_of(training(results)))
    training_by_layer(results).get_figure().canvas.draw()  # type: ignore[union-attr]


def test_what_is_not_complete_or_differs_is_said() -> None:
    results = over_training(3)
    results[1] = dataclasses.replace(results[1], status="not_converged", rho=0.5)
    title = training(results).get_title(loc="left")
    assert "1 not complete" in title
    assert "ρ = 0.05" in title
    assert "ρ = 0.5 " in title


def test_into_an_axes_of_the_callers() -> None:
    """All three panels lie where the one was, whether it belongs to a grid or not."""
    figure = Figure(layout="constrained", figsize=(14, 6))
    left, right = figure.subplots(1, 2)
    assert training(over_training(3), right) is right
    figure.canvas.draw()
    assert not left.lines
    assert all(a.get_position().x0 > left.get_position().x1 for a in figure.axes if a is not left)
    free = Figure()
    ax = training(over_training(3), free.add_axes((0.2, 0.3, 0.7, 0.6)))
    boxes = [a.get_position() for a in free.axes]
    assert free.axes[0] is ax
    assert (boxes[2].y0, boxes[0].y1) == (pytest.approx(0.3), pytest.approx(0.9))


def test_by_the_name_of_the_view() -> None:
    results = over_training(3)
    whole, layers = figure_of_series(results), figure_of_series(results, "training", per_layer=True)
    assert len(whole.axes) == 3
    assert "3,585 parameters" in layers.axes[0].get_title(loc="left")


def test_weights_without_a_checkpoint() -> None:
    results = [ratios_result(provenance=provenance("a", checkpoint=None)) for _ in range(2)]
    assert training(results).get_title(loc="left").startswith("weights · 2 checkpoints")
