"""Policy and executor for a robot whose drivers run already.

    ros2 launch vla_ros vla.launch.py robot:=/path/to/robot.yaml policy:=/path/to/checkpoint
    ros2 topic pub --once /instruction std_msgs/msg/String '{data: touch the red cube}'

With `autostart:=true` (the default) each node configures itself and is activated as soon as its inputs are there;
with `autostart:=false` they wait for `ros2 lifecycle set`.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from vla_ros.core.discovery import discovery_line

CONFIG = Path(get_package_share_directory("vla_ros")) / "config"

ARGUMENTS = {
    "robot": (None, "path of the robot file, or the name of a shipped one (so101)"),
    "policy": (None, "checkpoint folder, or a policy file that names one"),
    "device": ("", "where the policy runs: auto, cpu, cuda or cuda:N; empty: what policy_params says"),
    "autostart": ("true", "configure and activate the nodes"),
    "use_sim_time": ("false", "follow /clock"),
    "namespace": ("", "of the nodes and of the robot's topics"),
    "enclaves": ("/vla_ros", "with ROS_SECURITY_ENABLE: folder of the nodes' enclaves in the keystore"),
    "policy_params": (str(CONFIG / "policy.yaml"), "parameter file of policy_node"),
    "executor_params": (str(CONFIG / "executor.yaml"), "parameter file of executor_node"),
}


def flag(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def text(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=str)


def node(name: str, *parameters) -> Node:
    common = {"robot": text("robot"), "autostart": flag("autostart"), "use_sim_time": flag("use_sim_time")}
    return Node(
        package="vla_ros",
        executable=name,
        name=name,
        namespace=LaunchConfiguration("namespace"),
        parameters=[*parameters, common],
        ros_arguments=["--enclave", [LaunchConfiguration("enclaves"), f"/{name}"]],
        output="both",
        emulate_tty=True,
        sigterm_timeout="15",  # the executor brakes first
    )


def policy_node(context) -> list[Node]:
    given = {"policy": text("policy")}
    if LaunchConfiguration("device").perform(context):
        given["device"] = text("device")
    return [node("policy_node", ParameterFile(LaunchConfiguration("policy_params")), given)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=default, description=description)
              for name, (default, description) in ARGUMENTS.items()),
            LogInfo(msg=discovery_line()),
            OpaqueFunction(function=policy_node),
            node("executor_node", ParameterFile(LaunchConfiguration("executor_params"))),
            node("task_node"),
        ]
    )  # fmt: skip
