"""What the run room promises for every analysis, shown on eigen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import landscape
from landscape.analyses.eigen import Settings
from landscape.curvature.hessian import HessianOperator
from landscape.errors import ConfigurationError, DataError, OutOfMemory, StoreError
from landscape.run import RunSettings, execute, exit_code, plan, run_id
from landscape.store import ResultFile
from tests.run.support import Listener, assert_same_bits, small_problem


def test_the_same_seed_gives_the_same_bits() -> None:
    one = landscape.eigen(small_problem(batch_size=16), k=3, seed=4)
    other = landscape.eigen(small_problem(batch_size=16), k=3, seed=4)
    assert_same_bits(one, other)


def test_a_seed_not_given_is_drawn_told_and_stored(tmp_path: Path) -> None:
    listener = Listener()
    result = landscape.eigen(small_problem(), output=str(tmp_path / "a.h5"), observer=listener)
    assert result.provenance is not None
    assert not result.provenance.seed_given
    assert any(str(result.provenance.seed) in note for note in listener.notes)
    other = landscape.eigen(small_problem())
    assert other.provenance is not None
    assert other.provenance.seed != result.provenance.seed


def test_the_largest_seed_can_be_stored_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    path, largest = tmp_path / "a.h5", 2**63 - 1
    result = landscape.eigen(small_problem(), k=1, seed=largest, output=str(path))
    assert result.provenance is not None
    stored = ResultFile(path).read(result.provenance.id)
    assert stored.provenance is not None
    assert stored.provenance.seed == largest
    with pytest.raises(ConfigurationError, match="--seed must be at most"):
        RunSettings(seed=largest + 1)


def test_a_stored_run_is_read_back_and_fresh_computes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = str(tmp_path / "a.h5"), []
    first = landscape.eigen(small_problem(batch_size=50), k=2, seed=0, output=path)
    plain = HessianOperator.apply
    monkeypatch.setattr(HessianOperator, "apply", lambda self, v: calls.append(1) or plain(self, v))
    listener = Listener()
    again = landscape.eigen(small_problem(batch_size=50), k=2, seed=0, output=path, observer=listener)
    assert not calls
    assert any("--fresh" in note for note in listener.notes)
    assert_same_bits(first, again)
    landscape.eigen(small_problem(batch_size=50), k=2, seed=0, output=path, fresh=True)
    assert calls
    assert len(ResultFile(path).runs()) == 1


def test_identity_is_what_changes_a_figure_and_nothing_else() -> None:
    settings, run = Settings(), RunSettings()
    base = run_id("eigen", small_problem(), settings, run)
    assert run_id("eigen", small_problem(batch_size=7, memory=10**8), settings, run) == base
    assert run_id("eigen", small_problem(), settings, RunSettings(time_limit=1.0, output="x")) == base
    others = [
        run_id("eigen", small_problem(dtype="float64"), settings, run),
        run_id("eigen", small_problem(samples=20), settings, run),
        run_id("eigen", small_problem(params=["0.*"]), settings, run),
        run_id("eigen", small_problem(weight_decay=0.1), settings, run),
        run_id("eigen", small_problem(train_mode=True), settings, run),
        run_id("eigen", small_problem(), Settings(k=6), run),
        run_id("eigen", small_problem(), settings, RunSettings(seed=1)),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_time_limit_stores_what_there_is_and_the_same_call_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    options: dict[str, Any] = {"k": 5, "tol": 1e-12, "seed": 0}
    whole = landscape.eigen(small_problem(batch_size=16, dtype="float64"), **options)
    problem = small_problem(batch_size=16, dtype="float64")
    limited = landscape.eigen(problem, **options, output=str(path), time_limit=0.0)
    assert limited.status == "partial"
    assert exit_code(limited) == 4
    assert ResultFile(path).runs()[0].status == "partial"
    listener = Listener()
    result = landscape.eigen(problem, **options, output=str(path), observer=listener)
    assert any("resumed" in note for note in listener.notes)
    assert_same_bits(result, whole)
    assert [header.status for header in ResultFile(path).runs()] == ["complete"]
    assert sorted(os.listdir(tmp_path)) == ["a.h5"]


def test_product_limit_marks_what_has_not_converged() -> None:
    result = landscape.eigen(small_problem(), k=5, tol=1e-10, max_products=6, seed=0)
    assert result.status == "not_converged"
    assert exit_code(result) == 4
    assert result.products == 6
    assert not result.converged.all()


def test_one_run_is_not_computed_twice_at_once(tmp_path: Path) -> None:
    from landscape.store import partial_path
    from landscape.store.files import locked

    path, problem = tmp_path / "a.h5", small_problem()
    identity = run_id("eigen", problem, Settings(), RunSettings(seed=0))
    with locked(partial_path(path, identity), timeout=0.0), pytest.raises(StoreError, match="already"):
        landscape.eigen(problem, seed=0, output=str(path))


def test_an_unwritable_folder_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(HessianOperator, "apply", lambda self, v: pytest.fail("it computed first"))
    with pytest.raises(StoreError):
        landscape.eigen(small_problem(), output=str(blocked / "a.h5"))


def test_a_wrong_loss_stops_the_run() -> None:
    with pytest.raises(DataError, match="--expect-loss"):
        landscape.eigen(small_problem(expect_loss=17.0))
    loss = landscape.eigen(small_problem(), k=1).loss
    landscape.eigen(small_problem(expect_loss=loss * 1.005), k=1)


def test_memory_running_out_makes_pieces_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    right = landscape.eigen(small_problem(dtype="float64"), k=3, seed=0)
    plain = HessianOperator.apply

    def scarce(self: HessianOperator, vectors: torch.Tensor) -> torch.Tensor:
        if self.strategy.micro_batch > 13 or self.strategy.kept_pieces:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, vectors)

    monkeypatch.setattr(HessianOperator, "apply", scarce)
    listener = Listener()
    result = execute(
        "eigen",
        small_problem(dtype="float64"),
        Settings(k=3),
        RunSettings(seed=0),
        observer=listener,
        store=False,
    )
    assert any("memory ran out" in note for note in listener.notes)
    assert np.allclose(result.eigenvalues, right.eigenvalues, rtol=1e-9)  # type: ignore[attr-defined]
    assert result.provenance is not None
    assert result.provenance.strategy["micro_batch"] <= 13


def test_memory_running_out_for_good_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: HessianOperator, vectors: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(HessianOperator, "apply", none)
    with pytest.raises(OutOfMemory, match="--batch-size"):
        landscape.eigen(small_problem(), seed=0)


def test_threads_are_as_before_and_recorded() -> None:
    before = torch.get_num_threads()
    result = landscape.eigen(small_problem(threads=2), k=1)
    assert torch.get_num_threads() == before
    assert result.provenance is not None
    assert result.provenance.strategy["threads"] == 2


def test_randomness_and_signals_are_as_before() -> None:
    import signal

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    state = torch.get_rng_state()
    landscape.eigen(small_problem(), k=1)
    assert torch.equal(state, torch.get_rng_state())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_eigenvectors_are_kept_in_a_file_of_their_own(tmp_path: Path) -> None:
    from landscape.store import read_vectors

    problem = small_problem(dtype="float64", batch_size=50)
    fresh = landscape.eigen(problem, k=2, seed=0, eigenvectors=True)
    assert fresh.eigenvectors is not None
    assert fresh.eigenvectors.shape == (2, problem.size)
    result = landscape.eigen(problem, k=2, seed=0, eigenvectors=True, output=str(tmp_path / "a.h5"))
    assert result.eigenvectors_file is not None
    vectors = np.asarray(read_vectors(tmp_path / result.eigenvectors_file)[0])
    np.testing.assert_array_equal(vectors, fresh.eigenvectors)


def test_a_plan_says_what_it_would_take() -> None:
    problem = small_problem()
    told = plan("eigen", problem, Settings(k=3, verify=5), RunSettings())
    assert told.products == 2 * 3 + 5 + 5 + 3
    assert told.examples == 50
    assert told.parameters == problem.size
    assert told.seconds > 0
    assert told.memory_bytes > 0
