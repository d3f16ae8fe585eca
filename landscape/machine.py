"""The machine: device, dtype, memory, precision switches; all set for a while and put back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from landscape.errors import ConfigurationError

__all__ = [
    "available_memory",
    "brief",
    "compute_device",
    "compute_dtype",
    "full_precision",
    "is_out_of_memory",
    "threads",
]


def compute_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        ConfigurationError: CUDA asked for and not there.
    """
    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        raise ConfigurationError(f"--device does not know {device!r}", do="choose auto, cpu or cuda")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            "no CUDA device is available", do="use --device cpu, or see landscape doctor"
        )
    return torch.device(device)


def compute_dtype(model: nn.Module, dtype: str | None) -> tuple[torch.dtype, tuple[str, ...]]:
    """(arithmetic for the model, what to tell the user): its own, half precisions raised to float32."""
    known = {"float32": torch.float32, "float64": torch.float64}
    if dtype is not None:
        if dtype not in known:
            raise ConfigurationError(f"--dtype does not know {dtype!r}", do="choose float32 or float64")
        return known[dtype], ()
    own = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if torch.float64 in own:
        return torch.float64, ()
    half = own - {torch.float32}
    if half:
        names = ", ".join(str(d).removeprefix("torch.") for d in half)
        return torch.float32, (f"weights in {names} are raised to float32; the rounding they have had stays",)
    return torch.float32, ()


@contextlib.contextmanager
def full_precision(cudnn: bool = True) -> Iterator[None]:
    """TF32 off, cuDNN as asked; the flags are as before afterwards."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=cudnn, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """``count`` threads for torch's arithmetic, for a while; yields how many are used."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the CPU's allocator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )


def available_memory(device: torch.device) -> int:
    """Bytes free on the device; on a CPU within the limit of the control group, too."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _from_meminfo() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, _from_cgroup() or free)


def _from_meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _from_cgroup() -> int | None:
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue
    return None


def brief(error: BaseException, width: int = 200) -> str:
    """An exception in one line: its type and the first line of its text."""
    text = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    return line if len(line) <= width else line[: width - 1] + "…"
