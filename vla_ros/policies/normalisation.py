"""Statistics, and how policies normalise with them. They are stored only in the checkpoint folder."""

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
NAMES = tuple(name for names in MODES.values() for name in names)  # of statistics; datasets contain others too
LARGEST = 1e12  # for a statistic: sums and products of two stay finite
# Style -> the number that it adds, or puts in place of zero.
STYLES = {"openpi": 1e-6, "lerobot": 1e-8, "go1": 1e-6, "openvla": 1e-8, "openvla_oft": 1e-8}


@dataclass(frozen=True)
class Normalisation:
    """An invertible map of the last dimension, (..., D) float64, to a range of about [-1, 1].

    mean_std maps mean ± std to ± 1; the other modes map their two bounds to -1 and 1.

    The published code avoids division by zero in several ways (`style`), and checkpoints were trained with them:
    "openpi" adds 1e-6 to a deviation or a width, in both directions; "lerobot" adds 1e-8 to a deviation, only when
    normalising, and replaces a width of exactly zero by 1e-8; "go1" is like "lerobot" with 1e-6; "openvla" adds 1e-8
    when normalising, "openvla_oft" in both directions. These two clip to [-1, 1] and map a dimension that never moved
    (min = max) to 0. Our own checkpoints use "openpi", whose inverse is exact.

    Dimensions whose statistic `mask` is 0 are not changed.

    Without statistics only the mode is known: such an instance can describe a checkpoint, but not normalise.
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
        sizes = {name: np.size(self.statistics[name]) for name in NAMES if name in self.statistics}
        if len(set(sizes.values())) > 1:
            raise InputError(f"normalisation {self.mode}: statistics of {sizes} numbers, expected as many of each")
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
        """(..., D) in the units of the robot or of the policy file, normalised. Raises InputError for too few
        statistics."""
        if self.mode == "identity":
            return np.asarray(x, dtype=np.float64)
        x = np.asarray(x, dtype=np.float64)
        centre, width = self._affine(x.shape[-1], forward=True)
        normalised = (x - centre) / width
        if self.mode == "mean_std" or not self.style.startswith("openvla"):
            return normalised
        dims, (low, high) = len(centre), MODES[self.mode]
        normalised = np.where(self._row("mask", "", dims) != 0, np.clip(normalised, -1, 1), normalised)
        return np.where(self._row("min", low, dims) == self._row("max", high, dims), 0.0, normalised)

    def restore(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `normalise`, (..., D)."""
        if self.mode == "identity":
            return np.asarray(x, dtype=np.float64)
        centre, width = self._affine(np.shape(x)[-1], forward=False)
        return np.asarray(x, dtype=np.float64) * width + centre

    def _affine(self, dims: int, forward: bool) -> tuple[np.ndarray, np.ndarray]:
        """Centre and half-width (or deviation), (dims,) each; statistics of padded dimensions are dropped."""
        if self.missing:
            raise InputError(f"normalisation {self.mode}: the checkpoint has no statistics")
        first, second = (self._row(name, name, dims) for name in MODES[self.mode])
        guard = STYLES[self.style]
        both_ways = self.style in ("openpi", "openvla_oft")
        if self.mode == "mean_std":
            return self._where_asked(first, second + (guard if forward or both_ways else 0.0))
        width = second - first
        if self.style in ("lerobot", "go1"):
            width = np.where(width == 0, guard, width)
        elif forward or both_ways:
            width = width + guard
        return self._where_asked(first + width / 2, width / 2)

    def _where_asked(self, centre: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, (dims,) each, but 0 and 1 for dimensions that the mask excludes."""
        kept = self._row("mask", "", len(centre)) == 0
        return np.where(kept, 0.0, centre), np.where(kept, 1.0, width)

    def _row(self, name: str, otherwise: str, dims: int) -> np.ndarray:
        """(dims,) float64 of a statistic; if it is missing, of another one; if that is missing too, ones."""
        values = self.statistics.get(name, self.statistics.get(otherwise, np.ones(dims)))
        values = np.asarray(values, dtype=np.float64)
        if len(values) < dims:
            raise InputError(f"statistics of {len(values)} dimensions, expected at least {dims}")
        return values[:dims]


# Without it, the sensor noise of a joint that hardly moved in the data would be scaled up to the size of a motion.
LEAST_DEVIATION = 0.01  # rad or m


def widened(rows: Mapping[str, np.ndarray], least: float = LEAST_DEVIATION) -> dict[str, np.ndarray]:
    """Statistics of J joints, (J,) rad or m each, whose deviations are at least `least` and whose ranges are at least
    twice as much.

    Statistics that no normalisation uses (a dataset's count of frames) are dropped.
    """
    result = {name: np.asarray(values, dtype=np.float64) for name, values in rows.items() if name in NAMES}
    if "std" in result:
        result["std"] = np.maximum(result["std"], least)
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in result and high in result:
            short = np.maximum(2 * least - (result[high] - result[low]), 0) / 2
            result[low], result[high] = result[low] - short, result[high] + short
    return result


def read_statistics(path: Path, features: Collection[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """`statistics.json` of an own checkpoint, or a dataset's `meta/stats.json`, (D,) each.

    Args:
        features: which to read; all by default.

    Raises InputError, also for a feature that is missing.
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
    """Write what `read_statistics` reads; float64 numbers are kept exactly."""
    data = {
        feature: {name: np.asarray(values, dtype=np.float64).tolist() for name, values in rows.items()}
        for feature, rows in statistics.items()
    }
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
