"""Writers side by side, killed, or without room: what was stored stays."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from landscape.errors import StoreError
from landscape.store import PartialFile, ResultFile
from landscape.store.files import locked
from tests.results.samples import assert_same, eigen_result, provenance

ROOT = Path(__file__).parents[2]

WRITER = """
import sys
from tests.results.samples import eigen_result, provenance
from landscape.store import ResultFile
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for i in range(count):
    ResultFile(path).add(eigen_result(provenance=provenance(f"{name}{i}")))
    print(f"{name}{i}", flush=True)
"""

STATE_WRITER = """
import sys
import numpy as np
from landscape.store import PartialFile
print("ready", flush=True)
for i in range(10**6):
    PartialFile(sys.argv[1]).write({}, {"q": np.full((40, 5000), float(i))}, {"step": i})
    print(i, flush=True)
"""


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _kill_after(code: str, path: Path, seconds: float, *arguments: object) -> list[str]:
    """Run a writer, kill it (SIGKILL) some time after it began; what it said it had finished."""
    with _start(code, path, *arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.kill()
        return process.stdout.read().split()


def test_two_writers_both_win(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    with _start(WRITER, path, "a", 20) as one, _start(WRITER, path, "b", 20) as two:
        assert (one.wait(120), two.wait(120)) == (0, 0)
    names = {header.id for header in ResultFile(path).runs()}
    assert names == {f"{name}{i}" for name in "ab" for i in range(20)}
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def _kill_results(path: Path, moments: list[float]) -> None:
    expected = {"first"}
    ResultFile(path).add(eigen_result(provenance=provenance("first")))
    for number, moment in enumerate(moments):
        done = _kill_after(WRITER, path, moment, f"k{number}-", 10**6)
        expected |= set(done)
        stored = {header.id for header in ResultFile(path).runs()}
        assert expected <= stored
        assert len(stored - expected) <= 1, "at most the run that was finished and not yet announced"
        for name in stored:
            assert_same(ResultFile(path).read(name), eigen_result(provenance=provenance(name)))
        ResultFile(path).remove(stored - {"first"})
        expected = {"first"}
        assert [p.name for p in path.parent.iterdir()] == [path.name], "the next writer cleans up"


def _kill_states(path: Path, moments: list[float]) -> None:
    for moment in moments:
        path.unlink(missing_ok=True)
        done = _kill_after(STATE_WRITER, path, moment)
        state = PartialFile(path).read()
        if state is None:
            assert not done
            continue
        _, arrays, counters = state
        step = int(counters["step"])
        assert step >= len(done) - 1
        assert (arrays["q"] == step).all()


def _moments(count: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.uniform(0.0, 0.25) for _ in range(count)]


def test_kill_while_writing_loses_nothing(tmp_path: Path) -> None:
    _kill_results(tmp_path / "r.h5", _moments(5, seed=1))


def test_kill_while_writing_state(tmp_path: Path) -> None:
    _kill_states(tmp_path / "r.partial", _moments(5, seed=2))


@pytest.mark.long
def test_many_kills(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _kill_results(tmp_path / "a" / "r.h5", _moments(100, seed=3))
    _kill_states(tmp_path / "r.partial", _moments(100, seed=4))


def test_a_writer_that_waits_too_long_says_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    with (
        locked(path, 1.0),
        pytest.raises(StoreError, match=rf"(?s)waited 0\.1 s.*process {os.getpid()} on .*r\.h5\.lock"),
    ):
        ResultFile(path, lock_timeout=0.1).add(eigen_result())
    ResultFile(path, lock_timeout=0.1).add(eigen_result())


def test_a_lock_left_by_a_killed_process_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "r.h5.lock").write_text("process 1 on elsewhere")
    (tmp_path / ".r.h5.999999.tmp").write_text("half")
    ResultFile(tmp_path / "r.h5", lock_timeout=0.1).add(eigen_result())
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def test_a_forked_process_has_no_part_in_a_lock(tmp_path: Path) -> None:
    path, (end, keep) = tmp_path / "r.h5", os.pipe()
    context = locked(path, 1.0)
    context.__enter__()
    pid = os.fork()
    if pid == 0:
        os.close(keep)
        os.read(end, 1)
        context.__exit__(None, None, None)
        os._exit(0)
    with pytest.raises(StoreError, match=f"process {os.getpid()}"), locked(path, 0.0):
        pass
    os.close(keep)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(StoreError, match=f"process {os.getpid()}"), locked(path, 0.0):
        pass
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    context.__exit__(None, None, None)
    with locked(path, 0.0):  # although the other process is there
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(end)


def test_a_link_is_followed_and_a_mode_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "r.h5", tmp_path / "link.h5"
    ResultFile(real).add(eigen_result(provenance=provenance("a")))
    real.chmod(0o600)
    link.symlink_to(real)
    ResultFile(link).add(eigen_result(provenance=provenance("b")))
    assert link.is_symlink()
    assert len(ResultFile(real).runs()) == 2
    assert real.stat().st_mode & 0o777 == 0o600


@contextmanager
def _ordinary_user() -> Iterator[None]:
    """Permissions do not bind root: act as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = folder / "r.h5"
    ResultFile(path).add(eigen_result())
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == path.owner() and parent.name.startswith(("test_", "popen-", "pytest-")):
            parent.chmod(0o755)
    folder.chmod(0o555)
    try:
        with _ordinary_user():
            for action in (
                lambda: ResultFile(path).add(eigen_result()),
                lambda: ResultFile(path).check_writable(),
                lambda: ResultFile(path).remove([provenance().id]),
                lambda: PartialFile(folder / "x.partial").write({}, {}, {}),
            ):
                with pytest.raises(
                    StoreError, match=r"(?s)cannot write.*Permission denied.*-o FILE"
                ) as caught:
                    action()
                assert len(str(caught.value).splitlines()) == 3
            assert len(ResultFile(path).runs()) == 1, "reading needs no lock"
    finally:
        folder.chmod(0o755)


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file, not a folder"):
        ResultFile(tmp_path / "file" / "r.h5").add(eigen_result())


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "new" / "r.h5")
    file.check_writable()
    assert list(file.path.parent.iterdir()) == []
    file.add(eigen_result())
    before = file.path.read_bytes()
    file.check_writable()
    assert file.path.read_bytes() == before
    assert [p.name for p in file.path.parent.iterdir()] == ["r.h5"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.h5"
    ResultFile(path).add(eigen_result(provenance=provenance("a")))
    PartialFile(tmp_path / "p").write({}, {}, {"step": 1})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        ResultFile(path).add(eigen_result(provenance=provenance("b")))
    with pytest.raises(StoreError, match="the disk is full"):
        PartialFile(tmp_path / "p").write({}, {}, {"step": 2})
    assert path.read_bytes() == before
    state = PartialFile(tmp_path / "p").read()
    assert state is not None
    assert state[2] == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "r.h5"]


NO_ROOM = """
import sys
import numpy as np
from tests.results.samples import eigen_result
from landscape.errors import StoreError
from landscape.store import PartialFile, ResultFile, write_vectors
folder = sys.argv[1]
ones = np.ones((2, 100_000))
for write in (
    lambda: ResultFile(folder + "/r.h5").add(eigen_result()),
    lambda: PartialFile(folder + "/p").write({}, {"q": ones}, {}),
    lambda: write_vectors(folder, "v", ones, {}),
):
    try:
        write()
    except StoreError as error:
        print(error.do)
"""


def test_no_room_for_the_whole_file(tmp_path: Path) -> None:
    """A limit on file sizes that is met half-way: three errors, no half file, a clean end of the process."""
    limit = 8192

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run: Any = subprocess.run(
        [sys.executable, "-B", "-c", NO_ROOM, str(tmp_path)],
        cwd=ROOT, preexec_fn=small, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("write elsewhere with -o FILE") == 3, run.stdout + run.stderr
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_of_a_look_whether_one_may_write_is_removed(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "ckpt.h5")
    for name in (".ckpt.h5.probe", "..ckpt.h5.probe.123.tmp"):
        (tmp_path / name).write_bytes(b"half")
    file.check_writable()
    assert not list(tmp_path.iterdir())
