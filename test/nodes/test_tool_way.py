"""The way of the tool that marker_node draws for an end-effector chunk."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from control.tool_robots import HOME, SO101, pose_row, seven, seven_urdf, so101, so101_urdf, tool_targets
from rclpy.serialization import serialize_message
from visualization_msgs.msg import Marker

from vla_ros.control.kinematics import Kinematics
from vla_ros.core.chunk import ActionChunk, Part, Space, Targets
from vla_ros.core.rotations import to_matrix
from vla_ros.core.tool import pose_names
from vla_ros.messages.chunks import chunk_message, chunk_size_limit
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ActionPart, ExecutorStatus
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.marker_node import MarkerNode
from vla_ros.nodes.tool_way import tool_way

DELTA, MOST = Space.END_EFFECTOR_DELTA, ExecutorParameters().max_horizon
STEPS = np.array([[0.01, 0.02, -0.01, 0.1, -0.2, 0.3]] * 3 + [[0.0, -0.03, 0.01, 0.0, 0.2, 0.0]] * 2)


def test_poses_are_drawn_where_they_are_in_the_root_of_the_urdf():
    """The base of this arm stands askew on its stand."""
    limits, arm = seven()
    tree, ways = Kinematics(seven_urdf()), []
    path = [np.linspace(0.0, 0.4, 7) + 0.1 * k for k in range(4)]
    for joints in path:
        ways.append(tree.poses(dict(zip(limits.names, joints, strict=True)))["l8"][:3, 3])
    part = tool_targets([pose_row(*arm.pose(joints)) for joints in path], frame="l0").spatial
    poses = tree.poses(dict(zip(limits.names, path[0], strict=True)))
    np.testing.assert_allclose(tool_way(part, arm.tool, poses, 0), ways, atol=1e-9)


@pytest.mark.parametrize("frame", ["l0", "l8"])
@pytest.mark.parametrize("now", [0, 3])
def test_differences_add_up_and_pass_through_the_command(frame, now):
    """Beside the poses that the executor's sum gives, from where it has the step of now at the command."""
    limits, arm = seven()
    joints = np.linspace(0.0, 0.4, 7)
    poses = Kinematics(seven_urdf()).poses(dict(zip(limits.names, joints, strict=True)))
    way = tool_way(tool_targets(STEPS, DELTA, frame).spatial, arm.tool, poses, now)
    place, rotation = arm.pose(joints)
    for k in range(now, len(STEPS)):
        step, turn = STEPS[k, :3], to_matrix(STEPS[k, 3:], "vector")
        place, rotation = (place + step, turn @ rotation) if frame == "l0" else (
            place + rotation @ step, rotation @ turn)
        expected = (poses["l0"] @ [*place, 1.0])[:3]
        np.testing.assert_allclose(way[k + 1], expected, atol=1e-9)
    np.testing.assert_allclose(way[now], poses["l8"][:3, 3], atol=1e-9)
    apart = np.linalg.norm(np.diff(way, axis=0), axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(STEPS[:, :3], axis=1), atol=1e-9)


def viewer() -> SimpleNamespace:
    node = SimpleNamespace(_names=SO101.joint_names, _largest_chunk=chunk_size_limit(SO101, MOST), _seen={},
                           _tool=SO101.tool, _tree=Kinematics(so101_urdf()), _tips=["tip", "base"], _followed=(1, 2))
    node._ways = partial(MarkerNode._ways, node)
    return node


def sent(node: SimpleNamespace, targets: Targets) -> None:
    chunk = ActionChunk(10 * NS, 0.1, targets, sequence=2, session=1)
    MarkerNode._take_chunk(node, serialize_message(chunk_message(ChunkMessage, ActionPart, chunk)))


def test_the_node_draws_the_tool_alone_and_greys_what_is_over():
    node, command = viewer(), dict(zip(SO101.joint_names, HOME, strict=True))
    sent(node, tool_targets(STEPS, DELTA, gripper=0.3))
    status = set_stamp(ExecutorStatus(live_chunks=1), round(10.25 * NS))
    first, second = MarkerNode._chunk_markers(node, status, command)
    assert (first.action, second.action) == (Marker.ADD, Marker.DELETE)
    points = np.array([[p.x, p.y, p.z] for p in first.points])
    np.testing.assert_allclose(points[2], so101()[1].pose(HOME)[0], atol=1e-9)
    assert [c.b > c.r for c in first.colors] == [False, False, True, True, True]
    sent(node, Targets((Part(SO101.joint_names, np.tile(HOME, (5, 1))),)))
    assert [m.action for m in MarkerNode._chunk_markers(node, status, command)] == [Marker.ADD] * 2
    node._tree = SimpleNamespace(poses=lambda positions: {"base": np.eye(4)})  # a URDF without the tool's link
    sent(node, tool_targets(STEPS, DELTA))
    assert [m.action for m in MarkerNode._chunk_markers(node, status, command)] == [Marker.DELETE] * 2


@pytest.mark.parametrize("targets", [
    tool_targets(STEPS, DELTA, frame="elsewhere"),
    Targets((Part(("x", "y"), STEPS[:, :2], DELTA, "", "base"),)),
    tool_targets(np.zeros((5, 7)), form="quaternion_xyzw"),
])  # fmt: skip
def test_a_chunk_for_another_tool_is_not_drawn(targets):
    node = viewer()
    sent(node, targets)
    assert not node._seen
    node._tool = None
    sent(node, tool_targets(STEPS, DELTA))
    assert not node._seen


def test_a_chunk_with_the_longest_form_of_a_pose_is_within_the_limit_of_bytes():
    data = np.tile(np.concatenate([np.zeros(3), np.eye(3).ravel()]), (MOST, 1))
    pose = Part(pose_names("matrix"), data, Space.END_EFFECTOR_POSE, "tip", "base")
    chunk = ActionChunk(0, 0.1, Targets((pose, Part(SO101.joint_names, np.zeros((MOST, 6))))))
    message = serialize_message(chunk_message(ChunkMessage, ActionPart, chunk))
    assert len(message) <= chunk_size_limit(SO101, MOST)


def test_the_arm_is_drawn_without_what_is_fixed_beside_it():
    node = viewer()
    node.parameters, node._discrete = SimpleNamespace(tips=()), {"gripper"}
    MarkerNode._take_tree(node, Kinematics(so101_urdf()))
    drawn = {joint.child for joint in node._drawn}
    assert "tip" in drawn and "front_camera" not in drawn and "front_camera" in node._tree.poses({})
