"""A stream: the values of one sensor or one command topic, as the robot file describes it."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vla_ros.core.errors import InputError

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE, ODOMETRY = "sensor_msgs/msg/JointState", "nav_msgs/msg/Odometry"
JOINT_STATES = "joint_states"  # the name of the state, whatever its topics
COMMAND = "command/"  # followed by the name of a command group: the stream of its commands
STAMPS = ("header", "arrival")
DTYPES = ("float32", "int64", "bool", "string", "uint16")
MOST_VALUES = 100_000_000


@dataclass(frozen=True)
class Window:
    """The last `count` values, `rate` Hz apart."""

    count: int
    rate: float

    def __post_init__(self) -> None:
        if self.count < 2 or not 0 < self.rate:
            raise InputError(f"count {self.count}, rate {self.rate} Hz: expected two values or more, a positive rate")
        if self.count > 100_000 or self.count > 600 * self.rate:
            raise InputError(f"count {self.count}, rate {self.rate} Hz: expected at most 100000 values over 600 s")


@dataclass(frozen=True)
class Stream:
    """A topic and how its messages become arrays (`messages.decoders`)."""

    name: str  # the name of the stream in policies and datasets
    topic: str  # topic of the messages
    type: str  # type of the messages, `package/msg/Name`
    # Which values of the message: paths such as "linear_acceleration.x", "data[3]", "effort[gripper]" (by the message's
    # `name`); for a point cloud its fields, x, y and z by default.
    select: tuple[str, ...] = ()
    unit: str = ""  # unit of the values; stored with datasets
    frame: str = ""  # required header.frame_id; "" for any
    shape: tuple[int, ...] = ()  # of one value; default: the number of paths in `select`; (points, fields) of a cloud
    dtype: str = "float32"  # one of DTYPES; uint16 is depth in mm of shape (height, width, 1)
    max_age: float | None = 0.5  # s; older values are refused. None: published once (transient local), never too old
    paces: bool = False  # a policy waits for a new message before each inference
    reliable: bool = False  # subscribe with reliable delivery
    # Name of another stream: the newest messages of both whose stamps are at most `slop` s apart are used together.
    with_: str = ""
    slop: float = 0.0  # s, see `with`
    window: Window | None = None  # `count` and `rate` (Hz): the value is the last `count` values, (count, *shape)
    # Number of rows, for values of varying length: rows that are not finite are dropped, every k-th row is kept if
    # there are too many, and zeros fill up the rest. NAME_count, (1,) int64, is the number of real rows.
    points: int = 0
    # "header", or "arrival": use the time of arrival (of recording, in bags), because the stamps are of another clock.
    stamps: str = "header"
    decoder: str = ""  # name of a decoder; default: that of the type
    prefix: str = ""  # refused in the file; for joint states it comes from `joint_prefix`

    @property
    def is_camera(self) -> bool:
        """Colour, (height, width, 3) uint8: of the robot file's `cameras`."""
        return self.dtype == "uint8"

    @property
    def is_state(self) -> bool:
        return self.name.split("/")[0] == JOINT_STATES

    @property
    def is_command(self) -> bool:
        return self.name.startswith(COMMAND)

    def joints(self, names: Sequence[str]) -> Sequence[str]:
        """Our names of joints, from the driver's."""
        return [self.prefix + name for name in names] if self.prefix else names

    @property
    def once(self) -> bool:
        return self.max_age is None

    @property
    def single_shape(self) -> tuple[int, ...]:
        """Shape of one value, without the window."""
        if self.points:
            return (self.points, *(self.shape[1:] or (len(self.select) or 3,)))
        return self.shape or (max(len(self.select), 1),)

    @property
    def readings(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, dtype) of the arrays that this stream adds to an observation."""
        window = (self.window.count,) if self.window else ()
        count = {f"{self.name}_count": ((1,), "int64")} if self.points else {}
        return {self.name: (window + self.single_shape, self.dtype)} | count

    @cached_property
    def offsets_ns(self) -> tuple[int, ...]:
        """How long before an observation each value of the window lies, ns, the oldest first."""
        count = self.window.count if self.window else 1
        return tuple(round((count - 1 - k) / self.window.rate * 1e9) for k in range(count - 1)) + (0,)

    def faults(self) -> Iterator[tuple[bool, str]]:
        """Pairs of (whether this fault is present, its description), for a stream of the file."""
        taken = self.name in (JOINT_STATES, "state", "instruction") or self.name.endswith("_count")
        shape, depth = list(self.shape), self.dtype == "uint16"
        yield taken or not re.fullmatch(r"\w+", self.name), "expected a name of letters, digits and _ that is not taken"
        yield not re.fullmatch(r"\w+/msg/\w+", self.type), f"type {self.type!r}, expected package/msg/Name"
        path = r"\w+(\[[^\]]+\])?(\.\w+(\[[^\]]+\])?)*"
        for wrong in [name for name in self.select if not re.fullmatch(path, name)]:
            yield True, f"select {wrong!r}, expected field.field, with [number] or [name] after a field where needed"
        yield bool(self.prefix), f"prefix {self.prefix!r}, expected none: use that of a group, or `joint_prefix`"
        yield self.stamps not in STAMPS, f"stamps {self.stamps!r}, expected one of {STAMPS}"
        yield self.dtype not in DTYPES, f"dtype {self.dtype!r}, expected one of {DTYPES} (colour: see `cameras`)"
        yield min((*shape, 1)) < 1 or self.points < 0, f"shape {shape}, points {self.points}: expected positive numbers"
        values = math.prod(self.single_shape) * (self.window.count if self.window else 1)
        yield values > MOST_VALUES, f"{values} values an observation, expected at most {MOST_VALUES}"
        yield depth != (self.type in (IMAGE, COMPRESSED_IMAGE)) and not self.decoder, (
            f"{self.dtype} of a {self.type}, expected uint16 for depth images, and only for them"
        )
        yield depth and (len(shape) != 3 or shape[2] != 1 or self.window or self.points), (
            f"uint16 of shape {shape}, expected [height, width, 1] and no window"
        )
        yield self.points and (self.dtype != "float32" or (shape and (len(shape) != 2 or shape[0] != self.points))), (
            f"{self.dtype} {shape}, expected float32 [{self.points}, columns]"
        )
        yield not self.once and not self.max_age > 0, (
            f"max_age {self.max_age} s, expected above zero, or null (published once)"
        )
        yield self.slop < 0 or (self.slop and not self.with_), (
            f"slop {self.slop} s, expected zero or more, and `with` a stream"
        )
        yield self.window and (self.once or self.with_ or self.points), (
            "window, expected none together with points, `with` or max_age: null"
        )
        yield self.once and (self.paces or self.with_), (
            "max_age: null (published once), expected neither paces nor `with`"
        )


@dataclass(frozen=True)
class BaseState(Stream):
    """The odometry of a command group that drives a base: the state of its velocity dimensions."""

    axes: tuple[tuple[str, str], ...] = ()  # (our name of the dimension, "x", "y" or "yaw")
