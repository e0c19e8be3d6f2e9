"""Topics of the simulated robot: joint states, images and joint commands."""

import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, Vector3
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, MultiDOFJointState
from std_msgs.msg import String

from vla_ros.control.kinematics import Kinematics
from vla_ros.core.errors import InputError
from vla_ros.core.robot import Camera, CommandGroup, RobotSpec
from vla_ros.messages.commands import COMMAND_TYPES, read_command
from vla_ros.messages.images import compressed_image_message, image_message
from vla_ros.messages.joints import joint_state_message
from vla_ros.messages.stamps import set_stamp, stamp_ns
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos
from vla_ros.nodes.sim.frames import Frames
from vla_ros.nodes.sim.intrinsics import camera_info
from vla_ros.nodes.sim.sensors import ImuPublisher, OdometryPublisher
from vla_ros.nodes.streams import message_class
from vla_ros.sim.description import urdf
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.worlds import check_sensors

_DRIVE_TIMEOUT = 0.5  # s, as cmd_vel_timeout of ros2_control's drive controllers


def check_robot(robot: RobotSpec, world: Simulated) -> None:
    """Raises InputError where the robot file asks for what the simulator does not have."""
    if len(robot.joint_state_topics) > 1:
        raise InputError(f"robot {robot.name}: joint states on {robot.joint_state_topics}, the simulator has one topic")
    if any((*robot.joint_prefixes, *(group.prefix for group in robot.groups))):
        raise InputError(f"robot {robot.name}: prefixes of joints, the simulator has none")
    if group := robot.tool_group:
        raise InputError(f"robot {robot.name}: command group {group.name} has interface {group.interface}, the "
                         "simulator's arm takes joint positions alone")
    check_sensors(robot, type(world))
    periods = 1.0 / robot.control_rate / world.control_period
    if abs(periods - round(periods)) > 1e-6 or periods < 0.5:
        raise InputError(
            f"robot {robot.name}: control_rate {robot.control_rate} Hz, expected "
            f"{1 / world.control_period:g} Hz or a whole fraction of it"
        )


def check_stamps(robot: RobotSpec) -> None:
    """Raises InputError where commands have no stamp of their time, for which a simulation in lockstep waits."""
    instead = {"float64_multi_array": "joint_state or joint_trajectory", "base_twist": "base_twist_stamped"}
    for group in robot.groups:
        if group.interface in instead or group.stamp == "zero":
            what = "stamp zero" if group.stamp else f"interface {group.interface}"
            raise InputError(f"robot {robot.name}: command group {group.name} has {what}, lockstep needs commands with "
                             f"the stamp of their time; expected {instead.get(group.interface, 'now')}")


class Commands:
    """The newest command of every group, and a condition that is notified when one arrives."""

    def __init__(self, node: Node, robot: RobotSpec, world: Simulated) -> None:
        self._groups = robot.groups
        self._order = [world.joint_names.index(name) for group in robot.groups for name in group.joints]
        self._driving = np.array([world.joint_names.index(name) for g in robot.base_groups for name in g.joints], int)
        self._timeout, self._quiet = round(_DRIVE_TIMEOUT * robot.control_rate), 0
        self._logger = node.get_logger()
        self.arrived = threading.Condition()
        self._stamps: dict[str, int] = {}
        self._positions: dict[str, np.ndarray] = {}
        for group in robot.groups:
            kind = message_class(COMMAND_TYPES[group.interface])
            node.create_subscription(kind, group.topic, lambda m, g=group: self._take(g, m), COMMAND_QOS)

    def _take(self, group: CommandGroup, message: Any) -> None:
        try:
            positions = read_command(group, message)
        except InputError as error:
            self._logger.warning(f"refused: {error}", throttle_duration_sec=1.0)
            return
        with self.arrived:
            self._positions[group.name] = positions
            self._quiet = 0 if group.of_base else self._quiet
            if hasattr(message, "header"):
                self._stamps[group.name] = stamp_ns(message)
            self.arrived.notify_all()

    def clear(self) -> None:
        with self.arrived:
            self._stamps.clear()
            self._positions.clear()
            self._quiet = 0

    def lacking(self, stamp: int) -> list[str]:
        """Groups whose newest command is not stamped `stamp` (ns) or later. Call with `arrived` held."""
        return [group.name for group in self._groups if self._stamps.get(group.name, -1) < stamp]

    def newest(self) -> int:
        """Stamp of the newest command, ns, -1 for none. Call with `arrived` held."""
        return max(self._stamps.values(), default=-1)

    def apply(self, targets: np.ndarray) -> np.ndarray:
        """`targets` (J,) in the world's order, with the commands that have come written over them. To be called once a
        control period: a base that has not been commanded for half a second is told to stand, as by its driver."""
        with self.arrived:
            if len(self._positions) < len(self._groups):
                return targets  # the arm does not move before the gripper has a command too
            result = targets.copy()
            result[self._order] = np.concatenate([self._positions[group.name] for group in self._groups])
            self._quiet += 1
            if self._quiet > self._timeout:
                result[self._driving] = 0.0
            return result


class StatePublisher:
    """Joint states of a world, what else is measured as often, and what viewers need besides: robot_description, /tf
    and /tf_static."""

    def __init__(self, node: Node, robot: RobotSpec, world: Simulated, depth: int = 10) -> None:
        qos = sensor_qos(reliable=True, depth=depth)
        self.publisher = node.create_publisher(JointState, robot.joint_state_topics[0], qos)
        description = urdf(world.model, robot.name)
        self._description = node.create_publisher(String, "robot_description", STATUS_QOS)
        self._description.publish(String(data=description))
        self._frames = Frames(node, Kinematics(description))
        self._more = [OdometryPublisher(node, group, qos) for group in robot.base_groups]
        self._more += [ImuPublisher(node, stream, qos) for stream in robot.streams if stream.name == "imu"]

    def publish(self, world: Simulated, stamp: int) -> None:
        velocities = world.joint_velocities()  # of the arm, whose joints come first
        names, positions = world.joint_names[: len(velocities)], world.joint_positions()[: len(velocities)]
        self.publisher.publish(joint_state_message(JointState, names, positions, stamp, velocities))
        for publisher in self._more:
            publisher.publish(world, stamp)
        self._frames.publish(dict(zip(names, positions, strict=True)), stamp, world.base_pose())


class CubePublisher:
    """Where the cubes are, and what else is somewhere, as a motion capture system would say it. For demonstrators; no
    policy sees it."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(MultiDOFJointState, "~/cubes", sensor_qos(reliable=True, depth=10))

    def publish(self, world: Simulated, stamp: int) -> None:
        poses = world.poses()
        message = MultiDOFJointState(joint_names=list(poses))
        message.header.frame_id = "base"
        message.transforms = [
            Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(w=w, x=a, y=b, z=c))
            for x, y, z, w, a, b, c in (pose.tolist() for pose in poses.values())
        ]
        self._publisher.publish(set_stamp(message, stamp))


def read_cubes(message: MultiDOFJointState) -> dict[str, np.ndarray]:
    """What `CubePublisher` wrote, as `Simulated.place` takes it: name -> (7,)."""
    poses = {}
    for name, pose in zip(message.joint_names, message.transforms, strict=True):
        place, turn = pose.translation, pose.rotation
        poses[name] = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
    return poses


class CameraPublisher:
    """Images and CameraInfo of one camera.

    The robot file says whether its topic carries raw or compressed images; raw ones are also available compressed, on
    `TOPIC/compressed`, encoded only while there is a subscriber.
    """

    def __init__(self, node: Node, camera: Camera, view: Simulated | None) -> None:
        """`view`: what knows the camera's intrinsics; without one there is no CameraInfo."""
        self.camera, self.rate = camera, camera.rate
        self._frame = f"{camera.name}_camera"
        qos = sensor_qos(reliable=True)
        if camera.compressed:
            self._raw, self._compressed = None, node.create_publisher(CompressedImage, camera.topic, qos)
        else:
            self._raw = node.create_publisher(Image, camera.topic, qos)
            self._compressed = node.create_publisher(CompressedImage, f"{camera.topic}/compressed", qos)
        self.publishers = [publisher for publisher in (self._raw, self._compressed) if publisher is not None]
        self._info = None
        if view is not None:
            folder, _, _ = camera.topic.rpartition("/")
            self._info_publisher = node.create_publisher(CameraInfo, f"{folder}/camera_info".lstrip("/"), qos)
            self._info = camera_info(view, camera.name, camera.width, camera.height)

    def publish(self, view: Simulated, stamp: int) -> None:
        """Draw what the view shows and publish it; in the thread that owns the view."""
        rgb = view.render(self.camera.name, self.camera.width, self.camera.height)
        if self._raw is not None:
            self._raw.publish(image_message(Image, rgb, stamp, self._frame))
        if self.camera.compressed or self._compressed.get_subscription_count():
            self._compressed.publish(compressed_image_message(CompressedImage, rgb, stamp, self._frame))
        if self._info is not None:
            self._info_publisher.publish(set_stamp(self._info, stamp))
