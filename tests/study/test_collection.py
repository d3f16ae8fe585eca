"""Stored runs as a collection: order, filters, and what is read when."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from landscape.errors import InputError, StoreError
from landscape.results import EigenResult, Result
from landscape.store import ResultFile, write_vectors
from landscape.study import Runs, Stored, open_runs
from tests.results.samples import eigen_result, provenance
from tests.study.folder import put, study


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return open_runs(study(tmp_path))


def names(runs: Runs) -> list[str]:
    return [entry.checkpoint for entry in runs]


def ids(runs: Runs) -> list[str]:
    return [header.id for header in runs.runs()]


def test_runs_are_in_training_order(runs: Runs) -> None:
    steps = [(entry.training, entry.header.checkpoint_step) for entry in runs]
    assert steps == [(name, step) for name in ("sam", "sgd") for step in (0, 0, 9, 9, 10, 10)]
    assert runs.kinds == ("eigen", "trace")
    assert runs.steps == (0, 9, 10)
    assert len(runs) == 12


@pytest.mark.parametrize(
    ("checkpoints", "order"),
    [
        ({"a-1.pt": (30, 1), "a-2.pt": (20, 3), "a-3.pt": (10, 2)}, "a-3 a-2 a-1"),  # by step
        ({"a-1.pt": (30, 1), "a-2.pt": (None, 3), "a-3.pt": (10, 2)}, "a-1 a-3 a-2"),  # not all have a step
        ({"a-30.pt": (30, 1), "a-4.pt": (None, 3), "a-31.pt": (10, None)}, "a-4 a-30 a-31"),  # by the number
        ({"a-4.pt": (None, None), "a.pt": (None, None), "a-30.pt": (None, None)}, "a-4 a-30 a"),  # by name
    ],
)
def test_what_orders_a_training_run(
    tmp_path: Path, checkpoints: dict[str, tuple[int | None, int | None]], order: str
) -> None:
    for name, (step, epoch) in checkpoints.items():
        put(tmp_path, name, "eigen", step=step, epoch=epoch)
    assert [name.removesuffix(".pt") for name in names(open_runs(tmp_path))] == order.split()


def test_runs_on_one_checkpoint_are_oldest_first_and_those_on_none_last(tmp_path: Path) -> None:
    for day, run in ((2, "eigen-a"), (1, "eigen-c"), (3, "eigen-b")):
        put(tmp_path, "x.pt", "eigen", run=run, step=5, started=f"2026-01-0{day}T00:00:00+00:00")
    ResultFile(tmp_path / "joint.h5").add(eigen_result(provenance=provenance("joint", checkpoint=None)))
    put(tmp_path, "step7.pt", "eigen", step=7)
    assert ids(open_runs(tmp_path)) == ["eigen-step7", "eigen-c", "eigen-a", "eigen-b", "joint"]
    assert ids(open_runs(tmp_path / "x.h5")) == ["eigen-c", "eigen-a", "eigen-b"]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"kind": "trace"}, lambda e: e.header.kind == "trace"),
        ({"kind": ["trace", "slice"]}, lambda e: e.header.kind == "trace"),
        ({"status": "failed"}, lambda e: False),
        ({"status": ("failed", "complete")}, lambda e: True),
        ({"checkpoint": "*step1*"}, lambda e: e.header.checkpoint_step == 10),
        ({"checkpoint": "step"}, lambda e: False),
        ({"training": "sgd"}, lambda e: "sgd" in e.file.name),
        ({"training": "s?m"}, lambda e: "sam" in e.file.name),
        ({"step": 9}, lambda e: e.header.checkpoint_step == 9),
        ({"step": (1, 9)}, lambda e: e.header.checkpoint_step == 9),
        ({"step": (None, 9)}, lambda e: e.header.checkpoint_step <= 9),
        ({"step": (9, None)}, lambda e: e.header.checkpoint_step >= 9),
        ({"epoch": (None, None)}, lambda e: False),  # none has one
        ({"id": "trace-sam"}, lambda e: e.header.kind == "trace" and "sam" in e.file.name),
        ({"operator": "hessian"}, lambda e: True),
        ({"operator": "fisher"}, lambda e: False),
        ({"loss": "cross_entropy", "tol": 0.001, "k": None, "dtype": "float32", "seed": 17}, lambda e: True),
    ],
)
def test_filters(runs: Runs, wanted: dict[str, Any], fits: Any) -> None:
    assert runs.where(**wanted).entries == tuple(entry for entry in runs if fits(entry))


def test_filters_together_are_filters_one_by_one(runs: Runs) -> None:
    wanted = [{"kind": "eigen"}, {"step": (5, None)}, {"training": "sgd"}, {"tol": 1e-3}]
    for first, second in itertools.permutations(wanted, 2):
        assert runs.where(**first, **second) == runs.where(**first).where(**second)


def test_settings_are_told_apart(tmp_path: Path) -> None:
    for rho in (0.05, 0.1):
        put(tmp_path, "a.pt", "eigen", run=f"r{rho}", settings={"rho": rho, "params": ["a", "b"]})
    put(tmp_path, "a.pt", "trace", run="without")
    runs = open_runs(tmp_path)
    assert ids(runs.where(rho=0.05)) == ["r0.05"]
    assert ids(runs.where(params=("a", "b"))) == ["r0.05", "r0.1"]
    assert ids(runs.where(rho=0.05, kind="eigen").where(tol=1e-3)) == ["r0.05"]
    with pytest.raises(InputError, match=r"(?s)'roh'.*operator.*rho"):
        runs.where(roh=0.05)


@pytest.mark.parametrize("step", ["9", (1, 2, 3), ("1", 2), {"a": 1}])
def test_a_step_that_is_none(runs: Runs, step: Any) -> None:
    with pytest.raises(InputError, match="first and the last"):
        runs.where(step=step)


def test_the_latest_of_what_asks_the_same(tmp_path: Path) -> None:
    def day(number: int) -> str:
        return f"2026-01-0{number}T00:00:00+00:00"

    put(tmp_path, "a.pt", "eigen", run="late", started=day(3))
    put(tmp_path, "a.pt", "eigen", run="early", started=day(1))
    put(tmp_path, "a.pt", "eigen", run="asks-more", started=day(1), settings={"k": 9})
    put(tmp_path, "b.pt", "eigen", run="elsewhere", started=day(2))
    put(tmp_path, "a.pt", "trace", run="other", started=day(1))
    assert ids(open_runs(tmp_path).latest()) == ["asks-more", "other", "late", "elsewhere"]


def test_reading_one(runs: Runs, tmp_path: Path) -> None:
    result = runs.read("eigen-sam-step9")
    assert isinstance(result, EigenResult)
    assert result.lambda_max == 109.0
    entry = runs.where(id="eigen-sam-step9")[0]
    for one in (entry, entry.header, "eigen-sam-step9"):
        assert runs.read(one).provenance == result.provenance
    assert open_runs(entry.file).read("trace").kind == "trace"
    with pytest.raises(StoreError, match=r"(?s)^3 runs are called eigen-sam\n.*eigen-sam-step0 in "):
        runs.read("eigen-sam")
    for name in ("", "nothing"):
        with pytest.raises(StoreError, match="there is no run"):
            runs.read(name)
    with pytest.raises(StoreError, match="there is no run"):
        Runs(()).read(entry.header)


def test_an_exact_id_is_not_taken_for_the_start_of_another(tmp_path: Path) -> None:
    file = put(tmp_path, "x.pt", "eigen", run="eigen-1")
    put(tmp_path, "x.pt", "eigen", run="eigen-12")
    runs = open_runs(file)
    assert runs.find("eigen-1").header.id == "eigen-1"
    assert runs.find("eigen-12").header.id == "eigen-12"


def test_parts_and_sums(runs: Runs, tmp_path: Path) -> None:
    assert isinstance(runs[0], Stored)
    assert list(runs[2:4]) == [runs[2], runs[3]]
    sgd, sam = runs.where(training="sgd"), runs.where(training="sam")
    assert sgd + sam == runs
    assert runs + sgd == runs
    other = Runs((), ("x: why",))
    assert (runs + other + other).unreadable == ("x: why",)
    assert [result.kind for result in sam[:2].results()] == ["eigen", "trace"]


def test_a_list_reads_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path)

    def read(*_: object) -> Result:
        raise AssertionError("a result was read")

    monkeypatch.setattr(ResultFile, "read", read)
    runs = open_runs(tmp_path)
    chosen = runs.where(kind="eigen", tol=1e-3).latest()
    assert repr(chosen) == "<Runs: 6 eigen; checkpoints: 6; steps 0 to 10>"
    assert "eigen-sam-step9" in chosen._repr_html_()
    with pytest.raises(AssertionError, match="a result was read"):
        next(chosen.results())


def test_a_folder_with_other_files(tmp_path: Path) -> None:
    import numpy as np

    put(tmp_path, "a.pt", "eigen")
    write_vectors(tmp_path, "a", np.ones((1, 3)), {})
    (tmp_path / "notes.txt").write_text("no results")
    (tmp_path / "broken\n.h5").write_bytes(b"no HDF5")
    runs = open_runs(tmp_path)
    assert ids(runs) == ["eigen-a"]
    assert len(runs.unreadable) == 1
    assert r"broken\n.h5" in runs.unreadable[0]
    assert "files that cannot be read: 1" in repr(runs)
    assert r"broken\n.h5" in runs._repr_html_()
    assert runs.where(kind="trace").unreadable == runs.unreadable


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there are no results"):
        open_runs(tmp_path / "none")
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(StoreError, match="not a landscape file"):
        open_runs(tmp_path / "x.h5")
    empty = open_runs(tmp_path / "..")[:0]
    assert repr(empty) == "<Runs: no runs>"
    assert empty.latest() == empty
    assert empty.where(rho=1) == empty


def test_text_from_files_is_harmless_in_a_notebook(tmp_path: Path) -> None:
    put(tmp_path, "<img src=x onerror=alert(1)>\u202e.pt", "eigen", run="eigen-x")
    (tmp_path / "<b>.h5").write_bytes(b"no HDF5")
    shown = open_runs(tmp_path)._repr_html_()
    assert "&lt;img" in shown
    for part in ("<img", "<b>", "\u202e"):
        assert part not in shown


def test_a_long_list_is_shortened_and_says_so(tmp_path: Path) -> None:
    put(tmp_path, "a.pt", "eigen")
    entry = open_runs(tmp_path)[0]
    assert "… and 15 more" in Runs((entry,) * 75)._repr_html_()
    assert "more" not in Runs((entry,) * 60)._repr_html_()
