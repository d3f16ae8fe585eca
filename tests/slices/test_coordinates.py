"""Ranges as they are written, and the coordinates they stand for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from landscape.errors import ConfigurationError
from landscape.slices.coordinates import LARGEST_COUNT, Range, coordinates, parse_range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1:1:41", Range(-1.0, 1.0, 41)),
        ("-1:1", Range(-1.0, 1.0, None)),
        (" 1e-3:2.5:2 ", Range(1e-3, 2.5, 2)),
        ("-3:-1:5", Range(-3.0, -1.0, 5)),
        ("auto", Range(None, None, None)),
        ("auto:7", Range(None, None, 7)),
    ],
)
def test_what_may_be_written(text: str, expected: Range) -> None:
    assert parse_range(text) == expected
    assert parse_range(text).automatic == text.startswith("auto")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "this is no --range"),
        ("1", "this is no --range"),
        ("0:1:2:3", "this is no --range"),
        ("auto:2:3", "the ends of a --range are numbers"),
        ("a:1:3", "the ends of a --range are numbers"),
        (":1:3", "the ends of a --range are numbers"),
        ("nan:1:3", "finite"),
        ("-inf:1:3", "finite"),
        ("1:1:3", "is empty"),
        ("1:0:3", "is empty"),
        ("1:1.0000000000000002:41", "too narrow"),
        ("-1e308:1e308:41", "too wide"),
        ("0:1:", "whole number"),
        ("0:1:2.5", "whole number"),
        ("auto:", "whole number"),
        ("0:1:1", "2 to 100000 coordinates"),
        ("0:1:0", "2 to 100000 coordinates"),
        ("0:1:-5", "2 to 100000 coordinates"),
        (f"0:1:{LARGEST_COUNT + 1}", "2 to 100000 coordinates"),
    ],
)
def test_what_may_not(text: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(what)) as caught:
        parse_range(text)
    assert repr(text) in caught.value.found


def test_a_range_the_wrong_way_round_is_turned_in_the_advice() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_range("2:-1:9")
    advice = caught.value.do.removeprefix("write ")
    assert parse_range(advice) == Range(-1.0, 2.0, 9)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 40, 41, 49, 50, 101])
@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.0, 1.0), (-0.1, 0.2), (-0.3, 0.6), (-1.0, 2.0), (0.0, 1.0), (-0.7, 0.0), (0.2, 1.0), (-5.0, -1e-3),
     (-1e-20, 2e-20), (-1e9, 3.0), (-0.5, 1.5)],
)  # fmt: skip
def test_evenly_spaced_with_both_ends_and_zero(low: float, high: float, count: int) -> None:
    found = coordinates(low, high, count)
    assert (found[0], found[-1]) == (low, high)
    assert (np.diff(found) > 0).all()
    step = (high - low) / (count - 1)
    exact = np.array([low + step * i for i in range(count)])
    if len(found) == count + 1:  # zero is none of them, and is there as well
        assert low < 0 < high
        assert np.abs(exact).min() > 1e-9 * step
        found = np.delete(found, int(np.flatnonzero(found == 0)[0]))
    elif low <= 0 <= high:
        assert (found == 0).sum() == 1
    assert len(found) == count
    assert np.abs(found - exact).max() <= 1e-12 * max(abs(low), abs(high))


def test_rounding_of_zero_is_zero() -> None:
    """-0.1 + 0.1 in steps of 0.1/3 is not 0 in floating point."""
    assert np.linspace(-0.1, 0.2, 10)[3] != 0
    assert coordinates(-0.1, 0.2, 10)[3] == 0
    assert len(coordinates(-0.1, 0.2, 10)) == 10


def test_other_marks_are_coordinates_too() -> None:
    found = coordinates(-0.5, 1.5, 6, marks=(0.0, 1.0))
    assert np.allclose(found, [-0.5, -0.1, 0.0, 0.3, 0.7, 1.0, 1.1, 1.5], rtol=0, atol=1e-15)
    assert {0.0, 1.0} <= set(found.tolist())
    assert coordinates(-0.5, 1.5, 21, marks=(0.0, 1.0)).tolist().count(1.0) == 1
    assert len(coordinates(-0.5, 1.5, 21, marks=(0.0, 1.0))) == 21
    assert 1.0 not in coordinates(-0.5, 0.75, 6, marks=(0.0, 1.0))


def test_a_range_beside_zero_keeps_its_end() -> None:
    """It begins next to zero, and does not hold it."""
    assert coordinates(1e-12, 1.0, 5)[0] == 1e-12
    assert coordinates(-1.0, -1e-12, 5)[-1] == -1e-12
