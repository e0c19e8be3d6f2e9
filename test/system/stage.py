"""A stage for the executor: the test is its robot, its policy, its operator and its clock.

Simulated time moves only when the test says so, and only after the command for the instant before has arrived,
so nothing here depends on how fast any process is.
"""

import time
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from system.support import Probe
from trajectory_msgs.msg import JointTrajectory

from vla_ros.control.limits import Limits
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

ROBOT = """
name: stage
control_rate: 50.0
position_margin: 0.01
cameras: []
joints:
  - {name: turn, lower: -1.5, upper: 1.5, velocity: 2.0, acceleration: 10.0}
  - {name: lift, lower: 0.0, upper: 0.4, velocity: 0.5, acceleration: 4.0, unit: m}
  - {name: grip, lower: 0.0, upper: 1.0, velocity: 5.0, acceleration: 50.0, discrete: true}
groups:
  - {name: arm, topic: arm/command, interface: joint_trajectory, joints: [lift, turn], stamp: now}
  - {name: hand, topic: hand/command, interface: float64_multi_array, joints: [grip]}
"""
JOINTS = ("turn", "lift", "grip")
HOME = np.array([0.0, 0.2, 0.5])
PERIOD_NS = 20_000_000
START_NS = 1_000_000_000_000


class Stage:
    """One executor in lockstep with the test.

    Attributes:
        now_ns: simulated time.
        measured: (J,) what the joint states say; follows the commands unless `stuck` is set.
        commands: [(stamp_ns, (J,) position)] everything that was published, in order.
    """

    def __init__(
        self,
        graph: Graph,
        probe: Probe,
        *,
        name: str = "executor_node",
        clock_qos: object = COMMAND_QOS,
        **parameters: object,
    ) -> None:
        self.graph, self.probe, self.name = graph, probe, name
        self.robot_file = Path(graph.folder) / "stage_robot.yaml"
        self.robot_file.write_text(ROBOT)
        self.limits = Limits.merge(RobotSpec.load(self.robot_file))
        self.now_ns, self.measured, self.stuck = START_NS, HOME.copy(), False
        self.session, self.sequence, self.instruction = 7, 0, ""
        self.commands: list[tuple[int, np.ndarray]] = []
        self.parameters = {"robot": str(self.robot_file), "use_sim_time": True, "reliable_sensors": True, **parameters}
        probe.record("arm/command", JointTrajectory)
        probe.record("hand/command", Float64MultiArray)
        probe.record(f"{name}/status", ExecutorStatus, STATUS_QOS)
        graph.start(name, "vla_ros.nodes.executor_node", parameters=self.parameters)
        graph.configure(name)
        if self.parameters["use_sim_time"]:
            self.clock = probe.publisher(
                "/clock", Clock, clock_qos, readers=2
            )  # the node's own time source, and its ticks
        self.joints = probe.publisher("joint_states", JointState)
        self.chunks = probe.publisher("action_chunk", ActionChunk, COMMAND_QOS)
        self.instructions = probe.publisher("instruction", String)
        self.e_stop = probe.publisher("e_stop", Bool)

    # What the executor sees

    def publish_joints(self, **change: object) -> None:
        """The joint states of now; `change`: names, position, stamp_ns."""
        message = set_stamp(JointState(), int(change.get("stamp_ns", self.now_ns)))
        message.name = list(change.get("names", JOINTS))
        message.position = array("d", change.get("position", self.measured))
        self.joints.publish(message)

    def publish_clock(self) -> None:
        message = Clock()
        set_stamp(message.clock, self.now_ns)
        self.clock.publish(message)

    def say(self, text: str) -> None:
        """The operator's instruction, taken in by the executor."""
        self.instruction = text
        self.instructions.publish(String(data=text))
        wanted = instruction_id(text)
        self.wait_status(lambda status: status.instruction_id == wanted, f"instruction {text[:40]!r} in the status")

    def chunk(self, rows: np.ndarray, step_dt: float = 0.1, age: float = 0.0, **change: object) -> ActionChunk:
        """A chunk message for (H, J) rows observed `age` s ago; `change` overwrites fields, of its part too."""
        self.sequence += 1
        message = set_stamp(ActionChunk(), self.now_ns - round(age * 1e9))
        rows = np.asarray(rows, dtype=np.float64)
        message.step_dt, message.horizon = step_dt, len(rows)
        message.parts = [ActionPart(names=list(JOINTS), data=array("d", rows.ravel()))]
        message.instruction_id = instruction_id(self.instruction)
        message.session, message.sequence = self.session, self.sequence
        for field, value in change.items():
            setattr(message if hasattr(message, field) else message.parts[0], field, value)
        return message

    def send(self, message: ActionChunk | bytes) -> ExecutorStatus:
        """Publishes a chunk and gives the status that answers it."""
        before = self.answered()
        self.chunks.publish(message)
        return self.wait_status(lambda status: self.answered(status) > before, "the answer to a chunk")

    # What a peer sees

    @property
    def status(self) -> ExecutorStatus | None:
        return self.probe.last(f"{self.name}/status")

    def answered(self, status: ExecutorStatus | None = None) -> int:
        """Chunks accepted and refused so far."""
        status = status or self.status
        return status.accepted_chunks + status.refused_chunks if status else 0

    def wait_status(self, accept, what: str) -> ExecutorStatus:
        """The newest status, once `accept` takes it."""
        self.probe.wait_for(lambda: self.status is not None and accept(self.status), what)
        return self.status

    def introduce(self) -> None:
        """The executor knows time and joints; said again until it does, whichever reader was discovered when."""
        said = 0.0

        def known() -> bool:
            nonlocal said
            status = self.status
            if status and stamp_ns(status) == self.now_ns and list(status.measured) == list(self.measured):
                return True
            if time.monotonic() - said > 0.5:
                said = time.monotonic()
                self.publish_clock()
                self.publish_joints()
            return False

        self.probe.wait_for(known, "clock and joint states in the status")

    def activate(self) -> None:
        """From known time and joints; the first command arrives at once."""
        self.introduce()
        self.graph.activate(self.name)
        self._take_command()

    def tick(self, count: int = 1, commands: bool = True, joints: bool = True) -> None:
        """Control periods: joint states, clock, and the command for that instant."""
        for _ in range(count):
            self.now_ns += PERIOD_NS
            if joints:
                self.publish_joints()
            self.publish_clock()
            if commands:
                self._take_command()

    def _take_command(self) -> None:
        topic, other = "arm/command", "hand/command"
        arm = self.probe.wait_message(
            topic, lambda message: stamp_ns(message) == self.now_ns, f"the arm's command for {self.now_ns}"
        )
        # a Float64MultiArray has no time: there is one for every command of the arm
        index = next(i for i, message in enumerate(self.probe.messages(topic)) if message is arm)
        self.probe.wait_for(lambda: len(self.probe.messages(other)) > index, "the hand's command")
        hand = self.probe.messages(other)[index]
        assert arm.joint_names == ["lift", "turn"]
        check_trajectory(self.limits, arm)
        lift, turn = arm.points[0].positions
        position = np.array([turn, lift, hand.data[0]])
        self.commands.append((self.now_ns, position))
        if not self.stuck:
            self.measured = position

    @property
    def positions(self) -> np.ndarray:
        """(K, J) every command so far."""
        return np.array([position for _, position in self.commands])

    def check_limits(self) -> None:
        """Every command published so far was inside every limit; nothing was published besides."""
        assert len(self.probe.messages("arm/command")) == len(self.commands)
        assert len(self.probe.messages("hand/command")) == len(self.commands)
        check_limits(self.limits, self.positions, [stamp for stamp, _ in self.commands])


def check_trajectory(limits: Limits, arm: JointTrajectory, horizon: float = 1.0) -> None:
    """It begins a period ahead and goes on with braking, inside the limits; there it ends or, stamped, waits."""
    points = arm.points
    times = [point.time_from_start.sec * NS + point.time_from_start.nanosec for point in points]
    assert times[0] >= PERIOD_NS and not any(len(point.velocities) for point in points)
    order = [limits.names.index(name) for name in arm.joint_names]
    path = np.array([point.positions for point in points])
    assert ((path >= limits.lower[order] - 1e-9) & (path <= limits.upper[order] + 1e-9)).all()
    if stamp_ns(arm) and len(points) > 1:
        assert times[-1] >= round(horizon * NS) - PERIOD_NS
        if times[-1] - times[-2] != PERIOD_NS:
            assert (path[-1] == path[-2]).all()
            times, path = times[:-1], path[:-1]
    assert (np.diff(times) == PERIOD_NS).all()
    dt = PERIOD_NS * 1e-9
    speed = np.diff(path, axis=0) / dt
    slower = np.abs(np.diff(speed, axis=0)) / dt
    assert (np.abs(speed) <= limits.velocity[order] * (1 + 1e-6)).all()
    assert (slower <= limits.acceleration[order] * (1 + 1e-6) + 1e-9 / dt).all()
    assert (np.diff(np.abs(speed), axis=0) <= 1e-9).all() and (speed[1:] * speed[:-1] >= 0).all()


def check_limits(
    limits: Limits, positions: np.ndarray, stamps_ns: Sequence[int], start: np.ndarray = HOME, leap: float = 1.0
) -> None:
    """(K, J) commands that begin at rest at `start`: finite and, by their stamps, inside every limit.

    Where the clock leapt, back or by more than `leap` s, they count as one period apart.
    """
    assert np.isfinite(positions).all()
    assert (positions >= limits.lower - 1e-9).all() and (positions <= limits.upper + 1e-9).all()
    gaps, dt = np.diff(stamps_ns) * 1e-9, PERIOD_NS * 1e-9
    gaps = np.concatenate([[dt, dt], np.where((gaps > 0) & (gaps < leap), gaps, dt)])[:, None]
    velocity = np.diff(np.concatenate([[start, start], positions]), axis=0) / gaps[: len(positions) + 1]
    assert (np.abs(velocity) <= limits.velocity * (1 + 1e-6)).all()
    acceleration = np.diff(velocity, axis=0) / ((gaps[1:] + gaps[:-1]) / 2)
    assert (np.abs(acceleration) <= limits.acceleration * (1 + 1e-6)).all()
