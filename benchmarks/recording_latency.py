"""executor_node that notes how old the observation was behind its commands, and a policy_node without its network.

For camera_to_command.py. The file named by RECORD_LATENCY gets a line for each accepted chunk (numpy, s since the
stamp of its images): its arrival at the executor, and the first command that follows it, once that is published.
"""

import os
import sys
import time
from typing import Any

import numpy as np

from vla_ros.control.settings import Command
from vla_ros.core.chunk import ActionChunk
from vla_ros.nodes.base import spin_node
from vla_ros.nodes.executor_node import ExecutorNode

NS = 1e-9


class RecordingExecutor(ExecutorNode):
    def configure(self) -> None:
        super().configure()
        executor = self._executor
        add = executor.add_chunk

        def add_chunk(chunk: ActionChunk, now_ns: int) -> None:
            arrival = self.now_ns()
            if isinstance(add(chunk, now_ns), ActionChunk):
                self.arrived = chunk.stamp_ns, (arrival - chunk.stamp_ns) * NS

        executor.add_chunk = add_chunk

    def activate(self) -> None:
        self.recorded: list[tuple[float, float]] = []
        self.arrived: tuple[int, float] | None = None
        super().activate()

    def _publish_command(self, command: Command) -> None:
        super()._publish_command(command)
        if self.arrived is not None:
            stamp, arrival = self.arrived
            self.recorded.append((arrival, (self.now_ns() - stamp) * NS))
            self.arrived = None

    def deactivate(self) -> None:
        super().deactivate()
        np.save(os.environ["RECORD_LATENCY"], np.array(self.recorded))


def policy_without_network() -> int:
    """Images are taken, decoded and resized as always; the answer is to stay where the robot is."""
    from vla_ros.core.chunk import Part, Targets
    from vla_ros.nodes.policy_node import PolicyNode
    from vla_ros.runtime.session import Inference

    class PolicyWithoutNetwork(PolicyNode):
        def configure(self) -> None:
            super().configure()
            processor = self._session.processor

            def infer(samples: Any) -> list[Inference]:
                begin = time.perf_counter()
                processor.inputs(samples)
                rows = np.tile(samples[0].state[-1], (processor.horizon, 1))
                targets = Targets((Part(processor.joints, rows),))
                return [Inference(targets, None, 0.0, 0.0, time.perf_counter() - begin)]

            self._session.infer = infer

    return spin_node(PolicyWithoutNetwork)


if __name__ == "__main__":
    name = next(word.partition(":=")[2] for word in sys.argv if word.startswith("__node:="))
    sys.exit(spin_node(RecordingExecutor) if name == "executor_node" else policy_without_network())
