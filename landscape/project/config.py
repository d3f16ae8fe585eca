"""``landscape.toml``: found, read and checked, without running anything that it names."""

from __future__ import annotations

import importlib
import pkgutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from landscape.errors import ConfigurationError
from landscape.project.batch import BATCH, BatchSettings
from landscape.project.settings import ProblemSettings
from landscape.project.text import nearest, shown
from landscape.settings import Option, options_of

__all__ = ["NAME", "Config", "read_config"]

#: The file that is looked for.
NAME = "landscape.toml"


@dataclass(frozen=True)
class Config:
    """A configuration file, checked.

    ``values`` holds :class:`ProblemSettings` by name, as written: paths in them are relative to
    ``folder``. ``models`` pairs globs on a checkpoint's file name with model factories, in the order of the
    file. ``checkpoints`` are globs, relative to ``folder``. ``tables`` are the verbs' own, unchecked;
    :meth:`verb` checks one.
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[tuple[str, str], ...] = ()
    checkpoints: tuple[str, ...] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self.path.parent

    def model_for(self, checkpoint: str) -> str | None:
        """The model factory for a checkpoint's file name: the first match in ``[models]``, else ``model``."""
        for pattern, factory in self.models:
            if fnmatchcase(checkpoint, pattern):
                return factory
        model: str | None = self.values.get("model")
        return model

    def batch(self) -> dict[str, Any]:
        """The checked options of the table ``[batch]``, by Python name; empty without such a table.

        Raises:
            ConfigurationError: an unknown key, or a value of the wrong type.
        """
        options = {o.name: o for o in options_of(BatchSettings)}
        checked = _checked(self.tables.get(BATCH, {}), options, f"[{BATCH}] in {shown(self.path)}")
        if (output := checked.get("output")) is not None:
            checked["output"] = str(self.folder / Path(output).expanduser())
        return checked

    def verb(self, name: str, *more: type) -> dict[str, Any]:
        """The checked options of the table ``[name]``, by Python name; empty without such a table.

        The keys are those of the analysis's own ``Settings`` and of the settings classes ``more`` (such as
        ``RunSettings``).

        Raises:
            ConfigurationError: an unknown verb or key, or a value of the wrong type.
        """
        table = self.tables.get(name)
        if table is None:
            _check_verb(name, self.path)
            return {}
        options = {o.name: o for group in (_settings_of(name), *more) for o in options_of(group)}
        checked = _checked(table, options, f"[{name}] in {shown(self.path)}")
        return {
            key: tuple(_placed(text, options[key].files, self.folder) for text in value)
            if options[key].files
            else value
            for key, value in checked.items()
        }


def read_config(explicit: Path | None, start: Path) -> Config | None:
    """The configuration file that applies, or ``None``.

    ``explicit`` (relative to ``start``) must exist. Without it, ``landscape.toml`` is looked for in
    ``start`` and, where that lies in a repository, in its parents up to the folder that holds ``.git``.
    Outside a repository only ``start`` itself counts, because a file in a parent (a shared ``/tmp``, say) may
    be someone else's, and what it names is run.

    Raises:
        ConfigurationError: no such file, not TOML, unknown keys or tables, values of the wrong type.
    """
    if explicit is not None:
        path = start / explicit.expanduser()
        if not path.is_file():
            raise ConfigurationError(
                f"No configuration file {shown(path)}",
                do=nearest(path.name, (p.name for p in path.parent.glob("*.toml"))),
            )
        return _parse(path.absolute())
    for folder in _folders(start.absolute()):
        if (folder / NAME).is_file():
            return _parse(folder / NAME)
    return None


def _folders(start: Path) -> tuple[Path, ...]:
    """Where a configuration may lie: ``start`` up to the repository's root, or ``start`` alone."""
    chain = (start, *start.parents)
    for depth, folder in enumerate(chain):
        if (folder / ".git").exists():
            return chain[: depth + 1]
    return (start,)


def _parse(path: Path) -> Config:
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{shown(path)} cannot be read as TOML", found=shown(error)) from error
    tables = {key: value for key, value in raw.items() if isinstance(value, dict)}
    values = {key: value for key, value in raw.items() if key not in tables}
    models = tables.pop("models", {})
    checkpoints = values.pop("checkpoints", ())
    for verb in tables:
        if verb != BATCH:
            _check_verb(verb, path)
    options = {o.name: o for o in options_of(ProblemSettings) if o.name != "config"}
    where = shown(path)
    return Config(
        path=path,
        values=_checked(values, options, where, also=("checkpoints",)),
        models=tuple((pattern, _text(f"{where}: models", factory)) for pattern, factory in models.items()),
        checkpoints=_texts(f"{where}: checkpoints", checkpoints),
        tables=tables,
    )


def _checked(
    values: Mapping[str, Any], options: Mapping[str, Option], where: str, also: tuple[str, ...] = ()
) -> dict[str, Any]:
    """``values`` by Python name (hyphens are underscores), each of its option's type."""
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in options:
            top = not also and name in {o.name for o in options_of(ProblemSettings)}
            raise ConfigurationError(
                f"{where} does not know {shown(key)!r}",
                do="put it at the top of the file, above the tables"
                if top
                else nearest(name, [*options, *also]),
            )
        if name in checked:
            raise ConfigurationError(f"{where} says {name} twice, as {name} and {name.replace('_', '-')}")
        checked[name] = options[name].check(value, f"{where}: ")
    return checked


def _placed(text: str, beginnings: tuple[str, ...], folder: Path) -> str:
    """A text that names files from the configuration's folder, as one that does from the current folder."""
    for beginning in beginnings:
        path = text.removeprefix(beginning)
        if not path or not text.startswith(beginning) or Path(path).expanduser().is_absolute():
            continue
        if folder.absolute() == Path.cwd():
            return text
        names = (path, path.rpartition(":")[0])  # saved:FILE:2
        if any(name and (folder / name).exists() for name in names) or any(folder.glob(path)):
            return f"{beginning}{folder / path}"
    return text


def _check_verb(name: str, path: Path) -> None:
    import landscape.analyses

    known = {m.name for m in pkgutil.iter_modules(landscape.analyses.__path__) if not m.name.startswith("_")}
    if name not in known or not hasattr(importlib.import_module(f"landscape.analyses.{name}"), "Settings"):
        raise ConfigurationError(
            f"{shown(path)} has a table [{shown(name)}], which is no command",
            do=nearest(name, {*known, "models", BATCH}),
        )


def _settings_of(verb: str) -> type:
    settings: type = importlib.import_module(f"landscape.analyses.{verb}").Settings
    return settings


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{where} holds text", found=repr(value))
    return value


def _texts(where: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ConfigurationError(f"{where} is a list of patterns", found=repr(value))
    return tuple(_text(where, item) for item in items)
