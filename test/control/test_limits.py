"""Robot file and URDF: the stricter wins and is named."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from control.robots import robot

from vla_ros.control.executor import Executor
from vla_ros.control.limits import ROBOT_FILE, URDF, Limits
from vla_ros.control.urdf import UrdfLimit, load_urdf
from vla_ros.core.errors import InputError
from vla_ros.core.robot import Joint, RobotSpec
from vla_ros.messages.stamps import NS

TEXT = """<?xml version="1.0"?>
<robot name="small">
  <link name="base"/>
  <joint name="turn" type="revolute">
    <limit lower="-0.8" upper="2.0" velocity="1.5" effort="1"/>
    <safety_controller soft_lower_limit="-0.7" soft_upper_limit="1.9" k_velocity="1"/>
  </joint>
  <joint name="lift" type="prismatic"><limit lower="-1" upper="0.4" velocity="9" effort="1"/></joint>
  <joint name="wheel" type="continuous"/>
  <joint name="bolt" type="fixed"/>
</robot>
"""


def test_urdf_is_read(tmp_path):
    expected = {
        "turn": UrdfLimit(-0.7, 1.9, 1.5, "rad"),
        "lift": UrdfLimit(-1.0, 0.4, 9.0, "m"),
        "wheel": UrdfLimit(unit="rad"),
    }
    assert load_urdf(TEXT) == expected
    path = tmp_path / "small.urdf"
    path.write_text(TEXT)
    assert load_urdf(path) == expected
    assert math.isinf(expected["wheel"].velocity)


def test_joints_that_follow_others_or_are_nobodys_need_no_limits():
    fingers = """<robot name="hand">
      <joint name="left" type="prismatic"><limit lower="0" upper="0.04" velocity="0.2" effort="1"/></joint>
      <joint name="right" type="prismatic"><mimic joint="left"/><limit lower="0" upper="0" velocity="0"/></joint>
      <joint name="tip" type="revolute"><mimic joint="left" multiplier="-2"/></joint>
      <joint name="spring" type="revolute"><limit lower="-1" upper="1" velocity="0" effort="0"/></joint>
    </robot>"""
    read = load_urdf(fingers, ["left", "tip"])
    assert read["left"] == UrdfLimit(0.0, 0.04, 0.2, "m")
    assert read["tip"] == UrdfLimit(unit="rad", mimics="left")
    assert read["right"] == UrdfLimit(unit="m", mimics="left") and read["spring"] == UrdfLimit(unit="rad")
    with pytest.raises(InputError, match="joint spring: velocity 0.0, expected a positive"):
        load_urdf(fingers)


def test_units_of_robot_file_and_urdf_agree():
    with pytest.raises(InputError, match="joint lift: unit m in the robot file, expected rad as in the URDF"):
        Limits.merge(robot(), load_urdf(TEXT.replace("prismatic", "revolute")))


def test_margins_are_of_a_joint_in_its_own_unit():
    """A gripper of 0 to 4 cm beside joints in rad closes and opens all the way, and an activation finds it there."""
    small = robot()
    for own, reach in ((None, (0.0, 0.04)), (0.001, (0.001, 0.039))):
        finger = replace(small.joints[1], name="finger", lower=0.0, upper=0.04, margin=own)
        groups = (replace(small.groups[0], joints=(small.joints[0].name, "finger")),)
        made = replace(small, joints=(small.joints[0], finger), groups=groups)
        merged = Limits.merge(made)
        assert (merged.lower[1], merged.upper[1]) == pytest.approx(reach)
        assert (merged.lower[0], merged.upper[0]) == pytest.approx((-0.99, 0.99))
        for at in (0.0, 0.04):
            executor = Executor(merged, 100.0)
            executor.joint_state(NS, merged.names, [0.0, at], NS)
            executor.activate(NS)
            assert executor.tick(NS, 0).position.tolist() == [0.0, at]
    with pytest.raises(InputError, match="joint finger: lower 0.0 must be below .* than twice the margin 0.02 m"):
        RobotSpec.from_dict({**asdict(small), "joints": [{**asdict(finger), "margin": 0.02}]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<robot", "not XML"),
        ("<robots/>", "<robots>, expected <robot>"),
        ('<robot><joint name="a" type="revolute"/></robot>', "joint a: no <limit>"),
        (TEXT.replace('"-0.8"', '"low"'), "joint turn: lower 'low', expected a number"),
        (TEXT.replace('"0.4"', '"-2"'), "joint lift: lower -1.0, expected less than upper -2.0"),
        (TEXT.replace('velocity="9"', 'velocity="0"'), "joint lift: velocity 0.0, expected a positive"),
    ],
)
def test_a_bad_urdf_is_named(text, words):
    with pytest.raises(InputError, match=words):
        load_urdf(text)


def test_a_missing_urdf_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.urdf: No such file"):
        load_urdf(tmp_path / "none.urdf")


def test_the_stricter_wins_and_is_named():
    merged = Limits.merge(robot(), load_urdf(TEXT))
    assert merged.lower == pytest.approx([-0.69, 0.0])  # the margin comes off the stricter one; it is of joints in rad
    assert merged.upper == pytest.approx([0.99, 0.4])
    assert merged.velocity == pytest.approx([1.5, 0.5])
    assert merged.acceleration == pytest.approx([10.0, 4.0])
    assert merged.sources["turn"] == {
        "lower": URDF, "upper": ROBOT_FILE, "velocity": URDF, "acceleration": ROBOT_FILE, "jerk": ROBOT_FILE,
    }  # fmt: skip
    assert merged.report()["lift"] == "0 (robot file) to 0.4 m (URDF), 0.5 m/s (robot file), 4 m/s² (robot file)"
    alone = Limits.merge(robot())
    assert set(alone.sources["lift"].values()) == {ROBOT_FILE}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lower": -1e308, "upper": 1e308}, "joint a: lower -1e.308, expected at most 1e.12 from zero"),
        ({"velocity": 1e308}, "joint a: velocity 1e.308, expected at most 1e.12"),
        ({"acceleration": 1e308}, "joint a: acceleration 1e.308, expected at most 1e.12"),
        ({"lower": -1e11}, "joint a: acceleration 10, expected at least 1.5e.02: .* at 100 Hz; raise it or narrow"),
        ({"velocity": 1e-300}, "joint a: velocity 1e-300, expected at least 1.1e-11"),
        ({"acceleration": 1e-12}, "joint a: acceleration 1e-12, expected at least 1.1e-09"),
        ({"jerk": 1e-6}, "joint a: jerk 1e-06 rad/s³, expected at least 4, .* takes 2.5 s"),
    ],
)
def test_limits_that_arithmetic_cannot_hold_are_refused(change, words):
    joint = Joint(**({"name": "a", "lower": -1.0, "upper": 1.0, "velocity": 2.0, "acceleration": 10.0} | change))
    with pytest.raises(InputError, match=words):
        Limits.merge(replace(robot(), joints=(joint,)))


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match="expected some of the robot file's"):
        Limits.merge(robot(), {"other": UrdfLimit()})
    with pytest.raises(InputError, match="joint lift: .* leave no room"):
        Limits.merge(robot(), {"lift": UrdfLimit(0.6, 0.9)})


def test_which_limit_holds_a_joint_back():
    bounds = Limits.merge(robot(gripper=True))
    middle = 0.5 * (bounds.lower + bounds.upper)
    assert bounds.binding(middle, np.zeros(3)) == ["acceleration"] * 3
    assert bounds.binding(middle, bounds.velocity * [1, -1, 0.5]) == ["velocity", "velocity", "acceleration"]
    ends = np.array([bounds.lower[0], bounds.upper[1], middle[2]])
    assert bounds.binding(ends, np.zeros(3)) == ["position", "position", "acceleration"]
