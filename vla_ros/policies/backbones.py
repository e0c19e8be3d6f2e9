"""Which image backbones a policy can name."""

from collections.abc import Mapping, Sequence
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import record
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.resnet import DEPTHS
from vla_ros.nn.siglip import SiglipSize

KEYPOINT_STEM = "keypoint_stem"


def check_backbone(family: str, name: str, vocabulary: Sequence[str], image_size: tuple[int, int]) -> None:
    """Raises InputError for an unknown backbone, or if the small one gets no text or images that are not square."""
    if name not in (*DEPTHS, KEYPOINT_STEM):
        raise InputError(f"{family}: vision_backbone {name!r}, expected one of {[*sorted(DEPTHS), KEYPOINT_STEM]}")
    if name != KEYPOINT_STEM:
        return
    if not vocabulary:
        raise InputError(f"{family}: vision_backbone {name} locates what the text names, expected language: true")
    if image_size[0] != image_size[1] or image_size[0] % 24:
        raise InputError(f"{family}: image_size {image_size}, {name} takes squares of a multiple of 24 pixels")


def vision_size(value: Any, named: Mapping[str, Any], where: str) -> SiglipSize | KeypointStemSize:
    """A vision tower: the name of a known one, or a mapping of its fields, with or without `kind`.

    Raises InputError.
    """
    kinds = {"siglip": SiglipSize, KEYPOINT_STEM: KeypointStemSize}
    if isinstance(value, tuple(kinds.values())):
        return value
    if isinstance(value, str) and value in named:
        return named[value]
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {shown(value)}, expected one of {sorted(named)} or a mapping of sizes")
    row = dict(value)
    kind = row.pop("kind", KEYPOINT_STEM if "keypoints" in row else "siglip")
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{where}: kind {shown(kind)}, expected one of {sorted(kinds)}")
    return record(kinds[kind], row, where)
