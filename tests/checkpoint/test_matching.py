"""All of a checkpoint goes into the model, or an error says what does not and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscape.checkpoint import Checkpoint, load_into
from landscape.checkpoint.unwrap import common_prefix
from landscape.errors import CheckpointError
from tests.checkpoint.files import network, same, weights


def checkpoint(state: Mapping[str, Tensor]) -> Checkpoint:
    prefix = common_prefix(state)
    return Checkpoint(
        path="file.pt",
        format="pytorch",
        sha256="0" * 64,
        state={k.removeprefix(prefix): v for k, v in state.items()},
        state_key=".",
        prefix=prefix,
        notes=(),
        step=None,
        epoch=None,
        metadata={},
    )


def failure(model: nn.Module, state: Mapping[str, Tensor], *ignore: str) -> str:
    """The message; nothing of the model may have changed."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(model, checkpoint(state), ignore)
    assert same(model.state_dict(), before)
    text = str(caught.value)
    assert len(text.splitlines()) <= 5
    return text


def fresh() -> nn.Module:
    model = network()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    return model


@pytest.mark.parametrize("in_file", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.model."])
@pytest.mark.parametrize("in_model", ["", "module", "model"])
def test_wrappers_on_either_side(in_file: str, in_model: str) -> None:
    inner = fresh()
    model = nn.ModuleDict({in_model: inner}) if in_model else inner
    load_into(model, checkpoint({in_file + k: v for k, v in weights().items()}))
    assert same(inner.state_dict(), weights())


def test_parameters_stay_the_same_objects_and_the_file_is_not_aliased() -> None:
    model, state = fresh(), weights()
    parameters = list(model.parameters())
    load_into(model, checkpoint(state))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    with torch.no_grad():
        parameters[0].zero_()
    assert state["0.weight"].abs().min() > 0
    assert all(p.requires_grad for p in parameters)


def test_float_dtypes_are_cast_to_the_models() -> None:
    model = fresh().double()
    load_into(model, checkpoint(weights()))
    assert model.state_dict()["0.weight"].dtype == torch.float64
    assert torch.equal(model.state_dict()["0.weight"], weights()["0.weight"].double())


def test_integers_are_no_weights() -> None:
    text = failure(fresh(), weights() | {"0.weight": torch.ones(5, 4, dtype=torch.int8)})
    assert "0.weight (file int8, model float32)" in text
    complex_weight = weights() | {"0.weight": torch.ones(5, 4, dtype=torch.complex64)}
    assert "file complex64, model float32" in failure(fresh(), complex_weight)


def test_counters_may_be_floats_and_may_be_missing() -> None:
    load_into(fresh(), checkpoint(weights() | {"1.num_batches_tracked": torch.tensor(3.0)}))
    state = weights()
    del state["1.num_batches_tracked"]
    load_into(fresh(), checkpoint(state))
    half = weights() | {"1.num_batches_tracked": torch.tensor(2.5)}
    assert "file float32, model int64" in failure(fresh(), half)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_once_or_twice() -> None:
    weight = torch.arange(6.0).reshape(3, 2)
    for state in (
        {"embedding.weight": weight},
        {"head.weight": weight},
        {"embedding.weight": weight, "head.weight": weight.clone()},
    ):
        model = Tied()
        load_into(model, checkpoint(state))
        assert torch.equal(model.head.weight, weight)
        assert model.head.weight is model.embedding.weight


def test_tied_weights_that_differ_in_the_file() -> None:
    weight = torch.ones(3, 2)
    text = failure(Tied(), {"embedding.weight": weight, "head.weight": weight + 1})
    assert "1 tied in the model but unequal in the file" in text
    assert "embedding.weight and head.weight" in text
    nan = torch.full((3, 2), float("nan"))
    load_into(Tied(), checkpoint({"embedding.weight": nan, "head.weight": nan.clone()}))


def test_misshapen_keys() -> None:
    text = failure(fresh(), weights() | {"0.weight": torch.ones(5, 7), "0.bias": torch.tensor(1.0)})
    assert "file.pt does not fit the model: 2 misshapen of 9 keys" in text
    assert "0.weight (file 5×7, model 5×4)" in text
    assert "0.bias (file scalar, model 5)" in text


def test_missing_and_unexpected_keys_show_the_nearest() -> None:
    state = weights()
    state["3.weights"] = state.pop("3.weight")
    text = failure(fresh(), state)
    assert "1 missing, 1 unexpected of 9 keys" in text
    assert "missing 3.weight (the file has 3.weights)" in text
    assert "unexpected 3.weights (the model has 3.weight)" in text
    assert "--ignore-keys" not in text
    # Ignoring does not make up for what is missing.
    assert "1 missing" in failure(fresh(), state, "3.weights")


def test_everything_wrong_at_once_fits_five_lines() -> None:
    state = {f"old.{i}.kernel": torch.ones(1) for i in range(500)} | {"0.weight": torch.ones(1)}
    text = failure(fresh(), state)
    assert "8 missing" not in text  # the counter is no loss
    assert "7 missing, 500 unexpected, 1 misshapen of 9 keys" in text
    assert "and 497 more" in text


def _pasted(text: str) -> list[str]:
    """The patterns a user would paste from the last line, as a shell reads them."""
    words = shlex.split(text.splitlines()[-1].removeprefix("do: "))
    return [words[i + 1] for i, word in enumerate(words) if word == "--ignore-keys"]


EXTRAS: dict[str, tuple[list[str], int]] = {
    "one": (["stale"], 1),
    "same ending": ([f"layers.{i}.attention.position_ids" for i in range(30)], 1),
    "a subtree": ([f"head.{name}" for name in ("weight", "bias", "scale")], 1),
    "endings that the model has": (["old.weight", "old.bias"], 1),
    "no common part": (["a.x", "b.y"], 2),
    "wildcards": (["odd[0].a*b?", "it's"], 2),
    "terminal codes": (["x\x1b[31m\x07red", "y\u202e"], 2),
    "beside the model's": (["0.extra"], 1),
}


@pytest.mark.parametrize("case", EXTRAS)
def test_the_advice_works_when_pasted(case: str) -> None:
    names, count = EXTRAS[case]
    state = weights() | {name: torch.ones(1) for name in names}
    text = failure(fresh(), state)
    patterns = _pasted(text)
    assert len(patterns) == count
    assert text.isprintable() or set(text) - {c for c in text if c.isprintable()} == {"\n"}
    model = fresh()
    load_into(model, checkpoint(state), patterns)
    assert same(model.state_dict(), weights())


def test_ignored_keys_may_carry_the_files_prefix_and_hide_a_prefix() -> None:
    state = {"model." + k: v for k, v in weights().items()} | {"loss.weight": torch.ones(3)}
    model = fresh()
    load_into(model, checkpoint(state), ["loss.*"])
    assert same(model.state_dict(), weights())
    extra = {"module." + k: v for k, v in weights().items()} | {"module.old": torch.ones(3)}
    for pattern in ("old", "module.old"):
        load_into(fresh(), checkpoint(extra), [pattern])


def test_sparse_and_quantized_weights() -> None:
    model = nn.Linear(3, 3, bias=False)
    assert "torch.sparse_coo in the file" in failure(model, {"weight": torch.eye(3).to_sparse()})
    quantized = torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8)
    assert "quantized in the file" in failure(model, {"weight": quantized})
    assert "without data in the file" in failure(model, {"weight": torch.ones(3, 3, device="meta")})


def test_lazy_modules_take_the_files_shape() -> None:
    model: Any = nn.LazyLinear(3)
    load_into(model, checkpoint({"weight": torch.ones(3, 7), "bias": torch.zeros(3)}))
    assert model.weight.shape == (3, 7)


def test_extra_state_of_modules_is_left_alone() -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"calls": 1}

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError("nothing was given")

    load_into(Counting(2, 2), checkpoint({"weight": torch.ones(2, 2), "bias": torch.ones(2)}))
