"""Statistics of a dataset: mean, std, min, max, quantiles and count of every feature, as LeRobot names them."""

from collections import UserDict
from typing import Any

import numpy as np

from vla_ros.core.statistics import QUANTILES

Statistics = dict[str, np.ndarray]


class Computed(UserDict):
    """Feature key -> its statistics; a function as value is called when it is first needed."""

    def __getitem__(self, key: str) -> Any:
        value = self.data[key]
        if callable(value):
            value = self.data[key] = value()
        return value


class PixelStatistics:
    """Statistics per channel of images, exact, from a histogram: memory does not grow with the data.

    Args:
        frames: (T, h, w, channels) uint8, whose pixels count in [0, 1], or uint16, which count as they are.
    """

    def __init__(self, frames: np.ndarray) -> None:
        levels, self.scale = (256, 1 / 255) if frames.dtype == np.uint8 else (65536, 1.0)
        channels = np.moveaxis(frames, -1, 0).reshape(frames.shape[-1], -1)
        self.histogram = np.stack([np.bincount(values, minlength=levels) for values in channels])
        self.frames = len(frames)

    def merge(self, other: "PixelStatistics") -> "PixelStatistics":
        """Add the other one's pixels to this one, and return it."""
        self.histogram += other.histogram
        self.frames += other.frames
        return self

    def result(self) -> Statistics:
        """Each (channels, 1, 1) float64; count = number of frames."""
        levels = np.arange(self.histogram.shape[1]) * self.scale
        share = self.histogram / self.histogram.sum(1, keepdims=True)
        mean = share @ levels
        std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
        below = np.cumsum(share, axis=1)
        present = [np.flatnonzero(row) for row in self.histogram]
        values = {
            "mean": mean,
            "std": std,
            "min": np.array([levels[p[0]] for p in present]),
            "max": np.array([levels[p[-1]] for p in present]),
            **{name: levels[np.argmax(below >= q - 1e-12, axis=1)] for name, q in QUANTILES.items()},
        }
        return {name: value.reshape(-1, 1, 1) for name, value in values.items()} | {"count": np.array([self.frames])}


def aggregate(parts: list[Statistics]) -> Statistics:
    """Statistics of the union from those of its parts, each (D,); quantiles cannot be combined and are left out."""
    counts, means, stds = (
        np.stack([np.asarray(part[name], float) for part in parts]) for name in ("count", "mean", "std")
    )
    counts = counts.reshape(len(parts))
    mean = np.average(means, axis=0, weights=counts)
    square = np.average(stds**2 + means**2, axis=0, weights=counts)
    return {
        "mean": mean,
        "std": np.sqrt(np.maximum(square - mean**2, 0)),
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "count": np.array([int(counts.sum())]),
    }
