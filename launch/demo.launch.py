"""The simulated SO-101 with policy, executor and a bag recorder.

    ros2 launch vla_ros demo.launch.py
    ros2 topic pub --once -w 5 /instruction std_msgs/msg/String '{data: pick up the blue cube}'

-w: policy, executor, task node, simulator and recorder listen; with record:=false they are four. It takes the arguments
of vla.launch.py too. `vla-ros demo` shows the same with three instructions, and ends with a video and a plot.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

import vla_ros.core
from vla_ros.graph.launching import declare, given, node

SHARE = Path(get_package_share_directory("vla_ros"))
CHECKPOINT = Path(vla_ros.core.__file__).parents[1] / "data" / "checkpoints" / "pi0_tiny"

# Those of vla.launch.py that have another default here, and the simulator's own.
ARGUMENTS = {
    "robot": ("so101", "path of the robot file, or the name of a shipped one"),
    "policy": (str(CHECKPOINT), "checkpoint folder, or a policy file that names one"),
    "executor_params": (str(SHARE / "config" / "executor_demo.yaml"), "parameter file of executor_node"),
    "use_sim_time": ("", "true: the simulator publishes /clock, and the nodes follow it"),
    "record": ("true", "record a bag"),
    "record_limit": ("300", "s after which the recording ends, 0: never"),
    "output": ("demo_%Y-%m-%d-%H%M%S", "folder of the bag, with strftime codes"),
    "seed": ("0", "seed of the cubes' layout"),
}


def simulator(context: LaunchContext) -> list:
    own = {
        "robot": given(context, "robot"),
        "seed": given(context, "seed", int),
        "clock": given(context, "use_sim_time", bool),
        "use_sim_time": False,  # it is the clock
    }
    return node(context, "sim_node", own)


def generate_launch_description() -> LaunchDescription:
    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "vla.launch.py")),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in ARGUMENTS if name != "seed"],
    )
    return LaunchDescription([*declare(ARGUMENTS), included, OpaqueFunction(function=simulator)])
