"""The result of ``landscape trace``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.results.base import quantity, register
from landscape.results.matrix import CURVATURE, MatrixResult

__all__ = ["TraceResult"]


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TraceResult(MatrixResult):
    """The trace of a curvature matrix and of its layers' blocks, with confidence intervals.

    Half-widths are NaN where there were too few random vectors for an interval.
    """

    kind: ClassVar[str] = "trace"
    apart: ClassVar[Mapping[str, str]] = {"diagonal": "diagonal_file"}

    trace: float = quantity("Sum of the eigenvalues.", unit=CURVATURE, error="interval")
    interval: np.ndarray = quantity(
        "Confidence interval of the trace, for the moment at which the estimate stopped.",
        dims=("end",),
        unit=CURVATURE,
    )
    half_width: float = quantity("Half of its width.", unit=CURVATURE)
    confidence: float = quantity("Chance that the interval holds the trace, whenever it stops, at least.")
    interval_reason: str = quantity("Why there is no interval; empty if there is one.", default="")
    exact_dimensions: int = quantity("Dimension of the subspace on which the trace is known.")
    taken_over: int = quantity("How many of them came from a stored run, without products.", default=0)
    probes: int = quantity("Random vectors that the rest was estimated from.")
    frobenius: float = quantity("Frobenius norm, √Σλ².", unit=CURVATURE, error="frobenius_interval")
    frobenius_interval: np.ndarray = quantity("Its interval.", dims=("end",), unit=CURVATURE)
    effective_dimension: float = quantity(
        "(Σλ)²/Σλ²: the number of eigenvalues, were all that are not zero equal.",
        error="effective_dimension_interval",
    )
    effective_dimension_interval: np.ndarray = quantity("Its interval.", dims=("end",))
    layers: np.ndarray | None = quantity(
        "Layers: the modules that own parameters.", dims=("layer",), default=None
    )
    layer_parameters: np.ndarray | None = quantity(
        "Number of parameters of each.", dims=("layer",), default=None
    )
    layer_traces: np.ndarray | None = quantity(
        "Trace of each layer's diagonal block; they add up to the trace.",
        dims=("layer",),
        unit=CURVATURE,
        error="layer_intervals",
        default=None,
    )
    layer_intervals: np.ndarray | None = quantity(
        "Confidence interval of each, by itself.", dims=("layer", "end"), unit=CURVATURE, default=None
    )
    look_products: np.ndarray = quantity("Products spent when the interval was looked at.", dims=("look",))
    look_traces: np.ndarray = quantity(
        "The estimate then.", dims=("look",), unit=CURVATURE, error="look_half_widths"
    )
    look_half_widths: np.ndarray = quantity(
        "Half-width of the interval then.", dims=("look",), unit=CURVATURE
    )
    spatial_average: bool = quantity(
        "Whether the diagonal is averaged over the positions of convolution kernels (Yao et al. 2021).",
        default=False,
    )
    diagonal_file: str | None = quantity(
        "File that holds the diagonal and its standard errors, if asked for.", default=None
    )
    diagonal: np.ndarray | None = (
        None  # (2, parameter): values, standard errors; in a file of its own when stored
    )
