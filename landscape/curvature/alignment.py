"""The noise of the gradient example by example: what the covariance C is made of, without products.

With s_i the gradient of the summed loss of example i, c_i its terms, T = Σ c_i and r_i = s_i − c_i ∇L over
the N examples that have terms, C = (N/T²) Σ r_i r_iᵀ (see :class:`landscape.curvature.fisher.NoiseOperator`).
One pass gives its diagonal, its trace, and how much of it lies in given subspaces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.data import Piece, map_tensors, rows_of, tensors_in
from landscape.errors import ComputationError, ConfigurationError, LandscapeError
from landscape.linalg.operator import norm
from landscape.machine import is_out_of_memory
from landscape.problem import Problem

__all__ = ["ExampleNoise", "chunk_size"]

#: Examples whose gradients are held at once, at most: more of them gain nothing.
_MOST = 128
#: The gradients of single examples must add up to the gradient, relative to the sum of their lengths.
_ADD_UP = 1e-3
#: Residual gradients this small, relative to the gradients in units of rounding, are zero.
_NO_NOISE = 32.0


def chunk_size(problem: Problem, micro_batch: int, bytes_available: int) -> int:
    """How many gradients of single examples, and what making them takes, fit in memory."""
    each = 4 * problem.size * torch.finfo(problem.dtype).bits // 8
    return max(1, min(micro_batch, _MOST, bytes_available // each))


class ExampleNoise:
    """Sums over the examples, a piece at a time; it can be saved after any of them.

    Args:
        gradient: ∇L (n,) float64 as :meth:`Problem.measure` gives it, weight decay included.
        spaces: orthonormal rows (k, n) each.

    Attributes:
        examples: numbers in the data of the examples that have terms.
        terms, squares: (N,) float64, c_i and ‖r_i‖².
        inside: (spaces, N) float64, the squared length of the part of r_i in each space.
        through: examples looked at.

    Raises:
        ConfigurationError: train mode, where examples of a batch may depend on each other.
    """

    def __init__(self, problem: Problem, gradient: Tensor, spaces: Sequence[Tensor]) -> None:
        if problem.train_mode:
            raise ConfigurationError(
                "the noise of the gradient needs the gradient of each example by itself",
                found="train mode, where the examples of a batch may depend on each other",
                do="leave --train-mode out",
            )
        self.problem, self.spaces, self.through = problem, spaces, 0
        self.gradient = gradient - problem.weight_decay * problem.selection.flat().double()
        self.examples: list[int] = []
        self.terms, self.squares, self.lengths = np.zeros(0), np.zeros(0), np.zeros(0)
        self.inside = np.zeros((len(spaces), 0))
        self._sum = torch.zeros(problem.size, dtype=torch.float64, device=problem.device)
        self._diagonal = torch.zeros_like(self._sum)
        self._one_by_one = False

    def run(self, chunk: int) -> Iterator[None]:
        """All pieces of ``chunk`` examples that have not been taken in yet."""
        for piece in self.problem.pieces(chunk):
            if piece.first >= self.through:
                self.add(piece)
                yield
        self._check()

    def add(self, piece: Piece) -> None:
        """Take in the examples of a piece."""
        rows, terms = self._with_terms(piece)
        if rows:
            kept = rows_of(piece.batch, torch.tensor(rows, device=self.problem.device))
            gradients = self._gradients(Piece(kept, len(rows), sum(terms), piece.first))
            self._sum_up(gradients, np.array(terms))
        self.examples += [piece.first + row for row in rows]
        self.through = piece.first + piece.examples

    def _with_terms(self, piece: Piece) -> tuple[list[int], list[float]]:
        """The rows of a piece that have terms, and how many."""
        rows, terms = [], []
        for row in range(piece.examples):
            for single in self.problem.cut(piece, slice(row, row + 1)):
                rows.append(row)
                terms.append(single.terms)
        return rows, terms

    def _gradients(self, piece: Piece) -> Sequence[Tensor]:
        """Gradients of the mean loss of each example, (b, *shape) for each parameter."""
        if not self._one_by_one:
            try:
                return _vmapped(self.problem, piece)
            except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
                if is_out_of_memory(error):
                    raise
                self._one_by_one = True  # a model that torch cannot vectorise over examples
        return _single(self.problem, piece)

    def _sum_up(self, gradients: Sequence[Tensor], terms: np.ndarray) -> None:
        """Add c_i(∇l̄_i − ∇L) to the sums, parameter by parameter."""
        slices = [where for _, where in self.problem.selection.layout.slices()]
        weights = torch.from_numpy(terms).to(self._sum)
        squares, lengths = torch.zeros_like(weights), torch.zeros_like(weights)
        inside = [weights.new_zeros((len(weights), len(space))) for space in self.spaces]
        for where, part in zip(slices, gradients, strict=True):
            own = part.reshape(len(part), -1).double() * weights[:, None]
            self._sum[where] += own.sum(0)
            lengths += (own**2).sum(1)
            own -= weights[:, None] * self.gradient[where]
            self._diagonal[where] += (own**2).sum(0)
            squares += (own**2).sum(1)
            for found, space in zip(inside, self.spaces, strict=True):
                found += own @ space[:, where].double().T
        self.terms = np.append(self.terms, terms)
        self.squares = np.append(self.squares, squares.cpu().numpy())
        self.lengths = np.append(self.lengths, lengths.sqrt().cpu().numpy())
        new = np.zeros((len(inside), len(terms)))
        for i, part in enumerate(inside):
            new[i] = (part**2).sum(1).cpu().numpy()
        self.inside = np.concatenate([self.inside, new], axis=1)

    def _check(self) -> None:
        total = float(self.lengths.sum())
        off = norm(self._sum - self.terms.sum() * self.gradient)
        if off > _ADD_UP * total:
            raise ComputationError(
                "the gradients of single examples do not add up to the gradient of the data",
                found=f"they miss it by {off / total:.2g} of their lengths",
                do="look for something in the model or the loss that makes an example depend on others",
            )

    # --- what comes out of it ----------------------------------------------------------------------------

    @property
    def factor(self) -> float:
        """N/T²."""
        return len(self.terms) / float(self.terms.sum()) ** 2

    @property
    def silent(self) -> bool:
        """Whether the residuals are nothing but rounding: all gradients are the same."""
        rounding = _NO_NOISE * torch.finfo(self.problem.dtype).eps
        return float(self.squares.sum()) <= rounding**2 * float((self.lengths**2).sum())

    @property
    def trace(self) -> float:
        """Tr C."""
        return self.factor * math.fsum(self.squares)

    @property
    def trace_error(self) -> float:
        """Its standard error over the sampling of the examples; NaN below three.

        The deviations of two examples from their mean are equal whatever they are, and tell nothing.
        """
        if len(self.squares) < 3:
            return math.nan
        return float(self.factor * len(self.squares) ** 0.5 * self.squares.std(ddof=1))

    @property
    def diagonal(self) -> Tensor:
        """diag C (n,) float64."""
        return self.factor * self._diagonal

    def share(self, space: int) -> tuple[float, float]:
        """Tr(VCVᵀ)/Tr C, and its standard error over the sampling of the examples (Cochran 1977, §2.11)."""
        count, total = len(self.squares), float(self.squares.sum())
        if count < 2 or not total > 0:
            return math.nan, math.nan
        share = float(self.inside[space].sum()) / total
        spread = float(((self.inside[space] - share * self.squares) ** 2).sum())
        return share, math.sqrt(count / (count - 1) * spread) / total

    # --- saving ------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to go on."""
        return {
            "examples": np.array(self.examples, dtype=np.int64),
            "terms": self.terms,
            "squares": self.squares,
            "lengths": self.lengths,
            "inside": self.inside,
            "sum": self._sum.cpu().numpy(),
            "diagonal": self._diagonal.cpu().numpy(),
            "through": np.array([self.through]),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from it."""
        self.examples = arrays["examples"].tolist()
        self.terms, self.squares, self.lengths, self.inside = (
            np.array(arrays[name]) for name in ("terms", "squares", "lengths", "inside")
        )
        self._sum[:] = torch.from_numpy(np.array(arrays["sum"]))
        self._diagonal[:] = torch.from_numpy(np.array(arrays["diagonal"]))
        self.through = int(arrays["through"][0])


def _vmapped(problem: Problem, piece: Piece) -> Sequence[Tensor]:
    """The gradients of all examples of a piece at once."""

    def mean(weights: Sequence[Tensor], row: Sequence[Tensor]) -> Tensor:
        parts = iter(row)
        single = map_tensors(lambda _: next(parts)[None], piece.batch)
        return problem.mean_loss_at(Piece(single, 1, 1.0), weights)

    weights = [p.detach() for p in problem.selection.tensors]
    with problem.arithmetic():
        found: Sequence[Tensor] = torch.func.vmap(torch.func.grad(mean), in_dims=(None, 0))(
            weights, tensors_in(piece.batch)
        )
    return found


def _single(problem: Problem, piece: Piece) -> Sequence[Tensor]:
    """The same by a pass for each."""
    rows: list[list[Tensor]] = [[] for _ in problem.selection.tensors]
    with problem.arithmetic():
        for row in range(piece.examples):
            for single in problem.cut(piece, slice(row, row + 1)):
                parts = problem.gradient_of(problem.mean_loss(single))
                for found, part, p in zip(rows, parts, problem.selection.tensors, strict=True):
                    found.append(torch.zeros_like(p) if part is None else part)
    return [torch.stack(found) for found in rows]
