"""Data of many forms as one thing: batches of examples that can be cut into pieces and read again."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from landscape.errors import DataError, LandscapeError
from landscape.machine import brief, is_out_of_memory, preserved_randomness

__all__ = [
    "Batch",
    "Data",
    "Piece",
    "examples_in",
    "inputs_of",
    "joined",
    "map_tensors",
    "marks",
    "read_data",
    "rows_of",
    "targets_of",
    "tensors_in",
]

Batch = Any


def map_tensors(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """``batch`` (tensors in tuples, lists and mappings) with ``function`` applied to its tensors."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, np.ndarray):
        return function(_tensor(batch))
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def _tensor(array: np.ndarray) -> Tensor:
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = array.copy()
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise DataError("data must be arrays of numbers", found=f"an array of {array.dtype}") from error


def tensors_in(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in order."""
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(collect, batch)
    return found


def examples_in(batch: Batch) -> int:
    """Number of examples: the common first dimension of the batch's tensors.

    Raises:
        DataError: no tensors, or first dimensions that differ.
    """
    sizes = {t.shape[0] if t.ndim else 0 for t in tensors_in(batch)}
    if len(sizes) != 1 or (sizes == {0} and any(t.ndim == 0 for t in tensors_in(batch))):
        raise DataError(
            "a batch's tensors must share their first dimension, the examples",
            found=f"shapes {[tuple(t.shape) for t in tensors_in(batch)] or type(batch).__name__}",
        )
    return sizes.pop()


def inputs_of(batch: Batch) -> Any:
    """The first of a pair ``(inputs, targets)``."""
    return _pair(batch)[0]


def targets_of(batch: Batch) -> Any:
    """The second of a pair ``(inputs, targets)``."""
    return _pair(batch)[1]


def _pair(batch: Batch) -> tuple[Any, Any]:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    found = f"a {type(batch).__name__}" + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
    raise DataError(
        "batches must be pairs (inputs, targets)",
        found=found,
        do="for other batches pass a loss(model, batch) callable",
    )


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Some examples of a batch."""
    return map_tensors(lambda tensor: tensor[rows], batch)


@dataclass(frozen=True)
class Piece:
    """Some examples on the device, in the model's dtype, with the number of loss terms in them.

    ``first`` is the number of the first of them in the data.
    """

    batch: Batch
    examples: int
    terms: float
    first: int = 0


@dataclass(frozen=True)
class Data:
    """A data set that has been read once.

    Attributes:
        batches: the batches, in memory; None if they are read again from ``source`` at each pass.
        examples: how many there are.
        fingerprint: SHA-256 of shapes, dtypes and contents, in order.
        notes: what a user should know about how it was read.
        rows: (examples,) int64: the numbers that the examples of a subset have in the whole data.
        whole: how many examples were given, a subset's others included.
    """

    batches: list[Batch] | None
    examples: int
    fingerprint: str
    source: Iterable[Batch] | None = None
    notes: tuple[str, ...] = ()
    rows: Tensor | None = None
    whole: int = 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches) if self.batches is not None else read(self.source or ())

    def pieces(self, size: int | Callable[[], int]) -> Iterator[Batch]:
        """The batches cut into pieces of at most ``size`` (or what it returns before each), in order."""
        for batch in self:
            count, first = examples_in(batch), 0
            while first < count:
                step = size if isinstance(size, int) else size()
                yield batch if first == 0 and count <= step else rows_of(batch, slice(first, first + step))
                first += step


def read(source: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of ``source`` as tensors; the global random generators stay as they are.

    Raises:
        DataError: what the user's code raises while it reads.
    """
    batches = _batches(source)
    while True:
        with preserved_randomness():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _batches(source: Iterable[Batch]) -> Iterator[Batch]:
    try:
        for batch in source:
            yield map_tensors(lambda tensor: tensor.detach(), batch)
    except (LandscapeError, GeneratorExit):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            "the data could not be read",
            found=brief(error),
            do="iterate over them yourself to see where; examples of unequal shape need a collate_fn",
        ) from error


def read_data(
    data: Any,
    *,
    limit: int,
    samples: int | None = None,
    sample_seed: int = 0,
    prepare: Callable[[Batch], Batch] | None = None,
) -> Data:
    """Read ``data`` once: count it, fingerprint it, keep it if it takes at most ``limit`` bytes.

    Args:
        data: tensors or arrays ``(x, y)`` or a mapping of them, a Dataset, a DataLoader, or batches.
        samples: use a random subset of this size, drawn with ``sample_seed``, kept in the data's order.
        prepare: what makes of a batch as it is given one as the loss takes it.

    Raises:
        DataError: empty, shuffled, ragged inside a batch, or a one-shot iterator that does not fit in memory.
    """
    if prepare is not None and isinstance(data, Tensor | np.ndarray):
        data, prepare = prepare(map_tensors(torch.detach, data)), None
    source, notes = _as_batches(data)
    source = source if prepare is None else _prepared(source, prepare)
    _check_repeatable(source)
    rows: Tensor | None = None
    whole: int | None = None
    if samples is not None:
        source, rows, whole, note = _subset(source, samples, sample_seed)
        notes += (note,)
    kept: list[Batch] | None = []
    digest, used, examples = _Fingerprint(), 0, 0
    for batch in read(source):
        count = examples_in(batch)
        examples += count
        digest.update(batch)
        used += sum(t.nbytes for t in tensors_in(batch))
        if kept is not None and count:
            kept.append(batch)
            if used > limit:
                kept = None
                if isinstance(source, Iterator):
                    raise DataError(
                        "the data are an iterator that can be read only once and do not fit in memory",
                        do="pass a DataLoader or Dataset, raise --memory, or use --samples",
                    )
    if examples == 0:
        raise DataError("the data set is empty", found=f"no examples in {type(data).__name__}")
    whole = examples if whole is None else whole
    if kept is None:
        notes += (f"data of {used / 1e9:.1f} GB are read again at every pass (--memory is less)",)
        return Data(None, examples, digest.hexdigest(), source, notes, rows, whole)
    return Data(joined(kept), examples, digest.hexdigest(), None, notes, rows, whole)


class _Fingerprint:
    """SHA-256 of each tensor of the batches, column by column: how examples are batched does not matter."""

    def __init__(self) -> None:
        self._columns: list[Any] = []
        self._shapes: list[tuple[Any, ...]] = []

    def update(self, batch: Batch) -> None:
        tensors = tensors_in(batch)
        while len(self._columns) < len(tensors):
            self._columns.append(hashlib.sha256())
            self._shapes.append(())
        for i, tensor in enumerate(tensors):
            shape = (tuple(tensor.shape[1:]), tensor.dtype)
            if shape != self._shapes[i]:
                self._columns[i].update(repr(shape).encode())
                self._shapes[i] = shape
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            if flat.numel():
                self._columns[i].update(flat.view(torch.uint8).numpy())

    def hexdigest(self) -> str:
        return hashlib.sha256("".join(c.hexdigest() for c in self._columns).encode()).hexdigest()


@dataclass(frozen=True)
class _Prepared:
    """Batches that are prepared each time they are read."""

    source: Iterable[Batch]
    prepare: Callable[[Batch], Batch]

    def __iter__(self) -> Iterator[Batch]:
        return (self.prepare(map_tensors(lambda tensor: tensor, batch)) for batch in self.source)


def _prepared(source: Iterable[Batch], prepare: Callable[[Batch], Batch]) -> Iterable[Batch]:
    """The same batches prepared; what can be read once only, or is in memory, stays so."""
    every = _Prepared(source, prepare)
    if isinstance(source, Iterator):
        return iter(every)
    return list(every) if isinstance(source, list | tuple) else every


def _as_batches(data: Any) -> tuple[Iterable[Batch], tuple[str, ...]]:
    if isinstance(data, DataLoader):
        return _loader(data)
    if isinstance(data, Dataset) or (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, list | tuple | Mapping | Tensor | np.ndarray)
    ):
        if len(data) == 0:  # type: ignore[arg-type]
            raise DataError("the data set is empty", found=f"{type(data).__name__} of length 0")
        return DataLoader(data, batch_size=256), ()
    if isinstance(data, Mapping) or (
        isinstance(data, list | tuple)
        and data
        and all(isinstance(part, Tensor | np.ndarray) for part in data)
    ):
        examples_in(data)
        return [data], ()
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Tensor | np.ndarray):
        return data, ()
    raise DataError(
        "data must be (x, y), a Dataset, a DataLoader or an iterable of batches", found=type(data).__name__
    )


def _loader(loader: DataLoader[Any]) -> tuple[Iterable[Batch], tuple[str, ...]]:
    samplers = loader.sampler, getattr(loader.batch_sampler, "sampler", None)
    if any(isinstance(sampler, RandomSampler) for sampler in samplers):
        raise DataError(
            "the DataLoader shuffles: every pass would see another order, and drop_last other examples",
            found="sampler RandomSampler",
            do="pass shuffle=False",
        )
    notes: tuple[str, ...] = ()
    if loader.drop_last and loader.batch_size:
        dropped = len(loader.dataset) % loader.batch_size  # type: ignore[arg-type]
        if dropped:
            notes = (f"the DataLoader's drop_last leaves out {dropped} examples",)
    return loader, notes


def _check_repeatable(source: Iterable[Batch]) -> None:
    """Read the first batch twice: random transforms and hidden shuffling show."""
    if isinstance(source, Iterator | list | tuple):
        return
    prints = []
    with preserved_randomness():
        for _ in range(2):
            digest = _Fingerprint()
            for batch in itertools.islice(_batches(source), 1):
                digest.update(batch)
            prints.append(digest.hexdigest())
    if prints[0] != prints[1]:
        raise DataError(
            "reading the data twice gave two different first batches",
            do="switch off shuffling and random transforms (augmentation) for the measurement",
        )


def joined(batches: list[Batch]) -> list[Batch]:
    """One batch of all examples where shapes allow it; otherwise the batches as they are."""
    if len(batches) == 1:
        return batches
    columns = [tensors_in(batch) for batch in batches]
    shapes = {tuple((tuple(t.shape[1:]), t.dtype) for t in column) for column in columns}
    form = _form(batches[0])
    if len(shapes) != 1 or any(_form(batch) != form for batch in batches):
        return batches
    parts = iter([torch.cat(parts) for parts in zip(*columns, strict=True)])
    return [map_tensors(lambda _: next(parts), batches[0])]


def marks(noisy: Any, data: Data) -> Tensor:
    """Which examples of ``data`` are marked, (examples,) bool, from one mark for each that was given.

    Raises:
        DataError: another number of marks, or marks that are not true or false, 1 or 0.
    """
    try:
        given = torch.as_tensor(_tensor(noisy) if isinstance(noisy, np.ndarray) else noisy).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            "noisy marks are true or false for each example", found=type(noisy).__name__
        ) from error
    if given.shape != (data.whole,):
        number = str(len(given)) if given.ndim == 1 else f"an array {tuple(given.shape)}"
        raise DataError(
            "the marks of noisy labels do not belong to these data",
            found=f"{number} marks, {data.whole} examples",
            do="give one mark for each example, in the order of the data",
        )
    if other := [value for value in np.unique(given.numpy()).tolist() if value not in (0, 1)]:
        raise DataError("a mark of a noisy label is true or false, 1 or 0", found=repr(other[0]))
    chosen = given == 1
    return chosen if data.rows is None else chosen[data.rows]


def _form(batch: Batch) -> str:
    """A batch without its tensors: batches are joined only if all the rest is equal."""
    return repr(map_tensors(lambda _: torch.empty(0), batch))


def _subset(source: Iterable[Batch], samples: int, seed: int) -> tuple[list[Batch], Tensor, int, str]:
    """(a random subset, in the data's order, its numbers there, how many there are, what to tell the user).

    Two passes, so that only the subset is held.
    """
    if isinstance(source, Iterator):
        source = list(read(source))
    total = sum(examples_in(batch) for batch in read(source))
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:samples].sort().values
    kept, first = [], 0
    for batch in read(source):
        count = examples_in(batch)
        rows = chosen[(chosen >= first) & (chosen < first + count)] - first
        first += count
        if len(rows):
            kept.append(rows_of(batch, rows))
    note = f"a random subset of {samples} of {total} examples (sample seed {seed})"
    if samples >= total:
        note = f"--samples {samples}: all {total} examples are used"
    return kept, chosen, total, note
