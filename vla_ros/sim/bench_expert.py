"""A scripted expert for the workbench: for every task a list of way points, made from where things are.

The list is made again when a cube was lost on the way, or when the task is not done at its end, so the expert recovers
from any start and most disturbances.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.bench import BOWL_HEIGHT, BUTTON_HEIGHT, DRAWER_MIDDLE, DRAWER_TRAVEL, HANDLE
from vla_ros.sim.bench_success import OPENED, BenchTracker, SequenceTracker, displaced
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.expert import (
    GRASP_OFFSET,
    LIFT_HEIGHT,
    TRAVEL_HEIGHT,
    Expert,
    Smooth,
    arm_bearing,
    funnel,
    squared,
)  # fmt: skip
from vla_ros.sim.kinematics import TipPose, forward
from vla_ros.sim.robot import GRIPPER_CLOSED, GRIPPER_OPEN
from vla_ros.sim.tasks import Task
from vla_ros.sim.wordings import TaskKind
from vla_ros.sim.world import HOME

_FINGER = 0.004  # m that the fingers are longer than the tip
_NEAR, _TURNED = 0.008, 0.15  # m and rad from a way point, when the next one follows
_BETWEEN = np.array([0.009, 0.008, 0.009])  # m along, across and above the grasp, where fingers close on a cube
_LOST = 0.045  # m from the tip to the cube in hand
_PATIENCE = 150  # control periods at the end of a list before it is made again
_PULL_HEIGHT, _AHEAD = 0.020, 0.02  # m, of the tip at the drawer's handle, and its goal before it
_STUCK = 800  # control periods at one way point


@dataclass(frozen=True)
class Point:
    """A way point.

    Attributes:
        place: where the tip is to be, (3,) m, from its pose when the point was begun; asked at every tick.
        heading: of the jaw, rad, likewise; None: as it was.
        gripper: rad, of the finger.
        over: go up, across and down; otherwise straight.
        holding: colour of the cube that must be in hand.
        until: ends it early.
        needs: without this it does not end.
        home: the task is done, the arm goes home. A policy that took a failure for the end begins again from there,
            where a hand that stayed would stay for good.
    """

    place: Callable[[TipPose], np.ndarray]
    gripper: float
    heading: Callable[[TipPose], float] | None = None
    over: bool = False
    holding: str = ""
    until: Callable[[], bool] | None = None
    needs: Callable[[], bool] | None = None
    home: bool = False


class BenchExpert(Smooth):
    """Does one of the tasks that the workbench has beside touch and push."""

    def __init__(
        self, world: Bench, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None,
        before: dict[str, np.ndarray] | None = None,
    ) -> None:
        """`before`: `Bench.poses()` at the beginning of the task before, for an UNDO."""
        super().__init__(world, task, position, velocity)
        self._before, self._tracker = before, BenchTracker(task, world, before)
        self._plan()

    @property
    def settled(self) -> bool:
        """The arm is at rest where the task should end, or on its way home from there."""
        if self._index < len(self._points) - 1:
            return False
        return self._points[-1].home or bool(np.abs(self.velocity).max() < 0.05)

    def command(self) -> np.ndarray:
        self._tracker.update()
        return super().command()

    def _plan(self) -> None:
        self._points, self._index, self._waited = self._ways(), 0, 0
        self._start = forward(self.position)

    def _goal(self) -> tuple[np.ndarray, float, float]:
        pose, point = forward(self.position), self._points[self._index]
        if point.holding and self._gone(point.holding):
            self._plan()
            point = self._points[0]
        place = point.place(self._start)
        heading = self._start.heading if point.heading is None else point.heading(self._start)
        self._waited += 1
        if self._reached(point, pose, place, heading):
            if self._index < len(self._points) - 1:
                self._index, self._waited, self._start = self._index + 1, 0, TipPose(place, heading, pose.pitch)
            elif self._waited > _PATIENCE and not self._tracker.holds:
                self._plan()
        elif self._waited > _STUCK:
            self._plan()
        if not point.over:
            return place, heading, point.gripper
        clear = point.gripper < GRIPPER_OPEN or self.position[5] > GRIPPER_OPEN - 0.12
        goal, rising = funnel(pose.position, place, floor=0.0 if clear else 0.055)
        return goal, heading, self.position[5] if rising and not point.holding else point.gripper

    def _reached(self, point: Point, pose: TipPose, place: np.ndarray, heading: float) -> bool:
        if point.until is not None and point.until():
            return True
        turned = abs((pose.heading - heading + np.pi) % (2 * np.pi) - np.pi)
        there = np.linalg.norm(pose.position - place) < _NEAR and turned < _TURNED
        there = there and abs(self.position[5] - point.gripper) < 0.08
        return bool(there and (point.needs is None or point.needs()))

    def _gone(self, colour: str) -> bool:
        return bool(np.linalg.norm(self._cube(colour) - self.world.tip_position()) > _LOST)

    def _cube(self, colour: str) -> np.ndarray:
        return self.world.cube_positions()[colour]

    # The lists

    def _ways(self) -> list[Point]:
        held, kind, colour = self.world.held_cube(), self.task.kind, self.task.colour
        if self._tracker.there():
            return [self._risen(self.position[5]), self._home()]
        wanted = colour if kind in (TaskKind.PICK, TaskKind.PLACE, TaskKind.STACK, TaskKind.HAND_OVER) else ""
        points = self._release() if held and held != wanted else []
        if kind is TaskKind.PRESS:
            points += self._press()
        elif kind is TaskKind.OPEN:
            points += self._open()
        elif kind is TaskKind.STORE:
            points += (self._open() if self.world.slide("drawer") < OPENED else []) + self._store()
        elif kind is TaskKind.SORT:
            for name, pad in self.world.pads().items():
                if np.linalg.norm(self._cube(name) - (*pad, 0.015)) > 0.012:
                    points += self._grasp(name) + self._put(name, np.array([*pad, 0.017]))
        elif kind is TaskKind.UNDO:
            for name in displaced(self.world, self._before):
                points += self._close() if name == "drawer" else self._back(name)
        else:
            points += self._grasp(colour) if held != wanted else []
            points += {
                TaskKind.PICK: self._pick, TaskKind.PLACE: self._place, TaskKind.STACK: self._stack,
                TaskKind.HAND_OVER: self._hand_over,
            }[kind]()  # fmt: skip
        if kind not in (TaskKind.PICK, TaskKind.HAND_OVER, TaskKind.PRESS):
            points.append(self._home())
        return points

    def _release(self) -> list[Point]:
        """What is in hand is put down here, on whatever there is."""
        world = self.world
        down = Point(lambda start: np.array([*start.position[:2], 0.016]), GRIPPER_CLOSED,
                     until=lambda: world.tip_position()[2] > forward(self.position).position[2] + 0.006)  # fmt: skip
        here = Point(lambda start: forward(self.position).position, GRIPPER_OPEN)
        return [down, here, self._risen(GRIPPER_OPEN)]

    def _grasp(self, colour: str) -> list[Point]:
        world = self.world

        def heading(start: TipPose) -> float:
            return squared(world.cube_yaw(colour), arm_bearing(self._cube(colour)))

        def place(start: TipPose) -> np.ndarray:
            cube, angle = self._cube(colour), heading(start)
            return cube - (GRASP_OFFSET * np.cos(angle), GRASP_OFFSET * np.sin(angle), 0.001)

        def closed() -> bool:
            return self.position[5] < GRIPPER_CLOSED + 0.06 and world.held_cube() == colour

        def between() -> bool:
            pose = forward(self.position)
            if abs(pose.heading - heading(pose)) > 0.25:
                return False
            off, along = pose.position - place(pose), _direction(pose.heading)
            # A jaw that is closing draws the cube towards the tip, so that the tip seems to be ahead.
            ahead = off[:2] @ along - (GRASP_OFFSET / 2 if self.position[5] < GRIPPER_OPEN - 0.12 else 0.0)
            across = off[:2] @ (-along[1], along[0])
            return bool((np.abs([ahead, across, off[2]]) < _BETWEEN).all())

        # Whether the cube is between the fingers is seen; whether they were about to close or to open is not.
        close = Point(lambda start: start.position, GRIPPER_CLOSED, holding=colour, needs=closed)
        return [Point(place, GRIPPER_OPEN, heading, over=True, until=between), close]

    def _pick(self) -> list[Point]:
        colour = self.task.colour
        return [Point(lambda start: np.array([*start.position[:2], LIFT_HEIGHT]), GRIPPER_CLOSED, holding=colour)]

    def _home(self) -> Point:
        rest = forward(HOME)
        return Point(lambda start: rest.position, GRIPPER_CLOSED, lambda start: rest.heading, over=True, home=True)

    def _risen(self, gripper: float) -> Point:
        return Point(lambda start: np.array([*start.position[:2], TRAVEL_HEIGHT]), gripper)

    def _carry(self, colour: str, goal: np.ndarray, heading: float, height: float) -> Point:
        """The middle of the cube in hand to `goal` (2,) m, the tip to this height."""

        def place(start: TipPose) -> np.ndarray:
            along = self._cube(colour)[:2] - self.world.tip_position()[:2]
            ahead = np.clip(float(along @ _direction(forward(self.position).heading)), 0.0, GRASP_OFFSET)
            return np.append(goal - ahead * _direction(heading), height)

        return Point(place, GRIPPER_CLOSED, lambda start: heading, over=True, holding=colour)

    def _put(self, colour: str, goal: np.ndarray, heading: float | None = None) -> list[Point]:
        """The cube in hand to `goal` (3,) m, its middle, let go, and the hand away from it."""
        heading = arm_bearing(goal) if heading is None else heading
        low = goal[2] - 0.001
        opened = Point(lambda start: start.position, GRIPPER_OPEN)
        aside = Point(lambda start: start.position - np.append(0.004 * _direction(heading), 0.0), GRIPPER_OPEN)
        up = Point(lambda start: np.array([*start.position[:2], max(TRAVEL_HEIGHT, low + 0.05)]), GRIPPER_OPEN)
        return [self._carry(colour, goal[:2], heading, low), opened, aside, up]

    def _place(self) -> list[Point]:
        bowl, _ = self.world.fixture("bowl")
        return self._put(self.task.colour, np.append(bowl, BOWL_HEIGHT + _FINGER + 0.005))

    def _stack(self) -> list[Point]:
        below = self._cube(self.task.other)
        heading = squared(self.world.cube_yaw(self.task.other), arm_bearing(below))
        return self._put(self.task.colour, below + (0.0, 0.0, 0.032), heading)

    def _hand_over(self) -> list[Point]:
        mark, _ = self.world.fixture("mark")
        return [self._carry(self.task.colour, mark, arm_bearing(mark), LIFT_HEIGHT)]

    def _store(self) -> list[Point]:
        colour, world = self.task.colour, self.world
        middle = world.drawer_point(DRAWER_MIDDLE, opened=max(world.slide("drawer"), DRAWER_TRAVEL - 0.004))
        heading = squared(world.fixture("drawer_case")[1], arm_bearing(middle))
        return self._grasp(colour) + self._put(colour, np.append(middle, 0.029 + _FINGER + 0.005), heading)

    def _back(self, colour: str) -> list[Point]:
        place = self._before[colour][:3]
        return self._grasp(colour) + self._put(colour, place + (0.0, 0.0, 0.002))

    def _press(self) -> list[Point]:
        world = self.world
        button, _ = world.fixture("button")
        heading = arm_bearing(button)
        middle = button + 0.008 * _direction(heading)  # closed, the fingers are to one side of the tip

        down = np.append(middle, BUTTON_HEIGHT + _FINGER - 0.008)
        # Held down: above a button that has sprung back nothing shows a policy that it has been pressed.
        return [Point(lambda start: down, GRIPPER_CLOSED, lambda start: heading, over=True)]

    def _open(self) -> list[Point]:
        world = self.world
        heading, middle = world.fixture("drawer_case")[1], world.drawer_point(HANDLE)
        heading = squared(heading, arm_bearing(middle))
        pulled = world.drawer_point(HANDLE + 0.006, opened=DRAWER_TRAVEL)
        behind = Point(lambda start: np.append(middle, _PULL_HEIGHT), GRIPPER_CLOSED, lambda start: heading, over=True)
        pull = Point(self._along(pulled), GRIPPER_CLOSED, until=lambda: world.slide("drawer") > DRAWER_TRAVEL - 0.003)
        off = Point(lambda start: np.append(world.drawer_point(HANDLE), _PULL_HEIGHT), GRIPPER_CLOSED)
        return [behind, pull, off, self._risen(GRIPPER_CLOSED)]

    def _along(self, goal: np.ndarray) -> Callable[[TipPose], np.ndarray]:
        """A place that goes before the tip on the straight line to `goal` (2,) m."""

        def place(start: TipPose) -> np.ndarray:
            now = forward(self.position).position[:2]
            way = goal - now
            return np.append(now + way * min(1.0, _AHEAD / max(float(np.hypot(*way)), 1e-9)), _PULL_HEIGHT)

        return place

    def _close(self) -> list[Point]:
        world = self.world
        heading = squared(world.fixture("drawer_case")[1], arm_bearing(world.drawer_point(HANDLE)))
        front = world.drawer_point(HANDLE + 0.045)
        before = Point(lambda start: np.append(front, _PULL_HEIGHT), GRIPPER_CLOSED, lambda start: heading, over=True)
        shut = world.drawer_point(HANDLE + 0.028, opened=0.0)
        push = Point(self._along(shut), GRIPPER_CLOSED, until=lambda: world.slide("drawer") < 0.002)
        return [before, push, self._risen(GRIPPER_CLOSED)]


class SequenceExpert:
    """Does one task, then the other.

    Attributes:
        position, velocity: as those of `Expert`.
    """

    def __init__(
        self, world: Bench, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
    ) -> None:
        """Raises InputError for what it cannot do: two cubes in the bowl, and to take one out of the drawer."""
        if task.kinds in ((TaskKind.PLACE, TaskKind.PLACE), (TaskKind.STORE, TaskKind.UNDO)):
            raise InputError(f"task {'+'.join(task.kinds)}: the scripted expert cannot do it, expected another pair")
        self.world, self.task = world, task
        self._tracker = SequenceTracker(task, world)
        self._now, self._second = bench_expert(world, task, position, velocity), False

    @property
    def position(self) -> np.ndarray:
        return self._now.position

    @property
    def velocity(self) -> np.ndarray:
        return self._now.velocity

    @property
    def settled(self) -> bool:
        """Both are done, as far as this expert knows."""
        return self._second and self._now.settled

    def command(self) -> np.ndarray:
        """(6,) joint targets for this control tick, rad. Call once for each `World.step`."""
        self._tracker.update()
        if self._tracker.second and not self._second and self._now.settled:
            self._second = True
            then, before = self.task.then, self._tracker.before
            self._now = bench_expert(self.world, then, self._now.position, self._now.velocity, before)
        return self._now.command()


def bench_expert(
    world: Bench, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None,
    before: dict[str, np.ndarray] | None = None,
) -> Expert | BenchExpert:
    """Who does this task, without what comes afterwards. Arguments as those of `BenchExpert`."""
    if task.kind in (TaskKind.TOUCH, TaskKind.PUSH, TaskKind.PUSH_RIGHT):
        return Expert(world, task, position, velocity)
    return BenchExpert(world, task, position, velocity, before)


def _direction(heading: float) -> np.ndarray:
    return np.array([np.cos(heading), np.sin(heading)])

