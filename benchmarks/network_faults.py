"""The policy on another machine, behind a bad network: what becomes of its chunks, and what the arm does.

    python benchmarks/network_faults.py [--seconds 15] [--json FILE]

Needs root, iproute2 and /dev/net/tun. Simulator and executor live in one network namespace, the policy in another;
between them a link whose delay (each way) and loss (of frames, each way) change from phase to phase, up to a cut and
back. Cameras are JPEG of 320x240 at 10 Hz, as one would send them over a network. Each phase begins with another
instruction, so that the arm moves. What is printed is what a peer on the robot's side sees; "in limits" compares
every command of the phase with the position, velocity and acceleration limits of the robot file.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from link import Link, enter_namespace, impossible
from live_graph import ROBOT, live_graph
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from vla_ros.control.limits import Limits
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import read_command
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

STATES = {
    getattr(ExecutorStatus, name): name.lower() for name in ("APPROACHING", "EXECUTING", "HOLDING", "STOPPED")
}
COLOURS = ("green", "blue", "red")


@dataclass(frozen=True)
class Phase:
    """`delay` in s and `loss` as a share, each way."""

    name: str
    delay: float
    loss: float


PHASES = (
    Phase("clean", 0.0, 0.0),
    Phase("100 ms", 0.1, 0.0),
    Phase("100 ms, 5 % lost", 0.1, 0.05),
    Phase("100 ms, 10 % lost", 0.1, 0.1),
    Phase("cut", 0.0, 1.0),
    Phase("clean again", 0.0, 0.0),
)


class Peer:
    """Listens on the robot's side."""

    def __init__(self, graph: Any, robot: RobotSpec) -> None:
        self.robot, self.limits = robot, Limits.merge(robot)
        self.statuses: list[ExecutorStatus] = []
        self.commands: dict[str, list[tuple[int, np.ndarray]]] = {group.name: [] for group in robot.groups}
        self.success = False
        node = graph.node
        self._instruction = node.create_publisher(String, "instruction", COMMAND_QOS)
        node.create_subscription(ExecutorStatus, "executor_node/status", self.statuses.append, STATUS_QOS)
        node.create_subscription(Bool, "sim_node/success", self._take_success, STATUS_QOS)
        for group in robot.groups:
            node.create_subscription(JointTrajectory, group.topic, self._taker(group), COMMAND_QOS)
        graph.wait_for(lambda: self.statuses and self._instruction.get_subscription_count() >= 3, "the graph")

    def _taker(self, group: Any) -> Any:
        found = self.commands[group.name]
        return lambda message: found.append((stamp_ns(message), read_command(group, message)))

    def _take_success(self, message: Bool) -> None:
        self.success = self.success or message.data

    def watch(self, instruction: str, seconds: float) -> dict:
        """One phase, as a line of the table."""
        before = self.statuses[-1]
        marks = {name: max(len(commands) - 2, 0) for name, commands in self.commands.items()}
        first = len(self.statuses)
        self._instruction.publish(String(data=instruction))
        time.sleep(0.2)  # what the old instruction had achieved is said first
        self.success = False
        time.sleep(seconds)
        seen, after = self.statuses[first:], self.statuses[-1]
        refused = Counter(dict(zip(after.refusal_reasons, after.refusal_counts, strict=True)))
        refused.subtract(dict(zip(before.refusal_reasons, before.refusal_counts, strict=True)))
        states = Counter(STATES.get(status.state, str(status.state)) for status in seen)
        latencies = [status.chunk_latency for status in seen if status.chunk_sequence != before.chunk_sequence]
        return {
            "accepted": after.accepted_chunks - before.accepted_chunks,
            "refused": {reason: count for reason, count in refused.items() if count},
            "latency_ms": round(1000 * float(np.median(latencies))) if latencies else None,
            "states": {name: round(count / len(seen), 2) for name, count in states.most_common()},
            "stopped_because": sorted({status.message for status in seen if status.state == ExecutorStatus.STOPPED}),
            "touched": self.success,
            "at_rest_at_the_end": all(self._at_rest(commands) for commands in self.commands.values()),
            "in_limits": all(self._in_limits(group, marks[group.name]) for group in self.robot.groups),
        }

    def _at_rest(self, commands: list[tuple[int, np.ndarray]]) -> bool:
        """The last second commanded one and the same position."""
        last = [position for _, position in commands[-round(self.robot.control_rate) :]]
        return bool((np.ptp(last, axis=0) == 0).all())

    def _in_limits(self, group: Any, first: int) -> bool:
        columns = [self.robot.joint_names.index(name) for name in group.joints]
        limits, dt = self.limits, 1 / self.robot.control_rate
        stamps, positions = zip(*self.commands[group.name][first:], strict=True)
        position = np.array(positions)
        steps = np.diff(position, axis=0)
        # a tick that came a whole period late is left out, so two commands may be more than a period apart
        speed = steps / dt
        regular = np.abs(np.diff(np.array(stamps)) * 1e-9 - dt) < 0.1 * dt
        change = np.diff(speed, axis=0)[regular[1:] & regular[:-1]] / dt
        return bool(
            np.isfinite(position).all()
            and (position >= limits.lower[columns] - 1e-9).all()
            and (position <= limits.upper[columns] + 1e-9).all()
            and (np.abs(speed) <= limits.velocity[columns] * (1 + 1e-6)).all()
            and (np.abs(change) <= limits.acceleration[columns] * (1 + 1e-6)).all()
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reason = impossible()
    if reason:
        print(f"not tried: {reason}", file=sys.stderr)
        return 1
    os.environ |= {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
    results = []
    with Link(("vla_robot", "vla_policy")) as link, tempfile.TemporaryDirectory() as folder:
        enter_namespace("vla_robot")  # this thread, and so the simulator and the executor
        values = yaml.safe_load(ROBOT.read_text())
        for camera in values["cameras"]:
            camera |= {"topic": camera["topic"] + "/compressed", "compressed": True}
            camera |= {"width": 320, "height": 240, "rate": 10.0}
        for group in values["groups"]:
            group["stamp"] = "now"  # for the check
        robot = Path(folder) / "robot.yaml"
        robot.write_text(yaml.safe_dump(values))
        with live_graph(
            Path(folder) / "graph",
            robot=robot,
            modules={"policy_node": "policy_elsewhere"},
            environment={"NETWORK_NAMESPACE": "vla_policy"},
        ) as graph:
            peer = Peer(graph, RobotSpec.load(robot))
            for number, phase in enumerate(PHASES):
                link.delay, link.loss = phase.delay, phase.loss
                seen = peer.watch(f"touch the {COLOURS[number % len(COLOURS)]} cube", args.seconds)
                results.append({"phase": phase.name} | seen)
                print(f"{phase.name}:", *(f"{key} {value}" for key, value in seen.items()), sep="\n    ", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
