"""``landscape ratios``: what the gradient becomes where the weights are perturbed, class by class.

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
    from landscape.results import RatiosResult, Result

__all__ = ["FULL", "SWEEP", "Settings", "finish", "kind", "minibatch", "needs", "plan", "steps", "usable"]

kind = "ratios"

#: All data at once.
FULL = "full"
#: Mini-batches drawn, and the share of the full gradient left out, unless told otherwise.
BATCHES, SIGMA = 32, 1.0
#: Lengths of a sweep, in units of ρ.
SWEEP = tuple(10 ** (e / 2) for e in range(-4, 3))


@dataclass(frozen=True, kw_only=True)
class Settings(PerturbationSettings):
    """Options of ``ratios``."""

    perturb: Literal["gradient", "adaptive", "friendly", "random"] = option(
        "gradient",
        "gradient: SAM's; adaptive: ASAM's; friendly: the mini-batch's gradient without the full one's share "
        "(Li et al. 2024); random: isotropic.",
    )
    minibatch: str = option(
        FULL,
        "full, or the number of examples in mini-batches drawn at random: both gradients are the "
        "mini-batch's, as in SAM's training; figures are then means with standard errors.",
        metavar="M|full",
        number=True,
    )
    batches: int | None = option(
        None, f"How many mini-batches ({BATCHES} without); each gives one value of every figure.", minimum=2
    )
    sigma: float | None = option(
        None,
        f"Share of the full gradient that the friendly perturbation leaves out ({SIGMA:g} without).",
        minimum=0.0,
    )
    rho_sweep: bool = option(
        False, f"Find the fractions also for {len(SWEEP)} lengths from ρ/100 to 10ρ (a gradient each)."
    )
    per_layer: bool = option(True, "Give the fractions of each layer, at no further cost.")
    as_written: bool = option(
        False,
        "Also count the classes as they were first written down, by dividing: zeros, ties and what "
        "underflows are then in no class, or in a wrong one.",
    )
    masks: bool = option(
        True,
        "Keep the class of every parameter, one bit a class, in a file beside the results (full batch only); "
        "landscape overlap compares them.",
    )

    def __post_init__(self) -> None:
        for name, value in (("rho", self.rho), ("eta", self.eta), ("sigma", self.sigma)):
            if value is not None and not math.isfinite(value):
                raise ConfigurationError(f"--{name} must be finite", found=f"{value:g}")
        size = minibatch(self)
        if self.perturb == "friendly" and size is None:
            raise ConfigurationError(
                "the friendly perturbation is what a mini-batch's gradient has of its own",
                found="--minibatch full",
                do="add --minibatch, for example --minibatch 128",
            )
        if size is None and self.batches is not None:
            raise ConfigurationError(
                "--batches counts mini-batches, and the full batch is one", do="add --minibatch M"
            )
        for name, rule, given in (
            ("sigma", "friendly", self.sigma is not None),
            ("eta", "adaptive", self.eta != type(self).eta),
        ):
            if given and self.perturb != rule:
                raise ConfigurationError(
                    f"--{name} belongs to --perturb {rule}", found=f"--perturb {self.perturb}"
                )
        if self.perturb == "random" and self.p != 2:
            raise ConfigurationError(
                "random perturbations are isotropic, so their length is Euclidean",
                found=f"--p {self.p:g}",
                do="leave --p out",
            )


def minibatch(settings: Settings) -> int | None:
    """Examples in a mini-batch; None for all data at once.

    Raises:
        ConfigurationError: neither ``full`` nor a number of at least 1.
    """
    text = settings.minibatch
    if text == FULL:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError("--minibatch is a number of examples, or full", found=repr(text))
    return int(text)


def check_minibatch(size: int | None, examples: int) -> None:
    """Raise a :class:`ConfigurationError` if there are fewer examples than a mini-batch has."""
    if size is not None and size > examples:
        raise ConfigurationError(
            f"mini-batches of {size} examples cannot be drawn from {examples}",
            do="use a smaller --minibatch, or --minibatch full",
        )


def needs(settings: Settings) -> tuple[str, ...]:
    """No earlier results."""
    return ()


def usable(settings: Settings, result: Result) -> bool:
    """No earlier results."""
    return False


def plan(problem: Problem, settings: Settings) -> Plan:
    """Gradients and memory of the run."""
    from landscape.analyses.base import Plan
    from landscape.analyses.work import itemsize

    pairs, share = 1, 1.0
    size = minibatch(settings)
    check_minibatch(size, problem.examples)
    if size is not None:
        pairs, share = settings.batches or BATCHES, min(1.0, size / problem.examples)
    each = 2 + (len(SWEEP) - 1 if settings.rho_sweep else 0)
    full = 1.0 if size is not None else 0.0
    vectors = problem.size * itemsize(problem)
    return Plan(
        products=0,
        at_most=0,
        gradients=full + pairs * each * share,
        memory_bytes=6 * vectors + (2 * problem.size if settings.masks else 0),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """The gradient, then the perturbed one, or pairs of them from mini-batch after mini-batch."""
    from landscape.analyses.ratios_work import RatiosWork

    return RatiosWork(problem, settings, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> RatiosResult:
    """The result of the pairs that there are."""
    from landscape.analyses.ratios_work import ratios_result

    return ratios_result(problem, settings, saved)
