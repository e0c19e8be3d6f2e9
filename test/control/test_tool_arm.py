"""Kinematics of the tool against those of the viewer, and what the joints do near singularities and limits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from control.tool_robots import SO101, seven, seven_urdf, so101, so101_urdf

from vla_ros.control.kinematics import Kinematics
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_follower import ToolFollower
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.rotations import to_matrix
from vla_ros.core.tool import Tool

ARMS = {"so101": (so101, so101_urdf), "seven": (seven, seven_urdf)}


def draws(limits, seed: int, share: float = 1.0) -> np.ndarray:
    """(100, J) joint positions."""
    rng = np.random.default_rng(seed)
    middle = (limits.lower + limits.upper) / 2
    return middle + share * limits.range * rng.uniform(-0.5, 0.5, (100, len(limits.names)))


@pytest.mark.parametrize("name", ARMS)
def test_forward_kinematics_are_those_of_the_tree(name):
    (limits, arm), tree = ARMS[name][0](), Kinematics(ARMS[name][1]())
    for joints in draws(limits, 0):
        poses = tree.poses(dict(zip(limits.names, joints, strict=True)))
        expected = np.linalg.inv(poses[arm.tool.frame]) @ poses[arm.tool.link]
        place, rotation = arm.pose(joints)
        np.testing.assert_allclose(place, expected[:3, 3], atol=1e-12)
        np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-12)


@pytest.mark.parametrize("name", ARMS)
def test_the_jacobian_is_the_derivative_of_the_pose(name):
    limits, arm = ARMS[name][0]()
    for joints in draws(limits, 1)[:20]:
        _, _, jacobian = arm.placed(joints)
        for k, column in enumerate(arm.columns):
            ends = [joints + sign * 1e-5 * np.eye(len(joints))[column] for sign in (-1, 1)]
            (a, turned_a), (b, turned_b) = map(arm.pose, ends)
            slope = np.concatenate([b - a, arm.turn(turned_a, turned_b)]) / 2e-5
            np.testing.assert_allclose(jacobian[:, k], slope, atol=1e-8)


def followed(arm: ToolArm, joints: np.ndarray, target: np.ndarray, ticks: int, dt: float = 0.01) -> list[np.ndarray]:
    """Joint positions one after the other towards a pose (12,) that rests, from rest."""
    follower, speeds, path = ToolFollower(arm), np.zeros_like(joints), [joints]
    for _ in range(ticks):
        joints, speeds = path[-1].copy(), speeds.copy()
        joints[arm.columns], speeds[arm.columns] = follower.follow(target, np.zeros(12), path[-1], speeds, dt)
        path.append(joints)
    return path


@pytest.mark.parametrize("name", ARMS)
def test_reachable_poses_are_reached_within_every_limit(name):
    limits, arm = ARMS[name][0]()
    rng, met = np.random.default_rng(2), 0
    for joints in draws(limits, 3, 0.7)[:9]:
        goal = np.clip(joints + rng.uniform(-0.4, 0.4, len(joints)) * limits.velocity / limits.velocity.max(),
                       limits.lower + 0.05, limits.upper - 0.05)
        place, rotation = arm.pose(goal)
        if not ((place > arm.tool.lower) & (place < arm.tool.upper)).all():
            continue
        path = np.array(followed(arm, joints, np.concatenate([place, rotation.ravel()]), 250))
        end, turned = arm.pose(path[-1])
        met += 1
        assert np.linalg.norm(end - place) < 1e-4
        assert np.linalg.norm(arm.turn(turned, rotation)) < 1e-3
        assert ((path >= limits.lower - 1e-12) & (path <= limits.upper + 1e-12)).all()
        velocity = np.diff(path, axis=0) / 0.01
        assert (np.abs(velocity) <= limits.velocity + 1e-9).all()
        assert (np.abs(np.diff(velocity, axis=0)) / 0.01 <= limits.acceleration + 1e-6).all()
        speed = np.linalg.norm(np.diff([arm.pose(row)[0] for row in path], axis=0), axis=1) / 0.01
        assert 0.3 * arm.tool.velocity < speed.max() <= 1.05 * arm.tool.velocity
    assert met > 5


def test_of_five_joints_the_position_comes_first_and_the_rotation_as_near_as_is_left():
    limits, arm = so101()
    joints = np.array([0.2, -0.9, 0.8, 0.9, 0.3, 0.5])
    place, rotation = arm.pose(joints)
    asked = to_matrix(np.array([0.0, 0.0, 0.6]), "vector") @ rotation  # about z: for that the arm would need a wrist
    wanted = np.concatenate([place + [0.02, 0.03, 0.02], asked.ravel()])
    path = followed(arm, joints, wanted, 400)
    end, turned = arm.pose(path[-1])
    assert np.linalg.norm(end - wanted[:3]) < 1e-4
    left = np.linalg.norm(arm.turn(turned, asked))
    assert 0.05 < left < np.linalg.norm(arm.turn(rotation, asked)) + 1e-3
    assert np.abs(path[-1] - path[-20]).max() < 1e-4  # it stands


@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0, 0.0, 0.0, 0.5], [0.3, 0.05, -0.03, 0.02, 0.0, 0.5]])
@pytest.mark.parametrize("way", [[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 0.15], [0.0, -0.15, -0.1]])
def test_near_a_stretched_arm_nothing_jumps(start, way):
    limits, arm = so101()
    joints = np.clip(np.array(start), limits.lower, limits.upper)
    place, rotation = arm.pose(joints)
    path = np.array(followed(arm, joints, np.concatenate([place + way, rotation.ravel()]), 400))
    velocity = np.diff(path, axis=0) / 0.01
    assert np.isfinite(path).all() and (np.abs(velocity) <= limits.velocity + 1e-9).all()
    assert (np.abs(np.diff(velocity, axis=0)) / 0.01 <= limits.acceleration + 1e-6).all()
    assert np.abs(velocity[-1]).max() < 0.05


STRETCHED = np.array([0.0, 1.0923, -1.2890, -0.0391, 0.541, 0.5])  # the SO-101 as far out as it gets at that height


@pytest.mark.parametrize("pan", [0.0, 0.7])
@pytest.mark.parametrize("bent", [0.0, 0.02, -0.02])
def test_a_stretched_arm_that_is_asked_straight_inwards_bends_and_comes(pan, bent):
    limits, arm = so101()
    joints = STRETCHED + [pan, 0.0, bent, 0.0, 0.0, 0.0]
    place, rotation = arm.pose(joints)
    inwards = -np.array([place[0], place[1], 0.0]) / np.linalg.norm(place[:2])
    goal = place + 0.06 * inwards
    path = np.array(followed(arm, joints, np.concatenate([goal, rotation.ravel()]), 300))
    assert np.linalg.norm(arm.pose(path[-1])[0] - goal) < 1e-3
    velocity = np.diff(path, axis=0) / 0.01
    assert (np.abs(np.diff(velocity, axis=0)) / 0.01 <= limits.acceleration + 1e-6).all()
    places = np.array([arm.pose(row)[0] for row in path])
    off = places - place - np.outer((places - place) @ inwards, inwards)
    assert np.linalg.norm(off, axis=1).max() < 0.02
    speed = np.linalg.norm(np.diff(places, axis=0), axis=1) / 0.01
    assert speed.max() <= 1.05 * arm.tool.velocity and np.abs(path[-1] - path[-10]).max() < 1e-3


def test_a_stretched_arm_that_is_asked_further_out_stands():
    limits, arm = so101()
    joints = STRETCHED + [0.7, 0.0, 0.0, 0.0, 0.0, 0.0]  # where the box reaches further than the arm
    place, rotation = arm.pose(joints)
    goal = place + 0.08 * np.array([place[0], place[1], 0.0]) / np.linalg.norm(place[:2])
    assert (goal < arm.tool.upper).all()
    path = np.array(followed(arm, joints, np.concatenate([goal, rotation.ravel()]), 300))
    assert np.abs(path[-1] - path[-50]).max() < 0.02
    assert 0.07 < np.linalg.norm(arm.pose(path[-1])[0] - goal) < 0.085


def test_a_joint_at_its_limit_leaves_the_way_to_the_others():
    limits, arm = so101()
    joints = np.array([0.0, -0.6, 0.9, limits.upper[3], 0.0, 0.5])
    place, rotation = arm.pose(joints + [0.1, 0.15, -0.3, 0.0, 0.0, 0.0])
    further = to_matrix(np.array([0.0, 0.5, 0.0]), "vector") @ rotation  # the wrist would bend further for it
    path = np.array(followed(arm, joints, np.concatenate([place, further.ravel()]), 300))
    assert (path <= limits.upper + 1e-12).all() and path[-1, 3] > limits.upper[3] - 0.01
    assert np.linalg.norm(arm.pose(path[-1])[0] - place) < 1e-4


@pytest.mark.parametrize(("joint", "link"), [("j4", "l8"), ("mount", "l8"), ("j3", "l0"), ("stand", "l0")])
def test_a_joint_may_have_the_name_of_a_link(joint, link):
    (limits, arm), text = seven(), seven_urdf().replace(f'"{joint}"', f'"{link}"')
    names = tuple(link if name == joint else name for name in limits.names)
    same = ToolArm(arm.tool, text, replace(limits, names=names))
    for joints in draws(limits, 2)[:3]:
        for found, expected in zip(same.placed(joints), arm.placed(joints), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_does_not_fit_the_urdf_is_refused_in_one_line():
    limits, arm = seven()
    text = seven_urdf()

    def made(link: str = "l8", frame: str = "l0", source: str = text, bounds=limits) -> ToolArm:
        return ToolArm(Tool(link, frame, *[(-1.0,) * 3, (1.0,) * 3], 1.0, 1.0, 1.0, 1.0), source, bounds)

    assert made(frame="l3").names == ("j3", "j4", "j5", "j6")
    cases = [
        (lambda: made("hand"), "link 'hand', expected one of the URDF's"),
        (lambda: made("l0", "l8"), "frame 'l8' does not carry link 'l0'"),
        (lambda: made("l0", "l-1"), "no joint moves link 'l0'"),
        (lambda: made(bounds=so101()[0]), "joint 'j0' moves it and is not in the robot file"),
        (lambda: made(source=text.replace("<axis", '<mimic joint="j5"/><axis', 1)), "'j0' moves it and is a mimic"),
        (lambda: made(source="<robot"), "not XML"),
        (lambda: made(source=text.replace("0.02 0 0.15", "20 0 150")), "m of links from l0 to l8, expected"),
    ]
    for make, words in cases:
        with pytest.raises(InputError, match=words) as error:
            make()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("change, words", [
    ({"lower": [0.5, -0.4, 0.0]}, "tool: lower 0.5 m, expected less than upper 0.45 m along x"),
    ({"velocity": -1.0}, "tool: velocity -1.0, expected a positive number"),
    ({"rotation_acceleration": 0}, "tool: rotation_acceleration 0.0, expected a positive number"),
    ({"frame": "tip"}, "tool: frame 'tip' is the link, expected one that carries it"),
    ({"link": ""}, "tool: link: empty, expected a link of the URDF"),
    ({"upper": [1.0, 1.0]}, "tool.upper: [1.0, 1.0], expected 3 values"),
    ({"speed": 1.0}, "tool.speed: unknown field"),
    ({"velocity": "fast"}, "tool.velocity: 'fast', expected a number"),
])  # fmt: skip
def test_a_tool_that_makes_no_sense_is_refused_by_its_field(change, words):
    data = yaml.safe_load(Path("config/robots/so101.yaml").read_text())
    assert RobotSpec.from_dict(data) == SO101
    with pytest.raises(InputError) as error:
        RobotSpec.from_dict(data | {"tool": data["tool"] | change})
    assert words in str(error.value) and "\n" not in str(error.value)
