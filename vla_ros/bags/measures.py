"""What is compared between a chunk and what was executed: the joints, or the tool in place of those that move it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_ros.control.kinematics import MOVING, Kinematics
from vla_ros.control.tool_arm import joints_between
from vla_ros.control.tool_chunks import add_up, apart
from vla_ros.core.chunk import Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.tool import places

_POSE = 12  # place and rotation matrix


class JointMeasure:
    """Errors of the joints.

    Attributes:
        names, units: C names and units of the errors; ranges: (C,) what they are compared with.
        width: of rows.
    """

    def __init__(self, robot: RobotSpec) -> None:
        self.names, self.units = robot.joint_names, tuple(joint.unit for joint in robot.joints)
        self.ranges = np.array([joint.upper - joint.lower for joint in robot.joints])
        self.width, self._velocities = len(self.names), robot.velocities

    def rows(self, joints: np.ndarray) -> np.ndarray:
        """(H, width) of joint positions (H, J)."""
        return joints

    def predicted(self, targets: Targets, state: np.ndarray) -> np.ndarray:
        """(H, width) of a chunk observed at `state` (J,); joints that it does not contain are held there."""
        return targets.joint_positions(self.names, self.held(state))

    def held(self, state: np.ndarray) -> np.ndarray:
        """(J,) where the joints stay that are held at `state` (J,); a base then stands."""
        return np.where(self._velocities, 0.0, state)

    def errors(self, chunk: np.ndarray, executed: np.ndarray) -> np.ndarray:
        """(H, C) of rows (H, width) each."""
        return np.abs(chunk - executed)


class ToolMeasure(JointMeasure):
    """Errors of the tool, m and rad, and of the joints that do not move it.

    They are compared with the diagonal of the tool's box and with half a turn.
    """

    def __init__(self, robot: RobotSpec, urdf: str | Path) -> None:
        """Raises InputError if the robot file has no tool or the URDF does not contain it."""
        super().__init__(robot)
        if robot.tool is None:
            raise InputError(f"robot {robot.name}: no `tool` in the robot file, expected one: a policy's actions are "
                             "those of a tool")
        self._tool, self._tree, self._joints = robot.tool, Kinematics(urdf), robot.joint_names
        moving = {joint.name for joint in joints_between(self._tree, robot.tool) if joint.kind in MOVING}
        if unknown := sorted(moving - set(self._joints)):
            raise InputError(f"URDF {urdf}: joints {unknown} move the tool, expected joints of robot {robot.name}")
        self._others = [i for i, name in enumerate(self._joints) if name not in moving]
        ends = np.array(robot.tool.upper) - robot.tool.lower
        self.names = ("tool", "tool rotation", *(self._joints[i] for i in self._others))
        self.units = ("m", "rad", *(self.units[i] for i in self._others))
        self.ranges = np.array([np.linalg.norm(ends), np.pi, *self.ranges[self._others]])
        self.width = _POSE + len(self._others)

    def rows(self, joints: np.ndarray) -> np.ndarray:
        """(H, width): place, rotation and the joints that do not move the tool, of joint positions (H, J)."""
        joints = np.asarray(joints, dtype=np.float64)
        known = {name: joints[:, i] for i, name in enumerate(self._joints)}
        found = self._tree.pose(self._tool.link, self._tool.frame, known)
        return np.concatenate([found[:, :3, 3], found[:, :3, :3].reshape(-1, 9), joints[:, self._others]], axis=1)

    def predicted(self, targets: Targets, state: np.ndarray) -> np.ndarray:
        """(H, width) of a chunk observed at `state` (J,). Differences count from that state, because the command at
        that time is not known."""
        rows = self.rows(targets.joint_positions(self._joints, self.held(state)))
        if part := targets.spatial:
            place, rotation = places(part)
            if part.space == Space.END_EFFECTOR_DELTA:
                here = self.rows(state[None])[0]
                start = here[:3], here[3:_POSE].reshape(3, 3)
                place, rotation = add_up(place[:-1], rotation[:-1], part.frame == self._tool.link, start)
            rows[:, :_POSE] = np.concatenate([place, rotation.reshape(-1, 9)], axis=1)
        return rows

    def errors(self, chunk: np.ndarray, executed: np.ndarray) -> np.ndarray:
        (a, b), rotations = (chunk, executed), lambda rows: rows[:, 3:_POSE].reshape(-1, 3, 3)
        away = apart(a[:, :3], rotations(a), b[:, :3], rotations(b))
        return np.concatenate([away, np.abs(a[:, _POSE:] - b[:, _POSE:])], axis=1)


def measure_of(robot: RobotSpec, tools: Sequence[str], urdf: str | None) -> JointMeasure:
    """`tools`: names of the policies whose actions are a tool's. Raises InputError if their robot's URDF is missing.
    """
    if not tools:
        return JointMeasure(robot)
    if not urdf:
        raise InputError(f"{tools[0]}: its actions are a tool's, expected --urdf FILE: it gives the tool's pose from "
                         "the recorded joints")
    return ToolMeasure(robot, urdf)
