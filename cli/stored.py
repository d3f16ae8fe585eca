"""Stored results as the commands meet them: the default folder, the runs of a file, one run chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import StoreError

if TYPE_CHECKING:
    from landscape.results import Result
    from landscape.store import Header, ResultFile

__all__ = ["FOLDER", "choose", "open_file", "read", "result_files", "runs_of"]

#: Where results go unless told otherwise.
FOLDER = Path("landscape-results")


def result_files() -> list[Path]:
    """The result files of the default folder, the one changed last first."""
    from landscape.store import holds_vectors

    found = [path for path in FOLDER.glob("*.h5") if not holds_vectors(path)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def runs_of(paths: list[Path]) -> list[Path]:
    """Those of several files that hold runs: a pattern also finds the vectors that lie beside them."""
    from landscape.store import holds_vectors

    if len(paths) < 2:
        return paths
    return [path for path in paths if not (path.is_file() and holds_vectors(path))] or paths


def open_file(path: Path) -> ResultFile:
    """The result file at ``path``, with what monitors that were killed had measured for it.

    Raises:
        StoreError: there is no such file; says which there are.
    """
    from landscape.monitoring import recover_in
    from landscape.store import ResultFile

    if not path.is_file():
        there = [str(found) for found in result_files()]
        raise StoreError(
            f"no result file {path}",
            found="a folder" if path.is_dir() else ", ".join(there[:5]) or f"nothing in {FOLDER}",
            do="landscape show lists the result files of this folder",
        )
    recover_in(path)
    return ResultFile(path)


def choose(file: ResultFile, given: str) -> Header:
    """The run of ``file`` whose id is, or alone starts with, ``given``.

    Raises:
        StoreError: there is none, or there are several.
    """
    headers = file.runs()
    fitting = [h for h in headers if h.id == given] or [h for h in headers if h.id.startswith(given)]
    if len(fitting) == 1 and given:
        return fitting[0]
    listed = ", ".join(h.id for h in (fitting or headers)[:6]) or "no runs"
    if fitting:
        raise StoreError(
            f"{len(fitting)} runs in {file.path} start with {given!r}", found=listed, do="give more of the id"
        )
    raise StoreError(
        f"{file.path} holds no run {given!r}", found=listed, do=f"landscape show {file.path} lists them"
    )


def read(file: ResultFile, given: str | None) -> tuple[Result, int]:
    """The chosen run, or the latest one; and among how many.

    Raises:
        StoreError: there is no such run, or it cannot be read.
    """
    headers = file.runs()
    if not headers:
        raise StoreError(f"{file.path} holds no runs", do="landscape eigen CHECKPOINT makes one")
    header = headers[-1] if given is None else choose(file, given)
    return file.read(header.id), len(headers)
