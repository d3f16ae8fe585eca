"""The result of ``landscape density``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscape.results.base import quantity, register
from landscape.results.matrix import CURVATURE as _CURVATURE
from landscape.results.matrix import MatrixResult

__all__ = ["DensityResult", "kernel_widths", "smoothed"]

_ROWS = ("probe", "node")

Floats = NDArray[np.float64]


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DensityResult(MatrixResult):
    """The distribution of the eigenvalues of a curvature matrix, mass 1/n on each of the n.

    Each probe has a row of nodes, descending, and of weights that sum to 1; rows of unequal length are padded
    with masked elements. The density is the mean over the rows. All arrays are float64.
    """

    kind: ClassVar[str] = "density"

    nodes: np.ma.MaskedArray = quantity(
        "Ritz values of each probe, descending.", dims=_ROWS, unit=_CURVATURE, error="residuals"
    )
    weights: np.ma.MaskedArray = quantity(
        "Share of the eigenvalues at each node: 1/n where it stands for a single one, else as measured.",
        dims=_ROWS,
    )
    measured_weights: np.ma.MaskedArray = quantity("The shares as measured, uncorrected.", dims=_ROWS)
    residuals: np.ma.MaskedArray = quantity(
        "‖Hy − θy‖ of each node, from the products as computed.", dims=_ROWS, unit=_CURVATURE
    )
    converged: np.ma.MaskedArray = quantity(
        "Whether the node stands for an eigenvalue: residual at most 1 % of the distance to the next.",
        dims=_ROWS,
    )
    outliers: np.ndarray = quantity(
        "The eigenvalues that converged nodes stand for, each once, descending.",
        dims=("outlier",),
        unit=_CURVATURE,
        error="outlier_residuals",
    )
    outlier_residuals: np.ndarray = quantity(
        "Residual of the best node of each.", dims=("outlier",), unit=_CURVATURE
    )
    outlier_weights: np.ndarray = quantity(
        "Share of the eigenvalues at each: 1/n, or the measured share of a repeated one.", dims=("outlier",)
    )
    wasserstein_bound: np.ndarray = quantity(
        "Wasserstein-1 distance between each row as measured and the spectral measure of its own probe, at "
        "most (Chen, Trogdon & Ubaru 2021); what lies between probes is in the standard errors.",
        dims=("probe",),
        unit=_CURVATURE,
    )
    moments: np.ndarray = quantity(
        "Moments 1, 2, … about zero of the distribution of eigenvalues; the q-th in (loss / weight²)^q.",
        dims=("moment",),
        error="moment_errors",
    )
    moment_errors: np.ndarray = quantity("Standard error over probes of each moment.", dims=("moment",))
    trace: float = quantity(
        "Sum of the eigenvalues, n times the first moment.", unit=_CURVATURE, error="trace_interval"
    )
    trace_error: float = quantity("Standard error over probes of the trace.", unit=_CURVATURE)
    trace_interval: np.ndarray = quantity(
        "95 % confidence interval of the trace.", dims=("end",), unit=_CURVATURE
    )
    negative_share: float = quantity(
        "Share of the eigenvalues below −(noise floor).", error="negative_share_bounds"
    )
    negative_share_bounds: np.ndarray = quantity(
        "Bounds on that share: Chebyshev, Markov & Stieltjes for each probe, and two standard errors.",
        dims=("end",),
    )
    lambda_max: float = quantity("Largest Ritz value (a lower bound on λmax).", unit=_CURVATURE)
    lambda_max_residual: float = quantity("Residual of that Ritz pair.", unit=_CURVATURE)
    lambda_min: float = quantity("Smallest Ritz value (an upper bound on λmin).", unit=_CURVATURE)
    lambda_min_residual: float = quantity("Residual of that Ritz pair.", unit=_CURVATURE)
    effective_dimension: float | None = quantity(
        "Σ λ/(λ + z) over the positive eigenvalues, for the z asked for.",
        error="effective_dimension_error",
        default=None,
    )
    effective_dimension_error: float | None = quantity(
        "Standard error over probes of the effective dimension.", default=None
    )
    effective_dimension_bounds: np.ndarray | None = quantity(
        "Bounds on the effective dimension, as those on the negative share.", dims=("end",), default=None
    )
    effective_dimension_z: float | None = quantity("That z.", unit=_CURVATURE, default=None)
    steps: int = quantity("Lanczos steps asked of each probe; fewer if its space was exhausted.")
    trace_run: float | None = quantity(
        "The trace by a run of its own, to compare with.",
        unit=_CURVATURE,
        error="trace_run_interval",
        default=None,
    )
    trace_run_interval: np.ndarray | None = quantity(
        "The interval of that run.", dims=("end",), unit=_CURVATURE, default=None
    )
    lambda_max_run: float | None = quantity(
        "λmax by a run of its own, to compare with.",
        unit=_CURVATURE,
        error="lambda_max_run_interval",
        default=None,
    )
    lambda_max_run_interval: np.ndarray | None = quantity(
        "The interval of that run.", dims=("end",), unit=_CURVATURE, default=None
    )
    layers: np.ndarray | None = quantity(
        "Names of the layers whose own blocks of the matrix were measured.", dims=("layer",), default=None
    )
    layer_parameters: np.ndarray | None = quantity(
        "Number of parameters of each layer.", dims=("layer",), default=None
    )
    layer_traces: np.ndarray | None = quantity(
        "Trace of each layer's block.",
        dims=("layer",),
        unit=_CURVATURE,
        error="layer_trace_errors",
        default=None,
    )
    layer_trace_errors: np.ndarray | None = quantity(
        "Standard error over probes of each.", dims=("layer",), unit=_CURVATURE, default=None
    )
    layer_ends: np.ndarray | None = quantity(
        "Largest and smallest Ritz value of each block.",
        dims=("layer", "end"),
        unit=_CURVATURE,
        error="layer_end_errors",
        default=None,
    )
    layer_end_errors: np.ndarray | None = quantity(
        "Residual and noise floor of each.", dims=("layer", "end"), unit=_CURVATURE, default=None
    )
    layer_nodes: np.ma.MaskedArray | None = quantity(
        "Ritz values of each layer's block and probe, descending.",
        dims=("layer", "probe", "layer_node"),
        unit=_CURVATURE,
        default=None,
    )
    layer_weights: np.ma.MaskedArray | None = quantity(
        "Share of the block's eigenvalues at each of them.",
        dims=("layer", "probe", "layer_node"),
        default=None,
    )

    def smoothed(self, at: ArrayLike, width: float | None = None) -> Floats:
        """Each probe's density (p, …) at eigenvalues ``at`` (…), in 1/eigenvalue: see :func:`smoothed`."""
        rows = zip(self.nodes, self.weights, strict=True)
        return np.stack([smoothed(nodes, weights, at, width) for nodes, weights in rows])


def smoothed(
    nodes: np.ndarray, weights: np.ndarray, at: ArrayLike, width: float | Floats | None = None
) -> Floats:
    """The density Σ wᵢ N(x; θᵢ, widthᵢ) at each x of ``at``, masked nodes left out.

    ``width``, the standard deviation of the kernels, is one for all or one per node; by default
    :func:`kernel_widths`.
    """
    kept = ~(np.ma.getmaskarray(nodes) | np.ma.getmaskarray(weights))
    values, mass = np.asarray(nodes)[kept], np.asarray(weights)[kept]
    widths = kernel_widths(values) if width is None else np.broadcast_to(width, np.shape(nodes))[kept]
    x = np.asarray(at, dtype=np.float64)
    total = np.zeros(x.shape)
    for value, share, spread in zip(values, mass, widths, strict=True):
        total += share / (spread * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((x - value) / spread) ** 2)
    return total


def kernel_widths(nodes: np.ndarray) -> Floats:
    """A width for each of the nodes (m,): as far as the mass of a node can be from it.

    By the Chebyshev–Markov–Stieltjes inequalities the mass of a node lies between its neighbours. The nodes
    of two interlacing rules come in turn, so half the distance between the second neighbours on either side
    is taken; at the ends, the distance to the second neighbour. Where nodes are sparse, among outliers, that
    would smear mass across zero: there a fifth of the value is enough, unless the median distance is more.
    Nothing is narrower than a twentieth of its value, which a logarithmic axis does not show.
    """
    values = np.asarray(nodes, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    index = np.arange(len(values))
    high, low = np.minimum(index + 2, len(values) - 1), np.maximum(index - 2, 0)
    reach = (ascending[high] - ascending[low]) / np.maximum(high - low, 1) * 2
    size = np.abs(ascending)
    smallest = 1e-12 * size.max(initial=0.0) or 1e-12
    usual = float(np.median(reach)) if len(reach) else 0.0
    widths = np.empty_like(values)
    widths[order] = np.clip(
        reach, np.maximum(size / 20, smallest), np.maximum(size / 5, max(usual, smallest))
    )
    return widths
