"""``overlap`` of made-up ratio runs: every figure by its definition, and what cannot be compared."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import hypergeom

from landscape.analyses.overlap import Settings, combine, ordered, unusable
from landscape.errors import ConfigurationError, InputError
from landscape.results import CLASSES, OverlapResult, RatiosResult
from landscape.settings import from_mapping, options_of
from landscape.store import ResultFile
from tests.results.samples import assert_same, provenance
from tests.support.ratio_runs import NAMES, random_runs, ratios_run

STEPS = (36, 180, 720, 721)
N = 2003


def members(result: RatiosResult, name: str) -> np.ndarray:
    """Which parameters are in a class, bit by bit."""
    assert result.masks is not None
    row = result.masks[NAMES.index(name)]
    return np.array([row[i // 8] >> (i % 8) & 1 for i in range(result.parameters)], dtype=bool)


def test_the_classes_to_choose_from_are_those_of_the_ratios() -> None:
    assert {o.name: o.choices for o in options_of(Settings)}["ratio_class"] == tuple(CLASSES)


def test_every_figure_by_its_definition() -> None:
    runs = random_runs(N, STEPS)
    result = combine(runs, Settings())
    sets = [set(np.flatnonzero(members(run, "ckpt1")).tolist()) for run in runs]
    assert result.sizes.tolist() == [len(s) for s in sets]
    assert (result.order, result.places.tolist()) == ("step", list(STEPS))
    assert result.checkpoints.tolist() == [f"net-{step}.pt" for step in STEPS]
    assert result.runs.tolist() == [f"ratios-{step:04d}" for step in STEPS]
    assert result.parameters == N
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            both = len(a & b)
            assert result.counts[i, j] == both
            assert result.shares[i, j] == both / len(a)
            assert result.jaccards[i, j] == both / len(a | b)
            if i == j:
                for name in ("expected", "deviations", "z", "lifts"):
                    assert np.ma.is_masked(getattr(result, name)[i, j]), name
                assert result.kappas[i, j] == pytest.approx(1)
                continue
            law = hypergeom(N, len(a), len(b))
            assert result.expected[i, j] == pytest.approx(law.mean())
            assert result.deviations[i, j] == pytest.approx(law.std())
            assert result.z[i, j] == pytest.approx((both - law.mean()) / law.std())
            assert result.lifts[i, j] == pytest.approx(both / law.mean())
            ends = law.ppf([0.025, 0.975]) / law.mean()
            assert result.lift_intervals[i, j].tolist() == pytest.approx(ends.tolist())


def test_what_is_in_the_class_all_the_time() -> None:
    runs = random_runs(N, STEPS, shares=(0.8, 0.2))
    result = combine(runs, Settings())
    assert result.common is not None
    assert result.common_expected is not None
    assert result.common_deviations is not None
    inside = np.array([members(run, "ckpt1") for run in runs])
    for s in range(4):
        for e in range(4):
            if e < s:
                assert np.ma.is_masked(result.common[s, e])
                continue
            assert result.common[s, e] == inside[s : e + 1].all(axis=0).sum()
            assert np.ma.is_masked(result.common_expected[s, e]) == (s == e)
            if e > s:
                product = math.prod(row.mean() for row in inside[s : e + 1])
                assert result.common_expected[s, e] == pytest.approx(N * product)
                z = (result.common[s, e] - result.common_expected[s, e]) / result.common_deviations[s, e]
                assert abs(z) < 5


def test_sets_that_persist_have_more_in_common_than_chance() -> None:
    """Half of the parameters never leave their class."""
    rng = np.random.default_rng(4)
    kept, fixed = rng.integers(0, 2, N), rng.random(N) < 0.5
    runs = [ratios_run(np.where(fixed, kept, rng.integers(0, 2, N)), step=step) for step in STEPS]
    result = combine(runs, Settings())
    apart = ~np.eye(4, dtype=bool)
    # P(both) = ½·½ + ½·¼ = 3/8, over ¼: 1.5; κ = ½.
    np.testing.assert_allclose(np.asarray(result.lifts)[apart], 1.5, atol=0.1)
    np.testing.assert_allclose(np.asarray(result.kappas)[apart], 0.5, atol=0.1)
    assert (np.asarray(result.z)[apart] > 15).all()


def test_independent_classes_have_lift_one_within_its_interval() -> None:
    """Over twenty classes of pairs, about one in twenty is outside."""
    outside, z = 0, []
    for seed in range(20):
        result = combine(random_runs(N, (1, 2, 3), seed=seed), Settings())
        upper = np.triu_indices(3, 1)
        lifts, intervals = np.asarray(result.lifts)[upper], np.asarray(result.lift_intervals)[upper]
        outside += int(((lifts < intervals[:, 0]) | (lifts > intervals[:, 1])).sum())
        z += np.asarray(result.z)[upper].tolist()
    assert outside <= 10
    assert abs(np.mean(z)) < 4 / math.sqrt(len(z))


def test_another_class_at_the_other_steps() -> None:
    runs = random_runs(N, STEPS[:3])
    result = combine(runs, Settings(ratio_class="ckpt2", with_class="ckpt3"))
    assert result.with_sizes is not None
    for i, one in enumerate(runs):
        assert result.with_sizes[i] == members(one, "ckpt3").sum()
        for j, other in enumerate(runs):
            both = members(one, "ckpt2") & members(other, "ckpt3")
            assert result.counts[i, j] == both.sum()
            assert result.shares[i, j] == both.sum() / members(one, "ckpt2").sum()
    assert (np.diag(result.counts) == 0).all()
    assert (result.counts != result.counts.T).any()
    assert (result.common, result.common_expected) == (None, None)
    assert combine(runs, Settings(with_class="ckpt1")).with_class is None


def test_training_order_is_by_step_else_epoch_else_as_given() -> None:
    by_step = [ratios_run([0, 1], step=step, epoch=-step) for step in (30, 10, 20)]
    found, order, places = ordered(by_step)
    assert (order, places) == ("step", [10, 20, 30])
    assert found == [by_step[1], by_step[2], by_step[0]]
    mixed = [ratios_run([0, 1], step=None, epoch=2), ratios_run([0, 1], step=1, epoch=1)]
    assert ordered(mixed)[1:] == ("epoch", [1, 2])
    given = [ratios_run([0, 1], step=5), ratios_run([0, 1], step=None)]
    assert ordered(given) == (given, "given", [0, 1])
    twins = [ratios_run([0, 1], step=5, run=name) for name in ("b", "a")]
    assert ordered(twins)[0] == twins


def test_what_rounding_may_have_changed() -> None:
    """Of 100 parameters: 2 may not belong to ckpt1, and 3 more in ckpt2 and dead may."""
    classes = np.repeat([0, 1, 6, 2], 25)
    few = {"ckpt1": 0.02, "ckpt2": 0.02, "dead": 0.01}
    runs = [ratios_run(classes, step=1, uncertain=few), ratios_run(classes, step=2)]
    result = combine(runs, Settings())
    assert result.size_errors.tolist() == [3, 0]
    assert result.count_errors.tolist() == [[3, 3], [3, 0]]
    assert result.common_errors is not None
    assert result.common_errors[0].tolist() == [3, 3]
    result = combine([runs[0], runs[0]], Settings())
    assert result.count_errors.tolist() == [[3, 6], [6, 3]]
    result = combine(runs, Settings(ratio_class="ckpt3", with_class="ckpt1"))
    assert result.size_errors.tolist() == [5, 0]
    assert result.with_size_errors is not None
    assert result.with_size_errors.tolist() == [3, 0]
    assert result.count_errors.tolist() == [[0, 5], [3, 0]]


def test_an_empty_class_is_masked_and_nothing_is_nan() -> None:
    runs = [
        ratios_run(classes, step=step) for step, classes in enumerate(([0] * 9, [1] * 9, [0] * 5 + [1] * 4))
    ]
    result = combine(runs, Settings())
    assert result.sizes.tolist() == [9, 0, 5]
    assert result.counts.tolist() == [[9, 0, 5], [0, 0, 0], [5, 0, 5]]
    assert np.ma.getmaskarray(result.shares)[1].all()
    assert np.ma.getmaskarray(result.lifts)[1].all()
    assert np.ma.getmaskarray(result.lifts)[:, 1].all()
    assert np.ma.getmaskarray(result.lift_intervals)[:, 1].all()
    assert np.ma.getmaskarray(result.kappas)[[0, 1], [0, 1]].all(), "all or none in both: no chance to agree"
    assert result.lifts[0, 2] == 1.0, "everything has the others in it by chance, too"
    assert np.ma.getmaskarray(result.z).all()
    for _, value in result:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert np.isfinite(np.ma.compressed(value)).all()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs(count: int) -> None:
    with pytest.raises(InputError, match="two saved steps") as caught:
        combine(random_runs(20, range(count)), Settings())
    assert f"found: {count} ratios run" in str(caught.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (ratios_run(np.zeros(31, dtype=int), step=2), "30 parameters in net-1.pt, 31 in net-2.pt"),
        (
            ratios_run(np.zeros(30, dtype=int), step=2, layers=np.array(["0", "conv"], dtype=object)),
            r"2 \(10 parameters\) in net-1.pt is conv \(10",
        ),
        (
            ratios_run(np.zeros(30, dtype=int), step=2, layer_parameters=np.array([15, 15])),
            r"0 \(20 parameters\) in net-1.pt is 0 \(15",
        ),
        (
            ratios_run(
                np.zeros(30, dtype=int), step=2, layers=np.array(["0"], dtype=object),
                layer_parameters=np.array([20]),
            ),
            r"2 \(10 parameters\) in net-1.pt is nothing",
        ),
    ],
)  # fmt: skip
def test_checkpoints_of_different_models(other: RatiosResult, words: str) -> None:
    """Also with --mixed: the bits are of different parameters."""
    one = ratios_run(np.zeros(30, dtype=int), step=1)
    for settings in (Settings(), Settings(mixed=True)):
        with pytest.raises(InputError, match="different models") as caught:
            combine([one, other], settings)
        assert caught.match(words)


def test_layers_are_compared_where_they_are_known() -> None:
    one = ratios_run([0, 1, 0], step=1)
    combine([one, ratios_run([0, 1, 0], step=2, layers=None, layer_parameters=None)], Settings())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rho": 0.1}, "rho: 0.05, 0.1"),
        ({"p": math.inf}, "p: 2.0, inf"),
        ({"relative": True}, "relative: False, True"),
        ({"perturb": "adaptive", "eta": 0.01}, "perturb: gradient, adaptive; eta: None, 0.01"),
        ({"problem": {"weight_decay": 0.1}}, "weight_decay: None, 0.1"),
        ({"problem": {"loss": "mse"}}, "loss: cross_entropy, mse"),
        ({"provenance": provenance(problem={"model": "net.py:net", "loss": "cross_entropy"},
                                   data_fingerprint="beef")}, "data: c0ffee, beef"),
    ],
)  # fmt: skip
def test_runs_that_differ_in_more_than_the_weights(changes: dict[str, Any], words: str) -> None:
    runs = [ratios_run([0, 1, 0], step=1), ratios_run([0, 0, 1], step=2, **changes)]
    with pytest.raises(InputError, match="more than the weights") as caught:
        combine(runs, Settings())
    assert words in str(caught.value)
    assert "--mixed" in str(caught.value)
    mixed = combine(runs, Settings(mixed=True))
    assert mixed.differing is not None
    assert words in mixed.differing
    assert mixed.counts.tolist() == [[2, 1], [1, 2]]


def test_the_perturbation_is_said() -> None:
    def said(**changes: Any) -> str:
        return combine([ratios_run([0, 1], step=step, **changes) for step in (1, 2)], Settings()).perturbation

    assert said() == "gradient, ρ = 0.05, p = 2"
    assert said(perturb="adaptive", eta=0.01, relative=True) == "adaptive, ρ = 0.05 ‖g‖, p = 2, η = 0.01"
    assert said(perturb="random") == "random, ρ = 0.05"


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (None, "found: none"),
        (np.zeros((10, 4), dtype=np.uint8), r"\(10, 4\)"),
        (np.zeros((9, 3), dtype=np.uint8), r"\(9, 3\)"),
        (np.zeros((10, 3), dtype=np.float32), "float32"),
        (np.zeros((10, 3), dtype=np.uint8), "0 parameters in ckpt1 by the masks, 20 by the run"),
    ],
)
def test_masks_that_are_not_those_of_the_run(damaged: np.ndarray | None, words: str) -> None:
    runs = [ratios_run([0] * 20, step=1), ratios_run([0] * 20, step=2, masks=damaged)]
    with pytest.raises(InputError, match="ratios-0002") as caught:
        combine(runs, Settings())
    assert caught.match(words)
    advice = "landscape ratios net-2.pt --fresh" if damaged is not None else "the masks lie beside it"
    assert advice in str(caught.value)


def test_two_trainings_are_not_taken_for_one() -> None:
    """Other weights at the same step: SGD beside SAM, in the order of their files."""
    one, other = ratios_run([0] * 20, step=1), ratios_run([0] * 20, step=1, run="ratios-other")
    assert other.provenance is not None
    assert other.provenance.checkpoint is not None
    checkpoint = dataclasses.replace(other.provenance.checkpoint, sha256="0" * 64)
    moved = dataclasses.replace(
        other, provenance=dataclasses.replace(other.provenance, checkpoint=checkpoint)
    )
    with pytest.raises(InputError, match="of several trainings"):
        combine([one, moved, ratios_run([0] * 20, step=2)], Settings())
    combine([one, moved], Settings(mixed=True))


def test_why_a_run_is_of_no_use() -> None:
    assert "mini-batches" in unusable(ratios_run([0], minibatch=16, masks=None))
    assert "--no-masks" in unusable(ratios_run([0], masks=None))
    assert unusable(ratios_run([0], masks=None, masks_file="net-0123456789abcdef.h5")) == ""


def test_an_unknown_class_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="ckpt5") as caught:
        from_mapping(Settings, {"ratio_class": "ckpt5"})
    assert "ckpt1, ckpt2" in str(caught.value)
    assert "nonfinite" in str(caught.value)


@pytest.mark.parametrize("settings", [Settings(), Settings(with_class="dead"), Settings(ratio_class="born")])
def test_a_stored_result_comes_back_bit_for_bit(settings: Settings, tmp_path: Path) -> None:
    result = combine(random_runs(N, STEPS), settings)
    object.__setattr__(result, "provenance", provenance("overlap-1", checkpoint=None))
    ResultFile(tmp_path / "x.h5").add(result)
    back = ResultFile(tmp_path / "x.h5").read("overlap-1")
    assert isinstance(back, OverlapResult)
    assert_same(result, back)
    text = json.dumps(back.to_json(), allow_nan=False)
    assert json.loads(text)["counts"] == result.counts.tolist()


@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        ([{"step": 1}, {"step": 2}], ["1", "2"]),
        ([{"step": None, "epoch": 3}, {"step": None, "epoch": 5}], ["3", "5"]),
        ([{"step": 1}, {"step": None, "epoch": 2}], ["net-1.pt", "net-2.pt"]),
        ([{"step": 1, "run": "a"}, {"step": 1, "run": "b"}], ["a", "b"]),
    ],
)
def test_labels_tell_the_steps_apart(runs: list[dict[str, Any]], labels: list[str]) -> None:
    assert combine([ratios_run([0, 1], **run) for run in runs], Settings()).labels() == labels


def test_nothing_is_changed() -> None:
    runs = random_runs(N, STEPS)
    before = [(run.masks.copy(), run.counts.copy()) for run in runs if run.masks is not None]
    for run in runs:
        assert run.masks is not None
        run.masks.setflags(write=False)
    combine(runs, Settings())
    for run, (masks, counts) in zip(runs, before, strict=True):
        np.testing.assert_array_equal(run.masks, masks)
        np.testing.assert_array_equal(run.counts, counts)
