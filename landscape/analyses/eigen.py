"""``landscape eigen``: certified eigenvalues of the Hessian at a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from landscape.settings import option

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``eigen``."""

    k: int = option(5, "How many eigenpairs (with --which both: from each end).", short="-k", minimum=1)
    which: Literal["largest", "smallest", "both", "magnitude"] = option(
        "largest", "Which end of the spectrum: algebraically largest or smallest, both, or largest |λ|."
    )
    tol: float = option(
        1e-3, "A pair has converged when its residual ≤ tol·|θ| (or the noise floor).", minimum=0.0
    )
    max_products: int = option(
        1000, "Stop after this many Hessian products; what has not converged is marked (exit 4).", minimum=1
    )
    method: Literal["lanczos"] = option("lanczos", "How the pairs are found.")
    operator: Literal["hessian"] = option("hessian", "Which curvature matrix.")
    verify: int = option(
        0,
        "Spend N more products from a random vector orthogonal to the pairs found, which finds repeated "
        "eigenvalues, and one product per pair to recompute every residual.",
        metavar="N",
        minimum=0,
    )
    standard_errors: bool = option(
        True, "Estimate how far each eigenvalue would move on another sample of the data."
    )
    eigenvectors: bool = option(False, "Keep the eigenvectors, in a file of their own beside the results.")
