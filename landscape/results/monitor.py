"""The result of a :class:`landscape.Monitor`: what was measured while a model was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import DataResult, quantity, register
from landscape.results.matrix import CURVATURE

__all__ = ["MonitorResult"]

_TIME = ("measurement",)
_CLASS = ("measurement", "ratio_class")
_ROUNDING = "About what rounding of both gradients does to it."


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MonitorResult(DataResult):
    """Curvature along a training run, one entry a measurement; masked where it was not measured then.

    λmax, trace and loss are of the probe data, in eval mode. Gradients, their ratio classes and h_t are of
    the training batch at hand where the training has both gradients (``source`` is "training"), with that
    batch's noise; else of the probe data ("probe").
    """

    kind: ClassVar[str] = "monitor"

    steps: np.ndarray = quantity("Steps of the optimizer before the measurement.", dims=_TIME)
    times: np.ndarray = quantity("Time since the monitor was made.", dims=_TIME, unit="s")
    measurement_seconds: np.ndarray = quantity("What each measurement took.", dims=_TIME, unit="s")
    learning_rates: np.ndarray | None = quantity(
        "Learning rate η of the optimizer (the largest of its groups).", dims=_TIME, default=None
    )
    lambda_max: np.ndarray | None = quantity(
        "Largest Ritz value of the Hessian on the probe data after a few products: there is an eigenvalue "
        "within the error; after a warm start a larger one may have been missed.",
        dims=_TIME,
        unit=CURVATURE,
        error="lambda_max_errors",
        default=None,
    )
    lambda_max_errors: np.ndarray | None = quantity(
        "Residual of its vector and noise floor of the products, added.",
        dims=_TIME,
        unit=CURVATURE,
        default=None,
    )
    noise_floors: np.ndarray | None = quantity(
        "What a product can be wrong by, for a unit vector.", dims=_TIME, unit=CURVATURE, default=None
    )
    products: np.ndarray | None = quantity("Hessian products made for λmax.", dims=_TIME, default=None)
    losses: np.ndarray | None = quantity(
        "Mean loss over the probe data.", dims=_TIME, unit="loss", default=None
    )
    trace: np.ndarray | None = quantity(
        "Trace of the Hessian on the probe data.",
        dims=_TIME,
        unit=CURVATURE,
        error="trace_half_widths",
        default=None,
    )
    trace_half_widths: np.ndarray | None = quantity(
        "Half-width of its interval.", dims=_TIME, unit=CURVATURE, default=None
    )
    confidence: float = quantity("Confidence of the trace's intervals.", default=0.95)
    source: str = quantity("Whose gradients the ratio classes and h_t are of: training, probe or none.")
    classes: np.ndarray = quantity("Names of the classes of the gradient ratio.", dims=("ratio_class",))
    counts: np.ndarray | None = quantity(
        "Parameters in each class; they add up to all.", dims=_CLASS, default=None
    )
    fractions: np.ndarray | None = quantity(
        "The same as a share of all parameters.", dims=_CLASS, error="uncertain", default=None
    )
    uncertain: np.ndarray | None = quantity(
        "Share of the parameters counted here that rounding may have put into another class (of all).",
        dims=_CLASS,
        default=None,
    )
    gradient_norms: np.ndarray | None = quantity(
        "Euclidean norm of the gradient g.",
        dims=_TIME,
        unit="loss / weight",
        error="gradient_rounding",
        default=None,
    )
    gradient_rounding: np.ndarray | None = quantity(
        "What rounding adds to either gradient, as measured on a few examples of the probe data.",
        dims=_TIME,
        unit="loss / weight",
        default=None,
    )
    gradient_norm_ratios: np.ndarray | None = quantity(
        "‖g'‖/‖g‖; NaN where g is zero.", dims=_TIME, error="gradient_norm_ratio_errors", default=None
    )
    gradient_norm_ratio_errors: np.ndarray | None = quantity(_ROUNDING, dims=_TIME, default=None)
    cosines: np.ndarray | None = quantity(
        "Cosine of the angle between g and g'.", dims=_TIME, error="cosine_errors", default=None
    )
    cosine_errors: np.ndarray | None = quantity(_ROUNDING, dims=_TIME, default=None)
    lengths: np.ndarray | None = quantity(
        "Length ‖ε‖ of the perturbation between both gradients.", dims=_TIME, unit="weight", default=None
    )
    directional_curvature: np.ndarray | None = quantity(
        "(g' − g)·ε/‖ε‖²: the mean curvature between w and w + ε along ε, with its sign.",
        dims=_TIME,
        unit=CURVATURE,
        error="curvature_errors",
        default=None,
    )
    curvature_norms: np.ndarray | None = quantity(
        "‖g' − g‖/‖ε‖: gradient-direction curvature ‖Hu‖, not λmax.",
        dims=_TIME,
        unit=CURVATURE,
        error="curvature_errors",
        default=None,
    )
    curvature_errors: np.ndarray | None = quantity(_ROUNDING, dims=_TIME, unit=CURVATURE, default=None)
    h_norms: np.ndarray | None = quantity(
        "‖h_t‖, h_t the running average of (g' − g)/‖ε‖: gradient-direction curvature ‖Hu‖, not λmax; of "
        "mini-batches it depends on their size and on the weight of the new one, and bounds nothing.",
        dims=_TIME,
        unit=CURVATURE,
        error="h_errors",
        default=None,
    )
    h_errors: np.ndarray | None = quantity(_ROUNDING, dims=_TIME, unit=CURVATURE, default=None)
    step_sizes: np.ndarray | None = quantity(
        "1/‖h_t‖, by which a step along g' is multiplied.", dims=_TIME, unit="weight² / loss", default=None
    )
    new_weight: float = quantity("Weight β of the new value in h_t.")
    as_written: bool = quantity("Whether h_t starts too short, as first written (no bias correction).")
    average_every_step: bool = quantity("Whether h_t takes in every step, not the measured ones alone.")
    total_steps: int = quantity("Steps of the optimizer that were seen.")
    put_off: int = quantity("Measurements that were due and left out, for the budget of time was spent.")
    failed: int = quantity("Measurements that could not be made, or not in all parts.", default=0)
    training_seconds: float = quantity("Time since the monitor was made, its own left out.", unit="s")
    monitor_seconds: float = quantity("Time that measuring and writing took, time and again.", unit="s")
    once_seconds: float = quantity(
        "Time of what is done once: setting up, the first measurement of each part, writing at the end.",
        unit="s",
    )
    cost_percent: float = quantity("Measuring and writing, time and again, in percent of the training time.")
