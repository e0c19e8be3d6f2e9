"""A scripted expert that drives to a post or a cube: it knows where everything is, and takes the shortest clear way.

The way is the descent of a map of distances to the goal (Dijkstra 1959 on a grid), so the expert recovers from any
place and any disturbance. It looks at its goal all the time: a base on three wheels need not face where it goes.
"""

import heapq

import numpy as np

from vla_ros.sim.room import BASE_RADIUS, BOXES, HALF_ROOM, POST_RADIUS, STAND_HALF
from vla_ros.sim.room_world import FOLDED, RoomWorld
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind

CELL = 0.04  # m
NEAR = {TaskKind.DRIVE: 0.29, TaskKind.FETCH: 0.26}  # m from the middle of the post or cube to the base's
_SPARE = 0.04  # m kept between the base and everything
_SHY, _DEAR = 0.28, 12.0  # m from things, beside that: nearer, a way costs more, in the end so many times more
_LOOK = 11  # cells along the way that it heads for, at most
_SHORTCUT = 1.1  # times the cost of the way that a straight line to there may have: it cuts no corners
_APPROACH, _TURN = 1.6, 2.0  # 1/s: speed for each m and rad that are left
_SPEED = np.array([0.22, 1.2])  # m/s along the way, rad/s
_ACCELERATION = np.array([0.7, 0.7, 4.0])  # m/s², m/s² and rad/s²
_FOLDING = 1.0  # rad/s, of an arm that is not folded yet
_AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


class Driver:
    """Drives to one post, or in front of one cube, from wherever the base is; the arm is folded.

    Attributes:
        left: m, and turn: rad, to where it stops.
        position: (9,) the last command, rad, m/s and rad/s.
        velocity: (9,) zero: what `Expert` has for an arm that is moving.
    """

    def __init__(
        self, world: RoomWorld, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
    ) -> None:
        """`position` (9,): the last command, where the robot was already being commanded."""
        self.world, self.task = world, task
        self.position = world.joint_positions() if position is None else np.array(position, dtype=float)
        self.velocity = np.zeros(9)
        self.left, self.turn = np.inf, np.pi
        self._goal, self._near = goal_of(world, task), NEAR[task.kind]
        self._way = Way(world, self._goal, self._near)

    @property
    def settled(self) -> bool:
        """It stands where the task leaves it."""
        return bool((np.abs(self.position[6:]) < SuccessTracker.STANDS).all())

    def command(self) -> np.ndarray:
        """(9,) for this control tick. Call once for each `World.step`."""
        x, y, yaw = self.world.base_pose()
        towards = self._goal - (x, y)
        self.left = max(float(np.hypot(*towards)) - self._near, 0.0)
        ahead = self._way.ahead(np.array([x, y])) if self.left else np.zeros(2)
        along = ahead * min(_SPEED[0], _APPROACH * self.left)
        self.turn = (np.arctan2(towards[1], towards[0]) - yaw + np.pi) % (2 * np.pi) - np.pi
        cos, sin = np.cos(yaw), np.sin(yaw)
        wish = np.array([cos * along[0] + sin * along[1], cos * along[1] - sin * along[0],
                         np.clip(_TURN * self.turn, -_SPEED[1], _SPEED[1])])  # fmt: skip
        most = _ACCELERATION * self.world.control_period
        self.position[6:] += np.clip(wish - self.position[6:], -most, most)
        fold = _FOLDING * self.world.control_period
        self.position[:6] += np.clip(FOLDED - self.position[:6], -fold, fold)
        return self.position.copy()


class Way:
    """The shortest ways to one goal from all places."""

    def __init__(self, world: RoomWorld, goal: np.ndarray, near: float) -> None:
        """`goal`: (2,) m, and `near`: m from it where ways end."""
        count = round(2 * HALF_ROOM / CELL)
        self._middles = (np.arange(count) + 0.5) * CELL - HALF_ROOM
        grid = np.stack(np.meshgrid(self._middles, self._middles, indexing="ij"), axis=-1)
        room = clearance(world, grid) - BASE_RADIUS - _SPARE
        self._cost = np.where(room > 0.0, 1.0 + _DEAR * np.clip(1.0 - room / _SHY, 0.0, 1.0) ** 2, 60.0)
        goals = np.argwhere(np.hypot(*np.moveaxis(grid - goal, -1, 0)) < near)
        self._left, self._next = _descent(self._cost, goals)

    def ahead(self, place: np.ndarray) -> np.ndarray:
        """(2,) of length 1: in which direction to go from (2,) m."""
        start = tuple(np.clip(((place + HALF_ROOM) / CELL).astype(int), 0, len(self._middles) - 1))
        cells = [self._next[start]]
        while len(cells) < _LOOK and self._next[cells[-1]] != cells[-1]:
            cells.append(self._next[cells[-1]])
        while len(cells) > 1 and self._straight(place, cells[-1]) > _SHORTCUT * (
            self._left[start] - self._left[cells[-1]]
        ):
            cells.pop()
        target = self._middles[list(cells[-1])]
        step = target - place
        return step / max(float(np.hypot(*step)), 1e-6)

    def _straight(self, place: np.ndarray, cell: tuple[int, int]) -> float:
        """What the straight way from (2,) m to a cell costs, in cells."""
        step = self._middles[list(cell)] - place
        length = float(np.hypot(*step)) / CELL
        many = max(round(length), 1)
        cells = ((place + np.outer((np.arange(many) + 0.5) / many, step) + HALF_ROOM) / CELL).astype(int)
        return float(self._cost[cells[:, 0], cells[:, 1]].mean()) * length


def goal_of(world: RoomWorld, task: Task) -> np.ndarray:
    """(2,) m, where the post or the cube is."""
    if task.kind is TaskKind.DRIVE:
        return world.post_positions()[task.colour]
    return world.cube_positions()[task.colour][:2]


def clearance(world: RoomWorld, places: np.ndarray) -> np.ndarray:
    """(...) m from (..., 2) to the nearest wall, post, stand or box; negative inside."""
    nearest = HALF_ROOM - 0.02 - np.abs(places).max(axis=-1)
    for name, pose in world.poses().items():
        kind = name.split("_")[-1]
        offset = places - pose[:2]
        if kind == "post":
            away = np.hypot(offset[..., 0], offset[..., 1]) - POST_RADIUS
        elif kind == "stand" or name.startswith("box_"):
            half = BOXES[int(kind)][:2] if kind != "stand" else np.full(2, STAND_HALF)
            yaw = 2.0 * np.arctan2(pose[6], pose[3])
            cos, sin = np.cos(yaw), np.sin(yaw)
            beyond = np.abs(offset @ np.array([[cos, -sin], [sin, cos]])) - half
            away = np.hypot(*np.moveaxis(np.maximum(beyond, 0.0), -1, 0)) + np.minimum(beyond.max(axis=-1), 0.0)
        else:
            continue
        nearest = np.minimum(nearest, away)
    return nearest


def _descent(
    cost: np.ndarray, goals: np.ndarray
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], tuple[int, int]]]:
    """Cell -> cost of the cheapest way to a goal, and the neighbour that is next on it; a goal -> itself."""
    best = {tuple(goal): 0.0 for goal in goals.tolist()}
    following = {cell: cell for cell in best}
    queue = [(0.0, cell) for cell in best]
    rows, columns = cost.shape
    cheap = cost.tolist()
    while queue:
        spent, cell = heapq.heappop(queue)
        if spent > best[cell]:
            continue
        i, j = cell
        for di, dj in _AROUND:
            a, b = i + di, j + dj
            if not (0 <= a < rows and 0 <= b < columns):
                continue
            total = spent + cheap[a][b] * (1.41421356 if di and dj else 1.0)
            if total < best.get((a, b), np.inf):
                best[a, b], following[a, b] = total, cell
                heapq.heappush(queue, (total, (a, b)))
    return best, following
