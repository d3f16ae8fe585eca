"""Any saved state of ``eigen``, in whatever phase, goes on to the same result, bit for bit."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from landscape.analyses import eigen, eigen_lanczos
from landscape.analyses.base import Saved, Start, State
from landscape.analyses.eigen import Settings
from landscape.problem import Problem
from landscape.results import EigenResult
from tests.run.support import assert_same_bits, small_problem


def copied(state: State) -> Start:
    """A resumption from ``state`` as if through a file."""
    saved = state.save()
    arrays = {name: np.array(array) for name, array in saved.arrays.items()}
    counters = json.loads(json.dumps(saved.counters))
    return Start(7, Saved(arrays, counters), json.loads(json.dumps(dict(state.strategy))))


def carried_out(
    problem: Problem, settings: Settings, start: Start
) -> tuple[EigenResult, list[tuple[str, Start]]]:
    """(the result, the states on the way with what they said)."""
    states = []
    for state in eigen.steps(problem, settings, {}, start):
        states.append((state.text, copied(state)))
    return eigen.finish(problem, settings, state.save()), states


@pytest.mark.parametrize(
    ("options", "settings", "capacity", "phases"),
    [
        ({}, {"k": 5, "tol": 1e-6}, None, ["pairs converged", "search over"]),
        ({}, {"k": 3, "tol": 1e-6, "which": "both"}, 14, ["pairs converged"]),
        (
            {"dtype": "float64"},
            {"k": 3, "tol": 1e-9, "verify": 5, "eigenvectors": True},
            9,
            ["looking for", "verified", "search over"],
        ),
        ({}, {"k": 5, "tol": 1e-12, "max_products": 11}, None, ["search over"]),
        ({"weight_decay": 0.1}, {"k": 4, "which": "magnitude", "verify": 4}, 12, ["looking for"]),
        ({"train_mode": True, "batch_size": 25}, {"k": 3, "verify": 4}, None, ["looking for"]),
    ],
    ids=["search", "restarts", "verify", "product limit", "magnitude", "train mode"],
)
def test_every_state_goes_on_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    settings: dict[str, Any],
    capacity: int | None,
    phases: list[str],
) -> None:
    if capacity is not None:
        monkeypatch.setattr(eigen_lanczos, "basis_size", lambda *given: capacity)
    options = {"batch_size": 16, **options}
    whole, states = carried_out(small_problem(**options), Settings(**settings), Start(7))
    for phase in phases:
        assert any(phase in text for text, _ in states)
    if capacity is not None:
        assert whole.products > capacity
    for _, start in states[:-1]:
        again, _ = carried_out(small_problem(**options), Settings(**settings), start)
        assert_same_bits(again, whole)


def test_time_spent_goes_on_growing_where_the_state_does_not() -> None:
    """A search for missed eigenvalues is saved as it began, but the time it took is not forgotten."""
    settings = Settings(k=2, verify=6)
    _, states = carried_out(small_problem(batch_size=16), settings, Start(7))
    spent = [start.saved.counters["seconds"] for _, start in states if start.saved is not None]
    assert all(later > earlier for earlier, later in itertools.pairwise(spent))
