"""Curvature while a training loop runs: :class:`Monitor`, and callbacks for Lightning and Hugging Face."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.monitoring.journal import recover, recover_in
    from landscape.monitoring.monitor import Monitor

__all__ = ["Monitor", "recover", "recover_in"]

_HOMES = {"Monitor": "monitor", "recover": "journal", "recover_in": "journal"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'landscape.monitoring' has no attribute {name!r}")
    return getattr(importlib.import_module(f"landscape.monitoring.{_HOMES[name]}"), name)
