"""``landscape.trace`` against dense matrices, at its limits, and taken up again from any state."""

from __future__ import annotations

import functools
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import landscape
from landscape.analyses import trace as trace_analysis
from landscape.analyses import trace_work, work
from landscape.analyses.base import Start
from landscape.analyses.trace import Settings
from landscape.analyses.trace_work import spatial_average
from landscape.errors import ConfigurationError, Interrupted
from landscape.linalg.operator import MatrixOperator
from landscape.parameters import layers
from landscape.problem import Problem
from landscape.results import TraceResult
from landscape.run import RunSettings, execute, exit_code, plan
from landscape.store import ResultFile
from tests.curvature.naive import case
from tests.run.support import Listener, assert_same_bits, carried_out, small_problem
from tests.support.closed_form import classification, matrix_of
from tests.support.models import mlp

METHODS = ("krylov", "hutchinson", "hutch++", "xtrace")
SPANS = ("krylov", "hutch++", "xtrace")
NETS = ("cross-entropy, ragged", "masked tokens, tied", "BatchNorm", "unused and frozen", "restricted")


def blocks_of(problem: Problem) -> list[slice]:
    """Where each layer lies in the vector of parameters."""
    where, sizes, begin = [], layers(problem.selection.layout).values(), 0
    for members in sizes:
        end = begin + problem.selection.layout.count(members)
        where.append(slice(begin, end))
        begin = end
    return where


# --- against the dense matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_a_budget_that_spans_the_space_gives_everything_exactly(name: str) -> None:
    found, matrix = case(name), case(name).hessian().numpy()
    result = landscape.trace(found.problem, tol=1e-10, max_products=2000, diagonal=True, seed=2)
    diagonal = np.diag(matrix)
    assert (result.status, result.exact_dimensions) == ("complete", len(matrix))
    assert result.trace == pytest.approx(diagonal.sum(), rel=1e-10)
    assert abs(result.trace - diagonal.sum()) <= result.half_width + 1e-14 * abs(diagonal).sum()
    assert result.layer_traces is not None
    expected = [diagonal[block].sum() for block in blocks_of(found.problem)]
    np.testing.assert_allclose(result.layer_traces, expected, atol=1e-10 * np.abs(matrix).max())
    assert result.diagonal is not None
    np.testing.assert_allclose(result.diagonal[0], diagonal, atol=1e-10 * np.abs(matrix).max())
    assert result.diagonal[1].max() <= result.noise_floor  # what is left is rounding
    assert result.frobenius == pytest.approx(np.linalg.norm(matrix), rel=1e-10)
    assert result.effective_dimension == pytest.approx(
        diagonal.sum() ** 2 / np.linalg.norm(matrix) ** 2, rel=1e-9
    )


@pytest.mark.parametrize("operator", ["gauss-newton", "empirical-fisher", "noise"])
@pytest.mark.parametrize("method", SPANS)
def test_other_matrices_and_methods(method: str, operator: str) -> None:
    found = case("cross-entropy, ragged")
    matrix = getattr(found, operator.replace("-", "_"))()
    result = landscape.trace(found.problem, operator=operator, method=method, tol=1e-10, seed=0)
    assert result.trace == pytest.approx(float(matrix.trace()), rel=1e-10)
    assert (result.status, result.method, result.operator) == ("complete", method, operator)


def test_weight_decay_adds_its_multiple_of_the_identity() -> None:
    plain = landscape.trace(small_problem(dtype="float64"), tol=1e-10)
    decayed = landscape.trace(small_problem(dtype="float64", weight_decay=0.3), tol=1e-10)
    assert decayed.trace - plain.trace == pytest.approx(0.3 * plain.parameters, rel=1e-10)
    assert decayed.layer_traces is not None
    assert plain.layer_traces is not None
    assert plain.layer_parameters is not None
    np.testing.assert_allclose(decayed.layer_traces - plain.layer_traces, 0.3 * plain.layer_parameters)


@pytest.mark.parametrize("method", METHODS)
def test_batches_do_not_matter_and_layers_add_up(method: str) -> None:
    options: dict[str, Any] = {"method": method, "tol": 0.0, "max_products": 24, "seed": 5}
    whole = landscape.trace(small_problem(dtype="float64", batch_size=50), **options)
    ragged = landscape.trace(small_problem(dtype="float64", batch_size=16), **options)
    assert ragged.trace == pytest.approx(whole.trace, rel=1e-9)
    assert ragged.half_width == pytest.approx(whole.half_width, rel=1e-6)
    assert whole.products == 24
    if method == "xtrace":
        assert whole.layers is None
        assert math.isnan(whole.frobenius)
    else:
        assert whole.layer_traces is not None
        assert whole.layer_traces.sum() == pytest.approx(whole.trace, rel=1e-12)


@pytest.mark.parametrize("method", ["krylov", "hutchinson", "hutch++"])
def test_the_diagonal_is_off_by_its_standard_errors(method: str) -> None:
    """Many runs of 40 products: the errors over the standard errors have the spread of a Student variable."""
    problem = small_problem(dtype="float64", batch_size=50)
    exact, scores = matrix_of(problem).diagonal().numpy(), []
    settings = Settings(method=method, tol=0.0, max_products=40, diagonal=True)  # type: ignore[arg-type]
    for seed in range(30):
        found = _quick(problem, settings, seed).diagonal
        assert found is not None
        values, errors = found
        scores.append((values - exact)[exact != 0] / errors[exact != 0])
    # Student's t at 19 degrees of freedom or more: |t| ≤ 2.09 in 95 % of all.
    assert 0.90 < np.mean(np.abs(scores) <= 2.09) < 0.99
    assert abs(np.mean(scores)) < 0.2


def test_spatial_averages_are_those_of_each_kernel() -> None:
    found = case("BatchNorm")
    plain = landscape.trace(found.problem, tol=1e-10, diagonal=True)
    averaged = landscape.trace(found.problem, tol=1e-10, diagonal=True, spatial_average=True)
    assert (plain.spatial_average, averaged.spatial_average) == (False, True)
    exact = found.hessian().diagonal().numpy()
    kernels = exact[: 2 * 3 * 9].reshape(6, 9).mean(axis=1)
    assert averaged.diagonal is not None
    np.testing.assert_allclose(averaged.diagonal[0][:54], np.repeat(kernels, 9), atol=1e-12)
    np.testing.assert_allclose(averaged.diagonal[0][54:], exact[54:], atol=1e-12)
    assert averaged.trace == plain.trace or averaged.trace == pytest.approx(plain.trace, rel=1e-9)


def test_the_error_of_a_spatial_average_is_a_bound() -> None:
    layout = case("BatchNorm").problem.selection.layout
    errors = np.arange(1.0, case("BatchNorm").problem.size + 1)
    found = spatial_average(layout, errors)
    assert (found[:9] >= np.sqrt((errors[:9] ** 2).sum()) / 9).all()
    np.testing.assert_array_equal(found[54:], errors[54:])


# --- coverage of the command as it stops -----------------------------------------------------------------


def _quick(problem: Problem, settings: Settings, seed: int) -> TraceResult:
    """The analysis without the choice of a strategy, which takes longer than the products of a small net."""
    strategy = {"micro_batch": problem.examples, "pieces": 1, "kept_pieces": 0, "graph_bytes": 0}
    *_, last = trace_analysis.steps(problem, settings, {}, Start(seed, None, strategy))
    return trace_analysis.finish(problem, settings, last.save())


COMMANDS: dict[str, dict[str, Any]] = {
    "tol 0.1": {"tol": 0.1},
    "tol 0.03": {"tol": 0.03},
    "tol 0.1, at most 100": {"tol": 0.1, "max_products": 100},
    "atol": {"tol": 0.0, "atol": 0.4, "max_products": 100},
    "12 products": {"tol": 0.0, "max_products": 12},
    "30 products": {"tol": 0.0, "max_products": 30},
    "60 products": {"tol": 0.0, "max_products": 60},
}


@functools.cache
def _trained() -> Problem:
    """A tanh network of 163 parameters after a hundred steps of gradient descent."""
    x, y = classification(60, 12, 3)
    model = mlp(12, 10, 3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    return Problem(model, "cross_entropy", (x, y))


def _misses(
    problem: Problem, settings: Settings, repetitions: int, run: Callable[..., TraceResult]
) -> tuple[int, int, int]:
    """How often the interval of the trace misses it, and how many of how many layers are missed."""
    matrix = matrix_of(problem)
    diagonal = matrix.diagonal()
    exact = np.array([float(diagonal[block].sum()) for block in blocks_of(problem)])
    rounding = 1e-12 * float(diagonal.abs().sum())
    missed, layers_missed, all_layers = 0, 0, 0
    for seed in range(repetitions):
        result = run(problem, settings, seed)
        missed += abs(result.trace - float(diagonal.sum())) > result.half_width + rounding
        if result.layer_traces is not None:
            assert result.layer_intervals is not None
            low, high = result.layer_intervals.T
            layers_missed += int(((exact < low - rounding) | (exact > high + rounding)).sum())
            all_layers += len(exact)
    return missed, layers_missed, all_layers


def _covers(missed: int, count: int, cells: int, least: float) -> bool:
    """A binomial test at 5 %, shared among the cells: too many misses for a coverage of ``least``?"""
    return count == 0 or bool(scipy.stats.binom.sf(missed - 1, count, 1 - least) > 0.05 / cells)


@pytest.mark.parametrize("command", ["tol 0.1", "tol 0.03", "12 products", "30 products"])
def test_the_interval_covers_as_the_command_stops(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 seeds on the Hessian of a trained net, its products taken from the dense matrix to save time."""
    problem = _trained()
    matrix = matrix_of(problem)
    monkeypatch.setattr(work, "make_operator", lambda *given, **options: MatrixOperator(matrix))
    settings = Settings(**COMMANDS[command])
    least = 0.93 if command.startswith("12") else 0.95
    missed, layers_missed, all_layers = _misses(problem, settings, 200, _quick)
    cells = 2 * len(COMMANDS)
    assert _covers(missed, 200, cells, least), missed
    assert _covers(layers_missed, all_layers, cells, least), (layers_missed, all_layers)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_interval_covers_whatever_the_method(command: str, method: str) -> None:
    """200 seeds, every product made from the network, through the public function."""

    def run(problem: Problem, settings: Settings, seed: int) -> TraceResult:
        options = {"method": method, "max_products": 250, **COMMANDS[command]}
        return landscape.trace(problem, seed=seed, **options)

    least = 0.93 if command.startswith("12") else 0.95
    missed, layers_missed, all_layers = _misses(_trained(), Settings(), 200, run)
    cells = 2 * len(COMMANDS) * len(METHODS)
    assert _covers(missed, 200, cells, least), missed
    assert _covers(layers_missed, all_layers, cells, least), (layers_missed, all_layers)


def test_the_test_of_coverage_can_fail() -> None:
    assert _covers(10, 200, 14, 0.95)
    assert not _covers(24, 200, 14, 0.95)


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_budget_too_small_says_what_was_reached(method: str, budget: int) -> None:
    for tol in (0.01, 0.0):
        result = landscape.trace(
            small_problem(dtype="float64"), method=method, max_products=budget, tol=tol, seed=1
        )
        without = math.isnan(result.half_width)
        assert without == (budget < (4 if method == "xtrace" else 2))
        assert bool(result.interval_reason) == without
        if without:
            assert "at least 2" in result.interval_reason
            assert ("1 product " in result.interval_reason) == (result.products == 1)
        # A budget that was asked for and gave an interval is complete; without one, it never is.
        fixed = tol == 0.0 and not without
        assert (result.status, exit_code(result)) == (("complete", 0) if fixed else ("not_converged", 4))
        assert result.products <= budget


def test_a_fixed_budget_is_spent_to_the_end_and_complete() -> None:
    result = landscape.trace(small_problem(dtype="float64"), tol=0.0, max_products=31, seed=1)
    assert (result.status, result.products, len(result.look_products)) == ("complete", 31, 1)
    assert result.look_traces[-1] == result.trace
    assert result.look_half_widths[-1] == result.half_width


def test_an_absolute_tolerance_ends_the_search() -> None:
    problem = small_problem(dtype="float64")
    result = landscape.trace(problem, tol=0.0, atol=1.5, max_products=45, seed=0)
    assert result.status == "complete"
    assert result.half_width <= 1.5
    assert result.products < 45
    assert landscape.trace(problem, tol=0.0, atol=1e-9, max_products=45, seed=0).status == "not_converged"


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_of_zeros_is_no_division_by_zero(method: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Linear(4, 3), torch.randn(30, 4)
    problem = Problem(model, lambda outputs, targets: outputs.mean(), (x, torch.zeros(30)))
    with np.errstate(divide="raise", invalid="raise"):
        result = landscape.trace(problem, method=method, diagonal=method != "xtrace", seed=0)
    assert (result.status, result.trace, result.half_width) == ("complete", 0.0, 0.0)
    assert result.products <= 40
    assert not np.isfinite(result.effective_dimension)


def test_one_parameter() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Linear(1, 1, bias=False), torch.randn(20, 1)
    problem = Problem(model, "mse", (x, torch.zeros(20, 1)), dtype="float64")
    for method in METHODS:
        result = landscape.trace(problem, method=method, seed=0)
        assert result.trace == pytest.approx(2 * float(x.double().square().mean()), rel=1e-12)
        assert result.status == "complete"


def test_a_memory_for_few_vectors_still_gives_an_interval_that_holds() -> None:
    """Room for 8 random vectors: beyond them only sums are kept, and the basis stays as it is."""
    problem = small_problem(dtype="float64", batch_size=50, memory=1)
    result = landscape.trace(problem, tol=0.0, max_products=200, seed=3, diagonal=True)
    exact = matrix_of(problem)
    assert result.exact_dimensions == 8
    assert result.probes == 192
    assert abs(result.trace - float(exact.trace())) < 2 * result.half_width
    assert result.diagonal is not None
    scores = (result.diagonal[0] - exact.diagonal().numpy()) / result.diagonal[1]
    assert np.abs(scores).max() < 5


def test_wrong_options_are_refused() -> None:
    for options, words in [
        ({"spatial_average": True}, "--diagonal"),
        ({"method": "xtrace", "diagonal": True}, "krylov"),
        ({"max_products": 0}, "at least 1"),
        ({"tol": -0.1}, "at least 0"),
        ({"tol": math.nan}, "at least 0"),
        ({"method": "hutch"}, "hutchinson"),
        ({"rho": 0.1}, "finite differences"),
        ({"label_samples": 2}, "--operator fisher"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            landscape.trace(small_problem(), **options)  # type: ignore[arg-type]


def test_a_plan_says_what_it_would_take() -> None:
    problem = small_problem()
    told = plan("trace", problem, Settings(max_products=500), RunSettings())
    assert (told.products, told.at_most, told.parameters) == (64, 500, problem.size)
    assert plan("trace", problem, Settings(tol=0.0, max_products=500), RunSettings()).products == 500


# --- going on --------------------------------------------------------------------------------------------

RESUMED: dict[str, dict[str, Any]] = {
    "krylov": {"tol": 1e-6, "max_products": 40, "diagonal": True},
    "krylov, exhausted": {"tol": 1e-6, "max_products": 80},
    "krylov, little memory": {"tol": 1e-6, "max_products": 28, "diagonal": True},
    "hutchinson": {"tol": 1e-6, "max_products": 20, "method": "hutchinson"},
    "hutch++": {"tol": 1e-6, "max_products": 33, "method": "hutch++"},
    "xtrace": {"tol": 1e-6, "max_products": 35, "method": "xtrace"},
    "spatial": {"tol": 0.0, "max_products": 9, "diagonal": True, "spatial_average": True},
    "fisher": {"tol": 0.5, "operator": "fisher", "label_samples": 2},
    "swept differences": {
        "tol": 0.0, "max_products": 9, "operator": "finite-difference", "rho_sweep": True
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RESUMED)
def test_every_state_goes_on_to_the_same_bits(name: str) -> None:
    options: dict[str, Any] = {"batch_size": 16, "memory": 1 if "memory" in name else None}
    if "exhausted" in name:
        options["params"] = ["2.*"]
    settings = Settings(**RESUMED[name])
    whole, states = carried_out("trace", small_problem(**options), settings, Start(7))
    assert len(states) == whole.products + 2
    for start in states[:-1]:
        again, _ = carried_out("trace", small_problem(**options), settings, start)
        assert_same_bits(again, whole)


def test_a_taken_over_basis_goes_on_to_the_same_bits() -> None:
    eigen = landscape.eigen(small_problem(batch_size=16), k=3, krylov=True, seed=1)
    settings = Settings(tol=1e-6, max_products=25)
    whole, states = carried_out("trace", small_problem(batch_size=16), settings, Start(7), eigen)
    assert whole.taken_over > 5
    for start in states[:-1]:
        again, _ = carried_out("trace", small_problem(batch_size=16), settings, start)
        assert_same_bits(again, whole)


def test_a_time_limit_stores_what_there_is_and_the_same_call_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    options: dict[str, Any] = {"tol": 1e-3, "max_products": 40, "seed": 0}
    whole = landscape.trace(small_problem(batch_size=16), **options)
    limited = landscape.trace(small_problem(batch_size=16), **options, output=str(path), time_limit=0.0)
    assert (limited.status, exit_code(limited)) == ("partial", 4)
    assert math.isnan(limited.trace)
    assert "no random vector" in limited.interval_reason
    listener = Listener()
    again = landscape.trace(small_problem(batch_size=16), **options, output=str(path), observer=listener)
    assert any("resumed" in note for note in listener.notes)
    assert_same_bits(again, whole)
    assert [header.status for header in ResultFile(path).runs()] == [whole.status]


class _StopsAfter(Listener):
    """Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def progress(self, done: int, total: int | None, text: str) -> None:
        super().progress(done, total, text)
        if done == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [1, 13])
def test_ctrl_c_keeps_what_was_done_in_the_file(method: str, step: int, tmp_path: Path) -> None:
    settings = Settings(tol=0.0, max_products=24, method=method)  # type: ignore[arg-type]
    run = RunSettings(seed=3, output=str(tmp_path / "a.h5"))
    with pytest.raises(Interrupted, match=f"{step} steps are kept"):
        execute("trace", small_problem(batch_size=16), settings, run, observer=_StopsAfter(step))
    assert list(tmp_path.glob("*.partial"))
    listener = Listener()
    result = execute("trace", small_problem(batch_size=16), settings, run, observer=listener)
    assert any(f"resumed at step {step}" in note for note in listener.notes)
    whole = execute("trace", small_problem(batch_size=16), settings, RunSettings(seed=3), store=False)
    assert_same_bits(result, whole)
    assert not list(tmp_path.glob("*.partial"))


def test_the_diagonal_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    from landscape.store import read_vectors

    problem = small_problem(dtype="float64", batch_size=50)
    options: dict[str, Any] = {"tol": 0.0, "max_products": 20, "diagonal": True, "seed": 0}
    fresh = landscape.trace(problem, **options)
    stored = landscape.trace(problem, **options, output=str(tmp_path / "a.h5"))
    assert stored.diagonal_file is not None
    np.testing.assert_array_equal(read_vectors(tmp_path / stored.diagonal_file)[0], fresh.diagonal)


def test_memory_running_out_makes_pieces_smaller_and_keeps_what_was_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from landscape.curvature.hessian import HessianOperator

    right = landscape.trace(small_problem(dtype="float64"), tol=0.0, max_products=20, seed=0)
    plain, calls = HessianOperator.apply, []

    def scarce(self: HessianOperator, vectors: torch.Tensor) -> torch.Tensor:
        calls.append(self.strategy.micro_batch)
        if len(calls) > 10 and self.strategy.micro_batch > 13:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, vectors)

    monkeypatch.setattr(HessianOperator, "apply", scarce)
    result = landscape.trace(small_problem(dtype="float64"), tol=0.0, max_products=20, seed=0)
    assert result.trace == pytest.approx(right.trace, rel=1e-9)
    assert (result.products, result.status) == (20, "complete")


def test_looks_on_the_way_are_kept() -> None:
    result = landscape.trace(small_problem(dtype="float64"), tol=0.02, max_products=45, seed=1)
    assert (np.diff(result.look_products) > 0).all()
    assert result.look_products[-1] == result.products
    assert result.confidence == trace_work.CONFIDENCE
