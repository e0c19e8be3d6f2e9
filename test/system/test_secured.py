"""A secured graph works with the rights of the policy file, and nobody has others. Needs sros2 and a secured DDS."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from std_msgs.msg import Bool, String
from system.support import DEADLINE, Probe, free_domain

pytest.importorskip("sros2", reason="keystores are made by sros2, which comes with a full ROS 2 installation")

from vla_ros.cli.demo import CHECKPOINT
from vla_ros.core.resources import config_file
from vla_ros.graph.processes import Graph
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import STATUS_QOS

# Prints for each topic how many readers a process of this name finds, null where it is not let.
PUBLISHER = """
import json, sys, time, rclpy
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory
from vla_ros.msg import ActionChunk
rclpy.init()
node, found = rclpy.create_node(sys.argv[1]), {}
for topic, kind in (("action_chunk", ActionChunk), ("e_stop", Bool), ("instruction", String),
                    ("arm_controller/joint_trajectory", JointTrajectory)):
    try:
        found[topic] = node.create_publisher(kind, topic, 10)
    except Exception:
        found[topic] = None
end = time.monotonic() + float(sys.argv[2])  # nothing shows that nobody will be found
let = [publisher for publisher in found.values() if publisher]
while let and time.monotonic() < end and not any(publisher.get_subscription_count() for publisher in let):
    time.sleep(0.05)
print(json.dumps({topic: p and p.get_subscription_count() for topic, p in found.items()}))
"""


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A keystore with the shipped policy file, security switched on, and a middleware that has it."""
    from sros2.api._artifact_generation import generate_artifacts

    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    keystore = tmp_path / "keystore"
    generate_artifacts(keystore, [], [config_file("security/so101.policy.xml")])
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(keystore))
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    if re.search(r"(n't|not) have (the )?security", publish("_ros2cli_1", "viewer", check=False).stderr):
        pytest.skip("the middleware is built without security")
    return keystore


def publish(name: str, enclave: str, patience: float = 0.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ROS_SECURITY_ENCLAVE_OVERRIDE": f"/vla_ros/{enclave}"}
    if not enclave:
        environment["ROS_SECURITY_ENABLE"] = "false"
    command = [sys.executable, "-c", PUBLISHER, name, str(patience)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=check)


def test_each_process_publishes_what_its_enclave_may_and_strangers_reach_nobody(secured: Path, tmp_path: Path):
    with Graph(tmp_path / "graph") as graph:
        probe = Probe(graph)
        probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
        patient = {"robot": "so101", "joint_state_timeout": 10.0, "overrun_limit": 5.0, "max_chunk_age": 60.0,
                   "resume": "automatic"}
        graph.start("sim_node", parameters={"robot": "so101"})
        graph.start("policy_node", parameters={"robot": "so101", "policy": str(CHECKPOINT), "max_age": 30.0})
        graph.start("executor_node", parameters=patient)
        graph.bring_up("policy_node", "executor_node")
        told = probe.publisher("instruction", String, readers=3)
        told.publish(String(data="touch the red cube"))
        probe.wait_message("executor_node/status", lambda status: status.accepted_chunks > 0, "a chunk followed")

        def allowed(name: str, enclave: str, patience: float = DEADLINE / 2) -> tuple[set[str], set[str]]:
            """Topics that it may publish, and those of them on which somebody hears it."""
            found = json.loads(publish(name, enclave, patience).stdout)
            return {t for t, count in found.items() if count is not None}, {t for t, count in found.items() if count}

        everything = {"action_chunk", "e_stop", "instruction", "arm_controller/joint_trajectory"}
        assert allowed("_ros2cli_1", "", 5.0) == (everything, set())
        assert allowed("_ros2cli_1", "viewer") == (set(), set())
        assert allowed("policy_node", "policy_node") == ({"action_chunk"}, {"action_chunk"})
        assert allowed("e_stop", "e_stop") == ({"e_stop"}, {"e_stop"})
        command = {"arm_controller/joint_trajectory"}
        assert allowed("executor_node", "executor_node") == (command, command)

        probe.publisher("e_stop", Bool).publish(Bool(data=True))
        stopped = ExecutorStatus.E_STOPPED
        probe.wait_message("executor_node/status", lambda status: status.state == stopped, "the operator's e-stop")
