"""A robot with an arm and a base on the graph: the peer is its wheels, its odometry and its policy."""

import math
from array import array
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from system.support import Probe

from vla_ros.core.instruction import instruction_id
from vla_ros.graph.processes import Graph
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

ROBOT = """
name: cart
control_rate: 50.0
cameras: []
joints:
  - {name: turn, lower: -1.5, upper: 1.5, velocity: 2.0, acceleration: 10.0}
  - {name: x.vel, unit: m/s, velocity: 0.5, acceleration: 1.0}
  - {name: theta.vel, unit: rad/s, velocity: 1.5, acceleration: 6.0}
groups:
  - {name: arm, topic: arm/command, interface: joint_state, joints: [turn]}
  - {name: base, topic: cmd_vel, interface: base_twist_stamped, joints: [theta.vel, x.vel], axes: [yaw, x],
     odometry: odom}
"""
LIMITS = np.array([[0.5, 1.0], [1.5, 6.0]])  # of x and yaw: speed and acceleration
ROW = [0.0, 0.4, 1.0]
NAMES = ["turn", "x.vel", "theta.vel"]


class Cart:
    """An executor, and the base that it drives: twists are integrated to odometry.

    Attributes:
        pose: (3,) m, m, rad where the base is; speed: (2,) m/s and rad/s, what it was told last.
    """

    def __init__(self, graph: Graph, probe: Probe, robot: str = ROBOT, **parameters: object) -> None:
        self.graph, self.probe, self.pose, self.speed = graph, probe, np.zeros(3), np.zeros(2)
        self.turn, self.sequence, self.simulated_ns, self.told_ns = 0.0, 0, 0, 0
        self.file = file = Path(graph.folder) / "cart.yaml"
        file.write_text(robot)
        probe.record("cmd_vel", TwistStamped)
        probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
        graph.node.create_subscription(TwistStamped, "cmd_vel", self._drive, COMMAND_QOS)
        graph.node.create_subscription(JointState, "arm/command", self._move, COMMAND_QOS)
        graph.start("executor_node", parameters={
            "robot": str(file), "mode": "latest", "joint_state_timeout": 5.0, "overrun_limit": 1.0,
            "resume": "automatic", "following_limit": 0.0, "reliable_sensors": True, **parameters,
        })  # fmt: skip
        graph.configure("executor_node")
        self.joints, self.odometry = probe.publisher("joint_states", JointState), probe.publisher("odom", Odometry)
        self.chunks = probe.publisher("action_chunk", ActionChunk, COMMAND_QOS)
        self.e_stop = probe.publisher("e_stop", Bool)
        probe.publisher("instruction", String).publish(String(data="go"))
        self.wait(lambda status: status.instruction == "go", "the instruction")

    def _drive(self, message: TwistStamped) -> None:
        """As it was told, until it is told something else: by the commands' times, however late they are read."""
        (x, yaw), at_ns = self.speed, stamp_ns(message)
        passed, self.told_ns = (at_ns - (self.told_ns or at_ns)) / NS, at_ns
        self.pose += np.array([x * math.cos(self.pose[2]), x * math.sin(self.pose[2]), yaw]) * passed
        self.speed = np.array([message.twist.linear.x, message.twist.angular.z])

    def _move(self, message: JointState) -> None:
        self.turn = message.position[0]

    @property
    def now_ns(self) -> int:
        return self.simulated_ns or self.graph.node.get_clock().now().nanoseconds

    def step(self) -> None:
        """What the base's driver says of it."""
        x, yaw = self.speed
        message = set_stamp(Odometry(child_frame_id="base_link"), self.now_ns)
        message.twist.twist.linear.x, message.twist.twist.angular.z = float(x), float(yaw)
        message.pose.pose.position.x, message.pose.pose.position.y = self.pose[:2].tolist()
        turned = message.pose.pose.orientation
        turned.z, turned.w = math.sin(self.pose[2] / 2), math.cos(self.pose[2] / 2)
        self.odometry.publish(message)
        joints = set_stamp(JointState(name=["turn"]), self.now_ns)
        joints.position = array("d", [self.turn])
        self.joints.publish(joints)

    def wait(self, accept, what: str) -> ExecutorStatus:
        def said() -> ExecutorStatus | None:
            status = self.probe.last("executor_node/status")
            return status if status is not None and accept(status) else None

        return self.probe.wait_for(said, what)

    def drive(self, rows: int, path: np.ndarray | None = None) -> None:
        """A chunk of a tenth of a second a row, at once taken; `path`: (rows, 3) in place of velocities."""
        self.sequence += 1
        message = set_stamp(ActionChunk(), self.now_ns)
        message.step_dt, message.horizon, message.session, message.sequence = 0.1, rows, 7, self.sequence
        message.parts = [ActionPart(names=NAMES, data=array("d", ROW * rows))]
        if path is not None:
            data = array("d", path.ravel())
            message.parts = [ActionPart(space=4, names=["x", "y", "yaw"], frame_id="base_link", data=data)]
        message.instruction_id = instruction_id("go")
        self.chunks.publish(message)
        self.wait(lambda status: status.accepted_chunks == self.sequence, "an accepted chunk")

    def said(self) -> tuple[np.ndarray, np.ndarray]:
        """(K,) s since the first and (K, 2) velocities of the twists so far."""
        twists = self.probe.messages("cmd_vel")
        speeds = [[message.twist.linear.x, message.twist.angular.z] for message in twists]
        stamps = np.array([stamp_ns(message) for message in twists])
        return (stamps - stamps[:1]) * 1e-9, np.array(speeds)

    def at_speed(self) -> None:
        self.probe.wait_for(lambda: self.speed.tolist() == ROW[1:], f"a base at full speed, it drives {self.speed}")

    def is_led(self, message: JointState) -> None:
        """A person takes over, drives, falls silent and gives back."""
        node, names = self.graph.node, list(message.name)
        source = self.probe.publisher("executor_node/takeover/joint_command", JointState)
        client = node.create_client(SetBool, "executor_node/take_over")
        saying = node.create_timer(0.02, lambda: source.publish(message))
        self.probe.wait_for(lambda: self.graph.call(client, SetBool.Request(data=True)).success, "the takeover")
        told = [message.position[names.index(name)] for name in NAMES[1:]]
        self.probe.wait_for(lambda: self.speed.tolist() == told, f"a base as it is led, it drives {self.speed}")
        saying.cancel()
        self.wait(lambda status: status.cause == ExecutorStatus.CAUSE_TAKEOVER_PAUSED, "a driver who fell silent")
        self.stands()
        assert self.graph.call(client, SetBool.Request(data=False)).success

    def stands(self) -> None:
        """Zero is said, and said again."""
        self.probe.wait_for(lambda: len(rows := self.said()[1]) > 15 and not rows[-15:].any(), "a base that stands")


def test_the_base_stands_whenever_it_is_not_driven(graph, probe):
    cart = Cart(graph, probe, takeover_timeout=3.0)
    timer = graph.node.create_timer(0.02, cart.step)
    cart.wait(lambda status: np.isfinite(status.measured).all(), "odometry and joint states")
    graph.activate("executor_node")
    cart.stands()

    cart.drive(15)
    cart.at_speed()  # and then no policy says anything more
    cart.stands()
    cart.wait(lambda status: status.state == ExecutorStatus.HOLDING, "HOLDING")
    assert cart.pose[0] > 0.1 and cart.pose[2] > 0.3

    cart.drive(300)
    cart.at_speed()
    cart.e_stop.publish(Bool(data=True))
    cart.stands()
    assert probe.last("executor_node/status").state == ExecutorStatus.E_STOPPED
    assert graph.call(graph.node.create_client(Trigger, "executor_node/reset_e_stop"), Trigger.Request()).success

    cart.is_led(JointState(name=["theta.vel", "x.vel"], position=array("d", [-0.5, 0.3])))

    start, t = cart.pose.copy(), 0.1 * np.arange(1, 21)[:, None]
    graph.start("marker_node", parameters={"robot": str(cart.file)})
    probe.record("marker_node/base_path", PathMessage)
    graph.bring_up("marker_node")
    cart.drive(20, t * [[0.3, 0.0, 0.0]])
    shown = probe.wait_for(lambda: probe.last("marker_node/base_path"), "the path for a viewer")
    assert (shown.header.frame_id, len(shown.poses)) == ("base_link", 21)
    assert shown.poses[-1].pose.position.x == pytest.approx(0.6)
    cart.stands()
    way = cart.pose[:2] - start[:2]
    along = way @ [math.cos(start[2]), math.sin(start[2])]
    # Forwards; how far exactly depends here on how late odometry comes (test/control/test_base_path.py).
    assert along > 0.2 and abs(way @ [-math.sin(start[2]), math.cos(start[2])]) < 0.15

    cart.drive(300)
    cart.at_speed()
    graph.deactivate("executor_node")
    probe.wait_for(lambda: not cart.speed.any(), "zero, after which there is silence")
    stamps, speeds = cart.said()
    changes = np.abs(np.diff(speeds, axis=0)) - LIMITS[:, 1] * np.diff(stamps)[:, None]
    assert (np.abs(speeds) <= LIMITS[:, 0]).all() and changes.max() <= 1e-6
    timer.cancel()


def test_in_simulated_time_the_last_word_is_zero_too(graph, probe):
    """The clock stands still during a deactivation, so nothing can brake."""
    cart = Cart(graph, probe, use_sim_time=True)
    clock = probe.publisher("/clock", Clock, COMMAND_QOS, readers=2)
    cart.simulated_ns = 1000 * NS

    def tick() -> None:
        cart.step()
        message = Clock()
        set_stamp(message.clock, cart.simulated_ns)
        clock.publish(message)

    def known() -> bool:
        tick()
        status = probe.last("executor_node/status")
        return stamp_ns(status) == cart.simulated_ns and np.isfinite(status.measured).all()

    probe.wait_for(known, "time, odometry and joint states")
    graph.activate("executor_node")
    cart.drive(100)
    for _ in range(40):
        cart.simulated_ns += NS // 50
        tick()
        probe.wait_message("cmd_vel", lambda message: stamp_ns(message) == cart.simulated_ns, "a twist")
    assert cart.said()[1][-1] == pytest.approx(ROW[1:])
    graph.deactivate("executor_node")
    probe.wait_for(lambda: not cart.said()[1][-1].any(), "zero")
