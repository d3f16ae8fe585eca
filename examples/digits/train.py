"""Train a small net on the digits with SGD or SAM, and save checkpoints along the way.

    python train.py                                  # mlp-sgd.pt
    python train.py --optimizer sam                  # mlp-sam.pt
    python train.py --net convnet --save-at 2 5      # convnet-sgd.pt and two early ones

All 1797 images are trained on, so that the loss that ``landscape`` measures is the one that was minimised.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from problem import convnet, data, mlp
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import landscape

NETS = {"mlp": mlp, "convnet": convnet}


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """∇L(w) on a batch."""
    return torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))


def sam_gradient(model: nn.Module, x: Tensor, y: Tensor, rho: float) -> tuple[Tensor, ...]:
    """∇L(w + ρ g/‖g‖) with g = ∇L(w): Foret et al. 2021, eq. 2 with p = 2, and eq. 3.

    BatchNorm's running statistics see the first pass only: the second one gets copies.
    """
    g = gradient(model, x, y)
    scale = rho / torch.cat([part.flatten() for part in g]).norm()
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    moved = {
        name: (w + scale * part).detach().requires_grad_()
        for (name, w), part in zip(model.named_parameters(), g, strict=True)
    }
    loss = cross_entropy(functional_call(model, {**state, **moved}, (x,)), y)
    return torch.autograd.grad(loss, list(moved.values()))


def epochs(
    model: nn.Module, *, lr: float, rho: float, batch_size: int, seed: int
) -> Iterator[tuple[int, int, float]]:
    """Train by SGD, or SAM if ``rho`` is not 0; after each epoch yields its number, all steps, the loss."""
    x, y = data()
    order = torch.Generator().manual_seed(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    step, epoch = 0, 0
    while True:
        model.train()
        for batch in torch.split(torch.randperm(len(x), generator=order), batch_size):
            inputs, labels = x[batch], y[batch]
            g = sam_gradient(model, inputs, labels, rho) if rho else gradient(model, inputs, labels)
            for weight, part in zip(model.parameters(), g, strict=True):
                weight.grad = part
            sgd.step()
            step += 1
        epoch += 1
        model.eval()
        with torch.no_grad():
            loss = cross_entropy(model(x), y).item()
        yield epoch, step, loss


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small net on the handwritten digits.")
    parser.add_argument("--net", choices=NETS, default="mlp")
    parser.add_argument("--optimizer", choices=["sgd", "sam"], default="sgd")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--rho", type=float, default=0.1, help="radius of SAM's perturbation")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-at", type=int, nargs="*", default=[], metavar="EPOCH", help="also save here")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the checkpoints")
    args = parser.parse_args()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        model = NETS[args.net]()
    rho = args.rho if args.optimizer == "sam" else 0.0
    settings = {"rho": rho, "batch_size": args.batch_size, "seed": args.seed}
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"{args.net}-{args.optimizer}"
    for epoch, step, loss in islice(epochs(model, lr=args.lr, **settings), args.epochs):
        last = epoch == args.epochs
        if last or epoch in args.save_at:
            path = args.out / (f"{name}.pt" if last else f"{name}-epoch{epoch:03d}.pt")
            landscape.save_checkpoint(path, model, step=step, epoch=epoch, learning_rate=args.lr, **settings)
            print(f"epoch {epoch:3d}  step {step:5d}  loss {loss:.4f}  {path}")


if __name__ == "__main__":
    main()
