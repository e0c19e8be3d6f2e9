"""A benchmark's environment in a process of its own."""

import signal
import sys

import benchmark_modules
import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
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
    with pytest.raises(InputError, match=r"environment 'lunar', expected one of aloha/transfer_cube, "):
        Environment("lunar")


def test_an_interpreter_without_numpy_is_named(tmp_path, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(InputError, match=rf"pusht: {bare} has no module numpy, .* requirements/pusht.txt"):
        Environment("pusht", str(bare))


def test_ctrl_c_is_left_to_the_command(pusht):
    pusht._process.send_signal(signal.SIGINT)
    pusht.reset(7)
    assert pusht.joint_positions() == pytest.approx([0.107, 0.2])


@pytest.mark.parametrize("name", ["aloha/transfer_cube", "pusht", "metaworld/reach-v3"])
def test_each_has_its_robot(name):
    benchmark = BENCHMARKS[name]
    robot = RobotSpec.load(benchmark.robot)
    assert robot.joint_names == tuple(channel.joint for channel in benchmark.channels)
    assert set(robot.camera_names) <= set(benchmark.cameras)
    assert robot.control_rate == benchmark.rate
