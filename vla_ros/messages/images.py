"""Images: `sensor_msgs/Image` and `CompressedImage` to RGB arrays, and back.

Policies see (H, W, 3) uint8 RGB, whatever the camera sends. Grey becomes three equal channels. Depth (`16UC1` in
mm, `32FC1` in m, REP 118) becomes grey too: one step a centimetre, white from 2.55 m, black where there is no return.
"""

import sys
from array import array
from typing import Any

import cv2
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.messages.compressed import as_bytes, compressed_size, decompress, decompress_depth, depth_size, is_depth
from vla_ros.messages.stamps import set_stamp

try:  # cv_bridge is used where a ROS installation has it; the arrays are the same
    from cv_bridge import CvBridge
except ImportError:
    CvBridge = None

_PATTERNS = ("rggb", "bggr", "gbrg", "grbg")  # of a Bayer sensor, from the upper left corner
# encoding of `sensor_msgs` (image_encodings.hpp), and nv12: (dtype, channels)
_LAYOUT = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "rgb16": (np.uint16, 3),
    "bgr16": (np.uint16, 3),
    "rgba16": (np.uint16, 4),
    "bgra16": (np.uint16, 4),
    "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
    "yuyv": (np.uint8, 2),
    "yuv422_yuy2": (np.uint8, 2),  # the older name of yuyv
    "uyvy": (np.uint8, 2),
    "yuv422": (np.uint8, 2),  # the older name of uyvy
    "nv12": (np.uint8, 1),
    "nv21": (np.uint8, 1),
    "nv24": (np.uint8, 1),
    **{f"bayer_{pattern}8": (np.uint8, 1) for pattern in _PATTERNS},
    **{f"bayer_{pattern}16": (np.uint16, 1) for pattern in _PATTERNS},
}
_ALIASES = {  # sent by drivers that use OpenCV
    "8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC3": "bgr16", "16UC4": "bgra16",
}  # fmt: skip
# Planes of colour below the grey one, in rows of the image's width for each row of it; and the pixels, across and
# down, that share one colour.
_PLANES = {"nv12": 0.5, "nv21": 0.5, "nv24": 2}
_SHARED = {"nv12": (2, 2), "nv21": (2, 2), **dict.fromkeys(("yuyv", "yuv422_yuy2", "uyvy", "yuv422"), (2, 1))}
_TO_RGB = {
    **dict.fromkeys(("bgr8", "bgr16"), cv2.COLOR_BGR2RGB),
    **dict.fromkeys(("rgba8", "rgba16"), cv2.COLOR_RGBA2RGB),
    **dict.fromkeys(("bgra8", "bgra16"), cv2.COLOR_BGRA2RGB),
    **dict.fromkeys(("yuyv", "yuv422_yuy2"), cv2.COLOR_YUV2RGB_YUY2),
    **dict.fromkeys(("uyvy", "yuv422"), cv2.COLOR_YUV2RGB_UYVY),
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    # Named by what OpenCV calls the pattern in full; its short names (BayerBG) begin at the second row and column.
    **{f"bayer_{pattern}{bits}": getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB")
       for pattern in _PATTERNS for bits in (8, 16)},
}  # fmt: skip
_DEPTH_STEP = {"16UC1": 10.0, "32FC1": 0.01}  # one centimetre in the unit of the encoding


def rgb_image(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or a CompressedImage. Raises InputError."""
    return _to_rgb(*_pixels(message))


def depth_image(message: Any) -> np.ndarray:
    """(H, W) uint16 mm of a 16UC1 or 32FC1 Image, also compressed; 0 if there is no return, 65535 from there on.

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
        (H, W) or (H, W, C) of the encoding's dtype, of nv12 and its like (R, W) with the rows of their colour below;
        may share memory with the message, do not write to it.

    Raises:
        InputError: unknown encoding, size zero, or a number of bytes other than that of height and step.
    """
    encoding = _encoding(message)
    dtype, channels = _LAYOUT[encoding]
    dtype = np.dtype(dtype)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * dtype.itemsize
    data = as_bytes(message.data)
    if height < 1 or width < 1:
        raise InputError(f"image: {width}x{height} pixels, expected at least one")
    across, down = _SHARED.get(encoding, (1, 1))
    if width % across or height % down:
        raise InputError(f"image: {width}x{height} pixels of {encoding}, expected multiples of {across}x{down}")
    if step < row:
        raise InputError(f"image: step {step}, expected at least {row} for {width} pixels of {message.encoding}")
    if encoding.startswith("bayer") and min(width, height) < 3:
        raise InputError(f"image: {width}x{height} pixels of {encoding}, expected 3x3 or more")
    if encoding == "nv24" and step != row:  # drivers do not agree where the colour rows begin then
        raise InputError(f"image: step {step} of {width} pixels of nv24, expected rows without padding")
    height += int(height * _PLANES.get(encoding, 0))
    if data.size < step * (height - 1) + row:
        raise InputError(f"image: {data.size} bytes of data, expected {step * height} ({height} rows of {step})")
    swapped = dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big")
    if CvBridge is not None and step == row and not swapped and encoding not in _PLANES:
        return CvBridge().imgmsg_to_cv2(message, desired_encoding="passthrough")
    shape = (height, width) if channels == 1 else (height, width, channels)
    strides = (step, channels * dtype.itemsize, dtype.itemsize)[: len(shape)]
    pixels = np.ndarray(shape, dtype.newbyteorder("S") if swapped else dtype, data, strides=strides)
    return np.ascontiguousarray(pixels, dtype=dtype)


def image_size(message: Any) -> tuple[int, int]:
    """(height, width) declared by an Image or a CompressedImage, without decoding. Raises InputError."""
    if hasattr(message, "format"):
        said = str(message.format)
        return depth_size(message.data, said) if is_depth(said) else compressed_size(message.data)
    return int(message.height), int(message.width)


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
    message.data = array("B", rgb.tobytes())  # rclpy's setter does not check every element of an array
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


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """A JPEG file of (H, W, 3) uint8 RGB; `quality`: 1 to 100."""
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def narrowed(image: np.ndarray, widest: int) -> np.ndarray:
    """(H, W, 3) uint8 with at most `widest` pixels in a row, to look at."""
    height, width = image.shape[:2]
    if width <= widest:
        return image
    # To more than half the size there is nothing to average, which takes five times as long.
    how = cv2.INTER_LINEAR if width < 2 * widest else cv2.INTER_AREA
    return cv2.resize(image, (widest, max(round(height * widest / width), 1)), interpolation=how)


def _encoding(message: Any) -> str:
    encoding = _ALIASES.get(message.encoding, message.encoding)
    if encoding not in _LAYOUT:
        raise InputError(f"image: encoding {message.encoding!r}, expected one of {sorted(_LAYOUT)}")
    return encoding


def _decompress(message: Any) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, C) pixels and their encoding; OpenCV decodes colours as BGR."""
    said = str(message.format)
    if is_depth(said):
        return decompress_depth(message.data, said)
    pixels = decompress(message.data)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        encoding = {np.dtype(np.uint8): "mono8", np.dtype(np.uint16): "mono16"}.get(pixels.dtype)
        stated = said.partition(";")[0].strip()  # image_transport leaves depth and Bayer patterns as they are
        if encoding and _LAYOUT.get(stated) == _LAYOUT[encoding] and stated not in _PLANES:
            encoding = stated
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
    elif encoding == "nv24":
        pixels, encoding = _doubled(pixels), "yuyv"
        return np.ascontiguousarray(cv2.cvtColor(pixels, _TO_RGB[encoding])[:, ::2])
    if encoding in _TO_RGB:
        pixels = cv2.cvtColor(pixels, _TO_RGB[encoding])
    if pixels.dtype == np.uint16:
        pixels = _high_byte(pixels)
    return np.ascontiguousarray(pixels) if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def _doubled(planes: np.ndarray) -> np.ndarray:
    """nv24, (3 H, W) uint8, as yuyv of twice the width, (H, 2 W, 2): with each pixel twice."""
    height, width = len(planes) // 3, planes.shape[1]
    grey, colour = planes[:height], planes[height:].reshape(height, width, 2)
    return np.stack([grey, colour[..., 0], grey, colour[..., 1]], axis=-1).reshape(height, 2 * width, 2)


def _high_byte(pixels: np.ndarray) -> np.ndarray:
    """(H, W, ...) uint16 to uint8 so that 65535 becomes 255: v / 257, rounded."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
