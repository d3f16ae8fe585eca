"""Measurements as columns that grow, and the result that they make up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.results import CLASSES, MonitorResult, Provenance

__all__ = ["Columns", "Row", "assembled"]

#: What one measurement found, by the names of the result's quantities; what was not measured is not there.
Row = Mapping[str, Any]

_QUANTITIES = {q.name: q for q in MonitorResult.quantities() if q.dims[:1] == ("measurement",)}
_WHOLE = ("steps", "counts", "products")
_ALWAYS = ("steps", "times", "measurement_seconds")
_FIRST_ROOM = 64


class Columns:
    """One array for each quantity, as long as there is room; a row more takes constant time on average."""

    def __init__(self) -> None:
        self.count = 0
        self._values: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}

    def add(self, row: Row) -> None:
        """Append a measurement."""
        for name, value in row.items():
            if name not in self._values:
                self._values[name] = np.zeros((self._room(), *np.shape(value)))
                self._known[name] = np.zeros(self._room(), dtype=bool)
            elif self.count >= len(self._known[name]):
                self._values[name] = _longer(self._values[name], self._room())
                self._known[name] = _longer(self._known[name], self._room())
            self._values[name][self.count] = value
            self._known[name][self.count] = True
        self.count += 1

    def _room(self) -> int:
        return max(_FIRST_ROOM, 2 * self.count)

    def arrays(self) -> dict[str, np.ndarray]:
        """Each quantity that was ever measured, with a mask where it was not."""
        names = [*_ALWAYS, *(name for name in _QUANTITIES if name in self._values and name not in _ALWAYS)]
        return {name: self._array(name) for name in names}

    def _array(self, name: str) -> np.ndarray:
        kind = np.int64 if name in _WHOLE else np.float64
        if name not in self._values:
            return np.zeros(0, dtype=kind)
        held = min(self.count, len(self._known[name]))
        values = np.zeros((self.count, *self._values[name].shape[1:]), dtype=kind)
        known = np.zeros(self.count, dtype=bool)
        values[:held], known[:held] = self._values[name][:held], self._known[name][:held]
        if known.all():
            return values
        mask = np.broadcast_to(~known.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        return np.ma.MaskedArray(values, mask=mask.copy())


def _longer(array: np.ndarray, length: int) -> np.ndarray:
    longer = np.zeros((length, *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


def assembled(
    columns: Columns,
    fixed: Mapping[str, Any],
    state: Mapping[str, Any],
    provenance: Provenance,
    status: str,
) -> MonitorResult:
    """The result of the measurements so far.

    Args:
        fixed: quantities that were known from the beginning.
        state: those that change as the training goes on.
    """
    quantities: dict[str, Any] = {**columns.arrays(), **fixed, **state}
    classes = np.array(list(CLASSES), dtype=object)
    return MonitorResult(status=status, classes=classes, provenance=provenance, **quantities)
