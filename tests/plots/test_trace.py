"""What is drawn of a trace is what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from landscape.plots import trace
from landscape.plots.bars import MOST
from landscape.plots.style import BLUE, VERMILLION, new_figure
from landscape.results import TraceResult
from landscape.store import ResultFile
from tests.plots.support import (
    LOOKS,
    assert_all_inside,
    bar_widths,
    ends,
    figure_of,
    legend,
    line,
    long_names,
    notes,
    trace_result,
)

FEW = "estimate, too few random vectors for an interval"


def _without_layers(**changes: Any) -> TraceResult:
    return trace_result(
        layers=None, layer_parameters=None, layer_traces=None, layer_intervals=None, **changes
    )


def test_the_estimate_at_each_look_with_its_interval() -> None:
    ax = trace(trace_result())
    points = line(ax, "estimate at a look")
    assert points is not None
    assert np.array_equal(points.get_xydata(), [look[:2] for look in LOOKS])
    assert ends(ax, "95 % interval") == [(x, y - h, y + h) for x, y, h in LOOKS]
    assert ax.get_xscale() == "log"
    assert ax.xaxis.get_transform().base == 2  # type: ignore[attr-defined]
    figure_of(ax).canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["19", "32", "64", "100"]


def test_the_final_interval_is_a_band() -> None:
    ax = trace(_without_layers())
    (band,) = ax.patches
    box = band.get_path().get_extents(band.get_patch_transform())
    assert (box.y0, box.y1) == (32.75, 36.25)
    assert band.get_label() == "final: 34.5 ± 1.8 (95 %)"


def test_words() -> None:
    ax = trace(trace_result(status="not_converged", method="hutch++", operator="gauss-newton"))
    assert ax.get_title(loc="left").endswith("2,410 parameters · 1,797 examples · not converged")
    assert ax.get_xlabel() == "Products with the matrix (method: hutch++)"
    assert ax.get_ylabel() == "Trace of the Gauss–Newton\n(loss / weight²)"
    upper, lower = figure_of(ax).axes
    assert upper is ax
    assert lower.get_xlabel() == "Trace of the block (loss / weight²)"
    assert legend(ax) == ["final: 34.5 ± 1.8 (95 %)", "estimate at a look", "95 % interval"]
    assert legend(lower) == ["95 % interval of each"]


def test_looks_without_an_interval_are_hollow_and_said() -> None:
    looks = ((1, 3.0, np.nan), (2, 2.5, np.nan), (19, 2.0, 0.5))
    ax = trace(_without_layers(looks=looks))
    few, points = line(ax, FEW), line(ax, "estimate at a look")
    assert few is not None
    assert points is not None
    assert np.array_equal(few.get_xydata(), [[1, 3], [2, 2.5]])
    assert few.get_markerfacecolor() == "white"
    assert np.array_equal(points.get_xydata(), [[19, 2]])
    assert ends(ax, "95 % interval") == [(19, 1.5, 2.5)]
    assert FEW in legend(ax)


def test_without_any_interval_there_is_no_band() -> None:
    ax = trace(_without_layers(looks=((1, 3.0, np.nan),)))
    assert not ax.patches
    assert legend(ax) == [FEW]
    assert_all_inside(figure_of(ax))


def test_layers_from_top_to_bottom_with_intervals_and_shares() -> None:
    lower = figure_of(trace(trace_result())).axes[1]
    assert bar_widths(lower) == [24.0, 8.0, 2.5]
    assert [t.get_text() for t in lower.get_yticklabels()] == ["0", "2", "4"]
    assert lower.yaxis_inverted()
    assert ends(lower, "95 % interval of each") == [(0, 23.5, 24.5), (1, 7.75, 8.25), (2, 2.375, 2.625)]
    assert notes(lower) == ["69.6 ± 1.5 %", "23.19 ± 0.73 %", "7.25 ± 0.37 %"]
    assert "share of the whole in %" in lower.get_title(loc="left")


def test_negative_layers_are_told_apart() -> None:
    lower = figure_of(trace(trace_result((30.0, -2.0, 6.5)))).axes[1]
    colours = {float(p.get_width()): to_hex(p.get_facecolor()).upper() for p in lower.patches}  # type: ignore[attr-defined]
    assert colours == {30.0: BLUE, 6.5: BLUE, -2.0: VERMILLION}
    assert legend(lower) == ["positive", "negative", "95 % interval of each"]
    assert notes(lower)[1].startswith("−5.8")


def test_a_layer_without_an_interval_is_hollow_and_said() -> None:
    lower = figure_of(trace(trace_result(half=(0.5, np.nan, 0.125)))).axes[1]
    hollow = next(p for p in lower.patches if p.get_width() == 8.0)  # type: ignore[attr-defined]
    assert hollow.get_facecolor()[3] == 0
    assert [place for place, _, _ in ends(lower, "95 % interval of each")] == [0, 2]
    assert "positive, no interval" in legend(lower)
    assert notes(lower)[1] == "23.19 %"


def test_no_shares_of_a_trace_that_may_be_zero() -> None:
    lower = figure_of(trace(trace_result(looks=((19, 0.5, 1.0),)))).axes[1]
    assert notes(lower) == ["24.00 ± 0.50", "8.00 ± 0.25", "2.50 ± 0.13"]
    assert "share" not in lower.get_title(loc="left")


def test_many_layers_the_largest_and_the_others_together() -> None:
    """The others' interval holds whatever the correlations: its half-width is the sum of theirs."""
    count = MOST + 20
    values = np.where(np.arange(count) % 3 == 0, 0.25, 2.0 + np.arange(count))
    result = trace_result(
        values, np.full(count, 0.5), looks=((19, values.sum(), 4.0),), layers=long_names(count)
    )
    lower = figure_of(trace(result)).axes[1]
    widths = bar_widths(lower)
    assert len(widths) == MOST + 1
    assert widths[:-1] == [v for v in values if v > 1]
    assert widths[-1] == 5.0
    assert lower.get_yticklabels()[-1].get_text() == "… 20 others, together"
    assert ends(lower, "95 % interval of each")[-1] == (MOST, -5.0, 15.0)
    labels = [t.get_text() for t in lower.get_yticklabels()]
    assert labels[0] == "…0.self_attention.key"
    assert len(set(labels)) == len(labels)
    assert_all_inside(figure_of(lower))


@pytest.mark.parametrize(
    "result",
    [
        trace_result(),
        trace_result((30.0, -20.0, 24.5), (3.0, 20.0, np.nan)),
        trace_result(np.full(60, 1e-9), np.full(60, 1e-7), looks=((8, 1e-7, 1e-8), (16, 2e-7, 1e-9))),
        trace_result(
            (1e7, -1e7), (1e5, 1e5), operator="finite-difference", looks=((8, 1.0, np.nan), (9, 5e6, 1e6))
        ),
        trace_result(layers=np.array(["$x", "\x1b[31m" + "y" * 70, "b.c"], dtype=object)),
        trace_result((np.nan, 1.0, np.inf), (np.nan, np.inf, 1.0)),
        trace_result((0.0, 0.0), (0.0, 0.0), looks=((19, 0.0, 0.0),)),
        trace_result(looks=((0, 34.0, 1.0), (19, 34.5, 0.5))),
        trace_result(looks=((8, np.nan, np.nan),)),
        trace_result(looks=[(2.0**i, 30.0, 1.0) for i in [*range(14), 13.1]]),
    ],
)
def test_everything_drawn_lies_inside(result: TraceResult) -> None:
    assert_all_inside(figure_of(trace(result)))


def test_what_is_not_there_is_said() -> None:
    assert [t.get_text() for t in trace(_without_layers(looks=())).texts] == ["no estimate yet"]
    assert [t.get_text() for t in trace(_without_layers(looks=((8, np.nan, np.nan),))).texts] == [
        "not finite"
    ]


def test_labels_of_products_do_not_touch() -> None:
    ax = trace(_without_layers(looks=((64, 3.0, 1.0), (96, 3.0, 1.0), (100, 3.0, 1.0))))
    assert list(ax.get_xticks()) == [64, 100]


def test_fresh_and_reloaded_results_give_the_same_picture(tmp_path: Path) -> None:
    result = trace_result()
    ResultFile(tmp_path / "r.h5").add(result)
    back = ResultFile(tmp_path / "r.h5").read("2025")
    assert isinstance(back, TraceResult)
    for one, other in zip(figure_of(trace(result)).axes, figure_of(trace(back)).axes, strict=True):
        assert notes(one) == notes(other)
        assert legend(one) == legend(other)
        assert ends(one, "95 % interval") == ends(other, "95 % interval")


def test_into_axes_of_the_callers_and_settings_are_left_alone() -> None:
    """Both panels lie where the one was, whether it belongs to a grid or not."""
    before = dict(rcParams)
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2)
    assert trace(trace_result(), right) is right
    figure.canvas.draw()
    assert not left.lines
    assert figure.axes[2].get_position().x0 > left.get_position().x1
    free = Figure()
    ax = trace(trace_result(), free.add_axes((0.2, 0.3, 0.7, 0.6)))
    upper, lower = (a.get_position() for a in free.axes)
    assert free.axes[0] is ax
    assert (lower.y0, upper.y1) == (pytest.approx(0.3), pytest.approx(0.9))
    assert lower.y1 < upper.y0
    assert dict(rcParams) == before
