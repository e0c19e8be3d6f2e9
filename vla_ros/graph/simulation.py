"""The simulator in a graph: started, given a layout, run, and asked how the task went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from vla_ros.graph.processes import Graph, GraphError
from vla_ros.nodes.qos import STATUS_QOS


@dataclass(frozen=True)
class TaskStatus:
    """What `sim_node/task` said last.

    Attributes:
        message: "success", "not yet", "no task", or what is wrong.
        failed: the simulation itself gave up; `message` says why.
        values: key -> text, as published (`run_time` and `elapsed` in s of simulated time, `cube`, `kind`, ...).
    """

    message: str
    failed: bool
    values: Mapping[str, str]

    @property
    def success(self) -> bool:
        return self.values.get("success") == "true"


class Simulation:
    """`sim_node` of a graph, from the outside."""

    def __init__(self, graph: Graph, name: str = "sim_node") -> None:
        self.graph, self.name = graph, name
        self.task: TaskStatus | None = None
        node, full = graph.node, graph.full_name(name)
        node.create_subscription(DiagnosticArray, f"{full}/task", self._take_task, STATUS_QOS)
        self._reset = node.create_client(Trigger, f"{full}/reset")
        self._run = node.create_client(SetBool, f"{full}/run")
        self._set = node.create_client(SetParameters, f"{full}/set_parameters")

    def _take_task(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        values = {item.key: item.value for item in status.values}
        self.task = TaskStatus(status.message, status.level == DiagnosticStatus.ERROR, values)

    def start(self, robot: str, **parameters: Any) -> None:
        """Start the node with `parameters` and wait until it is up. Raises GraphError that says why it refuses."""
        parameters = {"robot": robot, "autostart": False, **parameters}
        self.graph.start(self.name, "vla_ros.nodes.sim_node", parameters=parameters)
        self.graph.bring_up(self.name)
        self.graph.wait_for(lambda: self.task is not None, f"the first word of {self.name}")
        if parameters.get("lockstep"):
            self.pause()

    def reset(self, **parameters: Any) -> None:
        """Take these parameters (`seed`, `task`, ...), put the cubes there and the arm home; a run ends."""
        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in parameters.items()]
        results = self._call(self._set, SetParameters.Request(parameters=messages)).results
        for name, result in zip(parameters, results, strict=True):
            if not result.successful:
                raise GraphError(f"{self.name}: parameter {name}: {result.reason}")
        self._succeed(self._reset, Trigger.Request())

    def run(self) -> int:
        """Let a simulation in lockstep go; the number of this run."""
        return int(self._succeed(self._run, SetBool.Request(data=True)))

    def pause(self) -> None:
        self._succeed(self._run, SetBool.Request(data=False))

    def run_to_end(self, deadline: float = 3600.0) -> TaskStatus:
        """Let it go until the run has ended by itself. `deadline`: s of wall time.

        Raises GraphError when the simulation gave up.
        """
        number = self.run()

        def ended() -> TaskStatus | None:
            task = self.task
            over = task.values["state"] == "paused" and task.values["run"] == str(number)
            return task if over or task.failed else None

        task = self.graph.wait_for(ended, "the end of the run", deadline)
        if task.failed:
            raise GraphError(f"{self.name}: {task.message}")
        return task

    def _call(self, client: Any, request: Any) -> Any:
        """Asked again where an answer got lost while the processes discovered each other: all requests may be."""
        self.graph.wait_for(client.service_is_ready, f"the service {client.srv_name}")
        for _ in range(10):
            future = client.call_async(request)
            if self.graph.wait_until(future.done, 10.0):
                return future.result()
            client.remove_pending_request(future)
        raise GraphError(f"{client.srv_name} did not answer")

    def _succeed(self, client: Any, request: Any) -> str:
        response = self._call(client, request)
        if not response.success:
            raise GraphError(f"{client.srv_name}: {response.message}")
        return response.message
