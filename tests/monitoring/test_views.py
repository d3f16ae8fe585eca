"""A monitor's run in words and in pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from landscape.errors import InputError
from landscape.monitoring import Monitor
from landscape.plots import figure_for
from landscape.plots.monitor import overview
from landscape.plots.style import new_figure
from landscape.results import MonitorResult
from landscape.store import ResultFile
from tests.cli.support import call
from tests.monitoring.support import blobs, net, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it: 21 measurements, a trace at each fifth."""
    import torch

    path, model, data = tmp_path_factory.mktemp("monitor") / "monitor.h5", net(), blobs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.5)
    with Monitor(
        model, "cross_entropy", data, output=path, every=1, trace_every=5, trace_products=8, budget=None,
        optimizer=optimizer, seed=0,
    ) as monitor:  # fmt: skip
        train(model, data, 21, monitor)
    return path


def result_in(path: Path) -> MonitorResult:
    file = ResultFile(path)
    result = file.read(file.runs()[-1])
    assert isinstance(result, MonitorResult)
    return result


def test_show_lists_measurements_and_says_what_they_are(whole: Path) -> None:
    shown = call("show", whole, "monitor")
    assert shown.exit_code == 0, shown.output
    result = result_in(whole)
    header = next(line for line in shown.stdout.splitlines() if line.startswith("step"))
    for column in ("loss", "λmax", "trace", "‖h_t‖", "ckpt1 %", "ckpt4 %", "cos(g, g')"):
        assert column in header
    assert f"{100 * result.fractions[0, 0]:.3g}" in shown.stdout
    assert "(16 of 21 measurements; --json has all)" in shown.stdout
    assert "gradient-direction curvature ‖Hu‖, not λmax, which bounds nothing on mini-batches" in shown.stdout
    assert "% of the training time" in shown.stdout
    assert "21 times in 21 steps" in shown.stdout
    first, last = (line.split()[0] for line in (_rows(shown.stdout)[0], _rows(shown.stdout)[-1]))
    assert (first, last) == ("0", "20")


def _rows(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("step")) + 1
    return lines[start : start + 16]


def test_json_has_every_measurement(whole: Path) -> None:
    run = json.loads(call("show", whole, "monitor", "--json").stdout)["runs"][0]
    assert run["kind"] == "monitor"
    assert run["result"]["steps"] == list(range(21))
    assert run["result"]["trace"].count(None) == 16
    assert np.shape(run["result"]["counts"]) == (21, 10)


def test_a_run_without_sam_says_whose_ratios_it_has(tmp_path: Path) -> None:
    path, model, data = tmp_path / "monitor.h5", net(), blobs()
    with Monitor(
        model, "cross_entropy", data, output=path, rho=0.1, lambda_every=0, as_written=True
    ) as monitor:
        train(model, data, 2, monitor, rho=0.0)
    shown = call("show", path, "monitor").stdout
    assert "of the probe data, in eval mode: two more gradients at each measurement" in shown
    assert "as first written" in shown
    assert "λmax" not in shown.replace("not λmax", "").split("step ")[1].splitlines()[0]


def test_nothing_measured_yet_is_said(whole: Path) -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, first_step=1)
    train(model, data, 3, monitor)
    with pytest.raises(InputError, match="nothing to draw"):
        figure_for(monitor.result())
    assert repr(monitor).startswith("<Monitor: 0 measurements in 3 steps")


def test_overview_draws_what_there_is(whole: Path) -> None:
    result = result_in(whole)
    figure = figure_for(result)
    curvature, ratios, trace, loss = figure.axes
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    top = next(line for label, line in lines.items() if label.startswith("λmax"))
    assert np.asarray(top.get_xdata()).tolist() == result.steps.tolist()
    assert np.asarray(top.get_ydata()).tolist() == result.lambda_max.tolist()
    limit = next(line for label, line in lines.items() if label.startswith("2/η"))
    assert np.asarray(limit.get_ydata()) == pytest.approx(2 / 1.5)
    assert any("not λmax" in label.replace("\n", " ") for label in lines)
    share = next(line for label, line in lines.items() if label.startswith("ckpt1"))
    assert np.asarray(share.get_ydata()).tolist() == result.fractions[:, 0].tolist()
    widths = trace.containers[0].get_children()[-1].get_segments()
    known = ~np.ma.getmaskarray(result.trace)
    assert len(widths) == known.sum() == 5
    assert widths[0][1][1] - widths[0][0][1] == pytest.approx(2 * result.trace_half_widths[0])
    assert loss.get_xlabel() == "Steps of the optimizer"
    assert "of the training time" in curvature.get_title(loc="left")
    assert ratios.get_legend().get_title().get_text() == "Single training batches"


def test_views_and_places(whole: Path, tmp_path: Path) -> None:
    result = result_in(whole)
    assert len(figure_for(result, "curvature").axes) == len(figure_for(result, "ratios").axes) == 1
    figure = new_figure(7.0, 8.0)
    left, right = figure.subplots(1, 2)
    assert overview(result, left) is left
    assert len(figure.axes) == 5
    assert isinstance(right.get_figure(), Figure)
    drawn = call("plot", whole, "monitor", "-o", tmp_path / "m.svg")
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "m.svg").read_text().count("λmax of the probe data") >= 1
    with pytest.raises(InputError, match="no view 'spectrum'"):
        figure_for(result, "spectrum")


def test_many_measurements_are_a_band(tmp_path: Path) -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, every=1, budget=None, lambda_every=0, rho=0.1)
    train(model, data, 70, monitor, rho=0.0)
    (axes,) = figure_for(monitor.result(), "ratios").axes
    assert all(line.get_marker() in ("", "None") for line in axes.lines)
    assert axes.collections
