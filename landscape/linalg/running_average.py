"""The running average v ← (1 − β) v + β d of curvature products d, β the weight of the new one.

Two readings of one procedure:

- ``iterate``: d = H v/‖v‖, a damped power iteration (LeCun, Simard & Pearlmutter 1993; LeCun et al. 1998,
  "Efficient BackProp", §9.2). In the eigenbasis component i is multiplied by (1 − β) + βλᵢ/‖v‖, so that v
  tends to λmax times its eigenvector if and only if |λmin| < λmax (2/β − 1). Else it tends to the
  eigenvector of λmin, flips its sign at each step, and ‖v‖ → β|λmin|/(2 − β): no eigenvalue at all.
- ``gradient``: d = Hu with u along the gradient, whatever v is: no power iteration. On a fixed batch
  v_k = (1 − β)^k v₀ + (1 − (1 − β)^k) d, so ‖v‖ → ‖Hu‖ ≤ max|λ|, the sign lost.

What v is worth is measured on fixed data: its Rayleigh quotient, signed, and the residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.operator import norm

__all__ = [
    "Evaluate",
    "Perturb",
    "Product",
    "RunningAverage",
    "Verdict",
    "cycle_norm",
    "running_average",
    "safe_weight",
    "smoothed",
]

Perturb = Literal["iterate", "gradient"]
Verdict = Literal["converged", "oscillating", "not_converged"]

#: (iteration, v/‖v‖ or None) → (d, the direction it was taken along), both (n,).
Product = Callable[[int, Tensor | None], tuple[Tensor, Tensor]]
#: (iteration, v/‖v‖) → its product with the matrix of the evaluation set (n,), or None: not this time.
Evaluate = Callable[[int, Tensor], Tensor | None]

#: Steps in a row on which a cycle shows, or a norm stays, before it is believed; more where nothing but the
#: steps themselves speaks for a cycle.
_SEVERAL, _MANY = 10, 20
#: Cosines of steps that are flips: of an evaluated eigenvector, of one to rounding, and of one that changes
#: with the batches, with ‖v‖ to 5 %.
_FLIP, _FLIP_EXACT, _ROUGH_FLIP, _ROUGH = -0.999, -1 + 1e-12, -0.99, 0.05
#: A cycle has to be told from one that dies out: a looser tolerance is not enough for that.
_CYCLE = 1e-4
#: A balance of two eigenvectors: neither gains on the other by more than this, while each step turns v by an
#: angle whose cosine is below that.
_BALANCE, _TURNING = 1e-9, 0.9

_HISTORIES = ("norms", "rayleigh", "residuals", "cosines", "changes", "curvatures", "lengths")


@dataclass
class RunningAverage:
    """The vector and its history under way. Entry k of a list is v after k iterations, entry 0 the start.

    Attributes:
        vector: v, (n,) float64, in units of the curvature.
        direction: v/‖v‖ (n,); the last one there was while v = 0.
        status: what can be said so far; it may change until ``over``.
        over: another iteration would change nothing of it.
        norms: ‖v‖.
        rayleigh: signed Rayleigh quotient of v on the evaluation set, NaN where it was not evaluated.
        residuals: ‖Hv̂ − θv̂‖ there, likewise.
        cosines: of the direction with the one before; NaN at the start.
        changes: ‖v_k − v_{k−1}‖/β, which is ‖d − v_{k−1}‖; NaN at the start.
        curvatures: uᵀd, where u is the direction that the product d was made along; NaN at the start.
        lengths: ‖d‖; NaN at the start.
        products: products and evaluations made.
    """

    vector: Tensor
    direction: Tensor
    status: Verdict = "not_converged"
    over: bool = False
    norms: list[float] = field(default_factory=list)
    rayleigh: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    curvatures: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    products: int = 0

    @classmethod
    def start(cls, vector: Tensor, direction: Tensor | None = None) -> RunningAverage:
        """Begin from v₀ = ``vector`` (n,). If that is zero, ``direction`` is where ``iterate`` looks first.

        ``iterate`` wants a random one: begun in an exact eigenvector it would stay there.
        """
        vector = vector.to(torch.float64, copy=True)
        length = norm(vector)
        along = vector if length > 0 or direction is None else direction.to(vector)
        unit = along / (norm(along) or 1.0)
        average = cls(vector, unit, norms=[length])
        for name in _HISTORIES[1:]:
            getattr(average, name).append(math.nan)
        return average

    @property
    def iterations(self) -> int:
        """How often the average was taken."""
        return len(self.norms) - 1

    def update(self, product: Tensor, along: Tensor, new_weight: float) -> None:
        """Take ``product`` (n,), made along the unit vector ``along`` (n,), into the average."""
        product, before = product.to(self.vector), self.direction
        change = norm(product - self.vector)
        self.vector = (1 - new_weight) * self.vector + new_weight * product
        length = norm(self.vector)
        self.direction = self.vector / length if length > 0 else before
        self.norms.append(length)
        self.rayleigh.append(math.nan)
        self.residuals.append(math.nan)
        self.cosines.append(float(self.direction @ before))
        self.changes.append(change)
        self.curvatures.append(float(along.to(product) @ product))
        self.lengths.append(norm(product))

    def measure(self, image: Tensor) -> None:
        """Rayleigh quotient and residual of v, from the product ``image`` (n,) of :attr:`direction`."""
        image = image.to(self.direction)
        self.rayleigh[-1] = float(self.direction @ image)
        self.residuals[-1] = norm(image - self.rayleigh[-1] * self.direction)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to go on, with :meth:`counters`."""
        lists = {f"average_{name}": np.array(getattr(self, name)) for name in _HISTORIES}
        vectors = {"average_vector": self.vector, "average_direction": self.direction}
        return lists | {name: vector.cpu().numpy() for name, vector in vectors.items()}

    def counters(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "average_status": self.status,
            "average_over": self.over,
            "average_products": self.products,
        }

    @classmethod
    def restore(
        cls, arrays: dict[str, np.ndarray], counters: dict[str, Any], device: torch.device | str = "cpu"
    ) -> RunningAverage:
        """The state that :meth:`arrays` and :meth:`counters` were taken from, bit for bit."""
        average = cls(
            torch.tensor(arrays["average_vector"], device=device),
            torch.tensor(arrays["average_direction"], device=device),
            counters["average_status"],
            counters["average_over"],
            products=counters["average_products"],
        )
        for name in _HISTORIES:
            getattr(average, name).extend(arrays[f"average_{name}"].tolist())
        return average


def running_average(
    average: RunningAverage,
    *,
    perturb: Perturb,
    new_weight: float,
    product: Product,
    evaluate: Evaluate | None,
    full_batch: bool,
    tol: float,
    floor: float = 0.0,
) -> Iterator[RunningAverage]:
    """Go on with ``average``, in place, until it has converged or cycles; the caller limits the iterations.

    Yields it after each iteration; and at the end, where the last product showed that v needs no further
    one. Converged is: for ``iterate`` a residual ≤ max(tol·|θ|, floor) of a positive θ, and on a full batch
    ‖v‖ as near to θ (also beyond the border, where v would leave again: it is the eigenvalue); for
    ``gradient`` a change of ‖v‖ ≤ β max(tol·‖v‖, floor), ten times in a row, and on a full batch
    ‖d − v‖ ≤ max(tol·‖v‖, floor), which says more. If d = 0 on a full batch, the limit is 0, and the start
    has to be forgotten to tol.

    Args:
        new_weight: β, the weight of the new product.
        product: called once per iteration, with v/‖v‖ for ``iterate`` and None for ``gradient``.
        evaluate: called after each iteration. None, for ``iterate`` on a full batch: each product is also
            the evaluation of the vector it was made with, at no cost.
        full_batch: all products are of one matrix.
        floor: what a product can be wrong by.

    Raises:
        ValueError: β outside (0, 1]; ``evaluate`` missing where products do not replace it; ``iterate`` from
            v = 0 without a direction.
    """
    if not 0 < new_weight <= 1:
        raise ValueError(f"the weight of the new product must be above 0 and at most 1, got {new_weight!r}")
    iterate = perturb == "iterate"
    if evaluate is None and not (iterate and full_batch):
        raise ValueError("products replace evaluations only for `iterate` on a full batch")
    if iterate and not average.direction.any():
        raise ValueError("v = 0 has no direction: start from a random vector")
    judge = _Judge(perturb, new_weight, full_batch, tol, floor)
    while not average.over:
        d, along = product(average.iterations, average.direction if iterate else None)
        average.products += 1
        if evaluate is None:
            average.measure(d)
            average.status, average.over = judge.verdict(average)
            if average.over:
                yield average
                return
        average.update(d, along, new_weight)
        image = None if evaluate is None else evaluate(average.iterations, average.direction)
        if image is not None:
            average.products += 1
            average.measure(image)
        if evaluate is not None:
            average.status, average.over = judge.verdict(average)
        yield average


def cycle_norm(smallest: float, new_weight: float) -> float:
    """‖v‖ in the cycle of ``iterate``: v = c y becomes −c y where c = β|λmin|/(2 − β)."""
    return new_weight * abs(smallest) / (2 - new_weight)


def safe_weight(largest: float, smallest: float) -> float:
    """The β below which ``iterate`` reaches λmax = ``largest``: |λmin| < λmax (2/β − 1), solved for β.

    Above 1 every β does; 0 if there is no positive eigenvalue to reach.
    """
    return 2 * largest / (largest + max(0.0, -smallest)) if largest > 0 else 0.0


def smoothed(h: Tensor, x: Tensor, *, new_weight: float, step: int, as_written: bool) -> Tensor:
    """The smoothed curvature h_t that sets a step η/‖h_t‖, from h_{t−1} = ``h`` and the new ``x``.

    At ``step`` t = 1, 2, …, from h_0 = 0.

    As written, h_t = (1 − β) h_{t−1} + β x_t starts too short: the first step, of length η/‖h_1‖, is 1/β
    times too long (β the weight of the new; in listings for SAM it is often that of the old).
    Otherwise divided by 1 − (1 − β)^t as in Adam (Kingma & Ba 2015, §3), by a recursion of the divided mean.
    """
    share = new_weight
    if not as_written and new_weight < 1:
        share = new_weight / -math.expm1(step * math.log1p(-new_weight))
    return (1 - share) * h + share * x


@dataclass(frozen=True)
class _Judge:
    """What a history says."""

    perturb: Perturb
    new_weight: float
    full_batch: bool
    tol: float
    floor: float

    def verdict(self, average: RunningAverage) -> tuple[Verdict, bool]:
        """(what can be said now, whether more iterations would change it)."""
        if self.perturb == "gradient":
            stable = self._at_rest(average) if self.full_batch else self._steady(average)
            return ("converged", True) if stable else ("not_converged", False)
        if self._reached(average):
            return "converged", True
        if self._cycles(average) or self._balanced(average):
            return "oscillating", True
        return ("oscillating" if self._seems_to_flip(average) else "not_converged"), False

    def _within(self, error: float, value: float) -> bool:
        return error <= max(self.tol * abs(value), self.floor)

    def _forgotten(self, average: RunningAverage) -> bool:
        """Every product is zero: what is left of v is its start."""
        return average.norms[-1] <= max(self.tol * average.norms[0], self.floor)

    def _at_rest(self, average: RunningAverage) -> bool:
        """v = d, where d is always the same."""
        if average.lengths[-1] == 0.0:
            return self._forgotten(average)
        return self._within((1 - self.new_weight) * average.changes[-1], average.norms[-1])

    def _steady(self, average: RunningAverage) -> bool:
        """‖v‖ stays, several times in a row: once could be luck."""
        norms = np.array(average.norms[-_SEVERAL - 1 :])
        allowed = self.new_weight * np.maximum(self.tol * norms[1:], self.floor)
        return len(norms) > _SEVERAL and bool((np.abs(np.diff(norms)) <= allowed).all())

    def _reached(self, average: RunningAverage) -> bool:
        """The evaluated v belongs to a positive eigenvalue; on a full batch, ‖v‖ is that eigenvalue."""
        theta, residual, length = average.rayleigh[-1], average.residuals[-1], average.norms[-1]
        if self.full_batch and theta == residual == 0.0:
            return self._forgotten(average)
        if not (theta > 0 and self._within(residual, theta)):
            return False
        return not self.full_batch or self._within(abs(length - theta), theta)

    def _cycles(self, average: RunningAverage) -> bool:
        """The evaluated v belongs to a negative eigenvalue, flips, and has the norm of the cycle."""
        theta, residual, length = average.rayleigh[-1], average.residuals[-1], average.norms[-1]
        if not (theta < 0 and residual <= max(min(self.tol, _CYCLE) * abs(theta), self.floor)):
            return False
        expected = cycle_norm(theta, self.new_weight)
        return self._flipping(average, _SEVERAL, _FLIP) and self._within(abs(length - expected), expected)

    def _balanced(self, average: RunningAverage) -> bool:
        """A tie, |λmin| = λmax (2/β − 1): both eigenvectors stay, the one of λmin changing its sign."""
        cosines, norms = np.array(average.cosines[-_MANY:]), np.array(average.norms[-_MANY:])
        if not self.full_batch or average.iterations < _MANY or norms[-1] == 0 or not cosines[-1] < _TURNING:
            return False
        return bool(np.ptp(cosines) <= _BALANCE * (1 + cosines[-1]) and np.ptp(norms) <= _BALANCE * norms[-1])

    def _seems_to_flip(self, average: RunningAverage) -> bool:
        """A cycle, as far as the steps tell."""
        norms = np.array(average.norms[-_MANY:])
        return self._flipping(average, _MANY, _ROUGH_FLIP) and bool(np.ptp(norms) <= _ROUGH * norms[-1])

    def _flipping(self, average: RunningAverage, steps: int, cosine: float) -> bool:
        """Sign after sign; on a full batch no other component grows, or it would end the cycle later."""
        cosines = np.array(average.cosines[-steps:])
        if average.iterations < steps or not (cosines <= cosine).all():
            return False
        return not self.full_batch or bool(cosines[-1] <= max(cosines[0], _FLIP_EXACT))
