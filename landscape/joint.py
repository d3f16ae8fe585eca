"""Results that are made from stored results, without a model: found, combined, stored, or found done."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from landscape.errors import InputError, StoreError
from landscape.files import printable
from landscape.identity import run_id, versions
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.results import Provenance, Result
    from landscape.run import Observer

__all__ = ["JOINTS", "JointSettings", "Sources", "combine", "read_sources", "stored_path"]

#: Kind → module.
JOINTS = {"overlap": "landscape.analyses.overlap"}


class Joint(Protocol):
    """A module of the analyses that has no steps."""

    kind: str
    Settings: type
    SOURCE: str

    def unusable(self, result: Result) -> str:
        """Why a result of kind ``SOURCE`` cannot be used, in words; empty if it can."""

    def combine(self, results: Sequence[Any], settings: Any) -> Result:
        """The result of the results, without provenance."""


@dataclass(frozen=True, kw_only=True)
class JointSettings:
    """Where the result goes; none of it changes a figure."""

    output: str | None = option(
        None,
        "Result file; default landscape-results/<kind>-<hash of what it is made from>.h5.",
        short="-o",
        metavar="FILE",
        identity=False,
    )
    fresh: bool = option(False, "Compute again, also when the same is stored.", identity=False)


@dataclass(frozen=True)
class Sources:
    """Stored results with what is kept apart from them, and what is worth saying about their choice."""

    results: tuple[Result, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Stored:
    """A result and the file it was found in."""

    result: Result
    file: Path

    @property
    def id(self) -> str:
        return self.result.provenance.id if self.result.provenance else ""

    @property
    def weights(self) -> str:
        """What it is a result of: the checkpoint's content, or whatever else was measured."""
        provenance = self.result.provenance
        if provenance is None:
            return ""
        return provenance.checkpoint.sha256 if provenance.checkpoint else provenance.subject


def read_sources(kind: str, paths: Sequence[str | Path], runs: Sequence[str] = ()) -> Sources:
    """The runs in result files that ``kind`` is made from: of each checkpoint in each file the latest.

    Files of vectors are passed over, so that ``landscape-results/*.h5`` is a good choice of files.

    Args:
        runs: ids, or their starts: then these, from whichever of the files.

    Raises:
        StoreError: a file that cannot be read, or vectors that are gone or damaged.
        InputError: runs that do not hold what is needed, or an id of none or of several.
    """
    from landscape.store import holds_vectors

    module, notes = _module(kind), []
    files = [Path(path) for path in paths if not holds_vectors(Path(path))]
    stored = [list(_stored(path, module.SOURCE)) for path in dict.fromkeys(files)]
    if runs:
        chosen = [_named(run, [one for of_file in stored for one in of_file], kind, module) for run in runs]
    else:
        for path, of_file in zip(dict.fromkeys(files), stored, strict=True):
            if not of_file:
                notes.append(f"{printable(path)} holds no {module.SOURCE} run: left out")
        chosen = [one for of_file in stored for one in _latest(of_file, kind, module, notes)]
    single: dict[tuple[str, str], _Stored] = {}
    for one in chosen:
        single.setdefault((one.id, one.weights), one)
    notes += [
        f"{printable(one.id)} in {printable(one.file)} is the same run again: left out"
        for one in chosen
        if single[one.id, one.weights] is not one
    ]
    return Sources(tuple(_with_vectors(one) for one in single.values()), tuple(notes))


def combine(
    kind: str,
    results: Sequence[Result],
    settings: Any,
    run: JointSettings | None = None,
    *,
    observer: Observer | None = None,
    command: str = "",
    store: bool = True,
) -> Result:
    """Make the result of results, or find it done.

    Args:
        results: with whatever is kept apart from them, as :func:`read_sources` gives them.
        store: keep it in :func:`stored_path`, and read it from there if it is there already.

    Raises:
        LandscapeError: the results do not fit together, or the file cannot be read or written.
    """
    from landscape.store import ResultFile

    run, of = run or JointSettings(), _subject(results)
    identity, path = run_id(kind, of, settings, None), stored_path(kind, results, run)
    if store and not run.fresh and ResultFile(path).find(identity) is not None:
        if observer is not None:
            observer.note(
                f"the same run is stored ({identity} in {path}): shown from there; --fresh computes again"
            )
        return ResultFile(path).read(identity)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    result = _module(kind).combine(results, settings)
    made = _provenance(identity if store else f"{kind}-unstored", of, results, settings, command, started)
    seconds = float(getattr(result, "seconds", 0.0))
    result = dataclasses.replace(result, provenance=dataclasses.replace(made, seconds=seconds))
    if store:
        ResultFile(path).add(result)
    return result


def stored_path(kind: str, results: Sequence[Result], run: JointSettings) -> Path:
    """The result file: ``--output``, else one for each choice of results in ``landscape-results/``."""
    from landscape.store import default_path

    return Path(run.output) if run.output is not None else default_path(kind, _subject(results))


def _module(kind: str) -> Joint:
    return cast(Joint, importlib.import_module(JOINTS[kind]))


def _stored(path: Path, kind: str) -> Iterator[_Stored]:
    """The results of a kind in a file, the latest first, without what is kept apart."""
    from landscape.store import ResultFile

    if path.is_dir():
        raise StoreError(f"{printable(path)} is a folder", do=f"name its files: {printable(path)}/*.h5")
    file = ResultFile(path)
    for header in reversed(file.runs()):
        if header.kind == kind:
            yield _Stored(file.read(header.id), path)


def _latest(stored: Sequence[_Stored], kind: str, module: Joint, notes: list[str]) -> list[_Stored]:
    """Of each checkpoint the latest usable run; checkpoints in the order they were first measured in.

    What was passed over for it goes to ``notes``.

    Raises:
        InputError: there are runs of a checkpoint, and none is usable.
    """
    found = []
    for weights in dict.fromkeys(one.weights for one in reversed(stored)):
        own = [one for one in stored if one.weights == weights]
        usable = [one for one in own if not module.unusable(one.result)]
        if not usable:
            raise _refused(own[0], kind, module)
        if len(own) > 1:
            there = f"{printable(usable[0].file)} holds {len(own)} {module.SOURCE} runs of one checkpoint"
            notes.append(f"{there}: the latest with masks is used, {usable[0].id} (--run chooses another)")
        found.append(usable[0])
    return found


def _named(run: str, stored: Sequence[_Stored], kind: str, module: Joint) -> _Stored:
    """The run whose id is, or alone starts with, ``run``."""
    fitting = [one for one in stored if one.id == run] or [
        one for one in stored if run and one.id.startswith(run)
    ]
    several = len({(one.id, one.weights) for one in fitting}) > 1
    if not fitting or several:
        listed = dict.fromkeys(printable(one.id) for one in (fitting or stored))
        raise InputError(
            f"--run {printable(run)} is "
            + ("the start of several runs" if several else "in none of the files"),
            found=", ".join(list(listed)[:6]) + (", …" if len(listed) > 6 else "")
            or f"no {module.SOURCE} runs",
            do="landscape show FILE lists the runs of a file",
        )
    if module.unusable(fitting[0].result):
        raise _refused(fitting[0], kind, module)
    return fitting[0]


def _refused(one: _Stored, kind: str, module: Joint) -> InputError:
    """The error that says why a run cannot be used."""
    reference = one.result.provenance.checkpoint if one.result.provenance else None
    return InputError(
        f"{printable(one.id)} in {printable(one.file)} keeps no masks, which {kind} is made from",
        found=f"a run {module.unusable(one.result)}",
        do=f"on the full batch landscape {module.SOURCE} keeps them: give it "
        f"{printable(reference.path) if reference else 'the checkpoint'} again",
    )


def _with_vectors(one: _Stored) -> Result:
    """The result with what is kept apart, memory-mapped; its checksum is verified."""
    from landscape.store import read_vectors

    found: dict[str, Any] = {}
    for name, file_name in one.result.apart.items():
        file = getattr(one.result, file_name)
        if file is None:
            continue
        path = one.file.parent / Path(file).name
        if not path.exists():
            raise StoreError(
                f"the {name} of {printable(one.id)} in {printable(one.file)} are not there",
                found=f"no file {printable(path)}",
                do=f"put it back beside the result file, or compute the {one.result.kind} again with --fresh",
            )
        found[name] = read_vectors(path)[0]
    return dataclasses.replace(one.result, **found)


def _subject(results: Sequence[Result]) -> str:
    """SHA-256 of what is combined: which runs, of what, and the contents of what is kept apart from them."""
    made = []
    for result in results:
        provenance = result.provenance
        about = [provenance.id, provenance.subject] if provenance else []
        made.append([*about, *(_contents(result, name, file) for name, file in result.apart.items())])
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()


def _contents(result: Result, name: str, file_name: str) -> str:
    """What tells the contents of one array kept apart from others: its file's name ends in their hash."""
    file, array = getattr(result, file_name), getattr(result, name)
    if file is not None:
        return Path(file).stem[-16:]
    return "" if array is None else hashlib.sha256(array.tobytes()).hexdigest()[:16]


def _provenance(
    identity: str, of: str, results: Sequence[Result], settings: Any, command: str, started: str
) -> Provenance:
    """How it was obtained: the runs it is made from, and what is the same in all of them."""
    from landscape.results import Provenance, jsonable

    made = [result.provenance for result in results if result.provenance is not None]
    problem = {
        name: value
        for name, value in (made[0].problem.items() if made else ())
        if all(one.problem.get(name) == value for one in made)
    }
    data = {one.data_fingerprint for one in made}
    return Provenance(
        id=identity,
        subject=of,
        command=command,
        checkpoint=None,
        settings=jsonable(dataclasses.asdict(settings)),
        problem=problem,
        data_fingerprint=data.pop() if len(data) == 1 else "",
        seed=0,  # nothing is drawn
        seed_given=False,
        device="cpu",
        dtype="float64",
        strategy={"inputs": [one.id for one in made]},
        versions=versions(),
        started=started,
    )
