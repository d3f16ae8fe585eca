"""Eigenvectors passed from checkpoint to checkpoint, whoever is killed in between."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from landscape.batches.chain import Chain
from landscape.errors import StoreError

RECIPES = ["a", "b", "c", "d"]


def rows(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((2, 5))


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_each_starts_from_the_one_before_it(tmp_path: Path) -> None:
    chain = Chain(tmp_path, RECIPES)
    assert chain.before("a") is None
    chain.keep("a", rows(0))
    np.testing.assert_array_equal(chain.before("b"), rows(0))
    chain.keep("b", rows(1))
    np.testing.assert_array_equal(chain.before("c"), rows(1))


def test_dtype_and_bits_survive(tmp_path: Path) -> None:
    Chain(tmp_path, RECIPES).keep("a", rows(0).astype(np.float32))
    found = Chain(tmp_path, RECIPES).before("b")
    assert found is not None
    assert found.dtype == np.float32
    assert found.tobytes() == rows(0).astype(np.float32).tobytes()


def test_a_kill_between_vectors_and_result(tmp_path: Path) -> None:
    """The vectors of b are there, its result is not: it is computed again from those of a."""
    chain = Chain(tmp_path, RECIPES)
    chain.keep("a", rows(0))
    chain.keep("b", rows(1))
    again = Chain(tmp_path, RECIPES)
    np.testing.assert_array_equal(again.before("b"), rows(0))
    again.keep("b", rows(1))
    np.testing.assert_array_equal(again.before("b"), rows(0), "also when it is killed there twice")
    np.testing.assert_array_equal(again.before("c"), rows(1))


def test_two_generations_are_kept(tmp_path: Path) -> None:
    chain = Chain(tmp_path, RECIPES)
    for i, recipe in enumerate(RECIPES):
        chain.keep(recipe, rows(i))
    np.testing.assert_array_equal(chain.before("d"), rows(2))
    assert only(tmp_path).stat().st_size < 2 * rows(0).nbytes + 600


def test_of_the_first_there_is_nothing_before(tmp_path: Path) -> None:
    Chain(tmp_path, RECIPES).keep("a", rows(0))
    assert Chain(tmp_path, RECIPES).before("a") is None


def test_chains_of_other_checkpoints_are_others(tmp_path: Path) -> None:
    Chain(tmp_path, RECIPES).keep("a", rows(0))
    assert Chain(tmp_path, RECIPES[:3]).before("b") is None
    assert Chain(tmp_path, [*RECIPES[:3], "e"]).before("b") is None


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "other"])
def test_a_damaged_file_is_a_start_afresh(tmp_path: Path, damage: str) -> None:
    Chain(tmp_path, RECIPES).keep("a", rows(0))
    path = only(tmp_path)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(
        {"empty": b"", "half": bytes(content[:90]), "flipped": bytes(content), "other": b"hello"}[damage]
    )
    chain = Chain(tmp_path, RECIPES)
    assert chain.before("b") is None
    chain.keep("b", rows(1))
    found = Chain(tmp_path, RECIPES).before("c")
    np.testing.assert_array_equal(found, rows(1))


def test_what_another_batch_has_written_is_seen(tmp_path: Path) -> None:
    """One overtakes the other in the middle of a chain: both start c from the vectors of b."""
    one, other = Chain(tmp_path, RECIPES), Chain(tmp_path, RECIPES)
    one.keep("a", rows(0))
    np.testing.assert_array_equal(other.before("b"), rows(0))
    other.keep("b", rows(1))
    np.testing.assert_array_equal(one.before("c"), rows(1))
    one.close()
    assert other.before("c") is None


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    chain = Chain(tmp_path, RECIPES)
    chain.keep("a", rows(0))
    chain.keep("b", rows(1))
    chain.close()
    assert list(tmp_path.iterdir()) == []
    chain.close()
    Chain(tmp_path / "never", RECIPES).close()
    assert not (tmp_path / "never").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(tmp_path, RECIPES)
    chain.keep("a", rows(0))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        chain.keep("b", rows(1))
    np.testing.assert_array_equal(chain.before("b"), rows(0))
    assert [path.name for path in tmp_path.iterdir()] == [only(tmp_path).name]
