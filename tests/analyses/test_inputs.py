"""What ``trace`` takes over from a stored ``eigen`` run, and what it rightly does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import landscape
from landscape.analyses.trace import Settings
from landscape.curvature.hessian import HessianOperator
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.results import EigenResult, TraceResult
from landscape.run import RunSettings, execute
from landscape.store import ResultFile
from tests.run.support import Listener, assert_same_bits, small_problem
from tests.support.closed_form import matrix_of

TRACE: dict[str, Any] = {"tol": 0.0, "max_products": 16, "seed": 1}


def problem(**options: Any) -> Problem:
    return small_problem(**{"dtype": "float64", "batch_size": 50} | options)


def searched(path: Path, of: Problem | None = None, **options: Any) -> EigenResult:
    """An eigen run with its basis, stored."""
    return landscape.eigen(
        of or problem(), **{"k": 3, "krylov": True, "seed": 0, "output": str(path)} | options
    )


def traced(path: Path, of: Problem | None = None, **options: Any) -> tuple[TraceResult, list[str]]:
    listener = Listener()
    result = landscape.trace(of or problem(), output=str(path), observer=listener, **TRACE | options)
    return result, listener.notes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.h5"


def test_a_stored_basis_is_taken_over_told_and_recorded(path: Path) -> None:
    eigen = searched(path)
    result, notes = traced(path)
    assert eigen.provenance is not None
    assert result.provenance is not None
    assert eigen.krylov_relation is not None
    assert result.taken_over == eigen.krylov_relation.shape[1] > 5
    assert result.exact_dimensions >= result.taken_over
    assert any(f"uses the stored eigen run {eigen.provenance.id}" in note for note in notes)
    assert result.provenance.strategy["inputs"] == {"eigen": eigen.provenance.id}
    assert result.products == 16
    assert abs(result.trace - float(matrix_of(problem()).trace())) < 2 * result.half_width


def test_the_same_result_handed_over_gives_the_same_bits(path: Path) -> None:
    searched(path)
    stored, _ = traced(path)
    kept = landscape.eigen(problem(), k=3, krylov=True, seed=0)
    assert_same_bits(stored, landscape.trace(problem(), inputs=[kept], **TRACE))


def test_fewer_products_at_equal_width(path: Path) -> None:
    eigen = searched(path, k=5)
    with_it, _ = traced(path, tol=0.25, max_products=1000)
    alone, _ = traced(path, tol=0.25, max_products=1000, reuse=False)
    assert eigen.krylov_relation is not None
    assert alone.taken_over == 0
    assert with_it.products < alone.products
    assert with_it.half_width <= 0.25 * abs(with_it.trace)


def test_what_was_taken_over_does_not_bias_the_result(path: Path) -> None:
    """One stored basis, many seeds: means are those of the matrix, to the error of a mean."""
    of = problem()
    eigen = landscape.eigen(of, k=2, krylov=True, seed=0)
    diagonal = matrix_of(of).diagonal()
    found = []
    for seed in range(60):
        result = landscape.trace(of, inputs=[eigen], tol=0.0, max_products=8, seed=seed)
        assert result.taken_over > 5
        assert result.layer_traces is not None
        found.append([result.trace, *result.layer_traces])
    exact = np.array([part.sum() for part in (diagonal, diagonal[:30], diagonal[30:])])
    deviation = np.std(found, axis=0, ddof=1) / 60**0.5
    assert (np.abs(np.mean(found, axis=0) - exact) < 4 * deviation).all()


def test_restarts_leave_a_basis_that_can_be_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart H̄ is not tridiagonal: its first rows are an arrow."""
    from landscape.analyses import eigen_lanczos

    of = problem()
    monkeypatch.setattr(eigen_lanczos, "basis_size", lambda *given: 14)
    eigen = landscape.eigen(of, k=4, tol=1e-8, krylov=True, seed=0)
    assert eigen.krylov_relation is not None
    assert np.abs(np.tril(eigen.krylov_relation, -2)).max() > 1e-6
    matrix = matrix_of(of)
    result = landscape.trace(of, inputs=[eigen], tol=1e-9, seed=1)
    assert result.taken_over == eigen.krylov_relation.shape[1]
    assert result.trace == pytest.approx(float(matrix.trace()), rel=1e-10)
    assert result.layer_traces is not None
    np.testing.assert_allclose(result.layer_traces[0], matrix.diagonal()[:30].sum(), rtol=1e-9)


@pytest.mark.parametrize("budget", [1, 100])
def test_a_basis_of_the_whole_space_leaves_nothing_to_do(budget: int, path: Path) -> None:
    of = problem()
    searched(path, k=of.size)
    result, _ = traced(path, max_products=budget, diagonal=True)
    matrix = matrix_of(of)
    assert (result.status, result.products, result.probes) == ("complete", 0, 0)
    assert result.taken_over == result.exact_dimensions == of.size
    assert result.trace == pytest.approx(float(matrix.trace()), rel=1e-10)
    assert abs(result.trace - float(matrix.trace())) <= result.half_width < 1e-10
    assert result.noise_floor > 0


def test_the_floor_is_measured_where_curvature_is_large() -> None:
    """In float32 the floor with a basis taken over is about that of a run of its own, not far below it."""
    of = small_problem(batch_size=50)
    eigen = landscape.eigen(of, k=3, krylov=True, seed=0)
    own = landscape.trace(of, **TRACE)
    result = landscape.trace(of, inputs=[eigen], **TRACE)
    assert result.taken_over > 0
    assert own.noise_floor / 3 < result.noise_floor < 10 * own.noise_floor


OTHERS: dict[str, Callable[[], tuple[Problem, dict[str, Any]]]] = {
    "another matrix": lambda: (problem(), {"operator": "gauss-newton"}),
    "other data": lambda: (problem(samples=40), {}),
    "other parameters": lambda: (problem(params=["0.*"]), {}),
    "another precision": lambda: (problem(dtype="float32"), {}),
    "weight decay": lambda: (problem(weight_decay=0.1), {}),
    "other weights": lambda: (_moved(problem()), {}),
    "told not to": lambda: (problem(), {"reuse": False}),
    "a method that has no use for it": lambda: (problem(), {"method": "hutch++"}),
}


def _moved(of: Problem) -> Problem:
    """The same network with one weight changed."""
    model = of.model
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    return Problem(model, "cross_entropy", _data(), dtype="float64", batch_size=50)


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    """That of ``small_problem``."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(50, 4, generator=generator), torch.randint(0, 3, (50,), generator=generator)


@pytest.mark.parametrize("other", OTHERS)
def test_a_basis_of_something_else_is_not_used(other: str, path: Path) -> None:
    searched(path)
    of, options = OTHERS[other]()
    result, notes = traced(path, of, **options)
    assert result.taken_over == 0
    assert not any("uses the stored" in note for note in notes)
    assert result.provenance is not None
    assert "inputs" not in result.provenance.strategy


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"operator": "fisher"}, False),  # labels are drawn
        ({"operator": "finite-difference", "rho_sweep": True}, False),  # so is what the step is tried on
        ({"operator": "finite-difference", "rho": 1e-4}, True),
        ({"operator": "gauss-newton"}, True),
    ],
)
def test_matrices_that_are_drawn_or_swept_anew_are_not_used(options: dict[str, Any], same: bool) -> None:
    of = problem()
    eigen = landscape.eigen(of, k=3, krylov=True, seed=0, **options)
    assert (landscape.trace(of, inputs=[eigen], **TRACE | options).taken_over > 0) == same


def test_another_step_makes_another_matrix() -> None:
    of = problem()
    options: dict[str, Any] = {"operator": "finite-difference", "rho": 1e-4}
    eigen = landscape.eigen(of, k=3, krylov=True, seed=0, **options)
    assert landscape.trace(of, inputs=[eigen], **TRACE | options | {"rho": 2e-4}).taken_over == 0


def test_a_run_without_a_basis_is_not_used(path: Path) -> None:
    searched(path, krylov=False)
    assert traced(path)[0].taken_over == 0


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_vectors_that_are_gone_or_damaged_are_done_without(damage: str, path: Path) -> None:
    eigen = searched(path)
    assert eigen.krylov_file is not None
    file = path.parent / eigen.krylov_file
    if damage == "gone":
        file.unlink()
    else:
        contents = bytearray(file.read_bytes())
        contents[-40] ^= 0xFF
        file.write_bytes(contents[: len(contents) // 2] if damage == "cut" else contents)
    result, notes = traced(path)
    assert result.taken_over == 0
    assert_same_bits(result, landscape.trace(problem(), **TRACE))
    assert not any("uses the stored" in note for note in notes)


def test_a_damaged_run_is_done_without(path: Path) -> None:
    eigen = searched(path)
    assert eigen.provenance is not None
    with h5py.File(path, "r+") as file:
        file[f"runs/{eigen.provenance.id}/eigenvalues"][0] = 17.0
    result, _ = traced(path)
    assert result.taken_over == 0
    assert {header.kind for header in ResultFile(path).runs()} == {"eigen", "trace"}


def test_the_latest_of_several_is_used(path: Path) -> None:
    searched(path, k=1)
    latest = searched(path, k=6)
    result, _ = traced(path)
    assert latest.krylov_relation is not None
    assert result.taken_over == latest.krylov_relation.shape[1]


def test_an_interrupted_run_goes_on_with_the_basis_it_began_with(path: Path) -> None:
    """The basis is in the partial file: a search stored meanwhile, or its file gone, changes nothing."""
    searched(path)
    whole, _ = traced(path)
    (run,) = [header.id for header in ResultFile(path).runs() if header.kind == "trace"]
    ResultFile(path).remove([run])
    limited = landscape.trace(problem(), output=str(path), time_limit=0.0, **TRACE)
    assert limited.status == "partial"
    for file in path.parent.glob("*.h5"):
        if file != path:
            file.unlink()
    again, notes = traced(path)
    assert any("resumed" in note for note in notes)
    assert again.provenance is not None
    assert "eigen" in again.provenance.strategy["inputs"]
    assert_same_bits(again, whole)


def test_no_product_is_made_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The basis costs nothing: multiplied are the vectors counted and the few that measure the floor."""
    searched(path)
    plain: Callable[..., torch.Tensor] = HessianOperator.apply
    rows: list[int] = []

    def counted(self: HessianOperator, vectors: torch.Tensor) -> torch.Tensor:
        rows.append(len(vectors))
        return plain(self, vectors)

    monkeypatch.setattr(HessianOperator, "apply", counted)
    result, _ = traced(path)
    assert result.products == 16
    assert 16 <= sum(rows) <= 16 + 4


def test_density_compares_with_runs_of_its_own(path: Path) -> None:
    eigen = searched(path)
    trace, _ = traced(path, tol=1e-6, max_products=100)
    density = landscape.density(problem(), steps=12, seed=0, output=str(path))
    assert density.trace_run == trace.trace
    np.testing.assert_array_equal(density.trace_run_interval, trace.interval)
    assert density.lambda_max_run == eigen.lambda_max
    assert density.provenance is not None
    assert set(density.provenance.strategy["inputs"]) == {"eigen", "trace"}
    alone = landscape.density(problem(), steps=12, seed=0, output=str(path), compare=False)
    assert (alone.trace_run, alone.lambda_max_run, alone.trace_run_interval) == (None, None, None)
    other = landscape.density(problem(), steps=12, seed=0, output=str(path), operator="gauss-newton")
    assert other.trace_run is None


def test_unfinished_runs_are_not_compared_with(path: Path) -> None:
    traced(path, tol=1e-9, max_products=5)
    assert landscape.density(problem(), steps=5, output=str(path)).trace_run is None


def test_inputs_of_another_problem_are_left_out_silently() -> None:
    other = landscape.eigen(problem(samples=30), krylov=True, k=2)
    settings = Settings(tol=0.0, max_products=6)
    result = execute("trace", problem(), settings, RunSettings(seed=0), store=False, inputs=[other])
    assert isinstance(result, TraceResult)
    assert result.taken_over == 0


def test_unknown_names_are_errors() -> None:
    with pytest.raises(LandscapeError, match="does not know 'krylov'"):
        landscape.trace(problem(), krylov=True)
