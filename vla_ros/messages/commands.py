"""Joint commands: the three interfaces of a command group, written and read."""

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.robot import INTERFACES, CommandGroup
from vla_ros.messages.joints import joint_positions
from vla_ros.messages.stamps import NS, set_stamp

COMMAND_TYPES = INTERFACES  # interface -> ROS type of its topic


class CommandWriter:
    """One group's command message, made once and refilled at every control tick.

    Args:
        group: whose joints, in its order.
        message: a fresh message of the type that `COMMAND_TYPES` gives for the group's interface.
        point: a fresh `trajectory_msgs/JointTrajectoryPoint`, for a joint_trajectory group.
        reach_in: s after the stamp at which a trajectory point is to be reached: the control period.
    """

    def __init__(self, group: CommandGroup, message: Any, point: Any = None, reach_in: float = 0.01) -> None:
        self.group, self.message, self._point = group, message, point
        if group.interface == "joint_trajectory":
            # No velocities: a controller refuses a last point that moves, and zeros would make it stop at every point.
            message.joint_names = list(group.joints)
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(reach_in * NS), NS)
            message.points = [point]
        elif group.interface == "joint_state":
            message.name = list(group.joints)

    def fill(self, positions: np.ndarray, stamp: int) -> Any:
        """The message, with (G,) positions in rad or m for this group's joints and the tick's time in ns.

        A Float64MultiArray has no field for it.
        """
        values = array("d", positions)
        if self.group.interface == "float64_multi_array":
            self.message.data = values
            return self.message
        if self.group.interface == "joint_trajectory":
            self._point.positions = values
        else:
            self.message.position = values
        return set_stamp(self.message, stamp)


def read_command(group: CommandGroup, message: Any) -> np.ndarray:
    """(G,) positions in rad or m that a command message asks for, in the order of `group.joints`.

    Of a trajectory the last point counts. Raises InputError that names the group.
    """
    what = f"command for {group.name}"
    if group.interface == "joint_trajectory":
        if not message.points:
            raise InputError(f"{what}: trajectory without points, expected one or more")
        message = SimpleNamespace(name=message.joint_names, position=message.points[-1].positions)
    elif group.interface == "float64_multi_array":
        message = SimpleNamespace(name=group.joints, position=message.data)
    return joint_positions(message, group.joints, what)
