"""``landscape noise`` against dense matrices, closed forms and its own promises."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape.analyses import noise
from landscape.analyses.base import Start
from landscape.analyses.noise import Settings
from landscape.analyses.noise_result import batch_draws
from landscape.curvature.operators import OperatorChoice, make_operator
from landscape.curvature.strategy import Strategy
from landscape.errors import ComputationError, ConfigurationError, DataError
from landscape.problem import Problem
from landscape.results import EigenResult, NoiseResult
from landscape.run import RunSettings, execute
from tests.run.support import assert_same_bits, carried_out, small_problem
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import mlp, tiny_transformer, tokens

RUN = RunSettings(seed=3)


def measured(problem: Problem, **options: Any) -> NoiseResult:
    result = execute("noise", problem, Settings(**options), RUN, store=False)
    assert isinstance(result, NoiseResult)
    return result


def dense(problem: Problem, name: str) -> Tensor:
    operator = make_operator(problem, Strategy(problem.examples, 1, 0, 0), OperatorChoice(name))
    return operator.apply(torch.eye(problem.size, dtype=problem.dtype))


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


def share(c: Tensor, a: Tensor, k: int) -> float:
    top = torch.linalg.eigh(a).eigenvectors[:, -k:]
    return float(torch.trace(top.T @ c @ top) / c.trace())


def regression(x: Tensor, y: Tensor, w: Tensor, **options: Any) -> Problem:
    model = nn.Linear(x.shape[1], 1, bias=False).double()
    model.weight.data = w[None]
    return Problem(model, "mse", (x, y[:, None]), **options)


# --- closed forms ----------------------------------------------------------------------------------------


def test_softmax_regression_to_rounding() -> None:
    """The eigenspaces span all directions but those that the softmax does not see: every figure is exact."""
    x, y = classification(40, 4, 3)
    model = nn.Linear(4, 3, bias=False).double()
    problem = Problem(model, "cross_entropy", (x, y))
    w = model.weight.detach()
    p = torch.softmax(x @ w.T, 1)
    each = torch.einsum("ic,if->icf", p - nn.functional.one_hot(y, 3), x).reshape(40, 12)
    c = (each - each.mean(0)).T @ (each - each.mean(0)) / 40
    inner = torch.diag_embed(p) - torch.einsum("ic,id->icd", p, p)
    g = torch.einsum("icd,if,ie->cfde", inner, x, x).reshape(12, 12) / 40
    found = measured(problem, k=6)
    assert found.status == "complete"
    assert found.exact_dimensions >= 8
    assert np.allclose(found.cosines, cosine(c, g), atol=1e-10)
    assert np.isclose(found.curvature_cosine or 0.0, 1.0, atol=1e-10)
    assert np.allclose(found.shares, share(c, g, 6), atol=1e-4)
    assert np.isclose(found.noise_trace, float(c.trace()), rtol=1e-10)
    assert np.isclose(found.noise_frobenius, float(c.norm()), rtol=1e-10)
    assert np.allclose(found.traces, float(g.trace()), rtol=1e-10)
    assert np.isclose(found.noise_per_curvature or 0.0, float((c * g).sum() / g.trace()), rtol=1e-10)
    expected = float((c * g).sum() / (2 * found.loss * g.norm() ** 2))
    assert np.isclose(found.scaled_alignment or 0.0, expected, rtol=1e-10)
    assert np.allclose(found.diagonal_correlations, np.corrcoef(c.diagonal(), g.diagonal())[0, 1], atol=1e-9)
    assert np.isclose(found.noise_scale or 0.0, float(c.trace()) / found.gradient_norm**2, rtol=1e-10)
    assert found.chance_share == 0.5


def test_residuals_of_one_size_make_the_noise_a_multiple_of_the_curvature() -> None:
    """(xw − y)² with residuals ±1 at each x: ∇L = 0, C = 2G = 2H, L = 1."""
    x = torch.randn(30, 5, generator=generator(1), dtype=FLOAT64) * torch.arange(1.0, 6.0, dtype=FLOAT64)
    w = torch.arange(5, dtype=FLOAT64)
    problem = regression(torch.cat([x, x]), torch.cat([x @ w + 1, x @ w - 1]), w)
    found = measured(problem, k=2)
    assert np.allclose(found.cosines, 1.0, atol=1e-12)
    assert np.isclose(found.scaled_alignment or 0.0, 1.0, rtol=1e-9)
    assert np.isclose(found.relative_size or 0.0, 1.0, rtol=1e-9)
    assert np.allclose(found.diagonal_correlations, 1.0, atol=1e-6)
    reach = np.ptp(found.trace_intervals, axis=1)
    assert (abs(2 * found.traces - found.noise_trace) <= 2 * reach).all()
    assert found.gradient_norm < 1e-12


def test_gaussian_residuals_tend_to_it() -> None:
    """Residuals independent of x: C → 2L·G as the data grow, so that the alignment tends to 1."""
    g = generator(2)
    x = torch.randn(4000, 4, generator=g, dtype=FLOAT64) * torch.arange(1.0, 5.0, dtype=FLOAT64)
    w = torch.ones(4, dtype=FLOAT64)
    problem = regression(x, x @ w + torch.randn(4000, generator=g, dtype=FLOAT64), w)
    found = measured(problem, k=2, draws=2)
    assert (found.cosines > 0.99).all()
    assert np.isclose(found.scaled_alignment or 0.0, 1.0, atol=0.1)


def test_noise_where_there_is_no_curvature_shared() -> None:
    """The residuals live on one input, the largest curvature is on others: no noise in its eigenspace."""
    x = torch.eye(4, dtype=FLOAT64).repeat(2, 1) * torch.tensor([1.0, 5.0, 4.0, 3.0], dtype=FLOAT64)
    y = torch.zeros(8, dtype=FLOAT64)
    y[0], y[4] = 1.0, -1.0
    found = measured(regression(x, y, torch.zeros(4, dtype=FLOAT64)), k=2)
    assert np.allclose(found.shares, 0.0, atol=1e-12)
    assert (found.cosines < 0.1).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_net_with_random_vectors(dtype: str) -> None:
    """Most of the space is left to random vectors; each figure within its interval, widened a little."""
    x, y = classification(60, 6, 4)
    problem = Problem(mlp(6, 10, 4), "cross_entropy", (x, y), dtype=dtype)
    c, g, h = (dense(problem, name) for name in ("noise", "gauss-newton", "hessian"))
    found = measured(problem, k=4, tol=0.05, draws=2)
    assert found.probes >= 8
    for i, a in enumerate((g, h)):
        assert abs(found.cosines[i] - cosine(c, a)) <= 1.5 * np.ptp(found.cosine_intervals[i]) / 2 + 1e-6
        assert abs(found.traces[i] - float(a.trace())) <= 1.5 * np.ptp(found.trace_intervals[i]) / 2
        truth = np.corrcoef(c.diagonal(), a.diagonal())[0, 1]
        assert abs(found.diagonal_correlations[i] - truth) <= np.ptp(found.diagonal_intervals[i])
        assert abs(found.shares[i] - share(c, a, 4)) <= found.share_space_errors[i] + 1e-5
        assert np.allclose(
            found.top_eigenvalues[i], torch.linalg.eigvalsh(a).flip(0)[:4], atol=1e-3 * float(a.norm())
        )
    low, high = found.curvature_cosine_interval if found.curvature_cosine_interval is not None else (0, 0)
    assert low < cosine(g, h) < high
    assert (np.diff(found.look_products) > 0).all()


# --- mini-batches ----------------------------------------------------------------------------------------


def test_the_formula_is_the_mean_over_all_minibatches() -> None:
    """All subsets of six examples, for every size."""
    x, y = classification(6, 3, 2)
    problem = Problem(mlp(3, 2), "cross_entropy", (x, y), dtype="float64")
    found = measured(problem, k=2, draws=2)
    trace, squared = found.noise_trace, found.gradient_norm**2
    for size in range(1, 7):
        subsets = [
            problem.minibatch(torch.tensor(rows)).measure().gradient.square().sum()
            for rows in itertools.combinations(range(6), size)
        ]
        expected = squared + (6 - size) / 5 * trace / size
        assert np.isclose(float(torch.stack(subsets).mean()), expected, rtol=1e-10)
    assert found.batch_sizes.tolist() == [1, 2]
    assert np.allclose(found.predicted_squares, [squared + trace, squared + 4 / 5 * trace / 2])


def test_minibatches_agree_with_the_prediction() -> None:
    found = measured(small_problem(weight_decay=0.05), k=2, tol=0.5, draws=60)
    assert found.batch_sizes.tolist() == [1, 2, 4, 8, 16]
    off = (found.gradient_squares - found.predicted_squares) / found.gradient_square_errors
    assert (abs(off) < 4).all()


def test_small_minibatches_are_drawn_as_often_as_a_pass_makes_them() -> None:
    assert batch_draws(100, 16) == [(1, 100), (2, 50), (4, 25), (8, 16), (16, 16), (32, 16)]
    assert batch_draws(10**6, 32)[0] == (1, 1024)
    assert batch_draws(2, 3) == [(1, 3)]


# --- resumption ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"batch_size": 16}, {"k": 3, "tol": 0.05, "draws": 2}),
        ({"batch_size": 50, "dtype": "float64"}, {"k": 2, "against": "hessian", "tol": 1e-9, "draws": 2}),
    ],
    ids=["both", "hessian"],
)
def test_every_state_goes_on_to_the_same_bits(options: dict[str, Any], settings: dict[str, Any]) -> None:
    chosen = Settings(max_products=150, **settings)
    whole, states = carried_out("noise", small_problem(**options), chosen, Start(7))
    # Every state of the first phases, a sample of the many mini-batches.
    for start in [*states[:-100:7], *states[-100:-1:33]]:
        again, _ = carried_out("noise", small_problem(**options), chosen, start)
        assert_same_bits(again, whole)


def test_a_result_of_any_state() -> None:
    """A limit may stop it anywhere: what is not known then is not a figure."""
    problem, settings = small_problem(), Settings(k=3, draws=2, tol=0.1)
    seen = set()
    for state in noise.steps(problem, settings, {}, Start(7)):
        if state.text in seen:
            continue
        seen.add(state.text)
        result = noise.finish(problem, settings, state.save())
        assert result.status == ("complete" if state.over else "not_converged")
    assert result.batch_sizes.size
    assert len(seen) > 8


# --- earlier runs ----------------------------------------------------------------------------------------


def test_eigenvectors_of_a_stored_run_are_taken_over(tmp_path: Any) -> None:
    from landscape.analyses import eigen

    run = RunSettings(seed=3, output=str(tmp_path / "r.h5"))
    problem = small_problem(dtype="float64")
    execute("eigen", problem, eigen.Settings(k=4, eigenvectors=True, tol=1e-6), run)
    with_run = execute("noise", problem, Settings(k=3, draws=2, tol=0.1), run)
    without = execute("noise", problem, Settings(k=3, draws=2, tol=0.1, reuse=False), run)
    assert isinstance(with_run, NoiseResult)
    assert isinstance(without, NoiseResult)
    assert with_run.provenance is not None
    assert "eigen" in with_run.provenance.strategy["inputs"]
    assert with_run.products < without.products
    assert np.allclose(with_run.shares, without.shares, atol=1e-4)


def test_which_runs_can_be_taken_over() -> None:
    from landscape.analyses import eigen

    problem = small_problem()

    def run(**options: Any) -> Any:
        return execute("eigen", problem, eigen.Settings(**options), RUN, store=False)

    good = run(k=4, eigenvectors=True)
    assert isinstance(good, EigenResult)
    assert noise.usable(Settings(k=3), good)
    assert not noise.usable(Settings(k=4), good)
    assert not noise.usable(Settings(k=3), run(k=4))
    assert not noise.usable(Settings(k=3), run(k=4, eigenvectors=True, operator="gauss-newton"))
    assert not noise.usable(Settings(k=3), run(k=4, eigenvectors=True, which="smallest"))
    assert noise.needs(Settings(reuse=False)) == noise.needs(Settings(against="gauss-newton")) == ()


# --- what may go wrong -----------------------------------------------------------------------------------


def whole_loss(model: nn.Module, batch: Any) -> Tensor:
    mean: Tensor = (model(batch["x"]) ** 2).mean()
    return mean


def test_a_loss_of_the_model_has_no_gauss_newton_matrix() -> None:
    problem = Problem(mlp(4, 3), whole_loss, {"x": torch.randn(12, 4, generator=generator(1))})
    with pytest.raises(ConfigurationError, match="--against hessian"):
        measured(problem)
    found = measured(problem, against="hessian", k=2, draws=2, tol=0.1)
    assert found.matrices.tolist() == ["hessian"]
    assert found.noise_per_curvature is None
    assert np.isfinite(found.cosines).all()


def test_a_loss_that_is_not_convex_says_what_to_do() -> None:
    x = torch.randn(20, 4, generator=generator(1))

    def sine(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.sin(3 * outputs - targets).mean()

    problem = Problem(mlp(4, 1), sine, (x, torch.zeros(20, 1)))
    with pytest.raises(ComputationError, match="--against hessian"):
        measured(problem)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_examples_have_no_noise(dtype: str) -> None:
    x = torch.ones(7, 4)
    problem = Problem(mlp(4, 3), "cross_entropy", (x, torch.ones(7, dtype=torch.int64)), dtype=dtype)
    found = measured(problem, k=2, draws=2)
    assert found.status == "complete"
    assert "no noise" in found.undefined
    assert found.noise_trace == 0.0
    assert np.isnan(found.cosines).all()
    assert np.allclose(found.gradient_squares, found.gradient_norm**2, rtol=1e-4)


def test_one_example_has_no_covariance() -> None:
    x, y = classification(1, 4, 3)
    with pytest.raises(DataError, match="at least two examples"):
        measured(Problem(mlp(4, 3), "cross_entropy", (x, y)))


def test_one_example_with_terms_has_no_covariance() -> None:
    problem = Problem(
        mlp(4, 3), "cross_entropy", (torch.randn(3, 4, generator=generator(1)), torch.tensor([-100, 1, -100]))
    )
    with pytest.raises(DataError, match="1 with terms"):
        measured(problem)


def test_train_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave --train-mode out"):
        measured(small_problem(train_mode=True))


def test_too_few_products_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 120"):
        Settings(k=10, max_products=119)


def test_a_budget_that_is_too_small_is_said() -> None:
    found = measured(small_problem(), k=3, max_products=78, tol=1e-9, draws=2)
    assert found.status == "not_converged"
    assert found.products <= 78
    assert np.isfinite(found.cosine_intervals).all()


def test_a_zero_gradient_has_no_noise_scale() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    model.weight.data.zero_()
    x = torch.randn(6, 3, generator=generator(1), dtype=FLOAT64)
    y = torch.tensor([1.0, -1.0] * 3, dtype=FLOAT64)[:, None]
    problem = Problem(model, "mse", (x[[0, 0, 1, 1, 2, 2]], y))
    found = measured(problem, k=1, draws=2)
    assert found.gradient_norm == 0.0
    assert found.noise_scale is None
    assert np.isfinite(found.cosines).all()


def test_masked_tokens_tied_weights_and_ragged_batches() -> None:
    x, y = tokens(9, 6, generator(1), vocabulary=12)
    y = y.clone()
    y[2, 1:], y[5, 3:], y[7] = -100, -100, -100
    whole = Problem(tiny_transformer(), "cross_entropy", (x, y), dtype="float64")
    found = measured(whole, k=2, tol=0.5, draws=2)
    ragged = [(x[:4], y[:4]), (x[4:], y[4:])]
    again = measured(
        Problem(tiny_transformer(), "cross_entropy", ragged, dtype="float64"), k=2, tol=0.5, draws=2
    )
    assert found.counted_examples == 8
    assert found.terms == 40
    assert np.allclose(found.cosines, again.cosines, rtol=1e-8)
    assert np.isclose(found.noise_trace, again.noise_trace, rtol=1e-10)


def test_nothing_is_changed() -> None:
    problem = small_problem()
    before = [p.detach().clone() for p in problem.model.parameters()]
    state = torch.get_rng_state()
    measured(problem, k=2, tol=0.5, draws=2)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in problem.model.parameters())


def test_the_plan_is_near_what_it_takes() -> None:
    problem, settings = small_problem(), Settings(k=3, draws=2, tol=0.1)
    plan, found = noise.plan(problem, settings), measured(problem, k=3, draws=2, tol=0.1)
    assert found.products / 3 < plan.products < 3 * found.products
    assert plan.at_most == 1000
