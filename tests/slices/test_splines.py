"""Interpolation between scattered points: SciPy's, a naive twin of leaving one out, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from landscape.slices import splines
from landscape.slices.splines import Interpolated, nearest
from tests.slices.surfaces import softplus

_KERNELS = {3: "cubic", 5: "quintic"}


def _fit(known: np.ndarray, power: int) -> splines._Fit:
    centre = known.mean(0)
    radius = float(np.abs(known - centre).max())
    exponents = splines._exponents([30] * known.shape[1])
    return splines._Fit.of(known, centre, radius, power, exponents)


def _scattered(axes: int, count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng([seed, axes]).random((count, axes))
    # On a line, random points lie so close to each other that only rounding would be compared.
    return random if axes > 1 else (np.arange(count)[:, None] + 0.6 * random) / count


def _values(points: np.ndarray) -> np.ndarray:
    return np.sin(3 * points[:, 0]) + np.exp(points[:, -1])


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("power", [3, 5])
def test_an_independent_library(power: int, axes: int) -> None:
    """Weights give SciPy's interpolant of the same kernel and polynomial."""
    known, points = _scattered(axes, 15 * axes, 0), _scattered(axes, 50, 1)
    weights, _ = _fit(known, power).at(points)
    theirs = RBFInterpolator(known, _values(known), kernel=_KERNELS[power], degree=3)(points)
    np.testing.assert_allclose(weights @ _values(known), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("power", [3, 5])
def test_leaving_one_out(power: int, axes: int) -> None:
    """The size is the error of the interpolant through all other points over its power function there."""
    known = _scattered(axes, 16 * axes, 2)
    data = _values(known)
    sizes = _fit(known, power).sizes(data)
    for j in range(len(known)):
        others = np.arange(len(known)) != j
        weights, powers = _fit(known[others], power).at(known[~others])
        error = abs(float((weights @ data[others])[0]) - data[j])
        assert sizes[j] == pytest.approx(error / powers[0], rel=2e-3)


@pytest.mark.parametrize("power", [3, 5])
def test_the_power_function_bounds_the_error_of_kernels(power: int) -> None:
    """Σ aᵢ|x − zᵢ|ᵖ with Σ aᵢ q(zᵢ) = 0 for cubic q: its norm is known and its error bounded."""
    known, points, centres = (_scattered(2, n, s) for n, s in [(40, 3), (200, 4), (16, 5)])
    exponents = splines._exponents([9, 9])
    moments = splines._monomials(centres, exponents)
    a = np.linalg.svd(moments.T)[2][-3:].sum(0)
    sign = (-1) ** ((power + 1) // 2)
    distance = splines._distances
    norm = float(np.sqrt(sign * a @ distance(centres, centres) ** power @ a))
    weights, powers = _fit(known, power).at(points)
    error = weights @ (distance(known, centres) ** power @ a) - distance(points, centres) ** power @ a
    ratio = np.abs(error) / (norm * powers)
    assert ratio.max() <= 1 + 1e-6
    assert ratio.max() > 0.1


def test_polynomials_are_exact_up_to_the_third_degree() -> None:
    known, points = _scattered(2, 40, 6), _scattered(2, 100, 7)
    for power in (3, 5):
        weights, _ = _fit(known, power).at(points)
        for i in range(4):
            for j in range(4 - i):
                found = weights @ (known[:, 0] ** i * known[:, 1] ** j)
                np.testing.assert_allclose(found, points[:, 0] ** i * points[:, 1] ** j, atol=1e-8)


def _grid(n: int) -> np.ndarray:
    axis = np.linspace(0, 1, n)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def test_parts_agree_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolants through the points around a part are as good as one through all."""
    positions = _grid(33)
    values = softplus(0)(2 * positions[..., 0] - 1, 2 * positions[..., 1] - 1)[..., None]
    known = np.zeros((33, 33), dtype=bool)
    known[::2, ::2] = True
    parts = Interpolated.through(positions, values, known, ~known)
    monkeypatch.setattr(splines, "_STENCIL", (10**6, 10**6))
    whole = Interpolated.through(positions, values, known, ~known)
    spread = np.ptp(values)
    assert np.abs(parts.values - whole.values).max() <= 1e-4 * spread
    assert np.abs(parts.values - values[~known]).max() <= 1e-4 * spread
    assert np.median(np.abs(np.log(parts.errors / whole.errors))) <= np.log(2)


def test_every_point_is_in_one_part() -> None:
    known, points = _scattered(2, 3000, 8), _scattered(2, 9000, 9)
    parts = list(splines._parts(known, points))
    assert len(parts) > 10
    for name, count in [("targets", 9000), ("core", 3000)]:
        np.testing.assert_array_equal(
            np.sort(np.concatenate([getattr(p, name) for p in parts])), range(count)
        )
    assert all(np.isin(p.core, p.stencil).all() for p in parts)


@pytest.mark.parametrize("known", ["none", "one", "a row"])
def test_too_little_to_go_by_is_not_guessed(known: str) -> None:
    positions = _grid(8)
    mask = np.zeros((8, 8), dtype=bool)
    if known == "one":
        mask[3, 3] = True
    if known == "a row":
        mask[3] = True
    found = Interpolated.through(positions, np.ones((8, 8, 2)), mask, ~mask)
    assert np.isinf(found.errors).all()
    assert np.isnan(found.values).all()


def test_other_channels_stay_within_what_is_known_and_a_nan_of_theirs_stays_near() -> None:
    positions = _grid(25)
    x, y = positions[..., 0], positions[..., 1]
    step = (x > 0.5).astype(float)
    holed = np.where((x == 0) & (y == 0), np.nan, x + y)
    values = np.stack([x * x, step, holed, np.full_like(x, np.nan)], axis=-1)
    known = np.zeros((25, 25), dtype=bool)
    known[::3, ::3] = True
    found = Interpolated.through(positions, values, known, ~known).values
    assert found[:, 1].min() == 0
    assert found[:, 1].max() == 1
    lost = np.isnan(found[:, 2])
    corner = (x + y)[~known] < 0.15
    assert lost[corner].all()
    assert not lost[(x + y)[~known] > 1].any()
    np.testing.assert_allclose(found[~lost, 2], (x + y)[~known][~lost], atol=0.1)
    np.testing.assert_allclose(
        found[:, 2][(x + y)[~known] > 1], (x + y)[~known][(x + y)[~known] > 1], atol=0.05
    )
    assert np.isnan(found[:, 3]).all()


def test_nearest_is_brute_force() -> None:
    known, points = _scattered(2, 30, 10), _scattered(2, 7, 11)
    distances, at = nearest(known, points)
    every = np.linalg.norm(points[:, None] - known[None], axis=2)
    np.testing.assert_array_equal(at, every.argsort(1)[:, :12])
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :12])
    assert nearest(known[:1], points)[1].shape == (7, 1)
