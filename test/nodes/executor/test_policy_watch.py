"""When the policy counts as gone: its statuses, and who is known to publish them."""

import pytest

from vla_ros.nodes.executor.policy_watch import PolicyWatch


class World:
    def __init__(self, simulated: bool = False) -> None:
        self.now, self.said = 100.0, []
        self.watch = PolicyWatch(simulated, self.said.append, clock=lambda: self.now)

    def wait(self, seconds: float, listed: bool = True, heard: bool = False) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            if heard:
                self.watch.heard()
            self.watch.look(listed)


def test_a_policy_that_was_never_heard_is_not_gone():
    world = World()
    world.wait(10.0, listed=False)
    assert world.said == []


@pytest.mark.parametrize("simulated", [False, True])
def test_silence_counts_in_real_time_alone(simulated):
    world = World(simulated)
    world.wait(5.0, heard=True)
    world.wait(2.8)
    assert world.said == [True]
    world.wait(0.4)
    assert world.said == [True] + [False] * (not simulated)
    world.wait(5.0)
    world.watch.heard()
    assert world.said == [True] + [False, True] * (not simulated)


@pytest.mark.parametrize("simulated", [False, True])
def test_one_that_nobody_publishes_any_more_is_gone_at_once(simulated):
    world = World(simulated)
    world.watch.heard()
    world.wait(0.2, listed=False)  # a publisher may be heard a moment before it is listed
    assert world.said == [True]
    world.wait(0.2, listed=False)
    assert world.said == [True, False]


def test_a_pause_of_this_process_is_not_the_policy_s_silence():
    world = World()
    world.watch.heard()
    for _ in range(10):
        world.now += 30.0
        world.watch.look(True)
        world.watch.heard()  # what came meanwhile is taken after the look
    assert world.said == [True]
