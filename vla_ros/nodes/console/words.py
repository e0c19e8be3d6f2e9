"""Meaning and recovery of each state of the executor, as in docs/safety.md."""

from vla_ros.msg import ExecutorStatus as E
from vla_ros.msg import PolicyStatus as P

# (state, cause) -> (what it is, how it ends)
EXECUTOR = {
    (E.UNCONFIGURED, 0): ("not configured", "configure"),
    (E.INACTIVE, 0): ("not activated", "activate"),
    (E.APPROACHING, 0): ("the first chunk after a hold or a stop: the robot moves to it within the "
                         "limits", "it reaches the chunk"),
    (E.EXECUTING, 0): ("the robot follows chunks", ""),
    (E.HOLDING, E.CAUSE_NO_CHUNK): ("no chunk yet, or the last one is over", "the next accepted chunk"),
    (E.HOLDING, E.CAUSE_NO_INSTRUCTION): ("empty instruction", "an instruction and a chunk for it"),
    (E.HOLDING, E.CAUSE_TAKEOVER_PAUSED): (
        "taken over, by a source that is not followed: after a stop, its own silence or jump, or an empty instruction",
        "taken over again, or given back and a chunk of what is seen afterwards",
    ),
    (E.TAKEN_OVER, 0): (
        "a person's source commands in place of the policy, within the limits",
        "control is given back, then a chunk observed afterwards",
    ),
    (E.STOPPED, E.CAUSE_STALE_JOINT_STATES): (
        "a joint without a believable position for joint_state_timeout", "all joints fresh, then a chunk"
    ),
    (E.STOPPED, E.CAUSE_FOLLOWING_ERROR): (
        "measured further from commanded than following_limit allows, or the controller does not follow",
        "0.5 s below half the limit, then a chunk; or deactivate and activate, which starts as an activation does",
    ),
    (E.STOPPED, E.CAUSE_POLICY_GONE): (
        "the policy's status did not arrive for 3 s, or nobody publishes it any more",
        "the status arrives again, or a chunk observed after the stop",
    ),
    (E.STOPPED, E.CAUSE_OVERRUN): (
        "the control loop stalled longer than overrun_limit",
        "0.5 s without a stall, then a chunk; it continues from rest where it stood",
    ),
    (E.STOPPED, E.CAUSE_CLOCK_JUMP): (
        "ROS time was set by a control period or more", "at rest, 0.5 s, fresh joint states, then a chunk"
    ),
    (E.STOPPED, E.CAUSE_REVERSALS): (
        "a joint's commanded motion reverses more often than reversal_limit",
        "another instruction (an empty one also counts, the same one does not) and 0.5 s at rest, then a chunk; or "
        "deactivate and activate",
    ),
    (E.STOPPED, E.CAUSE_RIVAL): (
        "another publisher on a command topic",
        "the executor brakes and stops publishing; when the other publisher is gone it starts again as an activation "
        "does (if an activation would be refused, it does not), then a chunk",
    ),
    (E.STOPPED, E.CAUSE_UNCONFIRMED): (
        "one of these, or a policy that waits, for more than 2 s; it is over, and somebody may be near the robot",
        "the instruction is given once more, the same (vla-ros say TEXT) or another, when nothing else stops the "
        "robot; then a chunk; or deactivate and activate",
    ),
    (E.E_STOPPED, 0): ("the e-stop was pressed", "reset it, then a chunk"),
}

POLICY = {
    P.UNCONFIGURED: ("not configured", "configure"),
    P.INACTIVE: ("configured and warmed up, not inferring", "activate"),
    P.IDLE: ("no instruction", "an instruction"),
    P.WAITING: ("an input is missing or stale", "it arrives"),
    P.RUNNING: ("publishes chunks", ""),
    P.FAILED: ("the last inference failed", "the next one that succeeds"),
}


def executor_words(state: int, cause: int) -> tuple[str, str]:
    """Meaning and recovery of a state; ("", "") for an unknown one, of a newer executor."""
    return EXECUTOR.get((state, cause)) or EXECUTOR.get((state, 0), ("", ""))


def policy_words(state: int) -> tuple[str, str]:
    return POLICY.get(state, ("", ""))
