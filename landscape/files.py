"""Writing files whole or not at all, and text from outside made harmless to show."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "natural_order",
    "number_in",
    "printable",
    "remove_stale",
    "replace_atomically",
    "saved_at",
    "short_names",
    "training_name",
]

#: What a file's name says of the time: a number, and the word before it.
_TIME = re.compile(r"[-_.=]?(epoch|step|iter|ckpt|checkpoint)?[-_.=]?(\d+)", re.IGNORECASE)


def printable(text: object) -> str:
    """``text`` as one line, control and other unprintable characters written as escapes.

    >>> printable("a layer\\x1b[31m")
    'a layer\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts ``step9`` before ``step10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def training_name(stem: str) -> str:
    """What checkpoints of one training run have in common: their names without numbers.

    >>> training_name("mlp-sgd-epoch010")
    'mlp-sgd'
    """
    return _TIME.sub("", stem)


def number_in(stem: str) -> int | None:
    """The time that a checkpoint's name gives: its last number; None without one.

    >>> number_in("resnet20-step4000")
    4000
    """
    found = _TIME.findall(stem)
    return int(found[-1][1]) if found else None


def saved_at(field: str, stem: str, step: int | None, epoch: int | None) -> int | None:
    """When a checkpoint was saved: its ``step``, its ``epoch``, or the last ``number`` in its name.

    Where the file does not know its step or epoch, its name may say it, in so many words.

    >>> saved_at("epoch", "sam_epoch012", None, None), saved_at("step", "sam_epoch012", None, None)
    (12, None)
    """
    if field == "number":
        return number_in(stem)
    known, words = (step, ("step", "iter")) if field == "step" else (epoch, ("epoch",))
    if known is not None:
        return known
    found = [number for word, number in _TIME.findall(stem) if word.lower() in words]
    return int(found[-1]) if found else None


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """The file names, with as many folders before them as tell different files of one name apart.

    >>> short_names(["a/x/net.pt", "b/x/net.pt", "b/other.pt"])
    ['a/x/net.pt', 'b/x/net.pt', 'other.pt']
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    return [
        next(
            tail
            for depth in range(1, len(one.parts) + 1)
            if (tail := "/".join(one.parts[-depth:]))
            and not any(other != one and _tail(other, depth) == _tail(one, depth) for other in absolute)
        )
        for one in absolute
    ]


def _tail(path: Path, depth: int) -> tuple[str, ...]:
    return path.parts[-depth:]


def replace_atomically(path: Path, write: Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Let ``write`` fill a new file beside ``path``, then put it in the place of ``path`` in one step.

    Whenever the process or the machine stops, ``path`` is the old file or the new one, each whole. If
    anything fails, ``path`` is as before and the new file is gone. Links are followed, a mode is kept.
    Without ``durable`` that holds when the process stops, not when the machine does, and takes less time.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{_temporary_prefix(target)}{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(target.parent)


def remove_stale(path: Path) -> None:
    """Remove new files that killed writers of ``path`` left behind. Only while holding its lock."""
    target = Path(os.path.realpath(path))
    prefix = _temporary_prefix(target)
    with os.scandir(target.parent) as entries:
        stale = [e.path for e in entries if e.name.startswith(prefix) and e.name.endswith(".tmp")]
    for name in stale:
        Path(name).unlink(missing_ok=True)


def _temporary_prefix(target: Path) -> str:
    return f".{target.name}."


def _sync_folder(folder: Path) -> None:
    """Make a replacement last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
