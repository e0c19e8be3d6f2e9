"""A graph of nodes as separate processes: started, brought through their lifecycle, watched and ended together."""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.task import Future

from vla_ros.core.errors import InputError
from vla_ros.core.signals import StopSignals, taken
from vla_ros.graph.process import Process, check_namespace, signal_all, start_process
from vla_ros.nodes.base import end_at_the_latest
from vla_ros.nodes.clock import PlainNode
from vla_ros.nodes.security import OVERRIDE, enclave_arguments, secured

_GOALS = {
    Transition.TRANSITION_CONFIGURE: (State.PRIMARY_STATE_INACTIVE, "configure"),
    Transition.TRANSITION_ACTIVATE: (State.PRIMARY_STATE_ACTIVE, "activate"),
    Transition.TRANSITION_DEACTIVATE: (State.PRIMARY_STATE_INACTIVE, "deactivate"),
    Transition.TRANSITION_CLEANUP: (State.PRIMARY_STATE_UNCONFIGURED, "clean up"),
}
_SERVICES = {"change_state": ChangeState, "get_state": GetState, "set_parameters": SetParameters}
_ASK_AGAIN = 2.0  # s between questions to a node that has not answered


class GraphError(InputError):
    """A node ended, refused a transition, or did not do what was waited for."""


class Graph:
    """Nodes in processes of their own, and a ROS node of this process to talk to them.

        with Graph(folder) as graph:
            graph.start("policy_node", parameters={"robot": "so101.yaml", "policy": "checkpoint"})
            graph.bring_up("policy_node")
            graph.wait_for(lambda: ..., "the first chunk")

    Leaving the block ends every process: SIGINT first, SIGKILL after a deadline. Where the middleware then hangs in
    this process, it ends too (status 1), so use what the block gave inside it. If this process is killed itself, the
    nodes see its pipe close and end. `self.node` is spun in a thread; its callbacks run there.

    Args:
        folder: for parameter files and logs, made if it is missing.
        domain: ROS domain of the whole graph; None takes it from ROS_DOMAIN_ID.
        namespace: of every node started.
        environment: variables on top of this process's own.
        use_sim_time: of `self.node`; nodes get it as a parameter from the caller.
        enclave: of this process where ROS's security is on; the nodes have their own.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        domain: int | None = None,
        namespace: str = "",
        environment: Mapping[str, str] | None = None,
        use_sim_time: bool = False,
        enclave: str = "operator",
    ) -> None:
        check_namespace(namespace)
        self.folder = Path(folder)
        self.domain = domain
        self.namespace = namespace
        self.processes: dict[str, Process] = {}
        # Kept for a node that is started again: Fast DDS may lock up where entities are destroyed while a peer ends.
        self._clients: dict[str, dict[str, Any]] = {}
        self._environment = dict(environment or {})
        if domain is not None:
            self._environment["ROS_DOMAIN_ID"] = str(domain)
        self._use_sim_time = use_sim_time
        self._arguments = enclave_arguments(enclave)
        self._old_handlers: dict[int, Any] = {}
        self._signals, self._stopping = StopSignals(), False
        self._failure: Exception | None = None  # what ended the spinning thread

    # Begin and end

    def __enter__(self) -> "Graph":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._alive_read, self._alive_write = os.pipe()
        if threading.current_thread() is threading.main_thread():
            # Without this a SIGTERM or a closed terminal would end us before our nodes.
            for number in taken():
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        self.context = rclpy.Context()
        with secured(self._arguments):
            rclpy.init(
                args=self._arguments,
                context=self.context,
                domain_id=self.domain,
                signal_handler_options=rclpy.signals.SignalHandlerOptions.NO,
            )
            self.node = PlainNode(
                f"vla_ros_cli_{os.getpid()}",
                context=self.context,
                namespace=self.namespace or None,
                enable_rosout=False,  # of several graphs in one process all have this name
                parameter_overrides=[Parameter("use_sim_time", value=self._use_sim_time)],
            )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._end_spin: Future[None] = Future()
        self._thread = threading.Thread(target=self._spin, name="graph", daemon=True)
        self._thread.start()
        return self

    def _on_signal(self, number: int, frame: object) -> None:
        """The first one ends the block; what comes while the nodes end changes nothing, but for a third of one kind."""
        third = self._signals.is_third(number)
        if third or not self._stopping:
            self._stopping = True
            raise KeyboardInterrupt

    def _spin(self) -> None:
        try:
            self._executor.spin_until_future_complete(self._end_spin)
        except ExternalShutdownException:
            pass  # the context was shut down: nothing is left to spin
        except Exception as error:  # of a callback; what it should have heard would stay as it was for good
            self._failure = error

    def __exit__(self, *error: object) -> None:
        try:
            self.stop()
        finally:
            end_at_the_latest()
            self._end_spin.set_result(None)
            self._thread.join(timeout=10.0)
            self._executor.shutdown(timeout_sec=1.0)
            self.node.destroy_node()
            rclpy.try_shutdown(context=self.context)
            faulthandler.cancel_dump_traceback_later()
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)

    def stop(self, deadline: float = 30.0) -> None:
        """End all processes: SIGINT to all, then after `deadline` s, or at once on a third Ctrl-C, SIGKILL."""
        self._stopping = True
        processes = list(self.processes.values())
        try:
            signal_all(processes, signal.SIGINT, deadline)
        finally:
            signal_all(processes, signal.SIGKILL, deadline)
            self.processes.clear()
            for descriptor in (self._alive_read, self._alive_write):
                if descriptor >= 0:
                    os.close(descriptor)
            self._alive_read = self._alive_write = -1

    # Nodes

    def start(
        self,
        name: str,
        module: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        files: Sequence[str | Path] = (),
        lifecycle: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start `python -P -m module` as node `name`.

        Args:
            module: `vla_ros.nodes.NAME` when None.
            parameters: written to a parameter file of their own; they win over `files`.
            files: ordinary ROS parameter files.
            lifecycle: False for a node without lifecycle services.
        """
        if name in self.processes:
            raise ValueError(f"node {name} is started already")
        variables = {name: value for name, value in os.environ.items() if name != OVERRIDE}  # our enclave is not theirs
        process = start_process(
            self.folder, name, module or f"vla_ros.nodes.{name}", self.namespace, parameters or {}, files,
            variables | self._environment | dict(environment or {}), self._alive_read,
        )  # fmt: skip
        self.processes[name] = process
        if lifecycle:
            process.clients = self._clients.setdefault(name, {})
            for service, kind in _SERVICES.items() if not process.clients else ():
                process.clients[service] = self.node.create_client(kind, f"{self.full_name(name)}/{service}")
        return process

    def full_name(self, name: str) -> str:
        """The name of a node with the namespace of the graph."""
        return f"/{self.namespace.strip('/')}/{name}" if self.namespace else f"/{name}"

    def kill(self, name: str, number: int = signal.SIGKILL, deadline: float = 30.0) -> None:
        """Send a signal to one node and wait for its end; it can then be started again."""
        process = self.processes.pop(name)
        signal_all([process], number, deadline)
        if process.popen.poll() is None:
            signal_all([process], signal.SIGKILL, deadline)
            raise GraphError(f"node {name} did not end within {deadline:g} s of signal {number}")

    def check(self) -> None:
        """Raises GraphError when a node's process has ended, or a callback of `self.node` has failed."""
        if (error := self._failure) is not None:
            raise GraphError(f"messages are not taken any more: {type(error).__name__}: {error}") from error
        for process in self.processes.values():
            status = process.popen.poll()
            if status is not None:
                raise GraphError(f"node {process.name} ended with status {status}: {process.errors()}")

    def wait_for(self, predicate: Callable[[], Any], what: str, deadline: float = 60.0) -> Any:
        """Waits until `predicate()` is true and returns its value. Raises GraphError, also when a node ends."""
        value = self.wait_until(predicate, deadline)
        if not value:
            raise GraphError(f"timed out after {deadline:g} s waiting for {what}")
        return value

    def wait_until(self, predicate: Callable[[], Any], patience: float) -> Any:
        """The first true value of `predicate()`, or the last one after `patience` s. Raises when a node ends."""
        end = time.monotonic() + patience
        while True:
            value = predicate()
            if value:
                return value
            self.check()
            if time.monotonic() > end:
                return value
            time.sleep(0.01)

    def call(self, client: Any, request: Any) -> Any:
        """The response of a service; asked again where an answer got lost while the processes discovered each other.

        For requests that may be repeated. Raises GraphError.
        """
        self.wait_for(client.service_is_ready, f"the service {client.srv_name}")
        for _ in range(10):
            future = client.call_async(request)
            if self.wait_until(future.done, 10.0):
                return future.result()
            client.remove_pending_request(future)
        raise GraphError(f"{client.srv_name} did not answer")

    def set_parameters(self, name: str, values: Mapping[str, Any]) -> None:
        """Set parameters of a node. Raises GraphError that names the one that is refused."""
        client = self.processes[name].clients["set_parameters"]
        messages = [Parameter(parameter, value=value).to_parameter_msg() for parameter, value in values.items()]
        results = self.call(client, SetParameters.Request(parameters=messages)).results
        for parameter, result in zip(values, results, strict=True):
            if not result.successful:
                raise GraphError(f"{name}: parameter {parameter}: {result.reason}")

    # Lifecycle

    def state(self, name: str) -> int:
        """lifecycle_msgs/State.PRIMARY_STATE_* of a node."""
        return self.wait_for(lambda: self._ask_state(self.processes[name]), f"the state of {name}")

    def transition(self, name: str, transition: int, deadline: float = 120.0) -> None:
        """Bring a node through a transition. Raises GraphError with the node's own words when it refuses.

        A request or a reply can get lost while the two processes discover each other. So while the reply is
        out the node is asked for its state: a node that answers is not in a transition, and is asked again.
        """
        goal, what = _GOALS[transition]
        process = self.processes[name]
        client = process.clients["change_state"]
        end = time.monotonic() + deadline
        self.wait_for(client.service_is_ready, f"the lifecycle services of {name}", deadline)
        while time.monotonic() < end:
            future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            while time.monotonic() < end and not self.wait_until(future.done, _ASK_AGAIN):
                state = self._ask_state(process)
                if state == goal:
                    return
                if state is not None and not self.wait_until(future.done, _ASK_AGAIN):
                    break  # idle in another state and still no reply: lost
            if future.done():
                if future.result().success or self._ask_state(process) == goal:
                    return
                raise GraphError(f"node {name} did not {what}: {process.errors()}")
            client.remove_pending_request(future)
        raise GraphError(f"node {name} did not {what} within {deadline:g} s: {process.errors()}")

    def _ask_state(self, process: Process) -> int | None:
        client = process.clients["get_state"]
        future = client.call_async(GetState.Request())
        if self.wait_until(future.done, _ASK_AGAIN):
            return future.result().current_state.id
        client.remove_pending_request(future)
        return None

    def configure(self, name: str, deadline: float = 600.0) -> None:
        """Loading and warming up a large policy takes minutes, hence the deadline."""
        self.transition(name, Transition.TRANSITION_CONFIGURE, deadline)

    def activate(self, name: str, deadline: float = 120.0) -> None:
        self.transition(name, Transition.TRANSITION_ACTIVATE, deadline)

    def activate_when_ready(self, name: str, deadline: float = 60.0) -> None:
        """As `activate`, but a refusal (the robot's joint states are not there yet) is tried again until `deadline`."""
        end = time.monotonic() + deadline
        while True:
            try:
                return self.activate(name)
            except GraphError:
                self.check()
                if time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def deactivate(self, name: str, deadline: float = 120.0) -> None:
        self.transition(name, Transition.TRANSITION_DEACTIVATE, deadline)

    def cleanup(self, name: str, deadline: float = 120.0) -> None:
        self.transition(name, Transition.TRANSITION_CLEANUP, deadline)

    def bring_up(self, *names: str) -> None:
        """Configure all of them, then activate all of them, in order."""
        for name in names:
            self.configure(name)
        for name in names:
            self.activate_when_ready(name)
