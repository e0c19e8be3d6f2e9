"""executor_node that notes how late each tick was, and a bare loop to compare it with (see executor_lateness.py).

The file named by RECORD_LATENESS gets the lateness of every tick in s (numpy), when the loop ends.
"""

import os
import signal
import sys
import threading
from array import array

import numpy as np


def bare_loop(period_ns: int, priority: int) -> None:
    """Absolute deadlines and nothing else, until SIGINT."""
    from vla_ros.nodes.control_loop import ControlLoop

    late, end = array("d"), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: end.set())
    loop = ControlLoop(period_ns, lambda grid_ns, lateness: late.append(lateness), lambda error: end.set())
    denied = loop.start(priority)
    if denied:
        print(denied, file=sys.stderr)
    end.wait()
    loop.stop()
    np.save(os.environ["RECORD_LATENESS"], np.array(late))


def executor() -> int:
    from vla_ros.nodes.base import spin_node
    from vla_ros.nodes.executor_node import ExecutorNode

    class RecordingExecutor(ExecutorNode):
        def activate(self) -> None:
            self.late = array("d")
            super().activate()

        def _on_real_tick(self, grid_ns: int, lateness: float) -> None:
            self.late.append(lateness)
            super()._on_real_tick(grid_ns, lateness)

        def deactivate(self) -> None:
            super().deactivate()
            np.save(os.environ["RECORD_LATENESS"], np.array(self.late))

    return spin_node(RecordingExecutor)


if __name__ == "__main__":
    if sys.argv[1] == "--bare":
        bare_loop(int(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(executor())
