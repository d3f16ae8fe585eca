"""What is drawn of gradient ratios is what was counted."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots import figure_for
from landscape.plots.ratio_classes import COLOURS, MARKERS, present, said, words
from landscape.plots.ratios import _Scale, histogram, layer_shares, sweep_of_rho
from landscape.results import CLASSES, RatiosResult
from landscape.sam.ratios import bin_edges
from landscape.store import ResultFile
from tests.plots.ratios_support import binned, gradients, ratios_result, swept
from tests.plots.support import assert_all_inside, ends, figure_of, legend, line, long_names

NAMES = list(CLASSES)


def _bars(ax: Axes) -> list[tuple[float, float, float, str]]:
    """(left end, right end, height, colour) of the bars, from left to right."""
    found = []
    for container in ax.containers:
        for bar in getattr(container, "patches", ()):
            left, right = sorted((bar.get_x(), bar.get_x() + bar.get_width()))
            found.append((left, right, bar.get_height(), to_hex(bar.get_facecolor()).upper()))
    return sorted(found)


def _sticks(ax: Axes) -> list[tuple[float, float]]:
    """(place, height) of the sticks."""
    lines = [c.markerline for c in ax.containers if hasattr(c, "markerline")]
    return sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines)


def _share(result: RatiosResult, name: str) -> float:
    return float(result.fractions[NAMES.index(name)])


def test_the_bins_made_up_are_those_of_the_analysis() -> None:
    low, high, _ = binned(*gradients(10))
    np.testing.assert_array_equal(np.stack([low, high]), np.stack(bin_edges()))


@pytest.mark.parametrize("spread", [0.01, 0.4, 3.0])
def test_bars_are_the_shares_of_the_octaves_and_add_up_to_the_classes(spread: float) -> None:
    g, h = gradients(spread=spread)
    result = ratios_result(g, h)
    ax = histogram(result)
    totals = dict.fromkeys(NAMES, 0.0)
    for *_, height, colour in _bars(ax):
        totals[next(name for name in NAMES if colour == COLOURS[name])] += height
    for name in ("ckpt1", "ckpt2", "ckpt3", "ckpt4"):
        assert totals[name] == pytest.approx(_share(result, name), abs=1e-12), name
    with np.errstate(divide="ignore", invalid="ignore"):
        r = h / g
    ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    place = next(float(tick) for tick, text in ticks if text.get_text() == "1")
    height = next(height for left, _, height, _ in _bars(ax) if left == pytest.approx(place))
    assert height == pytest.approx(((r > 1) & (r < 2)).mean())


def test_zones_have_their_colours_and_meet_at_the_identity_lines() -> None:
    ax = histogram(ratios_result(*gradients(spread=2.0)))
    sides = {}
    for name in ("ckpt1", "ckpt2", "ckpt3", "ckpt4"):
        mine = [bar for bar in _bars(ax) if bar[3] == COLOURS[name]]
        sides[name] = mine[0][0], mine[-1][1]
    dashed = [one for one in ax.get_lines() if one.get_linestyle() == "--"]
    lines = sorted(float(np.ravel(one.get_xdata())[0]) for one in dashed)
    assert lines[1] == 0.0
    assert lines[0] == -lines[2]
    low, high = ax.get_xlim()
    assert sides == {
        "ckpt3": (low, lines[0]),
        "ckpt4": (lines[0], 0.0),
        "ckpt2": (0.0, lines[2]),
        "ckpt1": (lines[2], high),
    }
    assert [text.get_text() for text in sorted(ax.texts, key=lambda t: t.get_position()[0])] == [
        "ckpt3", "ckpt4", "ckpt2", "ckpt1"
    ]  # fmt: skip


def test_the_scale() -> None:
    """An octave a unit, the same on both sides; from the last octave to zero, and to infinity, one."""
    scale = _Scale(3, 2)
    r = np.array([0.0, 0.0625, 0.125, 0.25, 1.0, 1.5, 4.0, 8.0, np.inf])
    expected = [0.0, 0.5, 1.0, 2.0, 4.0, 4.0 + np.log2(1.5), 6.0, 7.0, 7.0]
    np.testing.assert_allclose(scale(r), expected)
    np.testing.assert_allclose(scale(-r), -np.array(expected))


def test_what_has_exactly_one_ratio_is_a_stick() -> None:
    g = np.array([1.0, 1.0, 2.0, 1.0, -1.0, 1.0, 1.0, 0.0])
    h = np.array([1.0, 1.0, 2.0, -1.0, 1.0, 0.0, 1.5, 0.0])
    ax = histogram(ratios_result(g, h, layers=1, uncertain=np.zeros(10)))
    (opposite, *_), one = (x for x, _ in _sticks(ax)), 4.0
    assert opposite == -one
    assert _sticks(ax) == [(-one, 0.25), (0.0, 0.125), (one, 0.375)]
    assert [bar[2] for bar in _bars(ax) if bar[2]] == [0.125]
    assert "equal: r = 1   37.5 %" in legend(ax)
    assert "killed: only g' = 0   12.5 %" in legend(ax)
    assert "not drawn: dead (g = g' = 0) 12.5 %" in ax.get_title(loc="left")


def test_all_equal_at_no_perturbation() -> None:
    g, _ = gradients(dead=0.0)
    ax = histogram(ratios_result(g, g, rho=0.0))
    assert [bar[2] for bar in _bars(ax) if bar[2]] == []
    assert [height for _, height in _sticks(ax)] == [1.0]
    assert_all_inside(figure_of(ax))


def test_nothing_has_a_ratio() -> None:
    ax = histogram(ratios_result(np.zeros(100), np.zeros(100), gradient_norm_ratio=np.nan))
    assert "no parameter has a ratio" in [text.get_text() for text in ax.texts]
    assert "dead (g = g' = 0) 100" in ax.get_title(loc="left")
    assert_all_inside(figure_of(ax))


def test_the_tails_are_in_one_bin_each_and_nothing_is_lost() -> None:
    g = np.ones(3000)
    h = np.full(3000, 1.5)
    h[:4] = [2.0**-11, 2.0**11, 2.0**300, -(2.0**-300)]
    bars = _bars(histogram(ratios_result(g, h)))
    assert len(bars) == 2 * (3 + 3 + 2)
    assert sum(bar[2] for bar in bars) == pytest.approx(1.0)
    assert bars[-1][2] == pytest.approx(2 / 3000)


def test_words_and_shares_with_their_errors() -> None:
    full, drawn = ratios_result(), ratios_result(error=0.0123)
    ax = histogram(full)
    assert ax.get_title(loc="left").splitlines()[:2] == [
        "mlp-sgd.pt · step 1,200 · 6,570 parameters · 1,797 examples",
        "SAM perturbation, ρ = 0.05 · full batch",
    ]
    assert ax.get_ylabel() == "Share of the 6,570 parameters (%)"
    share = 100 * _share(full, "ckpt1")
    assert f"ckpt1: r > 1   {share:.3f} ± 0.031 %" in legend(ax)
    box = ax.get_legend()
    assert box is not None
    assert box.get_title().get_text() == "± share whose class rounding may have changed"
    other = histogram(drawn)
    assert other.get_title(loc="left").splitlines()[1].endswith("20 mini-batches of 128 examples")
    assert said(drawn, "ckpt1") == f"{share:.1f} ± 1.3 %"
    box = other.get_legend()
    assert box is not None
    assert box.get_title().get_text() == "± standard error over mini-batches"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"perturb": "adaptive", "eta": 0.01},
            "adaptive (ASAM) perturbation, ρ = 0.05, η = 0.01 · full batch",
        ),
        ({"relative": True, "p": np.inf}, "SAM perturbation, ρ = 0.05 ‖g‖, p = ∞ · full batch"),
        (
            {"perturb": "friendly", "sigma": 0.9, "minibatch": 8, "batches": 1},
            "friendly perturbation, ρ = 0.05, σ = 0.9 · 1 mini-batch of 8 examples",
        ),
    ],
)
def test_the_perturbation_in_words(changes: dict[str, Any], text: str) -> None:
    assert words(ratios_result(**changes)) == text


def test_a_run_without_any_pair_has_no_picture() -> None:
    nothing = ratios_result(batches=0, status="not_converged", layers=1)
    with pytest.raises(InputError, match="no histogram"):
        figure_for(nothing, "histogram")


def test_colours_and_markers_tell_classes_apart_in_grey_too() -> None:
    assert list(COLOURS) == list(MARKERS) == NAMES
    assert len(set(COLOURS.values())) == len(set(MARKERS.values())) == len(NAMES)
    order = ["ckpt3", "ckpt4", "ckpt2", "ckpt1"]
    grey = [np.array(to_rgb(COLOURS[name])) @ [0.299, 0.587, 0.114] for name in order]
    for one, other in itertools.pairwise(grey):
        if (one, other) != (grey[1], grey[2]):  # those are apart by the line at zero
            assert abs(one - other) > 0.15


def test_small_classes_are_drawn_once_they_are_more_than_half_a_percent() -> None:
    values = np.zeros((3, len(NAMES)))
    values[1, NAMES.index("born")] = 0.006
    values[2, NAMES.index("dead")] = 0.004
    assert present(values) == ["ckpt1", "ckpt2", "ckpt3", "ckpt4", "born"]


def _parts(ax: Axes, row: int) -> list[tuple[float, str]]:
    """(width, colour) of the parts of a bar from left to right."""
    bars = [p for p in ax.patches if round(p.get_y() + p.get_height() / 2) == row]  # type: ignore[attr-defined]
    return [(p.get_width(), to_hex(p.get_facecolor()).upper()) for p in sorted(bars, key=lambda p: p.get_x())]  # type: ignore[attr-defined]


def test_layers_are_stacked_by_ratio_and_add_up() -> None:
    result = ratios_result(error=0.02)
    ax = layer_shares(result)
    assert result.layer_fractions is not None
    for row in range(3):
        parts = _parts(ax, row)
        assert sum(width for width, _ in parts) == pytest.approx(1.0)
        drawn = [width for width, colour in parts if colour == COLOURS["ckpt1"]]
        assert drawn == [pytest.approx(result.layer_fractions[row, 0])]
        assert [c for w, c in parts if w and c != COLOURS["killed"]] == [
            COLOURS[name] for name in ("ckpt3", "ckpt4", "ckpt2", "ckpt1", "dead")
        ]
    first = ends(ax, "± standard error of the part to the left")[0]
    edge = result.layer_fractions[0, NAMES.index("ckpt3")]
    assert first == pytest.approx((0, edge - 0.02, edge + 0.02))
    assert not ends(layer_shares(ratios_result()), "± standard error of the part to the left")


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 3), (60, 60), (90, 61)])
def test_many_layers_the_largest_and_the_others_together(count: int, rows: int) -> None:
    result = dataclasses.replace(ratios_result(*gradients(100_000), layers=count), layers=long_names(count))
    ax = layer_shares(result)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len(labels) == rows == len(set(labels))
    numbers = [int(text.get_text().replace(",", "")) for text in ax.texts]
    assert sum(numbers) == 100_000
    if count > 60:
        assert labels[-1] == "… 30 others, together"
        counts = result.layer_fractions * result.layer_parameters[:, None]  # type: ignore[index]
        wanted = counts[60:].sum(axis=0) / numbers[-1]
        assert _parts(ax, 60)[0][0] == pytest.approx(wanted[NAMES.index("ckpt3")])
    assert_all_inside(figure_of(ax))


def test_no_layers() -> None:
    with pytest.raises(InputError, match="no layers"):
        layer_shares(ratios_result(layers=1, **dict.fromkeys(("layer_fractions", "layer_fraction_errors"))))
    with pytest.raises(InputError, match="no sweep"):
        sweep_of_rho(ratios_result())


def test_the_sweep_over_rho() -> None:
    result = swept(0.02)
    ax = sweep_of_rho(result)
    assert result.rho_sweep is not None
    assert result.sweep_fractions is not None
    points = line(ax, "ckpt3: r < −1")
    assert points is not None
    drawn = np.c_[result.rho_sweep, result.sweep_fractions[:, NAMES.index("ckpt3")]]
    np.testing.assert_allclose(np.asarray(points.get_xydata(), dtype=float), drawn)
    assert ax.get_xscale() == "log"
    band = next(c for c in ax.collections if to_hex(c.get_facecolor()[0]).upper() == COLOURS["ckpt3"])
    corners = np.asarray(band.get_paths()[0].vertices)
    at_last = corners[np.isclose(corners[:, 0], 1.0), 1]
    assert (at_last.min(), at_last.max()) == pytest.approx((drawn[-1, 1] - 0.02, drawn[-1, 1] + 0.02))
    assert "± standard error over mini-batches" in legend(ax)
    assert not sweep_of_rho(swept()).collections
    assert_all_inside(figure_of(ax))


@pytest.mark.parametrize(
    ("changes", "place", "label"),
    [
        ({}, 0.05, "ρ = 0.05, of this run"),
        ({"relative": True, "gradient_norm": 4.0}, 0.2, "ρ = 0.05 ‖g‖, of this run"),
        ({"relative": True, "minibatch": 8, "length": 0.1}, 0.1, "ρ = 0.05 ‖g‖, of this run"),
        ({"relative": True, "minibatch": 8, "p": 4.0}, None, ""),
        ({"relative": True, "gradient_norm": 0.0}, None, ""),
    ],
)
def test_the_length_of_the_run_is_a_line(changes: dict[str, Any], place: float | None, label: str) -> None:
    found = line(sweep_of_rho(swept(**changes)), "ρ = ")
    if place is None:
        assert found is None
    else:
        assert found is not None
        assert np.ravel(found.get_xdata()).tolist() == [place, place]
        assert found.get_label() == label


def test_lengths_of_zero_are_said() -> None:
    some = sweep_of_rho(swept(rho_sweep=np.array([0.0, 1e-2, 0.05, 0.2, 1.0])))
    assert "not drawn: lengths of zero" in some.get_title(loc="left")
    points = line(some, "ckpt1")
    assert points is not None
    assert len(np.ravel(points.get_xdata())) == 4
    none = sweep_of_rho(swept(rho=0.0, rho_sweep=np.zeros(5)))
    assert_all_inside(figure_of(none))


@pytest.mark.parametrize("view", ["histogram", "layers", "sweep"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"perturb": "x" * 30, "status": "not_converged"},
        {"fraction_errors": np.ma.masked_all(10), "uncertain": np.zeros(10)},  # type: ignore[no-untyped-call]
        {"minibatch": 128, "batches": 1},
    ],
)
def test_everything_drawn_lies_inside(view: str, changes: dict[str, Any]) -> None:
    assert_all_inside(figure_for(swept(**changes), view))


def test_strange_gradients_are_drawn() -> None:
    g, h = gradients()
    h[5:9], g[20:300] = np.nan, 0.0
    h[400:800] = -g[400:800]
    figure = figure_for(ratios_result(g, h, perturb="adaptive", eta=0.01, p=np.inf))
    title = figure.axes[0].get_title(loc="left")
    assert all(f"{name} (" in title.replace("\n", " ") for name in ("dead", "born", "nonfinite"))
    assert_all_inside(figure)


def test_fresh_and_reloaded_results_give_the_same_picture(tmp_path: Path) -> None:
    result = swept(0.01)
    ResultFile(tmp_path / "r.h5").add(result)
    back = ResultFile(tmp_path / "r.h5").read("ratios")
    assert isinstance(back, RatiosResult)
    one, other = histogram(result), histogram(back)
    assert _bars(one) == _bars(other)
    assert legend(one) == legend(other)
    assert _parts(layer_shares(result), 1) == _parts(layer_shares(back), 1)


def test_an_axes_that_is_given_is_used_and_settings_are_left_alone() -> None:
    before = dict(rcParams)
    axes = Figure().subplots(1, 3)
    for draw, ax in zip((histogram, layer_shares, sweep_of_rho), axes, strict=True):
        assert draw(swept(), ax) is ax
    assert dict(rcParams) == before
