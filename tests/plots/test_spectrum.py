"""What is drawn is what was measured."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscape.errors import InputError
from landscape.plots import spectrum
from landscape.plots.style import BLUE, GREEN, VERMILLION
from landscape.results import EigenResult
from landscape.store import ResultFile
from tests.results.samples import eigen_result, provenance


def _line(ax: Axes, label: str) -> Line2D | None:
    return next((line for line in ax.get_lines() if line.get_label() == label), None)


def _bars(ax: Axes, label: str) -> dict[float, tuple[float, float]]:
    """Ends of the vertical bars of all error bars with this label, by x."""
    ends = {}
    for container in ax.containers:
        if container.get_label() == label:
            (lines,) = container.lines[2]  # type: ignore[attr-defined]
            assert isinstance(lines, LineCollection)
            for (x, low), (_, high) in (np.asarray(s) for s in lines.get_segments()):
                ends[float(x)] = (float(low), float(high))
    return ends


def _picture(ax: Axes) -> list[Any]:
    """All that is drawn, as plain numbers and texts."""
    lines = [(line.get_label(), np.asarray(line.get_xydata()).tolist()) for line in ax.get_lines()]
    bars = [_bars(ax, label) for label in ("residual interval", "± standard error over the data")]
    texts = [t.get_text() for t in ax.texts] + [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
    return [lines, bars, texts, ax.get_yscale(), ax.get_ylim(), ax.get_xlim(), ax.get_xticks().tolist()]


def test_points_tell_sign_and_convergence_apart() -> None:
    ax = spectrum(eigen_result([9.5, 4.0, 0.5, -0.25], converged=np.array([True, False, True, True])))
    filled, hollow, negative = (_line(ax, n) for n in ("positive", "positive, not converged", "negative"))
    assert filled is not None
    assert hollow is not None
    assert negative is not None
    assert np.array_equal(filled.get_xydata(), [[1, 9.5], [3, 0.5]])
    assert np.array_equal(hollow.get_xydata(), [[2, 4.0]])
    assert np.array_equal(negative.get_xydata(), [[4, -0.25]])
    assert (to_hex(filled.get_color()).upper(), to_hex(negative.get_color()).upper()) == (BLUE, VERMILLION)
    assert filled.get_marker() != negative.get_marker()
    assert (filled.get_markerfacecolor(), hollow.get_markerfacecolor()) == (BLUE, "white")
    assert _line(ax, "negative, not converged") is None


def test_bars_end_at_the_intervals_and_standard_errors() -> None:
    bounds = np.array([[9.0, 11.0], [3.0, 4.0], [0.5, 0.5], [-1.0, 1.0]])
    result = eigen_result([9.5, 4.0, 0.5, -0.25], intervals=bounds)
    ax = spectrum(result)
    ends = _bars(ax, "residual interval")
    assert {x: pytest.approx(e) for x, e in ends.items()} == {
        i + 1.0: tuple(pair) for i, pair in enumerate(bounds)
    }
    errors = _bars(ax, "± standard error over the data")
    assert set(errors) == {1.0, 2.0, 4.0}, "the third was not computed"
    for x, (low, high) in errors.items():
        value, error = result.eigenvalues[int(x) - 1], result.standard_errors[int(x) - 1]
        assert (low, high) == pytest.approx((value - error, value + error))


def test_no_bars_where_nothing_was_computed() -> None:
    ax = spectrum(eigen_result(standard_errors=np.ma.MaskedArray(np.ones(4), mask=True)))
    assert _bars(ax, "± standard error over the data") == {}
    assert "± standard error over the data" not in _legend(ax)


def _legend(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("learning_rate", "residual", "words"),
    [
        (0.1, 1e-3, "stable, largest λ found is below"),
        (0.25, 1e-3, "unstable, largest λ found is above"),
        (0.21, 0.1, "largest λ found is at it, within its error"),
    ],
)
def test_the_stability_line(learning_rate: float, residual: float, words: str) -> None:
    result = eigen_result([9.5, 4.0], lambda_max_residual=residual)
    ax = spectrum(result, learning_rate=learning_rate)
    (line,) = (line for line in ax.get_lines() if str(line.get_label()).startswith("2/η"))
    assert np.ravel(line.get_ydata()).tolist() == [2 / learning_rate] * 2
    assert str(line.get_color()) == GREEN
    text = str(line.get_label()).replace("\n", " ")
    assert text.endswith(f"): {words}")
    assert ax.get_ylim()[1] > 2 / learning_rate
    assert str(line.get_label()) in _legend(ax)


def test_without_a_learning_rate_there_is_no_line_and_a_wrong_one_is_an_error() -> None:
    assert not [label for label in _legend(spectrum(eigen_result())) if "η" in label]
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="learning rate"):
            spectrum(eigen_result(), learning_rate=wrong)


def test_no_verdict_without_an_eigenvalue() -> None:
    failed = eigen_result([], status="failed", lambda_max=math.nan, lambda_max_residual=math.nan)
    assert _legend(spectrum(failed, learning_rate=0.1)) == ["2/η = 20 (η = 0.1)"]
    unknown = eigen_result([1.0], lambda_max=math.nan)
    assert "stable" not in "".join(_legend(spectrum(unknown, learning_rate=0.1)))


@pytest.mark.parametrize(
    ("values", "learning_rate", "scale"),
    [
        ([5.0, 3.0, 1.0, -2.0], None, "linear"),
        ([500.0, 3.0, 1.0, -2.0], None, "symlog"),
        ([5.0, -600.0, -1.0], None, "symlog"),
        ([5.0, 3.0], 1e-4, "symlog"),
        ([5.0, 1e-7], None, "linear"),
        ([0.0, 0.0], None, "linear"),
        ([], None, "linear"),
    ],
)
def test_a_wide_range_gets_a_logarithmic_axis(values: Any, learning_rate: Any, scale: str) -> None:
    """What lies below the noise floor (1e-6) does not count."""
    assert spectrum(eigen_result(values), learning_rate=learning_rate).get_yscale() == scale


@pytest.mark.parametrize(("floor", "shown"), [(0.5, True), (1e-6, False), (math.nan, False)])
def test_the_noise_floor_is_a_band_where_it_can_be_seen(floor: float, shown: bool) -> None:
    ax = spectrum(eigen_result([9.5, 4.0], noise_floor=floor))
    bands = [p for p in ax.patches if str(p.get_label()).startswith("noise floor")]
    assert bool(bands) == shown
    if shown:
        box = bands[0].get_path().get_extents(bands[0].get_patch_transform())
        assert (box.y0, box.y1) == pytest.approx((-floor, floor))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("values", [[3.0], [-1.0, -2.0], np.linspace(5, -5, 200), [0.0], [1.0] * 5])
def test_everything_drawn_lies_inside_and_ticks_differ(values: Any, scale: float) -> None:
    ax = spectrum(eigen_result(np.asarray(values) * scale, noise_floor=0.01 * scale))
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    low, high = ax.get_ylim()
    for lower, upper in _bars(ax, "residual interval").values():
        assert low < lower <= upper < high
    assert low < 0.0 < high
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert len(set(labels)) == len(labels) > 2
    ticks = ax.get_xticks()
    assert ticks.min() == 1
    assert ticks.max() <= len(values)
    width, height = figure.canvas.get_width_height()
    for artist in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, ax.get_legend()):  # type: ignore[attr-defined]
        box = artist.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_values_that_are_not_finite_are_said() -> None:
    ax = spectrum(eigen_result([8.0, math.nan, -1.0]))
    assert [t.get_text() for t in ax.texts] == ["not finite: 1 of 3 values"]
    assert [t.get_text() for t in spectrum(eigen_result([])).texts] == ["no eigenvalues"]


def test_words() -> None:
    ax = spectrum(eigen_result(status="not_converged"))
    assert ax.get_ylabel() == "Hessian eigenvalue λ (loss / weight²)"
    assert ax.get_title(loc="left") == (
        "mlp-sgd.pt · step 1,200 · 2,410 parameters · 1,797 examples · not converged"
    )
    assert ax.get_xlabel() == "Index, largest eigenvalue first"


def test_names_with_codes_are_text() -> None:
    from landscape.results import CheckpointReference

    bad = CheckpointReference(path="x/$\\frac$\x1b[31m.pt", sha256="0" * 64)
    ax = spectrum(eigen_result(provenance=provenance(checkpoint=bad)))
    figure = ax.get_figure()
    assert figure is not None
    figure.canvas.draw()
    title = ax.get_title(loc="left")
    assert "\x1b" not in title
    assert title.count(r"\$") == title.count("$")


def test_fresh_and_reloaded_results_give_the_same_picture(tmp_path: Path) -> None:
    result = eigen_result([250.0, 30.0, 0.5, -3.0])
    ResultFile(tmp_path / "r.h5").add(result)
    back = ResultFile(tmp_path / "r.h5").read(provenance().id)
    assert isinstance(back, EigenResult)
    assert _picture(spectrum(result, learning_rate=0.01)) == _picture(spectrum(back, learning_rate=0.01))


def test_an_axes_that_is_given_is_used_and_settings_are_left_alone() -> None:
    before = dict(rcParams)
    axes = Figure().subplots(1, 2)
    assert spectrum(eigen_result(), axes[1]) is axes[1]
    assert not axes[0].lines
    assert dict(rcParams) == before


def _left_out(ax: Axes) -> list[float]:
    label = "eigenvalues between both ends, left out"
    return [float(np.ravel(one.get_xdata())[0]) for one in ax.get_lines() if one.get_label() == label]


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (4, {1: "1", 2: "2", 3: "n−1", 4: "n"}),
        (8, {1: "1", 2: "2", 3: "3", 4: "4", 5: "n−3", 6: "n−2", 7: "n−1", 8: "n"}),
        (40, {1: "1", 18: "18", 25: "n−15", 35: "n−5", 40: "n"}),
    ],
)
def test_both_ends_have_a_line_between_them_and_indices_of_their_own(
    count: int, ticks: dict[int, str]
) -> None:
    ax = spectrum(eigen_result(np.linspace(5, -5, count), which="both"))
    drawn = {int(x): text.get_text() for x, text in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)}
    assert ticks.items() <= drawn.items()
    assert _left_out(ax) == [count / 2 + 0.5]
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.get_xticklabels()), key=lambda box: box.x0)
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_nothing_is_left_out_of_a_whole_spectrum_or_of_one_end() -> None:
    whole = eigen_result(np.linspace(5, -5, 6), which="both", parameters=6)
    for result in (whole, eigen_result(which="largest"), eigen_result([1.0], which="both")):
        assert not _left_out(spectrum(result))
