"""Gradient ratios in words: the classes of one checkpoint, and of several side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from landscape.results import CLASSES, RatiosResult

from ..console import Console
from ..numbers import duration, figure, with_error
from .common import counted

__all__ = ["print_result", "print_together"]

#: Classes that are always shown; the others only where there are any.
_MAIN = ("ckpt1", "ckpt2", "ckpt3", "ckpt4")
#: Ends of the octaves that the summary lists.
_OCTAVES = tuple(2**k for k in range(7))
_NONE = "—"
#: Shares below this are shown as such.
_LEAST = 1e-11


def print_result(console: Console, result: RatiosResult) -> None:
    """The classes, then what both gradients have in common, then layers and lengths."""
    if not result.batches:
        console.out("no figures yet: a limit stopped the run before its first pair of gradients")
        return
    console.table(*_classes(result))
    console.out()
    console.pairs(_summary(result))
    if result.layers is not None and len(result.layers) > 1:
        console.out()
        console.table(*_layers(result))
    if result.rho_sweep is not None:
        console.out()
        console.table(*_sweep(result))


def _classes(result: RatiosResult) -> tuple[list[str], list[list[str]]]:
    full = result.minibatch is None
    rows = []
    for i, name in enumerate(result.classes):
        if name not in _MAIN and not result.counts[i]:
            continue
        rows.append(
            [
                str(name),
                CLASSES.get(str(name), ""),
                figure(float(result.counts[i]), 10 if full else 6),
                _percent(result.fractions[i], result.fraction_errors[i]),
                *([_percent(result.uncertain[i])] if full else []),
                _percent(result.gradient_shares[i], result.gradient_share_errors[i]),
                _percent(result.perturbed_shares[i], result.perturbed_share_errors[i]),
            ]
        )
    uncertain = ["uncertain"] if full else []
    return ["class", "r = g'/g", "parameters", "share", *uncertain, "of ‖g‖²", "of ‖g'‖²"], rows


def _percent(share: float, error: float | np.ma.core.MaskedConstant = math.nan) -> str:
    """A share in percent, with its standard error where there is one."""
    if not math.isfinite(share):
        return _NONE
    if 0 < share < _LEAST:
        return f"< {figure(100 * _LEAST, 1)} %"
    if np.ma.is_masked(error) or not math.isfinite(error):
        return f"{figure(100 * share, 3)} %"
    return f"{with_error(100 * share, 100 * float(error))} %"


def _summary(result: RatiosResult) -> Iterator[tuple[str, str]]:
    yield "epsilon", _perturbation(result)
    if result.minibatch is not None:
        yield (
            "batches",
            f"{result.batches} of {result.minibatch} examples each; ± is the standard error of the mean",
        )
    else:
        near = _percent(float(np.sum(result.uncertain)))
        rounding = f"{figure(result.rounding, 2)} of a gradient"
        yield (
            "uncertain",
            f"{near} of the parameters are so near a border that rounding, {rounding}, may have moved them",
        )
    yield "norms", f"‖g'‖/‖g‖ = {_figure(result.gradient_norm_ratio, result.gradient_norm_ratio_error)}"
    yield "cosine", f"{_figure(result.cosine, result.cosine_error, 6)} between g and g'"
    kept = _percent(result.sign_agreement, _known(result.sign_agreement_error))
    yield "signs", f"{kept} of the gradients that are not zero keep their sign"
    curvature = _figure(result.directional_curvature, result.directional_curvature_error)
    yield "curvature", f"{curvature} along ε: (g' − g)·ε/‖ε‖², uᵀHu as ρ → 0"
    rise = _figure(result.perturbed_loss, result.perturbed_loss_error, 6, "not finite")
    yield "loss at w+ε", rise
    yield "octaves", _octaves(result)
    if result.divided_counts is not None:
        yield "as written", _as_written(result)
    if result.masks_file is not None:
        yield "masks", f"in {result.masks_file}: the class of every parameter, for landscape overlap"
    yield "cost", f"{counted(result.passes, 'gradient')}, {duration(result.seconds)}"


def _perturbation(result: RatiosResult) -> str:
    norm = "inf" if math.isinf(result.p) else f"{result.p:g}"
    rule = {
        "gradient": f"along the gradient, longest rise in the {norm}-norm",
        "adaptive": f"adaptive (ASAM, η = {figure(result.eta)}), {norm}-norm",
        "friendly": f"friendly (σ = {figure(result.sigma)}), {norm}-norm",
        "random": "random, isotropic",
    }[result.perturb]
    unit = " ‖g‖" if result.relative else ""
    return f"{rule}, ρ = {figure(result.rho)}{unit}; Euclidean length {figure(result.length)}"


def _known(error: float | None) -> float:
    return math.nan if error is None else error


def _figure(
    value: float,
    error: float | None,
    digits: int = 4,
    none: str = f"{_NONE} (a gradient is zero or not finite, or nothing was moved)",
) -> str:
    if not math.isfinite(value):
        return none
    return figure(value, digits) if error is None else with_error(value, error)


def _octaves(result: RatiosResult) -> str:
    """r in 1–2, 2–4, … 32–64, as shares of all parameters."""
    parts = []
    for low, high in itertools.pairwise(_OCTAVES):
        inside = (result.bin_low == low) & (result.bin_high == high)
        parts.append(f"{low}–{high}: {_percent(float(result.histogram[inside].sum()) / result.parameters)}")
    return f"r in {', '.join(parts)}"


def _as_written(result: RatiosResult) -> str:
    """The classes by division, as they were first written down."""
    assert result.divided_counts is not None
    assert result.divided_errors is not None
    shares = [
        _percent(count / result.parameters, error / result.parameters)
        for count, error in zip(result.divided_counts, result.divided_errors, strict=True)
    ]
    listed = ", ".join(f"{name} {share}" for name, share in zip((*_MAIN, "none"), shares, strict=True))
    return f"by dividing: {listed} (zeros, ties and what underflows have no class of their own)"


def _layers(result: RatiosResult) -> tuple[list[str], list[list[str]]]:
    assert result.layers is not None
    assert result.layer_parameters is not None
    assert result.layer_fractions is not None
    assert result.layer_fraction_errors is not None
    rows = [
        [str(name), str(count), *_shares(fractions, errors)]
        for name, count, fractions, errors in zip(
            result.layers,
            result.layer_parameters,
            result.layer_fractions,
            result.layer_fraction_errors,
            strict=True,
        )
    ]
    return ["layer", "parameters", *_MAIN, "others"], rows


def _shares(fractions: np.ndarray, errors: np.ndarray) -> list[str]:
    """The four main classes, and the rest together."""
    main = [_percent(fractions[i], errors[i]) for i in range(len(_MAIN))]
    return [*main, _percent(float(np.sum(fractions[len(_MAIN) :])))]


def _sweep(result: RatiosResult) -> tuple[list[str], list[list[str]]]:
    assert result.rho_sweep is not None
    assert result.sweep_fractions is not None
    assert result.sweep_errors is not None
    rows = [
        [figure(float(rho)), *_shares(fractions, errors)]
        for rho, fractions, errors in zip(
            result.rho_sweep, result.sweep_fractions, result.sweep_errors, strict=True
        )
    ]
    return ["ρ", *_MAIN, "others"], rows


def print_together(console: Console, results: Sequence[RatiosResult]) -> None:
    """One line a checkpoint, in training order."""
    rows = [
        [
            *_when(result),
            *_shares(result.fractions, result.fraction_errors),
            _short(result.gradient_norm_ratio, _over_batches(result, result.gradient_norm_ratio_error)),
            _short(result.cosine, _over_batches(result, result.cosine_error)),
            _short(result.gradient_norm),
        ]
        for result in sorted(results, key=_order)
    ]
    console.table(["checkpoint", "step", *_MAIN, "others", "‖g'‖/‖g‖", "cosine", "‖g‖"], rows)


def _order(result: RatiosResult) -> tuple[float, float]:
    """By step, then epoch; what has neither comes last, as given."""
    reference = result.provenance.checkpoint if result.provenance else None
    known = [None, None] if reference is None else [reference.step, reference.epoch]
    step, epoch = (math.inf if when is None else float(when) for when in known)
    return step, epoch


def _when(result: RatiosResult) -> list[str]:
    reference = result.provenance.checkpoint if result.provenance else None
    if reference is None:
        return [_NONE, _NONE]
    name = reference.path.rsplit("/", 1)[-1]
    return [name, _NONE if reference.step is None else str(reference.step)]


def _over_batches(result: RatiosResult, error: float | None) -> float | None:
    """An error that is a standard error, and not what rounding does: the table has no room for those."""
    return error if result.minibatch is not None else None


def _short(value: float, error: float | None = None) -> str:
    if not math.isfinite(value):
        return _NONE
    return figure(value, 4) if error is None else with_error(value, error)
