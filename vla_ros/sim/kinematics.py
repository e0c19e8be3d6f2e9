"""Closed-form kinematics of the arm with the hand pointing down."""

import math
from dataclasses import dataclass

import numpy as np

from vla_ros.sim.robot import (
    ELBOW_TO_WRIST,
    LIFT_TO_ELBOW,
    LOWER,
    PAN_ORIGIN,
    PAN_TO_LIFT,
    ROLL_TO_TIP,
    UPPER,
    WRIST_TO_ROLL,
)

_L1, _A1 = np.hypot(LIFT_TO_ELBOW[0], LIFT_TO_ELBOW[2]), np.arctan2(LIFT_TO_ELBOW[2], LIFT_TO_ELBOW[0])
_L2, _A2 = np.hypot(ELBOW_TO_WRIST[0], ELBOW_TO_WRIST[2]), np.arctan2(ELBOW_TO_WRIST[2], ELBOW_TO_WRIST[0])
_HAND = WRIST_TO_ROLL[0] + ROLL_TO_TIP[0]
_L1, _L2, _A1, _A2 = float(_L1), float(_L2), float(_A1), float(_A2)
_REACH = 0.985 * (_L1 + _L2)  # kept off the stretched arm, where joints turn fast
_SHOULDER_Z = PAN_ORIGIN[2] + PAN_TO_LIFT[2]
_LEAST_PITCH = np.radians(20.0)
_MARGIN = 0.02  # rad kept from every joint limit
_MOST_WRIST = float(UPPER[3] - _MARGIN)


@dataclass(frozen=True)
class TipPose:
    """Where the gripper tip is.

    Attributes:
        position: (3,) m, in the frame of the base.
        heading: direction in which the jaw opens, about z from x, rad (exact when the hand points straight down).
        pitch: of the hand, rad below the horizon; pi / 2 points straight down.
    """

    position: np.ndarray
    heading: float
    pitch: float


def forward(joints: np.ndarray) -> TipPose:
    """The tip's pose for (>= 5,) joint positions, rad."""
    pan, lift, elbow, wrist, roll = joints[:5]
    first, second, pitch = _A1 - lift, _A2 - lift - elbow, lift + elbow + wrist
    radius = PAN_TO_LIFT[0] + _L1 * np.cos(first) + _L2 * np.cos(second) + _HAND * np.cos(pitch)
    height = _SHOULDER_Z + _L1 * np.sin(first) + _L2 * np.sin(second) - _HAND * np.sin(pitch)
    position = np.array([PAN_ORIGIN[0] + radius * np.cos(pan), -radius * np.sin(pan), height])
    return TipPose(position, roll - pan, pitch)


def inverse(position: np.ndarray, heading: float) -> np.ndarray:
    """(5,) joint positions that bring the tip to `position` (3,) m with the jaw opening towards `heading`, rad.

    The hand points straight down where the arm reaches that far and tilts outwards, no more than needed, where
    it does not. A place out of reach is replaced by the nearest direction's limit of reach.
    """
    x, y = position[0] - PAN_ORIGIN[0], position[1]
    radius = max(float(np.hypot(x, y)), 1e-6)
    height, pan = float(position[2]), -np.arctan2(y, x)

    pitch = np.pi / 2
    if not _reaches(radius, height, pitch):
        straight, tilted = pitch, _LEAST_PITCH
        for _ in range(30):
            middle = (straight + tilted) / 2
            straight, tilted = (straight, middle) if _reaches(radius, height, middle) else (middle, tilted)
        pitch = tilted
    along = radius - _HAND * np.cos(pitch) - PAN_TO_LIFT[0]
    up = height + _HAND * np.sin(pitch) - _SHOULDER_Z
    distance = np.clip(np.hypot(along, up), abs(_L1 - _L2) + 1e-3, _REACH)
    bend = np.arccos(np.clip((distance**2 - _L1**2 - _L2**2) / (2 * _L1 * _L2), -1.0, 1.0))
    first = np.arctan2(up, along) + np.arctan2(_L2 * np.sin(bend), _L1 + _L2 * np.cos(bend))
    lift = _A1 - first
    elbow = _A2 - (first - bend) - lift
    wrist = pitch - lift - elbow
    roll = (heading + pan + np.pi) % (2 * np.pi) - np.pi
    joints = np.array([pan, lift, elbow, wrist, roll])
    return np.clip(joints, LOWER[:5] + _MARGIN, UPPER[:5] - _MARGIN)


def _reaches(radius: float, height: float, pitch: float) -> bool:
    """Whether the arm can hold the hand at this pitch with the tip there. With `math`, which is ten times as fast for
    single numbers: most of an expert's time goes into this question."""
    along = radius - _HAND * math.cos(pitch) - PAN_TO_LIFT[0]
    up = height + _HAND * math.sin(pitch) - _SHOULDER_Z
    wanted = math.hypot(along, up)
    if wanted > _REACH:
        return False
    distance = max(wanted, abs(_L1 - _L2) + 1e-3)
    bend = math.acos(min(max((distance**2 - _L1**2 - _L2**2) / (2 * _L1 * _L2), -1.0), 1.0))
    first = math.atan2(up, along) + math.atan2(_L2 * math.sin(bend), _L1 + _L2 * math.cos(bend))
    lift = _A1 - first
    elbow = _A2 - (first - bend) - lift
    return bool(pitch - lift - elbow <= _MOST_WRIST)
