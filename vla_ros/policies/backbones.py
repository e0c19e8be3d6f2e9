"""Which image backbones a policy can name."""

from collections.abc import Sequence

from vla_ros.core.errors import InputError
from vla_ros.nn.resnet import DEPTHS

KEYPOINT_STEM = "keypoint_stem"


def check_backbone(family: str, name: str, vocabulary: Sequence[str], image_size: tuple[int, int]) -> None:
    """Raises InputError for an unknown backbone, or where the small one has no text or no square images."""
    if name not in (*DEPTHS, KEYPOINT_STEM):
        raise InputError(f"{family}: vision_backbone {name!r}, expected one of {[*sorted(DEPTHS), KEYPOINT_STEM]}")
    if name != KEYPOINT_STEM:
        return
    if not vocabulary:
        raise InputError(f"{family}: vision_backbone {name} looks for what the text names, expected language: true")
    if image_size[0] != image_size[1] or image_size[0] % 24:
        raise InputError(f"{family}: image_size {image_size}, {name} takes squares of a multiple of 24 pixels")
