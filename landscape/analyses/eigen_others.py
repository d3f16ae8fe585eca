"""``landscape eigen`` by power iteration, from the whole matrix, and by the package pyhessian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Start, State
from landscape.analyses.eigen_work import Work
from landscape.errors import ConfigurationError
from landscape.linalg.dense import dense_bytes, dense_matrix, dense_spectrum
from landscape.linalg.eigenpairs import Pairs, select
from landscape.linalg.noise import rounding_floor
from landscape.linalg.operator import norm
from landscape.linalg.power import Power, power_iteration
from landscape.linalg.probes import gaussian

__all__ = ["DenseWork", "PeerWork", "PowerWork"]

_NOTHING = Pairs(np.zeros(0), np.zeros(0), np.zeros((0, 0)))
#: Rows of a dense matrix made in one pass.
_BLOCK = 64


def _pairs(values: np.ndarray, residuals: np.ndarray) -> Pairs:
    return Pairs(values, residuals, np.zeros((0, len(values))))


class PowerWork(Work):
    """Power iteration with deflation."""

    def prepare(self, start: Start) -> None:
        if start.saved is None:
            self.power = Power.start(self.operator, self._fresh)
            return
        self.power = Power.restore(start.saved.arrays, self.counters, self.operator.device)
        self.history = start.saved.arrays["history"].tolist()

    def _fresh(self, index: int) -> Tensor:
        return gaussian(self.problem.size, self.seed, "power", index)

    def _floor(self, power: Power) -> float:
        c = self.counters
        if c["product_length"] == 0.0 and power.image is not None and power.scale > 0:
            c["product_error"], c["product_length"] = self.product_error(power.image), norm(power.image)
        growth = max(1.0, power.scale / c["product_length"]) if c["product_length"] else 1.0
        rounding = rounding_floor(self.problem.dtype, power.scale, len(power.found.values))
        c["floor"] = c["product_error"] * growth + rounding
        return float(c["floor"])

    def _search(self) -> Iterator[State]:
        s = self.settings
        search = power_iteration(
            self.operator,
            self.power,
            k=s.k,
            which=s.which,
            tol=self._tol,
            floor=self._floor,
            fresh=self._fresh,
        )
        if self.counters["products"] < self._limit:
            for power, done in search:
                self.power = power
                pairs = self._pairs()[0]
                self._note(pairs)
                if done or self.counters["products"] >= self._limit:
                    break
                yield self._state(f"{len(self.power.found.values)} of {self._wanted()} pairs converged")
        self._go_on()
        yield self._state("search over")

    def _pairs(self) -> tuple[Pairs, Pairs]:
        found = self.power.pairs()
        return _pairs(found.values, found.residuals), _NOTHING

    def _vectors(self) -> Tensor:
        vectors = self.power.pairs().vectors.double()
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return vectors / lengths

    def _saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self.power.arrays(), self.power.counters()


class DenseWork(Work):
    """The whole matrix, row by row, and all its eigenpairs.

    Raises:
        ConfigurationError: the matrix is larger than the memory.
    """

    def prepare(self, start: Start) -> None:
        size, memory = self.problem.size, self.problem.memory
        if dense_bytes(size, _BLOCK) > memory:
            raise ConfigurationError(
                f"--method dense needs {dense_bytes(size, _BLOCK) / 1e9:.3g} GB for {size} parameters",
                found=f"{memory / 1e9:.3g} GB to use",
                do="use --method lanczos, restrict --params, or raise --memory",
            )
        self.matrix: Tensor | None = None
        self.found: tuple[Pairs, Pairs] = (_NOTHING, _NOTHING)
        self.vectors = torch.zeros((0, size), dtype=torch.float64)
        if self.settings.max_products is not None and size > self.settings.max_products:
            raise ConfigurationError(
                "--method dense makes one product for each parameter",
                found=f"{size} parameters, --max-products {self.settings.max_products}",
                do="leave --max-products out, or use another --method",
            )
        if start.saved is None:
            self.counters["rows"] = 0
            return
        arrays = start.saved.arrays
        if "rows" in arrays:
            self.matrix = torch.from_numpy(arrays["rows"])
        if "vectors" in arrays:
            self.vectors = torch.from_numpy(arrays["vectors"])
            self.found = (
                _pairs(arrays["values"], arrays["residuals"]),
                _pairs(arrays["other_values"], arrays["other_residuals"]),
            )

    def _search(self) -> Iterator[State]:
        c, done = self.counters, self.counters["rows"]
        for matrix, rows in dense_matrix(self.operator, block=_BLOCK, rows=self.matrix, done=done):
            self.matrix = matrix
            self.spent(rows - c["rows"], 1)
            c["rows"] = rows
            yield self._state("rows of the matrix")
        assert self.matrix is not None
        longest = int(torch.linalg.vector_norm(self.matrix, dim=1).argmax())
        c["product_error"] = self.product_error(self.matrix[longest].to(self.operator.device))
        spectrum = dense_spectrum(self.matrix)
        scale = float(np.abs(spectrum.values).max())
        c["asymmetry"] = spectrum.asymmetry
        c["floor"] = c["product_error"] + rounding_floor(torch.float64, scale, self.problem.size)
        chosen = select(spectrum.values, self.settings.k, self.settings.which)
        others = np.setdiff1d(np.arange(len(spectrum.values)), chosen)
        self.found = (
            _pairs(spectrum.values[chosen], spectrum.residuals[chosen]),
            _pairs(spectrum.values[others], spectrum.residuals[others]),
        )
        self.vectors, self.matrix = spectrum.vectors[torch.from_numpy(chosen)], None
        self._go_on()
        yield self._state("spectrum")

    def _expected(self) -> int | None:
        return self.problem.size if self.counters["phase"] == "search" else None

    def _pairs(self) -> tuple[Pairs, Pairs]:
        return self.found

    def _vectors(self) -> Tensor:
        return self.vectors.to(self.operator.device)

    def _saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if self.matrix is not None:
            return {"rows": self.matrix[: self.counters["rows"]].numpy()}, {}
        return {"vectors": self.vectors.numpy()} if len(self.vectors) else {}, {}


class PeerWork(Work):
    """Power iteration as the package pyhessian does it; the residuals of its pairs are ours."""

    def prepare(self, start: Start) -> None:
        self.found = _NOTHING
        self.vectors = torch.zeros((0, self.problem.size), dtype=torch.float64)
        if start.saved is not None and "vectors" in start.saved.arrays:
            self.vectors = torch.from_numpy(start.saved.arrays["vectors"])
            self.found = _pairs(start.saved.arrays["values"], start.saved.arrays["residuals"])

    def _search(self) -> Iterator[State]:
        c = self.counters
        vectors = self._peer(self.settings.k)
        self.found = _pairs(self.extra["peer_values"], self.extra["peer_residuals"])
        self.vectors = vectors.double().cpu()
        self.spent(c["peer_products"], c["peer_products"])
        image = self.operator.apply(vectors[:1])[0]
        self.spent(1, 1)
        scale = float(np.abs(self.found.values).max(initial=0.0))
        c["floor"] = self.product_error(image) + rounding_floor(self.problem.dtype, scale, len(vectors))
        self._go_on()
        yield self._state("search over")

    def _pairs(self) -> tuple[Pairs, Pairs]:
        return self.found, _NOTHING

    def _vectors(self) -> Tensor:
        return self.vectors.to(self.operator.device)

    def _saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"vectors": self.vectors.numpy()} if len(self.vectors) else {}, {}
