"""Policy, executor and simulator in lockstep: one episode after another through the same processes."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from std_msgs.msg import String

from vla_ros.core.instruction import instruction_id
from vla_ros.core.resources import config_file
from vla_ros.graph.episodes import Episode, Outcome
from vla_ros.graph.processes import Graph
from vla_ros.graph.simulation import Simulation, TaskStatus
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, POLICY_STATUS_QOS, STATUS_QOS

_INSTRUCT_AGAIN = 2.0  # s


def private_domain() -> int:
    """A ROS domain that nobody on this machine uses, so that a simulation never commands a robot.

    The search begins at ROS_DOMAIN_ID where that is set, else somewhere of this process's own. Domains above 101 would
    meet ports that the kernel gives away.
    """
    first = int(os.environ.get("ROS_DOMAIN_ID", 1 + os.getpid() % 100))
    for number in range(100):
        domain = (first + number) % 102
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain + 10))  # discovery port of the first participant (RTPS 9.6.2.1)
            except OSError:
                continue
            return domain
    raise RuntimeError("every ROS domain of this machine is in use")


class EvaluationGraph:
    """The graph of `vla-ros eval`, as a context.

    Attributes:
        graph: its processes and the node that talks to them.
        simulation: the simulator.
    """

    def __init__(
        self,
        folder: Path,
        robot: str,
        policy: str,
        rate: float = 10.0,
        device: str = "auto",
        params: Sequence[str] = (),
        domain: int | None = None,
    ) -> None:
        # Nothing of a simulation leaves this machine; read by the middleware when the graph is entered.
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
        self.graph = Graph(folder, domain=private_domain() if domain is None else domain)
        self._robot, self._policy, self._rate, self._device, self._params = robot, policy, rate, device, params
        self._policy_status: PolicyStatus | None = None
        self._executor_status: ExecutorStatus | None = None

    def __enter__(self) -> "EvaluationGraph":
        self.graph.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.graph.__exit__(*error)

    def bring_up(self) -> None:
        """Start and configure the three nodes."""
        node = self.graph.node
        node.create_subscription(PolicyStatus, "policy_node/status", self._take_policy, POLICY_STATUS_QOS)
        node.create_subscription(ExecutorStatus, "executor_node/status", self._take_executor, STATUS_QOS)
        self._instruction = node.create_publisher(String, "instruction", COMMAND_QOS)
        self.simulation = Simulation(self.graph)
        common = {"robot": self._robot, "use_sim_time": True, "reliable_sensors": True}
        self.graph.start(
            "policy_node",
            parameters={**common, "policy": self._policy, "device": self._device, "threads": 1},
            files=self._params,
        )
        files = [config_file("executor_demo.yaml"), *self._params]
        self.graph.start("executor_node", parameters=common, files=files)
        self.simulation.start(self._robot, lockstep=True, image_rate=self._rate, patience=300.0)
        self.graph.configure("policy_node")
        self.graph.configure("executor_node")

    def _take_policy(self, message: PolicyStatus) -> None:
        self._policy_status = message

    def _take_executor(self, message: ExecutorStatus) -> None:
        self._executor_status = message

    def run(self, episode: Episode, foreign_images: bool = False) -> Outcome:
        """One episode from a fresh layout. Raises GraphError when a node or the simulation gives up."""
        status = self.run_to_end(episode, foreign_images)
        return Outcome(
            episode.seed, episode.instruction, episode.judged, status.success, float(status.values["run_time"])
        )

    def run_to_end(self, episode: Episode, foreign_images: bool = False) -> TaskStatus:
        """What the simulator said when the episode was over."""
        graph, simulation = self.graph, self.simulation
        simulation.reset(
            seed=episode.seed, task=episode.judged, foreign_images=foreign_images, time_limit=float(episode.time_limit)
        )
        graph.activate_when_ready("policy_node")
        graph.activate_when_ready("executor_node")
        self.instruct(episode.instruction)
        graph.wait_for(lambda: simulation.task.values["steered"] == "true", "commands of the executor")
        status = simulation.run_to_end()
        self.instruct("")
        graph.deactivate("executor_node")
        graph.deactivate("policy_node")
        return status

    def instruct(self, text: str) -> None:
        """Publish the instruction until all three nodes have it."""
        number = instruction_id(text)

        def known() -> bool:
            heard: list[Any] = [self._policy_status, self._executor_status]
            return all(status is not None and status.instruction_id == number for status in heard) and (
                self.simulation.task.values["instruction"] == text
            )

        for _ in range(30):
            self._instruction.publish(String(data=text))
            if self.graph.wait_until(known, _INSTRUCT_AGAIN):
                return
        self.graph.wait_for(known, f"policy, executor and simulator to follow {text!r}")
