"""Model, loss and data at given weights: the loss, its gradient, and its terms piece by piece."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.data import Batch, Data, examples_in, map_tensors, read_data, tensors_in
from landscape.errors import ComputationError, ConfigurationError, DataError, LandscapeError
from landscape.losses import Loss, resolve_loss
from landscape.machine import (
    available_memory,
    brief,
    compute_device,
    compute_dtype,
    full_precision,
    is_out_of_memory,
)
from landscape.parameters import Selection, select_parameters
from landscape.results import CheckpointReference

__all__ = ["Evaluation", "Piece", "Problem"]


@dataclass(frozen=True)
class Piece:
    """Some examples on the device, in the model's dtype, with the number of loss terms in them."""

    batch: Batch
    examples: int
    terms: float


@dataclass(frozen=True)
class Evaluation:
    """The loss over the data at the weights; ``gradient`` is (n,) float64, ``accuracy`` None without labels."""

    loss: float
    gradient: Tensor
    accuracy: float | None


class Problem:
    """What is measured: a model, a loss and a data set, at the model's weights.

    The model is copied; nothing of the user's is changed. The loss is the data set's: the mean over all its
    terms, however they fall into batches.

    Args:
        model: evaluated in eval mode unless ``train_mode``.
        loss: a name (cross_entropy, mse, bce_with_logits, nll), a torch loss module, or a callable
            ``(outputs, targets) -> mean``; a callable whose first parameter is called ``model`` gets
            ``(model, batch)``.
        data: ``(x, y)`` tensors, a Dataset, a DataLoader (not shuffled) or an iterable of batches.
        params: patterns of the names of the parameters to measure; all trainable ones without.
        count: ``batch -> number of terms`` of a callable loss's mean; the number of examples without.
        batch_size: largest piece evaluated at once; chosen by measurement without. In train mode it is the
            statistical batch, and one batch of all data without.
        samples: use a random subset of so many examples, drawn with ``sample_seed``.
        device: auto, cpu or cuda.
        dtype: float32 or float64; the model's own without (half precision is raised to float32).
        weight_decay: adds ½·D·‖w‖² to the loss.
        memory: bytes to use; half of what is free without.
        threads: for the arithmetic, while a run lasts.
        expect_loss: what the loss must be, to 1 %, or the run stops before it begins.

    Raises:
        ConfigurationError, DataError: what was given does not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Callable[..., Tensor],
        data: Any,
        *,
        params: Sequence[str] = (),
        count: Callable[[Any], float] | None = None,
        batch_size: int | None = None,
        samples: int | None = None,
        sample_seed: int = 0,
        device: str = "auto",
        dtype: str | None = None,
        train_mode: bool = False,
        weight_decay: float = 0.0,
        memory: int | None = None,
        threads: int | None = None,
        expect_loss: float | None = None,
        checkpoint: CheckpointReference | None = None,
        description: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigurationError("the model must be a torch.nn.Module", found=type(model).__name__)
        self.device = compute_device(device)
        self.dtype, notes = compute_dtype(model, dtype)
        self.model = _own_copy(model).to(self.device, self.dtype).train(train_mode)
        self.loss: Loss = resolve_loss(loss, count)
        self.train_mode, self.weight_decay, self.threads = train_mode, weight_decay, threads
        self.memory = memory or available_memory(self.device) // 2
        self.data: Data = read_data(data, limit=self.memory // 4, samples=samples, sample_seed=sample_seed)
        self.batch_size = min(batch_size, self.data.examples) if batch_size else None
        self.checkpoint, self.expect_loss = checkpoint, expect_loss
        self.selection: Selection = select_parameters(self.model, params)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.selection.tensors:
            parameter.requires_grad_(True)
        self.notes = (*notes, *self.data.notes)
        self.description = {
            **(description or {}),
            "model": (description or {}).get("model", type(model).__name__),
            "loss": self.loss.name,
            "terms": self.loss.counting,
            "params": list(params),
            "samples": samples,
            "sample_seed": sample_seed if samples else None,
            "mode": "train" if train_mode else "eval",
            "statistical_batch": self.batch_size if train_mode else None,
            "weight_decay": weight_decay,
        }

    @property
    def size(self) -> int:
        """Number of parameters measured."""
        return self.selection.layout.size

    @property
    def examples(self) -> int:
        return self.data.examples

    @cached_property
    def terms(self) -> float:
        """Number of terms the data set's mean is over.

        Raises:
            DataError: every term is left out.
        """
        total = sum(self._terms(batch) for batch in self.data)
        if not total > 0:
            raise DataError(
                "the loss has no terms", found=f"{total:g} {self.loss.counting} in {self.examples} examples"
            )
        return total

    def _terms(self, batch: Batch) -> float:
        if self.loss.terms is None:
            return float(examples_in(batch))
        try:
            return float(self.loss.terms(batch if self.loss.whole else _targets(batch)))
        except LandscapeError:
            raise
        except Exception as error:
            raise DataError(
                f"the terms of {self.loss.name} could not be counted", found=brief(error)
            ) from error

    def pieces(self, size: int | Callable[[], int] | None = None) -> Iterator[Piece]:
        """The data in pieces of at most ``size`` examples; pieces without terms are left out.

        ``size`` may be a function asked before each piece. In train mode the pieces are the statistical
        batches, whatever ``size``.
        """
        if self.train_mode or size is None:
            size = self.batch_size or self.examples
        for batch in self.data.pieces(size):
            yield from self._piece(batch)

    def _piece(self, batch: Batch) -> Iterator[Piece]:
        terms = self._terms(batch)
        if terms > 0:
            yield Piece(map_tensors(self._place, batch), examples_in(batch), terms)

    def cut(self, piece: Piece, rows: slice | Tensor) -> Iterator[Piece]:
        """Some examples of a piece (none if they have no terms)."""
        yield from self._piece(map_tensors(lambda tensor: tensor[rows], piece.batch))

    def recast(self, piece: Piece) -> Piece:
        """A piece of a twin problem in this one's dtype."""
        return replace(piece, batch=map_tensors(self._place, piece.batch))

    def _place(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if tensor.is_floating_point() else None
        return tensor.to(self.device, dtype, non_blocking=True)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Full precision, double-differentiable kernels, no autocast; everything as before afterwards."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if torch.is_autocast_enabled(self.device.type):
                stack.enter_context(torch.autocast(self.device.type, enabled=False))
            if self.device.type == "cuda":
                recurrent = any(isinstance(module, nn.RNNBase) for module in self.model.modules())
                stack.enter_context(full_precision(cudnn=not recurrent))
            if self.train_mode:
                stack.enter_context(self._frozen_statistics())
            yield

    @contextlib.contextmanager
    def _frozen_statistics(self) -> Iterator[None]:
        """In train mode: dropout drawn from a fixed seed, running statistics put back afterwards."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            try:
                yield
            finally:
                for buffer, saved in buffers:
                    buffer.copy_(saved)

    def piece_loss(self, piece: Piece) -> Tensor:
        """The piece's share of the data set's loss, a scalar in ``dtype``: its mean times its share of terms."""
        return self._mean(piece)[0] * (piece.terms / self.terms)

    def _mean(self, piece: Piece) -> tuple[Tensor, Tensor | None]:
        """(mean loss over the piece, model outputs if there are any)."""
        try:
            if self.loss.whole:
                outputs, mean = None, self.loss.mean(self.model, piece.batch)
            else:
                outputs = self.outputs(piece.batch)
                mean = self.loss.mean(outputs, _targets(piece.batch))
        except LandscapeError:
            raise
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise self._explain(error, piece) from error
        if not isinstance(mean, Tensor) or mean.numel() != 1:
            raise ConfigurationError(
                f"the loss {self.loss.name} must return one number, a mean",
                found=f"{tuple(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__,
            )
        return mean.reshape(()), outputs

    def outputs(self, batch: Batch) -> Tensor:
        """The model's outputs for a batch ``(inputs, targets)``."""
        return call_model(self.model, _inputs(batch))

    def outputs_at(self, piece: Piece, weights: Tensor) -> Tensor:
        """The model's outputs for a piece with other weights, flat (n,); the model is not changed."""
        layout = self.selection.layout
        named = dict(zip(layout.names, layout.split(weights), strict=True))
        inputs = _inputs(piece.batch)
        if isinstance(inputs, Mapping):
            return functional_call(self.model, named, (), dict(inputs))
        return functional_call(
            self.model, named, tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
        )

    def _explain(self, error: Exception, piece: Piece) -> Exception:
        """A user's error out of the model's or the loss's own."""
        if is_out_of_memory(error):
            return error
        shapes = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_in(piece.batch)]
        inputs = tensors_in(piece.batch)[:1]
        if (
            inputs
            and not inputs[0].is_floating_point()
            and "dtype" in str(error).lower().replace("scalar type", "dtype")
        ):
            return DataError(
                "the model could not take the inputs: they are integers",
                found=f"inputs {shapes[0]}; {brief(error)}",
                do="give the data as floats, for example x.float() / 255",
            )
        if isinstance(error, IndexError) and "out of bounds" in str(error):
            return DataError("labels are out of range of the model's outputs", found=brief(error))
        return DataError(
            "the model or the loss failed on a batch",
            found=f"{brief(error)}; batch tensors {', '.join(shapes)}",
            do="check that model, data and loss belong together; --debug shows where it failed",
        )

    def gradient_of(self, loss: Tensor, create_graph: bool = False) -> list[Tensor | None]:
        """Gradients of a scalar with respect to the measured parameters; None for those it does not use.

        Raises:
            ComputationError: the loss does not depend on any of the parameters.
        """
        if not loss.requires_grad:
            raise ComputationError(
                "the loss does not depend on the parameters that are measured",
                do="look for detach(), .item() or no_grad in the model or the loss, or change --params",
            )
        return list(
            torch.autograd.grad(loss, self.selection.tensors, create_graph=create_graph, allow_unused=True)
        )

    def add_flat(self, total: Tensor, parts: Sequence[Tensor | None]) -> None:
        """Add parameter-shaped ``parts`` to the flat float64 vector ``total`` (n,), in place."""
        if all(part is not None for part in parts):
            total += torch.cat([part.reshape(-1) for part in parts if part is not None])
            return
        for view, part in zip(self.selection.layout.split(total), parts, strict=True):
            if part is not None:
                view += part

    def measure(self, pieces: Iterable[Piece] | None = None) -> Evaluation:
        """Loss, gradient and accuracy over the data in one pass (over ``pieces`` if given).

        Raises:
            ComputationError: a loss or gradient that is not finite (names the piece).
        """
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        loss, right, labels, first = 0.0, 0, 0, 0
        for piece in self.pieces() if pieces is None else pieces:
            with self.arithmetic():
                mean, outputs = self._mean(piece)
                parts = self.gradient_of(mean * (piece.terms / self.terms))
            where = f"examples {first} to {first + piece.examples - 1}"
            self.check_finite(mean, parts, where)
            first += piece.examples
            self.add_flat(total, parts)
            loss += float(mean.detach().double()) * (piece.terms / self.terms)
            hits, seen = self._hits(outputs, piece)
            right, labels = right + hits, labels + seen
        if self.weight_decay:
            weights = self.selection.flat().double()
            total += self.weight_decay * weights
            loss += self.weight_decay / 2 * float(weights @ weights)
        return Evaluation(loss, total, right / labels if labels else None)

    def check_finite(self, loss: Tensor, gradient: Sequence[Tensor | None], where: str) -> None:
        """Raise a :class:`ComputationError` unless loss and gradient are finite."""
        if not bool(torch.isfinite(loss)):
            raise ComputationError(
                f"the loss is {float(loss)} on {where}",
                do="look at those examples, at the checkpoint for NaN weights, or compute with --dtype float64",
            )
        if not all(bool(torch.isfinite(part).all()) for part in gradient if part is not None):
            raise ComputationError(
                f"the gradient is not finite on {where} although the loss is",
                do="look for sqrt, norm or log at zero in the model or the loss",
            )

    def _hits(self, outputs: Tensor | None, piece: Piece) -> tuple[int, int]:
        """(labels predicted right, labels), (0, 0) where the targets are not class labels."""
        if outputs is None or not self.loss.classes:
            return 0, 0
        targets = _targets(piece.batch)
        if targets.is_floating_point():
            return 0, 0
        predicted = self.loss.shaped(outputs.detach(), targets).argmax(1)
        kept = targets != self.loss.ignored
        return int(((predicted == targets) & kept).sum()), int(kept.sum())

    def check_deterministic(self) -> None:
        """Forward the first few examples twice: the losses must agree to rounding.

        Raises:
            ComputationError: they do not (dropout switched on by hand, noise, time).
        """
        if self.train_mode:
            return
        piece = next(iter(self.pieces(min(self.examples, 16))))
        with self.arithmetic(), torch.no_grad():
            first, again = (float(self._mean(piece)[0].double()) for _ in range(2))
        if not (math.isfinite(first) and math.isfinite(again)):
            return  # reported with the examples' names by the measurement itself
        if abs(first - again) > 100 * torch.finfo(self.dtype).eps * max(abs(first), abs(again)):
            raise ComputationError(
                "the loss is not deterministic: the same examples gave two losses",
                found=f"{first:.9g} and {again:.9g} in {'train' if self.train_mode else 'eval'} mode",
                do=f"switch off {_random_modules(self.model)} while measuring",
            )

    def check_expected(self, loss: float) -> None:
        """Raise a :class:`DataError` if ``expect_loss`` was given and ``loss`` is not it, to 1 %."""
        expected = self.expect_loss
        if expected is not None and abs(loss - expected) > 0.01 * abs(expected):
            raise DataError(
                f"the loss is {loss:.6g}, not {expected:.6g} as --expect-loss says",
                do="check data, their preprocessing and order of classes, the loss, and eval or train mode",
            )

    def in_double(self) -> Problem:
        """The same problem in float64, on the same data (weights copied)."""
        twin = copy.copy(self)
        twin.dtype = torch.float64
        twin.model = copy.deepcopy(self.model).to(torch.float64)
        chosen = dict(twin.model.named_parameters())
        names = self.selection.layout.names
        twin.selection = replace(self.selection, tensors=tuple(chosen[name] for name in names))
        return twin


def call_model(model: nn.Module, inputs: Any) -> Any:
    """A model on a batch's inputs: positional for a tuple, by keyword for a mapping."""
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def _pair(batch: Batch) -> tuple[Any, Any]:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    found = f"a {type(batch).__name__}" + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
    raise DataError(
        "batches must be pairs (inputs, targets)",
        found=found,
        do="for other batches pass a loss(model, batch) callable",
    )


def _inputs(batch: Batch) -> Any:
    return _pair(batch)[0]


def _targets(batch: Batch) -> Any:
    return _pair(batch)[1]


def _own_copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ConfigurationError(
            "the model cannot be copied, and landscape does not work on yours itself",
            found=brief(error),
            do="remove what deepcopy cannot copy (old weight_norm: use torch.nn.utils.parametrizations)",
        ) from error


def _random_modules(model: nn.Module) -> str:
    """What in the model may be random, by name."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.MultiheadAttention)
    named = [f"{name} ({type(m).__name__})" for name, m in model.named_modules() if isinstance(m, kinds)]
    return "what is random in forward()" + (f", perhaps {', '.join(named[:3])}" if named else "")
