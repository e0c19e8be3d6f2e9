"""A graph around the simulator, on a separate ROS domain, and its instructions."""

import os
from pathlib import Path
from typing import Any, Self

from std_msgs.msg import String

from vla_ros.core.instruction import instruction_id
from vla_ros.core.resources import resolve_robot
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.domains import private_domain
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.graph.simulation import Simulation
from vla_ros.graph.watch import Watch
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS
from vla_ros.sim.description import urdf
from vla_ros.sim.worlds import world_of

_INSTRUCT_AGAIN = 2.0  # s
_INSTRUCT_PATIENCE = 60.0  # s
_FREE = (ExecutorStatus.HOLDING, ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING)


class SimulatedGraph:
    """The simulator and the nodes that a subclass starts in `bring_up`, as a context.

    Args:
        folder: for logs and parameter files.
        robot: robot file of the simulated robot, by path or name.
        domain: None takes one that is not in use on this machine.
        lockstep: simulated time.
        scene: of the simulator.

    Attributes:
        graph: the processes, and the node that talks to them.
        robot_file, robot: path and content of the robot file.
        simulation: the simulator.
        watch: the newest status of policy and executor.
    """

    def __init__(
        self, folder: Path, robot: str | Path, domain: int | None = None, lockstep: bool = True, scene: str = "",
        **options: Any,
    ) -> None:
        self.robot_file = str(resolve_robot(robot))
        self.robot = RobotSpec.load(self.robot_file)
        # Nothing of a simulation leaves this machine; read by the middleware when the graph is entered.
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        self.graph = Graph(folder, domain=private_domain() if domain is None else domain, **options)
        self.scene = {"scene": scene} if scene else {}  # of simulator and expert
        # Parameters of every node of the graph.
        self.common = {"robot": self.robot_file, "use_sim_time": lockstep, "reliable_sensors": lockstep}

    def __enter__(self) -> Self:
        self.graph.__enter__()
        self.watch = Watch(self.graph)
        self.simulation = Simulation(self.graph)
        self._instruction = self.graph.node.create_publisher(String, "instruction", COMMAND_QOS)
        return self

    def __exit__(self, *error: object) -> None:
        self.graph.__exit__(*error)

    def tool_parameters(self) -> dict[str, str]:
        """What the executor needs to move the robot's tool: a file of the simulated arm's URDF; nothing without a tool.

        Not the topic of the description, whose discovery may take longer than the executor waits.
        """
        if self.robot.tool is None:
            return {}
        file = (self.graph.folder / "robot.urdf").resolve()
        world = world_of(self.robot.name, self.robot.joint_names)()
        file.write_text(urdf(world.model, self.robot.name), encoding="utf-8")
        return {"urdf": str(file)}

    def followed(self) -> list[int | None]:
        """Of each node that takes instructions, the id of the one that it follows; None: not heard from yet."""
        statuses = (self.watch.policy, self.watch.executor)
        return [None if status is None else status.instruction_id for status in statuses]

    def wait_until_steered(self) -> None:
        """Wait until the executor's commands reach the simulator, in lockstep, and it would follow a chunk.

        On a busy machine it may read of a reset's leap of the clock only after its activation, and recovers first.
        """

        def steered() -> bool:
            values, executor = self.simulation.task.values, self.watch.executor
            free = executor.state in _FREE and stamp_ns(executor) >= int(values["reset_ns"])
            return values["steered"] == "true" and free

        self.graph.wait_for(steered, "commands of the executor")

    def instruct(self, text: str) -> None:
        """Publish an instruction until the simulator and all nodes follow it. Raises GraphError when they do not."""
        text = text.strip()
        number = instruction_id(text)

        def known() -> bool:
            return self.simulation.task.values["instruction"] == text and set(self.followed()) == {number}

        for _ in range(round(_INSTRUCT_PATIENCE / _INSTRUCT_AGAIN)):
            self._instruction.publish(String(data=text))
            if self.graph.wait_until(known, _INSTRUCT_AGAIN):
                return
        raise GraphError(
            f"instruction {text!r}, id {number}: after {_INSTRUCT_PATIENCE:g} s the simulator follows "
            f"{self.simulation.task.values['instruction']!r}, the other nodes {self.followed()}"
        )
