"""What a page is about: the runs that could be read, by checkpoint, and the comparable ones of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from landscape.errors import InputError, StoreError
from landscape.files import printable, short_names
from landscape.results import Provenance, Result
from landscape.study import Run, Runs, Series, Stored, comparable

__all__ = ["Checkpoint", "Contents", "Entry", "gathered"]


@dataclass(frozen=True)
class Entry:
    """A stored run with its result; ``anchor`` is its place on the page."""

    stored: Stored
    result: Result
    anchor: str

    @property
    def provenance(self) -> Provenance:
        """How it was made."""
        assert self.result.provenance is not None  # what is stored has it
        return self.result.provenance


@dataclass(frozen=True)
class Checkpoint:
    """The runs on one saved model, told from others by content; or those that are not of a single one.

    Attributes:
        name: the file, with as many folders as tell it from the others.
        training: the training run that it belongs to; empty where the name is nothing but a number.
        sha256: of its content; None where it is not known.
        saved: whether it is one; not so the place of all other runs.
    """

    name: str
    training: str
    step: int | None
    epoch: int | None
    sha256: str | None
    entries: tuple[Entry, ...]
    anchor: str
    saved: bool

    @property
    def at(self) -> str:
        """When it was saved, in words."""
        times = (("step", self.step), ("epoch", self.epoch))
        return ", ".join(f"{name} {number:,}" for name, number in times if number is not None)


@dataclass(frozen=True)
class Contents:
    """All that is reported.

    Attributes:
        checkpoints: in training order.
        series: kind → its comparable runs, at most one of each checkpoint, in training order.
        unreadable: what could not be read, and why.
    """

    checkpoints: tuple[Checkpoint, ...]
    series: Mapping[str, Series]
    unreadable: tuple[str, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All runs, in the order of the page."""
        return tuple(entry for checkpoint in self.checkpoints for entry in checkpoint.entries)

    @property
    def saved(self) -> tuple[Checkpoint, ...]:
        """The saved models."""
        return tuple(checkpoint for checkpoint in self.checkpoints if checkpoint.saved)

    @property
    def trainings(self) -> tuple[str, ...]:
        """The training runs, each once."""
        return tuple(dict.fromkeys(checkpoint.training for checkpoint in self.saved))

    @property
    def last(self) -> frozenset[str]:
        """The places of the last checkpoint of each training run, and of what is of none."""
        ends = {checkpoint.training: checkpoint.anchor for checkpoint in self.saved}
        return frozenset(ends.values()) | {c.anchor for c in self.checkpoints if not c.saved}


def gathered(runs: Runs) -> Contents:
    """Read all runs; one that cannot be read is listed as such.

    Raises:
        InputError: none of them can be read, or there are none.
    """
    found: dict[str, list[tuple[Stored, Result]]] = {}
    unreadable = list(runs.unreadable)
    for stored in runs:
        try:
            result = stored.read()
        except StoreError as error:
            unreadable.append(f"run {stored.header.id} in {printable(stored.file)}: {error.what}")
        else:
            found.setdefault(_content(stored), []).append((stored, result))
    if not found:
        raise InputError(
            "there are no runs to report on",
            found="; ".join(unreadable[:2]),
            do="landscape eigen CHECKPOINT makes one, landscape show lists what there is",
        )
    checkpoints = _checkpoints(list(found.values()))
    entries = [entry for checkpoint in checkpoints for entry in checkpoint.entries]
    kinds = dict.fromkeys(entry.result.kind for entry in entries)
    series = {
        kind: comparable([Run(e.stored.file, e.result) for e in entries if e.result.kind == kind])
        for kind in sorted(kinds, key=_place)
    }
    return Contents(checkpoints, series, tuple(unreadable))


#: The kinds in the order of the page; others follow.
_ORDER = (
    "eigen",
    "trace",
    "density",
    "ratios",
    "overlap",
    "sharpness",
    "reweight",
    "noise",
    "slice",
    "monitor",
)


def _place(kind: str) -> tuple[int, str]:
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER)), kind


def _content(stored: Stored) -> str:
    """What tells checkpoints apart; all runs without one belong together."""
    return stored.header.checkpoint_sha256 or stored.header.checkpoint_path or ""


def _checkpoints(found: list[list[tuple[Stored, Result]]]) -> tuple[Checkpoint, ...]:
    names = iter(short_names([path for same in found if (path := same[0][0].header.checkpoint_path)]))
    numbers = iter(range(1, 1 + sum(map(len, found))))
    checkpoints = []
    for place, same in enumerate(found, start=1):
        first = same[0][0]
        entries = [
            Entry(stored, result, f"run-{next(numbers)}")
            for stored, result in sorted(
                same, key=lambda pair: (_place(pair[1].kind), pair[0].header.started)
            )
        ]
        checkpoints.append(
            Checkpoint(
                next(names) if first.header.checkpoint_path else "Not of one checkpoint",
                first.training,
                first.header.checkpoint_step,
                first.header.checkpoint_epoch,
                first.header.checkpoint_sha256,
                tuple(entries),
                f"checkpoint-{place}",
                first.header.checkpoint_path is not None,
            )
        )
    return tuple(checkpoints)
