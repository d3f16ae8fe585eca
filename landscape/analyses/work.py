"""How the work of an analysis begins, whatever it is about, and how its states are made."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.matrix import MatrixSettings
from landscape.curvature.finite_difference import default_rho, rho_sweep
from landscape.curvature.operators import OperatorChoice, make_operator
from landscape.curvature.products import DataOperator
from landscape.curvature.strategy import Strategy, choose_pieces, choose_strategy
from landscape.linalg.operator import norm
from landscape.linalg.probes import gaussian
from landscape.problem import Evaluation, Problem

__all__ = ["MatrixWork", "Work", "common_fields", "itemsize", "problem_fields"]


def itemsize(problem: Problem) -> int:
    """Bytes of a number in the problem's arithmetic."""
    return torch.finfo(problem.dtype).bits // 8


class Work:
    """The loss is measured, and the way of making passes over the data chosen.

    Attributes:
        strategy: how passes are made, as it is written down.
        counters: what is known so far, in plain values.
        extra: arrays that are saved with whatever else is.
    """

    #: Names of arrays in ``extra`` that a saved state may hold, beside those of the base classes.
    kept: tuple[str, ...] = ()

    def __init__(self, problem: Problem, start: Start) -> None:
        self.problem, self.seed = problem, start.seed
        self.began = time.perf_counter()
        self.extra: dict[str, np.ndarray] = {}
        self.strategy: dict[str, Any] = dict(start.strategy or {})
        self.counters: dict[str, Any]
        if start.saved is None:
            self._measure()
        else:
            self.counters = dict(start.saved.counters)
            known = {name for cls in type(self).__mro__ for name in getattr(cls, "kept", ())}
            self.extra |= {name: a for name, a in start.saved.arrays.items() if name in known}
        self.began -= self.counters["seconds"]

    def _measure(self) -> None:
        """Loss and gradient, and with them the way passes are made."""
        problem = self.problem
        problem.check_deterministic()
        evaluation = self.evaluate()
        problem.check_expected(evaluation.loss)
        self.counters = {
            "loss": evaluation.loss,
            "gradient_norm": norm(evaluation.gradient),
            "accuracy": evaluation.accuracy,
            "unused": problem.selection.layout.count(evaluation.unused),
            "seconds": 0.0,
        }

    def evaluate(self) -> Evaluation:
        """Loss and gradient in one pass; the size of its pieces is chosen unless ``strategy`` knows it."""
        if not self.strategy:
            self.strategy = choose_pieces(self.problem).to_json()
        return self.problem.measure(self.problem.pieces(self.strategy["micro_batch"]))

    def time(self) -> float:
        """Seconds since the run began, interruptions left out."""
        self.counters["seconds"] = time.perf_counter() - self.began
        return float(self.counters["seconds"])

    def state(
        self,
        text: str,
        save: Any,
        *,
        done: int,
        total: int | None,
        over: bool = False,
        at: Saved | None = None,
    ) -> State:
        """A state; ``at`` is an earlier moment to go back to: all of it but the time spent."""
        seconds = self.time()
        if at is not None:
            at = replace(at, counters={**at.counters, "seconds": seconds})
        return State(
            save=save if at is None else lambda: at,
            done=done,
            total=total,
            text=text,
            strategy=self.strategy,
            over=over,
        )


class MatrixWork(Work):
    """And the way of making products chosen, and the matrix set up.

    Attributes:
        operator: the matrix.
    """

    kept: tuple[str, ...] = ("rho_sweep", "rho_errors")

    def __init__(self, problem: Problem, settings: MatrixSettings, start: Start, reserved: int) -> None:
        self.reserved = reserved
        super().__init__(problem, start)
        self.pieces = Strategy(**{name: self.strategy[name] for name in Strategy.__dataclass_fields__})
        self.operator = self._operator(settings, fresh=start.saved is None)

    def _measure(self) -> None:
        super()._measure()
        self.counters |= {"products": 0, "passes": 0, "floor": 0.0}

    def evaluate(self) -> Evaluation:
        """Loss, gradient and the way products are to be made."""
        if self.strategy:
            return self.problem.measure(self.problem.pieces(self.strategy["micro_batch"]))
        chosen, evaluation = choose_strategy(self.problem, self.reserved)
        self.strategy = chosen.to_json()
        return evaluation

    def _operator(self, settings: MatrixSettings, fresh: bool) -> DataOperator:
        """The matrix; where steps of differences are tried, that comes first."""
        c = self.counters
        if settings.uses_differences and fresh:
            self._choose_rho(settings)
        choice = OperatorChoice(
            settings.operator, c.get("rho"), settings.difference or "central", settings.label_samples or 1
        )
        return make_operator(self.problem, self.pieces, choice, seed=self.seed)

    def _choose_rho(self, settings: MatrixSettings) -> None:
        """The step of the differences, as given, by the precision, or tried on a vector rich in curvature."""
        c, kind = self.counters, settings.difference or "central"
        c["rho"] = default_rho(self.problem, kind) if settings.rho is None else settings.rho
        if not settings.rho_sweep:
            return
        choice = OperatorChoice("finite-difference", None, kind)
        random = gaussian(self.problem.size, self.seed, "sweep")
        unit = (random / norm(random)).to(self.problem.device, self.problem.dtype)
        image = make_operator(self.problem, self.pieces, choice).apply(unit[None])[0]
        along = image if norm(image) > 0 else unit
        found = rho_sweep(self.problem, self.pieces, along, kind)
        c |= {"rho": found.best, "rho_error": found.error, "rho_against": found.against}
        self.extra |= {"rho_sweep": found.rhos, "rho_errors": found.errors}

    def product_error(self, image: Tensor, operator: Any = None) -> float:
        """What a product is wrong by, measured along the unit vector of ``image`` (n,), a product itself.

        The image of a random vector is rich in the directions of large curvature, along which products are
        largest and most wrong.
        """
        operator, length = operator or self.operator, norm(image)
        vector = image / length if length > 0 else gaussian(operator.size, self.seed, "error").to(image)
        return float(operator.error((vector / norm(vector)).to(operator.dtype)))

    def spent(self, products: int, passes: int) -> None:
        """Count products."""
        self.counters["products"] += products
        self.counters["passes"] += passes


def problem_fields(problem: Problem, saved: Saved) -> dict[str, Any]:
    """The fields of a result that every analysis of a model fills in alike."""
    c = saved.counters
    return {
        "loss": c["loss"],
        "gradient_norm": c["gradient_norm"],
        "accuracy": c["accuracy"],
        "examples": problem.examples,
        "terms": problem.terms,
        "parameters": problem.size,
        "frozen_parameters": problem.selection.frozen,
        "tied_parameters": problem.selection.tied,
        "unused_parameters": c["unused"],
    }


def common_fields(problem: Problem, settings: MatrixSettings, saved: Saved) -> dict[str, Any]:
    """The fields of a result that every analysis of a matrix fills in alike."""
    c, a = saved.counters, saved.arrays
    return {
        **problem_fields(problem, saved),
        "operator": settings.operator,
        "noise_floor": c["floor"],
        "products": c["products"],
        "passes": c["passes"],
        "seconds": c["seconds"],
        "label_samples": (settings.label_samples or 1) if settings.operator == "fisher" else None,
        "rho": c.get("rho"),
        "difference": (settings.difference or "central") if settings.uses_differences else None,
        "rho_sweep": a.get("rho_sweep"),
        "rho_errors": a.get("rho_errors"),
        "rho_error": c.get("rho_error"),
        "rho_against": c.get("rho_against"),
    }
