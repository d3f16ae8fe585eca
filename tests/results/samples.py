"""Made-up results, and what it means for two to be the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from landscape.results import (
    CheckpointReference,
    DensityResult,
    EigenResult,
    Provenance,
    Result,
    TraceResult,
)


def provenance(run_id: str = "20250102-eigen-0a1b", **changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "id": run_id,
        "command": "landscape eigen runs/mlp-sgd.pt -k 5",
        "checkpoint": CheckpointReference(path="runs/mlp-sgd.pt", sha256="5e" * 32, step=1200, epoch=3),
        "settings": {"k": 5, "tol": 1e-3, "which": "largest"},
        "problem": {"model": "model.py:mlp", "loss": "cross_entropy", "parameters": 2410},
        "data_fingerprint": "c0ffee",
        "seed": 17,
        "seed_given": False,
        "device": "cpu",
        "dtype": "float32",
        "strategy": {"micro_batch": 256, "keep_graphs": True},
        "versions": {"landscape": "0.1.0", "numpy": "2.0"},
        "started": "2025-01-02T03:04:05+00:00",
        "seconds": 12.5,
    }
    return Provenance(**fields | changes)


def eigen_result(eigenvalues: ArrayLike = (9.5, 4.0, 0.5, -0.25), **changes: Any) -> EigenResult:
    """A result with these eigenvalues, residuals of 1e-3 relative, and the second pair not converged."""
    values = np.asarray(eigenvalues, dtype=float)
    k = len(values)
    residuals = np.abs(values) / 1000
    with np.errstate(all="ignore"):
        bounds = np.stack([values - residuals, values + residuals], axis=-1)
    touching = np.zeros((k, 2), dtype=bool)
    touching[1:2] = True
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": 0.1,
        "examples": 1797,
        "terms": 1797,
        "parameters": 2410,
        "accuracy": 0.9,
        "method": "lanczos",
        "operator": "hessian",
        "which": "largest",
        "tolerance": 1e-3,
        "eigenvalues": values,
        "residuals": residuals,
        "intervals": bounds,
        "refined_intervals": np.ma.MaskedArray(bounds, mask=touching),
        "standard_errors": np.ma.MaskedArray(0.05 * np.abs(values), mask=np.arange(k) == 2),
        "standard_error_method": "second differences",
        "noise_floor": 1e-6,
        "converged": np.arange(k) != 1,
        "lambda_max": float(values.max(initial=0.0)),
        "lambda_max_residual": 1e-3,
        "lambda_min": float(values.min(initial=0.0)),
        "lambda_min_residual": 1e-3,
        "products": 21,
        "passes": 21,
        "seconds": 3.25,
        "verified": 0,
        "residual_history": np.array([np.nan, 1.0, 0.1, 0.01]),
        "provenance": provenance(),
    }
    return EigenResult(**fields | changes)


#: What every result about a matrix says.
_MATRIX: dict[str, Any] = {
    "status": "complete",
    "loss": 0.25,
    "gradient_norm": 0.1,
    "examples": 1797,
    "terms": 1797,
    "parameters": 2410,
    "accuracy": 0.9,
    "operator": "hessian",
    "noise_floor": 1e-6,
    "products": 30,
    "passes": 30,
    "seconds": 3.25,
}

#: The fields of an eigen run that not every method fills in.
OTHER_METHODS: dict[str, Any] = {
    "operator": "finite-difference",
    "rho": 1e-3,
    "difference": "central",
    "rho_sweep": np.array([1e-4, 1e-3, 1e-2]),
    "rho_errors": np.array([1e-2, np.nan, 1e-3]),
    "rho_error": 1e-4,
    "rho_against": "double backward",
    "label_samples": 3,
    "krylov_relation": np.array([[1.0, 0.5], [0.5, -1.0], [0.0, 0.1]]),
    "krylov_file": "mlp-sgd-0123456789abcdef.h5",
    "layers": np.array(["0", "2.é"], dtype=object),
    "layer_parameters": np.array([30, 21]),
    "layer_eigenvalues": np.array([[9.0], [0.25]]),
    "layer_intervals": np.array([[[8.9, 9.1]], [[0.24, 0.26]]]),
    "layer_converged": np.array([[True], [False]]),
    "perturb": "gradient",
    "new_weight": 0.1,
    "minibatch": 16,
    "history": np.array([1.0, 2.0, np.nan]),
    "rayleigh": np.array([np.nan, 1.5, np.nan]),
    "evaluation_residuals": np.array([np.nan, 0.1, np.nan]),
    "learning_rate": 0.5,
    "bound": 2.0,
    "reference_eigenvalues": np.array([2.25]),
    "reference_intervals": np.array([[2.2, 2.3]]),
    "gradient_share": 0.75,
    "peer_eigenvalues": np.array([9.5, 4.0]),
    "peer_residuals": np.array([1e-3, 1e-2]),
    "peer_products": 44,
    "peer_notes": "its density does not run",
    "asymmetry": 1e-12,
}


def trace_result(**changes: Any) -> TraceResult:
    """A trace of 12 ± 0.25 with two layers, after two looks."""
    fields: dict[str, Any] = {
        **_MATRIX,
        "method": "krylov",
        "trace": 12.0,
        "interval": np.array([11.75, 12.25]),
        "half_width": 0.25,
        "confidence": 0.95,
        "exact_dimensions": 15,
        "taken_over": 5,
        "probes": 15,
        "frobenius": 9.5,
        "frobenius_interval": np.array([9.25, 9.75]),
        "effective_dimension": 1.5,
        "effective_dimension_interval": np.array([1.4, 1.6]),
        "layers": np.array(["0", "2"], dtype=object),
        "layer_parameters": np.array([2000, 410]),
        "layer_traces": np.array([10.0, 2.0]),
        "layer_intervals": np.array([[9.5, 10.5], [1.9, 2.1]]),
        "look_products": np.array([16.0, 30.0]),
        "look_traces": np.array([13.0, 12.0]),
        "look_half_widths": np.array([2.0, 0.25]),
        "provenance": provenance("trace-0a1b", settings={"tol": 0.02}),
    }
    return TraceResult(**fields | changes)


def density_result(**changes: Any) -> DensityResult:
    """Two probes of four and three nodes, two eigenvalues known, compared with runs of its own."""
    padding = np.array([[False] * 4, [False] * 3 + [True]])

    def rows(values: ArrayLike) -> np.ma.MaskedArray:
        return np.ma.MaskedArray(np.asarray(values), mask=padding)

    fields: dict[str, Any] = {
        **_MATRIX,
        "method": "stochastic Lanczos quadrature",
        "nodes": rows([[9.5, 4.0, 0.125, -0.25], [9.5, 3.9, 0.1, 0.0]]),
        "weights": rows([[0.01, 0.01, 0.9, 0.08], [0.01, 0.04, 0.95, 0.0]]),
        "measured_weights": rows([[0.02, 0.01, 0.9, 0.07], [0.01, 0.04, 0.95, 0.0]]),
        "residuals": rows([[1e-6, 1e-3, 0.1, 0.2], [1e-5, 0.2, 0.1, 0.0]]),
        "converged": rows([[True, True, False, False], [True, False, False, False]]),
        "outliers": np.array([9.5, 4.0]),
        "outlier_residuals": np.array([1e-6, 1e-3]),
        "outlier_weights": np.array([0.01, 0.01]),
        "wasserstein_bound": np.array([0.125, 0.25]),
        "moments": np.array([0.3, 1.2, 9.0, 80.0]),
        "moment_errors": np.array([0.03, 0.1, 0.5, 2.0]),
        "trace": 723.0,
        "trace_error": 72.0,
        "trace_interval": np.array([582.0, 864.0]),
        "negative_share": 0.04,
        "negative_share_bounds": np.array([0.0, 0.125]),
        "lambda_max": 9.5,
        "lambda_max_residual": 1e-6,
        "lambda_min": -0.25,
        "lambda_min_residual": 0.2,
        "effective_dimension": 50.0,
        "effective_dimension_error": 5.0,
        "effective_dimension_bounds": np.array([30.0, 80.0]),
        "effective_dimension_z": 0.5,
        "steps": 3,
        "trace_run": 700.0,
        "trace_run_interval": np.array([690.0, 710.0]),
        "lambda_max_run": 9.5,
        "lambda_max_run_interval": np.array([9.4, 9.6]),
        "layers": np.array(["0", "2"], dtype=object),
        "layer_parameters": np.array([30, 21]),
        "layer_traces": np.array([7.0, 5.0]),
        "layer_trace_errors": np.array([0.5, np.nan]),
        "layer_ends": np.array([[9.0, -0.5], [0.25, -0.125]]),
        "layer_end_errors": np.array([[0.1, 0.2], [0.01, 0.02]]),
        "layer_nodes": np.ma.MaskedArray(
            np.arange(12.0).reshape(2, 2, 3), mask=np.arange(12).reshape(2, 2, 3) > 9
        ),
        "layer_weights": np.ma.MaskedArray(
            np.full((2, 2, 3), 1 / 3), mask=np.arange(12).reshape(2, 2, 3) > 9
        ),
        "provenance": provenance("density-0a1b", settings={"probes": 2}),
    }
    return DensityResult(**fields | changes)


def assert_same(left: Result, right: Result) -> None:
    """Same class, provenance, types, shapes, dtypes, masks and bits (of what was computed)."""
    assert type(left) is type(right)
    assert dataclasses.astuple(left.provenance) == dataclasses.astuple(right.provenance)  # type: ignore[arg-type]
    for (q, a), (_, b) in zip(left, right, strict=True):
        assert type(a) is type(b), q.name
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), q.name
            mask = np.ma.getmaskarray(a)
            assert np.array_equal(mask, np.ma.getmaskarray(b)), q.name
            if a.dtype == object:
                assert a.tolist() == b.tolist(), q.name
                continue
            assert np.asarray(a)[~mask].tobytes() == np.asarray(b)[~mask].tobytes(), q.name
        else:
            assert a == b or (a != a and b != b), q.name
