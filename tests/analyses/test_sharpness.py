"""``sharpness`` against dense matrices and plain loops, and the coverage of its intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from landscape.analyses import sharpness as analysis
from landscape.analyses.base import Start
from landscape.analyses.sharpness import SWEEP, Settings
from landscape.analyses.trace import Settings as TraceSettings
from landscape.linalg.probes import derived_seed
from landscape.problem import Problem
from landscape.results import SharpnessResult, TraceResult
from landscape.run import RunSettings, execute, exit_code
from landscape.sam.sharpness import groups_of
from tests.curvature.naive import case
from tests.run.support import small_problem
from tests.sam.surfaces import Point, problem_of, quadratic
from tests.support.closed_form import FLOAT64, generator
from tests.support.spectra import rotated

INDEFINITE = np.array([5.0, 2.0, 0.3, 0.0, -0.2, -1.0, -3.0])
NETS = (
    "cross-entropy, ragged",
    "masked tokens, tied",
    "BatchNorm",
    "unused and frozen",
    "restricted",
    "callable",
)


def run(problem: Problem, seed: int = 0, **settings: Any) -> SharpnessResult:
    result = execute("sharpness", problem, Settings(**settings), RunSettings(seed=seed), store=False)
    assert isinstance(result, SharpnessResult)
    return result


def bowl(scale: float = 1.0, **options: Any) -> tuple[Problem, Tensor, Tensor]:
    """(1 + bᵀw + ½wᵀAw at 0, A, b)."""
    matrix = scale * rotated(INDEFINITE, 2)
    slope = scale * torch.randn(7, generator=generator(11), dtype=FLOAT64)
    return quadratic(matrix, slope, **options), matrix, slope


# --- figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_every_term_is_that_of_the_dense_matrix(name: str) -> None:
    found = case(name)
    rho = 1e-5
    result = run(found.problem, rho=rho, max_directions=2)
    g, h = sum(found.gradients) / found.counts.sum(), found.hessian()
    assert isinstance(g, Tensor)
    u = g / g.norm()
    assert result.first_order == pytest.approx(rho * float(g.norm()), rel=1e-10)
    assert result.second_order == pytest.approx(float(rho**2 * u @ h @ u) / 2, rel=1e-8)
    assert result.remainder == pytest.approx(result.increase - result.first_order - result.second_order)
    assert abs(result.remainder) < 1e-2 * abs(result.second_order) + 1e-12  # of third order
    assert result.arithmetic == "float64"


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_on_a_quadratic_nothing_is_left_and_the_sweep_is_the_expansion(scale: float) -> None:
    problem, matrix, slope = bowl(scale)
    result = run(problem, rho=0.3, rho_sweep=True, max_directions=8)
    assert result.remainder_error is not None
    assert result.remainder is not None
    assert abs(result.remainder) <= result.remainder_error
    assert result.remainder_error < 1e-14
    assert result.rho_sweep is not None
    np.testing.assert_allclose(result.rho_sweep, 0.3 * np.array(SWEEP))
    assert (result.rho_sweep[0], result.rho_sweep[-1]) == pytest.approx((0.003, 3.0))
    size, u = float(slope.norm()), slope / slope.norm()
    exact = result.rho_sweep * size + result.rho_sweep**2 / 2 * float(u @ matrix @ u)
    np.testing.assert_allclose(result.sweep_increases, exact, rtol=1e-12, atol=2e-15)
    np.testing.assert_allclose(result.sweep_first + result.sweep_second, exact, rtol=1e-12)
    assert result.squared_norm_ratio == 0.0
    assert result.increase_error is None
    assert "no losses of single examples" in result.error_method


@pytest.mark.parametrize("p", [1.0, 1.5, 4.0, math.inf])
def test_the_expansion_is_of_the_step_taken_whatever_its_norm(p: float) -> None:
    problem, matrix, _ = bowl()
    result = run(problem, rho=0.3, p=p)
    assert result.p == p
    assert result.remainder == pytest.approx(0.0, abs=1e-14)
    assert result.random_length == pytest.approx(result.length)
    trace = float(matrix.trace())
    assert result.hessian_trace_interval is not None
    assert result.hessian_trace_interval[0] <= trace <= result.hessian_trace_interval[1]
    climbed = run(problem, rho=0.3, p=p, steps=20, expansion=False)
    assert climbed.increase >= result.increase - 1e-15
    assert climbed.second_order is None


def test_relative_lengths_are_in_units_of_the_gradient() -> None:
    problem, _, slope = bowl()
    one = run(problem, rho=0.3, relative=True, expansion=False)
    two = run(problem, rho=0.3 * float(slope.norm()), expansion=False)
    assert one.increase == pytest.approx(two.increase, rel=1e-12)
    assert one.radius == pytest.approx(0.3 * float(slope.norm()))
    assert "‖g‖" in one.where


def test_keskar_is_in_percent_of_one_plus_the_loss() -> None:
    problem = small_problem(dtype="float64")
    result = run(problem, kind="keskar", rho=1e-3, expansion=False)
    assert result.steps == analysis.KESKAR_STEPS
    assert result.keskar == pytest.approx(100 * result.increase / (1 + result.loss), rel=1e-9)
    assert result.increase_error is not None
    assert result.keskar_error == pytest.approx(100 * result.increase_error / (1 + result.loss), rel=1e-9)
    assert result.squared_norm_ratio is None


def test_keskar_is_not_defined_below_minus_one() -> None:
    slope = torch.ones(3, dtype=FLOAT64)
    problem = problem_of(lambda w: -2 + slope.to(w) @ w, torch.zeros(3, dtype=FLOAT64))
    assert run(problem, kind="keskar", rho=1e-3, expansion=False).keskar is None


@pytest.mark.parametrize("options", [{"rho_sweep": True}, {"m": 8}, {"steps": 3}, {"kind": "asam", "p": 4.0}])
def test_batches_do_not_matter(options: dict[str, Any]) -> None:
    whole, ragged = (
        run(small_problem(dtype="float64", batch_size=size), expansion=False, **options) for size in (50, 16)
    )
    assert ragged.increase == pytest.approx(whole.increase, rel=1e-9)
    assert ragged.increase_error == pytest.approx(whole.increase_error, rel=1e-6)
    if whole.sweep_increases is not None:
        np.testing.assert_allclose(ragged.sweep_increases, whole.sweep_increases, rtol=1e-9)


def test_single_precision_gives_the_figures_of_double() -> None:
    single, double = run(small_problem(), rho=1e-4), run(small_problem(dtype="float64"), rho=1e-4)
    assert single.increase == pytest.approx(double.increase, rel=1e-5)
    for name in ("first_order", "second_order", "remainder"):
        value, error = getattr(single, name), getattr(single, f"{name}_error")
        assert abs(value - getattr(double, name)) <= error, name
        assert error < 1e-4 * single.increase, name


# --- m-sharpness -----------------------------------------------------------------------------------------


def test_m_sharpness_is_the_mean_of_a_plain_loop_over_groups() -> None:
    """50 examples in groups of 8: six of 8 and one of 2, whose two examples count as two."""
    problem = small_problem(dtype="float64", weight_decay=0.1)
    result = run(problem, seed=4, m=8, rho=0.2, rho_sweep=True)
    x, y = problem.data.batches[0]
    model, rises, sizes = problem.model, [], []
    for rows in groups_of(50, 8, derived_seed(4, "groups")):

        def loss(step: Tensor, rows: Tensor = rows) -> Tensor:
            w = problem.selection.flat() + step
            parts = dict(zip(problem.selection.layout.names, problem.selection.layout.split(w), strict=True))
            out = torch.func.functional_call(model, parts, (x[rows].double(),))
            return nn.functional.cross_entropy(out, y[rows]) + 0.05 * w @ w

        zero = torch.zeros(problem.size, dtype=FLOAT64, requires_grad=True)
        (g,) = torch.autograd.grad(loss(zero), zero)
        rises.append(float((loss(0.2 * g / g.norm()) - loss(zero)).detach()))
        sizes.append(len(rows))
    c, d = np.array(sizes, dtype=float), np.array(rises)
    mean = (c * d).sum() / 50
    error = math.sqrt(7 / 6 * (c**2 * (d - mean) ** 2).sum()) / 50
    assert result.increase == pytest.approx(mean, rel=1e-10)
    assert result.increase_error == pytest.approx(error, rel=1e-9)
    np.testing.assert_allclose(result.group_increases, d, rtol=1e-9)
    assert (result.groups, result.last_group, result.m) == (7, 2, 8)
    assert result.sweep_increases is not None
    assert result.sweep_increases[0] == pytest.approx(
        result.sweep_first[0] + result.sweep_second[0],
        rel=1e-6,
    )
    assert result.increase > run(problem, rho=0.2, expansion=False).increase
    assert "m = 8 (7 groups, the last of 2)" in result.where


def test_one_group_of_all_the_data_is_all_the_data() -> None:
    problem = small_problem(dtype="float64")
    one, all_of_it = run(problem, m=50), run(problem)
    assert one.increase == pytest.approx(all_of_it.increase, rel=1e-12)
    assert one.increase_error is None
    assert one.error_method == "not computed: one group"


def test_groups_count_by_their_terms_and_those_without_any_are_left_out() -> None:
    """Six sequences with 4, 1, 0, 3, 2 and 4 labels, one in each group."""
    found = case("masked tokens, tied")
    result = run(found.problem, m=1, rho=1e-6, expansion=False)
    assert (result.groups, result.empty_groups) == (5, 1)
    assert result.group_terms is not None
    assert sorted(result.group_terms) == [1, 2, 3, 4, 4]
    c = found.counts.numpy()
    rises = {}
    for i, count in enumerate(c):
        g = found.gradients[i] / count
        rises[i] = 1e-6 * float(g.norm())
    assert result.increase == pytest.approx(sum(c[i] * rises[i] for i in rises) / c.sum(), rel=1e-3)


def test_a_group_without_a_gradient_is_counted() -> None:
    def loss(model: Any, batch: Any) -> Tensor:
        return (batch[0][:, 0] * model.w.sum()).mean()

    x = torch.tensor([[1.0], [0.0], [2.0]], dtype=FLOAT64)
    problem = Problem(Point(torch.ones(3, dtype=FLOAT64)), loss, (x, x))
    result = run(problem, m=1, rho=0.1)
    assert (result.flat_groups, result.groups) == (1, 3)
    assert result.increase == pytest.approx(0.1 * math.sqrt(3) * (1 + 0 + 2) / 3)
    assert result.second_order == 0


# --- random directions -----------------------------------------------------------------------------------


def quick(problem: Problem, settings: Settings, seed: int, *inputs: Any) -> SharpnessResult:
    """The analysis without the choice of a strategy."""
    strategy = {"micro_batch": problem.examples, "pieces": 1, "kept_pieces": 1, "graph_bytes": 0}
    given = {one.kind: one for one in inputs}
    *_, last = analysis.steps(problem, settings, given, Start(seed, None, strategy))
    return analysis.finish(problem, settings, last.save())


def covered(options: dict[str, Any], repetitions: int) -> tuple[int, int]:
    """How often the interval of the mean, and that of the prediction, misses ρ²Tr(H)/(2n)."""
    problem, matrix, _ = bowl()
    exact, missed, predicted = 0.3**2 * float(matrix.trace()) / 14, 0, 0
    settings = Settings(kind="average", rho=0.3, **options)
    for seed in range(repetitions):
        result = quick(problem, settings, seed)
        assert result.random_interval is not None
        low, high = result.random_interval
        missed += not low <= exact <= high
        if result.predicted_interval is not None:
            predicted += not result.predicted_interval[0] <= exact <= result.predicted_interval[1]
            # On a quadratic both are the same but for rounding, direction by direction.
            assert result.random_difference_interval is not None
            assert abs(result.random_difference) <= np.ptp(result.random_difference_interval)
            assert abs(result.random_difference) < 1e-14
    return missed, predicted


COVERED: dict[str, dict[str, Any]] = {
    "16 directions, products": {"tol": 0.0, "max_directions": 16},
    "to a tolerance, no products": {"tol": 0.3, "max_directions": 128, "expansion": False},
}


@pytest.mark.parametrize("name", COVERED)
def test_the_mean_rise_is_within_its_interval_of_the_trace(name: str) -> None:
    for missed in covered(COVERED[name], 100):
        assert scipy.stats.binom.sf(missed - 1, 100, 0.05) > 0.01, missed


@pytest.mark.long
@pytest.mark.parametrize("name", COVERED)
def test_the_mean_rise_is_within_its_interval_of_the_trace_many_times(name: str) -> None:
    for missed in covered(COVERED[name], 1000):
        assert scipy.stats.binom.sf(missed - 1, 1000, 0.05) > 0.01, missed


def test_a_stored_trace_saves_the_products() -> None:
    problem = small_problem(dtype="float64")
    trace = execute("trace", problem, TraceSettings(tol=1e-9), RunSettings(seed=0), store=False)
    assert isinstance(trace, TraceResult)
    result = execute(
        "sharpness", problem, Settings(rho=0.01), RunSettings(seed=1), store=False, inputs=[trace]
    )
    assert isinstance(result, SharpnessResult)
    assert (result.products, result.directions) == (1, 16)
    assert result.hessian_trace == trace.trace
    assert "stored trace run" in result.trace_source
    assert result.predicted_mean == pytest.approx(0.01**2 * trace.trace / (2 * problem.size))
    assert result.direction_curvatures is None
    low, high = result.random_difference_interval
    assert low < 0 < high
    other = execute(
        "trace", problem, TraceSettings(operator="gauss-newton"), RunSettings(seed=0), store=False
    )
    assert not analysis.usable(Settings(), other)
    assert analysis.needs(Settings(expansion=False)) == ()


def test_an_average_that_is_not_narrow_enough_is_exit_4() -> None:
    problem = small_problem(dtype="float64")
    loose = run(problem, kind="average", tol=0.5, rho=0.01)
    assert (loose.status, exit_code(loose)) == ("complete", 0)
    assert loose.increase_error is not None
    assert loose.increase_error <= 0.5 * loose.increase
    tight = run(problem, kind="average", tol=0.01, max_directions=20, rho=0.01)
    assert (tight.status, exit_code(tight)) == ("not_converged", 4)
    assert tight.look_directions is not None
    assert tight.look_directions.tolist() == [8, 20]
    assert (tight.directions, tight.products) == (20, 20)
    assert run(problem, kind="average", tol=0.0, max_directions=9, expansion=False).status == "complete"


def test_one_direction_has_no_interval_and_no_error_is_made_up() -> None:
    result = run(small_problem(dtype="float64"), max_directions=1)
    assert result.random_interval is not None
    assert np.isnan(result.random_interval).all()
    assert result.random_mean is not None


def test_the_sweep_of_an_average() -> None:
    problem, matrix, _ = bowl()
    result = run(problem, kind="average", rho=0.1, rho_sweep=True, max_directions=16, tol=0.0)
    assert result.rho_sweep is not None
    assert result.sweep_errors is not None
    exact = result.rho_sweep**2 * float(matrix.trace()) / 14
    assert (np.abs(result.sweep_increases - exact) <= result.sweep_errors).all()
    at = int(np.argmin(abs(result.rho_sweep - 0.1)))
    assert result.sweep_increases[at] == pytest.approx(result.increase)
    assert result.sweep_first.tolist() == [0.0] * 10
