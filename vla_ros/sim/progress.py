"""How far a robot is with its task, for whoever watches a policy and takes over when it strays."""

import numpy as np

from vla_ros.sim.expert import PUSH_HEIGHT, PUSH_START
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind

STEP = 0.01  # m that count as progress


class Progress:
    """Follows a world from the moment of its creation."""

    def __init__(self, task: Task, world: Simulated) -> None:
        self._task, self._world = task, world
        self._start = world.cube_positions()[task.colour].copy()
        self._best, self._since_ns = np.inf, 0

    def left(self) -> float:
        """m: of the tip to where it is to be, and of the cube to where it is to go; of a robot that drives, to post or
        cube."""
        if self._task.kind in (TaskKind.DRIVE, TaskKind.FETCH):
            return SuccessTracker(self._task, self._world).distance()
        tip, cube = self._world.tip_position(), self._world.cube_positions()[self._task.colour]
        if self._task.kind is TaskKind.TOUCH:
            return float(np.linalg.norm(tip - cube))
        if self._task.kind is TaskKind.PICK:
            return float(np.linalg.norm(tip - cube)) + SuccessTracker.LIFT_HEIGHT - float(cube[2] - self._start[2])
        beside = np.array([cube[0], cube[1] - PUSH_START, PUSH_HEIGHT])
        return float(np.linalg.norm(tip - beside)) + SuccessTracker.PUSH_DISTANCE - float(cube[1] - self._start[1])

    def standstill(self, now_ns: int) -> float:
        """s since it was nearer to its goal than ever, at `now_ns`."""
        left = self.left()
        if left < self._best - STEP or not self._since_ns:
            self._best, self._since_ns = left, now_ns
        return (now_ns - self._since_ns) * 1e-9
