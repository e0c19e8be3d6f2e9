"""Messages as openpi's clients and servers write them: msgpack, and in it arrays of numpy.

An array is a map of bytes: `__ndarray__` true, `data` its bytes in C order, `dtype` numpy's name with the byte order
("<f4", "|u1"), `shape` a list. A single number of numpy is `__npgeneric__` true, `data`, `dtype`. Objects, structures
and pickles are neither written nor read: a message cannot run anything.
"""

import math
import re
from typing import Any

import msgpack
import numpy as np

from vla_ros.core.errors import InputError, shown

MOST_ANSWER = 16 << 20  # bytes of an answer or of a server's metadata
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_MOST_AXES = 8
_MOST_ITEMS = 1000  # of one list or map
_MOST_CONTAINERS = 10_000  # lists, maps and arrays of one message; each takes far more memory than its byte


def pack(value: Any) -> bytes:
    """A message of mappings, lists, texts, numbers and arrays."""
    return msgpack.packb(value, default=_written)


def unpack(data: bytes, what: str = "message") -> Any:
    """The content of a message; its arrays are copies, in this machine's byte order.

    Raises InputError, which begins with `what`, for an invalid message or array. The memory is bounded by a small
    multiple of the size of `data`.
    """
    count = 0

    def counted(value: Any) -> Any:
        nonlocal count
        count += 1
        if count > _MOST_CONTAINERS:
            raise InputError(f"{what}: more than {_MOST_CONTAINERS} lists, maps and arrays")
        return value

    try:
        return msgpack.unpackb(
            data, object_hook=lambda row: _read(counted(row), what), list_hook=counted, max_array_len=_MOST_ITEMS,
            max_map_len=_MOST_ITEMS, max_ext_len=0, max_str_len=len(data), max_bin_len=len(data),
        )
    except InputError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        said = str(error) or type(error).__name__
        raise InputError(f"{what}: {len(data)} bytes are not a msgpack message: {said}") from None


def _written(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and not _DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"{value.dtype}, expected numbers")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__}, expected what a message can hold")


def _read(row: dict, what: str) -> Any:
    """An array or a number where the map says it is one, else the map."""
    if b"__ndarray__" in row:
        dtype, shape, data = _dtype(row, what), row.get(b"shape"), row.get(b"data")
        sound = isinstance(shape, list) and len(shape) <= _MOST_AXES
        sound = sound and all(type(n) is int and 0 <= n < 1 << 32 for n in shape) and isinstance(data, bytes)
        if not sound or math.prod(shape) * dtype.itemsize != len(data):
            size = f"{len(data)} bytes" if isinstance(data, bytes) else shown(data)
            raise InputError(f"{what}: an array of shape {shown(shape)}, {dtype}, with {size}, expected as many bytes "
                             "as that takes")
        return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    if b"__npgeneric__" in row:
        dtype, value = _dtype(row, what), row.get(b"data")
        if not isinstance(value, (bool, int, float)):
            raise InputError(f"{what}: {shown(value)}, expected a number of {dtype}")
        return dtype.newbyteorder("=").type(value)
    return row


def _dtype(row: dict, what: str) -> np.dtype:
    name = row.get(b"dtype")
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise InputError(f"{what}: an array of type {shown(name)}, expected numbers, such as <f4 or |u1")
    return np.dtype(name)
