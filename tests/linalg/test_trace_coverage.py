"""The intervals hold as often as they say, of the command as it stops and at fixed budgets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import bdtr

from landscape.linalg.trace import METHODS
from tests.benchmarks.coverage import BLOCKS, LIMIT, Case, synthetic, table
from tests.support.spectra import digits_like, rotated

#: Below this probability a true coverage of 95 % is rejected; several hundred intervals are counted here.
_REJECTED = 1e-5


def rejected(case: Case, method: str, repetitions: int, simulated: int = LIMIT) -> list[str]:
    """Commands whose interval of the trace, or of any block, holds too seldom."""
    return [
        f"{row.command}: {row.cover:.1%}, blocks {row.layers:.1%}"
        for row in table("", case, method, repetitions, simulated)
        for cover in (row.cover, row.layers)
        if bdtr(round(cover * row.repetitions), row.repetitions, row.least) < _REJECTED
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_sample(method: str) -> None:
    values = digits_like(160, 1) + 0.01
    blocks = (slice(0, 20), slice(20, 60), slice(60, 160))
    case = Case(rotated(values, 3), blocks, float(values.sum()))
    assert not rejected(case, method, 60, simulated=100)


@pytest.mark.long
@pytest.mark.parametrize("name", ["flat", "power law", "outliers", "near zero"])
@pytest.mark.parametrize("method", METHODS)
def test_the_grid(method: str, name: str) -> None:
    case = synthetic()[name]
    assert case.blocks == BLOCKS
    assert not rejected(case, method, 400)


def test_a_rejection_is_possible() -> None:
    """An interval that holds 80 % of the time would be found out by the sample."""
    assert bdtr(round(0.6 * 60), 60, 0.95) < _REJECTED
    assert np.isclose(bdtr(57, 60, 0.95), 0.58, atol=0.1)
