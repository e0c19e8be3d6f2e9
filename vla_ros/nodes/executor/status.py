"""The executor's snapshot as an ExecutorStatus message."""

from array import array
from dataclasses import fields
from typing import Any

import numpy as np

from vla_ros.control.status import Status
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ExecutorStatus

_LONGEST_INSTRUCTION = 1000  # characters of a text that a status repeats ten times a second
_UNLIKE = ("stamp_ns", "seen", "instruction", "refused")  # fields that the message has in another form


def fill_status(message: ExecutorStatus, status: Status) -> ExecutorStatus:
    """Write every field except `dry_run`; returns the same message."""
    for item in fields(status):
        if item.name not in _UNLIKE:
            setattr(message, item.name, _plain(getattr(status, item.name)))
    set_stamp(message, status.stamp_ns)
    text = status.instruction
    message.instruction = text if len(text) <= _LONGEST_INSTRUCTION else text[:_LONGEST_INSTRUCTION] + "…"
    message.chunk_latency = float("nan")
    if status.seen is not None:
        message.chunk_session, message.chunk_sequence = status.seen.session, status.seen.sequence
        set_stamp(message.chunk_stamp, status.seen.stamp_ns)
        message.chunk_latency = status.seen.latency
    message.refused_chunks = sum(status.refused.values())
    message.refusal_reasons = list(status.refused)
    message.refusal_counts = array("Q", status.refused.values())
    return message


def _plain(value: Any) -> Any:
    """As a message takes it."""
    if isinstance(value, np.ndarray):
        return array("d", value)
    return list(value) if isinstance(value, tuple) else value
