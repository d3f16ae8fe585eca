"""The matrices that can be asked for, by name."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landscape.curvature.finite_difference import FiniteDifferenceOperator
from landscape.curvature.fisher import EmpiricalFisherOperator, FisherOperator, NoiseOperator
from landscape.curvature.gauss_newton import GaussNewtonOperator
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.products import DataOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import ConfigurationError
from landscape.problem import Problem

__all__ = ["OPERATORS", "OperatorChoice", "make_operator"]

#: Names of the operators, as ``--operator`` takes them.
OPERATORS = ("hessian", "gauss-newton", "fisher", "empirical-fisher", "noise", "finite-difference")


@dataclass(frozen=True)
class OperatorChoice:
    """Which matrix is asked for.

    Attributes:
        name: one of :data:`OPERATORS`.
        rho, difference: step (absolute; by the precision without) and form of the finite differences.
        label_samples: draws of the labels of each example for ``fisher``.
    """

    name: str = "hessian"
    rho: float | None = None
    difference: str = "central"
    label_samples: int = 1


def make_operator(
    problem: Problem,
    strategy: Strategy,
    choice: OperatorChoice,
    *,
    gradient: Tensor | None = None,
    seed: int = 0,
) -> DataOperator:
    """The operator that ``choice`` names.

    Args:
        gradient: (n,) float64 as :meth:`Problem.measure` gives it, if it is known already; the noise
            covariance and one-sided differences compute it otherwise.
        seed: of the labels that ``fisher`` draws.

    Raises:
        ConfigurationError: an unknown name, or one that does not fit the loss, the mode or the options.
    """
    match choice.name:
        case "hessian":
            return HessianOperator(problem, strategy)
        case "gauss-newton":
            return GaussNewtonOperator(problem, strategy)
        case "fisher":
            return FisherOperator(problem, strategy, draws=choice.label_samples, seed=seed)
        case "empirical-fisher":
            return EmpiricalFisherOperator(problem, strategy)
        case "noise":
            return NoiseOperator(problem, strategy, gradient=gradient)
        case "finite-difference":
            return FiniteDifferenceOperator(
                problem, strategy, rho=choice.rho, difference=choice.difference, gradient=gradient
            )
    raise ConfigurationError(
        f"--operator does not know {choice.name!r}", do=f"choose one of {', '.join(OPERATORS)}"
    )
