"""The SO-101's controllers over mock hardware: ros2_control without a robot. Needs ros2_control and ros2_controllers.

    ros2 launch vla_ros so101_mock.launch.py
"""

from pathlib import Path

from launch import LaunchDescription
from launch_ros.actions import Node

HERE = Path(__file__).resolve().parent
CONTROLLERS = ("joint_state_broadcaster", "arm_controller", "gripper_controller")


def generate_launch_description() -> LaunchDescription:
    description = {"robot_description": (HERE / "so101.urdf").read_text()}
    spawners = [Node(package="controller_manager", executable="spawner", arguments=[name]) for name in CONTROLLERS]
    return LaunchDescription(
        [
            Node(package="robot_state_publisher", executable="robot_state_publisher", parameters=[description]),
            Node(
                package="controller_manager",
                executable="ros2_control_node",
                parameters=[str(HERE / "so101_controllers.yaml")],
                remappings=[("~/robot_description", "/robot_description")],
            ),
            *spawners,
        ]
    )
