"""The work behind ``landscape ratios``, pair of gradients by pair, and its result."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved, Start, State
from landscape.analyses.ratios import BATCHES, SIGMA, SWEEP, Settings, check_minibatch, minibatch
from landscape.analyses.work import Work, problem_fields
from landscape.errors import DataError
from landscape.linalg.probes import derived_seed
from landscape.parameters import layers
from landscape.problem import Evaluation, Problem
from landscape.results import CLASSES, RatiosResult
from landscape.sam.passes import inner, loss_and_gradient, norm
from landscape.sam.perturbation import Perturbation, random_step
from landscape.sam.ratios import Tally, bin_edges, pack, tally
from landscape.sam.rounding import gradient_rounding

__all__ = ["RatiosWork", "ratios_result"]

#: Examples on which rounding is measured, at most, and the part of the data that this may take.
_FEW, _PART = 16, 64
#: Mini-batches drawn in the place of one that has no loss terms.
_ATTEMPTS = 100
#: What is kept of each pair of gradients.
_SUMS = ("counts", "uncertain", "histogram", "squares", "inner", "divided")


class RatiosWork(Work):
    """One run of ``ratios``.

    ``extra`` holds one row a pair of gradients for each of ``_SUMS``, for ``losses`` and ``lengths``, and for
    ``sweep`` (pair, length, layer, class).
    """

    kept = (*_SUMS, "losses", "lengths", "sweep", "gradient", "rounding", "masks")

    def __init__(self, problem: Problem, settings: Settings, start: Start) -> None:
        self.settings, self.size = settings, minibatch(settings)
        check_minibatch(self.size, problem.examples)
        self.rule = Perturbation(settings.perturb, settings.rho, settings.p, settings.eta, settings.relative)
        self.layout = problem.selection.layout
        groups = list(layers(self.layout).values())
        self.layer_of = [next(i for i, g in enumerate(groups) if name in g) for name in self.layout.names]
        self.gradient: list[Tensor] | None = None
        super().__init__(problem, start)
        if "gradient" in self.extra:
            flat = torch.from_numpy(np.array(self.extra.pop("gradient")))
            self.gradient = self.layout.split(flat.to(problem.device))

    @property
    def total(self) -> int:
        """Pairs of gradients."""
        return 1 if self.size is None else self.settings.batches or BATCHES

    @property
    def done(self) -> int:
        return len(self.extra.get("losses", ()))

    def evaluate(self) -> Evaluation:
        """Loss and gradient; the latter is kept if it is needed again."""
        few = min(_FEW, max(1, self.problem.examples // _PART))
        self.extra["rounding"] = gradient_rounding(self.problem, few, self.layer_of)
        evaluation = super().evaluate()
        if self.size is None or self.rule.rule == "friendly":
            self.gradient = self.layout.split(evaluation.gradient.to(self.problem.dtype))
        return evaluation

    def run(self) -> Iterator[State]:
        """One pair of gradients, or as many as mini-batches are asked for."""
        yield self._state("gradient")
        while self.done < self.total:
            self._pair(self.done)
            if self.done < self.total:
                yield self._state(f"mini-batch {self.done}")
        self.gradient = None
        yield self._state("done", over=True)

    def _pair(self, index: int) -> None:
        """Both gradients of a mini-batch (of all data), their tally and, for a sweep, further ones."""
        problem, gradient = self.problem, self.gradient
        if self.size is not None:
            problem = self._drawn(index)
            gradient = loss_and_gradient(problem, self._pieces(problem))[1]
        assert gradient is not None
        along = gradient
        if self.rule.rule == "friendly":
            assert self.gradient is not None
            sigma = SIGMA if self.settings.sigma is None else self.settings.sigma
            along = [g - sigma * full for g, full in zip(gradient, self.gradient, strict=True)]
        radius = self.rule.radius(norm(gradient))
        found, codes, loss = self._tally(problem, gradient, along, radius, index)
        if self.size is None and self.settings.masks:
            self.extra["masks"] = pack(codes)
        del codes
        sweep = []
        if self.settings.rho_sweep:
            for factor in SWEEP:
                one = (
                    found if factor == 1 else self._tally(problem, gradient, along, factor * radius, index)[0]
                )
                sweep.append(one.counts.sum(0))
        self._append({**found.arrays(), "losses": loss, "lengths": radius, "sweep": np.array(sweep)})

    def _drawn(self, index: int) -> Problem:
        """A mini-batch; one without loss terms, all of them masked, is drawn again."""
        assert self.size is not None
        for attempt in range(_ATTEMPTS):
            name = f"mini-batch {index}" + (f" again {attempt}" if attempt else "")
            drawn = self.problem.minibatch(_rows(self.seed, name, self.size, self.problem.examples))
            with contextlib.suppress(DataError):
                if drawn.terms:
                    return drawn
        raise DataError(
            f"no mini-batch of {self.size} examples has a loss term",
            found=f"{_ATTEMPTS} were drawn",
            do="use a larger --minibatch",
        )

    def _append(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            value = np.asarray(value)[None]
            before = self.extra.get(name)
            self.extra[name] = value if before is None else np.concatenate([before, value])

    def _tally(
        self, problem: Problem, gradient: list[Tensor], along: list[Tensor], radius: float, index: int
    ) -> tuple[Tally, Tensor, float]:
        moved = self._moved(problem, along, radius, index)
        loss, perturbed = loss_and_gradient(problem, self._pieces(problem), moved)
        found, codes = tally(
            gradient,
            perturbed,
            problem.selection.tensors,
            moved,
            layer_of=self.layer_of,
            rounding=self._absolute(gradient) if radius else [0.0] * len(gradient),
            divide=self.settings.as_written,
        )
        return found, codes, loss

    def _moved(self, problem: Problem, along: list[Tensor], radius: float, index: int) -> list[Tensor]:
        """w + ε, written afresh."""
        weights = [w.detach() for w in problem.selection.tensors]
        if self.rule.rule == "random":
            steps = random_step(weights, radius, self.seed, f"perturbation {index}")
            return [w + step for w, step in zip(weights, steps, strict=True)]
        return self.rule.steps(along, weights, self.layout.names, radius).moved()

    def _pieces(self, problem: Problem) -> Any:
        return problem.pieces(self.strategy["micro_batch"])

    def _absolute(self, gradient: Sequence[Tensor]) -> list[float]:
        """What an element of each tensor may be wrong by: as measured, at least a roundoff of the rms."""
        squares, sizes = np.zeros(len(self.extra["rounding"])), np.zeros(len(self.extra["rounding"]))
        for part, layer in zip(gradient, self.layer_of, strict=True):
            squares[layer] += inner([part], [part])
            sizes[layer] += part.numel()
        least = torch.finfo(self.problem.dtype).eps * np.sqrt(squares / np.maximum(sizes, 1))
        absolute = np.maximum(self.extra["rounding"], least)
        return [float(absolute[layer]) for layer in self.layer_of]

    def _state(self, text: str, over: bool = False) -> State:
        return self.state(text, self._save, done=self.done, total=self.total, over=over)

    def _save(self) -> Saved:
        arrays = dict(self.extra)
        if self.gradient is not None:
            arrays["gradient"] = torch.cat([g.reshape(-1) for g in self.gradient]).cpu().numpy()
        return Saved(arrays, {**self.counters, "done": self.done})


def _rows(seed: int, name: str, size: int, examples: int) -> Tensor:
    """The examples of a mini-batch, without replacement, in the data's order."""
    generator = torch.Generator().manual_seed(derived_seed(seed, name))
    return torch.randperm(examples, generator=generator)[:size].sort().values


def ratios_result(problem: Problem, settings: Settings, saved: Saved) -> RatiosResult:
    """The result of the pairs that there are: means over them and standard errors."""
    a, c, n = saved.arrays, saved.counters, problem.size
    size = minibatch(settings)
    pairs = len(a.get("losses", ()))
    if not pairs:
        a = {**a, **_nothing(len(a["rounding"]), settings.rho_sweep)}
    counts = a["counts"].sum(1).astype(float)
    count, count_error = _mean(counts, size)
    fraction, fraction_error = count / n, count_error / n
    shares = [_mean_shares(a["squares"][:, row], size) for row in (0, 1)]
    figures: dict[str, Any] = {}
    for name, values in _figures(a).items():
        figures[name], figures[f"{name}_error"] = _scalar(values, size)
    rounding = float(np.sqrt(np.square(a["rounding"]) @ _sizes(problem)))
    if size is None and pairs:
        figures |= _by_rounding(a, rounding)
    low, high = bin_edges()
    lengths = a["lengths"]
    return RatiosResult(
        status="complete"
        if pairs == (1 if size is None else settings.batches or BATCHES)
        else "not_converged",
        perturb=settings.perturb,
        p=settings.p,
        rho=settings.rho,
        relative=settings.relative,
        length=float(np.sqrt(a["inner"][:, 1]).mean()) if pairs else math.nan,
        eta=settings.eta if settings.perturb == "adaptive" else None,
        sigma=(SIGMA if settings.sigma is None else settings.sigma)
        if settings.perturb == "friendly"
        else None,
        minibatch=size,
        batches=pairs,
        classes=np.array(list(CLASSES), dtype=object),
        counts=count,
        count_errors=count_error,
        fractions=fraction,
        fraction_errors=fraction_error,
        uncertain=a["uncertain"].sum(1).mean(0) / n,
        rounding=rounding / c["gradient_norm"] if c["gradient_norm"] else math.nan,
        gradient_shares=shares[0][0],
        gradient_share_errors=shares[0][1],
        perturbed_shares=shares[1][0],
        perturbed_share_errors=shares[1][1],
        bin_low=low,
        bin_high=high,
        histogram=a["histogram"].mean(0),
        passes=pairs * (2 + (len(SWEEP) - 1 if settings.rho_sweep else 0)),
        seconds=c["seconds"],
        masks=a.get("masks"),
        **figures,
        **_as_written(a["divided"], settings, size),
        **(_layer_fields(problem, a["counts"], size) if settings.per_layer else {}),
        **(_sweep_fields(a["sweep"] / n, lengths, size) if settings.rho_sweep else {}),
        **problem_fields(problem, saved),
    )


def _nothing(count: int, sweep: bool) -> dict[str, np.ndarray]:
    """Figures of a run that was stopped before its first pair: means of no values are NaN."""
    kinds, bins = len(CLASSES), len(bin_edges()[0])
    shapes = {
        "counts": (1, count, kinds),
        "uncertain": (1, count, kinds),
        "histogram": (1, bins),
        "squares": (1, 2, kinds),
        "inner": (1, 3),
        "divided": (1, 5),
        "losses": (1,),
        "lengths": (1,),
        "sweep": (1, len(SWEEP) if sweep else 0, kinds),
    }
    return {name: np.full(shape, math.nan) for name, shape in shapes.items()}


def _mean(values: np.ndarray, size: int | None) -> tuple[np.ndarray, np.ma.MaskedArray]:
    """Mean over the first axis and its standard error, masked where there is one pair or all data."""
    mean = values.mean(0)
    if size is None or len(values) < 2:
        return mean, np.ma.array(np.full(mean.shape, math.nan), mask=True)
    return mean, np.ma.array(values.std(0, ddof=1) / math.sqrt(len(values)))


def _scalar(values: np.ndarray, size: int | None) -> tuple[float, float | None]:
    """Mean and standard error over the pairs that have the figure; NaN without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, None
    mean, error = _mean(finite, size)
    return float(mean), None if np.ma.is_masked(error) else float(error)


def _shares(squares: np.ndarray) -> np.ndarray:
    """Each class's share of the sum (pairs, classes); NaN where that is zero or not finite."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shares: np.ndarray = squares / squares.sum(1, keepdims=True)
    return shares


def _mean_shares(squares: np.ndarray, size: int | None) -> tuple[np.ndarray, np.ma.MaskedArray]:
    """Means of shares and their standard errors, over the pairs that have them; NaN without any."""
    shares = _shares(squares)
    known = shares[np.isfinite(shares).all(1)]
    return _mean(known, size) if len(known) else _mean(shares[:1], None)


def _figures(a: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Figures of each pair; NaN where a gradient is zero or not finite, or nothing was moved."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        g, h = np.sqrt(a["squares"].sum(2)).T
        inner, length2, change = a["inner"].T
        names, counts = list(CLASSES), a["counts"].sum(1)
        same = counts[:, [names.index(n) for n in ("ckpt1", "ckpt2", "equal")]].sum(1)
        known = counts.sum(1) - counts[:, [names.index(n) for n in ("dead", "born", "nonfinite")]].sum(1)
        return {
            "gradient_norm_ratio": h / g,
            "cosine": inner / (g * h),
            "sign_agreement": same / known,
            "directional_curvature": change / length2,
            "perturbed_loss": a["losses"],
        }


def _by_rounding(a: Mapping[str, np.ndarray], rounding: float) -> dict[str, float | None]:
    """About what rounding of both gradients, ``rounding`` each, does to the figures of a full batch.

    To first order: g is wrong by ``rounding`` and with it the direction of ε, so that g' is wrong by as much
    again and by that part of the change g' − g; sign agreement is bounded by the uncertain classes.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        g, h = np.sqrt(a["squares"].sum(2))[0]
        inner, length2, change = a["inner"][0]
        moved = math.sqrt(max(0.0, g * g + h * h - 2 * inner))
        wrong = rounding + moved * rounding / g  # of g'
        turned = rounding / g + wrong / h
        cosine = min(1.0, abs(inner / (g * h)))
        errors = {
            "gradient_norm_ratio_error": h / g * turned,
            "cosine_error": min(2.0, math.sqrt(1 - cosine**2) * turned + turned**2 / 2),
            "directional_curvature_error": (rounding + wrong) / math.sqrt(length2)
            + 2 * abs(change / length2) * rounding / g
            if length2 > 0
            else math.nan,
        }
    return {name: float(error) if math.isfinite(error) else None for name, error in errors.items()}


def _sizes(problem: Problem) -> np.ndarray:
    """Parameters of each layer."""
    layout = problem.selection.layout
    return np.array([layout.count(members) for members in layers(layout).values()], dtype=float)


def _as_written(divided: np.ndarray, settings: Settings, size: int | None) -> dict[str, Any]:
    if not settings.as_written:
        return {}
    mean, errors = _mean(divided.astype(float), size)
    return {"divided_counts": mean, "divided_errors": errors}


def _layer_fields(problem: Problem, counts: np.ndarray, size: int | None) -> dict[str, Any]:
    layout = problem.selection.layout
    groups = layers(layout)
    parameters = np.array([layout.count(members) for members in groups.values()])
    fractions, errors = _mean(counts / np.maximum(parameters, 1)[None, :, None], size)
    return {
        "layers": np.array(list(groups), dtype=object),
        "layer_parameters": parameters,
        "layer_fractions": fractions,
        "layer_fraction_errors": errors,
    }


def _sweep_fields(fractions: np.ndarray, lengths: np.ndarray, size: int | None) -> dict[str, Any]:
    mean, errors = _mean(fractions, size)
    return {
        "rho_sweep": np.array(SWEEP) * float(lengths.mean()),
        "sweep_fractions": mean,
        "sweep_errors": errors,
    }
