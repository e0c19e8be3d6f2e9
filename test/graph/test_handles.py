"""Keys of a pseudoterminal and messages of a gamepad, as a person's pushes."""

import os
import termios
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the gamepad's messages need ROS 2")

import yaml
from control.posed_robots import posed_file
from control.robots import driving
from control.tool_robots import HOME, SO101, so101
from sensor_msgs.msg import Joy

from vla_ros.cli.main import main
from vla_ros.control.limits import Limits
from vla_ros.control.steering import STEP, Steering
from vla_ros.core.errors import InputError
from vla_ros.graph import handles
from vla_ros.graph.handles import Keys, Pad

LIMITS, ARM = so101()


@pytest.fixture
def terminal():
    theirs, ours = os.openpty()
    yield theirs, ours
    os.close(theirs)
    os.close(ours)


def steering(arm=ARM) -> Steering:
    made = Steering(Limits.merge(SO101), arm)
    made.begin(HOME)
    return made


def test_keys_move_the_tool_and_the_gripper_and_the_terminal_is_left_as_it_was(terminal):
    person, descriptor = terminal
    before, said, steered = termios.tcgetattr(descriptor), [], steering()
    with Keys(descriptor, said.append) as keys:
        assert "w s" in keys.help(steered, True) and "w s" not in keys.help(steered, False)
        assert "gripper" in keys.help(steered, True)
        for text, wishes in ((b"t", [True]), (b"wW", []), (b"\x1b[A", []), (b"g", [False]), (b"tg", [False])):
            os.write(person, text)
            assert keys.wishes(False) == wishes
        place, _ = ARM.pose(steered.position)
        keys.steer(steered, 0.02)
        for _ in range(100):
            keys.steer(steered, 0.02)
        assert (ARM.pose(steered.position)[0] - place)[0] == pytest.approx(2 * STEP, abs=5e-4)
        os.write(person, b"++.1w")
        keys.wishes(True)
        keys.forget()  # it did not lead
        rest = steered.position.copy()
        keys.steer(steered, 0.02)
        assert np.abs(steered.position - rest).max() < 1e-4 and steered.scale == 1.0
        os.write(person, b"-.1")
        keys.wishes(True)
        keys.steer(steered, 0.02)
        wide = 0.05 * LIMITS.range[5] / 1.5
        assert steered.position[5] == pytest.approx(rest[5] + wide) and said == ["joint gripper"]
        assert not keys.done
        os.write(person, b"q")
        assert keys.wishes(True) == [] and keys.done
    assert termios.tcgetattr(descriptor) == before


def test_arrows_drive_a_base_and_are_whole_however_they_come(terminal):
    person, descriptor = terminal
    robot = driving()
    steered, keys = Steering(Limits.merge(robot), None, robot.base_axes), Keys(descriptor)
    shown = keys.help(steered, False)
    assert "arrows" in shown and "c v" not in shown and "arrows" not in keys.help(steering(), True)
    with keys:
        for text, velocities in (
            (b"\x1b[A\x1b[A", [0.125, 0.0]), (b"\x1bOD", [0.125, 0.375]), (b"\x1b[1;2B", [-0.075, 0.375]),
            (b" ", [0.0, 0.0]), (b"\x1b", [0.0, 0.0]), (b"[", [0.0, 0.0]), (b"C", [0.0, -0.375]),
            (b"\x1b[15~\x1b[H ", [0.0, 0.0]),
        ):  # fmt: skip
            os.write(person, text)
            assert keys.wishes(True) == []
            keys.steer(steered, 0.02)
            assert steered.position[1:] == pytest.approx(velocities), text
    assert not steered.position[0]


def test_a_closed_terminal_ends_it_and_no_terminal_is_refused(terminal, tmp_path):
    person, descriptor = terminal
    with Keys(descriptor) as keys:
        os.write(person, b"\x04")  # Ctrl-D is a key like others here
        assert keys.wishes(True) == [] and not keys.done
    with (tmp_path / "file").open("w") as file, pytest.raises(InputError, match="no terminal"):
        Keys(file.fileno())
    read, write = os.pipe()
    os.close(write)
    keys._descriptor = read
    assert keys.wishes(True) == [] and keys.done
    os.close(read)


@pytest.fixture
def pad(monkeypatch):
    made = SimpleNamespace(now=100.0, said=[])
    monkeypatch.setattr(handles, "time", SimpleNamespace(monotonic=lambda: made.now, sleep=lambda seconds: None))
    node = SimpleNamespace(create_subscription=lambda kind, topic, take, qos: setattr(made, "hear", take))
    made.pad = Pad(node, "joy", made.said.append)
    return made


def joy(*buttons: int, **axes: float) -> Joy:
    places = {"x": 1, "y": 0, "z": 4, "turn": 3}
    message = Joy(axes=[0.0] * 8, buttons=[int(i in buttons) for i in range(11)])
    for name, value in axes.items():
        message.axes[places[name]] = value
    return message


def test_a_gamepad_leads_while_its_button_is_held_and_says_nothing_when_it_is_silent(pad):
    assert not pad.pad.alive and pad.pad.wishes(False) == []
    pad.hear(joy())
    assert pad.pad.alive and pad.pad.wishes(False) == []
    pad.hear(joy(4))
    assert pad.pad.wishes(False) == [True] and pad.pad.wishes(True) == []
    pad.now += 1.0
    assert not pad.pad.alive
    pad.hear(joy())
    assert pad.pad.wishes(True) == [False] and pad.pad.wishes(False) == []


def test_its_sticks_move_the_tool_and_its_buttons_the_gripper(pad):
    steered = steering()
    place, _ = ARM.pose(steered.position)
    pad.hear(joy(4, x=1.0, y=float("nan"), z=-7.0))
    for _ in range(40):
        pad.pad.steer(steered, 0.02)
    moved = ARM.pose(steered.position)[0] - place
    assert moved[0] > 0.01 and moved[2] < -0.01 and abs(moved[1]) < 0.005
    pad.hear(joy(4, 1))
    before = steered.position[5]
    pad.pad.steer(steered, 0.02)
    assert steered.position[5] > before
    single = steering(None)
    pad.hear(Joy(buttons=[0, 0, 0, 1]))  # a pad of four buttons
    pad.pad.steer(single, 0.02)
    pad.pad.steer(single, 0.02)  # it is still held
    assert single.choice == SO101.joint_names[1] and pad.said == [f"joint {SO101.joint_names[1]}"]


def test_its_sticks_drive_the_base_while_the_other_button_is_held(pad):
    robot = driving()
    steered = Steering(Limits.merge(robot), None, robot.base_axes)
    assert "RB" in pad.pad.help(steered, False) and "RB" not in pad.pad.help(steering(), True)
    for held, axes, velocities in (
        ((4, 5), {"x": 1.0}, [0.25, 0.0]), ((4, 5), {"x": -0.5, "turn": 1.0}, [-0.075, 0.75]),
        ((4,), {"x": 1.0}, [0.0, 0.0]),
    ):  # fmt: skip
        pad.hear(joy(*held, **axes))
        pad.pad.steer(steered, 0.02)
        assert steered.position[1:] == pytest.approx(velocities)
    arm, before = steering(), HOME.copy()
    pad.hear(joy(4, 5, x=1.0))  # a robot without a base: RB is no button of this program
    for _ in range(20):
        pad.pad.steer(arm, 0.02)
    assert np.abs(arm.position - before).max() > 0.01


def test_what_cannot_be_steered_is_refused_before_anything_is_asked(tmp_path, capsys, monkeypatch):
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(posed_file("pose_stamped")))
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        for words, said in (
            (["--keyboard", "--end"], "expected one of them"),
            (["--joy", "joy"], "--robot: missing"),
            (["--keyboard", "--robot", "so101"], "no terminal"),
            (["--joy", "joy", "--robot", str(file)], "its tool is commanded"),
            (["--joy", "joy", "--robot", "so101", "--base"], "--base: robot so101 has none"),
        ):
            assert main(["takeover", *words]) == 2
            assert said in capsys.readouterr().err
