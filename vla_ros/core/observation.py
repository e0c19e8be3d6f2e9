"""Observations of a robot, and the samples that policies get."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Observation:
    """The robot at one time: the last value of every stream at or before `stamp_ns`."""

    stamp_ns: int  # the newest stamp of cameras and joint states, ns on the ROS clock
    images: Mapping[str, np.ndarray]  # camera name (of the robot file) -> (height, width, 3) uint8 RGB
    state: np.ndarray  # (J,) float64 joint positions in the order of the robot file, rad or m
    instruction: str = ""
    stamps_ns: Mapping[str, int] = field(default_factory=dict)  # stream name -> its own stamp, ns
    # stream name -> array of the stream's shape, of every other stream ("command/GROUP": (d,) float64)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    # "command/GROUP" -> indices of its joints in the state, which is used until there is a command
    columns: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What a processor converts to tensors, in serving as in training.

    T is the policy's number of observation steps (1 unless it uses a history), oldest first.
    """

    images: Mapping[str, np.ndarray]  # camera name (of the robot file) -> (T, height, width, 3) uint8 RGB
    state: np.ndarray  # (T, J) joint positions in the order of the robot file, rad or m
    instruction: str
    # (H, J) joint targets at `t + k * step_dt`, followed by the numbers of a tool; in training only
    actions: np.ndarray | None = None
    action_is_pad: np.ndarray | None = None  # (H,) bool, True if the episode was over, in training only
    # stream name -> (T, ...) of every other stream that the policy reads; T of its own offsets (`Processor.steps`)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    stamp_ns: int = 0  # of the observation, ns on the ROS clock; 0 in training
    remaining: int | None = None  # steps of the policy until the last frame of the episode, in training only
    outcome: str = ""  # of that episode: success, failure, aborted; empty where the dataset does not say
