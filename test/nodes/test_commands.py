"""Publishers of commands: what was published last arrives, although the publisher is gone then."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from system.support import free_domain

from vla_ros.core.robot import RobotSpec
from vla_ros.nodes import commands
from vla_ros.nodes.commands import CommandPublishers
from vla_ros.nodes.qos import COMMAND_QOS

JOINT = {"lower": -1.0, "upper": 1.0, "velocity": 1.0, "acceleration": 1.0}
ROBOT = RobotSpec.from_dict({
    "name": "two", "control_rate": 100.0, "cameras": [],
    "joints": [{"name": name} | JOINT for name in "ab"],
    "groups": [{"name": x, "topic": f"command_{x}", "interface": "joint_state", "joints": [x]} for x in "ab"],
})  # fmt: skip
LISTENER = """
import sys
import rclpy
from sensor_msgs.msg import JointState
from vla_ros.nodes.qos import COMMAND_QOS
rclpy.init(domain_id=int(sys.argv[1]))
node, heard = rclpy.create_node("controller"), []
for name in "ab":
    node.create_subscription(JointState, f"command_{name}", lambda m: heard.append(m.position[0]), COMMAND_QOS)
print("ready", flush=True)
while len(heard) < 10:
    rclpy.spin_once(node)
print(sorted(heard), flush=True)
"""


@pytest.fixture
def node():
    context, domain = rclpy.Context(), free_domain()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("executor", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def of_commands(node):
    return [publisher for publisher in node.publishers if "command" in publisher.topic]


def test_the_last_commands_reach_a_controller_that_was_paused(node, monkeypatch):
    """It gets no processor while the robot comes to rest and the publishers are closed, and goes on afterwards."""
    monkeypatch.setattr(commands, "_PATIENCE", 60.0)
    domain = str(node.context.get_domain_id())
    listener = subprocess.Popen([sys.executable, "-c", LISTENER, domain], stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout.readline() == "ready\n"
        publishers = CommandPublishers(node, ROBOT, ["a", "b"], COMMAND_QOS)
        while not all(publisher.get_subscription_count() for publisher in of_commands(node)):
            pass
        listener.send_signal(signal.SIGSTOP)
        for k in range(5):
            publishers.publish(np.array([k, 10.0 + k]), k)
        closing = threading.Thread(target=publishers.close)
        closing.start()
        closing.join(timeout=0.3)
        assert closing.is_alive()
        listener.send_signal(signal.SIGCONT)
        closing.join(timeout=60.0)
        assert listener.communicate(timeout=60.0)[0] == f"{[float(k) for k in [*range(5), *range(10, 15)]]}\n"
    finally:
        listener.kill()
    assert not closing.is_alive()


def test_a_controller_that_hangs_is_not_waited_for_for_ever(node, monkeypatch):
    monkeypatch.setattr(commands, "_PATIENCE", 0.05)
    publishers = CommandPublishers(node, ROBOT, ["a", "b"], COMMAND_QOS)
    monkeypatch.setattr(publishers, "_acknowledged", lambda: False)
    publishers.close()
    assert not of_commands(node)
