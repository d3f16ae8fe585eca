"""Measurements to TensorBoard, or to whatever else takes numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from landscape.monitoring.columns import Row
from landscape.results import CLASSES

__all__ = ["ScalarWriter", "Writer", "scalars", "written"]


class ScalarWriter(Protocol):
    """As TensorBoard's ``SummaryWriter`` has it."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """One number."""


Writer = ScalarWriter | Callable[[Mapping[str, float], int], Any]

#: Quantity of the result → name in a log.
_NAMES = {
    "lambda_max": "lambda_max",
    "lambda_max_errors": "lambda_max_error",
    "trace": "trace",
    "trace_half_widths": "trace_half_width",
    "losses": "probe_loss",
    "gradient_norms": "gradient_norm",
    "gradient_norm_ratios": "gradient_norm_ratio",
    "cosines": "cosine",
    "directional_curvature": "directional_curvature",
    "curvature_norms": "curvature_norm",
    "h_norms": "h_norm",
    "step_sizes": "step_size",
    "learning_rates": "learning_rate",
}


def scalars(row: Row) -> dict[str, float]:
    """The numbers of a measurement that are worth a curve, by their names in a log; finite ones only."""
    found = {f"landscape/{name}": float(row[key]) for key, name in _NAMES.items() if key in row}
    for name, share in zip(CLASSES, row.get("fractions", ()), strict=False):
        found[f"landscape/ratios/{name}"] = float(share)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def written(writer: Writer, row: Row, step: int) -> None:
    """Give a measurement to ``writer``."""
    found = scalars(row)
    add = getattr(writer, "add_scalar", None)
    if add is None:
        assert callable(writer)
        writer(found, step)
        return
    for name, value in found.items():
        add(name, value, step)
