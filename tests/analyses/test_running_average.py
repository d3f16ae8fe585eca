"""``eigen --method running-average`` through the whole path, on problems whose spectrum is known."""

from __future__ import annotations

import contextlib
import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscape
from landscape.analyses import eigen
from landscape.analyses.base import Start
from landscape.analyses.eigen import Settings
from landscape.curvature.finite_difference import FiniteDifferenceOperator
from landscape.curvature.hessian import HessianOperator
from landscape.errors import ConfigurationError
from landscape.linalg.probes import derived_seed, gaussian
from landscape.problem import Problem
from landscape.results import EigenResult
from landscape.run import exit_code
from landscape_cli.console import Console
from landscape_cli.views.eigen import print_eigen
from tests.analyses.test_resumption import carried_out, copied
from tests.run.support import assert_same_bits, small_problem
from tests.support.closed_form import FLOAT64, dense_hessian
from tests.support.models import mlp
from tests.support.spectra import rotated

WEIGHTS = (0.1, 0.5, 0.8, 1.0)


class Weights(nn.Module):
    """A vector w, and nothing else."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)


def half_quadratic(model: Weights, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean over the examples of ½ wᵀA_i w."""
    matrices, _ = batch
    return torch.einsum("i,bij,j->", model.w, matrices, model.w) / (2 * len(matrices))


def quadratic(matrices: Tensor, at: float = 1.0) -> Problem:
    """½ wᵀA_i w of each of ``matrices`` (N, n, n), at a w of length ``at``·√n."""
    n = matrices.shape[1]
    model = Weights(at * gaussian(n, 3, "w") / gaussian(n, 3, "w").norm() * math.sqrt(n))
    return Problem(model, half_quadratic, (matrices, torch.zeros(len(matrices))))


def spectrum(smallest: float) -> np.ndarray:
    return np.array([2.0, 1.0, 0.5, 0.2, 0.0, -0.1, smallest])


def one(smallest: float) -> Tensor:
    return rotated(spectrum(smallest), 1)[None]


def several(seed: int = 0, examples: int = 12, size: int = 6) -> Tensor:
    """Symmetric matrices whose mean is not that of a few of them."""
    make = torch.Generator().manual_seed(seed)
    noise = torch.randn(examples, size, size, generator=make, dtype=FLOAT64)
    return rotated(np.linspace(3.0, 0.1, size), seed)[None] + 0.5 * (noise + noise.mT)


def average(problem: Problem, **options: Any) -> EigenResult:
    keywords = {"method": "running-average", "k": 2, "seed": 0, "standard_errors": False}
    return landscape.eigen(problem, **(keywords | options))


def printed(result: EigenResult) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_eigen(Console("eigen"), result)
    return out.getvalue()


# -- along the iterate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_weight", WEIGHTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_iterate_reaches_the_largest_eigenvalue_inside_the_border(new_weight: float, seed: int) -> None:
    smallest = -0.95 * 2.0 * (2 / new_weight - 1)
    problem = quadratic(one(smallest))
    found = average(problem, new_weight=new_weight, tol=1e-7, max_products=5000, seed=seed)
    assert found.status == "complete"
    assert exit_code(found) == 0
    assert found.history is not None
    np.testing.assert_allclose([found.history[-1], found.eigenvalues[0]], 2.0, rtol=1e-6)
    assert found.learning_rate == pytest.approx(0.5, rel=1e-6)
    assert "converged: the residual is within the tolerance" in printed(found)


@pytest.mark.parametrize("new_weight", WEIGHTS)
@pytest.mark.parametrize(
    ("seed", "beyond"), [(0, 1.3), *(pytest.param(seed, 1.05, marks=pytest.mark.long) for seed in range(3))]
)
def test_iterate_cycles_outside_the_border_and_says_so(new_weight: float, seed: int, beyond: float) -> None:
    smallest = -beyond * 2.0 * (2 / new_weight - 1)
    problem = quadratic(one(smallest))
    found = average(problem, new_weight=new_weight, tol=1e-7, max_products=5000, seed=seed)
    assert (found.status, exit_code(found)) == ("oscillating", 4)
    assert found.history is not None
    cycle = new_weight * abs(smallest) / (2 - new_weight)
    assert found.history[-1] == pytest.approx(cycle, rel=1e-4)
    assert found.eigenvalues[0] == pytest.approx(smallest, rel=1e-4)
    assert found.lambda_max == pytest.approx(2.0, rel=1e-3)
    assert "‖v‖ is no eigenvalue" in printed(found)


def test_the_default_tolerance_is_the_residual_of_1e_4() -> None:
    found = average(quadratic(one(-0.3)))
    assert found.status == "complete"
    assert found.residuals[0] <= 1e-4 * found.eigenvalues[0]
    assert found.evaluation_residuals is not None
    assert found.evaluation_residuals[-3] > 1e-4 * found.eigenvalues[0]


def test_too_few_products_give_what_was_reached() -> None:
    found = average(quadratic(one(-0.3)), max_products=5)
    assert (found.status, exit_code(found)) == ("not_converged", 4)
    assert found.history is not None
    assert len(found.history) == 4  # and one product for the error of the differences
    assert len(found.eigenvalues) == 1
    low, high = found.intervals[0]
    assert ((spectrum(-0.3) >= low) & (spectrum(-0.3) <= high)).any()
    assert "not converged" in printed(found)


# -- along the gradient ------------------------------------------------------------------------------------


def image_of_gradient(problem: Problem) -> tuple[float, np.ndarray, float]:
    """(‖Hu‖, eigenvalues, share of u in the span of the top two), densely."""
    (piece,) = problem.pieces()

    def loss(model: nn.Module) -> Tensor:
        if problem.loss.whole:
            return problem.loss.mean(model, piece.batch)
        return problem.loss.mean(model(piece.batch[0]), piece.batch[1])

    matrix = dense_hessian(problem.model, loss)
    gradient = problem.measure(problem.pieces()).gradient
    u = gradient / gradient.norm()
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    share = float((vectors[:, -2:].T @ u).square().sum())
    return float((matrix @ u).norm()), values.flip(0).numpy(), share


@pytest.mark.parametrize("new_weight", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("difference", ["central", "as-written"])
@pytest.mark.parametrize("make", [lambda: quadratic(one(-5.0)), lambda: small_problem(dtype="float64")])
def test_gradient_reaches_hu_to_the_error_of_the_differences(
    make: Any, difference: str, new_weight: float
) -> None:
    problem = make()
    found = average(problem, perturb="gradient", new_weight=new_weight, difference=difference, tol=1e-8)
    right, values, share = image_of_gradient(problem)
    assert found.status == "complete"
    assert found.history is not None
    assert found.bound is not None
    assert np.isfinite(found.history).all()
    assert abs(found.history[-1] - right) <= 10 * found.noise_floor + 1e-8 * right
    assert right - 20 * found.noise_floor <= found.bound <= right
    assert found.reference_eigenvalues is not None
    assert found.reference_intervals is not None
    assert (found.reference_intervals[:, 0] <= values[:2]).all()
    assert (values[:2] <= found.reference_intervals[:, 1]).all()
    assert found.gradient_share == pytest.approx(share, abs=2e-3)
    assert "not λmax" in printed(found)


def test_the_bound_holds_before_the_average_has_settled() -> None:
    problem = quadratic(1e-3 * one(-1.0))
    found = average(problem, perturb="gradient", new_weight=0.05, max_products=8)
    right, values, _ = image_of_gradient(problem)
    assert found.status == "not_converged"
    assert found.history is not None
    assert found.bound is not None
    assert found.history[-1] > np.abs(values).max()
    assert found.bound <= right <= found.bound + 10 * found.noise_floor


def test_evaluations_come_at_1_2_4_and_so_on() -> None:
    found = average(quadratic(one(-1.0)), perturb="gradient", new_weight=0.1, tol=1e-6)
    assert found.rayleigh is not None
    looked = np.flatnonzero(np.isfinite(found.rayleigh)) + 1
    assert looked[:5].tolist() == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("perturb", ["iterate", "gradient"])
@pytest.mark.parametrize("minibatch", ["full", "3"])
def test_a_critical_point(perturb: str, minibatch: str) -> None:
    """At w = 0 there is no gradient to perturb along; the running vector does not need one."""
    problem = quadratic(several(), at=0.0)
    found = average(problem, perturb=perturb, minibatch=minibatch, max_products=400, tol=1e-2)
    assert found.history is not None
    assert np.isfinite(found.history).all()
    assert found.gradient_share is None
    if perturb == "gradient":
        assert found.history[-1] == pytest.approx(0.9 ** len(found.history))
        assert found.bound == (0.0 if minibatch == "full" else None)
    else:
        top = np.linalg.eigvalsh(several().mean(0).numpy())[-1]
        assert found.history[-1] == pytest.approx(top, rel=1e-2 if minibatch == "full" else 0.5)
    json.dumps(found.to_json(), allow_nan=False)
    assert "‖v‖" in printed(found)


# -- mini-batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perturb", ["iterate", "gradient"])
@pytest.mark.parametrize("size", [1, 5])
def test_mini_batches_against_a_naive_twin(perturb: str, size: int) -> None:
    matrices, seed, weight = several(), 4, 0.2
    problem = quadratic(matrices)
    w = problem.selection.flat()
    found = average(problem, perturb=perturb, minibatch=str(size), new_weight=weight, seed=seed,
                    max_products=30)  # fmt: skip
    assert found.history is not None
    assert found.minibatch == size
    v = gaussian(6, seed, "average")
    v = v / v.norm()
    norms = []
    for k in range(len(found.history)):
        order = torch.Generator().manual_seed(derived_seed(seed, "minibatch", k))
        matrix = matrices[torch.randperm(12, generator=order)[:size]].mean(0)
        along = v if perturb == "iterate" else matrix @ w
        v = (1 - weight) * v + weight * matrix @ along / along.norm()
        norms.append(float(v.norm()))
    np.testing.assert_allclose(found.history, norms, rtol=1e-7)
    assert found.bound is None


def test_seeds_of_mini_batches() -> None:
    runs = [average(quadratic(several()), minibatch="1", seed=seed, max_products=20) for seed in (0, 0, 1)]
    first, again, other = (run.history for run in runs)
    assert first is not None
    np.testing.assert_allclose(first, again, rtol=1e-10)
    assert (np.abs(first - other) > 1e-6).all()


def test_a_mini_batch_of_all_examples_is_the_full_batch() -> None:
    whole, named = (average(quadratic(several()), minibatch=m) for m in ("full", "12"))
    assert whole.minibatch == named.minibatch == 12
    assert (whole.products, whole.passes) == (named.products, named.passes)
    np.testing.assert_allclose(whole.history, named.history, rtol=1e-10)


def test_examples_without_terms_are_passed_over() -> None:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=FLOAT64)
    y = torch.arange(20) % 3
    y[:15] = -100
    found = average(Problem(mlp(4, 3).double(), "cross_entropy", (x, y)), minibatch="1", max_products=40)
    assert found.history is not None
    assert np.isfinite(found.history).all()
    assert len(found.history) >= 20


# -- what it cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perturb", ["iterate", "gradient"])
@pytest.mark.parametrize("minibatch", ["full", "1", "5"])
def test_products_and_passes_are_those_that_were_made(
    monkeypatch: pytest.MonkeyPatch, perturb: str, minibatch: str
) -> None:
    made: list[int] = []
    for operator in (FiniteDifferenceOperator, HessianOperator):

        def counting(self: Any, vectors: Tensor, apply: Any = operator.apply) -> Tensor:
            made.extend([self.problem.examples] * len(vectors))
            product: Tensor = apply(self, vectors)
            return product

        monkeypatch.setattr(operator, "apply", counting)
    found = average(quadratic(several()), perturb=perturb, minibatch=minibatch, max_products=30)
    assert found.products == len(made)
    whole, parts = sum(size == 12 for size in made), sum(size for size in made if size != 12)
    assert found.passes == whole + -(-parts // 12)


# -- resumption --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"tol": 1e-3, "new_weight": 0.5, "max_products": 60},
        {"perturb": "gradient", "new_weight": 0.3, "rho_sweep": True},
        {"minibatch": "1", "max_products": 12, "difference": "as-written"},
        {"perturb": "gradient", "minibatch": "7", "max_products": 60, "per_layer": True},
    ],
    ids=["iterate", "gradient", "one example", "layers"],
)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 11])
def test_every_state_goes_on_to_the_same_bits(options: dict[str, Any], every: int) -> None:
    settings = Settings(method="running-average", k=2, **options)
    whole, states = carried_out(small_problem(batch_size=16), settings, Start(7))
    assert len(states) > 10
    for _, start in states[:-1:every]:
        again, _ = carried_out(small_problem(batch_size=16), settings, start)
        assert_same_bits(again, whole)


@pytest.mark.parametrize("minibatch", ["full", "3"])
@pytest.mark.parametrize("perturb", ["iterate", "gradient"])
def test_a_run_may_end_anywhere(perturb: str, minibatch: str) -> None:
    problem = small_problem()
    settings = Settings(method="running-average", perturb=perturb, minibatch=minibatch, max_products=25)  # type: ignore[arg-type]
    for state in eigen.steps(problem, settings, {}, Start(7)):
        start = copied(state)
        assert start.saved is not None
        found = eigen.finish(problem, settings, start.saved)
        json.dumps(found.to_json(), allow_nan=False)
        assert found.history is not None
        assert found.products >= (1 if len(found.history) else 0)
        shown = printed(found)
        assert ("‖v‖" in shown) == (len(found.history) > 0)
        if not state.over:
            assert found.status != "complete"


# -- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"new_weight": 0.0}, "--new-weight"),
        ({"new_weight": -0.5}, "--new-weight"),
        ({"new_weight": 1.5}, "--new-weight"),
        ({"new_weight": math.nan}, "--new-weight"),
        ({"rho": 0.0}, "--rho"),
        ({"rho": -1e-3}, "--rho"),
        ({"rho": math.inf}, "--rho"),
        ({"rho": math.nan}, "--rho"),
        ({"rho": 1e-3, "rho_sweep": True}, "--rho-sweep"),
        ({"minibatch": "0"}, "--minibatch"),
        ({"minibatch": "some"}, "--minibatch"),
        ({"minibatch": "-3"}, "--minibatch"),
        ({"minibatch": "13"}, "--minibatch 13"),
        ({"operator": "gauss-newton"}, "Hessian only"),
        ({"verify": 3}, "--verify"),
        ({"krylov": True}, "--krylov"),
        ({"which": "both"}, "--which"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        average(quadratic(several()), **options)


def test_layers_are_searched_to_the_tolerance_that_they_are_judged_by() -> None:
    found = average(small_problem(dtype="float64"), per_layer=True, max_products=400)
    assert found.layer_converged is not None
    assert found.layer_converged.all()


def test_the_peer_is_compared_with_lanczos_values() -> None:
    found = average(small_problem(dtype="float64"), check="pyhessian", max_products=400)
    assert found.reference_eigenvalues is not None
    assert found.peer_eigenvalues is not None
    table = printed(found).split("nearest of ours")[1].splitlines()[1:3]
    for row, value in zip(table, found.reference_eigenvalues, strict=True):
        assert f"{value:.4g}" in row
