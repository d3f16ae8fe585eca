"""Coarse to fine: which points of a grid to evaluate, and what the others are by interpolation.

All is a function of the known points' values alone, so that a run that is resumed chooses the same points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from landscape.slices.splines import Interpolated, nearest

__all__ = ["filled", "first", "wanted"]

#: Coarse coordinates: at least so many, or every so manieth of a line or a plane.
_FEWEST, _EVERY = 9, (4, 8)
#: Of the coarse coordinates' places, this share is of Chebyshev's points: splines are weakest at the edges.
_CLUSTERED = 0.6
#: Of the known points, this share is evaluated at once before looking again; at least so many. The coarse
#: points are always followed by so many: each of them tests what was foretold there.
_SHARE, _LEAST = 0.25, 12
#: Where errors are not known: this share of the range of the losses is what a picture shows.
_VISIBLE = 1e-3
#: A mean loss in float32 is off by about this, relatively: no interpolation need be closer.
_RESOLVED = 1e-6


def first(coordinates: Sequence[np.ndarray]) -> np.ndarray:
    """The coarse points to begin with: rows and columns, denser at the edges, zero's among them.

    Args:
        coordinates: one ascending array for each axis, one or two.

    Returns:
        A mask of the grid's shape, (x,) or (x, y).

    >>> first([np.linspace(-1, 1, 17)]).nonzero()[0].tolist()
    [0, 1, 3, 5, 8, 11, 13, 15, 16]
    """
    mask = np.zeros([len(c) for c in coordinates], dtype=bool)
    mask[np.ix_(*_coarse(coordinates))] = True
    return mask


def wanted(
    coordinates: Sequence[np.ndarray], losses: np.ndarray, errors: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """The points to evaluate next; none when all others may stay interpolated.

    A point may where the estimated error of its interpolation is below its standard error and below 1e-3 of
    the range of the known finite losses, and no point of its coarse cell came out non-finite.

    Args:
        coordinates: as of :func:`first`, whose points come first.
        losses: (x,) or (x, y) float64; what is not known is not looked at.
        errors: their standard errors, of the same shape; NaN where not known.
        known: mask of what was evaluated.
    """
    known, begun = np.asarray(known, dtype=bool), first(coordinates)
    if not known[begun].all():
        return np.asarray(begun & ~known)
    beside = _beside(coordinates, known & ~np.isfinite(losses))
    trusted = known & np.isfinite(losses)
    found: np.ndarray = beside & ~known
    open_ = ~known & ~beside
    if not open_.any():
        return found
    points = _positions(coordinates)
    surface = Interpolated.through(points, losses[..., None], trusted, open_)
    allowed = _allowed(points, losses, errors, trusted, open_, surface.values[:, 0])
    excess = surface.errors / np.maximum(allowed, np.finfo(float).tiny)
    tested = known.sum() >= begun.sum() + _at_once(begun)
    candidates = np.flatnonzero((surface.errors > allowed) | (not tested))
    spots = points[open_]
    chosen = _thinned(spots, points[known], excess, candidates, _at_once(known))
    found[tuple(axis[chosen] for axis in np.nonzero(open_))] = True
    return found


def filled(
    coordinates: Sequence[np.ndarray], values: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All channels everywhere, with the estimated error of the first where it is interpolated.

    Args:
        coordinates: as of :func:`first`.
        values: (x, channels) or (x, y, channels) float64, the loss first. The others are interpolated as the
            loss is, and kept within the range of what is known of them.
        known: mask of what was evaluated, (x,) or (x, y).

    Returns:
        (values, errors). Errors are of the loss: 0 where known; infinite, with NaN for all channels, where a
        point of the coarse cell is non-finite or there is too little to go by.
    """
    losses = values[..., 0]
    trusted = known & np.isfinite(losses)
    open_ = ~known & ~_beside(coordinates, known & ~trusted)
    out = np.where(known[..., None], values, np.nan)
    errors = np.where(known, 0.0, np.inf)
    if not open_.any():
        return out, errors
    surface = Interpolated.through(_positions(coordinates), values, trusted, open_)
    usable = np.isfinite(surface.errors)
    out[open_] = np.where(usable[:, None], surface.values, np.nan)
    errors[open_] = surface.errors
    return out, errors


def _at_once(known: np.ndarray) -> int:
    return max(_LEAST, int(_SHARE * known.sum()))


def _coarse(coordinates: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Indices of the coarse coordinates of each axis, ascending."""
    return [_lines(axis, _EVERY[len(coordinates) - 1]) for axis in coordinates]


def _lines(axis: np.ndarray, every: int) -> np.ndarray:
    count = max(_FEWEST, len(axis) // every + 1)
    if len(axis) <= count:
        return np.arange(len(axis))
    even = np.linspace(0.0, 1.0, count)
    places = _CLUSTERED * (1 - np.cos(np.pi * even)) / 2 + (1 - _CLUSTERED) * even
    found = np.rint(places * (len(axis) - 1)).astype(int)
    zero = np.flatnonzero(axis == 0)
    if len(zero) and zero[0] not in found:
        nearest = int(np.abs(found - zero[0]).argmin())
        if 0 < nearest < count - 1:
            found[nearest] = zero[0]
        else:
            found = np.append(found, zero[0])
    return np.unique(found)


def _positions(coordinates: Sequence[np.ndarray]) -> np.ndarray:
    """(x[, y], axes) each axis from 0 to 1."""
    scaled = [(c - c[0]) / (c[-1] - c[0]) for c in coordinates]
    return np.stack(np.meshgrid(*scaled, indexing="ij"), axis=-1)


def _beside(coordinates: Sequence[np.ndarray], bad: np.ndarray) -> np.ndarray:
    """All points of the coarse cells that hold or touch a ``bad`` point."""
    mask = np.zeros_like(bad)
    if not bad.any():
        return mask
    ends = []
    for lines, where in zip(_coarse(coordinates), np.nonzero(bad), strict=True):
        before = lines[np.maximum(np.searchsorted(lines, where, "left") - 1, 0)]
        after = lines[np.minimum(np.searchsorted(lines, where, "right"), len(lines) - 1)]
        ends.append(np.stack([before, after + 1], axis=1))
    for box in np.unique(np.concatenate(ends, axis=1), axis=0).reshape(-1, len(ends), 2):
        mask[tuple(slice(*side) for side in box)] = True
    return mask


def _allowed(
    points: np.ndarray,
    losses: np.ndarray,
    errors: np.ndarray,
    trusted: np.ndarray,
    open_: np.ndarray,
    interpolated: np.ndarray,
) -> np.ndarray:
    """By how much each unknown point may be off, (points,): its standard error, 1e-3 of the range at most.

    Standard errors of differences are cones around the centre, which no smooth interpolant follows: they are
    weighted means of those nearby, by 1/distance² (Shepard 1968).
    """
    known = losses[trusted]
    spread = np.full(len(interpolated), _VISIBLE * (float(np.ptp(known)) if len(known) else 0.0))
    measured = trusted & np.isfinite(errors)
    if measured.any():
        distances, at = nearest(points[measured], points[open_])
        weights = distances**-2.0
        spread = np.minimum(spread, (weights * errors[measured][at]).sum(1) / weights.sum(1))
    return np.asarray(np.maximum(spread, _RESOLVED * np.nan_to_num(np.abs(interpolated))))


def _thinned(
    points: np.ndarray, known: np.ndarray, excess: np.ndarray, candidates: np.ndarray, limit: int
) -> np.ndarray:
    """The worst of the candidates, none closer to another than to what is known; (chosen,) indices."""
    reach = nearest(known, points)[0][:, 0]
    # A little less than that: on a grid, distances that are equal differ by rounding.
    reach *= 1 - 1e-9
    tree, taken = cKDTree(points), np.zeros(len(points), dtype=bool)
    chosen: list[int] = []
    # Symmetric points are equally bad but for rounding, which the number of threads changes: they are equal.
    with np.errstate(divide="ignore"):
        worst = np.round(np.log2(excess[candidates]), 3)
    for i in candidates[np.argsort(-worst, kind="stable")]:
        if not taken[i]:
            chosen.append(int(i))
            taken[tree.query_ball_point(points[i], reach[i])] = True
            if len(chosen) == limit:
                break
    return np.array(chosen, dtype=int)
