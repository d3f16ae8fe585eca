"""What an analysis is: settings, needs, steps, finish. The run room carries out all of them alike."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np

    from landscape.problem import Problem
    from landscape.results import Result

__all__ = ["ANALYSES", "Analysis", "Plan", "Saved", "Start", "State", "analysis"]


@dataclass(frozen=True)
class Saved:
    """Named arrays and counters: enough to go on from, and to finish with.

    ``fixed`` are rows as long as the model, (k, n), that never change once they are there; they are written
    once.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """Where an analysis stands after a step.

    Attributes:
        save: takes the arrays and counters as they are now; called only when they are needed.
        done, total: steps made and expected (None if unknown), for the progress bar.
        text: what is going on, in a few words.
        strategy: how the work is done, chosen by measurement; used again on resumption.
        over: this is the last state.
        keep: what was done since the last state is worth keeping at once, whatever happens.
    """

    save: Callable[[], Saved]
    done: int
    total: int | None
    text: str
    strategy: Mapping[str, Any]
    over: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Start:
    """What a run begins with: the seed and, on resumption, the saved state and the strategy to use again.

    ``strategy`` alone, without ``saved``, is one to be used instead of measuring. ``vectors`` are rows (k, n)
    by the names that the analysis asked for.
    """

    seed: int
    saved: Saved | None = None
    strategy: Mapping[str, Any] | None = None
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a run would take: products, passes over the data in gradients, bytes, and words about them."""

    products: int
    at_most: int
    gradients: float
    memory_bytes: int
    notes: tuple[str, ...] = ()


class Analysis(Protocol):
    """A module of this package."""

    kind: str
    Settings: type

    def needs(self, settings: Any) -> Sequence[str]:
        """Kinds of earlier results that are passed in as inputs where there are any."""

    def usable(self, settings: Any, result: Result) -> bool:
        """Whether an earlier result of the same subject and of such a kind can be used."""

    def plan(self, problem: Problem, settings: Any) -> Plan:
        """What the run would take."""

    # An analysis may also have
    #   about(problem, settings): the contents of files that settings name, part of the run's identity;
    #   vectors(settings): names or hashes of stored rows as long as the model that it starts from.

    def steps(
        self, problem: Problem, settings: Any, inputs: Mapping[str, Result], start: Start
    ) -> Iterator[State]:
        """The work, step by step; ``inputs`` (by kind) are for a beginning: a saved state needs none."""

    def finish(self, problem: Problem, settings: Any, saved: Saved) -> Result:
        """The result of a state: the last one, or where a limit stopped the work."""


#: Kind → module.
ANALYSES = {
    "eigen": "landscape.analyses.eigen",
    "trace": "landscape.analyses.trace",
    "density": "landscape.analyses.density",
    "ratios": "landscape.analyses.ratios",
    "sharpness": "landscape.analyses.sharpness",
    "reweight": "landscape.analyses.reweight",
    "noise": "landscape.analyses.noise",
    "slice": "landscape.analyses.slice",
}


def analysis(kind: str) -> Analysis:
    """The analysis called ``kind``."""
    return cast(Analysis, importlib.import_module(ANALYSES[kind]))
