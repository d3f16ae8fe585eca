"""``landscape slice`` in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import SliceResult

from ..console import Console
from ..numbers import figure, value_and_error, with_error
from .common import counted, loss_line, percent

__all__ = ["print_result"]

_ABSENT = "—"
#: Rows of a table of other checkpoints that are printed.
_ROWS = 20
_STATISTICS = {
    "saved": "running statistics as saved in the checkpoint, at every point",
    "recalibrated": "running statistics measured anew at each point, on batches of {} examples",
    "batch": "statistics of each batch (train mode)",
}


def print_result(console: Console, result: SliceResult) -> None:
    """The loss, the axes, what the grid holds, and what belongs to the directions."""
    console.out(loss_line(result))
    console.out()
    console.table(*_axes(result))
    console.out()
    console.pairs(list(_summary(result)))
    if result.disagreeing is not None and result.disagreeing.any():
        console.warn(
            "warning: along an eigenvector the loss does not curve as its eigenvalue says: the eigenvalue is of "
            "the Hessian at the centre alone, and kinks (ReLU) or a spectrum of other data would show so"
        )
    if result.point_names is not None:
        console.out()
        console.table(*_points(result))
        if len(result.point_names) > _ROWS:
            console.out(f"the first {_ROWS} of {len(result.point_names)}; --json has them all")


def _axes(result: SliceResult) -> tuple[list[str], list[list[str]]]:
    """A row for each axis."""
    header = ["axis", "direction", "from", "to", "points", "1 is", "of ‖w‖", "slope"]
    rows = []
    for i, (name, values) in enumerate(zip("xy", result.coordinates, strict=False)):
        rows.append(
            [
                name,
                str(result.axes[i]),
                figure(float(values[0]), 4),
                figure(float(values[-1]), 4),
                str(len(values)),
                figure(float(result.direction_norms[i]), 4),
                figure(float(result.relative_norms[i]), 3),
                figure(float(result.slopes[i]), 3),
            ]
        )
    return header, rows


def _summary(result: SliceResult) -> Iterator[tuple[str, str]]:
    """The grid, then what belongs to the directions."""
    yield "centre", _centre(result)
    if (lowest := result.minimum) is not None:
        loss, where = lowest
        index = tuple(int(np.flatnonzero(c == w)[0]) for c, w in zip(result.coordinates, where, strict=True))
        yield "lowest", f"{_loss(loss, result.standard_errors[index])} at {_at(where)}{_below(result, index)}"
        top = np.ma.masked_invalid(result.loss)
        high = np.unravel_index(int(np.ma.argmax(top)), top.shape)
        where = tuple(float(c[i]) for c, i in zip(result.coordinates, high, strict=True))
        yield "highest", f"{_loss(float(top[high]), result.standard_errors[high])} at {_at(where)}"
    yield from _gaps(result)
    if result.test_centre_loss is not None:
        accuracy = "" if result.test_accuracy is None else f", accuracy {100 * result.test_accuracy:.4g} %"
        error = result.test_centre_error if result.test_centre_error is not None else math.nan
        examples = counted(result.test_examples or 0, "example")
        yield "test data", f"{_loss(result.test_centre_loss, error)} at the centre ({examples}{accuracy})"
    if result.angle is not None:
        after = "made orthogonal" if result.orthogonal else "left as they are"
        yield "angle", f"{result.angle:.2f}° between the directions, {after}"
    yield from _curvatures(result)
    yield from _barrier(result)
    if result.explained_variance is not None:
        shares = [percent(float(share)) for share in result.explained_variance]
        named = ", ".join(f"{name} {share} %" for name, share in zip("xy", shares, strict=False))
        yield "explained", f"of the trajectory's squared distances from the centre: {named}"
    if result.batchnorm != "none":
        yield "BatchNorm", _STATISTICS[result.batchnorm].format(result.recalibration_batch)
    if math.isnan(result.centre_error):
        yield "errors", result.errors_method
    else:
        method = f"± is one standard error over the data, off the centre of the difference to it"
        yield "errors", f"{method}: {result.errors_method}"
    n = "a line" if result.y is None else "a plane"
    yield "this is", (
        f"{n} through {counted(result.parameters, 'dimension')}: what is flat here may be steep elsewhere"
    )
    yield "computed", f"{counted(result.evaluations, 'loss', 'losses')} on all data"


def _centre(result: SliceResult) -> str:
    text = f"loss {_loss(result.centre_loss, result.centre_error)}"
    if result.batchnorm == "recalibrated":
        text += f" with BatchNorm recalibrated, {figure(result.own_loss, 4)} as saved"
    return text


def _loss(value: float, error: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    if np.ma.is_masked(error) or not math.isfinite(error) or not error:
        return figure(value, 4)
    return with_error(value, float(error))


def _at(where: tuple[float, ...]) -> str:
    shown = ", ".join(figure(c, 4) for c in where)
    return f"({shown})" if len(where) > 1 else shown


def _below(result: SliceResult, index: tuple[int, ...]) -> str:
    """How the lowest point differs from the centre, which has the same examples."""
    difference, error = float(result.loss[index]) - result.centre_loss, result.standard_errors[index]
    if not difference or np.ma.is_masked(error) or not math.isfinite(error):
        return ": the centre" if not difference else ""
    value, width = value_and_error(difference, float(error))
    return f", {value} ± {width} from the centre"


def _gaps(result: SliceResult) -> Iterator[tuple[str, str]]:
    """Points that are not finite, not reached, or interpolated."""
    size = result.loss.size
    missing = int(np.ma.count_masked(result.loss))
    odd = size - missing - int(np.ma.count(np.ma.masked_invalid(result.loss)))
    if odd:
        yield "not finite", f"{odd} of {counted(size, 'point')}, kept as they came out"
    if missing:
        yield "missing", f"{missing} of {counted(size, 'point')} were not reached"
    if result.interpolation_errors is not None:
        known = int(np.sum(result.evaluated))
        worst = float(np.nanmax(result.interpolation_errors, initial=0.0))
        off = f"elsewhere off by {figure(worst, 2)} at most, estimated"
        yield "refined", f"{known} of {counted(size, 'point')} evaluated; {off}"


def _curvatures(result: SliceResult) -> Iterator[tuple[str, str]]:
    """Eigenvalues beside second differences of the loss."""
    if result.curvatures is None or result.curvature_errors is None:
        return
    for i, name in zip(range(len(result.axes)), "xy", strict=False):
        if np.ma.getmaskarray(result.curvatures)[i]:
            continue
        text = f"λ = {with_error(float(result.curvatures[i]), float(result.curvature_errors[i]))}"
        if result.differences is not None and result.difference_errors is not None:
            measured = with_error(float(result.differences[i]), float(result.difference_errors[i]))
            verdict = "they disagree: see the warning" if result.disagreeing[i] else "they agree"
            text += f", {measured} from differences of the loss: {verdict}"
        yield f"curvature {name}", text


def _barrier(result: SliceResult) -> Iterator[tuple[str, str]]:
    if result.barrier is None or result.barrier_at is None:
        return
    error = math.nan if result.barrier_error is None else result.barrier_error
    text = f"{_loss(result.barrier, error)} above the straight line, at {figure(result.barrier_at, 3)}"
    if result.saved_barrier is not None:
        text += f"; {figure(result.saved_barrier, 4)} with running statistics interpolated instead"
    yield "barrier", text


def _points(result: SliceResult) -> tuple[list[str], list[list[str]]]:
    """Other checkpoints: where they lie, and their own loss beside the slice's."""
    assert result.point_names is not None and result.point_coordinates is not None
    assert result.point_distances is not None and result.point_losses is not None
    assert result.point_slice_losses is not None and result.point_steps is not None
    header = ["checkpoint", "step", *"xy"[: len(result.axes)], "distance", "its loss", "slice's loss"]
    rows = []
    for i, name in enumerate(result.point_names[:_ROWS]):
        step = np.ma.getmaskarray(result.point_steps)[i]
        error = math.nan if result.point_errors is None else result.point_errors[i]
        reached = not np.ma.getmaskarray(result.point_losses)[i]
        rows.append(
            [
                str(name),
                _ABSENT if step else str(result.point_steps[i]),
                *(figure(float(c), 3) for c in result.point_coordinates[i]),
                figure(float(result.point_distances[i]), 3),
                _loss(float(result.point_losses[i]), error) if reached else _ABSENT,
                _loss(float(result.point_slice_losses[i]), math.nan) if reached else _ABSENT,
            ]
        )
    return header, rows
