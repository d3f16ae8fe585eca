"""The options of every analysis that moves the weights."""

from __future__ import annotations

from dataclasses import dataclass

from landscape.settings import option

__all__ = ["PerturbationSettings"]


@dataclass(frozen=True, kw_only=True)
class PerturbationSettings:
    """How far the weights are moved, and in which norm."""

    rho: float = option(0.05, "Length ρ of the perturbation, in the units of the weights.", minimum=0.0)
    relative: bool = option(
        False,
        "Take ρ in units of ‖g‖, so that a figure does not change only because gradients become small.",
    )
    p: float = option(2.0, "Norm of that length: any p from 1 to inf.", minimum=1.0)
    eta: float = option(0.01, "η of the adaptive perturbation (Kwon et al. 2021).", minimum=0.0)
