"""The simulated robots, and who knows how to do their tasks."""

from collections.abc import Collection

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import ODOMETRY
from vla_ros.sim.bench_expert import BenchExpert, SequenceExpert, bench_expert
from vla_ros.sim.bench_success import BenchTracker, SequenceTracker
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.driving import Driver
from vla_ros.sim.expert import Expert
from vla_ros.sim.fetching import Fetcher
from vla_ros.sim.room_world import RoomWorld
from vla_ros.sim.scene import COLOURS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import SuccessTracker, Task, parse_instruction, task_of
from vla_ros.sim.wordings import TaskKind
from vla_ros.sim.world import World

_EXPERTS = {TaskKind.DRIVE: Driver, TaskKind.FETCH: Fetcher}
WORLDS: tuple[type[Simulated], ...] = (World, RoomWorld, Bench)
SCENES = tuple(world.scene for world in WORLDS)
_LAYOUTS = 8  # in which every task that takes the place of another one occurs


def world_of(robot: str, joints: Collection[str], scene: str = "") -> type[Simulated]:
    """The simulated robot with these joints, in the scene of that name, or in the first one that it has.

    Raises InputError where there is none; `robot`: its name.
    """
    return _worlds(robot, joints, scene)[0]


def scene_with(robot: RobotSpec, scene: str, names: Collection[str]) -> type[Simulated]:
    """As `world_of`, but the first scene that has these tasks, named as `task_of` takes them."""
    *more, last = _worlds(robot.name, robot.joint_names, scene)
    for world in more:
        try:
            check_kinds(robot.name, world, names)
        except InputError:
            continue
        return world
    check_kinds(robot.name, last, names)
    return last


def _worlds(robot: str, joints: Collection[str], scene: str) -> list[type[Simulated]]:
    worlds = [world for world in WORLDS if sorted(joints) == sorted(world.joint_names)]
    if not worlds:
        known = " or ".join(dict.fromkeys(str(world.joint_names) for world in WORLDS))
        raise InputError(f"robot {robot}: joints {tuple(joints)}, the simulator has {known}")
    if found := [world for world in worlds if scene in ("", world.scene)]:
        return found
    raise InputError(f"scene {scene}: robot {robot} has {', '.join(world.scene for world in worlds)}")


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


def check_kinds(robot: str, world: type[Simulated], names: Collection[str]) -> None:
    """Raises InputError for a task that there is not for this robot in this scene."""
    for name in names:
        kinds = task_of(name, "").kinds
        if lacking := [kind for kind in kinds if kind not in world.kinds]:
            others = [w.scene for w in WORLDS if w.joint_names == world.joint_names and lacking[0] in w.kinds]
            hint = f"; {lacking[0]} is in scene {others[0]}" if others else ""
            raise InputError(
                f"task {lacking[0]}: scene {world.scene} of robot {robot} has {', '.join(world.kinds)}{hint}"
            )
        if len(kinds) > 1 and TaskKind.UNDO not in world.kinds:
            raise InputError(f"task {name}: scene {world.scene} has one task at a time, expected {kinds[0]}")


def understand(world: Simulated, text: str) -> Task:
    """`world.understand`, whose refusal names the scene that would understand the sentence, if there is one."""
    try:
        return world.understand(text)
    except InputError:
        found = [other for other in WORLDS if _understands(other, text)]
        if not found or type(world) in found:
            raise
        own = [other for other in found if other.joint_names == world.joint_names]
        where = f"--scene {own[0].scene}" if own else f"scene {found[0].scene} of another robot"
        known = ", ".join(repr(world.words[kind][0]) for kind in world.kinds)
        raise InputError(f"instruction {text!r}: a sentence of {where}, expected in scene {world.scene} one like "
                         f"{known}") from None


def _understands(world: type[Simulated], text: str) -> bool:
    try:
        return bool(parse_instruction(text, world.kinds, world.colours))
    except InputError:
        return False


def sentences(world: type[Simulated], names: Collection[str]) -> set[str]:
    """What demonstrations of these tasks may say, each of two tasks by itself."""
    tasks = [world.suited(task_of(name, COLOURS[0]), seed) for name in names for seed in range(_LAYOUTS)]
    found = {task.instruction() for task in tasks}  # with what is between two
    for kind in {kind for task in tasks for kind in task.kinds}:
        for colour in world.colours:
            found.update(Task(kind, colour, colour).wordings(world.words))
    return found


def expert_of(
    world: Simulated, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
) -> Expert | Driver | Fetcher | BenchExpert | SequenceExpert:
    """Who does this task; `position` and `velocity` (J,): of the last command, where there was one.

    Raises InputError where the task is about something that is not there.
    """
    if isinstance(world, Bench):
        world.check(task)
        return (SequenceExpert if task.then else bench_expert)(world, task, position, velocity)
    return _EXPERTS.get(task.kind, Expert)(world, task, position, velocity)


def tracker_of(world: Simulated, task: Task) -> SuccessTracker | SequenceTracker:
    """Who judges this task, from now on."""
    if isinstance(world, Bench):
        return (SequenceTracker if task.then else BenchTracker)(task, world)
    return SuccessTracker(task, world)
