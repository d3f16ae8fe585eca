"""Who said what: options, configuration and defaults settled key by key, before any user code runs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from landscape.errors import ConfigurationError
from landscape.project.code import Source
from landscape.project.config import NAME, Config
from landscape.project.settings import PIECES, ProblemSettings
from landscape.project.template import template
from landscape.project.text import shown
from landscape.settings import options_of

__all__ = ["NothingToGoOn", "Request", "settle"]


class NothingToGoOn(ConfigurationError):
    """Model, data or loss is missing. ``template`` is a ``landscape.toml`` to fill in."""

    def __init__(self, what: str, *, found: str = "", do: str = "", template: str = "") -> None:
        super().__init__(what, found=found, do=do)
        self.template = template


@dataclass(frozen=True)
class Request:
    """Everything that was asked for.

    ``settings`` are the options with the file's values where none was given; ``said`` names those that
    somebody gave, on the command line or in the file; ``sources`` are the factories and files among them.
    """

    checkpoint: Path | None
    settings: ProblemSettings
    sources: Mapping[str, Source]
    said: frozenset[str]
    config: Config | None

    def refuse(self, names: Collection[str], what: str, do: str) -> None:
        """Raise ``what`` if any of ``names`` was said: it would have no effect."""
        useless = ["--" + name.replace("_", "-") for name in names if name in self.said]
        if useless:
            raise ConfigurationError(what, found=", ".join(useless), do=do)

    def origins(self) -> list[str]:
        """Lines that say where model, data and loss come from."""
        by_origin: dict[str, list[str]] = {}
        for source in self.sources.values():
            by_origin.setdefault(source.origin, []).append(f"{source.name} {shown(source.text)}")
        return [f"from {origin}: {', '.join(parts)}" for origin, parts in by_origin.items()]

    @property
    def describes_itself(self) -> bool:
        """Whether the checkpoint alone says what its model is: it is a Hugging Face directory."""
        from landscape.checkpoint import is_directory

        said = {"model", "problem"} & set(self.sources)
        return not said and self.checkpoint is not None and is_directory(self.checkpoint)

    def require(self, start: Path) -> None:
        """Check that model, data and loss are all there.

        Raises:
            NothingToGoOn: they are not.
            CheckpointError: there is not even a checkpoint to make a template from.
        """
        missing = [] if "problem" in self.sources else [p for p in PIECES if p not in self.sources]
        if "model" in missing and self.describes_itself:
            missing.remove("model")
        if missing:
            raise self._nothing(missing, start)

    def _nothing(self, missing: list[str], start: Path) -> NothingToGoOn:
        text, path = self._template(), self.checkpoint
        name = "this problem" if path is None else shown(path.name)
        what = f"Nothing says which {_listed(missing)} belong{'s' if len(missing) == 1 else ''} to {name}"
        beside = None if path is None else path.absolute().parent / NAME
        if self.config is None and not self.sources and beside is not None and beside.is_file():
            return NothingToGoOn(
                what,
                found=f"{shown(beside)}, not read: it would run code, and is not in the current folder",
                do=f"if you trust it: --config {shown(shlex.quote(str(beside)), 4096)}",
                template=text,
            )
        there = [f"{s.name} {shown(s.text)}" for s in self.sources.values()]
        where = shown(self.config.path) if self.config else f"no {NAME} in {shown(start)} or its repository"
        return NothingToGoOn(
            what,
            found="; ".join([*there, where]),
            do=f"give {' '.join('--' + m for m in missing)}, or write a {NAME} (start with landscape init)",
            template=text,
        )

    def _template(self) -> str:
        from landscape.checkpoint import inspect_checkpoint

        if self.checkpoint is None:
            return template(None)
        return template(inspect_checkpoint(self.checkpoint, state_key=self.settings.state_key))


def settle(
    checkpoint: Path | None,
    settings: ProblemSettings,
    given: Collection[str],
    start: Path,
    config: Config | None,
) -> Request:
    """Options win over the file, key by key; ``--problem`` over the file's model, data and loss."""
    filed = dict(config.values) if config else {}
    if config is not None and checkpoint is not None and (model := config.model_for(checkpoint.name)):
        filed["model"] = model
    if "problem" in given and settings.problem is not None:
        filed = {name: value for name, value in filed.items() if name not in PIECES}
    taken = {name: value for name, value in filed.items() if name not in given}
    merged = dataclasses.replace(settings, **taken)
    sources = {}
    for name in ("problem", *PIECES):
        text = getattr(merged, name)
        if text is not None and name in taken and config is not None:
            sources[name] = Source(name, text, config.folder, shown(config.path))
        elif text is not None:
            sources[name] = Source(name, text, start, "options")
    if "problem" in taken and all(piece in given and piece in sources for piece in PIECES):
        del sources["problem"]
    said = frozenset(taken) | {o.name for o in options_of(ProblemSettings) if o.name in given}
    return Request(checkpoint, merged, sources, said, config)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
