"""The limits that every command obeys: robot file and URDF merged, the stricter wins and is named."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_ros.control.urdf import UrdfLimit
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec

ROBOT_FILE, URDF = "robot file", "URDF"


@dataclass(frozen=True)
class Limits:
    """Limits of J joints, in the order of the robot file.

    Attributes:
        names: J joint names.
        units: J units, "rad" or "m".
        lower, upper: (J,) rad or m, the position margin already taken off.
        velocity: (J,) rad/s or m/s.
        acceleration: (J,) rad/s² or m/s².
        jerk: (J,) rad/s³ or m/s³, infinite where it is not limited.
        discrete: (J,) bool, joints that step instead of glide (a gripper).
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
    sources: Mapping[str, Mapping[str, str]]

    @property
    def range(self) -> np.ndarray:
        """(J,) rad or m between the position limits."""
        return self.upper - self.lower

    @classmethod
    def merge(cls, robot: RobotSpec, urdf: Mapping[str, UrdfLimit] | None = None) -> "Limits":
        """The stricter of robot file and URDF for each joint and field; the margin comes off the result.

        Raises InputError when the URDF has none of the robot's joints, or leaves a joint no room.
        """
        urdf = urdf or {}
        if urdf and not set(urdf) & set(robot.joint_names):
            raise InputError(
                f"URDF: has joints {sorted(urdf)}, expected some of the robot file's {list(robot.joint_names)}"
            )
        rows, sources = [], {}
        for joint in robot.joints:
            other = urdf.get(joint.name, UrdfLimit())
            stricter = {
                "lower": other.lower > joint.lower,
                "upper": other.upper < joint.upper,
                "velocity": other.velocity < joint.velocity,
                "acceleration": False,
                "jerk": False,
            }
            sources[joint.name] = {name: URDF if wins else ROBOT_FILE for name, wins in stricter.items()}
            lower = max(joint.lower, other.lower) + robot.position_margin
            upper = min(joint.upper, other.upper) - robot.position_margin
            if not lower < upper:
                raise InputError(
                    f"joint {joint.name}: robot file ({joint.lower} to {joint.upper}) and URDF ({other.lower} to "
                    f"{other.upper}) leave no room with position_margin {robot.position_margin}"
                )
            jerk = np.inf if joint.jerk is None else joint.jerk
            rows.append((lower, upper, min(joint.velocity, other.velocity), joint.acceleration, jerk))
        columns = np.array(rows, dtype=np.float64).T.copy()
        return cls(robot.joint_names, tuple(joint.unit for joint in robot.joints), *columns, robot.discrete, sources)

    def report(self) -> dict[str, str]:
        """Joint -> its limits and where each comes from, in words; what `vla-ros info` prints."""
        lines = {}
        for i, name in enumerate(self.names):
            unit, source = self.units[i], self.sources[name]
            parts = [
                f"{self.lower[i]:.4g} ({source['lower']}) to {self.upper[i]:.4g} {unit} ({source['upper']})",
                f"{self.velocity[i]:.4g} {unit}/s ({source['velocity']})",
                f"{self.acceleration[i]:.4g} {unit}/s² ({source['acceleration']})",
            ]
            if np.isfinite(self.jerk[i]):
                parts.append(f"{self.jerk[i]:.4g} {unit}/s³ ({source['jerk']})")
            lines[name] = ", ".join(parts)
        return lines
