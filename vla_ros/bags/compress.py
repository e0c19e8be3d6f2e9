"""Images to compressed images, serialized to serialized: what `record --compressed-images` stores."""

from collections.abc import Callable

import cv2
import numpy as np

from vla_ros.bags.definitions import deserialized, standard_store
from vla_ros.core.errors import InputError
from vla_ros.core.robot import Camera
from vla_ros.core.stream import COMPRESSED_IMAGE, IMAGE
from vla_ros.messages.images import raw_image, rgb_image

SUFFIX, DEPTH_SUFFIX = "/compressed", "/compressedDepth"  # of the topic, as image_transport names it
FORMATS = ("jpeg", "png")
_DEEP = ("mono16", "16UC1")  # PNG keeps 16 bits


def compressor(camera: Camera, format: str = "jpeg", quality: int = 95) -> Callable[[bytes], bytes] | None:
    """A function from a serialized Image to a serialized CompressedImage; None if the camera's images stay raw.

    16-bit images become PNG whatever the format; floating-point depth and compressed streams stay as they are.
    The function raises InputError for what is not an image.
    """
    if format not in FORMATS:
        raise InputError(f"image format {format!r}, expected one of {FORMATS}")
    if camera.compressed or camera.encoding == "32FC1":
        return None
    store = standard_store()
    kind = store.types[COMPRESSED_IMAGE]

    def compress(data: bytes) -> bytes:
        message = deserialized(store, IMAGE, data)
        if message.encoding == "32FC1":
            raise InputError("floating-point depth, which neither JPEG nor PNG can store")
        if message.encoding in _DEEP:
            pixels, said, chosen = raw_image(message), message.encoding, "png"
        else:
            pixels, said, chosen = cv2.cvtColor(rgb_image(message), cv2.COLOR_RGB2BGR), "rgb8", format
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if chosen == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        done, encoded = cv2.imencode(f".{chosen}", pixels, options)
        if not done:
            raise InputError(f"image of {message.encoding} cannot be written as {chosen}")
        order = f"{chosen} compressed" + ("" if said in _DEEP else " bgr8")
        result = kind(header=message.header, format=f"{said}; {order}", data=np.asarray(encoded, np.uint8).reshape(-1))
        return bytes(store.serialize_cdr(result, COMPRESSED_IMAGE))

    return compress
