"""How products are made: pieces of what size, how many graphs kept. Measured at the start, then recorded.

Larger pieces have less overhead, smaller ones stay in the processor's caches; which wins depends on model
and machine, so the pass that measures the loss and the gradient is made in pieces of growing size, timed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from landscape.data import Piece, tensors_in
from landscape.machine import is_out_of_memory
from landscape.problem import Evaluation, Problem

__all__ = ["Strategy", "choose_pieces", "choose_strategy"]

#: A size must be this much faster per example to replace a larger one.
_WORTH = 0.95
#: Sizes go on growing until one is this much slower per example than the fastest.
_HOPEFUL = 1.25
#: The part of a pass that may be spent on trying sizes when a pass is all there is.
_TRIAL = 1 / 8
#: Growth of the sizes tried, and the first of them.
_GROWTH, _FIRST = 4, 8


@dataclass(frozen=True)
class Strategy:
    """``micro_batch`` examples a piece; the first ``kept_pieces`` of ``pieces`` keep their graphs."""

    micro_batch: int
    pieces: int
    kept_pieces: int
    graph_bytes: int

    def smaller(self) -> Strategy | None:
        """What to do when memory runs out: keep no graphs, then halve the pieces; None at one example."""
        if self.kept_pieces:
            return replace(self, kept_pieces=0)
        if self.micro_batch <= 1:
            return None
        half = max(1, self.micro_batch // 2)
        return replace(self, micro_batch=half, pieces=self.pieces * -(-self.micro_batch // half))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_strategy(problem: Problem, reserved: int = 0) -> tuple[Strategy, Evaluation]:
    """Measure loss and gradient in one pass, and from it choose how products are to be made.

    Args:
        reserved: bytes of ``problem.memory`` that are needed elsewhere.
    """
    budget = max(0, problem.memory - reserved)
    per_example = graph_bytes_per_example(problem)
    largest = min(max(1, int(budget / 2 / max(1, per_example))), problem.examples)
    while True:
        try:
            evaluation, micro_batch = _measure(problem, largest)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or problem.batch_size or largest == 1:
                raise
            largest = max(1, largest // 4)
    pieces = sum(1 for _ in problem.pieces(micro_batch))
    # While a piece is differentiated its intermediate results take about as much again as its graph.
    piece_bytes = graph_bytes(problem, micro_batch, per_example)
    kept = max(0, min(pieces, budget // piece_bytes - 1))
    return Strategy(micro_batch, pieces, kept, piece_bytes), evaluation


def choose_pieces(problem: Problem, reserved: int = 0) -> Strategy:
    """Only the size of the pieces, for work of a few passes: tried on an eighth of the data.

    The passes themselves can then be made in the same pieces, and agree to the last bit where they should.
    """
    if problem.train_mode or problem.batch_size:
        size = problem.batch_size or problem.examples
        return Strategy(size, -(-problem.examples // size), 0, 0)
    budget = max(0, problem.memory - reserved)
    per_example = max(1.0, graph_bytes_per_example(problem, few=1, twice=False))
    largest = min(max(1, int(budget / 2 / per_example)), problem.examples)
    ladder, left = _Ladder(largest), int(_TRIAL * problem.examples)
    # Of few examples, trying sizes would cost more than it could save.
    for piece in ladder.timed(problem) if left >= 8 * _FIRST else ():
        left -= piece.examples
        if left < 0:
            break
        problem.measure([piece])
    best = ladder.best()
    pieces = -(-problem.examples // best)
    return Strategy(-(-problem.examples // pieces), pieces, 0, int(per_example * best))


def _measure(problem: Problem, largest: int) -> tuple[Evaluation, int]:
    """(loss and gradient, the piece size that was fastest), in pieces of at most ``largest`` examples."""
    if problem.train_mode or problem.batch_size:
        return problem.measure(), problem.batch_size or problem.examples
    ladder = _Ladder(largest)
    evaluation = problem.measure(ladder.timed(problem))
    # Pieces of one size: 1797 examples are cut into 2 of 899, not into 1024 and 773.
    return evaluation, -(-problem.examples // -(-problem.examples // ladder.best()))


def graph_bytes(problem: Problem, examples: int, per_example: float) -> int:
    """Memory of the kept graph of a piece: what its examples take, and its gradient, as long as the model."""
    return int(per_example * examples) + problem.size * torch.finfo(problem.dtype).bits // 8


def graph_bytes_per_example(problem: Problem, few: int = 4, twice: bool = True) -> float:
    """Memory that the graph of one example keeps, measured on a few examples.

    It is that of the gradient, to be differentiated again; of the loss alone without ``twice``.
    """
    few = few if not problem.train_mode else problem.batch_size or problem.examples
    piece = next(iter(problem.pieces(few)))
    given = [*problem.model.parameters(), *problem.model.buffers(), *tensors_in(piece.batch)]
    own = {tensor.untyped_storage().data_ptr() for tensor in given}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), problem.arithmetic():
        loss = problem.mean_loss(piece)
        if twice:
            problem.gradient_of(loss, create_graph=True)
    return sum(seen.values()) / piece.examples


class _Ladder:
    """Piece sizes that grow while they pay; the time of each is measured while it does useful work."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.size = min(_FIRST, largest)
        self.seconds_per_example: dict[int, float] = {}
        self._warm = False

    def best(self) -> int:
        """The fastest size, a smaller one only where it is clearly faster.

        Where the largest size that the data let us try is the best of them, one step more is taken unseen.
        """
        known = self.seconds_per_example
        if not known:
            return self.largest
        chosen = max(size for size, each in known.items() if each <= min(known.values()) / _WORTH)
        return min(chosen * _GROWTH, self.largest) if chosen == max(known) else chosen

    def timed(self, problem: Problem) -> Iterator[Piece]:
        """The problem's pieces; the time until the next one is asked for is the time each has taken."""
        alone = problem.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.thread_time if alone else time.perf_counter  # what others do meanwhile does not count
        for piece in problem.pieces(lambda: self.size):
            start = clock()
            yield piece
            if problem.device.type == "cuda":
                torch.cuda.synchronize(problem.device)
            self._took(piece.examples, clock() - start)

    def _took(self, examples: int, seconds: float) -> None:
        if not self._warm:  # the first piece pays for the start of everything
            self._warm = True
            return
        known, each = self.seconds_per_example, seconds / examples
        if known and examples < max(known):  # the end of a batch
            return
        known[examples] = min(each, known.get(examples, each))
        tried = max(known)
        hopeful = known[tried] <= _HOPEFUL * min(known.values())
        self.size = min(tried * _GROWTH, self.largest) if hopeful else self.best()
