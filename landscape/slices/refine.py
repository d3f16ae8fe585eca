"""Coarse to fine: which points of a grid to evaluate, and what the others are by interpolation.

Interpolation is by polyharmonic splines on scattered points: s(x) = Σ cⱼ|x − xⱼ|ᵖ + a cubic polynomial, with
p = 3 or 5 (Duchon 1977, "Splines minimizing rotation-invariant semi-norms in Sobolev spaces"). Two facts make
its error known:

- what a point left out would have been off by costs nothing, eⱼ = cⱼ/(A⁻¹)ⱼⱼ (Rippa 1999, "An algorithm for
  selecting a good value for the parameter c in radial basis function interpolation", §3);
- the error at x is at most the power function P(x), which follows from the positions alone, times a size of
  the function (Wu & Schaback 1993, "Local error estimates for radial basis function interpolation of
  scattered data"), and a point left out has P² = 1/|A⁻¹ⱼⱼ|.

So |eⱼ|/Pⱼ measures that size around xⱼ, from what came out at xⱼ against what the others foretold, and the
error at x is estimated as P(x) times the largest of it nearby. All is a function of the known points' values
alone, so that a run that is resumed chooses the same points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

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
#: Powers p of the distance.
_POWERS = (3, 5)
_DEGREE = 3
#: Known points nearby that tell the size of the function: on a line, in a plane.
_NEARBY = (4, 12)
#: Estimated errors are the largest seen nearby times this. On random smooth, kinked, valley-shaped and
#: cliff-like surfaces 93 % to 100 % of the true errors were below the estimates then.
_SAFETY = 2.0
#: Known points that an interpolant goes through and those among them that it is for, on a line and in a plane
#: (few on a line, where the rounding of many close points would show), and points found at once.
_STENCIL, _CORE, _TARGETS = (24, 240), (8, 80), 4096
#: Rounding of an interpolant, relative to the values it goes through, if the residuals should show none.
_ROUNDING = 1e-9
#: A value that is not finite and has a smaller weight than this is left out of its channel.
_IGNORED = 0.02


def first(coordinates: Sequence[np.ndarray]) -> np.ndarray:
    """The coarse points to begin with: rows and columns, denser at the edges, zero's among them.

    Args:
        coordinates: one ascending array for each axis, one or two.

    Returns:
        A mask of the grid's shape, (x,) or (x, y).

    >>> first([np.linspace(-1, 1, 17)]).nonzero()[0].tolist()
    [0, 1, 4, 6, 8, 10, 12, 15, 16]
    """
    mask = np.zeros([len(c) for c in coordinates], dtype=bool)
    mask[np.ix_(*_coarse(coordinates))] = True
    return mask


def wanted(
    coordinates: Sequence[np.ndarray], losses: np.ndarray, errors: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """The points to evaluate next; none when all others may stay interpolated.

    A point may where the estimated error of its interpolation is below its standard error, and no point of
    its coarse cell came out non-finite.

    Args:
        coordinates: as of :func:`first`, whose points come first.
        losses: (x,) or (x, y) float64; what is not known is not looked at.
        errors: their standard errors, of the same shape. Where they are not known (NaN at all known points
            nearby), 1e-3 of the range of the known finite losses is in their place.
        known: mask of what was evaluated.
    """
    begun = first(coordinates)
    if not known[begun].all():
        return begun & ~known
    if known.all():
        return np.zeros_like(known)
    beside = _beside(coordinates, known & ~np.isfinite(losses))
    trusted = known & np.isfinite(losses)
    found = beside & ~known
    open_ = ~known & ~beside
    if not open_.any():
        return found
    points = _positions(coordinates)
    surface = _Surface.through(points, losses[..., None], trusted, open_)
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
    surface = _Surface.through(_positions(coordinates), values, trusted, open_)
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
    """By how much each point that is not known may be off, (points,): its standard error.

    Standard errors of differences are cones around the centre, which no smooth interpolant follows: they are
    weighted means of those nearby, by 1/distance² (Shepard 1968).
    """
    known = losses[trusted]
    spread = np.full(len(interpolated), _VISIBLE * (float(np.ptp(known)) if len(known) else 0.0))
    measured = trusted & np.isfinite(errors)
    if measured.any():
        count = min(_NEARBY[points.shape[-1] - 1], int(measured.sum()))
        distances, at = _nearest(points[measured], points[open_], count)
        weights = distances**-2.0
        spread = (weights * errors[measured][at]).sum(1) / weights.sum(1)
    allowed: np.ndarray = np.maximum(spread, _RESOLVED * np.nan_to_num(np.abs(interpolated)))
    return allowed


def _nearest(known: np.ndarray, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the ``count`` nearest of ``known`` and their indices, (points, count) each."""
    distances, at = cKDTree(known).query(points, k=np.arange(1, count + 1))
    return distances, at


def _thinned(
    points: np.ndarray, known: np.ndarray, excess: np.ndarray, candidates: np.ndarray, limit: int
) -> np.ndarray:
    """The worst of the candidates, none closer to another than to what is known; (chosen,) indices."""
    reach = _nearest(known, points, 1)[0][:, 0]
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


@dataclass(frozen=True)
class _Surface:
    """Between trusted points: ``values`` (points, channels), and ``errors`` (points,) of the loss."""

    values: np.ndarray
    errors: np.ndarray

    @classmethod
    def through(
        cls, positions: np.ndarray, values: np.ndarray, trusted: np.ndarray, open_: np.ndarray
    ) -> _Surface:
        """At ``open_`` points from ``trusted`` ones, (x[, y]) masks; ``values`` is (x[, y], channels)."""
        known, points, data = positions[trusted], positions[open_], values[trusted]
        found, errors = np.full((len(points), data.shape[1]), np.nan), np.full(len(points), np.inf)
        if not len(known):
            return cls(found, errors)
        parts = list(_parts(known, points))
        exponents = _exponents(positions.shape[:-1])
        fits = [[_Fit.of(known[p.stencil], p.centre, p.radius, q, exponents) for q in _POWERS] for p in parts]
        # The size of the function at each known point, by power, from the interpolant that it is the core of.
        sizes = np.full((len(_POWERS), len(known)), np.inf)
        for part, pair in zip(parts, fits, strict=True):
            inside = np.isin(part.stencil, part.core)
            for row, fit in zip(sizes, pair, strict=True):
                row[part.stencil[inside]] = fit.sizes(data[part.stencil, 0])[inside]
        count = min(_NEARBY[positions.shape[-1] - 1], len(known))
        largest = sizes[:, _nearest(known, points, count)[1]].max(2)
        for part, pair in zip(parts, fits, strict=True):
            if len(part.targets):
                at = part.targets
                found[at], errors[at] = _better(pair, points[at], data[part.stencil], largest[:, at])
        lowest, highest = _range(data[:, 1:])
        found[:, 1:] = np.clip(found[:, 1:], lowest, highest)
        return cls(found, errors)


def _range(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest finite value of each channel."""
    finite = np.ma.masked_invalid(data)
    return finite.min(0).filled(-np.inf), finite.max(0).filled(np.inf)


def _better(
    pair: Sequence[_Fit], points: np.ndarray, data: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """At each point that power whose estimated error is smaller, and no less than what both differ by."""
    weights, powers = zip(*(fit.at(points) for fit in pair), strict=True)
    with np.errstate(invalid="ignore", over="ignore"):
        estimates = np.nan_to_num(_SAFETY * sizes * np.stack(powers), nan=np.inf, posinf=np.inf)
        choice = estimates.argmin(0)
        losses = np.stack([w @ data[:, 0] for w in weights])
        apart = np.nan_to_num(np.abs(losses[0] - losses[1]), nan=np.inf, posinf=np.inf)
        errors = np.maximum(estimates.min(0), apart) + _ROUNDING * np.abs(data[:, 0]).max()
        chosen = np.where((choice == 0)[:, None], *weights)
        return _combined(chosen, data), errors


def _combined(weights: np.ndarray, data: np.ndarray) -> np.ndarray:
    """weights (points, known) @ data (known, channels). A NaN of one channel reaches its neighbours only."""
    finite = np.isfinite(data)
    whole = _product(weights, np.where(finite, data, 0.0))
    for channel in np.flatnonzero(~finite.all(0)):
        whole[:, channel] = np.nan
        if finite[:, channel].any():
            far = np.abs(weights[:, ~finite[:, channel]]).max(1) < _IGNORED
            rest = weights[np.ix_(far, finite[:, channel])]
            whole[far, channel] = (rest @ data[finite[:, channel], channel]) / rest.sum(1)
    return whole


@dataclass(frozen=True)
class _Part:
    """A box of the grid: its points, the known points in it, and those an interpolant for it goes through."""

    targets: np.ndarray
    core: np.ndarray
    stencil: np.ndarray
    centre: np.ndarray
    radius: float


def _parts(known: np.ndarray, points: np.ndarray) -> Iterator[_Part]:
    """Boxes with few known points each; one of them if there are few in all."""
    dimensions = known.shape[1]
    most, few = _STENCIL[dimensions - 1], _CORE[dimensions - 1]
    everything = np.arange(len(points)), np.arange(len(known)), np.zeros(dimensions), np.ones(dimensions)
    waiting = [everything]
    while waiting:
        targets, core, low, high = waiting.pop()
        crowded = len(core) > few and len(known) > most
        axis = int((high - low).argmax())
        if (crowded or len(targets) > _TARGETS) and high[axis] - low[axis] > 1e-6:
            middle = (low[axis] + high[axis]) / 2
            upper, lower = low.copy(), high.copy()
            upper[axis] = lower[axis] = middle
            right, above = points[targets, axis] > middle, known[core, axis] > middle
            waiting.append((targets[right], core[above], upper, high))
            waiting.append((targets[~right], core[~above], low, lower))
        elif len(targets) or len(core):
            outside = np.maximum(np.maximum(low - known, known - high), 0.0)
            order = np.argsort((outside**2).sum(1), kind="stable")[:most]
            middle = known[order].mean(0)
            radius = float(np.abs(known[order] - middle).max()) or 1.0
            yield _Part(targets, core, np.union1d(order, core), middle, radius)


def _exponents(shape: Sequence[int]) -> np.ndarray:
    """(monomials, axes) of the polynomials of a degree, with no more powers than there are coordinates."""
    every = np.indices([min(_DEGREE + 1, n) for n in shape]).reshape(len(shape), -1).T
    return every[every.sum(1) <= _DEGREE]


@dataclass(frozen=True)
class _Fit:
    """Polyharmonic interpolation through some points, in coordinates from −1 to 1 around them.

    Attributes:
        inverse: that of [[|xᵢ − xⱼ|ᵖ, monomials], [monomialsᵀ, 0]]; None where it does not exist.
        unit: (radius)^(p/2), which power functions are larger by in the grid's own coordinates.
    """

    places: np.ndarray
    inverse: np.ndarray | None
    power: int
    exponents: np.ndarray
    centre: np.ndarray
    radius: float

    @classmethod
    def of(
        cls, known: np.ndarray, centre: np.ndarray, radius: float, power: int, exponents: np.ndarray
    ) -> _Fit:
        places = (known - centre) / radius
        basis = _monomials(places, exponents)
        inverse = None
        if len(known) > basis.shape[1] == np.linalg.matrix_rank(basis):
            corner = np.zeros((basis.shape[1],) * 2)
            inverse = _inverse(np.block([[_distances(places, places) ** power, basis], [basis.T, corner]]))
        return cls(places, inverse, power, exponents, centre, radius)

    @property
    def unit(self) -> float:
        return float(self.radius ** (self.power / 2))

    def sizes(self, data: np.ndarray) -> np.ndarray:
        """|eⱼ|/Pⱼ (known,) of the points left out one at a time: |cⱼ|/√|A⁻¹ⱼⱼ|."""
        if self.inverse is None:
            return np.full(len(data), np.inf)
        inverse = self.inverse[: len(data), : len(data)]
        scale = float(np.abs(data).max()) or 1.0
        found: np.ndarray = np.abs(inverse @ (data / scale)) / np.sqrt(np.abs(np.diag(inverse)))
        return found * (scale / self.unit)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (points, known) of the known values, and the power function (points,)."""
        if self.inverse is None:
            return np.full((len(points), len(self.places)), np.nan), np.full(len(points), np.inf)
        places = (points - self.centre) / self.radius
        right = np.concatenate(
            [_distances(places, self.places) ** self.power, _monomials(places, self.exponents)], 1
        )
        weights = _product(right, self.inverse)
        # |.|ᵖ is positive definite where polynomials vanish, up to this sign.
        sign = (-1) ** ((self.power + 1) // 2)
        squares = -sign * np.einsum("ij,ij->i", weights, right)
        return weights[:, : len(self.places)], np.sqrt(np.maximum(squares, 0.0)) * self.unit


def _inverse(matrix: np.ndarray) -> np.ndarray | None:
    """Torch's work, as is the next: NumPy's own pool of threads would spin against torch's."""
    found, failed = torch.linalg.inv_ex(torch.from_numpy(matrix))
    return None if int(failed) else found.numpy()


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    found: np.ndarray = (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()
    return found


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.sqrt(sum((a[:, None] - b[None]) ** 2 for a, b in zip(first.T, second.T, strict=True)))


def _monomials(places: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """(points, monomials)."""
    return np.prod(places[:, None, :] ** exponents[None], axis=2)
