"""The machine: device, dtype, memory, precision switches, generators; set for a while and put back."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.errors import ConfigurationError

__all__ = [
    "available_memory",
    "brief",
    "compute_device",
    "compute_dtype",
    "exact_arithmetic",
    "is_out_of_memory",
    "preserved_randomness",
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
def exact_arithmetic(device: torch.device, cudnn: bool = True) -> Iterator[None]:
    """Gradients on, float32 as float32 (no TF32, bfloat16 or autocast), kernels that differentiate twice.

    Also under ``no_grad`` and ``inference_mode``. All flags are as before afterwards.

    Args:
        cudnn: False for recurrent nets, whose cuDNN kernels cannot be differentiated twice.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_float32_matmul_precision() != "highest":
            stack.enter_context(_highest_precision())
        if device.type == "cuda":
            stack.enter_context(
                torch.backends.cudnn.flags(
                    enabled=cudnn and torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False
                )
            )
        yield


@contextlib.contextmanager
def _highest_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def preserved_randomness() -> Iterator[None]:
    """The global generators of torch, NumPy and Python are as before afterwards."""
    own, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numbers)  # noqa: NPY002


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
