"""No code in a file runs unless the user says so."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape.checkpoint import inspect_checkpoint, load_checkpoint
from landscape.checkpoint.trust import may_offer
from landscape.errors import CheckpointError, UntrustedError
from tests.checkpoint.files import (
    Touch,
    network,
    same,
    weights,
    write_archive,
    write_legacy,
    write_shards,
    write_tar,
    write_zip,
)


def _lightning(evil: Any) -> dict[str, Any]:
    state = {"model." + k: v for k, v in weights().items()}
    return {"pytorch-lightning_version": "2.4.0", "global_step": 5, "state_dict": state, "callbacks": evil}


def _dump(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


HOSTILE: dict[str, Callable[[Path, Any], Path]] = {
    "zip": lambda p, evil: write_zip(p, {"state_dict": weights(), "x": evil}),
    "zip, as a tensor": lambda p, evil: write_zip(p, {**weights(), "w": evil}),
    "legacy": lambda p, evil: write_legacy(p, {"state_dict": weights(), "x": evil}),
    "tar": write_tar,
    "pt2": lambda p, evil: write_archive(p, evil, "archive_format", "data/sample_inputs/model.pt"),
    "torchscript": lambda p, evil: write_archive(p, evil, "constants.pkl"),
    "lightning": lambda p, evil: write_zip(p, _lightning(evil)),
    "ema": lambda p, evil: write_zip(p, {"ema": {"module": {**weights(), "w": evil}}}),
    "bin shards": lambda p, evil: write_shards(p, {**weights(), "w": evil}, write_zip),
    "legacy shards": lambda p, evil: write_shards(p, {**weights(), "w": evil}, write_legacy),
    "plain pickle": lambda p, evil: _dump(p, evil, 2),
    "plain pickle, protocol 5": lambda p, evil: _dump(p, {"a": evil}, 5),
}


@pytest.mark.parametrize("container", HOSTILE)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".pt2"])
def test_code_is_refused_and_never_runs(tmp_path: Path, container: str, suffix: str) -> None:
    marker = tmp_path / "marker"
    path = HOSTILE[container](tmp_path / f"file{suffix}", Touch(marker))
    inspection = inspect_checkpoint(path)
    with pytest.raises(UntrustedError) as caught:
        load_checkpoint(path)
    with pytest.raises(UntrustedError):
        load_checkpoint(path, allow_global=["argparse.Namespace"])
    assert not marker.exists()
    assert not inspection.safe
    text = str(caught.value)
    assert "posix.system" in text or container == "pt2"
    assert "--trust-pickle" in text
    assert "--allow-global" not in text
    assert "posix.system" not in inspection.allowable_globals
    assert len(text.splitlines()) <= 5


def test_the_hostile_file_works(tmp_path: Path) -> None:
    """Without this, the test above could pass because the code would not run anyway."""
    marker = tmp_path / "marker"
    path = write_zip(tmp_path / "file.pt", {"state_dict": weights(), "x": Touch(marker)})
    assert same(load_checkpoint(path, trust_pickle=True).state, weights())
    assert marker.exists()


def test_environment_does_not_turn_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = write_zip(tmp_path / "file.pt", {"state_dict": weights(), "x": Touch(tmp_path / "marker")})
    with pytest.raises(UntrustedError):
        load_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_text_pickles_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(f"cos\nsystem\n(S'touch {tmp_path}/marker'\ntR.".encode())
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not (tmp_path / "marker").exists()


class Config(argparse.Namespace):
    """A class of the user's own code, of no installed package."""


def test_allowed_classes(tmp_path: Path) -> None:
    content = {"state_dict": weights(), "args": argparse.Namespace(lr=0.5), "out": pathlib.PurePosixPath("a")}
    path = write_zip(tmp_path / "file.pt", content)
    with pytest.raises(UntrustedError) as caught:
        load_checkpoint(path)
    options = [word for word in str(caught.value).split() if "." in word and "file" not in word]
    assert {"argparse.Namespace", "pathlib.PurePosixPath"} <= {word.rstrip(",") for word in options}
    assert "constructor" in str(caught.value)
    checkpoint = load_checkpoint(path, allow_global=["argparse.Namespace", "pathlib.PurePosixPath"])
    assert same(checkpoint.state, weights())
    assert checkpoint.metadata["learning_rate"] == 0.5
    # The permission ends with the call.
    with pytest.raises(UntrustedError):
        load_checkpoint(path)
    assert argparse.Namespace not in {
        g[0] for g in torch.serialization.get_safe_globals() if isinstance(g, tuple)
    }


def test_numpy_numbers_need_what_the_message_says(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "file.pt", {"state_dict": weights(), "best_accuracy": np.float64(0.25)})
    with pytest.raises(UntrustedError) as caught:
        load_checkpoint(path)
    words = str(caught.value).split()
    allowed = [words[i + 1] for i, word in enumerate(words) if word == "--allow-global"]
    assert load_checkpoint(path, allow_global=allowed).metadata["best_accuracy"] == 0.25


def test_a_whole_model_is_read_if_its_classes_are_allowed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "file.pt", network())
    needed = inspect_checkpoint(path).needed_globals
    assert inspect_checkpoint(path).allowable_globals == needed
    assert set(inspect_checkpoint(path).state) == set(weights())
    assert same(load_checkpoint(path, allow_global=needed).state, weights())
    assert same(load_checkpoint(path, trust_pickle=True).state, weights())


def test_own_classes_are_not_offered(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "file.pt", {"state_dict": weights(), "config": Config(lr=1)})
    with pytest.raises(UntrustedError) as caught:
        load_checkpoint(path)
    assert "tests.checkpoint.test_trust.Config" in str(caught.value)
    assert "--allow-global" not in str(caught.value)


DANGEROUS = """
builtins.eval builtins.exec builtins.getattr builtins.object os.system posix.system nt.system sys.exit
subprocess.Popen importlib.import_module importlib.machinery.SourceFileLoader functools.partial
functools.reduce operator.attrgetter operator.methodcaller _operator.methodcaller pickle.loads
pickle.Unpickler types.CodeType types.FunctionType code.InteractiveInterpreter ctypes.CDLL shutil.rmtree
socket.socket runpy.run_path pty.spawn webbrowser.open webbrowser.GenericBrowser torch.hub.load
torch.load torch.jit.load torch.serialization.load torch.storage._load_from_bytes
torch.utils.cpp_extension.load torch.package.PackageImporter zipfile.ZipFile io.FileIO
tempfile.NamedTemporaryFile pathlib.os.system multiprocessing.Process threading.Thread numpy.load
numpy.testing._private.utils.runstring logging.config.dictConfig pip.main setuptools.Command
__main__.Config timeit.Timer
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_dangerous_names_are_never_allowed(tmp_path: Path, name: str) -> None:
    assert not may_offer(name)
    path = write_zip(tmp_path / "file.pt", weights())
    with pytest.raises(UntrustedError, match="refused"):
        load_checkpoint(path, allow_global=[name])


@pytest.mark.parametrize(
    "name", ["torch.nn.functional.relu", "numpy.array", "torch.zeros", "collections.namedtuple"]
)
def test_functions_are_no_classes(tmp_path: Path, name: str) -> None:
    assert not may_offer(name)
    with pytest.raises(UntrustedError, match="refused"):
        load_checkpoint(write_zip(tmp_path / "f.pt", weights()), allow_global=[name])


def test_allowed_names_that_do_not_exist(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "f.pt", weights())
    for name in ("no_such_package.Class", "torch.nn.NoSuchClass"):
        with pytest.raises(UntrustedError, match="cannot be imported"):
            load_checkpoint(path, allow_global=[name])


def test_another_name_of_a_dangerous_class_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn, "Alias", subprocess.Popen, raising=False)
    assert not may_offer("torch.nn.Alias")
    with pytest.raises(UntrustedError, match=r"another name of subprocess\.Popen"):
        load_checkpoint(write_zip(tmp_path / "f.pt", weights()), allow_global=["torch.nn.Alias"])


def _pickle_naming(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"\x80\x02}X\x01\x00\x00\x00ac" + f"{module}\n{attribute}\n".encode() + b")Rs."


def _write_naming(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _pickle_naming(name))


def test_naming_a_module_does_not_import_it(tmp_path: Path) -> None:
    """In a fresh interpreter: the module is not loaded by looking at, refusing or judging the file."""
    names = ["xarray.core.dataset.Dataset", "this.s", "xdist.plugin.Anything"]
    for name in names:
        _write_naming(tmp_path / f"{name}.pt", name)
    code = f"""
import sys
from landscape.checkpoint import inspect_checkpoint, load_checkpoint
from landscape.errors import UntrustedError
for name in {names!r}:
    path = {str(tmp_path)!r} + "/" + name + ".pt"
    try:
        load_checkpoint(path)
    except UntrustedError as error:
        offered = inspect_checkpoint(path).allowable_globals
        print(f"needs {{name}}" in str(error), offered, name.rpartition(".")[0] in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "True ('xarray.core.dataset.Dataset',) False",
        "True () False",
        "True () False",
    ]


def test_names_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    _write_naming(path, "evil\x1b[31m.Class\x07")
    with pytest.raises(UntrustedError) as caught:
        load_checkpoint(path)
    assert r"evil\x1b[31m.Class\x07" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_names_made_while_unpickling_are_noticed(tmp_path: Path) -> None:
    """STACK_GLOBAL with parts that come from elsewhere, INST and OBJ."""
    cases = {
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.": "os.system",
        b"\x80\x04\x8c\x02osK\x01\x93.": "a name that is made while unpickling",
        b"\x80\x02(ios\nsystem\n.": "os.system",
        b"\x80\x02(cos\nsystem\no.": "os.system",
        b"\x80\x02\x82\x07.": "copyreg.extension code 7",
    }
    for number, (raw, name) in enumerate(cases.items()):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(raw)
        assert inspect_checkpoint(path).needed_globals == (name,)
        with pytest.raises(UntrustedError):
            load_checkpoint(path)


def test_trusted_programs_give_their_weights(tmp_path: Path) -> None:
    model = network().eval()
    torch.jit.trace(model, torch.zeros(2, 4)).save(tmp_path / "m.ts")  # type: ignore[no-untyped-call]
    torch.export.save(torch.export.export(model, (torch.zeros(2, 4),)), tmp_path / "m.pt2")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(weights()))
    for name, format in {"m.ts": "torchscript", "m.pt2": "torch-export", "m.pkl": "pickle"}.items():
        with pytest.raises(UntrustedError, match="--trust-pickle"):
            load_checkpoint(tmp_path / name)
        checkpoint = load_checkpoint(tmp_path / name, trust_pickle=True)
        assert checkpoint.format == format
        assert same(dict(sorted(checkpoint.state.items())), dict(sorted(weights().items())))


def test_trusted_file_whose_classes_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(_pickle_naming("no_such_package.Class"))
    with pytest.raises(CheckpointError, match="No module named"):
        load_checkpoint(path, trust_pickle=True)


def test_ordinary_containers_need_nothing(tmp_path: Path) -> None:
    content = {
        "model": collections.OrderedDict(weights()),
        "set": {1, 2},
        "bytes": b"\x00\x01",
        "size": torch.Size([1]),
        "device": torch.device("cpu"),
        "complex": 1j,
    }
    path = write_zip(tmp_path / "f.pt", content)
    assert inspect_checkpoint(path).safe
    assert same(load_checkpoint(path).state, weights())
