"""User code: ``file.py:name`` and ``package.module:name`` become objects. ``sys.path`` is not touched."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import inspect
import random
import shlex
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from landscape.errors import ConfigurationError, LandscapeError
from landscape.project.text import nearest, shown

__all__ = ["Importer", "Source", "UserObject", "required_arguments"]


@dataclass(frozen=True)
class Source:
    """One thing the user named: its text, the folder that relative paths start from, and who said so."""

    name: str
    text: str
    folder: Path
    origin: str

    @property
    def label(self) -> str:
        """How messages call it, such as ``--model net.py:build`` or ``model = "net.py:build" (a.toml)``."""
        if self.origin == "options":
            return f"--{self.name} {shown(self.text)}"
        return f'{self.name} = "{shown(self.text)}" ({self.origin})'

    @property
    def path(self) -> Path:
        """The text as a file."""
        return self.folder / Path(self.text).expanduser()


@dataclass(frozen=True)
class UserObject:
    """What a :class:`Source` named, and the file that defines it, for messages."""

    value: Any
    source: Source
    file: str

    def call(self, *arguments: Any) -> Any:
        """Call it. What it prints goes to stderr; the state of the random generators is put back.

        Raises:
            ConfigurationError: it raised; its type, message and line are named, the cause is chained.
        """
        with _user_code(self.source, self.file, "raised"):
            return self.value(*arguments)

    def wrong(self, wanted: str, value: Any, do: str = "") -> ConfigurationError:
        """The error for a ``value`` of the wrong type."""
        found = type(value).__name__ if value is not None else "None (is a return missing?)"
        return ConfigurationError(f"{self.source.label} does not give {wanted}", found=shown(found), do=do)


class Importer:
    """Loads what sources name; a file named twice runs once."""

    def __init__(self) -> None:
        self._loaded: dict[Path, types.ModuleType] = {}
        self._files: set[str] = set()

    def load(self, source: Source, default: str | None = None) -> UserObject:
        """The object that ``source`` names; ``default`` is the attribute taken where none is named.

        Raises:
            ConfigurationError: no such file, module or attribute, or an exception while importing.
        """
        place, attribute = _split(source.text)
        if place.endswith(".py"):
            module = self._file(source, place)
        elif attribute is None or not place or "/" in place or "\\" in place:
            raise ConfigurationError(
                f"{source.label} names no factory",
                do="write file.py:NAME or package.module:NAME"
                + (", or an array file (.npz, .h5, .safetensors)" if source.name == "data" else ""),
            )
        else:
            module = self._module(source, place)
        file = getattr(module, "__file__", None) or place
        self._files.add(file)
        return UserObject(_attribute(module, attribute or default, source), source, file)

    @contextlib.contextmanager
    def reading(self, source: Source) -> Iterator[None]:
        """Run something of ours that calls user code (a data set's ``__getitem__``, say).

        Raises:
            ConfigurationError: an exception that went through a file named here; others pass unchanged.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr), _same_randomness():
                yield
        except Exception as error:
            cause = error.__cause__ if isinstance(error, LandscapeError) else error
            if not isinstance(cause, Exception):
                raise
            passed = [frame.filename for frame in traceback.extract_tb(cause.__traceback__)]
            own = [file for file in passed if file in self._files]
            if not own:
                raise
            raise _explained(cause, source, own[-1], "raised") from cause

    def _file(self, source: Source, place: str) -> types.ModuleType:
        path = (source.folder / Path(place).expanduser()).resolve()
        if path in self._loaded:
            return self._loaded[path]
        if not path.is_file():
            raise ConfigurationError(
                f"{source.label}: no file {shown(path)}", do=nearest(path.name, _beside(path, "*.py"))
            )
        # A name of its own, so that no public module is shadowed; registered, because dataclasses and pickle
        # (worker processes of a DataLoader) look a class's module up.
        name = "_landscape_user_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
        spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        before = sys.modules.get(name)
        sys.modules[name] = module
        try:
            with _user_code(source, str(path), "failed to import with"):
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name)
            if before is not None:
                sys.modules[name] = before
            raise
        self._loaded[path] = module
        return module

    def _module(self, source: Source, place: str) -> types.ModuleType:
        with _user_code(source, "", "failed to import with"):
            try:
                return importlib.import_module(place)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                    raise
                file = Path(*place.split(".")).with_suffix(".py")
                name = source.text.rpartition(":")[2] if ":" in source.text else "NAME"
                raise ConfigurationError(
                    f"{source.label}: no installed module {shown(error.name)}",
                    found=f"{file} in {shown(source.folder)}" if (source.folder / file).is_file() else "",
                    do=f"a file is named by its path: --{source.name} {shown(file)}:{shown(name)} "
                    "(the current folder is not searched)",
                ) from error


class _Uncached(SourceFileLoader):
    """Compiles the source each time: no ``__pycache__`` appears beside the user's file, none is trusted."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def required_arguments(value: Callable[..., Any]) -> list[str] | None:
    """Names of the arguments without which ``value`` cannot be called; ``None`` if that is not known."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _split(text: str) -> tuple[str, str | None]:
    """``file.py:name`` in two; a colon inside a path (a drive letter) does not count."""
    place, colon, name = text.rpartition(":")
    if not colon or name.endswith(".py"):
        return text, None
    return place, name


def _attribute(module: types.ModuleType, name: str | None, source: Source) -> Any:
    if not name:
        raise ConfigurationError(
            f"{source.label} names a file or module, but nothing in it",
            do=f"append one of its names after a colon; {nearest('', _defined(module)) or 'it defines none'}",
        )
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise ConfigurationError(
                f"{source.label}: nothing is called {shown(name)!r} there",
                do=nearest(name, _defined(module)) or "the file defines nothing",
            ) from None
    return value


def _defined(module: types.ModuleType) -> list[str]:
    """Public names that ``module`` makes itself, not those it imports."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and (not callable(value) or getattr(value, "__module__", None) in (module.__name__, None))
    ]


def _beside(path: Path, pattern: str) -> list[str]:
    return [p.name for p in path.parent.glob(pattern)] if path.parent.is_dir() else []


@contextlib.contextmanager
def _user_code(source: Source, file: str, verb: str) -> Iterator[None]:
    """Run user code: its output to stderr, its exceptions explained, the random generators put back."""
    try:
        with contextlib.redirect_stdout(sys.stderr), _same_randomness():
            yield
    except LandscapeError:
        raise
    except (Exception, SystemExit) as error:
        raise _explained(error, source, file, verb) from error


def _explained(error: BaseException, source: Source, file: str, verb: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source.label} {verb} {shown(type(error).__name__)}",
        found=f"{shown(error) or 'no message'} ({_line(error, file)})",
        do=_advice(error, source, file),
    )


@contextlib.contextmanager
def _same_randomness() -> Iterator[None]:
    """Put Python's, NumPy's and torch's global generators back afterwards: factories draw initial weights."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), copy.deepcopy(np.random.get_state())  # noqa: NPY002 (not ours to replace)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _line(error: BaseException, file: str) -> str:
    """``file:line`` of the deepest frame in the user's file, else of the deepest frame."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == file] or frames
    return f"{shown(own[-1].filename)}:{own[-1].lineno}" if own else shown(file)


def _advice(error: BaseException, source: Source, file: str) -> str:
    """What to do about an exception of user code."""
    if isinstance(error, SystemExit):
        return 'put what the file does as a program behind if __name__ == "__main__":'
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing(error.name, Path(file), source)
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "install the package the file belongs to, and name it as package.module:NAME"
    return "--debug shows the whole traceback"


def _missing(name: str, file: Path, source: Source) -> str:
    """How to make an import work that failed in the user's ``file``."""
    top = name.partition(".")[0]
    install = (
        f"install {shown(top)} in the environment that landscape runs in, or set PYTHONPATH to its folder"
    )
    if not file.suffix:
        return install
    sibling, folder = file.parent / f"{top}.py", shown(shlex.quote(str(file.parent)))
    if sibling.is_file():
        return (
            f"{shown(sibling.name)} lies beside it, but its folder is not searched: set"
            f" PYTHONPATH={folder} (PYTHONPATH=. there), install it as a package,"
            f" or name that file itself: --{source.name} {shown(shlex.quote(str(sibling)))}:NAME"
        )
    if (file.parent / top).is_dir():
        return (
            f"the folder {shown(top)} lies beside it, but is not searched: set PYTHONPATH={folder}"
            " (PYTHONPATH=. there), or install it as a package"
        )
    return install
