"""The work behind ``landscape eigen``, product by product: search, verification, standard errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.eigen import Settings
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.sampling import standard_errors
from landscape.curvature.strategy import Strategy, choose_strategy
from landscape.linalg.bounds import unclaimed
from landscape.linalg.eigenpairs import (
    Pairs,
    basis_size,
    eigenpairs,
    has_converged,
    ritz_pairs,
    select,
    wanted_count,
)
from landscape.linalg.lanczos import Krylov
from landscape.linalg.noise import noise_floor
from landscape.linalg.operator import norm
from landscape.linalg.probes import gaussian
from landscape.linalg.verify import Locked, verify
from landscape.problem import Problem

__all__ = ["Work"]


class Work:
    """One run of ``eigen``: what is known so far, and the phases that add to it."""

    def __init__(self, problem: Problem, settings: Settings, start: Start) -> None:
        self.problem, self.settings, self.seed = problem, settings, start.seed
        self.began = time.perf_counter()
        self.history: list[float] = []
        self.locked: Locked | None = None
        self.extra: dict[str, np.ndarray] = {}
        self._every: Pairs | None = None
        self.counters: dict[str, Any] = {}
        if start.saved is None:
            self._measure(start.strategy)
        else:
            self.strategy = dict(start.strategy or {})
            self.counters = dict(start.saved.counters)
        self.began -= self.counters["seconds"]
        pieces = {name: self.strategy[name] for name in Strategy.__dataclass_fields__}
        self.operator = HessianOperator(problem, Strategy(**pieces))
        self.krylov = Krylov.start(
            self.operator, gaussian(problem.size, self.seed, "start"), self.strategy["basis"]
        )
        if start.saved is not None:
            self._restore(start.saved.arrays)

    def run(self) -> Iterator[State]:
        """The phases still to be done, in order."""
        yield self._state("measuring")
        if self.counters["phase"] == "search":
            yield from self._search()
        if self.counters["phase"] == "verify":
            yield from self._verify()
        if self.counters["phase"] == "errors":
            self._standard_errors()
            self.counters["phase"] = "over"
        if self.settings.eigenvectors:
            self.extra["eigenvectors"] = self._vectors().cpu().numpy()
        yield self._state("done", over=True)

    def _measure(self, strategy: Any) -> None:
        """Loss, gradient and the way products are to be made."""
        problem, settings = self.problem, self.settings
        problem.check_deterministic()
        itemsize = torch.finfo(problem.dtype).bits // 8
        wanted = wanted_count(settings.k, settings.which, problem.size)
        if strategy:
            self.strategy = dict(strategy)
            evaluation = problem.measure(problem.pieces(self.strategy["micro_batch"]))
        else:
            chosen, evaluation = choose_strategy(problem, problem.size * itemsize * (3 * wanted + 16))
            basis = basis_size(settings.k, settings.which, problem.size, problem.memory // 4, itemsize)
            self.strategy = {**chosen.to_json(), "basis": basis}
        problem.check_expected(evaluation.loss)
        self.counters = {
            "phase": "search",
            "loss": evaluation.loss,
            "gradient_norm": norm(evaluation.gradient),
            "accuracy": evaluation.accuracy,
            "unused": problem.selection.layout.count(evaluation.unused),
            "product_error": 0.0,
            "product_length": 0.0,
            "floor": 0.0,
            "products": 0,
            "passes": 0,
            "seconds": 0.0,
            "first_steps": 0,
            "first_top": 0.0,
            "first_bottom": 0.0,
            "restarted": False,
            "verified": 0,
            "verified_all": not settings.verify,
            "standard_error_method": "not computed: not asked for",
        }

    def _fresh(self, index: int) -> Tensor:
        return gaussian(self.problem.size, self.seed, "fresh", index)

    def _floor(self, krylov: Krylov) -> float:
        """What a product can be wrong by; the error of products is measured once the second vector is there.

        That vector is the image of a random one, so it is rich in the directions of large curvature, along
        which products are largest and most wrong.
        """
        c = self.counters
        if c["products"] == 0:
            vector = krylov.basis[0] if krylov.exhausted else krylov.basis[1]
            c["product_error"] = self.operator.error(vector)
        if c["product_length"] == 0.0 and krylov.steps == 2:
            c["product_length"] = float(np.linalg.norm(krylov.relation[:, 1]))
        c["floor"] = noise_floor(krylov, c["product_error"], c["product_length"])
        return float(c["floor"])

    def _search(self) -> Iterator[State]:
        settings = self.settings
        search = eigenpairs(
            self.operator,
            self.krylov,
            k=settings.k,
            which=settings.which,
            tol=settings.tol,
            floor=self._floor,
            fresh=self._fresh,
        )
        if self.counters["products"] < settings.max_products:
            for krylov, pairs, done in search:
                self._note_progress(krylov, pairs)
                if done or self.counters["products"] >= settings.max_products:
                    break
                yield self._state(f"{self._converged(pairs)} of {self._wanted()} pairs converged")
        spare = settings.max_products - self.counters["products"] - self._wanted()
        self.counters["phase"] = "verify" if settings.verify and spare > 0 else "errors"
        yield self._state("search over")

    def _note_progress(self, krylov: Krylov, pairs: Pairs) -> None:
        c = self.counters
        c["products"] += 1
        c["passes"] += 1
        self._every = pairs.among
        complete = len(pairs.values) == self._wanted()
        self.history.append(float(pairs.residuals.max()) if complete else float("nan"))
        if not c["restarted"]:
            every = self._ritz().values
            c["first_steps"], c["first_top"], c["first_bottom"] = (
                krylov.steps,
                float(every[0]),
                float(every[-1]),
            )
            c["restarted"] = krylov.steps == krylov.capacity

    def _verify(self) -> Iterator[State]:
        """Recompute residuals, then search complements. What is saved is the state before each search."""
        c, settings = self.counters, self.settings
        if self.locked is None:
            self.locked = Locked.measure(self.operator, self._vectors())
            c["products"] += len(self.locked.values)
            c["passes"] += 1
        c["verified_all"] = False
        before, known = c["products"], self.locked.products
        saved = self._save()
        search = verify(
            self.operator,
            self.locked,
            k=settings.k,
            which=settings.which,
            steps=settings.verify,
            tol=settings.tol,
            floor=c["floor"],
            start=lambda search, i: gaussian(self.problem.size, self.seed, "verify", search, i),
        )
        for locked, done in search:
            spent = before + locked.products - known - c["products"]
            c["products"], c["passes"] = c["products"] + spent, c["passes"] + spent
            c["verified"] += spent
            if locked.searched > self.locked.searched:
                self.locked = locked
                saved = self._save()
            c["verified_all"] = done
            if done or c["products"] >= settings.max_products:
                break
            yield self._state(f"looking for missed eigenvalues, search {locked.searched + 1}", saved=saved)
        c["phase"] = "errors"
        yield self._state("verified")

    def _standard_errors(self) -> None:
        if not self.settings.standard_errors:
            return
        pairs, _ = self._pairs()
        found = standard_errors(
            self.problem,
            pairs.values,
            self._vectors(),
            pairs.residuals + self.counters["floor"],
            seed=self.seed,
            micro_batch=self.strategy["micro_batch"],
        )
        self.counters["standard_error_method"] = found.method
        if not found.values.mask.any():
            self.extra["standard_errors"] = found.values.filled()

    def _wanted(self) -> int:
        return wanted_count(self.settings.k, self.settings.which, self.problem.size)

    def _converged(self, pairs: Pairs) -> int:
        floor = self.counters["floor"]
        return int(has_converged(pairs.values, pairs.residuals, self.settings.tol, floor).sum())

    def _ritz(self) -> Pairs:
        """All Ritz pairs as they stand."""
        return ritz_pairs(self.krylov) if self._every is None else self._every

    def _pairs(self) -> tuple[Pairs, Pairs]:
        """(the wanted pairs, the other Ritz pairs)."""
        if self.krylov.steps == 0:
            nothing = Pairs(np.zeros(0), np.zeros(0), np.zeros((0, 0)))
            return nothing, nothing
        every = self._ritz()
        if self.locked is None:
            chosen = select(every.values, self.settings.k, self.settings.which)
            return every[chosen], every[np.setdiff1d(np.arange(len(every.values)), chosen)]
        found, floor = self.locked, self.counters["floor"]
        others = every[unclaimed(every.values, every.residuals, found.values, found.residuals, floor)]
        return Pairs(found.values, found.residuals, np.zeros((0, len(found.values)))), others

    def _vectors(self) -> Tensor:
        """The wanted Ritz vectors, (k, n) float64, of unit length."""
        if self.locked is not None:
            vectors = self.locked.vectors.double()
        else:
            vectors = self._pairs()[0].vectors(self.krylov.basis)
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return vectors / lengths

    def _state(self, text: str, over: bool = False, saved: Saved | None = None) -> State:
        seconds = self.counters["seconds"] = time.perf_counter() - self.began
        if saved is not None:  # an earlier moment, but all the time was spent
            saved = Saved(saved.arrays, {**saved.counters, "seconds": seconds})
        return State(
            save=self._save if saved is None else lambda: saved,
            done=self.counters["products"],
            total=self._expected(),
            text=text,
            strategy=self.strategy,
            over=over,
        )

    def _expected(self) -> int | None:
        """Products until the end, from how fast the largest residual has been falling; None while unknown."""
        if self.counters["seconds"] < 1.0:  # nobody looks yet
            return None
        logs = np.log(np.array(self.history[-12:]) + 1e-300)
        logs = logs[np.isfinite(logs)]
        pairs = self._pairs()[0] if len(logs) >= 4 else None
        if pairs is None:
            return None
        slope = np.polyfit(np.arange(len(logs)), logs, 1)[0]
        goal = np.log(max(self.counters["floor"], self.settings.tol * np.abs(pairs.values).min(), 1e-300))
        if slope >= -1e-3 or not np.isfinite(goal):
            return None
        left = max(0.0, (logs[-1] - goal) / -slope)
        expected = int(self.counters["products"] + np.ceil(left))
        return min(self.settings.max_products, expected)

    def _save(self) -> Saved:
        krylov, (pairs, others) = self.krylov, self._pairs()
        arrays = {
            "basis": krylov.basis[: krylov.steps + 1].cpu().numpy(),
            "coefficients": krylov.coefficients,
            "lost": krylov.lost,
            "history": np.array(self.history),
            "values": pairs.values,
            "residuals": pairs.residuals,
            "other_values": others.values,
            "other_residuals": others.residuals,
            **self.extra,
        }
        if self.locked is not None:
            arrays["locked_vectors"] = self.locked.vectors.cpu().numpy()
            arrays["locked_images"] = self.locked.images.cpu().numpy()
            arrays["locked_values"] = self.locked.values
            arrays["locked_residuals"] = self.locked.residuals
        counters = {
            **self.counters,
            "steps": krylov.steps,
            "exhausted": krylov.exhausted,
            "breakdowns": krylov.breakdowns,
            "scale": krylov.scale,
            "locked_products": self.locked.products if self.locked else 0,
            "locked_searched": self.locked.searched if self.locked else 0,
        }
        return Saved(arrays, counters)

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        krylov, c = self.krylov, self.counters
        rows = torch.from_numpy(arrays["basis"]).to(krylov.basis)
        krylov.basis[: len(rows)] = rows
        krylov.coefficients[:] = arrays["coefficients"]
        krylov.lost[:] = arrays["lost"]
        krylov.steps, krylov.exhausted = c.pop("steps"), c.pop("exhausted")
        krylov.breakdowns, krylov.scale = c.pop("breakdowns"), c.pop("scale")
        self.history = arrays["history"].tolist()
        products, searched = c.pop("locked_products"), c.pop("locked_searched")
        if "locked_vectors" in arrays:
            self.locked = Locked(
                vectors=torch.from_numpy(arrays["locked_vectors"]).to(krylov.basis),
                images=torch.from_numpy(arrays["locked_images"]).to(self.operator.device),
                values=arrays["locked_values"],
                residuals=arrays["locked_residuals"],
                products=products,
                searched=searched,
            )
        for name in ("standard_errors", "eigenvectors"):
            if name in arrays:
                self.extra[name] = arrays[name]
