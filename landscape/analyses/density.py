"""``landscape density``: the distribution of the eigenvalues of a curvature matrix.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from landscape.analyses.matrix import MatrixSettings
from landscape.errors import ConfigurationError
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import DensityResult, Result

__all__ = ["Settings", "finish", "kind", "needs", "plan", "steps", "usable"]

kind = "density"


@dataclass(frozen=True, kw_only=True)
class Settings(MatrixSettings):
    """Options of ``density``."""

    probes: int = option(2, "Random vectors; few and deep ones resolve the spectrum best.", minimum=1)
    steps: int = option(50, "Lanczos steps of each, one product a step.", minimum=1)
    effective_dimension: float | None = option(
        None,
        "Also Σ λ/(λ + Z) over the positive eigenvalues, the number of directions stiffer than Z.",
        metavar="Z",
    )
    per_layer: bool = option(False, "Also the density of each layer's own block, with as many products each.")
    compare: bool = option(
        True,
        "Compare trace and λmax with the stored trace and eigen runs of the same matrix, if there are any.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        z = self.effective_dimension
        if z is not None and not 0 < z < float("inf"):
            raise ConfigurationError("--effective-dimension must be a positive number", found=repr(z))


def needs(settings: Settings) -> tuple[str, ...]:
    """Kinds of earlier results that are passed in where there are any."""
    return ("eigen", "trace") if settings.compare else ()


def usable(settings: Settings, result: Result) -> bool:
    """Finished runs of the same matrix."""
    from landscape.analyses.inputs import same_matrix

    return result.status == "complete" and same_matrix(settings, result)


def plan(problem: Problem, settings: Settings) -> Plan:
    """Products, gradients and memory that a run takes."""
    from landscape.analyses.base import Plan
    from landscape.analyses.work import itemsize
    from landscape.parameters import layers

    steps = min(settings.steps, problem.size)
    products = settings.probes * steps
    if settings.per_layer:
        groups = layers(problem.selection.layout).values()
        sizes = [problem.selection.layout.count(members) for members in groups]
        products += settings.probes * sum(min(settings.steps, size) for size in sizes)
    return Plan(
        products=products,
        at_most=products,
        gradients=3.0 * products,
        memory_bytes=problem.size * itemsize(problem) * (steps + 1) + min(problem.memory, problem.size * 32),
        notes=("at most 3 gradients a product, 2 where the graphs fit in memory",),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Measure the loss, then probe after probe; a state after each product."""
    from landscape.analyses.density_work import DensityWork

    return DensityWork(problem, settings, inputs, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> DensityResult:
    """The result of a saved state, of as many probes and steps as were made."""
    from landscape.analyses.density_work import density_result

    return density_result(problem, settings, saved)
