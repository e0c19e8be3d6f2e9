"""The parameters of executor_node."""

from dataclasses import dataclass, fields
from typing import Any

from vla_ros.control.admission import AdmissionRules
from vla_ros.control.blending import MODES
from vla_ros.control.executor import Settings
from vla_ros.control.interpolation import INTERPOLATIONS
from vla_ros.nodes.parameters import NodeParameters, parameter


@dataclass(frozen=True)
class ExecutorParameters(NodeParameters):
    mode: str = parameter(Settings.mode, "how overlapping chunks become one command", choices=MODES)
    ensemble_m: float = parameter(
        Settings.ensemble_m,
        "ensemble: weights exp(-m i), i = 0 the oldest; below 0 favours the newest",
        low=-10.0,
        high=10.0,
    )
    crossfade: float = parameter(
        Settings.crossfade,
        "latest: fade from the old chunk to the new one; ensemble: to a new instruction",
        unit="s",
        low=0.0,
        high=5.0,
    )
    rtc_crossfade: float = parameter(
        Settings.rtc_crossfade,
        "rtc: fade of what differs between the old chunk and its continuation",
        unit="s",
        low=0.0,
        high=5.0,
    )
    interpolation: str = parameter(Settings.interpolation, "between the rows of a chunk", choices=INTERPOLATIONS)
    dry_run: bool = parameter(False, "everything but the command publishers")
    urdf: str = parameter("", "path of a URDF whose limits count where they are stricter than the robot file's")
    robot_description: str = parameter("", "the text of a URDF, as robot_state_publisher has it; same use")
    joint_state_timeout: float = parameter(
        Settings.joint_state_timeout,
        "a joint's position older than this stops the robot",
        unit="s",
        low=0.005,
        high=10.0,
    )
    following_limit: float = parameter(
        Settings.following_limit,
        "measured may be from commanded what the joint travels in this time at its velocity limit; 0 = off",
        unit="s",
        low=0.0,
        high=10.0,
    )
    overrun_limit: float = parameter(
        Settings.overrun_limit,
        "a stall of the control loop longer than this stops the robot",
        unit="s",
        low=0.005,
        high=10.0,
    )
    clock_jump_limit: float = parameter(
        Settings.clock_jump_limit, "a leap of ROS time greater than this stops the robot", unit="s", low=0.01, high=60.0
    )
    start_tolerance: float = parameter(
        Settings.start_tolerance,
        "the robot may stand outside its limits at activation by this share of a joint's range; it moves inwards only",
        low=0.0,
        high=1.0,
    )
    max_horizon: int = parameter(AdmissionRules.max_horizon, "longest chunk", unit="rows", low=1, high=10000)
    max_step_dt: float = parameter(
        AdmissionRules.max_step_dt, "longest time between the rows of a chunk", unit="s", low=0.001, high=60.0
    )
    max_chunk_age: float = parameter(
        AdmissionRules.max_chunk_age,
        "a chunk says nothing longer than this after its stamp",
        unit="s",
        low=0.01,
        high=60.0,
    )
    future_tolerance: float = parameter(
        AdmissionRules.future_tolerance,
        "stamps may lie this far ahead (clocks of two machines)",
        unit="s",
        low=0.0,
        high=10.0,
    )
    jump_limit: float = parameter(
        AdmissionRules.jump_limit,
        "a chunk may begin as far from the measured position as the joint travels in this time at its velocity limit",
        unit="s",
        low=0.0,
        high=60.0,
    )
    position_excess: float = parameter(
        AdmissionRules.position_excess,
        "a chunk may leave the position limits by this share of the range (it is clipped)",
        low=0.0,
        high=100.0,
    )
    outlier_speed: float = parameter(
        AdmissionRules.outlier_speed,
        "the rows of a chunk may ask for this multiple of the velocity limit (it is clipped)",
        low=1.0,
        high=1e6,
    )
    session_lease: float = parameter(
        AdmissionRules.session_lease,
        "a policy not heard for this long may be replaced by another one",
        unit="s",
        low=0.0,
        high=60.0,
    )
    realtime_priority: int = parameter(
        0, "SCHED_FIFO priority of the control loop, with locked memory; 0 = ordinary scheduling", low=0, high=99
    )

    def settings(self) -> Settings:
        return self._picked(Settings, admission=self._picked(AdmissionRules))

    def _picked(self, kind: type, **others: Any) -> Any:
        """An instance of the dataclass `kind`, from the parameters of the same names."""
        own = [item.name for item in fields(kind) if item.name not in others]
        return kind(**{name: getattr(self, name) for name in own}, **others)
