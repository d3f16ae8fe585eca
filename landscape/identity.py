"""What makes a run this run: the hash of what was measured, with which settings, from which seed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from landscape.errors import LandscapeError
from landscape.settings import options_of

if TYPE_CHECKING:
    from torch import nn

    from landscape.problem import Problem

__all__ = ["family", "recipe", "run_id", "subject", "versions", "weights_hash"]

#: Spread of the weights at which the functions of two models are compared.
_SPREAD = 0.1


def run_id(kind: str, of: str, settings: Any, seed: int | None, about: Any = None) -> str:
    """The name of a run: its kind, what is measured (:func:`subject`), settings and, if given, the seed.

    ``about`` is whatever else makes it this run: the contents of files that settings name.
    """
    identity = {"kind": kind, "subject": of, "settings": _identity(settings), "seed": seed}
    if about is not None:
        identity["about"] = about
    return f"{kind}-{_digest(identity)[:8]}"


def subject(problem: Problem) -> str:
    """SHA-256 of what is measured: weights, function, data and problem, whatever is asked about it."""
    return _digest(
        {
            "checkpoint": problem.checkpoint.sha256 if problem.checkpoint else None,
            "weights": weights_hash(problem),
            "function": _function(problem),
            "data": problem.data.fingerprint,
            "problem": problem.description,
            "parameters": [list(problem.selection.layout.names), problem.size],
            "dtype": str(problem.dtype),
        }
    )


def family(problem: Problem) -> str:
    """SHA-256 of what all checkpoints of one model on one data set share: everything but the weights.

    The model's code is known by what it computes at weights that are always the same.
    """
    return _digest(
        {
            "function": _function(problem.rewritten(_write_fixed)),
            "data": problem.data.fingerprint,
            "problem": problem.description,
            "parameters": [list(problem.selection.layout.names), problem.size],
            "dtype": str(problem.dtype),
        }
    )


def recipe(kind: str, of: str, checkpoint: str, settings: Any, seed: int | None, about: Any = None) -> str:
    """What a run is known by before its model is loaded: a :func:`family`, a file's SHA-256, settings, seed.

    ``about`` is as for :func:`run_id`. Two runs of one recipe are of one :func:`run_id`; the reverse need not
    hold, since a model may have been written in other words.
    """
    known = {"kind": kind, "family": of, "checkpoint": checkpoint, "settings": _identity(settings)}
    return _digest({**known, "seed": seed, "about": about})


def _write_fixed(model: nn.Module) -> None:
    """Weights that depend on nothing but their order; buffers, which may be variances, between ½ and 1½."""
    import torch

    drawn = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.copy_(_SPREAD * torch.randn(parameter.shape, generator=drawn))
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=drawn))


def _digest(identity: Any) -> str:
    from landscape.results import jsonable

    return hashlib.sha256(json.dumps(jsonable(identity), sort_keys=True).encode()).hexdigest()


def _identity(settings: Any) -> dict[str, Any]:
    return {o.name: getattr(settings, o.name) for o in options_of(type(settings)) if o.identity}


def weights_hash(problem: Problem) -> str:
    """Of all that the model holds: frozen parameters and buffers change the loss, too."""
    import torch

    total = hashlib.sha256()
    for name, tensor in (*problem.model.named_parameters(), *problem.model.named_buffers()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _function(problem: Problem) -> list[str]:
    """Loss and gradient norm on a few examples: they tell models and losses of the same name apart.

    In float64 and to six digits, so that threads and devices make no difference. Where the model does not
    run in float64, in its own arithmetic and to three.
    """
    import torch

    from landscape.machine import preserved_randomness
    from landscape.sam.passes import loss_and_gradient, norm

    for dtype, digits in ((torch.float64, 6), (problem.dtype, 3)):
        with contextlib.suppress(RuntimeError, LandscapeError), preserved_randomness():
            twin = problem.in_dtype(dtype)
            piece = next(iter(twin.pieces(1)), None)
            if piece is None:
                break
            loss, gradient = loss_and_gradient(twin, [piece])
            share = twin.share(piece)
            return [f"{value / share:.{digits}g}" for value in (loss, norm(gradient))]
    return []  # what is wrong will be said when the work begins


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = {"python": platform.python_version()}
    for name in ("landscape-diagnostics", "torch", "numpy", "scipy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return tuple(found.items())


def versions() -> dict[str, str]:
    """What computed it."""
    return dict(_versions())
