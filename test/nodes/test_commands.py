"""What is published where commands cease."""

from types import SimpleNamespace

import numpy as np
from geometry_msgs.msg import Twist

from vla_ros.core.command_group import CommandGroup
from vla_ros.messages.commands import BaseWriter
from vla_ros.nodes.commands import CommandPublishers


def test_a_base_that_stands_is_not_told_so_again():
    """Another commander may drive it by then."""
    said: list[float] = []
    group = CommandGroup("base", "cmd_vel", "base_twist", ("x.vel",), axes=("x",), odometry="odom")
    publisher = SimpleNamespace(publish=lambda message: said.append(message.linear.x))
    commands = CommandPublishers.__new__(CommandPublishers)
    commands._bases, commands._groups, commands._goals, commands._tool = (
        [(publisher, BaseWriter(group, Twist()), np.array([0]))], [], [], None
    )
    for speed in (0.5, 0.4):
        commands.publish(np.array([speed]), 1)
    commands.stop_bases(2)
    commands.stop_bases(3)
    assert said == [0.5, 0.4, 0.0]
