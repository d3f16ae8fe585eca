"""``landscape.density`` against dense matrices, at its limits, and taken up again from any state."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape.analyses import density
from landscape.analyses.base import Start
from landscape.analyses.density import Settings
from landscape.errors import ConfigurationError, Interrupted
from landscape.linalg.density import wasserstein
from landscape.problem import Problem
from landscape.results import DensityResult
from landscape.run import RunSettings, execute, exit_code, plan
from landscape.store import ResultFile
from tests.curvature.naive import case
from tests.run.support import Listener, assert_same_bits, carried_out, small_problem
from tests.support.closed_form import matrix_of

BY_LAYER = (
    *("layers", "layer_parameters", "layer_traces", "layer_trace_errors", "layer_ends", "layer_end_errors"),
    *("layer_nodes", "layer_weights"),
)
NETS = ("cross-entropy, ragged", "masked tokens, tied", "BatchNorm", "unused and frozen", "restricted")


def eigenvalues(matrix: torch.Tensor) -> np.ndarray:
    return np.linalg.eigvalsh(matrix.numpy())[::-1]


def least_squares(inputs: torch.Tensor, **options: Any) -> Problem:
    """½ mean (x·w − y)²: the Hessian is XᵀX/n."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(inputs.shape[1], 1, bias=False)
        targets = torch.randn(len(inputs), 1)
    half = lambda outputs, targets: ((outputs - targets) ** 2).mean() / 2  # noqa: E731
    return Problem(model, half, (inputs, targets), **options)


# --- against the dense matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_every_figure_is_that_of_the_dense_matrix_within_its_error(name: str) -> None:
    found, values = case(name), eigenvalues(case(name).hessian())
    result = landscape.density(found.problem, probes=3, steps=25, effective_dimension=0.01, seed=4)
    n, reach = len(values), values[0] - values[-1]
    assert (result.status, result.parameters) == ("complete", n)
    assert wasserstein(result.nodes, result.weights, values) < 0.03 * reach
    # Four standard errors: a handful of figures of a few nets, and each is one draw.
    for q in range(4):
        exact = float(np.mean(values ** (q + 1)))
        error = 4 * result.moment_errors[q] + 1e-9 * abs(exact)
        assert abs(result.moments[q] - exact) <= error, q + 1
    assert abs(result.trace - values.sum()) <= 4 * result.trace_error + 1e-9 * reach
    assert result.trace == pytest.approx(n * result.moments[0], rel=1e-12)
    assert abs(result.lambda_max - values[0]) <= result.lambda_max_residual + 1e-12 * reach
    assert abs(result.lambda_min - values[-1]) <= result.lambda_min_residual + 1e-12 * reach
    low, high = result.negative_share_bounds
    assert low - 1e-12 <= np.mean(values < -1e-10 * reach) <= high + 1e-12
    assert low <= result.negative_share <= high
    positive = np.maximum(values, 0.0)
    assert result.effective_dimension_bounds is not None
    low, high = result.effective_dimension_bounds
    assert low - 1e-9 <= np.sum(positive / (positive + 0.01)) <= high + 1e-9
    np.testing.assert_allclose(result.weights.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(result.measured_weights.sum(axis=1), 1.0, rtol=1e-12)


def test_single_eigenvalues_are_eigenvalues_each_once() -> None:
    found, values = case("cross-entropy, ragged"), eigenvalues(case("cross-entropy, ragged").hessian())
    result = landscape.density(found.problem, probes=2, steps=30, seed=1)
    assert len(result.outliers) >= 4
    for value, residual in zip(result.outliers, result.outlier_residuals, strict=True):
        assert np.abs(values - value).min() <= residual + result.noise_floor
    assert (np.diff(result.outliers) < 0).all()
    np.testing.assert_allclose(result.outliers[:3], values[:3], rtol=1e-6)
    assert result.outlier_weights[0] == 1 / len(values)


@pytest.mark.parametrize("operator", ["gauss-newton", "empirical-fisher", "noise"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_semi_definite_matrices_have_no_negative_nodes(operator: str, dtype: str) -> None:
    problem = small_problem(dtype=dtype, batch_size=50)
    result = landscape.density(problem, operator=operator, probes=3, seed=0)
    assert result.nodes.min() >= -result.noise_floor
    assert result.negative_share == 0.0
    assert result.lambda_min >= -result.noise_floor
    assert result.moments.min() > 0


def test_the_hessian_has_negative_eigenvalues() -> None:
    """So the test before this one could fail."""
    problem = small_problem(dtype="float64", batch_size=50)
    values = eigenvalues(matrix_of(problem))
    result = landscape.density(problem, probes=3, seed=0)
    assert result.negative_share == pytest.approx(np.mean(values < -1e-12), abs=1e-9)
    assert result.lambda_min == pytest.approx(values[-1], rel=1e-9)


def test_layers_have_densities_of_their_own() -> None:
    problem = small_problem(dtype="float64", batch_size=50)
    matrix = matrix_of(problem)
    result = landscape.density(problem, per_layer=True, steps=60, seed=0)
    assert result.layers is not None
    assert result.layer_nodes is not None
    assert result.layer_weights is not None
    assert result.layers.tolist() == ["0", "2"]
    for i, block in enumerate((slice(0, 30), slice(30, 51))):
        values = eigenvalues(matrix[block, block])
        reach = values[0] - values[-1]
        assert wasserstein(result.layer_nodes[i], result.layer_weights[i], values) < 0.005 * reach
        np.testing.assert_allclose(result.layer_weights[i].sum(axis=1), 1.0, rtol=1e-12)
        assert result.layer_traces is not None
        assert result.layer_trace_errors is not None
        assert result.layer_ends is not None
        assert result.layer_end_errors is not None
        off = abs(result.layer_traces[i] - values.sum())
        assert off <= 4 * result.layer_trace_errors[i] + 1e-9 * np.abs(values).sum()
        assert (np.abs(result.layer_ends[i] - values[[0, -1]]) <= result.layer_end_errors[i] + 1e-9).all()
    whole = landscape.density(problem, steps=60, seed=0)
    assert result.products > whole.products
    assert_same_bits(whole, result, but=(*BY_LAYER, "products", "passes"))


def test_errors_of_the_trace_have_the_size_they_claim() -> None:
    problem = small_problem(dtype="float64", batch_size=50)
    exact, scores = float(matrix_of(problem).trace()), []
    for seed in range(40):
        result = landscape.density(problem, probes=4, steps=8, seed=seed)
        low, high = result.trace_interval
        assert high - low == pytest.approx(2 * 1.959964 * result.trace_error)
        scores.append((result.trace - exact) / result.trace_error)
    assert abs(np.mean(scores)) < 4 / 40**0.5
    assert 0.6 < np.std(scores) < 1.5


# --- edges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("probes", [1, 2, 5])
def test_the_identity_is_one_node_and_known_exactly(probes: int, dtype: str) -> None:
    x = torch.linalg.qr(torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    problem = least_squares(x.Q * 40**0.5, dtype=dtype)
    result = landscape.density(problem, probes=probes, effective_dimension=1.0, seed=0)
    rounding = 1e-12 if dtype == "float64" else 1e-5
    assert result.nodes.shape == (probes, 1)
    np.testing.assert_allclose(result.nodes, 1.0, atol=rounding)
    np.testing.assert_allclose(result.weights, 1.0)
    assert result.trace == pytest.approx(6.0, abs=6 * rounding)
    assert result.trace_error <= 6 * rounding
    assert result.products == probes
    assert result.effective_dimension == pytest.approx(3.0, abs=6 * rounding)
    assert (result.status, result.negative_share) == ("complete", 0.0)


def test_a_matrix_of_zeros() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Linear(4, 3), torch.randn(30, 4)
    problem = Problem(model, lambda outputs, targets: outputs.mean(), (x, torch.zeros(30)))
    with np.errstate(divide="raise", invalid="raise"):
        result = landscape.density(problem, per_layer=True, effective_dimension=0.1, seed=0)
    assert (result.status, result.trace, result.trace_error) == ("complete", 0.0, 0.0)
    assert (result.negative_share, result.effective_dimension) == (0.0, 0.0)
    assert not np.signbit(result.negative_share_bounds).any()
    assert result.outlier_weights.tolist() == [1 / 15] or result.outlier_weights.tolist() == [1.0]


def test_more_steps_than_parameters_end_with_the_space() -> None:
    problem = small_problem(dtype="float64", batch_size=50, params=["2.bias"])
    values = eigenvalues(matrix_of(problem))
    result = landscape.density(problem, steps=500, probes=2, seed=0)
    assert result.products <= 6
    assert wasserstein(result.nodes, result.weights, values) < 1e-10
    assert result.trace_error < 1e-10
    assert result.steps == 500


def test_one_parameter() -> None:
    x = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    result = landscape.density(least_squares(x, dtype="float64"), seed=0)
    assert result.nodes.tolist() == [[pytest.approx(float(x.double().square().mean()))]] * 2
    assert result.trace_error == 0.0


@pytest.mark.parametrize("probes", [1, 3])
def test_one_step_knows_no_error(probes: int) -> None:
    """A single node each says nothing of the spread: no interval of width zero is claimed."""
    result = landscape.density(small_problem(), probes=probes, steps=1, effective_dimension=0.1, seed=0)
    assert result.status == "complete"
    assert math.isfinite(result.trace)
    assert math.isnan(result.trace_error)
    assert np.isnan(result.trace_interval).all()
    assert np.isnan(result.moment_errors).all()
    assert math.isnan(result.effective_dimension_error or 0.0)
    assert result.negative_share_bounds.tolist() == [0.0, 1.0]


def test_one_probe_has_errors_all_the_same() -> None:
    result = landscape.density(small_problem(dtype="float64"), probes=1, steps=30, seed=0)
    assert result.trace_error > 0
    assert (result.moment_errors > 0).all()


def test_wrong_options_are_refused() -> None:
    for options, words in [
        ({"probes": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"effective_dimension": 0.0}, "positive"),
        ({"effective_dimension": math.nan}, "positive"),
        ({"effective_dimension": math.inf}, "positive"),
        ({"rho": 0.1}, "finite differences"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            landscape.density(small_problem(), **options)  # type: ignore[arg-type]


def test_a_plan_says_what_it_would_take() -> None:
    problem = small_problem()
    told = plan("density", problem, Settings(probes=3, steps=20), RunSettings())
    assert (told.products, told.at_most) == (60, 60)
    result = landscape.density(problem, probes=3, steps=20, per_layer=True)
    told = plan("density", problem, Settings(probes=3, steps=20, per_layer=True), RunSettings())
    assert result.products <= told.products == 60 + 2 * 60
    assert plan("density", problem, Settings(steps=10**6), RunSettings()).products == 2 * problem.size


# --- going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"probes": 2, "steps": 12}),
        ({"dtype": "float64"}, {"probes": 2, "steps": 7, "per_layer": True, "effective_dimension": 0.1}),
        ({"params": ["2.bias"]}, {"probes": 3, "steps": 50}),
        ({}, {"probes": 1, "steps": 1}),
        ({}, {"steps": 6, "operator": "fisher", "label_samples": 2}),
        ({}, {"steps": 5, "operator": "finite-difference", "rho_sweep": True}),
    ],
    ids=["plain", "layers", "exhausted", "one step", "fisher", "swept differences"],
)
def test_every_state_goes_on_to_the_same_bits(options: dict[str, Any], settings: dict[str, Any]) -> None:
    options = {"batch_size": 16, **options}
    chosen = Settings(**settings)
    whole, states = carried_out("density", small_problem(**options), chosen, Start(7))
    assert len(states) == whole.products + 2
    for start in states[:-1]:
        again, _ = carried_out("density", small_problem(**options), chosen, start)
        assert_same_bits(again, whole)


def test_what_it_is_compared_with_is_kept_through_an_interruption() -> None:
    problem = small_problem(batch_size=16)
    trace = landscape.trace(problem, tol=0.5, seed=0)
    assert trace.status == "complete"
    whole, states = carried_out("density", problem, Settings(steps=5), Start(7), trace)
    again, _ = carried_out("density", problem, Settings(steps=5), states[3])
    assert again.trace_run == trace.trace
    assert_same_bits(again, whole)


def test_every_state_is_a_result() -> None:
    """Whatever a limit leaves is consistent: as far as it went, whole probes only once there is one."""
    from landscape.analyses import density

    problem, settings = small_problem(batch_size=16), Settings(probes=2, steps=6, per_layer=True)
    rows = []
    for state in density.steps(problem, settings, {}, Start(7)):
        result = density.finish(problem, settings, state.save())
        rows.append(result.nodes.shape[0])
        assert (result.status == "complete") == state.over
        if result.products:
            np.testing.assert_allclose(result.weights.sum(axis=1), 1.0, rtol=1e-12)
            assert result.lambda_max >= result.lambda_min
    assert rows[0] == 0
    assert rows[1] == 1
    assert rows[-1] == 2


def test_a_time_limit_before_anything_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    whole = landscape.density(small_problem(batch_size=16), steps=9, seed=0)
    limited = landscape.density(
        small_problem(batch_size=16), steps=9, seed=0, output=str(path), time_limit=0.0
    )
    assert (limited.status, exit_code(limited), limited.products) == ("partial", 4, 0)
    assert math.isnan(limited.trace)
    assert limited.nodes.shape == (0, 0)
    assert limited.to_json()["trace"] is None
    (header,) = ResultFile(path).runs()
    stored = ResultFile(path).read(header.id)
    assert isinstance(stored, DensityResult)
    assert_same_bits(stored, limited)
    again = landscape.density(small_problem(batch_size=16), steps=9, seed=0, output=str(path))
    assert_same_bits(again, whole)


class _StopsAfter(Listener):
    """Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def progress(self, done: int, total: int | None, text: str) -> None:
        super().progress(done, total, text)
        if done == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [1, 8, 9, 20, 30])
def test_ctrl_c_keeps_what_was_done_in_the_file(step: int, tmp_path: Path) -> None:
    settings = Settings(probes=2, steps=8, per_layer=True)
    run = RunSettings(seed=3, output=str(tmp_path / "a.h5"))
    with pytest.raises(Interrupted, match=f"{step} steps are kept"):
        execute("density", small_problem(batch_size=16), settings, run, observer=_StopsAfter(step))
    listener = Listener()
    result = execute("density", small_problem(batch_size=16), settings, run, observer=listener)
    assert any(f"resumed at step {step}" in note for note in listener.notes)
    whole = execute("density", small_problem(batch_size=16), settings, RunSettings(seed=3), store=False)
    assert_same_bits(result, whole)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("outputs", [2, 3])
def test_repeated_eigenvalues_are_not_taken_for_single_ones(outputs: int) -> None:
    """A linear model with several outputs: each eigenvalue is as many times there as there are outputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 40, generator=generator) / torch.arange(1, 41)
    targets = torch.randn(200, outputs, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(40, outputs, bias=False)
    problem = Problem(model, "mse", (inputs, targets), dtype="float64", batch_size=200)
    values = np.repeat(eigenvalues((2 / (200 * outputs) * inputs.T @ inputs).double()), outputs)
    held = 0
    for seed in range(12):
        result = landscape.density(problem, steps=30, seed=seed)
        assert abs(result.trace - values.sum()) < 4 * result.trace_error
        held += bool(result.trace_interval[0] <= values.sum() <= result.trace_interval[1])
        assert float(result.outlier_weights.max()) > 1.5 / problem.size
    assert held >= 9


def test_a_time_limit_among_the_layers_keeps_what_there_is() -> None:
    settings, start = Settings(probes=2, steps=6, per_layer=True), Start(3)
    whole, states = carried_out("density", small_problem(batch_size=16), settings, start)
    assert isinstance(whole, DensityResult)
    for begun in states[len(states) // 3 :]:
        assert begun.saved is not None
        partial = density.finish(small_problem(batch_size=16), settings, begun.saved)
        assert partial.layers is None or partial.layer_nodes.shape[1] == 2  # type: ignore[union-attr]
