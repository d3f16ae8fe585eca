"""Power iteration with deflation (Saad 2011, "Numerical Methods for Large Eigenvalue Problems", §4.1–4.2).

One pair after the other: x ← Hx/‖Hx‖, kept orthogonal to the vectors found before. It converges to the
eigenvalue of largest magnitude of what is left. For an end of the spectrum it runs on H or −H, and on
±H + σI once the iterates show that the other end is as far from zero.

A pair can be no better than those it was made orthogonal to: whatever is wrong with them appears in its
residual. So where only that is left the vectors are rotated among themselves (Rayleigh–Ritz on the products
kept with them, at no further product).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.eigenpairs import Which, has_converged
from landscape.linalg.lanczos import orthogonalise
from landscape.linalg.operator import Operator, norm
from landscape.linalg.verify import Locked

__all__ = ["Power", "power_iteration"]

#: The unwanted end is shifted away when it is at least this far out, relative to the wanted one: just before
#: a tie, where the iteration would stand still. Too early a shift costs little, σ never exceeding |λ| there.
_RIVAL = 0.9
#: Two iterates closer than this (sine of their angle) say nothing that one of them does not.
_PARALLEL = 1e-3


@dataclass(frozen=True)
class Power:
    """Where the iteration stands after a product.

    Attributes:
        found: the pairs found so far.
        vector: (n,) the unit vector of the pair that is sought, in the operator's dtype.
        image: (n,) float64, its product; None before the first one of this pair.
        shift: σ of ±H + σI; 0 unless the unwanted end of the spectrum was seen to be a rival.
        products: how many products were spent.
        drawn: how many random vectors were asked for.
        scale: length of the longest product so far, a lower bound on ‖H‖.
    """

    found: Locked
    vector: Tensor
    image: Tensor | None = None
    shift: float = 0.0
    products: int = 0
    drawn: int = 0
    scale: float = 0.0

    @classmethod
    def start(cls, operator: Operator, fresh: Callable[[int], Tensor]) -> Power:
        """Begin from ``fresh(0)``; ``fresh(i)`` is the i-th random vector (n,), of any length but zero."""
        rows = torch.zeros((0, operator.size), dtype=operator.dtype, device=operator.device)
        nothing = Locked(rows, rows.double(), np.zeros(0), np.zeros(0))
        return _next_pair(cls(nothing, rows), operator, fresh)

    def pairs(self) -> Locked:
        """The pairs found and, if it has had a product, the one that is sought; values descending."""
        if self.image is None:
            return self.found
        rows = torch.cat([self.found.vectors, self.vector[None]])
        images = torch.cat([self.found.images, self.image[None]])
        return Locked.rotated(rows, images, self.products)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to go on, with :meth:`counters`; vectors as rows."""
        arrays = {
            "power_vectors": self.found.vectors.cpu().numpy(),
            "power_images": self.found.images.cpu().numpy(),
            "power_values": self.found.values,
            "power_residuals": self.found.residuals,
            "power_vector": self.vector.cpu().numpy(),
        }
        return arrays if self.image is None else arrays | {"power_image": self.image.cpu().numpy()}

    def counters(self) -> dict[str, Any]:
        """Plain numbers: the shift and the counts."""
        return {
            "power_shift": self.shift,
            "power_products": self.products,
            "power_drawn": self.drawn,
            "power_scale": self.scale,
        }

    @classmethod
    def restore(
        cls, arrays: dict[str, np.ndarray], counters: dict[str, Any], device: torch.device | str = "cpu"
    ) -> Power:
        """The state that :meth:`arrays` and :meth:`counters` were taken from, bit for bit."""

        def tensor(name: str) -> Tensor:
            return torch.tensor(arrays[name], device=device)

        found = Locked(
            tensor("power_vectors"), tensor("power_images"), arrays["power_values"], arrays["power_residuals"]
        )
        return cls(
            found,
            tensor("power_vector"),
            tensor("power_image") if "power_image" in arrays else None,
            counters["power_shift"],
            counters["power_products"],
            counters["power_drawn"],
            counters["power_scale"],
        )


def power_iteration(
    operator: Operator,
    state: Power,
    *,
    k: int,
    which: Which,
    tol: float,
    floor: Callable[[Power], float],
    fresh: Callable[[int], Tensor],
) -> Iterator[tuple[Power, bool]]:
    """Go on from ``state`` until k pairs have converged, each with a residual ≤ max(tol·|θ|, floor).

    Yields, after each product, where the iteration stands and whether all is done; the caller limits the
    number of products. A pair that makes no progress (``magnitude``, and two eigenvalues λ and −λ) goes on.

    Args:
        which: ``magnitude`` for plain power iteration, ``largest`` or ``smallest`` for an end.
        floor: what a product can be wrong by, asked for after each.
        fresh: the i-th random vector (n,); the same as for :meth:`Power.start`.

    Raises:
        ValueError: ``which`` is ``both``: one iteration sees one end.
    """
    if which == "both":
        raise ValueError("power iteration finds one end at a time: ask for largest, smallest or magnitude")
    wanted = min(k, operator.size)
    while len(state.found.values) < wanted:
        vector = state.vector if state.image is None else _following(state, which)
        if vector is None:
            state = _next_pair(state, operator, fresh)
            continue
        image = operator.apply(vector[None])[0]
        shift = _shift(state, vector, image, which)
        scale, products = max(state.scale, norm(image)), state.products + 1
        state = replace(state, vector=vector, image=image, shift=shift, scale=scale, products=products)
        state = _settled(state, operator, wanted, tol, floor(state), fresh)
        yield state, len(state.found.values) == wanted


def _sign(which: Which) -> float:
    return -1.0 if which == "smallest" else 1.0


def _following(state: Power, which: Which) -> Tensor | None:
    """The next iterate, orthogonal to the vectors found; None where nothing is left of it."""
    assert state.image is not None
    vector = _sign(which) * state.image + state.shift * state.vector.double()
    orthogonalise(vector, state.found.vectors)
    length = norm(vector)
    return (vector / length).to(state.vector.dtype) if length > 0 else None


def _next_pair(state: Power, operator: Operator, fresh: Callable[[int], Tensor]) -> Power:
    """Begin with a random vector orthogonal to those found."""
    vector = fresh(state.drawn).to(operator.device, torch.float64, copy=True)
    orthogonalise(vector, state.found.vectors)
    vector /= norm(vector)
    return replace(state, vector=vector.to(operator.dtype), image=None, drawn=state.drawn + 1)


def _shift(state: Power, vector: Tensor, image: Tensor, which: Which) -> float:
    """σ, after the product ``image`` of the iterate ``vector`` that followed the state's."""
    if which == "magnitude" or state.image is None:
        return state.shift
    low, high = _ritz_values(state.vector.double(), state.image, vector.double(), image)
    if which == "smallest":
        low, high = -high, -low
    return max(state.shift, -low) if -low > _RIVAL * high else state.shift


def _ritz_values(x: Tensor, hx: Tensor, y: Tensor, hy: Tensor) -> tuple[float, float]:
    """The two Ritz values in the span of unit vectors x and y, which lie within the spectrum."""
    cosine = x @ y
    off = y - cosine * x
    length = norm(off)
    first, second = float(x @ hx), float(y @ hy)
    if length < _PARALLEL:
        return min(first, second), max(first, second)
    coupling = float(off @ hx) / length
    last = float(off @ (hy - cosine * hx)) / length**2
    middle, reach = (first + last) / 2, float(np.hypot((first - last) / 2, coupling))
    return middle - reach, middle + reach


def _settled(
    state: Power,
    operator: Operator,
    wanted: int,
    tol: float,
    floor: float,
    fresh: Callable[[int], Tensor],
) -> Power:
    """The state after a product: a pair that has converged is among those found, and the next begun."""
    assert state.image is not None
    vector = state.vector.double()
    rest = state.image.clone()
    orthogonalise(rest, state.found.vectors)
    value = float(vector @ state.image)
    if norm(rest - value * vector) > max(tol * abs(value), floor):
        return state
    pairs = state.pairs()
    excess = pairs.residuals - np.maximum(tol * np.abs(pairs.values), floor)
    if has_converged(pairs.values, pairs.residuals, tol, floor).all():
        state = replace(state, found=pairs)
        if len(pairs.values) < wanted:
            return _next_pair(state, operator, fresh)
        return replace(state, image=None)
    # A close pair can leave its error to one found before: the iteration goes on with whichever has it now.
    worst = int(np.argmax(excess))
    others = [i for i in range(len(excess)) if i != worst]
    found = Locked(pairs.vectors[others], pairs.images[others], pairs.values[others], pairs.residuals[others])
    return replace(state, found=found, vector=pairs.vectors[worst].clone(), image=pairs.images[worst].clone())
