"""Settings of the executor, and the commands it returns."""

from dataclasses import dataclass, field

import numpy as np

from vla_ros.control.admission import AdmissionRules


@dataclass(frozen=True)
class Settings:
    """Settings of the executor. The node's parameters of the same names have these defaults."""

    mode: str = "ensemble"  # or latest, rtc
    # m of the weights exp(-m i), i = 0 the oldest chunk. Chunks observed at different moments hold different phases of
    # a grasp: an even average of them stands still above the cube; with exp(1) the newest counts for two thirds.
    ensemble_m: float = -1.0
    crossfade: float = 0.2  # s, for `latest`, and where the instruction changes
    rtc_crossfade: float = 0.05  # s, for `rtc`
    interpolation: str = "linear"  # or cubic
    joint_state_timeout: float = 0.25  # s
    following_limit: float = 0.3  # measured from commanded, in s at the joint's velocity limit; 0 = off
    command_horizon: float = 1.0  # s, how far ahead the points of a trajectory reach at most
    overrun_limit: float = 0.1  # s the loop may stall
    clock_jump_limit: float = 0.5  # s that ROS time may gain or lose; never more than a control period
    monitor_window: float = 5.0  # s over which the motion is monitored
    reversal_limit: float = 5.0  # 1/s, of the commanded motion of a joint; 0 = off
    on_reversals: str = "warn"  # or hold
    resume: str = ""  # after a stop: automatic, confirm; empty: confirm, but automatic in simulated time
    takeover_blend: float = 1.0  # s, shortest transition to a source that takes over
    takeover_timeout: float = 0.25  # s without a message after which it is not followed
    start_tolerance: float = 0.1  # share of a joint's range outside its limits at activation; it moves inwards only
    admission: AdmissionRules = field(default_factory=AdmissionRules)

    def confirms(self, simulated: bool) -> bool:
        """A person has to confirm that the robot may continue after a stop."""
        return self.resume == "confirm" or not (self.resume or simulated)


@dataclass(frozen=True)
class Command:
    """What to publish: (J,) position, rad or m, for the time `stamp_ns`.

    Stamps increase, and during a motion they are as far apart as the ticks, even if ROS time was set meanwhile.

    Attributes:
        braking: (K, J) the positions of the next periods if no other command follows: braking within the limits.
        reach_in: s in which the position is to be reached: a period, or longer if the robot has stayed behind.
        velocity: (J,) rad/s or m/s, mean since the last command.
        following: it follows a target; else it brakes or holds.
        interval: s since the last command, by steady time.
    """

    stamp_ns: int
    position: np.ndarray
    braking: np.ndarray
    reach_in: float
    velocity: np.ndarray
    following: bool
    interval: float
