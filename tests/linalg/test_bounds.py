"""Intervals from residuals: closed forms, and the condition of the refined ones."""

from __future__ import annotations

import numpy as np
import pytest

from landscape.linalg.bounds import intervals, refined_intervals, unclaimed
from landscape.linalg.operator import MatrixOperator
from tests.support.search import find
from tests.support.spectra import rotated


def _pair(angle: float, eigenvalues: tuple[float, float]) -> tuple[float, float]:
    """(θ, residual) of the vector at this angle from the first of two eigenvectors: closed form."""
    c, s = np.cos(angle), np.sin(angle)
    return c * c * eigenvalues[0] + s * s * eigenvalues[1], abs(c * s * (eigenvalues[0] - eigenvalues[1]))


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.1, 0.4])
def test_two_dimensions_in_closed_form(angle: float) -> None:
    """Eigenvalues 3 and 1: the refined interval touches the eigenvalue when the gap is exact."""
    theta, residual = _pair(angle, (3.0, 1.0))
    values, residuals = np.array([theta, 1.0]), np.array([residual, 0.0])
    assert intervals(values, residuals, 0.0)[0] == pytest.approx([theta - residual, theta + residual])
    low, high = refined_intervals(values, residuals, 0.0, np.array([0]))[0]
    assert low == pytest.approx(theta)  # nothing above: λ ≥ θ for the largest
    assert high == pytest.approx(3.0, abs=1e-14)  # θ + ε²/(θ − 1) = 3 exactly


def test_the_floor_widens_both() -> None:
    values, residuals = np.array([3.0, 1.0]), np.array([0.1, 0.1])
    assert intervals(values, residuals, 0.02)[:, 0] == pytest.approx([2.88, 0.88])
    bare = refined_intervals(values, residuals, 0.0, np.array([0]))[0]
    floored = refined_intervals(values, residuals, 0.02, np.array([0]))[0]
    assert floored[0] < bare[0] - 0.019
    assert floored[1] > bare[1] + 0.019


def test_touching_intervals_are_left_out() -> None:
    values, residuals = np.array([3.0, 2.0, 1.9, 0.0]), np.array([0.1, 0.06, 0.06, 0.1])
    refined = refined_intervals(values, residuals, 0.0, np.arange(4))
    assert refined.mask.any(axis=1).tolist() == [False, True, True, False]
    wide = np.array([0.1, 0.06, 2.0, 0.1])  # one poor pair hides all that it may stand for
    assert refined_intervals(values, wide, 0.0, np.arange(4)).mask.any(axis=1).tolist() == [True] * 4


def test_refined_intervals_are_never_wider() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        values = np.sort(draw.standard_normal(8))[::-1]
        residuals = 10 ** draw.uniform(-6, 0, 8)
        refined = refined_intervals(values, residuals, 1e-3, np.arange(8))
        plain = intervals(values, residuals, 1e-3)
        shown = ~refined.mask.any(axis=1)
        assert (refined[shown, 0] >= plain[shown, 0]).all()
        assert (refined[shown, 1] <= plain[shown, 1]).all()


def test_refined_intervals_are_wrong_where_their_condition_is() -> None:
    """A mixture of two close eigenvectors, the second of them missed: hence the label."""
    theta, residual = _pair(0.5, (3.0, 2.9))
    values, residuals, eigenvalues = np.array([theta]), np.array([residual]), np.array([3.0, 2.9])
    low, high = refined_intervals(values, residuals, 0.0, np.array([0]))[0]
    assert not ((low <= eigenvalues) & (eigenvalues <= high)).any()
    low, high = intervals(values, residuals, 0.0)[0]
    assert ((low <= eigenvalues) & (eigenvalues <= high)).any()


def test_unclaimed_pairs() -> None:
    values, residuals = np.array([5.0, 4.0, 3.999, 1.0]), np.full(4, 1e-3)
    known = np.array([5.0, 4.5, 4.0])
    assert unclaimed(values, residuals, known, np.full(3, 1e-3), 0.0).tolist() == [2, 3]
    assert unclaimed(values, residuals, np.zeros(0), np.zeros(0), 0.0).tolist() == [0, 1, 2, 3]
    assert unclaimed(values, residuals, np.array([4.0, 4.0]), np.zeros(2), 0.0).tolist() == [0, 3]


def test_refinement_after_verification_knows_of_pairs_pushed_out() -> None:
    """A missed eigenvalue is found, a wanted pair drops out: it still bounds its neighbour's gap."""
    eigenvalues = np.array([5.0, 4.0, 4.0, 3.9, *np.linspace(0.5, -0.5, 20)])
    operator = MatrixOperator(rotated(eigenvalues, 1))
    alone, checked = find(operator, 3, tol=1e-6), find(operator, 3, tol=1e-6, check=8)
    assert alone.values == pytest.approx([5.0, 4.0, 3.9], rel=1e-5)
    assert checked.values == pytest.approx([5.0, 4.0, 4.0], rel=1e-5)
    others = unclaimed(
        alone.every.values, alone.every.residuals, checked.values, checked.residuals, checked.floor
    )
    assert alone.every.values[others][0] == pytest.approx(3.9, rel=1e-5)
