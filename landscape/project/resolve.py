"""From options and configuration to a Problem: the checkpoint is read first, then user code runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import CheckpointError, ConfigurationError
from landscape.project.code import Importer, Source
from landscape.project.config import NAME, Config, read_config
from landscape.project.pieces import (
    ProblemFactory,
    find_problem,
    make_data,
    make_loss,
    make_marks,
    make_metric,
    make_model,
)
from landscape.project.pretrained import make_pretrained
from landscape.project.request import NothingToGoOn, Request, settle
from landscape.project.settings import PIECES, ProblemSettings, parse_size
from landscape.project.text import shown
from landscape.settings import from_mapping

if TYPE_CHECKING:
    from torch import nn

    from landscape.checkpoint import Checkpoint
    from landscape.problem import Problem, Reader
    from landscape.results import CheckpointReference

__all__ = ["Resolved", "load_problem", "resolve"]

#: Options that act when a Problem is made, so have no effect on one that a factory has made already.
_MAKING = (
    *("params", "samples", "sample_seed", "batch_size", "weight_decay", "train_mode"),
    *("device", "dtype", "memory", "threads", "expect_loss"),
)


#: Sources of what is shown beside the loss, which they do not change.
_BESIDE = ("test_data", "metric")


@dataclass(frozen=True)
class Resolved:
    """A problem and how it came about.

    ``notes`` are lines for stderr, safe to print. ``settings`` are the options after the configuration file
    has filled in what the command line left open. ``whole``: the user's own factory made the problem, which
    may be another for another checkpoint.
    """

    problem: Problem
    notes: tuple[str, ...]
    config: Config | None
    settings: ProblemSettings
    whole: bool = False


def resolve(
    checkpoint_path: Path,
    settings: ProblemSettings,
    *,
    given: Collection[str],
    start: Path,
    beside: bool = False,
) -> Resolved:
    """The problem that the options, else ``--problem``, else ``--config``, else ``landscape.toml`` describe.

    ``given`` names the fields of ``settings`` that were given explicitly; these win over the file key by
    key, and a ``--problem`` wins over the file's model, data and loss. A single model, data or loss replaces
    that part of the triple that a problem factory returns. ``start`` is the current folder: relative paths of
    options and the search for ``landscape.toml`` begin there, never at the checkpoint. With ``beside``, test
    data and metrics are part of the problem.

    Raises:
        NothingToGoOn: the model, the data or the loss is missing.
        ConfigurationError: wrong options, configuration or user code.
        CheckpointError: the file cannot be read, is not trusted, or does not fit the model.
        DataError: array files that cannot be read, or data that do not fit.
    """
    config = read_config(Path(settings.config) if settings.config else None, start)
    return _resolve(checkpoint_path, settings, given, start, config, beside)


def check_pieces(
    checkpoints: Sequence[Path], settings: ProblemSettings, *, given: Collection[str], start: Path
) -> None:
    """Check that something says which model, data and loss belong to one of the checkpoints at least.

    Nothing of the user's is run.

    Raises:
        NothingToGoOn: of the first, if of none of them.
        ConfigurationError: wrong options or configuration.
    """
    config = read_config(Path(settings.config) if settings.config else None, start)
    refusal: NothingToGoOn | None = None
    for checkpoint in checkpoints:
        try:
            settle(checkpoint, settings, given, start, config).require(start)
            return
        except NothingToGoOn as error:
            refusal = refusal or error
        except CheckpointError:  # which will be said of it alone
            continue
    if refusal is not None:
        raise refusal


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
    return _resolve(where, settings, given, start, config, True).problem


def _resolve(
    checkpoint: Path | None,
    settings: ProblemSettings,
    given: Collection[str],
    start: Path,
    config: Config | None,
    beside: bool,
) -> Resolved:
    request = settle(checkpoint, settings, given, start, config)
    request = _with_more(request, given, start, ("noisy", *(("test_data", "metric") if beside else ())))
    making: dict[str, Any] = {name: getattr(request.settings, name) for name in _MAKING}
    if making["memory"] is not None:
        making["memory"] = parse_size(making["memory"])
    request.require(start)
    build = _from_problem if "problem" in request.sources else _from_pieces
    problem, notes = build(request, making)
    whole = "problem" in request.sources
    return Resolved(problem, (*request.origins(), *notes), config, request.settings, whole)


def _with_more(request: Request, given: Collection[str], start: Path, names: Collection[str]) -> Request:
    """With what else is named among the sources: noisy labels, test data, metrics (numbered from 0)."""
    config, found = request.config, {}
    for name in names:
        texts = getattr(request.settings, name) or ()
        for i, text in enumerate((texts,) if isinstance(texts, str) else texts):
            label = f"metric{i}" if name == "metric" else name
            if name in given or config is None:
                found[label] = Source(name, text, start, "options")
            else:
                found[label] = Source(name, text, config.folder, shown(config.path))
    return replace(request, sources={**request.sources, **found})


def _beside(request: Request, importer: Importer, loss: Any) -> dict[str, Any]:
    """Noisy labels, test data and metrics, as a Problem takes them."""
    sources = request.sources
    making: dict[str, Any] = {"noisy": make_marks(sources.get("noisy"), sources.get("data"), importer)}
    if "test_data" in sources:
        making["test_data"] = make_data(sources["test_data"], importer, loss)
    metrics: dict[str, Any] = {}
    for source in (one for label, one in sources.items() if label.startswith("metric")):
        name, metric = make_metric(source, importer)
        if name in metrics:
            raise ConfigurationError(
                f"two metrics are called {shown(name)!r}", found=source.label, do="give one another name"
            )
        metrics[name] = metric
    return {**making, "metrics": metrics} if metrics else making


def _from_pieces(request: Request, making: Mapping[str, Any]) -> tuple[Problem, tuple[str, ...]]:
    """A problem from ``--model``, ``--data`` and ``--loss``."""
    importer, weights = Importer(), _read(request)
    model, notes = _model(request, importer, weights)
    loss = make_loss(request.sources["loss"], importer)
    data = make_data(request.sources["data"], importer, loss)
    making = {**making, **_beside(request, importer, loss)}
    with importer.reading(request.sources["data"]):
        return _problem(model, loss, data, request, weights, making), (*notes, *weights.notes)


def _model(request: Request, importer: Importer, weights: _Weights) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with the checkpoint's weights, and what to say about it."""
    if not request.describes_itself:
        return weights.into(make_model(request.sources["model"], importer)), ()
    assert weights.checkpoint is not None
    model, notes = make_pretrained(weights.checkpoint)
    return weights.into(model), notes


def _from_problem(request: Request, making: Mapping[str, Any]) -> tuple[Problem, tuple[str, ...]]:
    """A problem from ``--problem``, with single pieces replaced by those given beside it."""
    from landscape.problem import Problem

    importer, sources = Importer(), request.sources
    factory = find_problem(sources["problem"], importer)
    label = sources["problem"].label
    if factory.takes_path and "model" not in sources:
        request.refuse(
            ("state_key", "ignore_keys", "allow_global", "trust_pickle"),
            f"{label} takes the checkpoint's path, so loads it itself",
            "leave these options out, or write a factory without arguments",
        )
        weights = _named(request)
    else:
        weights = _read(request)
    made = factory.make(request.checkpoint)
    if isinstance(made, Problem):
        request.refuse(
            (*PIECES, "noisy", "test_data", "metric", *_MAKING),
            f"{label} gives a finished landscape.Problem, which these options cannot change any more",
            "return (model, loss, data) from it, or leave the options out",
        )
        weights.into(made.model)
        made.checkpoint = weights.reference
        made.reader = _reader(request, factory)
        made.description = {**made.description, "problem": sources["problem"].text}
        return made, weights.notes
    model, loss, data = made
    model = weights.into(make_model(sources["model"], importer) if "model" in sources else model)
    loss = make_loss(sources["loss"], importer) if "loss" in sources else loss
    data = make_data(sources["data"], importer, loss) if "data" in sources else data
    making = {**making, **_beside(request, importer, loss), "reader": _reader(request, factory)}
    with importer.reading(sources.get("data", sources["problem"])):
        return _problem(model, loss, data, request, weights, making), weights.notes


def _problem(
    model: nn.Module, loss: Any, data: Any, request: Request, weights: _Weights, making: Mapping[str, Any]
) -> Problem:
    from landscape.problem import Problem

    words = {name: one.text for name, one in request.sources.items() if one.name not in _BESIDE}
    making = {"reader": _reader(request), **making}
    return Problem(model, loss, data, **making, checkpoint=weights.reference, description=words)


def _reader(request: Request, factory: ProblemFactory | None = None) -> Reader:
    """Reads other checkpoints as this one was read: with the same options, or by the same factory."""

    def read(path: Path, model: nn.Module) -> CheckpointReference:
        from landscape.checkpoint import load_into

        other = replace(request, checkpoint=path)
        if factory is not None and factory.takes_path and "model" not in request.sources:
            made = factory.make(path)
            own = made[0] if isinstance(made, tuple) else made.model
            model.load_state_dict(own.state_dict())
            reference = _named(other).reference
        else:
            weights = _read(other)
            assert weights.checkpoint is not None
            load_into(model, weights.checkpoint, ignore_keys=weights.ignore_keys)
            reference = weights.reference
        assert reference is not None
        return reference

    return read


@dataclass(frozen=True)
class _Weights:
    """What the checkpoint gives: its name by content and, unless a factory reads it, the weights."""

    checkpoint: Checkpoint | None
    reference: CheckpointReference | None
    notes: tuple[str, ...]
    ignore_keys: tuple[str, ...] = ()

    def into(self, model: nn.Module) -> nn.Module:
        """Copy the weights, if there are any, into a model that user code has just made."""
        from landscape.checkpoint import load_into

        if self.checkpoint is not None:
            load_into(model, self.checkpoint, ignore_keys=self.ignore_keys)
        return model


def _read(request: Request) -> _Weights:
    """The checkpoint's weights."""
    from landscape.checkpoint import load_checkpoint

    if request.checkpoint is None:
        return _Weights(None, None, ())
    settings = request.settings
    checkpoint = load_checkpoint(
        request.checkpoint,
        state_key=settings.state_key,
        allow_global=settings.allow_global,
        trust_pickle=settings.trust_pickle,
    )
    return _Weights(checkpoint, checkpoint.reference, checkpoint.notes, settings.ignore_keys)


def _named(request: Request) -> _Weights:
    """The checkpoint's identity alone, for a factory that reads the file in its own way."""
    from landscape.checkpoint import inspect_checkpoint
    from landscape.results import CheckpointReference

    if request.checkpoint is None:
        return _Weights(None, None, ())
    seen = inspect_checkpoint(request.checkpoint)
    reference = CheckpointReference(path=seen.path, sha256=seen.sha256, step=seen.step, epoch=seen.epoch)
    return _Weights(None, reference, ())
