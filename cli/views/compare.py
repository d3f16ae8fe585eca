"""Comparisons and correlations in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from landscape.files import printable

from ..console import Console
from ..numbers import brief, figure
from .common import counted

if TYPE_CHECKING:
    from landscape.results.comparison import Coefficient, Comparison, Correlation, Difference, Row
    from landscape.results.measures import Reading

__all__ = ["print_comparison", "print_correlations"]

_HOW = (
    "± is what a figure may be off by for the data it was measured on, se its standard error over their "
    "sampling; differs: beyond ±; beyond sampling: at 95 %, se and ± together; ?: such an error is not known."
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """A table for each kind, of training runs for each measure; then how to read it."""
    for text in comparison.differing:
        console.warn(f"Not alike: {text}.")
    names = [printable(column.name) for column in comparison.columns]  # headers are printed as they are
    several = len(names) > 2
    header = _header(names, several)
    for title, rows in _tables(comparison):
        console.out(title)
        first = comparison.over or "measure"
        console.table([first, *header], [_line(row, bool(comparison.over), several) for row in rows])
        console.out()
    console.out(_HOW)
    if comparison.tests > 1:
        console.out(_multiple(comparison))
    for note in comparison.notes:
        console.note(f"Note: {note}.")


def _tables(comparison: Comparison) -> Iterator[tuple[str, list[Row]]]:
    """The rows that belong into one table, and what it is called."""
    if not comparison.over:
        for kind, of_kind in groupby(comparison.rows, key=lambda row: row.kind):
            runs = [run.id for column in comparison.columns for run in column.runs if run.kind == kind]
            yield f"{kind} ({', '.join(runs)})", list(of_kind)
        return
    for _, found in groupby(comparison.rows, key=lambda row: (row.kind, row.measure)):
        rows = list(found)
        unit = f", {rows[0].unit}" if rows[0].unit else ""
        yield f"{rows[0].kind}: {rows[0].measure}{unit}", rows


def _header(names: Sequence[str], several: bool) -> list[str]:
    first = names[0]
    if not several:
        return [first, names[1], "difference", "differs", "beyond sampling", "ratio"]
    return [first, *(part for name in names[1:] for part in (name, f"− {first}"))]


def _line(row: Row, timed: bool, several: bool) -> list[str]:
    cells = [str(row.at) if timed else row.measure, _value(row.readings[0])]
    for reading, difference in zip(row.readings[1:], row.differences, strict=True):
        cells.append(_value(reading))
        if several:
            cells.append("" if difference is None else f"{_difference(difference)}: {_verdict(difference)}")
        elif difference is None:
            cells += [""] * 4
        else:
            cells += [
                _difference(difference), _yes(difference.differs), _beyond(difference), _ratio(difference)
            ]  # fmt: skip
    return cells


def _value(reading: Reading | None) -> str:
    return "" if reading is None else _with(reading.value, reading.error, reading.standard_error)


def _difference(difference: Difference) -> str:
    return _with(difference.value, difference.error, difference.standard_error)


def _ratio(difference: Difference) -> str:
    if difference.ratio is None:
        return ""
    return _with(difference.ratio, difference.ratio_error, difference.ratio_standard_error)


def _with(value: float, error: float | None, deviation: float | None) -> str:
    """``value ± error (se …)``, as far as they are known."""
    text = figure(value, 4) if error is None else brief(value, error)
    return text if deviation is None else f"{text} (se {_rounded(deviation)})"


def _rounded(deviation: float) -> str:
    """Two digits, of larger numbers all before the point."""
    return f"{deviation:.0f}" if 100 <= deviation < 1e6 else figure(deviation, 2)


def _verdict(difference: Difference) -> str:
    """Both verdicts in few words."""
    return f"{_yes(difference.differs)}, {_beyond(difference)}"


def _yes(found: bool | None) -> str:
    return "?" if found is None else "yes" if found else "no"


def _beyond(difference: Difference) -> str:
    z = difference.z
    return _yes(difference.differs_beyond_sampling) + ("" if z is None else f" (z = {z:.1f})")


def _multiple(comparison: Comparison) -> str:
    """What so many verdicts at 95 % mean together."""
    chance = figure(0.05 * comparison.tests, 2)
    return (
        f"{comparison.tests} differences were held against the sampling, {comparison.marked} are beyond it; "
        f"by chance alone about {chance} would be. Beyond |z| = {comparison.threshold:.2f}, which all "
        f"together pass by chance with 5 % at most (Bonferroni): {comparison.remaining}."
    )


def print_correlations(console: Console, correlations: Sequence[Correlation]) -> None:
    """A row for each training run, and what the intervals do not hold."""
    first = correlations[0]
    console.out(f"{first.x} and {first.y}")
    header = ["training run", "checkpoints", "Spearman (95 %)", "Kendall (95 %)", "of the changes (Spearman)"]
    rows = [
        [
            one.name, str(one.count), _coefficient(one.spearman), _coefficient(one.kendall),
            "" if one.steps is None else _coefficient(one.steps),
        ]
        for one in correlations
    ]  # fmt: skip
    console.table(header, rows)
    console.out()
    for note in dict.fromkeys(note for one in correlations for note in one.notes):
        console.out(f"Note: {note}.")
    if any(one.spearman.interval is None for one in correlations):
        console.out(f"Note: of {counted(4, 'checkpoint')} there is a coefficient and no interval.")


def _coefficient(found: Coefficient) -> str:
    if found.interval is None:
        return f"{found.value:.2f}"
    low, high = found.interval
    return f"{found.value:.2f} ({low:.2f} to {high:.2f})"
