"""Every matrix of the digits MLP against a dense one made another way, in float64: products, values, trace.

    python -m tests.benchmarks.exact [--json FILE] [--keep FILE.npy]

The dense matrices (6570², 345 MB each) come from explicit per-example Jacobians and gradients, and for the
Hessian from one differentiation per row. Takes minutes.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

import landscape
from landscape.curvature.operators import OperatorChoice, make_operator
from landscape.curvature.strategy import Strategy
from landscape.problem import Problem
from tests.benchmarks.workloads import DIGITS, measured

OPERATORS = ("hessian", "gauss-newton", "empirical-fisher", "noise", "finite-difference")


def setting() -> tuple[nn.Module, Tensor, Tensor]:
    """The trained MLP in float64, and the data."""
    example = runpy.run_path(str(DIGITS / "problem.py"))
    model: nn.Module = example["mlp"]()
    model.load_state_dict(torch.load(DIGITS / "mlp-sgd.pt", weights_only=True)["state_dict"])
    x, y = example["data"]()
    return model.double().eval(), x.double(), y


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """d logits / d weights of each example, (N, classes, n)."""
    named = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, weights, (row[None],))[0]
        return logits

    parts = [vmap(jacrev(outputs), (None, 0))(named, piece) for piece in x.split(64)]
    return torch.cat([torch.cat([p[name].flatten(2) for name in named], 2) for p in parts])


def dense_hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Row by row, each a derivative of an entry of the gradient."""
    weights = list(model.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), weights, create_graph=True)
    entries = torch.cat([part.reshape(-1) for part in gradients])
    rows = torch.empty((len(entries), len(entries)), dtype=torch.float64)
    for i, entry in enumerate(entries):
        row = torch.autograd.grad(entry, weights, retain_graph=True)
        rows[i] = torch.cat([part.reshape(-1) for part in row])
    return (rows + rows.T) / 2


def dense(name: str, model: nn.Module, x: Tensor, y: Tensor, jacobian: Tensor) -> Tensor:
    """The matrix called ``name``; finite differences are those of the Hessian."""
    with torch.no_grad():
        p = F.softmax(model(x), 1)
        if name == "gauss-newton":
            middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
            left, right = jacobian.flatten(0, 1), (middle @ jacobian).flatten(0, 1)
            return left.T @ right / len(x)
        if name in ("empirical-fisher", "noise"):
            scores = ((p - F.one_hot(y, p.shape[1]))[:, None, :] @ jacobian)[:, 0]
            if name == "noise":
                scores = scores - scores.mean(0)
            return scores.T @ scores / len(x)
    return dense_hessian(model, x, y)


def compared(name: str, matrix: Tensor, problem: Problem) -> dict[str, Any]:
    """Worst relative errors against the dense ``matrix``, and where the trace lies in its interval."""
    operator = make_operator(problem, Strategy(256, 8, 8, 0), OperatorChoice(name))
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn((4, problem.size), dtype=torch.float64, generator=generator)
    expected = vectors @ matrix
    product = (operator.apply(vectors) - expected).norm() / expected.norm()
    operator.release()
    exact = np.linalg.eigvalsh(matrix.numpy())[::-1]
    eigen = landscape.eigen(problem, operator=name, k=10, tol=1e-8, standard_errors=False, seed=0)
    trace = landscape.trace(problem, operator=name, tol=0.02, seed=0)
    total = float(torch.trace(matrix))
    return {
        "operator": name,
        "products": float(product),
        "top 10": float(np.abs(eigen.eigenvalues / exact[:10] - 1).max()),
        "trace": total,
        "estimate": trace.trace,
        "half-width": trace.half_width,
        "holds": bool(trace.interval[0] <= total <= trace.interval[1]),
        "trace products": trace.products,
    }


def tables(keep: Path | None) -> Iterator[dict[str, Any]]:
    """One comparison for each matrix; ``keep`` is where the dense Hessian goes."""
    model, x, y = setting()
    problem = Problem(model, "cross_entropy", (x, y), dtype="float64")
    jacobian = jacobians(model, x)
    hessian: list[Tensor] = []
    make: Callable[[str], Tensor] = lambda name: dense(name, model, x, y, jacobian)  # noqa: E731
    for name in OPERATORS:
        if name in ("hessian", "finite-difference"):
            if not hessian:
                hessian = [make("hessian")]
                if keep is not None:
                    np.save(keep, hessian[0].numpy())
            yield compared(name, hessian[0], problem)
        else:
            yield compared(name, make(name), problem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--keep", type=Path, help="keep the dense Hessian here, for coverage --digits")
    args = parser.parse_args()
    found = []
    with measured():
        for row in tables(args.keep):
            found.append(row)
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
