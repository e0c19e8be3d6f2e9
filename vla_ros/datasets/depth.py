"""Depth as video: 12-bit codes of a range that info.json gives, as LeRobot 0.6 stores them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import av
import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Range, value_of

BITS = 12
Metres = Annotated[float, Range(-1e3, 1e3)]


def is_depth(feature: Mapping[str, Any]) -> bool:
    info = _info(feature)
    marked = info.get("is_depth_map") or info.get("video.is_depth_map")
    return bool(marked) or str(info.get("video.pix_fmt", "")).startswith(("gray1", "gray9"))


def _info(feature: Mapping[str, Any]) -> dict[str, Any]:
    return (feature.get("info") or {}) | (feature.get("video_info") or {})


@dataclass(frozen=True)
class DepthCode:
    """The depth that each code stands for.

    With u = code / 4095, it is min + u (max - min) or, of logarithmic codes,
    (min + shift)^(1 - u) (max + shift)^u - shift (`quantize_depth` of LeRobot 0.6.1).

    Attributes:
        millimetres: (4096,) uint16.
    """

    millimetres: np.ndarray

    @classmethod
    def of(cls, feature: Mapping[str, Any], where: str) -> "DepthCode":
        """As info.json describes a feature. Raises InputError if it does not give the range."""
        info = _info(feature)
        names = ("depth_min", "depth_max", "shift", "use_log")
        if missing := [f"video.{name}" for name in names if info.get(f"video.{name}") is None]:
            raise InputError(f"{where}: depth as video, whose range the file does not give: no {', '.join(missing)}")
        low, high, shift = (value_of(Metres, info[f"video.{n}"], f"{where}: video.{n}") for n in names[:3])
        logarithmic = value_of(bool, info["video.use_log"], f"{where}: video.use_log")
        if not 0 <= low < high or logarithmic and low + shift <= 0:
            raise InputError(f"{where}: depth from {low} to {high} m, shift {shift} m, expected a range that "
                             "rises from zero or more, and a positive sum of its begin and the shift")
        ends = np.log([low + shift, high + shift]) if logarithmic else np.array([low, high])
        codes = np.arange(1 << BITS, dtype=np.float32)  # single precision, for the same roundings as LeRobot's
        depth = codes * np.float32((ends[1] - ends[0]) / codes[-1]) + np.float32(ends[0])
        depth = np.exp(depth) - np.float32(shift) if logarithmic else depth
        return cls(np.clip(np.rint(np.clip(depth, low, high) * np.float32(1000)), 0, 65535).astype(np.uint16))

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(h, w, 1) uint16 mm. Raises InputError for frames of another format."""
        kind = frame.format
        if kind.components[0].bits != BITS or kind.name.endswith("be") or not kind.name.startswith(("gray", "yuv")):
            raise InputError(f"depth as {shown(kind.name)}, expected gray{BITS}le")
        plane = frame.planes[0]
        rows = np.frombuffer(plane, "<u2").reshape(plane.height, plane.line_size // 2)[:, : plane.width]
        return self.millimetres[np.minimum(rows, (1 << BITS) - 1)][..., None]
