"""What `soak.py` does to the running graph. Each fault ends with the graph as it was before, or able to get there."""

import os
import signal
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from vla_ros.core.instruction import instruction_id
from vla_ros.graph.processes import GraphError
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.msg import ActionChunk, ActionPart
from vla_ros.nodes.qos import COMMAND_QOS, sensor_qos

if TYPE_CHECKING:
    from soak import Soak


def e_stop_press(soak: "Soak") -> None:
    """A button on a topic of 50 Hz, held for 100 ms."""
    for _ in range(5):
        soak.press()
        time.sleep(0.02)
    soak.e_stop.publish(Bool(data=False))
    soak.expect_e_stop()


def e_stop_in_a_flood(soak: "Soak") -> None:
    """One `true` among many `false`."""
    chosen = int(soak.rng.integers(50, 450))
    for k in range(500):
        if k == chosen:
            soak.press()
        else:
            soak.e_stop.publish(Bool(data=False))
        time.sleep(0.001)
    soak.expect_e_stop()


def e_stop_while_paused(soak: "Soak") -> None:
    """A press of 100 ms while the executor's process stands still."""
    pid = soak.graph.processes["executor_node"].popen.pid
    os.kill(pid, signal.SIGSTOP)
    for _ in range(5):
        soak.press()
        time.sleep(0.02)
    for _ in range(15):
        soak.e_stop.publish(Bool(data=False))
        time.sleep(0.02)
    os.kill(pid, signal.SIGCONT)
    soak.expect_e_stop()


def reset_without_e_stop(soak: "Soak") -> None:
    soak.reset()


def _chunk(soak: "Soak", rows: np.ndarray, **change: object) -> ActionChunk:
    message = set_stamp(ActionChunk(), soak.now_ns())
    message.step_dt, message.horizon = 0.1, len(rows)
    message.parts = [ActionPart(names=list(soak.bounds.names), data=array("d", np.ravel(rows)))]
    message.instruction_id = instruction_id(soak.instruction)
    message.session, message.sequence = int(soak.rng.integers(1, 2**63)), int(soak.rng.integers(2**63))
    for field, value in change.items():
        setattr(message, field, value)
    return message


def garbage_chunks(soak: "Soak") -> None:
    """Flipped bytes, a cut-off end, or noise."""
    good = np.frombuffer(serialize_message(_chunk(soak, np.zeros((16, len(soak.bounds.names))))), np.uint8)
    for k in range(200):
        data = good.copy()
        if k % 3 == 0:
            data[soak.rng.integers(4, len(data), 5)] = soak.rng.integers(0, 256, 5)
        elif k % 3 == 1:
            data = data[: soak.rng.integers(4, len(data))]
        else:
            data[4:] = soak.rng.integers(0, 256, len(data) - 4)
        soak.chunks.publish(data.tobytes())
        time.sleep(0.003)


def wild_chunks(soak: "Soak") -> None:
    """Decodable, of other sessions, and far from anything sensible."""
    size = (16, len(soak.bounds.names))
    for k in range(100):
        rows = soak.rng.uniform(soak.bounds.lower, soak.bounds.upper, size) * 10.0 ** (k % 5 - 2)
        if k % 4 == 0:
            rows[soak.rng.integers(16), soak.rng.integers(size[1])] = soak.rng.choice([np.nan, np.inf, 1e308])
        soak.chunks.publish(_chunk(soak, rows, sequence=2**64 - 1 if k % 5 == 0 else k))
        time.sleep(0.01)


def big_chunks(soak: "Soak") -> None:
    """Three of 15 MB."""
    rows = np.zeros((300_000, len(soak.bounds.names)))
    for _ in range(3):
        soak.chunks.publish(_chunk(soak, rows))
        time.sleep(0.3)


def second_executor(soak: "Soak") -> None:
    """It must not be let in beside the first one."""
    graph = soak.graph
    graph.start("other_executor", "vla_ros.nodes.executor_node", parameters={"robot": str(soak.robot_file)})
    try:
        graph.configure("other_executor")
        graph.activate("other_executor")
        soak.problem("a second executor was activated")
        graph.deactivate("other_executor")
    except GraphError:
        pass  # refused, as it has to be
    finally:
        graph.kill("other_executor", signal.SIGINT)


def policy_killed(soak: "Soak") -> None:
    soak.graph.kill("policy_node", signal.SIGKILL)
    time.sleep(float(soak.rng.uniform(0.0, 4.0)))
    soak.start_policy()
    try:
        soak.graph.bring_up("policy_node")
    except GraphError:
        if soak.graph.processes["policy_node"].popen.poll() != 3:
            raise
        soak.unreachable += 1  # the middleware's fault, which the node notices; what restarts nodes would do this
        soak.graph.kill("policy_node")
        soak.start_policy()
        soak.graph.bring_up("policy_node")


def executor_paused(soak: "Soak") -> None:
    pid = soak.graph.processes["executor_node"].popen.pid
    for seconds in soak.rng.choice([0.015, 0.03, 0.06, 0.09, 0.3, 1.5], 4):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(float(seconds))
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)


def executor_restarted(soak: "Soak") -> None:
    """Deactivated and activated again in motion."""
    soak.graph.deactivate("executor_node")
    soak.graph.activate_when_ready("executor_node")


def _joint_states(change: Callable[["Soak", JointState], JointState | None], seconds: float) -> Callable:
    def fault(soak: "Soak") -> None:
        soak.relay_change = lambda message: change(soak, message)
        time.sleep(seconds)
        soak.relay_change = None

    return fault


def _frozen(soak: "Soak", message: JointState) -> JointState:
    soak.frozen = soak.frozen or list(message.position)
    message.position = array("d", soak.frozen)
    return message


def _poisoned(soak: "Soak", message: JointState) -> JointState:
    message.position = array("d", np.where(soak.rng.random(len(message.position)) < 0.5, np.nan, message.position))
    return message


def _teleporting(soak: "Soak", message: JointState) -> JointState:
    message.position = array("d", soak.rng.uniform(-3.0, 3.0, len(message.position)))
    return message


def _ahead(soak: "Soak", message: JointState) -> JointState:
    return set_stamp(message, soak.now_ns() + 3600 * NS)


def instruction_flood(soak: "Soak") -> None:
    for k in range(300):
        text = ("[/x]", "[bold]", "touch the moon", "", "x" * 100_000, "{0.__class__}", "\x00\x1b[2J", "ü" * 50)[k % 8]
        soak.say.publish(String(data=text))
        time.sleep(0.002)


def rival(soak: "Soak") -> None:
    """Somebody else publishes on a command topic for two seconds; it says where the robot is."""
    group = soak.robot["groups"][0]
    publisher = soak.graph.node.create_publisher(JointTrajectory, group["topic"], COMMAND_QOS)
    time.sleep(2.0)
    soak.graph.node.destroy_publisher(publisher)


def strange_images(soak: "Soak") -> None:
    """From the future, from 1970, of 36 MB, of no size, and of an encoding that there is not."""
    camera = soak.robot["cameras"][0]
    publisher = soak.graph.node.create_publisher(Image, camera["topic"], sensor_qos())
    time.sleep(0.5)
    for ahead, width, height, encoding in (
        (3600.0, 640, 480, "rgb8"),
        (-1e9, 640, 480, "rgb8"),
        (0.0, 4000, 3000, "rgb8"),
        (0.0, 0, 0, "rgb8"),
        (0.0, 640, 480, "[/x]"),
    ):
        message = set_stamp(Image(), soak.now_ns() + round(ahead * NS))
        message.width, message.height, message.step, message.encoding = width, height, 3 * width, encoding
        message.data = array("B", bytes(3 * width * height))
        publisher.publish(message)
        time.sleep(0.1)
    soak.graph.node.destroy_publisher(publisher)


FAULTS: dict[str, Callable[["Soak"], None]] = {
    "e-stop pressed for 100 ms": e_stop_press,
    "e-stop in a flood": e_stop_in_a_flood,
    "e-stop while the executor is paused": e_stop_while_paused,
    "reset without e-stop": reset_without_e_stop,
    "garbage chunks": garbage_chunks,
    "wild chunks": wild_chunks,
    "big chunks": big_chunks,
    "second executor": second_executor,
    "policy killed": policy_killed,
    "executor paused": executor_paused,
    "executor restarted in motion": executor_restarted,
    "joint states frozen": _joint_states(_frozen, 1.0),
    "joint states with NaN": _joint_states(_poisoned, 1.0),
    "joint states teleporting": _joint_states(_teleporting, 0.5),
    "joint states missing": _joint_states(lambda soak, message: None, 1.0),
    "joint states from the future": _joint_states(_ahead, 1.0),
    "instruction flood": instruction_flood,
    "rival": rival,
    "strange images": strange_images,
}
