"""Two executors of one robot, started and activated at the same moment, again and again: never two that command.

    python benchmarks/two_executors.py [--rounds 200] [--elsewhere] [--json FILE]

Both configure and activate by themselves (`autostart`) as soon as a peer publishes joint states. Their robot files name
the joints in another order, so that every command tells whose it is. A round lasts until one commands and the other was
refused; then both are ended. `--elsewhere` takes the claim of the operating system away from them, as between two
machines. Prints how many rounds had no, one and two commanding executors, and how long the first command took.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_ros.graph.processes import Graph
from vla_ros.messages.stamps import set_stamp, stamp_ns
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, profile

NAMES = ("first", "second")
JOINTS = ["turn", "lift"]
TOGETHER = 20  # commands of one executor after the other's refusal, before a round ends
ELSEWHERE = """
import socket, sys
from vla_ros.nodes.executor import claim
from vla_ros.nodes.executor_node import main
claim.Claim._machine_wide = lambda self, topic: socket.socket()
claim.this_machine_only = lambda: False
sys.exit(main())
"""


class Arena:
    """The robot of both executors, and what a peer sees of them."""

    def __init__(self, graph: Graph, elsewhere: bool) -> None:
        self.graph, self.folder = graph, Path(graph.folder)
        self.module = "elsewhere" if elsewhere else "vla_ros.nodes.executor_node"
        (self.folder / "elsewhere.py").write_text(ELSEWHERE)
        self.clear()
        for name, order in zip(NAMES, (JOINTS, JOINTS[::-1]), strict=True):
            (self.folder / f"robot_{name}.yaml").write_text(yaml.safe_dump(self._robot(order)))
            graph.node.create_subscription(
                ExecutorStatus, f"{name}/status", lambda m, name=name: self.statuses.update({name: m}), STATUS_QOS
            )
        graph.node.create_subscription(JointTrajectory, "arm/command", self._take, profile(1000, reliable=True))
        self.joints = graph.node.create_publisher(JointState, "joint_states", COMMAND_QOS)
        graph.node.create_timer(0.02, self._publish_joints)

    def clear(self) -> None:
        self.begin_ns = self.graph.node.get_clock().now().nanoseconds
        self.commands: list[str] = []
        self.statuses: dict[str, ExecutorStatus] = {}

    @staticmethod
    def _robot(order: list[str]) -> dict:
        joints = [{"name": j, "lower": -1.0, "upper": 1.0, "velocity": 1.0, "acceleration": 5.0} for j in JOINTS]
        group = {"name": "arm", "topic": "arm/command", "interface": "joint_trajectory", "stamp": "now"}
        group["joints"] = order
        return {"name": "both", "control_rate": 50.0, "cameras": [], "joints": joints, "groups": [group]}

    def _take(self, message: JointTrajectory) -> None:
        if stamp_ns(message) >= self.begin_ns:  # else of the round before
            self.commands.append(NAMES[list(message.joint_names) != JOINTS])

    def _publish_joints(self) -> None:
        message = set_stamp(JointState(), self.graph.node.get_clock().now().nanoseconds)
        message.name, message.position = JOINTS, [0.0, 0.0]
        self.joints.publish(message)

    def _settled(self) -> bool:
        """One commands, and the other one was refused and stayed silent for a while."""
        commands = self.commands[:]
        refused = [n for n in NAMES if n in self.statuses and "also c" in self.statuses[n].message]
        return len(set(commands)) > 1 or bool(
            refused and commands and refused[-1] != commands[-1] and len(commands) >= TOGETHER
        )

    def round(self) -> tuple[set[str], float]:
        """Who commanded, and s from the start to the first command."""
        self.clear()
        begin = time.monotonic()
        for name in NAMES:
            parameters = {"robot": str(self.folder / f"robot_{name}.yaml"), "autostart": True}
            path = os.pathsep.join([str(self.folder), *sys.path])
            self.graph.start(name, self.module, parameters=parameters, environment={"PYTHONPATH": path})
        try:
            self.graph.wait_for(lambda: self.commands, "a command")
            took = time.monotonic() - begin
            self.graph.wait_for(self._settled, "one that commands and one that was refused")
            return set(self.commands), took  # what comes later is the other one's good right: the first is ended
        finally:
            for name in NAMES:
                self.graph.kill(name, signal.SIGINT)


def run(folder: Path, rounds: int, elsewhere: bool, domain: int | None = None) -> dict:
    """`rounds` rounds in one graph; the summary."""
    counts, took = Counter(), []
    with Graph(folder, domain=domain) as graph:
        arena = Arena(graph, elsewhere)
        try:
            for number in range(rounds):
                who, seconds = arena.round()
                counts[len(who)] += 1
                took.append(seconds)
                if len(who) > 1:
                    print(f"round {number}: both commanded: {arena.commands}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted: the rounds so far", file=sys.stderr)
    return {"elsewhere": elsewhere, "rounds": len(took), "one_commands": counts[1], "two_command": counts[2],
            "first_command_s_median": round(float(np.median(took or [0.0])), 2),
            "first_command_s_longest": round(max(took, default=0.0), 2)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--elsewhere", action="store_true", help="as if on two machines")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), args.rounds, args.elsewhere)
    print(", ".join(f"{key} {value}" for key, value in result.items()))
    if args.json:
        args.json.write_text(json.dumps(result))
    return 1 if result["two_command"] else 0


if __name__ == "__main__":
    sys.exit(main())
