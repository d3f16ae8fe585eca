"""Levels of contours hold the data, and are those that show it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from landscape.errors import InputError
from landscape.plots.slice_fields import Field, edges, runs
from landscape.plots.slice_levels import KINDS, Scale, scale, written


def grid(values: np.ndarray, evaluated: np.ndarray | None = None) -> Field:
    everywhere = np.ones(values.shape, dtype=bool)
    return Field("Loss", values, None, everywhere, everywhere if evaluated is None else evaluated)


def levels_of(values: np.ndarray, kind: str | None = None) -> Scale:
    found = scale(grid(values), kind)
    assert found is not None
    return found


_GENERATORS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda g: np.exp(g.normal(size=(9, 7))),
    "huge": lambda g: 10.0 ** g.uniform(-300, 300, size=(9, 7)),
    "wide": lambda g: 10.0 ** g.uniform(-3, 12, size=(9, 7)),
    "narrow": lambda g: 0.69314718 + 1e-9 * g.random((9, 7)),
    "two values": lambda g: g.integers(1, 3, size=(9, 7)).astype(float),
    "one peak": lambda _: np.where(np.arange(63).reshape(9, 7) == 5, 1e6, 1.0),
}


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("name", _GENERATORS)
def test_levels_hold_the_values_in_order(name: str, kind: str | None) -> None:
    values = _GENERATORS[name](np.random.default_rng(3))
    found = levels_of(values, kind)
    assert found.levels[0] <= values.min()
    assert found.levels[-1] >= values.max()
    assert (np.diff(found.levels) > 0).all()
    assert 2 <= len(found.levels) <= 20
    bands = found.bands(values)
    assert ((bands >= 0) & (bands <= len(found.levels) - 1)).all()
    order = np.argsort(values, axis=None)
    assert (np.diff(bands.ravel()[order]) >= 0).all()
    places, labels = found.ticks()
    assert len(places) == len(labels) == len(set(labels))


def test_a_level_lies_between_its_bands() -> None:
    levels = np.array([0.1, 1.0, 5.0, 100.0])
    for kind in ("log", "linear"):
        assert np.allclose(Scale(kind, levels).bands(levels), [0, 1, 2, 3])
    assert np.isclose(Scale("log", levels).bands(np.array([np.sqrt(0.1)]))[0], 0.5)
    assert np.isclose(Scale("linear", levels).bands(np.array([0.55]))[0], 0.5)
    assert np.isnan(Scale("log", levels).bands(np.array([np.nan, np.inf, -np.inf]))).all()


def test_quantiles_share_the_points_out() -> None:
    values = np.random.default_rng(0).exponential(size=(60, 40)) ** 4
    found = levels_of(values, "quantile")
    counts, _ = np.histogram(values, bins=found.levels)
    assert np.allclose(counts, values.size / 12, atol=1)


def test_quantiles_are_those_of_what_was_evaluated() -> None:
    values = np.linspace(0, 1, 121).reshape(11, 11)
    low = values < 0.5
    found = scale(grid(values, evaluated=low), "quantile")
    assert found is not None
    assert np.allclose(found.levels[1:-1], np.quantile(values[low], np.arange(1, 12) / 12))
    assert found.levels[[0, -1]].tolist() == [0.0, 1.0]


def test_the_default_is_what_shows_most() -> None:
    u = np.linspace(-1, 1, 31)
    radius = np.hypot(*np.meshgrid(u, u))
    assert levels_of(10 ** (6 * radius)).kind == "log"
    assert levels_of(1 + radius**2).kind == "linear"
    assert levels_of(-1 + np.exp(9 * radius) - 1).kind == "quantile"
    # A logarithm would leave nearly everything in the last decade.
    assert levels_of(1e-8 + radius**2 + 3).kind == "linear"
    assert levels_of(np.where(radius < 0.05, 1e-9, 1 + 0.3 * radius)).kind == "quantile"


def test_logarithms_of_what_is_not_positive_are_refused() -> None:
    for low in (0.0, -2.0):
        with pytest.raises(InputError, match=r"logarithmic levels are for what is positive"):
            levels_of(np.array([[low, 1.0], [2.0, 3.0]]), "log")
    with pytest.raises(InputError, match="not known"):
        levels_of(np.eye(3), "even")


def test_one_value_and_none() -> None:
    for value in (0.0, -3.0, 0.25):
        found = levels_of(np.full((3, 3), value))
        assert found.kind == "constant"
        assert found.bands(np.full((1,), value)) == pytest.approx(0.5)
        assert len(found.ticks()[0]) == 1
    assert scale(grid(np.full((3, 3), np.nan))) is None
    assert levels_of(np.array([[np.inf, np.nan], [0.5, np.nan]])).kind == "constant"


def test_logarithmic_levels_are_round() -> None:
    assert levels_of(np.array([[0.011, 0.9]]), "log").levels.tolist() == [
        *(0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0),
    ]
    assert levels_of(np.array([[1e-3, 1e9]]), "log").levels.tolist() == [10.0**p for p in range(-3, 10)]


def test_numbers_as_people_write_them() -> None:
    assert [written(v, 3) for v in (1e-7, 2.5e12, -3e-9, 0.0, 12345.0)] == [
        *("10⁻⁷", "2.5×10¹²", "−3×10⁻⁹", "0", "1.23×10⁴"),
    ]


def test_cells_meet_halfway_and_end_with_the_range() -> None:
    assert edges(np.array([-1.0, 0.0, 0.5, 2.0])).tolist() == [-1.0, -0.5, 0.25, 1.25, 2.0]
    chosen = np.random.default_rng(1).random(50) < 0.4
    again = np.zeros(50, dtype=bool)
    for first, last in runs(chosen):
        again[first:last] = True
    assert np.array_equal(again, chosen)
    assert runs(np.zeros(3, dtype=bool)) == []
