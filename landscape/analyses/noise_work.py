"""The work behind ``landscape noise``, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.noise import Settings
from landscape.analyses.noise_result import CONFIDENCE, NOISE, batch_draws, ends, figures
from landscape.analyses.work import Work, itemsize
from landscape.curvature.alignment import ExampleNoise, chunk_size
from landscape.curvature.operators import OperatorChoice, make_operator
from landscape.curvature.products import DataOperator
from landscape.curvature.strategy import Strategy, choose_strategy
from landscape.errors import ComputationError, ConfigurationError, DataError
from landscape.linalg.alignment import JointTraces, joint_basis, narrow
from landscape.linalg.eigenpairs import Pairs, basis_size, eigenpairs
from landscape.linalg.lanczos import Krylov
from landscape.linalg.noise import noise_floor
from landscape.linalg.operator import norm
from landscape.linalg.probes import derived_seed, gaussian
from landscape.problem import Evaluation, Problem
from landscape.results import EigenResult, Result
from landscape.sam.passes import loss_and_gradient
from landscape.sam.passes import norm as length

__all__ = ["NoiseWork"]

#: Residual of an eigenpair, relative to its value, that is good enough.
_TOL = 1e-3
#: Random vectors that there is always room for.
_FEWEST = 8
#: Vectors multiplied at once: a graph built anew for each block then costs little beside its products.
_BLOCK = 4


class NoiseWork(Work):
    """One run of ``noise``: eigenspaces, examples, joint traces, mini-batches.

    Attributes:
        names: the matrices, the noise first.
        done: arrays of the phases that are over.
    """

    def __init__(
        self, problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
    ) -> None:
        _check(problem)
        self.settings, self.names = settings, (NOISE, *settings.matrices)
        self.done: dict[str, np.ndarray] = {}
        self.now: Callable[[], dict[str, np.ndarray]] = dict
        super().__init__(problem, start)
        pieces = Strategy(**{name: self.strategy[name] for name in Strategy.__dataclass_fields__})
        self.pieces = replace(pieces, kept_pieces=pieces.kept_pieces // len(self.names))
        self.gradient: Tensor
        if start.saved is None:
            self.done["gradient"] = self._gradient.cpu().numpy()
            self._begin(inputs.get("eigen"))
        else:
            self.done = dict(start.saved.arrays)
        self.gradient = torch.from_numpy(np.array(self.done["gradient"])).to(problem.device)
        self.operators = {name: self._operator(name) for name in self.names}

    def evaluate(self) -> Evaluation:
        """Loss, gradient and the way products are to be made."""
        if self.strategy:
            found = self.problem.measure(self.problem.pieces(self.strategy["micro_batch"]))
        else:
            basis = basis_size(self._k, "largest", self.problem.size, 0, itemsize(self.problem))
            chosen, found = choose_strategy(
                self.problem, 2 * basis * self.problem.size * itemsize(self.problem)
            )
            self.strategy = chosen.to_json()
        self._gradient = found.gradient
        return found

    def _begin(self, found: Result | None) -> None:
        problem, c = self.problem, self.counters
        bytes_, size = problem.memory // 4, itemsize(problem)
        self.strategy.setdefault("basis", basis_size(self._k, "largest", problem.size, bytes_, size))
        self.strategy.setdefault("chunk", chunk_size(problem, self.strategy["micro_batch"], bytes_))
        room = bytes_ // max(1, (len(self.names) + 1) * problem.size * size)
        self.strategy.setdefault("stored", int(max(_FEWEST, min(room, self.settings.max_products))))
        c |= {"products": 0, "passes": 0, "floors": {}, "taken_over": False, "batch_reason": ""}
        c |= {"silent": False, "met": False, "looks": [], "over": False}
        decay = problem.weight_decay / 2 * norm(problem.selection.flat()) ** 2
        c["data_loss"] = c["loss"] - decay
        if isinstance(found, EigenResult):
            self._take_over(found)

    def _take_over(self, found: EigenResult) -> None:
        """The Hessian's top eigenvectors from a stored run."""
        assert found.eigenvectors is not None
        k = self._k
        values = np.asarray(found.eigenvalues)[: k + 1]
        residuals = np.asarray(found.residuals)[: k + 1]
        vectors = torch.from_numpy(np.array(found.eigenvectors[:k])).to(self.problem.dtype)
        self._store("hessian", values, residuals, vectors, len(vectors))
        self.counters["floors"]["hessian"] = found.noise_floor
        self.counters["taken_over"] = True

    @property
    def _k(self) -> int:
        return min(self.settings.k, self.problem.size)

    def _operator(self, name: str) -> DataOperator:
        given = self.gradient if name == NOISE else None
        try:
            return make_operator(self.problem, self.pieces, OperatorChoice(name), gradient=given)
        except ConfigurationError as error:
            raise self._other(error) from error

    def _other(self, error: ComputationError | ConfigurationError) -> ComputationError | ConfigurationError:
        """The error with what to do about it here, where it is about the Gauss-Newton matrix."""
        do = error.do.replace("--operator hessian", "--against hessian")
        return type(error)(error.what, found=error.found, do=do)

    def _apply(self, name: str, vectors: Tensor) -> Tensor:
        try:
            products = self.operators[name].apply(vectors)
        except ComputationError as error:
            raise self._other(error) from error
        self.counters["products"] += len(vectors)
        self.counters["passes"] += 1
        return products

    # --- the phases --------------------------------------------------------------------------------------

    def run(self) -> Iterator[State]:
        """All phases that are not over yet; after each of their steps a state."""
        yield self._state("measuring")
        for name in self.settings.matrices:
            yield from self._space(name)
        noise = self._noise()
        yield from self._examples(noise)
        if not self.counters["silent"]:
            yield from self._space(NOISE)
            yield from self._joint(noise)
        for operator in self.operators.values():
            operator.release()
        yield from self._batches()
        self.counters["over"] = True
        yield self._state("done", over=True)

    def _space(self, name: str) -> Iterator[State]:
        """The top eigenvectors of a matrix, by Lanczos."""
        if f"{name}_values" in self.done:
            return
        krylov = self._krylov(name)
        self.now = lambda: _krylov_arrays(krylov)
        fair = self.settings.max_products // (2 * len(self.names))
        limit = max(self._k + 2, min(4 * self._k + 40, fair))
        search = eigenpairs(
            _Counted(self, name),
            krylov,
            k=self._k,
            which="largest",
            tol=_TOL,
            floor=partial(self._floor, name),
            fresh=partial(gaussian, self.problem.size, self.seed, "fresh", name),
        )
        before = self.counters["products"] - self.counters.pop("spent", 0)
        for _, found, over in search:
            pairs = found
            self.counters["krylov"] = [krylov.steps, krylov.exhausted, krylov.breakdowns, krylov.scale]
            self.counters["spent"] = spent = self.counters["products"] - before
            if over or spent >= limit:
                break
            yield self._state(f"eigenvectors of the {self.operators[name].title} matrix")
        self._keep(name, pairs, krylov)
        self.now = dict
        for counter in ("krylov", "spent"):
            self.counters.pop(counter, None)
        self.operators[name].release()
        yield self._state("eigenvectors found")

    def _krylov(self, name: str) -> Krylov:
        """A new decomposition, or the one that was under way."""
        first = gaussian(self.problem.size, self.seed, "start", name)
        krylov = Krylov.start(self.operators[name], first, self.strategy["basis"])
        if "krylov" in self.counters:
            rows = torch.from_numpy(np.array(self.done.pop("krylov_basis"))).to(krylov.basis)
            krylov.basis[: len(rows)] = rows
            krylov.coefficients[:] = self.done.pop("krylov_coefficients")
            krylov.lost[:] = self.done.pop("krylov_lost")
            krylov.steps, krylov.exhausted, krylov.breakdowns, krylov.scale = self.counters["krylov"]
        return krylov

    def _floor(self, name: str, krylov: Krylov) -> float:
        """What a product can be wrong by, measured along the image of a random vector."""
        floors = self.counters["floors"]
        error = f"{name}_error"
        if error not in floors:
            image = krylov.basis[int(not krylov.exhausted)].double()
            floors[error] = float(self.operators[name].error((image / norm(image)).to(krylov.basis.dtype)))
        floors[name] = noise_floor(krylov, floors[error], 0.0)
        return float(floors[name])

    def _keep(self, name: str, pairs: Pairs, krylov: Krylov) -> None:
        assert pairs.among is not None
        vectors = pairs.vectors(krylov.basis)
        vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        k = len(pairs.values)
        values, residuals = pairs.among.values[: k + 1], pairs.among.residuals[: k + 1]
        self._store(name, values, residuals, vectors.to(krylov.basis.dtype), k)

    def _store(
        self, name: str, values: np.ndarray, residuals: np.ndarray, vectors: Tensor, count: int
    ) -> None:
        """Pairs of a matrix, and the value that follows them where it is known."""
        self.done[f"{name}_values"], self.done[f"{name}_residuals"] = values[:count], residuals[:count]
        self.done[f"{name}_next"] = np.array([values[count:], residuals[count:]])
        self.done[f"{name}_vectors"] = vectors.cpu().numpy()

    def _vectors(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.done[f"{name}_vectors"])).to(self.problem.device)

    def _noise(self) -> ExampleNoise:
        spaces = [self._vectors(name) for name in self.settings.matrices]
        noise = ExampleNoise(self.problem, self.gradient, spaces)
        own = _named(self.done, "examples_")
        if own:
            noise.restore(own)
        return noise

    def _examples(self, noise: ExampleNoise) -> Iterator[State]:
        """The gradients of single examples."""
        if "shares" in self.done:
            return
        self.now = lambda: _prefixed("examples_", noise.arrays())
        chunk = min(self.strategy["chunk"], self.strategy["micro_batch"])
        for _ in noise.run(chunk):
            yield self._state("gradients of single examples")
        if len(noise.terms) < 2:
            raise DataError(
                "the covariance of gradients takes at least two examples",
                found=f"{len(noise.terms)} with terms",
                do="give more data",
            )
        self.done["shares"] = np.array([noise.share(i) for i in range(len(noise.spaces))])
        self.done |= self.now()
        self.now = dict
        self.counters |= {
            "silent": noise.silent,
            "noise_trace": 0.0 if noise.silent else noise.trace,
            "noise_trace_error": 0.0 if noise.silent else noise.trace_error,
        }
        yield self._state("gradients of single examples done")

    def _joint(self, noise: ExampleNoise) -> Iterator[State]:
        """Products with the basis and with random vectors, until the cosines are known well enough."""
        if "figures" in self.counters:
            return
        joint = self._joint_traces()
        plan = joint.plan(self.settings.tol, CONFIDENCE)
        self.now = lambda: _prefixed("joint_", joint.arrays())
        looks = self.counters["looks"]
        while len(looks) < len(plan):
            stage = plan[len(looks)]
            if joint.due(stage):
                found = joint.cosines(stage.risk)
                looks.append([self.counters["products"], *([e.value, e.half_width] for e in found)])
                if narrow(found, self.settings.tol):
                    break
                continue
            vectors = joint.next_vectors()
            joint.take(vectors, [self._apply(name, vectors) for name in self.names])
            self.counters["joint"] = joint.counters()
            yield self._state(self._words())
        self.now = dict
        self._finish_joint(joint, plan[len(looks) - 1].risk, noise.diagonal)
        yield self._state("alignment measured")

    def _joint_traces(self) -> JointTraces:
        operators = [self.operators[name] for name in self.names]
        draw = partial(gaussian, self.problem.size, self.seed)
        if "joint" in self.counters:
            own = _named(self.done, "joint_")
            self._forget("joint_")
            return JointTraces.restored(operators, draw, own, self.counters["joint"], _BLOCK)
        q, left = len(self.names), self.settings.max_products - self.counters["products"]
        each = max(0, min(left // 2, left - _FEWEST * q)) // q**2
        spaces = [self._vectors(name)[:each] for name in (*self.settings.matrices, NOISE)]
        basis = joint_basis(spaces, self.problem.dtype)
        most = min(self.strategy["stored"], (left - q * len(basis)) // q)
        joint = JointTraces(operators, basis, draw, most, _BLOCK)
        joint.floors = [self.counters["floors"][name] for name in self.names]
        return joint

    def _finish_joint(self, joint: JointTraces, risk: float, diagonal: Tensor) -> None:
        c = self.counters
        c["figures"] = figures(joint, self.settings.matrices, c["data_loss"], risk)
        c["rows"], c["probes"] = len(joint.basis), joint.probes
        met = narrow(joint.cosines(risk), self.settings.tol)
        c["met"] = met or joint.exact_everywhere or not self.settings.tol
        for a, name in enumerate(self.settings.matrices, start=1):
            found, reliability = joint.diagonal_correlation(a, diagonal, risk)
            c["figures"][f"diagonal_{name}"] = [*ends(found), reliability]

    def _batches(self) -> Iterator[State]:
        """Gradients of mini-batches of 1, 2, 4, … examples, each drawn without replacement."""
        problem, c = self.problem, self.counters
        if problem.data.batches is None:
            c["batch_reason"] = "the data are not in memory: raise --memory, or use --samples"
            return
        usable = torch.from_numpy(np.array(self.done["examples_examples"]))
        for i, (size, draws) in enumerate(batch_draws(len(usable), self.settings.draws)):
            found = np.array(self.done.get(f"batches_{i}", []), dtype=float).tolist()
            while len(found) < draws:
                seed = derived_seed(self.seed, "minibatch", size, len(found))
                order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))
                batch = problem.minibatch(usable[order[:size]].sort().values)
                _, gradient = loss_and_gradient(batch, batch.pieces(self.strategy["micro_batch"]))
                found.append(length(gradient) ** 2)
                self.done[f"batches_{i}"] = np.array(found)
                yield self._state(f"mini-batches of {size}")

    # --- states ------------------------------------------------------------------------------------------

    def _words(self) -> str:
        if not self.counters["looks"]:
            return "alignment"
        value, width = self.counters["looks"][-1][1]
        return f"cosine {value:.4f} ± {width:.1g}"

    def _state(self, text: str, over: bool = False) -> State:
        q = len(self.names)
        expected = q * (round(3.5 * self._k) + 5 + _FEWEST)
        done = self.counters["products"]
        return self.state(text, self._save, done=done, total=max(done, expected), over=over)

    def _forget(self, prefix: str) -> None:
        for name in [name for name in self.done if name.startswith(prefix)]:
            del self.done[name]

    def _save(self) -> Saved:
        return Saved({**self.done, **self.now()}, _copied(self.counters))


class _Counted:
    """A matrix whose products are counted by the work."""

    def __init__(self, work: NoiseWork, name: str) -> None:
        operator = work.operators[name]
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.error = operator.error
        self._work, self._name = work, name

    def apply(self, vectors: Tensor) -> Tensor:
        return self._work._apply(self._name, vectors)


def _krylov_arrays(krylov: Krylov) -> dict[str, np.ndarray]:
    return {
        "krylov_basis": krylov.basis[: krylov.steps + 1].cpu().numpy(),
        "krylov_coefficients": krylov.coefficients.copy(),
        "krylov_lost": krylov.lost.copy(),
    }


def _prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _copied(counters: Mapping[str, Any]) -> dict[str, Any]:
    """Counters as they are now, whatever is added to their lists later."""
    return {
        name: list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else value
        for name, value in counters.items()
    }


def _check(problem: Problem) -> None:
    if problem.train_mode:
        raise ConfigurationError(
            "the noise of the gradient needs the gradient of each example by itself",
            found="train mode, where the examples of a batch may depend on each other",
            do="leave --train-mode out",
        )
    if problem.examples < 2:
        raise DataError(
            "the covariance of gradients takes at least two examples",
            found=f"{problem.examples} example",
            do="give more data",
        )
