"""A copy of a model whose weights lie in one block of memory, written afresh from a centre and directions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from landscape.models import own_copy
from landscape.problem import Problem

__all__ = ["Weights"]

#: Bytes at whose multiples parameters begin: vector units are slower on others.
_ALIGNED = 64


class Weights:
    """A copy of a problem's model whose measured parameters lie in one block of memory.

    Attributes:
        problem: the problem with that model in its place.
        at: the block (m,), parameters in their order, each beginning at a multiple of 64 bytes.
        centre: the block as it was.
    """

    def __init__(self, problem: Problem, directions: Tensor) -> None:
        self.problem = copy.copy(problem)
        self.problem._twins = {}
        model = self.problem.model = own_copy(problem.model)
        named = dict(model.named_parameters())
        tensors = tuple(named[name] for name in problem.selection.layout.names)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in tensors:
            parameter.requires_grad_(True)
        self.problem.selection = replace(problem.selection, tensors=tensors)
        self._slices = list(self._padded(problem))
        size = self._slices[-1].stop
        self.at = torch.zeros(size, dtype=problem.dtype, device=problem.device)
        for parameter, where in zip(tensors, self._slices, strict=True):
            view = self.at[where][: parameter.numel()].view(parameter.shape)
            view.copy_(parameter.detach())
            parameter.data = view
        self.centre = self.at.clone()
        self.directions = [self.block(direction) for direction in directions]
        self._base = self.centre
        self._first: float | None = None

    def _padded(self, problem: Problem) -> Iterator[slice]:
        step, first = _ALIGNED // torch.empty((), dtype=problem.dtype).element_size(), 0
        for shape in problem.selection.layout.shapes:
            size = -(-max(1, shape.numel()) // step) * step
            yield slice(first, first + size)
            first += size

    def block(self, flat: Tensor) -> Tensor:
        """A flat vector (n,) laid out as the block (m,)."""
        found = torch.zeros_like(self.at)
        for part, where in zip(self.problem.selection.layout.split(flat), self._slices, strict=True):
            found[where][: part.numel()].copy_(part.reshape(-1))
        return found

    def move(self, coordinates: Sequence[float]) -> None:
        """Write w + Σ cᵢ dᵢ into the model, from w and the directions, in the order of the axes."""
        first, *rest = coordinates
        if not rest:
            torch.add(self.centre, self.directions[0], alpha=first, out=self.at)
            return
        if self._first != first:  # of a row of points, once
            self._base = torch.add(self.centre, self.directions[0], alpha=first)
            self._first = first
        torch.add(self._base, self.directions[1], alpha=rest[0], out=self.at)

    def named(self, blocks: Tensor) -> dict[str, Tensor]:
        """Blocks (k, m) as parameters by name, each (k, …)."""
        layout = self.problem.selection.layout
        parts = zip(layout.names, layout.shapes, self._slices, strict=True)
        return {
            name: blocks[:, where][:, : shape.numel()].reshape(len(blocks), *shape)
            for name, shape, where in parts
        }

    def put(self, flat: Tensor) -> None:
        """Write other weights (n,) into the model."""
        self.at.copy_(self.block(flat))
