"""The digits example: its checkpoints fit its nets, its script makes them, its README's commands run."""

from __future__ import annotations

import json
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks.peers import kept_eigsh

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
CHECKPOINTS = sorted(path.name for path in EXAMPLE.glob("*.pt"))
COMMAND = Path(sys.executable).with_name("landscape")

Factories = dict[str, Any]


@pytest.fixture(scope="module")
def problem() -> Factories:
    return runpy.run_path(str(EXAMPLE / "problem.py"))


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Factories:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "problem", raising=False)
    namespace = runpy.run_path(str(EXAMPLE / "train.py"))
    monkeypatch.delitem(sys.modules, "problem")
    return namespace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, so that results are not written into the working tree."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("examples") / "digits"))


def factory_of(name: str) -> str:
    """Which factory landscape.toml names for a checkpoint; exactly one pattern may fit."""
    models = tomllib.loads((EXAMPLE / "landscape.toml").read_text())["models"]
    (target,) = [target for pattern, target in models.items() if fnmatch(name, pattern)]
    file, function = target.split(":")
    assert file == "problem.py"
    return str(function)


def load(name: str, problem: Factories) -> nn.Module:
    model: nn.Module = problem[factory_of(name)]()
    model.load_state_dict(torch.load(EXAMPLE / name, weights_only=True)["state_dict"])
    return model.eval()


def weights(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def run_train(out: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, EXAMPLE / "train.py", "--out", out, *arguments], check=True)


def test_the_checkpoints_are_there_and_small() -> None:
    assert {"mlp-sgd.pt", "mlp-sam.pt", "convnet-sgd.pt", "mlp-sgd-epoch002.pt"} <= set(CHECKPOINTS)
    assert sum((EXAMPLE / name).stat().st_size for name in CHECKPOINTS) < 500_000


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_fits_its_net_and_tells_digits_apart(name: str, problem: Factories) -> None:
    model = load(name, problem)
    x, y = problem["data"]()
    with torch.no_grad():
        accuracy = (model(x).argmax(dim=1) == y).double().mean().item()
    assert accuracy > (0.75 if "epoch" in name else 0.98)
    saved = torch.load(EXAMPLE / name, weights_only=True)
    batches = 18  # of 100 among 1797 examples
    assert saved["step"] == batches * saved["epoch"]
    assert saved["metadata"]["learning_rate"] == (0.1 if name.startswith("convnet") else 0.2)


def test_the_problem(problem: Factories) -> None:
    x, y = problem["data"]()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((1797, 64), torch.float32, (1797,), torch.int64)
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)
    assert sorted(y.unique().tolist()) == list(range(10))
    assert sum(p.numel() for p in problem["mlp"]().parameters()) == 6570
    assert sum(p.numel() for p in problem["convnet"]().parameters()) == 3842


def test_training_gives_the_committed_checkpoint(tmp_path: Path) -> None:
    run_train(tmp_path, "--epochs", "2", "--save-at", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlp-sgd-epoch001.pt", "mlp-sgd.pt"]
    made, early = weights(tmp_path / "mlp-sgd.pt"), weights(tmp_path / "mlp-sgd-epoch001.pt")
    for name, committed in weights(EXAMPLE / "mlp-sgd-epoch002.pt").items():
        torch.testing.assert_close(made[name], committed, rtol=0, atol=1e-4)
        assert not torch.equal(early[name], committed)


@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_training_with_sam(net: str, tmp_path: Path) -> None:
    run_train(tmp_path, "--net", net, "--epochs", "1", "--optimizer", "sam")
    run_train(tmp_path, "--net", net, "--epochs", "1", "--optimizer", "sgd")
    sam, sgd = weights(tmp_path / f"{net}-sam.pt"), weights(tmp_path / f"{net}-sgd.pt")
    assert sam.keys() == sgd.keys()
    assert all(torch.isfinite(w).all() for w in sam.values())
    assert any(not torch.equal(sam[name], sgd[name]) for name in sgd)


def test_the_sam_gradient_is_the_gradient_at_the_perturbed_weights(train: Factories) -> None:
    x, y = (part[:50] for part in train["data"]())
    x, model = x.double(), train["convnet"]().double().train()
    rho, before = 0.3, {name: w.detach().clone() for name, w in model.named_parameters()}
    twin = train["convnet"]().double().train()
    twin.load_state_dict(model.state_dict())

    found = train["sam_gradient"](model, x, y, rho)

    parameters = list(twin.parameters())
    g = torch.autograd.grad(cross_entropy(twin(x), y), parameters)
    statistics = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    norm = sum(float((part**2).sum()) for part in g) ** 0.5
    with torch.no_grad():
        for w, part in zip(parameters, g, strict=True):
            w += rho * part / norm
    expected = torch.autograd.grad(cross_entropy(twin(x), y), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
    for name, w in model.named_parameters():
        assert torch.equal(w, before[name])
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, statistics[name]), "BatchNorm must see the first pass only"


def test_an_epoch_leaves_gradients_switched_on(train: Factories) -> None:
    next(train["epochs"](train["mlp"](), lr=0.1, rho=0.0, batch_size=600, seed=0))
    assert torch.is_grad_enabled()


def readme_commands() -> list[str]:
    return [
        line.split("#")[0].strip()
        for line in (EXAMPLE / "README.md").read_text().splitlines()
        if line.startswith("landscape ")
    ]


@pytest.fixture(scope="module")
def eigenvalues(folder: Path) -> Callable[[str], list[float]]:
    """Run one of the README's commands as it stands, but for --json and a seed."""

    def run(command: str) -> list[float]:
        arguments = [*shlex.split(command)[1:], "--json", "--seed", "0"]
        done = subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        assert run["status"] == "complete"
        values: list[float] = run["result"]["eigenvalues"]
        return values

    return run


@pytest.mark.parametrize("command", readme_commands())
def test_the_commands_of_the_readme(
    command: str, eigenvalues: Callable[[str], list[float]], problem: Factories
) -> None:
    name = shlex.split(command)[-1]
    x, y = problem["data"]()
    exact = kept_eigsh(load(name, problem).double(), cross_entropy, [(x.double(), y)], 5, tol=1e-6)
    np.testing.assert_allclose(eigenvalues(command), exact.eigenvalues, rtol=1e-4)


def test_the_readme_shows_both_nets_and_both_optimizers() -> None:
    assert {shlex.split(c)[-1] for c in readme_commands()} == {"mlp-sgd.pt", "mlp-sam.pt", "convnet-sgd.pt"}
