"""Stored runs as tidy tables: a row for each run and measure, or for each element of an array."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.results import Quantity, Result, kinds
from landscape.results.html import html_table
from landscape.results.measures import measures_of

if TYPE_CHECKING:
    import pandas

    from landscape.study.collection import Runs, Stored

__all__ = [
    "EXTRA",
    "Table",
    "check_quantity",
    "data_frame",
    "dimension_labels",
    "measures_table",
    "quantity_table",
    "runs_html",
    "table_of_elements",
]

#: What to install for pandas and xarray.
EXTRA = "pip install 'landscape-diagnostics[tables]'"
#: Columns that say which run a row belongs to.
_RUN = ("run", "kind", "checkpoint", "training", "step", "epoch", "status", "started")
_MEASURE = ("measure", "value", "error", "error_meaning", "standard_error", "unit")
#: Columns of the errors of an element, each left out where no run has it.
_ERRORS = ("low", "high", "error", "standard_error", "error_meaning")
#: The ends of an interval.
_ENDS = ("low", "high")
#: Rows of a table of runs in a notebook.
_SHOWN = 60


@dataclass(frozen=True)
class Table:
    """Rows of plain Python values under named columns; None: not computed, or not there."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def measures_table(runs: Runs) -> Table:
    """A row for each run and measure that it has, a run's own measures first.

    ``error`` is what the figure may be off by for these data, which ``error_meaning`` says in words;
    ``standard_error`` that over the sampling of the data or mini-batches; None where there is none.

    Raises:
        StoreError: a run cannot be read.
    """
    rows = []
    for entry in runs:
        result, whose = entry.read(), _identity(entry)
        for measure in measures_of(result.kind):
            if (reading := measure.read(result)) is not None:
                meaning = reading.meaning if reading.error is not None else None
                found = (reading.value, reading.error, meaning, reading.standard_error)
                rows.append((*whose, measure.name, *found, measure.unit_of(result)))
    return Table((*_RUN, *_MEASURE), tuple(rows))


def quantity_table(runs: Runs, name: str) -> Table:
    """A row for each element of the quantity ``name`` of each run that has it, with its errors alongside.

    Raises:
        InputError: no kind of these runs has such a quantity.
        StoreError: a run cannot be read.
    """
    check_quantity(runs, name)
    fitting = (entry for entry in runs if _has(entry.header.kind, name))
    return table_of_elements(((entry, entry.read()) for entry in fitting), name)


def check_quantity(runs: Runs, name: str) -> None:
    """Raise InputError if no kind of these runs has such a quantity."""
    known = {q.name for kind in runs.kinds if kind in kinds() for q in kinds()[kind].quantities()}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), 4, 0.5)
        raise InputError(
            f"no run here has a quantity {name!r}",
            found=f"near it: {', '.join(near)}" if near else f"runs of {', '.join(runs.kinds) or 'no kind'}",
            do=f"choose one of {', '.join(sorted(known))}" if known else "",
        )


def table_of_elements(read: Iterable[tuple[Stored, Result]], name: str) -> Table:
    """The same of runs that are read already; runs without it have no rows."""
    found: list[tuple[tuple[Any, ...], list[dict[str, Any]]]] = []
    dims: dict[str, None] = {}
    for entry, result in read:
        quantity = next((q for q in result.quantities() if q.name == name), None)
        value = None if quantity is None else getattr(result, name)
        if quantity is not None and value is not None:
            dims |= dict.fromkeys(quantity.dims_of(np.ndim(value)))
            found.append((_identity(entry), list(_elements(result, quantity, value))))
    there = {key for _, elements in found for element in elements for key in element}
    columns = (*dims, "value", *(key for key in _ERRORS if key in there), "computed", "unit")
    rows = (
        (*whose, *(element.get(key) for key in columns)) for whose, elements in found for element in elements
    )
    return Table((*_RUN, *columns), tuple(rows))


def dimension_labels(result: Result, dim: str, size: int) -> list[Any]:
    """What the places along a dimension are called: by its coordinates, by names, else 0, 1, …"""
    if dim == "end" and size == len(_ENDS):
        return list(_ENDS)
    along = [
        (q, value) for q, value in result if isinstance(value, np.ndarray) and q.dims_of(value.ndim) == (dim,)
    ]
    for q, value in along:
        if q.name == dim or value.dtype.kind in "OU":
            return _plain(value)
    return list(range(size))


def data_frame(table: Table) -> pandas.DataFrame:
    """A table as a DataFrame: ``Int64`` and ``boolean`` where whole numbers or booleans are missing.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise InputError("tables need the package pandas, which is not installed", do=EXTRA) from error
    return pandas.DataFrame({name: pandas.Series(*_typed(table.column(name))) for name in table.columns})


def runs_html(runs: Runs) -> str:
    """What a notebook shows of a collection; reads no arrays."""
    header = ("run", "kind", "status", "checkpoint", "step", "epoch", "started", "took", "file")
    shown: list[tuple[str, ...]] = [
        (
            h.id, h.kind, h.status, entry.checkpoint, _shown(h.checkpoint_step), _shown(h.checkpoint_epoch),
            re.sub(r"\.\d+", "", h.started), f"{h.seconds:.3g} s", entry.file.name,
        )
        for entry in runs[:_SHOWN] if (h := entry.header)
    ]  # fmt: skip
    if len(runs) > _SHOWN:
        shown.append((f"… and {len(runs) - _SHOWN} more", *[""] * (len(header) - 1)))
    lost = [(text,) for text in runs.unreadable]
    below = html_table(["Files that cannot be read"], lost) if lost else ""
    return html_table(header, shown) + below


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)


def _has(kind: str, name: str) -> bool:
    return kind in kinds() and any(q.name == name for q in kinds()[kind].quantities())


def _identity(entry: Stored) -> tuple[Any, ...]:
    h = entry.header
    when = h.checkpoint_step, h.checkpoint_epoch
    return h.id, h.kind, entry.checkpoint, entry.training, *when, h.status, h.started


def _elements(result: Result, quantity: Quantity, value: Any) -> Iterator[dict[str, Any]]:
    """Each element with its place along every dimension and its errors."""
    array: Any = np.ma.asanyarray(value, dtype=object if isinstance(value, str) else None)
    dims = quantity.dims_of(array.ndim)
    labels = [dimension_labels(result, dim, size) for dim, size in zip(dims, array.shape, strict=True)]
    beside = _errors(result, quantity, array.shape)
    columns = {"value": _plain(array), **{key: _plain(errors) for key, errors in beside.items()}}
    mask = np.ma.getmaskarray(array).ravel().tolist()
    meaning = _meaning(result, quantity) if beside else {}
    for i, place in enumerate(product(*labels)):
        errors = {key: column[i] for key, column in columns.items()}
        own = {**dict(zip(dims, place, strict=True)), **errors, **meaning}
        yield {**own, "computed": not mask[i], "unit": quantity.unit}


def _errors(result: Result, quantity: Quantity, shape: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The errors of a quantity, each an array like it, by column."""
    described = _error_of(result, quantity)
    found = None if described is None else getattr(result, described.name)
    if described is None or found is None:
        return {}
    errors = np.ma.asanyarray(found)
    if errors.shape == (*shape, 2) and described.dims[-1] == "end":
        both = {"low": errors[..., 0], "high": errors[..., 1]}
        return both | _sampling(result, quantity.dims_of(len(shape)))
    if errors.shape not in (tuple(shape), ()):
        return {}
    column = "standard_error" if "standard error" in described.text.lower() else "error"
    return {column: np.ma.asanyarray(np.broadcast_to(errors, shape, subok=True))}


def _sampling(result: Result, dims: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Where intervals hold the figures for these data, the standard errors over the sampling of the data."""
    own = next((q for q in result.quantities() if q.name == "standard_errors" and q.dims == dims), None)
    found = None if own is None else getattr(result, own.name)
    return {} if found is None else {"standard_error": found}


def _meaning(result: Result, quantity: Quantity) -> dict[str, str]:
    described = _error_of(result, quantity)
    return {} if described is None else {"error_meaning": described.text}


def _error_of(result: Result, quantity: Quantity) -> Quantity | None:
    return next((q for q in result.quantities() if q.name == quantity.error), None)


def _plain(values: Any) -> list[Any]:
    """The elements as Python's own, in C order; None for what is masked."""
    found: list[Any] = np.ma.asanyarray(values).ravel().tolist()
    return found


def _typed(values: Sequence[Any]) -> tuple[list[Any], None, str]:
    """The values as a pandas Series takes them, with the dtype that holds them and what is missing."""
    there = [value for value in values if value is not None]
    whole = len(there) == len(values)
    if any(isinstance(value, str) for value in there) or not values:
        return list(values), None, "object"
    if there and all(isinstance(value, bool) for value in there):
        return list(values), None, "bool" if whole else "boolean"
    if there and all(isinstance(value, int) for value in there):
        return list(values), None, "int64" if whole else "Int64"
    return [math.nan if value is None else float(value) for value in values], None, "float64"
