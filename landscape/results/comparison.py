"""What comparing results and correlating their figures gives: records like results, to be shown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from landscape.results.base import jsonable
from landscape.results.reading import NORMAL, Reading

__all__ = ["Column", "Comparison", "Correlation", "Coefficient", "Difference", "Row", "RunReference"]


@dataclass(frozen=True)
class Difference:
    """One figure minus the same one of the reference, and the two by each other.

    What the figures may be off by for their data adds up where it is a bound; where it is an interval over
    random draws it adds in quadrature (Zou & Donner 2008), as do standard errors over the sampling, which are
    taken as independent.

    Attributes:
        value: the difference.
        bound: what the bounds of both add up to, 0 without any; None where an error is not known.
        spread: half-width of the 95 % intervals of both together, 0 without any; None likewise.
        standard_error: of the difference over the sampling; None where one is not known.
        ratio: the figure by the reference; None where the reference may be zero.
        ratio_error: what the ratio may be off by for these data; None where it is not known.
        ratio_standard_error: of the ratio over the sampling, to first order; None where it is not known.
    """

    value: float
    bound: float | None
    spread: float | None
    standard_error: float | None
    ratio: float | None = None
    ratio_error: float | None = None
    ratio_standard_error: float | None = None

    @property
    def error(self) -> float | None:
        """Half-width of what the difference may be off by for these data."""
        return None if self.bound is None or self.spread is None else self.bound + self.spread

    @property
    def half_width(self) -> float | None:
        """Half-width of the 95 % interval over the sampling, with the error for these data where known."""
        if self.standard_error is None:
            return None
        return (self.bound or 0.0) + math.hypot(self.spread or 0.0, NORMAL * self.standard_error)

    @property
    def z(self) -> float | None:
        """The difference beyond its bound, in standard errors of all that is random; None without any."""
        if self.standard_error is None:
            return None
        deviation = math.hypot((self.spread or 0.0) / NORMAL, self.standard_error)
        if not deviation:
            return None
        return math.copysign(max(abs(self.value) - (self.bound or 0.0), 0.0) / deviation, self.value)

    @property
    def differs(self) -> bool | None:
        """Whether the two differ for these data, beyond what they may be off by; None where not known."""
        return None if self.error is None else abs(self.value) > self.error

    @property
    def differs_beyond_sampling(self) -> bool | None:
        """Whether they differ by more than other data of the same source would explain, at 95 %."""
        return None if self.half_width is None else abs(self.value) > self.half_width

    def to_json(self) -> dict[str, Any]:
        """The fields and what follows from them."""
        derived = ("error", "half_width", "z", "differs", "differs_beyond_sampling")
        found = dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}
        return {name: jsonable(value) for name, value in found.items()}


@dataclass(frozen=True)
class RunReference:
    """A run that was compared."""

    kind: str
    id: str
    file: str
    checkpoint: str
    status: str
    at: int | None = None


@dataclass(frozen=True)
class Column:
    """One of the sides: a checkpoint or a training run, and its runs."""

    name: str
    runs: tuple[RunReference, ...]


@dataclass(frozen=True)
class Row:
    """One measure of all sides, at one time of training if they are training runs.

    Attributes:
        kind: of the results.
        measure: name of the measure, ``label`` as on an axis, with its ``unit``.
        at: the step or epoch; None of single checkpoints.
        readings: (c,) of each column; None where it has none.
        differences: (c − 1,) of each column but the first from the first; None likewise.
    """

    kind: str
    measure: str
    label: str
    unit: str
    at: int | None
    readings: tuple[Reading | None, ...]
    differences: tuple[Difference | None, ...]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Measures of several sides beside each other, and their differences from the first.

    Attributes:
        columns: the sides, the first is the reference.
        rows: by kind and measure; of training runs also by time.
        over: ``step``, ``epoch`` or ``number`` (in the names) of training runs; empty of single checkpoints.
        differing: in what the runs differ beside the weights, in words.
        notes: what was left out, and how to read the figures.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    over: str
    differing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(column.name for column in self.columns)}: {len(self.rows)} rows>"

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def row(self, measure: str, at: int | None = None) -> Row:
        """The row of a measure, as ``lambda_max`` or ``eigen.lambda_max``, at a time if there are several.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if measure in (row.measure, f"{row.kind}.{row.measure}") and at in (None, row.at):
                return row
        raise KeyError(measure)

    @property
    def tests(self) -> int:
        """Differences that were tested against the sampling."""
        return len(self._tested)

    @property
    def threshold(self) -> float:
        """|z| that all of these tests together exceed by chance with 5 % at most (Bonferroni)."""
        return NormalDist().inv_cdf(1 - 0.025 / max(self.tests, 1))

    @property
    def marked(self) -> int:
        """Differences beyond the sampling at 95 %, each by itself."""
        return sum(bool(difference.differs_beyond_sampling) for difference in self._tested)

    @property
    def remaining(self) -> int:
        """Those that are still beyond it at :attr:`threshold`."""
        return sum(abs(difference.z or 0.0) > self.threshold for difference in self._tested)

    @property
    def _tested(self) -> list[Difference]:
        return [d for row in self.rows for d in row.differences if d is not None and d.z is not None]

    def to_json(self) -> dict[str, Any]:
        """Plain Python objects; what is not known becomes ``None``."""
        rows = [
            {
                "kind": row.kind, "measure": row.measure, "unit": row.unit, "at": row.at,
                "readings": [None if r is None else jsonable(dataclasses.asdict(r)) for r in row.readings],
                "differences": [None if d is None else d.to_json() for d in row.differences],
            }
            for row in self.rows
        ]  # fmt: skip
        multiple = {
            "tests": self.tests, "marked": self.marked, "threshold": self.threshold,
            "remaining": self.remaining,
        }  # fmt: skip
        return {
            "columns": [jsonable(dataclasses.asdict(column)) for column in self.columns],
            "over": self.over,
            "rows": rows,
            "multiple": multiple,
            "differing": list(self.differing),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Coefficient:
    """A rank correlation of n pairs with its 95 % interval; None where there are too few pairs for one."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Correlation:
    """The rank correlation of two measures over checkpoints.

    Attributes:
        name: the training run, or what all together are called.
        x, y: the measures, as ``eigen.lambda_max``; with their labels for axes.
        checkpoints: (n,) names.
        at: (n,) steps or epochs; None where they have none.
        readings: (n,) pairs of what was measured, with errors.
        spearman, kendall: the coefficients; NaN where one measure does not vary.
        steps: Spearman's of the changes from one checkpoint to the next; None of several training runs.
        notes: what they do not say.
    """

    name: str
    x: str
    y: str
    labels: tuple[str, str]
    checkpoints: tuple[str, ...]
    at: tuple[int | None, ...]
    readings: tuple[tuple[Reading, Reading], ...]
    spearman: Coefficient
    kendall: Coefficient
    steps: Coefficient | None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many checkpoints there are."""
        return len(self.readings)

    def to_json(self) -> dict[str, Any]:
        """Plain Python objects; NaN and what is not known become ``None``."""
        found: dict[str, Any] = jsonable(dataclasses.asdict(self))
        return found
