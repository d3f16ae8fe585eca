"""Results, checkpoints and a way to call the program, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from landscape.results import CheckpointReference, EigenResult, Provenance
from landscape.store import ResultFile
from landscape_cli.app import app


def call(*args: str | Path, stdin: str = "") -> Result:
    """``landscape args``, in this process."""
    return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)


def provenance(run: str = "eigen-aaaa1111", **changes: Any) -> Provenance:
    values: dict[str, Any] = {
        "id": run,
        "command": "landscape eigen model.pt",
        "checkpoint": CheckpointReference(path="model.pt", sha256="ab" * 32, step=40),
        "settings": {"k": 5, "tol": 1e-3},
        "problem": {"loss": "cross_entropy"},
        "data_fingerprint": "cd" * 16,
        "seed": 7,
        "seed_given": False,
        "device": "cpu",
        "dtype": "float32",
        "strategy": {"micro_batch": 256},
        "versions": {"torch": "2.13.0"},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
    }
    return Provenance(**(values | changes))


def eigen_result(values: Sequence[float] = (12.3456, 3.0, 2.0, 1.5, 1.0), **changes: Any) -> EigenResult:
    """A result with half widths of 0.00205, shown as 0.0021; the last standard error was not computed."""
    theta = np.array(values, dtype=float)
    count = len(theta)
    half = np.full(count, 0.00205)
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.0123,
        "gradient_norm": 0.00456,
        "examples": 1797,
        "terms": 1797,
        "parameters": 6570,
        "accuracy": 0.998,
        "provenance": provenance(),
        "method": "lanczos",
        "operator": "hessian",
        "which": "largest",
        "eigenvalues": theta,
        "residuals": np.full(count, 0.002),
        "intervals": np.stack([theta - half, theta + half], axis=1),
        "refined_intervals": np.ma.masked_all((count, 2)),
        "standard_errors": np.ma.MaskedArray(np.full(count, 0.4123), [False] * (count - 1) + [True]),
        "standard_error_method": "second differences",
        "noise_floor": 1e-4,
        "converged": np.array([True] * (count - 1) + [False]),
        "lambda_max": float(theta.max()),
        "lambda_max_residual": 0.002,
        "lambda_min": -0.25,
        "lambda_min_residual": 0.01,
        "missed_above": 12.5001,
        "missed_below": None,
        "missed_epsilon": 0.01201,
        "products": 21,
        "passes": 21,
        "seconds": 1.5,
        "verified": 0,
        "residual_history": np.array([np.nan, 1.0, 0.1]),
    }
    return EigenResult(**(fields | changes))


def stored(folder: Path, *runs: str) -> Path:
    """A result file with one eigen run per id, each started a day after the one before."""
    path = folder / "model-abababab.h5"
    for day, run in enumerate(runs, start=1):
        started = f"2026-01-{day:02d}T00:00:00+00:00"
        ResultFile(path).add(eigen_result(provenance=provenance(run, started=started)))
    return path
