"""The size of the pieces for work of many forward passes over the same data."""

from __future__ import annotations

import math
import time

import torch

from landscape.curvature.strategy import Strategy, graph_bytes_per_example
from landscape.problem import Problem

__all__ = ["forward_pieces"]

#: The part of all passes that may be spent on trying sizes.
_TRIAL = 1 / 64
#: Sizes are timed in turns, so often; the least time counts: what else the machine does only adds to it.
_ROUNDS = 3
#: Each size tried is so much smaller than the one before, and none is smaller than the last.
_SHRINK, _LAST = 4, 32
#: A smaller size must be this much faster per example: where it pays at all, it does by the caches, and more.
_WORTH = 0.85


def forward_pieces(problem: Problem, passes: int) -> Strategy:
    """The size of the pieces, tried from the largest down on a small part of ``passes`` over the data.

    Sizes that this part does not allow to be tried are taken to be as good as the largest that it does. The
    largest is one whose graph half of the memory holds, so that a gradient can be made in the same pieces.
    """
    if problem.train_mode or problem.batch_size:
        size = problem.batch_size or problem.examples
        return Strategy(size, -(-problem.examples // size), 0, 0)
    per_example = max(1.0, graph_bytes_per_example(problem, few=1, twice=False))
    largest = min(max(1, int(problem.memory / 2 / per_example)), problem.examples)
    best = _fastest(problem, largest, _TRIAL * passes * problem.examples)
    pieces = -(-problem.examples // best)
    return Strategy(-(-problem.examples // pieces), pieces, 0, int(per_example * best))


def _fastest(problem: Problem, largest: int, examples: float) -> int:
    """The largest size that no smaller one is clearly faster than."""
    sizes = [largest]
    while sizes[-1] // _SHRINK >= _LAST:
        sizes.append(sizes[-1] // _SHRINK)
    tried = [size for i, size in enumerate(sizes) if _ROUNDS * sum(sizes[i:]) <= examples]
    least = dict.fromkeys(tried, math.inf)
    for _ in range(_ROUNDS if len(tried) > 1 else 0):
        for size in tried:
            least[size] = min(least[size], _seconds(problem, size) / size)
    fastest = min(least.values(), default=math.inf)
    chosen = max((size for size in tried if least[size] * _WORTH <= fastest), default=largest)
    return largest if chosen == max(tried, default=largest) else chosen


def _seconds(problem: Problem, size: int) -> float:
    """Time of a forward pass over ``size`` examples; on a processor without what others have of it."""
    piece, on_gpu = problem.sample(size), problem.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.thread_time
    with problem.arithmetic(), torch.no_grad():
        start = clock()
        problem.mean_loss(piece)
        if on_gpu:
            torch.cuda.synchronize(problem.device)
        return clock() - start
