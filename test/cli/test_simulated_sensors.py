"""A demonstration's sensors are what a policy gets from their topics: the same numbers by real messages."""

from dataclasses import replace

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, Imu, PointCloud2, PointField

from vla_ros.cli.simulated_sensors import Sense
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Window
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.sensors import cloud_message, depth_message, imu_message, odometry_message
from vla_ros.sim.room_world import RoomWorld

ROBOT = RobotSpec.load("lekiwi_sim")


def test_the_same_as_by_ros_messages():
    world = RoomWorld(2)
    messages = {
        "lidar": cloud_message(PointCloud2, PointField, world.lidar(), 1, "lidar"),
        "imu": imu_message(Imu, world.imu(), 1, "imu"),
        "front_depth": depth_message(Image, world.depth("front", 80, 60), 1, "front_camera"),
        "place": odometry_message(Odometry, world.base_pose(), world.base_velocity(), 1),
    }
    found = Sense(ROBOT)(world)
    for name, message in messages.items():
        sent = deserialize_message(serialize_message(message), type(message))
        for reading, value in decoder_of(ROBOT.stream(name), ROBOT)(sent).items():
            assert value.dtype == found[reading].dtype
            np.testing.assert_array_equal(value, found.pop(reading))
    assert not found
    x, y, z, w = decoder_of(ROBOT.stream("place"), ROBOT)(messages["place"])["place"]
    np.testing.assert_allclose([x, y, 2 * np.arctan2(z, w)], world.layout.start, atol=1e-6)
    world.close()


def test_a_window_needs_the_values_before():
    imu = replace(ROBOT.stream("imu"), window=Window(5, 100.0))
    with pytest.raises(InputError, match="stream imu with a window, expected none here; --bags records them"):
        Sense(replace(ROBOT, streams=(imu,)))
