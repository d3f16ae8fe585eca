"""What one process of a batch does: every analysis on every checkpoint of a unit, or finds it done."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.analyses.base import analysis
from landscape.analyses.eigen import Settings as EigenSettings
from landscape.analyses.eigen import end_vectors
from landscape.batches.chain import Chain
from landscape.batches.parts import Analysis, Begun, Noted, Progressed, Report, Seen, Spec, Unit
from landscape.errors import (
    FAILED,
    BusyError,
    CheckpointError,
    ComputationError,
    InputError,
    Interrupted,
    LandscapeError,
    StoreError,
)
from landscape.files import printable
from landscape.identity import family, recipe
from landscape.results.measures import readings
from landscape.run import Plan, execute, exit_code, plan
from landscape.store import Header, ResultFile, default_path, partial_path

if TYPE_CHECKING:
    from landscape.problem import Problem
    from landscape.project import Config, Resolved
    from landscape.results import EigenResult, Result

__all__ = ["Event", "Worker", "inspect", "is_warm"]

#: Errors of the operating system that are not about one file.
_EVERYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOLCK, errno.ENOTSUP}

Event = Begun | Progressed | Noted | Report


def is_warm(spec: Spec) -> bool:
    """Whether checkpoints of this batch depend on the ones before them."""
    return spec.warm and any(_starts(one) for one in spec.analyses)


def _starts(one: Analysis) -> bool:
    """Whether this analysis can start from another checkpoint's eigenvectors."""
    return isinstance(one.settings, EigenSettings) and one.settings.method == "lanczos"


def inspect(path: Path) -> Seen:
    """Look at a checkpoint's content and place in training; what is wrong with it is a value, too."""
    from landscape.checkpoint import inspect_checkpoint

    try:
        found = inspect_checkpoint(path)
    except LandscapeError as error:
        return Seen(path, error=str(error), exit_code=error.exit_code)
    return Seen(path, found.sha256, found.step, found.epoch)


@dataclass
class _Family:
    """What the checkpoints of one model have in common: the problem of the first, and what it is known by."""

    problem: Problem
    key: str
    about: dict[str, Any]
    whole: bool
    plans: dict[str, Plan] = field(default_factory=dict)


class _Observer:
    """A run's notes and progress as events."""

    def __init__(self, path: Path, emit: Callable[[Event], None]) -> None:
        self._path, self._emit = path, emit

    def note(self, text: str) -> None:
        self._emit(Noted(self._path, text))

    def progress(self, done: int, total: int | None, text: str) -> None:
        self._emit(Progressed(done, total, text))


class Worker:
    """Carries out units one after the other; what belongs to a model and its data is kept between them.

    Args:
        emit: is told of what is begun, and gets a :class:`Report` of every analysis of every checkpoint.
    """

    def __init__(self, spec: Spec, emit: Callable[[Event], None]) -> None:
        self._spec, self._emit = spec, emit
        self._families: dict[str, _Family | LandscapeError] = {}

    def carry_out(self, unit: Unit) -> None:
        """All analyses on the checkpoints of a unit, in order.

        Raises:
            BusyError: another process is at one of them; what comes after it was not begun.
            Interrupted: by a signal; what was done is kept.
            StoreError: nothing can be written any more: a full disk, permissions.
        """
        chain: Chain | None = None
        for seen in unit.checkpoints:
            todo = [one for one in self._spec.analyses if (seen.path, one.kind) not in unit.omitted]
            try:
                if seen.error:
                    raise _Failed(seen.error, seen.exit_code)
                group = self._family(seen)
                chain = chain or self._chain(unit, group)
                compared = unit.compared and seen is unit.checkpoints[-1]
                self._checkpoint(seen, group, todo, chain, compared)
            except (BusyError, Interrupted):
                raise
            except LandscapeError as error:
                if _concerns_all(error, self._spec.folder):
                    raise
                for one in todo:
                    self._failed(seen, one, error)
        if chain is not None:
            chain.close()

    def _chain(self, unit: Unit, group: _Family) -> Chain | None:
        """The vectors that this unit passes on, if it does."""
        own = next((one for one in self._spec.analyses if _starts(one)), None)
        if own is None or not self._spec.warm or self._spec.dry or len(unit.checkpoints) < 2:
            return None
        return Chain(self._spec.folder, [self._recipe(seen, group, own) for seen in unit.checkpoints])

    def _checkpoint(
        self, seen: Seen, group: _Family, todo: list[Analysis], chain: Chain | None, compared: bool
    ) -> None:
        path = default_path(seen.path, seen.sha256, self._spec.folder)
        done = {h.recipe: h for h in _headers(path) if h.recipe and h.status != "partial"}
        problem: Problem | None = None
        for one in todo:
            known = self._recipe(seen, group, one)
            found = done.get(known)
            known_loss = group.problem.expect_loss is None  # or it must be looked at
            done_before = found is not None and not partial_path(path, found.id).exists()
            if found is not None and done_before and known_loss and not one.run.fresh:
                self._emit(_found(seen, one, found, path))
                continue
            self._emit(Begun(seen.path, one.kind))
            try:
                if self._spec.dry:
                    self._emit(self._planned(seen, one, group))
                    continue
                problem = problem or self._problem(seen, group)
                self._emit(self._run(seen, one, problem, path, known, chain, compared))
            except (BusyError, Interrupted):
                raise
            except LandscapeError as error:
                if _concerns_all(error, self._spec.folder):
                    raise
                self._failed(seen, one, error)
            except (Exception, SystemExit) as error:  # what the user's own code raises concerns this one
                self._failed(seen, one, _unforeseen(error))

    def _planned(self, seen: Seen, one: Analysis, group: _Family) -> Report:
        """What it would take, measured once for all checkpoints of the model."""
        if one.kind not in group.plans:
            group.plans[one.kind] = plan(one.kind, group.problem, one.settings, one.run)
        of = group.plans[one.kind]
        return Report(
            seen.path, one.kind, "planned", seen.step, seen.epoch, seconds=of.seconds, products=of.products
        )

    def _run(
        self, seen: Seen, one: Analysis, problem: Problem, path: Path, known: str, chain: Chain | None,
        compared: bool,
    ) -> Report:  # fmt: skip
        start = chain.before(known) if chain is not None and _starts(one) else None
        if start is not None and start.shape[1] != problem.size:
            start = None  # names that differ in numbers only, and yet another model
        stored: list[bool] = []

        def keep(last: Any) -> None:
            stored.append(True)
            if chain is not None and _starts(one):
                vectors = end_vectors(problem, one.settings, last)
                if vectors is not None:
                    chain.keep(known, vectors)

        result = execute(
            one.kind,
            problem,
            one.settings,
            dataclasses.replace(one.run, output=str(path)),
            observer=_Observer(seen.path, self._emit),
            command=self._spec.command,
            vectors={} if start is None else {"start": start},
            recipe=known,
            before_storing=keep,
        )
        report = _computed(seen, one, result, path)
        if not stored and result.status != "partial":
            return dataclasses.replace(report, outcome="found")  # another process was quicker
        if report.warm and compared:
            with contextlib.suppress(ComputationError):  # the result itself is stored
                afresh = execute(one.kind, problem, one.settings, one.run, store=False)
                report = dataclasses.replace(report, cold_products=getattr(afresh, "products", None))
        return report

    def _failed(self, seen: Seen, one: Analysis, error: LandscapeError) -> None:
        self._emit(
            Report(
                seen.path, one.kind, "failed", seen.step, seen.epoch, error=str(error),
                exit_code=error.exit_code,
            )
        )  # fmt: skip

    # -- problems ------------------------------------------------------------------------------------------

    def _problem(self, seen: Seen, group: _Family) -> Problem:
        """The problem at a checkpoint: data and loss are those of the family's first."""
        if group.whole:
            problem = self._resolve(seen).problem
        elif group.problem.checkpoint is not None and group.problem.checkpoint.path == str(seen.path):
            problem = group.problem
        else:
            problem = group.problem.at(seen.path)
        reference = problem.checkpoint
        if reference is not None and reference.sha256 != seen.sha256:
            raise _Failed(f"{printable(seen.path)} changed while the batch ran", InputError.exit_code)
        return problem

    def _family(self, seen: Seen) -> _Family:
        """What the checkpoints of this model share; the first that can be read brings it about.

        What is wrong with their model, data or loss is found once, too, and said of each.
        """
        name = self._model_of(seen)
        if name not in self._families:
            try:
                self._families[name] = self._found_family(seen)
            except CheckpointError:
                raise
            except LandscapeError as error:
                self._families[name] = error
            except (Exception, SystemExit) as error:
                self._families[name] = _unforeseen(error)
        found = self._families[name]
        if isinstance(found, LandscapeError):
            raise found
        return found

    def _found_family(self, seen: Seen) -> _Family:
        resolved = self._resolve(seen)
        for note in resolved.notes:
            self._emit(Noted(seen.path, note))
        problem = resolved.problem
        about = {
            one.kind: of(problem, one.settings)
            for one in self._spec.analyses
            if (of := getattr(analysis(one.kind), "about", None)) is not None
        }
        return _Family(problem, family(problem), about, resolved.whole)

    def _model_of(self, seen: Seen) -> str:
        """What tells the models of checkpoints apart: the configuration goes by their names."""
        config = self._config
        named = None if config is None else config.model_for(seen.path.name)
        own = seen.path / "config.json"  # a folder that describes its own model
        content = hashlib.sha256(own.read_bytes()).hexdigest() if own.is_file() else ""
        return f"{named} {content}"

    @functools.cached_property
    def _config(self) -> Config | None:
        """Read once: what a batch began with holds for all of it."""
        from landscape.project import read_config

        path = self._spec.problem.config
        return read_config(Path(path) if path else None, self._spec.start)

    def _resolve(self, seen: Seen) -> Resolved:
        from landscape.project import resolve

        spec = self._spec
        kinds = {one.kind for one in spec.analyses}
        return resolve(seen.path, spec.problem, given=spec.given, start=spec.start, beside="slice" in kinds)

    def _recipe(self, seen: Seen, group: _Family, one: Analysis) -> str:
        about = group.about.get(one.kind)
        return recipe(one.kind, group.key, seen.sha256, one.settings, one.run.seed, about)


class _Failed(LandscapeError):
    """What went wrong with one checkpoint, in words."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


def _unforeseen(error: BaseException) -> _Failed:
    """What the user's own code raised, or called ``sys.exit`` with."""
    return _Failed(f"{type(error).__name__}: {printable(error)}", FAILED)


def _concerns_all(error: LandscapeError, folder: Path) -> bool:
    """Whether the next checkpoint would fail in the same way: the disk is full, the folder is not ours.

    A result file that is damaged, or cannot be read, is an error of the operating system, too.
    """
    cause = error.__cause__
    if not isinstance(error, StoreError) or not isinstance(cause, OSError):
        return False
    return cause.errno in _EVERYWHERE or not os.access(folder, os.W_OK | os.X_OK)


def _headers(path: Path) -> Iterator[Header]:
    """The runs in a file, if it is there; what is wrong with it will be said when it is written."""
    if path.exists():
        try:
            yield from ResultFile(path).runs()
        except StoreError:
            return


def _found(seen: Seen, one: Analysis, header: Header, path: Path) -> Report:
    code = 0 if header.status == "complete" else FAILED if header.status == "failed" else 4
    return Report(
        seen.path, one.kind, "found", seen.step, seen.epoch, status=header.status, id=header.id, file=path,
        seconds=header.seconds, exit_code=code,
    )  # fmt: skip


def _computed(seen: Seen, one: Analysis, result: Result, path: Path) -> Report:
    """The report of a run."""
    provenance = result.provenance
    assert provenance is not None  # execute gives it
    return Report(
        seen.path,
        one.kind,
        "computed",
        seen.step,
        seen.epoch,
        status=result.status,
        id=provenance.id,
        file=path,
        seconds=provenance.seconds,
        products=getattr(result, "products", None),
        warm=_was_warm(result),
        exit_code=exit_code(result),
        readings=readings(result),
    )


def _was_warm(result: Result | EigenResult) -> bool | None:
    found: bool | None = getattr(result, "warm", None)
    return found
