"""The parameters of executor_node."""

from dataclasses import dataclass

from vla_ros.control.admission import AdmissionRules
from vla_ros.control.blending import MODES
from vla_ros.control.executor import Settings
from vla_ros.control.interpolation import INTERPOLATIONS
from vla_ros.nodes.parameters import NodeParameters, parameter


@dataclass(frozen=True)
class ExecutorParameters(NodeParameters):
    mode: str = parameter("ensemble", "how overlapping chunks become one command", choices=MODES)
    ensemble_m: float = parameter(
        0.01, "ensemble: weights exp(-m i), i = 0 the oldest; below 0 favours the newest", low=-10.0, high=10.0
    )
    crossfade: float = parameter(
        0.2,
        "latest: fade from the old chunk to the new one; ensemble: to a new instruction",
        unit="s",
        low=0.0,
        high=5.0,
    )
    rtc_crossfade: float = parameter(
        0.05, "rtc: fade of what differs between the old chunk and its continuation", unit="s", low=0.0, high=5.0
    )
    interpolation: str = parameter("linear", "between the rows of a chunk", choices=INTERPOLATIONS)
    dry_run: bool = parameter(False, "everything but the command publishers")
    urdf: str = parameter("", "path of a URDF whose limits count where they are stricter than the robot file's")
    robot_description: str = parameter("", "the text of a URDF, as robot_state_publisher has it; same use")
    joint_state_timeout: float = parameter(
        0.25, "a joint's position older than this stops the robot", unit="s", low=0.005, high=10.0
    )
    following_limit: float = parameter(
        0.3,
        "measured may be from commanded what the joint travels in this time at its velocity limit; 0 = off",
        unit="s",
        low=0.0,
        high=10.0,
    )
    overrun_limit: float = parameter(
        0.1, "a stall of the control loop longer than this stops the robot", unit="s", low=0.005, high=10.0
    )
    clock_jump_limit: float = parameter(
        0.5, "a leap of ROS time greater than this stops the robot", unit="s", low=0.01, high=60.0
    )
    start_tolerance: float = parameter(
        0.1,
        "the robot may stand outside its limits at activation by this share of a joint's range; it moves inwards only",
        low=0.0,
        high=1.0,
    )
    max_horizon: int = parameter(1000, "longest chunk", unit="rows", low=1, high=10000)
    max_step_dt: float = parameter(2.0, "longest time between the rows of a chunk", unit="s", low=0.001, high=60.0)
    max_chunk_age: float = parameter(
        3.0, "a chunk says nothing longer than this after its stamp", unit="s", low=0.01, high=60.0
    )
    future_tolerance: float = parameter(
        0.1, "stamps may lie this far ahead (clocks of two machines)", unit="s", low=0.0, high=10.0
    )
    jump_limit: float = parameter(
        0.4,
        "a chunk may begin as far from the measured position as the joint travels in this time at its velocity limit",
        unit="s",
        low=0.0,
        high=60.0,
    )
    position_excess: float = parameter(
        0.25, "a chunk may leave the position limits by this share of the range (it is clipped)", low=0.0, high=100.0
    )
    outlier_speed: float = parameter(
        5.0, "the rows of a chunk may ask for this multiple of the velocity limit (it is clipped)", low=1.0, high=1e6
    )
    session_lease: float = parameter(
        1.0, "a policy not heard for this long may be replaced by another one", unit="s", low=0.0, high=60.0
    )
    realtime_priority: int = parameter(
        0, "SCHED_FIFO priority of the control loop, with locked memory; 0 = ordinary scheduling", low=0, high=99
    )

    def settings(self) -> Settings:
        return Settings(
            mode=self.mode,
            ensemble_m=self.ensemble_m,
            crossfade=self.crossfade,
            rtc_crossfade=self.rtc_crossfade,
            cubic=self.interpolation == "cubic",
            joint_state_timeout=self.joint_state_timeout,
            following_limit=self.following_limit,
            overrun_limit=self.overrun_limit,
            clock_jump_limit=self.clock_jump_limit,
            start_tolerance=self.start_tolerance,
            admission=AdmissionRules(
                max_horizon=self.max_horizon,
                max_step_dt=self.max_step_dt,
                max_age=self.max_chunk_age,
                future_tolerance=self.future_tolerance,
                jump_limit=self.jump_limit,
                excess=self.position_excess,
                outlier=self.outlier_speed,
                session_lease=self.session_lease,
            ),
        )
