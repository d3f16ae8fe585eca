"""``landscape slice`` in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import SliceResult

from ..console import Console
from ..numbers import duration, figure, value_and_error, with_error
from .common import counted, loss_line, percent

__all__ = ["print_result"]

#: Distances below this part of the weights are the rounding of saved weights.
_NEAR = 1e-6
_ABSENT = "—"
#: Rows of a table of other checkpoints that are printed.
_ROWS = 20
#: Coordinates and distances below this, in units of the direction and of ‖w‖, are rounding.
_NOTHING = 1e-9
_STATISTICS = {
    "saved": "running statistics as saved in the checkpoint, at every point",
    "recalibrated": "running statistics measured anew at each point, on batches of {} examples",
    "batch": "statistics of each batch (train mode)",
}
_DISAGREES = "along an eigenvector the loss does not curve as the eigenvalue says: kinks (ReLU) do that"


def print_result(console: Console, result: SliceResult) -> None:
    """The loss, the axes, what the grid holds, and what belongs to the directions."""
    console.out(loss_line(result))
    console.out()
    console.pairs([*_axes(result), *_summary(result)])
    if result.disagreeing is not None and result.disagreeing.any():
        console.warn(f"warning: {_DISAGREES}")
    if result.point_names is not None:
        console.out()
        console.table(*_points(result))
        if len(result.point_names) > _ROWS:
            console.out(f"the first {_ROWS} of {len(result.point_names)}; --json has them all")


def _axes(result: SliceResult) -> Iterator[tuple[str, str]]:
    """What each axis is, how long a step of 1 is, and how the loss begins to change."""
    named = list(zip("xy", result.coordinates, strict=False))
    for (name, values), axis in zip(named, result.axes, strict=True):
        reach = ""
        if len(values):
            ends = f"{_coordinate(values[0])} to {_coordinate(values[-1])}"
            reach = f", from {ends} in {counted(len(values), 'point')}"
        yield name, f"{axis}{reach}"
    if not np.isfinite(result.direction_norms).all():
        return
    both = zip(named, result.direction_norms, result.relative_norms, strict=True)
    units = [f"of {name} {figure(a, 4)} long = {figure(b, 3)} ‖w‖" for (name, _), a, b in both]
    yield "unit", f"{', '.join(units)} (‖w‖ = {figure(result.weights_norm, 4)}, the weights' length)"
    slopes = [f"{figure(s, 3)} per unit of {name}" for (name, _), s in zip(named, result.slopes, strict=True)]
    held = ", BatchNorm as saved" if result.batchnorm == "recalibrated" else ""
    yield "slope", f"{', '.join(slopes)}, from the gradient at the centre{held}"


def _summary(result: SliceResult) -> Iterator[tuple[str, str]]:
    """The grid, then what belongs to the directions."""
    yield "centre", _centre(result)
    yield from _extremes(result)
    yield from _gaps(result)
    yield from _test(result)
    yield from _beside(result)
    if result.angle is not None:
        after = "then made orthogonal" if result.orthogonal else "left as it is"
        yield "angle", f"{result.angle:.2f}° between the directions, {after}"
    yield from _curvatures(result)
    yield from _barrier(result)
    if result.explained_variance is not None:
        both = zip(result.explained_variance, "xy", strict=False)
        shares = ", ".join(f"{percent(float(share))} % along {name}" for share, name in both)
        walk = "; a random walk that ends there: 81 % and 9 %" if _ends_at_centre(result) else ""
        yield "trajectory", f"of its squared distances from the centre {shares}{walk}"
    if (outside := _outside(result)) > 0:
        yield "outside", f"{counted(outside, 'other checkpoint')} beyond the ranges, see below"
    if result.batchnorm != "none":
        yield "BatchNorm", _STATISTICS[result.batchnorm].format(result.recalibration_batch)
    yield from _errors(result)
    kind = f"{'a line' if result.y is None else 'a plane'} through {counted(result.parameters, 'dimension')}"
    yield "this is", f"{kind}: what is flat here may be steep elsewhere"
    if result.directions_file is not None:
        yield "directions", f"kept in {result.directions_file}, for saved:FILE"
    spent = f"{counted(result.evaluations, 'loss', 'losses')}, on all data each"
    yield "cost", f"{spent}, {duration(result.seconds)}"


def _centre(result: SliceResult) -> str:
    if not result.loss.size:
        return "no figure yet: the same command goes on"
    text = f"loss {_loss(result.centre_loss, result.centre_error)}"
    if result.batchnorm == "recalibrated":
        text += f" with BatchNorm recalibrated, {figure(result.own_loss, 4)} as saved"
    return text


def _extremes(result: SliceResult) -> Iterator[tuple[str, str]]:
    """The lowest and the highest finite loss of the grid, and how they differ from the centre."""
    if not np.ma.count(finite := np.ma.masked_invalid(result.loss)):
        return
    for name, pick in (("lowest", np.ma.argmin), ("highest", np.ma.argmax)):
        index = np.unravel_index(int(pick(finite)), finite.shape)
        difference = float(finite[index]) - result.centre_loss
        error = _known(result.standard_errors[index])
        apart = f" ({_signed(difference, error)} from the centre)" if math.isfinite(difference) else ""
        where = f"{_place(result, index)}{apart if difference else ', the centre'}"
        yield name, f"loss {figure(float(finite[index]), 4)} at {where}"


def _gaps(result: SliceResult) -> Iterator[tuple[str, str]]:
    """Points that are not finite, not reached, or interpolated."""
    size = result.loss.size
    missing = size - int(np.ma.count(result.loss))
    odd = size - missing - int(np.ma.count(np.ma.masked_invalid(result.loss)))
    if odd:
        yield "not finite", f"the loss at {odd} of {counted(size, 'point')}, kept as it came out"
    if missing:
        yield "missing", f"{missing} of {counted(size, 'point')} not reached"
    if result.interpolation_errors is not None:
        known = int(np.sum(result.evaluated))
        errors = result.interpolation_errors[np.isfinite(result.interpolation_errors)]
        worst = figure(float(errors.max(initial=0.0)), 2)
        beside = " (accuracy and test data: not estimated)" if result.accuracies is not None else ""
        off = f"; the others interpolated, their loss off by an estimated {worst} at most{beside}"
        off = off if known < size else ""
        yield "refined", f"{known} of {counted(size, 'point')} evaluated{off}"


def _test(result: SliceResult) -> Iterator[tuple[str, str]]:
    if result.test_centre_loss is None or result.test_loss is None:
        return
    accuracy = "" if result.test_accuracy is None else f"accuracy {100 * result.test_accuracy:.4g} %, "
    loss = _loss(result.test_centre_loss, _known(result.test_centre_error))
    yield (
        "test data",
        f"loss {loss} at the centre ({accuracy}{counted(result.test_examples or 0, 'example')})",
    )
    if np.ma.count(finite := np.ma.masked_invalid(result.test_loss)):
        index = np.unravel_index(int(np.ma.argmin(finite)), finite.shape)
        yield "test lowest", f"loss {figure(float(finite[index]), 4)} at {_place(result, index)}"


def _beside(result: SliceResult) -> Iterator[tuple[str, str]]:
    """What is measured beside the loss: from where to where it goes."""
    names = [] if result.metric_names is None else [f"metric {name}" for name in result.metric_names]
    values = [] if result.metrics is None else list(result.metrics)
    for name, grid in zip(["gradient", *names], [result.gradient_norms, *values], strict=True):
        reached = np.ma.asarray([] if grid is None else grid).compressed()
        finite = reached[np.isfinite(reached)]
        if len(reached) and not len(finite):
            yield name, "not finite anywhere"
        if len(finite):
            norm = "norm " if name == "gradient" else ""
            yield name, f"{norm}from {figure(float(finite.min()), 4)} to {figure(float(finite.max()), 4)}"


def _curvatures(result: SliceResult) -> Iterator[tuple[str, str]]:
    """Eigenvalues beside second differences of the loss."""
    if result.curvatures is None or result.curvature_errors is None:
        return
    for i, name in enumerate("xy"[: len(result.axes)]):
        if np.ma.getmaskarray(result.curvatures)[i]:
            continue
        text = f"eigenvalue {with_error(float(result.curvatures[i]), float(result.curvature_errors[i]))}"
        if result.differences is not None and result.difference_errors is not None:
            measured = _loss(float(result.differences[i]), float(result.difference_errors[i]))
            disagree = result.disagreeing is not None and result.disagreeing[i]
            verdict = "they disagree, see the warning" if disagree else "they agree"
            held = " (BatchNorm as saved)" if result.batchnorm == "recalibrated" else ""
            text += f"; the loss itself curves by {measured}{held}: {verdict}"
        yield f"curvature {name}", text


def _barrier(result: SliceResult) -> Iterator[tuple[str, str]]:
    """How far an interpolation rises above the straight line between its ends."""
    if list(result.along) != ["to"] or result.status == "partial":
        return
    if result.barrier is None or result.barrier_at is None:
        ends = {0.0, 1.0} <= set(result.x.tolist())
        why = "a loss on the way is not finite" if ends else "the range does not hold both ends, 0 and 1"
        yield "barrier", f"not known: {why}"
        return
    error = _known(result.barrier_error)
    if result.barrier_at in (0.0, 1.0):
        text = "none: between 0 and 1 the loss is nowhere above the straight line from end to end"
    else:
        at = _coordinate(result.barrier_at)
        text = f"{_loss(result.barrier, error)} above the straight line from end to end, at {at}"
    if result.saved_barrier is not None:
        other = figure(result.saved_barrier, 4) if result.saved_barrier else "none, too,"
        text += f"; {other} with running statistics interpolated as the weights are"
    yield "barrier", text


def _errors(result: SliceResult) -> Iterator[tuple[str, str]]:
    """What ± means, if anything is said with it."""
    if not result.loss.size:
        return
    if result.errors_method.startswith("not computed"):
        yield "errors", result.errors_method
        return
    yield (
        "±",
        (
            f"one standard error over the data: of the loss at the centre, elsewhere of the difference to it "
            f"({result.errors_method})"
        ),
    )


def _points(result: SliceResult) -> tuple[list[str], list[list[str]]]:
    """Other checkpoints: where they lie, and their own loss beside the slice's."""
    fields = ("names", "steps", "coordinates", "distances", "losses", "slice_losses")
    columns = [np.ma.asarray(getattr(result, f"point_{name}")).tolist()[:_ROWS] for name in fields]
    own = "own loss" if result.batchnorm == "none" else "own loss (BatchNorm as saved)"
    header = ["checkpoint", "step", *"xy"[: len(result.axes)], "distance", own, "loss on the slice"]
    rows = []
    for name, step, place, distance, own, projected in zip(*columns, strict=True):
        rows.append(
            [
                name,
                _ABSENT if step is None else str(step),
                *(_coordinate(c, 3) for c in place),
                "0" if distance < _NOTHING * result.weights_norm else figure(distance, 3),
                *(_ABSENT if loss is None else _loss(loss, math.nan) for loss in (own, projected)),
            ]
        )
    return header, rows


def _ends_at_centre(result: SliceResult) -> bool:
    """Whether principal directions are of a training run whose last checkpoint is the centre."""
    if "pca" not in result.along or result.point_coordinates is None or result.point_distances is None:
        return False
    lengths = np.hypot(
        np.linalg.norm(result.point_coordinates[-1] * result.direction_norms), result.point_distances[-1]
    )
    return bool(lengths <= _NEAR * result.weights_norm)


def _outside(result: SliceResult) -> int:
    """How many other checkpoints are projected beyond the ranges."""
    if result.point_coordinates is None or not result.loss.size:
        return 0
    pairs = zip(result.point_coordinates.T, result.coordinates, strict=True)
    beyond = [(own < c[0] - _NOTHING) | (own > c[-1] + _NOTHING) for own, c in pairs]
    return int(np.any(beyond, axis=0).sum())


def _place(result: SliceResult, index: tuple[np.intp, ...]) -> str:
    """The coordinates of a point of the grid."""
    where = [_coordinate(float(c[i])) for c, i in zip(result.coordinates, index, strict=True)]
    return f"({', '.join(where)})" if len(where) > 1 else where[0]


def _known(error: float | None) -> float:
    """An error as a number, NaN where it is not known."""
    return math.nan if error is None or np.ma.is_masked(error) else float(error)


def _coordinate(value: float, digits: int = 4) -> str:
    return "0" if abs(value) < _NOTHING else figure(float(value), digits)


def _loss(value: float, error: float) -> str:
    """A loss with its error, if that is known."""
    if not math.isfinite(value):
        return "not finite"
    return with_error(value, error) if math.isfinite(error) and error else figure(value, 4)


def _signed(difference: float, error: float) -> str:
    """A difference with its sign, and its error if that is known."""
    if not (math.isfinite(error) and error):
        return f"{difference:+.4g}"
    value, width = value_and_error(difference, error)
    return f"{value if value.startswith('-') else '+' + value} ± {width}"
