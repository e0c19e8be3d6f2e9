"""Policy, executor and simulator in lockstep: one episode after another through the same processes."""

from collections.abc import Sequence
from pathlib import Path

from vla_ros.core.resources import config_file
from vla_ros.graph.film import Film
from vla_ros.graph.processes import GraphError
from vla_ros.graph.simulated import SimulatedGraph
from vla_ros.graph.simulation import TaskStatus
from vla_ros.nodes.parameter_files import check_sections


class EvaluationGraph(SimulatedGraph):
    """The graph of `vla-ros eval`, as a context.

    Args:
        rate: Hz of simulated time, inferences; `image_rate`: images, where they are more.
        environment: a gymnasium environment in the place of the simulated robot; `python`: the interpreter that has it.
        filmed: keep what the cameras show in a run.

    Attributes:
        acknowledged: simulated time waits for a recorder.
        film: of the last run, where it is `filmed`.
    """

    acknowledged = False

    def __init__(
        self,
        folder: Path,
        robot: str | Path,
        policy: str,
        rate: float = 10.0,
        device: str | None = None,
        params: Sequence[str] = (),
        engine: str | None = None,
        image_rate: float | None = None,
        domain: int | None = None,
        environment: str = "",
        python: str = "",
        scene: str = "",
        filmed: bool = False,
    ) -> None:
        super().__init__(folder, robot, domain, scene=scene)
        self._environment = {"environment": environment, "environment_python": python} if environment else {}
        given = {"policy": policy, "device": device, "engine": engine}
        self._filmed = filmed
        self._rates = {"image_rate": rate}
        if image_rate and image_rate != rate:
            self._rates = {"image_rate": image_rate, "chunk_rate": rate}
            given["max_rate"] = rate
        self._policy = {name: value for name, value in given.items() if value}
        self._params = params

    def bring_up(self) -> None:
        """Start and configure the three nodes."""
        self.film = Film(self.graph, self.robot) if self._filmed else None
        nodes = [self.graph.full_name(name) for name in ("policy_node", "executor_node")]
        for file in self._params:
            check_sections(file, nodes)
        self.graph.start(
            "policy_node", parameters=self.common | self._policy, defaults={"threads": 1}, files=self._params
        )
        files = [config_file("executor_benchmark.yaml" if self._environment else "executor_demo.yaml"), *self._params]
        self.graph.start("executor_node", parameters=self.common | self.tool_parameters(), files=files)
        self.simulation.start(
            self.robot_file, lockstep=True, acknowledged=self.acknowledged, patience=300.0, **self._rates,
            **self._environment, **self.scene,
        )  # fmt: skip
        self.graph.configure("policy_node")
        self.graph.configure("executor_node")

    def play(self) -> TaskStatus:
        """The run itself, once everything is ready for it. Raises GraphError with what policy and executor say."""
        try:
            return self.simulation.run_to_end()
        except GraphError as error:
            raise GraphError(f"{error}; {self.watch.summary()}") from None

    def run_to_end(
        self, seed: int, instruction: str, time_limit: float, judged: str = "", foreign_images: bool = False
    ) -> TaskStatus:
        """Run one episode from a new layout; returns the simulator's status at its end.

        Args:
            time_limit: s of simulated time.
            judged: the instruction by which success is judged, if another.
            foreign_images: show the policy images of another layout.

        Raises:
            GraphError: a node or the simulation failed.
        """
        graph, simulation = self.graph, self.simulation
        if self.film:
            self.film.forget()
        simulation.reset(seed=seed, task=judged, foreign_images=foreign_images, time_limit=float(time_limit))
        graph.activate_when_ready("policy_node")
        graph.activate_when_ready("executor_node")
        self.instruct(instruction)
        self.wait_until_steered()
        status = self.play()
        self.instruct("")
        graph.deactivate("executor_node")
        graph.deactivate("policy_node")
        return status
