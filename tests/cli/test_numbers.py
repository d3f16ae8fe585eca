from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape_cli.numbers import (
    at_least,
    at_most,
    duration,
    figure,
    quotient_interval,
    size,
    value_and_error,
    with_error,
)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3456, 0.0021, "12.3456 ± 0.0021"),
        (12.345612, 0.0021, "12.3456 ± 0.0022"),  # rounded up by what cutting the value moved it
        (1.2e-6, 3e-8, "1.200e-06 ± 3.0e-08"),
        (-0.5, 0.25, "-0.50 ± 0.25"),
        (0.0, 0.013, "0.000 ± 0.013"),
        (12345.0, 250.0, "1.234e+04 ± 2.6e+02"),
        (3.0, 0.0, "3 ± 0"),
        (0.004, 0.3, "0.00 ± 0.31"),
        (1e6, 1e-20, "1000000.00000000 ± 0.00000001"),  # float64 has no more digits than these
        (2.0, math.nan, "2 ± ?"),
        (math.nan, 1.0, "nan ± ?"),
        (math.inf, 1.0, "inf ± ?"),
    ],
)
def test_value_and_error(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


@given(
    st.floats(min_value=-1e12, max_value=1e12),
    st.one_of(st.floats(min_value=1e-30, max_value=1e12), st.floats(min_value=1e-3, max_value=10)),
)
def test_the_shown_interval_contains_the_true_one(value: float, error: float) -> None:
    shown, half = value_and_error(value, error)
    # The shortest repr is what is rounded: it differs from the float by up to half of its last place.
    slack = Fraction(math.ulp(value)) + Fraction(math.ulp(error))
    assert abs(Fraction(shown) - Fraction(value)) + Fraction(error) <= Fraction(half) + slack


@given(st.floats(min_value=1e-3, max_value=1e3), st.floats(min_value=1e-5, max_value=1))
def test_no_digit_beyond_two_of_the_error(value: float, error: float) -> None:
    shown, half = value_and_error(value, error)
    assert Fraction(half) <= Fraction(error) * Fraction(6, 5) + Fraction(error) / 10
    digits = half.split("e")[0].replace(".", "").lstrip("0")
    assert len(digits) <= 3
    if "e" not in shown:
        assert len(shown.partition(".")[2]) == len(half.partition(".")[2])


def test_figure() -> None:
    assert figure(0.0123456) == "0.0123"
    assert figure(None) == "not computed"
    assert figure(math.nan) == "nan"


@given(st.floats(min_value=-1e9, max_value=1e9, allow_subnormal=False))
def test_bounds_stay_bounds(value: float) -> None:
    below, above = float(at_least(value)), float(at_most(value))
    assert below <= value <= above
    assert above - below <= 2e-3 * abs(value)


def test_quotient_interval_contains_every_quotient() -> None:
    low, high = quotient_interval((3.9, 4.1), (1.8, 2.2)) or (0, 0)
    assert (low, high) == (3.9 / 2.2, 4.1 / 1.8)
    assert quotient_interval((3.9, 4.1), (-0.1, 2.2)) is None
    assert quotient_interval((-1.0, 1.0), (-2.0, -1.0)) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.42 s"),
        (12.3, "12 s"),
        (59.9, "60 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 05 min"),
        (math.nan, "unknown"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(512, "512 B"), (1.2e9, "1.2 GB"), (3e15, "3e+03 TB")])
def test_size(number: float, text: str) -> None:
    assert size(number) == text
