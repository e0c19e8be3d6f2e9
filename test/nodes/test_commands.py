"""Publishers of commands: the first and the last of them arrive, although a publisher is new then, or gone."""

import json
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
LAST = 99.0
LISTENER = f"""
import json
import sys
import rclpy
from sensor_msgs.msg import JointState
from vla_ros.nodes.qos import COMMAND_QOS
rclpy.init(domain_id=int(sys.argv[1]))
node, heard = rclpy.create_node("controller"), dict(a=[], b=[])
for name, found in heard.items():
    node.create_subscription(JointState, "command_" + name, lambda m, f=found: f.append(m.position[0]), COMMAND_QOS)
print("ready", flush=True)
while not all({LAST} in found for found in heard.values()):
    rclpy.spin_once(node)
print(json.dumps(heard), flush=True)
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


@pytest.fixture
def controller(node, monkeypatch):
    """A process that listens to the commands until the last one."""
    monkeypatch.setattr(commands, "_PATIENCE", 60.0)
    arguments = [sys.executable, "-c", LISTENER, str(node.context.get_domain_id())]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    while not all(node.count_subscribers(f"command_{name}") for name in "ab"):
        pass
    yield process
    process.kill()


def test_the_last_commands_reach_a_controller_that_was_paused(node, controller):
    """It gets no processor while the robot comes to rest and the publishers are closed, and goes on afterwards."""
    publishers = CommandPublishers(node, ROBOT, ["a", "b"], COMMAND_QOS)
    while not all(publisher.get_subscription_count() for publisher in of_commands(node)):
        pass
    controller.send_signal(signal.SIGSTOP)
    for k in (1.0, 2.0, 3.0, LAST):
        publishers.publish(np.array([k, k]), 0)
    closing = threading.Thread(target=publishers.close)
    closing.start()
    closing.join(timeout=0.3)
    assert closing.is_alive()
    controller.send_signal(signal.SIGCONT)
    closing.join(timeout=60.0)
    heard = json.loads(controller.communicate(timeout=60.0)[0])
    assert heard == {name: [1.0, 2.0, 3.0, LAST] for name in "ab"}
    assert not closing.is_alive()


def test_nothing_may_move_before_a_controller_has_acknowledged_the_first_command(node, controller):
    """It gets no processor while the publishers are made, and cannot know them yet."""
    controller.send_signal(signal.SIGSTOP)
    publishers, first = CommandPublishers(node, ROBOT, ["a", "b"], COMMAND_QOS), np.array([1.0, 2.0])
    for _ in range(50):
        assert not publishers.heard()
        publishers.publish_until_heard(first, 0)
    controller.send_signal(signal.SIGCONT)
    while not publishers.heard():
        publishers.publish_until_heard(first, 0)
        assert controller.poll() is None
    publishers.publish_until_heard(np.array([LAST, LAST]), 0)
    publishers.close()
    heard = json.loads(controller.communicate(timeout=60.0)[0])
    assert all(set(heard[name][:-1]) == {begin} for name, begin in zip("ab", first, strict=True)), heard


def test_a_command_that_moves_is_not_kept_back(node, monkeypatch):
    """After a start in motion the robot brakes, whoever has heard of it."""
    monkeypatch.setattr(commands, "_REPEAT", 60.0)
    published = []
    publishers = CommandPublishers(node, ROBOT, ["a", "b"], COMMAND_QOS)
    monkeypatch.setattr(publishers, "publish", lambda positions, *command: published.append(positions[0]))
    for position in (0.0, 0.0, 0.1, 0.15, 0.15):
        publishers.publish_until_heard(np.array([position, 0.0]), 0)
    assert published == [0.0, 0.1, 0.15, 0.15]
    publishers.close()


def test_a_controller_that_hangs_is_not_waited_for_for_ever(node, monkeypatch):
    monkeypatch.setattr(commands, "_PATIENCE", 0.05)
    publishers = CommandPublishers(node, ROBOT, ["a", "b"], COMMAND_QOS)
    monkeypatch.setattr(publishers, "_acknowledged", lambda: False)
    publishers.publish_until_heard(np.zeros(2), 0)
    while not publishers.heard():
        pass
    publishers.close()
    assert not of_commands(node)
