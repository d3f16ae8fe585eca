"""From what a file holds to the one state dict that is meant. Tensors and :class:`TensorInfo` alike."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.checkpoint.pickles import Made, TensorInfo
from landscape.checkpoint.text import listing, shown
from landscape.errors import CheckpointError

__all__ = ["Candidate", "Facts", "candidates", "choose", "common_prefix", "facts", "other_entries"]

#: What training code calls the weights, in any order: two of them in one file are ambiguous.
_PLAIN_TEXT = "state_dict model_state_dict model_state model module net network weights params model_weights"
_PLAIN = frozenset(_PLAIN_TEXT.split())
_EMA = frozenset(["ema", "averaged", "swa", "polyak", "shadow"])
#: Parts of a training state that hold tensors but no weights.
_NOT_WEIGHTS = re.compile(
    r"(^|_)(optim(izers?)?|optimizer_states?|opt|sched(ulers?)?|lr_schedulers?|scaler|amp|rng|callbacks|loops|"
    r"hyper_parameters|hparams|extra_state|buffers_only|args|config)(_|$)"
)
#: Prefixes that wrappers add: DistributedDataParallel, torch.compile, LightningModule.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_DEPTH = 4
_MOST_MODULES, _DEEPEST_MODULE = 20_000, 50


@dataclass(frozen=True)
class Candidate:
    """A state dict in a file: its ``key`` (a dotted path, "." for the file itself) and its tensors."""

    key: str
    tensors: Mapping[str, Any]
    others: tuple[str, ...] = ()

    @property
    def is_average(self) -> bool:
        """Whether the key says that these are averaged (EMA, SWA) weights."""
        return any(set(re.split(r"[_\-]", part.lower())) & _EMA for part in self.key.split("."))

    @property
    def is_weights(self) -> bool:
        """Whether no part of the key says optimizer, scheduler or the like."""
        return not any(_NOT_WEIGHTS.search(part.lower()) for part in self.key.split("."))

    @property
    def rank(self) -> tuple[int, int]:
        """Lower is preferred: the usual names, the file itself, other names, averages; then less nesting."""
        depth = self.key.count(".")
        if self.is_average:
            return 3, depth
        if self.key == ".":
            return 1, 0
        return (0 if self.key.rpartition(".")[2] in _PLAIN else 2), depth


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor | TensorInfo)


def candidates(content: Any) -> tuple[Candidate, ...]:
    """All state dicts in ``content``, in order of appearance; one that occurs twice counts at the first."""
    return tuple(_walk(content, (), set()))


def _walk(value: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[Candidate]:
    # A file may hold an object in many places, or inside itself.
    if id(value) in seen or len(path) > _DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    elif isinstance(value, Made):
        value = _module_entries(value, [_MOST_MODULES])
    if isinstance(value, list | tuple):
        value = {str(i): item for i, item in enumerate(value[:16]) if not _is_tensor(item)}
    if not isinstance(value, Mapping):
        return
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and _is_tensor(v)}
    inner = [
        candidate
        for key, item in value.items()
        if isinstance(key, str) and not _is_tensor(item) and not key.endswith("_extra_state")
        for candidate in _walk(item, (*path, key), seen)
    ]
    # A lone loss or metric beside the real state dicts is no state dict.
    if tensors and not (inner and all(len(t.shape) == 0 for t in tensors.values())):
        others = tuple(k for k, v in value.items() if isinstance(k, str) and not _is_tensor(v))
        yield Candidate(".".join(path) or ".", tensors, others)
    yield from inner


def _module_entries(made: Made, budget: list[int], depth: int = 0) -> dict[str, Any]:
    """The tensors of a pickled ``torch.nn.Module`` (or of a TorchScript object) by dotted name.

    ``budget`` holds how many modules may still be entered: a small file can nest one in itself endlessly.
    """
    state = made.state
    if not isinstance(state, Mapping) or budget[0] == 0 or depth > _DEEPEST_MODULE:
        return {}
    budget[0] -= 1
    found: dict[str, Any] = {}
    pools = [state.get(part) for part in ("_parameters", "_buffers", "_modules")]
    if not any(isinstance(pool, Mapping) for pool in pools):
        pools = [state]
    for pool in pools:
        for key, value in pool.items() if isinstance(pool, Mapping) else ():
            if _is_tensor(value):
                found[str(key)] = value
            elif isinstance(value, Made):
                inner = _module_entries(value, budget, depth + 1)
                found |= {f"{key}.{name}": tensor for name, tensor in inner.items()}
    return found


def choose(found: tuple[Candidate, ...], state_key: str | None, path: object) -> tuple[Candidate, list[str]]:
    """The state dict that is meant, and notes about what was chosen among what.

    Raises:
        CheckpointError: there is none, ``state_key`` names none, or several are as likely.
    """
    if state_key is not None:
        return _named(found, state_key, path), []
    likely = [c for c in found if c.is_weights]
    if not likely:
        raise CheckpointError(
            f"{shown(path)} holds no state dict",
            found=f"only under {listing(c.key for c in found)}" if found else "no tensors with names",
            do="save model.state_dict() with torch.save"
            + (", or name one with --state-key" if found else ""),
        )
    best = min(c.rank for c in likely)
    first, *more = [c for c in likely if c.rank == best]
    if more:
        raise CheckpointError(
            f"{shown(path)} holds several state dicts",
            found=", ".join(f"{shown(c.key)} ({len(c.tensors)} tensors)" for c in likely[:8]),
            do=f"choose one with --state-key, such as --state-key {shown(first.key)}",
        )
    others = [c.key for c in likely if c is not first]
    notes = []
    if others:
        averaged = " (averaged weights)" if any(c.is_average for c in likely if c is not first) else ""
        notes.append(
            f"weights read from {_label(first)}; also there: {listing(others)}{averaged}: --state-key"
        )
    elif first.key != ".":
        notes.append(f"weights read from {_label(first)}")
    return first, notes


def _label(candidate: Candidate) -> str:
    name = "the file's top level" if candidate.key == "." else f"“{shown(candidate.key)}”"
    return name + (" (averaged weights)" if candidate.is_average else "")


def _named(found: tuple[Candidate, ...], state_key: str, path: object) -> Candidate:
    for candidate in found:
        if candidate.key == (state_key or "."):
            return candidate
    keys = [c.key for c in found]
    close = get_close_matches(state_key, keys, n=1)
    raise CheckpointError(
        f"{shown(path)} holds no state dict under --state-key {shown(state_key)}",
        found=listing(keys, 8) if keys else "no state dict at all",
        do=f"did you mean --state-key {shown(close[0])}?" if close else "",
    )


def common_prefix(names: Iterable[str]) -> str:
    """The wrappers' prefixes (``module.``, ``_orig_mod.``, ``model.``, also nested) that every name has."""
    left, prefix = list(names), ""
    while left:
        found = next((p for p in _PREFIXES if all(n.startswith(p) and n != p for n in left)), None)
        if found is None:
            break
        left, prefix = [n[len(found) :] for n in left], prefix + found
    return prefix


@dataclass(frozen=True)
class Facts:
    """What a file says about the training it comes from."""

    step: int | None
    epoch: int | None
    metadata: dict[str, bool | int | float | str]


_STEPS_TEXT = (
    "step global_step iteration iter iter_num num_updates train_step steps global_iter current_step it"
)
_STEPS = _STEPS_TEXT.split()
_EPOCHS = ["epoch", "current_epoch", "epochs_trained"]
#: Entries one level down that describe the run.
_NESTED_TEXT = "meta metadata hyper_parameters hparams args config train_state training_state trainer_state"
_NESTED = _NESTED_TEXT.split()
_RATES = ["learning_rate", "lr", "base_lr"]
_COUNTERS = frozenset([*_STEPS, *_EPOCHS, *_RATES])
_MOST_METADATA = 200


def facts(content: Any) -> Facts:
    """Step, epoch and plain values found at the usual places of ``content``."""
    if not isinstance(content, Mapping):
        return Facts(None, None, {})
    top = dict(_scalars(content))
    nested: dict[str, Any] = {}
    for name in _NESTED:
        inner = content.get(name)
        inner = inner.state if isinstance(inner, Made) else inner
        inner = vars(inner) if isinstance(inner, Namespace) else inner
        if isinstance(inner, Mapping):
            nested |= {key: value for key, value in _scalars(inner) if key not in nested}
    values = nested | top
    step, epoch = _whole(values, _STEPS), _whole(values, _EPOCHS)
    rate = next((values[k] for k in _RATES if isinstance(values.get(k), float)), None)
    rate = rate if rate is not None else _optimizer_rate(content)
    if rate is not None:
        values = {"learning_rate": rate} | {k: v for k, v in values.items() if k != "learning_rate"}
    dropped = {"step", "epoch"} | ({"format", "format_version"} if "format" in top else set())
    kept = {k: v for k, v in values.items() if k not in dropped}
    return Facts(step, epoch, dict(list(kept.items())[:_MOST_METADATA]))


def _scalars(values: Mapping[Any, Any]) -> Iterator[tuple[str, bool | int | float | str]]:
    for key, value in values.items():
        if isinstance(value, np.generic) or (key in _COUNTERS and _is_number(value)):
            value = value.item()
        short = len(value) <= 500 if isinstance(value, str) else isinstance(value, float) or _is_small(value)
        if isinstance(key, str) and short:
            yield key, value


def _is_small(value: object) -> bool:
    """Whether ``value`` is an integer (or bool) of 64 bits."""
    return isinstance(value, int) and value.bit_length() <= 64


def _is_number(value: object) -> bool:
    """Whether ``value`` is a tensor of one real number."""
    return isinstance(value, Tensor) and value.ndim == 0 and not value.is_meta and not value.is_complex()


def _whole(values: Mapping[str, Any], names: list[str]) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
            return int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1 >= 0:
            return int(value)
    return None


def _optimizer_rate(content: Mapping[Any, Any]) -> float | None:
    """The learning rate of an optimizer's state, if all its parameter groups have the same."""
    for key in ("optimizer", "optimizer_state_dict", "optim", "optimizer_state", "optimizer_states"):
        state = content.get(key)
        state = state[0] if isinstance(state, list) and state else state
        groups = state.get("param_groups") if isinstance(state, Mapping) else None
        if isinstance(groups, list):
            rates = {dict(_scalars(g)).get("lr") for g in groups if isinstance(g, Mapping)}
            rate = rates.pop() if len(rates) == 1 else None
            if isinstance(rate, float):
                return rate
    return None


def other_entries(content: Any, chosen: Iterable[Candidate]) -> tuple[str, ...]:
    """Names at the top level of a file that are none of its state dicts."""
    if not isinstance(content, Mapping):
        return ()
    taken = {c.key.partition(".")[0] for c in chosen}
    top = next((set(c.tensors) for c in chosen if c.key == "."), set())
    return tuple(str(k) for k in content if isinstance(k, str) and k not in taken and k not in top)
