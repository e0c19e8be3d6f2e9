"""The values that a pickle describes, without running it.

Python's own reader imports and calls what a pickle names. This one keeps names as names; it builds lists, tuples,
dictionaries and records of torch's tensors, and cannot call anything: an object that the pickle would have constructed
becomes an empty `Foreign`. A pickle that names functions which run programs or code, or access files or the network
(os.system, eval), is refused: it could do no harm here, but such a file is not a file of weights.
"""

import io
import pickletools
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from vla_ros.core.errors import InputError, shown

MOST_BYTES = 64 << 20  # of a pickle; a tensor takes about 300, its numbers are stored elsewhere
MOST_STEPS = 1_000_000  # a tensor takes about 45
# Refused: everything in these modules, and HOSTILE_NAMES of the modules OPENERS. Other names are skipped.
HOSTILE_MODULES = (
    "_ctypes", "_pickle", "_posixsubprocess", "_socket", "bdb", "code", "codeop", "ctypes", "ftplib", "http", "imp",
    "importlib", "marshal", "mmap", "nt", "os", "pdb", "pickle", "pkgutil", "posix", "profile", "pty", "runpy",
    "shutil", "smtplib", "socket", "subprocess", "sys", "timeit", "urllib", "webbrowser", "xmlrpc", "zipimport",
)  # fmt: skip
OPENERS = ("builtins", "io", "_io", "codecs")
HOSTILE_NAMES = (
    "FileIO", "__build_class__", "__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec", "execfile",
    "file", "getattr", "globals", "input", "locals", "open", "open_code", "reload", "setattr", "vars",
)  # fmt: skip
STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,  # only beside the weights
}  # fmt: skip
TYPES = {str(found): found for found in vars(torch).values() if isinstance(found, torch.dtype)}


@dataclass(frozen=True)
class Name:
    """Name of a class or function, "module.name"; it is never imported."""

    text: str


@dataclass(frozen=True)
class Foreign:
    """In place of an object that the class or function of this name would have made."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Bytes of the file, identified by `key`; `count` numbers of `dtype`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor, as offset, size and strides (numbers of `dtype`) in a storage.

    Attributes:
        bits: torch's flags that change its numbers: "neg", "conj".
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    bits: tuple[str, ...] = ()


@dataclass
class Pickle:
    """Contents of one pickle.

    Attributes:
        value: the object that it describes.
        foreign: names of what was not constructed.
        storages: those that it refers to, by key.
    """

    value: Any = None
    foreign: set[str] = field(default_factory=set)
    storages: dict[str, Storage] = field(default_factory=dict)


def unpickled(file: io.BytesIO, where: str) -> Pickle:
    """Read the pickle at the position of `file`, which is afterwards at its end. Time and memory are bounded by its
    size.

    Raises InputError that begins with `where`, for a damaged pickle and for one that names something hostile.
    """
    machine = _Machine(where)
    try:
        return machine.run(file)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: a damaged pickle: {' '.join(str(error).split())[:200]}") from error


class _Machine:
    """The stack machine that runs a pickle (Python's `pickletools` describes each step)."""

    def __init__(self, where: str) -> None:
        self.where, self.result = where, Pickle()
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Pickle:
        for count, (step, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_STEPS:
                raise InputError(f"{self.where}: a pickle of more than {MOST_STEPS} steps, expected a file of weights")
            if step.name == "STOP":
                self.result.value = self.stack.pop()
                return self.result
            if step.name in _STEPS:
                _STEPS[step.name](self, argument)
            elif step.name in _CONSTANTS:
                self.stack.append(argument)
            else:
                raise InputError(f"{self.where}: step {step.name} of a pickle, expected weights without it")
        raise InputError(f"{self.where}: a damaged pickle: it has no end")

    def marked(self) -> list[Any]:
        start = self.marks.pop()
        items, self.stack[start:] = self.stack[start:], []
        return items

    def popped(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("a missing value")
        items, self.stack[-count:] = self.stack[-count:], []
        return items

    def name(self, module: Any, text: Any) -> Name:
        """A global. Raises InputError for a hostile one."""
        if not isinstance(module, str) or not isinstance(text, str):
            raise TypeError("a name that is not a text")
        module = IMPORT_MAPPING.get(module, module)  # protocol 2 uses the names of Python 2
        full = f"{module}.{text}"
        opens = module in OPENERS and text.partition(".")[0] in HOSTILE_NAMES
        if opens or module.partition(".")[0] in HOSTILE_MODULES:
            raise InputError(f"{self.where}: would call {shown(full)}, expected weights and plain data: nothing of it "
                             "was run; do not use this file")
        return Name(full)

    def made(self, what: Any, arguments: Any) -> Any:
        """Result of a call, which is not made."""
        name = what.text if isinstance(what, Name) else getattr(what, "name", "an unnamed object")
        if name == "collections.OrderedDict":
            result: dict[Any, Any] = {}
            for pair in arguments[0] if arguments else ():
                _items(result, list(pair))
            return result
        known = name in _REBUILT and isinstance(arguments, tuple)
        result = _REBUILT[name](*arguments) if known else Foreign(name)
        if isinstance(result, Foreign):
            self.result.foreign.add(result.name)
        return result

    def storage(self, said: Any) -> Any:
        """A storage, which torch stores beside the pickle: ("storage", its type, key, device, count), in older files a
        view too."""
        if not isinstance(said, tuple) or len(said) < 5 or said[0] != "storage" or (said[5:] and said[5] is not None):
            return self.made(Name("torch.nn.Module"), ())
        _, kind, key, _, count = said[:5]
        if not isinstance(kind, Name) or type(count) is not int or count < 0:
            raise ValueError(f"storage {shown(key)} of {shown(kind)}, {shown(count)} numbers")
        name = kind.text.rpartition(".")[2]
        if name not in STORAGES:
            return self.made(kind, ())
        found = Storage(str(key), STORAGES[name], count)
        if self.result.storages.setdefault(found.key, found) != found:
            raise ValueError(f"two storages {found.key}")
        return found


_CONSTANTS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
)  # fmt: skip


def _items(target: Any, flat: list[Any]) -> None:
    """Put items into a dictionary, if their keys are simple; other containers are not filled."""
    if isinstance(target, dict):
        target |= {key: value for key, value in zip(flat[::2], flat[1::2], strict=True)
                   if isinstance(key, str | int | float | bytes | None)}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = None, _hooks: Any = None,
            bits: Any = None, dtype: torch.dtype | None = None) -> Any:
    if isinstance(storage, Foreign):
        return storage
    numbers = (offset, *size, *stride)
    fits = len(size) == len(stride) and all(type(n) is int and n >= 0 for n in numbers)
    if not isinstance(storage, Storage) or not fits or not isinstance(bits, dict | None):
        raise ValueError("a tensor without storage, or with invalid sizes")
    found = tuple(str(name) for name, value in (bits or {}).items() if value)
    return Stored(storage, dtype or storage.dtype, offset, tuple(size), tuple(stride), found)


def _typed(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any,
           bits: Any = None) -> Any:
    if not isinstance(dtype, Name):
        raise ValueError(f"a tensor of type {shown(dtype)}")
    if dtype.text not in TYPES:  # from a newer torch
        return Foreign(dtype.text)
    return _tensor(storage, offset, size, stride, bits=bits, dtype=TYPES[dtype.text])


def _parameter(data: Any, *_: Any) -> Any:
    return data


_REBUILT: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor, "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed, "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter, "torch.Size": tuple,
}


def _global(m: _Machine, said: str) -> None:
    module, _, text = said.partition(" ")
    m.stack.append(m.name(module, text))


def _remember(m: _Machine, place: int | None) -> None:
    m.memo[len(m.memo) if place is None else place] = m.stack[-1]


def _extend(m: _Machine, items: list[Any]) -> None:
    if isinstance(m.stack[-1], list):
        m.stack[-1].extend(items)


def _set(m: _Machine, flat: list[Any]) -> None:
    _items(m.stack[-1], flat)


def _dict(m: _Machine, flat: list[Any]) -> None:
    m.stack.append({})
    _items(m.stack[-1], flat)


def _call(m: _Machine, what: Any, *arguments: Any) -> None:
    m.stack.append(m.made(what, arguments[0] if arguments else ()))


def _value(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(value)


def _fresh(kind: type) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(kind())


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(tuple(m.popped(count)))


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.popped(1), "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m.memo[place])),
    "NONE": _value(None), "NEWTRUE": _value(True), "NEWFALSE": _value(False), "EMPTY_TUPLE": _value(()),
    "EMPTY_LIST": _fresh(list), "EMPTY_SET": _fresh(list), "EMPTY_DICT": _fresh(dict),
    "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.marked())),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.stack.append(m.marked())),
    "DICT": lambda m, _: _dict(m, m.marked()),
    "APPEND": lambda m, _: _extend(m, m.popped(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: _extend(m, m.marked())),
    "SETITEM": lambda m, _: _set(m, m.popped(2)), "SETITEMS": lambda m, _: _set(m, m.marked()),
    "GLOBAL": _global, "STACK_GLOBAL": lambda m, _: m.stack.append(m.name(*m.popped(2))),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: _call(m, *m.popped(2))),
    "NEWOBJ_EX": lambda m, _: _call(m, *m.popped(3)),
    "INST": lambda m, said: (m.marked(), _global(m, said), _call(m, m.stack.pop())),
    "OBJ": lambda m, _: _call(m, *m.marked()[:1]),
    "BUILD": lambda m, _: m.popped(1),  # state of an object, or torch's metadata of a dictionary
    "BINPERSID": lambda m, _: m.stack.append(m.storage(m.stack.pop())),
}
