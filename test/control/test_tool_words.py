"""What is said about a tool that does not get to its target, and which joints count as limited on its way."""

import numpy as np
from control.fakes import World
from control.tool_robots import HOME, pose_row, seven, so101, tool_targets, tool_world

from vla_ros.control.admission import Reason, Refusal
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_follower import ToolFollower
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.rotations import to_matrix

STUCK = "does not get nearer at present (joint limit, singularity or out of reach)"
LIMITS, ARM = so101()
PLACE, ROTATION = ARM.pose(HOME)
BENT = np.array([0.1, 0.2, 0.5, -0.4, 0.6, -0.3, 0.2])  # of the seven joints


def said(arm: ToolArm, joints: np.ndarray, place: np.ndarray, rotation: np.ndarray, ticks: int) -> list[str]:
    """What the follower says on its way to a pose that rests, a text for each control period."""
    follower, joints, speeds = ToolFollower(arm), joints.copy(), np.zeros_like(joints)
    target, words = np.concatenate([place, rotation.ravel()]), []
    for _ in range(ticks):
        found = follower.follow(target, np.zeros(12), joints.copy(), speeds.copy(), 0.01)
        joints[arm.columns], speeds[arm.columns] = found
        words.append(follower.reason)
    return words


def test_a_target_outside_the_box_is_spoken_of_by_axis_value_and_bounds():
    words = said(ARM, HOME, np.array([PLACE[0], -0.5, PLACE[2]]), ROTATION, 60)
    assert words[0] == "" and words[-1].startswith(
        "tool: target y -0.500 m is outside the box, -0.45 to 0.45 m in base; it goes to the box's side")
    assert not any(said(ARM, HOME, PLACE + [0.0, 0.05, 0.0], ROTATION, 60))


def test_a_rotation_that_six_joints_do_not_make_is_spoken_of():
    _, arm = seven()
    place, rotation = arm.pose(BENT)
    turned = to_matrix(np.array([2.6, 0.0, 0.0]), "vector") @ rotation
    words = said(arm, BENT, place, turned, 500)
    assert words[-1].startswith("tool: holds ") and words[-1].endswith(f"rad from the rotation of its target, {STUCK}")
    turned = to_matrix(np.array([0.2, 0.0, 0.0]), "vector") @ rotation
    assert not any(said(arm, BENT, place, turned, 100))


def test_of_the_rotation_that_five_joints_leave_nothing_is_said():
    turned = to_matrix(np.array([0.0, 0.0, 1.0]), "vector") @ ROTATION
    assert not any(said(ARM, HOME, PLACE, turned, 150))


def test_five_joints_may_begin_turned_away_seven_may_not():
    turned = to_matrix(np.array([0.0, 0.0, 1.5]), "vector") @ ROTATION
    assert isinstance(tool_world().send(targets=tool_targets([pose_row(PLACE, turned)] * 5)), ActionChunk)
    limits, arm = seven()
    place, rotation = arm.pose(BENT)
    turned = to_matrix(np.array([0.0, 0.0, 1.5]), "vector") @ rotation
    world = World(arm=arm, limits=limits, home=BENT).activate()
    refusal = world.send(targets=tool_targets([pose_row(place, turned)] * 5, frame="l0"))
    assert isinstance(refusal, Refusal) and refusal.reason == Reason.JUMP and "begins 1.5 rad" in refusal.text


def test_joints_whose_tool_is_held_back_are_limited_and_only_then():
    world = tool_world(mode="latest", crossfade=0.0)
    world.send(targets=tool_targets([pose_row(PLACE + [0.0, 0.1, 0.0], ROTATION)] * 30))
    world.tick(10)
    status = world.executor.status(world.now_ns)
    assert status.limited == ARM.names and "gripper" not in status.limited
    share = dict(zip(status.names, status.limited_share, strict=True))
    assert share["shoulder_pan"] > 0.5 and share["gripper"] == 0.0
    world.tick(120)
    world.executor.begin_interval()
    world.tick(5)
    assert world.executor.status(world.now_ns).limited == ()


def test_a_tool_that_follows_a_slow_target_is_not_limited():
    world = tool_world(mode="latest", crossfade=0.0)
    rows = [pose_row(PLACE + np.array([0.0, 0.05, 0.0]) * k * 0.1, ROTATION) for k in range(10)]
    world.send(targets=tool_targets(rows))
    world.tick(30)
    world.executor.begin_interval()
    world.tick(50)
    assert world.executor.status(world.now_ns).limited == ()
