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
RUNS = sorted(path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.glob("runs/*.pt"))
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
    model: nn.Module = problem[factory_of(Path(name).name)]()
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
    assert sum((EXAMPLE / name).stat().st_size for name in RUNS) < 600_000


def test_the_runs_are_what_the_configuration_names_and_one_series_an_optimizer() -> None:
    pattern = tomllib.loads((EXAMPLE / "landscape.toml").read_text())["checkpoints"]
    assert sorted(path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.glob(pattern)) == RUNS
    epochs = [1, 2, 5, 10, 20, 40, 80, 150, 300]
    assert [f"runs/mlp-{o}-epoch{e:03d}.pt" for o in ("sam", "sgd") for e in epochs] == RUNS


def accuracy_above(name: str) -> float:
    """What a checkpoint has to reach on the true labels."""
    if "noisy" in name:
        return 0.85
    return 0.65 if "epoch001" in name else 0.75 if "epoch002" in name else 0.85 if "epoch" in name else 0.98


@pytest.mark.parametrize("name", [*CHECKPOINTS, *RUNS])
def test_a_checkpoint_fits_its_net_and_tells_digits_apart(name: str, problem: Factories) -> None:
    model = load(name, problem)
    x, y = problem["data"]()
    with torch.no_grad():
        accuracy = (model(x).argmax(dim=1) == y).double().mean().item()
    assert accuracy > accuracy_above(name)
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


def test_a_fifth_of_the_labels_is_shuffled_and_the_wrong_ones_are_marked(problem: Factories) -> None:
    (x, y), (same, noisy), wrong = problem["data"](), problem["noisy_data"](), problem["wrong_labels"]()
    assert torch.equal(x, same)
    assert torch.equal(y.bincount(), noisy.bincount()), "shuffled: no label becomes rarer"
    assert torch.equal(wrong, noisy != y)
    assert (wrong.dtype, int(wrong.sum())) == (torch.bool, 320)
    drawn = 1797 // 5
    assert 0.85 < int(wrong.sum()) / drawn < 0.95, "one in ten labels that are shuffled stays right"
    assert torch.equal(problem["noisy_data"]()[1], noisy), "the same ones each time"


@pytest.mark.parametrize(("name", "fitted"), [("mlp-noisy.pt", 0.02), ("mlp-noisy-epoch300.pt", 0.58)])
def test_clean_labels_are_fitted_before_wrong_ones(name: str, fitted: float, problem: Factories) -> None:
    (x, noisy), wrong = problem["noisy_data"](), problem["wrong_labels"]()
    with torch.no_grad():
        right = (load(name, problem)(x).argmax(dim=1) == noisy).double()
    assert right[~wrong].mean().item() > 0.95
    assert right[wrong].mean().item() == pytest.approx(fitted, abs=0.01)


def test_the_configuration_of_the_noisy_data(problem: Factories) -> None:
    config = tomllib.loads((EXAMPLE / "noisy.toml").read_text())
    named = [config[key].split(":") for key in ("model", "data", "noisy")]
    assert all(file == "problem.py" and function in problem for file, function in named)
    assert all((EXAMPLE / name).is_file() for name in config["checkpoints"])


@pytest.mark.parametrize(
    ("arguments", "made", "committed"),
    [
        (["--optimizer", "sam", "--epochs", "2"], "mlp-sam.pt", "runs/mlp-sam-epoch002.pt"),
        (["--epochs", "5", "--save-at", "5"], "mlp-sgd-epoch005.pt", "runs/mlp-sgd-epoch005.pt"),
        (["--noisy", "--epochs", "20"], "mlp-noisy.pt", "mlp-noisy.pt"),
    ],
)
def test_training_gives_the_other_checkpoints(
    arguments: list[str], made: str, committed: str, tmp_path: Path
) -> None:
    run_train(tmp_path, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == [made]
    found = weights(tmp_path / made)
    for name, expected in weights(EXAMPLE / committed).items():
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-3)


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


@pytest.mark.parametrize("adaptive", [False, True], ids=["sam", "asam"])
def test_the_sam_gradient_is_the_gradient_at_the_perturbed_weights(adaptive: bool, train: Factories) -> None:
    x, y = (part[:50] for part in train["data"]())
    x, model = x.double(), train["convnet"]().double().train()
    rho, before = 0.3, {name: w.detach().clone() for name, w in model.named_parameters()}
    twin = train["convnet"]().double().train()
    twin.load_state_dict(model.state_dict())

    found = train["sam_gradient"](model, x, y, rho, adaptive)

    parameters = list(twin.parameters())
    g = torch.autograd.grad(cross_entropy(twin(x), y), parameters)
    statistics = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    scaled = [w.detach().abs() + 0.01 if adaptive and w.ndim > 1 else torch.ones_like(w) for w in parameters]
    norm = sum(float(((t * part) ** 2).sum()) for t, part in zip(scaled, g, strict=True)) ** 0.5
    with torch.no_grad():
        for w, t, part in zip(parameters, scaled, g, strict=True):
            w += rho * t * t * part / norm
    expected = torch.autograd.grad(cross_entropy(twin(x), y), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
    for name, w in model.named_parameters():
        assert torch.equal(w, before[name])
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, statistics[name]), "BatchNorm must see the first pass only"


def test_an_epoch_leaves_gradients_switched_on(train: Factories) -> None:
    x, y = train["data"]()
    next(train["epochs"](train["mlp"](), x, y, lr=0.1, rho=0.0, batch_size=600, seed=0))
    assert torch.is_grad_enabled()


def readme_commands() -> list[str]:
    return [
        line.split("#")[0].strip()
        for line in (EXAMPLE / "README.md").read_text().splitlines()
        if line.startswith("landscape eigen ")
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
