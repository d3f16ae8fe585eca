"""The head of the page: what was measured on what, what needs attention, and a table of all checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from landscape.reports.contents import Checkpoint, Contents, Entry
from landscape.reports.markup import Html, join, tag
from landscape.reports.tables import reading_cell
from landscape.reports.words import guide
from landscape.results import Result
from landscape.results.measures import Measure, Reading, measures_of

__all__ = ["attention", "facts", "head_line", "summary"]

#: Values of a fact that are listed, and runs in a list of what needs attention.
_LISTED, _ATTENTION = 4, 12
#: Measures of fewer checkpoints than this share of them have no column in the table.
_SHARE = 0.25
#: Measures of all kinds, which come first.
_COMMON = ("loss", "accuracy")


def counted(count: int, one: str, many: str = "") -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def head_line(contents: Contents) -> str:
    """How much of what, and when the latest of it was measured."""
    entries = contents.entries
    latest = max(entry.stored.header.started for entry in entries)
    parts = [
        counted(len(entries), "run"),
        counted(len(contents.saved), "checkpoint"),
        counted(len(contents.trainings), "training run"),
        f"the latest of {latest[:16].replace('T', ' ')} UTC" if latest.endswith("+00:00") else latest,
    ]
    return " · ".join(parts)


def facts(contents: Contents) -> Html:
    """What was measured on what: every value that occurs, and how often where there are several."""
    entries = contents.entries
    rows = [
        ("Kinds", _several([guide().of(entry.result.kind).title for entry in entries], len(entries))),
        ("Training runs", ", ".join(filter(None, contents.trainings))),
        *((title, _several([_problem(entry, key) for entry in entries])) for title, key in _PROBLEM),
        ("Examples", _several([_number(entry.result, "examples") for entry in entries])),
        ("Parameters", _several([_number(entry.result, "parameters") for entry in entries])),
        ("Computed", _several([f"{e.provenance.dtype} on {e.provenance.device}" for e in entries])),
        ("Versions", _several([_versions(entry) for entry in entries])),
    ]
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows if value]
    return tag("dl", *pairs, class_="facts")


_PROBLEM = (("Model", "model"), ("Data", "data"), ("Loss", "loss"), ("Mode", "mode"))


def _problem(entry: Entry, key: str) -> str:
    return str(entry.provenance.problem.get(key) or "")


def _number(result: Result, name: str) -> str:
    value: Any = getattr(result, name, None)
    return f"{value:,}" if isinstance(value, int) else ""


def _versions(entry: Entry) -> str:
    return ", ".join(f"{name} {version}" for name, version in entry.provenance.versions.items())


def _several(values: Sequence[str], most: int = _LISTED) -> str:
    """Each value once, with its count where there are several; those that are not known are left out."""
    counts = {value: values.count(value) for value in dict.fromkeys(values) if value}
    if len(counts) < 2:
        return next(iter(counts), "")
    shown = [f"{value} ({count})" for value, count in list(counts.items())[:most]]
    return "; ".join(shown) + (f"; {len(counts) - most} others" if len(counts) > most else "")


def attention(contents: Contents) -> Html:
    """What is not as it should be: runs that are not complete, files that cannot be read."""
    parts = []
    for status in dict.fromkeys(entry.result.status for entry in contents.entries):
        entries = [entry for entry in contents.entries if entry.result.status == status]
        if status != "complete":
            parts += _of_status(status, entries)
    if contents.unreadable:
        parts += [
            tag("p", "Could not be read, and not on this page:"),
            tag("ul", *(tag("li", text) for text in contents.unreadable)),
        ]
    return tag("section", tag("h2", "Look at this first"), *parts, class_="attention") if parts else Html()


def _of_status(status: str, entries: Sequence[Entry]) -> list[Html]:
    """What the status means, and the runs that have it."""
    name = tag("b", f"{counted(len(entries), 'run')} {status.replace('_', ' ')}", class_="status")
    items = [
        tag("li", tag("a", f"{e.result.kind} {e.stored.checkpoint}", href=f"#{e.anchor}"))
        for e in entries[:_ATTENTION]
    ]
    if len(entries) > _ATTENTION:
        items.append(tag("li", f"and {len(entries) - _ATTENTION} others: filter the runs by this word"))
    return [tag("p", name, ". ", guide().statuses.get(status, "")), tag("ul", *items)]


def summary(contents: Contents) -> Html:
    """A row for each checkpoint, a column for each main measure, to be sorted and filtered."""
    columns = list(_columns(contents))
    several = len(contents.trainings) > 1
    groups = [tag("th", "Checkpoint", scope="colgroup", colspan=2 + several)]
    for title, count in _groups([title for title, _, _ in columns]):
        groups.append(tag("th", title, scope="colgroup", colspan=count))
    names = ["file", *["training run"] * several, "saved at"]
    sortable = [_sorter(name) for name in names]
    sortable += [_sorter(measure.label, measure.text) for _, measure, _ in columns]
    rows = [_row(checkpoint, place, columns, several) for place, checkpoint in enumerate(contents.saved)]
    head = tag("thead", tag("tr", *groups, class_="groups"), tag("tr", *sortable))
    table = tag("table", head, tag("tbody", *rows), id="summary")
    return tag("div", table, class_="scroll", tabindex="0", role="group", aria_label="All checkpoints")


_Column = tuple[str, Measure, dict[str, tuple[Entry, Reading]]]


def _columns(contents: Contents) -> Iterator[_Column]:
    """(heading, measure, checkpoint → run and reading): of most checkpoints first, none of only a few."""
    entries = {id(entry.result): (c.anchor, entry) for c in contents.checkpoints for entry in c.entries}
    chosen = {
        kind: [entries[id(result)] for result in series.results] for kind, series in contents.series.items()
    }
    everything = [pair for pairs in chosen.values() for pair in pairs]
    for name in _COMMON:
        measure = next(m for m in measures_of("") if m.name == name)
        if found := _readings(measure, everything):
            yield "Model", measure, found
    least = len(contents.saved) * _SHARE
    for kind, pairs in sorted(chosen.items(), key=lambda item: -len(item[1])):
        for measure in measures_of(kind):
            found = _readings(measure, pairs) if measure.main else {}
            if found and len(found) >= least:
                yield guide().of(kind).title, measure, found


def _readings(measure: Measure, pairs: Sequence[tuple[str, Entry]]) -> dict[str, tuple[Entry, Reading]]:
    """What the first run of each checkpoint that has the measure says of it."""
    found: dict[str, tuple[Entry, Reading]] = {}
    for anchor, entry in pairs:
        reading = measure.read(entry.result)
        if anchor not in found and reading is not None and math.isfinite(reading.value):
            found[anchor] = entry, reading
    return found


def _groups(titles: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The headings, each with the number of columns below it."""
    for title in dict.fromkeys(titles):
        yield title, list(titles).count(title)


def _sorter(name: str, text: str | None = None) -> Html:
    mark = tag("span", aria_hidden="true", class_="arrow")
    return tag("th", tag("button", name, mark, type="button", title=text), scope="col", aria_sort="none")


def _row(checkpoint: Checkpoint, place: int, columns: Sequence[_Column], several: bool) -> Html:
    name = tag("a", checkpoint.name, href=f"#{checkpoint.anchor}")
    when = checkpoint.step if checkpoint.step is not None else checkpoint.epoch
    cells = [tag("th", name, scope="row", data_v=place)]
    cells += [tag("td", checkpoint.training)] * several
    cells += [tag("td", checkpoint.at, data_v=when)]
    for _, _, held in columns:
        if checkpoint.anchor not in held:
            cells.append(tag("td", "–", class_="none"))
            continue
        entry, reading = held[checkpoint.anchor]
        mark = tag("b", entry.result.status.replace("_", " "), class_="status")
        shown = join([reading_cell(reading), mark if entry.result.status != "complete" else ""])
        link = tag("a", shown, href=f"#{entry.anchor}")
        cells.append(tag("td", link, data_v=repr(reading.value), class_="num"))
    words = " ".join(f"{entry.result.kind} {entry.result.status}" for entry in checkpoint.entries)
    return tag("tr", *cells, data_words=f"{checkpoint.name} {checkpoint.at} {words}".lower())
