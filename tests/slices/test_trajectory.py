"""Principal directions and projections of trajectories: planted ones, closed forms, NumPy's dense SVD."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.errors import CheckpointError, InputError
from landscape.slices import trajectory
from landscape.slices.trajectory import gram, principal, project

ALL = 1 << 40
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few columns, with a ragged last one, also of short vectors."""
    monkeypatch.setitem(trajectory._CHUNK, "cpu", 53)


class Run:
    """A trajectory in memory that counts how often each checkpoint is read."""

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.reads = weights, [0] * len(weights)

    def __call__(self, i: int) -> Tensor:
        self.reads[i] += 1
        return self.weights[i]


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 23])


def orthonormal(k: int, n: int, seed: int) -> np.ndarray:
    """k random orthonormal rows of length n."""
    basis: np.ndarray = np.linalg.qr(draw(seed).standard_normal((n, k)))[0].T
    return basis


def planted(m: int, n: int, sigma: list[float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences (m, n) with these singular values, their left (m, k) and right (k, n) singular vectors."""
    left, right = orthonormal(len(sigma), m, seed + 1).T, orthonormal(len(sigma), n, seed + 2)
    return (left * sigma) @ right, left, right


def walk(m: int, n: int, seed: int) -> np.ndarray:
    """Differences from the end of a random walk of ``m`` steps, which is left out."""
    steps = draw(seed).standard_normal((m, n))
    return -np.cumsum(steps[::-1], axis=0)[::-1]


def readings(m: int, capacity: int) -> int:
    """The documented count."""
    passing = max(1, capacity // 8)
    panel = capacity - passing
    count, j = m, 1
    while m - (j - 1) * panel > capacity:
        count, j = count + m - j * panel - passing, j + 1
    return count


# The Gram matrix.


@pytest.mark.parametrize("n", [1, 7, 53, 300])
@pytest.mark.parametrize("m", [1, 2, 3, 10, 25])
@pytest.mark.parametrize("capacity", [0, 2, 3, 5, 9, 17, 25, 1000])
@DTYPES
def test_gram_is_the_dense_one_whatever_fits_into_memory(
    n: int, m: int, capacity: int, dtype: torch.dtype
) -> None:
    centre = torch.from_numpy(draw(0).standard_normal(n)).to(dtype)
    run = Run(torch.from_numpy(draw(1).standard_normal((m, n))).to(dtype))
    found = gram(run, m, centre, capacity * n * centre.element_size())
    differences = (run.weights.double() - centre.double()).numpy()
    scale = np.linalg.norm(differences) ** 2
    np.testing.assert_allclose(found, differences @ differences.T, rtol=0, atol=2e-15 * scale)
    assert np.array_equal(found, found.T)
    assert sum(run.reads) == readings(m, max(2, capacity))
    assert min(run.reads) == 1


@pytest.mark.parametrize(("m", "capacity"), [(20, 2), (20, 3), (100, 7), (100, 16), (200, 64)])
def test_readings_are_near_the_least_possible(m: int, capacity: int) -> None:
    """A reading beside B − 1 others in memory makes at most B − 1 new pairs, and the first B make fewer.

    Up to B = 15 one passes at a time, and only the panels' own pairs are behind that bound.
    """
    run = Run(torch.from_numpy(draw(2).standard_normal((m, 3))))
    gram(run, m, torch.zeros(3, dtype=torch.float64), capacity * 3 * 8)
    rest = m * (m - 1) / 2 - capacity * (capacity - 1) / 2
    assert sum(run.reads) <= (1.15 if capacity < 16 else 1.3) * (capacity + rest / (capacity - 1)) + 1


def test_as_many_checkpoints_are_alive_as_memory_holds() -> None:
    alive: set[int] = set()
    most = 0

    def load(i: int) -> Tensor:
        nonlocal most
        assert i not in alive
        weights = torch.full((10,), float(i), dtype=torch.float64)
        weakref.finalize(weights.untyped_storage(), alive.discard, i)
        alive.add(i)
        most = max(most, len(alive))
        return weights

    gram(load, 30, torch.zeros(10).double(), 6 * 80 + 79)
    assert most == 6


def test_pieces_not_vectors_are_float64() -> None:
    """Of float32 checkpoints nothing of their length is made in float64, for Gram and for projections."""

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
                    self.numel = max(self.numel, tensor.numel())
            return result

    run = Run(torch.from_numpy(draw(3).standard_normal((4, 2000))).float())
    directions = torch.from_numpy(orthonormal(2, 2000, 4)).float()
    with Largest() as seen:
        gram(run, 4, run.weights[-1], ALL)
        project(run, 4, run.weights[-1], directions)
    assert 16 < seen.numel <= 53


# Principal directions.


@pytest.mark.parametrize("capacity", [2, 5, 1000])
@pytest.mark.parametrize(("m", "n"), [(12, 200), (30, 9), (9, 9)])
def test_planted_directions_are_found(m: int, n: int, capacity: int) -> None:
    """Singular values, shares and directions as they were made; the rest of the space is empty."""
    sigma = [4.0, 2.0, 1.0, 1e-3]
    differences, left, right = planted(m, n, sigma, 5)
    centre = draw(6).standard_normal(n)
    run = Run(torch.from_numpy(centre + differences))
    found = principal(run, m, torch.from_numpy(centre), [1, 2, 3, 4], capacity * n * 8)
    assert found.rank == 4
    np.testing.assert_allclose(found.singular_values[:3], sigma[:3], rtol=1e-12)
    assert found.singular_values[3] == pytest.approx(1e-3, rel=1e-8)
    np.testing.assert_allclose(found.shares, np.square(sigma) / np.sum(np.square(sigma)), rtol=1e-8)
    cosines = found.directions.numpy() @ right.T
    np.testing.assert_allclose(np.abs(cosines), np.eye(4), atol=1e-9)
    rows = found.directions
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-14)
    # The farthest checkpoint along each lies on the positive side.
    along = left * np.diag(cosines)
    assert (along[np.abs(along).argmax(0), range(4)] > 0).all()


@DTYPES
@pytest.mark.parametrize("capacity", [2, 1000])
def test_a_random_walk_against_the_dense_svd(capacity: int, dtype: torch.dtype) -> None:
    centre = draw(7).standard_normal(400)
    run = Run(torch.from_numpy(centre + 0.01 * walk(40, 400, 8)).to(dtype))
    weights = torch.from_numpy(centre).to(dtype)
    found = principal(run, 40, weights, [1, 2], capacity * 400 * weights.element_size())
    _, sigma, right = np.linalg.svd((run.weights.double() - weights.double()).numpy(), full_matrices=False)
    np.testing.assert_allclose(found.singular_values, sigma, rtol=1e-10)
    unit = torch.finfo(dtype).eps
    assert found.directions.dtype == dtype
    np.testing.assert_allclose(
        np.abs(found.directions.double().numpy() @ right[:2].T), np.eye(2), atol=max(1e-11, unit)
    )
    np.testing.assert_allclose(found.shares, sigma[:2] ** 2 / np.sum(sigma**2), rtol=1e-10)
    rows = found.directions.double()
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=unit)


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_equal_orthogonal_steps_have_their_closed_form(m: int) -> None:
    """D Dᵀ is min(i, j), counted from the end, with the eigenvalues 1/(4 sin²((2j−1)π/(4m+2)))."""
    steps = orthonormal(m, 60, 9)
    centre = draw(10).standard_normal(60)
    run = Run(torch.from_numpy(centre - np.cumsum(steps[::-1], axis=0)[::-1]))
    found = principal(run, m, torch.from_numpy(centre), [1], 3 * 60 * 8)
    j = np.arange(1, m + 1)
    squares = 1 / (4 * np.sin((2 * j - 1) * np.pi / (4 * m + 2)) ** 2)
    np.testing.assert_allclose(found.singular_values**2, squares, rtol=1e-11)
    assert found.shares[0] == pytest.approx(squares[0] / (m * (m + 1) / 2), rel=1e-12)
    if m == 40:
        assert found.shares[0] == pytest.approx(8 / np.pi**2, rel=0.03)


def test_the_plane_goes_through_the_centre_and_not_the_mean() -> None:
    """Checkpoints on a line that passes the centre by: about the mean they had rank one."""
    offset, line = 2 * orthonormal(2, 50, 11)
    centre = draw(12).standard_normal(50)
    t = np.linspace(-1, 1, 5)
    run = Run(torch.from_numpy(centre + offset + t[:, None] * line))
    found = principal(run, 5, torch.from_numpy(centre), [1, 2], ALL)
    assert found.rank == 2
    # Σ‖offset‖² = 5·4 and Σ t²‖line‖² = 2.5·4.
    np.testing.assert_allclose(found.shares, [2 / 3, 1 / 3], rtol=1e-12)
    np.testing.assert_allclose(np.abs(found.directions.numpy() @ offset / 2), [1, 0], atol=1e-13)


def test_numbers_come_in_the_order_asked_for() -> None:
    differences, *_ = planted(10, 80, [3.0, 2.0, 1.0], 13)
    run, centre = Run(torch.from_numpy(differences)), torch.zeros(80).double()
    every = principal(run, 10, centre, [1, 2, 3], ALL)
    some = principal(run, 10, centre, [3, 1], ALL)
    np.testing.assert_allclose(some.directions, every.directions[[2, 0]], atol=1e-14)
    np.testing.assert_array_equal(some.shares, every.shares[[2, 0]])


def test_the_sign_does_not_hang_on_rounding() -> None:
    """Of two checkpoints equally far on either side the first is positive, whatever their last digits."""
    line = orthonormal(1, 70, 14)[0]
    for first in (1.0, -1.0):
        for nudge in (1 - 1e-9, 1 + 1e-9):
            run = Run(torch.from_numpy(np.stack([0.5 * line, first * nudge * line, -first * line])))
            found = principal(run, 3, torch.zeros(70).double(), [1], ALL)
            assert float(found.directions[0] @ torch.from_numpy(line)) == pytest.approx(first)


def test_duplicates_count_as_often_as_they_occur_and_add_no_rank() -> None:
    first, second = orthonormal(2, 40, 15)
    run = Run(torch.from_numpy(np.stack([2 * first, 2 * first, 2 * first, second, second])))
    found = principal(run, 5, torch.zeros(40).double(), [1, 2], 2 * 40 * 8)
    assert found.rank == 2
    np.testing.assert_allclose(found.singular_values, [12**0.5, 2**0.5, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(found.shares, [12 / 14, 2 / 14], rtol=1e-13)


@pytest.mark.parametrize("capacity", [2, 4, 100])
def test_readings_of_principal_directions(capacity: int) -> None:
    """One more of each that is not in memory when the Gram matrix is done."""
    run = Run(torch.from_numpy(walk(20, 30, 16)))
    gram(run, 20, torch.zeros(30).double(), capacity * 240)
    before = sum(run.reads)
    again = Run(run.weights)
    principal(again, 20, torch.zeros(30).double(), [1, 2], capacity * 240)
    left = {2: 2, 4: 2, 100: 20}[capacity]  # 20 = 18·1 + 2 = 6·3 + 2
    assert sum(again.reads) == before + 20 - left


# Rank, to the rounding of the weights.


def line_in(dtype: torch.dtype, steps: float, seed: int) -> tuple[Run, Tensor]:
    """Ten checkpoints on a straight line, ``steps`` of ‖w‖ apart, rounded to ``dtype`` as in a file."""
    centre, line = draw(seed).standard_normal(3000), orthonormal(1, 3000, seed + 1)[0]
    t = np.arange(10, 0, -1)[:, None] * steps * np.linalg.norm(centre)
    return Run(torch.from_numpy(centre + t * line).to(dtype)), torch.from_numpy(centre).to(dtype)


@pytest.mark.parametrize("steps", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("saved", [torch.float64, torch.float32])
@pytest.mark.parametrize("loaded", [torch.float64, torch.float32])
def test_a_straight_line_has_rank_one(steps: float, saved: torch.dtype, loaded: torch.dtype) -> None:
    """Whatever rounding made of it when it was saved, and though it is measured in float64."""
    run, centre = line_in(saved, steps, 17)
    run.weights, centre = run.weights.to(loaded), centre.to(loaded)
    found = principal(run, 10, centre, [1], ALL)
    assert found.rank == 1
    assert found.singular_values[1] <= found.rounding < found.singular_values[0]
    line = torch.from_numpy(orthonormal(1, 3000, 18)[0])
    # What is left of the line's direction: rounding of about 1e-8 of the weights against steps of theirs.
    assert abs(float(found.directions[0].double() @ line)) == pytest.approx(
        1, abs=max(1e-7, (3e-8 / steps) ** 2)
    )
    with pytest.raises(InputError, match=r"too few directions(.|\n)*1 of 2(.|\n)*pca:1 at most"):
        principal(run, 10, centre, [1, 2], ALL)


@pytest.mark.parametrize("m", [2, 9, 40])
@pytest.mark.parametrize("rounded", ["checkpoints", "centre"])
def test_the_rounding_of_weights_is_bounded_and_not_far_above(rounded: str, m: int) -> None:
    """Differences of just below half a unit, all the same way, are lost or made by saving in float32."""
    n, unit = 400, torch.finfo(torch.float32).eps
    centre, other = (torch.full((n,), 1.5 + shift * unit, dtype=torch.float64) for shift in (0, 0.499))
    exact = other.repeat(m, 1)
    exact[0] = centre + 0.25 * (-1.0) ** torch.arange(n)
    saved = exact.float()
    if rounded == "centre":
        centre, exact[1:] = other, other
        saved = exact.clone()
    found = principal(Run(saved), m, centre.float(), [1], ALL)
    true = np.linalg.svd((exact - centre).numpy(), compute_uv=False)
    off = np.abs(found.singular_values - true).max()
    assert off == pytest.approx(0.499 * unit * ((m - 1) * n) ** 0.5, rel=1e-3)
    assert 0.2 * found.rounding < off <= found.rounding


def test_a_second_direction_just_above_rounding_is_found() -> None:
    """Steps of 1e-6 of ‖w‖ in float32 along two directions: about ten units of rounding, and enough."""
    centre = draw(21).standard_normal(20000)
    plane = orthonormal(2, 20000, 22) * np.linalg.norm(centre) * 1e-6
    turns = np.stack([np.cos(np.arange(12)), np.sin(np.arange(12))], axis=1) * 5
    run = Run(torch.from_numpy(centre + turns @ plane).float())
    found = principal(run, 12, torch.from_numpy(centre).float(), [1, 2], ALL)
    assert found.rank == 2
    inside = np.linalg.svd(found.directions.double().numpy() @ orthonormal(2, 20000, 22).T, compute_uv=False)
    np.testing.assert_allclose(inside, [1, 1], atol=1e-3)


@pytest.mark.parametrize(("sigma", "rank"), [(1e-3, 2), (1e-6, 2), (1e-10, 1)])
def test_rank_in_float64_is_that_of_the_sums(sigma: float, rank: int) -> None:
    differences, _, right = planted(8, 500, [1.0, sigma], 23)
    run, centre = Run(torch.from_numpy(differences)), torch.zeros(500).double()
    found = principal(run, 8, centre, [1], ALL)
    assert found.rank == rank
    if rank == 2:
        second = principal(run, 8, centre, [1, 2], ALL).directions[1]
        assert abs(float(second @ torch.from_numpy(right[1]))) == pytest.approx(1, abs=1e-3)


def test_checkpoints_that_equal_the_centre() -> None:
    weights = torch.from_numpy(draw(24).standard_normal(20)).float()
    with pytest.raises(InputError, match="equal the one at the centre"):
        principal(Run(weights.expand(4, 20)), 4, weights, [1], ALL)
    nudged = weights.clone()
    nudged[3] = torch.nextafter(nudged[3], torch.tensor(9.0))
    with pytest.raises(InputError, match="rounding only"):
        principal(Run(torch.stack([weights, nudged])), 2, weights, [1], ALL)
    moved = Run(torch.stack([weights, weights + 1, weights]))
    assert principal(moved, 3, weights, [1], ALL).rank == 1


@pytest.mark.parametrize("numbers", [[], [0], [1, 1], [-1, 2]])
def test_numbers_that_are_none(numbers: list[int]) -> None:
    run = Run(torch.from_numpy(walk(4, 9, 25)))
    with pytest.raises(InputError, match="numbered from 1"):
        principal(run, 4, torch.zeros(9).double(), numbers, ALL)
    assert sum(run.reads) == 0


MEASURES: dict[str, Callable[..., object]] = {
    "gram": lambda run, m, centre, **name: gram(run, m, centre, 0, **name),
    "principal": lambda run, m, centre, **name: principal(run, m, centre, [1], 0, **name),
    "project": lambda run, m, centre, **name: project(run, m, centre, torch.eye(9)[:2], **name),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(measure: Callable[..., object], bad: float) -> None:
    run, centre = Run(torch.from_numpy(walk(6, 9, 26))), torch.zeros(9).double()
    run.weights[4, 2:4] = bad
    with pytest.raises(CheckpointError, match=r"checkpoint 5 has weights that are not finite\nfound: 2 of 9"):
        measure(run, 6, centre)
    with pytest.raises(CheckpointError, match=r"e\.pt has"):
        measure(run, 6, centre, name=lambda i: "abcdef"[i] + ".pt")
    centre[0] = bad
    with pytest.raises(CheckpointError, match="the centre has"):
        measure(run, 6, centre)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
def test_checkpoints_that_do_not_fit(measure: Callable[..., object]) -> None:
    run, centre = Run(torch.from_numpy(walk(6, 8, 26))), torch.zeros(9).double()
    with pytest.raises(CheckpointError, match=r"does not fit(.|\n)*\(8,\) torch.float64, not \(9,\)"):
        measure(run, 6, centre)
    with pytest.raises(CheckpointError, match="does not fit"):
        measure(Run(torch.zeros(6, 9, dtype=torch.long)), 6, centre)
    with pytest.raises(CheckpointError, match="cannot be squared"):
        measure(Run(torch.full((6, 9), 1e200, dtype=torch.float64)), 6, centre)
    with pytest.raises(InputError, match="needs a checkpoint"):
        measure(run, 0, centre)


# Projections.


@DTYPES
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("oblique", [False, True])
def test_projections_are_the_least_squares_solutions(k: int, oblique: bool, dtype: torch.dtype) -> None:
    n = 211
    rows = orthonormal(k, n, 27) * np.array([[3.0], [0.01], [20.0]])[:k]
    if oblique:
        rows = (np.eye(k) + np.tri(k, k=-1)) @ rows
    directions, centre = (
        torch.from_numpy(rows).to(dtype),
        torch.from_numpy(draw(28).standard_normal(n)).to(dtype),
    )
    run = Run(torch.from_numpy(draw(29).standard_normal((9, n))).to(dtype))
    found = project(run, 9, centre, directions)
    dense, basis = (run.weights.double() - centre.double()).numpy(), directions.double().numpy()
    expected, squares, *_ = np.linalg.lstsq(basis.T, dense.T, rcond=None)
    np.testing.assert_allclose(found.coordinates, expected.T, rtol=1e-10, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_allclose(found.distances, squares**0.5, rtol=1e-13)
    np.testing.assert_allclose(found.lengths, np.linalg.norm(dense, axis=1), rtol=1e-13)
    along = dense @ (basis / np.linalg.norm(basis, axis=1, keepdims=True)).T
    np.testing.assert_allclose(found.shares, np.sum(along**2, axis=0) / np.sum(dense**2), rtol=1e-12)
    assert found.within == pytest.approx(1 - squares.sum() / np.sum(dense**2), rel=1e-11)
    if not oblique:
        assert found.within == pytest.approx(
            found.shares.sum(), rel=1e-6 if dtype == torch.float32 else 1e-12
        )
    assert run.reads == [1] * 9


def test_distances_near_the_plane_are_not_lost_in_squares() -> None:
    """At 1e-11 of the length off the plane, squares of lengths differ by 1e-22."""
    first, second, normal = orthonormal(3, 500, 30)
    heights = np.array([0.0, 1e-11, 3e-12, -1e-9])
    weights = 3 * first + 4 * second + heights[:, None] * normal
    found = project(
        Run(torch.from_numpy(weights)),
        4,
        torch.zeros(500).double(),
        torch.from_numpy(np.stack([first, second])),
    )
    np.testing.assert_allclose(found.coordinates, [[3.0, 4.0]] * 4, rtol=1e-14)
    np.testing.assert_allclose(found.distances, np.abs(heights), rtol=1e-3, atol=5e-15)


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5, 2e-6])
def test_nearly_collinear_directions(angle: float) -> None:
    """The plane is as well determined as its directions are: to rounding over the angle, not its square."""
    first, second, normal = orthonormal(3, 3000, 31)
    other = np.cos(angle) * first + np.sin(angle) * second
    run = Run(torch.from_numpy(np.stack([5 * first, second + 1e-6 * normal, first + 2 * normal])))
    found = project(run, 3, torch.zeros(3000).double(), torch.from_numpy(np.stack([first, 7 * other])))
    np.testing.assert_allclose(found.distances, [0, 1e-6, 2], rtol=1e-9, atol=2e-16 / angle)
    expected = np.array([[5, 0], [-1 / np.tan(angle), 1 / (7 * np.sin(angle))], [1, 0]])
    np.testing.assert_allclose(found.coordinates, expected, atol=1e-15 / angle**2)


def test_directions_that_span_nothing() -> None:
    run, centre = Run(torch.from_numpy(walk(3, 30, 32))), torch.zeros(30).double()
    line = torch.from_numpy(orthonormal(1, 30, 33))
    for factor in (2.0, -1.0):
        with pytest.raises(InputError, match="collinear"):
            project(run, 3, centre, torch.cat([line, factor * line]))
    with pytest.raises(InputError, match="direction 2 has no length"):
        project(run, 3, centre, torch.cat([line, 0 * line]))
    with pytest.raises(InputError, match="direction 1 has no length"):
        project(run, 3, centre, line * float("nan"))
    assert sum(run.reads) == 0


@DTYPES
def test_the_projection_on_principal_directions_has_their_shares(dtype: torch.dtype) -> None:
    run = Run(torch.from_numpy(draw(34).standard_normal(150) + walk(25, 150, 35)).to(dtype))
    centre = run.weights[-1]
    plane = principal(run, 25, centre, [1, 2], 3 * 150 * 8)
    found = project(run, 25, centre, plane.directions)
    np.testing.assert_allclose(found.shares, plane.shares, rtol=2 * torch.finfo(dtype).eps + 1e-12)
    assert found.within == pytest.approx(float(plane.shares.sum()), rel=1e-12 + torch.finfo(dtype).eps)
    largest = found.coordinates[np.abs(found.coordinates).argmax(0), [0, 1]]
    assert (largest > 0).all()
    assert found.lengths[-1] == found.distances[-1] == 0.0


def test_distances_of_a_line_saved_in_float32_are_within_their_rounding() -> None:
    run, centre = line_in(torch.float32, 1e-6, 36)
    line = torch.from_numpy(orthonormal(1, 3000, 37))
    found = project(run, 10, centre, line)
    assert (found.distances <= found.rounding).all()
    assert (found.distances > found.rounding / 100).all()
    scale = float(torch.linalg.vector_norm(centre.double()))
    exact = np.arange(10, 0, -1) * 1e-6 * scale
    np.testing.assert_allclose(found.coordinates[:, 0], exact, atol=found.rounding.max() / 10)
    assert (np.abs(found.lengths - exact) <= found.rounding).all()


def test_checkpoints_that_equal_the_centre_lie_on_it() -> None:
    weights = torch.from_numpy(draw(38).standard_normal(12))
    found = project(Run(weights.expand(2, 12)), 2, weights, torch.eye(12)[:2])
    assert not found.coordinates.any()
    assert not found.distances.any()
    assert np.isnan(found.shares).all()
    assert np.isnan(found.within)


def test_nothing_is_changed_and_nothing_tracked() -> None:
    weights = torch.from_numpy(walk(5, 40, 39)).requires_grad_()
    centre = torch.zeros(40, dtype=torch.float64, requires_grad=True)
    before = weights.detach().clone()
    run = Run(weights)
    plane = principal(run, 5, centre, [1, 2], 0)
    found = project(run, 5, centre, plane.directions)
    assert not plane.directions.requires_grad
    assert torch.equal(weights, before)
    assert not centre.any()
    assert np.isfinite(found.distances).all()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_random_trajectories_against_the_dense_svd(seed: int) -> None:
    compare(seed)


@pytest.mark.parametrize("seed", range(200, 220))
def test_some_random_trajectories_against_the_dense_svd(seed: int) -> None:
    compare(seed)


def compare(seed: int) -> None:
    generator = draw(seed + 1000)
    m, n = int(generator.integers(1, 40)), int(generator.integers(1, 200))
    dtype = [torch.float64, torch.float32][seed % 2]
    scale = 10.0 ** generator.uniform(-3, 3)
    sigma = np.sort(scale * generator.uniform(0.1, 1, min(m, n, 5)))[::-1]
    differences, *_ = planted(m, n, list(sigma), seed)
    centre = torch.from_numpy(generator.standard_normal(n)).to(dtype)
    run = Run((centre.double() + torch.from_numpy(differences)).to(dtype))
    k = min(2, len(sigma))
    found = principal(run, m, centre, range(1, k + 1), int(generator.integers(0, 20)) * 8 * n)
    dense = (run.weights.double() - centre.double()).numpy()
    _, expected, right = np.linalg.svd(dense, full_matrices=False)
    assert np.abs(found.singular_values[: len(expected)] ** 2 - expected**2).max() <= 1e-13 * np.sum(dense**2)
    assert np.abs(found.singular_values[: len(sigma)] - sigma).max() <= found.rounding
    # The space of both is as well determined as the gap to the third is wide.
    gap = expected[k - 1] ** 2 - (expected[k] ** 2 if k < len(expected) else 0.0)
    inside = np.linalg.norm(found.directions.double().numpy() @ right[:k].T) ** 2
    accuracy = torch.finfo(dtype).eps + 1e-13 * expected[0] ** 2 / gap
    assert inside == pytest.approx(k, abs=10 * accuracy)
    placed = project(run, m, centre, found.directions)
    tail = np.sum(expected[k:] ** 2)
    assert np.sum(placed.distances**2) == pytest.approx(
        tail, rel=1e-6, abs=(1e-6 * scale) ** 2 + 1e-13 * np.sum(dense**2)
    )
