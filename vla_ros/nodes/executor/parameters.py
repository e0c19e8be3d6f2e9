"""The parameters of executor_node."""

from dataclasses import dataclass, fields
from typing import Any

from vla_ros.control.admission import AdmissionRules
from vla_ros.control.blending import MODES
from vla_ros.control.interpolation import INTERPOLATIONS
from vla_ros.control.settings import Settings
from vla_ros.nodes.parameters import NodeParameters, parameter

_S, _R = Settings, AdmissionRules


def _span(default: float, low: float, high: float, unit: str, description: str) -> Any:
    return parameter(default, description, unit=unit, low=low, high=high)


@dataclass(frozen=True)
class ExecutorParameters(NodeParameters):
    """Parameters with the names of fields of `Settings` and `AdmissionRules` have the same defaults."""

    mode: str = parameter(_S.mode, "how overlapping chunks are combined to one command", choices=MODES)
    ensemble_m: float = _span(
        _S.ensemble_m, -10.0, 10.0, "", "ensemble: weights exp(-m i), i = 0 the oldest; below 0 favours the newest"
    )
    crossfade: float = _span(
        _S.crossfade, 0.0, 5.0, "s", "latest: fade from the old chunk to the new one; ensemble: to a new instruction"
    )
    rtc_crossfade: float = _span(
        _S.rtc_crossfade, 0.0, 5.0, "s", "rtc: fade from the old chunk to its continuation where they differ"
    )
    interpolation: str = parameter(
        _S.interpolation, "how values between the rows of a chunk are computed", choices=INTERPOLATIONS
    )
    dry_run: bool = parameter(False, "do everything except create the command publishers")
    urdf: str = parameter(
        "", "path of a URDF: its limits apply where they are stricter than the robot file's; needed for a `tool`"
    )
    robot_description: str = parameter("", "text of a URDF, as for robot_state_publisher; same use as urdf")
    robot_description_topic: str = parameter(
        "", "topic of that text (of robot_state_publisher: robot_description); read when the node is configured"
    )
    joint_state_timeout: float = _span(
        _S.joint_state_timeout, 0.005, 10.0, "s", "joint positions older than this stop the robot"
    )
    following_limit: float = _span(
        _S.following_limit, 0.0, 10.0, "s",
        "largest distance of measured from commanded: what a joint travels in this time at its velocity limit; 0 = off",
    )
    command_horizon: float = _span(
        _S.command_horizon, 0.0, 5.0, "s",
        "longest time that a trajectory covers: the command, and how the robot brakes if no other follows",
    )
    overrun_limit: float = _span(
        _S.overrun_limit, 0.005, 10.0, "s", "a longer stall of the control loop stops the robot"
    )
    clock_jump_limit: float = _span(
        _S.clock_jump_limit, 0.01, 60.0, "s",
        "ROS time set by this, or by a control period, stops the robot; a longer step of simulated time is a jump "
        "(if longer than two periods)",
    )
    monitor_window: float = _span(
        _S.monitor_window, 0.5, 60.0, "s", "time that reversals, deviation and limited_share of the status cover"
    )
    reversal_limit: float = _span(
        _S.reversal_limit, 0.0, 1000.0, "1/s",
        "warn if a joint's commanded motion reverses more often than this within monitor_window; 0 = off",
    )
    on_reversals: str = parameter(
        _S.on_reversals, "above reversal_limit: only warn, or stop the robot (hold)", choices=("warn", "hold")
    )
    resume: str = parameter(
        _S.resume,
        "when the robot moves again after a stop of more than 2 s. confirm: when the instruction is given again; "
        "automatic: with the next chunk. Empty: confirm, but automatic with use_sim_time",
        choices=("", "automatic", "confirm"),
    )
    takeover_topic: str = parameter(
        "~/takeover/joint_command",
        "topic of the joint positions, and velocities of a base (JointState), that command in place of the policy "
        "after a call of take_over",
    )
    takeover_blend: float = _span(
        _S.takeover_blend, 0.01, 60.0, "s",
        "shortest time to move to a source that takes over; longer if that needs more than half the velocity limit",
    )
    takeover_timeout: float = _span(
        _S.takeover_timeout, 0.005, 10.0, "s", "a source that is silent for longer is no longer followed"
    )
    start_tolerance: float = _span(
        _S.start_tolerance, 0.0, 1.0, "",
        "the robot may be outside its limits at activation by this share of a joint's range; it only moves inwards",
    )
    max_horizon: int = _span(_R.max_horizon, 1, 10000, "rows", "longest chunk")
    max_step_dt: float = _span(_R.max_step_dt, 0.001, 60.0, "s", "longest time between the rows of a chunk")
    max_chunk_age: float = _span(_R.max_chunk_age, 0.01, 60.0, "s", "a chunk ends this long after its stamp")
    future_tolerance: float = _span(
        _R.future_tolerance, 0.0, 10.0, "s", "stamps may be this far ahead (clocks of two machines)"
    )
    jump_limit: float = _span(
        _R.jump_limit, 0.0, 60.0, "s",
        "a chunk may begin as far from the measured position as a joint travels in this time at its velocity limit",
    )
    position_excess: float = _span(
        _R.position_excess, 0.0, 100.0, "",
        "a chunk may exceed the limits of positions, and of a base's velocities, by this share of the range (it is "
        "clipped)",
    )
    outlier_speed: float = _span(
        _R.outlier_speed, 1.0, 1e6, "",
        "the rows of a chunk may require up to this multiple of the velocity limit (it is clipped)",
    )
    session_lease: float = _span(
        _R.session_lease, 0.0, 60.0, "s", "a policy not heard for this long may be replaced by another one"
    )
    e_stop_heartbeat: float = _span(
        0.0, 0.0, 60.0, "s",
        "a longer silence of the topic e_stop latches the e-stop; no activation before a message on it; 0 = off",
    )
    claim_wait: float = _span(
        5.0, 0.0, 60.0, "s",
        "after the start, time to discover executors of other machines before this one may be activated",
    )
    autostart_after_policy: bool = parameter(False, "with autostart: activate only when policy_node is active")
    realtime_priority: int = parameter(
        0, "SCHED_FIFO priority of the control loop, with locked memory; 0 = ordinary scheduling", low=0, high=99
    )

    def settings(self) -> Settings:
        others = {"following_limit": 0.0} if self.dry_run else {}  # no node is to follow
        return self._picked(Settings, admission=self._picked(AdmissionRules), **others)

    def _picked(self, kind: type, **others: Any) -> Any:
        """An instance of the dataclass `kind`, from the parameters of the same names."""
        own = [item.name for item in fields(kind) if item.name not in others]
        return kind(**{name: getattr(self, name) for name in own}, **others)
