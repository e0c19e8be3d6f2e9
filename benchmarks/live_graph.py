"""Simulator, policy and executor in real time, with an instruction, for benchmarks to look at."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_ros.graph.processes import Graph
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos

HERE = Path(__file__).resolve().parent
ROBOT = HERE.parent / "config" / "robots" / "so101.yaml"
POLICY = HERE.parent / "vla_ros" / "data" / "checkpoints" / "pi0_tiny"
INSTRUCTION = "touch the red cube"


@contextmanager
def live_graph(
    folder: Path,
    *,
    robot: Path = ROBOT,
    policy: Path = POLICY,
    executor: Mapping[str, Any] | None = None,
    modules: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Graph]:
    """The graph while the policy's chunks come; its end deactivates the executor first.

    Args:
        folder: for parameter files and logs.
        robot: robot file of every node.
        policy: checkpoint folder.
        executor: parameters of executor_node besides `robot` (which they may replace).
        modules: node -> module of this folder that runs in its place.
        environment: variables of the executor's and the policy's processes.
    """
    modules = modules or {}
    variables = dict(environment or {}) | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    states: dict[str, Any] = {}
    with Graph(folder) as graph:
        node = graph.node
        node.create_subscription(
            ExecutorStatus, "executor_node/status", lambda m: states.update(accepted=m.accepted_chunks), STATUS_QOS
        )
        node.create_subscription(
            PolicyStatus, "policy_node/status", lambda m: states.update(policy=m.state), STATUS_QOS
        )
        node.create_subscription(JointState, "joint_states", lambda m: states.update(joints=1), sensor_qos())
        instruction = node.create_publisher(String, "instruction", COMMAND_QOS)
        graph.start("sim_node", parameters={"robot": str(robot)})
        graph.start(
            "policy_node",
            modules.get("policy_node"),
            parameters={"robot": str(robot), "policy": str(policy), "threads": 1},
            environment=variables,
        )
        graph.start(
            "executor_node",
            modules.get("executor_node"),
            parameters={"robot": str(robot), "resume": "automatic", **(executor or {})},
            environment=variables,
        )
        graph.wait_for(lambda: states.get("joints"), "the simulator's joint states")
        graph.bring_up("policy_node", "executor_node")
        graph.wait_for(lambda: instruction.get_subscription_count() >= 3, "the listeners of the instruction")
        instruction.publish(String(data=INSTRUCTION))
        graph.wait_for(lambda: states.get("accepted"), "a chunk that the executor accepts", 300.0)
        yield graph
        graph.deactivate("executor_node")
