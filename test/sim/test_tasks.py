"""Instructions mean what they say, and success is counted when it is one."""

import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.sim.bench import COLOURS as FIVE
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.scene import COLOURS
from vla_ros.sim.tasks import SuccessTracker, Task, cubes_of, parse_instruction, task_of
from vla_ros.sim.wordings import HELD_OUT, TRAINED, WORDINGS, TaskKind


@pytest.mark.parametrize("kind", ["touch", "pick", "push", "drive", "fetch"])
@pytest.mark.parametrize("colour", COLOURS)
def test_every_wording_is_understood(kind, colour):
    kind = TaskKind(kind)
    task = Task(kind, colour)
    assert len(set(task.wordings())) == len(WORDINGS[kind])
    for wording in task.wordings():
        assert parse_instruction(wording) == task
        assert parse_instruction(wording.upper() + "!") == task
    drawn = {task.instruction(np.random.default_rng(seed)) for seed in range(100)}
    assert drawn == set(task.wordings())


@pytest.mark.parametrize("text", ["", "touch the cube", "touch the red or the blue cube", "sing about the red cube"])
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(InputError, match="instruction"):
        parse_instruction(text)


def test_each_task_of_the_bench_has_15_wordings_and_5_held_out():
    said = set()
    for kind in Bench.kinds:
        task = Task(kind, *("purple", "yellow")[: cubes_of(kind)])
        for words, many in ((TRAINED, 15), (HELD_OUT, 5)):
            assert len(task.wordings(words)) == many
            for wording in task.wordings(words):
                assert wording not in said
                said.add(wording)
                both = parse_instruction(f"Pick up the red cube, then {wording}.", Bench.kinds, FIVE)
                assert both == Task(TaskKind.PICK, "red", then=task), wording
                if kind is not TaskKind.UNDO:
                    assert parse_instruction(wording.upper() + "!", Bench.kinds, FIVE) == task
    assert len(said) == 12 * 20


def test_a_sentence_with_two_tasks():
    task = task_of("place+press", "red")
    assert task.kinds == (TaskKind.PLACE, TaskKind.PRESS)
    plain = Task(TaskKind.PLACE, "red", then=Task(TaskKind.PRESS))
    assert plain.instruction() == "put the red cube in the bowl, then press the button"
    for seed in range(5):
        assert parse_instruction(plain.instruction(np.random.default_rng(seed), TRAINED), Bench.kinds, FIVE) == plain
    for text, said in (
        ("undo that", "nothing to undo"),
        ("press the button, then undo that, then press the button", "3 tasks, expected one or two"),
        ("put the cube in the bowl", "expected exactly one of the colours red, green, blue, yellow, purple"),
        ("stack the red cube on the red cube", "expected"),
        ("close the drawer", "'close' is not understood here; expected one like 'open the drawer'"),
        ("put the cube in the drawer", "'in' is not understood here"),
        ("open the red drawer", "'red drawer', expected no colour of the drawer"),
        ("put the cube in the red bowl", "'red bowl', expected no colour of the bowl"),
        ("take the red cube out of the bowl", "'out of' is not understood here"),
        ("pick up the red cube on the right", "'on the right' is not understood here"),
        ("do not press the button", "'not' is not understood here"),
        ("press the button before opening the drawer", "'before' is not understood here"),
        ("drive to the red post", "expected one like 'touch the {colour} cube'"),
    ):
        with pytest.raises(InputError, match=said):
            parse_instruction(text, Bench.kinds, FIVE)


class Scene:
    """Cubes on a line, moved by hand."""

    collisions = 0

    def __init__(self):
        self.time = 0.0
        self.tip = np.array([0.2, 0.0, 0.2])
        self.cubes = {colour: np.array([0.2, 0.1 * i, 0.015]) for i, colour in enumerate(COLOURS)}

    def tip_position(self):
        return self.tip

    def cube_positions(self):
        return self.cubes


def test_touch_needs_the_right_cube_within_3_cm_and_nearest():
    scene = Scene()
    tracker = SuccessTracker(Task(TaskKind.TOUCH, "red"), scene)
    scene.tip = scene.cubes["red"] + [0, 0, 0.031]
    assert not tracker.update()
    scene.cubes["green"] = scene.cubes["red"] + [0, 0.031, 0]
    scene.tip = scene.cubes["red"] + [0, 0.02, 0]
    assert not tracker.update()  # within 3 cm, but the green one is nearer
    scene.time = 4.0
    scene.tip = scene.cubes["red"] + [0, 0.01, 0]
    assert tracker.update() and tracker.holds and tracker.success_time == 4.0
    scene.tip = scene.tip + [0.1, 0, 0]
    assert tracker.update() and not tracker.holds


def test_pick_needs_5_cm_for_one_second_without_a_break():
    scene = Scene()
    tracker = SuccessTracker(Task(TaskKind.PICK, "green"), scene)
    done_at = None
    for tick in range(400):
        scene.time = tick * 0.01
        dropped = 150 <= tick < 152
        scene.cubes["green"] = np.array([0.2, 0.1, 0.015 + (0.051 if tick >= 100 and not dropped else 0.049)])
        if tracker.update() and done_at is None:
            done_at = scene.time
    assert done_at == pytest.approx(2.52)
    scene = Scene()
    tracker = SuccessTracker(Task(TaskKind.PICK, "green"), scene)
    scene.cubes["red"][2] = 0.2
    for tick in range(300):
        scene.time = tick * 0.01
        assert not tracker.update()  # it is the wrong one


def test_push_needs_5_cm_to_the_left_on_the_table():
    scene = Scene()
    tracker = SuccessTracker(Task(TaskKind.PUSH, "blue"), scene)
    start = scene.cubes["blue"]
    for offset in ([0, -0.06, 0], [0.06, 0, 0], [0, 0.049, 0], [0, 0.06, 0.05]):
        scene.cubes["blue"] = start + offset
        assert not tracker.update()
    scene.cubes["blue"] = start + [0, 0.051, 0]
    assert tracker.update()
