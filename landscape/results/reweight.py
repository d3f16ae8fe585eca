"""The result of ``landscape reweight``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import ProblemResult, quantity, register

__all__ = ["ReweightResult"]

_SIZE = "loss / weight"
_INTERVAL = "95 % interval."


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReweightResult(ProblemResult):
    """The weight ‖∇l(w + ε)‖/‖∇l(w)‖ of each example in 1-SAM, and what it has to do with the loss.

    Masked where an example has no weight: its gradient is zero, it has no terms, its gradient at w + ε is not
    finite, or a limit came before it. Labels are masked where an example's are not one integer.
    """

    kind: ClassVar[str] = "reweight"

    p: float = quantity("Norm in which each example's ε has its length.")
    rho: float = quantity("The length ρ of each example's perturbation.", unit="weight")
    relative: bool = quantity("Whether ρ is in units of the norm of the example's own gradient.")
    weight_decay: float = quantity(
        "Weight decay of the loss; it belongs to no example and is not part of the examples' losses."
    )
    index: np.ndarray = quantity("Number of the example in the data, from 0 on.", dims=("example",))
    example_loss: np.ndarray = quantity(
        "Loss of each example, summed over its terms.", dims=("example",), unit="loss"
    )
    example_gradient_norm: np.ndarray = quantity(
        "Euclidean norm of its gradient.", dims=("example",), unit=_SIZE
    )
    weight: np.ndarray = quantity(
        "‖J(w+ε)ᵀ r(w+ε)‖/‖J(w)ᵀ r(w)‖: how much 1-SAM weighs each example; J the Jacobian of the outputs, "
        "r the gradient of the loss in the outputs.",
        dims=("example",),
        error="rounding",
    )
    logit_weight: np.ndarray = quantity(
        "‖J(w)ᵀ r(w+ε)‖/‖J(w)ᵀ r(w)‖: with only r perturbed.", dims=("example",), error="rounding"
    )
    jacobian_weight: np.ndarray = quantity(
        "‖J(w+ε)ᵀ r(w)‖/‖J(w)ᵀ r(w)‖: with only the Jacobian perturbed (J-SAM).",
        dims=("example",),
        error="rounding",
    )
    rounding: float | None = quantity(
        "Largest relative error of a weight on a few examples of low to high loss.", default=None
    )
    rounding_typical: float | None = quantity("The median of these errors.", default=None)
    rounding_examples: int = quantity("How many examples these are.", default=0)
    rounding_against: str = quantity("What the weights of these were computed in to compare.", default="")
    label: np.ndarray | None = quantity("Label of each example.", dims=("example",), default=None)
    right: np.ndarray | None = quantity(
        "Share of its labels predicted right: 0 or 1 for a single one.", dims=("example",), default=None
    )
    noisy: np.ndarray | None = quantity(
        "Whether the data mark its label as wrong.", dims=("example",), default=None
    )
    zero_gradients: int = quantity("Examples whose gradient is zero: they have no weight.")
    without_terms: int = quantity("Examples all of whose terms are masked.")
    overflowed: int = quantity("Examples whose gradient at w + ε is not finite: ρ is too large for them.")
    not_reached: int = quantity("Examples that a limit came before.", default=0)
    rank_correlation: float = quantity(
        "Spearman's rank correlation of weight and loss over the examples that have a weight.",
        error="rank_correlation_interval",
    )
    rank_correlation_interval: np.ndarray = quantity(_INTERVAL, dims=("end",))
    groups: np.ndarray = quantity("Groups of examples: all and, if marked, clean and noisy.", dims=("group",))
    group_examples: np.ndarray = quantity("Examples of each that have a weight.", dims=("group",))
    median_losses: np.ndarray = quantity(
        "Median loss of each.", dims=("group",), unit="loss", error="median_loss_intervals"
    )
    median_loss_intervals: np.ndarray = quantity(_INTERVAL, dims=("group", "end"), unit="loss")
    median_weights: np.ndarray = quantity(
        "Median weight of each.", dims=("group",), error="median_weight_intervals"
    )
    median_weight_intervals: np.ndarray = quantity(_INTERVAL, dims=("group", "end"))
    median_logit_weights: np.ndarray = quantity(
        "Median of the logit parts.", dims=("group",), error="median_logit_weight_intervals"
    )
    median_logit_weight_intervals: np.ndarray = quantity(_INTERVAL, dims=("group", "end"))
    median_jacobian_weights: np.ndarray = quantity(
        "Median of the Jacobian parts.", dims=("group",), error="median_jacobian_weight_intervals"
    )
    median_jacobian_weight_intervals: np.ndarray = quantity(_INTERVAL, dims=("group", "end"))
    weight_area: float | None = quantity(
        "Chance that a clean example has a larger weight than a noisy one (the area under the ROC curve; ½ "
        "tells nothing).",
        error="weight_area_interval",
        default=None,
    )
    weight_area_interval: np.ndarray | None = quantity(_INTERVAL, dims=("end",), default=None)
    loss_area: float | None = quantity(
        "Chance that a clean example has a smaller loss than a noisy one, to compare with.",
        error="loss_area_interval",
        default=None,
    )
    loss_area_interval: np.ndarray | None = quantity(_INTERVAL, dims=("end",), default=None)
    method: str = quantity("vectorised, or one by one.")
    method_reason: str = quantity("Why not vectorised; empty if it is.", default="")
    separable: bool = quantity("Whether outputs lie between weights and loss, so that there are two parts.")
    chunk: int = quantity("Examples done at once.")
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")
