"""Planes of losses without landscape: a plain loop, loss-landscapes, landscaper; and their unit of time.

Each takes a workload of one batch, the number of points on an axis, and a function that it calls with the
number of points done since, after each row.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from landscape.machine import preserved_randomness
from tests.benchmarks.workloads import Workload

__all__ = ["Between", "Plane", "Unit", "landscaper", "loss_landscapes"]

Between = Callable[[int], None]


class Unit:
    """Bare forward passes at fixed weights, and the CPU time of all of them.

    It is called with the number of points that were done since.
    """

    def __init__(self, load: Workload) -> None:
        self._load, self.seconds, self.passes = load, 0.0, 0

    def __call__(self, passes: int = 1) -> None:
        (x, y), start = self._load.batches[0], time.process_time()
        with torch.no_grad():
            for _ in range(passes):
                self._load.loss_fn(self._load.model(x), y).item()
        self.seconds += time.process_time() - start
        self.passes += passes


class Plane:
    """Two directions through the weights of a workload, each tensor of them as long as the weights' own."""

    def __init__(self, load: Workload, seed: int = 0) -> None:
        self.load, self.model = load, copy.deepcopy(load.model)
        self.centre = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        generator = torch.Generator().manual_seed(seed)
        self.directions = [
            {name: _as_long(torch.randn(w.shape, generator=generator), w) for name, w in self.centre.items()}
            for _ in range(2)
        ]

    def weights(self, name: str, x: float, y: float) -> Tensor:
        first, second = (direction[name] for direction in self.directions)
        return self.centre[name].add(first, alpha=x).add_(second, alpha=y)

    def losses(self, coordinates: np.ndarray, between: Between) -> np.ndarray:
        """(n, n) losses by a plain loop that copies the weights of each point into the model."""
        x, y = self.load.batches[0]
        found = np.empty((len(coordinates), len(coordinates)))
        with torch.no_grad():
            for i, first in enumerate(coordinates):
                for j, second in enumerate(coordinates):
                    for name, parameter in self.model.named_parameters():
                        parameter.copy_(self.weights(name, first, second))
                    found[i, j] = self.load.loss_fn(self.model(x), y).item()
                between(len(coordinates))
        return found


def _as_long(direction: Tensor, weights: Tensor) -> Tensor:
    return direction * (weights.norm() / direction.norm())


class _Counted:
    """The loss of a model, and after each row a unit for each of its points."""

    def __init__(self, load: Workload, n: int, between: Between) -> None:
        self._load, self._n, self._between, self._calls = load, n, between, 0

    def __call__(self, call: Callable[[Tensor], Any]) -> float:
        x, y = self._load.batches[0]
        if self._calls and self._calls % self._n == 0:
            self._between(self._n)
        self._calls += 1
        return float(self._load.loss_fn(call(x), y).item())


def loss_landscapes(load: Workload, n: int, between: Between) -> None:
    """Two random filter-normalised directions, on a copy of the model."""
    import loss_landscapes as library

    loss = _Counted(load, n, between)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        library.random_plane(
            load.model,
            lambda wrapped: loss(wrapped.forward),
            steps=n,
            deepcopy_model=True,
            normalization="filter",
        )


def landscaper(load: Workload, n: int, between: Between) -> None:
    """Its "orthogonal" random directions, on a copy of the model; what it prints is not shown."""
    compute, utils = _landscaper("compute"), _landscaper("utils")
    loss, model = _Counted(load, n, between), copy.deepcopy(load.model)
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        _global_randomness(),
    ):
        compute.compute_loss_landscape(
            model,
            None,
            utils.generate_random_orthogonal_directions(model, 2),
            lambda moved, _: loss(moved),
            steps=n,
            distance=1.0,
            dim=2,
            device="cpu",
        )


def _landscaper(module: str) -> Any:
    """A module of landscaper without the package's own imports: topology, which wants NumPy below 2."""
    spec = importlib.util.find_spec("landscaper")
    assert spec
    package = types.ModuleType("landscaper")
    package.__path__ = list(spec.submodule_search_locations or [])
    with mock.patch.dict(sys.modules, {"landscaper": package}):
        return importlib.import_module(f"landscaper.{module}")


@contextmanager
def _global_randomness() -> Iterator[None]:
    """Torch's global generator from a seed; all of them as before afterwards."""
    with preserved_randomness():
        torch.manual_seed(0)
        yield
