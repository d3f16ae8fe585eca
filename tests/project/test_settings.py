from __future__ import annotations

import subprocess
import sys

import pytest

from landscape.errors import ConfigurationError
from landscape.project import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4gb", 4 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("512MiB", 2**29),
        ("512 MB", 512 * 10**6),
        ("2KB", 2000),
        ("2KiB", 2048),
        ("1TB", 10**12),
        ("123", 123),
        ("123B", 123),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "4 parsecs", "1e9", "4GBB", "٤GB", "0", "0.1B", "nan", "4iB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_size(text)


def test_importing_the_room_imports_neither_torch_nor_h5py() -> None:
    code = "import sys, landscape.project; print(sorted({'torch', 'h5py', 'numpy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
