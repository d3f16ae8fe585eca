"""A small problem, checkpoints of it, and its losses computed naively, for the tests of slices."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import vector_to_parameters

from landscape.analyses.base import Saved, Start, State, analysis
from landscape.analyses.slice import Settings
from landscape.problem import Problem
from landscape.results import Result, SliceResult
from tests.run.support import small_problem


def small(**options: Any) -> Problem:
    """A tanh network of 51 parameters on 50 random examples, float64, in pieces of 16."""
    return small_problem(**{"dtype": "float64", "batch_size": 16, **options})


def normalised(seed: int = 0, **options: Any) -> Problem:
    """A network with BatchNorm, its running statistics not those of the data."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    model[1].running_mean.copy_(torch.randn(6, generator=generator))
    model[1].running_var.copy_(torch.rand(6, generator=generator) + 0.5)
    data = torch.Generator().manual_seed(9)
    x, y = torch.randn(40, 4, generator=data), torch.randint(0, 3, (40,), generator=data)
    return Problem(model, "cross_entropy", (x, y), **{"dtype": "float64", "batch_size": 16, **options})


def with_weights(problem: Problem, flat: Tensor) -> nn.Module:
    """A copy of the problem's model with other weights."""
    model = copy.deepcopy(problem.model)
    vector_to_parameters(flat.to(problem.dtype), list(model.parameters()))
    return model


def examples_at(model: nn.Module, problem: Problem) -> Tensor:
    """Each example's loss, in one piece."""
    assert problem.data.batches is not None
    ((x, y),) = problem.data.batches
    with torch.no_grad():
        return cross_entropy(model(x.to(problem.dtype)), y, reduction="none").double()


def loss_at(problem: Problem, flat: Tensor) -> float:
    return float(examples_at(with_weights(problem, flat), problem).mean())


def paired_error(now: Tensor, before: Tensor) -> float:
    """The standard error of the mean of the differences."""
    return float((now - before).std() / len(now) ** 0.5)


def checkpoint(problem: Problem, path: Path, flat: Tensor, step: int | None = None) -> Path:
    """A file with these weights, and the buffers of the problem's model."""
    held: dict[str, Any] = {"model_state_dict": with_weights(problem, flat).state_dict()}
    torch.save(held | ({} if step is None else {"step": step}), path)
    return path


def near(problem: Problem, seed: int, scale: float = 0.3) -> Tensor:
    """Other weights (n,), float64, that float32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    found = problem.selection.flat().detach() + scale * torch.randn(problem.size, generator=generator)
    return found.float().double()


def copied(state: State, seed: int) -> Start:
    """A resumption from ``state`` as if through files."""
    saved = state.save()
    arrays = {name: np.array(array) for name, array in saved.arrays.items()}
    fixed = {name: np.array(array) for name, array in saved.fixed.items()}
    counters = json.loads(json.dumps(saved.counters))
    return Start(seed, Saved(arrays, counters, fixed), json.loads(json.dumps(dict(state.strategy))))


def carried_out(
    problem: Problem, settings: Settings, start: Start, *inputs: Result
) -> tuple[SliceResult, list[Start]]:
    """(the result, the states on the way to it), nothing stored."""
    module, states = analysis("slice"), []
    state = None
    for state in module.steps(problem, settings, {one.kind: one for one in inputs}, start):
        states.append(copied(state, start.seed))
    assert state is not None
    assert state.over
    result = module.finish(problem, settings, state.save())
    assert isinstance(result, SliceResult)
    return result, states


def sliced(problem: Problem, *along: str, inputs: tuple[Result, ...] = (), **options: Any) -> SliceResult:
    """The slice along some directions."""
    return carried_out(problem, Settings(along=along, **options), Start(7), *inputs)[0]


def naive(problem: Problem, result: SliceResult) -> np.ndarray:
    """The losses of the whole grid, each point from the weights w + Σ cᵢ dᵢ."""
    centre = problem.selection.flat().detach().double()
    assert result.directions is not None
    rows = torch.from_numpy(np.array(result.directions)).double()
    grid = np.stack(np.meshgrid(*result.coordinates, indexing="ij"), axis=-1).reshape(-1, len(rows))
    losses = [loss_at(problem, centre + torch.from_numpy(point) @ rows) for point in grid]
    return np.array(losses).reshape(result.loss.shape)
