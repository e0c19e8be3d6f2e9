"""The workbench: every task has an expert that does it within the limits, and a rule that is not met by less."""

import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.sim.bench import COLOURS, PADS, BenchLayout
from vla_ros.sim.bench_world import UNDOABLE, Bench
from vla_ros.sim.tasks import Task, task_of
from vla_ros.sim.wordings import TaskKind
from vla_ros.sim.worlds import expert_of, scene_with, tracker_of, world_of

ROBOT = RobotSpec.load(config_file("robots/so101.yaml"))


@pytest.fixture(scope="module")
def world() -> Bench:
    return Bench()


def _solve(world: Bench, task: Task) -> tuple[bool, np.ndarray]:
    expert, tracker, commands = expert_of(world, task), tracker_of(world, task), []
    while world.time < world.limit(task) and not (tracker.update() and tracker.holds and expert.settled):
        commands.append(expert.command())
        world.step(commands[-1])
    return tracker.holds, np.array(commands)


@pytest.mark.parametrize("name", [*(kind for kind in Bench.kinds if kind not in ("pick", "push")), "place+press"])
def test_solves_each_task_within_the_limits(world, name):
    seed = 7 if name == "undo" else 5  # what it undoes: a stack
    task = world.suited(task_of(name, "red"), seed)
    world.reset(seed)
    assert not tracker_of(world, task).update()
    solved, commands = _solve(world, task)
    assert solved
    velocity = np.diff(commands, axis=0) / world.control_period
    acceleration = np.diff(velocity, axis=0) / world.control_period
    for j, joint in enumerate(ROBOT.joints):
        assert commands[:, j].min() > joint.lower and commands[:, j].max() < joint.upper, joint.name
        assert np.abs(velocity[:, j]).max() < 0.9 * joint.velocity, joint.name
        assert np.abs(acceleration[:, j]).max() < 0.9 * joint.acceleration, joint.name


def test_layouts_differ_and_are_apart():
    seen, sides = set(), set()
    for seed in range(40):
        layout = BenchLayout.random(seed)
        assert len(set(layout.colours)) == 3 and set(layout.colours) <= set(COLOURS)
        pads = [name.removesuffix("_pad") for name in layout.things if name in PADS]
        assert len(pads) == 2 and set(pads) <= set(layout.colours)
        lying = [layout.things[name][:2] for name in (*layout.colours, "can", "brick") if name in layout.things]
        for i, place in enumerate(lying):
            for other in [*lying[:i], layout.things["bowl"][:2], layout.things["drawer_case"][:2]]:
                assert np.hypot(*(place - other)) > 0.07
        seen.add(tuple(layout.things["bowl"]))
        sides.add(float(np.sign(layout.things["drawer_case"][1])))
        same = BenchLayout.random(seed)
        assert same.colours == layout.colours and all((same.things[n] == layout.things[n]).all() for n in layout.things)
    assert len(seen) == 40 and sides == {-1.0, 1.0}


def test_another_world_takes_over_where_things_are(world):
    world.reset(11)
    world.data.qpos[world._slide["drawer"]], world.data.qpos[world._slide["button_cap"]] = 0.031, 0.005
    world.place(world.joint_positions(), {})
    other = Bench(12)
    other.place(world.joint_positions(), world.poses())
    assert other.slide("drawer") == pytest.approx(0.031) and other.slide("button_cap") == pytest.approx(0.005)
    for name, pose in world.poses().items():
        np.testing.assert_allclose(other.poses()[name], pose, atol=1e-9, err_msg=name)
    assert set(other.pads()) == set(world.pads())


def test_an_expert_that_is_only_told_of_the_world_does_both_tasks(world):
    world.reset(3)
    told, task = Bench(4), Task(TaskKind.OPEN, then=Task(TaskKind.PRESS))
    told.place(world.joint_positions(), world.poses(), 100.0 + world.time)
    expert, tracker = expert_of(told, task), tracker_of(world, task)
    while world.time < world.limit(task) and not tracker.update():
        told.place(world.joint_positions(), world.poses(), 100.0 + world.time)
        for _ in range(5):  # at 20 Hz, as expert_node does it for a robot with that control rate
            command = expert.command()
        for _ in range(5):
            world.step(command)
            tracker.update()
    assert tracker.succeeded


def test_what_is_away_stays_there(world):
    world.reset(3)
    away = {name: pose for name, pose in world.poses().items() if pose[2] < -1}
    assert len(away) >= 5
    for _ in range(50):
        world.step(world.joint_positions())
    for name, pose in away.items():
        np.testing.assert_allclose(world.poses()[name][:3], pose[:3], atol=1e-6, err_msg=name)


def test_tasks_are_about_cubes_that_are_there(world):
    world.reset(5)
    absent = next(colour for colour in COLOURS if colour not in world.layout.colours)
    for text in (f"put the {absent} cube in the bowl", f"press the button, then touch the {absent} cube"):
        with pytest.raises(InputError, match=f"no {absent} cube in this layout"):
            world.understand(text)
    with pytest.raises(InputError, match=f"no {absent} cube"):
        expert_of(world, Task(TaskKind.TOUCH, absent))
    for seed in range(12):
        for kind in Bench.kinds:
            task = world.suited(task_of(kind, COLOURS[seed % 3]), seed)
            named = {task.colour, task.other} - {""}
            assert named <= set(BenchLayout.random(seed).colours)
            if kind is TaskKind.UNDO:
                assert task.kind is UNDOABLE[seed % 4] and task.then == Task(TaskKind.UNDO)


def _wait(world: Bench, tracker, seconds: float) -> bool:
    for _ in range(round(seconds / world.control_period)):
        world.step(world.data.ctrl)
        tracker.update()
    return tracker.succeeded


def _move(world: Bench, name: str, place) -> None:
    world.place(world.joint_positions(), {name: [*place, 1.0, 0.0, 0.0, 0.0]})


def test_less_is_not_done(world):
    colour, other = world.random_layout(9).colours[:2]

    def judged(kind: TaskKind, place, cube: str = colour) -> bool:
        world.reset(9)
        task = Task(kind, colour, other if kind is TaskKind.STACK else "")
        tracker = tracker_of(world, task)
        _move(world, cube, place)
        return _wait(world, tracker, 0.8)

    world.reset(9)
    bowl, middle = world.fixture("bowl")[0], world.drawer_point(0.036)
    below = world.cube_positions()[other]
    start = world.cube_positions()[colour]
    assert judged(TaskKind.PLACE, [*bowl, 0.02])
    assert not judged(TaskKind.PLACE, [*bowl, 0.02], cube=other)  # another cube
    assert not judged(TaskKind.PLACE, [*(bowl + 0.06), 0.015])  # beside it
    assert judged(TaskKind.STORE, [*middle, 0.021])
    assert not judged(TaskKind.STORE, [*middle, 0.066])  # on its case
    assert judged(TaskKind.STACK, [*below[:2], 0.0452])
    assert not judged(TaskKind.STACK, [below[0] + 0.034, below[1], 0.015])
    assert judged(TaskKind.PUSH_RIGHT, start - (0.0, 0.052, 0.0))
    assert not judged(TaskKind.PUSH_RIGHT, start + (0.0, 0.052, 0.0))
    world.reset(9)
    sort, opened, pressed = (tracker_of(world, Task(kind)) for kind in (TaskKind.SORT, TaskKind.OPEN, TaskKind.PRESS))
    first, second = world.pads().items()
    _move(world, first[0], [*first[1], 0.015])
    assert not _wait(world, sort, 0.7)  # one of two
    _move(world, second[0], [*second[1], 0.015])
    assert _wait(world, sort, 0.7)
    world.data.qpos[world._slide["drawer"]] = 0.040
    assert not _wait(world, opened, 0.7)
    world.data.qpos[world._slide["drawer"]] = 0.050
    assert _wait(world, opened, 0.7) and not pressed.update()


def test_the_second_task_counts_after_the_first_only(world):
    world.reset(9)
    colour = world.layout.colours[0]
    task = Task(TaskKind.OPEN, then=Task(TaskKind.PLACE, colour))
    for order in ((0, 1), (1, 0)):
        world.reset(9)
        tracker = tracker_of(world, task)
        for step in order:
            if step == 0:
                world.data.qpos[world._slide["drawer"]] = 0.055
            else:
                _move(world, colour, [*world.fixture("bowl")[0], 0.02])
            _wait(world, tracker, 0.8)
        assert tracker.succeeded is tracker.holds is (order == (0, 1)) is not tracker.failed


def test_undo_is_everything_as_it_was(world):
    world.reset(9)
    colour = world.layout.colours[0]
    place = world.cube_positions()[colour]
    tracker = tracker_of(world, Task(TaskKind.PUSH, colour, then=Task(TaskKind.UNDO)))
    _move(world, colour, place + (0.0, 0.053, 0.0))
    assert not _wait(world, tracker, 0.7)
    _move(world, colour, place + (0.0, 0.023, 0.0))
    assert not _wait(world, tracker, 0.7)
    _move(world, colour, place + (0.0, 0.015, 0.0))
    assert _wait(world, tracker, 0.7)


def test_scenes_are_chosen_by_their_tasks():
    assert scene_with(ROBOT, "", ["touch", "pick"]).scene == "cubes"
    assert scene_with(ROBOT, "", ["touch", "stack"]) is scene_with(ROBOT, "bench", ["touch"]) is Bench
    assert scene_with(ROBOT, "", ["touch+pick"]) is Bench
    for scene, names, said in (
        ("cubes", ["stack"], "task stack: scene cubes of robot so101 has touch, pick, push; stack is in scene bench"),
        ("cubes", ["touch+pick"], "scene cubes has one task at a time"),
        ("", ["drive"], "task drive: scene bench of robot so101 has touch"),
        ("", ["fly"], "task fly, expected one of touch"),
        ("", ["undo+press"], r"task undo\+press, expected"),
        ("", ["press+press"], r"task press\+press: the second cannot follow the first"),
        ("", ["store+store"], r"task store\+store: the second cannot follow the first"),
        ("", ["touch+undo"], r"task touch\+undo: the second cannot follow the first"),  # it would succeed by itself
        ("", ["press+undo"], r"task press\+undo: the second cannot follow the first"),
        ("", ["store+open"], r"task store\+open: the second cannot follow the first"),
    ):
        with pytest.raises(InputError, match=said):
            scene_with(ROBOT, scene, names)
    with pytest.raises(InputError, match=r"task place\+place: the scripted expert"):
        expert_of(Bench(), Task(TaskKind.PLACE, "red", then=Task(TaskKind.PLACE, "green")))
    with pytest.raises(InputError, match="scene kitchen: robot so101 has cubes, bench"):
        world_of(ROBOT.name, ROBOT.joint_names, "kitchen")
