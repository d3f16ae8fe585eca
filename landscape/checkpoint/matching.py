"""A checkpoint's tensors into a model that the caller owns: all of them, or an error that says which not."""

from __future__ import annotations

import re
import shlex
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from landscape.checkpoint.reading import Checkpoint
from landscape.checkpoint.text import plural, shown
from landscape.checkpoint.unwrap import common_prefix
from landscape.errors import CheckpointError

__all__ = ["load_into"]

_SHOWN = 3


def load_into(model: torch.nn.Module, checkpoint: Checkpoint, ignore_keys: Sequence[str] = ()) -> None:
    """Copy the checkpoint's tensors into ``model``'s parameters and buffers, in the model's dtypes, in place.

    Every key of the model must be in the file and the other way round, in the same shape. Wrappers' prefixes
    do not count, nor what files of a transformers model may call otherwise. A tied parameter may be stored
    once or under each of its names. BatchNorm's ``num_batches_tracked``, which older files lack, may be
    missing. Nothing is copied when anything is wrong.

    Args:
        ignore_keys: patterns (``*``, ``?``, ``[…]``) of keys in the file that the model need not have.

    Raises:
        CheckpointError: keys missing, unexpected, misshapen, of another kind, or unequal though tied.
    """
    wanted: dict[str, Any] = {
        n: t for n, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)
    }
    given = _kept(checkpoint, ignore_keys)
    given, model_prefix = _renamed(model, given, wanted), ""
    if not set(given) <= set(wanted):  # else they are the model's own: "model." need not be a wrapper's
        given, model_prefix = _unwrapped(given), common_prefix(wanted)
    short = {name.removeprefix(model_prefix): tensor for name, tensor in wanted.items()}
    problems = _Problems(short, given)
    state = _with_ties(short, given)
    for name, tensor in short.items():
        if name not in state:
            if not name.endswith("num_batches_tracked"):
                problems.missing.append(name)
        elif why := _misfit(state[name], tensor):
            problems.misshapen.append(f"{shown(name)} ({why})")
    problems.unexpected = [name for name in given if name not in short]
    problems.untied = _untied(short, given)
    problems.raise_for(checkpoint)
    _copy(model, {model_prefix + name: state[name] for name in short if name in state}, checkpoint)


def _kept(checkpoint: Checkpoint, ignore_keys: Sequence[str]) -> dict[str, Tensor]:
    """The checkpoint's tensors that are not ignored, under their full names."""
    return {
        checkpoint.prefix + name: tensor
        for name, tensor in checkpoint.state.items()
        if not any(fnmatchcase(n, p) for p in ignore_keys for n in (name, checkpoint.prefix + name))
    }


def _unwrapped(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``given`` without the prefix that all names have, also one that only ignored keys lacked."""
    prefix = common_prefix(given)
    return {name.removeprefix(prefix): tensor for name, tensor in given.items()}


def _renamed(
    model: torch.nn.Module, given: Mapping[str, Tensor], wanted: Mapping[str, Any]
) -> dict[str, Tensor]:
    """``given`` as a model of the transformers library calls it; of any other model, as it is.

    Files may hold the inner model's names without the attribute that holds it (``base_model_prefix``), and
    stale buffers that the library leaves out (``_keys_to_ignore_on_load_unexpected``).
    """
    base = getattr(model, "base_model_prefix", None)
    if not isinstance(base, str):
        return dict(given)
    stale = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    names = {name: f"{base}.{name}" for name in given if name not in wanted and f"{base}.{name}" in wanted}
    return {
        names.get(name, name): tensor
        for name, tensor in given.items()
        if name in wanted or name in names or not any(re.search(pattern, name) for pattern in stale)
    }


def _ties(tensors: Mapping[str, Any]) -> list[list[str]]:
    """Names that share one tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _with_ties(wanted: Mapping[str, Any], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``given``, with tied names that the file stores once filled in."""
    state = dict(given)
    for names in _ties(wanted):
        stored = next((given[name] for name in names if name in given), None)
        if stored is not None:
            state |= {name: stored for name in names if name not in given}
    return state


def _untied(wanted: Mapping[str, Any], given: Mapping[str, Tensor]) -> list[str]:
    """Names that the model ties, but the file holds with different numbers."""
    found = []
    for names in _ties(wanted):
        stored = [name for name in names if name in given]
        first = given[stored[0]] if stored else None
        found += [
            f"{shown(stored[0])} and {shown(name)}"
            for name in stored[1:]
            if first is not None and given[name] is not first and not _same(given[name], first)
        ]
    return found


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.all((a == b) | ((a != a) & (b != b))))


def _misfit(stored: Tensor, wanted: Any) -> str:
    """Why ``stored`` cannot be copied into ``wanted``; "" if it can."""
    if stored.layout != getattr(wanted, "layout", torch.strided) or stored.is_quantized or stored.is_meta:
        kind = (
            "quantized" if stored.is_quantized else "without data" if stored.is_meta else str(stored.layout)
        )
        return f"{kind} in the file"
    if is_lazy(wanted):
        return ""
    if stored.shape != wanted.shape:
        return f"file {_shape(stored)}, model {_shape(wanted)}"
    lossless = stored.dtype == wanted.dtype or _casts(stored, wanted)
    return "" if lossless else f"file {_dtype(stored)}, model {_dtype(wanted)}"


def _casts(stored: Tensor, wanted: Tensor) -> bool:
    """Whether a cast keeps the meaning: packed integers are no weights, imaginary parts are not dropped."""
    if wanted.is_complex():
        return stored.is_complex() or stored.is_floating_point()
    if wanted.is_floating_point():
        return stored.is_floating_point()
    return not stored.is_complex() and bool(torch.equal(stored.to(wanted.dtype).to(stored.dtype), stored))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _copy(model: torch.nn.Module, state: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    ordered: OrderedDict[str, Any] = OrderedDict(state)
    # Without the versions of the model's own modules, torch would take the state for one of an old release.
    ordered._metadata = getattr(model.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    try:
        model.load_state_dict(ordered, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{shown(checkpoint.path)} could not be copied into the model", found=shown(error, 300)
        ) from error


class _Problems:
    """What does not fit, and the error that says so."""

    def __init__(self, wanted: Mapping[str, Any], given: Mapping[str, Tensor]) -> None:
        self.wanted, self.given = wanted, given
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.misshapen: list[str] = []
        self.untied: list[str] = []

    def raise_for(self, checkpoint: Checkpoint) -> None:
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "misshapen": self.misshapen,
            "tied in the model but unequal in the file": self.untied,
        }
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)
        if not counts:
            return
        what = (
            f"{shown(checkpoint.path)} does not fit the model: {counts} of {plural(len(self.wanted), 'key')}"
        )
        raise CheckpointError(what, found="\n".join(self._lines()), do=self._advice())

    def _lines(self) -> list[str]:
        """At most three lines, so that the whole error has five."""
        free_given = [n for n in self.given if n not in self.wanted] or list(self.given)
        free_wanted = self.missing or list(self.wanted)
        lines = []
        if self.missing:
            lines.append("missing " + _with_nearest(self.missing, free_given, "the file has"))
        if self.unexpected:
            lines.append("unexpected " + _with_nearest(self.unexpected, free_wanted, "the model has"))
        rest = [f"misshapen {_head(self.misshapen)}"] if self.misshapen else []
        rest += [f"unequal {_head(self.untied)}"] if self.untied else []
        return [*lines, *(["; ".join(rest)] if rest else [])]

    def _advice(self) -> str:
        if self.unexpected and not (self.missing or self.misshapen or self.untied):
            patterns = _patterns(self.unexpected, self.wanted)
            options = " ".join(f"--ignore-keys {shlex.quote(p)}" for p in patterns)
            return f"{options}   if the model does not need them"
        return "build the model as it was when this file was written (--model), or choose another --state-key"


def _head(items: Sequence[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _with_nearest(names: Sequence[str], pool: Iterable[str], label: str) -> str:
    """``names``, abridged, each with the most similar of ``pool``."""
    known, words = list(pool)[:5000], []
    for name in names[:_SHOWN]:
        close = get_close_matches(name, known, n=1, cutoff=0.6)
        words.append(shown(name) + (f" ({label} {shown(close[0])})" if close else ""))
    rest = len(names) - _SHOWN
    return ", ".join(words) + (f" and {rest} more" if rest > 0 else "")


def _patterns(extra: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """Few patterns that match every name in ``extra`` and none in ``wanted``."""
    left, keep, found = list(extra), list(wanted), []
    while left:
        options = [p for p in _proposals(left[0]) if not any(fnmatchcase(name, p) for name in keep)]
        # `left[0]` itself stays when a name of the model has the same letters.
        best = max(
            options, key=lambda p: sum(fnmatchcase(name, p) for name in left), default=_literal(left[0])
        )
        found.append(best)
        left = [name for name in left[1:] if not fnmatchcase(name, best)]
    return found


def _proposals(name: str) -> list[str]:
    """The name itself, all names that end like it, and all below each of its parents; exact first."""
    parts = name.split(".")
    parents = [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]
    ending = [f"*.{_literal(parts[-1])}"] if len(parts) > 1 else []
    return [_literal(name), *ending, *(f"{_literal(parent)}.*" for parent in parents)]


def _literal(name: str) -> str:
    """A pattern for ``name``: wildcards taken literally, and ``?`` for what cannot be typed."""
    return "".join(f"[{c}]" if c in "*?[" else c if c.isprintable() else "?" for c in name)
