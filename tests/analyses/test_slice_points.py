"""Other checkpoints on a slice: ends of interpolations, barriers, planes of three, trajectories."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from landscape.analyses.base import Start
from landscape.analyses.slice import Settings
from landscape.errors import CheckpointError, ConfigurationError
from landscape.problem import Problem
from landscape.results import SliceResult
from tests.analyses.slice_support import (
    carried_out,
    checkpoint,
    examples_at,
    loss_at,
    near,
    normalised,
    paired_error,
    sliced,
    small,
    with_weights,
)


def centre(problem: Problem) -> Tensor:
    return problem.selection.flat().detach()


def same_error(a: Tensor, b: Tensor) -> Any:
    return pytest.approx(paired_error(a, b), rel=1e-9)


def learned() -> tuple[Problem, Tensor]:
    """A problem at trained weights, and those with all weights negated: the same function of the data.

    The hidden units of the one are those of the other with their signs turned, and half way all are dead.
    """
    problem = small()
    flat = centre(problem).clone()
    for _ in range(300):
        with torch.no_grad():
            vector_to_parameters(flat, problem.selection.tensors)
        flat -= 0.5 * problem.measure(problem.pieces(50)).gradient
    with torch.no_grad():
        vector_to_parameters(flat.float().double(), problem.selection.tensors)
    other = copy.deepcopy(problem.model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name != "2.bias":
                parameter.neg_()
    return problem, parameters_to_vector(other.parameters()).detach()


# --- interpolations --------------------------------------------------------------------------------------


def test_the_barrier_and_its_error_are_the_naive_ones(tmp_path: Path) -> None:
    problem, other = learned()
    result = sliced(problem, f"to:{checkpoint(problem, tmp_path / 'b.pt', other)}", range=("-0.5:1.6:20",))
    w = centre(problem)
    inside = [t for t in result.x if 0 <= t <= 1]
    ends = [examples_at(with_weights(problem, flat), problem) for flat in (w, other)]
    above = {
        t: examples_at(with_weights(problem, w + t * (other - w)), problem) - (1 - t) * ends[0] - t * ends[1]
        for t in inside
    }
    best = max(inside, key=lambda t: float(above[t].mean()))
    assert 0.3 < best < 0.7
    assert float(above[best].mean()) > 0.2
    assert result.barrier_at == best
    assert result.barrier == pytest.approx(float(above[best].mean()), rel=1e-9)
    assert result.barrier_error == same_error(above[best], torch.zeros(50))
    assert result.saved_barrier is None
    assert result.saved_loss is None


def test_an_interpolation_that_only_dips_has_no_barrier(tmp_path: Path) -> None:
    """Least squares is convex: nowhere above the straight line."""
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(20, 3, generator=generator), torch.randn(20, 1, generator=generator)
    problem = Problem(nn.Linear(3, 1), "mse", (x, y), dtype="float64")
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 1, scale=2.0))
    result = sliced(problem, f"to:{path}")
    assert (result.barrier, result.barrier_error, result.barrier_at) == (0.0, 0.0, 0.0)


def test_without_both_ends_or_with_a_loss_that_is_not_finite_no_barrier_is_claimed(tmp_path: Path) -> None:
    problem = small(dtype="float32")
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 4))
    assert sliced(problem, f"to:{path}", range=("0:0.9:5",)).barrier is None
    far = checkpoint(problem, tmp_path / "far.pt", torch.full((problem.size,), 3e38))
    result = sliced(problem, f"to:{far}", range=("0:1:3",))
    assert not np.isfinite(result.loss).all()
    assert result.barrier is None


def test_a_checkpoint_that_is_not_finite_is_no_end(tmp_path: Path) -> None:
    problem = small()
    path = checkpoint(problem, tmp_path / "b.pt", torch.full((problem.size,), math.nan))
    with pytest.raises(ConfigurationError, match="not finite"):
        sliced(problem, f"to:{path}")


def test_the_barrier_of_a_refined_line_is_at_a_point_that_was_evaluated(tmp_path: Path) -> None:
    problem, other = learned()
    path = checkpoint(problem, tmp_path / "b.pt", other)
    whole = sliced(problem, f"to:{path}", range=("-0.7:1.6:61",))
    fine = sliced(problem, f"to:{path}", range=("-0.7:1.6:61",), refine=True)
    assert not fine.evaluated.all()
    assert fine.evaluated[list(fine.x).index(1.0)]
    assert fine.barrier == pytest.approx(whole.barrier, rel=0.05)
    assert fine.barrier_at in fine.x[fine.evaluated]


@pytest.mark.parametrize("refine", [False, True])
def test_running_statistics_recalibrated_and_interpolated(tmp_path: Path, refine: bool) -> None:
    problem, other = normalised(), normalised(seed=5)
    path = tmp_path / "b.pt"
    torch.save(other.model.state_dict(), path)
    count = 31 if refine else 7
    result = sliced(problem, f"to:{path}", range=(f"0:1:{count}",), refine=refine)
    assert result.saved_loss is not None
    raw = np.ma.getdata(result.saved_loss)
    own, its = problem.model[1], other.model[1]
    for i in np.flatnonzero(result.evaluated):
        t = float(result.x[i])
        model = with_weights(problem, (1 - t) * centre(problem) + t * centre(other))
        for name in ("running_mean", "running_var"):
            getattr(model[1], name).copy_((1 - t) * getattr(own, name) + t * getattr(its, name))
        assert raw[i] == pytest.approx(float(examples_at(model, problem).mean()), rel=1e-6)
    assert raw[0] == pytest.approx(result.own_loss, rel=1e-6)
    losses, x = raw[result.evaluated], result.x[result.evaluated]
    above = losses - (1 - x) * losses[0] - x * losses[-1]
    assert result.saved_barrier == pytest.approx(above.max(), abs=1e-12)
    assert np.ma.is_masked(result.saved_loss) is bool(not result.evaluated.all())
    assert sliced(problem, f"to:{path}", range=("0:1:3",), batchnorm="saved").saved_loss is None


def test_the_end_is_shown_with_its_own_statistics(tmp_path: Path) -> None:
    problem, other = normalised(), normalised(seed=5)
    torch.save(other.model.state_dict(), tmp_path / "b.pt")
    result = sliced(problem, f"to:{tmp_path / 'b.pt'}", range=("0:1:3",))
    assert result.point_losses is not None
    assert result.point_slice_losses is not None
    expected = float(examples_at(other.model, problem).mean())
    assert result.point_losses[0] == pytest.approx(expected, rel=1e-6)
    assert result.point_slice_losses[0] == pytest.approx(result.loss[-1], rel=1e-12)
    assert abs(result.point_slice_losses[0] - result.point_losses[0]) > 1e-3


# --- planes of three -------------------------------------------------------------------------------------


@pytest.mark.parametrize("orthogonalize", [True, False])
def test_three_checkpoints_span_a_plane_that_holds_them(tmp_path: Path, orthogonalize: bool) -> None:
    problem = small()
    others = [near(problem, seed, scale=1.0) for seed in (1, 2)]
    paths = [checkpoint(problem, tmp_path / f"{i}.pt", flat, step=i) for i, flat in enumerate(others)]
    result = sliced(
        problem, f"to:{paths[0]}", f"to:{paths[1]}", range=("0:1:3",), orthogonalize=orthogonalize
    )
    assert_points(result)
    assert result.point_coordinates is not None
    assert result.directions is not None
    w = centre(problem)
    d = torch.from_numpy(np.array(result.directions))
    for i, flat in enumerate(others):
        torch.testing.assert_close(w + torch.from_numpy(result.point_coordinates[i]) @ d, flat)
        assert result.point_distances[i] < 1e-12
        assert result.point_losses[i] == pytest.approx(loss_at(problem, flat), rel=1e-12)
        assert result.point_slice_losses[i] == pytest.approx(loss_at(problem, flat), rel=1e-9)
        now, before = (examples_at(with_weights(problem, one), problem) for one in (flat, w))
        assert result.point_errors[i] == same_error(now, before)
    np.testing.assert_allclose(result.point_coordinates[0], [1, 0], atol=1e-12)
    assert result.point_coordinates[1, 1] == pytest.approx(1.0)
    if not orthogonalize:
        assert result.point_coordinates[1, 0] == pytest.approx(0.0, abs=1e-12)
        assert result.loss[0, -1] == pytest.approx(loss_at(problem, others[1]), rel=1e-12)
    a, b = (flat - w for flat in others)
    expected = math.degrees(math.acos(float(a @ b / a.norm() / b.norm())))
    assert result.angle == pytest.approx(expected, rel=1e-9)
    assert result.barrier is None
    assert list(result.point_roles) == ["end", "end"]
    assert list(result.point_steps) == [0, 1]


def assert_points(result: SliceResult) -> None:
    for name in ("coordinates", "distances", "losses", "errors", "slice_losses", "names", "roles", "steps"):
        assert getattr(result, f"point_{name}") is not None


# --- trajectories ----------------------------------------------------------------------------------------


def trained(problem: Problem, folder: Path) -> list[Tensor]:
    """Weights along a bent way to the centre, saved as step 10, 20, …, out of alphabetical order."""
    w, found = centre(problem), []
    first, second = near(problem, 1) - w, near(problem, 2) - w
    for i in range(5):
        left = 1 - i / 4
        flat = (w + left * first + left**3 * second).float().double()
        checkpoint(problem, folder / f"run{10 * i + 5}.pt", flat, step=10 * i)
        found.append(flat)
    return found


@pytest.mark.parametrize("along", [("pca", "pca"), ("random", "gradient"), ("pca:2",)])
def test_where_a_trajectory_lies(tmp_path: Path, along: tuple[str, ...]) -> None:
    problem = small()
    run = trained(problem, tmp_path)
    result = sliced(problem, *along, trajectory=(f"{tmp_path}/run*.pt",), range=("-1:1:2",))
    assert_points(result)
    assert result.directions is not None
    assert list(result.point_names) == [f"run{10 * i + 5}.pt" for i in range(5)]
    assert list(result.point_steps) == [0, 10, 20, 30, 40]
    w = centre(problem)
    d = np.asarray(result.directions, dtype=float)
    total = sum(float((flat - w).square().sum()) for flat in run)
    for i, flat in enumerate(run):
        away = (flat - w).numpy()
        solved = np.linalg.lstsq(d.T, away, rcond=None)[0]
        rest = np.linalg.norm(away - solved @ d)
        np.testing.assert_allclose(result.point_coordinates[i], solved, atol=1e-9)
        assert result.point_distances[i] == pytest.approx(rest, rel=1e-6, abs=1e-9)
        assert result.point_losses[i] == pytest.approx(loss_at(problem, flat), rel=1e-12)
        projected = w + torch.from_numpy(result.point_coordinates[i]) @ torch.from_numpy(d)
        assert result.point_slice_losses[i] == pytest.approx(loss_at(problem, projected), rel=1e-9)
    for j, row in enumerate(d):
        unit = torch.from_numpy(row / np.linalg.norm(row))
        share = sum(float((flat - w) @ unit) ** 2 for flat in run) / total
        assert result.explained_variance[j] == pytest.approx(share, rel=1e-8)
    if along == ("pca", "pca"):
        assert sum(result.explained_variance) == pytest.approx(1.0)


def test_ends_are_no_part_of_the_explained_share(tmp_path: Path) -> None:
    problem = small()
    run = trained(problem, tmp_path)
    end = checkpoint(problem, tmp_path / "end.pt", near(problem, 7, scale=5.0))
    options: dict[str, Any] = {"trajectory": (f"{tmp_path}/run*.pt",), "range": ("0:1:2",)}
    result = sliced(problem, f"to:{end}", "random", orthogonalize=False, **options)
    assert list(result.point_roles) == ["end", *["trajectory"] * 5]
    assert result.directions is not None
    w = centre(problem)
    for row, found in zip(result.directions, result.explained_variance, strict=True):
        unit = torch.from_numpy(row / np.linalg.norm(row))
        shares = [float((flat - w) @ unit) ** 2 for flat in run]
        lengths = [float((flat - w).square().sum()) for flat in run]
        assert found == pytest.approx(sum(shares) / sum(lengths), rel=1e-8)


def test_a_file_that_is_named_twice_is_one_checkpoint(tmp_path: Path) -> None:
    problem = small()
    trained(problem, tmp_path)
    paths = (f"{tmp_path}/run5.pt", f"{tmp_path}/run*.pt")
    result = sliced(problem, "random", trajectory=paths, range=("-1:1:2",))
    assert len(result.point_names) == 5


def test_a_checkpoint_that_changes_while_the_run_is_interrupted(tmp_path: Path) -> None:
    problem = small()
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 1))
    settings = Settings(along=(f"to:{path}",), range=("0:1:2",))
    _, states = carried_out(problem, settings, Start(7))
    middle = next(s for s in states if s.saved is not None and s.saved.counters["phase"] == "grid")
    checkpoint(problem, path, near(problem, 2))
    with pytest.raises(CheckpointError, match="has changed since this run began"):
        carried_out(problem, settings, middle)


def test_the_problem_is_as_it_was(tmp_path: Path) -> None:
    problem = normalised()
    before = copy.deepcopy(problem.model.state_dict())
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 1))
    sliced(problem, f"to:{path}", "eigen", range=("0:1:3",), trajectory=(str(path),))
    for name, tensor in problem.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not problem.model.training
    assert all(parameter.grad is None for parameter in problem.model.parameters())
