"""Which parameters are measured, and how they lie in one vector."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError

__all__ = ["Layout", "Selection", "add_scaled", "layers", "select_parameters"]

#: Elements that are converted to float64 at once.
_BLOCK = 1 << 20


def add_scaled(total: Tensor, part: Tensor, share: float) -> None:
    """Add ``share · part`` to the float64 ``total`` of the same shape, in place, in blocks.

    Adding another dtype makes a copy of it in float64 first; of a long vector that is worth avoiding.
    """
    if part.numel() <= _BLOCK or not part.ndim:
        total.add_(part, alpha=share)
        return
    rows = max(1, _BLOCK * len(part) // part.numel())
    for first in range(0, len(part), rows):
        total[first : first + rows].add_(part[first : first + rows], alpha=share)


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameters in a flat vector (n,), in the model's order."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @cached_property
    def _sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    @property
    def size(self) -> int:
        return sum(self._sizes)

    def count(self, names: Sequence[str]) -> int:
        """Number of elements of the named parameters."""
        return sum(
            shape.numel() for name, shape in zip(self.names, self.shapes, strict=True) if name in names
        )

    def split(self, vector: Tensor) -> list[Tensor]:
        """Views of a flat vector (n,), shaped as the parameters."""
        parts = torch.split(vector, self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Each parameter's name and where it lies in the vector."""
        first = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            yield name, slice(first, first + shape.numel())
            first += shape.numel()


@dataclass(frozen=True)
class Selection:
    """The chosen parameters of a model: tied ones once, frozen ones left out, both counted."""

    layout: Layout
    tensors: tuple[nn.Parameter, ...]
    frozen: int
    tied: int
    left_out: int

    def flat(self) -> Tensor:
        """The weights in one vector (n,), detached."""
        return torch.cat([p.detach().reshape(-1) for p in self.tensors])


def layers(layout: Layout) -> dict[str, tuple[str, ...]]:
    """Parameters by the module that owns them (their names up to the last dot), in the model's order.

    A parameter of the model itself, whose name has no dot, is a group of its own.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for name in layout.names:
        owner = name.rpartition(".")[0] or name
        groups[owner] = (*groups.get(owner, ()), name)
    return groups


def select_parameters(model: nn.Module, patterns: Sequence[str] = ()) -> Selection:
    """The trainable parameters of ``model`` whose names match any of ``patterns`` (all without patterns).

    Raises:
        ConfigurationError: nothing to measure, a pattern that matches nothing, complex parameters.
    """
    aliases: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(parameter, []).append(name)
    trainable = {p: names for p, names in aliases.items() if p.requires_grad}
    if not trainable:
        raise ConfigurationError(
            "the model has no trainable parameters",
            found=f"{len(aliases)} parameters, all frozen" if aliases else "no parameters at all",
            do="set requires_grad on those to be measured",
        )
    chosen = [p for p, names in trainable.items() if not patterns or _matches(names, patterns)]
    _check_patterns(patterns, aliases)
    if any(p.is_complex() for p in chosen):
        raise ConfigurationError("complex parameters have no real Hessian", do="leave them out with --params")
    return Selection(
        layout=Layout(tuple(trainable[p][0] for p in chosen), tuple(p.shape for p in chosen)),
        tensors=tuple(chosen),
        frozen=sum(p.numel() for p in aliases if not p.requires_grad),
        tied=sum(p.numel() * (len(names) - 1) for p, names in aliases.items()),
        left_out=sum(p.numel() for p in trainable) - sum(p.numel() for p in chosen),
    )


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _check_patterns(patterns: Sequence[str], aliases: dict[nn.Parameter, list[str]]) -> None:
    every = [name for names in aliases.values() for name in names]
    for pattern in patterns:
        hits = [p for p, names in aliases.items() if _matches(names, [pattern])]
        if not hits:
            near = difflib.get_close_matches(pattern, every, n=3, cutoff=0.4) or every[:3]
            raise ConfigurationError(
                f"--params {pattern!r} matches no parameter", do=f"names here are like {', '.join(near)}"
            )
        if not any(p.requires_grad for p in hits):
            raise ConfigurationError(f"--params {pattern!r} matches frozen parameters only")
