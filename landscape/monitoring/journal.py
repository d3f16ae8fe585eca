"""Measurements on disk as they come: a line each in a journal, and now and then all of them in HDF5.

To rewrite a result file at each measurement would take time that grows with what is in it. So each
measurement is appended to a journal beside the file, which a kill can only cut at its end, and the file is
written as often as there is time for. :func:`recover` puts into the file what a killed process left.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import warnings
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from landscape.errors import StoreError
from landscape.files import printable
from landscape.monitoring.columns import Columns, Row, assembled
from landscape.results import CheckpointReference, MonitorResult, Provenance
from landscape.store import ResultFile, locked
from landscape.store.files import os_errors

__all__ = ["Ledger", "recover"]

_FORMAT = 1
_ENDING = ".journal"
_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class Ledger:
    """The measurements of one monitor: in memory, in its journal and in its result file.

    Nothing that the disk refuses is lost while the process lives: it is tried again at the next writing.

    Raises:
        StoreError: the result file cannot be written.
    """

    def __init__(self, output: Path | None, fixed: Mapping[str, Any], provenance: Provenance) -> None:
        self.columns, self.fixed, self.provenance = Columns(), dict(fixed), provenance
        self.path, self.state = output, dict[str, Any]()
        self._descriptor: int | None = None
        self._process, self._held = os.getpid(), contextlib.ExitStack()
        self._closed = False
        if self.path is not None:
            recover(self.path)
            self._journal = _journal_path(self.path, provenance.id)
            with os_errors("write", self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._held.enter_context(locked(self._journal, timeout=0.0))
                self._descriptor = os.open(self._journal, _APPENDING, 0o666)
            self._append({"format": _FORMAT, "fixed": self.fixed, "run": dataclasses.asdict(provenance)})
            # Registered after HDF5's own, which runs after it, then.
            atexit.register(_close, weakref.ref(self))

    def begin(self, state: Mapping[str, Any]) -> None:
        """Write the result file for the first time, without measurements.

        Raises:
            StoreError: it cannot be written; the journal is gone.
        """
        self.state = dict(state)
        try:
            self.write()
        except BaseException:
            self._end(keep=False)
            raise

    def add(self, row: Row, state: Mapping[str, Any]) -> None:
        """Keep a measurement; ``state`` are the quantities that it changed.

        Raises:
            OSError: the journal could not be written; the measurement is kept in memory.
        """
        self.columns.add(row)
        self.state = dict(state)
        self._append({"row": dict(row), "state": self.state})

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            return
        text = json.dumps(entry).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        if os.write(self._descriptor, line) != len(line):
            # What follows would stand on the cut line: begin a new one.
            os.write(self._descriptor, b"\n")
            raise OSError(f"cannot write all of {printable(self._journal)}")

    def result(self, status: str) -> MonitorResult:
        """All measurements so far."""
        return assembled(self.columns, self.fixed, self.state, self.provenance, status)

    def write(self, status: str = "partial") -> None:
        """Put the measurements so far into the result file, in place of those of before.

        Raises:
            StoreError: the disk is full, or the file cannot be written.
        """
        if self.path is not None and self.state:
            seconds = float(self.state["training_seconds"] + self.state["monitor_seconds"])
            self.provenance = dataclasses.replace(self.provenance, seconds=seconds)
            ResultFile(self.path).add(self.result(status))

    def close(self, status: str = "partial", state: Mapping[str, Any] | None = None) -> None:
        """Write the result file a last time and remove the journal; again, it does nothing.

        Raises:
            StoreError: the result file could not be written; the journal stays.
        """
        if self._closed or os.getpid() != self._process:
            return
        if state is not None:
            self.state = dict(state)
        written = False
        try:
            self.write(status)
            written = True
        finally:
            self._end(keep=not written)

    def _end(self, keep: bool) -> None:
        """Let the journal go, or leave it to be recovered."""
        self._closed = True
        if self._descriptor is None:
            return
        if not keep:
            self._journal.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._held.close()

    def abandon(self) -> None:
        """As :meth:`close`, for nobody who could be told but by a warning."""
        try:
            self.close()
        except StoreError as error:
            warnings.warn(f"landscape.Monitor: {error}", RuntimeWarning, stacklevel=2)


def recover(output: str | Path) -> list[str]:
    """Put what killed monitors left in their journals into their result file.

    Journals of monitors that are still running are left alone.

    Returns:
        The ids of the runs that were put in.

    Raises:
        StoreError: a journal or the result file cannot be read or written.
    """
    path, found = Path(output), []
    if not path.parent.is_dir():
        return []
    for journal in sorted(path.parent.glob(f"{_escaped(path.stem)}.monitor-*{_ENDING}")):
        with contextlib.suppress(_Busy), _alone(journal):
            result = _read(journal)
            if result is not None:
                ResultFile(path).add(result)
                found.append(result.provenance.id if result.provenance else "")
            journal.unlink(missing_ok=True)
    return found


def recover_in(place: Path) -> None:
    """:func:`recover` for a result file, or all that have journals in a folder, as far as that can be done.

    For whoever is about to read there: what cannot be put in stays in its journal.
    """
    folder = place if place.is_dir() else place.parent
    found = {journal.name.partition(".monitor-")[0] for journal in folder.glob(f"*.monitor-*{_ENDING}")}
    for stem in sorted(found):
        path = folder / f"{stem}.h5"
        if place in (folder, path):
            with contextlib.suppress(StoreError):
                recover(path)


def _close(ledger: weakref.ref[Ledger]) -> None:
    """At the end of the process: write what a monitor that nobody closed has measured."""
    found = ledger()
    if found is not None:
        found.abandon()


class _Busy(Exception):
    """A running monitor holds the journal."""


@contextlib.contextmanager
def _alone(journal: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(journal, timeout=0.0))
        except StoreError as error:
            raise _Busy from error
        yield


def _read(journal: Path) -> MonitorResult | None:
    """The measurements in a journal, up to the first that is not whole; None if there are none."""
    columns, header, state = Columns(), None, None
    for entry in _entries(journal):
        if header is None:
            header = entry
        else:
            columns.add(entry["row"])
            state = entry["state"]
    if header is None or state is None:
        return None
    if header["format"] != _FORMAT:
        raise StoreError(
            f"{printable(journal)} was written by another landscape",
            found=f"format {header['format']}",
            do="use that version to put it into its result file",
        )
    run = dict(header["run"])
    reference = run.pop("checkpoint")
    seconds = float(state["training_seconds"] + state["monitor_seconds"])
    provenance = Provenance(
        **run | {"seconds": seconds},
        checkpoint=None if reference is None else CheckpointReference(**reference),
    )
    return assembled(columns, header["fixed"], state, provenance, "partial")


def _entries(journal: Path) -> Iterator[dict[str, Any]]:
    """What its whole lines say; a line that was cut, as a kill or a full disk leaves it, is passed over."""
    with open(journal, "rb") as file:
        for line in file:
            check, _, text = line.rstrip(b"\n").partition(b" ")
            with contextlib.suppress(ValueError):
                if int(check, 16) == zlib.crc32(text):
                    yield json.loads(text)


def _journal_path(output: Path, run_id: str) -> Path:
    return output.with_name(f"{output.stem}.{run_id}{_ENDING}")


def _escaped(stem: str) -> str:
    """A stem with what a glob would take for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)
