"""What a robot can be told, and when it has done it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.scene import COLOURS

if TYPE_CHECKING:
    from vla_ros.sim.simulated import Simulated


class TaskKind(StrEnum):
    TOUCH = "touch"
    PICK = "pick"
    PUSH = "push"
    DRIVE = "drive"
    FETCH = "fetch"


# The first wording of each kind is the default.
WORDINGS: dict[TaskKind, tuple[str, ...]] = {
    TaskKind.TOUCH: (
        "touch the {colour} cube",
        "touch the {colour} block",
        "tap the {colour} cube",
        "tap the {colour} block",
        "reach the {colour} cube",
        "reach for the {colour} cube",
        "go to the {colour} cube",
        "move to the {colour} cube",
        "put the gripper on the {colour} cube",
        "please touch the {colour} cube",
    ),
    TaskKind.PICK: (
        "pick up the {colour} cube",
        "pick up the {colour} block",
        "pick the {colour} cube up",
        "pick the {colour} cube",
        "lift the {colour} cube",
        "lift up the {colour} block",
        "grasp the {colour} cube",
        "grab the {colour} cube",
        "take the {colour} cube",
        "please pick up the {colour} cube",
    ),
    TaskKind.PUSH: (
        "push the {colour} cube to the left",
        "push the {colour} block to the left",
        "push the {colour} cube left",
        "move the {colour} cube to the left",
        "shove the {colour} cube to the left",
        "slide the {colour} cube to the left",
    ),
    TaskKind.DRIVE: (
        "drive to the {colour} post",
        "drive to the {colour} pole",
        "go to the {colour} post",
        "move to the {colour} post",
        "head for the {colour} pole",
        "please drive to the {colour} post",
    ),
    TaskKind.FETCH: (
        "fetch the {colour} cube",
        "fetch the {colour} block",
        "get the {colour} cube",
        "drive to the {colour} cube and get it",
        "please fetch the {colour} cube",
    ),
}
_POSTS = r"\b(?:post|pole|pillar)\b"
_FETCHING = r"\b(?:fetch|get)\b"
_TAKING = r"\b(?:pick|lift|grasp|grab|take|hold)\b"
_REACHING = r"\b(?:touch|tap|reach|go to|move to|gripper on|point)\b"


@dataclass(frozen=True)
class Task:
    """A kind of task and the cube or post that it is about."""

    kind: TaskKind
    colour: str

    def wordings(self) -> tuple[str, ...]:
        return tuple(wording.format(colour=self.colour) for wording in WORDINGS[self.kind])

    def instruction(self, rng: np.random.Generator | None = None) -> str:
        """The plain wording, or one drawn with `rng`."""
        wordings = self.wordings()
        return wordings[0] if rng is None else wordings[int(rng.integers(len(wordings)))]


def parse_instruction(text: str, kinds: Sequence[TaskKind] = tuple(TaskKind)) -> Task:
    """The task that a sentence asks for, one of `kinds`. Raises InputError that says what is understood."""
    words = text.lower()
    colours = [colour for colour in COLOURS if re.search(rf"\b{colour}\b", words)]
    if len(colours) != 1:
        raise InputError(f"instruction {text!r}: expected exactly one of the colours {', '.join(COLOURS)}")
    if re.search(_POSTS, words):
        kind = TaskKind.DRIVE
    elif re.search(_FETCHING, words):
        kind = TaskKind.FETCH
    elif re.search(r"\bleft\b", words):
        kind = TaskKind.PUSH
    elif re.search(_TAKING, words):
        kind = TaskKind.PICK
    elif re.search(_REACHING, words):
        kind = TaskKind.TOUCH
    else:
        kind = None
    if kind not in kinds:
        known = ", ".join(repr(WORDINGS[kind][0]) for kind in kinds)
        raise InputError(f"instruction {text!r}: expected one like {known}")
    return Task(kind, colours[0])


class SuccessTracker:
    """Watches a world, with one `update` per control tick, and says when the task is done.

    touch: the gripper tip is within 3 cm of the cube's centre and nearer to it than to any other cube.
    pick: the cube has been 5 cm above where it lay for 1 s without a break.
    push: the cube has moved 5 cm to the robot's left (+y) and lies on the table.
    drive: the base's middle is within 35 cm of the post's and has stood for 0.5 s, and the robot has touched nothing
        on the way.
    fetch: as pick, and the robot has touched nothing but the cube.

    Attributes:
        succeeded: stays true once it was.
        holds: true while the condition is met now.
        success_time: simulated time at which it succeeded first, s, or None.
    """

    TOUCH_DISTANCE = 0.03  # m
    LIFT_HEIGHT = 0.05  # m
    HOLD_TIME = 1.0  # s
    PUSH_DISTANCE = 0.05  # m
    DRIVE_DISTANCE = 0.35  # m
    STAND_TIME = 0.5  # s
    STANDS = np.array([0.03, 0.03, 0.1])  # m/s and rad/s: what is slower stands

    def __init__(self, task: Task, scene: "Simulated"):
        """Lifting and pushing are measured from where the cubes lie now, or from where one in the air comes down."""
        self.task = task
        self.succeeded = False
        self.holds = False
        self.success_time: float | None = None
        self._scene = scene
        self._start = scene.cube_positions()[task.colour].copy()
        self._since: float | None = None
        self._collisions = scene.collisions

    def update(self) -> bool:
        """Look once; returns `succeeded`."""
        self.holds = self._driven() if self.task.kind is TaskKind.DRIVE else self._handled()
        if self.holds and not self.succeeded:
            self.succeeded, self.success_time = True, self._scene.time
        return self.succeeded

    def distance(self) -> float:
        """m from the tip to the cube, or from the base to the post."""
        scene, colour = self._scene, self.task.colour
        if self.task.kind is TaskKind.DRIVE:
            return float(np.hypot(*(scene.base_pose()[:2] - scene.post_positions()[colour])))
        return float(np.linalg.norm(scene.tip_position() - scene.cube_positions()[colour]))

    @property
    def touched(self) -> bool:
        """The robot has touched a wall, a post, a box or a stand since."""
        return self._scene.collisions > self._collisions

    def _driven(self) -> bool:
        stands = (np.abs(self._scene.base_velocity()) < self.STANDS).all()
        there = self._lasts(bool(stands and self.distance() <= self.DRIVE_DISTANCE), self.STAND_TIME)
        return there and not self.touched

    def _lasts(self, condition: bool, seconds: float) -> bool:
        """Whether it has been so for that long."""
        now = self._scene.time
        self._since = (now if self._since is None else self._since) if condition else None
        return self._since is not None and now - self._since >= seconds - 1e-9

    def _handled(self) -> bool:
        scene = self._scene
        cubes = scene.cube_positions()
        cube = cubes[self.task.colour]
        self._start[2] = min(self._start[2], cube[2])
        if self.task.kind is TaskKind.TOUCH:
            tip = scene.tip_position()
            distances = {colour: float(np.linalg.norm(tip - place)) for colour, place in cubes.items()}
            nearest = min(distances, key=distances.__getitem__)
            return nearest == self.task.colour and distances[nearest] <= self.TOUCH_DISTANCE
        if self.task.kind in (TaskKind.PICK, TaskKind.FETCH):
            held = self._lasts(bool(cube[2] - self._start[2] >= self.LIFT_HEIGHT), self.HOLD_TIME)
            return held and not self.touched
        return bool(cube[1] - self._start[1] >= self.PUSH_DISTANCE and cube[2] < self._start[2] + 0.01)
