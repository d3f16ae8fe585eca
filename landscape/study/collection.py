"""Stored runs of a file or of a folder, as one collection: filtered, in training order, as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, overload

from landscape.errors import InputError, StoreError
from landscape.files import natural_order, printable, saved_at, training_name
from landscape.results import jsonable
from landscape.store import Header, ResultFile, holds_vectors
from landscape.store.hdf import attributes, group_at, groups, opened

if TYPE_CHECKING:
    import pandas
    import xarray

    from landscape.results import Result

__all__ = ["Runs", "Stored", "open_runs"]

#: Attributes of a stored run that say what was asked: as they are, and as JSON objects of names and values.
_PLAIN, _OBJECTS = ("device", "dtype", "seed", "data_fingerprint"), ("problem", "settings")


@dataclass(frozen=True)
class Stored:
    """A run in a file: what a list shows of it; :meth:`read` gives its result."""

    file: Path
    header: Header

    @property
    def checkpoint(self) -> str:
        """The checkpoint's file name without its folders; empty for a run that is made from stored runs."""
        path = self.header.checkpoint_path
        return "" if path is None else path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]

    @property
    def training(self) -> str:
        """The training run: the checkpoint's name without numbers and ending; empty without a checkpoint."""
        return training_name(PurePosixPath(self.checkpoint).stem)

    def read(self) -> Result:
        """The whole result, with its provenance."""
        return ResultFile(self.file).read(self.header)


@dataclass(frozen=True, repr=False)
class Runs(Sequence[Stored]):
    """Stored runs by training run, each in training order, then the oldest first.

    Training order is by step; where not all of a training run's checkpoints have one, by epoch, else by the
    number in their names, else by name. Arrays are read when asked for. ``a + b`` holds the runs of both.

    Attributes:
        entries: the runs.
        unreadable: files that could not be read, and why, in words.
    """

    entries: tuple[Stored, ...]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Stored: ...

    @overload
    def __getitem__(self, index: slice) -> Runs: ...

    def __getitem__(self, index: int | slice) -> Stored | Runs:
        if isinstance(index, slice):
            return Runs(self.entries[index], self.unreadable)
        return self.entries[index]

    def __add__(self, other: Runs) -> Runs:
        both = {(entry.file.absolute(), entry.header.id): entry for entry in (*self.entries, *other.entries)}
        return Runs(_ordered(both.values()), tuple(dict.fromkeys((*self.unreadable, *other.unreadable))))

    def __repr__(self) -> str:
        """How many of what; a notebook shows a table instead."""
        counts = [f"{sum(e.header.kind == kind for e in self)} {kind}" for kind in self.kinds]
        checkpoints = len({_content(entry) for entry in self if entry.checkpoint})
        parts = [", ".join(counts) or "no runs"] + [f"checkpoints: {checkpoints}"] * bool(checkpoints)
        if self.steps:
            parts.append(f"steps {self.steps[0]} to {self.steps[-1]}")
        parts += [f"files that cannot be read: {len(self.unreadable)}"] * bool(self.unreadable)
        return f"<Runs: {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        from landscape.study.tables import runs_html

        return runs_html(self)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the runs, each once."""
        return tuple(dict.fromkeys(entry.header.kind for entry in self))

    @property
    def steps(self) -> tuple[int, ...]:
        """The training steps that are known, each once, ascending."""
        return tuple(sorted({s for entry in self if (s := entry.header.checkpoint_step) is not None}))

    def runs(self) -> tuple[Header, ...]:
        """What a list shows of each run; reads no arrays."""
        return tuple(entry.header for entry in self)

    def read(self, run: str | Header | Stored) -> Result:
        """The result of one run, with its provenance; the start of an id is enough if it is the only such.

        Raises:
            StoreError: no such run, several, or one that cannot be read.
        """
        return (run if isinstance(run, Stored) else self.find(run)).read()

    def find(self, run: str | Header) -> Stored:
        """The run of this id, or the only one whose id begins so.

        Raises:
            StoreError: no such run, or several.
        """
        if isinstance(run, Header):
            return _only([entry for entry in self if entry.header == run], run.id, self)
        found = [entry for entry in self if entry.header.id == run]
        return _only(found or [entry for entry in self if run and entry.header.id.startswith(run)], run, self)

    def results(self) -> Iterator[Result]:
        """The results, read one by one."""
        return (entry.read() for entry in self.entries)

    def where(
        self,
        *,
        kind: str | Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        checkpoint: str | None = None,
        training: str | None = None,
        step: int | tuple[int | None, int | None] | None = None,
        epoch: int | tuple[int | None, int | None] | None = None,
        id: str | None = None,
        **settings: Any,
    ) -> Runs:
        """The runs of which all of this is true.

        Args:
            kind: one kind, or several.
            status: one status, or several.
            checkpoint: a pattern (``*``, ``?``, ``[…]``) of the checkpoint's file name.
            training: a pattern of the training run's name: the checkpoint's without numbers and ending.
            step: of the checkpoint: a number, or the first and the last (None: no end).
            epoch: likewise.
            id: what the run's id begins with.
            settings: values asked for, by the names of the settings (``rho=0.05``), of the problem
                (``samples=512``), or ``device``, ``dtype``, ``seed``, ``data_fingerprint``.

        Raises:
            InputError: a name that none of these runs knows, or a step that is no number.
        """
        tests: list[Callable[[Stored], bool]] = []
        if kind is not None:
            tests.append(lambda e: e.header.kind in _names(kind))
        if status is not None:
            tests.append(lambda e: e.header.status in _names(status))
        if checkpoint is not None:
            tests.append(lambda e: fnmatchcase(e.checkpoint, checkpoint))
        if training is not None:
            tests.append(lambda e: bool(e.checkpoint) and fnmatchcase(e.training, training))
        if step is not None:
            steps = _between("step", step)
            tests.append(lambda e: steps(e.header.checkpoint_step))
        if epoch is not None:
            epochs = _between("epoch", epoch)
            tests.append(lambda e: epochs(e.header.checkpoint_epoch))
        if id is not None:
            tests.append(lambda e: e.header.id.startswith(id))
        found = tuple(entry for entry in self if all(test(entry) for test in tests))
        return Runs(_asked_for(found, settings) if settings else found, self.unreadable)

    def latest(self) -> Runs:
        """Of runs that ask the same of the same checkpoint the latest.

        The same: kind, settings, problem, data and dtype; not the seed.
        """
        asked = _asked(self.entries)
        latest: dict[str, Stored] = {}
        for entry in sorted(self, key=lambda e: e.header.started):
            question = {k: v for k, v in asked[entry].items() if k not in ("device", "seed")}
            key = [entry.header.kind, _content(entry), question]
            latest[json.dumps(key, sort_keys=True)] = entry
        chosen = set(latest.values())
        return Runs(tuple(entry for entry in self if entry in chosen), self.unreadable)

    def pandas(self, quantity: str | None = None) -> pandas.DataFrame:
        """The runs as a tidy table: a row for each run and measure, or for each element of one ``quantity``.

        Of measures: ``run, kind, checkpoint, training, step, epoch, status, measure, value, error,
        error_meaning, standard_error, unit``. Of a quantity, such as ``"eigenvalues"``: the same of the run,
        a column for each of its dimensions, ``value``, its errors (``low`` and ``high``, ``error`` or
        ``standard_error``, and ``error_meaning``), ``computed`` and ``unit``. What was not computed is NaN or
        <NA> and ``computed`` is False there; a number that came out as NaN has ``computed`` True.

        Raises:
            InputError: pandas is not installed, or no run has such a quantity.
            StoreError: a run cannot be read.
        """
        from landscape.study.tables import data_frame, measures_table, quantity_table

        return data_frame(measures_table(self) if quantity is None else quantity_table(self, quantity))

    def xarray(self, kind: str | None = None) -> xarray.Dataset:
        """The runs of one ``kind`` as a Dataset along the dimension ``checkpoint``, in training order.

        Its coordinates are the checkpoints' names, ``run``, ``training``, ``step`` and ``epoch``. Every
        quantity is a variable with its own dimensions besides; arrays of unequal length are padded. What is
        padding or was not computed is NaN (whole numbers and booleans become floats then, text is empty), and
        True in ``<name>_not_computed``.

        Raises:
            InputError: xarray is not installed, or there are no runs of that kind, or without one of several.
            StoreError: a run cannot be read.
        """
        from landscape.study.datasets import stacked

        return stacked(self, kind)


def open_runs(path: str | Path) -> Runs:
    """The runs in a result file, or in all result files of a folder.

    In a folder, files of vectors are passed over, and files that cannot be read are listed as such.

    Raises:
        StoreError: there is nothing at ``path``, or the one file that it names cannot be read.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if not path.exists():
            raise StoreError(
                f"there are no results at {printable(path)}", do="landscape eigen CHECKPOINT makes some"
            )
        return Runs(_ordered(Stored(path, header) for header in ResultFile(path).runs()))
    entries: list[Stored] = []
    unreadable: list[str] = []
    for file in sorted(path.glob("*.h5"), key=natural_order):
        try:
            if not holds_vectors(file):
                entries += [Stored(file, header) for header in ResultFile(file).runs()]
        except StoreError as error:
            unreadable.append(f"{printable(file)}: {error.what}")
    return Runs(_ordered(entries), tuple(unreadable))


def _ordered(entries: Iterable[Stored]) -> tuple[Stored, ...]:
    """The runs by training run, each in training order; those without a checkpoint last."""
    trainings: dict[tuple[bool, str], list[Stored]] = {}
    for entry in entries:
        trainings.setdefault((not entry.checkpoint, entry.training), []).append(entry)
    ordered: list[Stored] = []
    for _, together in sorted(
        trainings.items(), key=lambda item: (item[0][0], natural_order(Path(item[0][1])))
    ):
        time = _time(together)

        def place(entry: Stored, time: Callable[[Stored], int | None] = time) -> tuple[Any, ...]:
            names = natural_order(Path(entry.checkpoint)), natural_order(entry.file)
            return (time(entry) or 0, *names, entry.header.started, entry.header.id)

        ordered += sorted(together, key=place)
    return tuple(ordered)


def _time(entries: Sequence[Stored]) -> Callable[[Stored], int | None]:
    """What orders the runs of one training run: the first of step, epoch and number that all have."""
    for field in ("step", "epoch", "number"):

        def clock(entry: Stored, field: str = field) -> int | None:
            header, stem = entry.header, PurePosixPath(entry.checkpoint).stem
            return saved_at(field, stem, header.checkpoint_step, header.checkpoint_epoch)

        if all(clock(entry) is not None for entry in entries):
            return clock
    return lambda _: None


def _content(entry: Stored) -> str:
    """What tells checkpoints apart; runs without one are told apart by where they lie."""
    return entry.header.checkpoint_sha256 or entry.header.checkpoint_path or str(entry.file.absolute())


def _asked(entries: Sequence[Stored]) -> Mapping[Stored, Mapping[str, Any]]:
    """What was asked of each run: settings, problem and the like by name; every file is opened once."""
    found: dict[tuple[Path, str], dict[str, Any]] = {}
    for path in dict.fromkeys(entry.file for entry in entries):
        with opened(path) as file:
            runs = group_at(file, "runs")
            for name in groups(runs):
                stored = attributes(group_at(runs, name))
                asked: dict[str, Any] = {key: stored[key] for key in _PLAIN if key in stored}
                for key in _OBJECTS:  # the analysis's own settings win
                    asked |= json.loads(str(stored.get(key, "{}")))
                found[path, name] = asked
    return {entry: found.get((entry.file, entry.header.id), {}) for entry in entries}


def _asked_for(entries: tuple[Stored, ...], wanted: Mapping[str, Any]) -> tuple[Stored, ...]:
    """Those of the runs that were asked for exactly this."""
    asked = _asked(entries)
    known = {name for one in asked.values() for name in one}
    if entries and (unknown := [name for name in wanted if name not in known]):
        raise InputError(
            f"no run here has a setting {unknown[0]!r}", do=f"they have {', '.join(sorted(known))}"
        )
    plain = {name: jsonable(value) for name, value in wanted.items()}
    return tuple(e for e in entries if all(k in asked[e] and asked[e][k] == v for k, v in plain.items()))


def _names(given: str | Collection[str]) -> Collection[str]:
    return (given,) if isinstance(given, str) else given


def _between(name: str, given: Any) -> Callable[[int | None], bool]:
    """Whether a number is the given one, or lies between the two given ones."""
    ends = given if isinstance(given, tuple | list) else (given, given)
    if len(ends) != 2 or not all(end is None or isinstance(end, int | float) for end in ends):
        raise InputError(f"{name} is a number, or the first and the last one", found=repr(given))
    low, high = ends
    return lambda n: n is not None and (low is None or low <= n) and (high is None or n <= high)


def _only(found: Sequence[Stored], name: str, among: Sequence[Stored]) -> Stored:
    if len(found) == 1:
        return found[0]
    listed = [f"{printable(e.header.id)} in {printable(e.file)}" for e in (found or among)[:4]]
    there = ", ".join(listed) + (", …" if len(found or among) > 4 else "")
    if found:
        raise StoreError(
            f"{len(found)} runs are called {printable(name)}", found=there, do="give more of the id"
        )
    raise StoreError(f"there is no run {printable(name)}", found=there or "no runs", do=".runs() lists them")
