"""The simulated expert takes over where nobody does the task, and does it through the executor."""

from system.support import free_domain

from vla_ros.core.resources import config_file
from vla_ros.graph.simulated import SimulatedGraph


class Helped(SimulatedGraph):
    """Simulator, executor and expert, without a policy."""

    def followed(self) -> list[int | None]:
        status = self.watch.executor
        return [None if status is None else status.instruction_id]


def test_the_expert_does_through_the_executor_what_no_policy_does(tmp_path):
    with Helped(tmp_path / "graph", "so101", domain=free_domain()) as made:
        graph, simulation = made.graph, made.simulation
        graph.start("expert_node", parameters=made.common | {"takeover": True, "patience": 0.5, "lead": 60.0})
        late = {"takeover_timeout": 10.0}  # s; simulated time does not wait for the expert
        graph.start("executor_node", parameters=made.common | late, files=[config_file("executor_demo.yaml")])
        simulation.start(made.robot_file, lockstep=True, image_rate=0.2, chunks=False, patience=300.0)
        graph.bring_up("expert_node")
        graph.configure("executor_node")
        simulation.reset(seed=3, time_limit=60.0)
        graph.activate_when_ready("executor_node")
        made.instruct("push the red cube to the left")
        made.wait_until_steered()
        status = simulation.run_to_end()
        assert status.success, status
        graph.wait_for(lambda: "take" in made.watch.executor.taken_over_by, "who commands")
        assert made.watch.executor.accepted_chunks == 0
