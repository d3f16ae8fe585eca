"""landscape: the shape of the loss around a trained model.

Importing this package imports neither torch nor matplotlib; its names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.api import (
        density,
        eigen,
        loss_slice,
        noise,
        overlap,
        ratios,
        reweight,
        sharpness,
        trace,
    )
    from landscape.checkpoint import inspect_checkpoint, load_checkpoint, load_into, save_checkpoint
    from landscape.errors import LandscapeError
    from landscape.monitoring import Monitor
    from landscape.problem import Problem
    from landscape.project import load_problem
    from landscape.studies import batch, compare, correlate, export, open, report

__all__ = [
    "LandscapeError",
    "Monitor",
    "Problem",
    "batch",
    "compare",
    "correlate",
    "density",
    "eigen",
    "export",
    "inspect_checkpoint",
    "load_checkpoint",
    "load_into",
    "load_problem",
    "loss_slice",
    "noise",
    "open",
    "overlap",
    "ratios",
    "report",
    "reweight",
    "save_checkpoint",
    "sharpness",
    "trace",
]

_HOMES = {
    "LandscapeError": "errors",
    "Monitor": "monitoring",
    "Problem": "problem",
    "batch": "studies",
    "compare": "studies",
    "correlate": "studies",
    "density": "api",
    "eigen": "api",
    "export": "studies",
    "inspect_checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "load_into": "checkpoint",
    "load_problem": "project",
    "loss_slice": "api",
    "noise": "api",
    "open": "studies",
    "overlap": "api",
    "ratios": "api",
    "report": "studies",
    "reweight": "api",
    "save_checkpoint": "checkpoint",
    "sharpness": "api",
    "trace": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'landscape' has no attribute {name!r}")
    return getattr(importlib.import_module(f"landscape.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
