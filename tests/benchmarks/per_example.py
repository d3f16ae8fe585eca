"""Gradients example by example, in units of one bare vectorised pass over the same data.

    python -m tests.benchmarks.per_example [WORKLOAD…] [--repeats N] [--json FILE]

The bare pass is ``vmap(grad(loss))`` over the weights that all examples share, in the same chunks. Beside it:
landscape's gradients, all the weights of ``landscape reweight`` (two points, four gradients and their lengths
for each example), one example at a time, and one ordinary gradient of all examples together. CPU seconds, one
thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

import landscape
from landscape.analyses.reweight_work import chosen_chunk, example_bytes
from landscape.data import Piece
from landscape.sam.per_example import per_example
from landscape.sam.reweight import OneSam, figures
from tests.benchmarks.product import turns
from tests.benchmarks.workloads import WORKLOADS, Batch, MeanCrossEntropy, Workload, measured, train, workload
from tests.support.models import images, tiny_resnet

__all__ = ["PerExampleTimes", "measure"]


@dataclass(frozen=True)
class PerExampleTimes:
    """CPU milliseconds of the bare pass for each example; the others in units of it."""

    workload: str
    chunk: int
    bare_milliseconds: float
    gradients: float
    weights: float
    one_by_one: float
    together: float


def small_convnet() -> Workload:
    """A ResNet of one block a stage and 4 channels on 256 synthetic images of 16×16."""
    loss_fn = MeanCrossEntropy()
    batch = images(256, torch.Generator().manual_seed(1), size=16)
    model = train(tiny_resnet(), loss_fn, batch, steps=30, lr=1e-2)
    return Workload("small ResNet, 256 images", model, loss_fn, [batch])


def bare(work: Workload, chunks: list[Batch]) -> Callable[[], None]:
    """``vmap(grad(loss))`` chunk by chunk."""
    weights = {name: p.detach() for name, p in work.model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return work.loss_fn(functional_call(work.model, parameters, (x[None],)), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))

    def run() -> None:
        for x, y in chunks:
            each(weights, x, y)

    return run


def measure(work: Workload, *, repeats: int) -> PerExampleTimes:
    """All forms in turns on one workload."""
    with measured():
        problem = landscape.Problem(work.model, "cross_entropy", list(work.batches))
        chunk = chosen_chunk(problem, example_bytes(problem))
        of, few = per_example(problem), problem.sample(8)
        slow = of.one_by_one(problem.dtype)
        pieces = list(problem.pieces(chunk))
        times = turns(
            {
                "bare": bare(work, [piece.batch for piece in pieces]),
                "gradients": lambda: every(pieces, of.gradients),
                "weights": lambda: every(pieces, lambda p: of.over(p, partial(figures, how=OneSam()))),
                "one by one": lambda: slow.gradients(few),
                "together": lambda: problem.measure(pieces),
            },
            repeats,
        )
    unit = times["bare"]
    return PerExampleTimes(
        workload=work.name,
        chunk=chunk,
        bare_milliseconds=1e3 * unit / problem.examples,
        gradients=times["gradients"] / unit,
        weights=times["weights"] / unit,
        one_by_one=times["one by one"] * problem.examples / few.examples / unit,
        together=times["together"] / unit,
    )


def every(pieces: list[Piece], work: Callable[[Piece], object]) -> None:
    for piece in pieces:
        work(piece)


def rows(names: list[str], repeats: int) -> Iterator[PerExampleTimes]:
    for name in names:
        work = small_convnet() if name == "small-resnet" else workload(name)
        yield measure(work, repeats=repeats)


def main() -> None:
    known = ["digits-full", "small-resnet", "resnet-32", "transformer-16"]
    parser = argparse.ArgumentParser(description="Time gradients example by example.")
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"small-resnet, {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    print(
        f"{'gradients of every example':32} {'chunk':>5} {'bare':>12} {'ours':>6} {'all weights':>12} "
        f"{'one by one':>11} {'together':>9}"
    )
    done = []
    for row in rows(args.workloads or known, args.repeats):
        done.append(asdict(row))
        print(
            f"{row.workload:32} {row.chunk:5} {row.bare_milliseconds:9.3f} ms {row.gradients:6.2f} "
            f"{row.weights:12.2f} {row.one_by_one:11.2f} {row.together:9.2f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(done, indent=2) + "\n")


if __name__ == "__main__":
    main()
