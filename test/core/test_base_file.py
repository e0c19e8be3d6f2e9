"""Velocity dimensions in the robot file: what is understood, and what cannot be honoured is refused by name."""

import numpy as np
import pytest
import yaml

from vla_ros.cli.main import main
from vla_ros.control.limits import Limits
from vla_ros.control.urdf import UrdfLimit
from vla_ros.core.errors import InputError
from vla_ros.core.resources import resolve_robot
from vla_ros.core.robot import RobotSpec

LEKIWI = yaml.safe_load(resolve_robot("lekiwi").read_text(encoding="utf-8"))
X = {"name": "x.vel", "unit": "m/s", "velocity": 0.5, "acceleration": 1.0}
YAW = {"name": "yaw.vel", "unit": "rad/s", "velocity": 2.0, "acceleration": 6.0}
BASE = {"name": "base", "topic": "cmd_vel", "interface": "base_twist", "joints": ["x.vel", "yaw.vel"],
        "axes": ["x", "yaw"], "odometry": "odom"}  # fmt: skip
DIFFERENTIAL = {"name": "cart", "cameras": [], "joints": [X, YAW], "groups": [BASE]}


def test_lekiwi_has_an_arm_and_a_base():
    robot = RobotSpec.load("lekiwi")
    assert robot.joint_names[5:] == ("arm_gripper", "x.vel", "y.vel", "theta.vel")
    assert robot.velocities.tolist() == [False] * 6 + [True] * 3
    limits = Limits.merge(robot)
    assert limits.rates.tolist() == robot.velocities.tolist()
    assert limits.lower[6:].tolist() == [-0.26, -0.23, -1.57] and limits.upper[6:].tolist() == [0.26, 0.23, 1.57]
    assert limits.velocity[6:].tolist() == [1.0, 1.0, 6.0]  # how fast they change
    assert limits.report()["theta.vel"] == "-1.57 (robot file) to 1.57 rad/s (robot file), 6 rad/s² (robot file)"
    states = [robot.stream(name) for name in robot.state_streams]
    assert [(stream.topic, stream.type) for stream in states] == [
        ("joint_states", "sensor_msgs/msg/JointState"), ("base_controller/odom", "nav_msgs/msg/Odometry")
    ]
    assert robot.stream("command/base").type == "geometry_msgs/msg/TwistStamped"


def test_what_is_understood_of_it_is_shown(capsys):
    assert main(["info", "lekiwi"]) == 0
    said = capsys.readouterr().out
    assert "robot lekiwi: joint states on joint_states, odometry on base_controller/odom, commands at 100 Hz" in said
    assert [line.split() for line in said.splitlines() if "theta.vel" in line] == [
        ["theta.vel", "-1.57", "1.57", "1.57", "6", "rad/s", "base"]
    ]


def test_a_base_alone_has_no_joint_states_and_may_be_slower_backwards(tmp_path, capsys):
    (file := tmp_path / "cart.yaml").write_text(yaml.safe_dump(DIFFERENTIAL))
    assert main(["info", str(file)]) == 0 and "robot cart: odometry on odom, commands at" in capsys.readouterr().out
    robot = RobotSpec.from_dict(DIFFERENTIAL | {"joints": [X | {"lower": -0.2}, YAW]})
    assert [stream.topic for stream in robot.measured_streams] == ["odom"]
    assert (robot.joints[0].lower, robot.joints[0].upper) == (-0.2, 0.5)
    assert Limits.merge(robot, {}).speed.tolist() == [0.5, 2.0]
    with pytest.raises(InputError, match="joint x.vel: unit m/s in the robot file, expected rad as in the URDF"):
        Limits.merge(robot, {"x.vel": UrdfLimit(-1.0, 1.0, 1.0, "rad")})


def test_what_moves_in_space_follows_no_path_on_the_ground():
    robot = RobotSpec.from_dict(DIFFERENTIAL | {
        "joints": [X, X | {"name": "z.vel"}, YAW],
        "groups": [BASE | {"joints": ["x.vel", "z.vel", "yaw.vel"], "axes": ["x", "z", "yaw"]}],
    })  # fmt: skip
    assert robot.path_axes is None and RobotSpec.from_dict(DIFFERENTIAL).path_axes == {"x": "x.vel", "yaw": "yaw.vel"}


@pytest.mark.parametrize(("joint", "group", "words"), [
    ({"jerk": 5.0}, {}, "joint x.vel: jerk 5.0, expected none in m/s"),
    ({"margin": 0.1}, {}, "joint x.vel: margin 0.1, expected none in m/s"),
    ({"discrete": True}, {}, "joint x.vel: discrete, expected false"),
    ({"lower": 0.1}, {}, "joint x.vel: lower 0.1, upper 0.5 m/s: expected none, or speeds from -0.5 to 0.5 with zero"),
    ({"upper": 0.6}, {}, "joint x.vel: lower -0.5, upper 0.6 m/s: expected none, or speeds"),
    ({"velocity": 0.0}, {}, "joint x.vel: velocity 0.0, expected a positive number"),
    ({"acceleration": -1.0}, {}, "joint x.vel: acceleration -1.0, expected a positive number"),
    ({"unit": "km/h"}, {}, r"joint x.vel: unit 'km/h', expected one of \('rad', 'm', 'm/s', 'rad/s'\)"),
    ({"unit": "m"}, {}, "joint x.vel: lower is missing, expected the limit of its position in m"),
    ({"unit": "m", "lower": 0, "upper": 1}, {}, "group base: joint x.vel in m is its x, expected m/s"),
    ({"unit": "rad/s"}, {}, "group base: joint x.vel in rad/s is its x, expected m/s"),
    ({}, {"max_effort": 5.0}, "group base: max_effort 5.0, expected zero or more, and only with gripper_command"),
    ({}, {"axes": ["x"]},
     r"group base: axes \['x'\], expected one of \['x', 'y', 'z', 'roll', 'pitch', 'yaw'\] for each of"),
    ({}, {"axes": ["x", "x"]}, "group base: axes"),
    ({}, {"axes": ["x", "up"]}, "group base: axes"),
    ({}, {"axes": ["x", "z"]}, "group base: joint yaw.vel in rad/s is its z, expected m/s"),
    ({}, {"odometry": ""}, "group base: interface base_twist without `odometry`, expected the topic"),
    ({}, {"odometry": "cmd_vel"}, "odometry 'cmd_vel' is also the name of another topic"),
    ({}, {"prefix": "x"}, "group base: joints"),
    ({}, {"action": "drive"}, "group base: action 'drive' with interface base_twist"),
    ({}, {"stamp": "now"}, "group base: stamp 'now' with interface base_twist"),
    ({}, {"interface": "joint_state"}, "group base: axes .*, odometry 'odom' with interface joint_state, expected"),
    ({}, {"interface": "joint_state", "axes": [], "odometry": ""},
     r"group base: \['x.vel', 'yaw.vel'\] are velocities, expected positions with interface joint_state, or one of"),
])  # fmt: skip
def test_what_a_base_cannot_have_is_refused(joint, group, words):
    with pytest.raises(InputError, match=f"^{words}"):
        RobotSpec.from_dict(DIFFERENTIAL | {"joints": [X | joint, YAW], "groups": [BASE | group]})


def test_a_topic_has_messages_of_one_type():
    camera = {"name": "front", "topic": "odom", "width": 4, "height": 4}
    with pytest.raises(InputError, match="^topic 'odom': sensor_msgs/msg/Image of front and nav_msgs/msg/Odometry of"):
        RobotSpec.from_dict(DIFFERENTIAL | {"cameras": [camera]})


def test_an_acceleration_that_rounding_loses_is_refused():
    robot = RobotSpec.from_dict(DIFFERENTIAL | {"joints": [X | {"acceleration": 1e-14}, YAW]})
    with pytest.raises(InputError, match="joint x.vel: acceleration 1e-14, expected at least"):
        Limits.merge(robot)
    assert np.isfinite(Limits.merge(RobotSpec.from_dict(LEKIWI)).acceleration).all()
