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
from lifecycle_msgs.msg import Transition
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.task import Future

from vla_ros.core.discovery import discovery_time
from vla_ros.core.errors import InputError
from vla_ros.core.reminder import Reminder
from vla_ros.core.signals import StopSignals, taken
from vla_ros.graph.process import Process, check_namespace, signal_all, start_process
from vla_ros.nodes.base import end_at_the_latest
from vla_ros.nodes.clock import PlainNode
from vla_ros.nodes.commands import node_name
from vla_ros.nodes.parent import GOALS
from vla_ros.nodes.security import OVERRIDE, enclave_arguments, secured

_TELLS_NAMES = "/parameter_events"  # every node publishes on it


class GraphError(InputError):
    """A node ended, refused a transition, or timed out."""


class Graph:
    """Nodes in processes of their own, and a ROS node of this process to talk to them.

        with Graph(folder) as graph:
            graph.start("policy_node", parameters={"robot": "so101.yaml", "policy": "checkpoint"})
            graph.bring_up("policy_node")
            graph.wait_for(lambda: ..., "the first chunk")

    It acts only on these processes, through a channel to each (`nodes.parent`), and starts none with the name of
    another program's node, whose topics and services would be the same.

    Leaving the block ends every process: SIGINT first, SIGKILL after a deadline. If the middleware then hangs in this
    process, it ends too (status 1), so use the results inside the block. If this process is killed itself, the
    nodes see their channels close and end. `self.node` is spun in a thread; its callbacks run there.

    Args:
        folder: for parameter files and logs, made if it is missing.
        domain: ROS domain for this graph only; None uses ROS_DOMAIN_ID, and waits for the discovery of other nodes
            before the first start.
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
        self._ours: dict[str, set[bytes]] = {}  # node -> what the middleware calls its processes, those that ended too
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
        self._settled = time.monotonic() + (discovery_time() if self.domain is None else 0.0)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._end_spin: Future[None] = Future()
        self._thread = threading.Thread(target=self._spin, name="graph", daemon=True)
        self._thread.start()
        return self

    def _on_signal(self, number: int, frame: object) -> None:
        """The first one ends the block; while the nodes end, only a third signal of one kind has an effect."""
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
            for process in processes:
                process.channel.close()
            self.processes.clear()

    # Nodes

    def start(
        self,
        name: str,
        module: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        files: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start `python -P -m module` as node `name`.

        Args:
            module: `vla_ros.nodes.NAME` when None.
            parameters: written to a parameter file of their own; they win over `files`.
            defaults: of parameters that neither `parameters` nor `files` set, in the place of the node's own.
            files: ordinary ROS parameter files.

        Raises:
            GraphError: a node of another program has the name.
        """
        if name in self.processes:
            raise ValueError(f"node {name} is started already")
        self.wait_until(lambda: time.monotonic() >= self._settled, 60.0)
        self._refuse_others(name)
        variables = {name: value for name, value in os.environ.items() if name != OVERRIDE}  # our enclave is not theirs
        process = self.processes[name] = start_process(
            self.folder, name, module or f"vla_ros.nodes.{name}", self.namespace, parameters or {}, defaults or {},
            files, variables | self._environment | dict(environment or {}),
        )  # fmt: skip
        return process

    def full_name(self, name: str) -> str:
        """The name of a node with the namespace of the graph."""
        return f"/{self.namespace.strip('/')}/{name}" if self.namespace else f"/{name}"

    def kill(self, name: str, number: int = signal.SIGKILL, deadline: float = 30.0) -> None:
        """Send a signal to one node and wait for its end; it can then be started again."""
        self._ours.setdefault(name, set()).update(self._named(name))
        process = self.processes.pop(name)
        signal_all([process], number, deadline)
        process.channel.close()
        if process.popen.poll() is None:
            signal_all([process], signal.SIGKILL, deadline)
            raise GraphError(f"node {name} did not end within {deadline:g} s of signal {number}")

    def check(self) -> None:
        """Raises GraphError when a node's process has ended, or a callback of `self.node` has failed."""
        if (error := self._failure) is not None:
            raise GraphError(f"messages are no longer received: {type(error).__name__}: {error}") from error
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

    def call(self, client: Any, request: Any, patience: float = 10.0) -> Any:
        """The response of a service; repeated after `patience` s, if an answer was lost while the processes discovered
        each other.

        For requests that may be repeated. Raises GraphError.
        """
        self.wait_for(client.service_is_ready, f"the service {client.srv_name}")
        for _ in range(10):
            future = client.call_async(request)
            if self.wait_until(future.done, patience):
                return future.result()
            client.remove_pending_request(future)
        raise GraphError(f"{client.srv_name} did not answer")

    def set_parameters(self, name: str, values: Mapping[str, Any]) -> None:
        """Set parameters of a node. Raises GraphError that names a refused one."""
        reason = self._ask(name, "take parameters", 60.0, parameters=dict(values))["reason"]
        if reason:
            raise GraphError(f"{name}: {reason}")

    # Lifecycle

    def state(self, name: str) -> int:
        """lifecycle_msgs/State.PRIMARY_STATE_* of a node."""
        return self._ask(name, "say its state", 60.0)["state"]

    def transition(self, name: str, transition: int, deadline: float = 120.0) -> None:
        """Bring a node through a transition. Raises GraphError with the node's reason if it refuses."""
        what = GOALS[transition][1]
        self._refuse_others(name)
        reason = self._ask(name, what, deadline, transition=transition)["reason"]
        if reason:
            raise GraphError(f"node {name} did not {what}: {reason}")
        self.wait_for(lambda: self._named(name) - self._ours.get(name, set()), f"the discovery of {name}")

    def _ask(self, name: str, what: str, deadline: float, **request: Any) -> dict[str, Any]:
        process = self.processes[name]
        process.ask(**request)
        answer = self.wait_until(process.answer, deadline)
        if not answer:
            raise GraphError(f"node {name} did not {what} within {deadline:g} s: {process.errors()}")
        return answer

    def _named(self, name: str) -> set[bytes]:
        """What the middleware calls the nodes of that name, ours too, once for each process."""
        infos = self.node.get_publishers_info_by_topic(_TELLS_NAMES)
        return {bytes(info.endpoint_gid) for info in infos if node_name(info) == self.full_name(name)}

    def _refuse_others(self, name: str) -> None:
        """Raises GraphError if a node of that name is not ours."""
        others = len(self._named(name) - self._ours.get(name, set())) - (name in self.processes)
        if others > 0:
            raise GraphError(
                f"node {self.full_name(name)}: another program has a node of this name; end that one, or give this one "
                "a --namespace or a ROS_DOMAIN_ID of its own (a node that was killed disappears after 20 s)"
            )

    def configure(self, name: str, deadline: float = 600.0) -> None:
        """Loading and warming up a large policy takes minutes, hence the deadline."""
        self.transition(name, Transition.TRANSITION_CONFIGURE, deadline)

    def activate(self, name: str, deadline: float = 120.0) -> None:
        self.transition(name, Transition.TRANSITION_ACTIVATE, deadline)

    def activate_when_ready(
        self, name: str, deadline: float = 60.0, tell: Callable[[str], object] = lambda words: None
    ) -> None:
        """As `activate`, but a refusal (the robot's joint states are not there yet) is tried again until `deadline`.

        `tell` gets the reason of a refusal when it is new, and at intervals.
        """
        end, reminder = time.monotonic() + deadline, Reminder()
        while True:
            try:
                return self.activate(name)
            except GraphError as error:
                self.check()
                if time.monotonic() > end:
                    raise
                if reminder.due(str(error)):
                    tell(str(error))
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
