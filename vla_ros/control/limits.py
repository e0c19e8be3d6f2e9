"""The limits of all commands, from robot file and URDF; the stricter one applies, and its source is recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vla_ros.control.urdf import UrdfLimit
from vla_ros.core.errors import InputError
from vla_ros.core.joint import Joint
from vla_ros.core.robot import RobotSpec

ROBOT_FILE, URDF = "robot file", "URDF"
_LARGEST = 1e12  # rad or m (per s, per s²): larger values may overflow
_ROUNDING = 1e-3  # fraction of a limit that the rounding of positions may be
_HELD = 1e-6  # fraction of a limit that counts as the limit itself
_LONGEST_WINDOW = 5.0  # s, of the moving average that bounds jerk
_FREE = 1e3  # of a velocity dimension: how often its change may reverse within a period


@dataclass(frozen=True)
class Limits:
    """Limits of J joints, in the order of the robot file.

    A velocity dimension of a base is a column whose value is a velocity: `lower` and `upper` are its highest speeds,
    `velocity` is how fast the value may change, i.e. the base's acceleration, and `acceleration` is too large to
    matter.

    Attributes:
        names: J joint names.
        units: J units, "rad" or "m"; "rad/s" or "m/s" of a velocity dimension.
        lower, upper: (J,) in these units, without the margin.
        velocity: (J,) units per s.
        acceleration: (J,) units per s².
        jerk: (J,) rad/s³ or m/s³, infinite if it is not limited.
        discrete: (J,) bool, joints that step instead of moving smoothly (a gripper).
        groups: (J,) int, number of the command group of each.
        sources: joint -> field -> "robot file" or "URDF".
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    discrete: np.ndarray
    groups: np.ndarray
    sources: Mapping[str, Mapping[str, str]]

    @cached_property
    def rates(self) -> np.ndarray:
        """(J,) bool, velocity dimensions: held, they are braked to zero."""
        return np.array([unit.endswith("/s") for unit in self.units], dtype=bool)

    @cached_property
    def speed(self) -> np.ndarray:
        """(J,) highest speed, rad/s or m/s: `velocity` of a joint, the greatest value of a velocity dimension."""
        return np.where(self.rates, np.maximum(self.upper, -self.lower), self.velocity)

    @property
    def range(self) -> np.ndarray:
        """(J,) rad or m (of velocity dimensions per s) between the limits of the values."""
        return self.upper - self.lower

    def outside(self, position: np.ndarray, tolerance: float) -> str:
        """The joint of `position` (J,) furthest outside, if by more than `tolerance` of its range, in words; else
        ""."""
        out = np.maximum(position - self.upper, self.lower - position) - tolerance * self.range
        i = int(out.argmax())
        if not out[i] > 0:
            return ""
        bounds = f"{self.lower[i]:.4g} to {self.upper[i]:.4g}"
        return f"joint {self.names[i]}: measured {position[i]:.4g} {self.units[i]}, expected {bounds}"

    def binding(self, position: np.ndarray, velocity: np.ndarray) -> list[str]:
        """J words: which limit would hold back a joint whose last command was `position` (J,) with `velocity` (J,):
        "position" at an end of its range, "velocity" at full speed, else "acceleration" (or jerk). A velocity dimension
        is at full speed at an end of its range."""
        near = _HELD * self.range
        ended = (position >= self.upper - near) | (position <= self.lower + near)
        fast = np.abs(velocity) >= self.velocity * (1.0 - _HELD)
        joint = np.where(ended, "position", np.where(fast, "velocity", "acceleration"))
        return np.where(self.rates, np.where(ended, "velocity", "acceleration"), joint).tolist()

    def window(self, dt: float) -> np.ndarray:
        """(J,) int, length of the moving average that bounds jerk, in commands `dt` s apart; 1 without a jerk limit."""
        return np.maximum(np.ceil(2.0 * self.acceleration / (self.jerk * dt)), 1.0).astype(int)

    @classmethod
    def merge(cls, robot: RobotSpec, urdf: Mapping[str, UrdfLimit] | None = None) -> "Limits":
        """The stricter of robot file and URDF for each joint and field, less the margin.

        Raises InputError if the URDF has none of the robot's joints or leaves a joint no range, and for limits that
        cannot be computed reliably in double precision at the robot's control rate.
        """
        urdf = urdf or {}
        if urdf and not set(urdf) & set(robot.joint_names):
            raise InputError(
                f"URDF: has joints {sorted(urdf)}, expected some of the robot file's {list(robot.joint_names)}"
            )
        rows, sources = [], {}
        for joint in robot.joints:
            other = urdf.get(joint.name, UrdfLimit())
            if other.unit not in ("", joint.unit):
                raise InputError(
                    f"joint {joint.name}: unit {joint.unit} in the robot file, expected {other.unit} as in the URDF"
                )
            stricter = {
                "lower": other.lower > joint.lower,
                "upper": other.upper < joint.upper,
                "velocity": other.velocity < joint.velocity,
                "acceleration": False,
                "jerk": False,
            }
            sources[joint.name] = {name: URDF if wins else ROBOT_FILE for name, wins in stricter.items()}
            margin = robot.margin(joint)
            lower = max(joint.lower, other.lower) + margin
            upper = min(joint.upper, other.upper) - margin
            if not lower < upper:
                raise InputError(
                    f"joint {joint.name}: robot file ({joint.lower} to {joint.upper}) and URDF ({other.lower} to "
                    f"{other.upper}) leave no room with a margin of {margin} {joint.unit}"
                )
            jerk = np.inf if joint.jerk is None else joint.jerk
            velocity = min(joint.velocity, other.velocity)
            _check_holdable(joint, lower, upper, velocity, jerk, robot.control_rate)
            acceleration = joint.acceleration
            if joint.is_velocity:
                velocity, acceleration = acceleration, _FREE * acceleration * robot.control_rate
            rows.append((lower, upper, velocity, acceleration, jerk))
        columns = np.array(rows, dtype=np.float64).T.copy()
        number = {name: i for i, group in enumerate(robot.groups) for name in group.joints}
        groups = np.array([number[name] for name in robot.joint_names])
        units = tuple(joint.unit for joint in robot.joints)
        return cls(robot.joint_names, units, *columns, robot.discrete, groups, sources)

    def report(self) -> dict[str, str]:
        """Joint -> its limits and the source of each, in words, for `vla-ros info`."""
        lines = {}
        for i, name in enumerate(self.names):
            unit, source = self.units[i], self.sources[name]
            ends = f"{self.lower[i]:.4g} ({source['lower']}) to {self.upper[i]:.4g} {unit} ({source['upper']})"
            if self.rates[i]:
                lines[name] = f"{ends}, {self.velocity[i]:.4g} {unit}² ({source['acceleration']})"
                continue
            parts = [
                ends,
                f"{self.velocity[i]:.4g} {unit}/s ({source['velocity']})",
                f"{self.acceleration[i]:.4g} {unit}/s² ({source['acceleration']})",
            ]
            if np.isfinite(self.jerk[i]):
                parts.append(f"{self.jerk[i]:.4g} {unit}/s³ ({source['jerk']})")
            lines[name] = ", ".join(parts)
        return lines


def _check_holdable(joint: Joint, lower: float, upper: float, velocity: float, jerk: float, rate: float) -> None:
    """Raises InputError for limits that cannot be computed reliably for commands at `rate` Hz."""
    what, unit, acceleration = f"joint {joint.name}", joint.unit, joint.acceleration
    for field, value in {"lower": lower, "upper": upper, "velocity": velocity, "acceleration": acceleration}.items():
        if abs(value) > _LARGEST:
            raise InputError(f"{what}: {field} {value:g}, expected at most {_LARGEST:g} from zero")
    grain = float(np.spacing(max(abs(lower), abs(upper)))) / _ROUNDING
    derivatives = (("velocity", velocity), ("acceleration", acceleration))
    for k, (field, value) in enumerate(derivatives[1:] if joint.is_velocity else derivatives, start=1):
        if value < (least := grain * rate**k):
            raise InputError(
                f"{what}: {field} {value:g}, expected at least {least:.2g}: less is lost in the rounding of values "
                f"{lower:g} to {upper:g} {unit} at {rate:g} Hz; raise it or narrow the limits"
            )
    if 2.0 * acceleration > jerk * _LONGEST_WINDOW:
        raise InputError(
            f"{what}: jerk {jerk:g} {unit}/s³, expected at least {2.0 * acceleration / _LONGEST_WINDOW:g}, with which "
            f"the acceleration limit takes {_LONGEST_WINDOW / 2:g} s to build up"
        )
