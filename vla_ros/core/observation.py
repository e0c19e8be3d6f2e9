"""What a policy sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Observation:
    """The robot at one instant: of every stream the last value not after `stamp_ns`.

    Attributes:
        stamp_ns: the newest stamp among the parts, ns on the ROS clock.
        images: camera name (of the robot file) -> (height, width, 3) uint8 RGB.
        state: (J,) float64 joint positions in the order of the robot file, rad or m.
        instruction: the text to follow.
        stamps_ns: stream name (camera name or "joint_states") -> its own stamp, ns.
        values: stream name -> array of the stream's shape, of every other stream ("command/GROUP": (d,) float64).
        columns: "command/GROUP" -> the places of its joints in the state, where it holds until there is a command.
    """

    stamp_ns: int
    images: Mapping[str, np.ndarray]
    state: np.ndarray
    instruction: str = ""
    stamps_ns: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    columns: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What a processor turns into tensors, the same for serving and for training.

    T is the policy's number of observation steps (1 unless it uses a history), oldest first.

    Attributes:
        images: camera name (of the robot file) -> (T, height, width, 3) uint8 RGB.
        state: (T, J) joint positions in the order of the robot file, rad or m.
        instruction: the text to follow.
        actions: (H, J) joint targets at `t + k * step_dt`, in training only.
        action_is_pad: (H,) bool, True where the episode was over, in training only.
        values: stream name -> (T, ...) of every other stream that the policy reads; T of the stream's own offsets
            (`Processor.steps`).
        stamp_ns: of the observation, ns on the ROS clock; 0 where nobody asks.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    instruction: str
    actions: np.ndarray | None = None
    action_is_pad: np.ndarray | None = None
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    stamp_ns: int = 0
