"""Which state dict is meant, what is around it, and what a file says about its training."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.checkpoint import inspect_checkpoint, load_checkpoint
from landscape.checkpoint.unwrap import common_prefix, facts
from landscape.errors import CheckpointError
from tests.checkpoint.files import network, same, weights, write_zip


def averaged() -> dict[str, Any]:
    return {k: v * 2 for k, v in weights().items()}


def prefixed(prefix: str) -> dict[str, Any]:
    return {prefix + k: v for k, v in weights().items()}


CONTAINERS: dict[str, tuple[Any, str, str]] = {
    "bare": (weights(), ".", ""),
    "state_dict": ({"state_dict": weights(), "epoch": 1}, "state_dict", ""),
    "model_state_dict": ({"model_state_dict": weights()}, "model_state_dict", ""),
    "model": ({"model": weights(), "loss": torch.tensor(0.5)}, "model", ""),
    "nested": ({"checkpoint": {"state_dict": weights()}}, "checkpoint.state_dict", ""),
    "own name": ({"backbone": weights(), "epoch": 1}, "backbone", ""),
    "ema only": ({"ema": {"module": weights()}}, "ema.module", ""),
    "ema too": ({"ema_state_dict": averaged(), "net": weights()}, "net", ""),
    "model_ema": ({"model_ema": averaged(), "model": weights()}, "model", ""),
    "state_dict_ema": ({"state_dict_ema": averaged(), "state_dict": weights()}, "state_dict", ""),
    "swa": ({"swa_model": averaged(), "weights": weights()}, "weights", ""),
    "bare with ema": ({**weights(), "ema": averaged()}, ".", ""),
    "DDP": ({"state_dict": prefixed("module.")}, "state_dict", "module."),
    "compiled DDP": (prefixed("module._orig_mod."), ".", "module._orig_mod."),
    "lightning": (
        {"state_dict": prefixed("model."), "pytorch-lightning_version": "2", "optimizer_states": [{}]},
        "state_dict",
        "model.",
    ),
    "list": ({"models": [weights()]}, "models.0", ""),
    "optimizer": ({"model": weights(), "optimizer": {"buffers": averaged()}}, "model", ""),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_containers(tmp_path: Path, case: str) -> None:
    content, key, prefix = CONTAINERS[case]
    path = write_zip(tmp_path / "m.pt", content)
    checkpoint, inspection = load_checkpoint(path), inspect_checkpoint(path)
    assert (checkpoint.state_key, checkpoint.prefix) == (key, prefix)
    assert same(checkpoint.state, weights())
    assert (inspection.state_key, inspection.prefix) == (key, prefix)
    assert list(inspection.state) == list(weights())
    assert inspection.notes == checkpoint.notes[: len(inspection.notes)]
    if key != ".":
        assert f"“{key}”" in checkpoint.notes[0]


def test_prefix_goes_only_if_every_key_has_it(tmp_path: Path) -> None:
    state = {**prefixed("model."), "loss.weight": torch.ones(3)}
    checkpoint = load_checkpoint(write_zip(tmp_path / "m.pt", state))
    assert checkpoint.prefix == ""
    assert same(checkpoint.state, state)
    assert common_prefix(["module.module.a", "module.b"]) == "module."
    assert common_prefix(["module."]) == ""
    assert common_prefix([]) == ""


def test_state_key_chooses(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.pt", {"model": weights(), "ema": {"module": averaged()}})
    plain = load_checkpoint(path)
    assert "ema.module (averaged weights)" in plain.notes[0]
    assert same(plain.state, weights())
    assert same(load_checkpoint(path, state_key="ema.module").state, averaged())
    assert inspect_checkpoint(path, state_key="ema.module").state_key == "ema.module"
    for read in (load_checkpoint, inspect_checkpoint):
        with pytest.raises(CheckpointError, match=r"did you mean --state-key ema\.module"):
            read(path, state_key="ema.modul")


def test_state_key_reaches_what_is_never_chosen(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.pt", {"model": weights(), "callbacks": {"EMA": averaged()}})
    assert same(load_checkpoint(path, state_key="callbacks.EMA").state, averaged())


@pytest.mark.parametrize(
    "names", [("generator", "discriminator"), ("model", "state_dict"), ("a.state_dict", "b.state_dict")]
)
def test_ambiguity_is_an_error_that_names_the_choices(tmp_path: Path, names: tuple[str, str]) -> None:
    content: dict[str, Any] = {}
    for name in names:
        outer, _, inner = name.partition(".")
        content[outer] = {inner: weights()} if inner else weights()
    path = write_zip(tmp_path / "m.pt", content)
    with pytest.raises(CheckpointError, match=f"--state-key {names[0]}") as caught:
        load_checkpoint(path)
    assert f"{names[1]} (9 tensors)" in str(caught.value)
    inspection = inspect_checkpoint(path)
    assert inspection.state_key is None
    assert [c.key for c in inspection.candidates] == list(names)
    assert "several state dicts" in inspection.notes[0]
    assert load_checkpoint(path, state_key=names[1]).state_key == names[1]


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    content = {"state_dict": {**weights(), "_extra_state": {"scale": torch.ones(1)}, "version": 3}}
    checkpoint = load_checkpoint(write_zip(tmp_path / "m.pt", content))
    assert same(checkpoint.state, weights())
    assert "left out, being no tensors: _extra_state, version" in checkpoint.notes


@pytest.mark.parametrize(
    ("content", "step", "epoch"),
    [
        ({"step": 7, "epoch": 2}, 7, 2),
        ({"global_step": 9, "current_epoch": 0}, 9, 0),
        ({"iteration": torch.tensor(5)}, 5, None),
        ({"iter_num": 4.0}, 4, None),
        ({"meta": {"iter": 3, "epoch": 1}}, 3, 1),
        ({"args": Namespace(epoch=6)}, None, 6),
        ({"step": "12"}, 12, None),
        ({"step": np.int64(8)}, 8, None),
        ({"step": True, "epoch": -1}, None, None),
        ({"step": 2.5, "epoch": float("nan")}, None, None),
        ({"step": float("inf"), "epoch": "last"}, None, None),
        ({"step": torch.ones(2), "epoch": {"a": 1}}, None, None),
        ({"step": 10**400}, None, None),
        ([1, 2], None, None),
    ],
)
def test_step_and_epoch(content: Any, step: int | None, epoch: int | None) -> None:
    found = facts(content)
    assert (found.step, found.epoch) == (step, epoch)


def test_learning_rate_and_plain_values(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.9)
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "seed": 3,
        "name": "a",
        "flag": True,
    }
    checkpoint = load_checkpoint(write_zip(tmp_path / "m.pt", content))
    assert checkpoint.metadata == {"learning_rate": 0.125, "seed": 3, "name": "a", "flag": True}
    assert facts({"optimizer_states": [optimizer.state_dict()]}).metadata == {"learning_rate": 0.125}
    assert facts({"hyper_parameters": {"lr": 0.5}}).metadata["learning_rate"] == 0.5
    two = {"optimizer": {"param_groups": [{"lr": 0.1}, {"lr": 0.2}]}}
    assert "learning_rate" not in facts(two).metadata
    assert "text" not in facts({"text": "x" * 1000}).metadata


def test_lightning_is_recognised(tmp_path: Path) -> None:
    content = {
        "state_dict": prefixed("model."),
        "pytorch-lightning_version": "2.4.0",
        "global_step": 11,
        "epoch": 2,
    }
    inspection = inspect_checkpoint(write_zip(tmp_path / "m.ckpt", content))
    assert inspection.wrappers == ("Lightning", "container state_dict", "model attribute")
    assert (inspection.step, inspection.epoch) == (11, 2)
    assert inspection.others == ("pytorch-lightning_version", "global_step", "epoch")


def test_objects_inside_themselves_end(tmp_path: Path) -> None:
    """A kilobyte that names 30¹² paths, and a dict inside itself."""
    wide: Any = {"w": torch.ones(1, 1)}
    for _ in range(12):
        wide = {f"k{i}": wide for i in range(30)}
    found = inspect_checkpoint(write_zip(tmp_path / "wide.pt", {"model": weights(), "wide": wide}))
    assert found.state_key == "model"
    loop: dict[str, Any] = {"state_dict": weights()}
    loop["again"] = loop
    path = write_zip(tmp_path / "loop.pt", loop)
    assert inspect_checkpoint(path).state_key == "state_dict"
    assert same(load_checkpoint(path).state, weights())
    module: Any = torch.nn.Identity()
    for _ in range(20):
        outer = torch.nn.Module()
        outer.a = outer.b = module
        module = outer
    assert not inspect_checkpoint(write_zip(tmp_path / "module.pt", module)).safe


def test_one_state_dict_under_two_names_is_no_ambiguity(tmp_path: Path) -> None:
    state = weights()
    path = write_zip(tmp_path / "m.pt", {"model": state, "state_dict": state})
    assert load_checkpoint(path).state_key == inspect_checkpoint(path).state_key == "model"


def test_json_has_no_infinities(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.pt", {"model": weights(), "best": float("inf"), "lr": float("nan")})
    assert inspect_checkpoint(path).to_json()["metadata"] == {"best": None, "lr": None, "learning_rate": None}
