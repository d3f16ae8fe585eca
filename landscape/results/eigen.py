"""The result of ``landscape eigen``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import quantity, register
from landscape.results.matrix import CURVATURE as _CURVATURE
from landscape.results.matrix import MatrixResult

__all__ = ["EigenResult"]


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EigenResult(MatrixResult):
    """Eigenvalues of a curvature matrix, each with its certificate.

    Arrays are float64 with one entry per pair, eigenvalues algebraically descending.
    """

    kind: ClassVar[str] = "eigen"
    apart: ClassVar[Mapping[str, str]] = {
        "eigenvectors": "eigenvectors_file",
        "krylov_basis": "krylov_file",
    }

    which: str = quantity("Which end of the spectrum: largest, smallest, both or magnitude.")
    eigenvalues: np.ndarray = quantity(
        "Eigenvalues, algebraically descending.", dims=("pair",), unit=_CURVATURE, error="intervals"
    )
    residuals: np.ndarray = quantity(
        "‖Hy − θy‖ of each pair, from the products as computed.", dims=("pair",), unit=_CURVATURE
    )
    intervals: np.ndarray = quantity(
        "θ ± (residual + noise floor): holds an eigenvalue, unconditionally.",
        dims=("pair", "end"),
        unit=_CURVATURE,
    )
    refined_intervals: np.ma.MaskedArray = quantity(
        "Quadratic (Kato–Temple) interval; valid only if no eigenvalue was missed in the gap.",
        dims=("pair", "end"),
        unit=_CURVATURE,
    )
    standard_errors: np.ma.MaskedArray = quantity(
        "Standard error of each eigenvalue over the sampling of the data.",
        dims=("pair",),
        unit=_CURVATURE,
    )
    standard_error_method: str = quantity(
        "How the standard errors were obtained: second differences, groups, or not computed (why)."
    )
    converged: np.ndarray = quantity(
        "Whether residual ≤ max(tol·|θ|, noise floor), for each pair.", dims=("pair",)
    )
    tolerance: float | None = quantity("The tol of that: as given, or the method's own.", default=None)
    lambda_max: float = quantity("Largest Ritz value seen (a lower bound on λmax).", unit=_CURVATURE)
    lambda_max_residual: float = quantity("Residual of that Ritz pair.", unit=_CURVATURE)
    lambda_min: float = quantity("Smallest Ritz value seen (an upper bound on λmin).", unit=_CURVATURE)
    lambda_min_residual: float = quantity("Residual of that Ritz pair.", unit=_CURVATURE)
    missed_above: float | None = quantity(
        "λmax exceeds this with probability at most 5 % (Kuczyński & Woźniakowski 1992); none when no "
        "statement is available (warm start, or too few steps before the first restart).",
        unit=_CURVATURE,
        default=None,
    )
    missed_below: float | None = quantity(
        "λmin lies below this with probability at most 5 %, likewise.", unit=_CURVATURE, default=None
    )
    missed_epsilon: float | None = quantity(
        "The ε of that statement, as a share of λmax − λmin.", default=None
    )
    missed_reason: str = quantity("Why there is no such statement; empty if there is one.", default="")
    verified: int = quantity("Products spent looking for missed eigenvalues; 0 if not asked for.")
    warm: bool = quantity("Whether the search began from another checkpoint's eigenvectors.", default=False)
    residual_history: np.ndarray = quantity(
        "Largest residual of the wanted pairs after each product (NaN while there are too few).",
        dims=("product",),
        unit=_CURVATURE,
    )
    eigenvectors_file: str | None = quantity(
        "File that holds the eigenvectors, if they were kept.", default=None
    )
    eigenvectors: np.ndarray | None = None  # (pair, parameter), in a file of their own when stored
    krylov_relation: np.ndarray | None = quantity(
        "H̄ of HQ = Q₊H̄, the Krylov decomposition as it stood, if its basis was kept.",
        dims=("basis", "krylov"),
        unit=_CURVATURE,
        default=None,
    )
    krylov_file: str | None = quantity("File that holds the basis Q₊, if it was kept.", default=None)
    krylov_basis: np.ndarray | None = None  # (basis, parameter), in a file of their own when stored

    layers: np.ndarray | None = quantity(
        "Layers (modules) measured one by one.", dims=("layer",), default=None
    )
    layer_parameters: np.ndarray | None = quantity(
        "Number of parameters of each layer.", dims=("layer",), default=None
    )
    layer_eigenvalues: np.ndarray | None = quantity(
        "Extreme eigenvalues of each layer's diagonal block.",
        dims=("layer", "layer_pair"),
        unit=_CURVATURE,
        error="layer_intervals",
        default=None,
    )
    layer_intervals: np.ndarray | None = quantity(
        "θ ± (residual + noise floor) of each of them.",
        dims=("layer", "layer_pair", "end"),
        unit=_CURVATURE,
        default=None,
    )
    layer_converged: np.ndarray | None = quantity(
        "Whether each of them has converged.", dims=("layer", "layer_pair"), default=None
    )

    perturb: str | None = quantity(
        "Running average: perturbed along the iterate (LeCun et al. 1993) or the gradient (as written).",
        default=None,
    )
    new_weight: float | None = quantity("Weight of the new value in the running average.", default=None)
    minibatch: int | None = quantity("Examples in each batch of the running average.", default=None)
    history: np.ndarray | None = quantity(
        "‖v‖ after each iteration.", dims=("iteration",), unit=_CURVATURE, default=None
    )
    rayleigh: np.ndarray | None = quantity(
        "Rayleigh quotient of v on all the data (NaN where it was not evaluated).",
        dims=("iteration",),
        unit=_CURVATURE,
        default=None,
    )
    evaluation_residuals: np.ndarray | None = quantity(
        "Residual of v on all the data (NaN where it was not evaluated).",
        dims=("iteration",),
        unit=_CURVATURE,
        default=None,
    )
    learning_rate: float | None = quantity(
        "The step that the method proposes, 1/‖v‖.", unit="weight² / loss", default=None
    )
    bound: float | None = quantity(
        "‖Hu‖, a lower bound on the largest |λ|: for full batches along the gradient.",
        unit=_CURVATURE,
        default=None,
    )
    reference_eigenvalues: np.ndarray | None = quantity(
        "Top eigenvalues by Lanczos, for comparison.",
        dims=("reference",),
        unit=_CURVATURE,
        error="reference_intervals",
        default=None,
    )
    reference_intervals: np.ndarray | None = quantity(
        "Their intervals.", dims=("reference", "end"), unit=_CURVATURE, default=None
    )
    gradient_share: float | None = quantity("Share of ‖g‖² in the space of those eigenvectors.", default=None)

    peer_eigenvalues: np.ndarray | None = quantity(
        "The same eigenvalues by the package pyhessian.",
        dims=("peer_pair",),
        unit=_CURVATURE,
        default=None,
    )
    peer_residuals: np.ndarray | None = quantity(
        "‖Hy − θy‖ of its pairs, by our products.", dims=("peer_pair",), unit=_CURVATURE, default=None
    )
    peer_products: int | None = quantity("Products that it took.", default=None)
    peer_notes: str | None = quantity("What to know about its figures.", default=None)
    asymmetry: float | None = quantity(
        "‖M − Mᵀ‖ of the dense matrix as computed (Frobenius).", unit=_CURVATURE, default=None
    )

    @property
    def stability_limit(self) -> float:
        """2/λmax, the largest stable step of gradient descent on the local quadratic."""
        return 2 / self.lambda_max if self.lambda_max > 0 else float("inf")
