"""An arm whose controller takes poses of the tool: six columns take the place of its joints.

They are x, y, z, and the rotation vector r relative to the first measured rotation R0: R = exp(r) R0. So timeline,
blending, limiter, watchdogs and e-stop work as for joints, with the tool's limits.

The tool turns with J r', J the left Jacobian of the rotations (Solà, Deray and Atchuthan 2018, "A micro Lie theory for
state estimation in robotics", eq. 145). Its singular values are 1 and sin(a / 2) / (a / 2) for an angle a = |r|, so
the tool never turns faster than r changes. They become 0 at a = 2 pi: the limits of r keep the angle below that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vla_ros.control.limits import ROBOT_FILE, Limits
from vla_ros.control.tool_inverse import Inverse
from vla_ros.core.robot import CommandGroup, RobotSpec
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.core.tool import TOOL_COLUMNS, Tool

FURTHEST = 3.5  # rad about each axis, 2 pi in length are the end of the columns


class PoseArm(Inverse):
    """As `ToolArm`, for these columns: the tool's pose for their values, and its Jacobian."""

    length = 1.0

    def __init__(self, tool: Tool, limits: Limits, instead: tuple[str, ...], adrift: bool = False) -> None:
        """`limits`: as `tool_limits` gives them. `instead`: the joints that the tool is commanded in place of.
        `adrift`: a tool that stands still does not return to its command, as with twists, which are then zero."""
        self.adrift = adrift
        self.tool, self.names, self.instead = tool, TOOL_COLUMNS, instead
        self.columns = np.array([limits.names.index(name) for name in self.names])
        self.together = ((self.columns[:3], 2), (self.columns[3:], 2))
        self.lower, self.upper = limits.lower[self.columns], limits.upper[self.columns]
        self.fastest, self.acceleration = limits.velocity[self.columns], limits.acceleration[self.columns]
        self._start: np.ndarray | None = None  # R0

    def values(self, place: np.ndarray, rotation: np.ndarray, near: np.ndarray) -> np.ndarray:
        """(6,) values of the columns for a position (3,) m and a rotation (3, 3); the rotation vector is the one
        nearest to `near` (6,), NaN if not known. The first rotation becomes R0."""
        if self._start is None:
            self._start = rotation.copy()
        turned = from_matrix(rotation @ self._start.T, "vector")
        angle = float(np.linalg.norm(turned))
        if angle > 0 and np.isfinite(near).all():
            axis = turned / angle
            turned = turned + 2 * np.pi * np.round((axis @ near[3:] - angle) / (2 * np.pi)) * axis
        return np.concatenate([place, turned])

    def pose(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(3,) m and the (3, 3) rotation of the tool in its `frame`, for (J,) values of all columns."""
        values = position[self.columns]
        turned = to_matrix(values[3:], "vector")
        return values[:3].copy(), turned if self._start is None else turned @ self._start

    def placed(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`pose`, and the (6, 6) Jacobian: m/s and rad/s of the tool, along and about the axes of `frame`."""
        jacobian = np.eye(6)
        jacobian[3:, 3:] = _left_jacobian(position[self.columns[3:]])
        return *self.pose(position), jacobian

    def turn(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(3,) rotation vector, rad in the frame of both, that takes one (3, 3) rotation to another."""
        return from_matrix(second @ first.T, "vector")


def _left_jacobian(turned: np.ndarray) -> np.ndarray:
    """(3, 3) left Jacobian of a rotation vector (3,): from its derivative to the angular velocity in the frame."""
    x, y, z = turned
    cross, angle = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]), float(np.linalg.norm(turned))
    if angle < 1e-4:  # its series; the remainder is below rounding
        return np.eye(3) + cross / 2 + cross @ cross / 6
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross + (angle - np.sin(angle)) / angle**3 * cross @ cross


def tool_limits(robot: RobotSpec, group: CommandGroup, limits: Limits) -> Limits:
    """Limits of the robot with the tool's columns in the place of the group's joints."""
    tool, kept = robot.tool, [i for i, name in enumerate(limits.names) if name not in group.joints]
    first = sum(i < limits.names.index(group.joints[0]) for i in kept)

    def merged(field: str, of_tool: Sequence[Any]) -> list[Any]:
        mine = [getattr(limits, field)[i] for i in kept]
        return [*mine[:first], *of_tool, *mine[first:]]

    def column(field: str, places: Sequence[Any], turns: Sequence[Any]) -> np.ndarray:
        return np.array(merged(field, [*places, *turns]), dtype=getattr(limits, field).dtype)

    names = merged("names", TOOL_COLUMNS)
    given = dict.fromkeys(("lower", "upper", "velocity", "acceleration", "jerk"), ROBOT_FILE)
    return Limits(
        names=tuple(names),
        units=tuple(merged("units", ["m"] * 3 + ["rad"] * 3)),
        lower=column("lower", tool.lower, [-FURTHEST] * 3),
        upper=column("upper", tool.upper, [FURTHEST] * 3),
        velocity=column("velocity", [tool.velocity] * 3, [tool.rotation_velocity] * 3),
        acceleration=column("acceleration", [tool.acceleration] * 3, [tool.rotation_acceleration] * 3),
        jerk=column("jerk", [np.inf] * 3, [np.inf] * 3),
        discrete=column("discrete", [False] * 3, [False] * 3),
        groups=column("groups", [robot.groups.index(group)] * 3, [robot.groups.index(group)] * 3),
        sources={name: limits.sources.get(name, given) for name in names},
    )
