"""Times of messages: `builtin_interfaces/Time` and nanoseconds."""

from typing import Any

NS = 1_000_000_000
FAR_NS = 5 * NS  # between a stamp and its arrival: different clocks, or a long transport
_FIRST, _LAST = -(2**31) * NS, 2**31 * NS - 1  # range of a Time


def stamp_ns(message: Any) -> int:
    """Nanoseconds on the ROS clock of a message with a header, of a header, or of a Time itself."""
    time = getattr(message, "header", message)
    time = getattr(time, "stamp", time)
    return int(time.sec) * NS + int(time.nanosec)


def is_stamped(kind: type) -> bool:
    """Whether messages of a class (of rclpy or of a bag) begin with a header; a stamp is looked for nowhere else."""
    fields = getattr(kind, "_fields_and_field_types", None) or getattr(kind, "__dataclass_fields__", None)
    return fields is not None and next(iter(fields), None) == "header"


def is_time(time: Any) -> bool:
    """Whether a Time is one that a clock may show: not below zero, and less than a second of nanoseconds."""
    return time.sec >= 0 and time.nanosec < NS


def set_stamp(message: Any, ns: int) -> Any:
    """Write `ns` into a message with a header, a header, or a Time; returns the same object.

    Values outside the range of a Time are clipped: `stamp_ns` of an invalid message may be outside.
    """
    time = getattr(message, "header", message)
    time = getattr(time, "stamp", time)
    time.sec, time.nanosec = divmod(min(max(int(ns), _FIRST), _LAST), NS)
    return message
