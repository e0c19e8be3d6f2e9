"""The executor in front of controllers on another computer, as their documentation says they behave."""

import os
import re
from array import array
from pathlib import Path

import numpy as np
import pytest
from std_msgs.msg import Float64MultiArray, String
from system.controller import Driver, TrajectoryController
from system.stage import HOME, JOINTS, ROBOT, check_trajectory
from system.support import DEADLINE
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_ros.control.limits import Limits
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import GraphError
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, profile

MS = 1_000_000
OFFSET_NS = 50 * MS
STATUS = "executor_node/status"


def trajectory(stamp: int, *points: tuple[int, float], names=("lift", "turn")) -> JointTrajectory:
    """`points`: (ms, position of all joints)."""
    message = set_stamp(JointTrajectory(joint_names=list(names)), stamp)
    for at, position in points:
        point = JointTrajectoryPoint(positions=array("d", [position] * len(names)))
        point.time_from_start.nanosec = at * MS
        message.points.append(point)
    return message


def test_the_controllers_rules():
    now = 1000 * NS
    controller = TrajectoryController(["lift", "turn"], np.zeros(2))
    for words, message in (
        ("ends in the past", trajectory(now - 20 * MS, (10, 0.1))),
        ("joints", trajectory(0, (10, 0.1), names=("turn",))),
        ("joints", trajectory(0, (10, 0.1), names=("lift", "elbow"))),
        ("empty", trajectory(0)),
        ("do not increase", trajectory(0, (10, 0.1), (10, 0.2))),
    ):
        assert not controller.take(message, now) and words in controller.rejected[-1]
    moving = trajectory(0, (10, 0.1))
    moving.points[-1].velocities = array("d", [0.0, 1.0])
    assert not controller.take(moving, now) and controller.rejected[-1] == "ends in motion"
    assert not controller.desired.any() and not controller.update(now, np.ones(2)).any()

    assert controller.take(trajectory(0, (10, 0.1), (20, 0.3)), now)
    ways = [controller.update(now + at * MS, np.zeros(2))[0] for at in (0, 5, 10, 15, 20, 99)]
    assert ways == pytest.approx([0.0, 0.05, 0.1, 0.2, 0.3, 0.3])
    assert controller.take(trajectory(now + 80 * MS, (10, 0.5), (30, 0.7)), now + 100 * MS)
    assert controller.update(now + 100 * MS, np.zeros(2)) == pytest.approx([0.6, 0.6])  # its first point is over
    partial = TrajectoryController(["lift", "turn"], np.zeros(2), partial=True)
    assert partial.take(trajectory(0, (10, 0.1), names=("turn",)), now)
    partial.update(now, np.zeros(2))
    assert partial.update(now + 10 * MS, np.zeros(2)) == pytest.approx([0.0, 0.1])


class Policy:
    """Says chunks that go to a place at a bounded speed, until the test has seen what it wants."""

    def __init__(self, graph, probe) -> None:
        self.node, self.probe, self.sequence = graph.node, probe, 0
        self.speed = np.array([1.0, 0.25, 2.5])  # rad/s and m/s
        self.chunks = probe.publisher("action_chunk", ActionChunk, COMMAND_QOS)
        self.instructions = probe.publisher("instruction", String)
        probe.record(STATUS, ExecutorStatus, STATUS_QOS)

    @property
    def status(self) -> ExecutorStatus:
        return self.probe.last(STATUS) or ExecutorStatus()

    def until(self, accept, what: str, to: np.ndarray | None = None) -> ExecutorStatus:
        """The newest status once `accept` takes it; with `to` (J,) a chunk to there, another one when that is over."""
        last = 0

        def met() -> ExecutorStatus | None:
            nonlocal last
            now = self.node.get_clock().now().nanoseconds
            if to is not None and now - last > 2200 * MS and self.status.names:
                last = now
                self._say(now, to)
            return self.status if accept(self.status) else None

        found = self.probe.graph.wait_until(met, DEADLINE)
        assert found, f"{what} did not come; the last status: {self.status}"
        return found

    def _say(self, now: int, to: np.ndarray) -> None:
        self.sequence += 1
        begin = np.array(self.status.measured)
        way = to - begin
        seconds = max(np.abs(way / self.speed).max(), 0.1)
        rows = begin + np.minimum(1.0, 0.1 * np.arange(20)[:, None] / seconds) * way
        message = set_stamp(ActionChunk(), now)
        message.step_dt, message.horizon, message.session, message.sequence = 0.1, 20, 1, self.sequence
        message.parts = [ActionPart(names=list(self.status.names), data=array("d", rows.ravel()))]
        message.instruction_id = instruction_id("go")
        self.chunks.publish(message)


def bring_up(graph, probe, robot):
    """The executor of the robot file `robot` is active; the policy that speaks to it."""
    graph.start("executor_node", parameters={"robot": str(robot), "mode": "latest", "joint_state_timeout": 10.0,
                                             "overrun_limit": 10.0, "jump_limit": 5.0,
                                             "resume": "automatic"})  # fmt: skip
    graph.configure("executor_node")
    policy = Policy(graph, probe)
    policy.until(lambda s: s.names and np.isfinite(s.measured).all(), "joint states")
    graph.activate("executor_node")
    return policy


def test_controllers_on_a_computer_with_another_clock(graph, probe):
    robot = Path(graph.folder) / "robot.yaml"
    robot.write_text(ROBOT.replace(", stamp: now", ""))
    limits = Limits.merge(RobotSpec.load(robot))
    driver = Driver(graph.domain, ["lift", "turn"], ["grip"], dict(zip(JOINTS, HOME.tolist(), strict=True)))
    heard = []
    try:
        policy = bring_up(graph, probe, robot)
        words = "nobody subscribes to /arm/command, expected the controller of arm"
        policy.until(lambda s: words in s.message and "/hand/command" in s.message, words)
        driver.listen()
        graph.node.create_subscription(JointTrajectory, "arm/command", heard.append, profile(1000, reliable=True))
        policy.instructions.publish(String(data="go"))
        policy.until(lambda s: s.instruction == "go" and "nobody" not in s.message, "controllers and an instruction")

        for offset, place in ((OFFSET_NS, [0.8, 0.3, 0.9]), (-OFFSET_NS, [-0.5, 0.1, 0.2])):
            driver.offset_ns = offset
            there = lambda s, place=place: np.allclose(s.measured, place, atol=0.01)  # noqa: E731
            policy.until(there, f"{place} with a clock {offset} ns ahead", to=np.array(place))
        assert driver.controller.accepted and not driver.controller.rejected

        driver.active = False  # a controller that ignores what comes; what it took before brakes past the place
        assert graph.wait_until(lambda: driver.at_rest, DEADLINE)
        before = dict(driver.measured)
        policy.speed *= 0.5
        words, cause = "the controller does not follow: joint ", ExecutorStatus.CAUSE_FOLLOWING_ERROR
        status = policy.until(lambda s: s.cause == cause and words in s.message, words, to=HOME + [0.8, 0.1, 0])
        assert status.state == ExecutorStatus.STOPPED and " commanded " in status.message
        policy.until(lambda s: not np.any(s.velocity), "a command at rest")
        assert driver.measured == pytest.approx(before, abs=0.02)

        driver.commanded.clear()
        driver.active = True  # and listens again: it comes there at a speed that the limits allow
        policy.until(lambda s: s.state == ExecutorStatus.HOLDING, "the way back")
        policy.until(lambda s: s.state == ExecutorStatus.EXECUTING, "EXECUTING again", to=HOME)
    finally:
        driver.close()
    assert not any(stamp_ns(message) for message in heard) and max(len(message.points) for message in heard) > 3
    for message in heard:
        check_trajectory(limits, message)
    given = np.array(driver.commanded)
    order = [limits.names.index(name) for name in driver.controller.joints]
    assert (given >= limits.lower[order] - 1e-9).all() and (given <= limits.upper[order] + 1e-9).all()


def test_a_driver_whose_joints_have_other_names(graph, probe):
    """Those of the robot file have a prefix, as two arms with drivers of one kind need it."""
    robot = Path(graph.folder) / "robot.yaml"
    text = re.sub(r"\b(turn|lift|grip)\b", r"far_\1", ROBOT).replace("interface:", "prefix: far_, interface:")
    robot.write_text(f"{text}joint_prefix: far_\n")
    driver = Driver(graph.domain, ["lift", "turn"], ["grip"], dict(zip(JOINTS, HOME.tolist(), strict=True)))
    try:
        policy = bring_up(graph, probe, robot)
        driver.listen()
        policy.instructions.publish(String(data="go"))
        place = np.array([0.8, 0.3, 0.9])
        status = policy.until(lambda s: np.allclose(s.measured, place, atol=0.01), "the place", to=place)
        assert status.names == ["far_turn", "far_lift", "far_grip"] and not driver.controller.rejected
    finally:
        driver.close()


def test_a_topic_of_another_type_is_named(graph, probe):
    """A typo in the robot file: the controller listens to another type of message."""
    robot = Path(graph.folder) / "robot.yaml"
    robot.write_text(ROBOT)
    driver = Driver(graph.domain, ["lift", "turn"], ["grip"], dict(zip(JOINTS, HOME.tolist(), strict=True)))
    driver.node.create_subscription(Float64MultiArray, "arm/command", lambda m: None, 1)
    graph.start("executor_node", parameters={"robot": str(robot), "joint_state_timeout": 10.0})
    try:
        graph.configure("executor_node")
        policy = Policy(graph, probe)
        policy.until(lambda s: s.names and np.isfinite(s.measured).all(), "joint states")
        graph.activate("executor_node")
        policy.until(lambda s: "/arm/command as std_msgs/msg/Float64MultiArray" in s.message, "the type")
    finally:
        driver.close()


ACTIONS_ROBOT = ROBOT[: ROBOT.index("groups:")] + """groups:
  - {name: arm, action: arm/follow, interface: follow_joint_trajectory, joints: [lift, turn]}
  - {name: hand, action: hand/grip, interface: gripper_command, joints: [grip], max_effort: 5.0}
"""


def test_actions_without_their_package_are_refused(graph):
    empty = Path(graph.folder) / "control_msgs"  # in the place of the installed one
    empty.mkdir()
    (empty / "__init__.py").touch()
    robot = Path(graph.folder) / "robot.yaml"
    robot.write_text(ACTIONS_ROBOT)
    path = os.pathsep.join([str(graph.folder), os.environ["PYTHONPATH"]])
    graph.start("executor_node", parameters={"robot": str(robot)}, environment={"PYTHONPATH": path})
    with pytest.raises(GraphError, match="interface follow_joint_trajectory: package control_msgs is not installed"):
        graph.configure("executor_node")


INTERFACE = {"GripperCommand": "gripper_command", "ParallelGripperCommand": "parallel_gripper_command"}


@pytest.mark.parametrize("gripper", INTERFACE)
def test_robots_that_offer_actions_alone(gripper, graph, probe):
    robot = Path(graph.folder) / "robot.yaml"
    robot.write_text(ACTIONS_ROBOT.replace("gripper_command", INTERFACE[gripper]))
    limits = Limits.merge(RobotSpec.load(robot))
    driver = Driver(graph.domain, ["lift", "turn"], ["grip"], dict(zip(JOINTS, HOME.tolist(), strict=True)))
    try:
        policy = bring_up(graph, probe, robot)
        words = "nobody offers arm/follow, expected the controller of arm; nobody offers hand/grip"
        policy.until(lambda s: words in s.message, words)
        driver.offer(gripper)
        policy.instructions.publish(String(data="go"))
        policy.until(lambda s: s.instruction == "go" and "nobody" not in s.message, "the actions and an instruction")

        place = np.array([0.8, 0.3, 0.9])
        policy.until(lambda s: np.allclose(s.measured, place, atol=0.01), "the place", to=place)
        assert not driver.controller.rejected and driver.gripped[-1] == (pytest.approx(0.9, abs=1e-3), 5.0)
        policy.until(lambda s: s.state == ExecutorStatus.HOLDING, "HOLDING")
        ticks, goals = policy.status.ticks, len(driver.gripped)
        policy.until(lambda s: s.ticks > ticks + 20, "more ticks")
        assert len(driver.gripped) == goals  # the same target is no reason for another goal

        driver.answer = "abort"
        words = "the action hand/grip aborted a goal of hand"
        policy.until(lambda s: words in s.message, words, to=place - [0, 0, 0.3])
        driver.answer = "reject"
        for words in ("the action arm/follow rejected a goal of arm", "the controller does not follow: joint "):
            policy.until(lambda s, words=words: words in s.message, words, to=HOME)
        driver.answer = ""
        policy.until(lambda s: np.allclose(s.measured, HOME, atol=0.02), "HOME", to=HOME)
    finally:
        driver.close()
    given = np.array(driver.commanded)
    order = [limits.names.index(name) for name in driver.controller.joints]
    assert (given >= limits.lower[order] - 1e-9).all() and (given <= limits.upper[order] + 1e-9).all()
