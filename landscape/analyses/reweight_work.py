"""The work behind ``landscape reweight``, chunk of examples by chunk, and its result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.reweight import Settings
from landscape.analyses.work import Work, itemsize, problem_fields
from landscape.curvature.strategy import Strategy, graph_bytes_per_example
from landscape.data import Piece, targets_of
from landscape.errors import LandscapeError
from landscape.machine import is_out_of_memory
from landscape.problem import Evaluation, Problem
from landscape.results import ReweightResult
from landscape.sam.per_example import PerExample, per_example, refuse_train_mode
from landscape.sam.reweight import FIGURES, OneSam, area, figures, median, rank_correlation

__all__ = ["ReweightWork", "chosen_chunk", "example_bytes", "reweight_result"]

#: Examples in a chunk beyond which, and bytes beyond which on a processor, it is not done faster.
_LARGEST, _CACHED = 256, 1 << 30
#: Vectors as long as the model that an example takes: its gradients, step and weights, and one in float64.
_VECTORS = 7
#: Examples whose weights are computed again in float64.
_CHECKED = 16
#: The figures that the weights are ratios of, over the norm of the gradient.
_NORMS = {
    "weight": "perturbed_norm",
    "logit_weight": "logit_norm",
    "jacobian_weight": "jacobian_norm",
}


def example_bytes(problem: Problem) -> float:
    """Memory that an example of a chunk takes: graphs at w and at w + ε, and what is as long as the model."""
    return 2 * graph_bytes_per_example(problem) + _VECTORS * problem.size * itemsize(problem)


def chosen_chunk(problem: Problem, each: float) -> int:
    """How many examples are done at once, in chunks of one size."""
    room = problem.memory / 2
    if problem.device.type == "cpu":
        room = min(room, _CACHED)
    largest = max(1, min(int(room / each), _LARGEST, problem.batch_size or problem.examples))
    return -(-problem.examples // -(-problem.examples // largest))


class ReweightWork(Work):
    """One run of ``reweight``.

    ``extra`` holds one number an example for each of the figures, NaN where it is not there yet, ``label``
    and, in the end, ``checked`` (4, k): the numbers of a few examples and errors of their weights.
    """

    kept = (*FIGURES, "label", "checked")

    def __init__(self, problem: Problem, settings: Settings, start: Start) -> None:
        refuse_train_mode(problem)
        self.how = OneSam(settings.rho, settings.relative, settings.p)
        super().__init__(problem, start)
        # After the loss was measured: what is wrong with model or data has been said in its words.
        self.examples = per_example(problem, self.strategy.get("vectorised"))
        self.strategy.setdefault("vectorised", self.examples.vectorised)
        self.strategy.setdefault("reason", self.examples.reason)
        if start.saved is None:
            nothing = np.full(problem.examples, math.nan)
            self.extra |= {name: nothing.copy() for name in FIGURES}
            self.counters |= {"done": 0, "checked": False, "against": ""}
        else:
            self.extra = {name: np.array(a) for name, a in self.extra.items()}

    def evaluate(self) -> Evaluation:
        """Loss and gradient, in chunks of the size that the examples are done in."""
        if not self.strategy:
            problem, each = self.problem, example_bytes(self.problem)
            chunk = chosen_chunk(problem, each)
            pieces = -(-problem.examples // chunk)
            self.strategy = Strategy(chunk, pieces, 0, int(each * chunk)).to_json()
        return super().evaluate()

    def run(self) -> Iterator[State]:
        """Chunk by chunk, and a few examples once more."""
        yield self._state("measuring")
        while (piece := self._next()) is not None:
            self._measure_examples(piece)
            yield self._state("examples")
        if not self.counters["checked"]:
            self._check()
            self.counters["checked"] = True
        yield self._state("done", over=True)

    def _next(self) -> Piece | None:
        """The examples that come next; a chunk that was begun in other sizes is gone on with."""
        done: int = self.counters["done"]
        for piece in self.problem.pieces(self.strategy["micro_batch"]):
            if piece.first >= done:
                return piece
            if piece.first + piece.examples > done:
                rest = slice(done - piece.first, None)
                for part in self.problem.cut(piece, rest):
                    return Piece(part.batch, part.examples, part.terms, done)
        self.counters["done"] = self.problem.examples
        return None

    def _measure_examples(self, piece: Piece) -> None:
        rows = slice(piece.first, piece.first + piece.examples)
        found = self.examples.over(piece, partial(figures, how=self.how))
        for name, values in zip(FIGURES, found, strict=True):
            self.extra[name][rows] = values.cpu().numpy()
        labels = _labels(self.problem, piece)
        if labels is not None:
            self.extra.setdefault("label", np.zeros(self.problem.examples, dtype=np.int64))[rows] = labels
        self.counters["done"] = rows.stop

    def _check(self) -> None:
        """Weights of a few examples, low loss to high, against those in float64 and one by one."""
        chosen = _spread(self.extra["loss"], weights_of(self.extra)["weight"])
        for dtype, words in ((torch.float64, "float64"), (self.problem.dtype, "its own precision")):
            try:
                again = self._again(chosen, self.examples.one_by_one(dtype))
            except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
                if is_out_of_memory(error):
                    raise
                continue  # a model that does not run in float64
            self.counters["against"] = f"{words}, one by one"
            self.extra["checked"] = np.stack([chosen, *_errors(self.extra, again, chosen)])
            return
        self.extra["checked"] = np.zeros((4, 0))

    def _again(self, chosen: np.ndarray, slow: PerExample) -> dict[str, np.ndarray]:
        found: dict[str, list[float]] = {name: [] for name in FIGURES}
        for piece in self.problem.pieces(self.strategy["micro_batch"]):
            own = chosen[(chosen >= piece.first) & (chosen < piece.first + piece.examples)] - piece.first
            for part in self.problem.cut(piece, torch.from_numpy(own).to(self.problem.device)):
                values = slow.over(slow.problem.recast(part), partial(figures, how=self.how))
                for name, column in zip(FIGURES, values, strict=True):
                    found[name] += column.tolist()
        return {name: np.array(values) for name, values in found.items()}

    def _state(self, text: str, over: bool = False) -> State:
        return self.state(
            text, self._save, done=self.counters["done"], total=self.problem.examples, over=over
        )

    def _save(self) -> Saved:
        how = {
            "vectorised": self.strategy["vectorised"],
            "reason": self.strategy["reason"],
            "separable": self.examples.separable,
            "chunk": self.strategy["micro_batch"],
        }
        return Saved({name: array.copy() for name, array in self.extra.items()}, {**self.counters, **how})


def _labels(problem: Problem, piece: Piece) -> np.ndarray | None:
    """The labels of a piece's examples, if each has one."""
    if problem.loss.whole or not problem.loss.classes:
        return None
    targets = targets_of(piece.batch)
    if targets.is_floating_point() or targets.ndim != 1:
        return None
    labels: np.ndarray = targets.cpu().numpy().astype(np.int64)
    return labels


def weights_of(arrays: Any) -> dict[str, np.ma.MaskedArray]:
    """The three weights of each example, masked where it has none."""
    norm = arrays["gradient_norm"]
    there = np.isfinite(norm) & (norm > 0) & (arrays["terms"] > 0)
    weights = {}
    for name, column in _NORMS.items():
        with np.errstate(all="ignore"):
            ratio = arrays[column] / norm
        weights[name] = np.ma.MaskedArray(
            np.where(there, ratio, math.nan), mask=~(there & np.isfinite(ratio))
        )
    return weights


def _spread(loss: np.ndarray, weight: np.ma.MaskedArray) -> np.ndarray:
    """Numbers of a few examples that have a weight, evenly spread from the lowest loss to the highest."""
    there = np.flatnonzero(~np.ma.getmaskarray(weight))
    ordered = there[np.argsort(loss[there], kind="stable")]
    places = np.unique(np.linspace(0, max(len(ordered) - 1, 0), _CHECKED).round().astype(int))
    return np.sort(ordered[places]) if len(ordered) else ordered


def _errors(found: Any, again: dict[str, np.ndarray], chosen: np.ndarray) -> list[np.ndarray]:
    """Relative errors of the three weights of the chosen examples; NaN for a part that there is not."""
    ours = weights_of({name: found[name][chosen] for name in FIGURES})
    theirs = weights_of(again)
    with np.errstate(all="ignore"):
        return [np.abs(ours[name].data / theirs[name].data - 1) for name in _NORMS]


def reweight_result(problem: Problem, settings: Settings, saved: Saved) -> ReweightResult:
    """The result of the examples that there are."""
    a, c = saved.arrays, saved.counters
    weights, norm, done = weights_of(a), a["gradient_norm"], c["done"]
    reached = np.arange(problem.examples) < done
    with_terms = reached & (a["terms"] > 0)
    known, zero = ~np.ma.getmaskarray(weights["weight"]), with_terms & (norm == 0)
    rows = problem.data.rows
    fields: dict[str, Any] = dict(weights)
    noisy = None if problem.noisy is None else problem.noisy.numpy()
    right = np.ma.MaskedArray(a["hits"] / np.maximum(a["labels"], 1), mask=~(a["labels"] > 0))
    return ReweightResult(
        status="complete" if done == problem.examples and c["checked"] else "partial",
        p=settings.p,
        rho=settings.rho,
        relative=settings.relative,
        weight_decay=problem.weight_decay,
        index=np.arange(problem.examples) if rows is None else rows.numpy(),
        example_loss=np.ma.MaskedArray(a["loss"], mask=~with_terms),
        example_gradient_norm=np.ma.MaskedArray(norm, mask=~with_terms),
        label=np.ma.MaskedArray(a["label"], mask=~reached) if "label" in a else None,
        right=None if right.mask.all() else right,
        noisy=noisy,
        zero_gradients=int(zero.sum()),
        without_terms=int((reached & ~with_terms).sum()),
        overflowed=int((with_terms & ~zero & ~known).sum()),
        not_reached=int((~reached).sum()),
        method="vectorised" if c["vectorised"] else "one by one",
        method_reason=c["reason"],
        separable=c["separable"],
        chunk=c["chunk"],
        seconds=c["seconds"],
        **fields,
        **_rounding(a.get("checked"), c["against"]),
        **_correlation(weights["weight"], a["loss"], known),
        **_groups(weights, a["loss"], known, noisy),
        **_areas(weights["weight"], a["loss"], known, noisy),
        **problem_fields(problem, saved),
    )


def _rounding(checked: np.ndarray | None, against: str) -> dict[str, Any]:
    """The errors of the weights that were computed twice, all parts together."""
    errors = np.zeros(0) if checked is None else checked[1:][np.isfinite(checked[1:])]
    if checked is None or not len(errors):
        return {}
    return {
        "rounding": float(errors.max()),
        "rounding_typical": float(np.median(errors)),
        "rounding_examples": checked.shape[1],
        "rounding_against": against,
    }


def _correlation(weight: np.ma.MaskedArray, loss: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    found, interval = rank_correlation(weight.data[known], loss[known])
    return {"rank_correlation": found, "rank_correlation_interval": np.array(interval)}


def _groups(
    weights: dict[str, np.ma.MaskedArray], loss: np.ndarray, known: np.ndarray, noisy: np.ndarray | None
) -> dict[str, Any]:
    """Medians of losses and weights, of all examples that have a weight and of the clean and noisy ones."""
    groups = {"all": known}
    if noisy is not None:
        groups |= {"clean": known & ~noisy, "noisy": known & noisy}
    fields: dict[str, Any] = {
        "groups": np.array(list(groups), dtype=object),
        "group_examples": np.array([int(group.sum()) for group in groups.values()]),
    }
    for name, values in {"loss": loss, **weights}.items():
        there = np.isfinite(np.ma.getdata(values))
        found = [median(np.ma.getdata(values)[group & there]) for group in groups.values()]
        plural = "losses" if name == "loss" else f"{name}s"
        fields[f"median_{plural}"] = np.array([middle for middle, _ in found])
        fields[f"median_{name}_intervals"] = np.array([interval for _, interval in found])
    return fields


def _areas(
    weight: np.ma.MaskedArray, loss: np.ndarray, known: np.ndarray, noisy: np.ndarray | None
) -> dict[str, Any]:
    """How well weight and loss tell clean from noisy, where both are there."""
    if noisy is None or not (known & noisy).any() or not (known & ~noisy).any():
        return {}
    clean, wrong = known & ~noisy, known & noisy
    by_weight, by_loss = area(weight.data[clean], weight.data[wrong]), area(loss[wrong], loss[clean])
    return {
        "weight_area": by_weight[0],
        "weight_area_interval": np.array(by_weight[1]),
        "loss_area": by_loss[0],
        "loss_area_interval": np.array(by_loss[1]),
    }
