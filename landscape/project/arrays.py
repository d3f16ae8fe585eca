"""Data from array files: ``x``, ``y`` and, optionally, ``mask`` in ``.npz``, ``.h5`` or ``.safetensors``.

Tokens of a language model are ``x`` alone: without ``y`` they are their own labels. An ``attention_mask``
beside them says what the model sees at all, where ``mask`` only says which terms the loss has.

Which labels are noisy may stand beside them: ``noisy`` (true or false, 1 or 0, for each example) or
``clean_y`` (the right labels, of ``y``'s shape).

Nothing in such a file is run, and an HDF5 file cannot make another file be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import DataError
from landscape.project.text import nearest, shown

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["SUFFIXES", "apply_mask", "as_data", "marks_beside", "masked_marks", "read_arrays", "read_named"]

#: The file names that are array files.
SUFFIXES = (".npz", ".h5", ".hdf5", ".safetensors")

_NAMES = ("x", "y", "mask", "attention_mask")
_MARKS = ("noisy", "clean_y")


def read_arrays(path: Path, *, labelled: bool = True) -> dict[str, torch.Tensor]:
    """``x``, ``y`` and, if present, ``mask`` and ``attention_mask``; their first dimension is over examples.

    Unless ``labelled``, ``y`` may be missing: it is ``x`` then.

    Numbers keep their dtype, except that integer ``y`` becomes int64 (what torch takes as labels) and
    unsigned integers of 16 bits and more become the next signed type.

    Raises:
        DataError: unreadable, ``x`` or ``y`` missing, arrays that are not numbers, and, in HDF5, links,
            external storage and virtual data sets.
    """
    arrays = read_named(path, _NAMES, ("x", "y") if labelled else ("x",))
    arrays = {"y": arrays["x"], **arrays}
    if (
        arrays["y"].dtype.is_floating_point
        or arrays["y"].dtype.is_complex
        or str(arrays["y"].dtype) == "torch.bool"
    ):
        return arrays
    return {**arrays, "y": arrays["y"].long()}


def marks_beside(path: Path) -> torch.Tensor | None:
    """Which examples of an array file have noisy labels, as the file itself says, or None if it does not.

    Marks follow the mask of the examples; a term that is masked makes no example noisy.

    Raises:
        DataError: as :func:`read_arrays`, or ``clean_y`` has another shape than ``y``.
    """
    arrays = read_named(path, ("y", "mask", *_MARKS), ())
    if "noisy" in arrays:
        return masked_marks(arrays["noisy"], arrays.get("mask"))
    if "clean_y" not in arrays or "y" not in arrays:
        return None
    y, clean, mask = arrays["y"], arrays["clean_y"], arrays.get("mask")
    if y.shape != clean.shape:
        raise DataError(
            f"{shown(path)}: the right labels clean_y do not belong to y",
            found=f"clean_y {tuple(clean.shape)}, y {tuple(y.shape)}",
            do="give one right label for each label",
        )
    wrong = clean != y
    if mask is not None and mask.shape == y.shape:
        wrong = wrong & (mask != 0)
    return masked_marks(wrong.reshape(len(y), -1).any(1), mask)


def masked_marks(marks: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The marks of the examples that a mask leaves, where it is one of examples and the marks are for all."""
    if mask is None or mask.ndim != 1 or marks.shape != mask.shape:
        return marks
    return marks[mask != 0]


def read_named(path: Path, names: Sequence[str], required: Sequence[str]) -> dict[str, torch.Tensor]:
    """Those of the arrays ``names`` of an array file that are there; the ``required`` ones must be.

    Raises:
        DataError: as :func:`read_arrays`.
    """
    if not path.is_file():
        others = (
            [p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES] if path.parent.is_dir() else []
        )
        raise DataError(f"No data file {shown(path)}", do=nearest(path.name, others))
    read = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix, _hdf5)
    return read(path, names, required)


def as_data(arrays: Mapping[str, torch.Tensor], loss: Any, where: str) -> Any:
    """Arrays as a Problem takes them: ``(x, y)``, or named where a model is to be given an attention mask.

    Raises:
        DataError: as :func:`apply_mask`, or an attention mask of another shape than ``x``.
    """
    seen, mask = arrays.get("attention_mask"), arrays.get("mask")
    x, y = apply_mask(arrays, loss, where)
    if seen is None:
        return x, y
    if seen.shape != arrays["x"].shape:
        raise DataError(
            f"{where}: the attention_mask does not belong to x",
            found=f"attention_mask {tuple(seen.shape)}, x {tuple(arrays['x'].shape)}",
            do="give one value per token: 1 where the model may look, 0 for padding",
        )
    kept = seen if mask is None or len(x) == len(seen) else seen[mask != 0]
    return {"input_ids": x, "attention_mask": kept, "labels": y}


def apply_mask(
    arrays: Mapping[str, torch.Tensor], loss: Any, where: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(x, y)`` with what ``mask`` leaves out (where it is 0) left out.

    A mask of one value per example drops examples, for any loss. A mask of ``y``'s shape drops single
    loss terms: integer labels there become the loss's ``ignore_index`` (-100), so the loss must be
    cross_entropy, nll or causal_lm, by name or as a torch module.

    Raises:
        DataError: a mask of another shape, that leaves nothing, or of single terms for a loss without
            ``ignore_index``.
    """
    x, y, mask = arrays["x"], arrays["y"], arrays.get("mask")
    if mask is None:
        return x, y
    keep = mask != 0
    if not bool(keep.any()):
        raise DataError(f"{where}: the mask leaves nothing", found=f"{mask.numel()} zeros")
    if keep.shape == y.shape[:1] == x.shape[:1]:
        return x[keep], y[keep]
    if keep.shape != y.shape:
        raise DataError(
            f"{where}: the mask fits neither the examples nor y",
            found=f"mask {tuple(mask.shape)}, x {tuple(x.shape)}, y {tuple(y.shape)}",
            do="give one value per example, or one per element of y",
        )
    index = _ignore_index(loss)
    if index is None or y.dtype.is_floating_point:
        raise DataError(
            f"{where}: a mask of single terms needs integer labels and cross_entropy, nll or causal_lm",
            found=f"y of {str(y.dtype).removeprefix('torch.')}, loss {_loss_name(loss)}",
            do="give such data from --problem, as a landscape.Problem with its own count=",
        )
    return x, y.masked_fill(~keep, index)


def _ignore_index(loss: Any) -> int | None:
    """The label that ``loss`` leaves out; ``None`` if it has none that we know of."""
    from torch import nn

    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return loss.ignore_index
    return -100 if loss in ("cross_entropy", "nll", "causal_lm") else None


def _loss_name(loss: Any) -> str:
    return shown(loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__))


def _npz(path: Path, wanted: Sequence[str], required: Sequence[str]) -> dict[str, torch.Tensor]:
    import zipfile
    import zlib

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            _require(path, file.files, required)
            return {name: _tensor(path, name, file[name]) for name in wanted if name in file.files}
    except DataError:
        raise
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise _unreadable(path, error) from error
        raise DataError(
            f"{shown(path)} holds pickled objects, which can run code: refused",
            do="save plain arrays of numbers: numpy.savez(file, x=..., y=...)",
        ) from error
    except (OSError, EOFError, AttributeError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def _safetensors(path: Path, wanted: Sequence[str], required: Sequence[str]) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            _require(path, names, required)
            return {name: file.get_tensor(name) for name in wanted if name in names}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _hdf5(path: Path, wanted: Sequence[str], required: Sequence[str]) -> dict[str, torch.Tensor]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = list(file)
            _require(path, names, required)
            return {name: _tensor(path, name, _dataset(file, path, name)) for name in wanted if name in names}
    except (OSError, RuntimeError, KeyError) as error:
        raise _unreadable(path, error) from error


def _dataset(file: Any, path: Path, name: str) -> np.ndarray:
    """The values of a data set that lies wholly in this file."""
    import h5py

    link = file.get(name, getlink=True)
    item = file[name] if isinstance(link, h5py.HardLink) else None
    if isinstance(item, h5py.Dataset) and item.external is None and not item.is_virtual:
        if item.dtype.kind not in "biuf":
            raise _not_numbers(path, name, item.dtype)
        values: np.ndarray = item[...]
        return values
    if item is None:
        kind = "a link"
    elif isinstance(item, h5py.Dataset):
        kind = "a virtual data set" if item.is_virtual else "stored in other files"
    else:
        kind = "a group"
    raise DataError(
        f"{shown(path)}: {name} is {kind}, which is refused, as it may read other files",
        do="write the values into this file themselves, as a plain data set",
    )


def _require(path: Path, names: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        called = " or ".join(shown(name, 60) for name in missing)
        raise DataError(
            f"{shown(path)} has no array called {called}",
            found=", ".join(shown(n, 60) for n in names[:30]) or "no arrays",
            do="call the inputs x and the targets y" if "y" in required else "name one of these",
        )


def _tensor(path: Path, name: str, array: np.ndarray) -> torch.Tensor:
    import numpy as np
    import torch

    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise _not_numbers(path, name, array.dtype)
    if array.ndim == 0:
        raise DataError(
            f"{shown(path)}: {name} is a single number", do="its first dimension is over examples"
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(f"i{min(8, 2 * array.dtype.itemsize)}")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _not_numbers(path: Path, name: str, dtype: Any) -> DataError:
    return DataError(
        f"{shown(path)}: {name} does not hold numbers torch can take", found=f"dtype {shown(dtype)}"
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    kind = {".npz": "npz", ".safetensors": "safetensors"}.get(path.suffix, "HDF5")
    return DataError(f"{shown(path)} cannot be read as {kind}", found=shown(error) or type(error).__name__)
