"""Tr H = Tr(QHQᵀ) + Tr(PHP): exact on a subspace, random vectors on its complement, P = I − QᵀQ.

With a Krylov space for Q this is the estimate of Chen & Hallman (2023, "Krylov-aware stochastic trace
estimation"), with a sketch Hutch++ (Meyer et al. 2021), with none Hutchinson's (1990).

A vector z drawn on the complement stays useful while Q grows by vectors that do not depend on it: Pz only
gets shorter, its direction stays uniform, and H(Pz) = Hz − Σ_j (q_j·z) Hq_j needs no further product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.lanczos import orthogonalise
from landscape.linalg.looks import Draw, Goal, Look, Stage, TraceEstimator, half_width, stages
from landscape.linalg.operator import Operator, norm
from landscape.linalg.subspace import Subspace

__all__ = ["ComplementTrace", "Share", "pair_squares"]

#: Products in all → the part of them that goes into the subspace.
Share = Callable[[int], float]

#: Widening of the interval of a single coordinate, over the root of the number of random vectors (measured
#: on power laws and outliers, n = 150).
_HEAVY = 2.0
#: Elements made float64 at once.
_CHUNK = 1 << 20


def pair_squares(forms: np.ndarray) -> np.ndarray:
    """‖S‖_F² of S = (B + Bᵀ)/2 from forms M_ij = z_iᵀBz_j (…, p, p) of random vectors with E zzᵀ = I: (…).

    E(z_iᵀSz_j)² = ‖S‖_F² for i ≠ j, hence the mean of ¼(M_ij + M_ji)² over the pairs.
    """
    p = forms.shape[-1]
    both = (forms + np.swapaxes(forms, -1, -2)) / 2
    off = (both**2).sum((-1, -2)) - (np.diagonal(both, axis1=-2, axis2=-1) ** 2).sum(-1)
    mean: np.ndarray = off / (p * (p - 1))
    return mean


@dataclass(frozen=True)
class _Held:
    """What the stored random vectors say, each rescaled to norm √N on the complement.

    Attributes:
        forms: (2 + L, p, p): z_iᵀAz_j, (Az_i)ᵀAz_j and, block by block, z_i[ℓ]·(Az_j)[ℓ], with A = PHP.
        known: (L,) the part of each block's trace that the subspace knows: its own and the cross term.
        squares: (p,) by what squared lengths were multiplied.
    """

    forms: np.ndarray
    known: np.ndarray
    squares: np.ndarray


class ComplementTrace(TraceEstimator):
    """Trace, traces of diagonal blocks, diagonal, and Frobenius norm from one subspace and its complement.

    Args:
        space: the subspace; its rows so far are taken as they are.
        draw: ``"probe"`` must give Gaussian vectors or, if the subspace stays empty, random signs.
        share: the part of the products that goes into the subspace, by how many there are in all, those of
            the rows taken over included.
        pays: whether a further row is worth more than a random vector, of which there are so many; without,
            the subspace gets its whole share. It must know nothing of the random vectors.
        blocks: disjoint ascending slices of coordinates.
        floor: what a product with a unit vector can be wrong by.
        stored: how many random vectors may be kept, each with its product; beyond that the subspace stays
            as it is, and of a vector only its sums are kept.
        diagonal: whether :meth:`diagonal` will be asked for beyond ``stored`` vectors.
    """

    def __init__(
        self,
        operator: Operator,
        space: Subspace,
        draw: Draw,
        goal: Goal,
        *,
        share: Share,
        pays: Callable[[int], bool] | None = None,
        blocks: Sequence[slice] = (),
        floor: float = 0.0,
        stored: int | None = None,
        diagonal: bool = False,
    ) -> None:
        self.space, self.draw, self.share, self._pays = space, draw, share, pays
        self._decided: tuple[tuple[int, int], bool] | None = None
        self._taken_over = space.rows
        self.stored = goal.budget if stored is None else stored
        if stored is not None and stored < 8:
            raise ValueError(f"room for {stored} random vectors: at least 8 are needed")
        super().__init__(operator, goal, blocks, floor)
        self._make_room()
        self.probes = 0
        self._due: tuple[int, Tensor] | None = None
        self._passing: list[np.ndarray] = []
        shape = (2, operator.size if diagonal else 0)
        self._sums = torch.zeros(shape, dtype=torch.float64, device=operator.device)
        self._keeps_diagonal = diagonal

    def _make_room(self) -> None:
        most = self.goal.budget if self._pays else max(stage.probes for stage in self.stages)
        held = min(self.stored, most)
        # Not zeroed: memory that is never touched is never taken.
        shape = (held, self.operator.size)
        self._probes = torch.empty(shape, dtype=self.operator.dtype, device=self.operator.device)
        self._images = torch.empty_like(self._probes)

    @property
    def size(self) -> int:
        """Dimension N of the complement."""
        return self.operator.size - self.space.rows

    @property
    def exact(self) -> bool:
        return self.size == 0

    def plan(self) -> list[Stage]:
        space, n, start = self.space, self.operator.size, self._taken_over

        def allocate(products: int) -> tuple[int, int]:
            aim = round(self.share(start + products) * (start + products))
            new = min(max(0, aim // space.cost - start), space.capacity - start, n - start)
            # Two random vectors before a longer basis: without them there is no interval.
            new = max(0, min(new, (products - 2) // space.cost))
            return start + new, products - new * space.cost

        whole = ((n - start) * space.cost, n) if space.capacity >= n else None
        return self._frozen(stages(self.goal, allocate, whole))

    def _frozen(self, plan: list[Stage]) -> list[Stage]:
        """The plan with a subspace that does not grow once random vectors are no longer stored."""
        for i, stage in enumerate(plan):
            if stage.probes > self.stored and stage.rows < self.operator.size:
                extra = [(later.rows - stage.rows) * self.space.cost for later in plan]
                return plan[:i] + [
                    Stage(stage.rows, later.probes + more, later.risk)
                    for later, more in zip(plan[i:], extra[i:], strict=True)
                ]
        return plan

    def complete(self, stage: Stage) -> bool:
        return self.exact or (not self._grows() and self.probes >= self._wanted(stage))

    def _wanted(self, stage: Stage) -> int:
        """Random vectors of a stage; of the last one also those in place of rows that did not pay."""
        spared = (stage.rows - self.space.rows) * self.space.cost if stage is self.stages[-1] else 0
        return stage.probes + spared

    def _grows(self) -> bool:
        """Whether the next product is one of the subspace."""
        rows, stage = self.space.rows, self.stage
        if rows >= stage.rows or self._pays is None or stage.rows == self.operator.size:
            return rows < stage.rows
        if self._passing:  # random vectors that are not stored cannot be projected again
            return False
        case = rows, self._wanted(stage)
        if self._decided is None or self._decided[0] != case:
            self._decided = case, self._pays(case[1])
        return self._decided[1]

    def next_vector(self) -> Tensor:
        if self._grows():
            return self.space.next_vector()
        if self._due is None or self._due[0] != self.probes:
            vector = self._on_complement(self.draw("probe", self.probes))
            self._due = self.probes, vector.to(self.operator.dtype)
        return self._due[1]

    def take(self, product: Tensor) -> None:
        if self._grows():
            self.space.extend(product)
            return
        vector = self.next_vector()
        if self.probes < len(self._probes):
            self._probes[self.probes], self._images[self.probes] = vector, product
        else:
            self._pass(vector.double(), product)
        self.probes += 1

    def _on_complement(self, vector: Tensor) -> Tensor:
        """``vector`` (n,) projected and given the norm √N."""
        vector = vector.to(self.operator.device, torch.float64, copy=True)
        orthogonalise(vector, self.space.basis)
        return vector.mul_(self.size**0.5 / norm(vector))

    def _pass(self, vector: Tensor, product: Tensor) -> None:
        """Keep the sums of a random vector that is not stored."""
        image = product.clone()
        orthogonalise(image, self.space.basis)
        each = vector * image
        sums = [each.sum(), image @ image, *(each[block].sum() for block in self.blocks)]
        self._passing.append(np.array([float(value) for value in sums]))
        if self._keeps_diagonal:
            self._sums += torch.stack([each, each**2])

    # --- estimates ---------------------------------------------------------------------------------------

    def look(self, risk: float) -> Look:
        held = self._held()
        projected = self.space.projected
        own = float(torch.trace(projected))
        frobenius = float((projected**2).sum()) + 2 * self.space.leak
        known = np.concatenate([[own, frobenius], held.known])
        count = self._count
        values = np.diagonal(held.forms, axis1=1, axis2=2).T
        values = np.concatenate([values, *(row[None] for row in self._passing)]) if count else values
        if self.exact:
            means, widths = known, np.zeros(len(known))
        elif self.probes == 0:
            means = widths = np.full(len(known), np.nan)
        else:
            means = known + values.mean(axis=0)
            widths = half_width(values, self._second(held.forms, values), risk)
            widths[2:] *= self._tails()
        widths = widths + self.rounding * np.array([1.0, 2 * abs(means[1]) ** 0.5, *[1.0] * len(held.known)])
        ratio = means[0] ** 2 / means[1] if means[1] > 0 else np.nan
        spread = self._spread(held.forms, values, means, widths, risk)
        least = frobenius - 2 * self.rounding * frobenius**0.5
        squared = [means[1], max(means[1] - widths[1], least), means[1] + widths[1]]
        norms = np.sqrt(np.maximum(squared, 0.0))
        return Look(
            products=self.products,
            rows=self.space.rows,
            probes=self.probes,
            confidence=1 - risk,
            trace=float(means[0]),
            half_width=float(widths[0]),
            frobenius=float(norms[0]),
            frobenius_low=float(norms[1]),
            frobenius_high=float(norms[2]),
            participation=float(ratio),
            participation_low=float(np.maximum(ratio - spread, 0.0)),
            participation_high=float(np.minimum(ratio + spread, self.operator.size)),
            layers=means[2:],
            layer_half_widths=widths[2:],
        )

    def _tails(self) -> np.ndarray:
        """By how much the half-widths of small blocks are widened.

        A block's value is a sum of products of two Gaussians, one for each coordinate: of few of them the
        tails are heavy, and the interval of a mean that knew of the variance only would cover 83 to 93 %.
        """
        sizes = np.array([max(1, block.stop - block.start) for block in self.blocks], dtype=float)
        widened: np.ndarray = 1 + _HEAVY / (sizes * self.probes**0.5)
        return widened

    @property
    def _count(self) -> int:
        return len(self._passing)

    @property
    def rounding(self) -> float:
        """What the products' own errors can do to a trace, √N of them for random vectors, √m for rows."""
        own = self.space.rows**0.5 * (self.floor + self.space.lost)
        return float(self.size**0.5 * self.floor + own)

    def _second(self, forms: np.ndarray, values: np.ndarray) -> np.ndarray:
        """A second estimate of the variance of each column of ``values``.

        Var(zᵀBz) = 2N/(N + 2)·(‖S‖_F² − Tr(S)²/N) on the sphere of radius √N, S = (B + Bᵀ)/2. For A itself,
        ‖A‖_F² = E‖Az‖² says it best; for the others it comes from pairs. (For random signs it is a bound.)
        """
        if forms.shape[1] < 2:
            return np.zeros(values.shape[1])
        squared, means = pair_squares(forms), values.mean(axis=0)
        squared[0] = means[1]
        return self._on_sphere(squared, means)

    def _on_sphere(self, squared: np.ndarray, means: np.ndarray) -> np.ndarray:
        variance: np.ndarray = (
            2 * self.size / (self.size + 2) * np.maximum(squared - means**2 / self.size, 0.0)
        )
        return variance

    def _spread(
        self, forms: np.ndarray, values: np.ndarray, means: np.ndarray, widths: np.ndarray, risk: float
    ) -> float:
        """Half-width of (Tr H)²/‖H‖_F² by the delta method; the two come from the same vectors."""
        if not means[1] > 0:
            return float("nan")
        slopes = np.array([2 * means[0] / means[1], -((means[0] / means[1]) ** 2)])
        rounding = float(self.rounding * (abs(slopes[0]) + 2 * abs(slopes[1]) * means[1] ** 0.5))
        if self.exact:
            return rounding
        if not np.isfinite(widths[0]):
            return float("nan")
        linear = values[:, :2] @ slopes
        second = self._on_sphere(pair_squares(np.tensordot(slopes, forms[:2], 1)), linear.mean())
        spread = float(half_width(linear, second, risk))
        return rounding + spread

    def _held(self) -> _Held:
        """Forms of the stored vectors, a few columns at a time."""
        probes, images = self._stored()
        basis, weights, projected = self.space.basis, self.space.weights, self.space.projected
        inside, along = self._inner(probes, basis), self._inner(images, basis)
        out = inside @ weights
        forms = probes.new_zeros((2 + len(self.blocks), len(probes), len(probes)), dtype=torch.float64)
        known = probes.new_zeros(2 + len(self.blocks), dtype=torch.float64)
        squares = probes.new_zeros(len(probes), dtype=torch.float64)
        for part, block in self._parts():
            rows, outside = basis[:, part].double(), self.space.outside(part)
            vectors = probes[:, part].double() - inside @ rows
            mapped = images[:, part].double() - along @ rows - out @ outside
            here = vectors @ mapped.T
            forms[0] += here
            forms[1] += mapped @ mapped.T
            squares += (vectors**2).sum(dim=1)
            if block is not None:
                forms[2 + block] += here
                known[2 + block] += (rows * (projected @ rows + 2 * weights @ outside)).sum()
        scale = self.size / squares
        forms *= (scale[:, None] * scale).sqrt()
        return _Held(forms.cpu().numpy(), known[2:].cpu().numpy(), scale.cpu().numpy())

    def _inner(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """``vectors @ rows.T`` in float64, whatever the precision of either."""
        out = vectors.new_zeros((len(vectors), len(rows)), dtype=torch.float64)
        for part, _ in self._parts():
            out += vectors[:, part].double() @ rows[:, part].double().T
        return out

    def _stored(self) -> tuple[Tensor, Tensor]:
        count = 0 if self.exact else min(self.probes, len(self._probes))
        return self._probes[:count], self._images[:count]

    def _parts(self) -> Iterator[tuple[slice, int | None]]:
        """All coordinates in short slices, each with the block it lies in."""
        width = max(1, _CHUNK // max(1, self.space.rows + 2 * self.probes))
        edges = sorted({0, self.operator.size, *(edge for b in self.blocks for edge in (b.start, b.stop))})
        starts = {b.start: i for i, b in enumerate(self.blocks) if b.stop > b.start}
        for first, last in pairwise(edges):
            block = starts.get(first)
            for begin in range(first, last, width):
                yield slice(begin, min(last, begin + width)), block

    def diagonal(self) -> tuple[np.ndarray, np.ndarray]:
        """The diagonal of H and its standard errors, both (n,); NaN errors below two random vectors."""
        held = self._held()
        probes, images = self._stored()
        basis, weights, projected = self.space.basis, self.space.weights, self.space.projected
        inside, along = self._inner(probes, basis), self._inner(images, basis)
        out = inside @ weights
        scale = torch.from_numpy(held.squares).to(probes.device)[:, None]
        known = torch.empty(self.operator.size, dtype=torch.float64)
        sums = torch.zeros((2, self.operator.size), dtype=torch.float64)
        for part, _ in self._parts():
            rows, outside = basis[:, part].double(), self.space.outside(part)
            vectors = probes[:, part].double() - inside @ rows
            each = scale * vectors * (images[:, part].double() - along @ rows - out @ outside)
            known[part] = (rows * (projected @ rows + 2 * weights @ outside)).sum(dim=0).cpu()
            sums[:, part] = torch.stack([each.sum(dim=0), (each**2).sum(dim=0)]).cpu()
        if self._count:
            if not self._keeps_diagonal:
                raise ValueError("random vectors that were not stored: ask for the diagonal beforehand")
            sums += self._sums.cpu()
        return _mean_and_error(known.numpy(), sums.numpy(), 0 if self.exact else self.probes)

    # --- saving ------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        held = min(self.probes, len(self._probes))
        passing = np.array(self._passing, dtype=float).reshape(self._count, 2 + len(self.blocks))
        own = {
            "probes": self._probes[:held].cpu().numpy(),
            "images": self._images[:held].cpu().numpy(),
            "passing": passing,
            "sums": self._sums.cpu().numpy(),
        }
        return super().arrays() | own | {f"space_{name}": a for name, a in self.space.arrays().items()}

    def counters(self) -> dict[str, Any]:
        return super().counters() | {"probes": self.probes, "taken_over": self._taken_over}

    def restore(self, arrays: Mapping[str, np.ndarray], counters: Mapping[str, Any]) -> None:
        super().restore(arrays, counters)
        self._taken_over = int(counters["taken_over"])
        self.stages = self.plan()
        self._make_room()
        self.probes, held = int(counters["probes"]), len(arrays["probes"])
        self._probes[:held] = torch.from_numpy(np.asarray(arrays["probes"]))
        self._images[:held] = torch.from_numpy(np.asarray(arrays["images"]))
        self._passing = list(np.asarray(arrays["passing"]))
        self._sums = torch.from_numpy(np.array(arrays["sums"])).to(self.operator.device)
        prefix = "space_"
        self.space.restore({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})


def _mean_and_error(known: np.ndarray, sums: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    if count < 2:
        nothing = np.zeros_like(known) if count == 0 else np.full_like(known, np.nan)
        return known + sums[0], nothing
    mean = sums[0] / count
    variance = np.maximum(sums[1] / count - mean**2, 0.0) * count / (count - 1)
    return known + mean, np.sqrt(variance / count)
