"""Camera images for the page: JPEG of at most 10 Hz, as they are and as the policy sees them."""

import struct
import time
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.robot import Camera
from vla_ros.messages.images import image_size, jpeg, narrowed, rgb_image
from vla_ros.messages.stamps import NS, stamp_ns

RATE = 10.0  # Hz
WIDEST = 480  # pixels of an image as it is shown; the policy's view keeps its size
_QUALITY = 75  # of a JPEG
LARGEST = 64 << 20  # bytes of a message


class Picture:
    """The newest image of one camera.

    Attributes:
        size: (height, width) pixels as it came, None before the first.
        encoding, trouble: encoding of the message; why it cannot be shown.
        rate: Hz at which the camera publishes, from its message numbers; NaN if they have none.
        stamp_ns: of the newest image, 0 before it.
        came: s, steady time at which it was taken, 0 before it.
    """

    def __init__(self, camera: Camera, index: int, policy_view: Any = None) -> None:
        """`policy_view`: (H, W, 3) uint8 -> as the policy sees it; None if that is not known."""
        self.camera, self._index, self._policy_view = camera, index, policy_view
        self.size: tuple[int, int] | None = None
        self.encoding, self.trouble, self.rate, self.stamp_ns = "", "", float("nan"), 0
        self.came = 0.0
        self._counted = (0, 0.0)  # number of a message, and its time

    def take(self, message: Any, number: int) -> None:
        """`number`: the publisher's number of the message."""
        now = time.monotonic()
        last, then = self._counted
        if number < last or not then:
            self._counted = (number, now)
        elif now - then > 1.0:
            self.rate, self._counted = (number - last) / (now - then), (number, now)
        self.encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
        self.stamp_ns, self.came = stamp_ns(message), now
        self._message = message
        try:
            self.size, self.trouble = image_size(message), ""
        except InputError as error:
            self.trouble = str(error)

    def encode(self, view: int, now_ns: int) -> bytes | None:
        """The newest image in one of the `views`: index, view, age (s), rate (Hz), and the JPEG; None if it cannot be
        shown."""
        try:
            image = rgb_image(self._message)
            shown = self._policy_view(image) if view else narrowed(image, WIDEST)
        except InputError as error:
            self.trouble = str(error)
            return None
        by_stamp = (now_ns - self.stamp_ns) / NS
        age = by_stamp if self.camera.stamps == "header" else time.monotonic() - self.came
        return struct.pack("<BBff", self._index, view, age, self.rate) + jpeg(shown, _QUALITY)

    @property
    def views(self) -> range:
        """0: as it is; 1: as the policy sees it, if that is known."""
        return range(1 if self._policy_view is None else 2)


def policy_views(processor: Any) -> dict[str, Any]:
    """Camera -> (H, W, 3) uint8 -> (h, w, 3) uint8 as the policy sees it; of a camera that is several of its images the
    first. Empty where the processor does not say it (no `StandardProcessor`)."""
    if not hasattr(processor, "fit") or not hasattr(processor, "size_of"):
        return {}
    from vla_ros.policies.images import FITS

    fit = FITS[processor.fit]

    def view(image: str) -> Any:
        def see(pixels: np.ndarray) -> np.ndarray:
            seen = fit.resize(pixels, *processor.size_of(image))
            return seen if seen.dtype == np.uint8 else np.rint((np.clip(seen, -1, 1) + 1) * 127.5).astype(np.uint8)

        return see

    cameras = processor.embodiment.cameras
    return {cameras[image]: view(image) for image in reversed(processor.image_names) if cameras[image] is not None}
