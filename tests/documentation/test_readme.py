"""Every command of the README is run, in order, and prints what the README shows, but for the figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
EXAMPLE = ROOT / "examples" / "digits"
COMMANDS = Path(sys.executable).parent

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Ids, digits, signs and exponents, and the padding around them; what is left are the words.
FIGURES = re.compile(
    r"(?:eigen|trace|density|ratios|overlap|sharpness|reweight|noise|slice)-[0-9a-f]{8}|[-+]?\d[\d.,]*(?:e[-+]?\d+)?|\s+"
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks() -> list[Block]:
    return [Block(language, text) for language, text in BLOCK.findall(README.read_text())]


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """(command, lines shown after it) of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def words(line: str) -> str:
    return FIGURES.sub(" ", line).strip()


def run(command: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def assert_shown(shown: list[str], printed: str, command: str) -> None:
    lines = [words(line) for line in printed.splitlines()]
    for line in shown:
        if line.strip() != "…":
            assert words(line) in lines, f"{command} no longer prints {line!r}; it prints\n{printed}"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which a newcomer does what the README says."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("examples") / "digits"))


def test_the_shortest_path_to_the_readers_own_checkpoint(own: Path) -> None:
    python = [block.text for block in blocks() if block.language == "python"]
    for text in python[:2]:
        name = text.splitlines()[0].removeprefix("# ")
        (own / name).write_text(text)
    run(f"{sys.executable} train.py", own)
    console = next(block for block in blocks() if block.language == "console")
    for command, shown in commands(console):
        assert_shown(shown, run(command, own), command)
    assert (own / "spectrum.png").read_bytes().startswith(b"\x89PNG")


def test_every_verb_prints_what_the_readme_shows(digits: Path) -> None:
    consoles = [block for block in blocks() if block.language == "console"][1:]
    assert len(consoles) >= 4
    for block in consoles:
        for command, shown in commands(block):
            assert shown, f"the README shows no output of {command}"
            assert_shown(shown, run(command, digits), command)


def test_the_python_of_the_readme_runs(digits: Path) -> None:
    (text,) = [block.text for block in blocks() if block.language == "python"][2:]
    (digits / "snippet.py").write_text(text)
    assert "[" in run(f"{sys.executable} snippet.py", digits)


def test_every_file_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert "://" in target or (ROOT / target).exists(), target
