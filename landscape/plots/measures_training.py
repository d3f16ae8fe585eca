"""The main figures of any kind of result over training, several training runs in the same panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from landscape.errors import InputError
from landscape.files import printable
from landscape.plots.bars import layers_shown, short_names
from landscape.plots.eigenvalue_lines import named_pairs
from landscape.plots.lines import LOOKS, Line, Look, Panel, draw_panels, legend_of_figure
from landscape.plots.panels import CURVATURES, matrix_name, unit
from landscape.plots.series import TrainingRun, series_caption, training_runs
from landscape.plots.style import new_figure, style
from landscape.plots.view import View
from landscape.results import EigenResult, Result
from landscape.results.measures import MEASURES, Measure, Reading, measures_of
from landscape.results.reading import BOUND, finite, within

__all__ = [
    "DRAWN",
    "LAYERS",
    "SERIES",
    "STUDIED",
    "eigenvalues",
    "layers",
    "study",
    "study_of_runs",
    "training",
]

#: What is drawn of a kind unless told otherwise, as far as there is anything; of others the main measures.
DRAWN: Mapping[str, Sequence[str]] = {
    "eigen": ("lambda_max", "lambda_min", "running_average", "loss"),
    "trace": ("trace", "effective_dimension", "loss"),
    "density": ("lambda_max", "trace", "negative_share", "loss"),
    "ratios": ("ckpt1", "ckpt2", "ckpt3", "ckpt4"),
    "sharpness": ("increase", "second_order", "loss"),
    "reweight": ("median_weight", "rank_correlation", "weight_area", "loss"),
    "noise": ("cosine_gauss_newton", "cosine_hessian", "noise_scale", "loss"),
    "slice": ("barrier", "gap", "test_loss", "loss"),
}
#: What a picture of all kinds shows of each.
STUDIED: Mapping[str, Sequence[str]] = {
    "eigen": ("lambda_max",),
    "trace": ("trace",),
    "density": ("negative_share",),
    "ratios": ("ckpt1", "ckpt3"),
    "sharpness": ("increase",),
    "reweight": ("rank_correlation",),
    "noise": ("cosine_hessian",),
    "slice": ("gap", "barrier"),
}
#: Arrays of the layers of each kind: values, and intervals or errors.
LAYERS: Mapping[str, tuple[str, str, str]] = {
    "eigen": ("layer_eigenvalues", "layer_intervals", "λmax of the block"),
    "trace": ("layer_traces", "layer_intervals", "Tr of the block"),
    "density": ("layer_traces", "layer_trace_errors", "Tr of the block"),
}
_HIGH, _MARGIN = 1.7, 1.3
_PANELS, _COLUMNS = 32, 4


def training(results: Sequence[Result], *, measure: Sequence[str] | None = None) -> Axes:
    """Draw measures of results of one kind over training, one panel each. Returns the first.

    Args:
        measure: names of measures of this kind; the main ones without.

    Raises:
        InputError: fewer than two results, two of one training run and step, or a measure that there is not.
    """
    return _training(results, measure, None)


def with_learning_rate(
    results: Sequence[Result],
    *,
    measure: Sequence[str] | None = None,
    learning_rate: float | None = None,
    per_layer: bool = False,
) -> Axes:
    """The same of eigenvalues: a ``learning_rate`` η draws 2/η; ``per_layer`` the layers instead."""
    if per_layer:
        _without("--per-layer", measure=measure, learning_rate=learning_rate)
        return layers(results)
    return _training(results, measure, learning_rate)


def with_layers(
    results: Sequence[Result], *, measure: Sequence[str] | None = None, per_layer: bool = False
) -> Axes:
    """The same of traces and densities: ``per_layer`` draws a panel for each layer instead."""
    if per_layer:
        _without("--per-layer", measure=measure)
        return layers(results)
    return _training(results, measure, None)


def _without(option: str, **others: Any) -> None:
    if given := [name for name, value in others.items() if value is not None]:
        raise InputError(
            f"{option} draws the layers alone",
            found=", ".join(f"--{name.replace('_', '-')}" for name in given),
            do=f"leave {option} out, or these",
        )


def _training(results: Sequence[Result], measure: Sequence[str] | None, learning_rate: float | None) -> Axes:
    runs = training_runs(results)
    looks = dict(zip((run.name for run in runs), LOOKS * len(runs), strict=False))
    limit = _limit(results, learning_rate)
    panels = [_panel(one, runs, looks, limit) for one in _chosen(results, measure)]
    _check_limit(panels, limit)
    return _figure(panels, _title(runs), named=len(runs) > 1)


def _figure(panels: Sequence[Panel], title: str, *, named: bool, columns: int | None = None) -> Axes:
    """A new figure of these panels: one column of up to four, else two."""
    columns = columns or (1 if len(panels) <= 4 else 2)
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(6.4 if columns == 1 else 4.0 * columns, _MARGIN + _HIGH * max(rows, 1.4))
        axes = draw_panels(figure, panels, columns)
        figure.suptitle(title, fontsize=8)
        legend_of_figure(figure, panels, named=named)
    return axes[0]


def _title(runs: Sequence[TrainingRun[Any]]) -> str:
    operator = getattr(runs[0].results[0], "operator", None)
    return series_caption(runs) + (f"\n{matrix_name(operator)}" if operator else "")


def _chosen(results: Sequence[Result], names: Sequence[str] | None) -> list[Measure]:
    """The measures by these names, or those drawn by default; such as there are figures of."""
    kind = results[0].kind
    known = {measure.name: measure for measure in measures_of(kind)}
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(
            f"{kind} runs have no measure {printable(unknown[0])!r}", do=f"there are: {', '.join(known)}"
        )
    usual = DRAWN.get(kind) or [name for name, measure in known.items() if measure.main]
    wanted = [known[name] for name in (usual if names is None else names)]
    found = [m for m in wanted if any(m.read(result) is not None for result in results)]
    if not found or (names is not None and len(found) < len(wanted)):
        missing = [m.name for m in wanted if m not in found]
        raise InputError(
            f"these {kind} runs have no {', '.join(missing)}",
            do="choose others with --measure, or measure again with more products or time",
        )
    return found


def _panel(
    measure: Measure, runs: Sequence[TrainingRun[Any]], looks: Mapping[str, Look],
    limit: tuple[float, str] | None = None,
) -> Panel:  # fmt: skip
    words = measure.unit_of(runs[0].results[0])
    label = measure.label.replace("$", r"\$")
    lines = [Line.of(run, measure.read, looks[run.name]) for run in runs]
    return Panel(
        f"{label}\n({words})" if words not in ("", label) else label, label, lines, runs[0].words,
        limit if measure.name == "lambda_max" else None,
    )  # fmt: skip


def _limit(results: Sequence[Any], learning_rate: float | None) -> tuple[float, str] | None:
    """2/η with its name."""
    if learning_rate is None:
        return None
    if not 0 < learning_rate < float("inf"):
        raise InputError("the learning rate must be positive and finite", found=repr(learning_rate))
    others = {result.operator for result in results if hasattr(result, "operator")} - set(CURVATURES)
    if others:
        raise InputError(
            "2/η says something about the Hessian alone",
            found=", ".join(sorted(others)),
            do="leave --learning-rate out",
        )
    return 2 / learning_rate, f"2/η = {2 / learning_rate:.6g} (η = {learning_rate:.6g})"


def _check_limit(panels: Sequence[Panel], limit: tuple[float, str] | None) -> None:
    if limit is not None and not any(panel.limit for panel in panels):
        raise InputError("2/η is a line beside λmax", do="draw lambda_max too, or leave --learning-rate out")


def study(
    results: Mapping[str, Sequence[Result]],
    *,
    measure: Sequence[str] | None = None,
    learning_rate: float | None = None,
) -> Axes:
    """Draw figures of several kinds of results of the same training runs together. Returns the first axes.

    Args:
        results: by kind, of two checkpoints or more each.
        measure: names of measures, as ``trace`` or ``density.trace``; of each kind the main ones without.

    Raises:
        InputError: no kind with figures, or a measure that there is not.
    """
    return study_of_runs({kind: training_runs(of) for kind, of in results.items()}, measure, learning_rate)


def study_of_runs(
    kinds: Mapping[str, Sequence[TrainingRun[Any]]],
    measure: Sequence[str] | None = None,
    learning_rate: float | None = None,
) -> Axes:
    """The same of training runs that are told apart already; of a single kind all that is drawn of it."""
    names = dict.fromkeys(run.name for runs in kinds.values() for run in runs)
    looks = dict(zip(names, LOOKS * len(names), strict=False))
    results = {kind: [result for run in runs for result in run.results] for kind, runs in kinds.items()}
    if measure is None and len(kinds) == 1:
        ((kind, of),) = results.items()
        chosen = [(kind, one) for one in _chosen(of, None)]
    else:
        chosen = _studied(results, measure)
    limit = _limit([r for kind in ("eigen", "density") for r in results.get(kind, ())], learning_rate)
    panels = [_panel(one, kinds[kind], looks, limit) for kind, one in chosen]
    _check_limit(panels, limit)
    return _figure(panels, series_caption(next(iter(kinds.values()))), named=len(names) > 1)


def _studied(
    results: Mapping[str, Sequence[Result]], names: Sequence[str] | None
) -> list[tuple[str, Measure]]:
    """Kinds and measures of a picture of all; a name alone is that of the first kind that has it."""
    there = {
        f"{kind}.{m.name}": (kind, m)
        for kind in MEASURES
        for m in measures_of(kind)
        if any(m.read(result) is not None for result in results.get(kind, ()))
    }
    if names is None:
        wanted = [f"{kind}.{name}" for kind, some in STUDIED.items() for name in some]
        wanted = [name for name in wanted if name in there]
        losses = [name for name in there if name.endswith(".loss")]
        names = wanted + losses[: bool(wanted)]
    found = [next((key for key in there if name in (key, key.split(".")[1])), None) for name in names]
    if not found or None in found:
        missing = [name for name, key in zip(names, found, strict=True) if key is None]
        raise InputError(
            f"these runs have no measure {', '.join(map(printable, missing))}",
            do=f"there are: {', '.join(dict.fromkeys(m.name for _, m in there.values()))}"
            if there
            else "give runs on two checkpoints or more",
        )
    return [there[key] for key in dict.fromkeys(found) if key is not None]


def eigenvalues(results: Sequence[EigenResult], *, learning_rate: float | None = None) -> Axes:
    """Draw every eigenvalue over training as a line of its own, training runs side by side.

    Each is counted from the end that it was found at (λ₁ the largest, λₙ the smallest), of the largest |λ| as
    θ₁, θ₂, … by size; light lines come later. Returns the first axes.

    Raises:
        InputError: fewer than two results, two of one training run and step, no eigenvalues, or such of
            different ends of the spectrum.
    """
    runs = training_runs(results)
    most = max(len(result.eigenvalues) for result in results)
    if not most:
        raise InputError("these runs have no eigenvalues", do="measure again with more products or time")
    named, limit = named_pairs(results, most), _limit(results, learning_rate)
    looks = _shades(len(named))
    label = f"Eigenvalue\n({unit(results[0].operator)})"
    panels = []
    for run in runs:
        lines = [Line.of(run, read, look, name) for (name, read), look in zip(named, looks, strict=True)]
        title = printable(run.name).replace("$", r"\$") if len(runs) > 1 else ""
        panels.append(Panel(label, "λ", lines, run.words, limit, title))
    with style():
        figure = new_figure(max(6.4, 4.0 * len(runs)), 4.4)
        axes = draw_panels(figure, panels, len(runs), same_values=True)
        figure.suptitle(_title(runs), fontsize=8)
        legend_of_figure(figure, panels[:1], named=True)
    return axes[0]


def _shades(count: int) -> list[Look]:
    """From dark to light, markers in turn."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, count))
    return [Look(to_hex(colour), LOOKS[i % len(LOOKS)].marker, "-") for i, colour in enumerate(colours)]


def layers(results: Sequence[Result]) -> Axes:
    """Draw a panel for each layer that all results have, the training runs as lines. Returns the first.

    Of more than 32 layers the 32 with the most parameters are drawn.

    Raises:
        InputError: fewer than two results, two of one training run and step, or no layer that all have.
    """
    runs = training_runs(results)
    kind = results[0].kind
    names = _common_layers(results, LAYERS[kind][0])
    sizes = _sizes(results[0])
    kept, others = layers_shown(np.array([float(sizes[name]) for name in names]), _PANELS)
    shown = [names[i] for i in kept]
    looks = dict(zip((run.name for run in runs), LOOKS * len(runs), strict=False))
    words = LAYERS[kind][2]
    panels = [
        Panel(
            "", "", [Line.of(run, _of_layer(kind, name), looks[run.name]) for run in runs], runs[0].words,
            title=f"{short}\n{sizes[name]:,} parameters",
        )
        for name, short in zip(shown, short_names(shown), strict=True)
    ]  # fmt: skip
    note = f"\nthe {len(shown)} largest of {len(names)} layers" * bool(len(others))
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(max(6.4, 2.4 * columns), _MARGIN + 1.75 * rows)
        axes = draw_panels(figure, panels, columns)
        figure.suptitle(_title(runs) + note, fontsize=8)
        figure.supylabel(f"{words} ({unit(getattr(results[0], 'operator', ''))})", fontsize=9)
        legend_of_figure(figure, panels, named=len(runs) > 1)
    return axes[0]


def _common_layers(results: Sequence[Result], field: str) -> list[str]:
    there = [set(_layer_names(result)) if getattr(result, field) is not None else set() for result in results]
    common = [name for name in _layer_names(results[0]) if all(name in names for names in there)]
    if not common:
        raise InputError(
            "there is no layer that all these runs have",
            do="leave --per-layer out, or give runs on one model, measured with --per-layer",
        )
    return common


def _layer_names(result: Any) -> list[str]:
    return [] if result.layers is None else [str(name) for name in result.layers]


def _sizes(result: Any) -> dict[str, int]:
    """Parameters of each layer by name."""
    return {n: int(count) for n, count in zip(_layer_names(result), result.layer_parameters, strict=True)}


def _of_layer(kind: str, name: str) -> Callable[[Any], Reading | None]:
    """The reading of one layer: an interval of the trace, a bound of the eigenvalue, an error over probes."""
    values, errors, _ = LAYERS[kind]

    def read(result: Any) -> Reading | None:
        i = _layer_names(result).index(name)
        value = finite(np.ma.asarray(getattr(result, values)[i]).ravel()[0])
        if value is None:
            return None
        found = np.ma.asarray(getattr(result, errors)[i])
        if kind == "density":
            return Reading(value, standard_error=finite(found), sampling="over probes")
        ends = found.reshape(-1, 2)[0]
        return within(value, ends) if kind == "trace" else within(value, ends, BOUND, random=False)

    return read


#: The pictures of several results of each kind, the default first; of ratios they follow its own.
SERIES: Mapping[str, Mapping[str, View]] = {
    "eigen": {"training": View(with_learning_rate, bool), "eigenvalues": View(eigenvalues, bool)},
    "trace": {"training": View(with_layers, bool)},
    "density": {"training": View(with_layers, bool)},
    "ratios": {"measures": View(training, bool)},
    "sharpness": {"training": View(training, bool)},
    "reweight": {"training": View(training, bool)},
    "noise": {"training": View(training, bool)},
    "slice": {"training": View(training, bool)},
}
