"""Slices made by hand: lines, planes, interpolations and trajectories whose every value is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from landscape.results import SliceResult
from tests.results.samples import provenance

__all__ = ["barrier_result", "line_result", "plane_result", "with_trajectory"]

#: Coefficients of the quadratic losses below.
CENTRE, SLOPE, CURVATURE = 0.2, 0.05, 3.0


def _common(axes: list[str], along: list[str], **changes: Any) -> dict[str, Any]:
    count = len(axes)
    fields: dict[str, Any] = {
        "status": "complete",
        "provenance": provenance("slice-aaaa1111", command="landscape slice runs/mlp-sgd.pt"),
        "examples": 1797,
        "terms": 1797.0,
        "parameters": 6570,
        "errors_method": "paired over examples",
        "evaluations": 1,
        "seconds": 1.0,
        "centre_loss": CENTRE,
        "centre_error": 0.01,
        "gradient_norm": 0.1,
        "weights_norm": 5.0,
        "own_loss": CENTRE,
        "axes": np.array(axes, dtype=object),
        "along": np.array(along, dtype=object),
        "direction_norms": np.full(count, 2.0),
        "relative_norms": np.full(count, 0.4),
        "orthogonal": True,
        "slopes": np.full(count, SLOPE),
        "batchnorm": "none",
    }
    return fields | changes


def line_result(
    x: ArrayLike | None = None,
    loss: Callable[[np.ndarray], ArrayLike] | np.ma.MaskedArray | None = None,
    **changes: Any,
) -> SliceResult:
    """A line along an eigenvector, of CENTRE + SLOPE·t + ½·CURVATURE·t², with test data."""
    at = np.linspace(-1, 1, 21) if x is None else np.asarray(x, dtype=float)
    found = CENTRE + SLOPE * at + CURVATURE * at**2 / 2 if loss is None else loss
    values = np.ma.asarray(found(at) if callable(found) else found)
    fields = _common(["eigen:1"], ["eigen"]) | {
        "x": at,
        "loss": values,
        "standard_errors": np.ma.array(0.05 * np.abs(at)),
        "evaluated": np.ones(len(at), dtype=bool),
        "accuracies": np.ma.array(0.95 - 0.3 * at**2 / (1 + at**2)),
        "curvatures": np.array([CURVATURE]),
        "curvature_errors": np.array([0.2]),
        "test_examples": 360,
        "test_centre_loss": 0.3,
        "test_centre_error": 0.02,
        "test_accuracy": 0.9,
        "test_loss": np.ma.array(1.1 * values + 0.08),
        "test_standard_errors": np.ma.array(0.1 * np.abs(at)),
        "test_accuracies": np.ma.array(0.9 - 0.3 * at**2 / (1 + at**2)),
    }
    return SliceResult(**fields | changes)


def barrier_result(**changes: Any) -> SliceResult:
    """An interpolation from loss 0.2 to 0.4 with a bump of 0.8 in the middle, of 1.4 as saved."""
    at = np.linspace(-0.5, 1.5, 41)
    bump = 16 * (at * (1 - at)) ** 2
    values = 0.2 + 0.2 * at + 0.8 * bump
    fields = _common(["to:mlp-other.pt"], ["to"]) | {
        "x": at,
        "loss": values,
        "standard_errors": np.ma.array(0.03 * np.abs(at)),
        "evaluated": np.ones(len(at), dtype=bool),
        "accuracies": np.ma.array(0.95 - 0.4 * bump / (1 + bump)),
        "batchnorm": "recalibrated",
        "recalibration_batch": 256,
        "saved_loss": np.ma.array(0.2 + 0.2 * at + 1.4 * bump),
        "barrier": 0.8,
        "barrier_error": 0.02,
        "barrier_at": 0.5,
        "saved_barrier": 1.4,
        "point_names": np.array(["runs/mlp-other.pt"], dtype=object),
        "point_steps": np.ma.array([900.0]),
        "point_roles": np.array(["end"], dtype=object),
        "point_coordinates": np.array([[1.0]]),
        "point_distances": np.array([0.0]),
        "point_losses": np.array([0.4]),
        "point_errors": np.array([0.03]),
        "point_slice_losses": np.array([0.4]),
    }
    return SliceResult(**fields | changes)


def plane_result(
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    loss: Callable[[np.ndarray, np.ndarray], ArrayLike] | np.ma.MaskedArray | None = None,
    **changes: Any,
) -> SliceResult:
    """A plane along two random directions: a tilted bowl, the same on the test data but higher."""
    u = np.linspace(-1, 1, 21) if x is None else np.asarray(x, dtype=float)
    v = np.linspace(-1, 1, 17) if y is None else np.asarray(y, dtype=float)
    at = np.meshgrid(u, v, indexing="ij")
    bowl = CENTRE + SLOPE * (at[0] + at[1]) + 1.5 * at[0] ** 2 + 0.5 * at[1] ** 2 + 0.6 * at[0] * at[1]
    found = bowl if loss is None else loss
    values = np.ma.asarray(found(*at) if callable(found) else found)
    radius = np.hypot(*at)
    fields = _common(["random:1", "random:2"], ["random", "random"]) | {
        "x": u,
        "y": v,
        "loss": values,
        "standard_errors": np.ma.array(0.05 * radius),
        "evaluated": np.ones(values.shape, dtype=bool),
        "accuracies": np.ma.array(0.95 - 0.3 * radius / 2),
        "test_examples": 360,
        "test_centre_loss": 0.3,
        "test_centre_error": 0.02,
        "test_loss": np.ma.array(values + 0.1 + 0.2 * at[0]),
        "test_standard_errors": np.ma.array(0.1 * radius),
        "metric_names": np.array(["margin"], dtype=object),
        "metrics": np.ma.array((1 - radius)[None]),
        "angle": 88.2,
    }
    return SliceResult(**fields | changes)


def with_trajectory(result: SliceResult, count: int = 12, **changes: Any) -> SliceResult:
    """The result with a training run that winds from a corner to the centre, at its end in the slice."""
    left = np.linspace(1, 0, count)
    axes = [0.9 * left * result.x[0], 0.8 * np.abs(left) ** 1.7 * (1.0 if result.y is None else result.y[-1])]
    losses = CENTRE + 2.0 * left**2 + 0.3 * left
    fields: dict[str, Any] = {
        "point_names": np.array([f"runs/epoch{i}.pt" for i in range(count)], dtype=object),
        "point_steps": np.ma.array(100.0 * np.arange(count)),
        "point_roles": np.array(["trajectory"] * count, dtype=object),
        "point_coordinates": np.stack(axes[: len(result.axes)], axis=1),
        "point_distances": 2.5 * left,
        "point_losses": losses,
        "point_errors": 0.08 * left,
        "point_slice_losses": losses + 0.5 * left,
        "explained_variance": np.array([0.71, 0.18])[: len(result.axes)],
    }
    return dataclasses.replace(result, **fields | changes)
