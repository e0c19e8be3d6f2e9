"""One number of a policy's state or action: of which joint, in which unit, and what its statistics say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import record, value_of
from vla_ros.core.robot import WIDEST

MODES = ("absolute", "delta", "rate")
# Statistics of a dimension without a joint.
UNUSED = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0, "q01": -1.0, "q99": 1.0, "q10": -1.0, "q90": 1.0}
# LeRobot's names of the units that its robots record -> the numbers that a joint's `range` becomes; degrees need none.
UNITS = {"degrees": None, "range_m100_100": (-100.0, 100.0), "range_0_100": (0.0, 100.0)}


@dataclass(frozen=True)
class Linkage:
    """A gripper whose fingers are pushed by a crank, as on ViperX arms: angle = asin((r² + x² - l²) / (2 r x)).

    Attributes:
        arm_length: l, length of the rod between crank and finger, m.
        horn_radius: r, radius of the crank, m.
    """

    arm_length: float
    horn_radius: float

    def __post_init__(self) -> None:
        if not 0 < self.horn_radius <= self.arm_length:
            raise InputError(f"horn_radius {self.horn_radius} m, arm_length {self.arm_length} m: expected positive "
                             "numbers, the arm no shorter than the horn")

    def angle(self, position: np.ndarray) -> np.ndarray:
        """(...) finger positions, m, to angles of the crank, rad (Interbotix's constants, as openpi uses them)."""
        position = np.maximum(position, 1e-6)
        sine = (self.horn_radius**2 + position**2 - self.arm_length**2) / (2 * self.horn_radius * position)
        return np.arcsin(np.clip(sine, -1.0, 1.0))

    def position(self, angle: np.ndarray) -> np.ndarray:
        """The inverse of `angle`, (...): the positive root of x² - 2 r x sin(angle) + r² - l² = 0."""
        half = self.horn_radius * np.sin(angle)
        return half + np.sqrt(half**2 + self.arm_length**2 - self.horn_radius**2)


@dataclass(frozen=True)
class Dimension:
    """One number of the policy's state or action: scale · f(joint) + offset, f the linkage or nothing.

    Attributes:
        joint: name in the robot file; None: a dimension of a tool (`tool`, `tool_state`), or one that the robot does
            not have (state 0, action ignored).
        scale: policy units per rad or m; negative if the directions are opposite.
        offset: in policy units.
        mode: only for actions: "absolute", "delta" (difference to the observed state) or "rate" (difference to the row
            before; for the first row, to the observed state).
        linkage: for the finger of a gripper that a crank pushes, see below.
    """

    joint: str | None
    scale: float = 1.0
    offset: float = 0.0
    mode: str = "absolute"
    linkage: Linkage | None = None

    def to_policy(self, value: np.ndarray) -> np.ndarray:
        """(...) joint positions, rad or m, to the policy's unit."""
        return (self.linkage.angle(value) if self.linkage else value) * self.scale + self.offset

    def to_robot(self, value: np.ndarray) -> np.ndarray:
        """The inverse of `to_policy`, (...)."""
        value = (value - self.offset) / self.scale
        return self.linkage.position(value) if self.linkage else value

    def of_mode(self, targets: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(..., H) targets and the (...) observed value, in the policy's unit, to (..., H) actions of the mode."""
        if self.mode == "delta":
            return targets - start[..., None]
        return np.diff(targets, axis=-1, prepend=start[..., None]) if self.mode == "rate" else targets


def read_dimension(row: Any, where: str) -> Dimension:
    """A row of a file: the name of a joint alone, or the fields of `Dimension`; in place of scale and offset `unit`,
    one of UNITS, with `range`: the joint's rad or m at the unit's two ends. Raises InputError."""
    row = {"joint": row} if isinstance(row, str) else row
    if not isinstance(row, Mapping) or not {"unit", "range"} & row.keys():
        return record(Dimension, row, where)
    row = dict(row)
    unit, span = row.pop("unit", None), row.pop("range", None)
    if unit not in list(UNITS):  # from a file: may not be hashable
        raise InputError(f"{where}: unit {shown(unit)}, expected one of {list(UNITS)}; rad and m need none")
    if {"scale", "offset"} & row.keys():
        raise InputError(f"{where}: unit {unit} and a scale or offset, expected one or the other")
    if (ends := UNITS[unit]) is None:
        if span is not None:
            raise InputError(f"{where}: range {shown(span)}, expected none with the unit {unit}")
        return record(Dimension, row | {"scale": math.degrees(1)}, where)
    low, high = value_of(tuple[float, float], span, f"{where}: range (rad or m at {ends[0]:g} and {ends[1]:g})")
    if low == high:
        raise InputError(f"{where}: range [{low:g}, {high:g}], expected two different positions")
    scale = (ends[1] - ends[0]) / (high - low)
    return record(Dimension, row | {"scale": scale, "offset": ends[0] - scale * low}, where)


def check_start(action: Dimension, start: Dimension | None, number: int, where: str) -> None:
    """Raises InputError unless an action that is a difference to this number of the state has its joint and unit."""
    if start != replace(action, mode="absolute"):
        said = "none" if start is None else f"{start.joint}, scale {start.scale:g}, offset {start.offset:g}"
        raise InputError(f"{where} is a difference to number {number} of the state, which the policy file gives as "
                         f"{said}; expected the same joint, scale and offset in both")


def dimensions_statistics(
    dimensions: Sequence[Dimension], rows: Mapping[str, np.ndarray], joints: Sequence[str]
) -> dict[str, np.ndarray]:
    """Statistics in the policy's units, (D,) each, from those of the joints in rad or m, (J,) each.

    Raises InputError for a dimension whose statistics do not follow from its joint's.
    """
    pairs = {"min": "max", "max": "min", "q01": "q99", "q99": "q01", "q10": "q90", "q90": "q10"}
    result: dict[str, list[float]] = {name: [] for name in rows}
    for dimension in dimensions:
        if dimension.mode != "absolute":
            raise InputError(f"action of {dimension.joint}: mode {dimension.mode}, its statistics do not follow from "
                             "those of joint targets; keep the checkpoint's (--statistics keep)")
        for name, values in rows.items():
            if dimension.joint is None:
                value = UNUSED[name]
            elif len(values) != len(joints):
                raise InputError(f"statistics of {len(values)} joints, expected {len(joints)}: {list(joints)}")
            elif name == "std":
                if dimension.linkage:
                    raise InputError(f"{dimension.joint}: a linkage; keep the checkpoint's statistics")
                value = abs(dimension.scale) * values[joints.index(dimension.joint)]
            else:  # a negative scale swaps min and max
                source = pairs.get(name, name) if dimension.scale < 0 else name
                value = dimension.to_policy(np.asarray(rows[source][joints.index(dimension.joint)], dtype=np.float64))
            result[name].append(float(value))
    return {name: np.array(values) for name, values in result.items()}


def not_rad(
    dimensions: Sequence[Dimension], rows: Mapping[str, np.ndarray], limits: Mapping[str, float] | None = None
) -> str:
    """Why statistics, (D,) each in the policy's units, cannot be those of joints in rad or m; "" if they can.

    Mean and two deviations are used only if there are no bounds, as in old folders: bounds may lie within two
    deviations of the mean, for example those of a joint that only has two positions.

    Args:
        limits: joint -> largest distance from zero that the robot allows, if that is more.
    """
    low = {name: np.asarray(rows[name], np.float64) for name in ("min", "max", "mean", "q01", "q99") if name in rows}
    how = ""
    if low.keys() == {"mean"} and "std" in rows:
        how = " (mean ± 2 std)"
        low |= {sign: low["mean"] + sign * np.asarray(rows["std"]) for sign in (-2, 2)}
    for index, d in enumerate(dimensions):
        found = [values[index] for values in low.values() if index < len(values)]
        if d.joint is None or d.linkage or not found:
            continue
        offset = d.offset if d.mode == "absolute" else 0.0
        reach = max(abs((value - offset) / d.scale) for value in found)
        if reach > max(WIDEST, 1.5 * (limits or {}).get(d.joint, 0.0)):
            return f"{d.joint} reaches {reach:.4g}{how}, which cannot be rad or m; give each joint's unit, as in "\
                   f"`- {{joint: {d.joint}, unit: degrees}}`"
    return ""
