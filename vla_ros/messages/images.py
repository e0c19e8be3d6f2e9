"""Images: `sensor_msgs/Image` and `CompressedImage` to RGB arrays, and back.

Policies see (H, W, 3) uint8 RGB, whatever the camera sends. Grey becomes three equal channels. Depth (`16UC1` in
mm, `32FC1` in m, REP 118) becomes grey too: one step a centimetre, white from 2.55 m, black where there is no return.
"""

import io
import sys
from array import array
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp

try:  # cv_bridge is used where a ROS installation has it; the arrays are the same
    from cv_bridge import CvBridge
except ImportError:
    CvBridge = None

# encoding: (dtype, channels)
_LAYOUT = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
}
_ALIASES = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}  # what OpenCV-based drivers send
_TO_RGB = {"bgr8": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB}
MOST_PIXELS = 1 << 26  # of a compressed image: a few kB may say that they are gigabytes
_DEPTH_STEP = {"16UC1": 10.0, "32FC1": 0.01}  # one centimetre in the unit of the encoding


def rgb_image(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or a CompressedImage. Raises InputError."""
    return _to_rgb(*_pixels(message))


def depth_image(message: Any) -> np.ndarray:
    """(H, W) uint16 mm of a 16UC1 or 32FC1 Image, or a PNG of 16UC1; 0 where there is no return, 65535 from there on.

    Raises InputError.
    """
    pixels, encoding = _pixels(message)
    if encoding == "32FC1":
        pixels = np.nan_to_num(pixels * np.float32(1000), nan=0.0, posinf=0.0, neginf=0.0)
        return np.rint(np.clip(pixels, 0, 65535)).astype(np.uint16)
    if encoding != "16UC1":
        raise InputError(f"depth image: encoding {encoding!r}, expected 16UC1 (mm) or 32FC1 (m)")
    return pixels.copy()


def _pixels(message: Any) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, C) pixels as they were sent, and their encoding."""
    if hasattr(message, "format"):
        return _decompress(message)
    return raw_image(message), _encoding(message)


def raw_image(message: Any) -> np.ndarray:
    """The pixels of an Image as they were sent, padding removed and in the machine's byte order.

    Returns:
        (H, W) or (H, W, C) of the encoding's dtype; may share memory with the message, do not write to it.

    Raises:
        InputError: encoding not known, size zero, or not as many bytes as height and step say.
    """
    dtype, channels = _LAYOUT[_encoding(message)]
    dtype = np.dtype(dtype)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * dtype.itemsize
    data = _bytes(message.data)
    if height < 1 or width < 1:
        raise InputError(f"image: {width}x{height} pixels, expected at least one")
    if step < row:
        raise InputError(f"image: step {step}, expected at least {row} for {width} pixels of {message.encoding}")
    if data.size < step * (height - 1) + row:
        raise InputError(f"image: {data.size} bytes of data, expected {step * height} ({height} rows of {step})")
    swapped = dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big")
    if CvBridge is not None and step == row and not swapped:
        return CvBridge().imgmsg_to_cv2(message, desired_encoding="passthrough")
    shape = (height, width) if channels == 1 else (height, width, channels)
    strides = (step, channels * dtype.itemsize, dtype.itemsize)[: len(shape)]
    pixels = np.ndarray(shape, dtype.newbyteorder("S") if swapped else dtype, data, strides=strides)
    return np.ascontiguousarray(pixels, dtype=dtype)


def image_size(message: Any) -> tuple[int, int]:
    """(height, width) that an Image or a CompressedImage says it has; nothing is decoded. Raises InputError."""
    if hasattr(message, "format"):
        return compressed_size(message.data)
    return int(message.height), int(message.width)


def compressed_size(data: Any) -> tuple[int, int]:
    """(height, width) in the header of a JPEG or PNG. Raises InputError, also where that is more than MOST_PIXELS."""
    data = _bytes(data)
    try:
        with Pillow.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
    except Pillow.DecompressionBombError:
        raise InputError(f"compressed image: more than {MOST_PIXELS} pixels, expected fewer") from None
    except Exception:  # of a header that is cut off or means harm come many kinds
        raise InputError(f"compressed image: {data.size} bytes are not a JPEG or PNG image") from None
    if not 0 < width * height <= MOST_PIXELS:
        raise InputError(f"compressed image: {width}x{height} pixels, expected 1 to {MOST_PIXELS}")
    return height, width


def decompress(data: Any, mode: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """(H, W) or (H, W, C) pixels of a JPEG or PNG; as they were encoded, colours as BGR, unless OpenCV's `mode` says
    otherwise. Raises InputError."""
    data = _bytes(data)
    size = compressed_size(data)
    try:
        pixels = cv2.imdecode(data, mode)  # noqa: TID251
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != size:
        raise InputError(f"compressed image: {data.size} bytes are not a JPEG or PNG image")
    return pixels


def image_message(Image: type, rgb: np.ndarray, stamp: int = 0, frame_id: str = "") -> Any:
    """An Image (the class given: `sensor_msgs.msg.Image`) from (H, W, 3) uint8 RGB; `stamp` in ns."""
    height, width, channels = rgb.shape
    if rgb.dtype != np.uint8 or channels != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}")
    message = set_stamp(Image(), stamp)
    message.header.frame_id = frame_id
    message.height, message.width, message.step = height, width, 3 * width
    message.encoding = "rgb8"
    message.is_bigendian = 0
    message.data = array("B", rgb.tobytes())  # rclpy's setter does not look at every element of an array
    return message


def compressed_image_message(
    CompressedImage: type, rgb: np.ndarray, stamp: int = 0, frame_id: str = "", format: str = "jpeg"
) -> Any:
    """A CompressedImage from (H, W, 3) uint8 RGB; format "jpeg" or "png"."""
    done, data = cv2.imencode(f".{format}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV cannot encode {format!r}")
    message = set_stamp(CompressedImage(), stamp)
    message.header.frame_id = frame_id
    message.format = f"rgb8; {format} compressed bgr8"
    message.data = array("B", data.tobytes())
    return message


def _encoding(message: Any) -> str:
    encoding = _ALIASES.get(message.encoding, message.encoding)
    if encoding not in _LAYOUT:
        raise InputError(f"image: encoding {message.encoding!r}, expected one of {sorted(_LAYOUT)}")
    return encoding


def _bytes(data: Any) -> np.ndarray:
    """(N,) uint8 without a copy where `data` is bytes, array.array or numpy."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError):  # a plain list, or nothing at all
        return np.asarray(data, np.uint8)


def _decompress(message: Any) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, C) pixels and their encoding; OpenCV decodes colours as BGR."""
    said = str(message.format)
    if "compressedDepth" in said:
        raise InputError(f"compressed image: format {said!r}, expected jpeg or png (use the raw depth topic)")
    pixels = decompress(message.data)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        depth = said.startswith("16UC1")
        encoding = {np.dtype(np.uint8): "mono8", np.dtype(np.uint16): "16UC1" if depth else "mono16"}.get(pixels.dtype)
        pixels = pixels.reshape(pixels.shape[:2])
    else:
        if pixels.dtype == np.uint16:
            pixels = _high_byte(pixels)
        # image_transport names the order of the channels it handed to the encoder; colours are BGR unless it says RGB
        order = "rgb" if "compressed rgb" in said else "bgr"
        encoding = {3: f"{order}8", 4: f"{order}a8"}.get(channels) if pixels.dtype == np.uint8 else None
    if encoding is None:
        raise InputError(f"compressed image: {channels} channels of {pixels.dtype}, expected 1, 3 or 4 of 8 or 16 bits")
    return pixels, encoding


def _to_rgb(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of (H, W) or (H, W, C) pixels."""
    if encoding in _DEPTH_STEP:
        steps = np.nan_to_num(pixels / np.float32(_DEPTH_STEP[encoding]), nan=0.0, posinf=0.0, neginf=0.0)
        pixels = np.clip(np.rint(steps), 0, 255).astype(np.uint8)
    elif encoding == "mono16":
        pixels = _high_byte(pixels)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if encoding in _TO_RGB:
        return cv2.cvtColor(pixels, _TO_RGB[encoding])
    return np.ascontiguousarray(pixels)


def _high_byte(pixels: np.ndarray) -> np.ndarray:
    """(H, W, ...) uint16 to uint8 so that 65535 becomes 255: v / 257, rounded."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
