"""How far sets of parameters coincide, and how far sets of their sizes do by chance.

Sets are packed bits: ⌈n/8⌉ bytes, bit i (``numpy.packbits``, little) being parameter i. A and B are sets of a
and b of n parameters, x = |A∩B|. Were B laid out over the parameters at random, x would be hypergeometric:

    E x = ab/n        Var x = ab(n−a)(n−b) / (n²(n−1))        (Feller 1968, §II.6 and IX.5)

With the sizes as they are, all of these say the same thing on different scales, so that one z is that of all:

    share     x/a
    lift      xn/(ab)                                   x over its expectation (Brin et al. 1997: interest)
    Jaccard   x/(a+b−x)                                 (Jaccard 1912)
    κ         (p_o − p_e)/(1 − p_e) = 2(nx − ab)/(n(a+b) − 2ab)   (Cohen 1960)

For k sets the expectation is n∏(aᵢ/n). A given pair of parameters is in all of them with the probability
∏ aᵢ(aᵢ−1)/(n(n−1)), which gives E x(x−1) and so the variance; for k = 2 it is the one above.

z is no test of a trained model. It is in units of what is left to chance when parameters are laid out one by
one; those of a model are not: all the weights into a dead unit are in one class together. And at n of
millions the least departure from chance has a large z. How large the departure is says the lift.

**The figures of seed 004.** 6e6 of 11.2e6 parameters are in ckpt1 at step 172, and 60 to 65 % of all at later
steps. Sets that have nothing to do with each other share

>>> n, a = 11_200_000, 6_000_000
>>> [round(chance((a, n * percent // 100), n).expected) for percent in (60, 65)]
[3600000, 3900000]

so that the 4e6 found there "surprisingly" exceed chance by 3 to 11 %. (Were parameters independent of each
other, that would be more than one hundred standard deviations, of less than a thousand parameters each.)

>>> [round(4e6 / chance((a, n * percent // 100), n).expected, 2) for percent in (60, 65)]
[1.11, 1.03]
>>> [round(chance((a, n * percent // 100), n).deviation) for percent in (60, 65)]
[818, 796]

Five or six such sets in a row have in common, by chance alone,

>>> [round(chance([a] * count, n).expected) for count in (5, 6)]
[494179, 264739]

and more if the later ones hold 60 to 65 %: 0.8 to 1.1e6 of five. The 1e5 reported after five steps are fewer
than that: sets without any connection are down to 1e5 after eight.

>>> [round(chance([a] + [n * percent // 100] * 4, n).expected, -4) for percent in (60, 65)]
[780000.0, 1070000.0]
>>> round(chance([a] * 8, n).expected, -3)
76000.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Chance",
    "Measures",
    "chance",
    "common_counts",
    "independent_interval",
    "measures",
    "packed_size",
    "pair_counts",
]

Bits = NDArray[np.uint8]
Counts = NDArray[np.int64]

#: 64-bit words of each mask that are in memory at a time: with a few dozen masks they fit into a cache.
_WORDS = 1 << 13
#: Beyond so many standard deviations from the mode, plus a few for laws near zero, there is nothing left.
_REACH, _LEAST_REACH = 12.0, 40


@dataclass(frozen=True)
class Chance:
    """Mean and standard deviation of the size of an intersection of independent sets."""

    expected: float
    deviation: float


def packed_size(n: int) -> int:
    """Bytes that a set of n parameters takes.

    >>> packed_size(8), packed_size(9)
    (1, 2)
    """
    return -(-n // 8)


def pair_counts(rows: Sequence[Bits], columns: Sequence[Bits], n: int) -> Counts:
    """|A∩B| for each A of ``rows`` and B of ``columns``, (r, c); all are sets of n parameters.

    Raises:
        ValueError: a mask of another length.
    """
    total = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for words in _chunks([*rows, *columns], n):
        ours, theirs = words[: len(rows)], words[len(rows) :]
        for row, one in zip(total, ours, strict=True):
            row += _counted(one & theirs)
    return total


def common_counts(masks: Sequence[Bits], n: int) -> Counts:
    """|M_s ∩ … ∩ M_e|, the parameters in every set from s to e, (S, S); zero where e < s.

    Raises:
        ValueError: a mask of another length.
    """
    total = np.zeros((len(masks), len(masks)), dtype=np.int64)
    for words in _chunks(masks, n):
        for s in range(len(masks)):
            total[s, s:] += _counted(np.bitwise_and.accumulate(words[s:], axis=0))
    return total


def chance(sizes: Sequence[int], n: int) -> Chance:
    """What independent sets of these sizes have in common, among n parameters.

    In whole numbers up to the last division: the variance is a small difference of large terms.
    """
    k, product = len(sizes), math.prod(sizes)
    if n < 2 or k < 2:
        return Chance(float(product / n ** (k - 1)), 0.0)
    pairs = math.prod(size * (size - 1) for size in sizes)
    q, r = n ** (k - 1), (n - 1) ** (k - 1)
    # E x(x−1) = pairs/(qr), E x = product/q.
    variance = (pairs * q + product * q * r - product * product * r) / (q * q * r)
    return Chance(product / q, math.sqrt(variance))


def independent_interval(a: int, b: int, n: int, confidence: float = 0.95) -> tuple[int, int]:
    """The least and the largest |A∩B| that independent sets have with this probability, or a little more.

    On either side at most half of the rest is left out. Exact but for rounding: the probabilities come from
    their ratios, P(x+1)/P(x) = (a−x)(b−x)/((x+1)(n−a−b+x+1)).

    >>> independent_interval(6_000_000, 6_720_000, 11_200_000)
    (3598397, 3601603)
    """
    first, law = _law(a, b, n)
    below = np.cumsum(law)
    tail = (1 - confidence) / 2 * below[-1]
    low, high = np.searchsorted(below, [tail, below[-1] - tail])
    return first + int(low), first + int(min(high, len(law) - 1))


def _law(a: int, b: int, n: int) -> tuple[int, NDArray[np.float64]]:
    """(x₀, probabilities of x₀, x₀+1, … over that of the mode), as far as there are any."""
    mode = (a + 1) * (b + 1) // (n + 2)
    reach = math.ceil(_REACH * chance((a, b), n).deviation) + _LEAST_REACH
    least, most = max(0, a + b - n, mode - reach), min(a, b, mode + reach)
    x = np.arange(least, most, dtype=np.float64)
    ratios = (a - x) * (b - x) / ((x + 1) * (n - a - b + x + 1))
    up = np.cumprod(ratios[mode - least :])
    down = np.cumprod(1 / ratios[: mode - least][::-1])[::-1]
    return least, np.concatenate([down, [1.0], up])


@dataclass(frozen=True)
class Measures:
    """The same overlaps (r, c) on four scales, masked where one is not defined."""

    share: np.ma.MaskedArray
    lift: np.ma.MaskedArray
    jaccard: np.ma.MaskedArray
    kappa: np.ma.MaskedArray


def measures(counts: Counts, a: Sequence[int], b: Sequence[int], n: int) -> Measures:
    """``counts`` (r, c) of sets of sizes ``a`` (r,) and ``b`` (c,) on the scales above.

    Masked: the share of an empty A, the lift of an empty set, Jaccard and κ of two empty sets, κ of two full
    ones.
    """
    x = np.asarray(counts, dtype=np.float64)
    rows = np.asarray(a, dtype=np.float64)[:, None]
    columns = np.asarray(b, dtype=np.float64)[None, :]
    product = rows * columns
    return Measures(
        share=_quotient(x, rows + 0 * x),
        lift=_quotient(x * n, product),
        jaccard=_quotient(x, rows + columns - x),
        kappa=_quotient(2 * (n * x - product), n * (rows + columns) - 2 * product),
    )


def _quotient(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> np.ma.MaskedArray:
    """upper/lower, masked where there is nothing to divide by."""
    nothing = lower == 0
    return np.ma.MaskedArray(upper / np.where(nothing, 1.0, lower), mask=nothing)


def _chunks(masks: Sequence[Bits], n: int) -> Iterator[NDArray[np.uint64]]:
    """Corresponding pieces (masks, words) of all masks, the bits beyond n cleared.

    The masks may lie in a file, at any address: a piece is copied to where 64 bits can be read at once.
    """
    size = packed_size(n)
    if wrong := [mask.shape for mask in masks if mask.shape != (size,)]:
        raise ValueError(f"a mask of {n} parameters has {size} bytes, not the shape {wrong[0]}")
    step = 8 * _WORDS
    for first in range(0, size, step):
        last = min(first + step, size)
        piece = np.zeros((len(masks), 8 * -(-(last - first) // 8)), dtype=np.uint8)
        for row, mask in zip(piece, masks, strict=True):
            row[: last - first] = mask[first:last]
        if last == size and n % 8:
            piece[:, last - first - 1] &= (1 << n % 8) - 1
        yield piece.view(np.uint64)


def _counted(words: NDArray[np.uint64]) -> Counts:
    """Bits set in each row."""
    return np.asarray(_ones(words).sum(axis=-1, dtype=np.int64))


def _ones_of_bytes(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Bits set in each byte, looked up (NumPy 1 does not count them itself)."""
    table = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
    return np.asarray(table[words.view(np.uint8)])


_ones = getattr(np, "bitwise_count", _ones_of_bytes)
