"""Instructions for the arm, and the conditions of success."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.scene import COLOURS

if TYPE_CHECKING:
    from vla_ros.sim.world import World


class TaskKind(StrEnum):
    TOUCH = "touch"
    PICK = "pick"
    PUSH = "push"


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
}
_TAKING = r"\b(?:pick|lift|grasp|grab|take|hold)\b"
_REACHING = r"\b(?:touch|tap|reach|go to|move to|gripper on|point)\b"


@dataclass(frozen=True)
class Task:
    """A kind of task and the cube it is about."""

    kind: TaskKind
    colour: str

    def wordings(self) -> tuple[str, ...]:
        return tuple(wording.format(colour=self.colour) for wording in WORDINGS[self.kind])

    def instruction(self, rng: np.random.Generator | None = None) -> str:
        """The plain wording, or one drawn with `rng`."""
        wordings = self.wordings()
        return wordings[0] if rng is None else wordings[int(rng.integers(len(wordings)))]


def parse_instruction(text: str) -> Task:
    """The task that a sentence asks for. Raises InputError that says what is understood."""
    words = text.lower()
    colours = [colour for colour in COLOURS if re.search(rf"\b{colour}\b", words)]
    if len(colours) != 1:
        raise InputError(f"instruction {text!r}: expected exactly one of the colours {', '.join(COLOURS)}")
    if re.search(r"\bleft\b", words):
        kind = TaskKind.PUSH
    elif re.search(_TAKING, words):
        kind = TaskKind.PICK
    elif re.search(_REACHING, words):
        kind = TaskKind.TOUCH
    else:
        raise InputError(f"instruction {text!r}: expected one like {', '.join(repr(w[0]) for w in WORDINGS.values())}")
    return Task(kind, colours[0])


class SuccessTracker:
    """Watches a world, with one `update` per control tick, and says when the task is done.

    touch: the gripper tip is within 3 cm of the cube's centre and nearer to it than to any other cube.
    pick: the cube has been 5 cm above where it lay for 1 s without a break.
    push: the cube has moved 5 cm to the robot's left (+y) and lies on the table.

    Attributes:
        succeeded: stays true once it was.
        holds: true while the condition is met now.
        success_time: simulated time at which it succeeded first, s, or None.
    """

    TOUCH_DISTANCE = 0.03  # m
    LIFT_HEIGHT = 0.05  # m
    HOLD_TIME = 1.0  # s
    PUSH_DISTANCE = 0.05  # m

    def __init__(self, task: Task, scene: "World"):
        """Lifting and pushing are measured from where the cubes lie now, or from where one in the air comes down."""
        self.task = task
        self.succeeded = False
        self.holds = False
        self.success_time: float | None = None
        self._scene = scene
        self._start = scene.cube_positions()[task.colour].copy()
        self._since: float | None = None

    def update(self) -> bool:
        """Check once; returns `succeeded`."""
        scene = self._scene
        cubes = scene.cube_positions()
        cube = cubes[self.task.colour]
        self._start[2] = min(self._start[2], cube[2])
        if self.task.kind is TaskKind.TOUCH:
            tip = scene.tip_position()
            distances = {colour: float(np.linalg.norm(tip - place)) for colour, place in cubes.items()}
            nearest = min(distances, key=distances.__getitem__)
            self.holds = nearest == self.task.colour and distances[nearest] <= self.TOUCH_DISTANCE
        elif self.task.kind is TaskKind.PICK:
            lifted = cube[2] - self._start[2] >= self.LIFT_HEIGHT
            self._since = (scene.time if self._since is None else self._since) if lifted else None
            self.holds = self._since is not None and scene.time - self._since >= self.HOLD_TIME - 1e-9
        else:
            self.holds = cube[1] - self._start[1] >= self.PUSH_DISTANCE and cube[2] < self._start[2] + 0.01
        if self.holds and not self.succeeded:
            self.succeeded, self.success_time = True, scene.time
        return self.succeeded
