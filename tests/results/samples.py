"""Made-up results, and what it means for two to be the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from landscape.results import CheckpointReference, EigenResult, Provenance, Result


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
            assert np.asarray(a)[~mask].tobytes() == np.asarray(b)[~mask].tobytes(), q.name
        else:
            assert a == b or (a != a and b != b), q.name
