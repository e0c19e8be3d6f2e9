"""A benchmark's environment in a process of its own."""

import signal
import sys
from types import SimpleNamespace

import benchmark_modules
import numpy as np
import pytest

from vla_ros.cli.benchmark_demos import record
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.sim.benchmark_tasks import LIBERO, METAWORLD
from vla_ros.sim.environment_worker import MetaWorldDeltas, rotation_vector
from vla_ros.sim.environments import BENCHMARKS, Environment


@pytest.fixture
def pusht(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(benchmark_modules.write(tmp_path / "modules")))
    with Environment("pusht") as made:
        yield made


def test_positions_are_in_metres(pusht):
    pusht.reset(7)
    assert pusht.joint_positions() == pytest.approx([0.107, 0.2])
    pusht.step(np.array([0.207, 0.1]))
    assert pusht.joint_positions() == pytest.approx([0.157, 0.15])
    assert (pusht.time, pusht.success, pusht.highest_reward) == (0.1, False, 1 / 40)
    assert (pusht.render("top", 96, 96) == 1).all()
    for _ in range(39):
        pusht.step(np.array([0.2, 0.2]))
    assert pusht.success and pusht.highest_reward == 1.0
    pusht.reset(7)
    assert pusht.joint_positions() == pytest.approx([0.107, 0.2]) and not pusht.success and pusht.highest_reward == 0.0


def test_what_an_environment_refuses_is_said(pusht):
    pusht.reset(0)
    with pytest.raises(InputError, match=r"camera top: 640x480 in the robot file, environment pusht draws 96x96"):
        pusht.render("top", 640, 480)
    with pytest.raises(InputError, match=r"^environment pusht: ValueError: too far$"):
        pusht.step(np.array([0.51, 0.1]))
    pusht.step(np.array([0.1, 0.1]))
    with pytest.raises(InputError, match=r"environment pusht: its process ended with 3"):
        pusht.step(np.array([0.1, 0.51]))


def test_who_has_no_expert_says_so(pusht):
    pusht.reset(0)
    with pytest.raises(InputError, match=r"environment pusht: no scripted expert; aloha/transfer_cube and metaworld"):
        pusht.expert()


def test_an_interpreter_without_the_packages_is_named(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(InputError, match=rf"pusht: {sys.executable} has no module gym\w+, .* requirements/pusht.txt"):
        Environment("pusht")
    with pytest.raises(InputError, match=r"pusht: /no/python cannot be started: No such file"):
        Environment("pusht", "/no/python")
    with pytest.raises(InputError, match=r"environment 'lunar', expected one of aloha/transfer_cube, .*SUITE/NUMBER"):
        Environment("lunar")
    with pytest.raises(InputError, match=r"environment 'libero/goal/10', expected libero/goal/\d or libero/goal/\d;"):
        Environment("libero/goal/10")


def test_an_interpreter_without_numpy_is_named(tmp_path, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(InputError, match=rf"pusht: {bare} has no module numpy, .* requirements/pusht.txt"):
        Environment("pusht", str(bare))


@pytest.mark.parametrize("said", ["Usage: prog", "[1]", '{"images": {"top": [2, 2, 3]}}'])
def test_what_is_no_interpreter_of_python_is_named(tmp_path, said):
    other = tmp_path / "program"
    other.write_text(f"#!/bin/sh\necho '{said}'\n")
    other.chmod(0o755)
    with pytest.raises(InputError, match=rf"environment pusht: {other} answers .*, expected a line of JSON and"):
        Environment("pusht", str(other))
    other.write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match=rf"process ended with 0; the output of {other}, an interpreter of Python"):
        Environment("pusht", str(other))


def test_ctrl_c_is_left_to_the_command(pusht):
    pusht._process.send_signal(signal.SIGINT)
    pusht.reset(7)
    assert pusht.joint_positions() == pytest.approx([0.107, 0.2])


@pytest.fixture
def libero(tmp_path, monkeypatch):
    """Where it has never been imported: no settings, no data."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LIBERO_CONFIG_PATH", raising=False)
    folder = benchmark_modules.write_libero(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_libero_s_actions_are_differences_and_its_state_is_what_it_measured_before(libero):
    with Environment("libero/object/0") as made:
        made.reset(7)  # of two initial states the second, then ten steps with the gripper opening
        assert dict(zip(made.joint_names, made.joint_positions(), strict=True)) == pytest.approx(
            {name: 0.0 for name in made.joint_names} | {"x": 0.2, "left_finger": 0.03, "right_finger": -0.03}
        )
        rest = made.at_rest()
        command = rest.copy()
        command[8:] = [0.0, 0.0, 1.0, 5.0, 0.0, 0.0]  # 5 cm and 0.25 rad a step
        command[6] = 0.0
        made.step(command)
        assert made.joint_positions()[:3] == pytest.approx([0.2, 0.0, 0.0])  # measured before it moved
        assert made.joint_positions()[8:] == pytest.approx([0.0, 0.0, 1.0, 5.0, 0.0, 0.0]) and not made.success
        assert made.render("image", 256, 256)[-1, -1].tolist() == [0, 1, 0]  # turned, drawn as measured, shut
        made.step(command * np.where(np.arange(14) == 10, 50.0, 1.0))  # the controller takes no more than 1
        assert made.joint_positions()[:4] == pytest.approx([0.2, 0.0, 0.05, 0.25])
        assert made.render("image2", 256, 256)[-1, -1].tolist() == [50, 2, 0]
        assert made.success and made.highest_reward == 12.0 and made.time == 0.1
        with pytest.raises(InputError, match=r"libero/object/0: joint y is commanded to move, which is measured alone"):
            made.step(rest + np.eye(14)[1])


def test_what_libero_lacks_is_said(libero):
    with pytest.raises(InputError, match=r"calls the task 'pick up the cheese', expected 'pick up the cream cheese "):
        Environment("libero/object/1")
    (libero / "libero" / "libero" / "assets").rmdir()
    with pytest.raises(InputError, match=r"libero/object/0: FileNotFoundError: no assets at .*/assets, and they could"):
        Environment("libero/object/0")
    (libero / "bddl.py").unlink()
    with pytest.raises(InputError, match=r"has no module bddl, .* requirements/libero.txt lists"):
        Environment("libero/object/0")


def test_metaworld_s_differences_are_its_own_actions():
    hand = MetaWorldDeltas.__new__(MetaWorldDeltas)
    told = []

    def step(action):
        told.append(action)
        return np.array([0.01, 0.6, 0.2, 0.5, 9.0]), 3.0, False, False, {"success": 1.0}

    hand.env, hand._seen = SimpleNamespace(action_scale=0.01, step=step), np.array([0.0, 0.6, 0.2, 1.0, 9.0])
    assert hand.step(np.array([0.0, 0.6, 0.2, 0.1, 0.8, -0.4, 2.0])) == (3.0, True)
    assert told[0] == pytest.approx([1.0, -0.5, 1.0, -1.0])
    assert hand.state() == pytest.approx([0.01, 0.6, 0.2, 0.05, 0.8, 0.0, 0.0])


def test_demonstrations_have_actions_of_all_joints():
    with pytest.raises(InputError, match=r"--env metaworld_deltas/reach-v3: \['x', 'y', 'z'\] are measured alone, so"):
        record(SimpleNamespace(env=["metaworld/reach-v3", "metaworld_deltas/reach-v3"]))


def test_a_rotation_is_axis_times_angle():
    assert rotation_vector(np.array([0.0, 0.0, 0.0, 1.0])).tolist() == [0.0, 0.0, 0.0]
    half = np.sin(np.pi / 4)
    assert rotation_vector(np.array([half, 0.0, 0.0, half])) == pytest.approx([np.pi / 2, 0.0, 0.0])
    assert rotation_vector(-np.array([half, 0.0, 0.0, half])) == pytest.approx([-1.5 * np.pi, 0.0, 0.0])


def test_the_tasks_are_all_there():
    assert {suite: len(texts) for suite, texts in LIBERO.items()} == {
        "spatial": 10, "object": 10, "goal": 10, "10": 10, "90": 90
    }
    assert len(METAWORLD) == 50
    long = BENCHMARKS["libero/10/2"]
    assert long.instruction == "turn on the stove and put the moka pot on it" and long.steps == 520


@pytest.mark.parametrize(
    "name", ["aloha/transfer_cube", "pusht", "metaworld/reach-v3", "metaworld_deltas/hammer-v3", "libero/90/89"]
)
def test_each_has_its_robot(name):
    benchmark = BENCHMARKS[name]
    robot = RobotSpec.load(benchmark.robot)
    assert robot.joint_names == tuple(channel.joint for channel in benchmark.channels)
    assert set(robot.camera_names) <= set(benchmark.cameras)
    assert robot.control_rate == benchmark.rate
