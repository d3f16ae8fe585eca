"""Small trainings to monitor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from landscape.monitoring import Monitor

Data = tuple[Tensor, Tensor]


def blobs(examples: int = 60, features: int = 5, classes: int = 3, seed: int = 0) -> Data:
    """Random inputs, and labels that a linear map gives them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, features, generator=g)
    return x, (x @ torch.randn(features, classes, generator=g)).argmax(1)


def net(seed: int = 0) -> nn.Sequential:
    """A classifier with whatever training changes beside the weights: batch statistics, and dropout."""
    layers = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)]
    return drawn(nn.Sequential(*layers), seed)


def plain_net(seed: int = 0) -> nn.Sequential:
    """A classifier that is the same function in training, in float64."""
    return drawn(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), seed).double()


def drawn(model: nn.Sequential, seed: int) -> nn.Sequential:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=g))
    return model


def least_squares(examples: int = 40, features: int = 6, seed: int = 0) -> tuple[nn.Linear, Data, Tensor]:
    """(model, data, Hessian) of a mean square error with one output: H = 2XᵀX/n, whatever the weights."""
    g = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.5, 2.0, features, dtype=torch.float64)
    x = torch.randn(examples, features, generator=g, dtype=torch.float64) * scales
    x = x @ torch.linalg.qr(torch.randn(features, features, generator=g, dtype=torch.float64))[0]
    y = torch.randn(examples, 1, generator=g, dtype=torch.float64)
    model = nn.Linear(features, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, features, generator=g, dtype=torch.float64))
    return model, (x, y), 2 * x.T @ x / examples


@contextmanager
def perturbed(model: nn.Module, rho: float) -> Iterator[None]:
    """The weights moved by ρ along the gradient, in place, as optimizers for SAM do it."""
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    gradient = [p.grad for p in parameters if p.grad is not None]
    length = torch.cat([g.reshape(-1) for g in gradient]).norm()
    with torch.no_grad():
        for p, g in zip(parameters, gradient, strict=True):
            p.add_(g, alpha=float(rho / length))
    try:
        yield
    finally:
        with torch.no_grad():
            for p, w in zip(parameters, before, strict=True):
                p.copy_(w)


def loss_of(model: nn.Module, batch: Data) -> Tensor:
    x, y = batch
    return mse_loss(model(x), y) if y.is_floating_point() else cross_entropy(model(x), y)


def train(
    model: nn.Module,
    data: Data,
    steps: int,
    monitor: Monitor | None = None,
    *,
    rho: float = 0.05,
    lr: float = 0.05,
    batch: int | None = None,
) -> None:
    """``steps`` of SAM, or of SGD if ``rho`` is 0, on mini-batches or on all data at once."""
    order = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    x, y = data
    for _ in range(steps):
        rows = slice(None) if batch is None else torch.randperm(len(x), generator=order)[:batch]
        optimizer.zero_grad()
        loss_of(model, (x[rows], y[rows])).backward()
        if rho:
            if monitor is not None:
                monitor.first()
            with perturbed(model, rho):
                optimizer.zero_grad()
                loss_of(model, (x[rows], y[rows])).backward()
                if monitor is not None:
                    monitor.step()
        elif monitor is not None:
            monitor.step()
        optimizer.step()
