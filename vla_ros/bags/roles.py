"""What a recorded topic would do if it is published while a robot is connected."""

from vla_ros.bags.streams import CHUNK, CLOCK_TYPE, E_STOP, EXECUTOR_STATUS, INSTRUCTION, POLICY_STATUS, resolve
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATE

# Harmless whatever the topic; of all others only the streams of a robot file are known to be sensors.
_SENSORS = ("sensor_msgs/", "stereo_msgs/", "visualization_msgs/", "tf2_msgs/msg/TFMessage")
_STATES = (JOINT_STATE, "sensor_msgs/msg/MultiDOFJointState")
_HANDS = ("sensor_msgs/msg/Joy", "sensor_msgs/msg/JoyFeedback", "sensor_msgs/msg/JoyFeedbackArray")
_TOLD = (INSTRUCTION, CHUNK, E_STOP, EXECUTOR_STATUS, POLICY_STATUS)


def command_topics(robot: RobotSpec | None, namespace: str = "/") -> set[str]:
    """Full names of the topics on which a robot is commanded."""
    return {resolve(group.topic, namespace) for group in robot.groups} if robot else set()


def objection(topic: str, typename: str, robot: RobotSpec | None = None, namespace: str = "/") -> str:
    """Why a topic is only published on request, in words; "" if there is no objection.

    Args:
        topic: full name.
        robot: whose commands and sensors are known; without one the type of the messages decides.
    """
    known = robot.all_streams.values() if robot else ()
    streams = [stream for stream in known if resolve(stream.topic, namespace) == topic]  # several may read one topic
    if topic in command_topics(robot, namespace):
        return "commands the robot; --commands publishes it"
    if "/_action/" in topic or topic.endswith("/_service_event"):
        return "belongs to an action or a service"
    if typename == CLOCK_TYPE:
        return "the time; --clock publishes it"
    if typename in _STATES or any(stream.is_state for stream in streams):
        return "joint states, which a robot's nodes act on"
    if typename in _HANDS:
        return "a joystick"
    if typename.startswith("vla_ros/") or topic.endswith(tuple(f"/{name}" for name in (*_TOLD, "claim"))):
        return "internal to the nodes of a robot"
    if streams or typename.startswith(_SENSORS):
        return ""
    return f"{typename} may command a robot" + ("" if robot else "; a robot file (--robot) says which topics are "
                                                                 "sensors")
