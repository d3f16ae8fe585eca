"""Model, loss and data from what the user named: called, checked for their type, never altered."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import ConfigurationError
from landscape.project.arrays import (
    SUFFIXES,
    as_data,
    marks_beside,
    masked_marks,
    read_arrays,
    read_named,
)
from landscape.project.code import Importer, Source, UserObject, required_arguments
from landscape.project.text import shown

if TYPE_CHECKING:
    from torch import nn

    from landscape.problem import Problem

__all__ = [
    "ProblemFactory",
    "find_problem",
    "make_data",
    "make_loss",
    "make_marks",
    "make_metric",
    "make_model",
]


def make_model(source: Source, importer: Importer) -> nn.Module:
    """The module: from a function, a class without required arguments, or (copied) an instance.

    Raises:
        ConfigurationError: see :class:`Importer`; or what came is no ``nn.Module``.
    """
    from torch import nn

    found = importer.load(source)
    if isinstance(found.value, nn.Module):
        return copy.deepcopy(found.value)
    model = _called(found, "a model")
    if not isinstance(model, nn.Module):
        raise found.wrong(
            "a torch.nn.Module", model, do="return the model itself, without weights loaded or trained"
        )
    return model


def make_loss(source: Source, importer: Importer) -> Any:
    """The loss: a name as it is, a callable of two arguments as it is, or what a factory gives.

    Raises:
        ConfigurationError: see :class:`Importer`; or what came can be no loss.
    """
    from torch import nn

    if ":" not in source.text and not source.text.endswith(".py"):
        return source.text
    found = importer.load(source)
    value = found.value
    if isinstance(value, str | nn.Module) or (not isinstance(value, type) and _takes_two(value)):
        return value
    loss = _called(found, "a loss")
    if not isinstance(loss, str) and not callable(loss):
        raise found.wrong(
            "a loss", loss, do="give loss(outputs, targets) -> mean, a torch loss module or a name"
        )
    return loss


def make_data(source: Source, importer: Importer, loss: Any) -> Any:
    """The data: those of an array file, or what the user's object is or gives.

    Raises:
        ConfigurationError: see :class:`Importer`; or what came can be no data.
        DataError: an array file that cannot be read.
    """
    if Path(source.text).suffix in SUFFIXES:
        arrays = read_arrays(source.path, labelled=loss != "causal_lm")
        return as_data(arrays, loss, shown(source.path))
    found = importer.load(source)
    data = _called(found, "data") if _is_function(found.value) else found.value
    return _as_data(data, found)


def make_marks(source: Source | None, data: Source | None, importer: Importer) -> Any:
    """Which labels are noisy: what ``source`` names, else what an array file of data says itself, else None.

    ``source`` is an array file, with ``:NAME`` unless its array is called ``noisy``, or a function or an
    array of the user's code. Marks for every example of an array file follow its mask.

    Raises:
        ConfigurationError: see :class:`Importer`.
        DataError: an array file that cannot be read.
    """
    import numpy as np
    import torch

    file = data.path if data is not None and data.path.suffix in SUFFIXES else None
    if source is None:
        return None if file is None else marks_beside(file)
    place, _, name = source.text.rpartition(":")
    if Path(source.text).suffix in SUFFIXES:
        place, name = source.text, "noisy"
    if Path(place).suffix in SUFFIXES:
        marks: Any = read_named(source.folder / Path(place).expanduser(), (name,), (name,))[name]
    else:
        found = importer.load(source)
        marks = _called(found, "marks of noisy labels") if _is_function(found.value) else found.value
        if marks is None:
            raise found.wrong("marks of noisy labels", marks)
    mask = None if file is None else read_named(file, ("mask",), ()).get("mask")
    if mask is None or not isinstance(marks, torch.Tensor | np.ndarray | list):
        return marks
    return masked_marks(torch.as_tensor(marks), mask)


def make_metric(source: Source, importer: Importer) -> tuple[str, Any]:
    """A user's own figure by its name: a function of ``(outputs, targets)``, as it is.

    Raises:
        ConfigurationError: see :class:`Importer`; or what came cannot be called so.
    """
    found = importer.load(source)
    if not _takes_two(found.value) or isinstance(found.value, type):
        raise found.wrong(
            "a metric", found.value, do="give a function of (outputs, targets) that returns a mean"
        )
    return getattr(found.value, "__name__", source.text), found.value


@dataclass(frozen=True)
class ProblemFactory:
    """A factory of whole problems; one that ``takes_path`` gets the checkpoint's path and loads it itself."""

    found: UserObject
    takes_path: bool

    def make(self, checkpoint: Path | None) -> Problem | tuple[nn.Module, Any, Any]:
        """What it gives: a :class:`landscape.problem.Problem` or a checked triple ``(model, loss, data)``.

        Raises:
            ConfigurationError: it raised or gave something else, or no ``checkpoint`` is there to pass.
        """
        if not self.takes_path:
            return _as_problem(self.found.call(), self.found)
        if checkpoint is None:
            label = self.found.source.label
            raise ConfigurationError(f"{label} takes the checkpoint's path, and no checkpoint was given")
        return _as_problem(self.found.call(checkpoint), self.found)


def find_problem(source: Source, importer: Importer) -> ProblemFactory:
    """The factory that ``--problem`` names, imported but not called.

    Raises:
        ConfigurationError: see :class:`Importer`; or it is no function of at most the checkpoint's path.
    """
    found = importer.load(source, default="problem")
    if not callable(found.value):
        raise found.wrong("a problem", found.value, do="name a function that returns (model, loss, data)")
    wanted = required_arguments(found.value) or []
    if len(wanted) > 1:
        raise ConfigurationError(
            f"{source.label} takes {len(wanted)} arguments",
            found=", ".join(wanted),
            do="take none, or one: the checkpoint's path",
        )
    return ProblemFactory(found, takes_path=bool(wanted))


def _as_problem(made: Any, found: UserObject) -> Problem | tuple[nn.Module, Any, Any]:
    from torch import nn

    from landscape.problem import Problem

    if isinstance(made, Problem):
        return made
    if not isinstance(made, tuple) or len(made) != 3 or not isinstance(made[0], nn.Module):
        shape = f" of {', '.join(type(m).__name__ for m in made)}" if isinstance(made, tuple) else ""
        raise ConfigurationError(
            f"{found.source.label} gives neither a landscape.Problem nor (model, loss, data)",
            found=shown(type(made).__name__ + shape),
        )
    model, loss, data = made
    if not isinstance(loss, str) and not callable(loss):
        raise found.wrong("a loss as its second part", loss, do="give (model, loss, data)")
    return model, loss, _as_data(data, found)


def _called(found: UserObject, what: str) -> Any:
    """Call a factory that needs no arguments."""
    if not callable(found.value):
        raise found.wrong(what, found.value, do="name a function that makes it")
    missing = required_arguments(found.value)
    if missing:
        kind = "class" if isinstance(found.value, type) else "function"
        raise ConfigurationError(
            f"{found.source.label} is a {kind} that needs arguments",
            found=shown(", ".join(missing)),
            do=f"write a function without arguments that returns {what}, and name that",
        )
    return found.call()


def _takes_two(value: Any) -> bool:
    """Whether ``value`` can be called as ``loss(outputs, targets)`` and not without arguments."""
    if not callable(value):
        return False
    try:
        signature = inspect.signature(value)
        signature.bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return bool(required_arguments(value))


def _is_function(value: Any) -> bool:
    """A factory of data, as opposed to data (a data set may well be callable)."""
    if isinstance(value, type):
        return True
    return callable(value) and not hasattr(value, "__iter__") and not hasattr(value, "__getitem__")


def _as_data(data: Any, found: UserObject) -> Any:
    """``data``, unchanged, if it has one of the forms that a Problem takes."""
    import numpy as np
    import torch

    single = isinstance(data, str | bytes | torch.Tensor | np.ndarray | torch.nn.Module | type)
    readable = hasattr(data, "__iter__") or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))
    if single or not readable:
        raise found.wrong("data", data, do="give (x, y) tensors, a Dataset, a DataLoader or batches")
    return data
