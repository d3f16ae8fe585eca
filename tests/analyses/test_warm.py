"""``eigen`` from another checkpoint's eigenvectors: what it says and saves, what it takes and refuses."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape.analyses import eigen, eigen_lanczos
from landscape.analyses.base import Saved, Start
from landscape.analyses.eigen import Settings
from landscape.errors import ConfigurationError
from landscape.problem import Problem
from landscape.results import EigenResult
from landscape.run import RunSettings, execute
from tests.analyses.test_resumption import carried_out
from tests.run.support import DIGITS, assert_same_bits, small_problem
from tests.support.spectra import digits_like, rotated


def quadratic(eigenvalues: np.ndarray, seed: int) -> Problem:
    """Least squares whose Hessian, 2XᵀX/n, is the rotated matrix with these eigenvalues, at any weights."""
    n = len(eigenvalues)
    values, columns = np.linalg.eigh(rotated(eigenvalues, seed).numpy())
    x = torch.from_numpy((n / 2 * values.clip(0))[:, None] ** 0.5 * columns.T)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(n, 1, bias=False)
    return Problem(model, "mse", (x.float(), torch.zeros(n, 1)))


@functools.cache
def earlier() -> EigenResult:
    return landscape.eigen(small_problem(), seed=1, eigenvectors=True)


def later(**options: Any) -> Problem:
    """The same net with weights a little way off."""
    problem = small_problem(**options)
    with torch.no_grad():
        for parameter in problem.model.parameters():
            parameter *= 1.02
    return Problem(problem.model, "cross_entropy", small_problem().data, **options)


def rows_of(result: EigenResult) -> np.ndarray:
    assert result.eigenvectors is not None
    return result.eigenvectors


def test_it_says_so() -> None:
    before, problem = earlier(), later()
    warm, cold = landscape.eigen(problem, seed=0, start=before), landscape.eigen(problem, seed=0)
    assert warm.warm
    assert not cold.warm
    assert warm.missed_reason.startswith("warm start")
    assert warm.missed_above is warm.missed_below is warm.missed_epsilon is None
    assert cold.missed_reason != warm.missed_reason
    assert warm.provenance is not None
    assert cold.provenance is not None
    assert warm.provenance.strategy["warm"] is True
    assert "warm" not in cold.provenance.strategy
    assert warm.status == "complete"
    half = np.diff(warm.intervals, axis=1).ravel() + np.diff(cold.intervals, axis=1).ravel()
    assert (np.abs(warm.eigenvalues - cold.eigenvalues) <= half / 2).all()
    np.testing.assert_allclose(warm.noise_floor, cold.noise_floor, rtol=20)


def test_it_saves_products_along_a_training_run() -> None:
    """The last two checkpoints of the digits run, 150 epochs apart."""
    problems = [
        landscape.load_problem(DIGITS / "landscape.toml", checkpoint=DIGITS / "runs" / f"mlp-sgd-epoch{e}.pt")
        for e in (150, 300)
    ]
    before = landscape.eigen(problems[0], seed=0, eigenvectors=True, standard_errors=False)
    searches = [
        [landscape.eigen(problems[1], seed=seed, start=start, standard_errors=False) for seed in range(2)]
        for start in (None, before)
    ]
    cold, warm = (sum(one.products for one in each) for each in searches)
    assert warm <= 0.9 * cold
    for one in searches[1]:
        assert one.converged.all()
        np.testing.assert_allclose(one.eigenvalues, searches[0][0].eigenvalues, rtol=1e-5)


def test_a_new_largest_eigenvalue_is_found() -> None:
    """The known eigenvectors are exact, and all of them are orthogonal to the new one."""
    eigenvalues = np.sort(np.abs(digits_like(200, seed=0)))[::-1]
    problem = quadratic(eigenvalues, seed=3)
    every = landscape.eigen(problem, k=6, tol=1e-5, seed=0, eigenvectors=True).eigenvectors
    assert every is not None
    for seed in range(4):
        found = landscape.eigen(problem, seed=seed, start=every[1:], standard_errors=False)
        np.testing.assert_allclose(found.eigenvalues, eigenvalues[:5], rtol=1e-4)


def test_verification_finds_the_repeated() -> None:
    eigenvalues = np.sort(np.concatenate([[2.9], np.abs(digits_like(199, seed=0))]))[::-1]
    problem = quadratic(eigenvalues, seed=3)
    rows = landscape.eigen(problem, seed=0, eigenvectors=True, standard_errors=False).eigenvectors
    found = landscape.eigen(problem, seed=0, start=rows, verify=10, standard_errors=False)
    np.testing.assert_allclose(found.eigenvalues[:2], 2.9, rtol=1e-4)
    assert found.status == "complete"
    assert found.verified >= 10


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [
        ({"k": 3}, None),
        ({"k": 2, "which": "both"}, 7),
        ({"k": 2, "verify": 4, "eigenvectors": True}, 6),
    ],
    ids=["search", "restarts", "verify"],
)
def test_every_state_goes_on_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], capacity: int | None
) -> None:
    """Also without the vectors that it had started from, which the saved state does not need."""
    if capacity is not None:
        monkeypatch.setattr(eigen_lanczos, "basis_size", lambda *given: capacity)
    start = Start(7, vectors={"start": rows_of(earlier())})
    whole, states = carried_out(later(batch_size=16), Settings(**settings), start)
    assert whole.warm
    assert len(states) > 5
    assert capacity is None or whole.products > capacity
    for _, resumed in states[:-1]:
        assert_same_bits(carried_out(later(batch_size=16), Settings(**settings), resumed)[0], whole)


def test_the_same_rows_and_seed_give_the_same_bits_and_change_nothing() -> None:
    before, problem = earlier(), later(batch_size=16)
    rows = rows_of(before).copy()
    rows.setflags(write=False)
    weights = [p.detach().clone() for p in problem.model.parameters()]
    state = torch.random.get_rng_state()
    first, second = (landscape.eigen(problem, seed=3, start=rows) for _ in range(2))
    assert_same_bits(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (rows == rows_of(before)).all()
    assert all(torch.equal(a, b) for a, b in zip(weights, problem.model.parameters(), strict=True))


def test_tensors_single_rows_and_whole_numbers_are_taken() -> None:
    before, problem = earlier(), later()
    top = rows_of(before)[0]
    found = [landscape.eigen(problem, k=1, seed=0, start=s) for s in (top, top[None], torch.from_numpy(top))]
    assert len({one.eigenvalues[0] for one in found}) == 1
    assert landscape.eigen(problem, k=1, seed=0, start=np.arange(problem.size)).warm


def test_what_it_refuses() -> None:
    before, problem = earlier(), later()
    bare = dataclasses.replace(before, eigenvectors=None)
    apart = dataclasses.replace(bare, eigenvectors_file="name\x1b[2J.h5")
    broken = rows_of(before).copy()
    broken[1, 2] = np.nan
    for start, words in (
        (rows_of(before)[:, :-1], "51 numbers.*\n.*float64, 5 × 50"),
        (rows_of(before)[None], "1 × 5 × 51"),
        (broken, "NaN or infinities"),
        (bare, "holds no eigenvectors"),
        (apart, r"they are in name\\x1b\[2J\.h5"),
        ("vectors.h5", "takes the result of"),
        (rows_of(before) + 1j, "takes the result of"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            landscape.eigen(problem, start=start)
    with pytest.raises(ConfigurationError, match="belongs to method='lanczos'"):
        landscape.eigen(problem, start=before, method="power")


@pytest.mark.parametrize("method", ["power", "running-average", "dense"])
def test_other_methods_leave_the_vectors_alone(method: str) -> None:
    before, problem = earlier(), later(batch_size=16)
    settings = Settings(method=method, k=1, max_products=60, standard_errors=False)
    run = RunSettings(seed=0)
    found = [
        execute("eigen", problem, settings, run, store=False, vectors=vectors)
        for vectors in ({}, {"start": rows_of(before)})
    ]
    for one in found:
        assert isinstance(one, EigenResult)
        assert not one.warm
    assert_same_bits(*found)


def test_it_is_stored_with_the_result(tmp_path: Path) -> None:
    before, problem = earlier(), later()
    output = str(tmp_path / "results.h5")
    warm = landscape.eigen(problem, seed=0, start=before, output=output)
    stored = landscape.open(output)
    (header,) = stored.runs()
    again = stored.read(header.id)
    assert isinstance(again, EigenResult)
    assert again.warm
    assert again.missed_reason == warm.missed_reason


# -- what a search gives to the next one -------------------------------------------------------------------


@pytest.mark.parametrize("verify", [0, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_end_of_a_search_gives_its_vectors(dtype: str, verify: int) -> None:
    problem, settings = small_problem(dtype=dtype), Settings(k=4, verify=verify, eigenvectors=True)
    *_, last = eigen.steps(problem, settings, {}, Start(3))
    saved = last.save()
    result = eigen.finish(problem, settings, saved)
    vectors = eigen.end_vectors(problem, Settings(k=4, verify=verify), saved)
    assert vectors is not None
    assert result.eigenvectors is not None
    assert str(vectors.dtype) == dtype
    eps = np.finfo(vectors.dtype).eps
    np.testing.assert_allclose(vectors, result.eigenvectors, rtol=0, atol=20 * eps)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), rtol=0, atol=20 * eps)


def test_there_are_none_of_other_methods_or_before_a_product() -> None:
    problem = small_problem()
    first = next(iter(eigen.steps(problem, Settings(), {}, Start(0)))).save()
    assert eigen.end_vectors(problem, Settings(), first) is None
    for method in ("power", "dense", "running-average"):
        settings = Settings(method=method, k=1, max_products=60, standard_errors=False)
        *_, last = eigen.steps(problem, settings, {}, Start(0))
        assert eigen.end_vectors(problem, settings, last.save()) is None
    assert eigen.end_vectors(problem, Settings(), Saved()) is None
