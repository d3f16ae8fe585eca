"""The user's model: a copy of it, in one dtype and place; called, and its errors said in words."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.overrides import TorchFunctionMode

from landscape.data import Batch, tensors_in
from landscape.errors import ConfigurationError, DataError
from landscape.machine import brief, is_out_of_memory, preserved_randomness

__all__ = [
    "adapt_library_model",
    "call_model",
    "cast",
    "coupling_advice",
    "explained",
    "frozen_statistics",
    "own_copy",
    "random_modules",
    "training_modules",
]


def own_copy(model: nn.Module) -> nn.Module:
    """A copy without gradients, out of its ``torch.compile`` or data-parallel wrapper.

    Raises:
        ConfigurationError: the model cannot be copied, or has complex parameters to train.
    """
    if any(p.is_complex() and p.requires_grad for p in model.parameters()):
        raise ConfigurationError(
            "complex parameters have no real Hessian", do="freeze them, or hold them as pairs of real numbers"
        )
    inner = getattr(model, "_orig_mod", model)  # a compiled forward has no second derivative
    if isinstance(inner, DataParallel | DistributedDataParallel):
        inner = inner.module
    try:
        # Copied in inference mode, the weights could not be differentiated afterwards.
        with torch.inference_mode(False), torch.enable_grad():
            own: nn.Module = copy.deepcopy(inner)
            if any(p.is_inference() for p in own.parameters()):
                own._apply(lambda tensor: tensor.clone())  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ConfigurationError(
            "the model cannot be copied, and landscape does not work on yours itself",
            found=brief(error),
            do="remove what deepcopy cannot copy (old weight_norm: use torch.nn.utils.parametrizations)",
        ) from error
    for parameter in own.parameters():
        parameter.grad = None
    return own


def cast(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """``model``, in place, on ``device`` and in ``dtype``; complex buffers in the complex one of its size."""

    def move(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, dtype.to_complex())
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    with torch.inference_mode(False), torch.no_grad():
        model._apply(move)  # type: ignore[no-untyped-call]
    return model


def adapt_library_model(model: nn.Module, *, logits: bool) -> None:
    """Let a model of the transformers library, or around one, give what is measured; others stay as they are.

    In float64 all of it is computed so, where the library's norms and the like go through float32. With
    ``logits`` it returns its logits alone, which is what torch's losses take.
    """
    if not any(type(module).__module__.startswith("transformers.") for module in model.modules()):
        return
    precision = _Precision()
    model.register_forward_pre_hook(precision.enter)
    model.register_forward_hook(precision.leave, always_call=True)
    if logits:
        model.register_forward_hook(_logits_of)


class _Precision:
    """Hooks that a model's forward runs between: in float64, what asks for float32 gets float64."""

    def __init__(self) -> None:
        self._entered: list[contextlib.ExitStack] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        own = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
        self._entered.append(contextlib.ExitStack())
        if own == torch.float64:
            self._entered[-1].enter_context(_Wide())

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._entered.pop().close()


class _Wide(TorchFunctionMode):
    """torch's functions with float64 wherever float32 is asked for by name."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        named = {name: _widened(value) for name, value in (kwargs or {}).items()}
        return func(*map(_widened, args), **named)


def _widened(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _logits_of(module: nn.Module, inputs: Any, output: Any) -> Any:
    """The logits of what the transformers library returns (a ModelOutput); any other output as it is.

    Raises:
        ConfigurationError: there are none.
    """
    if not (isinstance(output, Mapping) and hasattr(output, "to_tuple")):
        return output
    logits = output.get("logits")
    if not isinstance(logits, Tensor):
        raise ConfigurationError(
            f"{type(module).__name__} returns no logits, which this loss is of",
            found=", ".join(map(str, output)) or "nothing",
            do="take a model with a head (…ForCausalLM, …ForSequenceClassification), or a loss(model, batch)",
        )
    return logits


def call_model(model: nn.Module, inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Any:
    """A model on a batch's inputs: positional for a tuple, by keyword for a mapping.

    ``weights`` are used in place of the parameters they name; the model is not changed.
    """
    args: tuple[Any, ...] = (inputs,)
    named: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        args, named = (), dict(inputs)
    elif isinstance(inputs, tuple | list):
        args = tuple(inputs)
    return model(*args, **named) if weights is None else functional_call(model, dict(weights), args, named)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """In train mode: dropout drawn from a fixed seed, running statistics changed on copies only."""
    owners = [(module._buffers, name) for module in model.modules() for name in module._buffers]
    before = [owner[name] for owner, name in owners]
    with preserved_randomness():
        torch.manual_seed(0)
        try:
            for (owner, name), buffer in zip(owners, before, strict=True):
                owner[name] = None if buffer is None else buffer.clone()
            yield
        finally:
            for (owner, name), buffer in zip(owners, before, strict=True):
                owner[name] = buffer


def explained(error: Exception, batch: Batch) -> Exception:
    """A user's error out of the model's or the loss's own; running out of memory stays what it is."""
    if is_out_of_memory(error):
        return error
    tensors, text = tensors_in(batch), str(error)
    shapes = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors]
    kinds = any(word in text for word in ("dtype", "scalar type", "Input type"))
    if tensors and not tensors[0].is_floating_point() and kinds:
        return DataError(
            "the model could not take the inputs: they are integers",
            found=f"inputs {shapes[0]}; {brief(error)}",
            do="give the data as floats, for example x.float() / 255",
        )
    if isinstance(error, IndexError) and "out of bounds" in text:
        return DataError("labels are out of range of the model's outputs", found=brief(error))
    return DataError(
        "the model or the loss failed on a batch",
        found=f"{brief(error)}; batch tensors {', '.join(shapes)}",
        do="check that model, data and loss belong together; --debug shows where it failed",
    )


def training_modules(model: nn.Module) -> list[str]:
    """Names of the modules that are in train mode."""
    return [name or type(model).__name__ for name, module in model.named_modules() if module.training]


def random_modules(model: nn.Module) -> str:
    """What in the model may be random, by name."""
    kinds = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.MultiheadAttention, nn.RNNBase)
    named = [f"{name} ({type(m).__name__})" for name, m in model.named_modules() if isinstance(m, kinds)]
    return "what is random in forward()" + (f", perhaps {', '.join(named[:3])}" if named else "")


def coupling_advice(model: nn.Module) -> str:
    """What to do about examples that depend on each other."""
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    if layers:
        return f"batch statistics in {', '.join(layers[:3])}: track_running_stats=True, or ask for train mode"
    return "return a mean over examples, or a Problem(…, count=…) from --problem, or ask for train mode"
