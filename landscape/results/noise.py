"""The result of ``landscape noise``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import ProblemResult, quantity, register
from landscape.results.matrix import CURVATURE

__all__ = ["NoiseResult"]

_SQUARE = "loss² / weight²"


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NoiseResult(ProblemResult):
    """How the covariance C of the examples' gradients lies in the curvature, and what it does to gradients.

    C = (N/T²) Σ r_i r_iᵀ over the N examples with terms, r_i the gradient of an example's summed loss less
    its terms times ∇L, T all terms; with one term an example, the covariance of the examples' gradients.
    Weight decay is part of Gauss-Newton matrix and Hessian, not of C. Figures that are not defined are NaN,
    and ``undefined`` says why.
    """

    kind: ClassVar[str] = "noise"

    method: str = quantity("How the figures were found.")
    undefined: str = quantity(
        "Why there are figures that are not defined; empty if there are none.", default=""
    )
    matrices: np.ndarray = quantity(
        "The curvature matrices A that C is compared with: gauss-newton, hessian.", dims=("matrix",)
    )
    confidence: float = quantity("Chance that an interval holds what it is about, whenever the run stops.")
    cosines: np.ndarray = quantity(
        "Tr(CA)/(‖C‖_F‖A‖_F): 1 if C is a multiple of A, 0 if they act on different directions.",
        dims=("matrix",),
        error="cosine_intervals",
    )
    cosine_intervals: np.ndarray = quantity("Confidence interval of each.", dims=("matrix", "end"))
    curvature_cosine: float | None = quantity(
        "The same of the Gauss-Newton matrix and the Hessian.",
        error="curvature_cosine_interval",
        default=None,
    )
    curvature_cosine_interval: np.ndarray | None = quantity("Its interval.", dims=("end",), default=None)
    noise_trace: float = quantity(
        "Tr C, the variance of the gradient of one example; exact for these data.",
        unit=_SQUARE,
        error="noise_trace_error",
    )
    noise_trace_error: float = quantity("Its standard error over the sampling of the data.", unit=_SQUARE)
    noise_frobenius: float = quantity("‖C‖_F.", unit=_SQUARE, error="noise_frobenius_interval")
    noise_frobenius_interval: np.ndarray = quantity("Its interval.", dims=("end",), unit=_SQUARE)
    traces: np.ndarray = quantity("Tr A.", dims=("matrix",), unit=CURVATURE, error="trace_intervals")
    trace_intervals: np.ndarray = quantity("Their intervals.", dims=("matrix", "end"), unit=CURVATURE)
    frobenius: np.ndarray = quantity("‖A‖_F.", dims=("matrix",), unit=CURVATURE, error="frobenius_intervals")
    frobenius_intervals: np.ndarray = quantity("Their intervals.", dims=("matrix", "end"), unit=CURVATURE)
    data_loss: float = quantity("The loss without weight decay.", unit="loss")
    noise_per_curvature: float | None = quantity(
        "Tr(CG)/Tr(G) of the Gauss-Newton matrix G: the noise along its directions, weighted by it.",
        unit=_SQUARE,
        error="noise_per_curvature_interval",
        default=None,
    )
    noise_per_curvature_interval: np.ndarray | None = quantity(
        "Its interval.", dims=("end",), unit=_SQUARE, default=None
    )
    scaled_alignment: float | None = quantity(
        "Tr(CG)/(2L‖G‖_F²), the loss-scaled alignment of Wu, Wang & Su (2022): its factors are the cosine "
        "and the relative size. It was made for the squared loss.",
        error="scaled_alignment_interval",
        default=None,
    )
    scaled_alignment_interval: np.ndarray | None = quantity("Its interval.", dims=("end",), default=None)
    relative_size: float | None = quantity("‖C‖_F/(2L‖G‖_F).", error="relative_size_interval", default=None)
    relative_size_interval: np.ndarray | None = quantity("Its interval.", dims=("end",), default=None)
    k: int = quantity("Dimension of the top eigenspaces.")
    top_eigenvalues: np.ndarray = quantity(
        "Largest eigenvalues of A.", dims=("matrix", "pair"), unit=CURVATURE, error="top_residuals"
    )
    top_residuals: np.ndarray = quantity("‖Ay − θy‖ of each.", dims=("matrix", "pair"), unit=CURVATURE)
    shares: np.ndarray = quantity(
        "Tr(VᵀCV)/Tr(C), V the k top eigenvectors of A: the share of the noise in that space.",
        dims=("matrix",),
        error="share_errors",
    )
    share_errors: np.ndarray = quantity(
        "Standard error over the sampling of the examples, V held fixed.", dims=("matrix",)
    )
    share_space_errors: np.ndarray = quantity(
        "What the error of the eigenvectors can do to the share: ‖sin Θ‖ ≤ ‖residuals‖/gap (Davis & Kahan "
        "1970), valid if no eigenvalue was missed; 1 where there is no gap to tell the space by.",
        dims=("matrix",),
    )
    chance_share: float = quantity("k/n: the share in a random space of that dimension.")
    diagonal_correlations: np.ndarray = quantity(
        "Correlation over the parameters of diag C with diag A, corrected for the noise of the random "
        "vectors by the covariance of estimates from different ones (all split halves).",
        dims=("matrix",),
        error="diagonal_intervals",
    )
    diagonal_intervals: np.ndarray = quantity(
        "Confidence interval of each, by leaving out each random vector in turn.", dims=("matrix", "end")
    )
    diagonal_reliabilities: np.ndarray = quantity(
        "Share of the variance of diag A, as estimated, that is not noise of the random vectors.",
        dims=("matrix",),
    )
    noise_scale: float | None = quantity(
        "Tr(C)/‖∇L‖², the simple noise scale (McCandlish et al. 2018, eq. 2.9): the batch size at which "
        "noise and gradient are as large; exact for these data. None where the gradient is zero.",
        unit="examples",
        error="noise_scale_error",
        default=None,
    )
    noise_scale_error: float | None = quantity(
        "Its standard error from that of Tr(C) alone.", unit="examples", default=None
    )
    batch_reason: str = quantity("Why no mini-batches were drawn; empty if they were.", default="")
    batch_sizes: np.ndarray = quantity("Batch sizes B.", dims=("batch",), unit="examples")
    batch_draws: np.ndarray = quantity(
        "Mini-batches of each size, drawn independently, each without replacement.", dims=("batch",)
    )
    gradient_squares: np.ma.MaskedArray = quantity(
        "Mean of ‖g_B‖² over the mini-batches, g_B the gradient of the mean over their terms.",
        dims=("batch",),
        unit=_SQUARE,
        error="gradient_square_errors",
    )
    gradient_square_errors: np.ma.MaskedArray = quantity(
        "Standard error of each.", dims=("batch",), unit=_SQUARE
    )
    predicted_squares: np.ndarray = quantity(
        "‖∇L‖² + (N − B)/(N − 1)·Tr(C)/B: exact with one term an example, else to first order in 1/B.",
        dims=("batch",),
        unit=_SQUARE,
    )
    counted_examples: int = quantity("N, the examples that have terms.")
    exact_dimensions: int = quantity("Dimension of the subspace on which all products are known.")
    probes: int = quantity("Random vectors on its complement.")
    look_products: np.ndarray = quantity("Products spent when the cosines were looked at.", dims=("look",))
    look_cosines: np.ndarray = quantity(
        "The cosines then.", dims=("look", "matrix"), error="look_half_widths"
    )
    look_half_widths: np.ndarray = quantity(
        "The larger half of their intervals then.", dims=("look", "matrix")
    )
    noise_floor: float = quantity("What a product with C can be wrong by, for a unit vector.", unit=_SQUARE)
    noise_floors: np.ndarray = quantity(
        "What a product with each matrix can be wrong by, for a unit vector.",
        dims=("matrix",),
        unit=CURVATURE,
    )
    products: int = quantity("Products with any of the matrices.")
    passes: int = quantity("Passes over the data (products of several vectors at once count once).")
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")
