"""Where checkpoints of a training run lie: their principal directions, and their projections on a plane.

The principal directions are those of Li et al. (2018, "Visualizing the Loss Landscape of Neural Nets", §7.2;
the idea is Lorch's, 2016): the right singular vectors of the matrix D with the rows w_i − w. Nothing is
subtracted but the weights w of the model, the centre, so that the plane goes through the model; a plane about
the checkpoints' mean would pass it by.

D is never made, since a trajectory may not fit into memory: its Gram matrix D Dᵀ (m, m) is summed from a few
checkpoints at a time, and one more pass gives the wanted directions v = Dᵀu/σ from its eigenvectors u
(Sirovich 1987, the method of snapshots). Differences and sums are float64, in pieces of the vectors.

A large explained share is no finding by itself. A walk of many equal, independent steps that ends at the
centre has 8/π² = 81 % of its squared distances along the first direction and 9 % along the second (by the
eigenvalues of Brownian motion; about the mean 61 % and 15 %, Antognini & Sohl-Dickstein 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.errors import CheckpointError, InputError
from landscape.linalg.operator import norm

__all__ = ["Principal", "Projection", "gram", "principal", "project"]

#: Weights (n,) of checkpoint i, from 0, of any floating dtype, on any device; not written to afterwards.
Load = Callable[[int], Tensor]

#: Elements of all rows together that are converted to float64 at once.
_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 25}
#: Of the checkpoints in memory one in so many passes by the others. Each group that passes costs a conversion
#: of the others to float64; larger groups cost more reading.
_PASSING = 8
#: Coordinates along a direction that differ by less, relatively, are equally large.
_EQUAL = 1e-6
#: Directions are collinear where an eigenvalue of their cosines is below this (for two: an angle of 1e-6),
#: since cosines in float64 do not tell them apart.
_COLLINEAR = 1e-12


@dataclass(frozen=True)
class Principal:
    """Principal directions of a trajectory about the centre.

    Attributes:
        directions: (k, n) orthonormal rows in the centre's dtype; the checkpoint farthest along each one lies
            on its positive side (the first of them, if several are equally far).
        shares: (k,) share of Σ‖w_i − w‖² that lies along each.
        singular_values: (m,) of the matrix with rows w_i − w, all, descending, in units of the weights.
        rank: how many of them are above ``rounding``.
        rounding: what a singular value may be off by, at most, since weights were rounded when they were
            saved (‖E‖_F of these errors, by Weyl's inequality) and since sums are rounded here.
    """

    directions: Tensor
    shares: np.ndarray
    singular_values: np.ndarray
    rank: int
    rounding: float


@dataclass(frozen=True)
class Projection:
    """Where checkpoints lie with respect to the line or plane through the centre.

    Attributes:
        coordinates: (m, k) of the nearest point w + Σ c_j d_j, in multiples of the directions as given.
        distances: (m,) ‖w_i − w − Σ c_j d_j‖ from it.
        lengths: (m,) ‖w_i − w‖.
        rounding: (m,) what both may be off by, at most, since weights were rounded when they were saved.
        shares: (k,) share of Σ‖w_i − w‖² along each direction by itself, Σ⟨w_i − w, d_j/‖d_j‖⟩² over it. They
            add up to ``within`` if the directions are orthogonal; oblique ones each count what they have in
            common. NaN where all checkpoints equal the centre.
        within: share of it in the line or plane, 1 − Σ distances² / Σ lengths²; NaN likewise.
    """

    coordinates: np.ndarray
    distances: np.ndarray
    lengths: np.ndarray
    rounding: np.ndarray
    shares: np.ndarray
    within: float


def _numbered(i: int) -> str:
    return f"checkpoint {i + 1}"


def gram(
    load: Load, m: int, centre: Tensor, memory: int, name: Callable[[int], str] = _numbered
) -> np.ndarray:
    """The inner products ⟨w_i − w, w_j − w⟩ of ``m`` checkpoints about the ``centre`` w (n,), (m, m) float64.

    With B checkpoints in memory, s = max(1, B // 8) of them pass by p = B − s that stay. So there are m
    readings if m ≤ B, else m + Σ (m − jp − s), over j = 1, 2, … while m − (j − 1)p > B.

    Args:
        memory: bytes for checkpoints held at once; two are held in any case, and a few MiB of pieces.
        name: of checkpoint i, for messages.

    Raises:
        CheckpointError: a checkpoint is not of the centre's shape, or not finite.
    """
    return _gram(_Checkpoints(load, m, centre, memory, name))


def principal(
    load: Load,
    m: int,
    centre: Tensor,
    numbers: Sequence[int],
    memory: int,
    name: Callable[[int], str] = _numbered,
) -> Principal:
    """Principal directions ``numbers`` (from 1, in any order) of ``m`` checkpoints about the ``centre`` (n,).

    Checkpoints are read as often as for :func:`gram`, and those that are not in memory at its end once more.
    The k directions in float64 take memory besides.

    Raises:
        InputError: no such direction: there are fewer checkpoints that are independent of each other beyond
            rounding, or they equal the centre.
        CheckpointError: as for :func:`gram`.
    """
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise InputError("principal directions are numbered from 1, each once", found=f"{list(numbers)}")
    checkpoints = _Checkpoints(load, m, centre, memory, name)
    values, vectors = torch.linalg.eigh(torch.from_numpy(_gram(checkpoints)))
    squares, left = values.flip(0).clamp(min=0), vectors.flip(1)
    sigma, total = squares.sqrt(), float(squares.sum())
    rounding = checkpoints.rounding + (_sum_error(len(centre), m) * total) ** 0.5
    rank = int((sigma > rounding).sum())
    if rank < max(numbers):
        raise _too_few(rank, max(numbers), m, float(sigma[0]), rounding)
    wanted = [number - 1 for number in numbers]
    coefficients = (left[:, wanted] * _signs(left[:, wanted]) / sigma[wanted]).T
    rows = _combined(checkpoints, coefficients)
    _orthonormalise([rows[j] for j in np.argsort(wanted)])
    directions = rows.to(centre.dtype)
    return Principal(directions, squares[wanted].numpy() / total, sigma.numpy(), rank, rounding)


def project(
    load: Load, m: int, centre: Tensor, directions: Tensor, name: Callable[[int], str] = _numbered
) -> Projection:
    """Project ``m`` checkpoints on the line or plane of ``directions`` (k, n) through the ``centre`` (n,).

    By least squares, since directions need be neither orthogonal nor of unit length. Each checkpoint is read
    once. Distances are lengths of residuals, not differences of squares: right also for one in the plane.

    Raises:
        InputError: a direction is zero or not finite, or they are collinear.
        CheckpointError: a checkpoint is not of the centre's shape, or not finite.
    """
    checkpoints = _Checkpoints(load, m, centre, 0, name)
    triangle = _triangle(directions)
    inverse, k = torch.linalg.inv(triangle), len(directions)
    orthonormal, distances, lengths = np.zeros((m, k)), np.zeros(m), np.zeros(m)
    for i in range(m):
        (vector,) = checkpoints.take([i])
        found = torch.zeros(k, dtype=torch.float64)
        lengths[i], inner = _residual(vector, checkpoints.centre, directions, inverse, found)
        for _ in range(2):  # the second time for what rounding left
            found += inner
            distances[i], inner = _residual(vector, checkpoints.centre, directions, inverse, found)
        orthonormal[i] = found.numpy()
    coordinates = orthonormal @ inverse.numpy()
    cosines = triangle / torch.linalg.vector_norm(triangle, dim=1, keepdim=True)
    along = orthonormal @ cosines.numpy().T
    total = float(np.sum(lengths**2))
    shares = np.sum(along**2, axis=0) / total if total else np.full(k, np.nan)
    within = max(0.0, 1 - float(np.sum(distances**2)) / total) if total else float("nan")
    rounding = checkpoints.errors + checkpoints.centre_error
    return Projection(coordinates, distances, lengths, rounding, shares, within)


class _Checkpoints:
    """Checkpoints, read when they are asked for and held while they are.

    Attributes:
        centre: (n,).
        errors: (m,) of those read so far, how far at most rounding moved them when they were saved.
        centre_error: the same of the centre.
    """

    def __init__(self, load: Load, m: int, centre: Tensor, memory: int, name: Callable[[int], str]) -> None:
        if m < 1:
            raise InputError("a trajectory needs a checkpoint", found="none")
        self.centre, self.errors = centre.detach(), np.zeros(m)
        self.centre_error = _saving_error(self.centre, "the centre")
        self._load, self._memory, self._name = load, memory, name
        self._held: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def held(self) -> list[int]:
        return sorted(self._held)

    @property
    def capacity(self) -> int:
        """How many to hold at once; measured on the first one."""
        (first,) = self.take([0])
        return max(2, self._memory // max(1, first.numel() * first.element_size()))

    @property
    def rounding(self) -> float:
        """‖E‖_F, at most, of the errors of all differences; that of the centre is in every one."""
        return float(np.sum(self.errors**2) ** 0.5 + len(self) ** 0.5 * self.centre_error)

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """These checkpoints, and only these are held afterwards."""
        for gone in set(self._held).difference(indices):
            del self._held[gone]
        for i in indices:
            if i not in self._held:
                self._held[i] = self._read(i)
        return [self._held[i] for i in indices]

    def differences(self, indices: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
        """The rows w_i − w of these, float64, a piece of them at a time (which the next one overwrites)."""
        vectors = self.take(indices)
        space: Tensor | None = None
        for part in _parts(self.centre, len(vectors)):
            middle = self.centre[part].double()
            if space is None or space.shape[1] != len(middle):
                space = middle.new_empty((len(vectors), len(middle)))
            for row, vector in zip(space, vectors, strict=True):
                torch.sub(vector[part], middle, out=row)
            yield part, space

    def _read(self, i: int) -> Tensor:
        vector = self._load(i).detach()
        if vector.shape != self.centre.shape or not vector.is_floating_point():
            raise CheckpointError(
                f"{self._name(i)} does not fit the model at the centre",
                found=f"{tuple(vector.shape)} {vector.dtype}, not {tuple(self.centre.shape)}",
                do="give checkpoints of the same model and the same --params",
            )
        vector = vector.to(self.centre.device)
        self.errors[i] = _saving_error(vector, self._name(i))
        return vector


def _parts(vector: Tensor, rows: int) -> Iterator[slice]:
    width = max(1, _CHUNK.get(vector.device.type, _CHUNK["cpu"]) // max(1, rows))
    for first in range(0, len(vector), width):
        yield slice(first, first + width)


def _saving_error(vector: Tensor, name: str) -> float:
    """How far at most rounding moved ``vector`` when it was saved: half a unit of each element.

    A vector of float64 that holds nothing but float32 numbers was saved in float32.

    Raises:
        CheckpointError: it is not finite.
    """
    length, unit = norm(vector), torch.finfo(vector.dtype).eps
    if not np.isfinite(length):
        bad = int((~torch.isfinite(vector)).sum())
        raise CheckpointError(
            f"{name} has weights that are not finite" if bad else f"the weights of {name} cannot be squared",
            found=f"{bad} of {len(vector)}" if bad else f"up to {float(vector.abs().max()):.3g}",
            do="leave it out",
        )
    if vector.dtype == torch.float64 and all(
        torch.equal(vector[part].float().double(), vector[part]) for part in _parts(vector, 1)
    ):
        unit = torch.finfo(torch.float32).eps
    return unit / 2 * length


def _sum_error(n: int, m: int) -> float:
    """Rounding of an eigenvalue of the Gram matrix, relative to the trace.

    That of inner products (Higham 2002, §3.1, with the statistical √terms: those of a piece, then one for
    each piece) and m units of the eigenvalue solver's.
    """
    terms = min(n, _CHUNK["cpu"]) + n / _CHUNK["cpu"]
    return float(torch.finfo(torch.float64).eps * (terms**0.5 + m))


def _blocks(m: int, capacity: int) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs of groups of indices below ``m``, together at most ``capacity``: every pair of indices is in one.

    A panel stays while all later ones pass by, the farthest first: the last to pass begin the next panel.
    """
    passing, first = max(1, capacity // _PASSING), 0
    while m - first > capacity:
        end = first + capacity - passing
        panel = list(range(first, end))
        yield panel, panel
        for start in reversed(range(end, m, passing)):
            yield panel, list(range(start, min(m, start + passing)))
        first = end
    yield list(range(first, m)), list(range(first, m))


def _gram(checkpoints: _Checkpoints) -> np.ndarray:
    m = len(checkpoints)
    products = torch.zeros((m, m), dtype=torch.float64, device=checkpoints.centre.device)
    for panel, passing in _blocks(m, checkpoints.capacity):
        same = panel == passing
        block = products.new_zeros((len(panel), len(passing)))
        for _, rows in checkpoints.differences(panel if same else panel + passing):
            block += rows[: len(panel)] @ (rows if same else rows[len(panel) :]).T
        products[panel[0] : panel[-1] + 1, passing[0] : passing[-1] + 1] = block
    upper = products.cpu().numpy()
    return np.asarray(np.triu(upper) + np.triu(upper, 1).T)


def _signs(columns: Tensor) -> Tensor:
    """Those that make positive the first element, of each column, of those that are largest in size."""
    sizes = columns.abs()
    first = (sizes >= (1 - _EQUAL) * sizes.amax(0)).int().argmax(0)
    return columns.gather(0, first[None])[0].sign()


def _combined(checkpoints: _Checkpoints, coefficients: Tensor) -> Tensor:
    """``coefficients`` (k, m) times the rows w_i − w: (k, n) float64; those in memory first."""
    held, m = checkpoints.held, len(checkpoints)
    step = max(1, len(held) // _PASSING)
    others = [i for i in range(m) if i not in held]
    coefficients = coefficients.to(checkpoints.centre.device)
    sums = coefficients.new_zeros((len(coefficients), len(checkpoints.centre)))
    for group in [held, *(others[a : a + step] for a in range(0, len(others), step))]:
        for part, rows in checkpoints.differences(group):
            sums[:, part] += coefficients[:, group] @ rows
    return sums


def _orthonormalise(rows: Sequence[Tensor]) -> None:
    """Gram–Schmidt, twice (Giraud et al. 2005: twice is enough), of float64 vectors in place.

    The one with the largest singular value comes first: an error along it is the largest in the others.
    """
    for j, row in enumerate(rows):
        for _ in range(2):
            for before in rows[:j]:
                row.sub_(before, alpha=float(before @ row))
            row.div_(norm(row))


def _triangle(directions: Tensor) -> Tensor:
    """L (k, k) of the directions L Q, Q with orthonormal rows, which are not made; float64, on the CPU.

    CholeskyQR2 (Yamamoto et al. 2015), about as accurate as Householder's where it does not break down.
    """
    lengths = [norm(direction) for direction in directions]
    for j, length in enumerate(lengths):
        if not np.isfinite(length) or length == 0:
            raise InputError(f"direction {j + 1} has no length to measure along", found=f"length {length:g}")
    triangle = torch.diag(torch.tensor(lengths, dtype=torch.float64))
    for _ in range(2):
        inverse = torch.linalg.inv(triangle)
        products = torch.zeros_like(triangle)
        for part in _parts(directions[0], 2 * len(lengths)):
            rows = _combination(inverse, directions[:, part])
            products += (rows @ rows.T).cpu()
        smallest = float(torch.linalg.eigvalsh(products)[0])
        if smallest < _COLLINEAR:
            raise InputError(
                "the directions are collinear: they span no plane",
                found=f"smallest eigenvalue of their cosines {smallest:.1g}",
                do="choose another direction for one of them",
            )
        triangle = triangle @ torch.linalg.cholesky(products)
    return triangle


def _combination(coefficients: Tensor, rows: Tensor) -> Tensor:
    return coefficients.to(rows.device) @ rows.double()


def _residual(
    vector: Tensor, centre: Tensor, directions: Tensor, inverse: Tensor, found: Tensor
) -> tuple[float, Tensor]:
    """r = w_i − w − Σ found_j q_j, q the orthonormal rows L⁻¹D: its length, and the ⟨r, q_j⟩ (k,)."""
    square, inner = torch.zeros((), dtype=torch.float64), torch.zeros_like(found)
    for part in _parts(centre, 2 * len(found) + 2):
        rows = _combination(inverse, directions[:, part].to(centre.device))
        residual = vector[part].double() - centre[part].double()
        residual -= _combination(found, rows)
        square += (residual @ residual).cpu()
        inner += (rows @ residual).cpu()
    return float(square) ** 0.5, inner


def _too_few(rank: int, wanted: int, m: int, largest: float, rounding: float) -> InputError:
    """What to say of a trajectory with fewer directions than wanted."""
    if largest == 0:
        return InputError(
            "the checkpoints equal the one at the centre: they have no direction",
            found=f"{m} of {m}",
            do="give others, from along the training run",
        )
    if rank == 0:
        return InputError(
            "the checkpoints differ from the one at the centre by rounding only",
            found=f"largest singular value {largest:.2g}; rounding of the weights may reach {rounding:.2g}",
            do="give checkpoints farther apart, or ones saved in a higher precision",
        )
    return InputError(
        "the trajectory has too few directions beyond rounding",
        found=f"{rank} of {wanted} (checkpoints: {m}; singular values up to {rounding:.2g} may be rounding)",
        do=f"ask for pca:{rank} at most, or give more checkpoints from along the training run",
    )
