"""What a robot can be told, and when it has done it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.scene import COLOURS
from vla_ros.sim.wordings import WORDINGS, TaskKind, Wordings

if TYPE_CHECKING:
    from vla_ros.sim.simulated import Simulated


# What a sentence is about: the first that fits counts. A scene that does not have the tasks of `_EXTRA` ignores them.
_EXTRA: tuple[tuple[TaskKind, str], ...] = (
    (TaskKind.UNDO, r"\b(?:undo|reverse|revert)\b"),
    (TaskKind.SORT, r"\bsort(?:ing)?\b|\bpads?\b"),
    (TaskKind.PRESS, r"\bbutton\b"),
    (TaskKind.STORE, r"\bdrawer\b"),  # without a cube: OPEN
    (TaskKind.PLACE, r"\bbowl\b"),
    (TaskKind.STACK, r"\bstack\b|\bon(?:to)?\b"),  # with two cubes only
    (TaskKind.HAND_OVER, r"\bmark\b|\bhand\b"),
    (TaskKind.PUSH_RIGHT, r"\bright\b"),
)
_RULES = (
    (TaskKind.DRIVE, r"\b(?:post|pole|pillar)\b"),
    (TaskKind.FETCH, r"\b(?:fetch|get)\b"),
    (TaskKind.PUSH, r"\bleft\b"),
    (TaskKind.PICK, r"\b(?:pick|lift|raise|grasp|grab|take|hold)\b"),
    (TaskKind.TOUCH, r"\b(?:touch|tap|reach|go to|move to|gripper on|point)\b"),
)
# Words with which a sentence of that kind asks for something else, or for the opposite.
_ASIDE = r"\b(?:out of|from|beside|next to|near|behind)\b"
_UNLIKE = {
    TaskKind.OPEN: r"\b(?:close|closed|shut|in|into|inside)\b", TaskKind.STORE: _ASIDE, TaskKind.PLACE: _ASIDE,
    TaskKind.PUSH: r"\bon the left\b", TaskKind.PUSH_RIGHT: r"\bon the right\b",
}  # fmt: skip
_NEGATION = r"\b(?:not|don't|never|before|without)\b"
_CUBES = dict.fromkeys((TaskKind.PRESS, TaskKind.OPEN, TaskKind.SORT, TaskKind.UNDO), 0) | {TaskKind.STACK: 2}
# Two of which the first does the second, or takes its room (the drawer holds one cube), or leaves nothing to undo.
_NEVER = tuple(
    (TaskKind(first), TaskKind(second))
    for first, second in (
        ("press", "press"), ("open", "open"), ("store", "open"), ("store", "store"), ("touch", "undo"),
        ("press", "undo"),
    )
)
_THEN = r"[,;.]?\s+(?:and )?(?:then|after that),?\s+"


def cubes_of(kind: TaskKind) -> int:
    """How many cubes (or posts) a sentence of this kind names."""
    return _CUBES.get(kind, 1)


@dataclass(frozen=True)
class Task:
    """A kind of task and what it is about.

    Attributes:
        colour: of the cube or post; "": it is about none.
        other: of the cube that another one is stacked on.
        then: what is to be done afterwards.
    """

    kind: TaskKind
    colour: str = ""
    other: str = ""
    then: "Task | None" = None

    def __post_init__(self) -> None:
        """Raises InputError for two tasks that cannot follow each other."""
        if self.kinds in _NEVER:
            raise InputError(f"task {'+'.join(self.kinds)}: the second cannot follow the first, expected another pair")

    @property
    def kinds(self) -> tuple[TaskKind, ...]:
        """Of this task and of what comes afterwards."""
        return (self.kind, *(self.then.kinds if self.then else ()))

    def wordings(self, words: Wordings = WORDINGS) -> tuple[str, ...]:
        """Of this task alone, without what comes afterwards."""
        return tuple(wording.format(colour=self.colour, other=self.other) for wording in words[self.kind])

    def instruction(self, rng: np.random.Generator | None = None, words: Wordings = WORDINGS) -> str:
        """The plain wording, or one of `words` drawn with `rng`."""
        wordings = self.wordings(words)
        text = wordings[0] if rng is None else wordings[int(rng.integers(len(wordings)))]
        return f"{text}, then {self.then.instruction(rng, words)}" if self.then else text


def task_of(name: str, colour: str) -> Task:
    """The task of that name, a kind or two with "+" between them, with cubes of `colour`; `Simulated.suited` gives it
    those of a layout. Raises InputError for another name.
    """
    try:
        kinds = [TaskKind(part) for part in name.split("+")]
    except ValueError:
        kinds = []
    if not 1 <= len(kinds) <= 2 or (len(kinds) == 2 and kinds[0] is TaskKind.UNDO):
        raise InputError(f"task {name}, expected one of {', '.join(TaskKind)}, or two such as place+press")
    return Task(kinds[0], colour, then=Task(kinds[1], colour) if kinds[1:] else None)


def parse_instruction(
    text: str, kinds: Sequence[TaskKind] = tuple(TaskKind), colours: Sequence[str] = COLOURS
) -> Task:
    """The task that a sentence asks for, one of `kinds`; where UNDO is one of them, two with "then" between them too.

    Raises InputError that says what is understood.
    """
    parts = re.split(_THEN, text.lower()) if TaskKind.UNDO in kinds else [text.lower()]
    if len(parts) > 2:
        raise InputError(f"instruction {text!r}: {len(parts)} tasks, expected one or two")
    first, *after = [_part(text, words, kinds, colours) for words in parts]
    if first.kind is TaskKind.UNDO:
        raise InputError(f"instruction {text!r}: nothing to undo; expected one like 'open the drawer, then undo that'")
    return replace(first, then=after[0]) if after else first


def _part(text: str, words: str, kinds: Sequence[TaskKind], colours: Sequence[str]) -> Task:
    """The task of `words`, a part of the sentence `text`."""
    named = list(dict.fromkeys(re.findall(rf"\b({'|'.join(colours)})\b", words)))
    rules = [rule for rule in _EXTRA if rule[0] in kinds and (rule[0] is not TaskKind.STACK or len(named) == 2)]
    kind = next((kind for kind, pattern in (*rules, *_RULES) if re.search(pattern, words)), None)
    if kind is TaskKind.STORE and not named:
        kind = TaskKind.OPEN
    if other := re.search(rf"{_NEGATION}|{_UNLIKE.get(kind, _NEGATION)}", words):
        raise InputError(f"instruction {text!r}: {other[0]!r} is not understood here; expected one like "
                         f"{WORDINGS[kind or TaskKind.TOUCH][0]!r}")
    if painted := re.search(rf"\b(?:{'|'.join(colours)}) (drawer|bowl|mark)\b", words):
        raise InputError(f"instruction {text!r}: {painted[0]!r}, expected no colour of the {painted[1]}")
    if kind is TaskKind.PRESS:
        named = []  # it may be called the red button
    wanted = 1 if kind is None else cubes_of(kind)
    if len(named) != wanted:
        many = ("none", "exactly one", "two")[wanted]
        raise InputError(f"instruction {text!r}: expected {many} of the colours {', '.join(colours)}")
    if kind not in kinds:
        known = ", ".join(repr(WORDINGS[kind][0]) for kind in kinds)
        raise InputError(f"instruction {text!r}: expected one like {known}")
    return Task(kind, *named)


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
        self._start = scene.cube_positions()[task.colour].copy() if task.colour else np.zeros(3)
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

    @property
    def failed(self) -> bool:
        """It can never succeed any more."""
        return self.task.kind in (TaskKind.DRIVE, TaskKind.FETCH) and self.touched and not self.succeeded

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
