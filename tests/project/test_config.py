from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from landscape.errors import ConfigurationError
from landscape.project import ProblemSettings, read_config
from landscape.settings import option, options_of

Write = Callable[[str, str], Path]


@dataclass(frozen=True, kw_only=True)
class More:
    """Settings that a caller adds to a verb's own, as the run room does."""

    seed: int | None = option(None, "Seed.")


def test_here_then_up_to_the_repository_root(project: Path, write: Write) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    write("landscape.toml", 'loss = "mse"')
    found = read_config(None, deep)
    assert found is not None
    assert found.path == project / "landscape.toml"
    write("a/landscape.toml", 'loss = "nll"')
    nearer = read_config(None, deep)
    assert nearer is not None
    assert nearer.values == {"loss": "nll"}


def test_stops_at_the_repository_root(project: Path) -> None:
    (project.parent / "landscape.toml").write_text('loss = "mse"')
    assert read_config(None, project) is None


def test_a_worktree_is_a_repository_too(project: Path) -> None:
    inner = project / "worktree"
    inner.mkdir()
    (inner / ".git").write_text("gitdir: elsewhere")
    (project / "landscape.toml").write_text('loss = "mse"')
    assert read_config(None, inner) is None


def test_outside_a_repository_only_the_folder_itself_counts(tmp_path: Path) -> None:
    deep = tmp_path / "a"
    deep.mkdir()
    (tmp_path / "landscape.toml").write_text('loss = "mse"')
    assert read_config(None, deep) is None
    assert read_config(None, tmp_path) is not None


def test_explicit_is_relative_to_the_start_and_wins(project: Path, write: Write) -> None:
    write("landscape.toml", 'loss = "mse"')
    write("sub/other.toml", 'loss = "nll"')
    found = read_config(Path("sub/other.toml"), project)
    assert found is not None
    assert found.values["loss"] == "nll"
    assert found.folder == project / "sub"


def test_a_missing_explicit_file_is_an_error_with_the_nearest_name(project: Path, write: Write) -> None:
    write("landscape.toml", "")
    with pytest.raises(ConfigurationError, match=r"did you mean landscape\.toml"):
        read_config(Path("landscap.toml"), project)


@pytest.mark.parametrize("name", [o.name for o in options_of(ProblemSettings) if o.name != "config"])
def test_every_option_is_a_key_with_hyphen_or_underscore(project: Path, write: Write, name: str) -> None:
    (known,) = (o for o in options_of(ProblemSettings) if o.name == name)
    value = {bool: "true", int: "3", float: "0.5", str: f'"{known.choices[0] if known.choices else "text"}"'}[
        known.type
    ]
    wanted = tomllib.loads(f"v = {value}")["v"]
    for key in {name, name.replace("_", "-")}:
        write("landscape.toml", f"{key} = [{value}]" if known.many else f"{key} = {value}")
        config = read_config(None, project)
        assert config is not None
        assert config.values == {name: (wanted,) if known.many else wanted}


@pytest.mark.parametrize("name", [o.name for o in options_of(ProblemSettings) if o.name != "config"])
def test_every_key_checks_its_type(project: Path, write: Write, name: str) -> None:
    (known,) = (o for o in options_of(ProblemSettings) if o.name == name)
    write("landscape.toml", f"{name} = {'1979-05-27'}")
    with pytest.raises(ConfigurationError, match=f"landscape.toml: {name} takes an? {known.type.__name__}"):
        read_config(None, project)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "net.py:build"', "did you mean model"),
        ('config = "other.toml"', "does not know 'config'"),
        ("[eigne]\nk = 1", r"table \[eigne\], which is no command\ndo: did you mean eigen"),
        ("batch-size = 1\nbatch_size = 2", "batch_size twice"),
        ("samples = 0", "samples must be at least 1"),
        ('device = "gpu"', "choose one of auto, cpu, cuda"),
        ("checkpoints = 3", "checkpoints is a list of patterns"),
        ("checkpoints = [3]", "checkpoints holds text"),
        ('[models]\n"*.pt" = 3', "models holds text"),
        ("loss = ", "cannot be read as TOML"),
        ('"\\u001b[31m" = 1', "does not know"),
        ('["\\u001b[31m"]', "which is no command"),
    ],
)
def test_misuse_is_explained_without_raw_escapes(
    project: Path, write: Write, text: str, message: str
) -> None:
    write("landscape.toml", text)
    with pytest.raises(ConfigurationError, match=message) as error:
        read_config(None, project)
    assert "\x1b" not in str(error.value)
    assert 1 <= len(str(error.value).splitlines()) <= 5


def test_not_utf8(project: Path) -> None:
    (project / "landscape.toml").write_bytes(b'loss = "\xff"')
    with pytest.raises(ConfigurationError, match="cannot be read as TOML"):
        read_config(None, project)


def test_models_by_file_name_first_match_wins(project: Path, write: Write) -> None:
    write("landscape.toml", 'model = "a.py:rest"\n[models]\n"cnn-*.pt" = "a.py:cnn"\n"*-1.pt" = "a.py:one"')
    config = read_config(None, project)
    assert config is not None
    assert [config.model_for(n) for n in ("cnn-1.pt", "mlp-1.pt", "x.pt")] == [
        "a.py:cnn",
        "a.py:one",
        "a.py:rest",
    ]


def test_checkpoints_are_patterns(project: Path, write: Write) -> None:
    write("landscape.toml", 'checkpoints = ["runs/*.pt", "b.pt"]')
    config = read_config(None, project)
    assert config is not None
    assert config.checkpoints == ("runs/*.pt", "b.pt")
    assert config.values == {}


def test_a_verbs_table_is_its_settings_and_the_callers(project: Path, write: Write) -> None:
    write("landscape.toml", "[eigen]\nk = 3\nmax-products = 7\nseed = 1")
    config = read_config(None, project)
    assert config is not None
    assert config.verb("eigen", More) == {"k": 3, "max_products": 7, "seed": 1}
    with pytest.raises(ConfigurationError, match="does not know 'seed'"):
        config.verb("eigen")
    with pytest.raises(ConfigurationError, match="no command"):
        config.verb("eign")


@pytest.mark.parametrize(
    ("text", "message"),
    [("kk = 3", "did you mean k"), ("k = 0", "at least 1"), ("samples = 3", "top of the file")],
)
def test_keys_of_a_verbs_table_are_checked(project: Path, write: Write, text: str, message: str) -> None:
    write("landscape.toml", f"[eigen]\n{text}")
    config = read_config(None, project)
    assert config is not None
    with pytest.raises(ConfigurationError, match=message):
        config.verb("eigen", More)


def test_a_config_without_the_table_gives_nothing(project: Path, write: Write) -> None:
    write("landscape.toml", "")
    config = read_config(None, project)
    assert config is not None
    assert config.verb("eigen") == {}
