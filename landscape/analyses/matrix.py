"""Options of every analysis of a curvature matrix: which matrix, and how its products are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from landscape.errors import ConfigurationError
from landscape.settings import option

__all__ = ["MatrixSettings"]

_PANEL = "The matrix"


@dataclass(frozen=True, kw_only=True)
class MatrixSettings:
    """Which matrix is measured.

    Raises:
        ConfigurationError: an option that the matrix asked for does not have.
    """

    operator: Literal[
        "hessian", "gauss-newton", "fisher", "empirical-fisher", "noise", "finite-difference"
    ] = option(
        "hessian",
        "Which curvature matrix: hessian, gauss-newton, fisher (sampled labels), empirical-fisher, noise "
        "(the covariance of the examples' gradients) or finite-difference (of gradients).",
        metavar="MATRIX",
        panel=_PANEL,
    )
    label_samples: int | None = option(
        None, "Labels drawn for each example (--operator fisher; 1 without).", minimum=1, panel=_PANEL
    )
    rho: float | None = option(
        None,
        "Finite differences: length of the step in weight space; chosen by the precision without.",
        panel=_PANEL,
    )
    difference: Literal["central", "as-written"] | None = option(
        None,
        "Finite differences: central (the default), or one-sided (as-written: what is usually written down).",
        panel=_PANEL,
    )
    rho_sweep: bool = option(
        False,
        "Try steps over many decades, use the middle of the plateau, and report the measured error.",
        panel=_PANEL,
    )

    def __post_init__(self) -> None:
        given = {
            "--rho": self.rho is not None,
            "--difference": self.difference is not None,
            "--rho-sweep": self.rho_sweep,
        }
        if not self.uses_differences and any(given.values()):
            name = next(name for name, is_given in given.items() if is_given)
            raise ConfigurationError(
                f"{name} belongs to finite differences",
                found=f"--operator {self.operator}",
                do="add --operator finite-difference, or leave it out",
            )
        if self.rho is not None and not 0 < self.rho < float("inf"):
            raise ConfigurationError("--rho must be a positive number", found=repr(self.rho))
        if self.rho is not None and self.rho_sweep:
            raise ConfigurationError("--rho and --rho-sweep exclude each other", do="leave one of them out")
        if self.label_samples is not None and self.operator != "fisher":
            raise ConfigurationError(
                "--label-samples belongs to --operator fisher", found=f"--operator {self.operator}"
            )

    @property
    def uses_differences(self) -> bool:
        """Whether gradients at perturbed weights are taken."""
        return self.operator == "finite-difference"
