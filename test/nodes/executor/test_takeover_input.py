"""The topic of a takeover is another one's, not the robot's own."""

from types import SimpleNamespace

import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.nodes.executor.takeover import TakeoverInput


@pytest.mark.parametrize("own", ["joint states", "commands"])
def test_a_robot_does_not_follow_itself(own):
    robot = RobotSpec.load(config_file("robots/so101.yaml"))
    topic = robot.joint_state_topics[0] if own == "joint states" else robot.groups[0].topic
    node = SimpleNamespace(resolve_topic_name=lambda name: "/" + name.lstrip("/"))
    parameters = SimpleNamespace(takeover_topic="/" + topic.lstrip("/"), reliable_sensors=True)
    with pytest.raises(InputError, match=f"takeover_topic: /{topic.lstrip('/')} is the robot's own.*, expected"):
        TakeoverInput(node, None, robot, parameters, lock=None, now_ns=None, told=None)
