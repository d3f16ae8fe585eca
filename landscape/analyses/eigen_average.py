"""``landscape eigen --method running-average``: the estimate, then Lanczos to compare it with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Start, State
from landscape.analyses.eigen_lanczos import LanczosWork
from landscape.curvature.finite_difference import FiniteDifferenceOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import ComputationError, ConfigurationError
from landscape.linalg.eigenpairs import Pairs
from landscape.linalg.operator import norm
from landscape.linalg.probes import derived_seed, gaussian
from landscape.linalg.running_average import RunningAverage, running_average
from landscape.problem import Problem

__all__ = ["AverageWork"]

#: Where Lanczos, which the estimate is compared with, stops.
_REFERENCE_TOL = 1e-3


class AverageWork(LanczosWork):
    """The running average by finite differences of gradients, as it was written down.

    The figures that are said to belong to it (Rayleigh quotient, residual) are measured on all the data:
    for full batches along the vector itself they come with the iteration, else a product of the Hessian is
    spent on them once every pass over the data.
    """

    first_phase = "average"

    def prepare(self, start: Start) -> None:
        super().prepare(start)
        s, problem = self.settings, self.problem
        self.perturb, self.difference = s.perturb or "iterate", s.difference or "central"
        wanted = s.minibatch or "full"
        self.batch = problem.examples if wanted == "full" else int(wanted)
        if self.batch > problem.examples:
            raise ConfigurationError(
                f"--minibatch {self.batch} is more than there are", found=f"{problem.examples} examples"
            )
        self.full = self.batch == problem.examples
        self._constant: tuple[Tensor, ...] | None = None
        first = gaussian(problem.size, self.seed, "average")
        if start.saved is None:
            self.average = RunningAverage.start((first / norm(first)).to(problem.device))
            weight = 0.1 if s.new_weight is None else s.new_weight
            self.counters |= {
                "new_weight": weight,
                "minibatch": self.batch,
                "examples": problem.examples,
                "average_spent": 0,
                "average_examples": 0,
                "evaluated": 0,
            }
        else:
            arrays = start.saved.arrays
            self.average = RunningAverage.restore(arrays, self.counters, problem.device)
            if "constant_product" in arrays:
                both = arrays["constant_product"], arrays["constant_direction"]
                self._constant = tuple(torch.tensor(array, device=problem.device) for array in both)
        self.differences = FiniteDifferenceOperator(
            problem, self.pieces, rho=self.counters["rho"], difference=self.difference
        )

    @property
    def _tol(self) -> float:
        return _REFERENCE_TOL if self.counters["phase"] == "search" else super()._tol

    # -- the average ---------------------------------------------------------------------------------------

    def _phases(self) -> dict[str, Callable[[], Iterator[State]]]:
        return {**super()._phases(), "average": self._average}

    def _average(self) -> Iterator[State]:
        c, s, average = self.counters, self.settings, self.average
        free = self.full and self.perturb == "iterate"
        if average.iterations == 0:
            image = self.differences.apply(average.direction[None].to(self.problem.dtype))[0]
            self._count(self.problem.examples)
            c["difference_error"] = self.product_error(image, self.differences)
        steps = running_average(
            average,
            perturb=self.perturb,
            new_weight=c["new_weight"],
            product=self._product,
            evaluate=None if free else self._evaluate,
            full_batch=self.full,
            tol=self._tol,
            floor=c["difference_error"],
        )
        limit = s.product_limit
        while not average.over and max(average.iterations, c["average_spent"]) < limit:
            next(steps, None)
            if not math.isfinite(average.norms[-1]):
                raise ComputationError(
                    f"the running average is {average.norms[-1]} after {average.iterations} iterations",
                    do="use a smaller --rho or --new-weight",
                )
            yield self._state(f"iteration {average.iterations}, ‖v‖ = {average.norms[-1]:.4g}")
        if math.isnan(average.rayleigh[-1]):
            average.measure(self._image(average.direction))
        self._constant = None
        c["phase"] = "search"
        yield self._state("average over")

    def _count(self, examples: int) -> None:
        """A product over so many examples; all products so far are the average's, which comes first."""
        c = self.counters
        c["average_spent"] += 1
        c["average_examples"] += examples
        c["products"], c["passes"] = c["average_spent"], -(-c["average_examples"] // self.problem.examples)

    def _product(self, iteration: int, direction: Tensor | None) -> tuple[Tensor, Tensor]:
        """The curvature product of this iteration's batch, along the vector or along its own gradient."""
        if self._constant is None:
            self._count(self.batch)
            differences = self.differences if self.full else self._differences_on(iteration)
            found = self._along(differences, direction)
            if not self.full or direction is not None:
                return found
            self._constant = found  # the gradient of all the data is always the same
        product, along = self._constant
        return product, along

    def _differences_on(self, iteration: int) -> FiniteDifferenceOperator:
        """Differences of the gradients of a random mini-batch, drawn without replacement."""
        batch = self._minibatch(iteration)
        micro = min(self.pieces.micro_batch, self.batch)
        strategy = Strategy(micro, -(-self.batch // micro), 0, self.pieces.graph_bytes)
        return FiniteDifferenceOperator(batch, strategy, rho=self.counters["rho"], difference=self.difference)

    def _minibatch(self, iteration: int) -> Problem:
        """The first examples of a random order or, where none of them has a term, the next ones."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "minibatch", iteration))
        order = torch.randperm(self.problem.examples, generator=generator)
        parts = torch.split(order, self.batch)
        batches = (self.problem.minibatch(rows.sort().values) for rows in parts)
        return next(batch for batch in batches if any(True for _ in batch.pieces(self.batch)))

    def _along(
        self, differences: FiniteDifferenceOperator, direction: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if direction is None:
            pieces = differences.problem.pieces(self.strategy["micro_batch"])
            gradient = differences.problem.measure(pieces).gradient
            length = norm(gradient)
            if length == 0.0:  # nothing to perturb along: no curvature is seen
                return torch.zeros_like(gradient), gradient
            direction = gradient / length
        return differences.apply(direction[None].to(self.problem.dtype))[0], direction

    def _evaluate(self, iteration: int, direction: Tensor) -> Tensor | None:
        """A product on all the data, as often as the iterations have cost about as much."""
        c = self.counters
        every = -(-self.problem.examples // self.batch)
        if self.full and self.perturb == "gradient":
            every = max(1, c["evaluated"])  # the iterations cost nothing: at 1, 2, 4, …
        if iteration < c["evaluated"] + every:
            return None
        c["evaluated"] = iteration
        return self._image(direction)

    def _image(self, direction: Tensor) -> Tensor:
        self._count(self.problem.examples)
        return self.operator.apply(direction[None].to(self.problem.dtype))[0]

    # -- what it is compared with --------------------------------------------------------------------------

    def _search(self) -> Iterator[State]:
        for state in super()._search():
            if self.counters["phase"] != "search":
                self._compare()
            yield state

    def _compare(self) -> None:
        """The share of the gradient in the space of the top eigenvectors."""
        pairs = self._lanczos_pairs()[0]
        if not len(pairs.values):
            return
        self.extra["reference_values"], self.extra["reference_residuals"] = pairs.values, pairs.residuals
        self.counters["reference_floor"] = self.counters["floor"]
        gradient = self.problem.measure(self.problem.pieces(self.strategy["micro_batch"])).gradient
        squared = norm(gradient) ** 2
        if squared > 0:
            inside = (self._lanczos_vectors() @ gradient).square().sum()
            self.counters["gradient_share"] = float(inside) / squared
        self.counters["floor"] = max(self.counters["floor"], self.counters["difference_error"])

    kept = (*LanczosWork.kept, "reference_values", "reference_residuals")

    def _pairs(self) -> tuple[Pairs, Pairs]:
        average = self.average
        if self.counters["phase"] == "average" or math.isnan(average.rayleigh[-1]):
            return self._lanczos_pairs()[0], self._lanczos_pairs()[1]
        own = Pairs(np.array(average.rayleigh[-1:]), np.array(average.residuals[-1:]), np.zeros((0, 1)))
        found, others = self._lanczos_pairs()
        every = np.concatenate([found.values, others.values])
        order = np.argsort(-every, kind="stable")
        residuals = np.concatenate([found.residuals, others.residuals])[order]
        return own, Pairs(every[order], residuals, np.zeros((0, len(every))))

    def _vectors(self) -> Tensor:
        return self.average.direction[None]

    def _saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, counters = super()._saved()
        if self._constant is not None:
            names = "constant_product", "constant_direction"
            arrays |= {name: part.cpu().numpy() for name, part in zip(names, self._constant, strict=True)}
        return arrays | self.average.arrays(), counters | self.average.counters()
