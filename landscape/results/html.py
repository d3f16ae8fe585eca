"""Results as a small piece of HTML for notebooks: colours are the page's own, every text is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from landscape.results.base import Quantity, Result
from landscape.results.measures import measures_of
from landscape.results.numbers import figure, with_error

__all__ = ["html_table", "result_html"]

_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"
_CELL = "text-align:left;vertical-align:top;padding:.15em 1em .15em 0"
_SOFT = "opacity:.75"
#: Measures of all kinds: they are said in a line of their own.
_COMMON = ("loss", "accuracy", "gradient_norm")


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; every cell is text."""
    head = "".join(f'<th style="{_CELL};{_LINE}">{_text(cell)}</th>' for cell in header)
    lines = [
        "<tr>" + "".join(f'<td style="{_CELL}">{_text(cell)}</td>' for cell in row) + "</tr>" for row in rows
    ]
    return (
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums;color:inherit">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def result_html(result: Result) -> str:
    """What a notebook shows of a result: its measures with their errors, its arrays, and how it was made."""
    parts = [
        f"<div><b>{_text(result.kind)}</b> {_text(_whence(result))}</div>",
        _status(result),
        f"<div>{_text(' · '.join(_common(result)))}</div>",
        html_table(["measure", "value", "standard error", "unit", "± is"], _measured(result)),
        _details("Arrays", html_table(["name", "shape", "from", "to", "what it is"], _arrays(result))),
        _made(result),
    ]
    return f'<div class="landscape-result" style="color:inherit">{"".join(parts)}</div>'


def _text(value: object) -> str:
    """One harmless line: no markup, unprintable characters (also those that turn its direction) spelt out."""
    return html.escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value)))


def _whence(result: Result) -> str:
    """The run and the checkpoint."""
    if result.provenance is None:
        return "not stored"
    reference = result.provenance.checkpoint
    parts = [result.provenance.id]
    if reference is not None:
        parts.append(reference.path.replace("\\", "/").rsplit("/", 1)[-1])
        times = (("step", reference.step), ("epoch", reference.epoch))
        parts += [f"{name} {n}" for name, n in times if n is not None]
    return " · ".join(parts)


def _status(result: Result) -> str:
    if result.status == "complete":
        return ""
    words = result.status.replace("_", " ")
    return f'<div style="font-weight:bold;text-decoration:underline">status: {_text(words)}</div>'


def _common(result: Result) -> Iterator[str]:
    """The loss first, and of what."""
    for measure in measures_of(result.kind):
        reading = measure.read(result) if measure.name in _COMMON else None
        if reading is not None:
            percent = measure.name == "accuracy"
            value = f"{100 * reading.value:.4g} %" if percent else figure(reading.value, 6)
            deviation = reading.standard_error
            yield f"{measure.label} {value}" + (f" (standard error {deviation:.2g})" if deviation else "")
    for name in ("examples", "parameters"):
        if isinstance(count := getattr(result, name, None), int):
            yield f"{count} {name}"


def _measured(result: Result) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for measure in measures_of(result.kind):
        reading = measure.read(result) if measure.name not in _COMMON else None
        if reading is None:
            continue
        known = bool(reading.error)  # of an exact figure there is nothing to say
        value = with_error(reading.value, reading.error or 0.0) if known else figure(reading.value, 6)
        deviation = "" if reading.standard_error is None else figure(reading.standard_error, 2)
        unit, meaning = measure.unit_of(result), reading.meaning if known else ""
        rows.append((measure.label, value, deviation, unit, meaning))
    return rows or [(q.name, figure(value, 6), "", q.unit, "") for q, value in _scalars(result)]


def _scalars(result: Result) -> Iterator[tuple[Quantity, float]]:
    """The plain numbers of a result whose kind has no measures."""
    return (
        (q, float(value))
        for q, value in result
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    )


def _arrays(result: Result) -> Iterator[Sequence[str]]:
    for q, value in result:
        if isinstance(value, np.ndarray) and value.ndim:
            dims = q.dims_of(value.ndim)
            shape = " × ".join(f"{size} {dim}" for dim, size in zip(dims, value.shape, strict=True))
            yield (q.name, shape, *_ends(value), f"{q.text}{f' [{q.unit}]' if q.unit else ''}")


def _ends(values: np.ndarray) -> tuple[str, str]:
    """The smallest and the largest finite number, or the first and the last text."""
    there: list[Any] = np.ma.compressed(values).tolist()
    if not there or values.dtype.kind == "b":
        return ("", "") if not there else (f"{sum(there)} yes", f"{len(there) - sum(there)} no")
    if values.dtype.kind in "iu":
        return str(min(there)), str(max(there))
    if values.dtype.kind != "f":
        return str(there[0]), str(there[-1])
    finite = [value for value in there if math.isfinite(value)]
    return (figure(min(finite)), figure(max(finite))) if finite else ("nan", "nan")


def _made(result: Result) -> str:
    """How it was made, in a fold of its own."""
    provenance = result.provenance
    if provenance is None:
        return ""
    rows = [
        ("command", provenance.command),
        ("settings", ", ".join(f"{k} = {v}" for k, v in provenance.settings.items())),
        ("problem", ", ".join(f"{k} = {v}" for k, v in provenance.problem.items())),
        ("seed", f"{provenance.seed} ({'given' if provenance.seed_given else 'drawn'})"),
        ("computed", f"on {provenance.device} in {provenance.dtype}, {provenance.seconds:.3g} s"),
        ("started", provenance.started),
    ]
    return _details("How it was made", html_table(["", ""], rows))


def _details(title: str, content: str) -> str:
    return f'<details><summary style="{_SOFT}">{_text(title)}</summary>{content}</details>'
