"""The state of unfinished runs, vector files, and where files go."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape.errors import StoreError
from landscape.store import PartialFile, default_path, partial_path, read_vectors, write_vectors

DTYPES = ["<f4", "<f8", ">f8", "<i8", "|u1", "<u8", "|b1", "<c16"]


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(max_size=8),
        st.sampled_from(DTYPES).flatmap(
            lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3))
        ),
        max_size=4,
    ),
    counters=st.dictionaries(
        st.text(max_size=8), st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    ),
)
def test_state_comes_back_bit_for_bit(arrays: Any, counters: Any, tmp_path_factory: Any) -> None:
    file = PartialFile(tmp_path_factory.getbasetemp() / "state.partial")
    file.write({"settings": {"k": [1, None]}}, arrays, counters)
    state = file.read()
    assert state is not None
    header, found, numbers = state
    assert header == {"settings": {"k": [1, None]}}
    assert numbers == counters
    assert {k: type(v) for k, v in numbers.items()} == {k: type(v) for k, v in counters.items()}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable


def test_state_of_any_memory_order_and_numpy_counters(tmp_path: Path) -> None:
    grid = np.arange(24.0).reshape(4, 6)
    file = PartialFile(tmp_path / "deep" / "s.partial")
    assert file.read() is None
    file.write({}, {"f": np.asfortranarray(grid), "s": grid[::2, ::3]}, {"n": np.int64(2), "x": math.inf})
    state = file.read()
    assert state is not None
    assert np.array_equal(state[1]["f"], grid)
    assert np.array_equal(state[1]["s"], grid[::2, ::3])
    assert state[2] == {"n": 2, "x": math.inf}
    with pytest.raises(ValueError, match="cannot be stored"):
        file.write({}, {"o": np.array([{}])}, {})
    assert file.read() is not None
    file.remove()
    assert list(file.path.parent.iterdir()) == []
    file.remove()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(3, 50), (0, 5), (1, 1)])
def test_vectors(dtype: str, shape: tuple[int, int], tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=shape).astype(dtype)
    path = write_vectors(tmp_path / "v", "mlp sgd/eigen", vectors, {"run": "abc", "k": 3})
    found, attributes = read_vectors(path)
    assert (found.dtype, found.shape) == (vectors.dtype, vectors.shape)
    assert found.tobytes() == vectors.tobytes()
    assert attributes == {"run": "abc", "k": 3}
    assert path.name.startswith("mlp_sgd_eigen-")
    if vectors.size:
        assert isinstance(found, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1
    with h5py.File(path) as file:
        assert np.array_equal(file["vectors"][()], vectors)
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert data["vectors"].dims == ("pair", "parameter")


def test_vectors_are_written_once(tmp_path: Path) -> None:
    path = write_vectors(tmp_path, "v", np.eye(3), {})
    before = os.stat(path).st_mtime_ns, os.stat(path).st_ino
    assert write_vectors(tmp_path, "v", np.eye(3), {}) == path
    assert (os.stat(path).st_mtime_ns, os.stat(path).st_ino) == before
    assert write_vectors(tmp_path, "v", np.eye(3, dtype="f4"), {}) != path
    assert write_vectors(tmp_path, "v", np.asfortranarray(np.tri(3)), {}) == write_vectors(
        tmp_path, "v", np.tri(3), {}
    )
    for wrong in (np.zeros(3), np.eye(3, dtype=int)):
        with pytest.raises(ValueError, match="vectors are"):
            write_vectors(tmp_path, "v", wrong, {})


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        ("runs/mlp-sgd.pt", "mlp-sgd-0123abcd.h5"),
        ("a b/c\x1b[31m;é.ckpt", "c_31m-0123abcd.h5"),
        ("...", "checkpoint-0123abcd.h5"),
        ("model.safetensors.index.json", "model.safetensors.index-0123abcd.h5"),
        ("x" * 300 + ".pt", "x" * 80 + "-0123abcd.h5"),
    ],
)
def test_default_path(checkpoint: str, expected: str) -> None:
    assert default_path(checkpoint, "0123ABCDEF" + "0" * 54) == Path("landscape-results") / expected
    assert default_path(checkpoint, "0123abcd", folder="out") == Path("out") / expected


def test_partial_path_and_wrong_names() -> None:
    assert partial_path("out/r-1.h5", "eigen-a") == Path("out/r-1.eigen-a.partial")
    with pytest.raises(ValueError, match="not a run id"):
        partial_path("out/r.h5", "../../x")
    with pytest.raises(ValueError, match="SHA-256"):
        default_path("a.pt", "../../../x")


@pytest.mark.parametrize("rows", [[[b"a", b"b"]], [1.0, 2.0], [[1, 2]]])
def test_other_files_are_not_taken_for_vectors(rows: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.h5"
    dtype = h5py.string_dtype() if isinstance(rows[0], list) and isinstance(rows[0][0], bytes) else None
    with h5py.File(path, "w") as file:
        file.attrs["format_version"] = 1
        file.create_dataset("vectors", data=rows, dtype=dtype)
    with pytest.raises(StoreError, match="truncated or damaged"):
        read_vectors(path)
