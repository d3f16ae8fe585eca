"""The monitor as a callback of the Hugging Face trainer: ``callbacks=[LandscapeCallback(probe)]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data import examples_in
from landscape.errors import ConfigurationError
from landscape.monitoring.monitor import Monitor

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ConfigurationError(
        "the callback for the Hugging Face Trainer needs transformers",
        found=str(error),
        do="pip install 'landscape-diagnostics[transformers]'",
    ) from error

__all__ = ["LandscapeCallback"]

#: The label that the library's losses leave out.
_MASKED = -100


class LandscapeCallback(TrainerCallback):
    """Measures while a ``transformers.Trainer`` trains, before each step of the optimizer.

    Each training is a run of its own in ``output``. Only the first process of several measures.

    Args:
        probe: the fixed data: a batch as the collator gives them, with labels, or a list of such.
        loss: as for :class:`landscape.Monitor`; the model's own loss for its labels without.
        options: of :class:`landscape.Monitor`, ``every``, ``output`` and so on. Without SAM there is one
            gradient: ``rho`` asks for ratio classes on the probe data.

    Attributes:
        monitor: the :class:`landscape.Monitor`, once the training has begun.
    """

    def __init__(
        self,
        probe: Any,
        *,
        loss: str | nn.Module | Callable[..., Tensor] | None = None,
        **options: Any,
    ) -> None:
        self.monitor: Monitor | None = None
        self._probe = [dict(probe)] if isinstance(probe, Mapping) else probe
        self._loss, self._options = loss, options

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the monitor, where the model is now."""
        if not state.is_world_process_zero:
            return
        model: nn.Module = kwargs["model"]
        given = {"optimizer": kwargs.get("optimizer")}
        if self._loss is None:
            given["count"] = _counter(type(model).__name__)
        loss = own_loss if self._loss is None else self._loss
        self.monitor = Monitor(
            model, loss, self._probe, first_step=state.global_step, **{**given, **self._options}
        )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The gradient of a step is there, summed over what it accumulates."""
        if self.monitor is not None:
            self.monitor.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write everything."""
        if self.monitor is not None:
            self.monitor.finish()


def own_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The loss that a model of the library returns for labels."""
    loss = getattr(model(**batch), "loss", None)
    if not isinstance(loss, Tensor):
        raise ConfigurationError(
            f"{type(model).__name__} returned no loss for the probe data",
            found=f"a batch of {', '.join(map(str, batch))}",
            do="give batches with labels, or LandscapeCallback(probe, loss=…)",
        )
    return loss


def _counter(model: str) -> Callable[[Mapping[str, Any]], float]:
    """How many labels the mean of :func:`own_loss` is over: of causal models, each token's but the first."""
    causal = "CausalLM" in model or "LMHead" in model

    def count(batch: Mapping[str, Any]) -> float:
        labels = batch.get("labels")
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            return float(examples_in(dict(batch)))
        counted = labels[..., 1:] if causal and labels.ndim > 1 else labels
        return float(torch.count_nonzero(counted != _MASKED))

    return count
