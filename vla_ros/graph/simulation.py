"""The simulator in a graph: started, given a layout, run, and asked how the task went."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_srvs.srv import SetBool, Trigger

from vla_ros.graph.processes import Graph, GraphError
from vla_ros.nodes.qos import STATUS_QOS


@dataclass(frozen=True)
class TaskStatus:
    """The last message of `sim_node/task`.

    Attributes:
        message: "success", "not yet", "no task", or what is wrong.
        failed: the simulation itself failed; `message` says why.
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

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.task: TaskStatus | None = None
        node, full = graph.node, graph.full_name("sim_node")
        node.create_subscription(DiagnosticArray, f"{full}/task", self._take_task, STATUS_QOS)
        self._reset = node.create_client(Trigger, f"{full}/reset")
        self._run = node.create_client(SetBool, f"{full}/run")
        self._reset_patience = 10.0  # s

    def _take_task(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        values = {item.key: item.value for item in status.values}
        self.task = TaskStatus(status.message, status.level == DiagnosticStatus.ERROR, values)

    def start(self, robot: str, **parameters: Any) -> None:
        """Start the node with `parameters` and wait until it is up. Raises GraphError that says why it refuses."""
        parameters = {"robot": robot, "autostart": False, **parameters}
        if parameters.get("environment"):  # some build their scene anew, and a second request is a second reset
            self._reset_patience = float(parameters.get("patience", 300.0)) + 30.0  # it answers before that
        self.graph.start("sim_node", parameters=parameters)
        self.graph.bring_up("sim_node")
        self.graph.wait_for(lambda: self.task is not None, "the first status of sim_node")
        if parameters.get("lockstep"):
            self.pause()

    def reset(self, **parameters: Any) -> None:
        """Set these parameters (`seed`, `task`, ...), and reset cubes and arm, which ends a run."""
        self.graph.set_parameters("sim_node", parameters)
        self._succeed(self._reset, Trigger.Request(), self._reset_patience)

    def run(self) -> int:
        """Run a simulation in lockstep; returns the number of the run."""
        return int(self._succeed(self._run, SetBool.Request(data=True)))

    def pause(self) -> None:
        self._succeed(self._run, SetBool.Request(data=False))

    def run_to_end(self) -> TaskStatus:
        """Run it until the run has ended by itself. Raises GraphError if the simulation failed."""
        return self.run_until(lambda task: task.values["state"] == "paused")

    def run_until(self, over: Callable[[TaskStatus], bool]) -> TaskStatus:
        """Run it until a condition on its status is met. Raises GraphError if the simulation failed, or after an
        hour."""
        number = str(self.run())

        def ended() -> TaskStatus | None:
            task = self.task
            return task if task.failed or (task.values["run"] == number and over(task)) else None

        task = self.graph.wait_for(ended, "the end of the run", 3600.0)
        if task.failed:
            raise GraphError(f"sim_node: {task.message}")
        return task

    def _succeed(self, client: Any, request: Any, patience: float = 10.0) -> str:
        response = self.graph.call(client, request, patience)
        if not response.success:
            raise GraphError(f"{client.srv_name}: {response.message}")
        return response.message
