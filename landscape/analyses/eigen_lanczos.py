"""``landscape eigen`` by Lanczos: the search and its verification, product by product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Start, State
from landscape.analyses.eigen_warm import digest, known_vectors
from landscape.analyses.eigen_work import Work
from landscape.analyses.work import itemsize
from landscape.linalg.bounds import unclaimed
from landscape.linalg.eigenpairs import Pairs, basis_size, eigenpairs, ritz_pairs, select
from landscape.linalg.lanczos import Krylov
from landscape.linalg.noise import noise_floor
from landscape.linalg.probes import gaussian
from landscape.linalg.verify import Locked, verify
from landscape.linalg.warm import warm_vector

__all__ = ["LanczosWork"]

#: What belongs to the search in a saved state, beside the arrays.
_COUNTERS = ("steps", "exhausted", "breakdowns", "scale", "locked_products", "locked_searched")


class LanczosWork(Work):
    """Thick-restart Lanczos, then searches of the complement if asked for."""

    def prepare(self, start: Start) -> None:
        s = self.settings
        self.locked: Locked | None = None
        self._every: Pairs | None = None
        if start.saved is None:
            basis = basis_size(
                s.k, s.which, self.problem.size, self.problem.memory // 4, itemsize(self.problem)
            )
            self.strategy.setdefault("basis", basis)
            self.counters |= {"first_steps": 0, "first_top": 0.0, "first_bottom": 0.0, "restarted": False}
        self.krylov = Krylov.start(self.operator, self._first(start), self.strategy["basis"])
        if start.saved is not None:
            self._restore(start.saved.arrays)

    def _first(self, start: Start) -> Tensor:
        """Where the search begins: at random, or from another checkpoint's eigenvectors if they are given."""
        s, size = self.settings, self.problem.size
        if start.saved is None and s.method == "lanczos":
            known = known_vectors(self.problem, start.vectors)
            self.counters["warm"] = known is not None
            if known is not None:
                self.strategy["warm"] = True
                random = gaussian(size, self.seed, "warm start", digest(known))
                return warm_vector(known, random, s.which, self._tol)
        return gaussian(size, self.seed, "start")

    def _phases(self) -> dict[str, Callable[[], Iterator[State]]]:
        return {**super()._phases(), "verify": self._verify}

    def _fresh(self, index: int) -> Tensor:
        return gaussian(self.problem.size, self.seed, "fresh", index)

    def _floor(self, krylov: Krylov) -> float:
        """What a product can be wrong by; the error of products is measured once the second vector is there.

        That vector is the image of a random one, so it is rich in the directions of large curvature, along
        which products are largest and most wrong.
        """
        c = self.counters
        if krylov.steps == 1:
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
            tol=self._tol,
            floor=self._floor,
            fresh=self._fresh,
        )
        if self.counters["products"] < self._limit:
            for krylov, pairs, done in search:
                self._note_progress(krylov, pairs)
                if done or self.counters["products"] >= self._limit:
                    break
                yield self._state(f"{self._converged(pairs)} of {self._wanted()} pairs converged")
        self._go_on()
        yield self._state("search over")

    def _note_progress(self, krylov: Krylov, pairs: Pairs) -> None:
        c = self.counters
        self._every = pairs.among
        self._note(pairs)
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
            self.spent(len(self.locked.values), 1)
        c["verified_all"] = False
        before, known = c["products"], self.locked.products
        saved = self._save()
        search = verify(
            self.operator,
            self.locked,
            k=settings.k,
            which=settings.which,
            steps=settings.verify,
            tol=self._tol,
            floor=c["floor"],
            start=lambda search, i: gaussian(self.problem.size, self.seed, "verify", search, i),
        )
        for locked, done in search:
            spent = before + locked.products - known - c["products"]
            self.spent(spent, spent)
            c["verified"] += spent
            if locked.searched > self.locked.searched:
                self.locked = locked
                saved = self._save()
            c["verified_all"] = done
            if done or c["products"] >= self._limit:
                break
            yield self._state(f"looking for missed eigenvalues, search {locked.searched + 1}", at=saved)
        self._go_on()
        yield self._state("verified")

    def _ritz(self) -> Pairs:
        """All Ritz pairs as they stand."""
        return ritz_pairs(self.krylov) if self._every is None else self._every

    def _lanczos_pairs(self) -> tuple[Pairs, Pairs]:
        """(the wanted pairs, the other Ritz pairs) of the search."""
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

    def _pairs(self) -> tuple[Pairs, Pairs]:
        return self._lanczos_pairs()

    def _lanczos_vectors(self) -> Tensor:
        """The wanted Ritz vectors of the search, (k, n) float64, of unit length."""
        if self.locked is not None:
            vectors = self.locked.vectors.double()
        else:
            vectors = self._lanczos_pairs()[0].vectors(self.krylov.basis)
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return vectors / lengths

    def _vectors(self) -> Tensor:
        return self._lanczos_vectors()

    def _keep(self) -> None:
        krylov = self.krylov
        if self.settings.krylov and krylov.steps:
            self.extra["krylov_relation"] = krylov.relation.copy()
            self.extra["krylov_basis"] = krylov.basis[: krylov.steps + 1].cpu().numpy()

    def _saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        krylov = self.krylov
        arrays = {
            "basis": krylov.basis[: krylov.steps + 1].cpu().numpy(),
            "coefficients": krylov.coefficients,
            "lost": krylov.lost,
        }
        if self.locked is not None:
            arrays["locked_vectors"] = self.locked.vectors.cpu().numpy()
            arrays["locked_images"] = self.locked.images.cpu().numpy()
            arrays["locked_values"] = self.locked.values
            arrays["locked_residuals"] = self.locked.residuals
        values = (
            krylov.steps,
            krylov.exhausted,
            krylov.breakdowns,
            krylov.scale,
            self.locked.products if self.locked else 0,
            self.locked.searched if self.locked else 0,
        )
        return arrays, dict(zip(_COUNTERS, values, strict=True))

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
