"""``landscape reweight``: how SAM would weigh every single example, against its loss.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from landscape.errors import ConfigurationError
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import Result, ReweightResult

__all__ = ["Settings", "finish", "kind", "needs", "plan", "steps", "usable"]

kind = "reweight"

#: Work of all weights of an example in units of its own gradient in a batch, as the benchmark measures it.
_GRADIENTS = 6.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``reweight``.

    Raises:
        ConfigurationError: a length that is not finite.
    """

    rho: float = option(
        0.05, "Length ρ of each example's perturbation, in the units of the weights.", minimum=0.0
    )
    relative: bool = option(False, "Take ρ in units of the norm of the example's own gradient.")
    p: float = option(2.0, "Norm of that length: any p from 1 to inf.", minimum=1.0)

    def __post_init__(self) -> None:
        if self.rho == float("inf"):
            raise ConfigurationError("--rho must be finite", found="inf")


def needs(settings: Settings) -> tuple[str, ...]:
    """No earlier results."""
    return ()


def usable(settings: Settings, result: Result) -> bool:
    """No earlier results."""
    return False


def plan(problem: Problem, settings: Settings) -> Plan:
    """Gradients and memory of the run."""
    from landscape.analyses.base import Plan
    from landscape.analyses.reweight_work import chosen_chunk, example_bytes

    each = example_bytes(problem)
    return Plan(
        products=0,
        at_most=0,
        gradients=1 + _GRADIENTS,
        memory_bytes=int(each * chosen_chunk(problem, each)),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """The loss, then the examples chunk by chunk, then a few of them again for the rounding error."""
    from landscape.analyses.reweight_work import ReweightWork

    return ReweightWork(problem, settings, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> ReweightResult:
    """The result of the examples that there are."""
    from landscape.analyses.reweight_work import reweight_result

    return reweight_result(problem, settings, saved)
