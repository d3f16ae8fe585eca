"""Directions through the weights: random ones with the weights' own scales, and orthogonal pairs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.linalg.probes import gaussian
from landscape.parameters import Layout

__all__ = ["angle_between", "orthogonalised", "random_direction", "rescaled"]

#: Sine of the angle below which two directions are one: there is no plane of them.
_COLLINEAR = 1e-4


def random_direction(
    weights: Tensor,
    layout: Layout,
    normalize: Literal["filter", "layer", "none"],
    *,
    biases: bool,
    seed: int,
    number: int,
) -> Tensor:
    """A Gaussian direction (n,) in the dtype of ``weights`` (n,), scaled as these are.

    With ``filter``, each filter of it is as long as the weights' own, d_ij ← d_ij ‖w_ij‖/‖d_ij‖ (Li et al.
    2018, §4), a filter being the rows of a matrix and the outputs of a convolution; with ``layer``, each
    parameter. Without ``biases``, parameters of one dimension or none (biases, scales of normalisation) are
    left out.
    """
    found = gaussian(len(weights), seed, "direction", number)
    parts = zip(layout.split(found), layout.split(weights.cpu()), strict=True)
    for part, own in parts:
        if not biases and part.ndim <= 1:
            part.zero_()
        elif normalize != "none":
            part.copy_(rescaled(part, own.double(), by_filter=normalize == "filter"))
    return found.to(weights)


def rescaled(direction: Tensor, like: Tensor, *, by_filter: bool) -> Tensor:
    """``direction``, each filter (or all of it) as long as that of ``like``, of the same shape.

    A parameter of one dimension or none is one filter.
    """
    rows = len(direction) if by_filter and direction.ndim > 1 else 1
    flat, own = direction.reshape(rows, -1), like.reshape(rows, -1)
    lengths = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    scale = torch.linalg.vector_norm(own, dim=1, keepdim=True) / lengths
    found: Tensor = flat * scale.where(lengths > 0, 0.0)
    return found.reshape(direction.shape)


def angle_between(first: Tensor, second: Tensor) -> float:
    """The angle between two directions (n,), in degrees, exact also where it is small."""
    a, b = (d.double() / torch.linalg.vector_norm(d.double()) for d in (first, second))
    return math.degrees(2 * math.atan2(float(torch.linalg.vector_norm(a - b)), float((a + b).norm())))


def orthogonalised(first: Tensor, second: Tensor) -> Tensor:
    """``second`` (n,) without its part along ``first``, in the same dtype; its own length is not restored.

    Raises:
        ConfigurationError: both point the same way, or opposite ways: there is no plane.
    """
    a, b = first.double(), second.double()
    if math.sin(math.radians(angle_between(first, second))) < _COLLINEAR:
        raise ConfigurationError(
            "the two directions lie on one line, so there is no plane of them",
            found=f"an angle of {angle_between(first, second):.3g} degrees",
            do="choose another second direction, or draw a line along the first",
        )
    for _ in range(2):  # what rounding leaves of it, too
        b = b - (a @ b) / (a @ a) * a
    return b.to(second.dtype)
