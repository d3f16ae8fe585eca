"""Every test and fixture starts from its own seed of the global generators, whatever ran before it.

Modules are initialised from PyTorch's global generator, so that nets made in tests depend on it. Landscape
itself never touches it (tests/problem and tests/curvature show that).
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import pytest
import torch


def _seed(name: str) -> None:
    number = zlib.crc32(name.encode())
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 - the global generator is what is meant
    random.seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    _seed(f"{request.node.nodeid} {fixturedef.argname}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _seed(item.nodeid)
