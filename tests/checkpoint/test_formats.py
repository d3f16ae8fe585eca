"""Every format gives back the same bits; what is no checkpoint, or broken, is a clear error."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from landscape.checkpoint import inspect_checkpoint, load_checkpoint
from landscape.errors import CheckpointError, UntrustedError
from tests.checkpoint.files import (
    network,
    same,
    weights,
    write_legacy,
    write_safetensors,
    write_shards,
    write_zip,
)

WRITERS: dict[str, Callable[[Path, Any], Path]] = {
    "pytorch": write_zip,
    "pytorch-legacy": write_legacy,
    "safetensors": write_safetensors,
    "index": write_shards,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth"])
def test_bits_come_back_whatever_the_suffix(tmp_path: Path, kind: str, suffix: str) -> None:
    path = WRITERS[kind](tmp_path / f"model{suffix}", weights())
    checkpoint = load_checkpoint(path)
    assert checkpoint.format == kind
    assert same(checkpoint.state, weights()) or kind == "safetensors"
    assert same(dict(sorted(checkpoint.state.items())), dict(sorted(weights().items())))
    assert all(t.device.type == "cpu" and not t.requires_grad for t in checkpoint.state.values())


@pytest.mark.parametrize("kind", WRITERS)
def test_inspection_tells_the_same_as_loading(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path / "model.pt", weights())
    checkpoint, inspection = load_checkpoint(path), inspect_checkpoint(path)
    assert inspection.safe
    assert (inspection.format, inspection.sha256) == (checkpoint.format, checkpoint.sha256)
    assert {n: (e.shape, e.dtype) for n, e in inspection.state.items()} == {
        n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in checkpoint.state.items()
    }
    assert inspection.parameters == sum(p.numel() for p in network().parameters())
    assert inspection.numbers == sum(t.numel() for t in weights().values())
    json.dumps(inspection.to_json(), allow_nan=False)


def test_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.pt", weights())
    checkpoint = load_checkpoint(path)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.reference.sha256 == checkpoint.sha256
    assert checkpoint.reference.path == str(path)


def test_hash_of_shards_changes_with_any_of_them(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "model.safetensors.index.json", weights())
    before = load_checkpoint(path).sha256
    changed = weights() | {"3.bias": torch.zeros(3)}
    write_shards(path, changed)
    assert load_checkpoint(path).sha256 != before


DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.complex64]
#: torch itself cannot read float8 back from a legacy file.
DTYPE_CASES = [
    *[(kind, dtype) for kind in ("pytorch", "pytorch-legacy", "safetensors") for dtype in DTYPES],
    ("pytorch", torch.float8_e4m3fn),
    ("safetensors", torch.float8_e4m3fn),
]


@pytest.mark.parametrize(("kind", "dtype"), DTYPE_CASES)
def test_every_dtype(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    state = {"w": torch.arange(6.0).reshape(2, 3).to(dtype), "none": torch.zeros(0, 3, dtype=dtype)}
    path = WRITERS[kind](tmp_path / "model.pt", state)
    loaded = load_checkpoint(path).state
    assert same(dict(sorted(loaded.items())), dict(sorted(state.items())))
    entry = inspect_checkpoint(path).state["w"]
    assert entry.shape == (2, 3)
    assert entry.dtype == str(dtype).removeprefix("torch.")


def test_views_and_parameters_are_plain_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"column": base[:, 1], "transposed": base.t(), "parameter": nn.Parameter(base)}
    for write in (write_zip, write_legacy):
        loaded = load_checkpoint(write(tmp_path / "m.pt", state)).state
        assert same(loaded, {k: v.detach() for k, v in state.items()})
        assert type(loaded["parameter"]) is torch.Tensor
        assert inspect_checkpoint(tmp_path / "m.pt").state["transposed"].shape == (4, 3)


def test_file_is_not_written_through_the_mapping(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.pt", weights())
    before = path.read_bytes()
    load_checkpoint(path).state["0.weight"].zero_()
    assert path.read_bytes() == before


def test_sparse_and_quantized_entries_are_told_apart(tmp_path: Path) -> None:
    state = {
        "dense": torch.ones(2, 2),
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8),
    }
    entries = inspect_checkpoint(write_zip(tmp_path / "m.pt", state)).state
    assert {n: (e.kind, e.shape) for n, e in entries.items()} == {
        "dense": ("dense", (2, 2)),
        "sparse": ("sparse", (3, 3)),
        "quantized": ("quantized", (2, 3)),
    }


def test_checksums_may_be_absent(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = write_zip(tmp_path / "model.pt", weights())
    finally:
        torch.serialization.set_crc32_options(True)
    checkpoint = load_checkpoint(path)
    assert same(checkpoint.state, weights())
    assert "without checksums" in checkpoint.notes[0]
    assert not inspect_checkpoint(path).checksums


def _write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)


def _write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.arange(3))


def _write_zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


NOT_CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_text("hello, world"), "text that begins with"),
    "html": (lambda p: p.write_text("<!doctype html>"), "HTML"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "image": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40)), "PNG"),
    "hdf5": (_write_hdf5, "HDF5"),
    "npz": (_write_npz, "NumPy"),
    "zip": (_write_zip_of_text, "zip archive but not a checkpoint"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x")), "unpack it"),
    "json": (lambda p: p.write_text('{"a": 1}'), "no weight_map"),
    "half json": (lambda p: p.write_text('{"weight_map": {'), "damaged"),
    "noise": (lambda p: p.write_bytes(bytes(range(130, 160)) * 20), "bytes that begin with 82 83"),
    "long header": (lambda p: p.write_bytes((10**15).to_bytes(8, "little") + b'{"a"'), "1000000000000000"),
    "bad header": (lambda p: p.write_bytes((4).to_bytes(8, "little") + b'{"a"}'), "safetensors header"),
    "one byte": (lambda p: p.write_bytes(b"\x80"), "not a checkpoint"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "no tensors": (lambda p: torch.save({"epoch": 1}, p), "holds no state dict"),
    "a tensor": (lambda p: torch.save(torch.ones(2), p), "holds no state dict"),
    "optimizer": (
        lambda p: torch.save({"optimizer": {"state": {}, "buf": torch.ones(2)}}, p),
        "only under optimizer",
    ),
}


@pytest.mark.parametrize("case", NOT_CHECKPOINTS)
def test_what_is_no_checkpoint(tmp_path: Path, case: str) -> None:
    make, words = NOT_CHECKPOINTS[case]
    path = tmp_path / "file.pt"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert words in str(caught.value)
    assert 1 <= len(str(caught.value).splitlines()) <= 5


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "epoch_10.pt").touch()
    with pytest.raises(CheckpointError, match=r"epoch_10\.pt"):
        load_checkpoint(tmp_path / "epoch_1.pt")
    with pytest.raises(CheckpointError, match="no folder"):
        load_checkpoint(tmp_path / "nowhere" / "epoch_1.pt")


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "model.pt", weights())
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        load_checkpoint(packed)


def test_member_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.pt", weights())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data/0", bytes(80))
    with pytest.raises(CheckpointError, match="twice"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["../outside.bin", "/etc/passwd", "sub/shard.bin", "..", "", "a\\b", "c:x", 3, None]
)
def test_shards_lie_beside_their_index(tmp_path: Path, name: Any) -> None:
    write_safetensors(tmp_path / "outside.bin", {"w": torch.ones(1)})
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match="bare file names"):
        load_checkpoint(index)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    write_safetensors(blobs / "1234", {"w": torch.ones(1)})
    (folder / "shard.bin").symlink_to(blobs / "1234")
    index = folder / "index.json"
    index.write_text(json.dumps({"weight_map": {"w": "shard.bin"}}))
    with pytest.raises(CheckpointError, match="link out of its folder"):
        load_checkpoint(index)
    # A download cache links the index and its shards into one and the same folder.
    index.rename(blobs / "5678")
    index.symlink_to(blobs / "5678")
    assert same(load_checkpoint(index).state, {"w": torch.ones(1)})


def test_shards_that_lack_a_tensor_or_are_missing(tmp_path: Path) -> None:
    index = write_shards(tmp_path / "index.json", weights())
    index.write_text(index.read_text().replace('"0.bias"', '"0.\\u001b[31mred"'))
    with pytest.raises(CheckpointError, match=r"not in their shards\nfound: 0\.\\x1b\[31mred"):
        load_checkpoint(index)
    (tmp_path / "shard-2.bin").unlink()
    with pytest.raises(CheckpointError, match="no file"):
        load_checkpoint(index)


def test_bin_shards(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "pytorch_model.bin.index.json", weights(), write_zip)
    assert same(load_checkpoint(path).state, weights())
    assert inspect_checkpoint(path).checksums


def test_inspection_reads_no_tensors(tmp_path: Path) -> None:
    """100 MB of weights: what Python allocates stays far below that."""
    import tracemalloc

    path = write_zip(tmp_path / "large.pt", {"w": torch.zeros(25_000_000)})
    tracemalloc.start()
    try:
        inspection = inspect_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert inspection.numbers == 25_000_000
    assert peak < 10_000_000


def test_other_pickle_protocols_name_the_option(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(weights(), path, pickle_protocol=4)
    with pytest.raises(UntrustedError, match="protocol 4") as caught:
        load_checkpoint(path)
    assert "--trust-pickle" in str(caught.value)
    assert same(load_checkpoint(path, trust_pickle=True).state, weights())
    assert set(inspect_checkpoint(path).state) == set(weights())


def test_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "model.pt", weights())
    read = torch.load

    def meanwhile(*args: Any, **options: Any) -> Any:
        content = read(*args, **options)
        write_zip(tmp_path / "new.pt", {"w": torch.ones(1)}).replace(path)
        return content

    monkeypatch.setattr(torch, "load", meanwhile)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load_checkpoint(path)
