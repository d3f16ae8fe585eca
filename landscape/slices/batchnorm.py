"""Running statistics of BatchNorm along a slice: measured anew at each point, or interpolated.

Statistics saved at w are wrong at other weights: between two trained networks the activations shrink, and
what looks like a barrier is BatchNorm's (Izmailov et al. 2018, §3.2; Jordan et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.data import Piece
from landscape.problem import Problem

__all__ = ["STATISTICAL_BATCH", "RecalibratedStatistics", "has_statistics", "interpolated", "tracked"]

#: Examples whose statistics are taken together; the figure depends on it, so ``--batch-size`` does not change
#: it.
STATISTICAL_BATCH = 512


def tracked(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """The BatchNorm layers with running statistics, by name."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            yield name, module


def has_statistics(model: nn.Module) -> bool:
    """Whether there are any."""
    return next(tracked(model), None) is not None


class RecalibratedStatistics:
    """Measures the running statistics anew on the data, at whatever weights a model has.

    Mean and variance of each layer are those of batches of ``STATISTICAL_BATCH`` examples, normalised by
    their own statistics as in training, averaged with the number of examples as weights. Variances are
    unbiased, as torch's running ones are. A last example that would be a batch by itself, which has no
    variance, is one more of the batch before.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.batch = min(STATISTICAL_BATCH, problem.examples)
        self._kept: list[Piece] | None = None

    def __call__(self, problem: Problem) -> None:
        """Write the statistics into ``problem``'s model, which is in eval mode again afterwards."""
        layers = [module for _, module in tracked(problem.model)]
        momenta = [module.momentum for module in layers]
        for module in layers:
            module.reset_running_stats()  # of what was not finite at the point before, nothing is left
            module.train()
        seen = 0
        try:
            for piece in self._pieces():
                seen += piece.examples
                for module in layers:
                    module.momentum = piece.examples / seen
                if problem.loss.whole:
                    problem.mean_loss(piece)
                else:
                    problem.outputs(piece)
        finally:
            for module, momentum in zip(layers, momenta, strict=True):
                module.momentum = momentum
                module.eval()

    def _pieces(self) -> Iterator[Piece]:
        if self._kept is not None:
            yield from self._kept
            return
        pieces: Iterable[Piece] = self._batches()
        if self._problem.data.batches is not None:
            self._kept = pieces = list(pieces)
        yield from pieces

    def _batches(self) -> Iterator[Piece]:
        """The data in these batches, in whatever pieces they are read."""
        parts: list[Piece] = []
        held = 0
        for piece in self._problem.pieces(self.batch):
            first = 0
            while first < piece.examples:
                last = min(piece.examples, first + max(1, self.batch - held))
                parts += self._problem.cut(piece, slice(first, last))
                held, first = held + last - first, last
                left = self._problem.examples - piece.first - first
                if held >= self.batch and left != 1:
                    yield from self._problem.join(parts)
                    parts, held = [], 0
        yield from self._problem.join(parts)


def interpolated(model: nn.Module, other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The running statistics between ``model``'s (at 0) and those of ``other`` (at 1), by name.

    Beyond both ends they are extrapolated; a variance stays at least 0.
    """
    found = {}
    for name, module in tracked(model):
        for key in ("running_mean", "running_var"):
            full = f"{name}.{key}" if name else key
            own, end = getattr(module, key).double(), other[full].double()
            value = (1 - share) * own + share * end
            found[full] = value.clamp(min=0.0) if key == "running_var" else value
    return found
