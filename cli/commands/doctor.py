"""``landscape doctor``: does this machine have what the measurements need?"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from landscape.errors import DONE, FAILED

from ..console import Console
from ..numbers import size
from ..options import Debug, Json, Quiet
from ..stored import FOLDER

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES = ("landscape-diagnostics", "torch", "numpy", "scipy", "h5py", "matplotlib", "safetensors", "typer")
#: Second derivatives of the checks must agree with differences of first ones this well (float64).
AGREEMENT = 1e-6
#: Less free memory than this is worth a warning.
SCARCE_BYTES = 1e9


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found and, where it is a problem, what to do."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def command(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Check this machine: versions, threads, device, memory, second derivatives, where results go.

    Exit code 0 if all is well, 3 if something is a problem; each problem comes with advice.

    Examples:
      landscape doctor
      landscape doctor --json
    """
    console = Console("doctor", json=json, quiet=quiet)
    checks = list(_checks())
    console.table(["check", "", "found"], [[c.name, "ok" if c.ok else "PROBLEM", c.found] for c in checks])
    for check in checks:
        if check.advice:
            console.out(f"{check.name}: {check.advice}")
    console.emit(checks=[asdict(check) for check in checks])
    raise typer.Exit(DONE if all(check.ok for check in checks) else FAILED)


def _checks() -> Iterator[Check]:
    yield Check("python", True, platform.python_version())
    yield from map(_package, PACKAGES)
    yield _memory()
    yield _folder()
    try:
        import torch
    except ImportError as error:
        yield Check("torch works", False, str(error), "reinstall torch for this platform")
        return
    yield _threads(torch.get_num_threads())
    yield _device()
    yield _second_derivative("attention, twice", _attention_loss)
    yield _second_derivative("convolution, twice", _convolution_loss)


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"install {name} into this environment")


def _memory() -> Check:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return Check("memory", True, "free memory unknown here", "set --memory, such as --memory 4GB")
    scarce = free < SCARCE_BYTES
    advice = "close other programs, or use a smaller --batch-size or --samples" if scarce else ""
    return Check("memory", not scarce, f"{size(free)} free", advice)


def _folder() -> Check:
    """Whether results can be written: into their folder or, while there is none, beside where it will be."""
    folder = FOLDER if FOLDER.exists() else Path()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".landscape-doctor-") as file:
            file.write(b"0")
    except OSError as error:
        return Check("results", False, f"{FOLDER}: {error.strerror}", "write results elsewhere with -o FILE")
    return Check("results", True, f"{FOLDER.absolute()} can be written")


def _threads(threads: int) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = f"more threads than cores is slow: use --threads {cores}" if threads > cores else ""
    return Check("threads", threads <= cores, f"{threads} of {cores} cores", advice)


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", True, f"cuda: {torch.cuda.get_device_name()}")
    return Check("device", True, "cpu")


def _second_derivative(name: str, loss: Callable[[Tensor], Tensor]) -> Check:
    """Compare a product with the Hessian of ``loss`` by double backward with central differences."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weights, direction = torch.randn(2, 4, 4, 3, 3, dtype=torch.float64, generator=generator).unbind()
    step = 1e-5

    def gradient(at: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:
        leaf = at.clone().requires_grad_()
        return leaf, torch.autograd.grad(loss(leaf), leaf, create_graph=keep)[0]

    try:
        leaf, first = gradient(weights, keep=True)
        product = torch.autograd.grad(first, leaf, direction)[0]
        ahead, behind = (gradient(weights + sign * step * direction)[1] for sign in (1, -1))
        error = float((product - (ahead - behind) / (2 * step)).norm() / product.norm())
    except RuntimeError as failure:
        return Check(name, False, str(failure).splitlines()[0], "upgrade torch")
    agrees = error < AGREEMENT
    return Check(name, agrees, f"relative error {error:.1e}", "" if agrees else "upgrade torch")


def _attention_loss(weights: Tensor) -> Tensor:
    """Attention over tokens made from the weights, by the kernel that has a second derivative."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tokens = weights.reshape(1, 2, 9, 8)
    with sdpa_kernel(SDPBackend.MATH):
        mixed = torch.nn.functional.scaled_dot_product_attention(tokens, tokens.tanh(), tokens.sin())
    return mixed.square().mean()


def _convolution_loss(weights: Tensor) -> Tensor:
    import torch

    image = torch.linspace(-1, 1, 4 * 36, dtype=weights.dtype).sin().reshape(1, 4, 6, 6)
    return torch.nn.functional.conv2d(image, weights).tanh().square().mean()
