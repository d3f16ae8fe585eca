"""The monitor as a callback of Lightning: ``Trainer(callbacks=[LandscapeCallback(loss, probe)])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.errors import ConfigurationError
from landscape.monitoring.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ConfigurationError(
        "the callback for Lightning needs Lightning",
        found=str(error),
        do="pip install 'landscape-diagnostics[lightning]'",
    ) from error

__all__ = ["LandscapeCallback"]


class LandscapeCallback(Callback):
    """Measures while a ``lightning.pytorch.Trainer`` fits; figures also go to the trainer's loggers.

    Each fit is a run of its own in ``output``. Only the first process of several measures. The gradients are
    the module's ``.grad`` before clipping.

    Args:
        loss, probe, options: as for :class:`landscape.Monitor`, ``every``, ``output`` and so on.
        model: what of the module is measured, ``lambda module: module.net``; the module itself without. It is
            called with the probe's inputs, or by a ``loss(model, batch)``.
        sam: the module optimizes by hand and takes two backward passes a step, the second at the perturbed
            weights, as SAM does: then the ratio classes are of its own gradients.

    Attributes:
        monitor: the :class:`landscape.Monitor`, once the training has begun.
    """

    def __init__(
        self,
        loss: str | nn.Module | Callable[..., Tensor],
        probe: Any,
        *,
        model: Callable[[LightningModule], nn.Module] | None = None,
        sam: bool = False,
        **options: Any,
    ) -> None:
        self.monitor: Monitor | None = None
        self._loss, self._probe, self._model, self._options = loss, probe, model, options
        self._sam, self._passes = sam, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the monitor, where the model is now."""
        if not trainer.is_global_zero:
            return

        def log(figures: Mapping[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(dict(figures), step)

        given = {"writer": log, "optimizer": next(iter(trainer.optimizers), None)}
        self.monitor = Monitor(
            pl_module if self._model is None else self._model(pl_module),
            self._loss,
            self._probe,
            first_step=trainer.global_step,
            **{**given, **self._options},
        )

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One of SAM's two gradients is there."""
        if self.monitor is None or not self._sam:
            return
        self._passes += 1
        if self._passes == 1:
            self.monitor.first()
        elif self._passes == 2:
            self.monitor.second()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """A step without SAM; of several optimizers the first one's."""
        if self.monitor is not None and not self._sam and optimizer is trainer.optimizers[0]:
            self.monitor.step()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """A step of SAM."""
        if self.monitor is not None and self._sam and self._passes:
            self._passes = 0
            self.monitor.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything."""
        if self.monitor is not None:
            self.monitor.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what there is."""
        if self.monitor is not None:
            self.monitor.finish(complete=False)
