"""A robot made of publishers: the SO-101's topics, with stamps that the test chooses."""

from pathlib import Path

import numpy as np
from sensor_msgs.msg import Image, JointState
from system.support import Probe

from vla_ros.core.robot import RobotSpec
from vla_ros.messages.stamps import set_stamp
from vla_ros.nodes.qos import sensor_qos

ROBOT_FILE = Path(__file__).parents[2] / "config" / "robots" / "so101.yaml"


def image_message(value: int, stamp_ns: int, width: int = 640, height: int = 480) -> Image:
    message = set_stamp(Image(), stamp_ns)
    message.width, message.height, message.step, message.encoding = width, height, 3 * width, "rgb8"
    message.data = np.full(height * width * 3, value, np.uint8).tobytes()
    return message


class FakeRobot:
    """Publishes images and joint states when told to, on the clock of the graph's own node.

    As many robots do: the gripper's position comes from a publisher of its own, beside wheels that nobody asked for.
    """

    def __init__(self, probe: Probe) -> None:
        self.spec = RobotSpec.load(ROBOT_FILE)
        self.probe = probe
        self.node = probe.graph.node
        qos = sensor_qos(reliable=True)
        self.images = {camera.name: probe.publisher(camera.topic, Image, qos) for camera in self.spec.cameras}
        self.arm, self.hand = (probe.publisher(self.spec.joint_state_topics[0], JointState, qos) for _ in range(2))

    def close(self) -> None:
        for publisher in (*self.images.values(), self.arm, self.hand):
            self.node.destroy_publisher(publisher)

    def now(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def publish_joints(self, stamp_ns: int, position: float = 0.0, hand: bool = True) -> None:
        *arm, gripper = self.spec.joint_names
        for publisher, names in ((self.arm, arm[::-1]), (self.hand, ["wheel", gripper] if hand else ["wheel"])):
            message = set_stamp(JointState(), stamp_ns)
            message.name, message.position = names, [position] * len(names)
            publisher.publish(message)

    def observe(
        self,
        stamp_ns: int | None = None,
        cameras: tuple[str, ...] = ("front", "wrist"),
        value: int = 100,
        size: tuple[int, int] = (640, 480),
    ) -> int:
        """One set of images and a joint state with one stamp; returns it."""
        stamp = self.now() if stamp_ns is None else stamp_ns
        for camera in cameras:
            self.images[camera].publish(image_message(value, stamp, *size))
        self.publish_joints(stamp)
        return stamp
