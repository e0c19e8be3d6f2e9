"""An arm that does its task makes progress all the time, one that stands still or goes astray none."""

import pytest

from vla_ros.sim.expert import Expert
from vla_ros.sim.progress import Progress
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.world import World


@pytest.mark.parametrize("kind", World.kinds)
def test_the_experts_own_way(kind):
    world = World(4)
    task = Task(kind, "green")
    expert, progress, tracker = Expert(world, task), Progress(task, world), SuccessTracker(task, world)
    first, longest = progress.left(), 0.0
    while not tracker.succeeded and world.time < 8.0:
        world.step(expert.command())
        tracker.update()
        longest = max(longest, progress.standstill(round((1 + world.time) * 1e9)))
    assert tracker.succeeded and longest < 0.9 and progress.left() < first - 0.04


def test_standing_still():
    world = World(4)
    progress = Progress(Task(TaskKind.TOUCH, "green"), world)
    assert [progress.standstill(ns) for ns in (10**9, 2 * 10**9, 4 * 10**9)] == [0.0, 1.0, 3.0]
