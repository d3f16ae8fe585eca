"""From options, ``--problem`` or ``landscape.toml`` to a Problem. The only room that imports user code.

Importing this package imports neither torch nor any user code; :func:`resolve` and :func:`load_problem` do.
"""

from __future__ import annotations

from landscape.project.batch import BatchSettings
from landscape.project.checkpoints import configured_checkpoints
from landscape.project.config import Config, read_config
from landscape.project.request import NothingToGoOn
from landscape.project.resolve import Resolved, check_pieces, load_problem, resolve
from landscape.project.settings import ProblemSettings, parse_size
from landscape.project.template import template

__all__ = [
    "BatchSettings",
    "Config",
    "NothingToGoOn",
    "ProblemSettings",
    "Resolved",
    "check_pieces",
    "configured_checkpoints",
    "load_problem",
    "parse_size",
    "read_config",
    "resolve",
    "template",
]
