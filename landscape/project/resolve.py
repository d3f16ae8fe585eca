"""From options and configuration to a Problem: who said what, in which order, and what is missing."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import ConfigurationError
from landscape.project.code import Importer, Source
from landscape.project.config import NAME, Config, read_config
from landscape.project.pieces import make_data, make_loss, make_model, make_problem
from landscape.project.settings import PIECES, ProblemSettings, parse_size
from landscape.project.template import template
from landscape.project.text import shown
from landscape.settings import from_mapping, options_of

if TYPE_CHECKING:
    from torch import nn

    from landscape.checkpoint import Checkpoint
    from landscape.problem import Problem
    from landscape.results import CheckpointReference

__all__ = ["NothingToGoOn", "Resolved", "load_problem", "resolve"]

#: Options that act when a Problem is made, so have no effect on one that a factory has made already.
_MAKING = (
    *("params", "samples", "sample_seed", "batch_size", "weight_decay", "train_mode"),
    *("device", "dtype", "memory", "threads"),
)
_READING = ("state_key", "ignore_keys")


class NothingToGoOn(ConfigurationError):
    """Model, data or loss is missing. ``template`` is a ``landscape.toml`` to fill in."""

    def __init__(self, what: str, *, found: str = "", do: str = "", template: str = "") -> None:
        super().__init__(what, found=found, do=do)
        self.template = template


@dataclass(frozen=True)
class Resolved:
    """A problem and how it came about.

    ``notes`` are lines for stderr, safe to print. ``settings`` are the options after the configuration file
    has filled in what the command line left open.
    """

    problem: Problem
    notes: tuple[str, ...]
    config: Config | None
    settings: ProblemSettings


@dataclass(frozen=True)
class _Request:
    """Everything that was asked for, before any user code runs."""

    checkpoint: Path | None
    settings: ProblemSettings
    sources: Mapping[str, Source]
    said: frozenset[str]  # names that somebody gave, on the command line or in the file
    config: Config | None


def resolve(
    checkpoint_path: Path, settings: ProblemSettings, *, given: Collection[str], start: Path
) -> Resolved:
    """The problem that the options, else ``--problem``, else ``--config``, else ``landscape.toml`` describe.

    ``given`` names the fields of ``settings`` that were given explicitly; these win over the file key by
    key, and a ``--problem`` wins over the file's model, data and loss. A single model, data or loss replaces
    that part of the triple that a problem factory returns. ``start`` is the current folder: relative paths of
    options and the search for ``landscape.toml`` begin there, never at the checkpoint.

    Raises:
        NothingToGoOn: the model, the data or the loss is missing.
        ConfigurationError: wrong options, configuration or user code.
        CheckpointError: the file cannot be read, is not trusted, or does not fit the model.
        DataError: array files that cannot be read, or data that do not fit.
    """
    config = read_config(Path(settings.config) if settings.config else None, start)
    return _resolve(checkpoint_path, settings, given, start, config)


def load_problem(
    config_or_folder: str | Path = NAME, checkpoint: str | Path | None = None, **overrides: Any
) -> Problem:
    """A Problem in Python, as the command line would make it.

    Args:
        config_or_folder: a configuration file, or the folder of a ``landscape.toml``; the default is found as
            on the command line.
        checkpoint: the file to take weights from; without one, the model stays as its factory made it.
        overrides: options of :class:`ProblemSettings` by name, which win over the file.

    Raises:
        LandscapeError: as :func:`resolve`.
    """
    start, path = Path.cwd(), Path(config_or_folder).expanduser()
    settings = from_mapping(ProblemSettings, overrides)
    if settings.config is not None:
        raise ConfigurationError(
            "load_problem takes the configuration file as its first argument, not as config="
        )
    explicit = path / NAME if path.is_dir() else path
    config = read_config(None if str(config_or_folder) == NAME else explicit, start)
    given = {name.replace("-", "_") for name in overrides}
    where = None if checkpoint is None else start / Path(checkpoint).expanduser()
    return _resolve(where, settings, given, start, config).problem


def _resolve(
    checkpoint: Path | None,
    settings: ProblemSettings,
    given: Collection[str],
    start: Path,
    config: Config | None,
) -> Resolved:
    request = _request(checkpoint, settings, given, start, config)
    memory = request.settings.memory
    making: dict[str, Any] = {name: getattr(request.settings, name) for name in _MAKING}
    making["memory"] = None if memory is None else parse_size(memory)
    missing = [] if "problem" in request.sources else [p for p in PIECES if p not in request.sources]
    if missing:
        raise _nothing(request, missing, start)
    build = _from_problem if "problem" in request.sources else _from_pieces
    problem, notes = build(request, making)
    return Resolved(problem, (*_origins(request), *notes), config, request.settings)


def _request(
    checkpoint: Path | None,
    settings: ProblemSettings,
    given: Collection[str],
    start: Path,
    config: Config | None,
) -> _Request:
    """Settle key by key who wins; run nothing."""
    filed = dict(config.values) if config else {}
    if config is not None and checkpoint is not None and (model := config.model_for(checkpoint.name)):
        filed["model"] = model
    if "problem" in given and settings.problem is not None:
        filed = {name: value for name, value in filed.items() if name not in PIECES}
    taken = {name: value for name, value in filed.items() if name not in given}
    merged = dataclasses.replace(settings, **taken)
    said = frozenset(taken) | {o.name for o in options_of(ProblemSettings) if o.name in given}
    sources = {}
    for name in ("problem", *PIECES):
        text = getattr(merged, name)
        if text is None:
            continue
        if name in taken and config is not None:
            sources[name] = Source(name, text, config.folder, shown(config.path))
        else:
            sources[name] = Source(name, text, start, "options")
    if all(piece in given and piece in sources for piece in PIECES) and "problem" not in given:
        sources.pop("problem", None)
    return _Request(checkpoint, merged, sources, said, config)


def _from_pieces(request: _Request, making: Mapping[str, Any]) -> tuple[Problem, list[str]]:
    from landscape.problem import Problem

    checkpoint, notes = _read(request)
    importer, sources = Importer(), request.sources
    model = make_model(sources["model"], importer)
    notes += _load(model, checkpoint, request)
    loss = make_loss(sources["loss"], importer)
    data = make_data(sources["data"], importer, loss)
    return Problem(
        model, loss, data, **making, checkpoint=_reference(checkpoint), description=_words(request)
    ), notes


def _from_problem(request: _Request, making: Mapping[str, Any]) -> tuple[Problem, list[str]]:
    from landscape.problem import Problem

    importer, sources = Importer(), request.sources
    checkpoint, notes = _read(request)
    made, loaded = make_problem(sources["problem"], importer, request.checkpoint)
    label = sources["problem"].label
    if loaded and (useless := [name for name in _READING if name in request.said]):
        raise ConfigurationError(
            f"{label} loads the checkpoint itself", found=_flags(useless), do="leave these options out"
        )
    if isinstance(made, Problem):
        if useless := [name for name in (*PIECES, *_MAKING) if name in request.said]:
            raise ConfigurationError(
                f"{label} gives a finished landscape.Problem, which these options cannot change any more",
                found=_flags(useless),
                do="return (model, loss, data) from it, or leave the options out",
            )
        notes += [] if loaded else _load(made.model, checkpoint, request)
        made.checkpoint = _reference(checkpoint)
        made.description = {**made.description, **_words(request)}
        return made, notes
    model, loss, data = made
    if "model" in sources:
        model = make_model(sources["model"], importer)
    if not loaded or "model" in sources:
        notes += _load(model, checkpoint, request)
    if "loss" in sources:
        loss = make_loss(sources["loss"], importer)
    if "data" in sources:
        data = make_data(sources["data"], importer, loss)
    return Problem(
        model, loss, data, **making, checkpoint=_reference(checkpoint), description=_words(request)
    ), notes


def _read(request: _Request) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint, read before any user code runs: a bad file costs nothing."""
    from landscape.checkpoint import load_checkpoint

    if request.checkpoint is None:
        return None, []
    settings = request.settings
    checkpoint = load_checkpoint(
        request.checkpoint,
        state_key=settings.state_key,
        allow_global=settings.allow_global,
        trust_pickle=settings.trust_pickle,
    )
    return checkpoint, list(checkpoint.notes)


def _load(model: nn.Module, checkpoint: Checkpoint | None, request: _Request) -> list[str]:
    """Put the checkpoint's weights into a model that user code has just made."""
    from landscape.checkpoint import load_into

    if checkpoint is None:
        return []
    load_into(model, checkpoint, ignore_keys=request.settings.ignore_keys)
    return []


def _reference(checkpoint: Checkpoint | None) -> CheckpointReference | None:
    return None if checkpoint is None else checkpoint.reference


def _origins(request: _Request) -> list[str]:
    """One line that says where model, data and loss came from."""
    by_origin: dict[str, list[str]] = {}
    for source in request.sources.values():
        by_origin.setdefault(source.origin, []).append(f"{source.name} {shown(source.text)}")
    return [f"from {origin}: {', '.join(parts)}" for origin, parts in by_origin.items()]


def _words(request: _Request) -> dict[str, str]:
    return {source.name: source.text for source in request.sources.values()}


def _flags(names: Collection[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _nothing(request: _Request, missing: list[str], start: Path) -> NothingToGoOn:
    """The error for what is missing, with a template and, if there is one, the file that was not trusted."""
    from landscape.checkpoint import inspect_checkpoint

    path = request.checkpoint
    text = template(None if path is None else inspect_checkpoint(path))
    name = "this problem" if path is None else shown(path.name)
    what = f"Nothing says which {_listed(missing)} belong{'s' if len(missing) == 1 else ''} to {name}"
    beside = None if path is None else path.absolute().parent / NAME
    if request.config is None and not request.sources and beside is not None and beside.is_file():
        return NothingToGoOn(
            what,
            found=f"{shown(beside)}, not read: it would run code, and is not in the current folder",
            do=f"if you trust it: --config {shown(shlex.quote(str(beside)), 4096)}",
            template=text,
        )
    there = [f"{s.name} {shown(s.text)}" for s in request.sources.values()]
    where = shown(request.config.path) if request.config else f"no {NAME} in {shown(start)} or its repository"
    return NothingToGoOn(
        what,
        found="; ".join([*there, where]),
        do=f"give {' '.join('--' + m for m in missing)}, or write a {NAME} (landscape init makes a template)",
        template=text,
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
