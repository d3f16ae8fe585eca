"""What is to be compared: checkpoints or training runs, from files, folders or stored runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, TypeVar

from landscape.errors import InputError, StoreError
from landscape.files import natural_order, printable, saved_at, short_names, training_name
from landscape.results import Result
from landscape.results.measures import MEASURES
from landscape.store import holds_vectors
from landscape.study.collection import Runs, Stored, open_runs
from landscape.study.series import Run, counted_runs

__all__ = [
    "FIELDS",
    "Picked",
    "Side",
    "Source",
    "pick",
    "refuse",
    "sides_of",
    "time_of",
    "trainings_of",
    "when",
]

#: What tells the time of a checkpoint, the best first.
FIELDS = ("step", "epoch", "number")

#: A result file or folder, with ``#RUN`` for the runs whose ids begin so; a pattern; stored runs; a result.
Source = str | Path | Runs | Stored | Result

#: Settings that change how precise figures are, which their errors say, and not what they are of.
_PRECISION = (
    "atol", "batches", "check", "compare", "diagonal", "draws", "expansion", "jobs", "max_directions",
    "max_products", "reuse", "standard_errors", "tol", "verify",
)  # fmt: skip
#: Entries of a question that are named when they differ, and do not keep runs from being compared.
_NAMED = ("dtype", "k", "method", "model", "probes", "which")


@dataclass(frozen=True)
class Side:
    """One side: its name and its runs of all kinds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def checkpoints(self) -> set[str]:
        return {run.checkpoint for run in self.runs}


@dataclass(frozen=True)
class Picked:
    """The runs of one kind that are compared, side by side, and what was said about the choice.

    Attributes:
        runs: (side,) runs, of each checkpoint one.
        differing: in what the question to the sides differs, in words.
        left_out: in words.
        same_data: whether all are of the same examples.
        same_seed: whether all random choices were of the same seed.
    """

    kind: str
    runs: tuple[tuple[Run, ...], ...]
    differing: tuple[str, ...]
    left_out: tuple[str, ...]
    same_data: bool
    same_seed: bool


def sides_of(sources: Sequence[Source], kinds: Sequence[str] | None = None) -> tuple[tuple[Side, ...], bool]:
    """The sides that are named, and whether they are training runs and not single checkpoints.

    A source of several checkpoints is a training run, or as many as its checkpoints' names tell apart. Single
    checkpoints are sides of their own, unless their names say that they are of several training runs, two or
    more of each.

    Raises:
        InputError: fewer than two sides.
        StoreError: a source that there is not, cannot be read, or holds no such runs.
    """
    groups = [_group(source, kinds) for source in _of_runs(sources)]
    sides, training = _sides(groups)
    if len(sides) < 2:
        raise InputError(
            "a comparison needs two checkpoints or two training runs",
            found=", ".join(printable(side.name) for side in sides) or "none",
            do="name two result files, FILE#RUN for runs in them, or two folders",
        )
    return _told_apart(sides), training


def trainings_of(sources: Sequence[Source]) -> tuple[Side, ...]:
    """The training runs that the sources hold; one of all checkpoints if their names tell none apart.

    Raises:
        StoreError: a source that there is not, cannot be read, or holds nothing that has measures.
    """
    groups = [_group(source, None) for source in _of_runs(sources)]
    sides, training = _sides(groups)
    if training or len(sides) == 1:
        return _told_apart(sides)
    every = tuple(run for group in groups for run in group.runs)
    names = {side.name for side in _by_training(every)}
    return (Side(names.pop() if len(names) == 1 else "checkpoints", every),)


def _sides(groups: Sequence[Side]) -> tuple[list[Side], bool]:
    """Training runs, if these are such, else single checkpoints."""
    if any(len(group.checkpoints) > 1 for group in groups):
        return [side for group in groups for side in _split(group)], True
    joined = _by_training([run for group in groups for run in group.runs])
    if len(joined) > 1 and min(len(side.checkpoints) for side in joined) > 1:
        return joined, True
    return list(groups), False


S = TypeVar("S", bound=Source)


def _of_runs(sources: Sequence[S]) -> list[S]:
    """Those of several that hold runs: a pattern also finds the vectors that lie beside result files."""

    def of_vectors(source: S) -> bool:
        return isinstance(source, str | Path) and Path(source).is_file() and holds_vectors(Path(source))

    return [source for source in sources if len(sources) < 2 or not of_vectors(source)]


def _group(source: Source, kinds: Sequence[str] | None) -> Side:
    """The runs of one source that have measures."""
    name, there, found = _read(source, set(MEASURES) if kinds is None else set(kinds))
    runs = tuple(run for run in found if run.result.status != "failed")
    if not runs:
        raise StoreError(
            f"{printable(name)} holds nothing to compare",
            found=", ".join(dict.fromkeys(there)) or "no runs",
            do=f"there are measures of: {', '.join(MEASURES)}",
        )
    return Side(_name_of(runs[0]) if len({run.checkpoint for run in runs}) == 1 else name, runs)


def _read(source: Source, wanted: Collection[str]) -> tuple[str, list[str], list[Run]]:
    """What a source is called, the kinds and states of its runs, and the runs of the kinds wanted."""
    if isinstance(source, Result):
        if source.provenance is None:
            raise InputError(
                "a result that does not say what it is of cannot be compared", found=repr(source)
            )
        return (
            source.kind,
            [_state(source.kind, source.status)],
            [Run(Path(), source)][: source.kind in wanted],
        )
    if isinstance(source, Stored):
        found, name = Runs((source,)), source.header.id
    else:
        found, name = (source, "runs") if isinstance(source, Runs) else _open(str(source))
    runs = [Run(entry.file, entry.read()) for entry in found if entry.header.kind in wanted]
    return name, [_state(entry.header.kind, entry.header.status) for entry in found], runs


def _state(kind: str, status: str) -> str:
    return f"{kind} that failed" if status == "failed" else kind


def _open(source: str) -> tuple[Runs, str]:
    """The stored runs of ``FILE``, ``FILE#RUN``, a folder or a pattern; and what that is called."""
    path, start = Path(source).expanduser(), ""
    if not path.exists() and "#" in source:
        base, _, start = source.rpartition("#")
        path = Path(base).expanduser()
    if path.exists() or not any(c in path.name for c in "*?["):
        found = open_runs(path)
    else:
        matching = _of_runs(sorted(path.parent.glob(path.name), key=natural_order))
        found = Runs(tuple(entry for one in matching if one.is_file() for entry in open_runs(one)))
    if start:
        found = Runs(tuple(entry for entry in found if entry.header.id.startswith(start)))
        if not found:
            raise StoreError(
                f"{printable(path)} holds no run whose id begins with {printable(start)!r}",
                do=f"landscape show {printable(path)} lists them",
            )
    return found, path.stem if path.suffix == ".h5" else path.name


def _split(group: Side) -> list[Side]:
    """The training runs of a source; by their names if there are several."""
    found = _by_training(group.runs)
    return found if len(found) > 1 else [replace(found[0], name=found[0].name or group.name)]


def _by_training(runs: Sequence[Run]) -> list[Side]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(training_name(_name_of(run)), []).append(run)
    return [Side(name, tuple(of)) for name, of in groups.items()]


def _name_of(run: Run) -> str:
    """The checkpoint's file name without its ending; of weights without a file the run."""
    reference = run.provenance.checkpoint
    return run.provenance.id if reference is None else PurePath(reference.path.replace("\\", "/")).stem


def _told_apart(sides: Sequence[Side]) -> tuple[Side, ...]:
    """The sides with names that differ: with the run's id, or the folders, where checkpoints do not."""
    names = [side.name for side in sides]
    if len(set(names)) < len(names):
        single = all(len(side.runs) == 1 for side in sides)
        if single:
            names = [f"{side.name}#{side.runs[0].provenance.id}" for side in sides]
        else:
            tails = short_names([_folder(side) for side in sides])
            names = [f"{tail}/{side.name}" for tail, side in zip(tails, sides, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} ({i + 1})" for i, name in enumerate(names)]
    return tuple(replace(side, name=name) for side, name in zip(sides, names, strict=True))


def _folder(side: Side) -> Path:
    return side.runs[0].file.parent


def when(run: Run, field: str) -> int | None:
    """The step or epoch of a run's checkpoint, or the ``number`` in its name."""
    reference = run.provenance.checkpoint
    if reference is None:
        return None
    return saved_at(field, _name_of(run), reference.step, reference.epoch)


def time_of(run: Run) -> int | None:
    """The step, else the epoch, else the number in the name."""
    return next((time for field in FIELDS if (time := when(run, field)) is not None), None)


def pick(sides: Sequence[Side], kind: str) -> Picked:
    """The runs of a kind that ask the same on all sides, of each checkpoint the latest.

    Of several questions the one with most checkpoints, then the latest. Where no question was put to all
    sides, of each side its own: in what they differ is said.
    """
    by_question = [_questions([run for run in side.runs if run.result.kind == kind]) for side in sides]
    common = [q for q in by_question[0] if all(q in other for other in by_question[1:])]
    if common:
        best = max(common, key=lambda q: _weight([run for one in by_question for run in one[q]]))
        chosen = [one[best] for one in by_question]
    else:
        chosen = [max(one.values(), key=_weight) for one in by_question]
    latest = [_latest(runs) for runs in chosen]
    others = sum(len(runs) for one in by_question for runs in one.values()) - sum(map(len, latest))
    left_out = (f"{kind}: {counted_runs(others)} with other settings or earlier",) if others else ()
    questions = [runs[0].question for runs in latest]
    return Picked(
        kind,
        tuple(map(tuple, latest)),
        tuple(_differing(questions)),
        left_out,
        same_data=len({str((q["data"], q.get("samples"))) for q in questions}) == 1,
        same_seed=len({run.provenance.seed for runs in latest for run in runs}) == 1,
    )


def _questions(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps(run.question, sort_keys=True, default=str), []).append(run)
    return found


def _weight(runs: Sequence[Run]) -> tuple[int, str]:
    return len({run.checkpoint for run in runs}), max(run.provenance.started for run in runs)


def _latest(runs: Sequence[Run]) -> list[Run]:
    """Of each checkpoint the run that was started last, in the order given."""
    last = {run.checkpoint: run for run in sorted(runs, key=lambda run: run.provenance.started)}
    return [run for run in runs if last[run.checkpoint] is run]


def _differing(questions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Entries that are not the same in all questions: names and values, precision apart."""
    names = dict.fromkeys(name for question in questions for name in question if name not in _PRECISION)
    found = []
    for name in names:
        values = [question.get(name) for question in questions]
        if any(value != values[0] for value in values):
            shown = dict.fromkeys(_short(value) for value in values)
            found.append(f"{name} = {' / '.join(shown)}")
    return found


def refuse(picked: Picked) -> None:
    """Stop at runs that are not of the same question.

    Raises:
        InputError: they differ in more than what is only named.
    """
    found = [text for text in picked.differing if text.split(" = ")[0] not in _NAMED]
    if found:
        raise InputError(
            f"these {picked.kind} runs were not measured alike",
            found="; ".join(found[:4]) + ("; …" if len(found) > 4 else ""),
            do="measure them alike, name runs as FILE#RUN, or add --mixed to compare them all the same",
        )


def _short(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= 24 else f"{text[:12]}…"
