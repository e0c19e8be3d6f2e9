"""`vla_ros/ActionChunk` to `core.ActionChunk` and back."""

import struct
from array import array
from typing import Any

import numpy as np

from vla_ros.core.chunk import PATH, ActionChunk, MalformedChunk, Part, Space, Targets
from vla_ros.core.robot import RobotSpec
from vla_ros.core.tool import pose_names
from vla_ros.messages.stamps import set_stamp, stamp_ns

MAX_PARTS = 100  # of a chunk
_ROOM = 4096  # bytes for the header and other texts of a message
_STEM = 4  # bytes of a serialized message before its content


def chunk_size_limit(robot: RobotSpec, max_horizon: int) -> int:
    """Largest size in bytes of a valid serialized chunk for this robot's joints, tool and base."""
    tool = pose_names("matrix") if robot.tool else ()  # the longest form
    names = (*robot.joint_names, *tool, *(PATH if robot.path_axes else ()))
    return _ROOM + sum(len(name) + 64 for name in names) + 8 * max_horizon * len(names)


def count_parts(data: bytes) -> int:
    """How many parts a serialized ActionChunk says it has, without decoding it; 0 if it ends before that.

    Decoding makes Python objects of them, which takes far longer than decoding as many bytes of numbers.
    """
    order = "<" if data[1:2] == b"\x01" else ">"
    try:
        (length,) = struct.unpack_from(f"{order}I", data, _STEM + 8)  # of header.frame_id, after the stamp
        numbers = -(-(12 + length) // 8) * 8  # step_dt is aligned; then horizon, then the parts
        return struct.unpack_from(f"{order}I", data, _STEM + numbers + 12)[0]
    except struct.error:
        return 0


def read_chunk(message: Any) -> ActionChunk:
    """The chunk of a message, checked for consistency. Raises MalformedChunk."""
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
