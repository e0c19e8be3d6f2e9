"""The part of the executor that handles a tool; it does nothing for a robot without one."""

from dataclasses import replace

import numpy as np

from vla_ros.control.joint_states import MeasuredJoints
from vla_ros.control.limiter import Limiter
from vla_ros.control.settings import Command, Settings
from vla_ros.control.timeline import POSE_WIDTH, Predictions
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_chunks import ToolChunks
from vla_ros.control.tool_follower import ToolFollower
from vla_ros.control.tool_pose import PoseArm


class ToolControl:
    """Combines the parts that handle a tool.

    Attributes:
        chunks: reads the chunks, or says why this robot follows none for a tool.
        width: columns of a pose after the joints on the timeline; 0 without a tool.
        reason: why the tool does not reach its target, in words; "" if it does.
        near: there is no target of the tool, or it has almost arrived.
    """

    def __init__(self, tool: ToolArm | PoseArm | str, settings: Settings) -> None:
        """`tool`: the arm, or why there is none."""
        self.chunks: ToolChunks | str = tool if isinstance(tool, str) else ToolChunks(
            tool, settings.joint_state_timeout, settings.admission.max_chunk_age + 1.0,
            settings.admission.future_tolerance)
        self._follower = None if isinstance(tool, str) else ToolFollower(tool)
        self.width = POSE_WIDTH if self._follower else 0
        self._following = False

    @property
    def reason(self) -> str:
        return self._follower.reason if self._follower else ""

    @property
    def near(self) -> bool:
        return not self._following or self._follower.near

    @property
    def adrift(self) -> np.ndarray:
        """Columns of a tool that cannot return to its last command while it stands still; none for other robots."""
        adrift = self._follower is not None and self._follower.arm.adrift
        return self._follower.arm.columns if adrift else np.empty(0, dtype=int)

    @property
    def limited(self) -> np.ndarray:
        """Columns of the joints that move the tool, if its last step was shortened; else none."""
        return self._follower.arm.columns if self._follower and self._follower.limited else np.empty(0, dtype=int)

    def measured(self, joint_states: MeasuredJoints) -> None:
        """New measurements arrived."""
        if self._follower:
            self.chunks.joint_state(joint_states.stamps_ns, joint_states.position)

    def commanded(self, command: Command) -> None:
        """A command was made."""
        if self._follower:
            self.chunks.commanded(command.stamp_ns, command.position)

    def silent(self) -> None:
        """Commands pause."""
        if self._follower:
            self.chunks.silent()

    def clear(self) -> None:
        """Forget measurements and commands."""
        if self._follower:
            self.chunks.clear()

    def rest(self) -> None:
        """There is no target."""
        self._following = False
        if self._follower:
            self._follower.rest()

    def of_one_space(self, live: Predictions) -> Predictions:
        """Drop predictions of the arm, by joints or by a pose, that are older than one in the other form.

        A chunk without the arm, such as one of the gripper only, changes nothing.
        """
        if not self._follower:
            return live
        columns, first = self._follower.arm.columns, live.position.shape[1] - self.width
        pose = np.isfinite(live.position[:, first])
        speaks = np.flatnonzero(pose | np.isfinite(live.position[:, columns]).any(axis=1))
        over = [k for k in speaks if pose[k] != pose[speaks[-1]]]
        if not over:
            return live
        position, velocity = live.position.copy(), live.velocity.copy()
        for values in (position, velocity):
            values[: over[-1] + 1, columns] = values[: over[-1] + 1, first:] = np.nan
        return replace(live, position=position, velocity=velocity)

    def joints(
        self, position: np.ndarray, velocity: np.ndarray, limiter: Limiter, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(J,) each, from (J + width,) targets: the pose, if there is one, is converted to joints.

        Sets which columns of the limiter brake together: those of an arm that was last moved by a pose, also when a
        chunk without the arm follows.
        """
        joints = len(position) - self.width
        arm = self._follower.arm.columns if self._follower else np.empty(0, dtype=int)
        if self._follower and np.isfinite(position[joints]):
            limiter.together = self._follower.arm.together
            last = limiter.unsmoothed, limiter.unsmoothed_velocity
            position[arm], velocity[arm] = self._follower.follow(position[joints:], velocity[joints:], *last, dt)
            self._following = True
        else:
            self.rest()
            if np.isfinite(position[arm]).any():
                limiter.together = ()
        return position[:joints], velocity[:joints]
