"""``landscape noise``: how the noise of mini-batch gradients lies in the curvature.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from landscape.errors import ConfigurationError
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import NoiseResult, Result

__all__ = ["Settings", "finish", "kind", "needs", "plan", "steps", "usable"]

kind = "noise"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``noise``."""

    against: Literal["both", "gauss-newton", "hessian"] = option(
        "both",
        "What the noise is compared with: both matrices, or one where the loss or the model lacks the other.",
        metavar="MATRIX",
    )
    k: int = option(
        10, "Dimension of the top eigenspaces whose share of the noise is measured.", short="-k", minimum=1
    )
    tol: float = option(
        0.01, "Stop when the 95 % intervals of the cosines reach this far to either side.", minimum=0.0
    )
    max_products: int = option(
        1000,
        "Stop after this many products with all matrices; if an interval is wider than asked for, that is "
        "exit 4.",
        minimum=1,
    )
    draws: int = option(
        32,
        "Mini-batches drawn of each size B = 1, 2, 4, … for the gradient's norm against B, at least; of "
        "small ones as many as a pass over the data makes, up to 1024.",
        minimum=2,
    )
    reuse: bool = option(
        True,
        "Take the Hessian's top eigenvectors from a stored run of more than k pairs (landscape eigen -k 11 "
        "--eigenvectors), if there is one.",
    )

    def __post_init__(self) -> None:
        least = 2 * (1 + len(self.matrices)) * (self.k + 10)
        if self.max_products < least:
            raise ConfigurationError(
                f"--max-products {self.max_products} is too few for -k {self.k}",
                do=f"allow at least {least}, or make -k smaller",
            )

    @property
    def matrices(self) -> tuple[str, ...]:
        """The curvature matrices by name."""
        return ("gauss-newton", "hessian") if self.against == "both" else (self.against,)


def needs(settings: Settings) -> tuple[str, ...]:
    """Kinds of earlier results that are passed in where there are any."""
    return ("eigen",) if settings.reuse and "hessian" in settings.matrices else ()


def usable(settings: Settings, result: Result) -> bool:
    """The Hessian's largest pairs with their vectors, all converged, and one more to see the gap by."""
    from landscape.results import EigenResult

    if not isinstance(result, EigenResult) or result.eigenvectors is None or result.provenance is None:
        return False
    same = result.operator == "hessian" and result.which == "largest" and result.perturb is None
    many = len(result.eigenvalues) > settings.k and result.eigenvectors.shape[0] > settings.k
    return same and many and bool(result.converged[: settings.k + 1].all())


def plan(problem: Problem, settings: Settings) -> Plan:
    """Products, gradients and memory that a run is likely to take."""
    from landscape.analyses.base import Plan
    from landscape.analyses.work import itemsize

    count = 1 + len(settings.matrices)
    k = min(settings.k, problem.size)
    # On the digits nets 2.5k + 5 products found k pairs, and 8 random vectors were enough.
    likely = min(settings.max_products, count * (round(2.5 * k) + 5 + count * k + 8))
    vectors = problem.size * itemsize(problem) * ((count + 1) * 16 + 2 * count * k)
    return Plan(
        products=likely,
        at_most=settings.max_products,
        gradients=3.0 * likely + 10 + settings.draws,
        memory_bytes=vectors + min(problem.memory, problem.size * 8 * 8),
        notes=("how many products the intervals take depends on the spectra",),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Eigenspaces, examples, products with basis and random vectors, mini-batches."""
    from landscape.analyses.noise_work import NoiseWork

    return NoiseWork(problem, settings, inputs, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> NoiseResult:
    """The result of a saved state, whether or not the intervals are narrow enough."""
    from landscape.analyses.noise_result import noise_result

    return noise_result(problem, settings, saved)
