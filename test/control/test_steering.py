"""Steering by hand: the tool goes where it is pushed, joints one at a time, inside the limits and no further."""

import numpy as np
import pytest
from control.robots import driving
from control.tool_robots import HOME, SO101, seven, so101

from vla_ros.control.limits import Limits
from vla_ros.control.steering import STEP, Steering

DT = 0.02


def run(steering: Steering, count: int, **sticks: object) -> np.ndarray:
    """(count, J) of the positions."""
    return np.array([steering.advance(DT, **sticks).copy() for _ in range(count)])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("make", [so101, seven])
def test_steps_of_the_tool_go_along_the_axes_of_its_frame(make, axis):
    limits, arm = make()
    steering = Steering(limits, arm)
    steering.begin(HOME if make is so101 else np.linspace(0.1, 0.4, 7))
    before, _ = arm.pose(steering.position)
    for way in (1, 1, 1, -1):
        steering.push(axis, way)
    run(steering, 100)
    moved = arm.pose(steering.position)[0] - before
    assert moved == pytest.approx(2 * STEP * np.eye(3)[axis], abs=5e-4)
    rest = steering.position.copy()
    assert np.abs(run(steering, 50) - rest).max() < 1e-3  # it has arrived


def test_a_seven_joint_arm_turns_about_an_axis_and_its_tool_stays_in_place():
    limits, arm = seven()
    steering = Steering(limits, arm)
    steering.begin(np.linspace(0.1, 0.4, 7))
    place, rotation = arm.pose(steering.position)
    run(steering, 50, tool=np.eye(6)[5])
    moved, turned = arm.pose(steering.position)
    assert moved == pytest.approx(place, abs=0.01)
    axis = arm.turn(rotation, turned)
    assert axis[2] > 0.3 and np.abs(axis[:2]).max() < 0.05 * axis[2]


def test_a_stick_that_pushes_against_the_box_or_the_reach_is_let_go_of_at_once():
    limits, arm = so101()
    steering = Steering(limits, arm)
    steering.begin(HOME)
    run(steering, 150, tool=np.eye(6)[0])  # 3 s forwards, further than the arm is long
    ends = arm.pose(steering.position)[0]
    path = run(steering, 50, tool=-np.eye(6)[0])
    assert arm.pose(path[-1])[0][0] < ends[0] - 0.05  # nothing had wound up
    assert (path >= limits.lower - 1e-9).all() and (path <= limits.upper + 1e-9).all()
    rest = run(steering, 100)[-1]
    assert np.abs(run(steering, 20) - rest).max() < 1e-4


def test_hold_forgets_what_was_asked_for():
    limits, arm = so101()
    steering = Steering(limits, arm)
    steering.begin(HOME)
    for _ in range(10):
        steering.push(2, 1)
    steering.push_joint(1.0)
    steering.hold()
    path = run(steering, 50)
    assert np.abs(path - HOME).max() < 1e-6


def test_joints_are_steered_one_at_a_time_up_to_their_limits():
    limits = Limits.merge(SO101)
    steering = Steering(limits, None)
    steering.begin(HOME)
    assert steering.choice == "shoulder_pan" and steering.reason == ""
    steering.push(0, 1)  # there is no tool
    steering.choose(-1)
    assert steering.choice == "gripper"
    steering.push_joint(1.0)
    assert run(steering, 1)[0] == pytest.approx([*HOME[:5], HOME[5] + 0.05 * limits.range[5]])
    steering.choose(2)
    path = run(steering, 400, joint=1.0)
    assert path[-1, 2] == limits.upper[2] and np.abs(np.diff(path[:, 2])).max() <= 0.25 * limits.velocity[2] * DT + 1e-9
    assert np.array_equal(path[:, :2], np.tile(HOME[:2], (400, 1)))


def based(alone: bool = False) -> Steering:
    robot = driving()
    return Steering(Limits.merge(robot), None, robot.base_axes, alone)


def test_a_base_drives_while_it_is_pushed_and_stands_otherwise():
    steering = based()
    assert steering.names == ("turn", "x.vel", "theta.vel") and steering.choice == "turn" and len(steering.others) == 1
    steering.begin(np.array([0.3, 0.4, -1.0]))
    assert run(steering, 1)[0].tolist() == [0.3, 0.0, 0.0]
    steering.drive("x", 1)
    path = run(steering, 20)
    steering.drive("x", -1)
    steering.drive("y", 1)  # it has none
    steering.drive("yaw", 1)
    path = np.concatenate([path, run(steering, 36)])
    assert path[:20, 1] == pytest.approx(0.25 * 0.5) and path[20:55, 1] == pytest.approx(-0.25 * 0.3)
    assert path[20:55, 2] == pytest.approx(0.25 * 1.5) and not path[55, 1:].any()  # 0.7 s after the last press
    steering.scale = 10.0
    steering.drive("x", 1)
    assert run(steering, 1)[0].tolist() == [0.3, 0.5, 0.0]  # no faster than it can
    steering.hold()
    assert not run(steering, 1)[0, 1:].any()
    assert run(steering, 1, base=np.array([-1.0, 1.0, 0.5]))[0] == pytest.approx([0.3, -0.15, 0.375])
    steering.drive("x", 1)
    steering.begin(np.array([0.2, 0.0, 0.0]))  # it did not lead
    assert run(steering, 1)[0].tolist() == [0.2, 0.0, 0.0]


def test_only_the_base_is_steered_beside_a_leader_arm():
    steering = based(alone=True)
    assert steering.names == ("x.vel", "theta.vel") and steering.choice == ""
    steering.push_joint(1.0)
    steering.drive("yaw", -1)
    assert run(steering, 1, joint=1.0)[0, steering.columns] == pytest.approx([0.0, -0.375])
