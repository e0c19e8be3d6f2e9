"""`vla_ros/ActionChunk` to `core.ActionChunk` and back."""

from array import array
from typing import Any

import numpy as np

from vla_ros.core.chunk import ActionChunk, Space
from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp, stamp_ns


class MalformedChunk(InputError):
    """A chunk message that contradicts itself. `reason` is a short fixed word, for counters."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"chunk: {message}")
        self.reason = reason


def read_chunk(message: Any) -> ActionChunk:
    """The chunk of a message, checked as far as a message can be checked by itself.

    Raises:
        MalformedChunk: with `reason` "space", "names", "shape", "non_finite" or "step_dt".
    """
    try:
        space = Space(message.space)
    except ValueError:
        raise MalformedChunk("space", f"space {message.space}, expected one of {[int(s) for s in Space]}") from None
    names = tuple(message.names)
    if not names:
        raise MalformedChunk("names", "no names, expected one for each dimension")
    for name in names:
        if names.count(name) > 1:
            raise MalformedChunk("names", f"name {name!r} stands there {names.count(name)} times, expected once")
    horizon = int(message.horizon)
    data = np.array(message.data, dtype=np.float64)
    if horizon < 1 or data.size != horizon * len(names):
        raise MalformedChunk(
            "shape", f"{data.size} numbers, expected horizon {horizon} x {len(names)} names, horizon at least 1"
        )
    data = data.reshape(horizon, len(names))
    bad = np.argwhere(~np.isfinite(data))
    if bad.size:
        row, column = bad[0]
        raise MalformedChunk("non_finite", f"row {row}, {names[column]}: {data[row, column]}, expected a finite number")
    if not 0 < message.step_dt < np.inf:
        raise MalformedChunk("step_dt", f"step_dt {message.step_dt} s, expected a positive number")
    return ActionChunk(
        stamp_ns=stamp_ns(message),
        step_dt=float(message.step_dt),
        names=names,
        data=data,
        instruction_id=int(message.instruction_id),
        sequence=int(message.sequence),
        session=int(message.session),
        inference_time=float(message.inference_time),
        space=space,
    )


def chunk_message(message_type: type, chunk: ActionChunk) -> Any:
    """A message of the class given (`vla_ros.msg.ActionChunk`)."""
    message = set_stamp(message_type(), chunk.stamp_ns)
    message.step_dt = float(chunk.step_dt)
    message.space = int(chunk.space)
    message.names = list(chunk.names)
    message.horizon = chunk.horizon
    message.data = array("d", np.ascontiguousarray(chunk.data, dtype=np.float64).tobytes())
    message.instruction_id = int(chunk.instruction_id)
    message.session = int(chunk.session)
    message.sequence = int(chunk.sequence)
    message.inference_time = float(chunk.inference_time)
    return message
