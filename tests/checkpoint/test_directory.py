"""Hugging Face directories: read safely, hashed by content, built into models with no code of theirs."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import landscape
from landscape.checkpoint import inspect_checkpoint, load_checkpoint, load_into
from landscape.errors import CheckpointError, ConfigurationError, DataError
from landscape.files import natural_order
from landscape.project import NothingToGoOn, ProblemSettings, configured_checkpoints, resolve, template
from landscape.project.pretrained import make_pretrained
from tests.checkpoint.files import same

VOCABULARY, TOKENS = 11, 6


def gpt2(**changes: Any) -> nn.Module:
    """GPT-2 with tied embeddings and about a thousand parameters, at seeded random weights."""
    small = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": 16}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    return seeded(transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**small, **special, **changes})))


def llama(**changes: Any) -> nn.Module:
    small = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"num_key_value_heads": 1, "vocab_size": VOCABULARY, "max_position_embeddings": 16}
    config = transformers.LlamaConfig(**{**small, **more, "tie_word_embeddings": True, **changes})
    return seeded(transformers.LlamaForCausalLM(config))


def seeded(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return model.eval()


def saved(folder: Path, model: nn.Module | None = None, **options: Any) -> Path:
    (gpt2() if model is None else model).save_pretrained(folder, **options)
    return folder


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **changes}))


def tokens(count: int = 8) -> Tensor:
    return torch.randint(VOCABULARY, (count, TOKENS), generator=torch.Generator().manual_seed(6))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "net")


def problem(folder: Path, **options: Any) -> landscape.Problem:
    """As the command line makes it, with no word about the model."""
    np.savez(folder.parent / "tokens.npz", x=tokens().numpy())
    given = {"data": str(folder.parent / "tokens.npz"), "loss": "causal_lm", **options}
    settings = ProblemSettings(**given)
    return resolve(folder, settings, given=set(given), start=folder.parent).problem


# Reading


def test_the_weights_are_those_of_the_file_under_its_names(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert same(
        dict(sorted(checkpoint.state.items())), dict(sorted(load_file(folder / "model.safetensors").items()))
    )
    assert (checkpoint.format, checkpoint.prefix, checkpoint.path) == ("transformers", "", str(folder))
    assert checkpoint.metadata == {"architecture": "GPT2LMHeadModel", "model_type": "gpt2"}


def test_the_hash_is_over_configuration_and_weights(folder: Path) -> None:
    digests = [
        f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n"
        for name in ("config.json", "model.safetensors")
    ]
    first = load_checkpoint(folder).sha256
    assert first == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert inspect_checkpoint(folder).sha256 == first
    shutil.copytree(folder, folder.with_name("elsewhere"))
    assert load_checkpoint(folder.with_name("elsewhere")).sha256 == first
    (folder / "tokenizer.json").write_text("{}")
    rewrite(folder / "trainer_state.json", global_step=3)
    assert load_checkpoint(folder).sha256 == first
    rewrite(folder / "config.json", layer_norm_epsilon=1e-3)
    other = load_checkpoint(folder).sha256
    state = load_file(folder / "model.safetensors")
    state["transformer.wpe.weight"][0, 0] += 1
    save_file(state, folder / "model.safetensors")
    assert len({first, other, load_checkpoint(folder).sha256}) == 3


def test_a_sharded_directory_holds_the_same_weights(folder: Path, tmp_path: Path) -> None:
    whole = load_checkpoint(folder)
    sharded = saved(tmp_path / "sharded", max_shard_size="1KB")
    inspection, checkpoint = inspect_checkpoint(sharded), load_checkpoint(sharded)
    assert len(inspection.shards) > 2
    assert same(dict(sorted(checkpoint.state.items())), dict(sorted(whole.state.items())))
    assert checkpoint.sha256 == inspection.sha256 != whole.sha256
    shard = sharded / inspection.shards[1]
    state = load_file(shard)
    save_file({name: tensor + 1 for name, tensor in state.items()}, shard)
    assert load_checkpoint(sharded).sha256 != checkpoint.sha256


def test_a_trainer_tells_the_step(folder: Path) -> None:
    log = [
        {"step": 400, "learning_rate": 0.5},
        {"step": 500, "learning_rate": 0.25},
        {"step": 500, "loss": 1.0},
    ]
    rewrite(folder / "trainer_state.json", global_step=500, epoch=2.0, log_history=log)
    for found in (load_checkpoint(folder), inspect_checkpoint(folder)):
        assert (found.step, found.epoch) == (500, 2)
        assert found.metadata["learning_rate"] == 0.25
    assert load_checkpoint(folder).reference.step == 500
    rewrite(folder / "trainer_state.json", global_step=501, epoch=2.5)
    found = load_checkpoint(folder)
    assert (found.step, found.epoch, found.metadata["epoch"]) == (501, None, 2.5)
    assert "learning_rate" not in found.metadata, "the rate of another step"


def test_else_the_name_does(tmp_path: Path) -> None:
    assert load_checkpoint(saved(tmp_path / "checkpoint-70")).step == 70
    assert load_checkpoint(saved(tmp_path / "gpt-2")).step is None
    rewrite(tmp_path / "checkpoint-70" / "trainer_state.json", global_step=71)
    assert load_checkpoint(tmp_path / "checkpoint-70").step == 71
    (tmp_path / "checkpoint-70" / "trainer_state.json").write_text("{")
    found = load_checkpoint(tmp_path / "checkpoint-70")
    assert found.step == 70
    assert any("trainer_state.json" in note for note in found.notes)


def test_the_current_folder_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_checkpoint(".").path == str(folder)


def marked(folder: Path) -> Callable[[], Any]:
    """Something that leaves a mark when it is unpickled."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(folder.parent / "mark"), "w")

    torch.save({"a": Bomb()}, folder / "pytorch_model.bin")
    return lambda: (folder.parent / "mark").exists()


def test_pickles_are_named_and_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    exploded = marked(folder)
    for read in (load_checkpoint, inspect_checkpoint):
        with pytest.raises(CheckpointError, match=r"no safetensors[^\n]*\n[^\n]*pytorch_model\.bin"):
            read(folder)
    assert not exploded()


def test_a_pickle_beside_safetensors_does_not_matter(folder: Path) -> None:
    exploded = marked(folder)
    assert load_checkpoint(folder).state
    assert not exploded()


def break_(folder: Path, how: str) -> None:
    weights, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    raw, names = weights.read_bytes(), dict.fromkeys(load_file(weights), "model-1.safetensors")
    if how.startswith("shard"):
        weights.rename(folder / "model-1.safetensors")
        rewrite(index, weight_map=names)
    match how:
        case "truncated":
            weights.write_bytes(raw[:-5])
        case "header":
            weights.write_bytes(raw[:8] + b"x" + raw[9:])
        case "empty":
            weights.write_bytes(b"")
        case "a pickle by that name":
            torch.save({"a": torch.ones(2)}, weights)
        case "nothing" | "adapter":
            weights.unlink()
        case "shard missing":
            (folder / "model-1.safetensors").unlink()
        case "shard truncated":
            (folder / "model-1.safetensors").write_bytes(raw[:-5])
        case "shard elsewhere":
            rewrite(index, weight_map=dict.fromkeys(names, "../model-1.safetensors"))
        case "shard without a tensor":
            rewrite(index, weight_map={**names, "more": "model-1.safetensors"})
        case "shard is a pickle":
            torch.save({"a": torch.ones(2)}, folder / "model-1.safetensors")
        case "no JSON":
            (folder / "config.json").write_text("{")
        case "a list":
            (folder / "config.json").write_text("[]")
        case "deep":
            (folder / "config.json").write_text("[" * 100_000)
    if how == "adapter":
        rewrite(folder / "adapter_config.json")


BROKEN = {
    "truncated": "damaged",
    "header": "no safetensors header",
    "empty": "empty",
    "a pickle by that name": "no safetensors",
    "nothing": "no weights",
    "adapter": "merge",
    "shard missing": "no file",
    "shard truncated": "damaged",
    "shard elsewhere": "bare",
    "shard without a tensor": "more",
    "shard is a pickle": "no safetensors",
    "no JSON": "config.json is damaged",
    "a list": "list",
    "deep": "damaged",
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_broken_is_an_error(folder: Path, how: str) -> None:
    break_(folder, how)
    with pytest.raises(CheckpointError, match=BROKEN[how]) as caught:
        load_checkpoint(folder)
    assert len(str(caught.value).splitlines()) <= 5


def test_a_folder_of_checkpoints_names_them(tmp_path: Path) -> None:
    saved(tmp_path / "runs" / "checkpoint-5")
    with pytest.raises(CheckpointError, match="checkpoint-5"):
        load_checkpoint(tmp_path / "runs")


# Building


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_the_one_that_was_saved(tmp_path: Path, make: Any, tied: bool) -> None:
    """Tied weights are stored, loaded and counted once, also where all stored names begin with ``model.``."""
    original = make(tie_word_embeddings=tied)
    found = problem(saved(tmp_path / "net", original))
    assert same(dict(found.model.state_dict()), dict(original.state_dict()))
    assert found.size == sum(p.numel() for p in original.parameters())
    assert (found.size == sum(t.numel() for t in original.state_dict().values())) is not tied
    own = found.model.get_parameter("lm_head.weight") is found.model.get_input_embeddings().weight
    assert own is tied
    assert found.measure().loss == pytest.approx(original(tokens(), labels=tokens()).loss.item(), rel=1e-6)
    assert found.checkpoint is not None
    assert found.checkpoint.path == str(tmp_path / "net")


def test_nothing_is_random_about_it(folder: Path) -> None:
    state = torch.get_rng_state()
    assert problem(folder).measure().loss == problem(folder).measure().loss
    assert torch.equal(torch.get_rng_state(), state)


def test_no_network_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError(f"a connection to {args}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert problem(folder).size


def test_the_hub_is_out_of_reach_while_a_model_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model whose class fetches something by a name in the configuration."""
    asked: list[object] = []

    def fetching(*args: object, **options: object) -> nn.Module:
        huggingface_hub.hf_hub_download("someone/kernels", "config.json")
        raise AssertionError("fetched")

    def noted(*args: object) -> None:
        asked.append(args)
        raise OSError

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_config", fetching)
    monkeypatch.setattr(socket, "getaddrinfo", noted)
    with pytest.raises(ConfigurationError, match="cannot be built"):
        problem(folder)
    assert not asked
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("asked", ["flash_attention_2", "someone/kernels", "flex_attention"])
def test_the_directory_does_not_choose_the_arithmetic(folder: Path, asked: str) -> None:
    rewrite(folder / "config.json", _attn_implementation=asked, attn_implementation=asked, return_dict=False)
    rewrite(folder / "config.json", use_cache=True, output_hidden_states=True)
    found = problem(folder)
    config: Any = found.model.config
    assert (config._attn_implementation, config.use_cache) == ("sdpa", False)
    assert found.measure().gradient.isfinite().all()


@pytest.mark.parametrize("said", ["float16", "bfloat16", "float32", None])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_weights_decide_the_precision(folder: Path, said: str | None, stored: torch.dtype) -> None:
    """The numbers are those of the file, whatever dtype the configuration speaks of."""
    state = {n: t.to(stored) for n, t in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")
    rewrite(folder / "config.json", dtype=said)
    checkpoint = load_checkpoint(folder)
    model, notes = make_pretrained(checkpoint)
    load_into(model, checkpoint)
    wide = torch.float64 if stored == torch.float64 else torch.float32
    assert {p.dtype for p in model.parameters()} == {wide}
    assert all(torch.equal(model.state_dict()[n], t.to(wide)) for n, t in state.items())
    assert any("raised" in note for note in notes) is (stored in (torch.float16, torch.bfloat16))


def test_names_without_the_inner_model_and_stale_buffers(folder: Path) -> None:
    """The files of the first GPT-2 call ``transformer.h`` ``h``, and hold the causal mask."""
    state = load_file(folder / "model.safetensors")
    inner = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    save_file({**inner, "h.0.attn.bias": torch.ones(1, 1, 16, 16)}, folder / "model.safetensors")
    assert same(dict(problem(folder).model.state_dict()), dict(gpt2().state_dict()))
    save_file({**inner, "h.1.ln_1.bias": torch.ones(8)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected h\.1\.ln_1\.bias"):
        problem(folder)


def test_weights_that_are_missing(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["transformer.ln_f.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing transformer\.ln_f\.bias"):
        problem(folder)


@pytest.mark.parametrize("where", ["top", "nested"])
def test_code_of_the_directory_is_not_imported(folder: Path, where: str) -> None:
    code = "import pathlib; pathlib.Path({!r}).touch()\nclass GPT2LMHeadModel: pass\n"
    mark = folder.parent / "mark"
    for name in ("modeling_own.py", "configuration_own.py", "transformers.py", "sitecustomize.py"):
        (folder / name).write_text(code.format(str(mark)))
    reference = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.GPT2LMHeadModel"}
    more = {"auto_map": reference}
    rewrite(folder / "config.json", **(more if where == "top" else {"text_config": more}))
    with pytest.raises(ConfigurationError, match=r"auto_map[^\n]*not run\n.*--model"):
        problem(folder)
    assert not mark.exists()
    (folder.parent / "net.py").write_text("from tests.checkpoint.test_directory import gpt2 as model\n")
    assert problem(folder, model="net.py:model").size, "the weights alone run nothing"
    assert not mark.exists()


REFUSED = {
    "quantization_config": ({"quantization_config": {"bits": 4}}, "quantized"),
    "no architecture": ({"architectures": None}, "names no architecture"),
    "odd architecture": ({"architectures": ["os.system"]}, "names no architecture"),
    "another class of the library": ({"architectures": ["GPT2Config"]}, "none of the models"),
    "a model of another kind": ({"architectures": ["LlamaForCausalLM"]}, "none of the models"),
    "a head that is not built": ({"architectures": ["GPT2DoubleHeadsModel"]}, "none of the models"),
    "an unknown kind": ({"model_type": "gpt2x"}, "knows no model_type"),
    "no kind": ({"model_type": None}, "knows no model_type"),
    "sizes that do not fit": ({"n_head": 3}, "cannot be built"),
    "a size that is none": ({"n_embd": "\x1b[31m"}, "cannot be built"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_built_is_said(folder: Path, case: str) -> None:
    changes, message = REFUSED[case]
    rewrite(folder / "config.json", **changes)
    with pytest.raises(ConfigurationError, match=message) as caught:
        problem(folder)
    text = str(caught.value)
    assert len(text.splitlines()) <= 5
    assert "\x1b" not in text


def test_without_transformers_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert load_checkpoint(folder).state
    with pytest.raises(ConfigurationError, match=r"landscape-diagnostics\[transformers\]"):
        problem(folder)


def test_a_given_model_wins(folder: Path) -> None:
    (folder.parent / "net.py").write_text(
        "from tests.checkpoint.test_directory import gpt2\ndef model():\n    return gpt2(embd_pdrop=0.5)\n"
    )
    assert problem(folder).model.config.embd_pdrop == 0.1
    assert problem(folder, model="net.py:model").model.config.embd_pdrop == 0.5


# What is said, and what else takes directories


def test_what_is_missing_is_said_with_a_template(folder: Path) -> None:
    with pytest.raises(NothingToGoOn, match="which data and loss belong to net") as caught:
        resolve(folder, ProblemSettings(), given=(), start=folder.parent)
    assert caught.value.template == template(inspect_checkpoint(folder))
    for line in ("GPT2LMHeadModel of config.json", '\nloss = "causal_lm"', '\n#model = "net.py:model"'):
        assert line in caught.value.template


def test_the_loss_is_guessed_from_the_architecture(folder: Path) -> None:
    rewrite(folder / "config.json", architectures=["GPT2ForSequenceClassification"])
    assert '\nloss = "cross_entropy"' in template(inspect_checkpoint(folder))
    rewrite(folder / "config.json", architectures=["A\x1b[31m\nloss = 1"])
    assert "\x1b" not in template(inspect_checkpoint(folder))


def test_directories_are_found_by_a_configuration(folder: Path) -> None:
    runs = folder.parent / "runs"
    paths = [Path(shutil.copytree(folder, runs / f"checkpoint-{n}")) for n in (9, 100)]
    (runs / "notes").mkdir()
    config = folder.parent / "landscape.toml"
    config.write_text('checkpoints = "runs/*"\n')
    found = configured_checkpoints(ProblemSettings(config=str(config)), folder.parent)
    assert found == sorted(paths, key=natural_order) == paths


def test_other_directories_of_a_run_are_read_the_same_way(folder: Path) -> None:
    """What slices and batches do: the same problem at another checkpoint's weights."""
    other = saved(folder.with_name("checkpoint-7"), gpt2())
    state = {name: 0.5 * tensor for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    one = problem(folder)
    reference = one.reader(other, one.model)
    assert (reference.step, reference.sha256) == (7, load_checkpoint(other).sha256)
    assert torch.equal(one.model.state_dict()["lm_head.weight"], state["transformer.wte.weight"])


# Arrays


def test_arrays_of_tokens(folder: Path) -> None:
    data, x = folder.parent / "data.npz", tokens()
    full = problem(folder).measure().loss
    for extra in ({}, {"y": x.numpy()}, {"attention_mask": np.ones((8, TOKENS), bool)}):
        np.savez(data, x=x.numpy().astype(np.uint8), **extra)
        assert problem(folder, data=str(data)).measure().loss == pytest.approx(full, rel=1e-6)
    mask = torch.arange(TOKENS) < torch.arange(1, 9)[:, None]
    expected = gpt2()(x, labels=x.masked_fill(~mask, -100)).loss.item()
    for name in ("mask", "attention_mask"):  # padding on the right is seen by no token that counts
        np.savez(data, x=x.numpy(), **{name: mask.numpy()})
        found = problem(folder, data=str(data))
        assert found.terms == sum(min(n, TOKENS) - 1 for n in range(1, 9))
        assert found.measure().loss == pytest.approx(expected, rel=1e-6)
    np.savez(data, x=x.numpy(), mask=np.arange(8) < 3, attention_mask=mask.numpy())
    assert problem(folder, data=str(data)).examples == 3
    np.savez(data, x=x.numpy(), attention_mask=np.ones(8))
    with pytest.raises(DataError, match="attention_mask does not belong"):
        problem(folder, data=str(data))
    np.savez(data, x=x.numpy())
    with pytest.raises(DataError, match="no array called y"):
        problem(folder, data=str(data), loss="cross_entropy")
