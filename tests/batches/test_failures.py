"""What goes wrong with one checkpoint, with all of them, or with the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import landscape
from landscape.batches import Report
from landscape.batches.work import Worker
from landscape.errors import ComputationError, StoreError
from landscape.run import execute
from landscape.store import default_path
from tests.batches.support import (
    CONFIG,
    Events,
    carried_out,
    change,
    looked_at,
    names,
    net,
    pieces,
    planned,
    stored,
    write_project,
)


def failures(events: Events) -> dict[str, set[int]]:
    """Exit codes of what failed, by checkpoint; each failed in all analyses, the others in none."""
    found: dict[str, set[int]] = {}
    for one in events.reports:
        if one.outcome == "failed":
            assert 1 <= len(one.error.splitlines()) <= 5
            found.setdefault(one.path.name, set()).add(one.exit_code)
    for name in found:
        assert {o for (n, _), o in events.outcomes().items() if n == name} == {"failed"}
    return found


def broken(folder: Path, name: str, how: str) -> None:
    path = folder / "runs" / name
    if how == "corrupt":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "text":
        path.write_text("not a checkpoint")
    elif how == "misfit":
        landscape.save_checkpoint(path, nn.Linear(3, 3), step=int("".join(filter(str.isdigit, name))))
    elif how == "nan":
        model = net().double()
        nn.init.constant_(next(model.parameters()), float("nan"))
        landscape.save_checkpoint(path, model, step=int("".join(filter(str.isdigit, name))))
    else:
        path.unlink()
        path.symlink_to("nowhere")


@pytest.mark.parametrize("name", ["net-step5.pt", "net-step10.pt"])
@pytest.mark.parametrize(
    ("how", "code"), [("corrupt", 2), ("text", 2), ("misfit", 2), ("nan", 3), ("dangling", 2)]
)
def test_one_bad_checkpoint_stops_no_other(tmp_path: Path, name: str, how: str, code: int) -> None:
    write_project(tmp_path, 3)
    broken(tmp_path, name, how)
    events = carried_out(planned(tmp_path, run=("eigen", "ratios")))
    assert failures(events) == {name: {code}}
    outcomes = events.outcomes()
    assert len(outcomes) == 6
    assert sum(outcome == "computed" for outcome in outcomes.values()) == 4
    assert not [left for left in names(tmp_path / "landscape-results") if not left.endswith(".h5")]


def test_several_models_by_the_names_of_their_checkpoints(tmp_path: Path) -> None:
    write_project(tmp_path, 2)
    problem = (tmp_path / "problem.py").read_text()
    (tmp_path / "problem.py").write_text(
        f"{problem}\n\ndef linear():\n    return nn.Linear(4, 3)\n\n\n"
        "def broken():\n    raise ValueError('no')\n"
    )
    models = '[models]\n"net-*.pt" = "problem.py:model"\n"lin-*.pt" = "problem.py:linear"\n'
    models += '"odd-*.pt" = "problem.py:broken"\n'
    text = CONFIG.replace('model = "problem.py:model"\n', "")
    (tmp_path / "landscape.toml").write_text(f"{text}\n{models}")
    for i in (1, 2):
        landscape.save_checkpoint(tmp_path / "runs" / f"lin-{i}.pt", nn.Linear(4, 3).double(), step=i)
        landscape.save_checkpoint(tmp_path / "runs" / f"odd-{i}.pt", nn.Linear(4, 3).double(), step=i)
    events = carried_out(planned(tmp_path, run=("eigen",)))
    assert failures(events) == {"odd-1.pt": {2}, "odd-2.pt": {2}}
    parameters = {
        name: result.parameters for (name, _), result in stored(tmp_path / "landscape-results").items()
    }
    assert parameters == {"net-step5.pt": 43, "net-step10.pt": 43, "lin-1.pt": 15, "lin-2.pt": 15}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            change("problem.py", "    return nn.Seq", "    raise KeyError('of mine')\n    return nn.Seq"),
            "of mine",
        ),
        (
            change("problem.py", "        return x\n\n\ndef m", "        raise ValueError('v')\n\n\ndef m"),
            "v",
        ),
        (
            change("problem.py", "        return x\n\n\ndef m", "        raise SystemExit(7)\n\n\ndef m"),
            "SystemExit",
        ),
        (
            change("problem.py", "    return nn.Seq", "    raise SystemExit(7)\n    return nn.Seq"),
            "SystemExit",
        ),
        (change("problem.py", "    generator =", "    raise OSError('gone')\n    generator ="), "gone"),
        (change("landscape.toml", '"cross_entropy"', '"cross_entrpy"'), "cross_entrpy"),
    ],
    ids=[
        "model raises",
        "forward raises",
        "forward exits",
        "model exits",
        "data raises",
        "loss",
    ],
)
def test_what_is_wrong_for_all_is_one_message(
    tmp_path: Path, changed: Callable[[Path], None], said: str
) -> None:
    write_project(tmp_path, 3)
    changed(tmp_path)
    events = carried_out(planned(tmp_path))
    assert {one.outcome for one in events.reports} == {"failed"}
    assert len(events.reports) == 9
    (error,) = {one.error for one in events.reports}
    assert said in error
    assert 1 <= len(error.splitlines()) <= 5


def test_code_that_fails_at_one_checkpoint_only(tmp_path: Path) -> None:
    """It raises what it likes in the middle of the work: that analysis has failed, the rest goes on."""
    write_project(tmp_path, 3)
    exits = "        if x.detach().abs().max() > 1e6:\n            raise SystemExit(1)\n"
    change("problem.py", "        return x\n\n\ndef m", f"{exits}        return x\n\n\ndef m")(tmp_path)
    model = net().double()
    nn.init.constant_(next(model.parameters()), 1e7)
    landscape.save_checkpoint(tmp_path / "runs" / "net-step10.pt", model, step=10)
    events = carried_out(planned(tmp_path, run=("eigen", "ratios")))
    assert failures(events) == {"net-step10.pt": {3}}


@pytest.mark.parametrize("how", ["truncated", "text", "folder"])
def test_a_damaged_result_file_concerns_its_checkpoint_only(tmp_path: Path, how: str) -> None:
    write_project(tmp_path, 3)
    plan = planned(tmp_path, run=("ratios",))
    seen = looked_at(plan)[1]
    path = default_path(seen.path, seen.sha256, plan.spec.folder)
    if how == "folder":
        path.mkdir(parents=True)
    elif how == "text":
        path.parent.mkdir()
        path.write_text("something else")
    else:
        carried_out(plan)
        path.write_bytes(path.read_bytes()[:3000])
    assert failures(carried_out(plan)) == {seen.path.name: {2}}
    assert len(carried_out(plan).reports) == 3


def test_a_full_disk_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, 3)
    plan = planned(tmp_path, run=("eigen", "ratios"))
    reports: list[str] = []

    def full(descriptor: int) -> None:
        if len(reports) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    def hear(event: object) -> None:
        if isinstance(event, Report):
            reports.append(event.kind)

    worker, (unit,) = Worker(plan.spec, hear), pieces(plan)
    with pytest.raises(StoreError, match="the disk is full"):
        worker.carry_out(unit)
    assert reports == ["eigen", "ratios"]
    monkeypatch.undo()
    assert sum(one.outcome == "found" for one in carried_out(plan).reports) == 2


def test_a_start_afresh_that_fails_leaves_the_result_that_it_was_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail_afresh(kind: str, *args: Any, store: bool = True, **options: Any) -> Any:
        if store:
            return execute(kind, *args, **options)
        tried.append(kind)
        raise ComputationError("the second search failed")

    monkeypatch.setattr("landscape.batches.work.execute", fail_afresh)
    write_project(tmp_path, 4)
    events = carried_out(planned(tmp_path, run=("eigen",)))
    assert tried == ["eigen"]
    assert [one.outcome for one in events.reports] == ["computed"] * 4
    assert not any(one.cold_products for one in events.reports)
