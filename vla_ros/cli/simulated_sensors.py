"""What a simulated robot's sensors say, as a policy gets it from their topics: by the same messages and decoders."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.decoders import Readings, decoder_of
from vla_ros.messages.sensors import cloud_message, depth_message, imu_message, odometry_message
from vla_ros.sim.simulated import Simulated

_NESTED = {"header", "stamp", "pose", "position", "orientation", "twist", "linear", "angular", "angular_velocity",
           "linear_acceleration"}  # fmt: skip


class Blank(SimpleNamespace):
    """A message without ROS, of any type: its parts are there when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name not in _NESTED:
            raise AttributeError(name)
        setattr(self, name, made := Blank())
        return made


@dataclass(frozen=True)
class Sense:
    """Values of the streams of a robot file.

    Raises InputError for a stream that the simulator does not have, or that needs the values before.
    """

    robot: RobotSpec

    def __post_init__(self) -> None:
        for stream in self.robot.streams:
            if stream.window:
                raise InputError(f"stream {stream.name} with a window, expected none here; --bags records them")

    @cached_property
    def _decoders(self) -> dict[str, Callable[[Any], Readings]]:
        return {stream.name: decoder_of(stream, self.robot) for stream in self.robot.streams}

    def __call__(self, world: Simulated) -> dict[str, np.ndarray]:
        """Name -> value, and NAME_count, of one instant."""
        odometry = [group.odometry for group in self.robot.base_groups]
        values: dict[str, np.ndarray] = {}
        for stream in self.robot.streams:
            if stream.topic in odometry:
                message = odometry_message(Blank, world.base_pose(), world.base_velocity())
            elif stream.name == "lidar":
                message = cloud_message(Blank, Blank, world.lidar(), frame_id="lidar")
            elif stream.name == "imu":
                message = imu_message(Blank, world.imu(), frame_id="imu")
            else:
                camera, (height, width) = stream.name.removesuffix("_depth"), stream.shape[:2]
                message = depth_message(Blank, world.depth(camera, width, height), frame_id=f"{camera}_camera")
            values |= self._decoders[stream.name](message)
        return values
