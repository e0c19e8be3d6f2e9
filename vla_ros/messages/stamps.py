"""Times of messages: `builtin_interfaces/Time` and nanoseconds."""

from typing import Any

NS = 1_000_000_000


def stamp_ns(message: Any) -> int:
    """Nanoseconds on the ROS clock of a message with a header, of a header, or of a Time itself."""
    time = getattr(message, "header", message)
    time = getattr(time, "stamp", time)
    return int(time.sec) * NS + int(time.nanosec)


def set_stamp(message: Any, ns: int) -> Any:
    """Write `ns` into a message with a header, a header, or a Time; gives the same object back."""
    time = getattr(message, "header", message)
    time = getattr(time, "stamp", time)
    time.sec, time.nanosec = divmod(int(ns), NS)
    return message
