"""Pictures of slices of the loss: lines, barriers, planes, surfaces and training runs on them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from landscape.plots.slice_line import barrier, line
from landscape.plots.slice_plane import plane
from landscape.plots.slice_points import trajectory_of
from landscape.plots.slice_surface import surface
from landscape.plots.slice_trajectory import trajectory
from landscape.plots.view import View
from landscape.results import SliceResult

__all__ = ["VIEWS", "barrier", "line", "plane", "surface", "trajectory"]


def _reached(result: SliceResult) -> bool:
    """Whether there is a point at all."""
    return bool(np.ma.count(result.loss) > 0)


def _is_line(result: SliceResult) -> bool:
    return result.y is None and _reached(result)


def _has_barrier(result: SliceResult) -> bool:
    return _is_line(result) and result.barrier is not None and math.isfinite(result.barrier)


def _is_plane(result: SliceResult) -> bool:
    return result.y is not None and _reached(result)


def _has_facet(result: SliceResult) -> bool:
    """Whether four neighbours are finite."""
    if not _is_plane(result):
        return False
    known = np.isfinite(np.ma.filled(np.ma.asarray(result.loss, dtype=np.float64), np.nan))
    return bool((known[1:, 1:] & known[:-1, 1:] & known[1:, :-1] & known[:-1, :-1]).any())


def _has_trajectory(result: SliceResult) -> bool:
    return _reached(result) and trajectory_of(result) is not None


#: The pictures by name; the first that a result has is drawn unless told otherwise.
VIEWS: Mapping[str, View] = {
    "barrier": View(barrier, _has_barrier),
    "line": View(line, _is_line),
    "plane": View(plane, _is_plane),
    "surface": View(surface, _has_facet),
    "trajectory": View(trajectory, _has_trajectory),
}
