"""Measurements on disk: as they come, after a kill, beside others, and where the disk refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape.errors import StoreError
from landscape.monitoring import Monitor, recover
from landscape.monitoring.columns import Columns
from landscape.results import MonitorResult
from landscape.store import ResultFile
from tests.monitoring.support import blobs, net, plain_net, train
from tests.results.samples import assert_same, eigen_result, provenance


def stored(path: Path) -> list[MonitorResult]:
    file = ResultFile(path)
    found = [file.read(header) for header in file.runs() if header.kind == "monitor"]
    assert all(isinstance(result, MonitorResult) for result in found)
    return found


def started(path: Path, steps: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.monitoring.killed", str(path), str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


#: Measurements after which it is killed; the file is written at each 20th, from the first one on.
_MORE = (0, 1, 3, 7, 19, 20, 39, 40, 50, 55, 59)
_MOMENTS = [41, *(pytest.param(at, marks=pytest.mark.long) for at in _MORE)]


@pytest.mark.parametrize("at", _MOMENTS)
def test_kill_9_loses_at_most_the_last_measurement(tmp_path: Path, at: int) -> None:
    path, said = tmp_path / "monitor.h5", -1
    process = started(path, 60)
    try:
        for line in lines(process):
            said = int(line)
            if said >= at:
                break
        time.sleep(0.003 * at % 0.02)  # somewhere within the next measurement, or within a writing
    finally:
        process.kill()
        process.wait()
    (early,) = stored(path)  # readable as it is
    assert early.status == "partial"
    assert len(early.steps) > said - 20
    assert recover(path) == [early.provenance.id]
    (result,) = stored(path)
    assert result.status == "partial"
    assert result.steps.tolist() == list(range(len(result.steps)))
    assert len(result.steps) > said
    assert early.steps.tolist() == result.steps[: len(early.steps)].tolist()
    assert recover(path) == []
    assert sorted(entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")) == [
        "monitor.h5",
        *([lock] if (lock := f"{_journal(result)}.lock") in os.listdir(tmp_path) else []),
    ]
    undisturbed = _same_training(len(result.steps))
    for name in ("lambda_max", "lambda_max_errors", "counts", "h_norms", "losses", "cosines"):
        assert np.array_equal(getattr(result, name), getattr(undisturbed, name)), name


def _journal(result: MonitorResult) -> str:
    assert result.provenance is not None
    return f"monitor.{result.provenance.id}.journal"


def _same_training(steps: int) -> MonitorResult:
    x, y = blobs()
    data, model = (x.double(), y), plain_net()
    monitor = Monitor(model, "cross_entropy", data, every=1, budget=None, seed=0)
    for _ in range(steps):
        train(model, data, 1, monitor, lr=0.3)
    return monitor.result()


def test_the_file_holds_what_was_measured(tmp_path: Path) -> None:
    model, data, path = net(), blobs(), tmp_path / "folder" / "monitor.h5"
    with Monitor(
        model, "cross_entropy", data, output=path, every=3, trace_every=6, trace_products=8, budget=None
    ) as monitor:
        train(model, data, 10, monitor)
    (found,) = stored(path)
    assert_same(found, monitor.result())
    assert found.steps.tolist() == [0, 3, 6, 9]
    assert found.status == "complete"
    assert [entry.name for entry in path.parent.iterdir()] == ["monitor.h5"]
    assert found.provenance is not None
    assert found.provenance.command == "landscape.Monitor"
    assert found.provenance.settings["every"] == 3
    monitor.close()  # again, nothing
    json.dumps(found.to_json())


def test_recovered_is_what_would_have_been_written(tmp_path: Path) -> None:
    """Field for field, masks and types included."""
    model, data, path = net(), blobs(), tmp_path / "monitor.h5"
    monitor = Monitor(
        model, "cross_entropy", data, output=path, every=2, trace_every=4, trace_products=8, budget=None
    )
    train(model, data, 9, monitor)
    monitor._ledger.write()
    (written,) = stored(path)
    ResultFile(path).remove([written.provenance.id])
    _die(monitor)
    recover(path)
    (found,) = stored(path)
    assert_same(found, written)


def _die(monitor: Monitor) -> None:
    """What a kill leaves: the journal, and nobody who holds it."""
    monitor._finalizer.detach()
    monitor._ledger._closed = True
    monitor._ledger._held.close()


def test_the_next_monitor_on_the_file_recovers_it_and_is_a_run_of_its_own(tmp_path: Path) -> None:
    path, data, model = tmp_path / "monitor.h5", blobs(), net()
    ResultFile(path).add(eigen_result(provenance=provenance("eigen-1")))
    first = Monitor(model, "cross_entropy", data, output=path, every=1, budget=None, seed=0)
    train(model, data, 5, first)
    _die(first)
    with Monitor(
        model, "cross_entropy", data, output=path, every=1, budget=None, seed=0, first_step=5
    ) as second:
        train(model, data, 2, second)
    assert len(ResultFile(path).runs()) == 3
    one, other = stored(path)
    assert (one.steps.tolist(), one.status) == ([0, 1, 2, 3, 4], "partial")
    assert (other.steps.tolist(), other.status) == ([5, 6], "complete")


def test_two_monitors_on_one_file_lose_nothing(tmp_path: Path) -> None:
    path, data = tmp_path / "monitor.h5", blobs()
    nets = [net(0), net(1)]
    monitors = [Monitor(m, "cross_entropy", data, output=path, every=1, budget=None) for m in nets]
    for _ in range(4):
        for model, monitor in zip(nets, monitors, strict=True):
            train(model, data, 1, monitor)
    assert recover(path) == []  # they are alive
    for monitor in monitors:
        monitor.close()
    assert [len(result.steps) for result in stored(path)] == [4, 4]


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage"])
def test_a_damaged_journal_gives_its_whole_lines(tmp_path: Path, damage: str) -> None:
    path, data, model = tmp_path / "monitor.h5", blobs(), net()
    monitor = Monitor(model, "cross_entropy", data, output=path, every=1, budget=None)
    train(model, data, 4, monitor)
    _die(monitor)
    (journal,) = tmp_path.glob("*.journal")
    contents = journal.read_bytes()
    last = contents.rstrip(b"\n").rindex(b"\n") + 1
    middle = (last + len(contents)) // 2
    journal.write_bytes(
        {
            "cut": contents[:middle],
            "flipped": contents[:middle] + bytes([contents[middle] ^ 1]) + contents[middle + 1 :],
            "garbage": contents + b"\xff\x00 no line of ours\n\n",
        }[damage]
    )
    recover(path)
    (found,) = stored(path)
    assert found.steps.tolist() == list(range(4 if damage == "garbage" else 3))


def test_what_is_measured_seldom_has_its_own_place_among_many(tmp_path: Path) -> None:
    """The columns grow one by one: rows that lack a quantity must not hinder those that have it."""
    columns, seldom = Columns(), {3, 64, 65, 70, 129, 257, 300}
    for i in range(301):
        row = {"steps": i, "times": 0.5 * i, "measurement_seconds": 0.0}
        columns.add(row | ({"trace": float(i), "counts": [i] * 10} if i in seldom else {}))
    arrays = columns.arrays()
    assert arrays["steps"].tolist() == list(range(301))
    for name, shape in (("trace", (301,)), ("counts", (301, 10))):
        assert arrays[name].shape == shape
        known = ~np.ma.getmaskarray(arrays[name]).reshape(301, -1)[:, 0]
        assert set(np.flatnonzero(known)) == seldom
        assert arrays[name].compressed()[:: shape[-1] if len(shape) > 1 else 1].tolist() == sorted(seldom)
    assert not isinstance(arrays["times"], np.ma.MaskedArray)


def test_a_journal_without_measurements_is_forgotten(tmp_path: Path) -> None:
    path, model = tmp_path / "monitor.h5", net()
    _die(Monitor(model, "cross_entropy", blobs(), output=path))
    assert recover(path) == []
    assert not list(tmp_path.glob("*.journal"))
    assert recover(tmp_path / "nowhere" / "monitor.h5") == []


def test_names_that_are_patterns(tmp_path: Path) -> None:
    path, other, model, data = tmp_path / "a[b]*.h5", tmp_path / "ab.h5", net(), blobs()
    for output in (path, other):
        monitor = Monitor(model, "cross_entropy", data, output=output, every=1, budget=None)
        train(model, data, 2, monitor)
        _die(monitor)
    assert len(recover(path)) == 1
    assert len(list(tmp_path.glob("*.journal"))) == 1


def test_a_monitor_that_nobody_closes_writes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "monitor.h5"
    code = (
        "from landscape.monitoring import Monitor\n"
        "from tests.monitoring.support import blobs, net, train\n"
        f"model = net(); monitor = Monitor(model, 'cross_entropy', blobs(), output={str(path)!r}, every=1,"
        " budget=None)\n"
        "train(model, blobs(), 8, monitor)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = stored(path)
    assert (len(found.steps), found.status) == (8, "partial")
    assert not list(tmp_path.glob("*.journal"))


def test_an_exception_in_the_training_keeps_what_there_is(tmp_path: Path) -> None:
    path, data, model = tmp_path / "monitor.h5", blobs(), net()

    def broken() -> None:
        with Monitor(model, "cross_entropy", data, output=path, every=1, budget=None) as monitor:
            train(model, data, 3, monitor)
            raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        broken()
    (found,) = stored(path)
    assert (len(found.steps), found.status) == (3, "partial")


# -- a disk that refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [b"not ours", b""])
def test_a_place_that_cannot_be_written_is_an_error_before_the_training(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError):
        Monitor(net(), "cross_entropy", blobs(), output=tmp_path / "file" / "monitor.h5")
    (tmp_path / "other.h5").write_bytes(other)
    with pytest.raises(StoreError, match="not a landscape file"):
        Monitor(net(), "cross_entropy", blobs(), output=tmp_path / "other.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "other.h5"]
    assert (tmp_path / "other.h5").read_bytes() == other


def test_a_disk_that_fills_up_is_survived_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data, model = tmp_path / "monitor.h5", blobs(), net()
    monitor = Monitor(model, "cross_entropy", data, output=path, every=1, budget=None)
    train(model, data, 2, monitor)
    write = os.write

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("landscape.monitoring.journal.os.write", full)
        patched.setattr("landscape.store.resultfile.replace_atomically", full)
        with pytest.warns(RuntimeWarning, match="No space left"):
            train(model, data, 3, monitor)
    assert os.write is write
    train(model, data, 1, monitor)
    monitor.close()
    (found,) = stored(path)
    assert found.steps.tolist() == list(range(6))


def test_a_disk_that_stays_full_is_said_at_the_end_and_the_result_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "monitor.h5", blobs()

    def full(*_: Any, **__: Any) -> int:
        raise StoreError("the disk is full")

    nets = [net(0), net(1)]
    one, other = (Monitor(m, "cross_entropy", data, output=path, every=1, budget=None) for m in nets)
    for model, monitor in zip(nets, (one, other), strict=True):
        train(model, data, 3, monitor)
    with monkeypatch.context() as patched:
        patched.setattr(ResultFile, "add", full)
        with pytest.raises(StoreError, match="the disk is full"):
            one.close()
        with pytest.warns(RuntimeWarning, match="the disk is full"):
            other.finish()
    assert len(one.result().steps) == 3
    assert len(recover(path)) == 2  # from their journals
    assert [len(result.steps) for result in stored(path)] == [3, 3]


def test_many_measurements_take_time_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is rewritten now and then; what is written at each measurement does not grow."""
    path, written = tmp_path / "monitor.h5", []
    add = ResultFile.add
    monkeypatch.setattr(ResultFile, "add", lambda self, result: (written.append(1), add(self, result))[1])
    data, model = blobs(), plain_net()
    monitor = Monitor(
        model, "cross_entropy", data, output=path, every=1, budget=None, lambda_every=0, rho=0.1
    )
    sizes = []
    for _ in range(300):
        monitor.step()
        sizes.append(sum(entry.stat().st_size for entry in tmp_path.glob("*.journal")))
    assert len(written) <= 4
    grown = np.diff(sizes)
    assert grown.min() > 0
    assert grown.max() < 1.2 * grown[:10].max()
    monitor.close()
    assert len(stored(path)[0].steps) == 300
