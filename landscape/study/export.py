"""Stored runs as CSV, JSON and npz, for other programs.

Absence: in CSV a number that came out as NaN is ``nan``, and what was not computed an empty cell; in npz a
number that came out as NaN is NaN, single elements that were not computed are True in ``<name>_mask``, and a
whole quantity that was not is left out; in JSON all of it is ``null``, as ``--json`` has it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError, StoreError
from landscape.files import printable, replace_atomically, short_names
from landscape.results import Result, jsonable
from landscape.store.files import os_errors
from landscape.study.collection import Runs, Stored, open_runs
from landscape.study.tables import Table, check_quantity, measures_table, table_of_elements

__all__ = ["ALL", "FORMATS", "csv_text", "export", "json_text", "npz_bytes", "run_object"]

FORMATS = ("csv", "json", "npz")
#: Stands for every array that the runs have.
ALL = "all"
#: Version of the JSON object: that of ``--json``.
FORMAT_VERSION = 1

_HDF5 = b"\x89HDF\r\n\x1a\n"
#: What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@")

_Read = Sequence[tuple[Stored, Result]]


def export(
    runs: Runs | str | Path, path: str | Path, *, format: str | None = None, quantities: Sequence[str] = ()
) -> tuple[Path, ...]:
    """Write runs for other programs; an existing file of that name is replaced, unless it holds results.

    Args:
        runs: the runs, or the file or folder that holds them.
        path: the file to write, which ends in ``.csv``, ``.json`` or ``.npz``; of several quantities as CSV
            the folder for a file of each.
        format: ``csv``, ``json`` or ``npz``; default: as the path ends, a folder being for CSV.
        quantities: names of quantities of the results, or ``"all"``. Default: as CSV the measures, a row for
            each run and measure; as JSON and npz everything.

    Returns:
        The files written.

    Raises:
        InputError: no runs, no such quantity, or a path that does not fit.
        StoreError: a run cannot be read, or the file cannot be written.
    """
    runs = runs if isinstance(runs, Runs) else open_runs(runs)
    path = Path(path).expanduser()
    chosen = format or path.suffix.lower().removeprefix(".") or "csv"
    several = chosen == "csv" and (len(quantities) > 1 or ALL in quantities)
    _check_format(chosen)
    _check_name(path, "" if several else f".{chosen}")
    if several:
        texts = _csv_of_each(runs, quantities)
        return tuple(_write(path / f"{name}.csv", text.encode()) for name, text in texts)
    return (_write(path, _CONTENTS[chosen](runs, quantities)),)


def csv_text(runs: Runs, quantity: str | None = None) -> str:
    """The measures, or the elements of one quantity, as CSV with a header, numbers to their last digit.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    if quantity is None:
        _check_some(runs)
        return _csv(measures_table(runs))
    return next(text for _, text in _csv_of_each(runs, [quantity]))


def json_text(runs: Runs, quantities: Sequence[str] = ()) -> str:
    """The object that ``--json`` prints, with the provenance of each run."""
    names = _checked(runs, quantities)
    objects = [
        _only(run_object(result, entry.file), names) | {"provenance": _rest(result)}
        for entry, result in _read(runs)
    ]
    payload = {"format_version": FORMAT_VERSION, "command": "export", "runs": objects}
    return json.dumps(payload, allow_nan=False, indent=2) + "\n"


def npz_bytes(runs: Runs, quantities: Sequence[str] = ()) -> bytes:
    """An npz archive: the quantities by name, of several runs ``<run>/<name>``; nothing in it is pickled.

    Numbers are arrays of no dimensions, text is Unicode; ``provenance`` is JSON.
    """
    names = _checked(runs, quantities)
    read = _read(runs)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for prefix, (_, result) in zip(_prefixes(runs), read, strict=True):
            for name, array in _arrays(result, names):
                _write_member(archive, f"{prefix}{name}.npy", array)
    return file.getvalue()


def run_object(result: Result, file: Path | None = None) -> dict[str, Any]:
    """One run as plain Python objects: an entry of ``runs`` in the object that ``--json`` prints."""
    found = _provenance(result)
    return {
        "id": found.get("id"),
        "kind": result.kind,
        "status": result.status,
        "checkpoint": found.get("checkpoint"),
        "settings": found.get("settings", {}),
        "seed": found.get("seed"),
        "file": None if file is None else str(file),
        "result": result.to_json(),
    }


def _provenance(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = {} if result.provenance is None else dataclasses.asdict(result.provenance)
    return {name: jsonable(value) for name, value in found.items()}


def _rest(result: Result) -> dict[str, Any]:
    """What the object of a run does not say of how it was obtained."""
    said = run_object(result)
    return {name: value for name, value in _provenance(result).items() if name not in said}


_CONTENTS: dict[str, Callable[[Runs, Sequence[str]], bytes]] = {
    "csv": lambda runs, quantities: csv_text(runs, *quantities).encode(),
    "json": lambda runs, quantities: json_text(runs, quantities).encode(),
    "npz": npz_bytes,
}


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise InputError(
            f"cannot export as {printable(format)!r}",
            do=f"choose one of {', '.join(FORMATS)}, or end the file's name so",
        )


def _check_name(path: Path, ending: str) -> None:
    """Whether a file, or without an ending a folder, may be written there."""
    if not ending:
        if path.suffix.lower() == ".csv" or path.is_file():
            raise InputError(
                "several quantities make a CSV file each", found=printable(path), do="name a folder"
            )
    elif path.suffix.lower() != ending:
        raise InputError(
            f"what is exported as {ending[1:]} goes into a file that ends in {ending}",
            found=printable(path),
            do=f"choose another name, or another of the formats {', '.join(FORMATS)}",
        )


def _check_some(runs: Runs) -> None:
    if not runs:
        raise InputError("there are no runs to export", do="landscape show lists what there is")


def _read(runs: Runs) -> _Read:
    _check_some(runs)
    return [(entry, entry.read()) for entry in runs]


def _checked(runs: Runs, quantities: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the quantities to take; None: every one."""
    if not quantities or ALL in quantities:
        return None
    for name in quantities:
        check_quantity(runs, name)
    return tuple(dict.fromkeys(quantities))


def _csv_of_each(runs: Runs, quantities: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A text for each quantity; every run is read once."""
    names = _checked(runs, quantities)
    read = _read(runs)
    if names is None:
        arrays = ((q.name, value) for _, result in read for q, value in result)
        names = tuple(dict.fromkeys(name for name, value in arrays if np.ndim(value)))
    return ((name, _csv(table_of_elements(read, name))) for name in names)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        line = printable(value)
        return f"'{line}" if line.lstrip().startswith(_FORMULA) else line
    return repr(value)  # the shortest digits that give the same float64


def _only(run: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    if names is None:
        return run
    return {**run, "result": {name: value for name, value in run["result"].items() if name in names}}


def _prefixes(runs: Runs) -> list[str]:
    """What comes before the names of each run's arrays."""
    if len(runs) == 1:
        return [""]
    ids = Counter(entry.header.id for entry in runs)
    names = [f"{entry.header.id}/" for entry in runs]
    if max(ids.values()) == 1:
        return names
    files = short_names([entry.file for entry in runs])
    return [f"{file}/{name}" for file, name in zip(files, names, strict=True)]


def _arrays(result: Result, names: Sequence[str] | None) -> Iterator[tuple[str, NDArray[Any]]]:
    """A result's quantities and masks, all without objects."""
    for q, value in result:
        if value is None or (names is not None and q.name not in names):
            continue
        yield q.name, _array(value)
        if isinstance(value, np.ma.MaskedArray):
            yield f"{q.name}_mask", np.ma.getmaskarray(value)
    if names is None:
        yield "provenance", np.array(json.dumps(_provenance(result)))


def _array(value: Any) -> NDArray[Any]:
    """``value`` without a mask: NaN or, for whole numbers and booleans, 0 for what was not computed."""
    array = np.array(np.ma.getdata(value))
    if array.dtype.kind not in "biuf":
        return array.astype(np.str_)
    mask = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
    if mask is not None:
        array[mask] = np.nan if array.dtype.kind == "f" else 0
    return array


def _write_member(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    # The time of a member is fixed, so that the same runs give the same bytes.
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(entry, "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _write(path: Path, contents: bytes) -> Path:
    """Write a whole file in one step; one that holds results is left alone."""

    def write(file: BinaryIO) -> None:
        file.write(contents)

    with os_errors("write", path):
        if path.is_file() and _begins_as_result(path):
            raise StoreError(
                f"{printable(path)} is a result file and would be lost",
                do="write elsewhere with -o FILE",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, write)
    return path


def _begins_as_result(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_HDF5)) == _HDF5
