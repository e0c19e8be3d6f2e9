"""Messages of a LiDAR, an IMU, a depth camera and of odometry, from arrays; `decoders` reads them."""

import math
import sys
from array import array
from typing import Any

import numpy as np

from vla_ros.messages.stamps import set_stamp

_FLOAT32 = 7  # sensor_msgs/PointField


def cloud_message(PointCloud2: type, PointField: type, points: np.ndarray, stamp: int = 0, frame_id: str = "") -> Any:
    """A PointCloud2 (the classes given) of x, y and z from (height, width, 3) float32 m; NaN: no return. `stamp` in
    ns."""
    height, width, _ = points.shape
    message = set_stamp(PointCloud2(), stamp)
    message.header.frame_id = frame_id
    message.height, message.width, message.point_step, message.row_step = height, width, 12, 12 * width
    message.fields = [PointField(name=n, offset=4 * i, datatype=_FLOAT32, count=1) for i, n in enumerate("xyz")]
    message.is_bigendian = sys.byteorder == "big"
    message.is_dense = bool(np.isfinite(points).all())
    message.data = array("B", points.astype(np.float32).tobytes())
    return message


def imu_message(Imu: type, values: np.ndarray, stamp: int = 0, frame_id: str = "") -> Any:
    """An Imu from (6,) angular velocity, rad/s, and linear acceleration, m/s²; it has no orientation."""
    message = set_stamp(Imu(), stamp)
    message.header.frame_id = frame_id
    turning, pushed = message.angular_velocity, message.linear_acceleration
    turning.x, turning.y, turning.z, pushed.x, pushed.y, pushed.z = map(float, values)
    message.orientation_covariance = np.array([-1.0] + [0.0] * 8)  # "no orientation", says sensor_msgs/Imu
    return message


def depth_message(Image: type, depth: np.ndarray, stamp: int = 0, frame_id: str = "") -> Any:
    """An Image, 16UC1, from (H, W) uint16 mm."""
    message = set_stamp(Image(), stamp)
    message.header.frame_id = frame_id
    message.height, message.width = depth.shape
    message.step, message.encoding, message.is_bigendian = 2 * message.width, "16UC1", int(sys.byteorder == "big")
    message.data = array("B", depth.tobytes())
    return message


def odometry_message(Odometry: type, pose: np.ndarray, velocity: np.ndarray, stamp: int = 0) -> Any:
    """An Odometry of `base_link` from (3,) x, y, m, and yaw, rad, in `odom`, and (3,) velocities along and about its
    own axes."""
    message = set_stamp(Odometry(), stamp)
    message.header.frame_id, message.child_frame_id = "odom", "base_link"
    place, turned, twist = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist
    place.x, place.y = float(pose[0]), float(pose[1])
    place.z = turned.x = turned.y = 0.0
    turned.z, turned.w = math.sin(pose[2] / 2), math.cos(pose[2] / 2)
    twist.linear.x, twist.linear.y, twist.angular.z = map(float, velocity)
    return message
