"""Which topics belong to a robot, and what part of vla_ros each of them is."""

from dataclasses import dataclass

from vla_ros.bags.compress import COMPRESSED_IMAGE, IMAGE
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import COMMAND_TYPES
from vla_ros.messages.observation import JOINT_STATES

JOINT_STATE_TYPE = "sensor_msgs/msg/JointState"
INSTRUCTION, INSTRUCTION_TYPE = "instruction", "std_msgs/msg/String"
CLOCK, CLOCK_TYPE = "/clock", "rosgraph_msgs/msg/Clock"
CHUNK, CHUNK_TYPE = "action_chunk", "vla_ros/msg/ActionChunk"
EXECUTOR_STATUS, EXECUTOR_STATUS_TYPE = "executor_node/status", "vla_ros/msg/ExecutorStatus"
TASK_STATUS, TASK_STATUS_TYPE = "run_instruction/_action/status", "action_msgs/msg/GoalStatusArray"


@dataclass(frozen=True)
class Stream:
    """A topic with a meaning.

    Attributes:
        name: camera name, "joint_states", "command/GROUP", or the topic itself.
        topic: as the robot file or vla_ros names it, relative to the robot's namespace.
        latched: the publisher keeps its last message for late subscribers (status).
    """

    name: str
    topic: str
    type: str
    latched: bool = False


def robot_streams(robot: RobotSpec) -> list[Stream]:
    """Cameras, joint states and commands, as the robot file names them."""
    cameras = [
        Stream(camera.name, camera.topic, COMPRESSED_IMAGE if camera.compressed else IMAGE) for camera in robot.cameras
    ]
    commands = [
        Stream(f"command/{group.name}", group.topic, COMMAND_TYPES[group.interface]) for group in robot.groups
    ]
    return [*cameras, Stream(JOINT_STATES, robot.joint_state_topic, JOINT_STATE_TYPE), *commands]


def graph_streams() -> list[Stream]:
    """What vla_ros' own nodes and the operator publish."""
    return [
        Stream(INSTRUCTION, INSTRUCTION, INSTRUCTION_TYPE),
        Stream(CHUNK, CHUNK, CHUNK_TYPE),
        Stream("policy_node/status", "policy_node/status", "vla_ros/msg/PolicyStatus", latched=True),
        Stream(EXECUTOR_STATUS, EXECUTOR_STATUS, EXECUTOR_STATUS_TYPE, latched=True),
        Stream("e_stop", "e_stop", "std_msgs/msg/Bool"),
        Stream(TASK_STATUS, TASK_STATUS, TASK_STATUS_TYPE, latched=True),
    ]


def resolve(topic: str, namespace: str = "/") -> str:
    """The full name of a topic: relative names lie in the namespace, absolute ones stay."""
    if topic.startswith("/"):
        return topic
    return f"{namespace.rstrip('/')}/{topic}"
