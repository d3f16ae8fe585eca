"""The yardstick of a Hessian product: a bare double backward, in units of one gradient.

    python -m tests.benchmarks.product [WORKLOAD ...] [--repeats 7] [--json FILE]

*Ours* is landscape's operator on the same batches, timed in turns with the bare product and given as a ratio
to it; *free* is landscape's with the piece size it chooses itself.

*Kept*: every batch's first-order graph is built once and differentiated again for each vector.
*Rebuilt*: it is built anew for each vector. *Vectors*: built once for a block of vectors, each on its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import landscape
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy, choose_strategy
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


def operator(work: Workload, *, kept: bool) -> HessianOperator:
    """landscape's operator on the workload's own batches, graphs kept or rebuilt."""
    problem = landscape.Problem(work.model, "cross_entropy", list(work.batches), memory=8 << 30)
    size = max(len(x) for x, _ in work.batches)
    pieces = len(work.batches)
    return HessianOperator(problem, Strategy(size, pieces, pieces if kept else 0, 0))


def chosen_operator(work: Workload) -> HessianOperator:
    """landscape's operator with the strategy that it chooses by measurement."""
    problem = landscape.Problem(work.model, "cross_entropy", list(work.batches), memory=8 << 30)
    return HessianOperator(problem, choose_strategy(problem)[0])


@dataclass(frozen=True)
class ProductTimes:
    """CPU seconds of one gradient; bare products in gradients; landscape's relative to the bare ones."""

    workload: str
    gradient_seconds: float
    kept: float
    rebuilt: float
    block_of_8: float
    ours_kept: float
    ours_rebuilt: float
    ours_free: float


def measure(work: Workload, *, repeats: int) -> ProductTimes:
    """Time the bare forms of the product and landscape's on one workload, in turns."""
    model, loss_fn, batches = work.model, work.loss_fn, work.batches
    block = torch.randn(8, work.size, generator=torch.Generator().manual_seed(0))
    v = block[0]
    with measured():
        kept = KeptProduct(model, loss_fn, batches)
        ours_kept, ours_rebuilt = operator(work, kept=True), operator(work, kept=False)
        ours_free = chosen_operator(work)
        forms: dict[str, Callable[[], object]] = {
            "gradient": lambda: gradient(model, loss_fn, batches),
            "kept": lambda: kept(v),
            "ours_kept": lambda: ours_kept.apply(v[None]),
            "rebuilt": lambda: rebuilt_product(model, loss_fn, batches, v),
            "ours_rebuilt": lambda: ours_rebuilt.apply(v[None]),
            "ours_free": lambda: ours_free.apply(v[None]),
        }
        best = turns(forms, repeats)
        eight = cpu_seconds(
            lambda: block_products(model, loss_fn, batches, block), repeats=max(1, repeats // 4)
        )
    unit = best["gradient"]
    return ProductTimes(
        workload=work.name,
        gradient_seconds=unit,
        kept=best["kept"] / unit,
        rebuilt=best["rebuilt"] / unit,
        block_of_8=eight / len(block) / unit,
        ours_kept=best["ours_kept"] / best["kept"],
        ours_rebuilt=best["ours_rebuilt"] / best["rebuilt"],
        ours_free=best["ours_free"] / best["kept"],
    )


def turns(forms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least CPU seconds of each form, taking turns: a change of the machine's pace meets all of them."""
    best = dict.fromkeys(forms, float("inf"))
    for turn in range(repeats + 1):
        for name, step in forms.items():
            start = time.process_time()
            step()
            if turn:  # the first turn warms up
                best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a bare Hessian product in units of one gradient.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    print(
        f"{'one product, in gradients':32} {'gradient':>10} {'kept':>6} {'rebuilt':>8} {'block of 8':>11}"
        f" {'ours kept':>10} {'ours rebuilt':>13} {'ours free':>10}"
    )
    rows = []
    for name in args.workloads or WORKLOADS:
        row = measure(workload(name), repeats=args.repeats)
        rows.append(asdict(row))
        print(
            f"{row.workload:32} {1e3 * row.gradient_seconds:7.1f} ms {row.kept:6.2f} "
            f"{row.rebuilt:8.2f} {row.block_of_8:11.2f} {row.ours_kept:10.2f} {row.ours_rebuilt:13.2f} "
            f"{row.ours_free:10.2f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
