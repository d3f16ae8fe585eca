from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from landscape.errors import DataError
from landscape.project.arrays import apply_mask, read_arrays

X = np.arange(6.0, dtype=np.float32).reshape(3, 2)
Y = np.array([0, 1, 1], dtype=np.int32)


def save(path: Path, **arrays: np.ndarray) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({k: torch.tensor(v) for k, v in arrays.items()}, path)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5", ".safetensors"])
def test_x_and_y_from_every_format(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"daten é{suffix}", x=X, y=Y, other=X)
    arrays = read_arrays(path)
    assert set(arrays) == {"x", "y"}
    assert torch.equal(arrays["x"], torch.from_numpy(X))
    assert arrays["y"].dtype == torch.int64
    assert arrays["y"].tolist() == [0, 1, 1]


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors"])
@pytest.mark.parametrize(("missing", "kept"), [("x", "y"), ("y", "x")])
def test_a_missing_array_lists_the_names(tmp_path: Path, suffix: str, missing: str, kept: str) -> None:
    path = save(tmp_path / f"d{suffix}", **{kept: X, "images\x1b[31m": X})
    with pytest.raises(DataError, match=f"no array called {missing}\nfound: .*images") as error:
        read_arrays(path)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_unreadable_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as|pickled"):
        read_arrays(path)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"d{suffix}", x=np.zeros((100, 100)), y=Y)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match="cannot be read as"):
        read_arrays(path)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    save(tmp_path / "digits.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"did you mean digits\.npz"):
        read_arrays(tmp_path / "digit.npz")


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["x", "y", "mask"])
def test_pickled_arrays_are_refused_and_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    arrays = {"x": X, "y": Y, name: np.array([Payload(marker)] * 3, dtype=object)}
    path = save(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match="pickled objects, which can run code: refused"):
        read_arrays(path)
    assert not marker.exists()


def test_a_whole_file_of_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    import pickle

    marker, path = tmp_path / "ran", tmp_path / "d.npz"
    path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(DataError):
        read_arrays(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual", "group"])
def test_hdf5_that_reads_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    secret = save(tmp_path / "secret.h5", x=X)
    raw = tmp_path / "secret.bin"
    raw.write_bytes(X.tobytes())
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["y"] = Y
        if kind == "external link":
            file["x"] = h5py.ExternalLink(str(secret), "/x")
        elif kind == "soft link":
            file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
            file["x"] = h5py.SoftLink("/elsewhere/x")
        elif kind == "external storage":
            file.create_dataset("x", X.shape, X.dtype, external=[(str(raw), 0, X.nbytes)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(X.shape, X.dtype)
            layout[:] = h5py.VirtualSource(str(secret), "x", X.shape)
            file.create_virtual_dataset("x", layout)
        else:
            file.create_group("x")
    with pytest.raises(DataError, match=r"x is .* refused"):
        read_arrays(path)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("bad", [np.array([b"a", b"b", b"c"]), np.zeros(3, dtype=[("a", "f4")])])
def test_what_is_no_number_is_refused(tmp_path: Path, suffix: str, bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="x does not hold numbers"):
        read_arrays(save(tmp_path / f"d{suffix}", x=bad, y=Y))


def test_a_single_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a single number"):
        read_arrays(save(tmp_path / "d.npz", x=np.float32(3), y=Y))


def test_byte_orders_and_unsigned_integers(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=X.astype(">f8"), y=np.array([1, 2, 65535], dtype="<u2"))
    arrays = read_arrays(path)
    assert arrays["x"].dtype == torch.float64
    assert arrays["x"].tolist() == X.tolist()
    assert arrays["y"].tolist() == [1, 2, 65535]


def masked(mask: Any, y: Any, loss: Any) -> tuple[torch.Tensor, torch.Tensor]:
    arrays = {"x": torch.from_numpy(X), "y": torch.as_tensor(y), "mask": torch.as_tensor(mask)}
    return apply_mask(arrays, loss, "d.npz")


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", lambda o, t: o])
def test_a_mask_over_examples_drops_examples(loss: Any) -> None:
    x, y = masked([1, 0, 1], [5, 6, 7], loss)
    assert x.tolist() == X[[0, 2]].tolist()
    assert y.tolist() == [5, 7]


def test_a_mask_over_tokens_becomes_ignored_labels() -> None:
    labels = torch.tensor([[1, 2], [3, 4], [5, 6]])
    mask = [[True, False], [True, True], [False, False]]
    wanted = [[1, -100], [3, 4], [-100, -100]]
    assert masked(mask, labels, "cross_entropy")[1].tolist() == wanted
    assert masked(mask, labels, nn.NLLLoss())[1].tolist() == wanted
    assert labels.min() > 0
    assert masked(mask, labels, nn.CrossEntropyLoss(ignore_index=0))[1].tolist() == [[1, 0], [3, 4], [0, 0]]


def test_the_masked_loss_is_the_mean_over_what_is_left() -> None:
    torch.manual_seed(0)
    outputs, labels = torch.randn(3, 4, 2), torch.tensor([[1, 2], [3, 0], [2, 1]])
    mask = torch.tensor([[1, 0], [1, 1], [0, 1]])
    each = nn.CrossEntropyLoss(reduction="none")(outputs, labels)
    _, y = masked(mask, labels, "cross_entropy")
    assert torch.allclose(nn.CrossEntropyLoss()(outputs, y), each[mask != 0].mean())


@pytest.mark.parametrize(
    ("mask", "y", "loss", "message"),
    [
        ([[1, 0]] * 3, [[1.0, 2.0]] * 3, "mse", "integer labels"),
        ([[1, 0]] * 3, [[1, 2]] * 3, "mse", "loss mse"),
        ([[1, 0]] * 3, [[1, 2]] * 3, lambda o, t: o, "count="),
        ([[1, 0]] * 3, [[0.5, 0.5]] * 3, "cross_entropy", "y of float32"),
        ([1, 0], [1, 2, 3], "mse", "fits neither"),
        ([0, 0, 0], [1, 2, 3], "mse", "leaves nothing"),
    ],
)
def test_masks_that_cannot_be_honoured_are_refused(mask: Any, y: Any, loss: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        masked(mask, y, loss)
