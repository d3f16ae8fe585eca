"""Eigenvalues and trace by the package pyhessian (Yao et al. 2020), as an independent check.

Derivatives, iteration and stopping are the package's own; only the loss it differentiates is this one's. By
itself it fills ``.grad``, switches to eval mode, draws from the global generator, weights batches by their
examples and fails on unused parameters, so it is handed a stand-in for a model around a copy of the weights.

It is imported nowhere else, and only where it is asked for.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.data import Piece
from landscape.errors import ComputationError, ConfigurationError, LandscapeError
from landscape.machine import brief, exact_arithmetic, is_out_of_memory, preserved_randomness
from landscape.models import own_copy
from landscape.problem import Problem

__all__ = ["PeerPairs", "PeerTrace", "peer_density_note", "peer_eigenpairs", "peer_trace"]

#: What pyhessian 0.1 adds to the denominator of its stopping rules (``hessian.py``).
_EPSILON = 1e-6

Progress = Callable[[int], None]


@dataclass(frozen=True)
class PeerPairs:
    """Eigenpairs as pyhessian found them, put in order: values algebraically descending.

    Attributes:
        values: (k,) float64, those largest in magnitude.
        vectors: (k, n) float64, unit rows in the problem's layout (zero where it found none).
        products: Hessian products it made; ``each`` (k,) int64, those of each pair.
        converged: (k,) bool, whether its stopping rule was met before the last iteration allowed. The rule
            looks at the change of the value, not at the error.
        seconds: wall-clock time of it.
        notes: what a reader of the figures should know.
    """

    values: np.ndarray
    vectors: Tensor
    products: int
    each: np.ndarray
    converged: np.ndarray
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PeerTrace:
    """Hutchinson's estimate as pyhessian stopped it: ``samples`` (m,) float64, their mean and its error.

    ``std_error`` is that of independent samples, NaN for a single one; it is too small, because the stopping
    rule has looked at them.
    """

    trace: float
    std_error: float
    samples: np.ndarray
    products: int
    converged: bool
    seconds: float
    notes: tuple[str, ...]


def peer_eigenpairs(
    problem: Problem,
    *,
    k: int = 1,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
    micro_batch: int | None = None,
    progress: Progress | None = None,
) -> PeerPairs:
    """The k eigenpairs of the Hessian that are largest in magnitude, by power iteration with deflation.

    Nothing is changed by it, also when it is interrupted: not the model, its gradients, nor any generator.

    Args:
        k: how many; the number of parameters at most.
        tol: a pair is finished when its value changes by less than this, relatively, from one product to
            the next.
        max_iterations: products for each pair, at most.
        seed: of its start vectors.
        micro_batch: examples a batch; the problem's batch size or all of them without. With one batch it
            keeps one graph for all products, with several it builds them anew for each product.
        progress: called before every product with the number made so far; may raise to stop.

    Raises:
        ConfigurationError: the package is not there, or an option is out of range.
        ComputationError: it failed, or found values that are not finite.
    """
    _check(at_least_1={"k": k, "max_iterations": max_iterations}, tol=tol)
    k = min(k, problem.size)
    began = time.perf_counter()
    with _solver(problem, micro_batch, seed, progress) as (solver, stand_in):
        found, vectors = solver.eigenvalues(maxIter=max_iterations, tol=tol, top_n=k)
        rows = torch.stack([_flat(vector) for vector in vectors])
    values, each = np.array(found, dtype=np.float64), np.array(stand_in.made, dtype=np.int64)
    _check_finite(values, "eigenvalues")
    order = np.argsort(-values, kind="stable")
    converged = each < max_iterations
    return PeerPairs(
        values=values[order],
        vectors=nn.functional.normalize(rows, dim=1)[torch.from_numpy(order).to(rows.device)],
        products=int(each.sum()),
        each=each[order],
        converged=converged[order],
        seconds=time.perf_counter() - began,
        notes=(*stand_in.notes, *_eigen_notes(values, converged, max_iterations)),
    )


def peer_trace(
    problem: Problem,
    *,
    tol: float = 1e-3,
    max_products: int = 100,
    seed: int = 0,
    micro_batch: int | None = None,
    progress: Progress | None = None,
) -> PeerTrace:
    """The trace of the Hessian by Hutchinson's method, until the running mean agrees with itself.

    Args:
        tol: relative change of the running mean from one sample to the next at which it stops.
        max_products: samples, at most; other arguments, errors and promises as :func:`peer_eigenpairs`.
    """
    _check(at_least_1={"max_products": max_products}, tol=tol)
    began = time.perf_counter()
    with _solver(problem, micro_batch, seed, progress) as (solver, stand_in):
        samples = np.array(solver.trace(maxIter=max_products, tol=tol), dtype=np.float64)
    _check_finite(samples, "samples of the trace")
    error = float(samples.std(ddof=1)) / math.sqrt(len(samples)) if len(samples) > 1 else math.nan
    converged = len(samples) < max_products
    return PeerTrace(
        trace=float(samples.mean()),
        std_error=error,
        samples=samples,
        products=stand_in.products,
        converged=converged,
        seconds=time.perf_counter() - began,
        notes=(*stand_in.notes, *_trace_notes(samples, converged)),
    )


@cache
def peer_density_note() -> str:
    """Why pyhessian's density cannot be shown, found by running it on two parameters; empty where it runs.

    Raises:
        ConfigurationError: the package is not there.
    """
    library = _library()
    with preserved_randomness(), exact_arithmetic(torch.device("cpu")), _quiet():
        data = torch.eye(2), torch.zeros(2, 1)
        solver = library.hessian(nn.Linear(2, 1), nn.functional.mse_loss, data=data, cuda=False)
        try:
            solver.density(iter=2, n_v=1)
        except Exception as error:
            return (
                f"the density of {_named()} does not run on PyTorch {torch.__version__}: after all its "
                f"products it calls torch.eig ({brief(error).split('. ')[0]})"
            )
    return ""


class _StandIn:
    """What pyhessian takes for a model and for a data loader: called, it gives the loss of the batch at hand.

    pyhessian weights batches by their examples. Every batch is shown to it as one example, its loss times its
    share of the terms times the number of batches, so that its average is the data set's loss.
    """

    def __init__(self, problem: Problem, micro_batch: int | None, progress: Progress | None) -> None:
        assert problem.terms
        self.problem, self.micro_batch, self.progress = problem, micro_batch, progress
        self.batches = sum(1 for _ in problem.pieces(micro_batch))
        self.shown = torch.ones(1), torch.ones(1)
        self.piece: Piece = next(problem.pieces(micro_batch))
        self.made: list[int] = []
        self._drawn: Tensor | None = None

    @property
    def products(self) -> int:
        return sum(self.made)

    @property
    def notes(self) -> tuple[str, ...]:
        several = (
            f"{_named()} was given the loss of {self.batches} batches weighted by their terms; by itself it "
            "weights them by their examples"
        )
        train = f"{_named()} was given the loss in train mode; by itself it measures in eval mode"
        return (*([several] if self.batches > 1 else []), *([train] if self.problem.train_mode else []))

    def __call__(self, shown: Tensor) -> Tensor:
        """The loss, with ½·D·‖w‖². That term stays with D = 0: it ties unused parameters to the graph."""
        problem = self.problem
        mean = problem.mean_loss(self.piece)
        squares = torch.stack([weights.square().sum() for weights in problem.selection.tensors]).sum()
        return mean * (problem.share(self.piece) * self.batches) + problem.weight_decay / 2 * squares

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the batches: a product, where there are several."""
        self._count()
        for piece in self.problem.pieces(self.micro_batch):
            self.piece = piece
            yield self.shown

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self.problem.selection.tensors)

    def eval(self) -> _StandIn:
        """The mode stays the problem's."""
        return self

    def zero_grad(self) -> None:
        """pyhessian calls this before every product, and with several batches more often."""
        self.clear()
        if self.batches == 1:
            self._count()

    def clear(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def _count(self) -> None:
        """Count a product; a generator that has moved since the last one means a new start vector."""
        if self.progress is not None:
            self.progress(self.products)
        state = torch.get_rng_state()
        if self._drawn is None or not torch.equal(state, self._drawn):
            self.made.append(0)
        self.made[-1] += 1
        self._drawn = state


@contextlib.contextmanager
def _solver(
    problem: Problem, micro_batch: int | None, seed: int, progress: Progress | None
) -> Iterator[tuple[Any, _StandIn]]:
    """pyhessian's solver around a copy of the problem's weights, its randomness seeded and put back."""
    library = _library()
    device = problem.device
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved_randomness())
        stack.enter_context(problem.arithmetic())
        stack.enter_context(_quiet())
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        torch.manual_seed(seed)
        stand_in = _StandIn(_twin(problem), micro_batch, progress)
        data = {"data": stand_in.shown} if stand_in.batches == 1 else {"dataloader": stand_in}
        try:
            cuda = device.type == "cuda"
            yield library.hessian(stand_in, lambda loss, _: loss, **data, cuda=cuda), stand_in
        except LandscapeError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ComputationError(f"{_named()} failed", found=brief(error)) from error
        finally:
            stand_in.clear()  # a gradient with a graph and its parameter hold each other


def _twin(problem: Problem) -> Problem:
    """The same problem around its own copy of the model."""
    twin = copy.copy(problem)
    twin.model = own_copy(problem.model)
    named = dict(twin.model.named_parameters())
    tensors = tuple(named[name] for name in problem.selection.layout.names)
    twin.selection = replace(problem.selection, tensors=tensors)
    return twin


def _library() -> Any:
    try:
        return importlib.import_module("pyhessian")
    except ImportError as error:
        raise ConfigurationError(
            "the package pyhessian cannot be imported", found=brief(error), do="pip install pyhessian"
        ) from error


def _named() -> str:
    return f"pyhessian {version('pyhessian')}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of ``backward(create_graph=True)``, whose cycle is broken here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
        yield


def _flat(vector: list[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1).double() for part in vector])


def _check(at_least_1: dict[str, int], tol: float) -> None:
    for name, number in at_least_1.items():
        if number < 1:
            raise ConfigurationError(f"{name} must be at least 1", found=str(number))
    if not tol >= 0:
        raise ConfigurationError("tol must not be negative", found=f"{tol:g}")


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise ComputationError(f"the {what} that {_named()} found are not finite", found=f"{values[:5]}")


def _eigen_notes(values: np.ndarray, converged: np.ndarray, max_iterations: int) -> tuple[str, ...]:
    notes = []
    if not converged.all():
        notes.append(
            f"{int((~converged).sum())} of {len(values)} pairs of {_named()} had not met its stopping rule "
            f"after {max_iterations} products each"
        )
    if (np.abs(values) < _EPSILON).any():
        notes.append(
            f"{_named()} adds {_EPSILON:g} to a value before it compares changes with it: it resolves no "
            "value smaller than that"
        )
    if (values < 0).any():
        notes.append(f"{_named()} finds the values largest in magnitude, negative ones among them")
    return tuple(notes)


def _trace_notes(samples: np.ndarray, converged: bool) -> tuple[str, ...]:
    notes = []
    if not converged:
        notes.append(f"{_named()} had not met its stopping rule after {len(samples)} products")
    if samples.mean() < 0:
        notes.append(f"{_named()} stops after 2 products where the trace is negative, whatever the tolerance")
    return tuple(notes)
