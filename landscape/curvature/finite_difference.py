"""Products with the Hessian from differences of gradients, and the step ρ that serves them best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.products import DataOperator, Part
from landscape.curvature.strategy import Strategy
from landscape.data import Piece
from landscape.errors import ComputationError, ConfigurationError
from landscape.linalg.operator import norm
from landscape.machine import is_out_of_memory
from landscape.problem import Problem

__all__ = ["DIFFERENCES", "FiniteDifferenceOperator", "RhoSweep", "default_rho", "rho_sweep"]

#: central: (∇L(w + ρu) − ∇L(w − ρu))/2ρ. as-written: (∇L(w + ρu) − ∇L(w))/ρ.
DIFFERENCES = ("central", "as-written")
#: The truncation of a central difference is O(ρ²), that of a one-sided one O(ρ), and the rounding of both
#: O(ε/ρ): the sum is least at ε^⅓ and ε^½ (Press et al. 2007, §5.7), in units of the weights.
_POWER = {"central": 1 / 3, "as-written": 1 / 2}
#: And these factors: on digits networks (tanh and ReLU, 10 and 300 steps of Adam) the best step was 0.5 to 4
#: times that for random vectors, 0.01 to 0.3 times for the top one, along which the curvature changes most.
_FACTOR = {"central": 0.1, "as-written": 0.3}
#: Smallest steps of a sweep in units of ‖w‖, below the best for any vector; and steps in a decade.
_SMALLEST = {
    ("central", torch.float64): 1e-8,
    ("as-written", torch.float64): 1e-11,
    ("central", torch.float32): 1e-6,
    ("as-written", torch.float32): 1e-7,
}
_PER_DECADE = 3
#: The plateau of a sweep: errors within this factor of the least.
_PLATEAU = 2.0


def default_rho(problem: Problem, difference: str = "central") -> float:
    """0.1·ε^⅓·‖w‖ (central) or 0.3·ε^½·‖w‖ (one-sided), ε the unit roundoff; with 1 for ‖w‖ = 0."""
    unit_roundoff = torch.finfo(problem.dtype).eps / 2
    return float(_FACTOR[_known(difference)] * unit_roundoff ** _POWER[difference]) * _scale(problem)


def _scale(problem: Problem) -> float:
    return norm(problem.selection.flat()) or 1.0


class FiniteDifferenceOperator(DataOperator):
    """The Hessian (n, n) from differences of gradients at w ± ρu, u = v/‖v‖, the result times ‖v‖.

    ``central`` has an error of O(ρ²). ``as-written`` is the one-sided quotient, and its error
    is O(ρ), not O(ρ²) as that text says. The weights are written afresh for each gradient; the model is not
    changed. Nothing is differentiated twice.

    Args:
        rho: length of the step, absolute; :func:`default_rho` without.
        gradient: ∇L (n,) float64 as :meth:`Problem.measure` gives it, weight decay included, for the
            one-sided form; computed once without.

    Raises:
        ConfigurationError: ρ is not positive and finite, or an unknown difference.
    """

    title = "finite-difference Hessian"
    advice = "use a smaller --rho, or --dtype float64"

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        *,
        rho: float | None = None,
        difference: str = "central",
        gradient: Tensor | None = None,
    ) -> None:
        super().__init__(problem, strategy)
        self.difference = _known(difference)
        self.rho = default_rho(problem, difference) if rho is None else float(rho)
        if not (self.rho > 0 and math.isfinite(self.rho)):
            raise ConfigurationError("--rho must be a positive number", found=f"{rho}")
        self._centre = problem.selection.flat().double()
        self._base = None if gradient is None else gradient - problem.weight_decay * self._centre

    def release(self) -> None:
        super().release()
        self._base = None

    def error_on(self, vector: Tensor, part: Part) -> float:
        """‖difference − exact product‖, measured on all data where a second derivative exists.

        Elsewhere twice the difference between the products with ρ and 2ρ: that is the truncation (one-sided)
        or three times it (central), and the rounding.
        """
        rows = vector.to(self.dtype)[None]
        with self.problem.arithmetic():
            computed = self._products(rows, part)[0]
            exact = exact_product(self.problem, self.strategy, rows[0], part)
            if exact is not None:
                return norm(computed - exact[0]) + exact[1]
            return 2 * norm(computed - self._products(rows, part, 2 * self.rho)[0])

    def _products(self, vectors: Tensor, part: Part, rho: float | None = None) -> Tensor:
        rho = self.rho if rho is None else rho
        out = torch.zeros(vectors.shape, dtype=torch.float64, device=self.device)
        lengths = [norm(vector) for vector in vectors]
        for piece in self._cut():
            share = self.problem.share(piece)
            for total, vector, length in zip(out, vectors, lengths, strict=True):
                if not length:
                    continue
                for sign in self._signs():
                    weights = self._weights(vector, sign * rho / length, part)
                    self._add_gradient(total, piece, weights, part, sign * share)
        if self.difference == "central":
            out /= 2 * rho
        else:
            base = self._base_gradient(part)
            out = torch.stack(
                [total - base if length else total for total, length in zip(out, lengths, strict=True)]
            )
            out /= rho
        out *= torch.tensor(lengths, dtype=torch.float64, device=self.device)[:, None]
        if self.problem.weight_decay:
            out += self.problem.weight_decay * vectors.double()
        return out

    def _signs(self) -> tuple[float, ...]:
        return (1.0, -1.0) if self.difference == "central" else (1.0,)

    def _weights(self, vector: Tensor, step: float, part: Part) -> list[Tensor]:
        """w + step·v, parameter-shaped: those of the part to be differentiated, all others as they are."""
        weights = [p.detach() for p in self.problem.selection.tensors]
        centre = self.problem.selection.layout.split(self._centre)
        for i, row in part.rows(vector).items():
            weights[i] = (centre[i] + step * row.double()).to(self.dtype).requires_grad_()
        return weights

    def _add_gradient(
        self, total: Tensor, piece: Piece, weights: list[Tensor], part: Part, share: float
    ) -> None:
        """Add ``share`` times the gradient of a piece's mean loss at ``weights`` to ``total``, in place."""
        loss = self.problem.mean_loss_at(piece, weights)
        if not bool(torch.isfinite(loss)):
            raise ComputationError(
                f"the loss is {float(loss.detach())} at perturbed weights: ρ is too large",
                found=f"rho {self.rho:.3g}, weights of norm {norm(self._centre):.3g}",
                do="use a smaller --rho, or --rho-sweep to find one",
            )
        if not loss.requires_grad:  # it does not use the parameters of this part
            return
        chosen = [weights[i] for i in part.indices]
        self.problem.add_flat(total, torch.autograd.grad(loss, chosen, allow_unused=True), share, part.layout)

    def _base_gradient(self, part: Part) -> Tensor:
        """∇L at the weights themselves, for the part's parameters; computed once, for all of them."""
        if self._base is None:
            self._base = torch.zeros(self.size, dtype=torch.float64, device=self.device)
            for piece in self._cut():
                weights = self._weights(self._centre, 0.0, self.whole)
                self._add_gradient(self._base, piece, weights, self.whole, self.problem.share(piece))
        pieces = self.problem.selection.layout.split(self._base)
        return torch.cat([pieces[i].reshape(-1) for i in part.indices])


def exact_product(
    problem: Problem, strategy: Strategy, vector: Tensor, part: Part | None = None
) -> tuple[Tensor, float] | None:
    """(the Hessian's product with a unit vector by double backward, its error); None if there is none."""
    operator = HessianOperator(problem, replace(strategy, kept_pieces=0))
    part = part or operator.whole
    try:
        return operator.multiplied(vector[None], part)[0], operator.error_on(vector, part)
    except (ComputationError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return None


@dataclass(frozen=True)
class RhoSweep:
    """Errors of finite-difference products with one vector, over ρ.

    Attributes:
        rhos: (k,) steps, ascending, absolute.
        errors: (k,) relative errors of the products; infinite where the loss is not finite.
        best: the middle of the plateau on which the errors are within a factor 2 of the least.
        error: the relative error there.
        against: what the errors are relative to: "double backward", or "neighbouring rho" where there is no
            second derivative: the larger change to the steps before and after.
        difference: which quotient it was.
    """

    rhos: np.ndarray
    errors: np.ndarray
    best: float
    error: float
    against: str
    difference: str


def rho_sweep(
    problem: Problem,
    strategy: Strategy,
    vector: Tensor,
    difference: str = "central",
    *,
    gradient: Tensor | None = None,
) -> RhoSweep:
    """Find the best ρ for products with ``vector`` (n,): three steps a decade, up to ‖w‖.

    Raises:
        ComputationError: no step gives a finite product, or all products are zero.
    """
    length = norm(vector)
    if not (length > 0 and math.isfinite(length)):
        raise ComputationError("ρ cannot be swept along this vector", found=f"its length is {length:g}")
    unit = (vector.double() / length).to(problem.dtype)
    operator = FiniteDifferenceOperator(problem, strategy, difference=difference, gradient=gradient)
    smallest = _SMALLEST[operator.difference, problem.dtype]
    steps = round(-math.log10(smallest) * _PER_DECADE)
    rhos = _scale(problem) * np.logspace(math.log10(smallest), 0, steps + 1)
    exact = exact_product(problem, strategy, unit)
    products = _products_over(operator, unit, rhos)
    if exact is not None:
        size = norm(exact[0]) or 1.0
        errors = np.array([math.inf if p is None else norm(p - exact[0]) / size for p in products])
    else:
        errors = _changes(products)
    best = _middle_of_plateau(errors)
    against = "neighbouring rho" if exact is None else "double backward"
    return RhoSweep(rhos, errors, float(rhos[best]), float(errors[best]), against, operator.difference)


def _products_over(
    operator: FiniteDifferenceOperator, unit: Tensor, rhos: Iterable[float]
) -> Iterator[Tensor | None]:
    """The product at each ρ, None where it is not finite."""
    for rho in rhos:
        try:
            with operator.problem.arithmetic():
                product = operator._products(unit[None], operator.whole, float(rho))[0]
        except ComputationError:
            yield None
            continue
        yield product if bool(torch.isfinite(product).all()) else None


def _changes(products: Iterable[Tensor | None]) -> np.ndarray:
    """Each product's relative change to its neighbours, the larger of the two."""
    between: list[float] = []
    count, before = 0, None
    for product in products:
        if count:
            if before is None or product is None:
                between.append(math.inf)
            else:
                between.append(_change(before, product))
        before, count = product, count + 1
    return np.maximum([between[0], *between], [*between, between[-1]])


def _change(first: Tensor, second: Tensor) -> float:
    return norm(first - second) / (max(norm(first), norm(second)) or 1.0)


def _middle_of_plateau(errors: np.ndarray) -> int:
    least = int(errors.argmin())
    if not math.isfinite(errors[least]):
        raise ComputationError(
            "no step of the sweep gives a finite product",
            do="use --dtype float64, or look at the loss near these weights",
        )
    inside = errors <= _PLATEAU * errors[least]
    first = last = least
    while first > 0 and inside[first - 1]:
        first -= 1
    while last + 1 < len(errors) and inside[last + 1]:
        last += 1
    return (first + last) // 2


def _known(difference: str) -> str:
    if difference not in DIFFERENCES:
        raise ConfigurationError(
            f"--difference does not know {difference!r}", do=f"choose {' or '.join(DIFFERENCES)}"
        )
    return difference
