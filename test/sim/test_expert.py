"""The expert solves its tasks, from any start, within the limits of the robot file."""

import numpy as np
import pytest

from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.sim.expert import Expert
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.world import World


def _solve(world: World, expert: Expert, seconds: float) -> tuple[bool, np.ndarray]:
    tracker = SuccessTracker(expert.task, world)
    commands = []
    for _ in range(round(seconds / world.control_period)):
        commands.append(expert.command())
        world.step(commands[-1])
        tracker.update()
    return tracker.holds, np.array(commands)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize("kind", World.kinds)
def test_solves_each_task_within_the_limits(world, kind):
    joints = RobotSpec.load(config_file("robots/so101.yaml")).joints
    for seed in range(6):
        world.reset(seed)
        solved, commands = _solve(world, Expert(world, Task(kind, world.colours[seed % 3])), 4.5)
        assert solved, seed
        velocity = np.diff(commands, axis=0) / world.control_period
        acceleration = np.diff(velocity, axis=0) / world.control_period
        for j, joint in enumerate(joints):
            assert commands[:, j].min() > joint.lower and commands[:, j].max() < joint.upper, joint.name
            assert np.abs(velocity[:, j]).max() < 0.9 * joint.velocity, joint.name
            assert np.abs(acceleration[:, j]).max() < 0.9 * joint.acceleration, joint.name


def test_next_task_starts_with_the_last_cube_in_hand(world):
    world.reset(4)
    first = Expert(world, Task(TaskKind.PICK, "red"))
    assert _solve(world, first, 4.5)[0] and world.held_cube() == "red"
    second = Expert(world, Task(TaskKind.PICK, "blue"), first.position, first.velocity)
    solved, commands = _solve(world, second, 7.0)
    assert solved and world.held_cube() == "blue"
    assert world.cube_positions()["red"][2] == pytest.approx(0.015, abs=0.002)  # put down, not thrown
    np.testing.assert_allclose(commands[0], first.position, atol=0.02)  # no jump between the two
    third = Expert(world, Task(TaskKind.TOUCH, "green"), second.position, second.velocity)
    assert _solve(world, third, 5.0)[0] and world.held_cube() is None


def test_a_cube_that_is_taken_away_is_fetched_again(world):
    world.reset(5)
    expert = Expert(world, Task(TaskKind.PICK, "green"))
    assert _solve(world, expert, 4.5)[0]
    start = world._cube_qpos["green"]
    world.data.qpos[start : start + 3] = [world.layout.places[1][0], world.layout.places[1][1], 0.015]
    assert not SuccessTracker(expert.task, world).update()
    assert _solve(world, expert, 6.0)[0]
