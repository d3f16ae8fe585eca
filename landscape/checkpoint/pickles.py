"""What a pickle would make, worked out from its opcodes. Nothing is imported, called or unpickled.

A pickle is a program for a small stack machine. :func:`scan` runs that program with names in place of
classes and functions: a call becomes a :class:`Made` record, a tensor a :class:`TensorInfo`, and every name
that a real unpickler would look up is collected. The opcodes are documented in :mod:`pickletools`.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

__all__ = ["Global", "Made", "Scan", "ScanError", "TensorInfo", "scan"]


class ScanError(Exception):
    """The bytes are not a whole, well-formed pickle."""


@dataclass(frozen=True)
class Global:
    """A class or function by name."""

    name: str


@dataclass(eq=False)
class Made:
    """The result of calling ``function``: unknown, since nothing is called."""

    function: Any
    args: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Storage:
    """Where a tensor's numbers lie."""

    dtype: str


@dataclass(frozen=True)
class TensorInfo:
    """A tensor without its numbers; ``kind`` is ``dense``, ``sparse``, ``quantized`` or ``meta``."""

    shape: tuple[int, ...]
    dtype: str
    kind: str = "dense"


@dataclass(frozen=True)
class Scan:
    """What a pickle holds, which globals it names (in order of appearance) and its protocol."""

    content: Any
    globals: tuple[str, ...]
    protocol: int


def scan(file: IO[bytes]) -> Scan:
    """Work through one pickle from the current position of ``file`` up to its STOP opcode.

    Raises:
        ScanError: the bytes are not a pickle, or it ends early.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
    except Exception as error:  # malformed bytes surface as any of half a dozen types
        raise ScanError(f"{type(error).__name__}: {error}") from error
    return Scan(machine.stack[-1], tuple(machine.globals), machine.protocol)


_PUSHED_TEXT = """
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES
SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
"""
_PUSHED = frozenset(_PUSHED_TEXT.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FRESH: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, None] = {}
        self.protocol = 0

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _FIXED_TUPLES:
            count = _FIXED_TUPLES[name]
            values = tuple(self.pop() for _ in range(count))
            self.stack.append(values[::-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "PROTO":
            self.protocol = argument
        else:
            getattr(self, "op_" + name.lower())(argument)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def name(self, module: object, name: object) -> Global:
        """Note a global; names of Python 2 are translated as the unpicklers do."""
        if not (isinstance(module, str) and isinstance(name, str)):
            found = "a name that is made while unpickling"
        else:
            if self.protocol < 3:
                module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
                module = _compat_pickle.IMPORT_MAPPING.get(module, module)
            found = f"{module}.{name}"
        self.globals[found] = None
        return Global(found)

    def op_stop(self, _: Any) -> None:
        if not self.stack:
            raise ValueError("nothing is left at the end")

    def op_frame(self, _: Any) -> None:
        """Frames only help readers to buffer."""

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def op_pop_mark(self, _: Any) -> None:
        self.pop_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_list(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    op_frozenset = op_list

    def op_tuple(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def op_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        _set_items(self.stack[-1], items)

    def op_append(self, _: Any) -> None:
        item = self.pop()
        _extend(self.stack[-1], [item])

    def op_appends(self, _: Any) -> None:
        items = self.pop_mark()
        _extend(self.stack[-1], items)

    op_additems = op_appends

    def op_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        _set_items(self.stack[-1], [key, value])

    def op_setitems(self, _: Any) -> None:
        items = self.pop_mark()
        _set_items(self.stack[-1], items)

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.name(module, name))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.name(module, name))

    def op_inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        args = tuple(self.pop_mark())
        self.stack.append(_call(self.name(module, name), args))

    def op_obj(self, _: Any) -> None:
        function, *args = self.pop_mark()
        self.stack.append(_call(function, tuple(args)))

    def op_reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        self.stack.append(_call(function, args))

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        self.pop()
        self.op_reduce(None)

    def op_build(self, _: Any) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def op_persid(self, argument: str) -> None:
        self.stack.append(_persistent(argument))

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(_persistent(self.pop()))

    def op_ext1(self, argument: int) -> None:
        self.stack.append(self.name("copyreg", f"extension code {argument}"))

    op_ext2 = op_ext4 = op_ext1

    def op_next_buffer(self, _: Any) -> None:
        self.stack.append(Made(Global("buffer")))

    def op_readonly_buffer(self, _: Any) -> None:
        """The buffer on the stack stays what it is."""


def _extend(target: Any, items: list[Any]) -> None:
    (target.items if isinstance(target, Made) else target).extend(items)


def _set_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, Made):
        target.items.extend(items)
        return
    for key, value in zip(items[::2], items[1::2], strict=True):
        plain = isinstance(key, str | int | float | bytes) or key is None
        target[key if plain else Made(key)] = value


#: dtypes of the storage classes (torch.storage); untyped ones hold bytes.
_STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "qint8",
    "QUInt8": "quint8",
    "QInt32": "qint32",
}


def _persistent(key: Any) -> Any:
    """torch.save's external objects: ``("storage", class, key, location, numel)``."""
    if isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage" and isinstance(key[1], Global):
        name = key[1].name.rpartition(".")[2].removesuffix("Storage")
        return Storage(_STORAGES.get(name, "uint8"))
    return Made(Global("persistent id"), key)


def _call(function: Any, args: Any) -> Any:
    """What a call gives where that is known, else a :class:`Made`."""
    known = _CALLS.get(function.name) if isinstance(function, Global) else None
    if known is None:
        return Made(function, args)
    try:
        return known(*args)
    except (TypeError, ValueError, IndexError, AttributeError):
        return Made(function, args)


def _dictionary(*args: Any) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    pairs = args[-1] if args and isinstance(args[-1], list | Mapping) else ()
    for key, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
        _set_items(made, [key, value])
    return made


def _tensor(storage: Storage, offset: Any, size: Any, *_: Any) -> TensorInfo:
    return TensorInfo(_shape(size), storage.dtype)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> TensorInfo:
    return TensorInfo(_shape(size), _dtype(dtype))


def _quantized(storage: Storage, offset: Any, size: Any, *_: Any) -> TensorInfo:
    return TensorInfo(_shape(size), storage.dtype, "quantized")


def _sparse(layout: Any, data: Any) -> TensorInfo:
    values = next(item for item in reversed(data) if isinstance(item, TensorInfo))
    size = next(item for item in data if isinstance(item, tuple))
    return TensorInfo(_shape(size), values.dtype, "sparse")


def _meta(dtype: Any, size: Any, *_: Any) -> TensorInfo:
    return TensorInfo(_shape(size), _dtype(dtype), "meta")


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    return _call(function, args)


def _size(items: Any = ()) -> tuple[int, ...]:
    return tuple(items)


def _shape(size: Any) -> tuple[int, ...]:
    if not all(isinstance(n, int) and n >= 0 for n in size):
        raise ValueError("a shape is made of sizes")
    return tuple(size)


def _dtype(dtype: Any) -> str:
    return str(dtype.name).removeprefix("torch.")


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "collections.Counter": _dictionary,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
}
