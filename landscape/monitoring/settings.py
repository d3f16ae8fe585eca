"""The options of a monitor."""

from __future__ import annotations

from dataclasses import dataclass

from landscape.errors import ConfigurationError
from landscape.settings import option

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how often.

    Raises:
        ConfigurationError: values that do not go together.
    """

    every: int = option(100, "Steps from one measurement to the next.", minimum=1)
    lambda_every: int | None = option(
        None, "Steps from one λmax to the next; 0: none. Default: as many as of the others.", minimum=0
    )
    trace_every: int = option(0, "Steps from one trace to the next; 0: none.", minimum=0)
    budget: float | None = option(
        0.02,
        "Share of the training time that may be spent; what is due is left out while more is. None: measure "
        "whenever it is due.",
        minimum=0.0,
    )
    products: int = option(6, "Hessian products for λmax, at most.", minimum=1)
    tol: float = option(0.01, "λmax is done when its residual is at most this share of it.", minimum=0.0)
    trace_products: int = option(24, "Hessian products for a trace.", minimum=8)
    rho: float | None = option(
        None,
        "Length of a perturbation: then, without SAM, two gradients on the probe data give ratios and h_t.",
        minimum=0.0,
    )
    new_weight: float = option(0.1, "Weight β of the new value in the running average h_t.")
    as_written: bool = option(
        False, "h_t as first written: without bias correction, the first one 1/β times too short."
    )
    average_every_step: bool = option(
        False, "Take every step's gradients into h_t, not the measured ones alone (copies them each time)."
    )

    def __post_init__(self) -> None:
        if not 0 < self.new_weight <= 1:
            raise ConfigurationError(
                "the weight of the new value must be above 0 and at most 1", found=f"{self.new_weight!r}"
            )
        if self.rho is not None and self.rho == 0:
            raise ConfigurationError("rho must be above 0: nothing would be moved")

    def rhythm(self, part: str) -> int:
        """Steps from one measurement of a part (gradients, lambda or trace) to the next; 0: none."""
        every = self.every if self.lambda_every is None else self.lambda_every
        return {"gradients": self.every, "lambda": every, "trace": self.trace_every}[part]
