"""Result files: one HDF5 file per checkpoint, one group per run, replaced whole under a lock."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py

from landscape.errors import StoreError
from landscape.files import printable, remove_stale, replace_atomically
from landscape.results import Result
from landscape.store.files import locked, os_errors
from landscape.store.hdf import (
    attributes,
    check_version,
    group_at,
    groups,
    opened,
    read_record,
    sealed,
    unsealed,
    write_record,
)
from landscape.store.record import Attribute, Record, decode, digest, encode

__all__ = ["FORMAT_VERSION", "Header", "ResultFile", "default_path", "partial_path"]

#: Layout of the files written here. Files of every version up to this one are read.
FORMAT_VERSION = 1

_CHECKSUM = "contents_sha256"
_RUN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a list of runs shows of each."""

    id: str
    kind: str
    status: str
    started: str
    seconds: float
    command: str
    checkpoint_path: str | None
    checkpoint_step: int | None
    checkpoint_epoch: int | None = None
    checkpoint_sha256: str | None = None
    recipe: str = ""


class ResultFile:
    """The results of the runs on one checkpoint.

    Every method reads the file afresh, so several processes may use one file. Errors are
    :class:`~landscape.errors.StoreError`.
    """

    def __init__(self, path: str | Path, *, lock_timeout: float = 60.0) -> None:
        self.path = Path(path)
        self._lock_timeout = lock_timeout

    def runs(self) -> tuple[Header, ...]:
        """The stored runs, oldest first; reads no arrays."""
        with opened(self.path) as file:
            runs = self._runs(file)
            found = [_header(name, attributes(group_at(runs, name))) for name in groups(runs)]
        return tuple(sorted(found, key=lambda h: (h.started, h.id)))

    def find(self, run_id: str) -> Header | None:
        """The run of exactly this id; None if it, or the file, is not there."""
        if not self.path.exists():
            return None
        with opened(self.path) as file:
            runs = self._runs(file)
            return _header(run_id, attributes(group_at(runs, run_id))) if run_id in set(runs) else None

    def read(self, run: str | Header) -> Result:
        """The result of a run, with its provenance; the start of an id is enough if it is the only such."""
        run_id = run.id if isinstance(run, Header) else run
        with opened(self.path) as file:
            runs = self._runs(file)
            name = self._choose(run_id, groups(runs))
            record = read_record(group_at(runs, name))
        where = f"run {printable(name)} in {printable(self.path)}"
        return decode(_verified(record, where), where)

    def add(self, result: Result) -> None:
        """Add a result, in place of a run of the same id; other runs stay, whoever writes beside us.

        The new file is complete before it replaces the old one. Raises ValueError for a result without
        provenance, or with an id that is no plain word.
        """
        record = encode(result)
        name = str(record.attributes["id"])
        if not _RUN_ID.fullmatch(name):
            raise ValueError(f"run id {name!r}: use letters, digits, '.', '_' and '-'")
        record = Record({**record.attributes, _CHECKSUM: digest(record)}, record.variables)
        with self._locked():
            if self.path.exists() and self.find(name) is None:
                self._replace(_appended(unsealed(self.path.read_bytes(), self.path), name, record))
            else:
                before = self._records() if self.path.exists() else {}
                self._replace(_image({**before, name: record}))

    def remove(self, ids: Iterable[str]) -> None:
        """Delete runs by their whole ids; all of them or, if one is not there, none."""
        with opened(self.path):
            pass
        with self._locked():
            runs = self._records()
            for name in ids:
                if name not in runs:
                    raise self._no_run(name, list(runs))
                del runs[name]
            self._replace(_image(runs))

    def check_writable(self) -> None:
        """Raise now what :meth:`add` would raise after the work: no permission, another program's file, …"""
        with self._locked():
            if self.path.exists():
                self.runs()
            replace_atomically(self._probe, lambda file: file.write(bytes(1 << 16)))
            self._probe.unlink()

    @property
    def _probe(self) -> Path:
        return self.path.with_name(f".{self.path.name}.probe")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with os_errors("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path, self._lock_timeout):
                for written in (self.path, self._probe):
                    remove_stale(written)
                self._probe.unlink(missing_ok=True)  # a kill came between
                yield

    def _replace(self, image: bytes) -> None:
        replace_atomically(self.path, lambda file: file.write(sealed(image)))

    def _records(self) -> dict[str, Record]:
        """Every run as it is stored; checksums go along unchecked, so that no damage stops a new result."""
        with opened(self.path) as file:
            runs = self._runs(file)
            if others := set(file) - {"runs"}:
                raise StoreError(
                    f"{printable(self.path)} holds more than landscape wrote, which would be lost",
                    found=", ".join(sorted(map(printable, others))[:6]),
                    do="choose another file with -o FILE",
                )
            return {name: read_record(group_at(runs, name)) for name in groups(runs)}

    def _runs(self, file: h5py.File) -> h5py.Group:
        check_version(file, self.path, FORMAT_VERSION, "runs")
        return group_at(file, "runs")

    def _choose(self, start: str, names: list[str]) -> str:
        if start in names:
            return start
        fitting = [name for name in names if start and name.startswith(start)]
        if len(fitting) > 1:
            raise StoreError(
                f"{printable(start)} is the start of {len(fitting)} runs in {printable(self.path)}",
                found=", ".join(map(printable, fitting[:6])),
                do="give more of the id",
            )
        if not fitting:
            raise self._no_run(start, names)
        return fitting[0]

    def _no_run(self, name: str, names: list[str]) -> StoreError:
        return StoreError(
            f"{printable(self.path)} holds no run {printable(name)}",
            found=", ".join(map(printable, names[:6])) + (", …" if len(names) > 6 else "") or "no runs",
            do=f"list them with: landscape show {printable(self.path)}",
        )


def default_path(checkpoint: str | Path, sha256: str, folder: str | Path = "landscape-results") -> Path:
    """``<folder>/<stem>-<8 hex>.h5``: by name for the reader, by content for the program.

    Characters of the stem that not every file system or terminal takes become ``_``.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8,}", sha256):
        raise ValueError(f"not a SHA-256 in hexadecimal: {sha256!r}")
    path = Path(checkpoint)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", path.name if _is_folder(path) else path.stem).strip("._-")[:80]
    return Path(folder) / f"{stem or 'checkpoint'}-{sha256[:8].lower()}.h5"


def _is_folder(path: Path) -> bool:
    """Whether it is one that is there: its name has no ending that says what it is."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no name that a file could have
        return False


def partial_path(result_path: str | Path, run_id: str) -> Path:
    """Where an unfinished run keeps its state: beside its result file, one file per run."""
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"not a run id: {run_id!r}")
    path = Path(result_path)
    return path.with_name(f"{path.stem}.{run_id}.partial")


def _image(runs: Mapping[str, Record]) -> bytes:
    """A whole file as bytes: made in memory, so that a full disk is met by a plain write."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        parent = file.create_group("runs")
        for name, record in runs.items():
            write_record(parent, name, record)
    return image.getvalue()


def _appended(before: bytes, name: str, record: Record) -> bytes:
    """The file ``before`` with one more run; nothing in it is read again or lost."""
    image = io.BytesIO(before)
    with h5py.File(image, "r+") as file:
        write_record(file["runs"], name, record)
    return image.getvalue()


def _header(name: str, found: Mapping[str, Attribute]) -> Header:
    path, content = found.get("checkpoint_path"), found.get("checkpoint_sha256")
    step, epoch = found.get("checkpoint_step"), found.get("checkpoint_epoch")
    return Header(
        id=name,
        kind=str(found["kind"]),
        status=str(found["status"]),
        started=str(found["started"]),
        seconds=float(found["duration"]),
        command=str(found["command"]),
        checkpoint_path=None if path is None else str(path),
        checkpoint_step=None if step is None else int(step),
        checkpoint_epoch=None if epoch is None else int(epoch),
        checkpoint_sha256=None if content is None else str(content),
        recipe=str(found.get("recipe", "")),
    )


def _verified(record: Record, where: str) -> Record:
    """``record`` without its seal, if the contents still fit it."""
    contents = {name: value for name, value in record.attributes.items() if name != _CHECKSUM}
    opened_record = Record(contents, record.variables)
    if record.attributes.get(_CHECKSUM) != digest(opened_record):
        raise StoreError(
            f"{where} was damaged or changed after it was stored",
            found="its contents do not fit their checksum",
            do="restore the file from a copy, or compute the run again with --fresh",
        )
    return opened_record
