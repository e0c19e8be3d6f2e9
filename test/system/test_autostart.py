"""What a peer sees of an executor that brings itself up: it waits, says for what, and takes the robot's description."""

from array import array
from collections.abc import Callable
from pathlib import Path

from sensor_msgs.msg import JointState
from std_msgs.msg import String
from system.stage import JOINTS, ROBOT

from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import STATUS_QOS

URDF = """<robot name="stage"><link name="base"/>
  <joint name="lift" type="prismatic"><limit lower="0" upper="0.1" velocity="9" effort="1"/></joint>
</robot>"""


def test_the_description_the_policy_and_the_joints_are_waited_for(graph, probe, tmp_path: Path):
    (tmp_path / "robot.yaml").write_text(ROBOT)
    probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
    parameters = {"robot": str(tmp_path / "robot.yaml"), "robot_description_topic": "robot_description",
                  "autostart": True, "autostart_after_policy": True, "claim_wait": 0.0}  # fmt: skip
    graph.start("executor_node", parameters=parameters)

    def wait(accept: Callable[[ExecutorStatus], bool], what: str, lift: float | None = None) -> None:
        def said() -> bool:
            if policy is not None:  # as often as the node itself: one that falls silent is gone
                policy.publish(PolicyStatus(state=PolicyStatus.IDLE))
            if lift is not None:
                message = set_stamp(JointState(), graph.node.get_clock().now().nanoseconds)
                message.name, message.position = list(JOINTS), array("d", [0.0, lift, 0.5])
                joints.publish(message)
            status = probe.last("executor_node/status")
            return status is not None and accept(status)

        probe.wait_for(said, what)

    def waits_for(words: str, lift: float | None = None) -> None:
        wait(lambda status: words in status.message, words, lift)

    policy = None
    waits_for("robot_description_topic /robot_description: no URDF")
    graph.node.create_publisher(String, "robot_description", STATUS_QOS).publish(String(data=URDF))
    waits_for("policy_node is not active yet")
    policy = graph.node.create_publisher(PolicyStatus, "policy_node/status", STATUS_QOS)
    waits_for("never seen")
    joints = probe.publisher("joint_states", JointState)
    waits_for("lift", lift=0.35)  # inside the robot file's limits, not inside the URDF's
    wait(lambda status: status.state == ExecutorStatus.HOLDING, "HOLDING", lift=0.05)
    log = graph.processes["executor_node"].log.read_text()
    assert "0.1 m (URDF)" in log and "ERROR" not in log and log.count("limits of lift") == 1
