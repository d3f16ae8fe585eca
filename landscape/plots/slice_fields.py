"""What a picture of a slice shows: a quantity on the grid, where it is known, and the words around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import printable
from landscape.plots.panels import shown, text_width
from landscape.plots.style import caption
from landscape.results import SliceResult

__all__ = [
    "Field",
    "axis_label",
    "checkpoint_name",
    "edges",
    "field",
    "fitted",
    "has_field",
    "name_of",
    "runs",
    "title",
]

#: Characters of the name of an axis and of a point.
_AXIS, _POINT = 46, 22
_BATCHNORM = {"saved": "BatchNorm as saved", "recalibrated": "BatchNorm recalibrated at each point"}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """A quantity over the grid.

    Attributes:
        name: in words, for an axis.
        values: (x,) or (x, y), as measured; NaN where not reached.
        errors: its standard errors, NaN where there is none; None without.
        reached: where it was measured or interpolated.
        evaluated: where it was measured.
        rises: the errors are of the difference to the centre.
    """

    name: str
    values: Floats
    errors: Floats | None
    reached: Bools
    evaluated: Bools
    rises: bool = True

    @property
    def finite(self) -> Bools:
        return np.isfinite(self.values)

    @property
    def not_finite(self) -> Bools:
        """Where the loss came out as NaN or infinite."""
        return self.reached & ~self.finite

    @property
    def refined(self) -> bool:
        """Whether something was interpolated."""
        return bool((self.reached & ~self.evaluated).any())

    @property
    def lowest(self) -> tuple[int, ...] | None:
        """Where the lowest finite value is."""
        if not self.finite.any():
            return None
        flat = int(np.nanargmin(np.where(self.finite, self.values, np.nan)))
        return tuple(int(i) for i in np.unravel_index(flat, self.values.shape))


def field(result: SliceResult, data: str | None = None, metric: str | None = None) -> Field:
    """The quantity called so on these data; the training loss unless told otherwise.

    Args:
        data: ``train`` or ``test``.
        metric: ``loss``, ``error`` (the standard error), ``accuracy``, ``gradient_norm``, ``saved_loss``,
            ``interpolation_error`` or the name of a metric of the user's.

    Raises:
        InputError: other data, or a quantity that the run does not have on them.
    """
    wanted = (data or "train", metric or "loss")
    if wanted[0] not in ("train", "test"):
        raise InputError("the data of a slice are train or test", found=printable(repr(data)))
    there = _there(result)
    if wanted not in there:
        texts = (", ".join(name for of, name in there if of == kind) for kind in ("train", "test"))
        known = [f"{kind}: {text}" for kind, text in zip(("train", "test"), texts, strict=True) if text]
        raise InputError(
            f"this run has no {printable(wanted[1])} on the {wanted[0]} data", do=f"it has {'; '.join(known)}"
        )
    name, values, errors = there[wanted]
    reached = ~np.ma.getmaskarray(values)
    return Field(
        name=name,
        values=np.ma.filled(np.ma.asarray(values, dtype=np.float64), math.nan),
        errors=None if errors is None else np.ma.filled(np.ma.asarray(errors, dtype=np.float64), math.nan),
        reached=reached,
        evaluated=reached & np.ma.filled(np.ma.asarray(result.evaluated, dtype=bool), False),
        rises=wanted[1] == "loss",
    )


def has_field(result: SliceResult, data: str, metric: str) -> bool:
    """Whether the run has that quantity on these data."""
    return (data, metric) in _there(result)


def _there(
    result: SliceResult,
) -> dict[tuple[str, str], tuple[str, np.ndarray, np.ndarray | None]]:
    """What there is: by data and name, the words, the values and their standard errors."""
    known = {
        ("train", "loss"): ("Loss", result.loss, result.standard_errors),
        ("train", "error"): ("Standard error of the loss's rise", result.standard_errors, None),
        ("train", "accuracy"): ("Accuracy", result.accuracies, result.accuracy_errors),
        ("train", "gradient_norm"): ("Gradient norm (loss / weight)", result.gradient_norms, None),
        ("train", "saved_loss"): ("Loss, running statistics interpolated", result.saved_loss, None),
        ("train", "interpolation_error"): ("Interpolation error", result.interpolation_errors, None),
        ("test", "loss"): ("Test loss", result.test_loss, result.test_standard_errors),
        ("test", "error"): ("Standard error of the test loss's rise", result.test_standard_errors, None),
        ("test", "accuracy"): ("Test accuracy", result.test_accuracies, result.test_accuracy_errors),
    }
    if result.metrics is not None and result.metric_names is not None:
        every = [None] * len(result.metrics) if result.metric_errors is None else list(result.metric_errors)
        for name, values, errors in zip(result.metric_names, result.metrics, every, strict=True):
            known.setdefault(("train", str(name)), (_text(str(name), _AXIS), values, errors))
    return {
        key: (name, values, errors) for key, (name, values, errors) in known.items() if values is not None
    }


def title(result: SliceResult, *data: str, inches: float = 5.4) -> str:
    """Which checkpoint; and that this is one slice of so many dimensions, on what; in lines so wide."""
    parts = [f"a {len(result.coordinates)}-D slice of {result.parameters:,} dimensions"]
    if "train" in (data or ("train",)):
        parts.append(f"{result.examples:,} examples")
    if "test" in data and result.test_examples is not None:
        parts.append(f"{result.test_examples:,} test examples")
    parts += [_BATCHNORM[result.batchnorm]] if result.batchnorm in _BATCHNORM else []
    if result.angle is not None and abs(result.angle - 90) >= 1:
        done = ", made orthogonal" if result.orthogonal else " and drawn at 90°"
        parts.append(f"directions {shown(result.angle)}° apart{done}")
    lines = [caption(result), *_wrapped(parts, inches)]
    return "\n".join(text for text in lines if text)


def _wrapped(parts: list[str], inches: float, between: str = " · ", points: float = 8.0) -> list[str]:
    """The parts in lines that are no wider, unless one alone is."""
    lines = parts[:1]
    for part in parts[1:]:
        longer = f"{lines[-1]}{between}{part}"
        lines[-1:] = [longer] if text_width(longer, points) <= inches else [lines[-1], part]
    return lines


def fitted(label: str, inches: float) -> str:
    """The label of an axis in lines that are no longer than the axis."""
    lines = (_wrapped(line.split(" "), inches, " ", 9.0) for line in label.splitlines())
    return "\n".join(line for some in lines for line in some)


def axis_label(result: SliceResult, axis: int, *, variance: bool = False) -> str:
    """What an axis is, and how long one unit of it is; with ``variance``, the trajectory's share along it."""
    notes = []
    relative, norm = float(result.relative_norms[axis]), float(result.direction_norms[axis])
    if math.isfinite(relative) and relative > 0:
        notes.append(f"1 = {shown(relative)} ‖w‖")
    elif math.isfinite(norm) and norm > 0:
        notes.append(f"1 = {shown(norm)} in weights")
    if variance and result.explained_variance is not None:
        share = float(result.explained_variance[axis])
        notes += [f"{100 * share:.3g} % of the variance"] if math.isfinite(share) else []
    name = _text(str(result.axes[axis]), _AXIS)
    return f"{name}\n({'; '.join(notes)})" if notes else name


def checkpoint_name(result: SliceResult) -> str:
    """The file of the centre, without its folders."""
    checkpoint = result.provenance.checkpoint if result.provenance else None
    return "this checkpoint" if checkpoint is None else name_of(checkpoint.path)


def name_of(path: object) -> str:
    """A file's name without its folders, short enough to stand in a picture."""
    return _text(str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], _POINT)


def _text(name: str, limit: int) -> str:
    """A name as it can be drawn: shortened in the middle, no formulas."""
    half = limit // 2 - 1
    whole = printable(name)
    cut = whole if len(whole) <= limit else f"{whole[:half]}…{whole[-half:]}"
    return cut.replace("$", r"\$")


def edges(coordinates: Floats) -> Floats:
    """The borders of each point's cell, (x + 1,): halfway to its neighbours, and the ends of the range."""
    x = np.asarray(coordinates, dtype=np.float64)
    if len(x) == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    return np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])


def runs(chosen: Bools) -> list[tuple[int, int]]:
    """Where ``chosen`` (x,) holds without a break: pairs of the first and one after the last.

    >>> runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    change = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(int)))
    return [(int(first), int(last)) for first, last in change.reshape(-1, 2)]
