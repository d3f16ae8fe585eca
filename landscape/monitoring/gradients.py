"""Two gradients of one training step: ratio classes, their angle, and the running average h_t of seed 001.

Under SAM both gradients are there anyway. With g = ∇L(w), g' = ∇L(w + ε) and u = ε/‖ε‖ the vector
x = (g' − g)/‖ε‖ is Hu + O(‖ε‖), and h_t is the running average of x. All that is kept between steps is h_t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.operator import norm
from landscape.linalg.running_average import smoothed
from landscape.parameters import Layout, layers
from landscape.sam.passes import CHUNK, distance, inner
from landscape.sam.ratios import Tally, tally

__all__ = ["Average", "Pair", "figures", "layer_of"]


def layer_of(layout: Layout) -> list[int]:
    """The layer of each parameter tensor, counted from 0."""
    groups = list(layers(layout).values())
    return [next(i for i, group in enumerate(groups) if name in group) for name in layout.names]


class Pair:
    """g at the weights w, and g' at w + ε, each a list of tensors like the parameters.

    Those of a small model are put into one vector each: a few long tensors take less time than many short
    ones, most of which is overhead.

    Args:
        length: ‖ε‖ where it is given, ε being along g; else it is measured between ``weights`` and ``moved``.
    """

    def __init__(
        self,
        gradient: Sequence[Tensor],
        perturbed: Sequence[Tensor],
        weights: Sequence[Tensor],
        moved: Sequence[Tensor] | None,
        length: float | None = None,
    ) -> None:
        self._packed = sum(part.numel() for part in gradient) <= CHUNK
        self.gradient, self.perturbed = self._pack(gradient), self._pack(perturbed)
        self.weights = self._pack(weights)
        self.moved = self.weights if moved is None else self._pack(moved)
        self.length = distance(self.weights, self.moved) if length is None else length
        self._given = length is not None

    def _pack(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        return [torch.cat([part.detach().reshape(-1) for part in parts])] if self._packed else parts

    @property
    def ascends(self) -> bool:
        """Whether the weights were moved up the gradient, or not at all where that is zero."""
        if self._given:
            return True
        along = inner(self.gradient, self.moved) - inner(self.gradient, self.weights)
        return along > 0 or not math.isfinite(along) or not any(bool(g.any()) for g in self.gradient)

    def curvature(self) -> Tensor | None:
        """x = (g' − g)/‖ε‖, (n,) in the gradients' arithmetic; None where it is not known or not finite."""
        if not (self.length > 0 and math.isfinite(self.length)):
            return None
        parts = [(h - g).reshape(-1) for g, h in zip(self.gradient, self.perturbed, strict=True)]
        x = torch.cat(parts).div_(self.length)
        return x if bool(torch.isfinite(x).all()) else None

    def rounding(self, layer: Sequence[int], measured: np.ndarray) -> list[float]:
        """What an element of each tensor may be wrong by: as measured, at least a layer's rms roundoff.

        Of one vector it is that of the worst layer.

        Args:
            measured: (layers,) the same as it was measured on a few examples (root mean square).
        """
        if self._packed:
            layer, measured = [0], measured.max(keepdims=True)
        squares, sizes = np.zeros(len(measured)), np.zeros(len(measured))
        for part, i in zip(self.gradient, layer, strict=True):
            squares[i] += norm(part) ** 2
            sizes[i] += part.numel()
        least = torch.finfo(self.gradient[0].dtype).eps * np.sqrt(squares / np.maximum(sizes, 1))
        absolute = np.maximum(measured, least)
        return [float(absolute[i]) for i in layer]

    def norm_of(self, absolute: Sequence[float]) -> float:
        """The norm of an error of that size in each element."""
        sizes = [part.numel() for part in self.gradient]
        return math.sqrt(math.fsum(n * a * a for n, a in zip(sizes, absolute, strict=True)))

    def tally(self, layer: Sequence[int], absolute: Sequence[float]) -> Tally:
        """Classes and sums, see :func:`landscape.sam.ratios.tally`."""
        layer = [0] if self._packed else layer
        found, _ = tally(
            self.gradient, self.perturbed, self.weights, self.moved, layer_of=layer, rounding=absolute
        )
        return found

    def bend(self, sums: Tally) -> float:
        """(g' − g)·u, which is ‖ε‖ uᵀHu to first order."""
        squares, product = float(sums.squares[0].sum()), float(sums.inner[0])
        if self._given:  # u = g/‖g‖
            return (product - squares) / math.sqrt(squares) if squares > 0 else math.nan
        return float(sums.inner[2]) / self.length if self.length > 0 else math.nan


class Average:
    """h_t, and what rounding may have done to it.

    Attributes:
        vector: (n,) or None before the first value.
        rounding: a bound on the norm of its error by rounding, from that of each value.
        count: values taken in, t.
    """

    def __init__(self, new_weight: float, as_written: bool) -> None:
        self.new_weight, self.as_written = new_weight, as_written
        self.vector: Tensor | None = None
        self.rounding, self.count = 0.0, 0

    def take(self, x: Tensor, rounding: float) -> None:
        """Take ``x`` (n,) in."""
        before = torch.zeros_like(x) if self.vector is None else self.vector
        self.count += 1
        self.vector = self._smoothed(before, x)
        wrong = self._smoothed(torch.tensor(self.rounding), torch.tensor(rounding))
        self.rounding = float(wrong)

    def _smoothed(self, h: Tensor, x: Tensor) -> Tensor:
        return smoothed(h, x, new_weight=self.new_weight, step=self.count, as_written=self.as_written)

    def figures(self) -> dict[str, float]:
        """‖h_t‖ with what rounding does to it, and 1/‖h_t‖."""
        if self.vector is None:
            return {}
        length = norm(self.vector)
        return {
            "h_norms": length,
            "h_errors": self.rounding,
            "step_sizes": 1 / length if length > 0 else math.inf,
        }


def figures(pair: Pair, layer: Sequence[int], absolute: Sequence[float]) -> dict[str, Any]:
    """What one pair says: classes, norms, angle and curvature along ε, with what rounding does to each.

    Args:
        absolute: what an element of each tensor may be wrong by, see :meth:`Pair.rounding`.
    """
    sums, wrong = pair.tally(layer, absolute), pair.norm_of(absolute)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        g, h = np.sqrt(sums.squares.sum(1))
        ratio, cosine = h / g, sums.inner[0] / (g * h)
        turned = wrong / g + wrong / h
        sine = math.sqrt(max(0.0, 1 - cosine**2)) if math.isfinite(cosine) else math.nan
    counts = sums.counts.sum(0)
    size = int(counts.sum())
    found = {
        "counts": counts.tolist(),
        "fractions": (counts / size).tolist(),
        "uncertain": (sums.uncertain.sum(0) / size).tolist(),
        "gradient_norms": float(g),
        "gradient_rounding": wrong,
        "gradient_norm_ratios": float(ratio),
        "gradient_norm_ratio_errors": float(ratio * turned),
        "cosines": float(cosine),
        "cosine_errors": min(2.0, float(sine * turned + turned**2 / 2)),
    }
    if not pair.length > 0:
        return found
    return found | {
        "lengths": pair.length,
        "directional_curvature": pair.bend(sums) / pair.length,
        "curvature_errors": 2 * wrong / pair.length,
    }
