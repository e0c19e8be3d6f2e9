"""A joint of the robot file, or a velocity of its base, with its limits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

# Axes of a base -> unit: forwards, to the left, up; about them roll, pitch and, counterclockwise, yaw.
AXES = {"x": "m/s", "y": "m/s", "z": "m/s", "roll": "rad/s", "pitch": "rad/s", "yaw": "rad/s"}


@dataclass(frozen=True)
class Joint:
    """A joint and its limits: position in `unit` (rad or m), velocity in unit/s, acceleration in unit/s².

    In m/s or rad/s it is a velocity dimension of a base: `velocity` is its highest speed, in unit, and `acceleration`
    in unit/s. It has no position.
    """

    name: str  # the driver's name of it, after the `prefix` of its topic, if any
    lower: float | None = None  # unit, lowest commanded position, required; of a base: -velocity by default
    upper: float | None = None  # unit, highest commanded position, required; of a base: velocity by default
    velocity: float = field(kw_only=True)  # unit/s; of a base: highest speed, in unit
    acceleration: float = field(kw_only=True)  # unit/s²; of a base: m/s² or rad/s²
    unit: str = "rad"  # "rad" or "m"; of a base: "m/s" or "rad/s"
    jerk: float | None = None  # unit/s³; None: no limit
    margin: float | None = None  # unit, unused at both ends of its range; None: position_margin if in rad, else 0
    discrete: bool = False  # uses the newest value instead of an average (for a gripper)

    def __post_init__(self) -> None:
        if self.is_velocity:
            object.__setattr__(self, "lower", -self.velocity if self.lower is None else self.lower)
            object.__setattr__(self, "upper", self.velocity if self.upper is None else self.upper)

    @property
    def is_velocity(self) -> bool:
        """Its value is a velocity of a base; to hold it means to brake it to zero."""
        return self.unit.endswith("/s")

    def faults(self, margin: float) -> Iterator[tuple[bool, str]]:
        """Pairs of (whether this fault is present, its description). `margin`: kept free at both ends, unit."""
        units = ("rad", "m", *dict.fromkeys(AXES.values()))
        yield self.unit not in units, f"unit {self.unit!r}, expected one of {units}"
        for name in ("velocity", "acceleration", "jerk"):
            value = getattr(self, name)
            yield value is not None and not 0 < value < np.inf, f"{name} {value}, expected a positive number"
        if self.is_velocity:
            yield from self._velocity_faults()
            return
        for name in ("lower", "upper"):
            yield getattr(self, name) is None, f"{name} is missing, expected the limit of its position in {self.unit}"
        yield not self.lower + 2 * margin < self.upper, (
            f"lower {self.lower} must be below upper {self.upper} by more than twice the margin {margin} {self.unit}"
        )
        yield not 0 <= margin < np.inf, f"margin {margin} {self.unit}, expected zero or more"

    def _velocity_faults(self) -> Iterator[tuple[bool, str]]:
        inside = -self.velocity <= self.lower <= 0 <= self.upper <= self.velocity and self.lower < self.upper
        yield not inside, (
            f"lower {self.lower}, upper {self.upper} {self.unit}: expected none, or speeds from -{self.velocity} to "
            f"{self.velocity} with zero between them: it must be able to stop"
        )
        for name in ("jerk", "margin"):
            yield getattr(self, name) is not None, f"{name} {getattr(self, name)}, expected none in {self.unit}"
        yield self.discrete, "discrete, expected false: a base cannot step from one speed to another"
