"""A scripted expert that drives to a cube on its stand and picks it up: the one that drives, then the arm's own."""

import numpy as np

from vla_ros.sim.driving import Driver
from vla_ros.sim.expert import Expert
from vla_ros.sim.room import ARM_PLACE
from vla_ros.sim.room_world import RoomWorld
from vla_ros.sim.tasks import SuccessTracker, Task
from vla_ros.sim.wordings import TaskKind

_THERE = 0.010  # m from where the base is to stand
_FACING = 0.05  # rad between straight ahead and the cube


class ArmView:
    """The room as the arm on the base sees it, in its own frame, in which what is on a stand lies on a table."""

    def __init__(self, world: RoomWorld) -> None:
        self._world, self.control_period = world, world.control_period
        self.held_cube = world.held_cube

    def joint_positions(self) -> np.ndarray:
        """(6,) rad."""
        return self._world.joint_positions()[:6]

    def tip_position(self) -> np.ndarray:
        """(3,) m."""
        return self._own(self._world.tip_position())

    def cube_positions(self) -> dict[str, np.ndarray]:
        """Colour -> (3,) m."""
        return {colour: self._own(place) for colour, place in self._world.cube_positions().items()}

    def cube_yaw(self, colour: str) -> float:
        """As `Simulated.cube_yaw`."""
        yaw = self._world.cube_yaw(colour) - self._world.base_pose()[2]
        return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)

    def _own(self, place: np.ndarray) -> np.ndarray:
        x, y, yaw = self._world.base_pose()
        cos, sin = np.cos(yaw), np.sin(yaw)
        east, north = place[:2] - (x, y)
        return np.array([cos * east + sin * north, cos * north - sin * east, place[2]]) - ARM_PLACE


class Fetcher:
    """Fetches one cube from wherever the base is.

    Attributes:
        position: (9,) the last command, rad, m/s and rad/s.
        velocity: (9,) of the arm in that, rad/s; zero for the base.
    """

    def __init__(
        self, world: RoomWorld, task: Task, position: np.ndarray | None = None, velocity: np.ndarray | None = None
    ) -> None:
        """`position` (9,): the last command, where the robot was already being commanded."""
        self._world, self._task, self._view = world, task, ArmView(world)
        self._driver, self._arm = Driver(world, task, position), None
        self.position, self.velocity = self._driver.position, np.zeros(9)

    @property
    def settled(self) -> bool:
        """It is at rest, the cube in hand (or would have it, if the world were as it should be)."""
        return self._arm is not None and self._arm.settled

    def command(self) -> np.ndarray:
        """(9,) for this control tick. Call once for each `World.step`."""
        if self._arm is None:
            self.position = self._driver.command()
            stands = (np.abs(self.position[6:]) < SuccessTracker.STANDS).all()
            if stands and self._driver.left < _THERE and abs(self._driver.turn) < _FACING:
                task = Task(TaskKind.PICK, self._task.colour)
                self._arm = Expert(self._view, task, self.position[:6])
        else:
            self.position = np.append(self._arm.command(), np.zeros(3))
            self.velocity[:6] = self._arm.velocity
        return self.position.copy()
