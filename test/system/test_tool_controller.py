"""The executor in front of a controller that moves the tool itself: a Cartesian one, and one that takes twists."""

import numpy as np
from control.tool_robots import pose_row, tool_targets
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from system.cartesian import PERIOD_NS, TARGET, CartesianStage, lengths, velocities

from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.rotations import to_matrix
from vla_ros.messages.stamps import NS
from vla_ros.msg import ExecutorStatus


def poses(place, rotation, rows: int = 20, gripper: float | None = None) -> Targets:
    return tool_targets([pose_row(place, rotation)] * rows, frame="l0", gripper=gripper)


def drive(stage: CartesianStage) -> None:
    """To a pose, a difference, and onto an e-stop, with what a controller of poses or of twists does about it."""
    start, rotation = stage.place()
    assert stage.status.names[:3] == ["x", "y", "z"] and stage.status.names[6] == "gripper"
    status = stage.send(Targets((Part(("j2",), np.zeros((5, 1))),)))
    said = "names: joints ['j2'], which the robot file commands by the pose of its tool, expected END_EFFECTOR_POSE"
    assert status.last_refusal.startswith(said)

    wanted, turned = start + [0.05, -0.06, 0.04], to_matrix(np.array([0.0, 0.2, 0.1]), "vector") @ rotation
    assert stage.send(poses(wanted, turned, gripper=0.9)).accepted_chunks == 1, stage.status.last_refusal
    stage.tick(150)
    place, end = stage.place()
    assert np.linalg.norm(place - wanted) < 0.003 and np.linalg.norm(stage.arm.turn(end, turned)) < 0.01
    assert stage.joints[7] == 0.9
    stage.wait(lambda s: s.state == ExecutorStatus.EXECUTING, "EXECUTING")
    stage.tick(60)  # the chunk is over
    stage.wait(lambda s: s.state == ExecutorStatus.HOLDING, "HOLDING")

    rows = np.array([[0.0, 0.0, -0.03, 0.0, 0.0, 0.0]] + [[0.0] * 6] * 14)  # along the tool's own axis
    before, turned = stage.place()
    assert stage.send(tool_targets(rows, Space.END_EFFECTOR_DELTA, "l8")).accepted_chunks == 2
    stage.tick(130)
    assert np.linalg.norm(stage.place()[0] - before - turned @ [0.0, 0.0, -0.03]) < 0.003

    assert stage.send(poses(stage.place()[0] + [0.0, 0.15, 0.0], stage.place()[1])).accepted_chunks == 3
    stage.tick(30)
    stage.e_stop.publish(Bool(data=True))
    stage.wait(lambda s: s.state == ExecutorStatus.E_STOPPED, "E_STOPPED")
    stage.tick(60)
    assert not stage.refused
    stamps = np.array([stamp for stamp, _ in stage.heard])
    assert (np.diff(stamps) == PERIOD_NS).all()  # one for every control period, and no other
    assert len(stage.probe.messages(TARGET)) == len(stage.heard)
    assert stage.send(poses(*stage.place())).last_refusal.startswith("e_stopped: ")


def check(stage: CartesianStage, speeds: np.ndarray) -> None:
    """(K, 6) m/s and rad/s, a control period apart: within the tool's limits; at the end they brake, then hold."""
    tool, dt = stage.tool, PERIOD_NS / NS
    assert (lengths(speeds) <= np.array([tool.velocity, tool.rotation_velocity]) * 1.001).all()
    changes = lengths(np.diff(speeds, axis=0))
    assert (changes <= np.array([tool.acceleration, tool.rotation_acceleration]) * dt * 1.01 + 1e-6).all()
    last = lengths(speeds)[-60:, 0]
    assert last[0] > 0.15 and (np.diff(last) <= 1e-9).all() and not last[20:].round(9).any()


def test_a_controller_of_poses(graph, probe):
    stage = CartesianStage(graph, probe, "pose_stamped")
    stage.activate()
    place, rotation = stage.place()
    first = stage.heard[0][1]
    np.testing.assert_allclose(first[:3], place, atol=1e-9)  # it begins where it was measured
    np.testing.assert_allclose(to_matrix(first[3:], "quaternion_xyzw"), rotation, atol=1e-9)
    drive(stage)
    check(stage, velocities(stage.heard, stage.arm))


def test_a_controller_of_twists(graph, probe):
    stage = CartesianStage(graph, probe, "twist_stamped")
    stage.activate()
    assert not stage.heard[0][1].any()
    drive(stage)
    check(stage, np.array([values for _, values in stage.heard]))

    graph.call(graph.node.create_client(Trigger, "executor_node/reset_e_stop"), Trigger.Request())
    stage.wait(lambda s: s.state == ExecutorStatus.HOLDING, "HOLDING after the reset")
    assert stage.send(poses(stage.place()[0] + [0.0, -0.1, 0.0], stage.place()[1])).accepted_chunks == 4
    stage.tick(25)
    assert np.linalg.norm(stage.heard[-1][1]) > 0.1
    graph.deactivate("executor_node")  # simulated time stands still: it stops at once
    probe.wait_for(lambda: not _twist(probe.last(TARGET)).any(), "a last twist of zero")


def test_a_driver_that_says_the_pose_itself(graph, probe):
    stage = CartesianStage(graph, probe, "pose_stamped", pose_topic="tool_pose")
    stage.activate()
    start, rotation = stage.place()
    assert stage.send(poses(start + [0.03, -0.03, 0.02], rotation)).accepted_chunks == 1, stage.status.last_refusal
    stage.tick(100)
    assert np.linalg.norm(stage.place()[0] - start - [0.03, -0.03, 0.02]) < 0.003
    stage.told = False
    stage.tick(40)
    status = stage.wait(lambda s: s.cause == ExecutorStatus.CAUSE_STALE_JOINT_STATES, "STALE_JOINT_STATES")
    assert status.state == ExecutorStatus.STOPPED and "joints x, y, z, turned_x" in status.message


def _twist(message) -> np.ndarray:
    twist = message.twist
    return np.array([getattr(part, axis) for part in (twist.linear, twist.angular) for axis in "xyz"])
