"""``landscape sharpness``: how much the loss rises within a distance of the weights, and why.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from landscape.analyses.perturbed import PerturbationSettings
from landscape.errors import ConfigurationError
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import Result, SharpnessResult

__all__ = ["SWEEP", "Settings", "finish", "kind", "needs", "plan", "steps", "usable"]

kind = "sharpness"

#: Lengths of a sweep, in units of ρ: from ρ/100 to 10ρ.
SWEEP = tuple(10 ** (-2 + 3 * k / 9) for k in range(10))
#: Iterations that Keskar et al. 2017 (§2.2.2) allow their maximiser.
KESKAR_STEPS = 10
#: How narrow the interval of an average is to be, and how many directions it may take.
TOL, DIRECTIONS = 0.1, 512
#: Random directions for the comparison beside a maximum.
BESIDE = 16


#: The largest length, well below the root of the largest number.
_LARGEST = 1e70


@dataclass(frozen=True, kw_only=True)
class Settings(PerturbationSettings):
    """Options of ``sharpness``.

    Raises:
        ConfigurationError: options that do not belong together.
    """

    kind: Literal["sam", "asam", "keskar", "average"] = option(
        "sam",
        "sam: the largest rise within ‖ε‖ₚ ≤ ρ (Foret et al. 2021); asam: within ‖ε/(|w| + η)‖ₚ ≤ ρ (Kwon et "
        "al. 2021, who take ρ = 0.5); keskar: within |ε| ≤ ρ(|w| + 1), in percent of 1 + L (Keskar et al. "
        "2017, who take ρ = 0.001); average: the mean rise over random directions of length ρ.",
    )
    steps: int | None = option(
        None,
        "Steps of projected gradient ascent within that ball, the highest point kept; 0: the first-order "
        f"point alone. Without: {KESKAR_STEPS} for keskar, else 0.",
        minimum=0,
    )
    m: int | None = option(
        None,
        "m-sharpness: examples in each of the random disjoint groups with an ε each; all at once without.",
        minimum=1,
    )
    rho_sweep: bool = option(
        False, f"Find the rise also at {len(SWEEP)} lengths from ρ/100 to 10ρ, beside its expansion."
    )
    expansion: bool = option(
        True,
        "Compare the rise with its expansion εᵀg + ½εᵀHε, and the mean rise over random directions with "
        "ρ²Tr(H)/(2n): a product with the Hessian, and one a direction unless a trace run is stored.",
    )
    tol: float | None = option(
        None,
        f"average: stop when half the width of the 95 % interval is this share of the mean ({TOL} without).",
        minimum=0.0,
    )
    max_directions: int | None = option(
        None,
        f"Random directions at most. Without: {DIRECTIONS} for average, where an interval wider than asked "
        f"for is exit 4; else {BESIDE}.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise ConfigurationError(
                "--rho must be positive and finite: at 0 nothing is moved", found=f"{self.rho:g}"
            )
        if not math.isfinite(self.eta):
            raise ConfigurationError("--eta must be finite", found=f"{self.eta:g}")
        if max(self.rho, self.eta) > _LARGEST:
            raise ConfigurationError(
                f"lengths beyond {_LARGEST:g} have no square in float64",
                found=f"--rho {self.rho:g}, --eta {self.eta:g}",
            )
        if not self.p >= 1:
            raise ConfigurationError("the p of a norm is at least 1", found=f"--p {self.p:g}")
        defaults = PerturbationSettings
        for flag, given, kinds in (
            ("--p", self.p != defaults.p, ("sam", "asam")),
            ("--eta", self.eta != defaults.eta, ("asam",)),
            ("--relative", self.relative, ("sam", "asam", "average")),
            ("--steps", self.steps is not None, ("sam", "asam", "keskar")),
            ("-m", self.m is not None, ("sam", "asam", "keskar")),
            ("--tol", self.tol is not None, ("average",)),
        ):
            if given and self.kind not in kinds:
                raise ConfigurationError(
                    f"{flag} belongs to {' or '.join(f'--kind {one}' for one in kinds)}",
                    found=f"--kind {self.kind}",
                    do=f"leave {flag} out",
                )
        if self.max_directions is not None and not (self.expansion or self.kind == "average"):
            raise ConfigurationError(
                "--max-directions is about random directions, and --no-expansion leaves them out",
                do="leave one of the two out",
            )

    @property
    def ascent(self) -> int:
        """Steps of the ascent."""
        return self.steps if self.steps is not None else KESKAR_STEPS if self.kind == "keskar" else 0

    @property
    def norm(self) -> float:
        """p of the ball."""
        return math.inf if self.kind == "keskar" else self.p

    @property
    def directions(self) -> int:
        """Random directions at most."""
        if self.kind != "average" and not self.expansion:
            return 0
        return self.max_directions or (DIRECTIONS if self.kind == "average" else BESIDE)

    @property
    def tolerance(self) -> float:
        """Relative half-width at which random directions stop; 0: at the end only."""
        if self.kind != "average":
            return 0.0
        return TOL if self.tol is None else self.tol

    @property
    def lengths(self) -> tuple[float, ...]:
        """Radii in units of ρ, the first of them ρ itself."""
        return (1.0, *(SWEEP if self.rho_sweep else ()))


def needs(settings: Settings) -> tuple[str, ...]:
    """Kinds of earlier results that are passed in where there are any."""
    return ("trace",) if settings.expansion else ()


def usable(settings: Settings, result: Result) -> bool:
    """A finished trace of the Hessian."""
    from landscape.analyses.inputs import same_matrix
    from landscape.analyses.matrix import MatrixSettings

    return result.status == "complete" and same_matrix(MatrixSettings(), result)


def plan(problem: Problem, settings: Settings) -> Plan:
    """Gradients, products and memory that a run takes, with no trace stored."""
    from landscape.analyses.base import Plan

    # A loss is a forward pass, a third of a gradient, in float64 twice as dear on a processor.
    loss, radii = 2 / 3, len(settings.lengths)
    groups = 0 if settings.kind == "average" else 1
    climbing = (settings.ascent + 1) * radii if settings.ascent else 0
    products = groups * settings.expansion * (2 if settings.ascent else 1)
    directions = settings.directions
    if settings.tolerance:  # random directions go on until the interval is narrow: a typical number
        directions = min(directions, 128)
    each = loss * 2 * (radii if settings.kind == "average" else 1)
    gradients = 2 + groups * (1 + climbing + loss * (5 + 2 * radii)) + directions * each

    def all_products(random: int) -> int:
        return products + (random if settings.expansion else 0)

    spent = all_products(directions)
    return Plan(
        products=spent,
        at_most=all_products(settings.directions),
        gradients=gradients + 3.0 * spent,
        memory_bytes=problem.size * 8 * 8 + min(problem.memory, problem.size * 32),
        notes=("a stored trace run (landscape trace) saves a product a direction",) * (spent > products),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Measure the loss, then group after group, length after length, direction after direction."""
    from landscape.analyses.sharpness_work import SharpnessWork

    return SharpnessWork(problem, settings, inputs, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> SharpnessResult:
    """The result of a saved state, of as much as was done."""
    from landscape.analyses.sharpness_result import sharpness_result

    return sharpness_result(problem, settings, saved)
