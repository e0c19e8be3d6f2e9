"""What is inside a `sensor_msgs/CompressedImage`: JPEG and PNG, and the depth of image_transport's compressedDepth."""

import io
import struct
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from vla_ros.core.errors import InputError

MOST_PIXELS = 1 << 26  # of a compressed image: the header of a few kB may declare gigabytes


def as_bytes(data: Any) -> np.ndarray:
    """(N,) uint8 without a copy where `data` is bytes, array.array or numpy."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError):  # a plain list, or nothing at all
        return np.asarray(data, np.uint8)


def compressed_size(data: Any) -> tuple[int, int]:
    """(height, width) in the header of a JPEG or PNG. Raises InputError, also where that is more than MOST_PIXELS."""
    data = as_bytes(data)
    try:
        with Pillow.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
    except Pillow.DecompressionBombError:
        raise InputError(f"compressed image: more than {MOST_PIXELS} pixels, expected fewer") from None
    except Exception:  # a truncated or hostile header raises many kinds
        raise InputError(f"compressed image: {data.size} bytes are not a JPEG or PNG image") from None
    if not 0 < width * height <= MOST_PIXELS:
        raise InputError(f"compressed image: {width}x{height} pixels, expected 1 to {MOST_PIXELS}")
    return height, width


def decompress(data: Any, mode: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """(H, W) or (H, W, C) pixels of a JPEG or PNG; as they were encoded, colours as BGR, unless OpenCV's `mode` says
    otherwise. Raises InputError."""
    data = as_bytes(data)
    size = compressed_size(data)
    try:
        pixels = cv2.imdecode(data, mode)  # noqa: TID251
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != size:
        raise InputError(f"compressed image: {data.size} bytes are not a JPEG or PNG image")
    return pixels


# compressed_depth_image_transport: twelve bytes, (int32 format, float32 A, float32 B), then a PNG of 16 bits or, after
# the width and the height (uint32 each), run lengths ("rvl"). Of 32FC1 the values are A / depth + B.
def is_depth(format: str) -> bool:
    """Whether a message of this `format` is one of compressedDepth."""
    return "compressedDepth" in format


def depth_size(data: Any, format: str) -> tuple[int, int]:
    """(height, width) in the header of an image of compressedDepth. Raises InputError."""
    return _depth_part(data, format)[1]


def _depth_part(data: Any, said: str) -> tuple[np.ndarray, tuple[int, int], float, float]:
    """(the PNG or the run lengths, (height, width), A, B). Raises InputError."""
    data = as_bytes(data)
    rvl = said.rstrip().endswith("rvl")
    if data.size < 20:
        raise InputError(f"compressed depth: {data.size} bytes, expected a header and an image")
    _, a, b = struct.unpack_from("<iff", data)
    if not rvl:
        try:
            return data[12:], compressed_size(data[12:]), a, b
        except InputError as error:
            raise InputError(f"compressed depth, after its header of 12 bytes: {error}") from None
    width, height = struct.unpack_from("<II", data, 12)
    if not 0 < width * height <= MOST_PIXELS:
        raise InputError(f"compressed depth: {width}x{height} pixels, expected 1 to {MOST_PIXELS}")
    return data[20:], (height, width), a, b


def decompress_depth(data: Any, said: str) -> tuple[np.ndarray, str]:
    """(H, W) uint16 mm and "16UC1", or float32 m and "32FC1", of compressedDepth. Raises InputError."""
    encoding = said.partition(";")[0].strip()
    if encoding not in ("16UC1", "32FC1"):
        raise InputError(f"compressed depth: format {said!r}, expected 16UC1 or 32FC1 at its beginning")
    part, size, a, b = _depth_part(data, said)
    pixels = _run_lengths(part, size) if said.rstrip().endswith("rvl") else decompress(part)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise InputError(f"compressed depth: {pixels.dtype} of shape {pixels.shape}, expected one channel of 16 bits")
    if encoding == "16UC1":
        return pixels, encoding
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    return np.where(pixels == 0, np.float32(np.nan), metres), encoding


def _run_lengths(data: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint16 of RVL (Wilson 2017, "Fast lossless depth image compression").

    Numbers are groups of three bits, the lowest first, a fourth bit says that more follow; eight groups to a
    little-endian word, the first in its highest bits. They are: how many zeros, how many values, then of each value
    the difference to the last one, its sign in the lowest bit; and again.
    """
    if data.size > 5 * size[0] * size[1] + 64:  # more than the longest differences in runs of one
        raise InputError(f"compressed depth: {data.size} bytes, too many for run lengths of {size[1]}x{size[0]} pixels")
    words = data[: data.size // 4 * 4].view("<u4")
    groups = ((words[:, None] >> np.arange(28, -4, -4, dtype=np.uint32)) & 15).ravel().astype(np.int64)
    last = np.flatnonzero(groups < 8)
    first = np.concatenate([[0], last[:-1] + 1])
    if not last.size or (last - first).max() > 10:
        raise InputError(f"compressed depth: {data.size} bytes are not run lengths")
    groups = groups[: last[-1] + 1]
    shifts = 3 * (np.arange(groups.size) - np.repeat(first, last - first + 1))
    numbers = np.add.reduceat((groups & 7) << shifts, first)
    pixels, at, filled = np.zeros(size[0] * size[1], np.uint16), 0, 0
    there, changes = np.zeros(pixels.size, bool), []
    while filled < pixels.size and at + 1 < numbers.size:
        zeros, count = int(numbers[at]), int(numbers[at + 1])
        filled += zeros
        there[filled : filled + count] = True
        changes.append(numbers[at + 2 : at + 2 + count])
        filled, at = filled + count, at + 2 + count
    changes = np.concatenate([*changes, np.zeros(0, np.int64)])
    if filled != pixels.size or np.count_nonzero(there) != changes.size:
        raise InputError(f"compressed depth: {data.size} bytes, expected the run lengths of {size[1]}x{size[0]} pixels")
    pixels[there] = np.cumsum((changes >> 1) ^ -(changes & 1))
    return pixels.reshape(size)
