"""Turns chunks into bounded joint commands at control rate: ROS around `vla_ros.control.executor`."""

import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np

from vla_ros.control.admission import NO_TOOL
from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.posed_tool import PosedTool
from vla_ros.control.remedies import with_section
from vla_ros.control.settings import Command
from vla_ros.control.supervisor import State
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.urdf import load_urdf
from vla_ros.core.errors import InputError, NotYet
from vla_ros.core.reminder import without_quantities
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.commands import CommandPublishers, other_commanders, unheard
from vla_ros.nodes.diagnostics import ExecutorDiagnostic, publish_diagnostics
from vla_ros.nodes.executor.claim import Claim
from vla_ros.nodes.executor.control_loop import ControlLoop
from vla_ros.nodes.executor.e_stop import EStop
from vla_ros.nodes.executor.inputs import Inputs
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.executor.simulated_time import SimulatedTime
from vla_ros.nodes.executor.status import fill_status
from vla_ros.nodes.executor.urdf_source import urdf_source
from vla_ros.nodes.goals import action_class
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.nodes.silent import silent

STATUS_PERIOD = 0.1  # s
RIVAL_PERIOD = 0.5  # s between checks for other publishers of commands
_ONE_MOMENT = 50_000  # ns
# s for which the robot stands still at both ends of its commands: a controller gets nothing from a publisher that it
# has not discovered yet, and loses what it has not taken yet from one that is gone.
ARRIVAL = 0.3
BRAKING_PATIENCE = 5.0  # s beyond which deactivation no longer waits for the robot to have braked


class ExecutorNode(ManagedNode):
    """Passes messages and time to the executor, and publishes its commands and status.

    In real time a thread ticks on absolute deadlines. In simulated time (`use_sim_time`) there is one tick for
    each control period of /clock, at the clock message that ends it.
    """

    def __init__(self, **options: Any) -> None:
        self._lock = threading.RLock()  # the executor is fed by the spinning thread and ticked by the loop
        self._executor: Executor | None = None
        self._posed: PosedTool | None = None
        self._loop: ControlLoop | None = None
        self._time: SimulatedTime | None = None
        self._commands: CommandPublishers | None = None
        self._claim: Claim | None = None
        self._e_stop: EStop | None = None
        self._born = time.monotonic()
        self._said: tuple[Any, ...] = ()
        self._refusal = ""
        super().__init__("executor_node", ExecutorParameters, **options)
        # From here to the node's end, in every state: the e-stop, and the status that shows it.
        self._status_publisher = self.create_publisher(ExecutorStatus, "~/status", STATUS_QOS)
        self._status = ExecutorStatus()
        self._e_stop = EStop(self, on_latch=self._on_latch, on_reset=self._on_reset, on_failure=self._on_thread_failed)
        self._e_stop.start()
        self.create_steady_timer(STATUS_PERIOD, self._publish_status)
        self._publish_status()

    def destroy_node(self) -> None:
        if self._e_stop is not None:  # the node was refused before
            self._e_stop.close()
        super().destroy_node()

    # Lifecycle

    def configure(self) -> None:
        parameters: ExecutorParameters = self.parameters
        self._robot = robot = self.load_robot()
        simulated = self.get_parameter("use_sim_time").value
        source = urdf_source(self, parameters)
        for group in robot.groups:
            if group.action and not parameters.dry_run:
                action_class(group.interface)
                if simulated:
                    raise InputError(
                        f"command group {group.name}: interface {group.interface} with use_sim_time: its goals are "
                        "timed in real time; expected an interface with a topic, such as joint_trajectory"
                    )
        limits = Limits.merge(robot, load_urdf(source, robot.joint_names) if source else None)
        settings = parameters.settings()
        self._posed = posed = None
        if robot.tool_group is not None:
            self._posed = posed = PosedTool(robot, source, limits, settings.admission.future_tolerance)
            limits = posed.limits
        for name, line in limits.report().items():
            self.get_logger().info(f"limits of {name}: {line}")
        if not parameters.dry_run:  # early, so that there is time to discover others
            topics = [self.resolve_topic_name(group.topic) for group in robot.groups]
            self._claim = Claim(self, topics, parameters.claim_wait, self._born)
        self._period_ns = round(NS / robot.control_rate)
        self._refusal, self._said, self._last_command = "", (), None
        self._warned, self._unheard = {}, ""
        tool = posed.arm if posed else self._tool(source, limits)
        executor = Executor(limits, robot.control_rate, settings, simulated, tool, robot.path_axes)
        self._e_stop.watch(parameters.e_stop_heartbeat)
        self._inputs = Inputs(
            self,
            executor,
            robot,
            parameters,
            lock=self._lock,
            now_ns=self._now_ns,
            told=self._publish_status,
            simulated=simulated,
            posed=posed,
        )
        # only now, because the e-stop's thread may publish the status at any time, which needs the inputs
        self._executor = executor
        if simulated:
            jump_limit = parameters.clock_jump_limit
            self._time = SimulatedTime(
                self, robot.control_rate, jump_limit, tick=self._tick, repeated=self._on_repeated_clock
            )
        diagnostic = ExecutorDiagnostic()
        publish_diagnostics(self, lambda: diagnostic(self._status, bool(self._hindrances())))
        self.create_steady_timer(RIVAL_PERIOD, self._look_around)
        self._publish_status()
        if self._claim is not None:
            self._claim.settle()

    def _tool(self, source: str, limits: Limits) -> ToolArm | str:
        """The arm that follows end-effector targets, or why there is none; joint targets are followed in any case."""
        tool = self._robot.tool
        if tool is None:
            return NO_TOOL
        if not source:
            return "its tool needs a URDF, by the parameter urdf, robot_description or robot_description_topic"
        try:
            return ToolArm(tool, source, limits)
        except InputError as error:
            self.get_logger().warning(f"no end-effector targets: {with_section(error)}")
            return str(error)

    def may_autostart(self) -> None:
        if self.parameters.autostart_after_policy and not self._inputs.policy_active:
            raise InputError("policy_node is not active yet (autostart_after_policy)")

    def activate(self) -> None:
        assert self._executor is not None
        rivals = self._rivals()
        if rivals:
            raise InputError(f"command topics: also commanded by {', '.join(rivals)}, expected no other node")
        self._e_stop.settle()
        if self._e_stop.missing:
            raise InputError(f"e_stop_heartbeat: {self._e_stop.missing}")
        if self._claim is not None:
            self._claim.take()
        if self._time is None:  # /clock is not read meanwhile
            self._inputs.catch_up()
        with self._lock:
            self._take_e_stop()
            try:
                if missing := self._missing_joints():
                    raise NotYet(f"joint states: {missing}")
                self._executor.activate(self._now_ns())
                if not self.parameters.dry_run:
                    self._commands = CommandPublishers(
                        self,
                        self._robot,
                        self._executor.limits.names,
                        COMMAND_QOS,
                        horizon=self.parameters.command_horizon,
                        stamped=self._time is not None,
                    )
            except Exception as error:
                self._executor.deactivate()
                self._release_claim()
                if isinstance(error, NotYet) and (why := silent(self, self._robot.measured_streams)):
                    raise NotYet(f"{error}; {why}") from None
                raise
            self._executor.heard = self._time is not None or self._commands is None
            self._refusal, self._unheard, self._last_command, self._resting = "", "", None, False
            if self._time is not None:
                self._time.start()
            else:
                self._loop = ControlLoop(self._period_ns, self._on_real_tick, self._on_thread_failed)
        if self._loop is not None:
            denied = self._loop.start(self.parameters.realtime_priority)
            if denied:
                self.get_logger().warning(f"realtime_priority not granted, continuing without it: {denied}")
        self._publish_status()

    def deactivate(self) -> None:
        """Brake, and repeat the command at rest for a while; in simulated time, which stands still, stop at once."""
        executor, loop = self._executor, self._loop
        if executor is None:
            return
        if loop is not None:
            with self._lock:
                executor.begin_stop()
            end = time.monotonic() + BRAKING_PATIENCE
            while not (self._at_rest and self._resting) and time.monotonic() < end and loop.running:
                time.sleep(self._period_ns * 1e-9)
            if not self._at_rest:
                self.get_logger().error(f"the robot had not braked after {BRAKING_PATIENCE} s")
            loop.stop()
            self._loop = None
        if self._time is not None:
            self._time.stop()
        with self._lock:
            executor.deactivate()
            if self._commands is not None:
                self._say_zero(self._now_ns())
        if self._commands is not None:
            self._commands.settle()
        with self._lock:
            if self._commands is not None:
                self._commands.close()
            self._commands = None
        self._release_claim()
        self._publish_status()

    @property
    def _at_rest(self) -> bool:
        return self._executor.at_rest and (self._posed is None or self._posed.at_rest)

    def _release_claim(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def release(self) -> None:
        self._e_stop.watch(0.0)
        with self._lock:
            self._executor = self._claim = None
        if self._time is not None:
            self._time.close()
        self._time = None
        self._publish_status()

    def refused(self, reason: str) -> None:
        self._refusal = reason
        self._publish_status()

    # Time

    def _now_ns(self) -> int:
        """ROS time; simulated time is that of the newest clock message that was handled."""
        return self.now_ns() if self._time is None else self._time.now_ns

    def _on_real_tick(self, grid_ns: int, lateness: float) -> None:
        for _ in range(3):  # read both clocks at the same moment; again if the thread lost the processor in between
            before = time.monotonic_ns()
            now_ns = self.now_ns()
            if time.monotonic_ns() - before < _ONE_MOMENT:
                break
        self._tick(now_ns - (before - grid_ns), grid_ns, lateness)

    def _tick(self, now_ns: int, steady_ns: int, lateness: float = 0.0) -> None:
        with self._lock:
            executor = self._executor
            if executor is None:
                return
            self._take_e_stop()
            command, last = executor.tick(now_ns, steady_ns, lateness), self._last_command
            if command is not None:
                at_rest = last is not None and np.array_equal(command.position, last.position)
                if not at_rest or (self._posed is not None and not self._posed.at_rest):
                    self._moved_ns = steady_ns
            self._resting = command is None or steady_ns - self._moved_ns >= ARRIVAL * NS
            executor.heard |= self._resting
            self._last_command = command
            if command is not None:
                self._publish_command(command)
            elif self._commands is not None and self._posed is not None and not self._posed.at_rest:
                self._commands.publish_tool(self._posed.brake(now_ns, executor.interval), now_ns)
            if executor.state[:2] != self._said:
                self._publish_status(now_ns if command is None else command.stamp_ns)

    def _on_repeated_clock(self) -> None:
        """If a simulator repeats its time, it may have missed the command for it."""
        with self._lock:
            if self._last_command is not None:
                self._publish_command(self._last_command)

    def _on_thread_failed(self, error: Exception) -> None:
        """A bug must be visible, and nothing may move: the process ends, which its peers notice."""
        name, words = threading.current_thread().name, "".join(traceback.format_exception(error))
        self.get_logger().fatal(f"thread {name} failed: {error}\n{words}")
        os.kill(os.getpid(), signal.SIGTERM)

    # Commands

    def _publish_command(self, command: Command) -> None:
        if self._commands is not None:
            posed, measured = self._posed, self._executor.joint_states.position
            tool = None if posed is None else posed.values(command, measured)
            self._commands.publish(command.position, command.stamp_ns, command.braking, command.reach_in, tool)

    def _say_zero(self, now_ns: int) -> None:
        """Command zero before the commands end: a controller of twists, or a base, continues with the last one until
        its timeout."""
        self._commands.stop_bases(now_ns)
        if self._posed is not None and not self._posed.at_rest:
            self._commands.publish_tool(self._posed.halt(), now_ns)

    def _rivals(self) -> list[str]:
        if self.parameters.dry_run:
            return []
        return other_commanders(self, self._robot, publishing=self._commands is not None)

    def _look_around(self) -> None:
        """Check for other commanders, and for controllers that subscribe."""
        if not self.is_active:
            return
        rivals = self._rivals()
        self._unheard = "" if self.parameters.dry_run else unheard(self, self._robot)
        with self._lock:
            self._executor.rivals(rivals, self._now_ns())

    def _hindrances(self) -> list[str]:
        """Why the robot may not reach its commands, in words."""
        said = [self._inputs.disagreement, self._missing_joints() if self.is_active else ""]
        if self.is_active and not self.parameters.dry_run:
            said += [self._unheard, self._commands.trouble if self._commands else "", self._executor.hindrance]
        return [words for words in said if words]

    def _missing_joints(self) -> str:
        """Missing joints by name, if the executor only has the tool's columns."""
        return self._posed.missing(self._now_ns(), self.parameters.joint_state_timeout) if self._posed else ""

    # Called by the e-stop's thread

    def _take_e_stop(self) -> None:
        """Pass a latched e-stop to the executor, with the lock held, at the latest with the next tick."""
        latched, executor = self._e_stop.latched, self._executor
        if latched and executor is not None and not executor.supervisor.e_stopped:
            executor.e_stop(latched)

    def _on_latch(self) -> None:
        self._publish_status()
        self.get_logger().warning(f"e-stop: {self._e_stop.latched}")

    def _on_reset(self, was: str) -> None:
        with self._lock:
            if self._executor is not None:
                self._executor.reset_e_stop(self._now_ns())
            self._publish_status()
        if was:
            self.get_logger().warning(f"e-stop was reset; it was latched by {was}")

    # Status

    def _publish_status(self, at_ns: int | None = None) -> None:
        """`at_ns`: time of the command whose tick changed the state; now if none did."""
        with self._lock:
            self._take_e_stop()
            executor = self._executor
            if executor is None:
                state = State.E_STOPPED if self._e_stop.latched else State.UNCONFIGURED
                message = self._status = ExecutorStatus(state=state, message=self._e_stop.latched)
                set_stamp(message, self._now_ns())
            else:
                status = executor.status(self._now_ns() if at_ns is None else at_ns)
                self._said = (status.state, status.cause)
                message = fill_status(self._status, status)
                executor.begin_interval()
                hindrances = self._hindrances()
                message.message = "; ".join(dict.fromkeys([*filter(None, [message.message]), *hindrances]))
                self._warn([*hindrances, *filter(None, [executor.monitor.first_warning])])
                message.instructions = self._inputs.instructions
            message.dry_run = self.parameters.dry_run
            if message.state in (State.UNCONFIGURED, State.INACTIVE) and self._refusal:
                message.message = self._refusal
            self._status_publisher.publish(message)

    def _warn(self, said: list[str]) -> None:
        """Log each warning once until it is over, even if its numbers change."""
        warnings = {without_quantities(words): words for words in said}
        for kind in warnings.keys() - self._warned.keys():
            self.get_logger().warning(warnings[kind])
        self._warned = warnings


def main(args: list[str] | None = None) -> int:
    return spin_node(ExecutorNode, args)


if __name__ == "__main__":
    sys.exit(main())
