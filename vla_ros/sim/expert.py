"""A scripted expert: it knows the true positions of the cubes and solves every task.

Its commands are a smooth function of the current goal, which is planned again at every control tick, so it recovers
from any start and any disturbance. There is one way to do each thing (one grasp, from above, at the heading nearest to
the arm's own), so that the demonstrations are unambiguous.
"""

from abc import ABC, abstractmethod
from enum import Enum, auto

import numpy as np

from vla_ros.sim.kinematics import TipPose, forward, inverse
from vla_ros.sim.robot import GRIPPER_CLOSED, GRIPPER_OPEN, PAN_ORIGIN
from vla_ros.sim.tasks import Task
from vla_ros.sim.wordings import TaskKind
from vla_ros.sim.world import HOME, World

TRAVEL_HEIGHT = 0.080  # m, of the tip, when it passes over cubes
LIFT_HEIGHT = 0.092  # m, of the tip, with a cube in hand
GRASP_HEIGHT = 0.014  # m
TOUCH_HEIGHT = 0.033  # m: the fingers, 4 mm longer than the tip, press the cube's top by 1 mm
GRASP_OFFSET = 0.015  # m from the hand's axis to the cube's centre, towards the jaw, before the jaw closes
PUSH_HEIGHT = 0.020  # m
PUSH_START = 0.048  # m beside the cube, where the hand comes down
PUSHED = 0.062  # m, moved this far the cube is left alone

_FREQUENCY = np.array([6.5] * 5 + [10.0])  # rad/s of the critically damped approach to the goal
_VELOCITY = np.array([1.3] * 5 + [2.4])  # rad/s, well within the robot file's limits
_ACCELERATION = np.array([9.0] * 5 + [24.0])  # rad/s²


class _Phase(Enum):
    APPROACH = auto()
    CLOSE = auto()  # the jaw closes around the cube
    LIFT = auto()
    SWEEP = auto()  # the hand pushes aside
    RETREAT = auto()  # up and home: a hand that stayed would look like one that has still to push
    LOWER = auto()  # an unwanted cube goes back to the table
    OPEN = auto()  # and is let go


class Smooth(ABC):
    """Commands that go smoothly to a goal, which may change at every control tick.

    Attributes:
        position, velocity: (6,) of the command, rad and rad/s.
    """

    def __init__(
        self, world: World, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
    ) -> None:
        """`position` and `velocity` (6,): of the last command, where the arm was already being commanded."""
        self.world = world
        self.task = task
        self.position = world.joint_positions() if position is None else np.array(position, dtype=float)
        self.velocity = np.zeros(6) if velocity is None else np.array(velocity, dtype=float)

    def command(self) -> np.ndarray:
        """(6,) joint targets for this control tick, rad. Call once for each `World.step`."""
        tip, heading, gripper = self._goal()
        goal = np.append(inverse(tip, heading), gripper)
        error = goal - self.position
        reach = 2 * _VELOCITY / _FREQUENCY  # an error this large is approached at full speed
        error[:5] *= min(1.0, float((reach[:5] / np.maximum(np.abs(error[:5]), 1e-9)).min()))
        error[5] = np.clip(error[5], -reach[5], reach[5])
        acceleration = _FREQUENCY**2 * error - 2 * _FREQUENCY * self.velocity
        acceleration *= min(1.0, float((_ACCELERATION / np.maximum(np.abs(acceleration), 1e-9)).min()))
        self.velocity = self.velocity + acceleration * self.world.control_period
        self.position = self.position + self.velocity * self.world.control_period
        return self.position.copy()

    @abstractmethod
    def _goal(self) -> tuple[np.ndarray, float, float]:
        """Tip position (3,) m, heading of the jaw, gripper angle to move towards now."""


class Expert(Smooth):
    """Solves one task with one cube from wherever the arm is."""

    def __init__(
        self, world: World, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
    ):
        super().__init__(world, task, position, velocity)
        self._phase = _Phase.APPROACH
        self._anchor = np.zeros(3)  # where the tip stays, in the phases that do not follow a cube
        self._heading = 0.0
        held = world.held_cube()
        keeps = held == task.colour and task.kind in (TaskKind.PICK, TaskKind.TOUCH)
        if held is not None:
            pose = forward(self.position)
            self._anchor, self._heading = pose.position, pose.heading
            self._phase = _Phase.LIFT if keeps else _Phase.LOWER
            if keeps and task.kind is TaskKind.TOUCH:
                self._phase = _Phase.CLOSE
        self._push_from = world.cube_positions()[task.colour][1]
        self._side = -1.0 if task.kind is TaskKind.PUSH_RIGHT else 1.0

    @property
    def settled(self) -> bool:
        """The arm is at rest where the task should end."""
        if self.task.kind in (TaskKind.PUSH, TaskKind.PUSH_RIGHT):
            return self._phase is _Phase.RETREAT
        return bool(np.abs(self.velocity).max() < 0.05)

    def _goal(self) -> tuple[np.ndarray, float, float]:
        pose = forward(self.position)
        cube = self.world.cube_positions()[self.task.colour]
        if self._phase is _Phase.LOWER:
            target = np.array([*self._anchor[:2], GRASP_HEIGHT + 0.002])
            if pose.position[2] < target[2] + 0.003:
                self._phase = _Phase.OPEN
            return target, self._heading, GRIPPER_CLOSED
        if self._phase is _Phase.OPEN:
            if self.position[5] > GRIPPER_OPEN - 0.08:
                self._phase = _Phase.APPROACH
            return np.array([*self._anchor[:2], GRASP_HEIGHT + 0.002]), self._heading, GRIPPER_OPEN
        if self.task.kind is TaskKind.TOUCH:
            return self._touch(pose, cube)
        if self.task.kind is TaskKind.PICK:
            return self._pick(pose, cube)
        return self._push(pose, cube)

    def _touch(self, pose: TipPose, cube: np.ndarray) -> tuple[np.ndarray, float, float]:
        if self._phase is _Phase.CLOSE:  # the cube is in hand: the tip is at it already
            return self._anchor, self._heading, GRIPPER_CLOSED
        goal, rising = funnel(pose.position, np.array([*cube[:2], TOUCH_HEIGHT + cube[2] - 0.015]))
        gripper = self.position[5] if rising else GRIPPER_CLOSED  # do not close on what is between the fingers now
        return goal, arm_bearing(cube), gripper

    def _pick(self, pose: TipPose, cube: np.ndarray) -> tuple[np.ndarray, float, float]:
        lost = np.linalg.norm(cube - self.world.tip_position()) > 0.045
        if self._phase in (_Phase.CLOSE, _Phase.LIFT) and lost:
            self._phase = _Phase.APPROACH
        if self._phase is _Phase.APPROACH:
            heading = self._grasp_heading(cube)
            place = cube[:2] - GRASP_OFFSET * np.array([np.cos(heading), np.sin(heading)])
            grasp = np.array([*place, GRASP_HEIGHT])
            goal, _ = funnel(pose.position, grasp, floor=0.0 if self.position[5] > GRIPPER_OPEN - 0.12 else 0.055)
            if np.linalg.norm(pose.position - grasp) < 0.006 and abs(pose.heading - heading) < 0.12:
                self._phase, self._anchor, self._heading = _Phase.CLOSE, grasp, heading
            return goal, heading, GRIPPER_OPEN
        if self._phase is _Phase.CLOSE:
            if self.position[5] < GRIPPER_CLOSED + 0.06 and self.world.held_cube() == self.task.colour:
                self._phase = _Phase.LIFT
            return self._anchor, self._heading, GRIPPER_CLOSED
        return np.array([*self._anchor[:2], LIFT_HEIGHT]), self._heading, GRIPPER_CLOSED

    def _push(self, pose: TipPose, cube: np.ndarray) -> tuple[np.ndarray, float, float]:
        side = self._side
        start = np.array([cube[0], cube[1] - side * PUSH_START, PUSH_HEIGHT])
        if self._phase is _Phase.APPROACH:
            goal, rising = funnel(pose.position, start)
            ahead, off = side * (cube[1] - pose.position[1]), abs(cube[0] - pose.position[0])
            if pose.position[2] < PUSH_HEIGHT + 0.010 and off < 0.010 and 0.020 < ahead < PUSH_START + 0.008:
                self._phase = _Phase.SWEEP
            return goal, 0.0, self.position[5] if rising else GRIPPER_CLOSED
        if self._phase is _Phase.SWEEP:
            if side * (cube[1] - self._push_from) > PUSHED:
                self._phase = _Phase.RETREAT
            elif side * (cube[1] - pose.position[1]) < 0 or (
                np.linalg.norm(cube[:2] - pose.position[:2]) > PUSH_START + 0.03
            ):
                self._phase = _Phase.APPROACH  # it slipped past the hand
            return np.array([cube[0], pose.position[1] + side * 0.035, PUSH_HEIGHT]), 0.0, GRIPPER_CLOSED
        return funnel(pose.position, forward(HOME).position)[0], 0.0, GRIPPER_CLOSED

    def _grasp_heading(self, cube: np.ndarray) -> float:
        """The one of the cube's four headings that is nearest to the arm's own."""
        return squared(self.world.cube_yaw(self.task.colour), arm_bearing(cube))


def squared(heading: float, bearing: float) -> float:
    """The one of the four headings `heading` + k pi / 2 that is nearest to `bearing`, rad."""
    return bearing + (heading - bearing + np.pi / 4) % (np.pi / 2) - np.pi / 4


def arm_bearing(cube: np.ndarray) -> float:
    """Direction of a place (3,) m seen from the axis of shoulder_pan, rad."""
    return float(np.arctan2(cube[1] - PAN_ORIGIN[1], cube[0] - PAN_ORIGIN[0]))


def funnel(tip: np.ndarray, target: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, bool]:
    """The next position for the tip on its way to `target`: up, across, and down only close to it.

    Args:
        floor: m, not lower than this for now.

    Returns:
        The place (3,) m, and whether the tip is still rising before it may go across.
    """
    away = float(np.hypot(*(target - tip)[:2]))
    share = np.clip((away - 0.006) / 0.030, 0.0, 1.0)
    height = max(target[2] + (TRAVEL_HEIGHT - target[2]) * share * share * (3 - 2 * share), floor)
    lack = height - tip[2]
    across = 1.0 - np.clip((lack - 0.008) / 0.030, 0.0, 1.0)
    return np.array([*(tip + across * (target - tip))[:2], height]), bool(lack > 0.02)
