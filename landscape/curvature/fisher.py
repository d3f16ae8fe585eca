"""Products with matrices of per-example gradients: empirical and true Fisher, covariance of the noise.

With ℓ_i the summed loss of example i, c_i its terms, s_i = ∇ℓ_i and T = Σ c_i, all of them are JᵀJ up to a
factor, J with a row for each example. Weight decay is no example's and does not enter.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.curvature.jacobian import JacobianGraph, JacobianOperator
from landscape.curvature.likelihood import label_sampler
from landscape.curvature.strategy import Strategy
from landscape.data import Batch, Piece, targets_of
from landscape.errors import ConfigurationError
from landscape.problem import Problem

__all__ = ["EmpiricalFisherOperator", "FisherOperator", "NoiseOperator"]


class _ExamplesOperator(JacobianOperator):
    """Σ of outer products of gradients of single examples."""

    # A few examples with large gradients may outweigh all others: a larger sample, so that it has some.
    sample_part, sample_least = 8, 16

    def __init__(self, problem: Problem, strategy: Strategy) -> None:
        super().__init__(problem, strategy, semidefinite=True)
        if problem.train_mode:
            raise ConfigurationError(
                f"the {self.title} matrix needs the gradient of each example by itself",
                found="train mode, where the examples of a batch may depend on each other",
                do="leave --train-mode out, or use --operator hessian or gauss-newton",
            )

    def _decayed(self, out: Tensor, vectors: Tensor) -> Tensor:
        return out


class EmpiricalFisherOperator(_ExamplesOperator):
    """F = (1/T) Σ s_i s_iᵀ (n, n), with the labels of the data (Kunstner, Balles & Hennig 2019, eq. 3)."""

    title = "empirical Fisher"

    def build(self, piece: Piece) -> JacobianGraph:
        sums, _ = example_losses(self.problem, piece)
        return self.pulled_back(sums, 1 / self.problem.terms, len(sums))


class FisherOperator(_ExamplesOperator):
    """F = (1/TS) Σ s_i s_iᵀ (n, n) over S draws of the labels from the model's own distribution.

    Its expectation over the draws is the Gauss–Newton matrix for cross-entropy, negative log-likelihood,
    squared error and binary cross-entropy with logits (Martens 2020, §9.2), for binary cross-entropy of
    probabilities that of the logits behind them.

    Args:
        draws: S.
        seed: of the draws.

    Raises:
        ConfigurationError: the loss is no likelihood.
    """

    title = "Fisher"

    def __init__(self, problem: Problem, strategy: Strategy, *, draws: int = 1, seed: int = 0) -> None:
        super().__init__(problem, strategy)
        if draws < 1:
            raise ConfigurationError("--label-samples must be at least 1", found=str(draws))
        self.sampler = label_sampler(problem.loss, draws, seed)

    def build(self, piece: Piece) -> JacobianGraph:
        outputs, targets = self.problem.outputs(piece), targets_of(piece.batch)
        draws = self.sampler.labels(outputs, targets, piece.first)
        drawn = [counted(self.problem, piece, outputs, labels)[0] for labels in draws]
        share = 1 / (self.problem.terms * self.sampler.draws)
        return self.pulled_back(torch.cat(drawn), share, len(drawn[0]))


class NoiseOperator(_ExamplesOperator):
    """C = (N/T²) Σ r_i r_iᵀ (n, n), r_i = s_i − c_i ∇L, over the N examples that have terms.

    C/m is to first order the covariance of the gradient of a random mini-batch of m examples, a ratio of two
    sums (Cochran 1977, §2.11). With one term an example, C = (1/N) Σ g_i g_iᵀ − ∇L ∇Lᵀ.

    Args:
        gradient: ∇L (n,) float64 as :meth:`Problem.measure` gives it, weight decay included; computed if not
            given.
    """

    title = "noise covariance"

    def __init__(self, problem: Problem, strategy: Strategy, *, gradient: Tensor | None = None) -> None:
        super().__init__(problem, strategy)
        if gradient is None:
            gradient = problem.measure(problem.pieces(strategy.micro_batch)).gradient
        own = gradient - problem.weight_decay * problem.selection.flat().double()
        self._mean = own.to(problem.dtype)

    def build(self, piece: Piece) -> JacobianGraph:
        problem = self.problem
        sums, terms = example_losses(problem, piece)
        # ℓ_i(w) − c_i ∇Lᵀw, with ∇L held fixed, has the gradient r_i.
        mean = problem.selection.layout.split(self._mean.to(problem.dtype))
        along = [(part * p).sum() for part, p in zip(mean, problem.selection.tensors, strict=True)]
        return self.pulled_back(sums - terms * torch.stack(along).sum(), 1 / problem.terms**2, len(sums))

    def scale(self, examples: int) -> float:
        return float(examples)


def example_losses(problem: Problem, piece: Piece) -> tuple[Tensor, Tensor]:
    """(summed losses, terms) of a piece's examples that have terms, both (k,), to be differentiated."""
    if problem.loss.whole:
        return _stacked(_one_by_one(problem, piece))
    return counted(problem, piece, problem.outputs(piece), targets_of(piece.batch))


def counted(problem: Problem, piece: Piece, outputs: object, targets: Batch) -> tuple[Tensor, Tensor]:
    """The same from the outputs of a piece's examples and their targets."""
    if problem.loss.each is not None:
        sums, terms = problem.loss.each(outputs, targets)
        if len(sums) != piece.examples:
            raise ConfigurationError(
                "the losses of single examples cannot be told apart",
                found=f"outputs for {len(sums)} examples, {piece.examples} examples",
                do="keep the examples in the first dimension of outputs and targets",
            )
        return sums[terms > 0], terms[terms > 0]
    if not isinstance(outputs, Tensor) or len(outputs) != piece.examples:
        return _stacked(_one_by_one(problem, piece))
    return _stacked(_row_by_row(problem, piece, outputs))


def _one_by_one(problem: Problem, piece: Piece) -> Iterator[tuple[Tensor, float]]:
    """Each example with terms by a forward pass of its own."""
    for row in range(piece.examples):
        for single in problem.cut(piece, slice(row, row + 1)):
            yield problem.mean_loss(single) * single.terms, single.terms


def _row_by_row(problem: Problem, piece: Piece, outputs: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Each example with terms from its row of the outputs."""
    for row in range(piece.examples):
        for single in problem.cut(piece, slice(row, row + 1)):
            mean = problem.loss.mean(outputs[row : row + 1], targets_of(single.batch))
            yield mean.reshape(()) * single.terms, single.terms


def _stacked(losses: Iterator[tuple[Tensor, float]]) -> tuple[Tensor, Tensor]:
    sums, terms = zip(*losses, strict=True)
    return torch.stack(sums), torch.tensor(terms, dtype=sums[0].dtype, device=sums[0].device)
