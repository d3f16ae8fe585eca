"""The result of ``landscape eigen``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import Result, quantity, register

__all__ = ["EigenResult"]

_CURVATURE = "loss / weight²"


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class EigenResult(Result):
    """Eigenvalues of a curvature matrix, each with its certificate.

    Arrays are float64 with one entry per pair, eigenvalues algebraically descending.
    """

    kind: ClassVar[str] = "eigen"

    method: str = quantity("How the pairs were found (lanczos).")
    operator: str = quantity("The matrix: hessian.")
    which: str = quantity("Which end of the spectrum: largest, smallest, both or magnitude.")
    eigenvalues: np.ndarray = quantity(
        "Eigenvalues, algebraically descending.", dims=("pair",), unit=_CURVATURE, error="intervals"
    )
    residuals: np.ndarray = quantity(
        "‖Hy − θy‖ of each pair, from the products as computed.", dims=("pair",), unit=_CURVATURE
    )
    intervals: np.ndarray = quantity(
        "θ ± (residual + noise floor): holds an eigenvalue, unconditionally.",
        dims=("pair", "bound"),
        unit=_CURVATURE,
    )
    refined_intervals: np.ma.MaskedArray = quantity(
        "Quadratic (Kato–Temple) interval; valid only if no eigenvalue was missed in the gap.",
        dims=("pair", "bound"),
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
    noise_floor: float = quantity("What a product can be wrong by, for a unit vector.", unit=_CURVATURE)
    converged: np.ndarray = quantity(
        "Whether residual ≤ max(tol·|θ|, noise floor), for each pair.", dims=("pair",)
    )
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
    products: int = quantity("Products with the matrix, verification included.")
    passes: int = quantity("Passes over the data (products of several vectors at once count once).")
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")
    verified: int = quantity("Products spent looking for missed eigenvalues; 0 if not asked for.")
    residual_history: np.ndarray = quantity(
        "Largest residual of the wanted pairs after each product (NaN while there are too few).",
        dims=("product",),
        unit=_CURVATURE,
    )
    eigenvectors_file: str | None = quantity(
        "File that holds the eigenvectors, if they were kept.", default=None
    )
    eigenvectors: np.ndarray | None = None  # (pair, parameter), in a file of their own when stored

    @property
    def learning_rate(self) -> float:
        """1/λmax: one step to the bottom of the sharpest direction (LeCun, Simard & Pearlmutter 1993)."""
        return 1 / self.lambda_max if self.lambda_max > 0 else float("inf")

    @property
    def stability_limit(self) -> float:
        """2/λmax, the largest stable step of gradient descent on the local quadratic."""
        return 2 / self.lambda_max if self.lambda_max > 0 else float("inf")
