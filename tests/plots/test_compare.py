"""Pictures of comparisons and correlations show what was compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.plots.compare import compared as draw
from landscape.plots.compare import scatter
from landscape.plots.style import BLUE
from landscape.results import Result
from landscape.study.compare import Compared, compared
from landscape.study.correlation import correlate
from tests.support.training_results import eigen_at, store, trace_at, trainings


def _compared(folder: Path, results: list[Result]) -> Compared:
    return compared(store(folder, results))


def _panels(figure: Figure) -> list[str]:
    return [ax.get_ylabel().split("\n")[0] for ax in figure.axes if ax.get_visible()]


def _dots(ax: Axes) -> list[tuple[float, float]]:
    found = []
    for container in ax.containers:
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            found += [(float(x), float(y)) for x, y in np.asarray(container.lines[0].get_xydata())]
    return found


def _bars(ax: Axes) -> list[tuple[float, float]]:
    """Ends of all bars that are drawn thin."""
    found = []
    for container in ax.containers:
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            found += [tuple(map(float, s[:, 1])) for s in container.lines[2][0].get_segments()]
    return [(a, b) for a, b in found]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_checkpoints_are_dots_with_their_errors(tmp_path: Path) -> None:
    found = _compared(tmp_path, [eigen_at("a.pt", 1, 8.0), eigen_at("b.pt", 1, 5.0)])
    figure = draw(found.comparison, found.results)
    assert _panels(figure) == ["Eigenvalue", "λmax", "λmin (seen)", "loss"]
    spectra, largest = figure.axes[:2]
    assert _dots(spectra) == [(1, 8), (2, 4), (1, 5), (2, 2.5)]
    assert _dots(largest) == [(0, 8), (1, 5)]
    np.testing.assert_allclose(_bars(largest), [(7.999, 8.001), (4.999, 5.001)])
    assert _legend(figure) == ["a", "b", "± residual and noise floor", "± standard error over the data"]
    suptitle = figure.get_suptitle()
    assert suptitle == "2 checkpoints · 2,410 parameters · 1,797 examples"


def test_of_several_kinds_the_main_figures(tmp_path: Path) -> None:
    results: list[Result] = [eigen_at("a.pt", 1, 8.0), eigen_at("b.pt", 1, 5.0)]
    results += [trace_at("a.pt", 1, 40.0), trace_at("b.pt", 1, 30.0)]
    found = _compared(tmp_path, results)
    assert _panels(draw(found.comparison, found.results)) == ["Eigenvalue", "λmax", "loss", "Tr"]


def test_chosen_measures_alone(tmp_path: Path) -> None:
    files = store(tmp_path, [eigen_at("a.pt", 1, 8.0), eigen_at("b.pt", 1, 5.0)])
    found = compared(files, measures=["accuracy"])
    assert _panels(draw(found.comparison, found.results, measure=["accuracy"])) == ["accuracy"]
    with pytest.raises(InputError, match="nothing to draw"):
        draw(found.comparison, found.results)


def test_what_differs_is_said_and_what_is_not_complete_is_hollow(tmp_path: Path) -> None:
    other = dataclasses.replace(eigen_at("b.pt", 1, 5.0, settings={"k": 1}), status="not_converged")
    found = _compared(tmp_path, [eigen_at("a.pt", 1, 8.0), other])
    figure = draw(found.comparison, found.results)
    assert figure.get_suptitle() == "2 checkpoints · eigen: k = None / 1"
    assert "not complete" in _legend(figure)


def test_one_eigenvalue_is_no_spectrum(tmp_path: Path) -> None:
    results = [
        dataclasses.replace(
            eigen_at(f"{n}.pt", 1, 8.0), eigenvalues=np.array([8.0]), residuals=np.array([0.008]),
            standard_errors=np.ma.MaskedArray([0.5]), converged=np.array([True]),
            intervals=np.array([[7.9, 8.1]]), refined_intervals=np.ma.masked_all((1, 2)),
        )
        for n in "ab"
    ]  # fmt: skip
    found = _compared(tmp_path, [*results])
    assert _panels(draw(found.comparison, found.results)) == ["λmax", "λmin (seen)", "loss"]


def test_training_runs_are_their_time_series(tmp_path: Path) -> None:
    store(tmp_path, trainings(3))
    found = compared([tmp_path])
    figure = draw(found.comparison, found.results)
    assert _panels(figure) == ["λmax", "Tr", "loss"]
    assert _dots(figure.axes[0]) == [(0, 4), (10, 4.5), (20, 5), (0, 8), (10, 9), (20, 10)]
    assert _legend(figure)[:2] == ["sam", "sgd"]
    chosen = draw(found.comparison, found.results, measure=["trace"])
    assert _panels(chosen) == ["Tr"]


def test_training_runs_of_the_same_names_are_two(tmp_path: Path) -> None:
    for name, largest in (("first", 8.0), ("second", 4.0)):
        (tmp_path / name).mkdir()
        store(tmp_path / name, [eigen_at(f"net{k}.pt", k, largest + k, content=name) for k in range(2)])
    found = compared([tmp_path / "first", tmp_path / "second"])
    figure = draw(found.comparison, found.results)
    assert _dots(figure.axes[0]) == [(0, 8), (1, 9), (0, 4), (1, 5)]
    assert _legend(figure)[:2] == ["first/net", "second/net"]


def test_a_scatter_has_every_checkpoint_and_the_coefficients(tmp_path: Path) -> None:
    store(tmp_path, trainings(6))
    figure = scatter(correlate(tmp_path, x="lambda_max", y="trace"))
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("λmax", "Tr")
    sam = next(line for line in ax.get_lines() if line.get_color() == BLUE and len(line.get_xdata()) == 6)
    np.testing.assert_allclose(np.asarray(sam.get_xydata()), [[4 + k / 2, 30 - k] for k in range(6)])
    first, second, together = _legend(figure)
    assert first.startswith("sam: Spearman −1.00 (95 %: −1.00 to ")
    assert second.endswith("n = 6")
    assert together.startswith("all together: Spearman 0.")
    assert together.endswith("n = 12")


def test_a_scatter_of_single_checkpoints(tmp_path: Path) -> None:
    names = ["x.pt", "y\x1b.pt", "$z$.pt", "u.pt"]
    files = store(tmp_path, [eigen_at(name, None, 10.0**i) for i, name in enumerate(names)])
    figure = scatter(correlate(*files, x="lambda_max", y="loss"))
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
    assert _legend(figure) == ["checkpoints: Spearman −1.00, n = 4"]
    figure.canvas.draw()
