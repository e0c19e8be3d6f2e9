"""Arms with a tool: the simulated SO-101, and a made-up one of seven joints, one of them continuous, one in m."""

from functools import cache

import numpy as np
from control.fakes import World

from vla_ros.control.limits import Limits
from vla_ros.control.tool_arm import ToolArm
from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.robot import CommandGroup, Joint, RobotSpec
from vla_ros.core.rotations import from_matrix
from vla_ros.core.tool import Tool, pose_names
from vla_ros.sim.description import urdf
from vla_ros.sim.world import World as Simulator

SO101 = RobotSpec.load("so101")
HOME = np.array([0.2, -0.9, 0.8, 0.9, 0.3, 0.5])


@cache
def so101_urdf() -> str:
    return urdf(Simulator().model, "so101")


@cache
def so101() -> tuple[Limits, ToolArm]:
    limits = Limits.merge(SO101)
    return limits, ToolArm(SO101.tool, so101_urdf(), limits)


def seven_urdf() -> str:
    """A rail, then joints about z and y in turn, the first of them continuous; the base stands askew on its stand."""
    links = "".join(f'<link name="l{i}"/>' for i in range(-1, 9))
    joints = ('<joint name="stand" type="fixed"><parent link="l-1"/><child link="l0"/>'
              '<origin xyz="1 2 3" rpy=".3 .2 .1"/></joint>')
    kinds = ["prismatic", "continuous", *["revolute"] * 5]
    for i, kind in enumerate(kinds):
        axis = "1 0 0" if i == 0 else "0 0 1" if i % 2 else "0 1 0"
        joints += (f'<joint name="j{i}" type="{kind}"><parent link="l{i}"/><child link="l{i + 1}"/><axis xyz="{axis}"/>'
                   f'<origin xyz="0.02 0 0.15"/><limit lower="-2" upper="2" velocity="2" effort="1"/></joint>')
    joints += '<joint name="mount" type="fixed"><parent link="l7"/><child link="l8"/><origin xyz="0 0 0.1"/></joint>'
    return f'<robot name="seven">{links}{joints}</robot>'


@cache
def seven() -> tuple[Limits, ToolArm]:
    names = tuple(f"j{i}" for i in reversed(range(7)))  # another order than the URDF's
    joints = tuple(
        Joint(name, -0.5, 0.5, velocity=0.5, acceleration=4.0, unit="m") if name == "j0" else
        Joint(name, *((-6.0, 6.0) if name == "j1" else (-2.0, 2.0)), velocity=2.0, acceleration=10.0) for name in names
    )
    robot = RobotSpec("seven", (), joints, (CommandGroup("all", "command", "joint_trajectory", names),))
    limits = Limits.merge(robot)
    tool = Tool("l8", "l0", (-1.0, -1.0, -0.2), (1.5, 1.0, 1.5), 0.5, 2.0, 2.0, 8.0)
    return limits, ToolArm(tool, seven_urdf(), limits)


def tool_world(home: np.ndarray = HOME, **settings: object) -> World:
    """The SO-101, active."""
    limits, arm = so101()
    return World(arm=arm, limits=limits, home=home, **settings).activate()


def pose_row(place: np.ndarray, rotation: np.ndarray, form: str = "vector") -> np.ndarray:
    return np.concatenate([place, from_matrix(rotation, form)])


def tool_targets(
    rows: np.ndarray, space: Space = Space.END_EFFECTOR_POSE, frame: str = "base", form: str = "vector",
    gripper: float | None = None,
) -> Targets:
    """(H, 3 + n) poses or differences, and the gripper beside them."""
    parts = [Part(pose_names(form), np.asarray(rows, dtype=np.float64), space, "", frame)]
    if gripper is not None:
        parts.append(Part(("gripper",), np.full((len(rows), 1), gripper)))
    return Targets(tuple(parts))
