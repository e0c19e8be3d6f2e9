"""The simulated SO-101 with policy, executor and a bag recorder.

    ros2 launch vla_ros demo.launch.py
    ros2 topic pub --once /instruction std_msgs/msg/String '{data: pick up the blue cube}'

`vla-ros demo` shows the same with three instructions, and ends with a video and a plot.
"""

from importlib.resources import files
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("vla_ros"))
CHECKPOINT = files("vla_ros.core").joinpath("..", "data", "checkpoints", "pi0_tiny")

ARGUMENTS = {
    "robot": ("so101", "path of the robot file, or the name of a shipped one"),
    "policy": (str(CHECKPOINT), "checkpoint folder, or a policy file that names one"),
    "device": ("", "where the policy runs: auto, cpu, cuda or cuda:N; empty: what policy_params says"),
    "policy_params": (str(SHARE / "config" / "policy.yaml"), "parameter file of policy_node"),
    "executor_params": (str(SHARE / "config" / "executor_demo.yaml"), "parameter file of executor_node"),
    "autostart": ("true", "configure and activate the nodes"),
    "namespace": ("", "of the nodes and of the robot's topics"),
    "enclaves": ("/vla_ros", "with ROS_SECURITY_ENABLE: folder of the nodes' enclaves in the keystore"),
    "seed": ("0", "where the cubes lie"),
    "record": ("true", "record a bag"),
    "output": ("demo_%Y-%m-%d-%H%M%S", "folder of the bag, with strftime codes"),
}


def typed(name: str, kind: type) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def node(name: str, parameters: dict, **options) -> Node:
    return Node(
        package="vla_ros",
        executable=name,
        name=name,
        namespace=LaunchConfiguration("namespace"),
        parameters=[{"robot": typed("robot", str), "autostart": typed("autostart", bool)} | parameters],
        ros_arguments=["--enclave", [LaunchConfiguration("enclaves"), f"/{name}"]],
        output="both",
        emulate_tty=True,
        **options,
    )


def generate_launch_description() -> LaunchDescription:
    recorded = IfCondition(LaunchConfiguration("record"))
    passed = ("robot", "policy", "device", "autostart", "namespace", "enclaves", "policy_params", "executor_params")
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=default, description=description)
              for name, (default, description) in ARGUMENTS.items()),
            node("sim_node", {"seed": typed("seed", int)}),
            node("recorder_node", {"output": typed("output", str)}, condition=recorded),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(SHARE / "launch" / "vla.launch.py")),
                launch_arguments=[(name, LaunchConfiguration(name)) for name in passed],
            ),
        ]
    )  # fmt: skip
