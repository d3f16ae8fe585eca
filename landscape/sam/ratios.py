"""Classes of the gradient ratio r = g'/g, found by comparing and never by dividing.

With g = ∇L(w) and g' = ∇L(w + ε), r_i = 1 + (Hε)_i/g_i + O(ρ²): for ε = ρ g/‖g‖ and small ρ, the class ckpt1
(r > 1) says that (Hg)_i and g_i have one sign, and a change of sign (ckpt3, ckpt4) takes |ρ(Hu)_i| > |g_i|,
which also a gradient that has become small brings about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.results import CLASSES
from landscape.sam.passes import CHUNK, chunks

__all__ = ["OCTAVES", "Tally", "bin_edges", "by_division", "classify", "octaves", "pack", "tally"]

NAMES = tuple(CLASSES)
_CKPT1, _CKPT2, _CKPT3, _CKPT4, _EQUAL, _OPPOSITE, _DEAD, _BORN, _KILLED, _NONFINITE = range(len(NAMES))
#: |r| from 2^−OCTAVES to 2^OCTAVES has a bin for each octave; what is beyond, one at either end.
OCTAVES = 12
_PER_SIGN = 2 * OCTAVES + 2


def classify(g: Tensor, h: Tensor) -> Tensor:
    """The class of each pair of elements, uint8 in the order of ``CLASSES``; g, h of one shape and dtype.

    >>> g = torch.tensor([1.0, 1.0, -1.0, 1.0, 0.0])
    >>> [NAMES[i] for i in classify(g, torch.tensor([2.0, 0.5, 3.0, 1.0, 0.0]))]
    ['ckpt1', 'ckpt2', 'ckpt3', 'equal', 'dead']
    """
    sign, a, b = g.sign() * h.sign(), g.abs(), h.abs()
    kept, turned = sign > 0, sign < 0
    code = torch.full(g.shape, _DEAD, dtype=torch.uint8, device=g.device)
    code[kept & (b > a)] = _CKPT1
    code[kept & (b < a)] = _CKPT2
    code[turned & (b > a)] = _CKPT3
    code[turned & (b < a)] = _CKPT4
    code[kept & (b == a)] = _EQUAL
    code[turned & (b == a)] = _OPPOSITE
    code[(g == 0) & (h != 0)] = _BORN
    code[(g != 0) & (h == 0)] = _KILLED
    code[~(torch.isfinite(g) & torch.isfinite(h))] = _NONFINITE
    return code


def octaves(g: Tensor, h: Tensor) -> Tensor:
    """⌊log₂|h/g|⌋ of finite elements that are not zero, exactly, from exponents and mantissas; int64."""
    (m, e), (n, f) = torch.frexp(g.abs()), torch.frexp(h.abs())
    return f.long() - e.long() - (n < m).long()


def bin_edges() -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) ends of the histogram's bins of r, ascending; the outermost ones are infinite."""
    inner = 2.0 ** np.arange(-OCTAVES, OCTAVES + 1)
    low, high = np.concatenate([[0.0], inner]), np.concatenate([inner, [math.inf]])
    return np.concatenate([-high[::-1], low]), np.concatenate([-low[::-1], high])


def by_division(g: Tensor, h: Tensor) -> Tensor:
    """The classes as they were first written down, by dividing: (ckpt1 … ckpt4, in none of them), int64.

    The quotient is rounded, and 0/0, x/0 and overflow go where they may: this is what such figures were made
    with, and no better.
    """
    r = h / g
    inside = [r > 1, (r > 0) & (r < 1), r < -1, (r < 0) & (r > -1)]
    counts = torch.stack([mask.sum() for mask in inside])
    return torch.cat([counts, (r.numel() - counts.sum())[None]])


#: Integers of the width of each dtype, and the bits of its mantissa.
_BITS = {torch.float32: (torch.int32, 23), torch.float64: (torch.int64, 52)}


def _sorted(g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """(classes as :func:`classify` gives them, how many ratios lie in each bin) in one go.

    The bits of positive floats, read as integers, are ordered as the floats are, and the exponent of a
    quotient of normal numbers is the difference of these integers without the mantissa's bits (borrowing is
    what ⌊·⌋ asks for). Zeros, subnormal and non-finite numbers take the way by definition.
    """
    if g.dtype not in _BITS:
        code = classify(g, h)
        return code, _bins(g, h, code)
    kind, mantissa = _BITS[g.dtype]
    limits = torch.finfo(g.dtype)
    low, high = (int(torch.tensor(x, dtype=g.dtype).view(kind)) for x in (limits.tiny, limits.max))
    a, b = g.abs().view(kind), h.abs().view(kind)
    turned = (g.contiguous().view(kind) ^ h.contiguous().view(kind)) < 0
    difference = b - a
    same = difference == 0
    code = (difference < 0).view(torch.uint8) + same.view(torch.uint8) * _EQUAL
    code += turned.view(torch.uint8) * 2 - (same & turned).view(torch.uint8)
    odd = ((torch.minimum(a, b) < low) | (torch.maximum(a, b) > high)).nonzero()[:, 0]
    octave = difference >> mantissa
    if len(odd):
        code[odd] = classify(g[odd], h[odd])
        octave[odd] = 0
        there = odd[code[odd] <= _OPPOSITE]
        octave[there] = octaves(g[there], h[there]).to(kind)
    index = _bin_of(octave, turned)
    if len(odd):
        index[odd[code[odd] > _OPPOSITE]] = 2 * _PER_SIGN
    return code, torch.bincount(index, minlength=2 * _PER_SIGN + 1)[:-1]


def _bin_of(octave: Tensor, turned: Tensor) -> Tensor:
    """The bin of a ratio, from ⌊log₂|r|⌋ and whether r is negative."""
    k = octave.clamp(-OCTAVES - 1, OCTAVES) + OCTAVES + 1
    return torch.where(turned, _PER_SIGN - 1 - k, _PER_SIGN + k)


def _bins(g: Tensor, h: Tensor, code: Tensor) -> Tensor:
    """How many ratios lie in each bin, (2·_PER_SIGN,) int64."""
    there = code <= _OPPOSITE
    g, h = g[there], h[there]
    index = _bin_of(octaves(g, h), g.sign() * h.sign() < 0)
    return torch.bincount(index, minlength=2 * _PER_SIGN)


@dataclass(frozen=True)
class Tally:
    """What one pair of gradients gives, summed over the elements; every array as long as there are classes.

    Attributes:
        counts, uncertain: (layers, classes) int64.
        histogram: (bins,) int64.
        squares: (2, classes) Σg² and Σg'² in each class.
        inner: g·g', ‖d‖², (g' − g)·d with d = w' − w, as it was rounded.
        divided: (5,) int64, see :func:`by_division`; zeros unless asked for.
    """

    counts: np.ndarray
    uncertain: np.ndarray
    histogram: np.ndarray
    squares: np.ndarray
    inner: np.ndarray
    divided: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        return dict(vars(self))


def tally(
    gradient: Sequence[Tensor],
    perturbed: Sequence[Tensor],
    weights: Sequence[Tensor],
    moved: Sequence[Tensor],
    *,
    layer_of: Sequence[int],
    rounding: Sequence[float],
    divide: bool = False,
) -> tuple[Tally, Tensor]:
    """Classes, histogram and sums of two gradients at ``weights`` and ``moved``; and the codes (n,) uint8.

    Args:
        layer_of: the layer of each parameter tensor, counted from 0.
        rounding: what an element of each tensor's gradient may be wrong by; an element is uncertain if it is
            so near to r = ±1 or 0 or to g = 0.
    """
    layers = max(layer_of, default=-1) + 1
    counts = torch.zeros((layers, len(NAMES)), dtype=torch.int64)
    uncertain = torch.zeros_like(counts)
    histogram = torch.zeros(2 * _PER_SIGN, dtype=torch.int64)
    squares = torch.zeros((2, len(NAMES)), dtype=torch.float64)
    inner = torch.zeros(3, dtype=torch.float64)
    divided = torch.zeros(5, dtype=torch.int64)
    codes: list[Tensor] = []
    for i, layer in enumerate(layer_of):
        for g, h, w, v in chunks(gradient[i], perturbed[i], weights[i], moved[i]):
            code, bins = _sorted(g, h)
            codes.append(code.cpu())
            index = code.int()
            near = _near(g, h, rounding[i]) & (code != _DEAD)  # zero twice is no accident of rounding
            counts[layer] += torch.bincount(index, minlength=len(NAMES)).cpu()
            uncertain[layer] += torch.bincount(index[near], minlength=len(NAMES)).cpu()
            histogram += bins.cpu()
            if divide:
                divided += by_division(g, h).cpu()
            g, h, d = g.double(), h.double(), v.double() - w.double()
            for row, x in enumerate((g, h)):
                squares[row] += torch.bincount(index, x.square(), len(NAMES)).cpu()
            inner += torch.stack([g @ h, d @ d, (h - g) @ d]).cpu()
    parts = [part.numpy() for part in (counts, uncertain, histogram, squares, inner, divided)]
    return Tally(*parts), torch.cat(codes) if codes else torch.zeros(0, dtype=torch.uint8)


def _near(g: Tensor, h: Tensor, rounding: float) -> Tensor:
    """Whether an error of ``rounding`` in either gradient may put an element into another class."""
    if rounding == 0:
        return torch.zeros_like(g, dtype=torch.bool)
    a, b = g.abs(), h.abs()
    return ((b - a).abs() <= 2 * rounding) | (torch.minimum(a, b) <= rounding)


def pack(codes: Tensor) -> np.ndarray:
    """One bit a class and element: (classes, ⌈n/8⌉) uint8; bit i of a row, lowest first, is element i.

    >>> pack(torch.tensor([0, 3, 0], dtype=torch.uint8))[[0, 3], 0].tolist()
    [5, 2]
    """
    array = codes.numpy()
    packed = np.zeros((len(NAMES), -(-len(array) // 8)), dtype=np.uint8)
    for first, part in _blocks(array):
        for row in range(len(NAMES)):
            bits = np.packbits(part == row, bitorder="little")
            packed[row, first // 8 : first // 8 + len(bits)] = bits
    return packed


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces whose beginnings are multiples of eight."""
    for first in range(0, len(array), CHUNK):
        yield first, array[first : first + CHUNK]
