"""The expert on wheels: it comes to the right post from anywhere, and touches nothing."""

import numpy as np
import pytest

from vla_ros.core.robot import RobotSpec
from vla_ros.sim.demonstrations import FPS, Recording, demonstrate
from vla_ros.sim.driving import Driver, clearance
from vla_ros.sim.progress import Progress
from vla_ros.sim.room import BASE_RADIUS
from vla_ros.sim.room_world import FOLDED, RoomWorld
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.worlds import expert_of

LIMITS = np.array([[joint.velocity, joint.acceleration] for joint in RobotSpec.load("lekiwi_sim").joints[6:]])


@pytest.mark.parametrize("seed", range(3))
def test_it_drives_to_the_post_within_the_limits(seed):
    world = RoomWorld(seed)
    task = Task(TaskKind.DRIVE, world.colours[seed])
    expert, tracker, progress = Driver(world, task), SuccessTracker(task, world), Progress(task, world)
    nearest, longest, commands = np.inf, 0.0, []
    while not tracker.succeeded and world.time < world.time_limit:
        commands.append(expert.command())
        world.step(commands[-1])
        tracker.update()
        nearest = min(nearest, float(clearance(world, world.base_pose()[:2])) - BASE_RADIUS)
        longest = max(longest, progress.standstill(round((1 + world.time) * 1e9)))
    assert tracker.succeeded and tracker.distance() < 0.33 and expert.settled
    assert nearest > 0.08 and longest < 3.0  # of 0.1 m, which it has in front of the post
    base = np.array(commands)[:, 6:]
    assert (np.abs(base) <= LIMITS[:, 0]).all()
    assert (np.abs(np.diff(base, axis=0)) / world.control_period <= LIMITS[:, 1] + 1e-9).all()
    assert np.ptp(np.array(commands)[:, :6]) == pytest.approx(np.ptp(commands[0][:6]))  # the arm stays folded


def test_it_fetches_a_cube_in_front_of_a_stand():
    world = RoomWorld(3)
    task = Task(TaskKind.FETCH, "red")
    expert, tracker = expert_of(world, task), SuccessTracker(task, world)
    others = {colour: place for colour, place in world.cube_positions().items() if colour != "red"}
    commands = [world.joint_positions()]
    while not tracker.succeeded and world.time < world.time_limit:
        commands.append(expert.command())
        world.step(commands[-1])
        tracker.update()
    assert tracker.succeeded and world.held_cube() == "red" and not world.collisions
    speeds = np.abs(np.diff(np.array(commands)[:, :6], axis=0)).max(axis=0) / world.control_period
    assert (speeds < 2.9).all()  # no leap from driving to grasping
    for colour, place in others.items():
        np.testing.assert_allclose(world.cube_positions()[colour], place, atol=0.002)
    driven = SuccessTracker(Task(TaskKind.DRIVE, "red"), world)
    assert not driven.update()


def test_an_arm_that_is_stretched_out_is_folded_on_the_way():
    world = RoomWorld(0)
    out = np.append(FOLDED + [0.3, 0.2, -0.2, 0.0, 0.5, 0.4], np.zeros(3))
    world.reset(0, out)
    expert = Driver(world, Task(TaskKind.DRIVE, "red"))
    commands = np.array([expert.command() for _ in range(80)])
    np.testing.assert_allclose(commands[0, :6], out[:6], atol=0.011)
    np.testing.assert_allclose(commands[-1, :6], FOLDED, atol=1e-9)


def test_clearance_is_to_the_nearest_face():
    world = RoomWorld(0)
    for i, (x, y, yaw) in enumerate(world.layout.boxes):
        half = world.model.geom(f"box_{i}").size
        out = np.array([np.cos(yaw), np.sin(yaw)])
        assert clearance(world, np.array([x, y]) + (half[0] + 0.1) * out) == pytest.approx(0.1, abs=1e-6)
        assert clearance(world, np.array([x, y])) == pytest.approx(-min(half[:2]))
    assert clearance(world, np.array([2.08, -2.0])) == pytest.approx(0.1)


class BlindRoom(RoomWorld):
    """Rendering is most of an episode's time."""

    def render(self, camera, width=640, height=480):
        return np.full((4, 5, 3), round(self.time * 10) % 251, dtype=np.uint8)


def test_contract_of_an_episode():
    """Disturbed or not, from its start or anywhere; twice the same."""
    task = Task(TaskKind.DRIVE, "green")
    recording = Recording(lambda picture: picture, {"front": (5, 4)}, lambda world: {"place": world.base_pose()})
    world = BlindRoom()
    demo, again = (demonstrate(world, task, [TaskKind.DRIVE], 1, recording) for _ in range(2))
    frames = len(demo.states)
    assert demo.states.shape == demo.actions.shape == (frames, 9) and demo.values["place"].shape == (frames, 3)
    assert set(demo.images) == {"front"} and (np.diff(demo.images["front"][:, 0, 0, 0].astype(int)) % 251 == 1).all()
    for name in ("states", "actions"):
        np.testing.assert_array_equal(getattr(demo, name), getattr(again, name))
    step = np.diff(demo.values["place"][:, :2], axis=0) * FPS
    speed = np.hypot(*demo.states[:, 6:8].T)  # odometry says how fast it went
    assert np.abs(np.hypot(*step.T) - (speed[1:] + speed[:-1]) / 2).max() < 0.03
    assert np.abs(demo.actions[-3:, 6:]).max() < 0.05  # it ends at rest
