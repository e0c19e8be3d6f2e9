"""The parameters of executor_node."""

from dataclasses import dataclass, fields
from typing import Any

from vla_ros.control.admission import AdmissionRules
from vla_ros.control.blending import MODES
from vla_ros.control.executor import Settings
from vla_ros.control.interpolation import INTERPOLATIONS
from vla_ros.nodes.parameters import NodeParameters, parameter


def _seconds(default: float, description: str, high: float, low: float = 0.0) -> Any:
    return parameter(default, description, unit="s", low=low, high=high)


@dataclass(frozen=True)
class ExecutorParameters(NodeParameters):
    """Defaults are those of `Settings` and `AdmissionRules`."""

    mode: str = parameter(Settings.mode, "how overlapping chunks become one command", choices=MODES)
    ensemble_m: float = parameter(
        Settings.ensemble_m,
        "ensemble: weights exp(-m i), i = 0 the oldest; below 0 favours the newest", low=-10.0, high=10.0,
    )
    crossfade: float = _seconds(
        Settings.crossfade, "latest: fade from the old chunk to the new one; ensemble: to a new instruction", 5.0
    )
    rtc_crossfade: float = _seconds(
        Settings.rtc_crossfade, "rtc: fade of what differs between the old chunk and its continuation", 5.0
    )
    interpolation: str = parameter(INTERPOLATIONS[Settings.cubic], "between a chunk's rows", choices=INTERPOLATIONS)
    dry_run: bool = parameter(False, "everything but the command publishers")
    urdf: str = parameter("", "path of a URDF whose limits count where they are stricter than the robot file's")
    robot_description: str = parameter("", "the text of a URDF, as robot_state_publisher has it; same use")
    joint_state_timeout: float = _seconds(
        Settings.joint_state_timeout, "a joint's position older than this stops the robot", 10.0, low=0.005
    )
    following_limit: float = _seconds(
        Settings.following_limit,
        "measured may be from commanded what the joint travels in this time at its velocity limit; 0 = off", 10.0,
    )
    overrun_limit: float = _seconds(
        Settings.overrun_limit, "a stall of the control loop longer than this stops the robot", 10.0, low=0.005
    )
    clock_jump_limit: float = _seconds(
        Settings.clock_jump_limit, "a leap of ROS time greater than this stops the robot", 60.0, low=0.01
    )
    start_tolerance: float = parameter(
        Settings.start_tolerance,
        "the robot may stand outside its limits at activation by this share of a joint's range; it moves inwards only",
        low=0.0, high=1.0,
    )
    max_horizon: int = parameter(AdmissionRules.max_horizon, "longest chunk", unit="rows", low=1, high=10000)
    max_step_dt: float = _seconds(
        AdmissionRules.max_step_dt, "longest time between the rows of a chunk", 60.0, low=0.001
    )
    max_chunk_age: float = _seconds(
        AdmissionRules.max_age, "a chunk says nothing longer than this after its stamp", 60.0, low=0.01
    )
    future_tolerance: float = _seconds(
        AdmissionRules.future_tolerance, "stamps may lie this far ahead (clocks of two machines)", 10.0
    )
    jump_limit: float = _seconds(
        AdmissionRules.jump_limit,
        "a chunk may begin as far from the measured position as the joint travels in this time at its velocity limit",
        60.0,
    )
    position_excess: float = parameter(
        AdmissionRules.excess,
        "a chunk may leave the position limits by this share of the range (it is clipped)", low=0.0, high=100.0,
    )
    outlier_speed: float = parameter(
        AdmissionRules.outlier,
        "the rows of a chunk may ask for this multiple of the velocity limit (it is clipped)", low=1.0, high=1e6,
    )
    session_lease: float = _seconds(
        AdmissionRules.session_lease, "a policy not heard for this long may be replaced by another one", 60.0
    )
    realtime_priority: int = parameter(
        0, "SCHED_FIFO priority of the control loop, with locked memory; 0 = ordinary scheduling", low=0, high=99
    )

    def settings(self) -> Settings:
        rules = self._fill(
            AdmissionRules, max_age=self.max_chunk_age, excess=self.position_excess, outlier=self.outlier_speed
        )
        return self._fill(Settings, cubic=self.interpolation == "cubic", admission=rules)

    def _fill(self, kind: type, **others: Any) -> Any:
        """A `kind` of the parameters of the same names, and of `others`."""
        names = {field.name for field in fields(kind)} - set(others)
        return kind(**{name: getattr(self, name) for name in names}, **others)
