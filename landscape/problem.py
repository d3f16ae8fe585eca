"""Model, loss and data at given weights: the loss, its gradient, and its terms piece by piece."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape.checkpoint import load_checkpoint, load_into
from landscape.data import (
    Batch,
    Data,
    Piece,
    examples_in,
    inputs_of,
    joined,
    map_tensors,
    marks,
    read_data,
    rows_of,
    targets_of,
)
from landscape.errors import ComputationError, ConfigurationError, DataError, LandscapeError
from landscape.losses import Loss, call_whole, label_hits, resolve_loss
from landscape.machine import (
    available_memory,
    brief,
    compute_device,
    compute_dtype,
    exact_arithmetic,
    preserved_randomness,
)
from landscape.models import (
    adapt_library_model,
    call_model,
    cast,
    coupling_advice,
    explained,
    frozen_statistics,
    own_copy,
    random_modules,
    training_modules,
)
from landscape.parameters import Layout, Selection, add_scaled, select_parameters
from landscape.results import CheckpointReference

__all__ = ["Evaluation", "Problem", "Reader"]

#: Parameters up to which a copy costs less than adding tensor by tensor.
_SMALL = 1 << 18


#: Puts the weights in a file into a model, and says which file it was.
Reader = Callable[[Path, nn.Module], CheckpointReference]


def _read_into(path: Path, model: nn.Module) -> CheckpointReference:
    checkpoint = load_checkpoint(path)
    load_into(model, checkpoint)
    return checkpoint.reference


@dataclass(frozen=True)
class Evaluation:
    """The loss over the data at the weights; ``gradient`` is (n,) float64, ``accuracy`` None without labels.

    ``unused`` names the measured parameters that the loss does not depend on: their derivatives are zero.
    """

    loss: float
    gradient: Tensor
    accuracy: float | None
    unused: tuple[str, ...] = ()


class Problem:
    """What is measured: a model, a loss and a data set, at the model's weights.

    The model is copied; nothing of the user's is changed. The loss is the data set's: the mean over all its
    terms, however they fall into batches.

    Args:
        model: evaluated in eval mode unless ``train_mode``.
        loss: a name (cross_entropy, mse, bce_with_logits, nll, causal_lm), a torch loss module, or a
            callable ``(outputs, targets) -> mean``; a callable whose first parameter is called ``model`` gets
            ``(model, batch)``. ``causal_lm`` is the cross-entropy of each next token: its labels are the
            tokens themselves unless others are given, and -100 or the attention mask leaves some out.
        data: ``(x, y)`` tensors, a Dataset, a DataLoader (not shuffled) or an iterable of batches; batches
            may be mappings with ``labels``, as those of the transformers library.
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
        test_data: a second data set, which slices show beside the first.
        metrics: by name, ``(outputs, targets) ->`` a mean or one number for each example, measured on slices
            beside the loss; ``(model, batch) ->`` for a loss of the same arguments.
        reader: puts the weights of another checkpoint into a model of this kind; ``load_into`` without.
        noisy: marks the examples whose labels are wrong: true or false (or 1, 0) for each of the data, before
            ``samples`` chooses. The loss does not know of it.

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
        noisy: Any = None,
        test_data: Any = None,
        metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        reader: Reader | None = None,
        checkpoint: CheckpointReference | None = None,
        description: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigurationError("the model must be a torch.nn.Module", found=type(model).__name__)
        for name, number in (("batch_size", batch_size), ("samples", samples)):
            if number is not None and number < 1:
                raise ConfigurationError(f"{name} must be at least 1", found=str(number))
        self.device = compute_device(device)
        self.dtype, notes = compute_dtype(model, dtype)
        self._own_dtypes = tuple(tensor.dtype for tensor in (*model.parameters(), *model.buffers()))
        self.model = cast(own_copy(model), self.device, self.dtype).train(train_mode)
        self.loss: Loss = resolve_loss(loss, count)
        adapt_library_model(self.model, logits=self.loss.module is not None)
        self.train_mode, self.weight_decay, self.threads = train_mode, weight_decay, threads
        self.memory = memory or available_memory(self.device) // 2
        self.data: Data = read_data(
            data,
            limit=self.memory // 4,
            samples=samples,
            sample_seed=sample_seed,
            prepare=self.loss.prepare,
        )
        self.noisy: Tensor | None = None if noisy is None else marks(noisy, self.data)
        self.batch_size = min(batch_size, self.data.examples) if batch_size else None
        self.checkpoint, self.expect_loss = checkpoint, expect_loss
        self.selection: Selection = select_parameters(self.model, params)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.selection.tensors:
            parameter.requires_grad_(True)
        self.notes = (*notes, *self.data.notes)
        self._twins: dict[torch.dtype, Problem] = {}
        if metrics is not None and not isinstance(metrics, Mapping):
            raise ConfigurationError(
                "metrics are functions by name",
                found=type(metrics).__name__,
                do='write metrics={"name": function}',
            )
        self.metrics, self.reader = dict(metrics or {}), reader or _read_into
        self.test: Problem | None = None
        if test_data is not None:
            self.test = self._on(read_data(test_data, limit=self.memory // 4, prepare=self.loss.prepare))
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
            **({} if self.noisy is None else {"noisy": hashlib.sha256(self.noisy.numpy().data).hexdigest()}),
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
            return float(self.loss.terms(batch if self.loss.whole else targets_of(batch)))
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
        first = 0
        for batch in self.data.pieces(size):
            yield from self._piece(batch, first)
            first += examples_in(batch)

    def _piece(self, batch: Batch, first: int) -> Iterator[Piece]:
        terms = self._terms(batch)
        if terms > 0:
            yield Piece(map_tensors(self._place, batch), examples_in(batch), terms, first)

    def sample(self, size: int) -> Piece:
        """A piece of at most ``size`` examples, evenly spread over data in memory; else the first with terms.

        In train mode it is the first statistical batch.

        Raises:
            DataError: every term is left out.
        """
        assert self.terms
        batches = self.data.batches
        if batches is not None and len(batches) == 1 and not self.train_mode:
            count = min(size, self.examples)
            spread = rows_of(batches[0], torch.arange(count) * self.examples // count)
            if piece := next(self._piece(spread, 0), None):
                return piece
        return next(self.pieces(size))

    def minibatch(self, rows: Tensor) -> Problem:
        """The same problem on some examples only, numbered as in the data (1-D, int64).

        Raises:
            DataError: the data are not in memory, or these examples have no terms.
        """
        if self.data.batches is None:
            raise DataError(
                "mini-batches are drawn from data in memory", do="raise --memory, or use --samples"
            )
        parts, first = [], 0
        for batch in self.data.batches:
            count = examples_in(batch)
            inside = rows[(rows >= first) & (rows < first + count)] - first
            first += count
            if len(inside):
                parts.append(rows_of(batch, inside))
        known = rows if self.data.rows is None else self.data.rows[rows]
        twin = self._on(replace(self.data, batches=joined(parts), examples=len(rows), rows=known))
        twin.noisy = None if self.noisy is None else self.noisy[rows]
        return twin

    def _on(self, data: Data) -> Problem:
        """The same problem, and the same model, on other data."""
        twin = copy.copy(self)
        twin.__dict__.pop("terms", None)
        twin.data, twin.noisy, twin.test = data, None, None
        twin.batch_size = min(self.batch_size, data.examples) if self.batch_size else None
        twin._twins = {}
        return twin

    def cut(self, piece: Piece, rows: slice | Tensor) -> Iterator[Piece]:
        """Some examples of a piece (none if they have no terms)."""
        yield from self._piece(rows_of(piece.batch, rows), piece.first)

    def join(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """The same examples in one piece, or in few where their shapes differ."""
        for batch in joined([piece.batch for piece in pieces]) if pieces else ():
            yield from self._piece(batch, pieces[0].first)

    def recast(self, piece: Piece) -> Piece:
        """A piece of a twin problem in this one's dtype."""
        return replace(piece, batch=map_tensors(self._place, piece.batch))

    def _place(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if tensor.is_floating_point() else None
        if tensor.is_inference():
            with torch.inference_mode(False):
                tensor = tensor.clone()
        return tensor.to(self.device, dtype, non_blocking=True)

    def arithmetic(self) -> contextlib.AbstractContextManager[None]:
        """What evaluations and products run under, see :func:`landscape.machine.exact_arithmetic`."""
        return exact_arithmetic(self.device, cudnn=not self._recurrent)

    @cached_property
    def _recurrent(self) -> bool:
        return any(isinstance(module, nn.RNNBase) for module in self.model.modules())

    def share(self, piece: Piece) -> float:
        """What the piece's mean counts for in the data set's: its share of the terms."""
        return piece.terms / self.terms

    def mean_loss(self, piece: Piece) -> Tensor:
        """The mean loss over a piece, a scalar that can be differentiated."""
        return self._mean(piece)[0]

    def mean_loss_at(self, piece: Piece, weights: Sequence[Tensor]) -> Tensor:
        """:meth:`mean_loss` at other weights, one tensor for each parameter; the model is not changed."""
        return self._mean(piece, weights=dict(zip(self.selection.layout.names, weights, strict=True)))[0]

    def outputs(self, piece: Piece) -> Any:
        """The model's outputs for a piece, which can be differentiated."""
        try:
            with self.statistics():
                return call_model(self.model, inputs_of(piece.batch))
        except LandscapeError:
            raise
        except Exception as error:
            raise explained(error, piece.batch) from error

    def statistics(self) -> contextlib.AbstractContextManager[None]:
        """In train mode, dropout from a fixed seed and running statistics changed on copies only."""
        return frozen_statistics(self.model) if self.train_mode else contextlib.nullcontext()

    def _mean(
        self, piece: Piece, check: bool = False, weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(mean loss over the piece, model outputs if there are any); ``check`` looks at the labels, too."""
        try:
            with self.statistics():
                if self.loss.whole:
                    outputs, mean = None, call_whole(self.loss.mean, self.model, piece.batch, weights)
                else:
                    outputs = call_model(self.model, inputs_of(piece.batch), weights)
                    targets = targets_of(piece.batch)
                    if check and self.loss.check is not None:
                        self.loss.check(outputs, targets)
                    mean = self.loss.mean(outputs, targets)
        except LandscapeError:
            raise
        except Exception as error:
            raise explained(error, piece.batch) from error
        if not isinstance(mean, Tensor) or mean.numel() != 1:
            raise ConfigurationError(
                f"the loss {self.loss.name} must return one number, a mean",
                found=f"{tuple(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__,
            )
        return mean.reshape(()) if mean.ndim else mean, outputs

    def outputs_at(self, piece: Piece, weights: Tensor) -> Tensor:
        """The model's outputs for a piece with other weights, flat (n,); the model is not changed."""
        layout = self.selection.layout
        named = dict(zip(layout.names, layout.split(weights), strict=True))
        outputs: Tensor = call_model(self.model, inputs_of(piece.batch), named)
        return outputs

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

    def add_flat(
        self, total: Tensor, parts: Sequence[Tensor | None], share: float, layout: Layout | None = None
    ) -> None:
        """Add ``share`` times the parameter-shaped ``parts`` to the flat float64 ``total`` (n,), in place.

        ``layout`` says which parameters they are; all the measured ones without.
        """
        if total.numel() <= _SMALL and all(part is not None for part in parts):
            total.add_(torch.cat([part.reshape(-1) for part in parts if part is not None]), alpha=share)
            return
        for view, part in zip((layout or self.selection.layout).split(total), parts, strict=True):
            if part is not None:
                add_scaled(view, part, share)

    def measure(self, pieces: Iterable[Piece] | None = None) -> Evaluation:
        """Loss, gradient and accuracy over the data in one pass (over ``pieces`` if given).

        Raises:
            ComputationError: a loss or gradient that is not finite (names the examples).
            DataError: labels out of range.
        """
        loss, right, labels, used = 0.0, 0, 0, [False] * len(self.selection.tensors)
        with self.arithmetic():
            total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
            for piece in self.pieces() if pieces is None else pieces:
                mean, outputs = self._mean(piece, check=True)
                parts = self.gradient_of(mean)
                self.check_finite(piece, mean, parts)
                self.add_flat(total, parts, self.share(piece))
                loss += float(mean.detach()) * self.share(piece)
                if outputs is not None and self.loss.classes:
                    hits, seen = label_hits(self.loss, outputs.detach(), targets_of(piece.batch))
                    right, labels = right + hits, labels + seen
                used = [known or part is not None for known, part in zip(used, parts, strict=True)]
        if self.weight_decay:
            weights = self.selection.flat().double()
            total += self.weight_decay * weights
            loss += self.weight_decay / 2 * float(weights @ weights)
        unused = tuple(name for name, use in zip(self.selection.layout.names, used, strict=True) if not use)
        return Evaluation(loss, total, right / labels if labels else None, unused)

    def check_finite(self, piece: Piece, loss: Tensor, gradient: Sequence[Tensor | None]) -> None:
        """Raise a :class:`ComputationError` unless loss and gradient are finite."""
        where = f"examples {piece.first} to {piece.first + piece.examples - 1}"
        if not bool(torch.isfinite(loss)):
            weights = self._bad_weights()
            examples = "look at those examples (no later ones were tried), or use --dtype float64"
            raise ComputationError(
                f"the loss is {float(loss.detach())} on {self._not_finite(piece) or where}",
                found=weights,
                do="take an earlier checkpoint, of before the training diverged" if weights else examples,
            )
        if not all(bool(torch.isfinite(part).all()) for part in gradient if part is not None):
            raise ComputationError(
                f"the gradient is not finite on {where} although the loss is",
                do="look for sqrt, norm or log at zero in the model or the loss",
            )

    def _bad_weights(self) -> str:
        """The parameters and buffers that are not finite, if there are any."""
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        bad = [name for name, tensor in named if not bool(torch.isfinite(tensor).all())]
        return f"weights that are not finite: {', '.join(bad[:5])}" if bad else ""

    def _not_finite(self, piece: Piece) -> str:
        """The examples of a piece whose own loss is not finite, where it is known; else nothing."""
        if self.loss.each is None:
            return ""
        with torch.no_grad():
            sums, _ = self.loss.each(call_model(self.model, inputs_of(piece.batch)), targets_of(piece.batch))
        rows = (~torch.isfinite(sums)).nonzero()[:, 0].tolist()
        shown = ", ".join(str(piece.first + row) for row in rows[:5])
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        return f"{'examples' if len(rows) > 1 else 'example'} {shown}{more}" if rows else ""

    def check_deterministic(self) -> None:
        """Evaluate a few examples twice, and in parts: a function of the weights, and a mean over examples?

        Raises:
            ComputationError: random (dropout switched on by hand, noise), in train mode by itself, or
                examples that depend on each other (batch statistics, a sum instead of a mean).
        """
        if self.train_mode:
            return
        piece = self.sample(min(16, max(4, self.examples // 16)))
        with self.arithmetic(), torch.no_grad(), preserved_randomness():
            first, again = (float(self._mean(piece, check=True)[0]) for _ in range(2))
        if modules := training_modules(self.model):
            raise ComputationError(
                "the model is in train mode although it was put in eval mode",
                found=", ".join(modules[:3]),
                do="remove train() from its forward(), or ask for train mode",
            )
        if abs(first - again) > 100 * torch.finfo(self.dtype).eps * max(abs(first), abs(again)):
            raise ComputationError(
                "the loss is not deterministic: the same examples gave two losses",
                found=f"{first:.9g} and {again:.9g} in eval mode",
                do=f"switch off {random_modules(self.model)} while measuring",
            )
        self._check_additive(piece)

    def _check_additive(self, piece: Piece) -> None:
        """The mean of a piece against those of its parts, in float64 (not checked where that fails)."""
        twin = self.in_dtype(torch.float64)
        # Unequal parts, of two examples at least: of one, batch statistics fail instead of differing.
        whole, first = twin.recast(piece), max(min(2, piece.examples - 1), piece.examples // 3)
        parts = [*twin.cut(whole, slice(0, first)), *twin.cut(whole, slice(first, None))]
        try:
            with twin.arithmetic(), torch.no_grad(), preserved_randomness():
                found, *means = (float(twin._mean(part)[0]) for part in (whole, *parts))
        except LandscapeError:
            return
        mean = sum(m * part.terms for m, part in zip(means, parts, strict=True)) / piece.terms
        agrees = abs(found - mean) <= 1e-10 + 1e-6 * max(abs(found), *map(abs, means))
        if not agrees and math.isfinite(found):
            raise ComputationError(
                f"the loss of {piece.examples} examples is not the mean of its parts' losses, "
                f"weighted by {self.loss.counting}",
                found=f"{found:.6g}, and {mean:.6g} from {len(parts)} parts",
                do=coupling_advice(self.model),
            )

    def check_expected(self, loss: float) -> None:
        """Raise a :class:`DataError` if ``expect_loss`` was given and ``loss`` is not it, to 1 %."""
        expected = self.expect_loss
        if expected is not None and not abs(loss - expected) <= 0.01 * abs(expected):
            raise DataError(
                f"the loss is {loss:.6g}, not {expected:.6g} as --expect-loss says",
                do="check data, their preprocessing and order of classes, the loss, and eval or train mode",
            )

    def at(self, path: Path) -> Problem:
        """The same problem at the weights of another checkpoint of this model.

        Raises:
            CheckpointError: it cannot be read, is not trusted, or does not fit the model.
        """

        def read(model: nn.Module) -> CheckpointReference:
            # In the model's own dtypes first, as it was read when this problem was made: what the file
            # holds more precisely is rounded in the same way.
            for tensor, dtype in zip((*model.parameters(), *model.buffers()), self._own_dtypes, strict=True):
                tensor.data = tensor.data.to(dtype)
            return self.reader(path, model)

        return self.rewritten(read)

    def rewritten(self, write: Callable[[nn.Module], CheckpointReference | None]) -> Problem:
        """The same problem at the weights that ``write`` puts into a copy of the model, and says what of."""
        twin, model = copy.copy(self), own_copy(self.model)
        with torch.no_grad():
            twin.checkpoint = write(model)
        twin._twins = {}
        twin._recopy(model, self.device, self.dtype)
        if self.test is not None:
            twin.test = twin._on(self.test.data)
        return twin

    def on_device(self, device: torch.device) -> Problem:
        """The same problem on another device (weights copied)."""
        twin = copy.copy(self)
        twin.device, twin._twins = device, {}
        twin._recopy(self.model, device, self.dtype)
        if self.test is not None:
            twin.test = twin._on(self.test.data)
        return twin

    def _recopy(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        """A copy of ``model`` as one's own."""
        self.model = cast(own_copy(model), device, dtype)
        chosen = dict(self.model.named_parameters())
        tensors = tuple(chosen[name] for name in self.selection.layout.names)
        self.selection = replace(self.selection, tensors=tensors)

    def drop_twins(self) -> None:
        """Let go of what :meth:`in_dtype` keeps."""
        self._twins.clear()

    def in_dtype(self, dtype: torch.dtype) -> Problem:
        """The same problem in another arithmetic, on the same data (weights copied, once)."""
        if self.dtype == dtype:
            return self
        if dtype not in self._twins:
            twin = copy.copy(self)
            twin.dtype, twin._twins = dtype, {}
            twin._recopy(self.model, self.device, dtype)
            self._twins[dtype] = twin
        return self._twins[dtype]
