"""Takes serialized messages from the middleware without the interpreter's lock.

rclpy holds that lock while the middleware copies a message, and copies it again: 50 MB from anybody on the network
would stop every thread of the process, including the control loop, for half a second. Here the other threads continue,
and a message that is too large is not copied again.
"""

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor

_OK, _NOTHING_TO_TAKE = 0, 401  # rcl_ret_t
_INFO_SIZE = 512  # bytes, more than an rmw_message_info_t has


class Unserved(CallbackGroup):
    """Entities that no executor of rclpy serves, because another thread takes their messages."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class _Allocator(ctypes.Structure):
    _fields_ = (("functions", ctypes.c_void_p * 5),)


class _Message(ctypes.Structure):
    """rcl_serialized_message_t."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("allocator", _Allocator),
    )


class _Info(ctypes.Structure):
    """The beginning of an rmw_message_info_t."""

    _fields_ = (
        ("source_timestamp", ctypes.c_int64),
        ("received_timestamp", ctypes.c_int64),
        ("publication_sequence_number", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * (_INFO_SIZE - 24)),
    )


_END = ".dylib" if sys.platform == "darwin" else ".so"
_rcl, _rcutils = ctypes.CDLL(f"librcl{_END}"), ctypes.CDLL(f"librcutils{_END}")
_rcutils.rcutils_get_default_allocator.restype = _Allocator


@dataclass(frozen=True)
class Withheld:
    """Takes the place of a message that is too large: only its length in bytes."""

    length: int

    def __len__(self) -> int:
        return self.length


def take(handle: Any, limit: int) -> tuple[bytes | Withheld, tuple[int, int]] | None:
    """The next serialized message of a subscription's `handle`, and its time (ns) and number at its publisher.

    None if there is none. Raises RuntimeError if the middleware fails.
    """
    message, info = _Message(allocator=_rcutils.rcutils_get_default_allocator()), _Info()
    result = _rcl.rcl_take_serialized_message(
        ctypes.c_void_p(handle.pointer), ctypes.byref(message), ctypes.byref(info), None
    )
    try:
        if result == _NOTHING_TO_TAKE:
            return None
        if result != _OK:
            _rcutils.rcutils_reset_error()
            raise RuntimeError(f"rcl_take_serialized_message gave {result}")
        length = message.length
        data = ctypes.string_at(message.buffer, length) if length <= limit else Withheld(length)
        return data, (info.source_timestamp, info.publication_sequence_number)
    finally:
        _rcutils.rcutils_uint8_array_fini(ctypes.byref(message))


class NodeExecutor(SingleThreadedExecutor):
    """Gives subscriptions that have a `size_limit` (bytes) their messages that way, or `Withheld`.

    Their `sent_ns` is then the time at which the publisher sent the message.
    """

    def _take_subscription(self, subscription: Any) -> Any:
        limit = getattr(subscription, "size_limit", None)
        if limit is None:
            return super()._take_subscription(subscription)
        try:
            with subscription.handle:
                taken = take(subscription.handle, limit)
        except InvalidHandle:  # destroyed meanwhile
            return None
        if taken is None:
            return None

        async def execute() -> None:
            subscription.sent_ns = taken[1][0]
            subscription.callback(taken[0])

        return execute
