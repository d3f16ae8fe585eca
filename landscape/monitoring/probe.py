"""The probe data and a copy of the model of one's own, at whose weights everything is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy, graph_bytes, graph_bytes_per_example
from landscape.errors import ConfigurationError, OutOfMemory
from landscape.linalg.eigenpairs import Pairs, has_converged, ritz_pairs
from landscape.linalg.lanczos import Krylov, tridiagonalise
from landscape.linalg.noise import noise_floor, rounding_floor
from landscape.linalg.operator import norm
from landscape.linalg.probes import derived_seed, gaussian
from landscape.linalg.trace import Goal, draws, krylov_trace
from landscape.machine import is_out_of_memory
from landscape.monitoring.gradients import Pair, layer_of
from landscape.monitoring.settings import Settings
from landscape.problem import Problem
from landscape.sam.passes import inner, loss_and_gradient, summed
from landscape.sam.perturbation import Perturbation
from landscape.sam.rounding import gradient_rounding

__all__ = ["CONFIDENCE", "Probe", "inner_model"]

CONFIDENCE = 0.95
#: Products of the first search, which knows no vector to start from.
_COLD = 20
#: Ritz vectors that the next search starts from: one alone is slow to see that another has overtaken it.
#: Measured on digits trained by SGD, 15 searches of at most 6 products: λmax was low by less than 0.8 %; from
#: one vector by 3 %, and with 8 products by 8 %, for it had converged to what was the largest before.
_KEPT = 3
#: Length of the random part of a start, that of the known part being 1: nothing stays out of reach.
_RANDOM = 0.1
#: Examples on which rounding of the gradient is measured.
_FEW = 32


def inner_model(model: nn.Module) -> nn.Module:
    """The model out of its ``torch.compile`` or data-parallel wrapper, as :class:`Problem` copies it."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner.module if isinstance(inner, DataParallel | DistributedDataParallel) else inner


@dataclass
class _Known:
    """What earlier measurements leave for later ones."""

    rows: Tensor | None = None
    searches: int = 0
    traces: int = 0
    calibrations: int = 0
    product_error: float = math.nan
    product_length: float = 0.0


class Probe:
    """A copy of the user's model, the data that it is probed on, and what earlier measurements left.

    The copy is made once; :meth:`load` writes the user's weights and buffers into it. Nothing of the user's
    is changed. The first search is made at once; rounding and the error of products are measured then, and
    at the 2nd, 4th, 8th … search after it.
    """

    def __init__(self, problem: Problem, model: nn.Module, settings: Settings, seed: int) -> None:
        self.problem, self.settings, self.seed = problem, settings, seed
        self.layer = layer_of(problem.selection.layout)
        self._known = _Known()
        self._theirs = inner_model(model)
        problem.check_deterministic()
        self.strategy = _largest_pieces(problem)
        self.evaluation = problem.measure(problem.pieces(self.strategy.micro_batch))
        self.rounding = np.zeros(max(self.layer) + 1)
        self.calibrate()
        if settings.rhythm("lambda"):
            self.top()  # the search that knows nothing to start from, and whatever is slow the first time

    @property
    def weights(self) -> Sequence[Tensor]:
        """The measured parameters of the copy."""
        return self.problem.selection.tensors

    def theirs(self) -> list[nn.Parameter]:
        """The same parameters of the user's model.

        Raises:
            ConfigurationError: one of them is gone or has another shape.
        """
        own, layout = dict(self._theirs.named_parameters()), self.problem.selection.layout
        found = [own.get(name) for name in layout.names]
        wrong = [
            name
            for name, shape, parameter in zip(layout.names, layout.shapes, found, strict=True)
            if parameter is None or parameter.shape != shape or parameter.device != self.problem.device
        ]
        if wrong:
            raise ConfigurationError(
                f"the model's parameters are no longer those that the monitor was made for: {wrong[0]}",
                do="make the Monitor after the model was changed, or moved to its device",
            )
        return [parameter for parameter in found if parameter is not None]

    def trainable(self) -> list[nn.Parameter]:
        """All parameters of the user's model that are trained, measured or not."""
        return [p for p in self._theirs.parameters() if p.requires_grad]

    def load(self) -> None:
        """Copy the user's weights and buffers as they are now."""
        self.theirs()
        self.problem.drop_twins()
        source = {**dict(self._theirs.named_parameters()), **dict(self._theirs.named_buffers())}
        own = self.problem.model
        with torch.inference_mode(False), torch.no_grad():
            for name, tensor in (*own.named_parameters(), *own.named_buffers()):
                if name in source and source[name].shape == tensor.shape:
                    tensor.copy_(source[name].detach())

    def calibrate(self) -> None:
        """Measure what rounding does to an element of each layer's gradient."""
        self.rounding = gradient_rounding(self.problem, _FEW, self.layer)
        self._known.calibrations += 1

    def loss(self) -> float:
        """Mean loss over the probe data."""
        problem = self.problem
        with torch.no_grad():
            means = [
                float(problem.mean_loss(piece)) * problem.share(piece)
                for piece in problem.pieces(self.strategy.micro_batch)
            ]
        weights = [w.detach() for w in self.weights]
        decay = problem.weight_decay and problem.weight_decay / 2 * inner(weights, weights)
        return summed(means) + decay

    def pair(self, rho: float) -> Pair:
        """The gradient on the probe data and that at w + ρ g/‖g‖, as :func:`landscape.ratios` takes them."""
        problem, size = self.problem, self.strategy.micro_batch
        _, gradient = loss_and_gradient(problem, problem.pieces(size))
        rule = Perturbation(rho=rho)
        weights = [w.detach() for w in self.weights]
        moved = rule.steps(gradient, weights, problem.selection.layout.names, rho).moved()
        _, perturbed = loss_and_gradient(problem, problem.pieces(size), moved)
        return Pair(gradient, perturbed, weights, moved)

    # -- curvature -----------------------------------------------------------------------------------------

    def top(self) -> dict[str, Any]:
        """λmax with its error, by a few products from the vectors of the last time.

        Raises:
            ComputationError: the loss, a gradient or a product is not finite.
            OutOfMemory: also with the smallest pieces.
        """
        return self._with_less_memory(self._top)

    def _top(self) -> dict[str, Any]:
        known, n = self._known, self.problem.size
        limit = min(n, max(self.settings.products, _COLD if known.rows is None else 0))
        random = gaussian(n, self.seed, "lambda", known.searches)
        operator = HessianOperator(self.problem, self.strategy)
        krylov, pairs = Krylov.start(operator, _start(known.rows, random), limit), None
        for _ in tridiagonalise(operator, krylov, lambda i: gaussian(n, self.seed, "fresh", i)):
            pairs = ritz_pairs(krylov)
            floor = rounding_floor(self.problem.dtype, krylov.scale, krylov.steps)
            if krylov.steps == limit or _converged(pairs, self.settings.tol, floor):
                break
        assert pairs is not None
        vectors = pairs[np.arange(min(_KEPT, len(pairs.values)))].vectors(krylov.basis)
        floor = self._floor(operator, krylov, vectors[0], float(pairs.values[0]))
        operator.release()
        self._known.rows = vectors.to(self.problem.dtype)
        self._known.searches += 1
        return {
            "lambda_max": float(pairs.values[0]),
            "lambda_max_errors": float(pairs.residuals[0]) + floor,
            "noise_floors": floor,
            "products": krylov.steps,
        }

    def _floor(self, operator: HessianOperator, krylov: Krylov, vector: Tensor, value: float) -> float:
        """What a product can be wrong by; measured anew as often as the searches have doubled."""
        known = self._known
        if known.searches != 1 and known.searches & (known.searches - 1) == 0:  # 0, 2, 4, 8 …
            unit = (vector / norm(vector)).to(operator.dtype)
            known.product_error, known.product_length = operator.error(unit), abs(value)
            if known.searches:
                self.calibrate()
            self.problem.drop_twins()
        # Carried over to products of another length, shorter ones too: errors grow with what they belong to.
        ratio = krylov.scale / known.product_length if known.product_length > 0 else 1.0
        return noise_floor(krylov, known.product_error * ratio, 0.0)

    def trace(self) -> dict[str, Any]:
        """The trace with the half-width of its interval."""
        return self._with_less_memory(self._trace)

    def _trace(self) -> dict[str, Any]:
        operator, budget = HessianOperator(self.problem, self.strategy), self.settings.trace_products
        seed = derived_seed(self.seed, "trace", self._known.traces)
        estimator = krylov_trace(
            operator, draws(self.problem.size, seed), Goal(budget, confidence=CONFIDENCE), rows=budget
        )
        scale = 0.0
        while not estimator.done:
            vector = estimator.next_vector()
            product = operator.apply(vector[None])[0]
            scale = max(scale, norm(product) / norm(vector))
            estimator.floor = self._product_error(scale) + rounding_floor(self.problem.dtype, scale, 1)
            estimator.extend(product)
        operator.release()
        self._known.traces += 1
        look = estimator.looks[-1]
        return {"trace": look.trace, "trace_half_widths": look.half_width}

    def _product_error(self, scale: float) -> float:
        """What λmax's searches found, carried over; by the precision alone before the first of them."""
        known = self._known
        if not known.product_length > 0:
            return float(scale * torch.finfo(self.problem.dtype).eps * self.problem.size**0.5)
        return known.product_error * scale / known.product_length

    def _with_less_memory(self, measure: Any) -> dict[str, Any]:
        """Run ``measure``, with fewer kept graphs and smaller pieces while memory runs out."""
        while True:
            try:
                found: dict[str, Any] = measure()
                return found
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            smaller = self.strategy.smaller()
            if smaller is None:
                raise OutOfMemory(
                    "there is not enough memory for a Hessian product on the probe data",
                    do="use fewer probe examples, or lambda_every=0 and trace_every=0",
                )
            self.strategy = smaller


def _start(rows: Tensor | None, random: Tensor) -> Tensor:
    """Where a search begins (n,) float64: all known vectors in equal parts, and a little of a random one.

    (Where one eigenvalue is wanted by a few products; a search for more of them begins otherwise.)
    """
    if rows is None:
        return random
    known = torch.nn.functional.normalize(rows.double(), dim=1).sum(0)
    return known / norm(known) + _RANDOM / norm(random) * random.to(known)


def _converged(pairs: Pairs, tol: float, floor: float) -> bool:
    return bool(has_converged(pairs.values[:1], pairs.residuals[:1], tol, floor)[0])


def _largest_pieces(problem: Problem) -> Strategy:
    """The probe data in as few pieces as memory allows: they are about as many as a batch of the training."""
    each = graph_bytes_per_example(problem)
    size = min(problem.examples, max(1, int(problem.memory / 4 / max(1.0, each))))
    pieces = -(-problem.examples // size)
    piece_bytes = graph_bytes(problem, size, each)
    return Strategy(size, pieces, max(0, min(pieces, problem.memory // 2 // piece_bytes - 1)), piece_bytes)
