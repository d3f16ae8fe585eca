"""Train a small net on the digits with SGD, SAM or ASAM, and save checkpoints along the way.

    python train.py                                  # mlp-sgd.pt
    python train.py --optimizer sam                  # mlp-sam.pt
    python train.py --net convnet --save-at 2 5      # convnet-sgd.pt and two early ones
    python train.py --noisy --epochs 20              # mlp-noisy.pt: some labels are wrong
    python train.py --seed 1                         # mlp-sgd-seed1.pt: from other weights

All 1797 images are trained on, so that the loss that ``landscape`` measures is the one that was minimised.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from problem import convnet, data, mlp, noisy_data
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import landscape

NETS = {"mlp": mlp, "convnet": convnet}

#: Radius ρ of each optimizer's perturbation; ASAM's is the one of Kwon et al. 2021, §5, as is its η.
RADII = {"sgd": 0.0, "sam": 0.1, "asam": 0.5}
ETA = 0.01


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """∇L(w) on a batch."""
    return torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))


def perturbation(model: nn.Module, g: Sequence[Tensor], rho: float, adaptive: bool) -> list[Tensor]:
    """ρ T²g/‖Tg‖ with T = 1 (SAM: Foret et al. 2021, eq. 2 with p = 2) or, if ``adaptive``, T = |w| + η on
    weights, but not on biases and the like (ASAM: Kwon et al. 2021, eq. 6).
    """
    scales = [
        w.detach().abs() + ETA if adaptive and w.ndim > 1 else torch.ones_like(w) for w in model.parameters()
    ]
    norm = torch.cat([(t * part).flatten() for t, part in zip(scales, g, strict=True)]).norm()
    return [rho / norm * t**2 * part for t, part in zip(scales, g, strict=True)]


def sam_gradient(
    model: nn.Module, x: Tensor, y: Tensor, rho: float, adaptive: bool = False
) -> tuple[Tensor, ...]:
    """∇L(w + ε) with ε along g = ∇L(w): Foret et al. 2021, eq. 3.

    BatchNorm's running statistics see the first pass only: the second one gets copies.
    """
    steps = perturbation(model, gradient(model, x, y), rho, adaptive)
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    moved = {
        name: (w + step).detach().requires_grad_()
        for (name, w), step in zip(model.named_parameters(), steps, strict=True)
    }
    loss = cross_entropy(functional_call(model, {**state, **moved}, (x,)), y)
    return torch.autograd.grad(loss, list(moved.values()))


def epochs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    lr: float,
    rho: float,
    batch_size: int,
    seed: int,
    adaptive: bool = False,
) -> Iterator[tuple[int, int, float]]:
    """Train by SGD, or SAM if ``rho`` is not 0; after each epoch yields its number, all steps, the loss."""
    order = torch.Generator().manual_seed(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    step, epoch = 0, 0
    while True:
        model.train()
        for batch in torch.split(torch.randperm(len(x), generator=order), batch_size):
            inputs, labels = x[batch], y[batch]
            g = sam_gradient(model, inputs, labels, rho, adaptive) if rho else gradient(model, inputs, labels)
            for weight, part in zip(model.parameters(), g, strict=True):
                weight.grad = part
            sgd.step()
            step += 1
        epoch += 1
        model.eval()
        with torch.no_grad():
            loss = cross_entropy(model(x), y).item()
        yield epoch, step, loss


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small net on the handwritten digits.")
    parser.add_argument("--net", choices=NETS, default="mlp")
    parser.add_argument("--optimizer", choices=RADII, default="sgd")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.2)
    radii = ", ".join(f"{name} {rho}" for name, rho in RADII.items() if rho)
    parser.add_argument("--rho", type=float, help=f"radius of the perturbation (default: {radii})")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noisy", action="store_true", help="shuffle 20 %% of the labels")
    parser.add_argument(
        "--save-at", type=int, nargs="*", default=[], metavar="EPOCH", help="save as NAME-epochEPOCH.pt"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the checkpoints")
    return parser.parse_args()


def name(args: argparse.Namespace) -> str:
    """What the checkpoints' file names begin with."""
    if args.noisy:
        return f"{args.net}-noisy" + ("" if args.optimizer == "sgd" else f"-{args.optimizer}")
    return f"{args.net}-{args.optimizer}" + (f"-seed{args.seed}" if args.seed else "")


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # the sums are then the same on any number of cores, and no slower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        model = NETS[args.net]()
    x, y = noisy_data() if args.noisy else data()
    rho = RADII[args.optimizer] if args.rho is None or args.optimizer == "sgd" else args.rho
    settings = {"rho": rho, "batch_size": args.batch_size, "seed": args.seed}
    training = epochs(model, x, y, lr=args.lr, adaptive=args.optimizer == "asam", **settings)
    args.out.mkdir(parents=True, exist_ok=True)
    for epoch, step, loss in islice(training, args.epochs):
        listed = epoch in args.save_at
        if listed or epoch == args.epochs:
            path = args.out / f"{name(args)}{f'-epoch{epoch:03d}' if listed else ''}.pt"
            landscape.save_checkpoint(path, model, step=step, epoch=epoch, learning_rate=args.lr, **settings)
            print(f"epoch {epoch:3d}  step {step:5d}  loss {loss:.4f}  {path}")


if __name__ == "__main__":
    main()
