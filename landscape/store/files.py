"""A lock between writers, and errors of the operating system that advise."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from landscape.errors import StoreError
from landscape.files import printable

__all__ = ["locked", "os_errors"]

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

#: Descriptors of the locks held here.
_HELD: set[int] = set()


def _leave_to_parent() -> None:
    """A forked process shares its parent's locks, and would hold them for as long as it lives, too."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


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
    _HELD.add(descriptor)
    try:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        if descriptor in _HELD:  # not in a process that was forked inside
            lock.unlink(missing_ok=True)
            _HELD.remove(descriptor)
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
