"""executor_node that notes how late each tick was, and a bare loop to compare it with (see executor_lateness.py).

The file named by RECORD_LATENESS gets the lateness of every tick in s (numpy), when the loop ends.
"""

import os
import signal
import sys
import time
from array import array

import numpy as np


def bare_loop(period_ns: int, priority: int) -> None:
    """Sleep to absolute deadlines and nothing else, until SIGINT."""
    from vla_ros.nodes.executor.control_loop import ask_for_realtime

    late, ended = array("d"), False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGINT, end)
    if priority:
        print(ask_for_realtime(priority), end="", file=sys.stderr)
    deadline = time.monotonic_ns() + period_ns
    while not ended:
        time.sleep(max(deadline - time.monotonic_ns(), 0) * 1e-9)
        lateness = max(time.monotonic_ns() - deadline, 0)
        late.append(lateness * 1e-9)
        deadline += (lateness // period_ns + 1) * period_ns
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
