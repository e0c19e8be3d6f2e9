"""The simulated robots, and who knows how to do their tasks."""

from collections.abc import Collection

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import ODOMETRY
from vla_ros.sim.driving import Driver
from vla_ros.sim.expert import Expert
from vla_ros.sim.fetching import Fetcher
from vla_ros.sim.room_world import RoomWorld
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import Task, TaskKind
from vla_ros.sim.world import World

_EXPERTS = {TaskKind.DRIVE: Driver, TaskKind.FETCH: Fetcher}
WORLDS: tuple[type[Simulated], ...] = (World, RoomWorld)


def world_of(robot: str, joints: Collection[str]) -> type[Simulated]:
    """The simulated robot with these joints. Raises InputError where there is none; `robot`: its name."""
    for world in WORLDS:
        if sorted(joints) == sorted(world.joint_names):
            return world
    known = " or ".join(str(world.joint_names) for world in WORLDS)
    raise InputError(f"robot {robot}: joints {tuple(joints)}, the simulator has {known}")


def check_sensors(robot: RobotSpec, world: type[Simulated]) -> None:
    """Raises InputError where the robot file asks for cameras or sensors that the simulator does not have."""
    for name in robot.camera_names:
        if name not in world.cameras:
            raise InputError(f"robot {robot.name}: camera {name!r}, the simulator has {world.cameras}")
    odometry = [group.odometry for group in robot.base_groups]
    for stream in robot.streams:
        kind = ODOMETRY if stream.topic in odometry else world.sensors.get(stream.name)
        if stream.type != kind:
            known = ", ".join(f"{name} ({type_})" for name, type_ in world.sensors.items()) or "none"
            raise InputError(f"robot {robot.name}: stream {stream.name} of {stream.type}, the simulator has {known}")


def check_kinds(robot: str, world: type[Simulated], kinds: Collection[str]) -> None:
    """Raises InputError for a task that there is not for this robot."""
    for kind in kinds:
        if kind not in world.kinds:
            raise InputError(f"task {kind}: robot {robot} has {', '.join(world.kinds)}")


def expert_of(
    world: Simulated, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
) -> Expert | Driver | Fetcher:
    """Who does this task; `position` and `velocity` (J,): of the last command, where there was one."""
    return _EXPERTS.get(task.kind, Expert)(world, task, position, velocity)
