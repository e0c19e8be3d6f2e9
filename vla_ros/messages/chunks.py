"""`vla_ros/ActionChunk` to `core.ActionChunk` and back."""

from array import array
from typing import Any

import numpy as np

from vla_ros.core.chunk import ActionChunk, MalformedChunk, Part, Space, Targets
from vla_ros.messages.stamps import set_stamp, stamp_ns


def read_chunk(message: Any) -> ActionChunk:
    """The chunk of a message, checked as far as a message can be checked by itself. Raises MalformedChunk."""
    return ActionChunk(
        stamp_ns=stamp_ns(message),
        step_dt=float(message.step_dt),
        targets=Targets(tuple(_read_part(part, int(message.horizon)) for part in message.parts)),
        instruction_id=int(message.instruction_id),
        sequence=int(message.sequence),
        session=int(message.session),
        inference_time=float(message.inference_time),
    )


def _read_part(part: Any, horizon: int) -> Part:
    """`horizon`: rows of the chunk."""
    try:
        space = Space(part.space)
    except ValueError:
        raise MalformedChunk("space", f"space {part.space}, expected one of {[int(s) for s in Space]}") from None
    names = tuple(part.names)
    data = np.array(part.data, dtype=np.float64)
    if horizon < 1 or data.size != horizon * len(names):
        words = f"{data.size} numbers, expected horizon {horizon} x {len(names)} names, horizon at least 1"
        raise MalformedChunk("shape", words)
    return Part(names, data.reshape(horizon, len(names)), space, part.group, part.frame_id)


def chunk_message(message_type: type, part_type: type, chunk: ActionChunk) -> Any:
    """A message of the classes given (`vla_ros.msg.ActionChunk` and `ActionPart`)."""
    message = set_stamp(message_type(), chunk.stamp_ns)
    message.step_dt = float(chunk.step_dt)
    message.horizon = chunk.horizon
    message.parts = [_part_message(part_type(), part) for part in chunk.targets.parts]
    message.instruction_id = int(chunk.instruction_id)
    message.session = int(chunk.session)
    message.sequence = int(chunk.sequence)
    message.inference_time = float(chunk.inference_time)
    return message


def _part_message(message: Any, part: Part) -> Any:
    message.space, message.group, message.frame_id = int(part.space), part.group, part.frame
    message.names = list(part.names)
    message.data = array("d", np.ascontiguousarray(part.data, dtype=np.float64).tobytes())
    return message
