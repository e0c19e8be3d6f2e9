"""Statistics and what policies do with them; they live in the checkpoint folder and nowhere else."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import read_mapping, value_of

Statistics = Mapping[str, Mapping[str, np.ndarray]]  # feature ("observation.state", "action") -> "mean" -> (D,)

# mode: the statistics it needs
MODES = {
    "identity": (),
    "mean_std": ("mean", "std"),
    "min_max": ("min", "max"),
    "quantiles": ("q01", "q99"),
    "deciles": ("q10", "q90"),
}
NAMES = tuple(name for names in MODES.values() for name in names)  # of statistics; datasets hold others too
LARGEST = 1e12  # of a statistic: sums and products of two stay finite
STYLES = {"openpi": 1e-6, "lerobot": 1e-8}  # and the number that each adds or puts in place of zero


@dataclass(frozen=True)
class Normalisation:
    """An invertible map of the last dimension, (..., D) float64, to a scale of about one.

    mean_std maps mean ± std to ± 1; the other modes map their two bounds to -1 and 1.

    The published code guards against division by zero in two ways (`style`), and checkpoints were trained with them:
    "openpi" adds 1e-6 to a deviation or a width, both ways; "lerobot" adds 1e-8 to a deviation, when normalising
    alone, and puts 1e-8 in place of a width of exactly zero. Own checkpoints use "openpi", whose inverse is exact.

    Without any statistics only the mode is known: such a one describes a checkpoint, but maps nothing.
    """

    mode: str
    statistics: Mapping[str, np.ndarray]
    style: str = "openpi"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"normalisation {self.mode!r}, expected one of {sorted(MODES)}")
        if self.style not in STYLES:
            raise InputError(f"normalisation style {self.style!r}, expected one of {sorted(STYLES)}")
        for name in MODES[self.mode] if self.statistics else ():
            if name not in self.statistics:
                raise InputError(
                    f"normalisation {self.mode}: no {name!r} in the statistics, only {sorted(self.statistics)}"
                )
            values = np.asarray(self.statistics[name])
            if values.ndim != 1 or not (np.abs(values) <= LARGEST).all():
                raise InputError(
                    f"normalisation {self.mode}: {name} {shown(values.tolist())}, expected a list of "
                    f"finite numbers, none beyond {LARGEST:g}"
                )
        if self.statistics and self.mode != "identity":
            low, high = (np.asarray(self.statistics[name]) for name in MODES[self.mode])
            low = np.zeros_like(high) if self.mode == "mean_std" else low
            if low.shape == high.shape and (high < low).any():
                said = "deviations of zero or more" if self.mode == "mean_std" else "bounds in their order"
                raise InputError(f"normalisation {self.mode}: {shown(high.tolist())}, expected {said}")

    @property
    def missing(self) -> bool:
        """Whether it lacks the statistics that its mode needs."""
        return bool(MODES[self.mode]) and not self.statistics

    def normalise(self, x: np.ndarray) -> np.ndarray:
        """(..., D) in the robot's or policy file's units to normalised. Raises InputError for too few statistics."""
        if self.mode == "identity":
            return np.asarray(x, dtype=np.float64)
        centre, width = self._affine(np.shape(x)[-1], forward=True)
        return (np.asarray(x, dtype=np.float64) - centre) / width

    def restore(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `normalise`, (..., D)."""
        if self.mode == "identity":
            return np.asarray(x, dtype=np.float64)
        centre, width = self._affine(np.shape(x)[-1], forward=False)
        return np.asarray(x, dtype=np.float64) * width + centre

    def _affine(self, dims: int, forward: bool) -> tuple[np.ndarray, np.ndarray]:
        """Centre and half-width (or deviation), (dims,) each; statistics of padded dimensions are cut off."""
        if self.missing:
            raise InputError(f"normalisation {self.mode}: the checkpoint has no statistics")
        first, second = (np.asarray(self.statistics[name], dtype=np.float64) for name in MODES[self.mode])
        if len(first) < dims or len(second) < dims:
            raise InputError(f"statistics of {min(len(first), len(second))} dimensions, expected at least {dims}")
        first, second = first[:dims], second[:dims]
        if self.mode == "mean_std":
            return first, second + (STYLES[self.style] if forward or self.style == "openpi" else 0.0)
        width, guard = second - first, STYLES[self.style]
        width = width + guard if self.style == "openpi" else np.where(width == 0, guard, width)
        return first + width / 2, width / 2


# A joint that hardly moved in the data would have its sensor noise blown up to the size of a motion.
LEAST_DEVIATION = 0.01  # rad or m


def widened(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of J joints, (J,) rad or m each, whose deviations and ranges are at least LEAST_DEVIATION wide.

    What no normalisation asks for (a dataset's count of frames) is left out.
    """
    result = {name: np.asarray(values, dtype=np.float64) for name, values in rows.items() if name in NAMES}
    if "std" in result:
        result["std"] = np.maximum(result["std"], LEAST_DEVIATION)
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in result and high in result:
            short = np.maximum(2 * LEAST_DEVIATION - (result[high] - result[low]), 0) / 2
            result[low], result[high] = result[low] - short, result[high] + short
    return result


def read_statistics(path: Path, features: Collection[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """`statistics.json` of an own checkpoint, or a dataset's `meta/stats.json`, (D,) each.

    Args:
        features: which to read; all by default.

    Raises InputError, also for a feature that is not there.
    """
    data = read_mapping(path, "statistics")
    for feature in features:
        if feature not in data:
            raise InputError(f"{path}: no {feature!r}, only {shown(sorted(data))}")
    return statistics_of({name: data[name] for name in features or data}, str(path))


def statistics_of(data: Any, where: str) -> dict[str, dict[str, np.ndarray]]:
    """A file's mapping of feature -> statistic -> numbers or null, (D,) each. Raises InputError."""
    rows = value_of(dict[str, dict[str, tuple[float, ...] | None]], data, where)
    return {
        feature: {name: np.array(values) for name, values in row.items() if values is not None}
        for feature, row in rows.items()
    }


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Write what `read_statistics` reads; every bit of the float64 numbers is kept."""
    data = {
        feature: {name: np.asarray(values, dtype=np.float64).tolist() for name, values in rows.items()}
        for feature, rows in statistics.items()
    }
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
