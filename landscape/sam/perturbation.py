"""Perturbations of the weights: the steepest one in a p-norm, its adaptive and friendly kin, random ones.

ε with ‖ε‖_p = ρ that maximises εᵀg is ε_i = ρ sign(g_i) |g_i|^(q−1) / ‖g‖_q^(q−1) with 1/p + 1/q = 1 (Foret
et al. 2021, eq. 2). At p = 1 it lies on the largest |g_i|, shared equally where several are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.linalg.probes import derived_seed
from landscape.sam.passes import chunks, largest_entry

__all__ = ["Perturbation", "Perturbed", "conjugate", "p_norm", "random_step", "steepest"]

#: The weights of ASAM are scaled by |w| + η (Kwon et al. 2021, §4); biases and the rest by 1.
ADAPTED = "weight"


def conjugate(p: float) -> float:
    """q with 1/p + 1/q = 1.

    Raises:
        ConfigurationError: p < 1 or NaN: ‖·‖_p is no norm.
    """
    if not p >= 1:
        raise ConfigurationError("the p of a norm is at least 1", found=f"p = {p:g}")
    if p == 1:
        return math.inf
    return 1.0 if math.isinf(p) else p / (p - 1)


def p_norm(parts: Sequence[Tensor], p: float) -> float:
    """‖·‖_p of a list of tensors, p in [1, ∞], in float64; entries are divided by the largest first."""
    largest = largest_entry(parts)
    if math.isinf(p) or largest == 0 or not math.isfinite(largest):
        return largest
    return float(largest * _power_sum(parts, p, largest) ** (1 / p))


def _power_sum(parts: Sequence[Tensor], power: float, scale: float) -> float:
    """Σ (|x|/scale)^power."""
    return math.fsum(
        float((x.double().abs() / scale).pow(power).sum()) for part in parts for (x,) in chunks(part)
    )


@dataclass(frozen=True)
class Perturbation:
    """How the weights are moved.

    Attributes:
        rule: gradient (SAM), adaptive (ASAM), friendly (Li et al. 2024) or random (isotropic).
        rho: the radius ‖ε‖_p (‖T⁻¹ε‖_p if adaptive); a multiple of ‖g‖₂ if ``relative``.
        p: the norm, in [1, ∞].
        eta: ASAM's η.
    """

    rule: Literal["gradient", "adaptive", "friendly", "random"] = "gradient"
    rho: float = 0.05
    p: float = 2.0
    eta: float = 0.01
    relative: bool = False

    def radius(self, gradient_norm: float) -> float:
        """The radius at a point with this ‖g‖₂."""
        return self.rho * gradient_norm if self.relative else self.rho

    def steps(
        self, gradient: Sequence[Tensor], weights: Sequence[Tensor], names: Sequence[str], radius: float
    ) -> Perturbed:
        """ε along ``gradient``, nothing as long as the model yet (random ones: :func:`random_step`)."""
        scales = [
            self.eta if self.rule == "adaptive" and ADAPTED in name.rpartition(".")[2] else None
            for name in names
        ]
        return steepest(gradient, weights, scales, radius, self.p)


@dataclass(frozen=True)
class Perturbed:
    """A perturbation ε = T · ρ sign(Tg) |Tg|^(q−1) / ‖Tg‖_q^(q−1) that is made tensor by tensor.

    Attributes:
        gradient, weights: what it is made from, in the shapes of the parameters.
        scales: η for each parameter where T = |w| + η, None where T = 1.
        factor: ρ/‖Tg/m‖_q^(q−1), with m = ``largest`` = ‖Tg‖_∞; 0 where there is no direction.
        exponent: q − 1; infinite for p = 1.
    """

    gradient: Sequence[Tensor]
    weights: Sequence[Tensor]
    scales: Sequence[float | None]
    factor: float
    largest: float
    exponent: float

    def part(self, i: int) -> Tensor:
        """ε of parameter i, in its shape and dtype; computed in float64."""
        g, w = self.gradient[i], self.weights[i].detach()
        step = torch.empty_like(g, memory_format=torch.contiguous_format)
        flat, first = step.reshape(-1), 0
        for piece, at in chunks(g, w):
            flat[first : first + piece.numel()] = self._of(piece, at, self.scales[i])
            first += piece.numel()
        return step

    def _of(self, g: Tensor, w: Tensor, eta: float | None) -> Tensor:
        if self.factor == 0:
            return torch.zeros_like(g)
        scale = None if eta is None else w.double().abs() + eta
        scaled = g.double() if scale is None else g.double() * scale
        step = self.factor * scaled.sign() * _power((scaled / self.largest).abs(), self.exponent)
        return step if scale is None else step * scale

    def moved(self, sign: float = 1.0) -> list[Tensor]:
        """w + sign·ε, written afresh."""
        return [self.part(i).mul_(sign).add_(w.detach()) for i, w in enumerate(self.weights)]

    def __len__(self) -> int:
        return len(self.gradient)

    def parts(self) -> list[Tensor]:
        """ε as a list of tensors."""
        return [self.part(i) for i in range(len(self))]


def _power(relative: Tensor, exponent: float) -> Tensor:
    """|x|^(q−1) of x with ‖x‖_∞ = 1; 0⁰ = 1 is harmless, for it is multiplied by sign(0)."""
    if math.isinf(exponent):
        return (relative == 1).double()
    return relative if exponent == 1 else relative.pow(exponent)


def steepest(
    gradient: Sequence[Tensor],
    weights: Sequence[Tensor],
    scales: Sequence[float | None],
    radius: float,
    p: float,
) -> Perturbed:
    """The ε of length ``radius`` (‖T⁻¹ε‖_p) that maximises εᵀg; zero where g is, all NaN if g is not finite.

    Foret et al. 2021, eq. 2, and with T Kwon et al. 2021, eq. 6.
    """
    exponent = conjugate(p) - 1
    scaled = _Scaled(gradient, weights, scales)
    largest = largest_entry(scaled)
    factor = 0.0
    if radius != 0 and not math.isfinite(largest):
        factor = math.nan
    elif radius != 0 and largest > 0:
        if math.isinf(exponent):
            factor = radius / sum(int((t.abs() / largest == 1).sum()) for t in scaled)
        elif exponent == 0:
            factor = radius
        else:
            # ‖Tg‖_q^(q−1) in units of the largest entry: Σ|x|^q to the power (q−1)/q = 1/p.
            power = math.fsum(float((t.abs() / largest).pow(exponent + 1).sum()) for t in scaled)
            factor = radius / power ** (1 / p)
    return Perturbed(gradient, weights, scales, factor, largest, exponent)


@dataclass(frozen=True)
class _Scaled:
    """Tg in float64, piece by piece."""

    gradient: Sequence[Tensor]
    weights: Sequence[Tensor]
    scales: Sequence[float | None]

    def __iter__(self) -> Iterator[Tensor]:
        for g, w, eta in zip(self.gradient, self.weights, self.scales, strict=True):
            for piece, at in chunks(g, w):
                yield piece.double() if eta is None else piece.double() * (at.double().abs() + eta)


def random_step(weights: Sequence[Tensor], radius: float, seed: int, name: str) -> list[Tensor]:
    """An isotropic random direction of Euclidean length ``radius``, one tensor a parameter.

    Drawn in float64 on the processor: the same on every device.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, name))
    draws = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
    length = math.sqrt(math.fsum(float(d.square().sum()) for d in draws))
    return [(d * (radius / length)).to(w.device, w.dtype) for d, w in zip(draws, weights, strict=True)]
