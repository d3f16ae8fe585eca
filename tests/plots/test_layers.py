"""The layers of eigenvalue runs are drawn as they were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots import layers
from landscape.plots.bars import MOST, short_names
from landscape.plots.layers import density_layers, spectrum_and_layers
from landscape.plots.style import BLUE, VERMILLION, new_figure
from landscape.results import EigenResult
from landscape.store import ResultFile
from tests.plots.support import (
    assert_all_inside,
    bar_widths,
    ends,
    figure_of,
    legend,
    line,
    long_names,
    notes,
    per_layer,
)
from tests.results.samples import density_result, eigen_result


def test_bars_end_at_the_eigenvalues_and_error_bars_at_the_intervals() -> None:
    """Two bars in the row of each layer, the larger above."""
    ax = layers(per_layer())
    assert bar_widths(ax) == [3.0, -1.0, 0.5, -0.25]
    bars = {(round(place), low, high) for place, low, high in ends(ax, "residual interval")}
    assert bars == {(0, 2.875, 3.125), (0, -1.125, -0.875), (1, 0.375, 0.625), (1, -0.375, -0.125)}
    assert notes(ax) == ["3", "−1", "0.5", "−0.25"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "2"]
    colours = {float(p.get_width()): to_hex(p.get_facecolor()).upper() for p in ax.patches}  # type: ignore[attr-defined]
    assert colours == {3.0: BLUE, 0.5: BLUE, -1.0: VERMILLION, -0.25: VERMILLION}
    assert legend(ax) == ["positive", "negative", "residual interval"]


def test_what_has_not_converged_is_hollow() -> None:
    converged = np.array([[True, True], [False, True]])
    ax = layers(per_layer(layer_converged=converged))
    filled = {float(p.get_width()): p.get_facecolor()[3] > 0 for p in ax.patches}  # type: ignore[attr-defined]
    assert filled == {3.0: True, -1.0: True, 0.5: False, -0.25: True}
    assert "positive, not converged" in legend(ax)


def test_bars_that_are_all_alike_need_no_legend() -> None:
    assert legend(layers(per_layer(((3.0,), (0.5,))))) == ["residual interval"]


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("largest", "Largest eigenvalue of the block (loss / weight²)"),
        ("smallest", "Smallest eigenvalue of the block (loss / weight²)"),
        ("both", "Extreme eigenvalues of the block (loss / weight²)"),
        ("magnitude", "Eigenvalue of largest size of the block (loss / weight²)"),
    ],
)
def test_words(which: str, words: str) -> None:
    ax = layers(per_layer(((3.0,), (0.5,)), which=which, operator="finite-difference"))
    assert ax.get_xlabel() == words
    assert ax.get_title(loc="left").splitlines() == [
        "mlp-sgd.pt · step 1,200 · 2,410 parameters · 1,797 examples",
        "Each layer's own block of the finite-difference Hessian",
    ]


def test_what_is_below_its_own_error_is_said_so() -> None:
    assert notes(layers(per_layer(((3.0,), (1e-9,))))) == ["3", "0 ± 0.12"]


def test_a_layer_of_one_parameter_has_one_eigenvalue() -> None:
    ax = layers(per_layer(((3.0, -1.0), (0.5, np.nan), (np.nan, np.nan))))
    assert bar_widths(ax) == [3.0, -1.0, 0.5]
    assert notes(ax) == ["3", "−1", "0.5", "not known"]
    assert_all_inside(figure_of(ax))


def test_many_layers_the_largest_and_the_largest_of_the_others() -> None:
    count = MOST + 8
    values = np.where(np.arange(count) % 6 == 0, -0.25, 2.0 + np.arange(count))
    values[6] = -0.5
    result = per_layer(values[:, None], layers=long_names(count), which="magnitude")
    ax = layers(result)
    assert bar_widths(ax) == [*(v for v in values if v > 1), -0.5]
    assert ax.get_yticklabels()[-1].get_text() == "… 8 others, the largest"
    assert_all_inside(figure_of(ax))


def test_below_the_spectrum() -> None:
    result = per_layer()
    ax = spectrum_and_layers(result, learning_rate=0.1)
    upper, lower = figure_of(ax).axes
    assert upper is ax
    positive = line(upper, "positive")
    assert positive is not None
    assert np.array_equal(positive.get_xydata(), [[1, 9.5], [3, 0.5]])
    assert line(upper, "2/η = 20") is not None
    assert bar_widths(lower) == [3.0, -1.0, 0.5, -0.25]
    assert lower.get_title(loc="left") == "Each layer's own block of the Hessian"
    assert_all_inside(figure_of(ax))


@pytest.mark.parametrize("nothing", [None, np.array([], dtype=object)])
def test_without_layers_only_the_spectrum(nothing: np.ndarray | None) -> None:
    result = eigen_result(layers=nothing)
    assert len(figure_of(spectrum_and_layers(result)).axes) == 1
    with pytest.raises(InputError, match="no layers") as caught:
        layers(result)
    assert "--per-layer" in str(caught.value)


@pytest.mark.parametrize(
    "result",
    [
        per_layer(np.c_[np.linspace(5, 1, 50), -np.linspace(1, 5, 50)], layers=long_names(50)),
        per_layer(np.full((3, 1), 1e-9), layer_intervals=np.zeros((3, 1, 2))),
        per_layer(((-1e7, -2e7),), layers=np.array(["$" * 90], dtype=object)),
        per_layer(((np.inf,), (1.0,), (-np.inf,)), layer_converged=np.zeros((3, 1), dtype=bool)),
        per_layer(((1.0, -1.0),), layer_intervals=np.full((1, 2, 2), np.nan)),
        per_layer(((0.0, 0.0),)),
    ],
)
def test_everything_drawn_lies_inside(result: EigenResult) -> None:
    assert_all_inside(figure_of(layers(result)))
    assert_all_inside(figure_of(spectrum_and_layers(result)))


def test_short_names_stay_as_they_are_and_long_ones_stay_apart() -> None:
    assert short_names(["a.b", "a.c"]) == ["a.b", "a.c"]
    assert short_names(["$x"]) == [r"\$x"]
    names = [f"model.encoder.block_{i}.{'deep.' * 6}attention" for i in range(3)]
    short = short_names([*names, "… 5 others, together"])
    assert short[0].startswith("…block_0.")
    assert short[-1] == "… 5 others, together"
    assert len(set(short)) == 4
    assert max(map(len, short)) <= 32
    twins = [f"{'a' * 40}{i}{'b' * 40}" for i in range(2)]
    assert short_names(twins) == twins, "no shorter than that they differ"


def test_fresh_and_reloaded_results_give_the_same_picture(tmp_path: Path) -> None:
    result = per_layer()
    ResultFile(tmp_path / "r.h5").add(result)
    back = ResultFile(tmp_path / "r.h5").read("2025")
    assert isinstance(back, EigenResult)
    one, other = layers(result), layers(back)
    assert bar_widths(one) == bar_widths(other)
    assert ends(one, "residual interval") == ends(other, "residual interval")


def test_into_axes_of_the_callers_and_settings_are_left_alone() -> None:
    before = dict(rcParams)
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2)
    assert spectrum_and_layers(per_layer(), right) is right
    assert layers(per_layer(), left) is left
    figure.canvas.draw()
    assert figure.axes[2].get_position().x0 > left.get_position().x1
    free = Figure()
    spectrum_and_layers(per_layer(), free.add_axes((0.2, 0.3, 0.7, 0.6)))
    upper, lower = (a.get_position() for a in free.axes)
    assert lower.y1 < upper.y0
    assert dict(rcParams) == before


def test_a_density_draws_the_trace_of_each_block_with_its_interval() -> None:
    result = density_result()
    ax = density_layers(result)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2"]
    assert sorted(bar_widths(ax)) == pytest.approx([5.0, 7.0])
    assert any("±" in text for text in notes(ax))
    with pytest.raises(InputError, match="no layers"):
        density_layers(density_result(layers=None))


def test_a_density_of_many_layers_shows_the_largest_forty() -> None:
    count = 60
    result = density_result(
        layers=np.array([f"block.{i}" for i in range(count)], dtype=object),
        layer_traces=np.arange(float(count)),
        layer_trace_errors=np.full(count, 0.5),
    )
    assert len(density_layers(result).get_yticklabels()) == 40
