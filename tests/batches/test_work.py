"""What one process of a batch does, in this process: results, what is found done, what is computed anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import landscape
from landscape.batches.parts import Begun
from landscape.results import EigenResult, Result
from landscape.store import ResultFile
from tests.batches.support import (
    KINDS,
    Events,
    assert_same_results,
    carried_out,
    change,
    data,
    names,
    net,
    planned,
    stored,
    train,
    write_project,
)
from tests.run.support import assert_same_bits

COUNT = 6  # two chains of three


@dataclass(frozen=True)
class Batch:
    """A project after its batch, which nothing may change."""

    folder: Path
    events: Events

    @property
    def results(self) -> Path:
        return self.folder / "landscape-results"

    def result(self, name: str, kind: str) -> Result:
        (found,) = [r for (n, i), r in stored(self.results).items() if (n, i.split("-")[0]) == (name, kind)]
        return found


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    write_project(folder, COUNT)
    return Batch(folder, carried_out(planned(folder)))


@pytest.fixture
def again(batch: Batch, tmp_path: Path) -> Path:
    """A copy of that project with its results, elsewhere."""
    shutil.copytree(batch.folder, tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


# -- results -----------------------------------------------------------------------------------------------


def test_every_analysis_of_every_checkpoint_in_training_order(batch: Batch) -> None:
    expected = [(f"net-step{5 * (i + 1)}.pt", kind) for i in range(COUNT) for kind in KINDS]
    assert [(one.path.name, one.kind) for one in batch.events.reports] == expected
    assert batch.events.begun == expected
    assert {one.outcome for one in batch.events.reports} == {"computed"}
    assert [one.step for one in batch.events.reports[::3]] == [5, 10, 15, 20, 25, 30]


def test_one_result_file_for_each_checkpoint_and_nothing_left_over(batch: Batch) -> None:
    found = stored(batch.results)
    assert sorted((name, run.split("-")[0]) for name, run in found) == sorted(
        (one.path.name, one.kind) for one in batch.events.reports
    )
    assert all(name.startswith("net-step") and name.endswith(".h5") for name in names(batch.results))


@pytest.mark.parametrize("name", ["net-step5.pt", "net-step20.pt"])
def test_the_head_of_a_chain_is_as_the_single_commands_have_it(
    batch: Batch, tmp_path: Path, name: str
) -> None:
    problem = landscape.load_problem(batch.folder / "landscape.toml", batch.folder / "runs" / name)
    common: dict[str, Any] = {"seed": 0, "output": str(tmp_path / "single.h5")}
    landscape.eigen(problem, k=2, tol=1e-6, **common)
    landscape.trace(problem, tol=0.3, **common)
    landscape.ratios(problem, **common)
    for _, result in sorted(stored(tmp_path).items()):
        found = batch.result(name, result.kind)
        assert_same_bits(found, result, but=("masks_file",))  # it goes by the name of the result file
        assert found.provenance is not None
        assert result.provenance is not None
        assert found.provenance.id == result.provenance.id
        assert found.provenance.settings == result.provenance.settings


def dense(name: Path) -> Tensor:
    """The eigenvalues of the Hessian of the mean cross-entropy, ascending, from torch's own derivatives."""
    model = net().double()
    model.load_state_dict(torch.load(name, weights_only=True)["state_dict"])
    x, y = data()
    weights = {key: value.detach() for key, value in model.named_parameters()}
    sizes = [value.numel() for value in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {k: p.view_as(w) for (k, w), p in zip(weights.items(), flat.split(sizes), strict=True)}
        return nn.functional.cross_entropy(functional_call(model, parts, (x.double(),)), y)

    flat = torch.cat([value.flatten() for value in weights.values()])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))


def test_eigenvalues_from_a_neighbour_are_those_of_the_dense_hessian(batch: Batch) -> None:
    warm = []
    for i in range(COUNT):
        name = f"net-step{5 * (i + 1)}.pt"
        result = batch.result(name, "eigen")
        assert isinstance(result, EigenResult)
        warm.append(result.warm)
        exact = dense(batch.folder / "runs" / name).flip(0)[:2].numpy()
        assert (result.intervals[:, 0] <= exact).all()
        assert (exact <= result.intervals[:, 1]).all()
        assert abs(result.eigenvalues - exact).max() < 1e-5
        assert result.converged.all()
    assert warm == [False, True, True, False, True, True]
    said = [one.warm for one in batch.events.reports if one.kind == "eigen"]
    assert said == warm


def test_a_warm_start_is_held_against_one_afresh(batch: Batch) -> None:
    (one,) = [one for one in batch.events.reports if one.cold_products is not None]
    assert (one.path.name, one.kind, one.warm) == ("net-step30.pt", "eigen", True)
    problem = landscape.load_problem(batch.folder / "landscape.toml", one.path)
    assert one.cold_products == landscape.eigen(problem, k=2, tol=1e-6, seed=0).products
    assert one.products == getattr(batch.result(one.path.name, "eigen"), "products", None)


def test_without_warm_starts_all_are_as_the_single_command_has_them(batch: Batch, tmp_path: Path) -> None:
    events = carried_out(
        planned(batch.folder, run=("eigen",), warm_starts=False, output=str(tmp_path / "cold"))
    )
    assert [one.warm for one in events.reports] == [False] * COUNT
    (result,) = [r for (name, _), r in stored(tmp_path / "cold").items() if name == "net-step30.pt"]
    problem = landscape.load_problem(batch.folder / "landscape.toml", batch.folder / "runs" / "net-step30.pt")
    assert_same_bits(result, landscape.eigen(problem, k=2, tol=1e-6, seed=0))


def test_without_a_seed_each_run_draws_its_own(batch: Batch, tmp_path: Path) -> None:
    plan = planned(batch.folder, ("runs/net-step5.pt", "runs/net-step10.pt"), seed=None, output=str(tmp_path))
    carried_out(plan)
    runs = [result.provenance for result in stored(tmp_path).values()]
    assert len({run.seed for run in runs if run}) == len(runs) == 6
    assert not any(run.seed_given for run in runs if run)
    assert {one.outcome for one in carried_out(plan).reports} == {"found"}


# -- found done --------------------------------------------------------------------------------------------


def assert_all_found(events: Events) -> None:
    assert {one.outcome for one in events.reports} == {"found"}
    assert len(events.reports) == COUNT * len(KINDS)
    assert events.begun == []


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_second_time_all_is_found(batch: Batch) -> None:
    before = contents(batch.results)
    events = carried_out(planned(batch.folder))
    assert_all_found(events)
    assert [(one.id, one.status, one.file) for one in events.reports] == [
        (one.id, one.status, one.file) for one in batch.events.reports
    ]
    assert contents(batch.results) == before


@pytest.mark.parametrize(
    "changed",
    [
        lambda folder: None,
        change("problem.py", "import os\n", "import os  # of the operating system\n"),
        change("problem.py", "nn.Linear(5, 3))", "nn.Linear(in_features=5, out_features=3))"),
        change("landscape.toml", "[eigen]", "# more\ncheckpoints = 'runs/*.pt'\n[batch]\njobs = 2\n[eigen]"),
        change("landscape.toml", "[eigen]", "threads = 1\n\n[eigen]"),
        change("landscape.toml", "[eigen]", "[eigen]\ntime_limit = 1000.0"),
        change("landscape.toml", "[eigen]", "[density]\nprobes = 3\n[eigen]"),
    ],
    ids=["moved", "comment", "other words", "batch", "threads", "limit", "other analysis"],
)
def test_what_makes_no_difference_is_found(again: Path, changed: Callable[[Path], None]) -> None:
    changed(again)
    assert_all_found(carried_out(planned(again)))


def test_a_renamed_folder_of_checkpoints_is_found(again: Path) -> None:
    (again / "runs").rename(again / "of-monday")
    assert_all_found(carried_out(planned(again, ("of-monday/*.pt",))))


def test_other_shares_and_orders_are_found(again: Path) -> None:
    assert {one.outcome for one in carried_out(planned(again, shard="2/2")).reports} == {"found"}
    assert_all_found(carried_out(planned(again, order="name", warm_starts=False)))


EVERYTHING = {(f"net-step{5 * (i + 1)}.pt", kind) for i in range(COUNT) for kind in KINDS}


def of_kind(kind: str) -> set[tuple[str, str]]:
    return {one for one in EVERYTHING if one[1] == kind}


@pytest.mark.parametrize(
    ("changed", "computed"),
    [
        (change("problem.py", "manual_seed(0)", "manual_seed(1)"), EVERYTHING),
        (change("problem.py", "nn.Tanh()", "nn.Sigmoid()"), EVERYTHING),
        (change("landscape.toml", '"float64"', '"float32"'), EVERYTHING),
        (change("landscape.toml", "[eigen]", "samples = 30\n[eigen]"), EVERYTHING),
        (change("landscape.toml", "k = 2", "k = 3"), of_kind("eigen")),
        (change("landscape.toml", "tol = 0.3", "tol = 0.2"), of_kind("trace")),
    ],
    ids=["data", "function", "dtype", "samples", "eigen option", "trace option"],
)
def test_what_makes_a_difference_is_computed(
    again: Path, changed: Callable[[Path], None], computed: set[tuple[str, str]]
) -> None:
    """Every analysis that it concerns, on every checkpoint; looked at without doing the work."""
    changed(again)
    outcomes = planned_outcomes(again)
    assert {key for key, outcome in outcomes.items() if outcome == "planned"} == computed
    assert {key for key, outcome in outcomes.items() if outcome == "found"} == EVERYTHING - computed


def planned_outcomes(folder: Path, **options: object) -> dict[tuple[str, str], str]:
    """What a dry run says of each analysis."""
    plan = planned(folder, **options)
    return carried_out(replace(plan, spec=replace(plan.spec, dry=True))).outcomes()


def test_another_seed_is_another_run(again: Path) -> None:
    assert set(planned_outcomes(again, seed=1).values()) == {"planned"}


def test_a_dry_run_stores_nothing(again: Path) -> None:
    before = contents(again / "landscape-results")
    planned_outcomes(again, seed=1)
    assert contents(again / "landscape-results") == before


def test_a_changed_checkpoint_is_computed_and_no_other(again: Path) -> None:
    train(again / "runs", ["net-step15.pt"], seed=1)
    events = carried_out(planned(again, order="name"))
    assert events.begun == [("net-step15.pt", kind) for kind in KINDS]
    assert {one.outcome for one in events.reports} == {"found", "computed"}


def test_a_new_checkpoint_is_computed_and_no_other(again: Path) -> None:
    shutil.copy(again / "runs" / "net-step30.pt", again / "runs" / "net-step35.pt")
    train(again / "more", ["x.pt"], seed=3)
    shutil.move(again / "more" / "x.pt", again / "runs" / "net-step35.pt")
    events = carried_out(planned(again, order="name"))
    assert events.begun == [("net-step35.pt", kind) for kind in KINDS]


def test_fresh_computes_all_again_to_the_same_bits(batch: Batch, again: Path) -> None:
    events = carried_out(planned(again, fresh=True))
    assert {one.outcome for one in events.reports} == {"computed"}
    assert_same_results(again / "landscape-results", batch.results)


# -- interrupted between two analyses ----------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing below may catch it."""


@pytest.mark.parametrize("moment", [4, 5, 11])
def test_a_worker_that_ends_anywhere_changes_no_bit(batch: Batch, tmp_path: Path, moment: int) -> None:
    """Ends as the n-th analysis begins: the chain goes on from the same vectors."""
    count = [0]

    def before(event: object) -> None:
        count[0] += isinstance(event, Begun)
        if count[0] == moment:
            raise Killed

    plan = planned(batch.folder, output=str(tmp_path / "results"))
    with pytest.raises(Killed):
        carried_out(plan, before)
    carried_out(plan)
    assert_same_results(tmp_path / "results", batch.results)


def test_the_result_of_an_analysis_that_is_lost_after_its_vectors(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the eigenvectors of the second are kept already, and its result is not stored yet."""
    add = ResultFile.add
    stores: list[str] = []

    def dies(self: ResultFile, result: Result) -> None:
        stores.append(result.kind)
        if stores.count("eigen") == 2:
            raise Killed
        add(self, result)

    plan = planned(batch.folder, output=str(tmp_path / "results"))
    monkeypatch.setattr(ResultFile, "add", dies)
    with pytest.raises(Killed):
        carried_out(plan)
    monkeypatch.undo()
    carried_out(plan)
    assert_same_results(tmp_path / "results", batch.results)
