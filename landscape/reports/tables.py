"""The numbers of a run as tables: its measures with their errors, and everything else that was stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from landscape.reports.markup import Html, join, tag
from landscape.results import Quantity, Result
from landscape.results.measures import Measure, Reading, measures_of
from landscape.results.numbers import BRIEF, figure, with_error

__all__ = ["brief", "measures", "quantities", "reading_cell", "table"]

#: Longer arrays are in the pictures, not in the tables.
_ROWS = 24


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", **attributes: object
) -> Html:
    """A table; on a narrow screen it scrolls by itself. The first cell of a row is its heading."""
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    columns = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    inner = tag(
        "table",
        tag("caption", caption) if caption else "",
        tag("thead", columns),
        tag("tbody", *body),
        **attributes,
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="group", aria_label=caption or "Table")


def shown(reading: Reading, digits: int = 4, least: float = 0.0) -> str:
    """The value with what it may be off by, if that is known; at ``least`` this share of it, to be short."""
    if reading.error is None:
        return _minus(figure(reading.value, digits))
    return _minus(with_error(reading.value, max(reading.error, least * abs(reading.value))))


def _minus(number: str) -> str:
    """A number with true minus signs."""
    return number.replace("-", "−")


def brief(reading: Reading) -> str:
    """The same in seven digits or fewer; what is shown still holds the value."""
    return shown(reading, least=BRIEF)


def reading_cell(reading: Reading) -> Html:
    """The value with what it may be off by, and below it the standard error."""
    value = tag("span", brief(reading), class_="n")
    if reading.standard_error is None:
        return value
    return join([value, tag("small", f"s.e. {figure(reading.standard_error, 2)}")])


def measures(result: Result) -> Html:
    """The measures that the kind is followed by."""
    found = [(m, r) for m in measures_of(result.kind) if (r := m.read(result)) is not None]
    rows = [_measured(m, r, m.unit_of(result)) for m, r in found]
    head = ("measure", "value", "± is", "standard error", "unit", "what it is")
    return table(head, rows, "Measures", class_="measures") if rows else Html()


def _measured(measure: Measure, reading: Reading, unit: str) -> tuple[str, ...]:
    spread = reading.standard_error
    deviation = "" if spread is None else f"{figure(spread, 2)} {reading.sampling}"
    meaning = "" if reading.error is None else reading.meaning
    return measure.label, shown(reading, 6), meaning, deviation, unit, measure.text


def quantities(result: Result) -> Html:
    """Every quantity by its own description: single ones, then short arrays by their first dimension."""
    there = [(q, value) for q, value in result if value is not None and q.name != "status"]
    errors = {q.error for q, _ in there if q.error}
    arrays = {q.name: value for q, value in there if isinstance(value, np.ndarray)}
    single = [
        (q.name, _single(q, value, arrays), q.unit, q.text)
        for q, value in there
        if not isinstance(value, np.ndarray)
    ]
    parts = [table(("quantity", "value", "unit", "what it is"), single, "Single quantities")]
    for dim, columns in _by_dimension(there):
        parts.append(_columns(dim, columns))
    ends = [(q.name, _listed(value), q.unit, q.text) for q, value in there if _is_pair(q, value, errors)]
    if ends:
        parts.append(table(("quantity", "from, to", "unit", "what it is"), ends, "Intervals"))
    return join(parts)


def _is_pair(quantity: Quantity, value: Any, errors: set[str]) -> bool:
    """Whether it is an interval that does not stand beside its quantity already."""
    return quantity.dims == ("end",) and quantity.name not in errors and isinstance(value, np.ndarray)


def _single(quantity: Quantity, value: Any, arrays: dict[str, Any]) -> str:
    """A single value, with its interval if it has one."""
    interval = arrays.get(quantity.error)
    return _number(value) + (f" in {_listed(interval)}" if interval is not None else "")


def _by_dimension(there: Sequence[tuple[Quantity, Any]]) -> Iterator[tuple[str, list[tuple[Quantity, Any]]]]:
    """Short arrays apart by their first dimension, of single numbers or pairs; none that was not computed."""
    found: dict[tuple[str, int], list[tuple[Quantity, Any]]] = {}
    for q, value in there:
        if not isinstance(value, np.ndarray) or not value.ndim or q.dims == ("end",):
            continue
        if np.ma.count(value) == 0 or len(value) > _ROWS:
            continue
        if value.ndim == 1 or (value.ndim == 2 and value.shape[1] <= 2):
            found.setdefault((q.dims[0], len(value)), []).append((q, value))
    for (dim, _), columns in found.items():
        yield dim, columns


def _columns(dim: str, columns: Sequence[tuple[Quantity, Any]]) -> Html:
    """The arrays of one dimension side by side."""
    names = [tag("abbr", q.name, title=f"{q.text}{f' ({q.unit})' if q.unit else ''}") for q, _ in columns]
    count = len(columns[0][1])
    rows = [[str(i + 1), *(_cell(value, i) for _, value in columns)] for i in range(count)]
    return table([dim, *names], rows, f"By {dim.replace('_', ' ')}")


def _cell(values: np.ndarray, at: int) -> str:
    return _listed(values[at]) if values.ndim > 1 else _number(values[at])


def _listed(values: np.ndarray) -> str:
    return f"[{', '.join(_number(value) for value in values)}]"


def _number(value: Any) -> str:
    if np.ma.is_masked(value):
        return "not computed"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer) or (isinstance(value, float) and _is_count(value)):
        return _minus(f"{int(value):,}")
    return _minus(figure(float(value), 6)) if isinstance(value, float | np.floating) else str(value)


def _is_count(value: float) -> bool:
    """Whether it is a whole number that floats hold exactly (2^53 and less)."""
    return math.isfinite(value) and value.is_integer() and abs(value) <= 2**53
