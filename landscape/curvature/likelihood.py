"""Labels drawn from the distribution that a model itself predicts, where its loss is a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.linalg.probes import derived_seed
from landscape.losses import Loss

__all__ = ["LabelSampler", "check_log_probabilities", "label_sampler"]

#: (loss, outputs, targets, random numbers shaped as the targets) -> labels shaped as the targets.
_Draw = Callable[[Loss, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LabelSampler:
    """Draws labels for a loss whose mean is that of −log p(label | outputs), up to a constant.

    Every example has random numbers of its own, from ``seed`` and its number in the data, so that the labels
    do not depend on how the examples are cut into pieces. They are compared in float64.
    """

    loss: Loss
    draw: _Draw
    normal: bool
    draws: int
    seed: int

    def labels(self, outputs: Tensor, targets: Tensor, first: int) -> Iterator[Tensor]:
        """``draws`` sets of labels, each shaped as ``targets``, for examples from number ``first`` on.

        Raises:
            ConfigurationError: outputs or targets do not make the loss a likelihood.
        """
        if self.loss.classes and targets.is_floating_point():
            raise _no_likelihood(self.loss, "targets that are probabilities")
        check_log_probabilities(self.loss, outputs, targets)
        shape = (self.draws, *targets.shape[1:])
        numbers = torch.stack([self._numbers(first + row, shape) for row in range(len(targets))], 1)
        for drawn in numbers.to(outputs.device):
            yield self.draw(self.loss, outputs.detach().double(), targets, drawn)

    def _numbers(self, example: int, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "labels", example))
        kind = torch.randn if self.normal else torch.rand
        return kind(shape, dtype=torch.float64, generator=generator)


def label_sampler(loss: Loss, draws: int, seed: int) -> LabelSampler:
    """The sampler that belongs to a loss.

    Raises:
        ConfigurationError: the loss is no likelihood that is known here.
    """
    module = loss.module
    if module is None or type(module) not in _DRAWS:
        raise _no_likelihood(loss, f"the loss {loss.name}")
    for weight in ("weight", "pos_weight"):
        if getattr(module, weight, None) is not None:
            raise _no_likelihood(loss, f"{loss.name} with {weight}")
    if getattr(module, "label_smoothing", 0.0):
        raise _no_likelihood(loss, f"{loss.name} with label_smoothing={module.label_smoothing:g}")
    return LabelSampler(loss, _DRAWS[type(module)], isinstance(module, nn.MSELoss), draws, seed)


def check_log_probabilities(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Look whether the outputs are what a negative log-likelihood takes them for.

    Raises:
        ConfigurationError: their exponentials do not sum to 1.
    """
    if not isinstance(loss.module, nn.NLLLoss):
        return
    totals = torch.logsumexp(loss.shaped(outputs.detach(), targets).double(), 1).abs()
    if float(worst := totals.max()) > torch.finfo(outputs.dtype).eps ** 0.5:
        raise ConfigurationError(
            f"{loss.name} needs a model whose outputs are log-probabilities",
            found=f"exponentials of outputs that sum to 1 only up to a factor {float(worst.exp()):.4g}",
            do="end the model with log_softmax, or use cross_entropy",
        )


def _categorical(loss: Loss, outputs: Tensor, targets: Tensor, uniform: Tensor) -> Tensor:
    """Classes by the inverse of their cumulative probabilities; labels that are left out stay so."""
    cumulative = torch.softmax(loss.shaped(outputs, targets), 1).cumsum(1)
    drawn = (uniform.unsqueeze(1) * cumulative[:, -1:] >= cumulative).sum(1)
    assert loss.ignored is not None
    return drawn.to(targets.dtype).where(targets.ne(loss.ignored), targets)


def _gaussian(loss: Loss, outputs: Tensor, targets: Tensor, normal: Tensor) -> Tensor:
    """torch's squared error (f − y)² is −log p for a variance of ½, up to a constant."""
    return outputs + math.sqrt(0.5) * normal


def _from_logits(loss: Loss, outputs: Tensor, targets: Tensor, uniform: Tensor) -> Tensor:
    return (uniform < torch.sigmoid(outputs)).double()


def _from_probabilities(loss: Loss, outputs: Tensor, targets: Tensor, uniform: Tensor) -> Tensor:
    return (uniform < outputs).double()


_DRAWS: dict[type[nn.Module], _Draw] = {
    nn.CrossEntropyLoss: _categorical,
    nn.NLLLoss: _categorical,
    nn.MSELoss: _gaussian,
    nn.BCEWithLogitsLoss: _from_logits,
    nn.BCELoss: _from_probabilities,
}


def _no_likelihood(loss: Loss, found: str) -> ConfigurationError:
    return ConfigurationError(
        "the Fisher matrix needs a loss that is a likelihood of labels",
        found=f"{found}: no distribution to draw labels from",
        do="use --operator gauss-newton, or empirical-fisher, which takes the labels as they are",
    )
