"""Coarse to fine: few evaluations for smooth surfaces, honest errors for all, non-finite points in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from landscape.slices.coordinates import coordinates
from landscape.slices.refine import filled, first, wanted
from tests.slices.surfaces import HARD, SMOOTH, bowl, cubic, softplus, tanh_net

#: What a picture shows, where standard errors are not known.
VISIBLE = 1e-3


class Run:
    """Evaluates what is wanted until nothing is; keeps each round's true errors and estimates."""

    def __init__(
        self, axes: Sequence[np.ndarray], truth: np.ndarray, errors: np.ndarray | None = None
    ) -> None:
        self.axes, self.truth, self.rounds = axes, truth, 0
        self.known = np.zeros(truth.shape, dtype=bool)
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        given = np.full(truth.shape, np.nan) if errors is None else errors
        while True:
            seen = np.where(self.known, truth, np.nan)
            mask = wanted(axes, seen, np.where(self.known, given, np.nan), self.known)
            assert not (mask & self.known).any()
            if self.rounds:
                self._look(seen)
            if not mask.any():
                return
            self.known |= mask
            self.rounds += 1

    def _look(self, seen: np.ndarray) -> None:
        values, self.estimates = filled(self.axes, seen[..., None], self.known)
        self.found = values[..., 0]
        open_ = ~self.known & np.isfinite(self.estimates) & np.isfinite(self.truth)
        self.history.append((np.abs(self.found[open_] - self.truth[open_]), self.estimates[open_]))

    @property
    def spread(self) -> float:
        return float(np.ptp(self.truth[np.isfinite(self.truth)]))

    @property
    def worst(self) -> float:
        """Largest error in the end, in units of the range."""
        finite = np.isfinite(self.truth)
        return float(np.abs(self.found[finite] - self.truth[finite]).max()) / self.spread

    def covered(self, which: slice = slice(None)) -> list[float]:
        """Share of the errors below their estimates, for each of some rounds."""
        return [float((true <= estimate).mean()) for true, estimate in self.history[which] if len(true)]


def _square(function: Any, n: int = 49, errors: Any = None) -> Run:
    axes = [np.linspace(-1, 1, n)] * 2
    x, y = np.meshgrid(*axes, indexing="ij")
    return Run(axes, function(x, y), None if errors is None else errors(x, y))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_surfaces_to_a_thousandth_with_a_tenth_of_the_evaluations(name: str, seed: int) -> None:
    run = _square(SMOOTH[name](seed))
    assert run.known.sum() < 240
    assert run.worst <= VISIBLE
    assert min(run.covered()) >= 0.95
    assert run.covered()[-1] >= 0.98


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3, 60))
@pytest.mark.parametrize("name", SMOOTH)
def test_many_smooth_surfaces(name: str, seed: int) -> None:
    run = _square(SMOOTH[name](seed))
    assert run.known.sum() < 240
    assert run.worst <= VISIBLE
    assert min(run.covered()) >= 0.85
    assert run.covered()[-1] >= 0.95


@pytest.mark.parametrize("name", HARD)
def test_kinks_valleys_and_cliffs_are_refined_and_the_rest_is_not(name: str) -> None:
    run = _square(HARD[name], 33)
    assert run.worst <= 2 * VISIBLE
    assert min(run.covered()) >= 0.85
    assert run.covered()[-1] >= 0.98
    assert run.known.sum() < 0.85 * run.known.size


@pytest.mark.parametrize("seed", range(3))
def test_polynomials_of_third_degree_need_no_more_than_the_tested_coarse_points(seed: int) -> None:
    run = _square(bowl(seed))
    assert run.known.sum() == 101
    assert run.worst <= 1e-6


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_surface_is_refined_alike(axis: int) -> None:
    """No direction of the grid is preferred: as many points, but for ties, which their order decides."""
    plain = _square(tanh_net(0))
    mirrored = _square(lambda x, y: np.flip(tanh_net(0)(x, y), axis))
    assert abs(int(plain.known.sum()) - int(mirrored.known.sum())) <= 12
    assert mirrored.worst <= VISIBLE


def test_standard_errors_are_what_points_may_be_off_by() -> None:
    """Of cone shape, as those of differences to the centre are: with larger ones, fewer evaluations."""
    counts = []
    for share in (3e-4, 3e-3, 3e-2):
        run = _square(tanh_net(1), errors=lambda x, y, s=share: s * np.hypot(x, y))
        x, y = np.meshgrid(*run.axes, indexing="ij")
        off = np.abs(run.found - run.truth)[~run.known]
        assert (off <= share * np.hypot(x, y)[~run.known]).mean() >= 0.98
        assert (off <= 4 * share * np.hypot(x, y)[~run.known]).all()
        counts.append(int(run.known.sum()))
    assert counts[0] > counts[1] > counts[2]
    assert counts[0] < run.known.size


def test_a_standard_error_of_zero_is_kept_to_float32() -> None:
    run = _square(tanh_net(1), 17, errors=lambda x, y: 0 * x)
    assert run.worst <= 2e-6


def test_noise_above_the_standard_error_is_evaluated_and_below_is_not() -> None:
    noise = np.random.default_rng(0).standard_normal((33, 33))
    surface = bowl(0)
    loud = _square(lambda x, y: surface(x, y) + 1e-2 * noise, 33, errors=lambda x, y: 0 * x + 1e-3)
    assert loud.known.all()
    quiet = _square(lambda x, y: surface(x, y) + 1e-4 * noise, 33, errors=lambda x, y: 0 * x + 1e-2)
    assert quiet.known.sum() == 101


def _holed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(x + y > 1.1, np.nan, np.where(x < -0.9, np.inf, 3 * x * x + y * y))


def test_next_to_non_finite_points_all_is_evaluated() -> None:
    run = _square(_holed)
    assert run.known[~np.isfinite(run.truth)].all()
    np.testing.assert_array_equal(np.isfinite(run.found), np.isfinite(run.truth))
    assert run.worst <= 1e-6
    assert run.known.sum() < 0.5 * run.known.size
    lines = np.flatnonzero(first(run.axes)[:, 0])
    for i, j in np.argwhere(~np.isfinite(run.truth)):
        cells = [
            slice(
                lines[max(np.searchsorted(lines, k) - 1, 0)],
                lines[min(np.searchsorted(lines, k, "right"), len(lines) - 1)] + 1,
            )
            for k in (i, j)
        ]
        assert run.known[tuple(cells)].all()


def test_what_lies_beside_non_finite_points_is_not_made_up() -> None:
    axes = [np.linspace(-1, 1, 49)] * 2
    known = first(axes)
    truth = _holed(*np.meshgrid(*axes, indexing="ij"))
    values, errors = filled(axes, np.where(known, truth, np.nan)[..., None], known)
    assert np.isnan(values[~known & ~np.isfinite(truth)]).all()
    assert np.isinf(errors[~known & ~np.isfinite(truth)]).all()
    np.testing.assert_array_equal(np.isnan(values[..., 0]) & ~known, np.isinf(errors))


def test_nothing_finite_is_evaluated_in_full() -> None:
    assert _square(lambda x, y: np.full_like(x, np.nan), 17).known.all()


def test_huge_losses_are_no_trouble() -> None:
    run = _square(lambda x, y: np.where(x > 0.8, 1e300, 1.0) * (1 + x * x), 25)
    assert np.isfinite(run.found).all()
    assert np.isfinite(run.estimates).all()
    constant = _square(lambda x, y: 0 * x + 1e-300)
    np.testing.assert_allclose(constant.found, 1e-300, rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(2, 2), (2, 49), (3, 60), (5, 5), (4, 30), (10, 10), (49, 12), (25, 25), (101, 77)], ids=str
)
def test_all_shapes(shape: tuple[int, int]) -> None:
    axes = [coordinates(-1, 1.3, shape[0]), coordinates(-0.7, 1, shape[1])]
    run = Run(axes, softplus(0)(*np.meshgrid(*axes, indexing="ij")))
    assert run.worst <= VISIBLE
    assert min(run.covered() or [1.0]) >= 0.95
    if min(shape) >= 25:
        assert run.known.sum() < 0.2 * run.known.size


LINES = {
    "parabola": lambda x: x * x - x,
    "wave": lambda x: np.cos(5 * x) + x,
    "kink": lambda x: np.abs(x - 0.1),
    "softplus": lambda x: np.logaddexp(0, 20 * x),
    "dip": lambda x: 1 - np.exp(-((x / 0.05) ** 2)),
    "half": lambda x: np.where(x > 0.5, np.nan, x**3),
}


@pytest.mark.parametrize("n", [2, 3, 10, 51, 201, 2000])
@pytest.mark.parametrize("name", LINES)
def test_lines(name: str, n: int) -> None:
    axis = coordinates(-1, 1.1, n)
    truth = LINES[name](axis)
    run = Run([axis], truth)
    np.testing.assert_array_equal(np.isfinite(run.found), np.isfinite(truth))
    assert run.worst <= VISIBLE
    if name != "half" and n > 200:
        assert run.known.sum() < 0.45 * n
        assert min(run.covered()) >= 0.9


@pytest.mark.parametrize("count", [9, 17, 48, 49, 301])
def test_coarse_points_hold_the_edges_the_zeros_and_little_else(count: int) -> None:
    axes = [coordinates(-1, 2, count), coordinates(-0.003, 1, count)]
    mask = first(axes)
    for axis in (0, 1):
        lines = mask.any(1 - axis)
        assert lines[0]
        assert lines[-1]
        assert lines[axes[axis] == 0].all()
        assert lines.sum() <= max(10, count // 8 + 2)
    np.testing.assert_array_equal(mask, np.outer(mask.any(1), mask.any(0)))


def test_the_choice_depends_on_known_points_alone_and_changes_nothing() -> None:
    axes = [np.linspace(-1, 1, 31)] * 2
    truth = tanh_net(2)(*np.meshgrid(*axes, indexing="ij"))
    known = first(axes)
    errors = np.full(truth.shape, np.nan)
    before = known.copy()
    masks = [
        wanted(axes, np.where(known, truth, other), np.where(known, errors, other), known)
        for other in (np.nan, 0.0, 1e9)
    ]
    np.testing.assert_array_equal(known, before)
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(wanted(axes, truth, errors, np.zeros_like(known)), known)
    assert not wanted(axes, truth, errors, np.ones_like(known)).any()


def test_channels_are_interpolated_as_the_loss_is() -> None:
    axes = [np.linspace(-1, 1, 33)] * 2
    x, y = np.meshgrid(*axes, indexing="ij")
    loss = cubic(0)(x, y)
    values = np.stack([loss, 2 * loss + 3, (x > 0).astype(float)], axis=-1)
    known = first(axes)
    out, errors = filled(axes, np.where(known[..., None], values, np.nan), known)
    np.testing.assert_array_equal(out[known], values[known])
    np.testing.assert_array_equal(errors == 0, known)
    # Within what is known of it: the corners are.
    inside = (out[..., 1] > values[known][:, 1].min()) & (out[..., 1] < values[known][:, 1].max())
    np.testing.assert_allclose(out[inside, 1], 2 * out[inside, 0] + 3, rtol=1e-9)
    assert inside.mean() > 0.9
    assert out[..., 2].min() == 0
    assert out[..., 2].max() == 1
