"""The arm at its table, three cubes on it, and two cameras."""

from collections.abc import Sequence

import mujoco
import numpy as np

from vla_ros.sim.kinematics import inverse
from vla_ros.sim.layout import Layout
from vla_ros.sim.robot import GRIPPER_CLOSED, JOINTS, LOWER, UPPER
from vla_ros.sim.scene import scene_xml
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import TaskKind

CAMERAS = ("front", "wrist")
HOME = np.append(inverse(np.array([0.20, 0.0, 0.13]), 0.0), GRIPPER_CLOSED)  # (6,) rad


class World(Simulated):
    """The simulated SO-101 and its table."""

    joint_names = JOINTS
    cameras = CAMERAS
    scene = "cubes"
    kinds = (TaskKind.TOUCH, TaskKind.PICK, TaskKind.PUSH)
    time_limit = 12.0
    lower, upper = LOWER, UPPER
    shaken = np.array([1.0] * 5 + [0.0])  # the gripper stays as commanded
    random_layout = staticmethod(Layout.random)

    def __init__(self, seed: int = 0, friction: float = 1.0):
        """`friction` is the sliding friction between fingers and cubes (1 is a rubber pad)."""
        super().__init__(scene_xml(friction), JOINTS)
        self.reset(seed)

    def reset(self, seed: int = 0, joints: Sequence[float] | None = None, layout: Layout | None = None) -> None:
        """Put the cubes at the places of `seed` (or of `layout`) and the arm, at rest, at `joints` (6,) rad (home)."""
        self.layout = layout = layout or Layout.random(seed)
        self._begin(HOME if joints is None else self._checked(joints), layout.places, layout.yaws)
        mujoco.mj_forward(self.model, self.data)
