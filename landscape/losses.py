"""Losses, and how many terms each one's mean is over.

A data set's loss is the mean over all its terms, so the mean of a batch must be weighted by how many terms
it is over: examples for class labels, elements for regression, unmasked tokens for language. Averages of
batch means are wrong as soon as one batch has another number of terms.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from landscape.errors import ConfigurationError, DataError

__all__ = ["NAMES", "Loss", "call_whole", "label_hits", "resolve_loss"]


#: The loss of the next token.
CAUSAL = "causal_lm"
#: The label of what does not count, torch's and the transformers library's.
_IGNORED = nn.CrossEntropyLoss().ignore_index
#: float32 numbers in a wide vector unit.
_LANES = 16


@dataclass(frozen=True)
class Loss:
    """A loss that knows its terms.

    Attributes:
        name: how it is reported.
        mean: ``(outputs, targets) -> scalar`` or, if ``whole``, ``(model, batch) -> scalar``.
        terms: ``targets -> number`` (``batch -> number`` if ``whole``): what the mean is over; None if it is
            the number of examples.
        counting: the same in words.
        each: ``(outputs, targets) -> (sums, terms)`` per example, both (batch,), where it is known.
        sums: the first of both alone.
        classes: the targets are class labels, so that accuracy means something.
        ignored: the label that marks a term left out.
        shaped: outputs with the classes in dimension 1.
        check: raises a DataError where outputs and targets do not fit; dearer than the loss should be.
        module: the torch loss module that it is, where its terms are known.
        prepare: a batch as it was given to the ``(inputs, targets)`` of the rest; None if it stays as it is.
    """

    name: str
    mean: Callable[..., Tensor]
    counting: str = "examples"
    terms: Callable[[Any], float] | None = None
    each: Callable[[Any, Any], tuple[Tensor, Tensor]] | None = None
    sums: Callable[[Any, Any], Tensor] | None = None
    whole: bool = False
    classes: bool = False
    ignored: int | None = None
    shaped: Callable[[Tensor, Tensor], Tensor] = lambda outputs, targets: outputs
    check: Callable[[Tensor, Tensor], None] | None = None
    module: nn.Module | None = None
    prepare: Callable[[Any], Any] | None = None


def resolve_loss(
    loss: str | nn.Module | Callable[..., Tensor], count: Callable[[Any], float] | None = None
) -> Loss:
    """A :class:`Loss` from a name, a torch loss module, or a callable that returns a mean.

    ``count(batch)`` gives the number of terms for callables; without it, it is the number of examples.
    A callable whose first parameter is called ``model`` is called as ``loss(model, batch)``.

    Raises:
        ConfigurationError: an unknown name, or a module whose reduction is not a mean.
    """
    found = _resolved(loss, count)
    if loss == CAUSAL:
        return replace(found, name=CAUSAL, counting="next tokens that are not masked", prepare=_next_tokens)
    return found if found.whole else replace(found, prepare=_paired)


def _resolved(loss: str | nn.Module | Callable[..., Tensor], count: Callable[[Any], float] | None) -> Loss:
    if isinstance(loss, str):
        if loss not in NAMES:
            raise ConfigurationError(
                f"no loss is called {loss!r}", do=f"choose one of {', '.join(NAMES)}, or pass a callable"
            )
        loss = NAMES[loss]()
    elif count is None and isinstance(loss, Hashable) and loss in _FUNCTIONS:
        loss = _FUNCTIONS[loss]()
    elif not callable(loss):
        raise ConfigurationError(
            "the loss must be a name, a torch loss or a callable", found=type(loss).__name__
        )
    module = _from_module(loss) if isinstance(loss, nn.Module) and count is None else None
    return module or _from_callable(loss, count)


def _from_callable(loss: Callable[..., Tensor], count: Callable[[Any], float] | None) -> Loss:
    name = getattr(loss, "__name__", type(loss).__name__)
    called = loss.forward if isinstance(loss, nn.Module) else loss
    counting = "count(batch)" if count else "examples"
    try:
        first = next(iter(inspect.signature(called).parameters), "")
    except (TypeError, ValueError):
        first = ""
    whole = first == "model"
    if isinstance(loss, nn.Module) and not whole:
        loss = _Placed(loss)
    terms = count if whole or count is None else (lambda targets: count((None, targets)))
    return Loss(name, loss, counting=counting, terms=terms, whole=whole)


class _Whole(nn.Module):
    """A ``loss(model, batch)`` and its model as one module, so that it can be called with other weights."""

    def __init__(self, loss: Callable[..., Tensor], model: nn.Module) -> None:
        super().__init__()
        self.model, self._loss = model, [loss]  # in a list: a loss that is a module is none of its parts

    def forward(self, batch: Any) -> Tensor:
        return self._loss[0](self.model, batch)


def call_whole(
    loss: Callable[..., Tensor], model: nn.Module, batch: Any, weights: Mapping[str, Tensor] | None = None
) -> Tensor:
    """A ``loss(model, batch)``, with ``weights`` in place of the parameters they name."""
    if weights is None:
        return loss(model, batch)
    named = {f"model.{name}": weight for name, weight in weights.items()}
    mean: Tensor = functional_call(_Whole(loss, model), named, (batch,))
    return mean


def _paired(batch: Any) -> Any:
    """``(inputs, labels)`` of a mapping that has labels, as data of the transformers library are."""
    if not isinstance(batch, Mapping):
        return batch
    name = next((name for name in ("labels", "label") if name in batch), None)
    return batch if name is None else ({k: v for k, v in batch.items() if k != name}, batch[name])


def _next_tokens(batch: Any) -> tuple[Any, Tensor]:
    """``(inputs, targets)`` for a causal language model: at each place (N, T) the token that comes next.

    ``batch`` holds tokens, alone or with labels: tokens, (tokens,), (tokens, labels), (inputs by name,
    labels) or a mapping. Without labels the tokens are their own. A target is left out (-100) where its label
    is, and where it or the token before it is one that the attention mask hides: padding, on either side,
    adds no terms. After the last token nothing comes.

    Raises:
        DataError: no tokens, labels of another shape, or labels that are shifted already.
    """
    inputs, labels = _tokens_and_labels(batch)
    named = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
    tokens, mask = named.get("input_ids"), named.get("attention_mask")
    labels = _checked(tokens, tokens if labels is None else labels)
    targets = torch.full_like(labels, _IGNORED, dtype=torch.long)
    targets[:, :-1] = labels[:, 1:]
    if isinstance(mask, Tensor) and mask.shape == labels.shape:
        targets[:, :-1].masked_fill_((mask[:, 1:] == 0) | (mask[:, :-1] == 0), _IGNORED)
    if isinstance(tokens, Tensor):
        named["input_ids"] = tokens.long()
    return named if isinstance(inputs, Mapping) else named["input_ids"], targets


def _tokens_and_labels(batch: Any) -> tuple[Any, Any]:
    given = _paired(batch)
    if isinstance(given, Tensor | Mapping):
        return given, None
    if isinstance(given, list | tuple) and len(given) in (1, 2):
        return given[0], given[1] if len(given) == 2 else None
    raise DataError(
        f"{CAUSAL} takes batches of tokens",
        found=f"a {type(batch).__name__}" + (f" of {len(batch)}" if hasattr(batch, "__len__") else ""),
        do="give tokens (N, T), (tokens, labels), or a mapping with input_ids, attention_mask and labels",
    )


def _checked(tokens: Any, labels: Any) -> Tensor:
    """The labels, if they are such of these tokens."""
    shapes = [f"{tuple(t.shape)} {t.dtype}" if isinstance(t, Tensor) else "none" for t in (tokens, labels)]
    if (
        not isinstance(labels, Tensor)
        or labels.ndim != 2
        or labels.is_floating_point()
        or (isinstance(tokens, Tensor) and tokens.shape != labels.shape)
    ):
        raise DataError(
            f"{CAUSAL} takes tokens and labels as integers (N, T), alike in shape",
            found=f"tokens {shapes[0]}, labels {shapes[1]}",
            do="give a label for each token, -100 where it does not count; or none, to take the tokens",
        )
    if tokens is labels or not isinstance(tokens, Tensor):
        return labels
    counted, own, after = labels[:, :-1] != _IGNORED, tokens[:, :-1], tokens[:, 1:]
    there = labels[:, :-1][counted]
    if there.equal(after[counted].to(there)) and not there.equal(own[counted].to(there)):
        raise DataError(
            f"the labels are shifted already, and {CAUSAL} would shift them once more",
            found="each label is the token after its own",
            do="leave the labels (y) out, or use cross_entropy, which shifts nothing",
        )
    return labels


def label_hits(loss: Loss, outputs: Tensor, targets: Tensor) -> tuple[int, int]:
    """(labels predicted right, labels), (0, 0) where the targets are probabilities."""
    if targets.is_floating_point():
        return 0, 0
    predicted = loss.shaped(outputs, targets).argmax(1)
    kept = torch.ones_like(targets, dtype=torch.bool) if loss.ignored is None else targets != loss.ignored
    return int(((predicted == targets) & kept).sum()), int(kept.sum())


class _Placed:
    """A loss module, copied to the device and dtype of the outputs: its class weights must be there, too."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._copies: dict[tuple[torch.device, torch.dtype], nn.Module] = {}

    def __call__(self, outputs: Any, targets: Any) -> Any:
        if not isinstance(outputs, Tensor) or next(self._module.buffers(), None) is None:
            return self._module(outputs, targets)
        place = outputs.device, outputs.dtype
        if place not in self._copies:
            self._copies[place] = copy.deepcopy(self._module).to(*place)
        return self._copies[place](outputs, targets)


def _from_module(loss: nn.Module) -> Loss | None:
    """The torch losses whose terms are known."""
    if not isinstance(loss, (*_ELEMENTWISE, nn.CrossEntropyLoss, nn.NLLLoss)):
        return None
    if loss.reduction != "mean":
        raise ConfigurationError(
            f"the loss must return a mean, {type(loss).__name__} has reduction={loss.reduction!r}",
            do="use reduction='mean'",
        )
    single = copy.copy(loss)
    single.reduction = "none"
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return _labelled(loss, single)
    return _elementwise(loss, single)


_ELEMENTWISE = (
    nn.MSELoss,
    nn.BCEWithLogitsLoss,
    nn.BCELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
)


def _elementwise(loss: nn.Module, single: nn.Module) -> Loss:
    name, mean, alone = type(loss).__name__, _Placed(loss), _Placed(single)

    def prepared(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape != targets.shape:
            raise DataError(
                "outputs and targets have different shapes",
                found=f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}",
                do="reshape the targets (a silent broadcast would be another loss)",
            )
        return targets.to(outputs.dtype)

    def sums(outputs: Tensor, targets: Tensor) -> Tensor:
        return _summed(alone(outputs, prepared(outputs, targets)))

    def each(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        found = sums(outputs, targets)
        return found, torch.full_like(found, targets[0].numel() if len(targets) else 0)

    return Loss(
        name,
        lambda outputs, targets: mean(outputs, prepared(outputs, targets)),
        counting="elements",
        terms=lambda targets: float(targets.numel()),
        each=each,
        sums=sums,
        module=loss,
    )


def _labelled(loss: nn.CrossEntropyLoss | nn.NLLLoss, single: nn.Module) -> Loss:
    """Class labels with ``ignore_index`` and class weights; the mean is over the labels' weights."""
    name, mean, alone = type(loss).__name__, _Placed(loss), _Placed(single)
    weight, ignored = loss.weight, loss.ignore_index
    if (
        weight is not None
        and isinstance(loss, nn.CrossEntropyLoss)
        and loss.label_smoothing
        and bool((weight == 0).any())
    ):
        raise ConfigurationError(
            "label smoothing with a class weight of zero is no mean over terms",
            found=f"weights {[round(w, 4) for w in weight.tolist()[:8]]}",
            do="leave those examples out by ignore_index, or give the class a small weight",
        )

    def label_weights(targets: Tensor) -> Tensor:
        if _probabilities(targets):  # (batch, classes, …): one term for each position
            return torch.ones_like(targets[:, 0])
        kept = targets != ignored
        if weight is None:
            return kept
        return weight.to(targets.device).double()[targets.long().where(kept, 0)] * kept

    def shaped(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs if _probabilities(targets) else _classes_second(outputs, targets)

    def sums(outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, labels = shaped(outputs, targets), _labels(targets)
        if _across(loss, outputs, labels):
            return _summed(alone(outputs.T[None], labels[None])[0])
        return _summed(alone(outputs, labels))

    def each(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        found = sums(outputs, targets)
        return found, _summed(label_weights(targets).to(found))

    masked = "unmasked labels" if weight is None else "class weights of the unmasked labels"
    return Loss(
        name,
        lambda outputs, targets: mean(shaped(outputs, targets), _labels(targets)),
        counting=masked,
        terms=lambda targets: float(label_weights(targets).sum()),
        each=each,
        sums=sums,
        classes=True,
        ignored=ignored,
        shaped=shaped,
        check=lambda outputs, targets: _check_labels(shaped(outputs, targets), targets, ignored),
        module=loss,
    )


def _summed(values: Tensor) -> Tensor:
    """Over all dimensions but the first."""
    return values if values.ndim == 1 else values.reshape(len(values), -1).sum(1)


def _across(loss: nn.Module, outputs: Tensor, labels: Tensor) -> bool:
    """Whether the softmax is faster with the examples side by side: of fewer classes than a vector unit has
    lanes, the processor takes each example by itself (1797 examples of 10 classes: 275 μs, so 38 μs)."""
    few = outputs.ndim == 2 and outputs.shape[1] < _LANES and outputs.device.type == "cpu"
    return few and labels.ndim == 1 and isinstance(loss, nn.CrossEntropyLoss)


def _labels(targets: Tensor) -> Tensor:
    """Labels as torch's losses want them; probabilities as they are."""
    return targets if targets.is_floating_point() else targets.long()


def _probabilities(targets: Tensor) -> bool:
    """Whether the targets are class probabilities; one float an example is neither these nor labels."""
    if not targets.is_floating_point():
        return False
    if targets.ndim < 2:
        raise DataError(
            "class labels must be integers",
            found=f"targets {tuple(targets.shape)} {str(targets.dtype).removeprefix('torch.')}",
            do="give labels as y.long(), or use mse or bce_with_logits for real targets",
        )
    return True


def _classes_second(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs as torch wants them, (batch, classes, …); language models give (batch, tokens, classes)."""
    if outputs.ndim < 3 or outputs.shape[:1] + outputs.shape[2:] == targets.shape:
        return outputs
    return outputs.movedim(-1, 1) if outputs.shape[:-1] == targets.shape else outputs


def _check_labels(outputs: Tensor, targets: Tensor, ignored: int) -> None:
    """Labels within the classes, which are in dimension 1 of the outputs."""
    if targets.is_floating_point() or outputs.ndim < 2:
        return
    classes, kept = outputs.shape[1], targets[targets != ignored]
    if kept.numel() and (int(kept.min()) < 0 or int(kept.max()) >= classes):
        raise DataError(
            f"labels are out of range: the model has {classes} outputs",
            found=f"labels from {int(kept.min())} to {int(kept.max())}",
            do=f"labels must lie in 0 … {classes - 1} (or be {ignored}, which is left out)",
        )


#: Losses by name, for the command line and ``landscape.toml``.
NAMES: dict[str, Callable[[], nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "mse": nn.MSELoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
    "nll": nn.NLLLoss,
    CAUSAL: nn.CrossEntropyLoss,
}

#: The same as functions of torch, whose terms are then known, too.
_FUNCTIONS: dict[Callable[..., Tensor], Callable[[], nn.Module]] = {
    functional.cross_entropy: nn.CrossEntropyLoss,
    functional.nll_loss: nn.NLLLoss,
    functional.mse_loss: nn.MSELoss,
    functional.l1_loss: nn.L1Loss,
    functional.smooth_l1_loss: nn.SmoothL1Loss,
    functional.huber_loss: nn.HuberLoss,
    functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    functional.binary_cross_entropy: nn.BCELoss,
}
