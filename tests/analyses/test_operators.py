"""Every ``--operator`` through ``eigen``, in float64, against matrices made from single examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import landscape
from landscape.curvature.finite_difference import FiniteDifferenceOperator
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import ConfigurationError
from landscape.linalg.probes import gaussian
from landscape.problem import Problem
from landscape.results import EigenResult
from tests.curvature.naive import CASES, Naive, case, labels, naive
from tests.support.closed_form import classification
from tests.support.models import mlp

EXACT = {
    "hessian": Naive.hessian,
    "gauss-newton": Naive.gauss_newton,
    "empirical-fisher": Naive.empirical_fisher,
    "noise": Naive.noise,
}
LIKELIHOODS = ("cross-entropy, ragged", "squared error", "BCE with logits", "masked tokens, tied")


def eigenvalues(problem: Problem, **options: Any) -> EigenResult:
    keywords = {"k": 3, "which": "both", "tol": 1e-9, "seed": 0, "standard_errors": False}
    return landscape.eigen(problem, **(keywords | options))


def ends(matrix: torch.Tensor, k: int = 3) -> np.ndarray:
    every = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0).numpy()
    return np.concatenate([every[:k], every[-k:]])


@pytest.mark.parametrize("operator", EXACT)
@pytest.mark.parametrize("name", CASES)
def test_eigenvalues_against_the_dense_matrix(name: str, operator: str) -> None:
    given = case(name)
    right = EXACT[operator](given)
    allowed = {"rtol": 0, "atol": 1e-10 * float(torch.linalg.matrix_norm(right, 2)) + 1e-15}
    found = eigenvalues(given.problem, operator=operator)
    assert found.operator == operator
    assert found.status == "complete"
    single = [0, 1, 2, -1]  # a Krylov space holds repeated eigenvalues once: here zeros, at the bottom
    np.testing.assert_allclose(found.eigenvalues[single], ends(right)[single], **allowed)
    every = eigenvalues(given.problem, operator=operator, method="dense", which="largest", k=len(right))
    np.testing.assert_allclose(every.eigenvalues, ends(right, len(right))[: len(right)], **allowed)


@pytest.mark.parametrize("operator", EXACT)
def test_a_net_of_800_parameters(operator: str) -> None:
    given = naive(mlp(20, 25, 10), "cross_entropy", classification(5, 20, 10), labels)
    assert given.problem.size == 785
    right = EXACT[operator](given)
    found = eigenvalues(given.problem, operator=operator, which="largest")
    np.testing.assert_allclose(found.eigenvalues, ends(right)[:3], rtol=1e-10)


@pytest.mark.parametrize("operator", [*EXACT, "fisher", "finite-difference"])
def test_weight_decay_belongs_to_the_loss_and_to_no_example(operator: str) -> None:
    plain, decayed = (
        Problem(mlp(4, 6, 3).double(), "cross_entropy", classification(17, 4, 3), weight_decay=decay)
        for decay in (0.0, 0.25)
    )
    before, after = (eigenvalues(p, operator=operator, which="largest", k=2) for p in (plain, decayed))
    added = 0.25 if operator in ("hessian", "gauss-newton", "finite-difference") else 0.0
    np.testing.assert_allclose(after.eigenvalues - before.eigenvalues, added, rtol=0, atol=1e-7)


# -- Fisher ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_fisher_matrix_is_gauss_newton_on_average(name: str) -> None:
    given = case(name)
    right = ends(given.gauss_newton())[0]
    found = eigenvalues(given.problem, operator="fisher", label_samples=300, which="largest", k=1)
    assert found.label_samples == 300
    assert found.eigenvalues[0] == pytest.approx(right, rel=0.2)


def test_labels_are_drawn_by_the_seed() -> None:
    problem = case("cross-entropy, ragged").problem
    runs = [eigenvalues(problem, operator="fisher", seed=seed, k=2).eigenvalues for seed in (5, 5, 6)]
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-9, atol=1e-12)
    assert (np.abs(runs[0][:2] - runs[2][:2]) > 1e-6).all()


def test_more_labels_are_nearer_to_gauss_newton() -> None:
    given = case("cross-entropy, ragged")
    right = ends(given.gauss_newton())[0]

    def error(draws: int) -> float:
        options = {"operator": "fisher", "which": "largest", "k": 1, "label_samples": draws}
        tops = [eigenvalues(given.problem, seed=s, **options).eigenvalues[0] for s in range(6)]
        return float(np.sqrt(np.mean((np.array(tops) - right) ** 2)))

    one, many = error(1), error(100)
    assert many < one / 3  # a tenth, on average


def test_options_of_other_matrices() -> None:
    problem = case("cross-entropy, ragged").problem
    for options in ({"label_samples": 3}, {"rho": 1e-3}, {"rho_sweep": True}, {"difference": "central"}):
        with pytest.raises(ConfigurationError, match="belongs to"):
            eigenvalues(problem, operator="gauss-newton", **options)
    with pytest.raises(ConfigurationError, match="at least 1"):
        eigenvalues(problem, operator="fisher", label_samples=0)


# -- finite differences ------------------------------------------------------------------------------------


@pytest.mark.parametrize("difference", ["central", "as-written"])
@pytest.mark.parametrize("sweep", [False, True])
def test_finite_differences_are_as_good_as_their_interval_says(difference: str, sweep: bool) -> None:
    given = case("cross-entropy, ragged")
    right = ends(given.hessian(), 2)
    found = eigenvalues(given.problem, operator="finite-difference", difference=difference, k=2,
                        rho_sweep=sweep)  # fmt: skip
    assert (found.difference, found.rho_sweep is not None) == (difference, sweep)
    np.testing.assert_allclose(found.eigenvalues, right, rtol=0, atol=1e-5 * right[0])
    assert (np.abs(found.eigenvalues - right) <= np.diff(found.intervals)[:, 0] / 2).all()


@pytest.mark.parametrize("difference", ["central", "as-written"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_swept_error_is_true_along_another_vector(difference: str, dtype: str) -> None:
    problem = Problem(mlp(4, 6, 3), "cross_entropy", classification(17, 4, 3), dtype=dtype)
    found = eigenvalues(problem, operator="finite-difference", difference=difference, rho_sweep=True,
                        tol=1e-3, k=1)  # fmt: skip
    assert found.rho is not None
    assert found.rho_error is not None
    assert found.rho_against == "double backward"
    exact = HessianOperator(problem, Strategy(17, 1, 0, 0))
    vector = exact.apply(gaussian(problem.size, 99, "another")[None].to(problem.dtype))
    vector = (vector / vector.norm()).to(problem.dtype)
    differences = FiniteDifferenceOperator(
        problem, Strategy(17, 1, 0, 0), rho=found.rho, difference=difference
    )
    right = exact.apply(vector)
    measured = float((differences.apply(vector) - right).norm() / right.norm())
    assert measured / 10 <= found.rho_error <= 10 * measured


def test_a_step_that_is_given_is_used() -> None:
    problem = case("cross-entropy, ragged").problem
    found = eigenvalues(problem, operator="finite-difference", rho=0.05, k=2)
    assert found.rho == 0.05
    strategy = Strategy(17, 1, 0, 0)
    operator = FiniteDifferenceOperator(problem, strategy, rho=0.05)
    matrix = operator.apply(torch.eye(problem.size, dtype=torch.float64))
    np.testing.assert_allclose(found.eigenvalues, ends(matrix, 2), rtol=0.05, atol=1e-3)
