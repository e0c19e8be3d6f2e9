"""Times of messages: `builtin_interfaces/Time` and nanoseconds."""

from typing import Any

NS = 1_000_000_000


def stamp_ns(message: Any) -> int:
    """Nanoseconds on the ROS clock of a message with a header, of a header, or of a Time itself."""
    time = getattr(message, "header", message)
    time = getattr(time, "stamp", time)
    return int(time.sec) * NS + int(time.nanosec)


def is_stamped(kind: type) -> bool:
    """Whether messages of a class (of rclpy or of a bag) begin with a header; a stamp is looked for nowhere else."""
    fields = getattr(kind, "_fields_and_field_types", None) or getattr(kind, "__dataclass_fields__", None)
    return fields is not None and next(iter(fields), None) == "header"


def set_stamp(message: Any, ns: int) -> Any:
    """Write `ns` into a message with a header, a header, or a Time; gives the same object back."""
    time = getattr(message, "header", message)
    time = getattr(time, "stamp", time)
    time.sec, time.nanosec = divmod(int(ns), NS)
    return message
