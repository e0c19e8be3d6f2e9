"""Faults tried for real: what a peer on the graph sees of each, and that every command stays inside the limits."""

import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from system.stage import HOME, JOINTS, PERIOD_NS, Stage, check_limits
from trajectory_msgs.msg import JointTrajectory

from vla_ros.graph.processes import GraphError
from vla_ros.messages.stamps import NS, stamp_ns
from vla_ros.msg import ExecutorStatus

HOLDING, STOPPED, EXECUTING = ExecutorStatus.HOLDING, ExecutorStatus.STOPPED, ExecutorStatus.EXECUTING


def plan(start: np.ndarray, rows: int = 30, speed: float = 0.2) -> np.ndarray:
    """(H, J) rows, 0.1 s apart, that turn away from `start` towards the middle."""
    way = -1.0 if start[0] > 0.5 else 1.0
    return start + np.arange(rows)[:, None] * 0.1 * np.array([way * speed, 0.0, 0.0])


def follow(stage: Stage) -> None:
    """A chunk from where the robot is, followed."""
    stage.send(stage.chunk(plan(stage.measured)))
    stage.tick(15)
    stage.wait_status(lambda s: s.state == EXECUTING, "EXECUTING")


def seen(stage: Stage, cause: int, words: str = "") -> ExecutorStatus:
    """The status that names the cause; it was published with the command that reacts to it."""
    return stage.wait_status(lambda s: s.cause == cause and words in s.message, f"cause {cause} {words!r}")


def test_joint_states_instructions_clock_and_a_policy_that_goes_to_and_fro(graph, probe):
    stage = Stage(graph, probe, monitor_window=1.0, reversal_limit=3.5, on_reversals="hold")
    stage.activate()
    stage.say("go")

    follow(stage)  # stopped
    stage.tick(20, joints=False)
    status = seen(stage, ExecutorStatus.CAUSE_STALE_JOINT_STATES, "turn")
    assert status.state == STOPPED
    assert np.array_equal(stage.positions[-1], stage.positions[-2])
    stage.tick(2)
    seen(stage, ExecutorStatus.CAUSE_NO_CHUNK)  # fresh again, but nothing moves without a new chunk
    assert np.array_equal(stage.positions[-1], stage.positions[-3])

    follow(stage)  # reordered: old measurements arrive again, joints in another order
    for _ in range(20):
        stage.publish_joints(names=JOINTS[::-1], position=stage.measured[::-1])
        stage.publish_joints(stamp_ns=stage.now_ns - 200_000_000, position=HOME + 0.3)
        stage.tick()
    stage.wait_status(lambda s: s.ticks == len(stage.commands), "all ticks")
    assert stage.status.state == EXECUTING

    for change, words in (
        ({"names": ["turn", "lift"], "position": [0.0, 0.2]}, "grip"),
        ({"position": [float("nan"), 0.2, 0.5]}, "turn"),
        ({"position": [0.0]}, "lift"),
        ({"stamp_ns": stage.now_ns + 3600 * 10**9}, "turn"),
    ):
        follow(stage)
        for _ in range(20):
            stage.publish_joints(**change)
            stage.tick(joints=False)
        assert seen(stage, ExecutorStatus.CAUSE_STALE_JOINT_STATES, words).state == STOPPED
        stage.tick()
    assert "undecodable" in stage.status.refusal_reasons  # three names and one position

    follow(stage)  # too long to be honest: neither an instruction nor joint states
    refused = stage.status.refused_chunks
    for _ in range(5):
        stage.publish_joints(names=[f"joint{i}" for i in range(10_000)], position=[9.0] * 10_000)
        stage.tick()
    for text in ("x" * 100_000, "x" * 10_001):
        stage.instructions.publish(String(data=text))
        stage.tick()
    status = stage.wait_status(lambda s: s.refused_chunks == refused + 7, "the refusals of seven messages")
    assert status.last_refusal == "size: instruction: 10001 bytes, limit 10000"
    assert (status.instruction, status.state) == ("go", EXECUTING)
    for text in ("x" * 10_000, "nimm den roten Würfel 🟥", ""):
        stage.say(text)
        stage.tick(10)
    assert seen(stage, ExecutorStatus.CAUSE_NO_INSTRUCTION).state == HOLDING
    stage.say("go")
    follow(stage)
    for i in range(300):  # a flood: the last one counts
        stage.instructions.publish(String(data=f"flood {i}"))
        if i % 10 == 9:
            stage.wait_status(lambda s, i=i: s.instruction == f"flood {i}", "the tenth instruction")
            stage.tick()
    stage.say("go")
    follow(stage)

    for clock in (Time(sec=-1), Time(nanosec=2**32 - 1), Time(sec=2**31 - 1, nanosec=2**32 - 1), Time(sec=-(2**31))):
        stage.clock.publish(Clock(clock=clock))  # no time at all: nothing happens
        stage.tick()
    assert stage.wait_status(lambda s: stamp_ns(s) == stage.now_ns, "a status of now").state == EXECUTING

    far = (2**31 - 2000) * 10**9 - stage.now_ns  # near to the last second that a message can hold
    for leap in (3600 * 10**9, -1800 * 10**9, far, -far):
        stage.now_ns += leap
        stage.tick()
        assert seen(stage, ExecutorStatus.CAUSE_CLOCK_JUMP, "ROS time changed by").state == STOPPED
        stage.tick(40)
        seen(stage, ExecutorStatus.CAUSE_NO_CHUNK)
        follow(stage)

    stage.say("to and fro")
    probe.record("/diagnostics", DiagnosticArray)
    middle, sides = stage.positions[-1], 0
    while stage.wait_status(lambda s: s.ticks == len(stage.commands), "all ticks").state != STOPPED:
        stage.send(stage.chunk([middle + [0.1 * (-1) ** sides, 0.0, 0.0]], step_dt=0.2))
        stage.tick(10)
        sides += 1
    words = "joint turn: its commanded motion reverses 4 times a second, limit 3.5"
    status = seen(stage, ExecutorStatus.CAUSE_REVERSALS, words)
    assert sides == 5 and list(status.reversals) == [4.0, 0.0, 0.0]  # it turns round at every side but the first
    assert status.limited_share[0] > 0.5 and status.deviation[0] > 0.01 and status.deviation[1] == 0
    assert status.progress_age > 0.5
    stage.say("to and fro")
    stage.tick(50)
    assert np.array_equal(stage.positions[-1], stage.positions[-40])
    assert seen(stage, ExecutorStatus.CAUSE_REVERSALS).state == STOPPED

    def told() -> bool:
        return any(
            "reverses" in item.message and item.level == DiagnosticStatus.ERROR
            for message in probe.messages("/diagnostics")
            for item in message.status
        )

    probe.wait_for(told, "the reversals on /diagnostics")
    assert Path(graph.folder, "executor_node.log").read_text().count("reverses") == 1  # once for an instruction
    stage.say("go")
    stage.tick(27)
    seen(stage, ExecutorStatus.CAUSE_NO_CHUNK)
    follow(stage)
    stage.check_limits()


def until(stage: Stage, accept, what: str) -> None:
    """Control periods until a peer sees what is waited for; there may be no commands meanwhile."""

    def met() -> bool:
        if not accept():
            stage.tick(commands=False)
            stage.wait_status(lambda s: stamp_ns(s) >= stage.now_ns, "a status of now")
        return accept()

    stage.probe.wait_for(met, what)


def test_two_executors_and_a_stranger_on_a_command_topic(graph, probe):
    stage = Stage(graph, probe)
    stage.activate()
    stage.say("go")
    graph.start("second", "vla_ros.nodes.executor_node", parameters=stage.parameters)
    graph.configure("second")
    # both hear the same joint states and clock; only one may command
    probe.wait_for(lambda: stage.joints.get_subscription_count() >= 2, "the second executor's subscription")

    with pytest.raises(GraphError, match="also commanded by"):
        graph.activate("second")
    stage.tick(50)
    assert stage.status.cause != ExecutorStatus.CAUSE_RIVAL  # the second never had a command publisher
    graph.kill("second", signal.SIGINT)
    follow(stage)

    stranger = graph.node.create_publisher(JointTrajectory, "arm/command", 10)

    until(stage, lambda: stage.status.cause == ExecutorStatus.CAUSE_RIVAL, "CAUSE_RIVAL")
    assert stage.status.state == STOPPED
    assert "/vla_ros_cli" in stage.status.message or "not known by name yet" in stage.status.message
    stage.tick(20, commands=False)
    silent_since = stage.now_ns
    for _ in range(5):
        stage.tick(commands=False)
        stage.publish_clock()  # again: there is no command to be repeated
    stage.wait_status(lambda s: stamp_ns(s) >= stage.now_ns, "a status of now")  # it has come to the end of the silence
    graph.node.destroy_publisher(stranger)
    silent_until = silent_since + 5 * PERIOD_NS
    until(stage, lambda: stamp_ns(probe.last("arm/command")) > silent_until, "commands after the stranger is gone")
    assert not [m for m in probe.messages("arm/command") if silent_since < stamp_ns(m) <= silent_until]
    stamps = [stamp_ns(m) for m in probe.messages("arm/command")]
    assert len(stamps) == len(set(stamps))
    for message in probe.messages("arm/command"):
        assert -1.5 <= message.points[0].positions[1] <= 1.5


POLICY = """
import sys
import rclpy
from vla_ros.msg import PolicyStatus
from vla_ros.nodes.qos import STATUS_QOS
rclpy.init()
node = rclpy.create_node("policy_node")
publisher = node.create_publisher(PolicyStatus, "~/status", STATUS_QOS)
node.create_timer(0.5, lambda: publisher.publish(PolicyStatus(state=PolicyStatus.INACTIVE, session=7)))
rclpy.spin(node)
"""


class RealTime:
    """A robot in real time: joint states at 50 Hz that follow the commands, chunks when the test asks for one."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.node = stage, stage.graph.node
        self.end, self.mute, self.speed = threading.Event(), False, 0.2
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def _run(self) -> None:
        while not self.end.wait(0.02):
            arm, hand = self.stage.probe.last("arm/command"), self.stage.probe.last("hand/command")
            if arm is not None and hand is not None:
                lift, turn = arm.points[0].positions
                self.stage.measured = np.array([turn, lift, hand.data[0]])
            if not self.mute:
                self.stage.publish_joints(stamp_ns=self.now_ns())

    def chunk(self, rows: np.ndarray | None = None) -> None:
        self.stage.now_ns = self.now_ns()
        rows = plan(self.stage.measured, round(12 / self.speed), self.speed) if rows is None else rows
        self.stage.chunks.publish(self.stage.chunk(rows))

    def until(self, accept, what: str, chunks: bool = False) -> ExecutorStatus:
        """The first status that `accept` takes; while waiting, a fresh chunk every now and then if asked for."""
        last = 0.0

        def met():
            nonlocal last
            if chunks and time.monotonic() - last > 0.5:
                last = time.monotonic()
                self.chunk()
            return next((s for s in self.stage.probe.messages("executor_node/status") if accept(s)), None)

        return self.stage.probe.wait_for(met, what)

    def clear(self) -> None:
        self.stage.probe.clear("executor_node/status")


def test_a_killed_policy_and_a_stalled_executor_in_real_time(graph, probe):
    stage = Stage(
        graph,
        probe,
        use_sim_time=False,
        resume="automatic",
        max_chunk_age=20.0,
        overrun_limit=0.5,
        session_lease=60.0,
        joint_state_timeout=2.0,
        jump_limit=60.0,
    )
    robot = RealTime(stage)
    script = Path(graph.folder) / "stage_policy.py"
    script.write_text(POLICY)
    try:
        robot.until(lambda s: s.names and np.isfinite(s.measured).all(), "joint states in the status")
        graph.activate("executor_node")
        stage.say("go")
        robot.until(lambda s: s.state == EXECUTING, "EXECUTING", chunks=True)
        graph.start("policy_node", "stage_policy",
                    environment={"PYTHONPATH": ":".join([str(graph.folder), *sys.path])})  # fmt: skip
        # A change of state says with which command it came (to the nanosecond, which a time of its own would not be).
        stamps = {stamp_ns(m) for m in probe.messages("arm/command")}
        assert any(stamp_ns(s) in stamps for s in probe.messages("executor_node/status"))
        # Session 7 leads; that another one may take over shows that the executor has heard the policy's goodbye.
        status = robot.until(lambda s: s.chunk_sequence == stage.sequence, "the answer to the newest chunk")
        stage.session, accepted = 8, status.accepted_chunks
        robot.until(lambda s: s.accepted_chunks > accepted, "session 8", chunks=True)
        robot.clear()
        graph.kill("policy_node", signal.SIGKILL)
        status = robot.until(lambda s: s.cause == ExecutorStatus.CAUSE_POLICY_GONE, "CAUSE_POLICY_GONE")
        assert status.state == STOPPED and status.live_chunks == 0
        robot.clear()
        stage.session += 1  # the policy was restarted
        robot.until(lambda s: s.state == EXECUTING, "EXECUTING after the restart", chunks=True)

        process = graph.processes["executor_node"].popen
        swing = np.sin(1.9 * 0.1 * np.arange(100))[:, None] * [1.0, 0.0, 0.0] + [0.0, stage.measured[1], HOME[2]]
        robot.chunk(swing)
        robot.until(lambda s: s.chunk_sequence == stage.sequence and s.state == EXECUTING, "EXECUTING the swing")
        for _ in range(8):  # late ticks: whole periods are missed, at up to 1.9 rad/s
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)  # the fault itself
            process.send_signal(signal.SIGCONT)
            ticks = stage.status.ticks
            robot.until(lambda s, ticks=ticks: s.ticks > ticks + 12, "more ticks")
        robot.clear()
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)  # the fault itself
        process.send_signal(signal.SIGCONT)
        status = robot.until(lambda s: s.cause == ExecutorStatus.CAUSE_OVERRUN, "CAUSE_OVERRUN")
        assert status.state == STOPPED and "the control loop stalled for" in status.message
        robot.clear()
        robot.until(lambda s: s.state == EXECUTING, "EXECUTING after the stall", chunks=True)

        robot.speed = 1.0  # deactivated in motion and activated at once, before there is a joint state of after that
        robot.clear()
        robot.until(lambda s: abs(s.velocity[0]) > 0.8, "a quick motion", chunks=True)
        robot.mute = True
        graph.deactivate("executor_node")
        between = robot.now_ns()
        graph.activate("executor_node")
        after = probe.wait_message("arm/command", lambda m: stamp_ns(m) > between, "a command after it")
        before = [m for m in probe.messages("arm/command") if stamp_ns(m) <= between][-1]
        step = after.points[0].positions[1] - before.points[0].positions[1]
        assert abs(step) <= 1e-9, f"{step} rad from where it stood"
        robot.mute, robot.speed = False, 0.2
        robot.clear()
        robot.until(lambda s: s.state == EXECUTING, "EXECUTING after the activation", chunks=True)

        # One stop is more than one signal: the second must not cut the braking short.
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        assert process.wait(timeout=60) == 0
        del graph.processes["executor_node"]
    finally:
        robot.end.set()
        robot.thread.join()
    stamps = np.array([stamp_ns(message) for message in probe.messages("arm/command")])
    lift, turn = np.array([message.points[0].positions for message in probe.messages("arm/command")]).T
    path = np.stack([turn, lift, np.full(len(turn), HOME[2])], axis=1)
    check_limits(stage.limits, path, stamps, start=path[0], leap=np.inf)
    gaps, steps = np.diff(stamps), np.diff(turn)
    assert ((gaps > 4 * PERIOD_NS) & (steps != 0)).sum() >= 4  # late in motion
    assert turn[-1] == turn[-2] != turn[-20]  # it came to rest before the commands ceased
    assert (gaps > NS).any() and not steps[gaps > NS].any()  # after the stall it goes on from where it stood
