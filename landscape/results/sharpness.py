"""The result of ``landscape sharpness``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import ProblemResult, quantity, register
from landscape.results.matrix import CURVATURE

__all__ = ["SharpnessResult"]


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SharpnessResult(ProblemResult):
    """The rise of the loss within a distance of the weights, beside its expansion term by term.

    Of all data at once the terms are exact but for rounding, which their errors are, and ``increase_error``
    is the standard error over the data at the ε that was found. Over groups (``m``) every term is the mean of
    the groups' own, weighted by loss terms, and errors are standard errors over groups. NaN stands for what a
    run that was stopped did not reach, and in a sweep for a loss that is not finite there.
    """

    kind: ClassVar[str] = "sharpness"

    measure: str = quantity("Kind of sharpness: sam, asam, keskar or average.")
    rho: float = quantity("The length ρ asked for.", unit="weight")
    relative: bool = quantity("Whether ρ is in units of ‖g‖.")
    radius: float = quantity("The length in the units of the weights.", unit="weight")
    p: float = quantity("Norm in which that is the length of ε.")
    eta: float | None = quantity("η of asam; 1 for keskar.", default=None)
    steps: int = quantity("Steps of gradient ascent within the ball (0: the first-order point).")
    m: int | None = quantity("Examples in a group with an ε of its own; none: all data.", default=None)
    groups: int = quantity("Groups measured.")
    last_group: int | None = quantity("Examples in the last group, if fewer than m.", default=None)
    flat_groups: int = quantity("Groups whose gradient is zero, so that nothing moved them.", default=0)
    empty_groups: int = quantity("Groups without loss terms, left out.", default=0)
    arithmetic: str = quantity("Arithmetic of the differences of losses.")
    increase: float = quantity(
        "L(w + ε) − L(w): at the highest point found, so a lower bound of the largest; average: the mean "
        "over random directions.",
        unit="loss",
        error="increase_error",
    )
    increase_error: float | None = quantity(
        "Standard error over the data at this ε, or over groups; average: half of the interval.",
        unit="loss",
        default=None,
    )
    error_method: str = quantity("What that error is, or why there is none.", default="")
    noise: float = quantity("What rounding can do to a difference of two losses.", unit="loss")
    keskar: float | None = quantity(
        "100 (L(w + ε) − L(w))/(1 + L(w)), a lower bound (keskar).",
        unit="percent",
        error="keskar_error",
        default=None,
    )
    keskar_error: float | None = quantity("Its standard error.", unit="percent", default=None)
    length: float = quantity("‖ε‖₂ (mean over groups).", unit="weight")
    first_order: float | None = quantity(
        "εᵀg; ρ‖g‖_q for the first-order point.", unit="loss", error="first_order_error", default=None
    )
    first_order_error: float | None = quantity(
        "Rounding, or the standard error over groups.", unit="loss", default=None
    )
    second_order: float | None = quantity("½εᵀHε.", unit="loss", error="second_order_error", default=None)
    second_order_error: float | None = quantity(
        "Rounding, or the standard error over groups.", unit="loss", default=None
    )
    remainder: float | None = quantity(
        "The increase without these two terms.", unit="loss", error="remainder_error", default=None
    )
    remainder_error: float | None = quantity(
        "Rounding, or the standard error over groups.", unit="loss", default=None
    )
    squared_norm_ratio: float | None = quantity(
        "‖w‖²/ρ² over the measured parameters, the argument of the bound of Foret et al. 2021 (theorem 1), "
        "which holds with high probability only.",
        default=None,
    )
    group_increases: np.ndarray | None = quantity(
        "Increase of each group.", dims=("group",), unit="loss", default=None
    )
    group_terms: np.ndarray | None = quantity("Loss terms of each.", dims=("group",), default=None)
    confidence: float = quantity("Chance that an interval below holds the truth, at least.", default=0.95)
    directions: int = quantity("Pairs ±ε of random directions.", default=0)
    random_length: float | None = quantity(
        "‖ε‖₂ of the random directions: ρ, or that of the ε above in another norm.",
        unit="weight",
        default=None,
    )
    random_mean: float | None = quantity(
        "Mean of (L(w + ε) + L(w − ε))/2 − L(w) over isotropic random ε of length ``random_length``.",
        unit="loss",
        error="random_interval",
        default=None,
    )
    random_interval: np.ndarray | None = quantity("Its interval.", dims=("end",), unit="loss", default=None)
    hessian_trace: float | None = quantity(
        "Trace of the Hessian.", unit=CURVATURE, error="hessian_trace_interval", default=None
    )
    hessian_trace_interval: np.ndarray | None = quantity(
        "Its interval.", dims=("end",), unit=CURVATURE, default=None
    )
    trace_source: str = quantity("Where that trace is from.", default="")
    predicted_mean: float | None = quantity(
        "‖ε‖²Tr(H)/(2n) at that length.", unit="loss", error="predicted_interval", default=None
    )
    predicted_interval: np.ndarray | None = quantity(
        "Its interval.", dims=("end",), unit="loss", default=None
    )
    random_difference: float | None = quantity(
        "Random mean − ‖ε‖²Tr(H)/(2n); from the same directions, direction by direction.",
        unit="loss",
        error="random_difference_interval",
        default=None,
    )
    random_difference_interval: np.ndarray | None = quantity(
        "Its interval.", dims=("end",), unit="loss", default=None
    )
    direction_increases: np.ndarray | None = quantity(
        "(L(w + ε) + L(w − ε))/2 − L(w) of each direction.", dims=("direction",), unit="loss", default=None
    )
    direction_curvatures: np.ndarray | None = quantity(
        "uᵀHu of each direction u.", dims=("direction",), unit=CURVATURE, default=None
    )
    look_directions: np.ndarray | None = quantity(
        "Directions when the interval was looked at.", dims=("look",), default=None
    )
    look_means: np.ndarray | None = quantity(
        "The mean then.", dims=("look",), unit="loss", error="look_half_widths", default=None
    )
    look_half_widths: np.ndarray | None = quantity(
        "Half-width of the interval then.", dims=("look",), unit="loss", default=None
    )
    rho_sweep: np.ndarray | None = quantity(
        "Lengths tried, as ``radius``.", dims=("rho_step",), unit="weight", default=None
    )
    sweep_increases: np.ndarray | None = quantity(
        "Increase at each, as ``increase``.",
        dims=("rho_step",),
        unit="loss",
        error="sweep_errors",
        default=None,
    )
    sweep_errors: np.ndarray | None = quantity(
        "Its error, as ``increase_error``; masked where not computed.",
        dims=("rho_step",),
        unit="loss",
        default=None,
    )
    sweep_first: np.ndarray | None = quantity(
        "ρ‖g‖_q, the term of first order at the first-order point; average: zero.",
        dims=("rho_step",),
        unit="loss",
        default=None,
    )
    sweep_second: np.ndarray | None = quantity(
        "½εᵀHε there; average: ρ²Tr(H)/(2n).", dims=("rho_step",), unit="loss", default=None
    )
    evaluations: int = quantity("Losses over the data, forward passes alone.")
    gradients: int = quantity("Gradients over the data.")
    products: int = quantity("Products with the Hessian.")
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")

    @property
    def where(self) -> str:
        """At what distance, in which norm, of how many examples at once, and how it was found."""
        size = f"ρ = {self.rho:g}" + (f"·‖g‖ = {self.radius:.4g}" if self.relative else "")
        return self.at(size)

    def at(self, distance: str) -> str:
        """The same at another distance."""
        return f"{self._ball} {distance}, {self._sample}, {self._found}"

    @property
    def _ball(self) -> str:
        norm = {1.0: "₁", 2.0: "₂", math.inf: "∞"}.get(self.p, f"_{self.p:g}")
        if self.measure == "keskar":
            return "|ε| ≤ ρ(|w| + 1),"
        if self.measure == "asam":
            return f"‖ε/T‖{norm} ≤ ρ, T = |w| + {self.eta:g} on weights,"
        return f"‖ε‖{norm} = ρ," if self.measure == "average" else f"‖ε‖{norm} ≤ ρ,"

    @property
    def _sample(self) -> str:
        if self.m is None:
            return "all data at once"
        last = "" if self.last_group is None else f", the last of {self.last_group}"
        return f"m = {self.m} ({self.groups} groups{last})"

    @property
    def _found(self) -> str:
        if self.measure == "average":
            return f"{self.directions} random pairs ±ε"
        if not self.steps:
            return "first-order point"
        return f"{self.steps} step{'s' if self.steps > 1 else ''} of ascent"
