"""A demonstration is what a policy is trained on: aligned, clean, on the policy's clock, the same every time."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.policies.images import resize_with_pad
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.demonstrations import FPS, LAYOUTS_FROM, Recording, demonstrate, demonstrations
from vla_ros.sim.layout import Layout
from vla_ros.sim.scene import scene_xml
from vla_ros.sim.tasks import Task, parse_instruction, task_of
from vla_ros.sim.wordings import TRAINED, TaskKind
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


# Start, seed, sentence, frames, first and last action. Touch and pick as they were before there was another scene: the
# bundled policy was trained on such episodes.
BEFORE = [
    ("home", 1000000, "tap the red block", 17, [-0.0002, -0.6187, 0.2289, 1.6372, 0.0, 0.05],
     [-0.0731, -0.2301, 0.5807, 1.22, 0.0, 0.05]),
    ("disturbed", 1000020, "pick up the green cube", 38, [0.7345, -0.448, 0.7951, 1.2237, 0.4611, 0.6992],
     [0.8075, -0.2073, 0.1086, 1.638, 0.2889, 0.05]),
    ("other task", 1000040, "move the blue cube to the left", 32, [-0.7988, 0.4703, -0.3355, 1.4359, -0.0009, 0.05],
     [-0.2357, -0.0694, 0.0226, 1.586, -0.2357, 0.05]),
]  # fmt: skip


def test_demonstrations_of_three_cubes_are_as_ever():
    world = BlindWorld()
    for seed, (start, layout, text, frames, first, last) in enumerate(BEFORE):
        demo = demonstrate(world, Task(World.kinds[seed], world.colours[seed]), World.kinds, seed, Recording(whole))
        assert (demo.start, demo.seed, demo.instruction, len(demo.states)) == (start, layout, text, frames)
        np.testing.assert_allclose([demo.actions[0], demo.actions[-1]], [first, last], atol=2e-3)
    known = "3785877a573af85d43e72ff10bc287896b9dde2f532b35f98e1803cc3080a997"
    assert sha256(scene_xml().encode()).hexdigest() == known  # what is drawn and simulated


def test_a_leader_goes_on_from_the_start():
    led, world = [], BlindWorld()

    def leader(world: World, sentence: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Opens the gripper, which touching does not."""
        led.append(seed)
        position, velocity = world.joint_positions(), np.zeros(6)
        while True:
            position[5] = min(position[5] + 0.01, 0.7)
            world.step(position)
            yield position, velocity

    kinds, task = [TaskKind.TOUCH], Task(TaskKind.TOUCH, "red")
    alone, after = (demonstrate(world, task, kinds, 0, Recording(whole), leader=one) for one in (None, leader))
    assert alone.start == "home" and after.start == "home, led" and led == [alone.seed] == [after.seed]
    assert alone.states[0][5] < 0.1 and after.states[0][5] > 0.4


class BlindBench(Bench):
    render = BlindWorld.render


def test_demonstrations_of_the_bench_use_no_held_out_wording():
    world, kinds = BlindBench(), ["press", "open+press"]
    for seed in range(2):
        task = task_of(kinds[seed], "red")
        demo = demonstrate(world, task, kinds, seed, Recording(whole))
        assert demo.task.kinds == task.kinds
        assert parse_instruction(demo.instruction, world.kinds, world.colours) == demo.task
        for part, one in zip(demo.instruction.split(", then "), (demo.task, demo.task.then), strict=False):
            assert part in one.wordings(TRAINED)


def test_processes_do_not_change_the_episodes():
    kinds = [TaskKind.TOUCH]
    small = Recording(partial(resize_with_pad, height=16, width=16))
    one = list(demonstrations(kinds, 2, 3, small, jobs=1))
    made = demonstrations(kinds, 2, 3, small, jobs=2)
    two = [next(made)]
    ignored = [re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{p.pid}/status").read_text())[1] for p in active_children()]
    assert any(int(signals, 16) >> (signal.SIGINT - 1) & 1 for signals in ignored)  # Ctrl-C is left to the command
    two += made
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.states, b.states)
        np.testing.assert_array_equal(a.actions, b.actions)
        assert a.instruction == b.instruction
        for camera, pictures in a.images.items():  # a process that has drawn much else may round a few pixels otherwise
            apart = np.abs(pictures.astype(int) - b.images[camera])
            assert apart.max() <= 4 and np.count_nonzero(apart) < 1e-3 * apart.size
    assert [demo.task.colour for demo in one] == ["red", "green"]


def test_layouts_of_demonstrations_are_not_those_of_evaluations():
    demo = demonstrate(BlindWorld(), Task(TaskKind.TOUCH, "red"), [TaskKind.TOUCH], 0, Recording(whole))
    assert not any(np.array_equal(Layout.random(seed).places, Layout.random(demo.seed).places) for seed in range(100))


def test_an_episode_that_cannot_succeed_is_an_error(monkeypatch):
    monkeypatch.setattr(BlindWorld, "time_limit", 0.1)
    monkeypatch.setattr("vla_ros.sim.demonstrations.ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"task touch: the scripted expert failed in 2 layouts in a row"):
        demonstrate(BlindWorld(), Task(TaskKind.TOUCH, "red"), [TaskKind.TOUCH], 0, Recording(whole))
