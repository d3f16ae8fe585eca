"""The result of ``landscape ratios``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import ProblemResult, quantity, register

__all__ = ["CLASSES", "RatiosResult"]

#: The classes of r = g'/g, by comparison and not by division; every parameter is in exactly one.
CLASSES: Mapping[str, str] = {
    "ckpt1": "r > 1",
    "ckpt2": "0 < r < 1",
    "ckpt3": "r < −1",
    "ckpt4": "−1 < r < 0",
    "equal": "r = 1",
    "opposite": "r = −1",
    "dead": "g = g' = 0",
    "born": "only g = 0",
    "killed": "only g' = 0",
    "nonfinite": "g or g' is not finite",
}


_ERROR = "Standard error over mini-batches; of a full batch, about what rounding of the gradients does to it."


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RatiosResult(ProblemResult):
    """Classes of the ratio of the perturbed gradient g' = ∇L(w + ε) to the gradient g = ∇L(w).

    Of a full batch the figures are exact but for rounding, which ``uncertain`` counts, and the errors over
    mini-batches are masked; over mini-batches, figures are means and errors standard errors of the mean.
    """

    kind: ClassVar[str] = "ratios"
    apart: ClassVar[Mapping[str, str]] = {"masks": "masks_file"}

    perturb: str = quantity("The perturbation ε: gradient (SAM), adaptive (ASAM), friendly or random.")
    p: float = quantity("Norm in which ε has its length.")
    rho: float = quantity("The length ρ asked for.", unit="weight")
    relative: bool = quantity("Whether ρ is in units of ‖g‖.")
    length: float = quantity("Euclidean length of ε (mean over mini-batches).", unit="weight")
    eta: float | None = quantity("η of the adaptive perturbation.", default=None)
    sigma: float | None = quantity(
        "Share of the full gradient taken out of the friendly perturbation.", default=None
    )
    minibatch: int | None = quantity("Examples of a mini-batch; none: all data at once.", default=None)
    batches: int = quantity("Mini-batches drawn (1: all data).")
    classes: np.ndarray = quantity("Names of the classes.", dims=("ratio_class",))
    counts: np.ndarray = quantity(
        "Parameters in each class; they add up to all.", dims=("ratio_class",), error="count_errors"
    )
    count_errors: np.ndarray = quantity("Standard error over mini-batches.", dims=("ratio_class",))
    fractions: np.ndarray = quantity(
        "The same as a share of all parameters.", dims=("ratio_class",), error="fraction_errors"
    )
    fraction_errors: np.ndarray = quantity("Standard error over mini-batches.", dims=("ratio_class",))
    uncertain: np.ndarray = quantity(
        "Share of the parameters counted here that rounding of the gradients may have put into another class "
        "(of all parameters).",
        dims=("ratio_class",),
    )
    rounding: float = quantity("Relative rounding error of the gradient, measured on a few examples.")
    gradient_shares: np.ndarray = quantity(
        "Share of ‖g‖² that lies in each class.", dims=("ratio_class",), error="gradient_share_errors"
    )
    gradient_share_errors: np.ndarray = quantity("Standard error over mini-batches.", dims=("ratio_class",))
    perturbed_shares: np.ndarray = quantity(
        "Share of ‖g'‖² that lies in each class.", dims=("ratio_class",), error="perturbed_share_errors"
    )
    perturbed_share_errors: np.ndarray = quantity("Standard error over mini-batches.", dims=("ratio_class",))
    gradient_norm_ratio: float = quantity("‖g'‖/‖g‖; NaN where g is zero.", error="gradient_norm_ratio_error")
    gradient_norm_ratio_error: float | None = quantity(_ERROR, default=None)
    cosine: float = quantity("Cosine of the angle between g and g'.", error="cosine_error")
    cosine_error: float | None = quantity(_ERROR, default=None)
    sign_agreement: float = quantity(
        "Share of the parameters with g ≠ 0 whose gradient keeps its sign.", error="sign_agreement_error"
    )
    sign_agreement_error: float | None = quantity("Standard error over mini-batches.", default=None)
    directional_curvature: float = quantity(
        "(g'·ε − g·ε)/‖ε‖²: the mean curvature between w and w + ε along ε; uᵀHu as ρ → 0.",
        unit="loss / weight²",
        error="directional_curvature_error",
    )
    directional_curvature_error: float | None = quantity(_ERROR, default=None)
    perturbed_loss: float = quantity(
        "Loss at w + ε (mean over mini-batches).", unit="loss", error="perturbed_loss_error"
    )
    perturbed_loss_error: float | None = quantity("Standard error over mini-batches.", default=None)
    bin_low: np.ndarray = quantity(
        "Lower end of each bin of r; on the negative side the larger |r|.", dims=("bin",)
    )
    bin_high: np.ndarray = quantity("Upper end of each bin of r.", dims=("bin",))
    histogram: np.ndarray = quantity(
        "Parameters with r in each bin (mean over mini-batches); r = ±2^k belongs to the bin of larger |r|. "
        "Dead, born, killed and nonfinite ones are in none.",
        dims=("bin",),
    )
    layers: np.ndarray | None = quantity(
        "Layers: the modules that own parameters.", dims=("layer",), default=None
    )
    layer_parameters: np.ndarray | None = quantity(
        "Number of parameters of each.", dims=("layer",), default=None
    )
    layer_fractions: np.ndarray | None = quantity(
        "Share of the layer's parameters in each class.",
        dims=("layer", "ratio_class"),
        error="layer_fraction_errors",
        default=None,
    )
    layer_fraction_errors: np.ndarray | None = quantity(
        "Standard error over mini-batches.", dims=("layer", "ratio_class"), default=None
    )
    rho_sweep: np.ndarray | None = quantity("Lengths tried.", dims=("rho_step",), unit="weight", default=None)
    sweep_fractions: np.ndarray | None = quantity(
        "Share of the parameters in each class for each length.",
        dims=("rho_step", "ratio_class"),
        error="sweep_errors",
        default=None,
    )
    sweep_errors: np.ndarray | None = quantity(
        "Standard error over mini-batches.", dims=("rho_step", "ratio_class"), default=None
    )
    divided_counts: np.ndarray | None = quantity(
        "As first written, by dividing: parameters in ckpt1 to ckpt4, and in none of them.",
        dims=("written_class",),
        error="divided_errors",
        default=None,
    )
    divided_errors: np.ndarray | None = quantity(
        "Standard error over mini-batches.", dims=("written_class",), default=None
    )
    passes: int = quantity("Gradients taken, in units of one gradient over the data that a ratio is about.")
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")
    masks_file: str | None = quantity("File that holds the classes of each parameter, packed.", default=None)
    masks: np.ndarray | None = None  # (class, ⌈n/8⌉) uint8: bit i (numpy.packbits, little) is parameter i
