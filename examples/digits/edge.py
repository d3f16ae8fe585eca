"""Gradient descent on all the data until the largest eigenvalue reaches 2/η: the edge of stability.

    python edge.py                 # edge/edge.pt and two earlier checkpoints: 20 seconds on one core
    landscape eigen edge/edge.pt --problem edge.py

A quadratic of curvature λ is unstable under steps η > 2/λ. On a network λmax rises until it gets there and
then stays, and the gradient turns into the top eigenvector (Cohen et al. 2021, "Gradient descent on neural
networks typically occurs at the edge of stability").
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

import landscape

EXAMPLES = 1000


def network(*widths: int) -> nn.Sequential:
    """Tanh network through ``widths``, linear at the end."""
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def data(examples: int = EXAMPLES) -> tuple[Tensor, Tensor]:
    """The first images (n, 64) float32 in [0, 1], and their labels as rows of the unit matrix (n, 10)."""
    digits = load_digits()
    x = torch.from_numpy(digits.data[:examples] / 16).to(torch.float32)
    return x, one_hot(torch.from_numpy(digits.target[:examples]).to(torch.int64), 10).to(torch.float32)


def problem() -> tuple[nn.Module, str, tuple[Tensor, Tensor]]:
    """What ``landscape --problem edge.py`` measures: (model, loss, data)."""
    return network(64, 64, 64, 10), "mse", data()


def descent(model: nn.Module, x: Tensor, y: Tensor, lr: float) -> Iterator[float]:
    """w ← w − η∇L(w), in place; yields the loss before each step."""
    weights = list(model.parameters())
    while True:
        with torch.enable_grad():
            loss = mse_loss(model(x), y)
            gradient = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, part in zip(weights, gradient, strict=True):
                weight -= lr * part
        yield loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient descent to the edge of stability on the digits.")
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--save-every", type=int, default=4000, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    folder = Path(__file__).parent / "edge"
    parser.add_argument("--out", type=Path, default=folder, help="folder for the checkpoints")
    args = parser.parse_args()

    torch.set_num_threads(1)  # the sums are then the same on any number of cores, and hardly slower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        model, _, (x, y) = problem()
    args.out.mkdir(parents=True, exist_ok=True)
    for step, loss in enumerate(islice(descent(model, x, y, args.lr), args.steps), start=1):
        last = step == args.steps
        if last or step % args.save_every == 0:
            path = args.out / ("edge.pt" if last else f"edge-step{step:05d}.pt")
            landscape.save_checkpoint(path, model, step=step, learning_rate=args.lr, seed=args.seed)
            print(f"step {step:5d}  loss {loss:.5f}  {path}")


if __name__ == "__main__":
    main()
