"""What every method of ``landscape eigen`` does around its search: verification apart, all but the search."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.eigen import Settings
from landscape.analyses.work import MatrixWork, itemsize
from landscape.curvature.products import Block, GraphOperator
from landscape.curvature.sampling import SamplingError, standard_errors
from landscape.linalg.bounds import intervals
from landscape.linalg.eigenpairs import Pairs, basis_size, eigenpairs, has_converged, wanted_count
from landscape.linalg.lanczos import Krylov
from landscape.linalg.noise import noise_floor
from landscape.linalg.probes import gaussian
from landscape.parameters import layers
from landscape.problem import Problem

__all__ = ["Work"]

#: What is done after the search, in this order.
_PHASES = ("search", "verify", "errors", "layers", "check", "over")


class Work(MatrixWork):
    """One run of ``eigen``: what is known so far, and the phases that add to it."""

    #: What comes first.
    first_phase = "search"
    kept: tuple[str, ...] = (
        *("standard_errors", "eigenvectors", "layer_figures", "peer_values", "peer_residuals"),
        *("krylov_relation", "krylov_basis"),
    )

    def __init__(self, problem: Problem, settings: Settings, start: Start) -> None:
        self.settings = settings
        wanted = wanted_count(settings.k, settings.which, problem.size)
        super().__init__(problem, settings, start, problem.size * itemsize(problem) * (3 * wanted + 16))
        self.history: list[float] = []
        if start.saved is None:
            self.counters |= {
                "phase": self.first_phase,
                "product_error": 0.0,
                "product_length": 0.0,
                "verified": 0,
                "verified_all": not settings.verify,
                "standard_error_method": "not computed: not asked for",
                "layer_tops": 0,
            }
        self.prepare(start)

    def run(self) -> Iterator[State]:
        """The phases still to be done, in order."""
        yield self._state("measuring")
        phases = self._phases()
        while self.counters["phase"] != "over":
            yield from phases[self.counters["phase"]]()
        if self.settings.eigenvectors and len(self._pairs()[0].values):
            self.extra["eigenvectors"] = self._vectors().cpu().numpy()
        self._keep()
        yield self._state("done", over=True)

    # -- what a method brings ------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, start: Start) -> None:
        """Begin the search, or take up a saved one."""

    @abstractmethod
    def _search(self) -> Iterator[State]:
        """Find the pairs, then :meth:`_go_on`."""

    @abstractmethod
    def _pairs(self) -> tuple[Pairs, Pairs]:
        """(the wanted pairs, other Ritz pairs)."""

    @abstractmethod
    def _vectors(self) -> Tensor:
        """The wanted Ritz vectors, (k, n) float64, of unit length."""

    @abstractmethod
    def _saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, counters) of the search."""

    def _phases(self) -> dict[str, Callable[[], Iterator[State]]]:
        """What is done in each phase; a method adds those that only it has."""
        return {
            "search": self._search,
            "errors": self._standard_errors,
            "layers": self._layers,
            "check": self._check,
        }

    def _keep(self) -> None:
        """Whatever else is to be stored at the end."""

    # -- phases --------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """To the next phase that there is something to do in."""
        c, s = self.counters, self.settings
        spare = self._limit - c["products"] - self._wanted()
        nothing = not len(self._pairs()[0].values)
        wanted = {
            "verify": bool(s.verify) and spare > 0 and not nothing,
            "errors": s.standard_errors and not nothing,
            "layers": s.per_layer and not nothing,
            "check": s.check is not None and not nothing,
            "over": True,
        }
        following = _PHASES[_PHASES.index(c["phase"]) + 1 :]
        c["phase"] = next(phase for phase in following if wanted[phase])

    def _standard_errors(self) -> Iterator[State]:
        pairs, _ = self._pairs()
        found = self._sampling(pairs)
        self.counters["standard_error_method"] = found.method
        if not found.values.mask.any():
            self.extra["standard_errors"] = found.values.filled()
        self._go_on()
        yield self._state("standard errors")

    def _sampling(self, pairs: Pairs) -> SamplingError:
        """Standard errors over the data, where the matrix is a sum over the examples alone."""
        name, operator = self.settings.operator, self.operator
        if name in ("fisher", "noise"):
            nothing = np.ma.array(np.full(len(pairs.values), np.nan), mask=True)
            return SamplingError(nothing, f"not computed: not known for --operator {name}")
        return standard_errors(
            self.problem,
            pairs.values,
            self._vectors(),
            pairs.residuals + self.counters["floor"],
            seed=self.seed,
            micro_batch=self.strategy["micro_batch"],
            products=operator.over if isinstance(operator, GraphOperator) and name != "hessian" else None,
        )

    def _layers(self) -> Iterator[State]:
        """The extreme eigenvalues of each layer's block; what is saved is the state before each layer."""
        names = layers(self.problem.selection.layout)
        saved = self._save()
        for index, (layer, members) in enumerate(names.items()):
            if index < self.counters["layer_tops"]:
                continue
            for _ in self._layer(index, self.operator.block(members)):
                yield self._state(f"layer {layer}", at=saved)
            self.counters["layer_tops"] = index + 1
            saved = self._save()
        self._go_on()
        yield self._state("layers")

    def _layer(self, index: int, block: Block) -> Iterator[None]:
        """One layer: its eigenvalues are appended to the arrays."""
        which, tol = self.settings.end, self._tol
        ends = wanted_count(1, which, 2)
        room = basis_size(1, which, block.size, self.problem.memory // 4, itemsize(self.problem))
        krylov = Krylov.start(block, gaussian(block.size, self.seed, "layer", index), room)
        errors: list[float] = []

        def floor(state: Krylov) -> float:
            if not errors:
                errors.append(self.product_error(state.basis[int(not state.exhausted)].double(), block))
            return noise_floor(state, errors[0], 0.0)

        fresh = partial(gaussian, block.size, self.seed, "layer fresh", index)
        search = eigenpairs(block, krylov, k=1, which=which, tol=tol, floor=floor, fresh=fresh)
        pairs = None
        for _, latest, _ in itertools.islice(search, self.settings.product_limit):
            pairs = latest
            self.spent(1, 1)
            yield
        assert pairs is not None
        found = np.full((3, ends), math.nan)  # a layer of one parameter has one eigenvalue
        found[0, : len(pairs.values)], found[1, : len(pairs.values)] = pairs.values, pairs.residuals
        found[2] = floor(krylov)
        before = self.extra.get("layer_figures", np.zeros((0, 3, ends)))
        self.extra["layer_figures"] = np.concatenate([before, found[None]])

    def _check(self) -> Iterator[State]:
        """The same figures from another package."""
        yield self._state("pyhessian")
        self._peer(self.settings.k)
        self._go_on()
        yield self._state("pyhessian")

    def _peer(self, k: int) -> Tensor:
        """Pairs by pyhessian; their residuals are ours, one product each. Returns the vectors."""
        from landscape.curvature.peer import peer_density_note, peer_eigenpairs

        found = peer_eigenpairs(
            self.problem,
            k=k,
            tol=self._tol,
            max_iterations=max(1, self.settings.product_limit // k),
            seed=self.seed,
            micro_batch=None if self.pieces.kept_pieces >= self.pieces.pieces else self.pieces.micro_batch,
        )
        vectors = found.vectors.to(self.operator.device, self.operator.dtype)
        images = self.operator.apply(vectors)
        self.spent(len(vectors), 1)
        rest = images - torch.from_numpy(found.values).to(images)[:, None] * vectors.double()
        self.extra["peer_values"] = found.values
        self.extra["peer_residuals"] = torch.linalg.vector_norm(rest, dim=1).cpu().numpy()
        self.counters["peer_products"] = found.products
        self.counters["peer_notes"] = "; ".join([*found.notes, peer_density_note()])
        return vectors

    # -- helpers -------------------------------------------------------------------------------------------

    @property
    def _tol(self) -> float:
        return self.settings.tolerance

    @property
    def _limit(self) -> int:
        """How many products may have been made when the search is over."""
        return self.settings.product_limit + int(self.counters.get("average_spent", 0))

    def _wanted(self) -> int:
        return wanted_count(self.settings.k, self.settings.which, self.problem.size)

    def _converged(self, pairs: Pairs) -> int:
        floor = self.counters["floor"]
        return int(has_converged(pairs.values, pairs.residuals, self._tol, floor).sum())

    def _note(self, pairs: Pairs) -> None:
        """Count a product and remember the largest residual."""
        self.spent(1, 1)
        complete = len(pairs.values) == self._wanted()
        self.history.append(float(pairs.residuals.max()) if complete else float("nan"))

    def _state(self, text: str, over: bool = False, at: Saved | None = None) -> State:
        done = self.counters["products"]
        return self.state(text, self._save, done=done, total=self._expected(), over=over, at=at)

    def _expected(self) -> int | None:
        """Products until the end, from how fast the largest residual has been falling; None while unknown."""
        if self.counters["seconds"] < 1.0 or self.counters["phase"] != "search":  # nobody looks yet
            return None
        logs = np.log(np.array(self.history[-12:]) + 1e-300)
        logs = logs[np.isfinite(logs)]
        pairs = self._pairs()[0] if len(logs) >= 4 else None
        if pairs is None or not len(pairs.values):
            return None
        slope = np.polyfit(np.arange(len(logs)), logs, 1)[0]
        goal = np.log(max(self.counters["floor"], self._tol * np.abs(pairs.values).min(), 1e-300))
        if slope >= -1e-3 or not np.isfinite(goal):
            return None
        left = max(0.0, (logs[-1] - goal) / -slope)
        expected = int(self.counters["products"] + np.ceil(left))
        return min(self._limit, expected)

    def _save(self) -> Saved:
        pairs, others = self._pairs()
        arrays, counters = self._saved()
        own = {
            "history": np.array(self.history),
            "values": pairs.values,
            "residuals": pairs.residuals,
            "other_values": others.values,
            "other_residuals": others.residuals,
        }
        return Saved({**arrays, **own, **self.extra}, {**self.counters, **counters})


def layer_intervals(figures: np.ndarray) -> np.ndarray:
    """(layers, pairs, 2) intervals from values, residuals and floors (layers, 3, pairs)."""
    each = [intervals(values, residuals, float(floor[0])) for values, residuals, floor in figures]
    return np.array(each).reshape(*figures[:, 0].shape, 2)
