"""Results describe themselves once; the codec, ``--json``, CSV, tables and xarray read that description.

A result is a frozen dataclass whose fields are made with :func:`quantity`. Three kinds of absence are kept
apart: ``NaN`` is a number that came out as NaN; ``None`` is a whole field that was not computed; a masked
element of a :class:`numpy.ma.MaskedArray` is one element that was not computed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from landscape.results.provenance import Provenance

__all__ = [
    "STATUSES",
    "DataResult",
    "ProblemResult",
    "Quantity",
    "Result",
    "kinds",
    "jsonable",
    "quantity",
    "register",
]

STATUSES = ("complete", "not_converged", "oscillating", "failed", "partial")


@dataclass(frozen=True)
class Quantity:
    """What one field of a result is: a sentence, named dimensions, a unit, the field that holds its error.

    The last ``optional`` dimensions are those that not every result has: a line has no second axis.
    """

    name: str
    text: str
    dims: tuple[str, ...] = ()
    unit: str = ""
    error: str = ""
    optional: int = 0

    def dims_of(self, count: int) -> tuple[str, ...]:
        """The names of an array's ``count`` dimensions.

        Raises:
            ValueError: this quantity does not come with so many.
        """
        if not len(self.dims) - self.optional <= count <= len(self.dims):
            raise ValueError(f"{self.name} has {count} dimensions, its own are {self.dims}")
        return self.dims[:count]


def quantity(
    text: str,
    *,
    dims: tuple[str, ...] = (),
    unit: str = "",
    error: str = "",
    optional: int = 0,
    **field: Any,
) -> Any:
    """A dataclass field that says what it is. ``error`` names the field that holds its uncertainty."""
    described = {"text": text, "dims": dims, "unit": unit, "error": error, "optional": optional}
    return dataclasses.field(metadata=described, **field)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result:
    """What every analysis reports; each kind adds its own quantities."""

    kind: ClassVar[str] = ""
    #: Arrays as long as the model, and the quantity that names the file where each is stored.
    apart: ClassVar[Mapping[str, str]] = {}

    status: str = quantity("One of complete, not_converged, oscillating, failed, partial.")
    provenance: Provenance | None = None

    @classmethod
    def quantities(cls) -> tuple[Quantity, ...]:
        """The described fields, in order of declaration (``provenance`` is not one)."""
        return tuple(
            Quantity(
                f.name,
                f.metadata["text"],
                f.metadata["dims"],
                f.metadata["unit"],
                f.metadata["error"],
                f.metadata["optional"],
            )
            for f in dataclasses.fields(cls)
            if "text" in f.metadata
        )

    def __repr__(self) -> str:
        """Which result it is; its arrays would fill pages."""
        run = self.provenance.id if self.provenance else "not stored"
        return f"<{type(self).__name__} {run}: {self.status}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from landscape.results.html import result_html  # which needs every kind of result

        return result_html(self)

    def __iter__(self) -> Iterator[tuple[Quantity, Any]]:
        for q in self.quantities():
            yield q, getattr(self, q.name)

    def to_json(self) -> dict[str, Any]:
        """Plain Python objects; non-finite numbers and what was not computed become ``None``."""
        return {q.name: jsonable(value) for q, value in self}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DataResult(Result):
    """What every analysis of a model on data reports: of what it is."""

    examples: int = quantity("Number of examples used.")
    terms: float = quantity("Number of loss terms the mean is over (examples, elements, tokens, weights).")
    parameters: int = quantity("Number of parameters measured (tied ones counted once).")
    frozen_parameters: int = quantity("Parameters left out because they are not trainable.", default=0)
    tied_parameters: int = quantity(
        "Parameters that appear again under another name, counted once.", default=0
    )
    unused_parameters: int = quantity("Measured parameters that the loss does not depend on.", default=0)
    accuracy: float | None = quantity(
        "Share of terms whose label is predicted right, where labels are classes.", default=None
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProblemResult(DataResult):
    """And the loss and the gradient at the weights."""

    loss: float = quantity("Mean loss over the data at the weights.", unit="loss")
    gradient_norm: float = quantity("Euclidean norm of the gradient.", unit="loss / weight")


def jsonable(value: Any) -> Any:
    """``value`` as objects that JSON knows; NaN, infinities and masked elements become ``None``."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())  # of a masked array: None for what is masked
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


R = TypeVar("R", bound=type[Result])
_KINDS: dict[str, type[Result]] = {}


def register(cls: R) -> R:
    """Class decorator: make a kind of result known to the store by its name.

    Raises:
        TypeError: a quantity without dimensions, or of others, is called like a dimension; in a file, where a
            dimension is an array of that name, one would be taken for the other.
    """
    dims = {dim for q in cls.quantities() for dim in q.dims}
    if clash := [q.name for q in cls.quantities() if q.name in dims and q.dims != (q.name,)]:
        raise TypeError(f"{cls.__name__}: {', '.join(clash)} names a quantity and a dimension")
    _KINDS[cls.kind] = cls
    return cls


def kinds() -> Mapping[str, type[Result]]:
    """The known kinds of result by name."""
    return dict(_KINDS)
