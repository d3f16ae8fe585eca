"""The methods of ``eigen`` other than the running average, through the whole path, against dense matrices."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import landscape
from landscape.analyses import eigen
from landscape.analyses.base import Start
from landscape.analyses.eigen import Settings
from landscape.errors import ConfigurationError
from landscape.parameters import layers
from landscape.problem import Problem
from landscape.results import EigenResult
from landscape.run import exit_code
from tests.analyses.test_resumption import carried_out, copied
from tests.curvature.naive import Naive, labels, naive
from tests.run.support import assert_same_bits, small_problem
from tests.support.closed_form import classification
from tests.support.models import mlp


@cache
def given() -> Naive:
    """97 parameters on 60 examples: more than a block of the dense method, more than the groups need."""
    return naive(mlp(6, 9, 4, seed=1), "cross_entropy", classification(60, 6, 4), labels)


@cache
def dense(operator: str) -> np.ndarray:
    return {"hessian": given().hessian, "gauss-newton": given().gauss_newton}[operator]().numpy()


def eigenvalues(**options: Any) -> EigenResult:
    keywords = {"k": 3, "tol": 1e-7, "seed": 0, "standard_errors": False, "max_products": 20000}
    if options.get("method") == "dense":
        keywords.pop("max_products")
    return landscape.eigen(given().problem, **(keywords | options))


def wanted(matrix: np.ndarray, which: str, k: int = 3) -> np.ndarray:
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    if which == "magnitude":
        return np.sort(values[np.argsort(-np.abs(values))[:k]])[::-1]
    if which == "both":
        return np.concatenate([values[:k], values[-k:]])
    return values[:k] if which == "largest" else values[-k:]


@pytest.mark.parametrize(
    ("method", "operator", "which"),
    [
        *(("power", "hessian", which) for which in ("largest", "smallest", "magnitude")),
        *(("power", "gauss-newton", which) for which in ("largest", "magnitude")),
        *(("dense", o, w) for o in ("hessian", "gauss-newton")
          for w in ("largest", "smallest", "both", "magnitude")),
    ],
)  # fmt: skip
def test_against_the_dense_matrix(method: str, operator: str, which: str) -> None:
    k, tol = (2, 1e-3) if method == "power" else (3, 1e-7)
    right = wanted(dense(operator), which, k)
    found = eigenvalues(method=method, operator=operator, which=which, k=k, tol=tol)
    assert (found.status, found.method, found.which) == ("complete", method, which)
    exact = 1e-10 if method == "dense" else 1e-3
    scale = np.linalg.norm(dense(operator), 2)
    np.testing.assert_allclose(found.eigenvalues, right, rtol=exact, atol=exact * scale)
    assert (found.intervals[:, 0] <= right + 1e-14).all()
    assert (right - 1e-14 <= found.intervals[:, 1]).all()
    if method == "dense":
        assert (found.products, found.passes) == (given().problem.size, 2)


def test_pyhessian_agrees_to_its_tolerance() -> None:
    found = eigenvalues(method="pyhessian", tol=1e-4)
    assert found.which == "magnitude"
    assert found.peer_notes
    assert found.peer_residuals is not None
    _assert_peers(found.eigenvalues, found.peer_residuals + found.noise_floor)
    assert (found.status == "complete") == bool(found.converged.all())


@pytest.mark.parametrize("method", ["lanczos", "power", "dense"])
def test_check_puts_pyhessian_beside_any_method(method: str) -> None:
    options = {"method": method, "k": 3 if method != "power" else 1, "tol": 1e-4}
    alone, found = eigenvalues(**options), eigenvalues(**options, check="pyhessian")
    np.testing.assert_allclose(alone.eigenvalues, found.eigenvalues, rtol=1e-10)
    assert found.peer_eigenvalues is not None
    assert found.peer_products is not None
    assert found.peer_residuals is not None
    assert found.products == alone.products + options["k"]
    _assert_peers(found.peer_eigenvalues, found.peer_residuals + found.noise_floor)


def _assert_peers(values: np.ndarray, errors: np.ndarray) -> None:
    """The first is right; each of them is as near to an eigenvalue as its residual by our products says.

    The others need not be the next ones: the package stops where its value changes little.
    """
    every = np.linalg.eigvalsh(dense("hessian"))
    assert values[0] == pytest.approx(every[-1], rel=1e-2)
    assert (np.abs(values[:, None] - every).min(1) <= errors).all()


# -- limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 40])
def test_power_gives_what_a_limit_leaves(limit: int) -> None:
    found = eigenvalues(method="power", max_products=limit)
    assert (found.status, exit_code(found), found.products) == ("not_converged", 4, limit)
    assert 1 <= len(found.eigenvalues) <= 3
    every = np.linalg.eigvalsh(dense("hessian"))
    distance = np.abs(found.eigenvalues[:, None] - every).min(1)
    assert (distance <= found.residuals + found.noise_floor).all()


def test_fewer_pairs_than_asked_for_are_not_all() -> None:
    """A limit may come just where the pairs found so far have converged."""
    for state in eigen.steps(given().problem, settings := Settings(method="power", k=3), {}, Start(0)):
        saved = state.save()
        if len(saved.arrays["values"]) == 1 and saved.arrays["power_values"].size == 1:
            break
    found = saved.counters["products"]
    limited = eigenvalues(method="power", tol=None, max_products=found)
    assert settings.tolerance == 1e-3
    assert limited.converged.all()
    assert len(limited.eigenvalues) == 1
    assert limited.status == "not_converged"


def test_layers_that_have_not_converged_are_said() -> None:
    found = eigenvalues(method="dense", per_layer=True, max_products=None, tol=1e-12)
    limited = landscape.eigen(given().problem, k=1, tol=1e-6, max_products=30, per_layer=True, seed=0)
    assert found.layer_converged is not None
    assert limited.layer_converged is not None
    for result in (found, limited):
        assert result.layer_converged is not None
        assert (result.status == "complete") == bool(result.converged.all() and result.layer_converged.all())


def test_dense_is_refused_where_memory_or_products_do_not_suffice() -> None:
    problem = Problem(mlp(64, 64, 10), "cross_entropy", classification(20, 64, 10), memory=50_000_000)
    with pytest.raises(ConfigurationError, match="--method dense needs") as caught:
        landscape.eigen(problem, method="dense")
    assert "--memory" in str(caught.value.do)
    with pytest.raises(ConfigurationError, match="one product for each parameter"):
        eigenvalues(method="dense", max_products=50)


# -- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((m, {"verify": 5}) for m in ("power", "dense", "pyhessian", "running-average")),
        *((m, {"krylov": True}) for m in ("power", "dense", "pyhessian", "running-average")),
        *((m, {name: value}) for m in ("lanczos", "power", "dense", "pyhessian")
          for name, value in (("perturb", "iterate"), ("new_weight", 0.1), ("minibatch", "full"))),
        *((m, {name: value}) for m in ("lanczos", "power", "dense", "pyhessian")
          for name, value in (("rho", 1e-3), ("difference", "central"), ("rho_sweep", True))),
        *((m, {"label_samples": 2}) for m in ("lanczos", "power", "dense", "pyhessian", "running-average")),
        ("power", {"which": "both"}),
        ("pyhessian", {"which": "smallest"}),
        ("pyhessian", {"which": "both"}),
        ("running-average", {"which": "smallest"}),
        ("running-average", {"which": "magnitude"}),
        ("pyhessian", {"check": "pyhessian"}),
        ("pyhessian", {"operator": "gauss-newton"}),
        ("running-average", {"operator": "finite-difference"}),
        ("power", {"operator": "gauss-newton", "check": "pyhessian"}),
        ("lanczos", {"k": 0}),
        ("lanczos", {"tol": -1.0}),
        ("lanczos", {"max_products": 0}),
    ],
)  # fmt: skip
def test_what_a_method_does_not_have_is_an_error(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        landscape.eigen(small_problem(), method=method, seed=0, **options)


@pytest.mark.parametrize("method", ["lanczos", "power", "dense", "pyhessian", "running-average"])
def test_what_every_method_has_is_effective(method: str) -> None:
    options = {"method": method, "seed": 0, "k": 2, "max_products": 300}
    with_all = landscape.eigen(
        small_problem(), **options, per_layer=True, eigenvectors=True, standard_errors=True
    )
    without = landscape.eigen(small_problem(), **options, standard_errors=False)
    assert with_all.layers is not None
    assert with_all.eigenvectors is not None
    assert with_all.eigenvectors.shape == (len(with_all.eigenvalues), with_all.parameters)
    np.testing.assert_allclose(np.linalg.norm(with_all.eigenvectors, axis=1), 1, rtol=1e-5)
    assert not np.ma.getmaskarray(with_all.standard_errors).any()
    assert without.layers is without.eigenvectors is None
    assert np.ma.getmaskarray(without.standard_errors).all()
    np.testing.assert_allclose(with_all.eigenvalues, without.eigenvalues, rtol=1e-5)
    loose = landscape.eigen(small_problem(), **(options | {"tol": 0.3, "k": 1}))
    if method != "dense":
        assert loose.products < without.products


# -- layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("which", ["largest", "smallest", "both", "magnitude"])
def test_layers_have_the_eigenvalues_of_their_blocks(operator: str, which: str) -> None:
    matrix, layout = dense(operator), given().problem.selection.layout
    found = eigenvalues(per_layer=True, which=which, operator=operator, k=1)
    assert found.layers is not None
    assert found.layer_eigenvalues is not None
    assert found.layers.tolist() == ["0", "2"]
    every = np.arange(given().problem.size)
    index = dict(zip(layout.names, layout.split(torch.from_numpy(every)), strict=True))
    scale = np.abs(matrix).max()
    for row, members in zip(found.layer_eigenvalues, layers(layout).values(), strict=True):
        rows = np.concatenate([index[name].reshape(-1).numpy() for name in members])
        right = wanted(matrix[np.ix_(rows, rows)], which, 1)
        np.testing.assert_allclose(row, right, rtol=1e-9, atol=1e-9 * scale)


def test_layers_of_pyhessian_are_those_of_largest_magnitude() -> None:
    found = eigenvalues(method="pyhessian", per_layer=True, max_products=300)
    right = eigenvalues(which="magnitude", per_layer=True)
    assert found.layer_eigenvalues is not None
    assert right.layer_eigenvalues is not None
    np.testing.assert_allclose(found.layer_eigenvalues, right.layer_eigenvalues, rtol=1e-9)


# -- standard errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["gauss-newton", "empirical-fisher"])
def test_standard_errors_by_groups_are_of_the_order_of_those_by_examples(operator: str) -> None:
    case = naive(mlp(4, 5, 3), "cross_entropy", classification(400, 4, 3), labels)
    found = landscape.eigen(case.problem, operator=operator, k=2, seed=0, eigenvectors=True, tol=1e-6)
    assert found.standard_error_method == "32 random groups"
    assert found.eigenvectors is not None
    vectors = torch.from_numpy(found.eigenvectors).double()
    if operator == "empirical-fisher":
        each = (case.gradients @ vectors.T).square()
    else:
        each = torch.stack([_gauss_newton_form(case, i, vectors) for i in range(400)])
    right = each.std(0) / math.sqrt(400)
    np.testing.assert_allclose(each.mean(0), found.eigenvalues, rtol=1e-6)
    np.testing.assert_allclose(found.standard_errors, right, rtol=0.5)


def _gauss_newton_form(case: Naive, i: int, vectors: torch.Tensor) -> torch.Tensor:
    """vᵀJᵀ(diag p − ppᵀ)Jv of one example, for each v (k,)."""
    x, _ = case.counted[i]
    p = torch.softmax(case.outputs(x)(case.weights).detach().reshape(-1), 0)
    along = vectors @ case.jacobians[i].T
    return along.square() @ p - (along @ p).square()


# -- resumption --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"method": "power", "k": 2, "which": "largest", "tol": 1e-3},
        {"method": "power", "k": 3, "which": "smallest", "tol": 1e-2, "eigenvectors": True},
        {"method": "dense", "k": 2, "per_layer": True, "which": "both"},
        {"method": "pyhessian", "k": 2, "tol": 1e-2, "standard_errors": True},
        {"method": "dense", "operator": "gauss-newton", "check": None},
        {"per_layer": True, "k": 1, "which": "magnitude"},
    ],
    ids=["power", "power, smallest", "dense, layers", "pyhessian", "dense, gauss-newton", "lanczos, layers"],
)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 13])
def test_states_go_on_to_the_same_bits(options: dict[str, Any], every: int) -> None:
    def problem() -> Problem:
        return Problem(mlp(6, 9, 4, seed=1), "cross_entropy", classification(60, 6, 4), batch_size=23)

    whole, states = carried_out(problem(), Settings(**options), Start(7))
    assert len(states) > 2
    for _, start in states[:-1:every]:
        again, _ = carried_out(problem(), Settings(**options), start)
        assert_same_bits(again, whole)


@pytest.mark.parametrize("method", ["lanczos", "power", "dense", "pyhessian"])
def test_a_run_may_end_anywhere(method: str) -> None:
    settings = Settings(method=method, k=2, max_products=None, per_layer=True, check=None)  # type: ignore[arg-type]
    for state in eigen.steps(given().problem, settings, {}, Start(7)):
        start = copied(state)
        assert start.saved is not None
        found = eigen.finish(given().problem, settings, start.saved)
        json.dumps(found.to_json(), allow_nan=False)
        if start.saved.counters["phase"] != "over":
            assert found.status == "not_converged"
