"""Stored runs of one kind as an xarray Dataset, one beside the other along the checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import short_names
from landscape.results import Quantity, Result
from landscape.store.record import encode
from landscape.study.tables import EXTRA

if TYPE_CHECKING:
    import xarray

    from landscape.study.collection import Runs

__all__ = ["stacked"]

_ALONG = "checkpoint"
_MASK = "_not_computed"

#: Dimensions, values, what was not computed (None: nothing), attributes.
_Variable = tuple[tuple[str, ...], NDArray[Any], NDArray[np.bool_] | None, dict[str, str]]


def stacked(runs: Runs, kind: str | None = None) -> xarray.Dataset:
    """The runs of ``kind`` (default: the only one) along ``checkpoint``, unequal lengths padded.

    Raises:
        InputError: xarray is not installed, or there is no such kind or, without ``kind``, more than one.
        StoreError: a run cannot be read.
    """
    try:
        import xarray
    except ImportError as error:
        raise InputError("datasets need the package xarray, which is not installed", do=EXTRA) from error
    chosen = runs.where(kind=_kind(runs, kind))
    results = [entry.read() for entry in chosen]
    variables: dict[str, Any] = {}
    coordinates = _coordinates(chosen)
    sizes = _sizes(results)
    for quantity in results[0].quantities():
        for name, (dims, values, missing, attributes) in _together(quantity, results, sizes).items():
            home = variables if _ALONG in dims else coordinates
            home[name] = (dims, values, attributes)
            if missing is not None:
                text = f"Whether {name} was not computed, or is padding."
                variables[name + _MASK] = (dims, missing, {"long_name": text})
    return xarray.Dataset(variables, coordinates, _shared(results))


def _kind(runs: Runs, given: str | None) -> str:
    if (given is None and len(runs.kinds) == 1) or given in runs.kinds:
        return given or runs.kinds[0]
    raise InputError(
        "a dataset holds runs of one kind" if given is None else f"there are no runs of {given!r}",
        found=", ".join(runs.kinds) or "no runs",
        do="name one: .xarray(kind)" if runs.kinds else "landscape eigen CHECKPOINT makes some",
    )


def _coordinates(runs: Runs) -> dict[str, Any]:
    """What tells the runs apart, along the checkpoints."""
    headers = runs.runs()
    names = short_names([h.checkpoint_path or e.file.name for h, e in zip(headers, runs, strict=True)])
    found: dict[str, Any] = {_ALONG: (_ALONG, np.array(names, object), {"long_name": "Checkpoint."})}
    texts = {"run": [h.id for h in headers], "training": [entry.training for entry in runs]}
    found |= {name: (_ALONG, np.array(values, object)) for name, values in texts.items()}
    times = {
        "step": ([h.checkpoint_step for h in headers], "Training step."),
        "epoch": ([h.checkpoint_epoch for h in headers], "Epoch."),
    }
    for name, (values, text) in times.items():
        missing = any(value is None for value in values)
        found[name] = (_ALONG, np.array(values, np.float64 if missing else np.int64), {"long_name": text})
    return found


def _sizes(results: Sequence[Result]) -> Mapping[str, int]:
    """The largest size of each dimension: what is shorter is padded to it."""
    sizes: dict[str, int] = {}
    for result in results:
        for quantity, value in result:
            if value is not None:
                shape = np.shape(value)
                for dim, size in zip(quantity.dims_of(len(shape)), shape, strict=True):
                    sizes[dim] = max(size, sizes.get(dim, 0))
    return sizes


def _together(
    quantity: Quantity, results: Sequence[Result], sizes: Mapping[str, int]
) -> Mapping[str, _Variable]:
    """One quantity of all results; where all have the same names or coordinates, once for all."""
    given = [_array(getattr(result, quantity.name)) for result in results]
    there = [array for array in given if array is not None]
    if not there:
        return {}
    if len({array.ndim for array in there}) > 1:
        raise InputError(
            f"these {results[0].kind} runs have no dimensions in common",
            found=f"{quantity.name} along {' and along '.join(_ways(quantity, there))}",
            do="filter the runs first: .where(id=…), .where(along=…)",
        )
    dims = quantity.dims_of(there[0].ndim)
    attributes = {"long_name": quantity.text, "units": quantity.unit}
    if _names_places(quantity, there[0]) and len(there) == len(given) and _same(there):
        return {quantity.name: (dims, _texts(there[0]), None, attributes)}
    name = quantity.name if quantity.name not in dims else f"{quantity.name}_values"
    shape = tuple(sizes[dim] for dim in dims)
    kind = np.result_type(*there) if _numeric(there) else object
    values: Any = np.ma.MaskedArray(np.zeros((len(given), *shape), kind), mask=True)
    for row, array in enumerate(given):
        if array is not None:  # an array of no dimensions would become an element of one of objects
            values[(row, *map(slice, array.shape))] = array if array.ndim else array.item()
    return {name: ((_ALONG, *dims), *_filled(values), attributes)}


def _ways(quantity: Quantity, arrays: Sequence[np.ma.MaskedArray]) -> list[str]:
    return ["(" + ", ".join(quantity.dims_of(count)) + ")" for count in sorted({a.ndim for a in arrays})]


def _array(value: Any) -> np.ma.MaskedArray | None:
    return None if value is None else np.ma.asanyarray(value, object if isinstance(value, str) else None)


def _names_places(quantity: Quantity, array: np.ma.MaskedArray) -> bool:
    """Whether it is the coordinates or the names along a dimension."""
    return len(quantity.dims) == 1 and (quantity.dims == (quantity.name,) or array.dtype.kind in "OU")


def _same(arrays: Sequence[np.ma.MaskedArray]) -> bool:
    first = arrays[0].tolist()
    return all(array.tolist() == first for array in arrays)


def _numeric(arrays: Sequence[np.ma.MaskedArray]) -> bool:
    return all(array.dtype.kind in "biuf" for array in arrays)


def _filled(values: np.ma.MaskedArray) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Plain values and, where something is missing, where."""
    missing = np.ma.getmaskarray(values)
    if values.dtype.kind == "O":
        return _texts(values), missing if missing.any() else None
    if not missing.any():
        return np.asarray(values), None
    wide = values.data.astype(np.float64) if values.dtype.kind != "f" else values.data.copy()
    wide[missing] = np.nan
    return wide, missing


def _texts(values: np.ma.MaskedArray) -> NDArray[Any]:
    """Plain values; masked texts are empty."""
    return np.asarray(values.filled("")) if values.dtype.kind in "OU" else np.asarray(values)


def _shared(results: Sequence[Result]) -> dict[str, Any]:
    """Attributes that all runs have in common: what was asked, of what, and with what."""
    found = [encode(result).attributes for result in results]
    same = {k: v for k, v in found[0].items() if all(k in other and other[k] == v for other in found)}
    return {k: v for k, v in same.items() if k not in ("status", "not_computed")}  # they are variables
