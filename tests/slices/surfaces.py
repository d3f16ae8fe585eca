"""Surfaces over the plane for tests of interpolation: smooth ones that look like losses, and hard ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

__all__ = ["HARD", "SMOOTH", "Function", "bowl", "cross_entropy", "cubic", "softplus", "tanh_net"]

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


def bowl(seed: int) -> Function:
    """A quadratic, rotated at random, its eigenvalues up to a factor of 1000 apart."""
    generator = np.random.default_rng([seed, 1])
    angle, ratio = generator.uniform(0, np.pi), 10 ** generator.uniform(0, 3)
    cos, sin, at = np.cos(angle), np.sin(angle), generator.uniform(-0.5, 0.5, 2)
    return lambda x, y: ratio * (cos * (x - at[0]) + sin * y) ** 2 + (cos * (y - at[1]) - sin * x) ** 2


def cubic(seed: int) -> Function:
    """A bowl with random terms of third and, smaller ones, of fourth order."""
    c = np.random.default_rng([seed, 2]).standard_normal(8)
    return lambda x, y: (
        4 * x * x
        + 9 * y * y
        + c[0] * x**3
        + c[1] * x * x * y
        + c[2] * x * y * y
        + c[3] * y**3
        + 0.3 * (c[4] * x**4 + c[5] * x * x * y * y + c[6] * x * y**3 + c[7] * y**4)
    )


def softplus(seed: int) -> Function:
    """A mixture of softplus terms in random directions."""
    generator = np.random.default_rng([seed, 3])
    slopes, offsets, weights = 2 * generator.standard_normal((40, 2)), *generator.standard_normal((2, 40))
    return lambda x, y: sum(
        abs(w) * np.logaddexp(0, a * x + b * y + c)
        for (a, b), c, w in zip(slopes, offsets, weights, strict=True)
    )


def cross_entropy(seed: int) -> Function:
    """Softmax regression along random directions: 20 examples, 10 classes, most right at the centre."""
    generator = np.random.default_rng([seed, 4])
    slopes, offsets = 3 * generator.standard_normal((20, 10, 2)), 2 * generator.standard_normal((20, 10))
    offsets[:, 0] += 4

    def loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        logits = slopes[..., 0, None, None] * x + slopes[..., 1, None, None] * y + offsets[..., None, None]
        return np.mean(logsumexp(logits, axis=1) - logits[:, 0], axis=0)

    return loss


def tanh_net(seed: int) -> Function:
    """Cross-entropy of a small tanh network against its own labels, along random directions as long as it."""
    generator = np.random.default_rng([seed, 5])
    inputs = generator.standard_normal((60, 5))
    first, second = (
        generator.standard_normal((3, 5, 16)) / 5**0.5,
        generator.standard_normal((3, 16, 4)) / 2,
    )
    labels = (np.tanh(inputs @ first[0]) @ second[0]).argmax(1)

    def loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x[..., None, None], y[..., None, None]
        hidden = np.tanh(inputs @ (first[0] + x * first[1] + y * first[2]))
        logits = hidden @ (second[0] + x * second[1] + y * second[2])
        return np.mean(logsumexp(logits, axis=-1) - logits[..., np.arange(60), labels], axis=-1)

    return loss


def _kink(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(x + 0.3 * y - 0.1) + 0.5 * y * y


def _valley(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.3 * x * x - np.exp(-(((x + 0.5 * y - 0.07) / 0.08) ** 2))


def _cliff(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.tanh((x + 0.4 * y - 0.2) / 0.03) + 0.2 * y * y


SMOOTH: dict[str, Callable[[int], Function]] = {
    "bowl": bowl,
    "cubic": cubic,
    "softplus": softplus,
    "cross-entropy": cross_entropy,
    "tanh net": tanh_net,
}
HARD: dict[str, Function] = {"kink": _kink, "valley": _valley, "cliff": _cliff}
