"""A gymnasium environment in the place of the simulated robot, in lockstep."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import JointState

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.joints import TWIST, joint_state_message
from vla_ros.messages.stamps import set_stamp
from vla_ros.nodes.qos import sensor_qos
from vla_ros.nodes.sim.loops import Stage
from vla_ros.nodes.sim.sensors import ScanPublisher
from vla_ros.nodes.sim.streams import CameraPublisher, Commands, CubePublisher
from vla_ros.nodes.sim.task import TaskWatch
from vla_ros.sim.environments import Environment


def check_robot(robot: RobotSpec, environment: Environment) -> None:
    """Raises InputError where the robot file does not describe the environment's robot."""
    name, benchmark = environment.name, environment.benchmark
    if sorted(robot.joint_names) != sorted(environment.joint_names):
        raise InputError(
            f"robot {robot.name}: joints {robot.joint_names}, environment {name} has {environment.joint_names}: take "
            f"robot {benchmark.robot}"
        )
    for camera in robot.camera_names:
        if camera not in benchmark.cameras:
            raise InputError(f"robot {robot.name}: camera {camera!r}, environment {name} has {[*benchmark.cameras]}")
    if robot.control_rate != benchmark.rate:
        raise InputError(
            f"robot {robot.name}: control_rate {robot.control_rate:g} Hz, environment {name} has {benchmark.rate:g} Hz"
        )
    if robot.streams or len(robot.joint_state_topics) > 1:
        raise InputError(f"robot {robot.name}: environment {name} has one topic of joint states and no further sensors")


class EnvironmentStage(Stage):
    """What the loop in lockstep works with; one process steps and draws, so that the view is the world."""

    def reset(self, seed: int, foreign_images: bool = False, disturbance: float = 0.0) -> None:
        """The episode of `seed`; it has neither images of another episode nor errors of its motors."""
        self.world.reset(seed)
        self.commands.clear()
        self.targets = self.world.at_rest()

    def step(self) -> bool:
        self.targets = self.commands.apply(self.targets)
        self.world.step(self.targets)
        return self.task.update()

    def show(self, joints: np.ndarray, poses: Mapping[str, np.ndarray]) -> None:
        """Nothing: it is drawn as it is."""


class EnvironmentStates:
    """Joint states of an environment, without velocities, and odometry of what it drives by velocities."""

    def __init__(self, node: Node, robot: RobotSpec, depth: int) -> None:
        qos = sensor_qos(reliable=True, depth=depth)
        self.publisher = node.create_publisher(JointState, robot.joint_state_topics[0], qos)
        self._odometry = [(group, node.create_publisher(Odometry, group.odometry, qos)) for group in robot.base_groups]

    def publish(self, world: Environment, stamp: int) -> None:
        values = dict(zip(world.joint_names, world.joint_positions(), strict=True))
        for group, publisher in self._odometry:
            message = set_stamp(Odometry(), stamp)
            for name, axis in zip(group.joints, group.axes, strict=True):
                vector, component = TWIST[axis]
                setattr(getattr(message.twist.twist, vector), component, float(values.pop(name)))
            publisher.publish(message)
        self.publisher.publish(joint_state_message(JointState, [*values], np.array([*values.values()]), stamp))


class _Judged:
    """What the environment itself says of its task."""

    failed = False  # it does not say

    def __init__(self, world: Environment) -> None:
        self._world, self.succeeded = world, False
        self.success_time: float | None = None

    def update(self) -> bool:
        if self._world.success and not self.succeeded:
            self.succeeded, self.success_time = True, self._world.time
        return self.succeeded


class EnvironmentTask(TaskWatch):
    """Success as the benchmark judges it, whatever the instruction is."""

    def _judge(self, text: str, world: Any) -> _Judged:
        return _Judged(world)

    def _figures(self, world: Any) -> dict[str, str]:
        return {"kind": world.name, "highest_reward": f"{world.highest_reward:.4f}"}


def environment_stage(node: Node, robot: RobotSpec, environment: Environment, depth: int) -> EnvironmentStage:
    """Raises InputError where the robot file does not fit. `depth`: of the queue of joint states."""
    check_robot(robot, environment)
    return EnvironmentStage(
        node=node,
        world=environment,
        view=environment,
        commands=Commands(node, robot, environment),
        states=EnvironmentStates(node, robot, depth),
        scans=ScanPublisher(node, robot),
        cubes=CubePublisher(node),
        cameras=[CameraPublisher(node, camera, None) for camera in robot.cameras],
        task=EnvironmentTask(node),
        period=1.0 / robot.control_rate,
    )
