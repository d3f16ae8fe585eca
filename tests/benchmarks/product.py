"""The yardstick of a Hessian product: a bare double backward, in units of one gradient.

    python -m tests.benchmarks.product [WORKLOAD ...] [--repeats 7] [--json FILE]

*Kept*: every batch's first-order graph is built once and differentiated again for each vector.
*Rebuilt*: it is built anew for each vector. *Vectors*: built once for a block of vectors, each on its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.benchmarks.workloads import WORKLOADS, Batch, LossFn, Workload, cpu_seconds, measured, workload

__all__ = ["KeptProduct", "ProductTimes", "gradient", "measure", "rebuilt_product"]


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def split(v: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    pieces = torch.split(v, [p.numel() for p in parameters])
    return [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]


def weights_of(batches: Sequence[Batch]) -> list[float]:
    """Share of the loss terms that each batch holds."""
    total = sum(y.numel() for _, y in batches)
    return [y.numel() / total for _, y in batches]


def gradient(model: nn.Module, loss_fn: LossFn, batches: Sequence[Batch]) -> Tensor:
    """∇L over all batches, flat, no graph kept: the unit of cost."""
    parameters = list(model.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    for weight, (x, y) in zip(weights_of(batches), batches, strict=True):
        total += weight * flat(torch.autograd.grad(loss_fn(model(x), y), parameters))
    return total


def rebuilt_product(model: nn.Module, loss_fn: LossFn, batches: Sequence[Batch], v: Tensor) -> Tensor:
    """Hv by double backward, each batch's graph built for this one vector."""
    parameters = list(model.parameters())
    pieces, total = split(v, parameters), torch.zeros_like(v)
    for weight, (x, y) in zip(weights_of(batches), batches, strict=True):
        first = torch.autograd.grad(loss_fn(model(x), y), parameters, create_graph=True)
        total += weight * flat(torch.autograd.grad(first, parameters, pieces))
    return total


class KeptProduct:
    """Hv by double backward through first-order graphs that are built once."""

    def __init__(self, model: nn.Module, loss_fn: LossFn, batches: Sequence[Batch]) -> None:
        self.parameters = list(model.parameters())
        self.weights = weights_of(batches)
        self.gradients = [
            torch.autograd.grad(loss_fn(model(x), y), self.parameters, create_graph=True) for x, y in batches
        ]

    def __call__(self, v: Tensor) -> Tensor:
        pieces, total = split(v, self.parameters), torch.zeros_like(v)
        for weight, first in zip(self.weights, self.gradients, strict=True):
            total += weight * flat(torch.autograd.grad(first, self.parameters, pieces, retain_graph=True))
        return total


def block_products(model: nn.Module, loss_fn: LossFn, batches: Sequence[Batch], block: Tensor) -> Tensor:
    """HV for the rows of ``block``: each batch's graph is built once and serves all of them."""
    total = torch.zeros_like(block)
    for weight, batch in zip(weights_of(batches), batches, strict=True):
        product = KeptProduct(model, loss_fn, [batch])
        for row, v in zip(total, block, strict=True):
            row += weight * product(v)
    return total


@dataclass(frozen=True)
class ProductTimes:
    """CPU seconds of one gradient, and the cost of one product in gradients."""

    workload: str
    gradient_seconds: float
    kept: float
    rebuilt: float
    block_of_8: float


def measure(work: Workload, *, repeats: int) -> ProductTimes:
    """Time the bare forms of the product on one workload."""
    model, loss_fn, batches = work.model, work.loss_fn, work.batches
    block = torch.randn(8, work.size, generator=torch.Generator().manual_seed(0))
    v = block[0]
    with measured():
        kept = KeptProduct(model, loss_fn, batches)
        unit = cpu_seconds(lambda: gradient(model, loss_fn, batches), repeats=repeats)
        seconds = {
            "kept": cpu_seconds(lambda: kept(v), repeats=repeats),
            "rebuilt": cpu_seconds(lambda: rebuilt_product(model, loss_fn, batches, v), repeats=repeats),
            "block_of_8": cpu_seconds(
                lambda: block_products(model, loss_fn, batches, block), repeats=max(1, repeats // 4)
            )
            / len(block),
        }
    return ProductTimes(work.name, unit, **{name: value / unit for name, value in seconds.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a bare Hessian product in units of one gradient.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    print(f"{'one product, in gradients':32} {'gradient':>10} {'kept':>6} {'rebuilt':>8} {'block of 8':>11}")
    rows = []
    for name in args.workloads or WORKLOADS:
        row = measure(workload(name), repeats=args.repeats)
        rows.append(asdict(row))
        print(
            f"{row.workload:32} {1e3 * row.gradient_seconds:7.1f} ms {row.kept:6.2f} "
            f"{row.rebuilt:8.2f} {row.block_of_8:11.2f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
