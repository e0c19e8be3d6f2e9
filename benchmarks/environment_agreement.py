"""Does the ROS graph change what a benchmark sees? The same actions, stepped directly and sent through the graph.

    python benchmarks/environment_agreement.py --env pusht --env-python ~/envs/pusht/bin/python --episodes 5
    python benchmarks/environment_agreement.py --env aloha/transfer_cube --env-python ~/envs/aloha/bin/python --expert

Smooth targets around the start, or those of a scripted expert, are stepped in the environment. Then a peer on the
graph sends them as action chunks to an executor that commands the same environment behind `sim_node`, in lockstep.
Every joint position that the environment measures is compared, and reward and success of the episode. Where velocities
are commanded, the smooth targets are velocities.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image, JointState

from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.resources import config_file
from vla_ros.graph.simulated import SimulatedGraph
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.qos import COMMAND_QOS, sensor_qos
from vla_ros.sim.environments import Environment

AHEAD = 10  # rows of a chunk that are executed before the next one


class ReplayedGraph(SimulatedGraph):
    """Executor and environment; the chunks are sent from here."""

    def __init__(self, folder: Path, environment: Environment, python: str) -> None:
        super().__init__(folder, environment.benchmark.robot)
        self._environment, self._python = environment, python
        self._rows = np.zeros((0, 0))
        self._stamped: dict[int, np.ndarray] = {}  # stamp -> (J,)
        self._first = 0  # stamp of the episode's first image, ns

    def followed(self) -> list[int | None]:
        status = self.watch.executor
        return [None if status is None else status.instruction_id]

    def bring_up(self) -> None:
        from vla_ros.msg import ActionChunk as Message

        node, robot = self.graph.node, self.robot
        self.graph.start(
            "executor_node", parameters=self.common, files=[config_file("executor_benchmark.yaml")]
        )
        self.simulation.start(
            self.robot_file, lockstep=True, image_rate=robot.control_rate / AHEAD, patience=120.0,
            environment=self._environment.name, environment_python=self._python,
        )  # fmt: skip
        self._chunks = node.create_publisher(Message, "action_chunk", COMMAND_QOS)
        qos = sensor_qos(reliable=True, depth=1000)
        node.create_subscription(Image, robot.cameras[0].topic, self._answer, qos)
        node.create_subscription(JointState, robot.joint_state_topics[0], self._measure, qos)
        self.graph.configure("executor_node")

    def _measure(self, message: JointState) -> None:
        there = dict(zip(message.name, message.position, strict=True))
        place = np.array([there.get(name, np.nan) for name in self._environment.joint_names])
        self._stamped[stamp_ns(message)] = place

    def measured(self, step: int) -> np.ndarray | None:
        """(J,) of the last episode; NaN where it is a velocity."""
        return self._stamped.get(self._first + round(step / self.robot.control_rate * 1e9))

    def _answer(self, message: Image) -> None:
        """The rows from this image on; row k is for k control periods later."""
        from vla_ros.msg import ActionChunk as Message
        from vla_ros.msg import ActionPart

        stamp = stamp_ns(message)
        if not len(self._rows) or stamp < self._after:  # an image that has come late, of the episode before
            return
        self._first = self._first or stamp
        step = round((stamp - self._first) * 1e-9 * self.robot.control_rate)  # images may come twice
        part = Part(self._environment.joint_names, self._rows[step : step + AHEAD + 2])
        self._sent += 1
        number = instruction_id(self._environment.benchmark.instruction)
        chunk = ActionChunk(
            stamp, 1.0 / self.robot.control_rate, Targets((part,)), number, self._sent, self._first
        )
        self._chunks.publish(chunk_message(Message, ActionPart, chunk))

    def play(self, seed: int, rows: np.ndarray) -> tuple[bool, float]:
        """An episode of these targets (K, J): whether it succeeded, and its highest reward."""
        limit = (len(rows) - 1) / self.robot.control_rate
        self.simulation.reset(seed=seed, time_limit=limit)
        self.graph.activate_when_ready("executor_node")
        self.instruct(self._environment.benchmark.instruction)
        self.wait_until_steered()
        self._after = max(self._stamped)
        self._rows, self._sent, self._first = rows, 0, 0
        self._stamped.clear()
        status = self.simulation.run_to_end()
        self._rows = rows[:0]
        self.instruct("")
        self.graph.deactivate("executor_node")
        return status.success, float(status.values["highest_reward"])


def targets(environment: Environment, seed: int, steps: int) -> np.ndarray:
    """(K, J) rad and m, and velocities: the start, then a smooth walk around it; the first row repeats the start."""
    environment.reset(seed)
    start, rng, channels = environment.at_rest(), np.random.default_rng([seed, 17]), environment.benchmark.channels
    width = 0.15 / np.maximum(np.abs([channel.scale for channel in channels]), 1.0)
    width = np.where(width < 0.001, 0.1, width) * [channel.role != "measured" for channel in channels]
    phase, speed = rng.uniform(0, 2 * np.pi, len(start)), rng.uniform(0.02, 0.1, len(start))
    turns = np.arange(steps)[:, None] * speed
    return start + width * (np.sin(phase + turns) - np.sin(phase))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="pusht", help="the benchmark")
    parser.add_argument("--env-python", default="", help="interpreter that has its packages")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="of an episode of random targets")
    parser.add_argument("--expert", action="store_true",
                        help="a scripted expert's targets; aloha/transfer_cube and metaworld")
    args = parser.parse_args()
    table = Table(title=f"{args.env}: through the graph, beside stepped directly")
    for name in ("seed", "steps", "largest difference of a joint", "highest reward", "through the graph", "success"):
        table.add_column(name)
    with Environment(args.env, args.env_python) as environment, tempfile.TemporaryDirectory() as folder:
        with ReplayedGraph(Path(folder), environment, args.env_python) as graph:
            graph.bring_up()
            for seed in range(args.episodes):
                rows = targets(environment, seed, environment.benchmark.steps if args.expert else args.steps)
                environment.reset(seed)
                path, done = [environment.joint_positions()], []
                for row in rows[:-1]:
                    done.append(environment.expert() if args.expert and done else row)
                    environment.step(done[-1])
                    path.append(environment.joint_positions())
                    if environment.success:  # it ends the episode
                        break
                succeeded, rows = environment.success, np.array([*done, done[-1]])
                success, reward = graph.play(seed, rows)
                found = [(place, graph.measured(step)) for step, place in enumerate(path)]
                pairs = [(a, b) for a, b in found if b is not None]
                worst = max(float(np.nanmax(np.abs(a - b))) for a, b in pairs)
                table.add_row(
                    str(seed), str(len(pairs)), f"{worst:.1e}", f"{environment.highest_reward:.4f}", f"{reward:.4f}",
                    f"{succeeded} and {success}",
                )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
