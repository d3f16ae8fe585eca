"""How far an eigenvalue would move on another sample of the data: its standard error.

The Hessian is itself a mean over the terms of the data set, so θ = vᵀHv = Σ q_i / Σ c_i, with q_i = vᵀ∇²l_i v
summed over the c_i terms of example i. To first order another sample changes an isolated eigenvalue by the
change of that ratio, whose standard error is (Cochran 1977, §2.11)

    √( N/(N−1) Σ (q_i − θ c_i)² ) / Σ c_i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.hessian import products_on
from landscape.data import Piece
from landscape.errors import LandscapeError
from landscape.linalg.probes import derived_seed
from landscape.machine import is_out_of_memory
from landscape.problem import Problem

__all__ = ["Products", "SamplingError", "ratio_standard_error", "standard_errors"]

#: Random groups for the group estimate, and the fewest examples it makes sense with.
_GROUPS, _FEWEST = 32, 40
#: Steps of the second differences relative to ‖w‖: the first balances truncation and rounding (ε^¼ and
#: less), the second is short enough to cross few kinks of piecewise linear networks.
_STEPS = (1e-5, 1e-7)
#: A step is tried on all examples if it is this close on a few of them.
_ALIKE = 0.05
#: The per-example values are accepted if their mean misses θ by at most this part of the standard error.
_ACCEPTED = 0.1


@dataclass(frozen=True)
class SamplingError:
    """Standard errors (k,), masked where not computed, and how they were obtained."""

    values: np.ma.MaskedArray
    method: str


def ratio_standard_error(numerators: Tensor, terms: Tensor) -> Tensor:
    """Standard error of Σq/Σc for q (k, N) and c (N,); (k,)."""
    count = terms.numel()
    if count < 2:
        return torch.full_like(numerators[:, :1].sum(1), torch.nan)
    ratio = numerators.sum(1) / terms.sum()
    spread = (numerators - ratio[:, None] * terms).square().sum(1)
    return (count / (count - 1) * spread).sqrt() / terms.sum()


#: (pieces, vectors (k, n)) → the pieces' share of the products with a matrix, (k, n) float64.
Products = Callable[[Iterable[Piece], Tensor], Tensor]


def standard_errors(
    problem: Problem,
    values: np.ndarray,
    vectors: Tensor,
    errors: np.ndarray,
    *,
    seed: int,
    micro_batch: int,
    products: Products | None = None,
) -> SamplingError:
    """Standard errors over the data of the eigenvalues ``values`` (k,) of unit ``vectors`` (k, n) float64.

    Per-example second differences of the losses in float64 where the loss is known example by example and
    they reproduce θ; else products over random groups; else not computed, with the reason.

    Args:
        errors: (k,) what the eigenvalues themselves may be wrong by.
        products: of another matrix than the Hessian, a sum over examples too: random groups are used.
    """
    nothing = np.ma.array(np.full(len(values), np.nan), mask=True)
    if problem.train_mode:
        return SamplingError(nothing, "not computed: in train mode examples of a batch are not independent")
    if problem.examples < 2:
        return SamplingError(nothing, "not computed: a single example")
    expected = values - problem.weight_decay
    if problem.loss.each is not None and products is None:
        found = _by_differences(problem, expected, vectors, errors, micro_batch)
        if found is not None:
            return SamplingError(np.ma.array(found), "second differences of per-example losses")
    if problem.examples < _FEWEST:
        return SamplingError(nothing, f"not computed: only {problem.examples} examples for random groups")
    over = products or partial(products_on, problem)
    found = _by_groups(problem, vectors, seed, micro_batch, over)
    return SamplingError(np.ma.array(found), f"{_GROUPS} random groups")


def _by_differences(
    problem: Problem, values: np.ndarray, vectors: Tensor, errors: np.ndarray, micro_batch: int
) -> np.ndarray | None:
    """Standard errors from second differences of per-example losses, or None if those do not add up to θ.

    The steps are tried on a few examples first, whose products are exact: piecewise linear networks, whose
    kinks no step avoids, are told apart at little cost.
    """
    twin = problem.in_dtype(torch.float64)
    norm = float(torch.linalg.vector_norm(twin.selection.flat()))
    if norm == 0.0:
        return None
    try:
        with twin.arithmetic():
            few = twin.recast(problem.sample(4))
        exact = (products_on(twin, [few], vectors) * vectors).sum(1) * twin.terms
        for h in (step * norm for step in _STEPS):
            sums = _differences(twin, [few], vectors, h)[0].sum(1)
            if not bool(((sums - exact).abs() <= _ALIKE * exact.abs().max()).all()):
                continue
            numerators, counts = _differences(twin, twin.pieces(micro_batch), vectors, h)
            found = ratio_standard_error(numerators, counts)
            mean = numerators.sum(1) / counts.sum()
            allowed = _ACCEPTED * found + torch.from_numpy(errors).to(found)
            if bool(((mean - torch.from_numpy(values).to(mean)).abs() <= allowed).all()):
                return found.cpu().numpy()
    except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
        if is_out_of_memory(error):
            raise  # otherwise the model does not run in float64, or not with functional weights
    return None


def _differences(twin: Problem, pieces: Iterable[Piece], vectors: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """(l(w + hv) − 2l(w) + l(w − hv))/h² of each example (k, N), and its terms (N,)."""
    centre = twin.selection.flat()
    columns, terms = [], []
    for piece in pieces:
        middle, counts = example_losses(twin, piece, centre)
        column = [
            example_losses(twin, piece, centre + h * v)[0]
            + example_losses(twin, piece, centre - h * v)[0]
            - 2 * middle
            for v in vectors
        ]
        counted = counts > 0
        columns.append(torch.stack(column)[:, counted] / h**2)
        terms.append(counts[counted])
    return torch.cat(columns, 1), torch.cat(terms)


def example_losses(problem: Problem, piece: Piece, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(summed loss, terms) of each example of a piece at flat ``weights`` (n,), without gradients."""
    assert problem.loss.each is not None
    with problem.arithmetic(), torch.no_grad():
        outputs = problem.outputs_at(piece, weights)
        return problem.loss.each(outputs, piece.batch[1])


def _by_groups(problem: Problem, vectors: Tensor, seed: int, micro_batch: int, over: Products) -> np.ndarray:
    """Standard errors from vᵀH_g v of random groups of examples, whatever their order and batches."""
    numerators = torch.zeros((len(vectors), _GROUPS), dtype=torch.float64)
    terms = torch.zeros(_GROUPS, dtype=torch.float64)
    rows = vectors.to(problem.dtype)
    for group, piece in _grouped(problem, seed, micro_batch):
        products = over([piece], rows)
        numerators[:, group] += (products * vectors).sum(1).cpu() * problem.terms
        terms[group] += piece.terms
    return ratio_standard_error(numerators[:, terms > 0], terms[terms > 0]).numpy()


def _grouped(problem: Problem, seed: int, micro_batch: int) -> Iterator[tuple[int, Piece]]:
    """(group, piece) with each example in one random group; pieces of about ``micro_batch`` examples."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "groups"))
    labels = torch.arange(problem.examples) % _GROUPS
    labels = labels[torch.randperm(problem.examples, generator=generator)]
    waiting: list[list[Piece]] = [[] for _ in range(_GROUPS)]
    for piece in problem.pieces(micro_batch):
        groups = labels[piece.first : piece.first + piece.examples]
        for group in set(groups.tolist()):
            rows = (groups == group).nonzero()[:, 0].to(problem.device)
            waiting[group].extend(problem.cut(piece, rows))
            if sum(part.examples for part in waiting[group]) >= micro_batch:
                yield from ((group, whole) for whole in problem.join(waiting[group]))
                waiting[group] = []
    for group, parts in enumerate(waiting):
        yield from ((group, whole) for whole in problem.join(parts))
