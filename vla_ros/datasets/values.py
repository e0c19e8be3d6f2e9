"""Values of a robot's further streams in a dataset: features, columns and statistics. Depth is 16-bit PNG, in mm."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import regular
from vla_ros.core.records import value_of
from vla_ros.core.statistics import of_rows
from vla_ros.core.stream import Stream
from vla_ros.datasets.statistics import Statistics
from vla_ros.messages.images import compressed_size, decompress

ONCE_FILE = "vla_ros_once.npz"  # in `meta`: values that were published once and apply to every frame
MOST_ONCE = 256 << 20  # bytes
IMAGE_PREFIX = "observation.images."
INTERVENTION, SUCCESS, DONE = "intervention", "next.success", "next.done"  # booleans of a frame, as LeRobot has them
IMAGE_NAMES = ["height", "width", "channels"]


def feature_key(name: str, dtype: str) -> str:
    return f"{IMAGE_PREFIX}{name}" if dtype == "uint16" else f"observation.{name}"


def feature(stream: Stream, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """As info.json describes it."""
    if dtype == "uint16":
        info = {"is_depth_map": True, "unit": "mm"}
        return {"dtype": "image", "shape": list(shape), "names": IMAGE_NAMES, "info": info}
    names = list(stream.select) if len(stream.select) == shape[-1] else None
    return {"dtype": dtype, "shape": list(shape), "names": names, "info": {"unit": stream.unit, "frame": stream.frame}}


def column(rows: np.ndarray) -> pa.Array:
    """(T, *shape) as a column: plain values of shape (1,), lists else, depth as images of the rows."""
    if rows.dtype == np.uint16:
        images = [{"bytes": cv2.imencode(".png", row)[1].tobytes(), "path": None} for row in rows]
        return pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    made = pa.array(rows.ravel())
    if rows.ndim == 2 and rows.shape[1] > 1:
        return pa.FixedSizeListArray.from_arrays(made, rows.shape[1])
    for size in rows.shape[:0:-1] if rows.ndim > 2 else ():
        made = pa.ListArray.from_arrays(pa.array(np.arange(0, len(made) + 1, size, dtype=np.int32)), made)
    return made


def array(values: pa.ChunkedArray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """(T, *shape) of a column. Raises InputError for another number or other kinds of values."""
    flat = values.combine_chunks()
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type) or pa.types.is_large_list(flat.type):
        flat = flat.flatten()
    size = int(np.prod(shape))
    if flat.null_count:
        raise InputError(f"{flat.null_count} of {len(flat)} values are null, expected none")
    if len(flat) != len(values) * size:
        raise InputError(f"{len(flat)} values in {len(values)} rows, expected {size} each")
    kind = flat.type.value_type if pa.types.is_dictionary(flat.type) else flat.type
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) if dtype == "string" else numbers):
        raise InputError(f"values of {kind}, expected {shown(dtype)}")
    if dtype == "string":
        return np.array(flat.to_pylist(), dtype=np.str_).reshape(-1, *shape)
    found = flat.to_numpy(zero_copy_only=False)
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            rows = np.asarray(found, dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"values of {kind}, expected {shown(dtype)}") from error
    if rows.dtype.kind not in "fiub" or rows.dtype.kind != "f" and not np.array_equal(rows, found):
        raise InputError(f"values of {kind} that are not {shown(dtype)}")
    return rows.reshape(-1, *shape)


def image_size(feature: dict[str, Any], where: str) -> tuple[int, int]:
    """(height, width) of the pictures of a feature as info.json describes it; without names the side that can be a
    number of channels, 1 or 3, is that. Raises InputError if its shape could be read in two ways, or in none."""
    shape = feature["shape"]
    names = value_of(list[str] | None, feature.get("names"), f"{where}: names")
    if not names:
        ends = [size in (1, 3) for size in (*shape[:1], *shape[-1:])] if len(shape) == 3 else []
        if ends.count(True) != 1:
            raise InputError(f"{where}: shape {shape} without names, expected which of them are height, width and "
                             "channels as names of the feature in meta/info.json")
        names = IMAGE_NAMES if ends[1] else [IMAGE_NAMES[2], *IMAGE_NAMES[:2]]
    sides = dict(zip(names, shape, strict=False))
    channels = [size for name, size in sides.items() if name not in ("height", "width")]
    if len(names) != len(shape) or not {"height", "width"} <= sides.keys() or max(channels, default=1) > 4:
        raise InputError(f"{where}: names {shown(names)} of shape {shape}, expected height, width and channels")
    return sides["height"], sides["width"]


def pixels(data: Any, size: tuple[int, int], depth: bool) -> np.ndarray:
    """(h, w, 3) uint8 RGB of PNG or JPEG bytes, or (h, w, 1) uint16 mm; `size` is (h, w). Raises InputError."""
    if not isinstance(data, bytes):
        raise InputError(f"an image is {shown(data)}, expected its bytes in the row")
    if (found := compressed_size(data)) != size:
        raise InputError(f"frame of {found}, expected {size}")
    colour = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = decompress(data, cv2.IMREAD_UNCHANGED if depth else colour)
    if depth and (image.dtype != np.uint16 or image.ndim != 2):
        raise InputError("depth: expected PNG images of one channel, 16 bits")
    return image[..., None] if depth else image


def read_once(path: Path) -> dict[str, np.ndarray]:
    """What ONCE_FILE holds. Raises InputError for one that is damaged, or far larger than it looks."""
    try:
        with zipfile.ZipFile(regular(path, "dataset file", MOST_ONCE)) as members:
            if (size := sum(member.file_size for member in members.infolist())) > MOST_ONCE:
                raise InputError(f"{path}: {size} bytes unpacked, expected at most {MOST_ONCE}")
        with np.load(path) as file:
            return dict(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: cannot be read: {error}") from error


def filled(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(M, columns): of (N, points, columns) the first `counts` (N, 1) points of each row; those after are padding."""
    return values[np.arange(values.shape[1]) < counts]


def statistics(parts: Sequence[np.ndarray], frames: int) -> Statistics:
    """Of (N, ..., columns) values in parts, over all but the columns; of texts only the number of frames."""
    rows = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
    known = {} if rows.dtype.kind == "U" else of_rows(rows if len(rows) else np.zeros((1, rows.shape[1])))
    return known | {"count": np.array([frames])}
