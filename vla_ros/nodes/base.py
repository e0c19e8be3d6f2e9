"""The lifecycle that all nodes share, and a `main` that ends cleanly."""

import faulthandler
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import rclpy
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future

from vla_ros.control.remedies import with_section
from vla_ros.core.errors import InputError
from vla_ros.core.missing import what_to_install
from vla_ros.core.robot import RobotSpec
from vla_ros.core.text import say
from vla_ros.nodes.autostart import Autostart, Ended
from vla_ros.nodes.clock import ClockGuard
from vla_ros.nodes.ending import UNREACHABLE, watch
from vla_ros.nodes.parameter_files import check_parameters, files_of
from vla_ros.nodes.parameters import NodeParameters, build, check, descriptor, rule
from vla_ros.nodes.parent import Parent
from vla_ros.nodes.qos_overrides import QosOverrides
from vla_ros.nodes.security import secured
from vla_ros.nodes.taking import NodeExecutor

ENDING = 15.0  # s for the middleware to destroy a node


class ManagedNode(ClockGuard, QosOverrides, LifecycleNode):
    """A lifecycle node with declared parameters and a single teardown.

    A subclass overrides `configure`, `activate`, `deactivate` and `release`. What `configure` creates on the
    node (publishers, subscriptions, timers, services, clients) is destroyed by the base in the teardown.

    Attributes:
        parameters: the current values, an instance of the dataclass given to the constructor.
        refusal: why the last step of a transition failed, with the section of the documentation.
    """

    def __init__(self, name: str, parameters: type[NodeParameters], **options: Any) -> None:
        super().__init__(name, **options)
        self._own_name, self.refusal = name, ""
        self._created: list[tuple[Any, Callable[[Any], object]]] = []
        self._when_released: Callable[[], None] | None = None
        self._parameter_fields = {item.name: item for item in fields(parameters)}
        self.parameters: Any = self._declare(parameters)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._autostart = Autostart(self) if self.parameters.autostart else None

    # Overridden by subclasses

    def configure(self) -> None:
        """Load files, make publishers and subscriptions. Raise InputError to refuse."""

    def activate(self) -> None:
        """Begin. Raise InputError to refuse."""

    def deactivate(self) -> None:
        """Stop what `activate` began. Must not raise; also called in the teardown after an error."""

    def release(self) -> None:
        """Release what `configure` made besides ROS entities. Called once after each `configure`, even if it failed."""

    def refused(self, reason: str) -> None:
        """A transition was refused; for the status message. The reason is already logged."""

    def may_autostart(self) -> None:
        """Raise InputError for additional conditions of an automatic activation."""

    # Used by subclasses

    @property
    def state_id(self) -> int:
        """lifecycle_msgs/State.PRIMARY_STATE_* or TRANSITION_STATE_*."""
        return self._state_machine.current_state[0]

    @property
    def is_active(self) -> bool:
        return self.state_id == State.PRIMARY_STATE_ACTIVE

    def now_ns(self) -> int:
        """ROS time (simulated where `use_sim_time` is set), ns."""
        return self.get_clock().now().nanoseconds

    def load_robot(self) -> RobotSpec:
        """The robot file that the parameter `robot` names. Raises InputError."""
        if not self.parameters.robot:
            raise InputError("parameter robot: empty, expected the path or the name of a robot file")
        return RobotSpec.load(self.parameters.robot)

    def create_steady_timer(self, period: float, callback: Callable[[], None]) -> Any:
        """A timer of `period` s that keeps running when simulated time stands still."""
        return self.create_timer(period, callback, clock=self._steady_clock)

    def destroy_subscription(self, subscription: Any) -> bool:
        """Also destroys the further subscriptions of an instruction (see `nodes.bounded`)."""
        for other in getattr(subscription, "completed_by", ()):
            super().destroy_subscription(other)
        return super().destroy_subscription(subscription)

    # Parameters

    def _declare(self, kind: type[NodeParameters]) -> Any:
        values = {}
        for item in self._parameter_fields.values():
            default = list(item.default) if isinstance(item.default, tuple) else item.default
            try:
                value = self.declare_parameter(item.name, default, descriptor(item)).value
            except ParameterException as error:
                raise InputError(f"parameter {item.name}: {error}") from None
            # rclpy reads an empty list of a parameter file as "not set"
            values[item.name] = default if value is None else value
        return build(kind, values)

    def check_given(self, files: Sequence[str]) -> None:
        """Raises InputError for parameters in the node's files and arguments that it would not use."""
        full_name, known = self.get_fully_qualified_name(), list(self._parameters)
        check_parameters(full_name, self._own_name, known, list(self._parameter_overrides), files)

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            item = self._parameter_fields.get(parameter.name)
            if item is None and parameter.name != "use_sim_time":
                continue  # rclpy's own
            try:
                if item is not None:
                    check(item, parameter.value)
            except InputError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if not (item and rule(item).live) and self.state_id != State.PRIMARY_STATE_UNCONFIGURED:
                reason = f"parameter {parameter.name}: is read when the node is configured; clean the node up first"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _take_parameters(self, parameters: list[Parameter]) -> None:
        own = self._parameter_fields
        values = {p.name: check(own[p.name], p.value) for p in parameters if p.name in own}
        self.parameters = replace(self.parameters, **values)

    # Lifecycle

    def _attempt(self, what: str, step: Callable[[], None]) -> bool:
        """Runs one step of a transition; False after saying why it failed."""
        try:
            step()
        except InputError as error:
            reason, told = str(error), with_section(error)
            if self._autostart is None or not self._autostart.takes(error):
                self.get_logger().error(f"{what} refused: {told}")
        except Exception as error:  # rclpy would drop it silently; a bug must be visible, and nothing may move
            missing = what_to_install(error)
            reason = told = missing or f"{type(error).__name__}: {error}"
            self.get_logger().error(f"{what} failed: {reason}" + ("" if missing else f"\n{traceback.format_exc()}"))
        else:
            return True
        self.refusal = told
        self.refused(reason)
        return False

    def _entities(self) -> list[tuple[Any, Callable[[Any], object]]]:
        """The node's ROS entities, each with the function that destroys it (safe to call twice)."""
        groups = (
            (self.publishers, self.destroy_lifecycle_publisher),  # takes ordinary ones too
            (self.subscriptions, self.destroy_subscription),
            (self.timers, self.destroy_timer),
            (self.services, self.destroy_service),
            (self.clients, self.destroy_client),
        )
        return [(entity, destroy) for group, destroy in groups for entity in group]

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        before = {id(entity) for entity, _ in self._entities()}
        done = self._attempt("configure", self.configure)
        self._created = [pair for pair in self._entities() if id(pair[0]) not in before]
        if not done:
            self._go_down(state)
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)  # enables the lifecycle publishers
        if result == TransitionCallbackReturn.SUCCESS and not self._attempt("activate", self.activate):
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        for words in self.unused_qos_overrides():
            self.get_logger().warning(words)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._attempt("deactivate", self.deactivate)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._go_down(state)
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._go_down(state)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._go_down(state)
        return super().on_error(state)

    def _go_down(self, state: LifecycleState) -> None:
        """The only teardown, from `state`: cleanup, shutdown, errors, a failed configure, the end of the process."""
        if state.state_id == State.PRIMARY_STATE_ACTIVE:
            self._attempt("deactivate", self.deactivate)
        self._attempt("release", self.release)
        if self._when_released is not None:
            self._when_released()
        created, self._created = self._created, []
        for entity, destroy in created:
            destroy(entity)

    def end(self, when_released: Callable[[], None] | None = None) -> None:
        """Leave the lifecycle at the end of the process.

        `when_released` is called once nothing but the node's ROS entities is left.
        """
        self._when_released = when_released
        if self.state_id not in (State.PRIMARY_STATE_FINALIZED, State.PRIMARY_STATE_UNKNOWN):
            self.trigger_shutdown()


def spin_node(make: Callable[[], Node], args: list[str] | None = None) -> int:
    """The body of every node's `main`: make the node, spin it, end cleanly on SIGINT, SIGTERM or the parent's end.

    Signals are handled here because rclpy's handlers shut the context down first, after which the node could not
    publish that it stops. See `watch` for requests to end at once. Returns the exit status.
    """
    stop: Future[str] = Future()
    parent = Parent()
    watch(stop, parent)
    executor = node = None
    try:
        with secured(args):
            rclpy.init(args=args, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
            node = make()
        if isinstance(node, ManagedNode):
            node.check_given(files_of(sys.argv if args is None else args))
        executor = NodeExecutor()
        executor.add_node(node)
        if isinstance(node, ManagedNode):
            parent.serve(lambda request: executor.create_task(parent.answer, node, request))
        executor.spin_until_future_complete(stop)
        if stop.done() and stop.result().startswith(UNREACHABLE):
            say(f"[ERROR] {stop.result()}: the middleware's clean-up after a killed process; start this node again",
                error=True)
            return 3
        return 0
    except (InputError, ParameterException) as error:
        say(f"[ERROR] {with_section(error)}", error=True)
        return 2
    except Ended:
        return 2
    except ExternalShutdownException:
        return 0
    finally:
        if node is not None:
            if isinstance(node, ManagedNode):
                node.end(end_at_the_latest)
            end_at_the_latest()
            if executor is not None:
                executor.remove_node(node)
            node.destroy_node()
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()
        faulthandler.cancel_dump_traceback_later()


def end_at_the_latest() -> None:
    """End the process after `ENDING` s even if it hangs; stderr then shows where.

    `faulthandler.cancel_dump_traceback_later` cancels it. Fast DDS can deadlock while it destroys an entity or is told
    that a peer did (its issue 6502), and rclpy holds the interpreter's lock meanwhile, so Python code could not end the
    process.
    """
    sys.stdout.flush()
    faulthandler.dump_traceback_later(ENDING, exit=True, file=sys.__stderr__)
