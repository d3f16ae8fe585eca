"""The three workloads of the benchmarks, and how time is taken: one thread, process CPU time."""

from __future__ import annotations

import math
import runpy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.support.models import images, resnet20, tokens, transformer

__all__ = ["WORKLOADS", "Batch", "LossFn", "Workload", "cpu_seconds", "measured", "workload"]

DIGITS = Path(__file__).parents[2] / "examples" / "digits"

Batch = tuple[Tensor, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]


class MeanCrossEntropy(nn.CrossEntropyLoss):
    """Mean over all targets: logits (..., classes) and labels (...), any number of leading dimensions."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2), target.flatten())


@dataclass(frozen=True)
class Workload:
    """A model in eval mode at the weights to measure, its mean loss and its batches."""

    name: str
    model: nn.Module
    loss_fn: MeanCrossEntropy
    batches: Sequence[Batch]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def train(model: nn.Module, loss_fn: LossFn, batch: Batch, *, steps: int, lr: float) -> nn.Module:
    """``steps`` of Adam on one batch; returns the model in eval mode.

    BatchNorm's running statistics are those of the batch at the last weights, as after a long training.
    """
    x, y = batch
    adam = torch.optim.Adam(model.train().parameters(), lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        torch.autograd.backward(loss_fn(model(x), y))
        adam.step()
    adam.zero_grad()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average, here over one pass
    with torch.no_grad():
        model(x)
    return model.eval()


def digits_mlp(batch_size: int) -> Workload:
    """The trained tanh MLP of the digits example, all 1797 examples (the last batch is ragged)."""
    example = runpy.run_path(str(DIGITS / "problem.py"))
    model: nn.Module = example["mlp"]()
    checkpoint = torch.load(DIGITS / "mlp-sgd.pt", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])
    x, y = example["data"]()
    pairs = zip(x.split(batch_size), y.split(batch_size), strict=True)
    return Workload(f"digits MLP, batches of {batch_size}", model.eval(), MeanCrossEntropy(), list(pairs))


def resnet(n: int) -> Workload:
    """ResNet-20 after a few steps on ``n`` synthetic images, evaluated in one batch."""
    loss_fn, batch = MeanCrossEntropy(), images(n, torch.Generator().manual_seed(1))
    model = train(resnet20(), loss_fn, batch, steps=5, lr=1e-3)
    return Workload(f"ResNet-20, {n} images", model, loss_fn, [batch])


def language_model(n: int) -> Workload:
    """The transformer after a few steps on ``n`` synthetic sequences of 64 tokens, in one batch."""
    loss_fn, batch = MeanCrossEntropy(), tokens(n, 64, torch.Generator().manual_seed(1))
    model = train(transformer(), loss_fn, batch, steps=30, lr=1e-3)
    return Workload(f"1M transformer, {n}x64 tokens", model, loss_fn, [batch])


#: Short name to the function that builds the workload.
WORKLOADS: dict[str, Callable[[], Workload]] = {
    "digits": lambda: digits_mlp(256),
    "digits-full": lambda: digits_mlp(1797),
    "resnet-32": lambda: resnet(32),
    "resnet-64": lambda: resnet(64),
    "transformer-16": lambda: language_model(16),
    "transformer-32": lambda: language_model(32),
}


def workload(name: str) -> Workload:
    """Build one of :data:`WORKLOADS`, under the conditions in which it is measured."""
    with measured():
        return WORKLOADS[name]()


@contextmanager
def measured() -> Iterator[None]:
    """One thread, and attention by the math kernel, which alone can be differentiated twice on a CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.set_num_threads(threads)


def cpu_seconds(step: Callable[[], object], *, repeats: int) -> float:
    """Least CPU time of the process for one call of ``step``, after one call to warm up."""
    step()
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        step()
        best = min(best, time.process_time() - start)
    return best
