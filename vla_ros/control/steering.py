"""From the pushes of a keyboard or gamepad to joint positions, of the tool in its frame or of single joints, and to
velocities of a base."""

from collections.abc import Mapping

import numpy as np

from vla_ros.control.limits import Limits
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_chunks import apart
from vla_ros.control.tool_follower import ToolFollower
from vla_ros.core.joint import AXES
from vla_ros.core.rotations import to_matrix

STEP, TURN = 0.005, 0.05  # m and rad of the tool that one key press asks for
_SHARE, _DISCRETE_SHARE = 0.01, 0.05  # of a joint's range that one key press asks for
_TOOL_SPEED, _JOINT_SPEED, _BASE_SPEED = 0.5, 0.25, 0.5  # of the limits, with a stick pushed all the way
_PRESSED_SPEED = 0.25  # of the base's highest speed, that a key asks for
_PRESSED = 0.7  # s that a press drives the base: a terminal repeats a held key no later than that
_AHEAD = np.array([0.05, 0.3])  # m and rad that what is asked for may be ahead of where the tool is
_STILL = 1e-3  # rad/s or m/s of the joints, below which the tool has arrived


class Steering:
    """Where a robot should be that a person steers; it starts where the robot is.

    The tool goes to a target that the person pushes along the axes of the tool's `frame` and turns about them, by
    `ToolFollower`, so within the tool's box and limits. The other joints, all of a robot without a tool, are chosen
    one at a time. A base drives while it is pushed, and stands otherwise.

    Attributes:
        position: (J,) rad or m, of a base m/s or rad/s; what to publish.
        all_names: (J,) of the limits.
        names: joints of `columns`, which are steered.
        columns: (K,) int, in the limits' J.
        others: columns of the joints that are steered one at a time.
        chosen: which of `others` is steered now.
        axes: of the base that can be driven, some of "x", "y" and "yaw".
        scale: of all steps, and of the speed that keys drive the base at.
    """

    def __init__(
        self, limits: Limits, arm: ToolArm | None, base: Mapping[str, str] | None = None, alone: bool = False
    ) -> None:
        """`arm`: None steers joint by joint. `base`: velocity of the base -> its axis (`RobotSpec.base_axes`).
        `alone`: only the base is steered, and nothing is said of the joints."""
        base = base or {}
        self._limits, self._arm = limits, None if alone else arm
        self._follower = ToolFollower(arm) if self._arm else None
        self._base = np.array([limits.names.index(name) for name in base], dtype=int)
        self._axes = np.array([list(AXES).index(axis) for axis in base.values()], dtype=int)
        self.axes = set(base.values())
        self.columns = self._base if alone else np.arange(len(limits.names))
        self.all_names = tuple(limits.names)
        self.names = tuple(limits.names[i] for i in self.columns)
        moved = set(arm.columns) if arm else set()
        self.others = [i for i in self.columns if i not in moved and not limits.rates[i]]
        self.chosen, self.scale = 0, 1.0
        self.begin(np.clip(np.zeros(len(limits.names)), limits.lower, limits.upper))

    def begin(self, position: np.ndarray) -> None:
        """The robot is at rest at `position` (J,), rad or m; its base is to stand."""
        self.position = np.where(self._limits.rates, 0.0, position)
        self._velocity = np.zeros(len(position))
        self.hold()

    def _stay(self) -> None:
        """The tool's target is where the tool is."""
        if self._arm:
            self._place, self._rotation = self._arm.pose(self.position)
            self._follower.rest()

    def hold(self) -> None:
        """What was asked for and is not reached yet counts no more; the base is to stand."""
        self._goal = self.position.copy()
        self._pressed, self._lasts = np.zeros((2, len(AXES)))
        self._stay()

    @property
    def choice(self) -> str:
        """The joint that is steered singly, "" where the tool takes all."""
        return self._limits.names[self.others[self.chosen]] if self.others else ""

    @property
    def reason(self) -> str:
        """Why the tool does not get to where it was pushed, in words; "" where it does."""
        return self._follower.reason if self._follower else ""

    def choose(self, number: int) -> None:
        """The joint `number` of `others`, counted round."""
        if self.others:
            self.chosen = number % len(self.others)

    def push(self, axis: int, way: float) -> None:
        """One step of the tool along (0 to 2) or about (3 to 5) an axis, `way` 1 or -1."""
        displacement = np.zeros(6)
        displacement[axis] = way * self.scale * (STEP if axis < 3 else TURN)
        self._move(displacement)

    def push_joint(self, way: float) -> None:
        """One step of the chosen joint."""
        if self.others:
            column = self.others[self.chosen]
            share = _DISCRETE_SHARE if self._limits.discrete[column] else _SHARE
            self._set(column, self._goal[column] + way * self.scale * share * self._limits.range[column])

    def drive(self, axis: str, way: float) -> None:
        """The base drives along or turns about an axis, `way` 1 or -1, until `_PRESSED` s after the last such press."""
        self._pressed[list(AXES).index(axis)], self._lasts[list(AXES).index(axis)] = way, _PRESSED

    def _set(self, column: int, value: float) -> None:
        self._goal[column] = np.clip(value, self._limits.lower[column], self._limits.upper[column])

    def _move(self, displacement: np.ndarray) -> None:
        """The target goes on by (6,) m and rad, and no further than `_AHEAD` from where the tool is."""
        if not self._arm or not displacement.any():
            return
        tool = self._arm.tool
        here, turned = self._arm.pose(self.position)
        place = np.clip(self._place + displacement[:3], tool.lower, tool.upper)
        rotation = to_matrix(displacement[3:], "vector") @ self._rotation
        new, old = (apart(*pose, here, turned) for pose in ((place, rotation), (self._place, self._rotation)))
        if new[0] <= max(_AHEAD[0], old[0]):
            self._place = place
        if new[1] <= max(_AHEAD[1], old[1]):
            self._rotation = rotation

    def _drive(self, dt: float, sticks: np.ndarray) -> None:
        """The base's velocities, from the keys of the last moment and the `sticks` (3,)."""
        pushed = self.scale * _PRESSED_SPEED * np.where(self._lasts > 0, self._pressed, 0.0) + _BASE_SPEED * sticks
        pushed, limits = np.clip(pushed, -1.0, 1.0)[self._axes], self._limits
        self.position[self._base] = pushed * np.where(pushed > 0, limits.upper[self._base], -limits.lower[self._base])
        self._lasts = np.maximum(self._lasts - dt, 0.0)

    def advance(
        self, dt: float, tool: np.ndarray | None = None, joint: float = 0.0, base: np.ndarray | None = None
    ) -> np.ndarray:
        """(J,) `dt` s later. `tool` (6,), `joint` and `base` (x, y and yaw): sticks, each -1 to 1, None and 0 where
        they rest."""
        limits = self._limits
        self._drive(dt, np.zeros(len(AXES)) if base is None else base)
        if self._arm:
            fastest = np.repeat([self._arm.tool.velocity, self._arm.tool.rotation_velocity], 3)
            self._move(_TOOL_SPEED * fastest * dt * (np.zeros(6) if tool is None else tool))
            pose = np.concatenate([self._place, self._rotation.ravel()])
            columns = self._arm.columns
            found, speed = self._follower.follow(pose, np.zeros(12), self.position, self._velocity, dt)
            self.position[columns], self._velocity[columns] = found, speed
            if (tool is None or not tool.any()) and np.abs(speed).max() < _STILL:
                self._stay()
        if self.others:
            column = self.others[self.chosen]
            if joint:
                speed = _JOINT_SPEED * limits.velocity[column]
                self._set(column, self._goal[column] + joint * speed * dt)
            most = np.where(limits.discrete, np.inf, 2 * _JOINT_SPEED * limits.velocity * dt)[self.others]
            way = self._goal[self.others] - self.position[self.others]
            self.position[self.others] += np.clip(way, -most, most)
        return self.position
