"""Measures of two or more checkpoints or training runs side by side, with the errors of their differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from landscape.errors import InputError
from landscape.files import printable
from landscape.results import Result
from landscape.results.comparison import Column, Comparison, Difference, Row, RunReference
from landscape.results.measures import COMMON, MEASURES, Measure, Reading, measures_of
from landscape.results.reading import NORMAL
from landscape.study.series import Run, counted_runs
from landscape.study.sides import FIELDS, Picked, Side, Source, pick, refuse, sides_of, when

__all__ = ["Compared", "compare", "compared", "difference"]

_SAME = (
    "all are of the same examples: their sampling errors are taken as independent, which usually makes "
    "intervals of differences too wide"
)
_DRAWN = (
    "random vectors are of the same seed on all sides, and taken as independent in the differences of "
    "intervals"
)


@dataclass(frozen=True)
class Compared:
    """A comparison and the results it was made from: by side, by kind, in the order of training."""

    comparison: Comparison
    results: Mapping[str, Mapping[str, tuple[Result, ...]]]


def compare(
    *sources: Source,
    kind: str | Sequence[str] | None = None,
    measure: str | Sequence[str] | None = None,
    mixed: bool = False,
) -> Comparison:
    """Measures of stored runs side by side, and their differences from the first.

    Args:
        sources: result files, folders, ``FILE#RUN``, stored runs (of :func:`landscape.open`) or results:
            checkpoints, each a side of its own, or training runs, matched by step, epoch or the numbers in
            their names.
        kind: only these kinds of results.
        measure: only these measures, as ``lambda_max`` or ``eigen.lambda_max``; of training runs the main
            ones without.
        mixed: compare also what was not measured alike.

    Raises:
        InputError: fewer than two sides, nothing that all have, or sides that were not measured alike.
        StoreError: a source that cannot be read, or holds no such runs.
    """
    return compared(sources, kinds=_listed(kind), measures=_listed(measure), mixed=mixed).comparison


def _listed(names: str | Sequence[str] | None) -> list[str] | None:
    return None if names is None else [names] if isinstance(names, str) else list(names)


def compared(
    sources: Sequence[Source],
    *,
    kinds: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    mixed: bool = False,
) -> Compared:
    """The same, with the results themselves."""
    if unknown := [kind for kind in kinds or () if kind not in MEASURES]:
        raise InputError(
            f"there is no comparing runs of kind {printable(unknown[0])!r}",
            do=f"there are: {', '.join(MEASURES)}",
        )
    sides, training = sides_of(sources, kinds)
    picked = [pick(sides, kind) for kind in _common_kinds(sides)]
    for one in () if mixed else picked:
        refuse(one)
    over = _field(picked) if training else ""
    rows: list[Row] = []
    unmatched: Counter[str] = Counter()
    for one in picked:
        chosen = _chosen(one.kind, measures, training)
        rows += _over_time(one, chosen, over, sides, unmatched) if training else _single(one, chosen)
    rows = _once(rows)
    if not rows:
        wanted = ", ".join(map(printable, measures or ())) or "measures"
        raise InputError(f"no two of these have {wanted} to compare", do="landscape show lists what there is")
    notes = [text for one in picked for text in one.left_out]
    notes += [f"{name}: {counted_runs(count)} without a counterpart" for name, count in unmatched.items()]
    notes += [_SAME] * any(one.same_data for one in picked)
    notes += [_DRAWN] * (any(one.same_seed for one in picked) and any(map(_is_random, rows)))
    differing = [f"{one.kind}: {text}" for one in picked for text in one.differing]
    columns = [_column(side.name, i, picked, over) for i, side in enumerate(sides)]
    comparison = Comparison(tuple(columns), tuple(rows), over, tuple(differing), tuple(notes))
    return Compared(comparison, _results(sides, picked, over))


def _once(rows: Sequence[Row]) -> list[Row]:
    """Loss, accuracy and gradient of each time once: of the kind that knows their errors, else the first."""
    chosen: dict[tuple[str, int | None], Row] = {}
    for row in (row for row in rows if row.measure in COMMON):
        there = chosen.setdefault((row.measure, row.at), row)
        if _known(row) > _known(there):
            chosen[row.measure, row.at] = row
    return [row for row in rows if row.measure not in COMMON or chosen[row.measure, row.at] is row]


def _known(row: Row) -> int:
    return sum(d is not None and d.standard_error is not None for d in row.differences)


def _is_random(row: Row) -> bool:
    return any(reading is not None and reading.random for reading in row.readings)


def _common_kinds(sides: Sequence[Side]) -> list[str]:
    """The kinds that all sides have, in the order of the measures."""
    there = [{run.result.kind for run in side.runs} for side in sides]
    common = [kind for kind in MEASURES if all(kind in kinds for kinds in there)]
    if not common:
        shown = [f"{printable(s.name)}: {', '.join(sorted(k))}" for s, k in zip(sides, there, strict=True)]
        raise InputError(
            "there is no kind of result that all sides have",
            found="; ".join(shown[:4]),
            do="measure the same on each: landscape batch",
        )
    return common


def _chosen(kind: str, names: Sequence[str] | None, training: bool) -> list[Measure]:
    known = measures_of(kind)
    if names is None:
        return [m for m in known if m.main] if training else list(known)
    return [m for m in known if m.name in names or f"{kind}.{m.name}" in names]


def _single(picked: Picked, measures: Sequence[Measure]) -> list[Row]:
    """A row for each measure that two sides have; classes of ratios only where there is something in them."""
    results = [runs[0].result for runs in picked.runs]
    rows = [_row(picked.kind, measure, results, None) for measure in measures]
    return [row for row in rows if row is not None and not _empty(row)]


def _empty(row: Row) -> bool:
    """A class of parameters that is empty everywhere."""
    shares = row.kind == "ratios" and row.label.startswith(f"{row.measure} (")
    return shares and all(reading is None or reading.value == 0 for reading in row.readings)


def _over_time(
    picked: Picked, measures: Sequence[Measure], field: str, sides: Sequence[Side], unmatched: Counter[str]
) -> list[Row]:
    """A row for each measure and time that the first and another side have."""
    by_time = [{when(run, field): run.result for run in runs} for runs in picked.runs]
    times = sorted(time for time in by_time[0] if time is not None and any(time in o for o in by_time[1:]))
    for side, runs, there in zip(sides, picked.runs, by_time, strict=True):
        # Of several checkpoints of one time the last is taken; those of no known time are none of these.
        if missing := len(runs) - len(there.keys() & set(times)):
            unmatched[side.name] += missing
    rows = [
        _row(picked.kind, measure, [there.get(time) for there in by_time], time)
        for measure in measures
        for time in times
    ]
    return [row for row in rows if row is not None]


def _row(kind: str, measure: Measure, results: Sequence[Result | None], at: int | None) -> Row | None:
    """The measure of all sides; None where no two can be compared."""
    readings = [None if result is None else measure.read(result) for result in results]
    first = readings[0]
    differences = [None if first is None or r is None else difference(first, r) for r in readings[1:]]
    if all(one is None for one in differences):
        return None
    some = next(result for result in results if result is not None)
    return Row(
        kind, measure.name, measure.label, measure.unit_of(some), at, tuple(readings), tuple(differences)
    )


def difference(reference: Reading, other: Reading) -> Difference:
    """``other`` − ``reference`` with its errors, and the one by the other."""
    both = (reference, other)
    errors = [reading.error for reading in both]
    known = [error for error in errors if error is not None]
    bound: float | None = None
    spread: float | None = None
    if len(known) == 2:
        bound = math.fsum(e for e, reading in zip(known, both, strict=True) if not reading.random)
        spread = math.hypot(*(e for e, reading in zip(known, both, strict=True) if reading.random))
    deviations = [reading.standard_error for reading in both]
    found = [deviation for deviation in deviations if deviation is not None]
    standard_error = math.hypot(*found) if len(found) == 2 else None
    ratio = _ratio(reference, other)
    return Difference(other.value - reference.value, bound, spread, standard_error, *ratio)


def _ratio(reference: Reading, other: Reading) -> tuple[float | None, float | None, float | None]:
    """The ratio, what it may be off by for these data, and its standard error; None where not known."""
    base = reference.value
    reach = NORMAL * (reference.standard_error or 0.0)
    if abs(base) <= (reference.error or 0.0) + reach:
        return None, None, None
    ratio = other.value / base
    error = None
    if reference.error is not None and other.error is not None:
        error = (other.error + abs(ratio) * reference.error) / (abs(base) - reference.error)
    deviation = None
    if reference.standard_error is not None and other.standard_error is not None:
        deviation = math.hypot(other.standard_error, ratio * reference.standard_error) / abs(base)
    return ratio, error, deviation


def _field(picked: Sequence[Picked]) -> str:
    """The time that matches most checkpoints of the first side with others: step, else epoch, else number."""
    matches: Counter[str] = Counter()
    for field in FIELDS:
        for one in picked:
            times = [{when(run, field) for run in runs} - {None} for runs in one.runs]
            matches[field] += sum(len(times[0] & other) for other in times[1:])
    field, most = max(matches.items(), key=lambda item: item[1], default=("", 0))
    if not most:
        raise InputError(
            "no checkpoint of the first training run has a counterpart in another",
            found="no step, epoch or number in the name that two have in common",
            do="measure checkpoints saved at the same steps, or compare single ones: FILE#RUN",
        )
    return field


def _column(name: str, i: int, picked: Sequence[Picked], over: str) -> Column:
    runs = [_reference(run, when(run, over) if over else None) for one in picked for run in one.runs[i]]
    return Column(name, tuple(sorted(runs, key=lambda run: (run.kind, run.at or 0))))


def _reference(run: Run, at: int | None) -> RunReference:
    reference = run.provenance.checkpoint
    name = "" if reference is None else PurePath(reference.path.replace("\\", "/")).name
    return RunReference(run.result.kind, run.provenance.id, str(run.file), name, run.result.status, at)


def _results(
    sides: Sequence[Side], picked: Sequence[Picked], over: str
) -> dict[str, dict[str, tuple[Result, ...]]]:
    """The results by side and kind, in the order of time."""

    def ordered(runs: Sequence[Run]) -> tuple[Result, ...]:
        timed = sorted(runs, key=lambda run: when(run, over) or 0) if over else runs
        return tuple(run.result for run in timed)

    return {side.name: {one.kind: ordered(one.runs[i]) for one in picked} for i, side in enumerate(sides)}
