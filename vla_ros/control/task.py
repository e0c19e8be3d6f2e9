"""Decides when a task ends, and why, from the time and the statuses of the nodes."""

import math
from enum import IntEnum

from vla_ros.control.supervisor import State
from vla_ros.core.instruction import instruction_problem


class Outcome(IntEnum):
    """The values equal the error codes of RunInstruction.action."""

    SUCCESS = 0
    TIME_LIMIT = 1
    CANCELED = 2
    PREEMPTED = 3
    E_STOPPED = 4
    NOT_ACTIVE = 5
    STOPPED = 6
    INVALID_GOAL = 7


SUCCEEDED, FAILED, ABORTED = 1, 2, 3  # outcome of an episode; the constants of Outcome.msg
VERDICTS = {  # of a run that had begun: its outcome, and who reported it
    Outcome.SUCCESS: (SUCCEEDED, "success_topic"),
    Outcome.TIME_LIMIT: (FAILED, "time_limit"),
    Outcome.CANCELED: (ABORTED, "client"),
    Outcome.PREEMPTED: (ABORTED, "a newer instruction"),
    Outcome.E_STOPPED: (ABORTED, "e_stop"),
    Outcome.NOT_ACTIVE: (ABORTED, "task_node"),
    Outcome.STOPPED: (ABORTED, "watchdog"),
}

POLICY_IDLE, POLICY_FAILED = 2, 5  # PolicyStatus.IDLE and .FAILED: the states in between are those of an active policy
MOVING = (State.APPROACHING, State.EXECUTING, State.HOLDING, State.TAKEN_OVER)


def problem(
    policy_state: int | None, executor_state: int | None, executor_message: str = ""
) -> tuple[Outcome, str] | None:
    """Why no task can continue with the nodes in these states; None if it can.

    Args:
        policy_state: PolicyStatus.state, None if the node was not heard lately.
        executor_state: ExecutorStatus.state, likewise.
        executor_message: the executor's message about its state.
    """
    if executor_state is None:
        return Outcome.NOT_ACTIVE, "executor_node was not heard for a while"
    if executor_state == State.E_STOPPED:
        return Outcome.E_STOPPED, executor_message or "the emergency stop is latched"
    if executor_state == State.STOPPED:
        return Outcome.STOPPED, executor_message or "a watchdog of the executor stopped the robot"
    if executor_state not in MOVING:
        return Outcome.NOT_ACTIVE, "executor_node is not active"
    if policy_state is None:
        return Outcome.NOT_ACTIVE, "policy_node was not heard for a while"
    if not POLICY_IDLE <= policy_state <= POLICY_FAILED:
        return Outcome.NOT_ACTIVE, "policy_node is not active"
    return None


def goal_problem(instruction: str, time_limit: float) -> str:
    """What is wrong with a goal; "" if nothing is. `time_limit`: s, 0 for none."""
    if not instruction.strip():
        return "instruction: empty, expected a sentence"
    if problem := instruction_problem(instruction):
        return problem
    if not (math.isfinite(time_limit) and time_limit >= 0):
        return f"time_limit: {time_limit} s, expected a finite number, 0 for none"
    return ""
