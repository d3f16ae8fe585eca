"""``reweight`` as an analysis: what it reports, from where it goes on, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from landscape.analyses import reweight, reweight_work
from landscape.analyses.base import Saved, Start
from landscape.analyses.reweight import Settings
from landscape.errors import ConfigurationError, DataError, OutOfMemory
from landscape.problem import Problem
from landscape.results import ReweightResult
from landscape.run import RunSettings, execute
from landscape.sam.per_example import PerExample
from landscape.store import ResultFile
from tests.run.support import assert_same_bits, carried_out, copied, small_problem
from tests.sam.test_per_example import CASES, whole_loss
from tests.support.closed_form import classification, generator
from tests.support.models import mlp, tiny_transformer, tokens

NOISY = torch.arange(50) % 5 == 0
WEIGHTS = ("weight", "logit_weight", "jacobian_weight")


def result_of(problem: Problem, **settings: Any) -> ReweightResult:
    result, _ = carried_out("reweight", problem, Settings(**settings), Start(3))
    assert isinstance(result, ReweightResult)
    return result


def test_every_example_has_its_figures_and_they_add_up() -> None:
    problem = small_problem(dtype="float64", noisy=NOISY)
    result = result_of(problem, rho=0.1)
    assert result.status == "complete"
    assert result.index.tolist() == list(range(50))
    assert float(result.example_loss.mean()) == pytest.approx(result.loss, rel=1e-12)
    x, y = next(problem.pieces()).batch
    assert result.label is not None
    assert result.label.tolist() == y.tolist()
    assert result.right is not None
    assert result.right.tolist() == (problem.model(x).argmax(1) == y).double().tolist()
    assert float(result.right.mean()) == pytest.approx(result.accuracy)
    assert result.noisy is not None
    assert result.noisy.tolist() == NOISY.tolist()
    assert (result.method, result.method_reason, result.separable) == ("vectorised", "", True)
    for name in WEIGHTS:
        assert not getattr(result, name).mask.any()


def test_the_summary_is_that_of_the_examples() -> None:
    result = result_of(small_problem(dtype="float64", noisy=NOISY), rho=0.1)
    weight, loss, noisy = result.weight.data, result.example_loss.data, NOISY.numpy()
    assert result.rank_correlation == pytest.approx(stats.spearmanr(weight, loss).statistic)
    low, high = result.rank_correlation_interval
    assert low < result.rank_correlation < high
    assert result.groups.tolist() == ["all", "clean", "noisy"]
    assert result.group_examples.tolist() == [50, 40, 10]
    for row, chosen in enumerate((slice(None), ~noisy, noisy)):
        for name in WEIGHTS:
            middle = getattr(result, f"median_{name}s")[row]
            ends = getattr(result, f"median_{name}_intervals")[row]
            assert middle == np.median(getattr(result, name).data[chosen])
            assert ends[0] <= middle <= ends[1]
        assert result.median_losses[row] == np.median(loss[chosen])
    pairs = weight[~noisy][:, None] - weight[noisy][None]
    assert result.weight_area == pytest.approx((pairs > 0).mean())
    assert result.loss_area == pytest.approx((loss[noisy][:, None] > loss[~noisy][None]).mean())
    assert result.weight_area_interval is not None
    assert result.weight_area_interval[0] < result.weight_area < result.weight_area_interval[1]


def test_without_marks_there_is_one_group_and_no_area() -> None:
    result = result_of(small_problem())
    assert result.groups.tolist() == ["all"]
    assert result.noisy is None
    assert result.weight_area is None
    assert result.loss_area_interval is None


@pytest.mark.parametrize("marks", [torch.zeros(50), torch.ones(50)])
def test_marks_of_one_kind_only_tell_nothing(marks: Tensor) -> None:
    result = result_of(small_problem(noisy=marks))
    assert result.weight_area is None
    assert sorted(result.group_examples.tolist()) == [0, 50, 50]
    empty = int(result.group_examples.tolist().index(0))
    assert math.isnan(result.median_weights[empty])


def test_a_subset_keeps_the_numbers_of_the_data_and_its_figures() -> None:
    whole = result_of(small_problem(dtype="float64", noisy=NOISY))
    part = result_of(small_problem(dtype="float64", noisy=NOISY, samples=12, sample_seed=4))
    assert len(part.index) == 12
    np.testing.assert_allclose(part.weight, whole.weight[part.index], rtol=1e-12)
    np.testing.assert_array_equal(part.label, whole.label[part.index])
    np.testing.assert_array_equal(part.noisy, NOISY.numpy()[part.index])


@pytest.mark.parametrize("sizes", [(50,), (7, 7, 7, 7, 7, 7, 7, 1), (20, 30)])
def test_neither_batches_nor_chunks_change_a_figure(sizes: tuple[int, ...]) -> None:
    one = small_problem(dtype="float64")
    x, y = next(one.pieces()).batch
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    other = Problem(one.model, "cross_entropy", batches, batch_size=9, dtype="float64")
    found, wanted = result_of(other), result_of(one)
    for name in (*WEIGHTS, "example_loss", "example_gradient_norm"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-10)


def test_the_rounding_error_is_that_of_float32() -> None:
    """The figure that is reported bounds what a run in float64 finds to be wrong, to a small factor."""
    data = classification(200, 6, 3)
    small, exact = (
        result_of(Problem(mlp(6, 10, 3), "cross_entropy", data, dtype=dtype), rho=0.2)
        for dtype in ("float32", "float64")
    )
    wrong = np.max([np.abs(getattr(small, n) / getattr(exact, n) - 1) for n in WEIGHTS])
    assert small.rounding is not None
    assert exact.rounding is not None
    assert (small.rounding_examples, small.rounding_against) == (16, "float64, one by one")
    assert 0.1 * wrong < small.rounding < 1e-3
    assert wrong < 30 * small.rounding
    assert exact.rounding < 1e-12


def test_the_examples_that_rounding_is_measured_on_go_from_low_to_high_loss() -> None:
    loss = np.random.default_rng(0).exponential(size=300)
    weight = np.ma.MaskedArray(np.ones(300), mask=np.arange(300) % 2 == 0)
    chosen = reweight_work._spread(loss, weight)
    there = loss[1::2]
    assert len(chosen) == 16
    assert {loss[chosen].min(), loss[chosen].max()} == {there.min(), there.max()}
    assert (chosen % 2 == 1).all()
    assert len(reweight_work._spread(loss, np.ma.masked_all(300))) == 0


def test_zero_gradients_are_counted_and_have_no_weight() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[200.0, 0.0], [-200.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    result = result_of(Problem(model, "cross_entropy", (x, torch.tensor([0, 0, 0]))))
    assert result.zero_gradients == 2
    for name in WEIGHTS:
        assert getattr(result, name).mask.tolist() == [True, True, False]
    assert result.group_examples.tolist() == [1]
    assert not result.example_loss.mask.any()


def test_nothing_but_zero_gradients_is_a_result_too() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    problem = Problem(model, "cross_entropy", (torch.zeros(5, 2), torch.zeros(5, dtype=torch.long)))
    result = result_of(problem)
    assert (result.status, result.zero_gradients, result.group_examples.tolist()) == ("complete", 5, [0])
    assert result.rounding is None
    assert math.isnan(result.rank_correlation)
    assert all(value is None for value in result.to_json()["weight"])


def test_a_length_at_which_gradients_overflow_is_counted() -> None:
    class Exponential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.1]))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = torch.exp(self.w * x)
            return out

    x = torch.tensor([[1.0], [1e-4], [2.0]])
    problem = Problem(Exponential(), "mse", (x, torch.zeros(3, 1)))
    result = result_of(problem, rho=1000.0)
    assert result.overflowed == 2
    assert result.weight.mask.tolist() == [True, False, True]
    assert result.zero_gradients == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_perturbation_is_exactly_one(dtype: str) -> None:
    result = result_of(small_problem(dtype=dtype), rho=0.0)
    for name in WEIGHTS:
        assert (getattr(result, name) == 1).all()
    assert math.isnan(result.rank_correlation)  # ones do not vary
    assert result.rounding == 0


def test_masked_sequences_have_no_weight_and_terms_add_up() -> None:
    x, y = tokens(4, 5, generator(1), vocabulary=12)
    y[2] = -100
    y[3, 1:] = -100
    problem = Problem(tiny_transformer(), "cross_entropy", (x, y), dtype="float64")
    for size in (None, 1):  # a piece of masked terms only is left out altogether
        problem.batch_size = size
        result = result_of(problem)
        assert (result.without_terms, result.zero_gradients) == (1, 0)
        assert result.weight.mask.tolist() == [False, False, True, False]
        assert result.example_loss.mask.tolist() == result.weight.mask.tolist()
        assert float(result.example_loss.sum()) / problem.terms == pytest.approx(result.loss, rel=1e-12)
        assert result.label is None
        assert result.right is not None
        assert result.right.mask.tolist() == result.weight.mask.tolist()


def test_a_loss_of_model_and_batch_has_no_parts() -> None:
    data = classification(9, 4, 3)
    problem = Problem(mlp(4, 5, 3), whole_loss, data, dtype="float64")
    known = Problem(mlp(4, 5, 3), "cross_entropy", data, dtype="float64")
    result, wanted = result_of(problem), result_of(known)
    np.testing.assert_allclose(result.weight, wanted.weight, rtol=1e-10)
    assert not result.separable
    assert result.logit_weight.mask.all()
    assert result.jacobian_weight.mask.all()
    assert math.isnan(result.median_logit_weights[0])
    assert result.label is None
    assert result.right is None


def test_weight_decay_belongs_to_no_example() -> None:
    plain, decayed = result_of(small_problem()), result_of(small_problem(weight_decay=0.3))
    np.testing.assert_array_equal(plain.weight, decayed.weight)
    assert decayed.weight_decay == 0.3
    assert decayed.loss > plain.loss


@pytest.mark.parametrize("name", ["frozen, tied and unused", "BatchNorm in eval mode"])
def test_parameters_of_all_kinds(name: str) -> None:
    model, loss, data = CASES[name]()
    result = result_of(Problem(model, loss, data), rho=0.05)
    assert result.group_examples[0] == result.examples
    if name.startswith("frozen"):
        assert (result.frozen_parameters, result.tied_parameters, result.unused_parameters) == (4, 16, 3)


@pytest.mark.parametrize(
    ("settings", "options"),
    [({}, {}), ({"relative": True, "rho": 0.3}, {"noisy": NOISY}), ({"p": 1.5}, {"dtype": "float64"})],
)
@pytest.mark.parametrize("vectorised", [True, False])
def test_every_state_goes_on_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], options: dict[str, Any], vectorised: bool
) -> None:
    if not vectorised:
        refuse_to_vectorise(monkeypatch)
    options = {"batch_size": 16, **options}
    whole, states = carried_out("reweight", small_problem(**options), Settings(**settings), Start(7))
    assert whole.method == ("vectorised" if vectorised else "one by one")
    assert len(states) == 6
    for start in states[:-1]:
        again, _ = carried_out("reweight", small_problem(**options), Settings(**settings), start)
        assert_same_bits(again, whole)


def refuse_to_vectorise(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PerExample.over

    def over(self: PerExample, *given: Any) -> Any:
        if self.vectorised:
            raise RuntimeError("no batching rule")
        return plain(self, *given)

    monkeypatch.setattr(PerExample, "over", over)


def test_what_cannot_be_vectorised_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = result_of(small_problem(dtype="float64"))
    refuse_to_vectorise(monkeypatch)
    slow = result_of(small_problem(dtype="float64"))
    assert (slow.method, slow.method_reason) == ("one by one", "RuntimeError: no batching rule")
    np.testing.assert_allclose(slow.weight, fast.weight, rtol=1e-11)


def test_chunks_get_smaller_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in the middle, then it is gone on from there in chunks of half the size."""
    whole = result_of(small_problem(batch_size=16))
    plain, sizes = PerExample.over, []

    def over(self: PerExample, piece: Any, function: Any) -> Any:
        if piece.examples > 4 and (len(sizes) > 1 or piece.examples > 8):
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(piece.examples)
        return plain(self, piece, function)

    problem = small_problem(batch_size=16)
    monkeypatch.setattr(PerExample, "over", over)
    result = execute("reweight", problem, Settings(), RunSettings(seed=1), store=False)
    assert isinstance(result, ReweightResult)
    assert (max(sizes), result.chunk) == (6, 3)  # 13, 6, 3
    np.testing.assert_allclose(result.weight, whole.weight, rtol=1e-4)


def test_memory_that_does_not_suffice_for_one_example_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def over(*given: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(PerExample, "over", over)
    with pytest.raises(OutOfMemory, match="--samples"):
        execute("reweight", small_problem(), Settings(), RunSettings(seed=1), store=False)


def test_memory_sets_the_chunk() -> None:
    problem = small_problem()
    each = reweight_work.example_bytes(problem)
    assert each > 5 * problem.size * 4
    problem.memory = int(2 * 10 * each)
    assert reweight_work.chosen_chunk(problem, each) == 10
    problem.memory = 1
    assert reweight_work.chosen_chunk(problem, each) == 1
    problem.batch_size, problem.memory = 20, 1 << 30
    assert reweight_work.chosen_chunk(problem, each) == 17  # three of 17, not 20, 20 and 10


def test_a_run_that_a_limit_stops_says_how_far_it_came() -> None:
    problem = small_problem(batch_size=16, dtype="float64", noisy=NOISY)
    whole = result_of(problem)
    steps = reweight.steps(problem, Settings(), {}, Start(0))
    states = [next(steps).save() for _ in range(3)]
    result = reweight.finish(problem, Settings(), states[-1])
    assert (result.status, result.not_reached) == ("partial", 24)
    assert result.weight.mask.tolist() == [False] * 26 + [True] * 24
    assert int(result.group_examples[0]) == 26
    assert result.label is not None
    assert result.label.mask.sum() == 24
    np.testing.assert_array_equal(result.weight[:26], whole.weight[:26])
    none = reweight.finish(problem, Settings(), states[0])
    assert (none.not_reached, none.rounding) == (50, None)
    json.dumps(none.to_json(), allow_nan=False)


def test_the_work_is_not_changed_by_what_was_saved() -> None:
    problem = small_problem(batch_size=16)
    steps = reweight.steps(problem, Settings(), {}, Start(0))
    first = next(steps).save()
    before = {name: array.copy() for name, array in first.arrays.items()}
    for _ in steps:
        pass
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_stored_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "r.h5"
    problem = small_problem(noisy=NOISY)
    result = execute("reweight", problem, Settings(), RunSettings(seed=1, output=str(file)))
    stored = ResultFile(file).read(ResultFile(file).runs()[0].id)
    assert_same_bits(stored, result)
    again = execute("reweight", problem, Settings(), RunSettings(seed=1, output=str(file)))
    assert again.provenance == stored.provenance  # found, not made again
    other = small_problem(noisy=~NOISY)
    execute("reweight", other, Settings(), RunSettings(seed=1, output=str(file)))
    assert len(ResultFile(file).runs()) == 2


def test_train_mode_and_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no gradient of its own"):
        result_of(small_problem(train_mode=True))
    with pytest.raises(ConfigurationError, match="finite"):
        Settings(rho=math.inf)


def test_labels_out_of_range_and_models_that_fail_are_said_as_elsewhere() -> None:
    x, y = classification(9, 4, 3)
    with pytest.raises(DataError, match="out of range"):
        result_of(Problem(mlp(4, 5, 3), "cross_entropy", (x, y + 5)))
    with pytest.raises(DataError, match="the model or the loss failed"):
        result_of(Problem(mlp(7, 5, 3), "cross_entropy", (x, y)))


def test_nothing_of_the_users_is_changed_also_by_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp(4, 5, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    problem = Problem(model, "cross_entropy", classification(20, 4, 3))
    state = torch.random.get_rng_state()

    def fail(*given: Any) -> None:
        raise KeyboardInterrupt

    result_of(problem)
    monkeypatch.setattr(reweight_work, "_errors", fail)
    with pytest.raises(KeyboardInterrupt):
        result_of(problem)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in (*model.parameters(), *problem.model.parameters()))
    assert torch.equal(state, torch.random.get_rng_state())


def test_data_that_are_read_again_at_each_pass() -> None:
    held = small_problem(dtype="float64")
    x, y = next(held.pieces()).batch
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=20)
    streamed = Problem(held.model, "cross_entropy", loader, memory=16, batch_size=8, dtype="float64")
    assert streamed.data.batches is None
    np.testing.assert_allclose(result_of(streamed).weight, result_of(held).weight, rtol=1e-10)


def test_the_plan_is_about_what_is_done() -> None:
    problem = small_problem()
    plan = reweight.plan(problem, Settings())
    assert plan.gradients > 4
    assert plan.memory_bytes >= 7 * problem.size * 4


def test_a_state_goes_through_a_file() -> None:
    problem = small_problem(batch_size=16)
    *_, last = reweight.steps(problem, Settings(), {}, Start(5))
    start = copied(last, 5)
    assert isinstance(start.saved, Saved)
    assert_same_bits(
        reweight.finish(problem, Settings(), start.saved), reweight.finish(problem, Settings(), last.save())
    )
