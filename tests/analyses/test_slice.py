"""The grid of a slice: values, ranges, what is measured beside the loss, and going on from any state."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape.analyses.base import Start
from landscape.analyses.slice import Settings, plan
from landscape.errors import ConfigurationError
from landscape.identity import subject
from landscape.problem import Problem
from landscape.results import SliceResult
from landscape.run import RunSettings, execute, run_id
from tests.analyses.slice_support import (
    carried_out,
    checkpoint,
    examples_at,
    naive,
    near,
    normalised,
    paired_error,
    sliced,
    small,
    with_weights,
)
from tests.run.support import Listener, assert_same_bits

LINE = {"range": ("-1:1:5",)}


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """One number for each example."""
    return outputs.gather(1, targets[:, None])[:, 0]


def spread(outputs: Tensor, targets: Tensor) -> Tensor:
    """A mean over examples."""
    return outputs.square().mean()


# --- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [("-1:1:4", "-0.5:0.7:3"), ("0.2:1:3",)])
def test_the_grid_and_its_errors_are_the_naive_ones(ranges: tuple[str, ...]) -> None:
    problem = small()
    result = sliced(problem, "random", "gradient", range=ranges)
    np.testing.assert_allclose(result.loss, naive(problem, result), rtol=1e-12)
    w = problem.selection.flat().detach()
    corner = w + torch.from_numpy(np.array(result.directions)).T @ torch.tensor([result.x[0], result.y[-1]])
    now, before = (examples_at(with_weights(problem, flat), problem) for flat in (corner, w))
    assert result.standard_errors[0, -1] == pytest.approx(paired_error(now, before), rel=1e-9)
    assert result.centre_loss == pytest.approx(float(before.mean()), rel=1e-12)
    assert result.centre_error == pytest.approx(paired_error(before, torch.zeros(50)), rel=1e-9)
    centre = bool((result.x == 0).any()) and bool((result.coordinates[-1] == 0).any())
    assert result.evaluations == result.loss.size + (not centre)
    assert result.evaluated.all()
    assert not np.ma.is_masked(result.loss)


def test_a_range_beside_zero_and_one_for_each_axis() -> None:
    result = sliced(small(), "random", "random", range=("0.5:1:3", "-1:0:4"))
    np.testing.assert_array_equal(result.x, [0.5, 0.75, 1.0])
    assert result.y[-1] == 0.0
    assert result.loss.shape == (3, 4)
    assert result.minimum is not None


def test_automatic_ranges_end_where_the_loss_has_risen() -> None:
    problem = small()
    result = sliced(problem, "random", range=("auto:7",), rise=3.0)
    assert result.x[0] < 0 < result.x[-1]
    for end in (0, -1):
        assert result.loss[end] >= 3.0 * result.centre_loss * 0.999
    assert result.loss[-1] < 4.5 * result.centre_loss
    assert result.evaluations > len(result.x) + 1


def test_losses_that_are_not_finite_are_kept() -> None:
    result = sliced(small(dtype="float32"), "random", normalize="none", range=("-1e30:1e38:4",))
    assert not np.isfinite(result.loss).all()
    assert np.isfinite(result.loss[list(result.x).index(0.0)])
    assert not np.ma.is_masked(result.loss)


def test_refinement_evaluates_less_and_says_where() -> None:
    problem = small()
    whole = sliced(problem, "random", range=("-0.5:0.5:65",))
    fine = sliced(problem, "random", range=("-0.5:0.5:65",), refine=True)
    assert fine.evaluations == fine.evaluated.sum() < 40
    np.testing.assert_array_equal(fine.loss[fine.evaluated], whole.loss[fine.evaluated])
    np.testing.assert_allclose(fine.loss, whole.loss, rtol=1e-2)
    assert fine.interpolation_errors is not None
    assert not fine.interpolation_errors[fine.evaluated].any()


# --- beside the loss -------------------------------------------------------------------------------------


def test_the_norm_of_the_gradient_is_autograds() -> None:
    problem = small()
    result = sliced(problem, "random", gradient_norm=True, range=("-1:1:3",))
    assert result.gradient_norms is not None
    assert problem.data.batches is not None
    ((x, y),) = problem.data.batches
    row = torch.from_numpy(np.array(result.directions))[0]
    for t, found in zip(result.x, result.gradient_norms, strict=True):
        model = with_weights(problem, problem.selection.flat().detach() + t * row)
        loss = nn.functional.cross_entropy(model(x.double()), y)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        assert found == pytest.approx(math.sqrt(sum(float(p.square().sum()) for p in parts)), rel=1e-10)
    assert result.gradient_norm == pytest.approx(result.gradient_norms[1], rel=1e-12)


def test_metrics_of_single_examples_and_means() -> None:
    problem = small(metrics={"margin": margin, "spread": spread})
    result = sliced(problem, "random", **LINE)
    assert result.metric_names is not None
    assert result.metrics is not None
    assert list(result.metric_names) == ["margin", "spread"]
    assert problem.data.batches is not None
    ((x, y),) = problem.data.batches
    row = torch.from_numpy(np.array(result.directions))[0]
    for i, t in enumerate(result.x):
        outputs = with_weights(problem, problem.selection.flat().detach() + t * row)(x.double()).detach()
        assert result.metrics[0, i] == pytest.approx(float(margin(outputs, y).mean()), rel=1e-12)
        assert result.metrics[1, i] == pytest.approx(float(spread(outputs, y)), rel=1e-12)
        spreads = margin(outputs, y).double().std()
        assert result.metric_errors is not None
        assert result.metric_errors[0, i] == pytest.approx(float(spreads) / len(y) ** 0.5, rel=1e-9)
        assert np.isnan(result.metric_errors[1, i])
    np.testing.assert_array_equal(result.loss, sliced(small(), "random", **LINE).loss)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"bad": lambda o, t: 1 / 0}, "the metric bad failed on a batch"),
        ({"odd": lambda o, t: o}, "must return a mean, or one number for each"),
        ({"loss": spread}, "cannot be called 'loss'"),
        ({"accuracy": spread}, "cannot be called 'accuracy'"),
        ({"test_loss": spread}, "cannot be called 'test_loss'"),
    ],
)
def test_a_metric_that_fails_is_said_before_the_work(metrics: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        next(iter(_steps(small(metrics=metrics))))


def _steps(problem: Problem) -> Any:
    from landscape.analyses import slice as module

    return module.steps(problem, Settings(along=("random",)), {}, Start(7))


def test_data_of_two_kinds_in_one_run() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(23, 4, generator=generator), torch.randint(0, 3, (23,), generator=generator)
    result = sliced(small(test_data=(x, y)), "random", **LINE)
    alone = sliced(small(), "random", **LINE)
    np.testing.assert_array_equal(result.loss, alone.loss)
    assert result.test_examples == 23
    for name in ("test_loss", "test_standard_errors", "test_accuracies"):
        assert getattr(result, name).shape == (5,)
        assert getattr(alone, name) is None
    problem = small()
    other = Problem(problem.model, "cross_entropy", (x, y), dtype="float64", batch_size=16)
    np.testing.assert_allclose(result.test_loss, sliced(other, "random", **LINE).loss, rtol=1e-12)
    assert result.test_centre_loss == pytest.approx(result.test_loss[2], rel=1e-12)


# --- BatchNorm -------------------------------------------------------------------------------------------


def test_running_statistics_by_default_and_as_recorded(tmp_path: Path) -> None:
    problem = normalised()
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 2))
    along = {"to": f"to:{path}", "random": "random"}
    found = {
        (kind, given): sliced(problem, along[kind], batchnorm=given, **LINE)
        for kind in along
        for given in (None, "saved", "recalibrated")
    }
    assert found["to", None].batchnorm == "recalibrated"
    assert found["random", None].batchnorm == "saved"
    np.testing.assert_array_equal(found["to", None].loss, found["to", "recalibrated"].loss)
    np.testing.assert_array_equal(found["random", None].loss, found["random", "saved"].loss)
    for kind in along:
        assert found[kind, "recalibrated"].recalibration_batch == 40
        assert found[kind, "saved"].recalibration_batch is None
        assert found[kind, "saved"].centre_loss == pytest.approx(found[kind, "saved"].own_loss)
        assert abs(found[kind, "recalibrated"].centre_loss - found[kind, "saved"].own_loss) > 0.01
    np.testing.assert_allclose(
        found["random", "saved"].loss, naive(problem, found["random", "saved"]), rtol=1e-12
    )
    assert sliced(small(), "random", batchnorm="recalibrated", **LINE).batchnorm == "none"


def test_recalibrated_losses_are_those_of_batch_statistics() -> None:
    problem = normalised()
    result = sliced(problem, "random", batchnorm="recalibrated", **LINE)
    assert problem.data.batches is not None
    ((x, y),) = problem.data.batches
    row = torch.from_numpy(np.array(result.directions))[0]
    for t, found in zip(result.x, result.loss, strict=True):
        model = with_weights(problem, problem.selection.flat().detach() + t * row)
        model[1].momentum = None
        model[1].reset_running_stats()
        model.train()(x.double())
        loss = nn.functional.cross_entropy(model.eval()(x.double()), y)
        assert found == pytest.approx(float(loss.detach()), rel=1e-12)


def test_in_train_mode_there_is_nothing_to_recalibrate() -> None:
    with pytest.raises(ConfigurationError, match="nothing to recalibrate"):
        sliced(normalised(train_mode=True), "random", batchnorm="recalibrated", **LINE)
    assert sliced(normalised(train_mode=True), "random", **LINE).batchnorm == "batch"


# --- going on --------------------------------------------------------------------------------------------


def resumable(tmp_path: Path) -> dict[str, tuple[Problem, dict[str, Any]]]:
    problem = small()
    files = [checkpoint(problem, tmp_path / f"{i}.pt", near(problem, i), step=i) for i in range(3)]
    net = normalised()
    other = checkpoint(net, tmp_path / "net.pt", near(net, 2))
    runs = (str(files[1]), str(files[2]))
    return {
        "plane": (problem, {"along": ("random", "gradient"), "range": ("-1:1:3", "-1:1:4")}),
        "automatic": (problem, {"along": ("random", "sam"), "range": ("auto:3", "auto:2"), "rise": 2.0}),
        "eigen": (problem, {"along": ("eigen", "eigen:-1"), "range": ("-1:1:3",)}),
        "barrier": (net, {"along": (f"to:{other}",), "range": ("0:1:4",)}),
        "points": (problem, {"along": (f"to:{files[0]}", "pca"), "range": ("0:1:2",), "trajectory": runs}),
        "refined": (problem, {"along": ("random",), "range": ("-1:1:40",), "refine": True}),
    }


@pytest.mark.parametrize("name", ["plane", "automatic", "eigen", "barrier", "points", "refined"])
def test_every_state_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    problem, options = resumable(tmp_path)[name]
    settings = Settings(**options)
    whole, states = carried_out(problem, settings, Start(7))
    phases = {start.saved.counters["phase"] for start in states if start.saved is not None}
    assert {"directions", "ranges", "grid", "over"} <= phases
    for start in states:
        again, _ = carried_out(problem, settings, start)
        assert_same_bits(again, whole)


def test_a_search_for_eigenvectors_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from landscape.curvature.products import GraphOperator

    made: list[int] = []
    original = GraphOperator.apply

    def counted(self: Any, vectors: Tensor) -> Tensor:
        made.append(len(vectors))
        return original(self, vectors)

    monkeypatch.setattr(GraphOperator, "apply", counted)
    problem, settings = small(), Settings(along=("eigen",), **LINE)
    _, states = carried_out(problem, settings, Start(7))
    whole = sum(made)
    searching = [s for s in states if s.saved is not None and "search" in s.saved.counters]
    assert len(searching) > 3
    made.clear()
    carried_out(problem, settings, searching[-1])
    assert sum(made) < whole / 2


def test_a_state_before_the_first_point_is_a_result_without_one() -> None:
    from landscape.analyses import slice as module

    for along in (("random",), ("random", "eigen"), ("to:missing.pt",)):
        problem = small(metrics={"margin": margin}, test_data=small().data.batches[0])
        settings = Settings(along=along)
        state = next(iter(module.steps(problem, settings, {}, Start(7))))
        result = module.finish(problem, settings, state.save())
        assert isinstance(result, SliceResult)
        assert result.status == "partial"
        assert result.loss.shape == (0,) * len(along)
        assert math.isnan(result.centre_loss)
        assert result.own_loss == pytest.approx(state.save().counters["loss"])
        assert result.minimum is None
        assert result.to_json()["coordinates"] == [[]] * len(along)


# --- runs ------------------------------------------------------------------------------------------------


def test_a_run_is_found_again_and_several_jobs_are_the_same_run(tmp_path: Path) -> None:
    where = RunSettings(seed=7, output=str(tmp_path / "r.h5"))
    options: dict[str, Any] = {"along": ("random", "random"), "range": ("-1:1:3",)}
    first = execute("slice", small(), Settings(**options, jobs=2), where)
    listener = Listener()
    again = execute("slice", small(), Settings(**options), where, observer=listener)
    assert any("the same run is stored" in note for note in listener.notes)
    first, again = (dataclasses.replace(one, directions=None) for one in (first, again))
    assert_same_bits(first, again)
    alone = execute("slice", small(), Settings(**options), RunSettings(seed=7), store=False)
    assert_same_bits(first, dataclasses.replace(alone, directions=None), but=("directions_file",))


def test_directions_are_written_once_and_named_by_their_contents(tmp_path: Path) -> None:
    where = RunSettings(seed=7, output=str(tmp_path / "r.h5"))
    for count in (3, 4):
        execute("slice", small(), Settings(along=("random",), range=(f"-1:1:{count}",)), where)
    assert len(list(tmp_path.glob("r-*.h5"))) == 1
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("kind", ["to", "saved", "trajectory"])
def test_the_contents_of_files_make_it_this_run(tmp_path: Path, kind: str) -> None:
    problem = small()
    path = tmp_path / "other.pt"
    along = ("random",) if kind == "trajectory" else (f"{kind}:{path}",)
    settings = Settings(along=along, trajectory=(str(path),) if kind == "trajectory" else (), **LINE)
    ids = []
    for seed in (1, 2, 1):
        checkpoint(problem, path, near(problem, seed))
        ids.append(run_id("slice", problem, settings, RunSettings()))
    assert ids[0] == ids[2] != ids[1]


def test_contents_of_a_file_of_vectors_under_any_name(tmp_path: Path) -> None:
    from landscape.store import write_vectors

    problem, path = small(), tmp_path / "mine.h5"
    settings, ids = Settings(along=(f"saved:{path}",)), []
    for value in (1.0, 2.0):
        write_vectors(tmp_path, "v", np.full((1, problem.size), value), {}).replace(path)
        ids.append(run_id("slice", problem, settings, RunSettings()))
    assert ids[0] != ids[1]


def test_test_data_and_metrics_make_another_run_of_the_same_subject() -> None:
    x, y = torch.zeros(4, 4), torch.tensor([0, 1, 2, 0])
    variants = [
        small(),
        small(test_data=(x, y)),
        small(test_data=(x + 1, y)),
        small(metrics={"m": margin}),
        small(metrics={"m": spread}),
    ]
    settings = Settings(along=("random",))
    assert len({run_id("slice", one, settings, RunSettings()) for one in variants}) == len(variants)
    assert len({subject(one) for one in variants}) == 1


@pytest.mark.parametrize(
    ("options", "points"),
    [
        ({"along": ("random",), "range": ("0:1:10",)}, "10 points"),
        ({"along": ("random",), "range": ("-1:0:10",)}, "10 points"),
        ({"along": ("random",), "range": ("-1:2:3",)}, "4 points"),
        ({}, "625 points"),
    ],
)
def test_the_plan_counts_points(options: dict[str, Any], points: str) -> None:
    assert plan(small(), Settings(**options)).notes[0] == points


def test_the_plan_counts_what_is_measured_beside_the_loss() -> None:
    base = plan(small(), Settings(along=("random",), range=("0:1:30",))).gradients
    assert base == pytest.approx(2 + 30 / 3)
    dear = plan(small(), Settings(along=("random",), range=("0:1:30",), gradient_norm=True)).gradients
    assert dear == pytest.approx(2 + 30 * 4 / 3)
    search = plan(small(), Settings(along=("eigen:3",), range=("0:1:30",)))
    assert (search.products, search.at_most) == (11, 1000)
    assert search.gradients == pytest.approx(base + 33)


def test_the_total_grows_while_refining(tmp_path: Path) -> None:
    from landscape.analyses import slice as module

    settings = Settings(along=("random",), range=("-1:1:200",), refine=True)
    totals, done = [], []
    for state in module.steps(small(), settings, {}, Start(7)):
        if state.total is not None:
            totals.append(state.total)
            done.append(state.done)
    assert totals == sorted(totals)
    assert len(set(totals)) > 1
    assert all(one <= total for one, total in zip(done, totals, strict=True))
    assert done[-1] == totals[-1]


def test_errors_of_accuracies_are_those_of_shares() -> None:
    problem = small()
    result = sliced(problem, "random", **LINE)
    assert result.accuracies is not None
    assert result.accuracy_errors is not None
    hits = np.rint(result.accuracies * 50).astype(int)
    naive = [np.std([1.0] * k + [0.0] * (50 - k), ddof=1) / 50**0.5 for k in hits]
    np.testing.assert_allclose(result.accuracy_errors, naive, rtol=1e-12)
