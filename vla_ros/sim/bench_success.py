"""When the tasks at the workbench are done."""

from collections.abc import Callable

import numpy as np

from vla_ros.sim.bench import BOWL_RADIUS, DRAWER_HALF, MARK_HEIGHT
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.tasks import SuccessTracker, Task
from vla_ros.sim.wordings import TaskKind

_LASTING = (TaskKind.PLACE, TaskKind.STACK, TaskKind.PRESS, TaskKind.OPEN, TaskKind.STORE)  # they leave a trace
_RESTING = {TaskKind.PLACE, TaskKind.STACK, TaskKind.OPEN, TaskKind.STORE, TaskKind.SORT, TaskKind.UNDO}
_STILL = 0.5  # s that what was put somewhere has lain there, let go
OPENED, PRESSED = 0.045, 0.004  # m
ON_PAD, ON_CUBE, AT_MARK, BACK = 0.022, 0.015, 0.03, 0.02  # m


class BenchTracker(SuccessTracker):
    """As `SuccessTracker`, for the further tasks; each of them once, without what comes afterwards.

    push_right: as push, to the other side.
    place: the cube lies in the bowl.
    stack: it lies on the other cube, their middles within 1.5 cm.
    press: the button has been 4 mm down.
    open: the drawer is 4.5 cm open.
    store: the cube lies in the drawer.
    sort: each cube that has a pad of its colour lies on it, their middles within 2.2 cm.
    hand_over: the cube has been held within 3 cm of the point 9 cm above the mark for 1 s.
    undo: all cubes are within 2 cm of where they lay at the beginning of the task before, and the drawer 1 cm.

    What is to lie somewhere has been let go and has lain there for 0.5 s.
    """

    def __init__(self, task: Task, scene: Bench, before: dict[str, np.ndarray] | None = None) -> None:
        """`before`: `scene.poses()` at the beginning of the task before."""
        super().__init__(task, scene)
        self._before, self._pressed = before, False

    def distance(self) -> float:
        """m from the tip to the cube; without one, to what is in its place, or 0."""
        scene, kind = self._scene, self.task.kind
        if self.task.colour:
            return super().distance()
        if kind is TaskKind.SORT or kind is TaskKind.UNDO:
            return 0.0
        goal = scene.fixture("button")[0] if kind is TaskKind.PRESS else scene.drawer_point(0.0)
        return float(np.hypot(*(scene.tip_position()[:2] - goal)))

    def there(self) -> bool:
        """Whether what is to lie somewhere lies there now, let go; false for the other tasks."""
        scene = self._scene
        return self.task.kind in _RESTING and scene.held_cube() is None and _RULES[self.task.kind](self, scene)

    def _handled(self) -> bool:
        if self.task.kind in _RESTING:
            return self._lasts(self.there(), _STILL)
        rule = _RULES.get(self.task.kind)
        return super()._handled() if rule is None else rule(self, self._scene)

    def _cube(self) -> np.ndarray:
        """(3,) m."""
        return self._scene.cube_positions()[self.task.colour]

    def _push_right(self, scene: Bench) -> bool:
        cube = self._cube()
        return bool(self._start[1] - cube[1] >= self.PUSH_DISTANCE and cube[2] < self._start[2] + 0.01)

    def _place(self, scene: Bench) -> bool:
        cube, (bowl, _) = self._cube(), scene.fixture("bowl")
        return bool(np.hypot(*(cube[:2] - bowl)) < BOWL_RADIUS - 0.008 and 0.0 < cube[2] < 0.032)

    def _stack(self, scene: Bench) -> bool:
        off = self._cube() - scene.cube_positions()[self.task.other]
        return bool(np.hypot(*off[:2]) < ON_CUBE and abs(off[2] - 0.030) < 0.004)

    def _press(self, scene: Bench) -> bool:
        self._pressed |= scene.slide("button_cap") >= PRESSED
        return self._pressed

    def _open(self, scene: Bench) -> bool:
        return bool(scene.slide("drawer") >= OPENED)

    def _store(self, scene: Bench) -> bool:
        cube = self._cube()
        return bool((np.abs(scene.in_drawer(cube)) < DRAWER_HALF).all() and 0.0 < cube[2] < 0.03)

    def _sort(self, scene: Bench) -> bool:
        cubes = scene.cube_positions()
        offs = [np.append(cubes[colour][:2] - pad, cubes[colour][2] - 0.015) for colour, pad in scene.pads().items()]
        return all(np.hypot(*off[:2]) < ON_PAD and abs(off[2]) < 0.004 for off in offs)

    def _hand_over(self, scene: Bench) -> bool:
        point = np.append(scene.fixture("mark")[0], MARK_HEIGHT)
        near = np.linalg.norm(self._cube() - point) < AT_MARK
        return self._lasts(bool(near and scene.held_cube() == self.task.colour), self.HOLD_TIME)

    def _undo(self, scene: Bench) -> bool:
        return not displaced(scene, self._before)


_RULES: dict[TaskKind, Callable[[BenchTracker, Bench], bool]] = {
    TaskKind.PUSH_RIGHT: BenchTracker._push_right, TaskKind.PLACE: BenchTracker._place,
    TaskKind.STACK: BenchTracker._stack, TaskKind.PRESS: BenchTracker._press, TaskKind.OPEN: BenchTracker._open,
    TaskKind.STORE: BenchTracker._store, TaskKind.SORT: BenchTracker._sort, TaskKind.HAND_OVER: BenchTracker._hand_over,
    TaskKind.UNDO: BenchTracker._undo,
}  # fmt: skip


def displaced(scene: Bench, before: dict[str, np.ndarray]) -> list[str]:
    """What lies elsewhere than `before` (`Bench.poses`): colours of cubes, the highest first, and "drawer"."""
    now = scene.poses()
    off = {name: float(np.linalg.norm(now[name][:3] - before[name][:3])) for name in (*scene.colours, "drawer")}
    moved = [name for name in scene.colours if off[name] > BACK]
    return sorted(moved, key=lambda name: -now[name][2]) + ["drawer"] * (off["drawer"] > BACK / 2)


class SequenceTracker:
    """Two tasks, the second after the first: done when both have been done in this order.

    A second task that leaves a trace and was done before the first is a failure for good. Attributes and methods are
    those of `SuccessTracker`.
    """

    touched = False

    def __init__(self, task: Task, scene: Bench) -> None:
        self.task, self._scene = task, scene
        self.before = scene.poses()
        self._first = BenchTracker(task, scene)
        self._early = BenchTracker(task.then, scene) if task.then.kind in _LASTING else None
        self._second: BenchTracker | None = None
        self.succeeded, self.holds, self.success_time = False, False, None

    @property
    def second(self) -> bool:
        """The first is done."""
        return self._second is not None

    @property
    def failed(self) -> bool:
        return self._second is None and self._early is not None and self._early.succeeded

    def distance(self) -> float:
        return (self._second or self._first).distance()

    def update(self) -> bool:
        if self._second is None:
            if self._early is not None and self._early.update():
                return False
            if self._first.update():
                self._second = BenchTracker(self.task.then, self._scene, self.before)
            return False
        self._second.update()
        self.holds = self._second.holds
        if self._second.succeeded and not self.succeeded:
            self.succeeded, self.success_time = True, self._scene.time
        return self.succeeded
