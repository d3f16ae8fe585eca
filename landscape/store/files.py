"""Files that a kill cannot break: atomic replacement, a lock between writers, and errors that advise."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from landscape.errors import StoreError

__all__ = ["locked", "os_errors", "printable", "remove_stale", "replace_atomically"]

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere with -o FILE",
    errno.EDQUOT: "the disk quota is used up: free some space, or write elsewhere with -o FILE",
    errno.EFBIG: "the file would be larger than allowed here: write elsewhere with -o FILE",
    errno.EACCES: "check the permissions of the file and its folder, or choose another with -o FILE",
    errno.EPERM: "check the permissions of the file and its folder, or choose another with -o FILE",
    errno.EROFS: "the file system is read-only: write elsewhere with -o FILE",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another with -o FILE",
    errno.EEXIST: "a part of the path is a file, not a folder: choose another with -o FILE",
    errno.EISDIR: "this is a folder: name a file in it",
    errno.ENAMETOOLONG: "choose a shorter name with -o FILE",
    errno.ENOTSUP: "this file system does not lock files: write elsewhere with -o FILE",
    errno.ENOLCK: "this file system does not lock files: write elsewhere with -o FILE",
}


def printable(text: object) -> str:
    """``text`` as one line, control and other unprintable characters written as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


@contextlib.contextmanager
def os_errors(what: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` inside into a :class:`StoreError` that says ``what`` failed and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or printable(error)
        advice = _ADVICE.get(
            error.errno or 0, "check the file and its folder, or choose another with -o FILE"
        )
        raise StoreError(f"cannot {what} {printable(path)}", found=reason, do=advice) from error


def replace_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a new file beside ``path``, then put it in the place of ``path`` in one step.

    Whenever the process or the machine stops, ``path`` is the old file or the new one, each whole. If
    anything fails, ``path`` is as before and the new file is gone. Links are followed, a mode is kept.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{_temporary_prefix(target)}{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def remove_stale(path: Path) -> None:
    """Remove new files that killed writers of ``path`` left behind. Only while holding its lock."""
    target = Path(os.path.realpath(path))
    prefix = _temporary_prefix(target)
    with os.scandir(target.parent) as entries:
        stale = [e.path for e in entries if e.name.startswith(prefix) and e.name.endswith(".tmp")]
    for name in stale:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock that writers of ``path`` share (``flock`` on ``<path>.lock``, gone afterwards).

    The kernel gives the lock back when its holder dies, so a kill leaves nothing locked.

    Raises:
        StoreError: it was not free within ``timeout`` seconds; says who holds it.
        OSError: the folder cannot be written, or its file system has no locks.
    """
    target = os.path.realpath(path)
    lock = Path(f"{target}.lock")
    descriptor = _acquire(lock, timeout)
    try:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(lock, descriptor):
                return descriptor
            os.close(descriptor)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"waited {timeout:g} s for another writer of {printable(lock.with_suffix(''))}",
                    found=f"{printable(holder) or 'an unnamed process'} holds {printable(lock.name)}",
                    do="wait until it has finished, or end that process",
                ) from None
            time.sleep(0.02)
        except BaseException:
            os.close(descriptor)
            raise


def _is_still(lock: Path, descriptor: int) -> bool:
    """Whether the locked file is the one others will find (its last holder may just have removed it)."""
    try:
        found = os.stat(lock)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


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
