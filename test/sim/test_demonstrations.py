"""A demonstration is what a policy is trained on: aligned, clean, on the policy's clock, the same every time."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from vla_ros.policies.images import resize_with_pad
from vla_ros.sim.demonstrations import FPS, LAYOUTS_FROM, Recording, demonstrate, demonstrations
from vla_ros.sim.layout import Layout
from vla_ros.sim.tasks import Task, TaskKind, parse_instruction
from vla_ros.sim.world import World


class BlindWorld(World):
    """Rendering is most of an episode's time, and other tests look at pictures."""

    def render(self, camera, width=640, height=480):
        return np.full((4, 5, 3), round(self.time / self.control_period) % 251, dtype=np.uint8)


def whole(picture: np.ndarray) -> np.ndarray:
    return picture


def test_contract_of_an_episode():
    world, again = BlindWorld(), BlindWorld()
    kinds = [TaskKind.TOUCH, TaskKind.PICK]
    starts = Counter()
    for seed in range(8):
        task = Task(kinds[seed % 2], world.colours[seed % 3])
        demo = demonstrate(world, task, kinds, seed, Recording(whole))
        starts[demo.start] += 1
        frames = len(demo.states)
        assert demo.states.shape == demo.actions.shape == (frames, 6) and 5 <= frames <= 120
        assert set(demo.images) == {"front", "wrist"}
        assert demo.seed >= LAYOUTS_FROM
        assert parse_instruction(demo.instruction) == task
        stamps = demo.images["front"][:, 0, 0, 0].astype(int)
        assert (np.diff(stamps) % 251 == round(1 / (FPS * world.control_period))).all()
        # Targets are absolute, near where the arm is, and slower than its limits from one frame to the next.
        assert np.abs(demo.actions - demo.states)[:, :5].max() < 0.35
        assert (np.abs(np.diff(demo.actions, axis=0)).max(axis=0) * FPS < 2.9).all()
        assert np.abs(np.diff(demo.actions[-4:, :5], axis=0)).max() < 0.01  # it ends at rest
        if seed < 2:
            same = demonstrate(again, task, kinds, seed, Recording(whole))
            np.testing.assert_array_equal(same.states, demo.states)
            np.testing.assert_array_equal(same.actions, demo.actions)
            assert same.instruction == demo.instruction
    assert len(starts) >= 3


def test_processes_do_not_change_the_episodes():
    kinds = [TaskKind.TOUCH]
    small = Recording(partial(resize_with_pad, height=16, width=16))
    one = list(demonstrations(kinds, 2, 3, small, jobs=1))
    two = list(demonstrations(kinds, 2, 3, small, jobs=2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.images["wrist"], b.images["wrist"])
        assert a.instruction == b.instruction
    assert [demo.task.colour for demo in one] == ["red", "green"]


def test_layouts_of_demonstrations_are_not_those_of_evaluations():
    demo = demonstrate(BlindWorld(), Task(TaskKind.TOUCH, "red"), [TaskKind.TOUCH], 0, Recording(whole))
    assert not any(np.array_equal(Layout.random(seed).places, Layout.random(demo.seed).places) for seed in range(100))


def test_an_episode_that_cannot_succeed_is_an_error(monkeypatch):
    monkeypatch.setattr(BlindWorld, "time_limit", 0.1)
    monkeypatch.setattr("vla_ros.sim.demonstrations.ATTEMPTS", 2)
    with pytest.raises(RuntimeError, match="touch the red cube"):
        demonstrate(BlindWorld(), Task(TaskKind.TOUCH, "red"), [TaskKind.TOUCH], 0, Recording(whole))
