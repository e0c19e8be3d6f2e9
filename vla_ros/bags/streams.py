"""Which topics vla_ros' own nodes and the operator publish; those of the robot are in its file."""

from vla_ros.core.stream import Stream

INSTRUCTION, INSTRUCTION_TYPE = "instruction", "std_msgs/msg/String"
CLOCK, CLOCK_TYPE = "/clock", "rosgraph_msgs/msg/Clock"
CHUNK, CHUNK_TYPE = "action_chunk", "vla_ros/msg/ActionChunk"
EXECUTOR_STATUS, EXECUTOR_STATUS_TYPE = "executor_node/status", "vla_ros/msg/ExecutorStatus"
POLICY_STATUS, E_STOP = "policy_node/status", "e_stop"
TASK_FEEDBACK = "run_instruction/_action/feedback"
TASK_STATUS, TASK_STATUS_TYPE = "run_instruction/_action/status", "action_msgs/msg/GoalStatusArray"
OUTCOME, OUTCOME_TYPE = "outcome", "vla_ros/msg/Outcome"
LATCHED = ("robot_description", "/tf_static")  # published once by the robot's own nodes, where it has them


def graph_streams() -> list[Stream]:
    """Each with its topic relative to the robot's namespace; max_age None: the last message is kept (status)."""
    return [
        Stream(INSTRUCTION, INSTRUCTION, INSTRUCTION_TYPE),
        Stream(CHUNK, CHUNK, CHUNK_TYPE),
        Stream(POLICY_STATUS, POLICY_STATUS, "vla_ros/msg/PolicyStatus", max_age=None),
        Stream(EXECUTOR_STATUS, EXECUTOR_STATUS, EXECUTOR_STATUS_TYPE, max_age=None),
        Stream(OUTCOME, OUTCOME, OUTCOME_TYPE),
        Stream(E_STOP, E_STOP, "std_msgs/msg/Bool"),
        Stream(TASK_STATUS, TASK_STATUS, TASK_STATUS_TYPE, max_age=None),
        Stream(TASK_FEEDBACK, TASK_FEEDBACK, "vla_ros/action/RunInstruction_FeedbackMessage"),
    ]


def resolve(topic: str, namespace: str = "/") -> str:
    """The full name of a topic: relative names get the namespace, absolute ones stay."""
    if topic.startswith("/"):
        return topic
    return "/" + f"{namespace.strip('/')}/{topic}".lstrip("/")
