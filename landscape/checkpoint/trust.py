"""Which names a pickle may use: what is refused, what a user may allow, and how the refusal is worded."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape.checkpoint.text import listing, shown
from landscape.errors import UntrustedError

__all__ = ["allowed_by_torch", "may_offer", "refusal", "resolve_allowed"]

#: Data classes of the standard library; nothing else of it may be allowed.
_STANDARD_DATA_TEXT = """
argparse.Namespace collections.OrderedDict collections.defaultdict collections.Counter collections.deque
datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone decimal.Decimal
fractions.Fraction uuid.UUID pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePath
pathlib.PurePosixPath pathlib.PureWindowsPath
"""
_STANDARD_DATA = frozenset(_STANDARD_DATA_TEXT.split())
#: Functions that only rebuild NumPy numbers and arrays from bytes; torch's own documentation allows them.
_DATA_FUNCTIONS = frozenset(
    f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")
)
#: Packages and modules that load files, build code, open connections or start programs.
_DENIED_TEXT = """
__main__ __builtin__ cPickle cloudpickle commands dill distutils IPython joblib jsonpickle nt pexpect
pip pkg_resources plumbum setuptools sh ptyprocess pytest _pytest py requests urllib3 httpx aiohttp
fsspec paramiko invoke fabric numpy.ctypeslib numpy.distutils numpy.f2py numpy.lib numpy.load
numpy.testing pandas.io scipy.io torch._C torch._dynamo torch._inductor torch._classes torch._ops
torch.classes torch.distributed torch.export torch.fx torch.hub torch.jit torch.load
torch.multiprocessing torch.ops torch.package torch.serialization torch.storage torch.testing
torch.utils.collect_env torch.utils.cpp_extension torch.utils.data torch.utils.model_zoo
"""
_DENIED = _DENIED_TEXT.split()


def allowed_by_torch() -> frozenset[str]:
    """Names that ``weights_only=True`` accepts by itself (private to torch: without it, none is known)."""
    unpickler = getattr(torch, "_weights_only_unpickler", None)
    allowed = getattr(unpickler, "_get_allowed_globals", None)
    return frozenset(allowed()) if allowed is not None else frozenset()


def _denied(name: str) -> bool:
    """Never to be allowed, whatever it is."""
    root = name.partition(".")[0]
    if root in sys.stdlib_module_names or root in sys.builtin_module_names:
        return name not in _STANDARD_DATA
    return any(name == prefix or name.startswith(prefix + ".") for prefix in _DENIED)


def may_offer(name: str) -> bool:
    """Whether ``--allow-global name`` can be suggested: a class of an installed package that is not denied.

    Nothing is imported to find out: a module that is loaded already is looked at, another one is parsed.
    """
    if _denied(name):
        return False
    if name in _DATA_FUNCTIONS:
        return True
    module, _, qualname = name.rpartition(".")
    root = name.partition(".")[0]
    installed = root in sys.stdlib_module_names or root in importlib.metadata.packages_distributions()
    if not installed or not module:
        return False
    if module in sys.modules:
        found = vars(sys.modules[module]).get(qualname)
        return isinstance(found, type) and not _denied_by_origin(found)
    return _is_class_in_source(module, qualname)


def _is_class_in_source(module: str, name: str) -> bool:
    root, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(root)
        if spec is None or spec.origin is None:
            return False
        path = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(source.read_bytes())
    except (OSError, ValueError, SyntaxError, ImportError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)


def resolve_allowed(names: Iterable[str]) -> list[tuple[Any, str]]:
    """The classes a user allowed, each with the name that files call it by.

    Raises:
        UntrustedError: a name that is denied, cannot be imported or is not a class.
    """
    allowed = [(_resolve(name), name) for name in names]
    if any(found is np.dtype for found, _ in allowed):
        # A dtype is an instance of a class of its own, which no file names.
        kinds = (kind for kind in vars(np.dtypes).values() if isinstance(kind, type))
        allowed += [(kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds]
    return allowed


def _resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module or _denied(name):
        raise UntrustedError(
            f"--allow-global {shown(name)} is refused",
            found="names of this kind can run programs, load code or read files",
            do="--trust-pickle reads the whole file with such names, for a file that you trust as a program",
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # an import runs the package's own code, which may raise anything
        raise UntrustedError(
            f"--allow-global {shown(name)} cannot be imported",
            found=f"{type(error).__name__}: {shown(error)}",
            do="give the name as the error about the checkpoint spelled it, in an environment that has it",
        ) from error
    if not isinstance(found, type) and name not in _DATA_FUNCTIONS:
        raise UntrustedError(
            f"--allow-global {shown(name)} is refused",
            found=f"it is a {type(found).__name__}, and only classes can be allowed",
            do="save the checkpoint again with tensors and plain values only",
        )
    if _denied_by_origin(found):
        raise UntrustedError(
            f"--allow-global {shown(name)} is refused",
            found=f"it is another name of {shown(found.__module__)}.{shown(found.__qualname__)}",
        )
    return found


def _denied_by_origin(found: Any) -> bool:
    """Whether the name that a class gave itself is denied; a package may offer it under one of its own."""
    own = f"{found.__module__}.{found.__qualname__}"
    return _denied(own) and not own.startswith("pathlib.")


def refusal(path: Path, names: Sequence[str], why: str = "") -> UntrustedError:
    """The error for a file that was not read because reading it could run code.

    ``names`` are the globals it needs beyond what is safe; ``why`` says what it is if they do not tell.
    """
    what = f"{shown(path)} could run code when read, so it was not read"
    found = "; ".join(part for part in (why, f"it needs {listing(names, 6)}" if names else "") if part)
    if names and not why and all(may_offer(name) for name in names):
        options = " ".join(f"--allow-global {shown(name)}" for name in names)
        return UntrustedError(
            what,
            found=found,
            do=f"{options} if you trust these (each runs its constructor on what the file says)",
        )
    return UntrustedError(
        what,
        found=found,
        do="save model.state_dict() again on its own, or pass --trust-pickle, which runs whatever code the "
        "file holds: only for a file that you made or trust as a program",
    )
