"""A result as plain named values, and back: what every file format of the store agrees on.

A :class:`Record` holds attributes (strings and numbers) and variables (arrays with named dimensions); it
knows no HDF5, and of results only how they describe themselves. An element that was not computed is marked
in a companion variable ``<name>_not_computed`` (its value there is NaN, or 0 for whole numbers); a field that
was not computed is listed in the attribute ``not_computed``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import StoreError
from landscape.results import CheckpointReference, Provenance, Quantity, Result, kinds

__all__ = ["Attribute", "Record", "Variable", "decode", "digest", "encode", "plain"]

Attribute = str | int | float

_MASK = "_not_computed"
#: Dimensions that had another name in earlier files.
_FORMERLY = {"bound": "end"}
_JSON = ("settings", "problem", "strategy", "versions")
_TEXT = ("id", "command", "data_fingerprint", "device", "dtype", "started")


@dataclass(frozen=True, eq=False)
class Variable:
    """An array with a name for each of its dimensions; ``values`` is boolean, numeric or ``str``."""

    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Record:
    """One run: attributes and variables by name."""

    attributes: Mapping[str, Attribute]
    variables: Mapping[str, Variable]


def encode(result: Result) -> Record:
    """``result`` with its provenance as a record.

    Raises:
        ValueError: no provenance, or a field that does not fit its own description.
    """
    if result.provenance is None:
        raise ValueError("a result without provenance cannot be stored")
    variables = [v for q, value in result if value is not None for v in _variables(q, value)]
    _check_sizes(variables)
    attributes = {
        "kind": result.kind,
        "status": result.status,
        **_provenance_attributes(result.provenance),
        "not_computed": json.dumps([q.name for q, value in result if value is None]),
    }
    return Record(attributes, {v.name: v for v in variables})


def decode(record: Record, where: str) -> Result:
    """The result that a record describes; ``where`` names it in errors.

    Raises:
        StoreError: a kind this version does not know, or a field that is missing or of another shape.
    """
    kind = record.attributes.get("kind")
    cls = kinds().get(str(kind))
    if cls is None:
        raise StoreError(
            f"{where} is a result of a kind this landscape does not know",
            found=repr(kind),
            do="upgrade landscape to the version that made it",
        )
    try:
        absent = set(json.loads(str(record.attributes.get("not_computed", "[]"))))
        values = {q.name: _value(q, record, absent) for q in cls.quantities() if _has(q, record, absent)}
        return cls(**values, provenance=_provenance(record.attributes))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{where} is not a whole {kind} result", found=str(error), do="compute it again with --fresh"
        ) from error


def digest(record: Record) -> str:
    """SHA-256 of all that a record holds, whatever the order."""
    total = hashlib.sha256(json.dumps(dict(sorted(record.attributes.items()))).encode())
    for name, variable in sorted(record.variables.items()):
        values = variable.values
        head = [name, variable.dims, values.shape, dict(sorted(variable.attributes.items()))]
        text = values.dtype.kind == "O"
        head.append(values.tolist() if text else values.dtype.newbyteorder("<").str)
        total.update(json.dumps(head).encode())
        if not text:
            total.update(values.astype(values.dtype.newbyteorder("<"), order="C").tobytes())
    return total.hexdigest()


def plain(value: object) -> object:
    """``json.dumps(default=plain)``: NumPy scalars and arrays as Python's own, anything else as text."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def _variables(q: Quantity, value: Any) -> list[Variable]:
    """The variable of one quantity and, for a masked array, its companion."""
    # NumPy's own text loses trailing NULs: texts are objects.
    array = np.asanyarray(value, dtype=object if isinstance(value, str) else None)
    dims = q.dims_of(array.ndim)
    attributes = {"long_name": q.text, "units": q.unit}
    related = [q.error] if q.error else []
    if not isinstance(array, np.ma.MaskedArray):
        return [Variable(q.name, dims, _storable(q.name, array), _with(attributes, related))]
    mask = np.ma.getmaskarray(array).copy()
    data = np.array(array.data)
    data[mask] = np.nan if data.dtype.kind in "fc" else np.zeros((), data.dtype)
    companion = q.name + _MASK
    return [
        Variable(q.name, dims, _storable(q.name, data), _with(attributes, [*related, companion])),
        Variable(companion, dims, mask, {"long_name": f"Whether {q.name} was not computed.", "units": ""}),
    ]


def _with(attributes: dict[str, str], related: list[str]) -> dict[str, str]:
    """Name the variables that hold errors and masks, as the CF conventions (§3.4) do."""
    return attributes | ({"ancillary_variables": " ".join(related)} if related else {})


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "U":
        array = array.astype(object)
    if array.dtype.kind not in "biuf" and not all(isinstance(v, str) for v in array.flat):
        raise ValueError(f"{name} holds {array.dtype}, which cannot be stored")
    return array


def _check_sizes(variables: list[Variable]) -> None:
    sizes: dict[str, int] = {}
    for variable in variables:
        for dim, size in zip(variable.dims, variable.values.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{variable.name} has {size} along {dim}, others {sizes[dim]}")


def _has(q: Quantity, record: Record, absent: set[str]) -> bool:
    """False for a field that the file's version did not have yet: its default stands."""
    return q.name in absent or q.name in record.variables


def _value(q: Quantity, record: Record, absent: set[str]) -> Any:
    if q.name in absent:
        return None
    variable = record.variables[q.name]
    if tuple(_FORMERLY.get(dim, dim) for dim in variable.dims) != q.dims_of(len(variable.dims)):
        raise ValueError(f"{q.name} has dimensions {variable.dims}, not {q.dims}")
    if not q.dims:
        return variable.values.item()
    mask = record.variables.get(q.name + _MASK)
    if mask is None:
        return variable.values
    return np.ma.MaskedArray(variable.values, mask=mask.values)


def _provenance_attributes(provenance: Provenance) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {name: getattr(provenance, name) for name in (*_TEXT, "subject")}
    attributes |= {name: json.dumps(getattr(provenance, name), default=plain) for name in _JSON}
    attributes |= {
        "seed": int(provenance.seed),
        "seed_given": int(provenance.seed_given),
        "duration": float(provenance.seconds),
    }
    if provenance.recipe:
        attributes["recipe"] = provenance.recipe
    reference = dataclasses.asdict(provenance.checkpoint) if provenance.checkpoint else {}
    return attributes | {f"checkpoint_{k}": v for k, v in reference.items() if v is not None}


def _provenance(attributes: Mapping[str, Attribute]) -> Provenance:
    reference = {
        f.name: attributes[f"checkpoint_{f.name}"]
        for f in dataclasses.fields(CheckpointReference)
        if f"checkpoint_{f.name}" in attributes
    }
    values: dict[str, Any] = {name: attributes[name] for name in _TEXT}
    values |= {name: json.loads(str(attributes[name])) for name in _JSON}
    return Provenance(
        **values,
        checkpoint=CheckpointReference(**reference) if reference else None,  # type: ignore[arg-type]
        seed=int(attributes["seed"]),
        seed_given=bool(attributes["seed_given"]),
        seconds=float(attributes["duration"]),
        subject=str(attributes.get("subject", "")),
        recipe=str(attributes.get("recipe", "")),
    )
