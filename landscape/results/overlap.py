"""The result of ``landscape overlap``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar

import numpy as np

from landscape.results.base import Result, quantity, register

__all__ = ["OverlapResult"]

_PAIR = ("step_a", "step_b")


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OverlapResult(Result):
    """How far the parameters in a ratio class are the same at several saved steps, beside chance.

    A is the class at ``step_a``, B at ``step_b`` (or another class there: ``with_class``). "Independent" sets
    have the sizes found and are laid out over the parameters at random. On the diagonal, where both are of
    one checkpoint, nothing is compared with chance. Masked elsewhere: what an empty set leaves undefined.
    """

    kind: ClassVar[str] = "overlap"

    ratio_class: str = quantity("The class that is followed.")
    with_class: str | None = quantity(
        "The class it is compared with at the other steps, if that is another one.", default=None
    )
    parameters: int = quantity("Number of parameters that are in one class or another.")
    perturbation: str = quantity("The perturbation behind the classes.")
    differing: str | None = quantity(
        "In what the runs differ, beside the weights, where that was allowed.", default=None
    )
    checkpoints: np.ndarray = quantity("Saved models in training order.", dims=("step_a",))
    runs: np.ndarray = quantity("The ratios run of each.", dims=("step_a",))
    order: str = quantity("What they are in the order of: step, epoch or given.")
    places: np.ndarray = quantity("Step or epoch of each, or its place in the order given.", dims=("step_a",))
    sizes: np.ndarray = quantity("Parameters in the class, |A|.", dims=("step_a",), error="size_errors")
    size_errors: np.ndarray = quantity(
        "How many of them, at most, rounding of the gradients may have put in or out.", dims=("step_a",)
    )
    with_sizes: np.ndarray | None = quantity(
        "Parameters in the other class, |B|.", dims=("step_b",), error="with_size_errors", default=None
    )
    with_size_errors: np.ndarray | None = quantity(
        "How many of them, at most, rounding of the gradients may have put in or out.",
        dims=("step_b",),
        default=None,
    )
    counts: np.ndarray = quantity("Parameters in both, |A∩B|.", dims=_PAIR, error="count_errors")
    count_errors: np.ndarray = quantity(
        "By how many, at most, rounding of the gradients may have changed that.", dims=_PAIR
    )
    expected: np.ndarray = quantity(
        "Parameters in both, were the sets independent: |A||B|/n.", dims=_PAIR, error="deviations"
    )
    deviations: np.ndarray = quantity(
        "Standard deviation of that (of the hypergeometric distribution).", dims=_PAIR
    )
    z: np.ndarray = quantity("(|A∩B| − expected)/deviation; masked where there is no deviation.", dims=_PAIR)
    shares: np.ndarray = quantity("Share of A that is in B, |A∩B|/|A|.", dims=_PAIR)
    lifts: np.ndarray = quantity("|A∩B| over its expectation; 1 is chance.", dims=_PAIR)
    lift_intervals: np.ndarray = quantity(
        "Where the lift of independent sets lies (exact 95 % interval).", dims=(*_PAIR, "end")
    )
    jaccards: np.ndarray = quantity("Jaccard's index |A∩B|/|A∪B|.", dims=_PAIR)
    kappas: np.ndarray = quantity("Cohen's κ: 0 is chance, 1 the same set.", dims=_PAIR)
    common: np.ndarray | None = quantity(
        "Parameters in the class at every saved step from the one to the other.",
        dims=_PAIR,
        error="common_errors",
        default=None,
    )
    common_errors: np.ndarray | None = quantity(
        "By how many, at most, rounding of the gradients may have changed that.", dims=_PAIR, default=None
    )
    common_expected: np.ndarray | None = quantity(
        "The same, were the sets independent: n∏(|A|/n).",
        dims=_PAIR,
        error="common_deviations",
        default=None,
    )
    common_deviations: np.ndarray | None = quantity("Standard deviation of that.", dims=_PAIR, default=None)
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")

    @property
    def numbered(self) -> bool:
        """Whether steps or epochs tell the saved models apart; those of several trainings may not."""
        return self.order != "given" and len(set(self.places.tolist())) == len(self.places)

    def labels(self) -> list[str]:
        """What tells the saved models apart: steps or epochs, else names of files, else runs."""
        numbers = [f"{place:d}" for place in self.places] if self.numbered else []
        names = [PurePath(path.replace("\\", "/")).name for path in self.checkpoints]
        for labels in (numbers, names, list(map(str, self.checkpoints))):
            if len(set(labels)) == len(self.places):
                return labels
        return list(map(str, self.runs))
