"""The executor without ROS: it takes messages and the time, and returns commands."""

from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np

from vla_ros.control.admission import NO_TOOL, Admission, Reason, Refusal
from vla_ros.control.base_path import BaseFollower
from vla_ros.control.blending import Blender
from vla_ros.control.joint_states import MeasuredJoints
from vla_ros.control.limiter import Limiter
from vla_ros.control.limits import Limits
from vla_ros.control.monitor import Monitor
from vla_ros.control.resumption import Resumption
from vla_ros.control.settings import Command, Settings
from vla_ros.control.start import Start
from vla_ros.control.status import Seen, Status
from vla_ros.control.supervisor import Cause, State, Supervisor
from vla_ros.control.takeover import Takeover
from vla_ros.control.timeline import Predictions, Timeline
from vla_ros.control.timing import CommandTime, Timing
from vla_ros.control.tool import ToolControl
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_pose import PoseArm
from vla_ros.control.watchdogs import Watchdogs
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id


class Executor:
    """Chunks, joint states and time in, bounded commands out. Not thread-safe, reads no clock.

    `now_ns` is ROS time, which may jump; `steady_ns` is steady time, which cannot (the grid of the control loop).

    Attributes:
        heard: controllers have had time to discover the publisher of the commands; chunks are followed only then.
    """

    def __init__(
        self, limits: Limits, control_rate: float, settings: Settings | None = None, simulated: bool = False,
        tool: ToolArm | PoseArm | str = NO_TOOL, base: Mapping[str, str] | None = None,
    ) -> None:
        """`control_rate`: calls of `tick` per second, Hz. `simulated`: commands are timed by ROS time itself.

        `tool`: the arm that follows end-effector targets (if the tool is commanded, `limits` are those of its columns),
        or why there is none. `base`: axis -> velocity of the base that follows paths (`RobotSpec.path_axes`).
        """
        self.limits = limits
        self.settings = settings = settings or Settings()
        self._tool = ToolControl(tool, settings)
        rules, patience = settings.admission, settings.joint_state_timeout
        self._base = base and BaseFollower(
            base, limits, patience, rules.max_chunk_age, rules.future_tolerance, rules.jump_limit
        )
        self.admission = Admission(limits, rules, self._tool.chunks, self._base)
        self.joint_states = MeasuredJoints(limits.names, settings.admission.future_tolerance)
        self.supervisor = Supervisor()
        self._watchdogs = Watchdogs(limits, settings, self.supervisor, self.joint_states, self._forget_chunks)
        self._resumption = Resumption(self._watchdogs, self.supervisor, settings.confirms(simulated))
        cubic, oldest = settings.interpolation == "cubic", settings.admission.max_chunk_age
        self.timeline = Timeline(limits.names, cubic, oldest, self._tool.width)
        fade = settings.rtc_crossfade if settings.mode == "rtc" else settings.crossfade
        discrete = np.append(limits.discrete, np.zeros(self._tool.width, dtype=bool))
        self.blender = Blender(settings.mode, discrete, settings.ensemble_m, fade)
        self.limiter = Limiter(limits, 1.0 / control_rate)
        self.takeover = Takeover(limits, settings)
        self._by_pose = isinstance(tool, PoseArm)
        self.monitor = Monitor(limits, settings.monitor_window, settings.reversal_limit)
        self.instruction = ""
        self.instruction_id = 0
        self.heard = True
        self._active = self._stopping = self._caught_up = self._silent = self._starting = False
        self._live: Predictions | None = None
        self._seen: Seen | None = None
        self._limited = np.zeros(len(limits.names), dtype=bool)
        self._timing = Timing(self.limiter.dt)
        period_ns = round(1e9 / control_rate)
        tolerance_ns = min(period_ns, round(settings.clock_jump_limit * 1e9))
        self._most = round(settings.command_horizon * control_rate) - 1  # points after that of the command itself
        self._time = CommandTime(period_ns, tolerance_ns, simulated)
        self._start = Start(limits, settings, self.joint_states, self._watchdogs, period_ns, simulated)

    # Inputs

    def joint_state(self, stamp_ns: int, names: list[str], position: list[float], now_ns: int) -> None:
        """A sensor_msgs/JointState, rad or m."""
        self.joint_states.update(stamp_ns, names, position, now_ns)
        self._tool.measured(self.joint_states)

    def odometry(self, stamp_ns: int, pose: Sequence[float], frame: str, now_ns: int) -> None:
        """Pose (3,) of the base, m, m, rad, of a nav_msgs/Odometry; `frame`: its child_frame_id."""
        if self._base:
            self._base.odometry(stamp_ns or now_ns, pose, frame, now_ns)

    def set_instruction(self, text: str) -> None:
        """Chunks of the old instruction are followed until the first one for the new; an empty text ends them at
        once."""
        self.instruction = text.strip()
        self.instruction_id = instruction_id(text)
        self._resumption.told(self.instruction_id != 0)
        if not self.instruction_id:
            self._forget_chunks()
            self.takeover.pause("the instruction is empty")

    def add_chunk(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | Refusal:
        """A chunk arrived. Returns it as it is followed, or why it is refused."""
        self._seen = Seen(chunk.session, chunk.sequence, chunk.stamp_ns, now_ns)
        if self._active:
            self._watchdogs.place(now_ns)
        supervisor = self.supervisor
        result = self.admission.check(
            chunk,
            now_ns,
            self.instruction_id,
            self.joint_states.position,
            supervisor.not_before_ns,
            self._closed(),
        )
        if isinstance(result, ActionChunk):
            supervisor.recovered(Cause.POLICY_GONE, chunk.stamp_ns)  # if it was set: a later chunk is a sign of life
            self.timeline.keep(chunk.instruction_id)
            self.timeline.add(result)
            if self._base:
                self._base.take(result)
            self._resumption.followed()
        return result

    def refuse_chunk(self, reason: Reason, text: str, seen: Seen | None = None) -> Refusal:
        """An invalid message arrived: undecodable, or inconsistent (`seen` then identifies it)."""
        self._seen = seen or self._seen
        return self.admission.refuse(reason, text)

    def e_stop(self, message: str) -> None:
        """Latch the e-stop, active or not."""
        self.supervisor.e_stop(message)
        self.takeover.pause("e-stop")
        self._forget_chunks()

    def reset_e_stop(self, now_ns: int) -> None:
        """Other causes still stop the robot. Its position is checked first, because it may have been moved."""
        if self._active:
            self._watchdogs.place(now_ns)
        self.supervisor.reset_e_stop(now_ns)

    def policy_alive(self, alive: bool, now_ns: int) -> None:
        """The policy's status has stopped arriving, or arrives again."""
        if self._active:
            self._watchdogs.place(now_ns)
        if alive:
            self._watchdogs.recovered(Cause.POLICY_GONE, now_ns)
            return
        if self._active:
            self._watchdogs.trip(Cause.POLICY_GONE, "the policy's status no longer arrives", now_ns)
        self.admission.release()

    def policy_waits(self, why: str) -> None:
        """Why the policy makes no chunks at present, in words; "" if it does."""
        self._resumption.policy_waits = why

    def policy_session_over(self, session: int) -> None:
        """The policy says that it has stopped publishing in this session."""
        self.admission.release_session(session)

    def rivals(self, others: list[str], now_ns: int) -> None:
        """Other publishers on our command topics at the moment, in words."""
        if not self._active:
            return
        if others:
            self._watchdogs.trip(Cause.RIVAL, f"also commanded by {', '.join(others)}", now_ns)
        elif self.supervisor.tripped(Cause.RIVAL):
            try:
                if self._silent:  # otherwise our commands never stopped, and continue from the last one
                    self._start.ask(now_ns)
            except InputError as error:
                self._watchdogs.trip(Cause.RIVAL, f"the other commander is gone, but {error}", now_ns)
            else:
                self._watchdogs.recovered(Cause.RIVAL, now_ns)

    def take_over(self, by: str, now_ns: int) -> None:
        """From now on the robot follows the source of `takeover`. `by`: its name. Raises InputError."""
        state, cause, message = self.state
        if state in (State.INACTIVE, State.E_STOPPED, State.STOPPED) or self._stopping:
            said = [state.name, cause.name if cause else "", message]
            raise InputError(f"{by}: the executor is {', '.join(filter(None, said))}; expected it active, not stopped")
        if self._by_pose:
            raise InputError(f"{by}: joint positions, and this robot's tool is commanded; expected a robot file with a "
                             "command group of joints")
        self.takeover.take(by, now_ns)
        self._forget_chunks()

    def give_back(self, now_ns: int) -> None:
        """The policy continues with its next chunk that is observed from now on."""
        if self.takeover.by:
            self.takeover.end()
            self.supervisor.not_before_ns = now_ns
            self._forget_chunks()

    # Lifecycle

    def activate(self, now_ns: int) -> None:
        """Start commanding, without a chunk to follow yet. Raises InputError that says why it cannot.

        Commands begin as `Start` says; a robot that was deactivated in motion a moment ago is braked from there.
        """
        if self.supervisor.e_stopped:
            raise InputError(f"e-stop is latched ({self.supervisor.e_stop_message}), expected a reset first")
        self._start.ask(now_ns)
        self.supervisor.clear()
        self.takeover.end()
        self.takeover.clear()  # the source may now have fewer joints
        self._start_over()
        self.monitor.clear()
        self._watchdogs.begin()
        self._resumption.clear()
        self._timing.clear()
        self.begin_interval()
        self._active, self._stopping = True, False

    def _begin(self, steady_ns: int) -> None:
        """The first tick after a pause of the commands."""
        self._silent = False
        position = self._start.place(steady_ns, self.limiter.at_rest)
        if position is None:
            self.limiter.begin_stop()
        else:
            self._stand(position)
            self._time.begin()

    def _stand(self, position: np.ndarray) -> None:
        """At rest at `position` (J,), which the next command repeats."""
        self.limiter.reset(position)
        self._starting = True

    def begin_stop(self) -> None:
        """From now on only brake, until `at_rest`; then `deactivate`."""
        self._stopping = True
        self.takeover.end()
        self._forget_chunks()

    @property
    def at_rest(self) -> bool:
        """The command no longer changes."""
        return self.limiter.at_rest

    def deactivate(self) -> None:
        """No more commands."""
        self._active = self._stopping = False
        self.supervisor.clear()
        self.takeover.end()
        self._forget_chunks()
        self._tool.silent()

    # Time

    def tick(self, now_ns: int, steady_ns: int, lateness: float = 0.0) -> Command | None:
        """The command for the time `now_ns`; None while there must not be one.

        Args:
            now_ns: ROS time of this tick's deadline.
            steady_ns: the deadline by steady time, whole periods after the last one. If periods were missed, the
                commands for them are computed too, and the last one is returned.
            lateness: how late the loop was, s.
        """
        if not self._active:
            return None
        self._timing.tick(steady_ns, lateness)
        if self._start.asked:
            self._begin(steady_ns)
        self._watch(now_ns, steady_ns)
        if self.supervisor.tripped(Cause.RIVAL) and (self._silent or self._settled):
            self._silent = True
            self._tool.silent()
            return None
        position = self._next()
        if not np.isfinite(position).all():  # a fault of this program, which must not reach the robot
            worst = int(np.isfinite(position).argmin())
            self.e_stop(f"joint {self.limits.names[worst]}: the next command is {position[worst]}, expected a number")
            self._stand(self._start.last.position)
            position = self._next()
        following, measured = self._live is not None, self.joint_states.position
        self.monitor.tick(steady_ns, self.instruction_id, following, position, measured, self.limiter.limited)
        duration = self._watchdogs.reach_in(position, measured, self.limiter.dt)
        command = Command(self._time.stamp_ns, position, self.limiter.braking(self._most), duration,
                          self.limiter.velocity, following or self.takeover.following, self.interval)
        self._start.commanded(command, steady_ns)
        self._tool.commanded(command)
        return command

    @property
    def _settled(self) -> bool:
        """At rest, and the base was commanded to be: a base does not notice a stall."""
        last = self._start.last
        return self.limiter.at_rest and (last is None or not last.position[self.limits.rates].any())

    @property
    def interval(self) -> float:
        """s between the last two ticks, by steady time."""
        return self._time.interval_ns * 1e-9

    def _next(self) -> np.ndarray:
        """(J,) the command for this tick."""
        interval_ns = self._time.interval_ns
        steps = max(1, round(interval_ns / self._time.period_ns))
        for left in reversed(range(steps)):
            position = self._step(self._time.stamp_ns - interval_ns * left // steps, interval_ns / steps * 1e-9)
        self._starting = False
        return position

    def _step(self, at_ns: int, dt: float) -> np.ndarray:
        """(J,) the command for `at_ns`, `dt` s after the one before."""
        target = self._target(at_ns, dt)
        if target is None:
            self._caught_up = False
        if self._starting or dt <= 0:
            return self.limiter.position.copy()
        if target is None:
            stop = self.supervisor.stopped or self._stopping
            return self.limiter.stop(dt) if stop else self.limiter.brake(dt)
        target = self._joints(*target, at_ns, dt)
        position = self.limiter.follow(*target, dt)
        self.limiter.limited[self._tool.limited] = True  # joint targets computed for a tool are within limits already
        self._limited |= self.limiter.limited
        if not self._caught_up:
            away = np.where(self.limits.discrete, 0.0, np.abs(position - target[0]))
            self._caught_up = bool((away <= self.limits.velocity * dt).all()) and self._tool.near
        return position

    def _joints(
        self, position: np.ndarray, velocity: np.ndarray, at_ns: int, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(J,) position and (J,) velocity `dt` s after the last command, of a target as `_target` gives it."""
        if self._live is not None:
            position, velocity = self._tool.joints(position, velocity, self.limiter, dt)
        else:
            self.limiter.together = ()
        if self._live is None or self._live.partial:  # brake joints without a target, then repeat their command
            held, (place, slower) = np.isnan(position), self.limiter.held(dt)
            position, velocity = np.where(held, place, position), np.where(held, slower, velocity)
        if self._base and (driven := self._base.velocities(at_ns)) is not None:
            position[self._base.columns], velocity[self._base.columns] = driven, 0.0
        return position, velocity

    def _target(self, at_ns: int, dt: float) -> tuple[np.ndarray, np.ndarray] | None:
        """(J,) position and (J,) velocity to follow at `at_ns`, followed by the tool's pose; None: brake.

        `dt`: s since the last command.
        """
        self._live = None
        if self.supervisor.stopped or self._stopping or self.limiter.stopping or not self.heard:
            return None
        if self.takeover.by:
            last = self.limiter.unsmoothed, self.limiter.unsmoothed_velocity
            return self.takeover.target(*last, dt) if dt > 0 else None
        self.timeline.prune(at_ns)
        self._live = self.timeline.predictions(at_ns)
        if self._live is None:
            self.blender.reset()
            self._tool.rest()
            return None
        return self.blender.target(at_ns, self._tool.of_one_space(self._live))

    def _watch(self, now_ns: int, steady_ns: int) -> None:
        """Check everything that may stop the robot."""
        time = self._time
        if time.tick(now_ns, steady_ns, self.limiter.at_rest):
            self.limiter.shorten_interval()
            self._starting = True
        self._watchdogs.place(now_ns)
        if self._watchdogs.clock(time, now_ns):
            self.joint_states.clear()
            self.takeover.clear()
            self._tool.clear()
            if self._base:
                self._base.clear()
            self._start_over()
        if self._watchdogs.stall(time, now_ns):
            self._stand(self.limiter.slowed(self.interval))  # the robot has stood there meanwhile, except for its base
        self._find_again(now_ns)
        self._watchdogs.joints(self.limiter.position, now_ns, steady_ns)
        self._watchdogs.policy(self.monitor, self.limiter, self._live is not None, now_ns)
        self.takeover.watch(now_ns)
        if self.supervisor.stopped:
            self.takeover.pause(self.supervisor.worst[1])
        following = self._live is not None or self.takeover.following
        self._resumption.tick(steady_ns, now_ns, self.instruction_id != 0, following)

    def _find_again(self, now_ns: int) -> None:
        """A tool that stayed behind, has stopped and cannot catch up by itself is commanded to its own position."""
        columns, position = self._tool.adrift, self.limiter.position.copy()
        if len(columns) and self.limiter.at_rest and self._watchdogs.left_behind(columns, position, now_ns):
            position[columns] = self.joint_states.position[columns]
            self._stand(position)
            self._watchdogs.following.clear()

    def _start_over(self) -> None:
        """Forget all chunks and the session that they came from. The instruction stays."""
        self.admission.release()
        self._seen = None
        self._forget_chunks()

    def _forget_chunks(self) -> None:
        self.timeline.clear()
        self.blender.reset()
        self._live = None
        self._caught_up = False
        self._tool.rest()
        if self._base:
            self._base.drop()

    # Status

    def _closed(self) -> Refusal | None:
        """Why no chunk is followed at present, whatever it contains."""
        if self.supervisor.e_stopped:
            return Refusal(Reason.E_STOPPED, self.supervisor.e_stop_message)
        if not self._active or self._stopping:
            return Refusal(Reason.INACTIVE, "the executor is not active")
        cause, message = self.supervisor.worst
        if cause not in (Cause.NONE, Cause.POLICY_GONE):
            return Refusal(Reason.STOPPED, f"{cause.name}: {message}")
        if self.takeover.by:
            return Refusal(Reason.TAKEN_OVER, f"by {self.takeover.by}")
        return None

    @property
    def state(self) -> tuple[State, Cause, str]:
        """State, cause and message."""
        if self.supervisor.e_stopped:
            return State.E_STOPPED, Cause.NONE, self.supervisor.e_stop_message
        if not self._active:
            return State.INACTIVE, Cause.NONE, ""
        cause, message = self.supervisor.worst
        if cause != Cause.NONE:
            return State.STOPPED, cause, message
        if by := self.takeover.by:
            if why := self.takeover.paused:
                return State.HOLDING, Cause.TAKEOVER_PAUSED, f"{by} has taken over and is not followed: {why}"
            return State.TAKEN_OVER, Cause.NONE, f"{by} has taken over"
        if self._live is None:
            cause = Cause.NO_CHUNK
            message = "no live chunk" if self.heard else "first commands are on their way"
            if not self.instruction_id:
                cause, message = Cause.NO_INSTRUCTION, "no instruction"
            return State.HOLDING, cause, message
        return (State.EXECUTING if self._caught_up else State.APPROACHING), Cause.NONE, self.monitor.warning

    @property
    def hindrance(self) -> str:
        """Why the robot may not reach its commands, in words, whatever the state is; "" if it does."""
        said = [self._watchdogs.following.warning, self._tool.reason] if self._active else []
        return "; ".join(filter(None, said))

    def status(self, now_ns: int) -> Status:
        """A snapshot; it changes nothing. `limited` and `lateness` cover the time since `begin_interval`."""
        state, cause, message = self.state
        last = self.admission.last
        commanding, nowhere = self._active and not self._start.asked, np.full(len(self.limits.names), np.nan)
        return Status(
            stamp_ns=now_ns,
            state=state,
            cause=cause,
            message=message,
            mode=self.settings.mode,
            taken_over_by=self.takeover.by,
            instruction=self.instruction,
            instruction_id=self.instruction_id,
            names=self.limits.names,
            position=self.limiter.position if commanding else nowhere,
            velocity=self.limiter.velocity if commanding else nowhere,
            measured=self.joint_states.position.copy(),
            limited=tuple(compress(self.limits.names, self._limited)),
            limits=tuple(compress(self.limits.binding(self.limiter.position, self.limiter.velocity), self._limited)),
            deviation=self.monitor.deviation,
            reversals=self.monitor.reversals,
            limited_share=self.monitor.limited_share,
            progress_age=self.monitor.progress_age,
            live_chunks=len(self._live.position) if self._live is not None else 0,
            seen=self._seen,
            chunk_age=(now_ns - self._live.newest.stamp_ns) * 1e-9 if self._live is not None else np.nan,
            ticks=self._timing.ticks,
            accepted_chunks=self.admission.accepted,
            refused={str(reason): count for reason, count in sorted(self.admission.refused.items())},
            last_refusal=str(last) if last is not None else "",
            control_rate=self._timing.rate if self._active else 0.0,
            lateness=self._timing.worst_lateness,
            overruns=self._timing.overruns,
        )

    def begin_interval(self) -> None:
        """Restart `limited` and `lateness` of the status; called when it is published."""
        self._limited = np.zeros_like(self._limited)
        self._timing.worst_lateness = 0.0
