"""The made-up arm of seven joints behind a controller that takes poses or twists of its tool, beside a gripper."""

from functools import cache

import numpy as np
from control.fakes import World
from control.tool_robots import seven_urdf

from vla_ros.control.limits import Limits
from vla_ros.control.posed_tool import PosedTool
from vla_ros.core.robot import RobotSpec

JOINTS = [f"j{i}" for i in range(7)]
BENT = np.array([0.1, 0.2, 0.6, -0.3, 0.9, 0.4, 0.7])  # away from singularities


def posed_file(interface: str = "pose_stamped") -> dict:
    """As a robot file says it."""
    arm = [{"name": name, "lower": -2.0, "upper": 2.0, "velocity": 2.0, "acceleration": 10.0} for name in JOINTS]
    arm[0] |= {"lower": -0.5, "upper": 0.5, "velocity": 0.5, "acceleration": 4.0, "unit": "m"}
    grip = {"name": "gripper", "lower": 0.0, "upper": 1.0, "velocity": 5.0, "acceleration": 50.0, "discrete": True}
    return {
        "name": "seven", "cameras": [], "control_rate": 100.0, "joints": [*arm, grip],
        "groups": [
            {"name": "arm", "topic": "arm/target", "interface": interface, "joints": JOINTS},
            {"name": "hand", "topic": "hand/command", "interface": "float64_multi_array", "joints": ["gripper"]},
        ],
        "tool": {
            "link": "l8", "frame": "l0", "lower": [-1.0, -1.0, -0.2], "upper": [1.5, 1.0, 1.5], "velocity": 0.5,
            "acceleration": 2.0, "rotation_velocity": 2.0, "rotation_acceleration": 8.0,
        },
    }  # fmt: skip


@cache
def posed(interface: str = "pose_stamped") -> PosedTool:
    """Fresh enough for tests that only ask it; its rotations count from `BENT`."""
    made = make_posed(interface)
    made.joint_state(1, JOINTS, BENT.tolist(), 1, lambda *values: None)
    return made


def make_posed(interface: str = "pose_stamped") -> PosedTool:
    robot = RobotSpec.from_dict(posed_file(interface))
    return PosedTool(robot, seven_urdf(), Limits.merge(robot), 0.1)


def posed_world(**settings: object) -> World:
    """Active; its columns are the tool's and the gripper."""
    made = posed()
    home = np.array([0.6, 0.1, 0.8, 0.0, 0.0, 0.0, 0.5])
    return World(arm=made.arm, limits=made.limits, home=home, **settings).activate()
