"""Several points at once: the model called with a batch of weights, where that is faster.

On a small net a GPU waits for its next kernel most of the time, and one call for many points fills it. On a
processor the loop is as fast or faster, in a fraction of the memory, so it is not even tried there.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import numpy as np
import torch

from landscape.errors import LandscapeError
from landscape.slices.evaluate import Surface

__all__ = ["fastest_batch", "measured_batch", "rows"]

#: Points at once that are tried, and how much faster they must be than one by one.
_SIZES, _WORTH = (8, 32), 0.9


def rows(surface: Surface, points: Sequence[Sequence[float]], batch: int) -> np.ndarray:
    """(points, channels) as :meth:`Surface.row` gives, to rounding: ``batch`` points in a call."""
    if batch == 1:
        return surface.row(points)
    parts = [points[first : first + batch] for first in range(0, len(points), batch)]
    return np.concatenate([_at_once(surface, part) for part in parts])


def _at_once(surface: Surface, points: Sequence[Sequence[float]]) -> np.ndarray:
    """All points in one call.

    Raises:
        DataError, RuntimeError: the model cannot be called with a batch of weights (it decides by values, or
            changes buffers), or memory runs out.
    """
    problem, weights = surface.problem, surface.weights
    with surface.evaluating():
        blocks = []
        for point in points:
            weights.move(point)
            blocks.append(weights.at.clone())
        named = weights.named(torch.stack(blocks))
        weights.move([0.0] * len(weights.directions))
        found = []
        for name, sample in surface.samples.items():
            total = torch.stack([sample.nothing() for _ in points])
            for number, piece in enumerate(sample.pieces(problem)):
                total += torch.func.vmap(functools.partial(sample.part, problem, number, piece))(named)
            decays = [surface.decay(point) for point in points]
            means = [sample.means(row) for row in total]
            found.append(np.stack([surface.values(name, m, d) for m, d in zip(means, decays, strict=True)]))
    return np.concatenate(found, axis=1)


def fastest_batch(surface: Surface) -> int:
    """How many points to take at once: 1 on a processor, by measurement on other devices."""
    return 1 if surface.problem.device.type == "cpu" else measured_batch(surface)


def measured_batch(surface: Surface) -> int:
    """How many points at once are fastest here; 1 where batches do not work."""
    if not surface.can_batch:
        return 1
    best, shortest = 1, _WORTH * _seconds(surface, 1)
    for size in _SIZES:
        try:
            seconds = _seconds(surface, size)
        except (LandscapeError, RuntimeError, TypeError, ValueError):  # not with this model, or memory
            break
        if seconds < shortest:
            best, shortest = size, seconds
    return best


def _seconds(surface: Surface, batch: int) -> float:
    """Time of a point, of ``_SIZES[-1]`` at the centre after one batch to warm up."""
    points = [[0.0] * len(surface.weights.directions)] * _SIZES[-1]
    rows(surface, points[:batch], batch)
    begun = time.perf_counter()
    rows(surface, points, batch)  # ends with the figures on the processor: the device has finished
    return (time.perf_counter() - begun) / len(points)
