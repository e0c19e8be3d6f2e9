"""Topics of the simulated robot's further sensors: LiDAR, depth camera, IMU, odometry."""

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2, PointField

from vla_ros.core.command_group import CommandGroup
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.messages.sensors import cloud_message, depth_message, imu_message, odometry_message
from vla_ros.messages.stamps import set_stamp
from vla_ros.nodes.qos import sensor_qos
from vla_ros.nodes.sim.intrinsics import camera_info
from vla_ros.sim.simulated import Simulated

DEPTH_RATE = 10.0  # Hz in real time; in lockstep depth comes with the images


class ScanPublisher:
    """The LiDAR, where the robot file has it. To be called in the world's thread: it casts rays where things are now.

    Attributes:
        publishers: one, or none.
    """

    def __init__(self, node: Node, robot: RobotSpec) -> None:
        topics = [stream.topic for stream in robot.streams if stream.name == "lidar"]
        self.publishers = [node.create_publisher(PointCloud2, topic, sensor_qos(reliable=True)) for topic in topics]

    def publish(self, world: Simulated, stamp: int) -> None:
        for publisher in self.publishers:
            publisher.publish(cloud_message(PointCloud2, PointField, world.lidar(), stamp, "lidar"))


class DepthPublisher:
    """A depth camera, drawn as `CameraPublisher` draws: the stream NAME_depth sees what the camera NAME sees."""

    def __init__(self, node: Node, stream: Stream, view: Simulated) -> None:
        self.rate, self._camera = DEPTH_RATE, stream.name.removesuffix("_depth")
        self._height, self._width = stream.shape[:2]
        self._frame, qos = f"{self._camera}_camera", sensor_qos(reliable=True)
        self.publishers = [node.create_publisher(Image, stream.topic, qos)]
        folder, _, _ = stream.topic.rpartition("/")
        self._info_publisher = node.create_publisher(CameraInfo, f"{folder}/camera_info".lstrip("/"), qos)
        self._info = camera_info(view, self._camera, self._width, self._height)

    def publish(self, view: Simulated, stamp: int) -> None:
        depth = view.depth(self._camera, self._width, self._height)
        self.publishers[0].publish(depth_message(Image, depth, stamp, self._frame))
        self._info_publisher.publish(set_stamp(self._info, stamp))


class OdometryPublisher:
    """Where the base is and how fast, without slip or drift; its frame is the room's."""

    def __init__(self, node: Node, group: CommandGroup, qos: QoSProfile) -> None:
        self._publisher = node.create_publisher(Odometry, group.odometry, qos)

    def publish(self, world: Simulated, stamp: int) -> None:
        self._publisher.publish(odometry_message(Odometry, world.base_pose(), world.base_velocity(), stamp))


class ImuPublisher:
    def __init__(self, node: Node, stream: Stream, qos: QoSProfile) -> None:
        self._publisher = node.create_publisher(Imu, stream.topic, qos)

    def publish(self, world: Simulated, stamp: int) -> None:
        self._publisher.publish(imu_message(Imu, world.imu(), stamp, "imu"))
