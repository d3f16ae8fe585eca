"""Products with the generalised Gauss–Newton matrix (Schraudolph 2002, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape.curvature.jacobian import JacobianGraph, JacobianOperator, Middle
from landscape.curvature.likelihood import check_log_probabilities
from landscape.curvature.products import Part, explained
from landscape.curvature.strategy import Strategy
from landscape.data import Piece, targets_of
from landscape.errors import ComputationError, ConfigurationError
from landscape.linalg.operator import norm
from landscape.losses import Loss, resolve_loss
from landscape.problem import Problem

__all__ = ["GaussNewtonOperator"]


class GaussNewtonOperator(JacobianOperator):
    """G = (1/T) Σ Jᵀ ∇²l J (n, n) plus weight decay: l the loss as a function of the model's outputs.

    It is the Hessian without the curvature of the model itself. Semi-definite where the loss is convex in the
    outputs; that promise is checked on every product. A loss that is linear in the outputs has a zero matrix,
    but negative log-likelihood (``nn.NLLLoss``) is taken as what it is together with the ``log_softmax`` in
    the model, cross-entropy: on outputs that are log-probabilities the two are equal, and cross-entropy's
    matrix is the one that belongs to the model's logits.

    Raises:
        ConfigurationError: the loss is not a function of (outputs, targets), or the outputs no tensor.
    """

    title = "Gauss-Newton"

    def __init__(self, problem: Problem, strategy: Strategy) -> None:
        super().__init__(problem, strategy, semidefinite=problem.weight_decay >= 0)
        if problem.loss.whole:
            raise _unsuitable(f"{problem.loss.name}, a loss that takes (model, batch)")
        self._loss = _of_outputs(problem.loss)
        self._longest = 0.0

    def build(self, piece: Piece) -> JacobianGraph:
        problem, targets = self.problem, targets_of(piece.batch)
        outputs = problem.outputs(piece)
        if not isinstance(outputs, Tensor):
            raise _unsuitable(f"the model's output is a {type(outputs).__name__}")
        check_log_probabilities(problem.loss, outputs, targets)
        leaf = outputs.detach().requires_grad_()
        try:
            (gradient,) = torch.autograd.grad(
                self._loss.mean(leaf, targets), leaf, create_graph=True, materialize_grads=True
            )
        except RuntimeError as error:
            raise explained(error) from error
        return self.pulled_back(outputs, problem.share(piece), piece.examples, Middle(leaf, gradient))

    def _check(self, vectors: Tensor, products: Tensor, part: Part) -> None:
        """vᵀGv ≥ 0 to what the products can be wrong by.

        Raises:
            ComputationError: it is not, so the loss is not convex.
        """
        if not self.semidefinite:
            return
        for vector, product in zip(vectors.double(), products, strict=True):
            if not (length := norm(vector)):
                continue
            self._longest = max(self._longest, norm(product) / length)
            quotient = float(vector @ product) / length**2 - self.problem.weight_decay
            # Below this a product's own rounding explains the sign; only then its measured error is needed.
            rounding = torch.finfo(self.dtype).eps * self.size**0.5 * self._longest
            if quotient >= -rounding or -quotient <= (error := self.error_on(vector / length, part)):
                continue
            raise ComputationError(
                "the loss is not convex in the model's output: its Gauss-Newton matrix is indefinite",
                found=f"vᵀGv/vᵀv = {quotient:.3g}, where a product is wrong by {error:.1g} at most",
                do="use --operator hessian",
            )


def _of_outputs(loss: Loss) -> Loss:
    """The loss whose second derivative by the outputs is taken."""
    if isinstance(loss.module, nn.NLLLoss):
        return resolve_loss(
            nn.CrossEntropyLoss(weight=loss.module.weight, ignore_index=loss.module.ignore_index)
        )
    return loss


def _unsuitable(found: str) -> ConfigurationError:
    return ConfigurationError(
        "the Gauss-Newton matrix needs the loss as a function of the model's output",
        found=found,
        do="give a loss(outputs, targets) and a model that returns one tensor, or use --operator hessian",
    )
