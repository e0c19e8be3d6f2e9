"""The executor's snapshot as an ExecutorStatus message."""

from array import array

from vla_ros.control.status import Status
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ExecutorStatus

_LONGEST_INSTRUCTION = 1000  # characters of it that a status repeats ten times a second


def fill_status(message: ExecutorStatus, status: Status) -> ExecutorStatus:
    """Writes every field but `dry_run`; gives the same message back."""
    set_stamp(message, status.stamp_ns)
    message.state, message.cause, message.message = int(status.state), int(status.cause), status.message
    message.mode = status.mode
    text = status.instruction
    message.instruction = text if len(text) <= _LONGEST_INSTRUCTION else text[:_LONGEST_INSTRUCTION] + "…"
    message.instruction_id = status.instruction_id
    message.names = list(status.names)
    message.position = array("d", status.position)
    message.velocity = array("d", status.velocity)
    message.measured = array("d", status.measured)
    message.limited = list(status.limited)
    message.live_chunks = status.live_chunks
    if status.seen is not None:
        message.chunk_session, message.chunk_sequence = status.seen.session, status.seen.sequence
        set_stamp(message.chunk_stamp, status.seen.stamp_ns)
        message.chunk_latency = status.seen.latency
    else:
        message.chunk_latency = float("nan")
    message.chunk_age = float(status.chunk_age)
    message.ticks = status.ticks
    message.accepted_chunks = status.accepted
    message.refused_chunks = sum(status.refused.values())
    message.refusal_reasons = list(status.refused)
    message.refusal_counts = array("Q", status.refused.values())
    message.last_refusal = status.last_refusal
    message.control_rate = status.control_rate
    message.lateness = status.lateness
    message.overruns = int(status.overruns)
    return message
