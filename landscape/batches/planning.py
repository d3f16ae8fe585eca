"""From options and configuration to what a batch does. Reads no checkpoint and runs no user code."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.analyses.base import ANALYSES, analysis
from landscape.batches.parts import Analysis, Spec
from landscape.errors import ConfigurationError, InputError
from landscape.files import natural_order, printable
from landscape.project import (
    BatchSettings,
    Config,
    ProblemSettings,
    check_pieces,
    configured_checkpoints,
    read_config,
)
from landscape.run import RunSettings
from landscape.settings import from_mapping, options_of

__all__ = ["BatchPlan", "planned_batch"]

#: Where results go unless told otherwise.
_FOLDER = "landscape-results"
#: Endings of the files that a folder of checkpoints is taken to consist of.
_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True)
class BatchPlan:
    """What a batch does, to what, and how.

    Attributes:
        checkpoints: absolute paths, each once, in the order given (patterns in natural order).
        spec: what is done to each.
        settings: who does which share, in which order, until when.
        threads: of the arithmetic, in all; shared among the processes.
    """

    checkpoints: tuple[Path, ...]
    spec: Spec
    settings: BatchSettings
    threads: int | None


def planned_batch(
    checkpoints: Sequence[str | Path],
    problem: Mapping[str, Any],
    batch: Mapping[str, Any],
    *,
    start: Path,
    command: str,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> BatchPlan:
    """The plan of a batch; options win over the tables of the configuration.

    Args:
        checkpoints: files or patterns, relative to ``start``; those that the configuration names without any.
        problem, batch: options of :class:`ProblemSettings` and :class:`BatchSettings` that were given.
        start: the current folder.
        command: written beside the results.
        own: options of the analyses by kind, beside those of ``--set``.

    Raises:
        ConfigurationError: wrong options or configuration.
        InputError: no such checkpoints.
    """
    settings = from_mapping(ProblemSettings, problem)
    config = read_config(Path(settings.config) if settings.config else None, start)
    chosen = from_mapping(BatchSettings, {**(config.batch() if config else {}), **batch})
    if unknown := [kind for kind in chosen.kinds if kind not in ANALYSES]:
        raise ConfigurationError(
            f"--run does not know {unknown[0]!r}", do=f"choose among {', '.join(ANALYSES)}"
        )
    for name in ("test_data", "metric"):
        if problem.get(name) and "slice" not in chosen.kinds:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} belongs to slices, and none is run",
                found=f"--run {','.join(chosen.kinds)}",
                do="add slice to --run, or leave it out",
            )
    given: dict[str, dict[str, Any]] = {kind: dict(options) for kind, options in (own or {}).items()}
    for kind, name, value in chosen.assignments:
        given.setdefault(kind, {})[name] = value
    if strange := [kind for kind in given if kind not in chosen.kinds]:
        raise ConfigurationError(
            f"options are given for {strange[0]}, which is no analysis of this batch",
            found=f"--run {','.join(chosen.kinds)}",
        )
    analyses = tuple(_analysis(kind, given.get(kind, {}), chosen, config) for kind in chosen.kinds)
    threads = settings.threads
    if threads is None and config is not None:
        threads = config.values.get("threads")
    spec = Spec(
        problem=settings,
        given=frozenset(name.replace("-", "_") for name in problem),
        start=start,
        folder=start / Path(chosen.output or _FOLDER).expanduser(),
        analyses=analyses,
        warm=chosen.warm_starts,
        command=command,
    )
    found = _found(checkpoints, settings, start)
    check_pieces(found, settings, given=spec.given, start=start)
    return BatchPlan(found, spec, chosen, threads)


def _analysis(kind: str, given: Mapping[str, Any], batch: BatchSettings, config: Config | None) -> Analysis:
    """One analysis with its options: those given, then those of its table, then the defaults."""
    settings = analysis(kind).Settings
    table = config.verb(kind, RunSettings) if config else {}
    if table.get("output") is not None:
        raise ConfigurationError(
            f"[{kind}] names one result file, and a batch writes one for each checkpoint",
            found=f"output = {table['output']!r}",
            do="leave it out there, and name a folder: --output FOLDER",
        )
    every = {**table, **given}
    runs = {o.name for o in options_of(RunSettings)} - {"output"}
    run = {name: value for name, value in every.items() if name in runs}
    if batch.seed is not None:
        run["seed"] = batch.seed
    if batch.fresh:
        run["fresh"] = True
    rest = {name: value for name, value in every.items() if name not in runs}
    return Analysis(
        kind,
        from_mapping(settings, rest, f"--set {kind}: "),
        from_mapping(RunSettings, run, f"--set {kind}: "),
    )


def _found(checkpoints: Sequence[str | Path], settings: ProblemSettings, start: Path) -> tuple[Path, ...]:
    """The files, absolute, each once."""
    if not checkpoints:
        return tuple(Path(os.path.abspath(path)) for path in configured_checkpoints(settings, start))
    found = [path for one in checkpoints for path in _matching(str(one), start)]
    return tuple(dict.fromkeys(Path(os.path.abspath(path)) for path in found))


def _inside(folder: Path) -> list[Path]:
    """The checkpoints in a folder that is none itself."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix in _ENDINGS or ((path / "config.json").is_file() and not path.name.startswith("."))
    ]
    if not found:
        raise InputError(
            f"no checkpoints in the folder {printable(folder)}",
            found=f"no file that ends in {', '.join(_ENDINGS)}, and no folder with a config.json",
            do="name files, or a pattern in quotes such as 'runs/*'",
        )
    return sorted(found, key=natural_order)


def _matching(text: str, start: Path) -> list[Path]:
    """The file of this name, those in the folder of this name, or those that the pattern matches."""
    path = start / Path(text).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        return _inside(path)
    if path.exists():
        return [path]
    found = [Path(name) for name in glob.glob(str(path), recursive=True)] if glob.has_magic(text) else []
    if not found:
        raise InputError(
            f"no checkpoint {'matches' if glob.has_magic(text) else 'at'} {printable(text)}",
            found=f"nothing of that name in {printable(start)}",
            do="name files, or a pattern in quotes such as 'runs/*.pt'",
        )
    return sorted(found, key=natural_order)
