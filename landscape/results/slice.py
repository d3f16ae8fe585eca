"""The result of ``landscape slice``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from landscape.results.base import DataResult, jsonable, quantity, register

__all__ = ["SliceResult"]

_GRID: dict[str, Any] = {"dims": ("x", "y"), "optional": 1}


@register
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SliceResult(DataResult):
    """The loss along one or two directions through the weights: a line or a plane of n dimensions.

    A line's arrays are (x,), a plane's (x, y), in the order of the axes as given. What was not reached is
    masked; NaN and infinite losses are what came out. The point w + Σ cᵢ dᵢ has the coordinates c.
    """

    kind: ClassVar[str] = "slice"
    apart: ClassVar[dict[str, str]] = {"directions": "directions_file"}

    # The grid.
    x: np.ndarray = quantity(
        "Coordinates along the first axis, in multiples of its direction.", dims=("x",), unit="direction"
    )
    y: np.ndarray | None = quantity(
        "Coordinates along the second axis, in multiples of its direction.",
        dims=("y",),
        unit="direction",
        default=None,
    )
    loss: np.ndarray = quantity("Mean loss over the data.", unit="loss", error="standard_errors", **_GRID)
    standard_errors: np.ndarray = quantity(
        "Standard error over the data of the loss minus that at the centre, on the same examples.",
        unit="loss",
        **_GRID,
    )
    errors_method: str = quantity("How the standard errors were obtained, or why not.")
    evaluated: np.ndarray = quantity("Whether the point was evaluated, not interpolated.", **_GRID)
    interpolation_errors: np.ndarray | None = quantity(
        "Estimated error of the loss where it was interpolated, 0 where evaluated.",
        unit="loss",
        default=None,
        **_GRID,
    )
    accuracies: np.ndarray | None = quantity(
        "Share of terms whose label is predicted right.", error="accuracy_errors", default=None, **_GRID
    )
    accuracy_errors: np.ndarray | None = quantity(
        "Standard error of that share over the labels.", default=None, **_GRID
    )
    gradient_norms: np.ndarray | None = quantity(
        "Euclidean norm of the gradient.", unit="loss / weight", default=None, **_GRID
    )
    metric_names: np.ndarray | None = quantity("The user's own metrics.", dims=("metric",), default=None)
    metrics: np.ndarray | None = quantity(
        "Their means over the examples.",
        dims=("metric", "x", "y"),
        error="metric_errors",
        optional=1,
        default=None,
    )
    metric_errors: np.ndarray | None = quantity(
        "Standard errors of these means; NaN of a metric that gives a mean only.",
        dims=("metric", "x", "y"),
        optional=1,
        default=None,
    )
    evaluations: int = quantity("Losses evaluated, on all data each.")
    seconds: float = quantity("Time taken.", unit="s")

    # The centre.
    centre_loss: float = quantity(
        "Mean loss over the data at the weights.", unit="loss", error="centre_error"
    )
    centre_error: float = quantity("Standard error of that mean over the data.", unit="loss")
    gradient_norm: float = quantity("Euclidean norm of the gradient at the weights.", unit="loss / weight")
    weights_norm: float = quantity("Euclidean norm of the measured weights.", unit="weight")

    own_loss: float = quantity(
        "Loss at the weights as the checkpoint has them: another one where BatchNorm is recalibrated.",
        unit="loss",
    )

    # The second data set.
    test_examples: int | None = quantity("Number of examples of the test data.", default=None)
    test_centre_loss: float | None = quantity(
        "Mean loss over the test data at the weights.", unit="loss", error="test_centre_error", default=None
    )
    test_centre_error: float | None = quantity("Standard error of that mean.", unit="loss", default=None)
    test_accuracy: float | None = quantity("Accuracy on the test data at the weights.", default=None)
    test_loss: np.ndarray | None = quantity(
        "Mean loss over the test data.", unit="loss", error="test_standard_errors", default=None, **_GRID
    )
    test_standard_errors: np.ndarray | None = quantity(
        "Standard error over the test data of the loss minus that at the centre.",
        unit="loss",
        default=None,
        **_GRID,
    )
    test_accuracies: np.ndarray | None = quantity(
        "Accuracy on the test data.", error="test_accuracy_errors", default=None, **_GRID
    )
    test_accuracy_errors: np.ndarray | None = quantity(
        "Standard error of that share over the labels.", default=None, **_GRID
    )

    # The axes.
    axes: np.ndarray = quantity("What each axis is.", dims=("axis",))
    along: np.ndarray = quantity("The kind of each direction, such as random or eigen.", dims=("axis",))
    direction_norms: np.ndarray = quantity(
        "Length of one unit of the coordinate.", dims=("axis",), unit="weight"
    )
    relative_norms: np.ndarray = quantity(
        "Length of one unit of the coordinate, in units of the weights' norm.", dims=("axis",)
    )
    angle: float | None = quantity(
        "Angle between the directions before they were made orthogonal.", unit="degrees", default=None
    )
    orthogonal: bool = quantity("Whether the second direction was made orthogonal to the first.")
    slopes: np.ndarray = quantity(
        "Derivative of the loss along each axis at the centre, from the gradient.",
        dims=("axis",),
        unit="loss / direction",
    )
    curvatures: np.ndarray | None = quantity(
        "Second derivative along each axis that is an eigenvector: its eigenvalue.",
        dims=("axis",),
        unit="loss / direction²",
        error="curvature_errors",
        default=None,
    )
    curvature_errors: np.ndarray | None = quantity(
        "Half-width of the eigenvalue's interval.", dims=("axis",), unit="loss / direction²", default=None
    )
    differences: np.ndarray | None = quantity(
        "The same from differences of the loss along the axis.",
        dims=("axis",),
        unit="loss / direction²",
        error="difference_errors",
        default=None,
    )
    difference_errors: np.ndarray | None = quantity(
        "What they may be off by: the next order, and rounding.",
        dims=("axis",),
        unit="loss / direction²",
        default=None,
    )
    disagreeing: np.ndarray | None = quantity(
        "Whether both differ by more than their errors.", dims=("axis",), default=None
    )
    batchnorm: str = quantity(
        "Running statistics of BatchNorm: none (no such layers), saved (the centre's everywhere), "
        "recalibrated (measured anew at each point) or batch (train mode)."
    )
    recalibration_batch: int | None = quantity(
        "Examples in a batch whose statistics are averaged, if recalibrated.", default=None
    )
    saved_loss: np.ndarray | None = quantity(
        "Loss with the running statistics interpolated between both checkpoints instead, from one to the "
        "other.",
        unit="loss",
        default=None,
        **_GRID,
    )

    # Along an interpolation.
    barrier: float | None = quantity(
        "Largest height of the loss above the straight line between both ends, on the segment.",
        unit="loss",
        error="barrier_error",
        default=None,
    )
    barrier_error: float | None = quantity(
        "Its standard error over the data, on the same examples.", unit="loss", default=None
    )
    barrier_at: float | None = quantity("Where it is, from 0 to 1.", unit="direction", default=None)
    saved_barrier: float | None = quantity("The barrier of saved_loss.", unit="loss", default=None)

    # Other checkpoints.
    point_names: np.ndarray | None = quantity("Other checkpoints shown.", dims=("point",), default=None)
    point_steps: np.ndarray | None = quantity(
        "Their training steps (else epochs), masked where unknown.", dims=("point",), default=None
    )
    point_roles: np.ndarray | None = quantity(
        "end (of an interpolation) or trajectory.", dims=("point",), default=None
    )
    point_coordinates: np.ndarray | None = quantity(
        "Coordinates of each one's projection on the slice.",
        dims=("point", "axis"),
        unit="direction",
        default=None,
    )
    point_distances: np.ndarray | None = quantity(
        "Distance of each from the slice.", dims=("point",), unit="weight", default=None
    )
    point_losses: np.ndarray | None = quantity(
        "Loss of each at its own weights and running statistics.",
        dims=("point",),
        unit="loss",
        error="point_errors",
        default=None,
    )
    point_errors: np.ndarray | None = quantity(
        "Standard error over the data of that loss minus the centre's.",
        dims=("point",),
        unit="loss",
        default=None,
    )
    point_slice_losses: np.ndarray | None = quantity(
        "Loss of the slice at each one's projection.", dims=("point",), unit="loss", default=None
    )
    explained_variance: np.ndarray | None = quantity(
        "Share of the squared distances of the trajectory from the centre that lies along each axis.",
        dims=("axis",),
        default=None,
    )

    # Vectors.
    directions_file: str | None = quantity("File that holds the directions.", default=None)
    directions: np.ndarray | None = None  # (axis, parameter), in a file of their own when stored

    @property
    def coordinates(self) -> tuple[np.ndarray, ...]:
        """The coordinates, one array for each axis."""
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def minimum(self) -> tuple[float, tuple[float, ...]] | None:
        """The lowest loss of the grid and its coordinates; None without a finite one."""
        finite = np.ma.masked_invalid(self.loss)
        if not np.ma.count(finite):
            return None
        at = np.unravel_index(int(np.ma.argmin(finite)), finite.shape)
        return float(finite[at]), tuple(float(c[i]) for c, i in zip(self.coordinates, at, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As every result, with ``coordinates``, one list for each axis."""
        return {**super().to_json(), "coordinates": jsonable(list(self.coordinates))}
