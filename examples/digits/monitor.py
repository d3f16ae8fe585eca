"""Train a small net on the digits with SAM, and measure its curvature on the way.

python monitor.py                # monitor.h5; then: landscape show monitor.h5 monitor
python monitor.py --epochs 200   # and: landscape plot monitor.h5 monitor -o monitor.png
"""

from __future__ import annotations

import argparse

import torch
from problem import data, mlp
from torch.nn.functional import cross_entropy

import landscape

RHO = 0.1


def main(epochs: int, output: str) -> None:
    x, y = data()
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = x[:512], y[:512]
    # A step of so small a net takes less than a millisecond: 10 % of the time instead of 2, to see more.
    settings = {"output": output, "optimizer": optimizer, "seed": 0, "budget": 0.1}
    with landscape.Monitor(model, "cross_entropy", probe, **settings) as monitor:
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(100):
                cross_entropy(model(x[batch]), y[batch]).backward()
                monitor.first()  # the gradient at w is there
                weights = [w.detach().clone() for w in model.parameters()]
                length = torch.cat([w.grad.flatten() for w in model.parameters()]).norm()
                with torch.no_grad():
                    for w in model.parameters():
                        w += RHO / length * w.grad
                optimizer.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                monitor.step()  # and now that at w + ε
                with torch.no_grad():
                    for w, before in zip(model.parameters(), weights, strict=True):
                        w.copy_(before)
                optimizer.step()
                optimizer.zero_grad()
    print(monitor)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Watch the curvature while SAM trains a net on the digits.")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--output", default="monitor.h5")
    main(**vars(parser.parse_args()))
