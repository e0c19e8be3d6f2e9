"""Policy and executor for a robot whose drivers run already.

    ros2 launch vla_ros vla.launch.py robot:=/path/to/robot.yaml policy:=/path/to/checkpoint
    ros2 topic pub --once -w 3 /instruction std_msgs/msg/String '{data: touch the red cube}'

The policy comes up first, then the executor holds the robot, once its drivers are there. An argument that is not given
changes nothing that the parameter files say. A node that refuses its files or ends ends the launch, with its words and
status 1; a launch that is killed takes its nodes with it, and the robot brakes first.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import LogInfo, OpaqueFunction

from vla_ros.core.discovery import discovery_line
from vla_ros.graph.launching import declare, given, node

CONFIG = Path(get_package_share_directory("vla_ros")) / "config"

ARGUMENTS = {
    "robot": (None, "path of the robot file, or the name of a shipped one (so101)"),
    "policy": (None, "checkpoint folder, a policy file, or ws://HOST:PORT of a server"),
    "device": ("", "where the policy runs: auto, cpu, cuda or cuda:N"),
    "mode": ("", "how chunks are blended: ensemble, latest or rtc (also sets the policy's rtc)"),
    "dry_run": ("", "true: do everything except publish commands"),
    "urdf": ("", "path of a URDF: its limits apply if they are stricter than the robot file's; needed for a `tool`"),
    "robot_description": ("", "text of the URDF instead"),
    "robot_description_topic": ("", "topic of that text instead, as of robot_state_publisher"),
    "policy_params": (str(CONFIG / "policy.yaml"), "parameter file of policy_node"),
    "executor_params": (str(CONFIG / "executor.yaml"), "parameter file of executor_node"),
    "autostart": ("", "false: the nodes wait for `ros2 lifecycle set`"),
    "respawn": ("false", "restart policy_node and task_node if they crash; the executor's end ends the launch"),
    "use_sim_time": ("", "true: follow /clock"),
    "namespace": ("", "namespace of the nodes and of the robot's topics"),
    "log_level": ("", "log level of the nodes: debug, info, warn, error or fatal"),
    "enclaves": ("/vla_ros", "with ROS_SECURITY_ENABLE: folder of the nodes' enclaves in the keystore"),
    "record": ("false", "record a bag"),
    "record_limit": ("0", "s after which the recording ends, 0: never"),
    "output": ("", "folder of the bag, with strftime codes; empty: ROBOT_DATE_TIME here"),
    "markers": ("false", "draw chunk and command for RViz and Foxglove"),
    "console": ("false", "the operator's page in a browser, for this machine only: http://localhost:8080/"),
}


def nodes(context: LaunchContext) -> list:
    mode, respawn = given(context, "mode"), given(context, "respawn", bool) or False
    common = {"robot": given(context, "robot")}
    policy = common | {
        "policy": given(context, "policy"),
        "device": given(context, "device"),
        "rtc": None if mode is None else mode == "rtc",
    }
    executor = common | {
        "mode": mode,
        "dry_run": given(context, "dry_run", bool),
        "urdf": given(context, "urdf"),
        "robot_description": given(context, "robot_description"),
        "robot_description_topic": given(context, "robot_description_topic"),
    }
    recorder = common | {"output": given(context, "output"), "time_limit": given(context, "record_limit", float)}
    recorder["compressed_images"] = True
    console = given(context, "console", bool)
    record = given(context, "record", bool)
    if console and not record:  # the page begins and ends recordings
        recorder["autostart"] = False
    page = common | {"policy": policy["policy"]}
    markers = common | {name: executor[name] for name in ("urdf", "robot_description", "robot_description_topic")}
    return [
        *node(context, "policy_node", policy, file=given(context, "policy_params"), respawn=respawn),
        *node(context, "executor_node", executor, file=given(context, "executor_params"),
              defaults=["autostart_after_policy:=true"]),
        *node(context, "task_node", common, respawn=respawn),
        *(node(context, "recorder_node", recorder, needed=False) if record or console else []),
        *(node(context, "marker_node", markers, needed=False) if given(context, "markers", bool) else []),
        *(node(context, "console_node", page, needed=False) if console else []),
    ]  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), LogInfo(msg=discovery_line()), OpaqueFunction(function=nodes)])
