"""The monitor of a training loop: decides when to measure, measures, keeps, reports what it cost."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError, LandscapeError
from landscape.linalg.operator import norm
from landscape.machine import brief, is_out_of_memory, preserved_randomness
from landscape.monitoring.about import fixed, provenance
from landscape.monitoring.clock import Clock
from landscape.monitoring.gradients import Average, Pair, figures
from landscape.monitoring.journal import Ledger
from landscape.monitoring.probe import Probe
from landscape.monitoring.settings import Settings
from landscape.monitoring.writers import Writer, written
from landscape.problem import Problem
from landscape.results import MonitorResult
from landscape.settings import from_mapping

__all__ = ["Monitor"]


class HasGroups(Protocol):
    """An optimizer, as far as its learning rates go."""

    param_groups: list[dict[str, Any]]


class Monitor:
    """Curvature while a model is trained: ratio classes, ‖h_t‖, λmax and trace, every so many steps.

    With SAM, which has both gradients::

        monitor = landscape.Monitor(model, "cross_entropy", (x, y), output="monitor.h5")
        …
        monitor.first()    # in each step, after the first backward pass
        monitor.step()     # after the second one, before the optimizer's step

    Without SAM :meth:`step` alone is called; ratios and h_t are then of the probe data, and only if ``rho``
    is given. Weights, gradients, buffers, mode, generators and optimizer stay as they are: the training is
    the same, bit for bit, with the monitor and without. Where something cannot be measured (a loss that is
    not finite, a full disk) it warns once, and the training goes on.

    Args:
        model: what is trained; a copy of it is measured, in eval mode, on the device that it is on now.
        loss: as for :class:`landscape.Problem`.
        probe: the fixed data that λmax, trace and loss are of: ``(x, y)`` tensors or whatever ``Problem``
            takes. λmax of few examples is biased upward: a few hundred are better than a mini-batch.
        output: HDF5 file that the measurements are added to as a run of their own, whatever it holds; None:
            kept in memory.
        writer: a TensorBoard ``SummaryWriter`` (anything with ``add_scalar``), or a function of
            ``(figures by name, step)``.
        optimizer: whose learning rate is recorded.
        seed: of the random vectors; drawn and recorded without.
        first_step: steps made before, when a training is resumed.
        params, count, weight_decay, dtype, memory: as for :class:`landscape.Problem`.
        options: ``every=100, lambda_every=None, trace_every=0, budget=0.02, products=6, tol=0.01,
            trace_products=24, rho=None, new_weight=0.1, as_written=False, average_every_step=False``.
            ``budget`` is the share of the training time that may be spent: a measurement that is due while
            more is spent is left out. ``budget=None`` measures at exactly every ``every`` steps.

    Raises:
        ConfigurationError, DataError, ComputationError: what was given does not fit together.
        StoreError: ``output`` cannot be written.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Callable[..., Tensor],
        probe: Any,
        *,
        output: str | Path | None = None,
        writer: Writer | None = None,
        optimizer: HasGroups | None = None,
        seed: int | None = None,
        first_step: int = 0,
        params: Sequence[str] = (),
        count: Callable[[Any], float] | None = None,
        weight_decay: float = 0.0,
        dtype: str | None = None,
        memory: int | None = None,
        **options: Any,
    ) -> None:
        began = time.perf_counter()
        self.settings = from_mapping(Settings, options, "Monitor()")
        self._writer, self._optimizer = writer, optimizer
        self._step = self._first_step = first_step
        self._warned: set[str] = set()
        self._status = "partial"
        drawn = secrets.randbits(32) if seed is None else seed
        problem = Problem(
            model, loss, probe, params=params, count=count, weight_decay=weight_decay, dtype=dtype,
            memory=memory, device=_device(model),
        )  # fmt: skip
        with preserved_randomness():
            self._probe = Probe(problem, model, self.settings, drawn)
            run = provenance(self._probe, self.settings, drawn, seed is not None)
        self._average = Average(self.settings.new_weight, self.settings.as_written)
        path = None if output is None else Path(output)
        self._ledger = Ledger(path, fixed(self._probe, self.settings), run)
        self._finalizer = weakref.finalize(self, self._ledger.abandon)
        self._finalizer.atexit = False  # the ledger itself sees to that, in time
        self._source, self._put_off, self._failed = "none", 0, 0
        self._next, self._parts, self._row = first_step, frozenset[str](), dict[str, Any]()
        self._held: list[Tensor] | None = None
        self._planned = self._loaded = False
        self._own_before = 0.0
        parts = sum(self.settings.rhythm(part) > 0 for part in _PARTS)
        self._setup = time.perf_counter() - began
        self._clock = Clock(self.settings.budget, parts, _settle(problem.device))
        with self._clock.spending("write"):
            self._ledger.begin(self._state())

    # -- in the loop ---------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether both gradients of this step are wanted: :meth:`gradients` may be left out where not."""
        return "gradients" in self._plan() or self.settings.average_every_step

    def first(self, gradient: Sequence[Tensor] | None = None) -> None:
        """The gradient at w is there: in ``.grad``, or as a list like the model's trainable parameters.

        It is copied if this step is measured, and else nothing is done.
        """
        if self._step < self._next and not self.settings.average_every_step:
            return
        if self.due:
            with self._measuring("copy", "the gradient"):
                self._load()
                self._held = [g.clone() for g in self._gradient(gradient)]

    def second(self, perturbed: Sequence[Tensor] | None = None) -> None:
        """The gradient at w + ε is there, and the model's weights are w + ε.

        :meth:`step` does this itself if it comes before the optimizer's own step.
        """
        if self._held is None:
            return
        held, self._held = self._held, None
        with self._measuring("gradients", "the perturbed gradient"):
            moved = [p.detach() for p in self._probe.theirs()]
            pair = Pair(held, self._gradient(perturbed), self._probe.weights, moved)
            if pair.length == 0 and any(bool(g.any()) for g in held):
                raise ConfigurationError(
                    "the weights are the same at both gradients, so that there is nothing to compare",
                    do="call first() before the weights are moved to w + ε and second() or step() while "
                    "they are there; gradients(g, perturbed, rho) is for loops that do not move them",
                )
            if not pair.ascends:
                self._warn(
                    "the weights were moved against the gradient between first() and second() or step(): "
                    "call them before the optimizer's own step"
                )
            self._take(pair, "training")

    def gradients(
        self, gradient: Sequence[Tensor], perturbed: Sequence[Tensor], rho: float | None = None
    ) -> None:
        """Both gradients at once, for loops that do not move the model's weights; before :meth:`step`.

        Lists like the model's trainable parameters. ``rho`` is the length of ε, which lies along the
        gradient; without it there are ratio classes, and no h_t.
        """
        if self._step < self._next and not self.settings.average_every_step:
            return
        if self.due:
            with self._measuring("gradients", "the gradients"):
                self._load()
                length = math.nan if rho is None else rho
                one, other = self._gradient(gradient), self._gradient(perturbed)
                self._take(Pair(one, other, self._probe.weights, None, length), "training")

    def step(self) -> None:
        """One step of the training is complete but for the optimizer's own step."""
        if self._held is not None:
            self.second()
        if self._step >= self._next and self._plan():
            self._measure()
            self._keep()
        if self._planned:
            self._next, self._parts = self._following(), frozenset()
            self._planned = self._loaded = False
        self._step += 1

    # -- afterwards ----------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps of the training so far, those before the monitor was made among them."""
        return self._step

    @property
    def cost_percent(self) -> float:
        """Time of measuring and writing in percent of the training's; what is done once is not in it."""
        return self._clock.percent

    def result(self) -> MonitorResult:
        """What was measured so far; once it is closed, what was written."""
        if self._finalizer.alive:
            self._ledger.state = self._state()
        return self._ledger.result(self._status)

    def close(self) -> None:
        """The training is over: write everything. Again, it does nothing.

        Raises:
            StoreError: the file cannot be written; what was measured is still in :meth:`result`, and in a
                journal beside the file.
        """
        self._close("complete")

    def finish(self, complete: bool = True) -> None:
        """As :meth:`close`, but where that raises this warns; and the training may have come to a bad end."""
        with self._surviving():
            self._close("complete" if complete else "partial")

    def _close(self, status: str) -> None:
        if self._finalizer.detach() is not None:
            self._status = status
            with self._clock.spending("close"):
                self._ledger.close(status, self._state())

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close("complete" if kind is None else "partial")

    def __repr__(self) -> str:
        count = self._ledger.columns.count
        return (
            f"<Monitor: {count} measurement{'' if count == 1 else 's'} in {self._step - self._first_step} "
            f"steps, {self.cost_percent:.2g} % of the training time, and {self._once:.2g} s once>"
        )

    @property
    def _once(self) -> float:
        """Seconds of what is done once."""
        return self._setup + self._clock.once

    # -- what is due ---------------------------------------------------------------------------------------

    def _plan(self) -> frozenset[str]:
        """What is measured in this step: what is due, as far as the budget goes."""
        if self._planned:
            return self._parts
        self._planned, self._row, self._own_before = True, {}, self._clock.own
        due = [part for part in _PARTS if self._is_due(part)]
        self._parts = frozenset(part for part in due if self._clock.allows(*_PARTS[part]))
        self._put_off += len(self._parts) < len(due)
        return self._parts

    def _is_due(self, part: str) -> bool:
        rhythm = self.settings.rhythm(part)
        return rhythm > 0 and self._step % rhythm == 0

    def _following(self) -> int:
        """The next step at which anything is due."""
        rhythms = (self.settings.rhythm(part) for part in _PARTS)
        return min((self._step // rhythm + 1) * rhythm for rhythm in rhythms if rhythm)

    # -- measuring -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _measuring(self, part: str, what: str) -> Iterator[None]:
        """Count the time, keep everybody's generators and flags, and let the training outlive a failure."""
        with self._clock.spending(part):
            try:
                with preserved_randomness(), self._probe.problem.arithmetic():
                    yield
            except (LandscapeError, RuntimeError, MemoryError) as error:
                if not (isinstance(error, LandscapeError) or is_out_of_memory(error)):
                    raise
                if isinstance(error, ConfigurationError) and not self._ledger.columns.count:
                    raise  # it is used otherwise than it can be: better said at the beginning
                self._failed += 1
                text = str(error) if isinstance(error, LandscapeError) else brief(error)
                self._warn(f"{what} could not be measured at step {self._step}: {text}", once=text)

    def _load(self) -> None:
        """The weights at which this step's gradient was taken, once a step."""
        if not self._loaded:
            self._probe.load()
            self._loaded = True

    def _gradient(self, given: Sequence[Tensor] | None) -> list[Tensor]:
        """Gradients of the measured parameters, in the arithmetic of the copy; zeros where there are none."""
        parameters = self._probe.theirs()
        parts = [p.grad for p in parameters] if given is None else self._chosen(given, parameters)
        if all(part is None for part in parts):
            raise ConfigurationError(
                "no parameter has a gradient", do="call first() and step() between backward() and zero_grad()"
            )
        dtype = self._probe.problem.dtype
        return [
            torch.zeros_like(p, dtype=dtype) if g is None else g.detach().to(dtype)
            for p, g in zip(parameters, parts, strict=True)
        ]

    def _chosen(self, given: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """Of gradients of all trainable parameters those of the measured ones."""
        every = self._probe.trainable()
        if len(given) != len(every) or any(g.shape != p.shape for g, p in zip(given, every, strict=False)):
            raise ConfigurationError(
                "the gradients are not shaped as the model's trainable parameters",
                found=f"{len(given)} tensors, the model has {len(every)}",
            )
        own = {id(p): g for p, g in zip(every, given, strict=True)}
        return [own[id(p)] for p in parameters]

    def _take(self, pair: Pair, source: str) -> None:
        """A pair of gradients: into h_t, and if it is measured into the row."""
        wanted, x = "gradients" in self._parts, pair.curvature()
        absolute = pair.rounding(self._probe.layer, self._probe.rounding)
        if x is not None:
            self._average.take(x, 2 * pair.norm_of(absolute) / pair.length)
        if wanted:
            self._source = source
            self._row |= figures(pair, self._probe.layer, absolute) | self._average.figures()
            if x is not None:
                self._row["curvature_norms"] = norm(x)

    def _measure(self) -> None:
        """Whatever of this step's parts is not measured yet."""
        rho = self.settings.rho
        if "gradients" in self._parts and rho is not None and "counts" not in self._row:
            with self._measuring("gradients", "the gradients on the probe data"):
                self._load()
                self._take(self._probe.pair(rho), "probe")
        if "lambda" in self._parts:
            with self._measuring("lambda", "λmax"):
                self._load()
                self._row["losses"] = self._probe.loss()
                self._row |= self._probe.top()
        if "trace" in self._parts:
            with self._measuring("trace", "the trace"):
                self._load()
                self._row |= self._probe.trace()

    def _keep(self) -> None:
        """Write the row down, wherever it is wanted."""
        if not self._row:
            return
        if self._optimizer is not None:
            self._row["learning_rates"] = max(float(g["lr"]) for g in self._optimizer.param_groups)
        self._row["steps"], self._row["times"] = self._step, self._clock.elapsed
        self._row["measurement_seconds"] = self._clock.own - self._own_before
        with self._clock.spending("log"), self._surviving():
            self._ledger.add(self._row, self._state())
        if self._writer is not None:
            with self._clock.spending("log"), self._surviving():
                written(self._writer, self._row, self._step)
        if self._clock.allows_writing():
            with self._clock.spending("write"), self._surviving():
                self._ledger.write()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """A disk that refuses is no reason to end a training."""
        try:
            yield
        except (OSError, LandscapeError) as error:
            text = str(error)
            self._warn(text)

    def _warn(self, text: str, once: str = "") -> None:
        """Say it, the same thing once only."""
        if (key := once or text) not in self._warned:
            self._warned.add(key)
            warnings.warn(f"landscape.Monitor: {text}", RuntimeWarning, stacklevel=5)

    def _state(self) -> dict[str, Any]:
        return {
            "source": self._source,
            "total_steps": self._step - self._first_step,
            "put_off": self._put_off,
            "failed": self._failed,
            "training_seconds": self._clock.training,
            "monitor_seconds": self._clock.own - self._clock.once,
            "once_seconds": self._once,
            "cost_percent": self._clock.percent,
        }


#: What can be measured, and the blocks of time that it takes.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "gradients": ("copy", "gradients"),
    "lambda": ("lambda",),
    "trace": ("trace",),
}


def _device(model: nn.Module) -> str:
    """Where the model is."""
    parameter = next(model.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


def _settle(device: torch.device) -> Callable[[], None]:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None
