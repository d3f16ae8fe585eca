"""Other checkpoints of the same model: their weights, and whatever else they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from landscape.models import own_copy
from landscape.problem import Problem
from landscape.results import CheckpointReference

__all__ = ["Other", "read_other"]


@dataclass(frozen=True)
class Other:
    """Another checkpoint of a problem's model.

    Attributes:
        reference: which file, by content.
        weights: (n,) of the measured parameters, in the problem's dtype and place.
        rest: buffers, and parameters that are not measured, by name.
    """

    reference: CheckpointReference
    weights: Tensor
    rest: Mapping[str, Tensor]


def read_other(problem: Problem, path: Path) -> Other:
    """Read a checkpoint with the options that the problem's own was read with.

    Raises:
        CheckpointError: it cannot be read, is not trusted, or does not fit the model.
    """
    model = own_copy(problem.model)
    with torch.no_grad():
        reference = problem.reader(path, model)
    named = dict(model.named_parameters())
    chosen = problem.selection.layout.names
    weights = torch.cat([named.pop(name).detach().reshape(-1) for name in chosen])
    return Other(reference, weights, {n: t.detach() for n, t in (*named.items(), *model.named_buffers())})
