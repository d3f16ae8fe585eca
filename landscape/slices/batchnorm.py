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
    unbiased, as torch's running ones are. A last batch of one example is joined to the one before.
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
        pieces = self._joined(self._problem.pieces(self.batch))
        if self._problem.data.batches is not None:
            self._kept = list(pieces)
        yield from pieces if self._kept is None else self._kept

    def _joined(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The same pieces; one of a single example, which has no variance, joined to the one before."""
        waiting: Piece | None = None
        for piece in pieces:
            if waiting is not None and piece.examples == 1:
                joined = list(self._problem.join([waiting, piece]))
                if len(joined) == 1:
                    waiting = joined[0]
                    continue
            if waiting is not None:
                yield waiting
            waiting = piece
        if waiting is not None:
            yield waiting


def interpolated(model: nn.Module, other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The running statistics between ``model``'s (at 0) and those of ``other`` (at 1), by name.

    Beyond both ends they are extrapolated; a variance stays at least 0.
    """
    found = {}
    for name, module in tracked(model):
        for key in ("running_mean", "running_var"):
            full = f"{name}.{key}" if name else key
            own = getattr(module, key).double()
            value = own + share * (other[full].double() - own)
            found[full] = value.clamp(min=0.0) if key == "running_var" else value
    return found
