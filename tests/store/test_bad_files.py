"""Files that are missing, broken, foreign or hostile: one to five lines, never wrong data."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from landscape.errors import StoreError
from landscape.results import EigenResult
from landscape.store import PartialFile, ResultFile, read_vectors, write_vectors
from tests.results.samples import assert_same, eigen_result, provenance

RUN = provenance().id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.h5"
    ResultFile(path).add(eigen_result())
    return path


def _refused(path: Path, match: str, *, in_one_run: bool = False) -> None:
    """Reading and replacing fail with the same short error, adding too if the whole file is bad."""
    before = path.read_bytes() if path.is_file() else None
    actions: list[Callable[[], object]] = [
        lambda: ResultFile(path).read(RUN),
        lambda: ResultFile(path).add(eigen_result()),
        lambda: ResultFile(path).remove([RUN]),
    ]
    if not in_one_run:
        actions.append(lambda: ResultFile(path).check_writable())
        actions.append(lambda: ResultFile(path).add(eigen_result(provenance=provenance("new"))))
    for action in actions:
        with pytest.raises(StoreError, match=match) as caught:
            action()
        assert 1 <= len(str(caught.value).splitlines()) <= 5
        assert caught.value.do
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "none.h5")
    for action in (file.runs, lambda: file.read(RUN), lambda: file.remove([RUN])):
        with pytest.raises(StoreError, match=r"(?s)none.h5.*No such file"):
            action()
    assert file.find(RUN) is None
    assert list(tmp_path.iterdir()) == []


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "r.h5").mkdir()
    _refused(tmp_path / "r.h5", "directory")


@pytest.mark.parametrize(
    ("content", "match"), [(b"", "an empty file"), (b"PK\x03\x04 not this", "another kind of file")]
)
def test_not_hdf5(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "r.h5").write_bytes(content)
    _refused(tmp_path / "r.h5", match)


def test_hdf5_of_another_program(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["x"] = np.zeros(3)
    _refused(tmp_path / "r.h5", "not a landscape file of runs")


def test_made_by_a_newer_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    _refused(path, r"(?s)newer landscape \(format 2\).*reads up to format 1.*upgrade")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.99])
def test_truncated(share: float, path: Path) -> None:
    os.truncate(path, int(path.stat().st_size * share))
    _refused(path, "truncated or damaged")


def _replace_eigenvalues(path: Path, how: str) -> None:
    outside = path.parent.parent / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.arange(4.0)
    with h5py.File(path, "r+") as file:
        run = file["runs"][RUN]
        del run["eigenvalues"]
        if how == "external link":
            run["eigenvalues"] = h5py.ExternalLink(str(outside), "/secret")
        elif how == "soft link":
            run["eigenvalues"] = h5py.SoftLink("/runs/elsewhere")
        elif how == "external storage":
            raw = path.parent.parent / "raw"
            raw.write_bytes(np.arange(4.0).tobytes())
            run.create_dataset("eigenvalues", (4,), "f8", external=[(str(raw), 0, 32)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(outside), "secret", (4,))
            run.create_virtual_dataset("eigenvalues", layout)
        elif how == "filtered":
            run.create_dataset("eigenvalues", data=np.arange(4.0), compression="gzip")
        elif how == "group":
            run.create_group("eigenvalues")


@pytest.mark.parametrize("how", ["external link", "soft link", "external storage", "virtual", "filtered"])
def test_contents_from_elsewhere(how: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "r.h5"
    ResultFile(path).add(eigen_result())
    _replace_eigenvalues(path, how)
    _refused(path, "is refused: such a file holds all of its data itself", in_one_run=True)


def test_a_run_that_is_a_link(tmp_path: Path) -> None:
    other, path = tmp_path / "other.h5", tmp_path / "folder" / "r.h5"
    ResultFile(other).add(eigen_result())
    ResultFile(path).add(eigen_result(provenance=provenance("mine")))
    with h5py.File(path, "r+") as file:
        file[f"runs/{RUN}"] = h5py.ExternalLink(str(other), f"/runs/{RUN}")
    _refused(path, "is refused", in_one_run=True)
    with pytest.raises(StoreError, match="is refused"):
        ResultFile(path).runs()


def test_additions_by_others_are_never_lost(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["mine"] = np.arange(3)
    ResultFile(path).add(eigen_result(provenance=provenance("other")))
    before = path.read_bytes()
    for action in (
        lambda: ResultFile(path).add(eigen_result()),
        lambda: ResultFile(path).remove(["other"]),
    ):
        with pytest.raises(StoreError, match=r"(?s)holds more than landscape wrote.*mine"):
            action()
    assert path.read_bytes() == before
    assert_same(ResultFile(path).read(RUN), eigen_result())
    with h5py.File(path) as file:
        assert file["mine"][()].tolist() == [0, 1, 2]


def test_a_changed_figure_is_noticed(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[f"runs/{RUN}/eigenvalues"][0] = 9.4
    with pytest.raises(StoreError, match="damaged or changed"):
        ResultFile(path).read(RUN)


def test_damage_in_one_run_does_not_stop_another(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[f"runs/{RUN}/eigenvalues"][0] = 9.4
    ResultFile(path).add(eigen_result(provenance=provenance("other")))
    assert isinstance(ResultFile(path).read("other"), EigenResult)
    with pytest.raises(StoreError, match="damaged or changed"):
        ResultFile(path).read(RUN)


def test_names_from_files_are_escaped(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["runs"].move(RUN, "a\x1b[31mred")
    with pytest.raises(StoreError) as caught:
        ResultFile(path).read("b")
    assert "\x1b" not in str(caught.value)
    assert "a\\x1b[31mred" in str(caught.value)


def _flip_bytes(path: Path, times: int, seed: int) -> int:
    """Flip bits of one byte, read, repeat: the true result or an error. How often it was an error."""
    generator, whole, errors = random.Random(seed), path.read_bytes(), 0
    for _ in range(times):
        broken = bytearray(whole)
        broken[generator.randrange(len(whole))] ^= generator.randrange(1, 256)
        path.write_bytes(broken)
        try:
            ResultFile(path).runs()
            result = ResultFile(path).read(RUN)
        except StoreError:
            errors += 1
        else:
            assert_same(result, eigen_result())
    return errors


def test_flipped_bits(path: Path) -> None:
    assert _flip_bytes(path, 150, seed=5) > 0


@pytest.mark.long
def test_many_flipped_bits(path: Path) -> None:
    assert _flip_bytes(path, 5000, seed=6) > 0


def _partial(tmp_path: Path) -> PartialFile:
    file = PartialFile(tmp_path / "r.partial")
    file.write({"id": RUN}, {"q": np.arange(12.0).reshape(3, 4)}, {"step": 3})
    return file


def test_partial_damage(tmp_path: Path) -> None:
    file = _partial(tmp_path)
    whole = file.path.read_bytes()
    for length in range(0, len(whole), 7):
        file.path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"(?s)cannot be resumed.*--fresh"):
            file.read()
    for place in range(len(whole)):
        file.path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(StoreError, match="cannot be resumed"):
            file.read()
    file.path.write_bytes(whole.replace(b"partial 1", b"partial 7"))
    with pytest.raises(StoreError, match="the format of another version"):
        file.read()
    file.path.write_bytes(whole + b"x")
    with pytest.raises(StoreError, match="cannot be resumed"):
        file.read()


def test_partial_in_bad_places(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="this is a folder"):
        PartialFile(tmp_path / "folder").read()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file, not a folder"):
        PartialFile(tmp_path / "file" / "x.partial").write({}, {}, {})


def test_vector_damage(tmp_path: Path) -> None:
    path = write_vectors(tmp_path, "v", np.eye(3), {})
    with h5py.File(path, "r+") as file:
        file["vectors"][0, 0] = 2.0
    with pytest.raises(StoreError, match="damaged or changed"):
        read_vectors(path)
    assert read_vectors(path, verify=False)[0][0, 0] == 2.0
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(StoreError, match="truncated or damaged"):
        read_vectors(path)
    with pytest.raises(StoreError, match="No such file"):
        read_vectors(tmp_path / "none.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(StoreError, match="an empty file"):
        read_vectors(tmp_path / "empty.h5")


def test_vectors_of_a_newer_version_or_a_result_file(tmp_path: Path, path: Path) -> None:
    with pytest.raises(StoreError, match="not a landscape file of vectors"):
        read_vectors(path)
    vectors = write_vectors(tmp_path, "v", np.eye(3), {})
    with h5py.File(vectors, "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(StoreError, match="newer landscape"):
        read_vectors(vectors)


def test_a_cut_through_the_seal_leaves_the_data_whole(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)
    assert_same(ResultFile(path).read(RUN), eigen_result())
