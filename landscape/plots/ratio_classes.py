"""What all pictures of ratio classes share: their colours, their order and how they are said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from landscape.plots.panels import plain, shown, with_error
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION
from landscape.results import CLASSES, RatiosResult

__all__ = [
    "BY_RATIO",
    "COLOURS",
    "MARKERS",
    "Shares",
    "at",
    "label",
    "percent_axis",
    "present",
    "several_words",
    "said",
    "shares",
    "words",
]

#: A class beside the four of r is drawn as a line of its own once it holds more than this.
_SMALL = 0.005

# Okabe & Ito (2008), Color Universal Design: kept signs blue, turned signs orange, the light ones |r| < 1,
# so that the four also differ in grey.
_SKY, _ORANGE, _PURPLE, _YELLOW = "#56B4E9", "#E69F00", "#CC79A7", "#F0E442"
COLOURS: Mapping[str, str] = {
    "ckpt1": BLUE,
    "ckpt2": _SKY,
    "ckpt3": VERMILLION,
    "ckpt4": _ORANGE,
    "equal": GREEN,
    "opposite": _PURPLE,
    "dead": "#BFBFBF",
    "born": _YELLOW,
    "killed": GREY,
    "nonfinite": BLACK,
}
MARKERS: Mapping[str, str] = dict(zip(CLASSES, "os^vDXPp*h", strict=True))
#: From the most negative ratio to the largest; last what has none.
BY_RATIO = (
    "ckpt3", "opposite", "ckpt4", "killed", "ckpt2", "equal", "ckpt1", "born", "dead", "nonfinite"
)  # fmt: skip
_FOUR = ("ckpt1", "ckpt2", "ckpt3", "ckpt4")
_PERTURBATIONS = {
    "gradient": "SAM",
    "adaptive": "adaptive (ASAM)",
    "friendly": "friendly",
    "random": "random",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Shares of the classes of ``CLASSES``, how far they may be off, and what that is, in words."""

    values: Floats
    errors: Floats
    meaning: str


def at(result: RatiosResult, values: np.ndarray) -> Floats:
    """``values`` (…, class) of ``result`` in the order of ``CLASSES``, NaN for what is not known."""
    numbers = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    place = {str(name): i for i, name in enumerate(result.classes)}
    absent = np.full(numbers.shape[:-1], np.nan)
    columns = [numbers[..., place[name]] if name in place else absent for name in CLASSES]
    return np.stack(columns, axis=-1)


def shares(result: RatiosResult) -> Shares:
    """The shares of all parameters: over mini-batches with standard errors, else with what is uncertain."""
    values, errors = at(result, result.fractions), at(result, result.fraction_errors)
    if np.isfinite(errors).any():
        return Shares(values, errors, "± standard error over mini-batches")
    return Shares(values, at(result, result.uncertain), "± share whose class rounding may have changed")


def present(values: Floats) -> list[str]:
    """The four classes and, of the others, those that hold more than half a percent somewhere; (…, class)."""
    most = np.nan_to_num(values).reshape(-1, len(CLASSES)).max(axis=0, initial=0.0)
    return [name for name, share in zip(CLASSES, most, strict=True) if name in _FOUR or share > _SMALL]


def label(name: str) -> str:
    """The class and what it is of."""
    return f"{name}: {CLASSES[name]}"


def said(result: RatiosResult, name: str) -> str:
    """The share of a class in %, with its error."""
    found, i = shares(result), list(CLASSES).index(name)
    value, error = 100 * float(found.values[i]), 100 * float(found.errors[i])
    return f"{with_error(value, error)} %" if np.isfinite(value) else "not known"


def words(result: RatiosResult) -> str:
    """The perturbation and what a gradient is taken over."""
    unit = " ‖g‖" if result.relative else ""
    parts = [f"ρ = {shown(result.rho)}{unit}"]
    parts += [f"p = {'∞' if np.isinf(result.p) else shown(result.p)}"] if result.p != 2 else []
    if result.perturb == "adaptive" and result.eta is not None:
        parts.append(f"η = {shown(result.eta)}")
    if result.perturb == "friendly" and result.sigma is not None:
        parts.append(f"σ = {shown(result.sigma)}")
    name = _PERTURBATIONS.get(result.perturb, result.perturb)
    return f"{name} perturbation, {', '.join(parts)} · {_batches(result)}"


def several_words(results: Sequence[RatiosResult]) -> str:
    """The same of several results, which should agree."""
    return "\n".join(dict.fromkeys(map(words, results)))


def _batches(result: RatiosResult) -> str:
    if result.minibatch is None:
        return "full batch"
    one = result.batches == 1
    return f"{result.batches:,} mini-batch{'' if one else 'es'} of {result.minibatch:,} examples"


def percent_axis(ax: Axes, values: Sequence[float] | Floats, *, top: float = 1.12) -> None:
    """The y axis from zero to somewhat above the largest of ``values`` (shares), in %."""
    largest = float(np.nan_to_num(np.asarray(values, dtype=np.float64)).max(initial=0.0))
    ax.set_ylim(0.0, top * largest or 1.0)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(100 * value)))
