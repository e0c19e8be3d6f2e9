"""Demonstrations through the graph: simulator, expert and recorder as nodes in lockstep, a bag for every episode."""

import math
import shutil
from pathlib import Path

import numpy as np
from std_msgs.msg import String

from vla_ros.bags.index import index_bag
from vla_ros.bags.reader import Bag
from vla_ros.core.instruction import instruction_id
from vla_ros.graph.processes import GraphError
from vla_ros.graph.simulated import SimulatedGraph
from vla_ros.graph.simulation import TaskStatus
from vla_ros.nodes.qos import STATUS_QOS
from vla_ros.sim.tasks import Task
from vla_ros.sim.worlds import world_of

REST = 1.5  # s that an episode goes on after its success, so that a policy learns to come to rest
DISTURBANCE = 0.02  # rad, of the arm's motors
IMAGE_RATE = 10.0  # Hz, the policy's clock
_TRIES = 5


class DemonstrationGraph(SimulatedGraph):
    """Simulator, expert and recorder, as a context.

    Simulated time waits until the expert has commanded and the recorder has received everything, so the same arguments
    give the same bags on every machine, however busy.
    """

    def bring_up(self) -> None:
        """Start the nodes; the recorder waits for the first episode."""
        graph = self.graph
        self._world = world_of(self.robot.name, self.robot.joint_names, self.scene.get("scene", ""))
        self._following: str | None = None
        graph.node.create_subscription(String, "expert_node/following", self._take_following, STATUS_QOS)
        graph.start("expert_node", parameters=self.common | self.scene)
        graph.start("recorder_node", parameters=self.common | {"compressed_images": True})
        self.simulation.start(
            self.robot_file, lockstep=True, image_rate=IMAGE_RATE, chunks=False, acknowledged=True, patience=300.0,
            **self.scene,
        )  # fmt: skip
        graph.bring_up("expert_node")
        graph.configure("recorder_node")

    def followed(self) -> list[int | None]:
        return [None if self._following is None else instruction_id(self._following)]

    def _take_following(self, message: String) -> None:
        self._following = message.data

    def record(self, bag: Path, task: Task, instruction: str, seed: int, disturbance: float = 0.0) -> bool:
        """One episode in the layout of `seed` to a new bag.

        The bag begins with the instruction and ends `REST` s after success. False, and no bag, where the expert does
        not succeed within the time `limit` of the task. Raises GraphError when a node or the simulation gives up.

        Args:
            disturbance: rad; standard deviation of a smooth error of the arm's motors. The bag contains the commands,
                not the disturbed motion, so it shows recoveries (DART, Laskey et al. 2017).
        """
        for _ in range(_TRIES):
            self.simulation.reset(seed=seed, task=task.instruction(), hold=True, rest=REST, disturbance=disturbance)
            status = self._run(bag, instruction, self._world.limit(task))
            if status.success:
                lacking = self._lacking(bag, instruction, status)
                if not lacking:
                    return True
            shutil.rmtree(bag)
            if not status.success:
                return False
        raise GraphError(f"bag {bag}: {lacking}, in {_TRIES} recordings")

    def _run(self, bag: Path, instruction: str, limit: float) -> TaskStatus:
        """What the simulator said at the end of the episode, after the bag was closed."""
        graph, simulation = self.graph, self.simulation
        graph.set_parameters("recorder_node", {"output": str(bag.resolve())})
        self.instruct(instruction)
        graph.activate("recorder_node")
        status = simulation.run_until(
            lambda task: task.values["state"] == "held" or float(task.values["run_time"]) > limit
        )
        graph.deactivate("recorder_node")
        simulation.pause()
        self.instruct("")
        return status

    def _lacking(self, path: Path, instruction: str, status: TaskStatus) -> str:
        """What is missing in the bag, in words; "" if nothing is.

        The middleware may drop a message on a very busy machine; the same run is then recorded again.
        """
        start, run_time = int(status.values["run_start_ns"]), float(status.values["run_time"])
        with Bag(path) as bag:
            index = index_bag(bag, self.robot)
        drawn = (*self.robot.camera_names, *self._world.drawn)
        found = {
            stream.topic: (len(np.unique(stream.stamps[stream.stamps >= start])), name in drawn)
            for name, stream in index.streams.items()
        }
        found[index.joints.topics] = int(index.joints.states.count_since(start).min()), False
        for topic, (got, is_drawn) in found.items():
            expected = math.ceil(run_time * (IMAGE_RATE if is_drawn else self.robot.control_rate) - 1e-6)
            if got != expected:
                return f"{got} messages of {topic}, expected {expected}"
        if not any(ns <= start and text == instruction for ns, text in index.texts):
            return "the instruction is missing"
        return ""
