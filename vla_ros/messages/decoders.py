"""Convert a message to an array: one pure function for each kind of message, the same for topics, bags and the viewer.

A decoder takes (message, stream) and returns something that numpy converts to an array of the stream's shape and dtype,
or raises InputError. Other packages add theirs under the entry-point group "vla_ros.decoders", by the type of the
message or by
the name that a stream's `decoder` gives.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from vla_ros.core import plugins
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import COMMAND, COMPRESSED_IMAGE, IMAGE, Stream
from vla_ros.messages.commands import read_command
from vla_ros.messages.images import depth_image, image_size, rgb_image

ENTRY_POINTS = "vla_ros.decoders"
SELECTED = {f"std_msgs/msg/{name}": ("data",) for name in ("Bool", "String", "Float32MultiArray", "Float64MultiArray")}
# datatype of a sensor_msgs/PointField -> numpy
POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
Readings = dict[str, np.ndarray]


def decoder_of(stream: Stream, robot: RobotSpec) -> Callable[[Any], Readings]:
    """The function that gives the readings (name -> array) of a message. Raises InputError for an unknown type.

    Commands are (G,) float64 in rad or m. Everything else has the stream's shape and dtype, and is finite. Joint states
    are merged from several messages (`core.joint_states`).
    """
    if stream.is_command:
        group = next(group for group in robot.groups if COMMAND + group.name == stream.name)
        return lambda message: {stream.name: read_command(group, message)}
    function = _function(stream)
    return lambda message: _readings(function, message, stream)


def _function(stream: Stream) -> Callable[[Any, Stream], Any]:
    if stream.is_camera:
        return colour
    key = stream.decoder or stream.type
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if key in installed:
        return plugins.loaded(installed[key], f"stream {stream.name}: decoder")
    if stream.decoder:
        raise InputError(f"stream {stream.name}: decoder {key!r}, expected an installed one: {sorted(installed)}")
    if key in BUILT_IN and not (stream.select and BUILT_IN[key] is ranges):
        return BUILT_IN[key]
    if stream.select or stream.type in SELECTED:
        return fields
    raise InputError(
        f"stream {stream.name}: no decoder of {stream.type}: select fields of the message, or install a package that "
        f"has an entry point of that name in the group {ENTRY_POINTS}"
    )


def _readings(function: Callable[[Any, Stream], Any], message: Any, stream: Stream) -> Readings:
    if stream.frame:
        frame = getattr(getattr(message, "header", None), "frame_id", None)
        if frame != stream.frame:
            raise InputError(f"frame {frame!r}, the robot file says {stream.frame!r}")
    value = _typed(function(message, stream), stream.dtype)
    if stream.points:
        value = value if value.size else value.reshape(0, *stream.single_shape[1:])
        if value.shape[1:] != stream.single_shape[1:]:
            raise InputError(f"points of shape {value.shape[1:]}, the robot file says {stream.single_shape[1:]}")
        value, count = _thinned(value, stream.points)
        return {stream.name: value, f"{stream.name}_count": np.array([count])}
    if value.shape != stream.single_shape and not stream.is_camera:
        raise InputError(f"shape {list(value.shape)}, the robot file says {list(stream.single_shape)}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        at = np.argwhere(~np.isfinite(value))[0]
        raise InputError(f"value {at.tolist()} is {value[tuple(at)]}, expected a finite number")
    return {stream.name: value}


def _typed(value: Any, dtype: str) -> np.ndarray:
    """An array of the dtype, in its own shape: any numbers may become float32, other values must not change."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise InputError(str(error)) from None
    kinds = {"float32": "fiu", "int64": "iu", "bool": "b", "string": "U", "uint16": "u", "uint8": "u"}[dtype]
    if array.dtype.kind not in kinds:
        raise InputError(f"{array.dtype} values, the robot file says {dtype}")
    if dtype == "string" or array.dtype == dtype:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        result = np.ascontiguousarray(array, dtype=dtype)
    if dtype != "float32" and not np.array_equal(result, array):
        raise InputError(f"{array.dtype} values that {dtype} does not hold")
    return result


def _thinned(rows: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """(most, C) finite rows, evenly taken, padded with zeros; and how many there are."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows = rows[:: max(-(-len(rows) // most), 1)]
    value = np.zeros((most, rows.shape[1]), rows.dtype)
    value[: len(rows)] = rows
    return value, len(rows)


# The decoders


def colour(message: Any, stream: Stream) -> np.ndarray:
    """(H, W, 3) uint8 RGB, of any size: that of the robot file is nominal, and each policy scales images as in its
    training."""
    return rgb_image(message)


def depth(message: Any, stream: Stream) -> np.ndarray:
    """(H, W, 1) uint16 mm."""
    _check_size(message, stream)
    return depth_image(message)[..., None]


def _check_size(message: Any, stream: Stream) -> None:
    """Raises InputError for an image of another size than the robot file says, before anything is decoded."""
    size, expected = image_size(message), stream.single_shape[:2]
    if size != expected:
        found, wanted = ("x".join(map(str, shape[::-1])) for shape in (size, expected))
        raise InputError(f"image of {found} pixels, the robot file says {wanted}")


def fields(message: Any, stream: Stream) -> np.ndarray:
    """The values at the paths of `select`, concatenated, in the stream's shape where they fill it; else (N,)."""
    parts = []
    for path in stream.select or SELECTED[stream.type]:
        value = message
        for name, key in _steps(path):
            try:
                value = getattr(value, name)
                if key is not None:
                    value = value[int(key) if key.isdigit() else list(message.name).index(key)]
            except (AttributeError, IndexError, ValueError) as error:
                raise InputError(f"{path}: {error}") from None
        part = np.asarray(value)
        if part.dtype.kind not in "biufU":
            raise InputError(f"{path} is a {type(value).__name__}, expected numbers, booleans or strings")
        parts.append(part.ravel())
    value = np.concatenate(parts)
    return value.reshape(stream.single_shape) if value.size == np.prod(stream.single_shape) else value


@lru_cache(maxsize=256)
def _steps(path: str) -> tuple[tuple[str, str | None], ...]:
    """(field, index or name or None) of a path such as "pose.position[2]", which `Stream.faults` has checked."""
    return tuple((name, key or None) for name, key in re.findall(r"(\w+)(?:\[([^\]]+)\])?", path))


def ranges(message: Any, stream: Stream) -> np.ndarray:
    """(N,) m, of a LaserScan or a Range: +Inf (no return) is range_max, -Inf (too near) range_min, NaN zero."""
    value = np.asarray(message.ranges if hasattr(message, "ranges") else [message.range], np.float32)
    return np.nan_to_num(value, nan=0.0, posinf=message.range_max, neginf=message.range_min)


def point_cloud(message: Any, stream: Stream) -> np.ndarray:
    """(M, C) of a PointCloud2's fields, those of `select` or x, y, z; some drivers give an empty cloud no fields."""
    names = stream.select or ("x", "y", "z")
    if not message.width * message.height:
        return np.zeros((0, len(names)), np.float32)
    known = {field.name: field for field in message.fields}
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"point cloud: no field {missing[0]!r}, it has {sorted(known)}")
    for name in names:  # count 0 is what PCL wrote for 1
        if known[name].count > 1 or sum(field.name == name for field in message.fields) > 1:
            raise InputError(f"point cloud: field {name!r} has several values, expected one")
    order = ">" if message.is_bigendian else "<"
    try:
        layout = np.dtype({
            "names": names,
            "formats": [order + POINT_TYPES[known[name].datatype] for name in names],
            "offsets": [known[name].offset for name in names],
            "itemsize": message.point_step,
        })  # fmt: skip
    except (KeyError, ValueError) as error:
        raise InputError(f"point cloud: fields that do not fit a step of {message.point_step}: {error}") from None
    height, width, step = int(message.height), int(message.width), int(message.row_step)
    data = np.frombuffer(message.data, np.uint8)
    if step < width * layout.itemsize or data.size < step * height:
        raise InputError(f"point cloud: {data.size} bytes of {height} rows of {step}, {width} points of "
                         f"{layout.itemsize} each; expected rows that hold them, and all of these")
    points = np.ndarray((height, width), layout, data, strides=(step, layout.itemsize))
    return np.stack([points[name].ravel().astype(np.float32) for name in names], axis=-1)


BUILT_IN = {
    IMAGE: depth,
    COMPRESSED_IMAGE: depth,
    "sensor_msgs/msg/PointCloud2": point_cloud,
    "sensor_msgs/msg/LaserScan": ranges,
    "sensor_msgs/msg/Range": ranges,
}
