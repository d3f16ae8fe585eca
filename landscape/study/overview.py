"""A folder of results at a glance: a row for each checkpoint, its main measures in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from landscape.errors import StoreError
from landscape.files import short_names
from landscape.results.measures import MEASURES, Measure, Reading, measures_of
from landscape.study.collection import Runs, Stored
from landscape.study.series import Run, comparable

__all__ = ["Cell", "Column", "Line", "Overview", "overview"]


@dataclass(frozen=True)
class Column:
    """A measure of one kind of runs."""

    kind: str
    measure: Measure


@dataclass(frozen=True)
class Cell:
    """What a run says of a measure, and how the run ended."""

    reading: Reading
    status: str


@dataclass(frozen=True)
class Line:
    """A checkpoint and its cells, one for each column; None where nothing was measured."""

    checkpoint: str
    training: str
    step: int | None
    epoch: int | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Overview:
    """The table, in training order; and in words what is not in it."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]


def overview(runs: Runs) -> Overview:
    """The main measures of every checkpoint, of each kind the runs that ask the same of most checkpoints.

    Runs that cannot be read, and those that are made from other runs, are left out, which is said.
    """
    left_out: list[str] = []
    columns: list[Column] = []
    cells: dict[tuple[str, Column], Cell] = {}
    lines: dict[str, Stored] = {}
    for kind in sorted(runs.kinds, key=_rank):
        entries = [entry for entry in runs.where(kind=kind) if entry.checkpoint]
        main = [Column(kind, measure) for measure in measures_of(kind) if measure.main]
        if not entries or not main:
            left_out.append(f"{kind}: no measures of single checkpoints")
            continue
        series = comparable(_read(entries, left_out))
        left_out += [f"{kind}: {text}" for text in series.left_out]
        for run in series.runs:
            for column in main:
                if (reading := column.measure.read(run.result)) is not None:
                    cells[run.checkpoint, column] = Cell(reading, run.result.status)
        columns += [column for column in main if any(key[1] == column for key in cells)]
        lines |= {entry.header.checkpoint_sha256 or "": entry for entry in entries}
    measured = {checkpoint for checkpoint, _ in cells}
    shown = [(sha, lines[sha]) for sha in _in_order(runs, lines) if sha in measured]
    names = short_names([entry.header.checkpoint_path or "" for _, entry in shown])
    return Overview(
        tuple(columns),
        tuple(
            Line(
                name, entry.training, entry.header.checkpoint_step, entry.header.checkpoint_epoch,
                tuple(cells.get((sha, column)) for column in columns),
            )
            for name, (sha, entry) in zip(names, shown, strict=True)
        ),
        tuple(left_out),
    )  # fmt: skip


def _rank(kind: str) -> int:
    """Kinds in the order of their list of measures, others after them."""
    return list(MEASURES).index(kind) if kind in MEASURES else len(MEASURES)


def _read(entries: Sequence[Stored], left_out: list[str]) -> list[Run]:
    """The runs that can be read; of the others it is said why they cannot."""
    found = []
    for entry in entries:
        try:
            found.append(Run(entry.file, entry.read()))
        except StoreError as error:
            left_out.append(error.what)
    return found


def _in_order(runs: Runs, among: dict[str, Stored]) -> list[str]:
    """The checkpoints by content, in the order of the runs."""
    contents = dict.fromkeys(entry.header.checkpoint_sha256 or "" for entry in runs)
    return [sha for sha in contents if sha in among]
