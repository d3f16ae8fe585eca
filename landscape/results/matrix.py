"""What every result about a curvature matrix has in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.results.base import ProblemResult, quantity

__all__ = ["CURVATURE", "MatrixResult"]

CURVATURE = "loss / weight²"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MatrixResult(ProblemResult):
    """Which matrix was measured, how precise its products are, and what they cost."""

    method: str = quantity("How the figures were found.")
    operator: str = quantity(
        "The matrix: hessian, gauss-newton, fisher, empirical-fisher, noise or finite-difference."
    )
    noise_floor: float = quantity("What a product can be wrong by, for a unit vector.", unit=CURVATURE)
    products: int = quantity("Products with the matrix.")
    passes: int = quantity("Passes over the data (products of several vectors at once count once).")
    seconds: float = quantity("Wall-clock time of the computation.", unit="s")
    label_samples: int | None = quantity("Labels drawn for each example (fisher).", default=None)
    rho: float | None = quantity(
        "Step of the finite differences, as a length in weight space.", unit="weight", default=None
    )
    difference: str | None = quantity("Finite differences: central, or as-written (one-sided).", default=None)
    rho_sweep: np.ndarray | None = quantity("Steps tried.", dims=("rho_step",), unit="weight", default=None)
    rho_errors: np.ndarray | None = quantity(
        "Measured relative error of a product with each step.", dims=("rho_step",), default=None
    )
    rho_error: float | None = quantity("The same with the step used.", default=None)
    rho_against: str | None = quantity("What those errors were measured against.", default=None)
