"""How long it takes from a `true` on the topic e_stop to the first braking command, under load; whether one is lost.

    python benchmarks/e_stop_latency.py [--presses 200] [--rate 100] [--priority 50] [--large 2] [--json FILE]

Simulator in real time (two cameras of 640x480 at 30 Hz), the shipped policy and the executor, as processes; another
process floods the executor with 1000 `false` a second on e_stop, 50 chunks a second of 1000 rows, and one of `--large`
MB a second (20, or as many as get through, where that is more than 2). A press is five `true` within 100 ms at a random
moment while the robot follows chunks, and `false` after it; where no chunk is followed within 5 s of the reset (the
load delays images and policy too), it comes while the robot stands.
The time counts from before the first `true` is published, in this process, to after the command is, in the executor's.
First without, then with real-time priority (of the pressing thread too). The goal: p99 of two control periods + 5 ms.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np
import yaml
from live_graph import HERE, POLICY, ROBOT, live_graph

PRESS, TRUES = 0.1, 5  # s, messages
LOST = 1.0  # s without a braking command: this press is lost
PATIENCE = 5.0  # s from a reset to a followed chunk


def recording_executor() -> int:
    """executor_node that notes when the first command after each latching was published (RECORD_E_STOP, numpy, s)."""
    from vla_ros.control.settings import Command
    from vla_ros.nodes.base import spin_node
    from vla_ros.nodes.executor_node import ExecutorNode

    class RecordingExecutor(ExecutorNode):
        def activate(self) -> None:
            self.braked, self.was_stopped = array("d"), False
            super().activate()

        def _publish_command(self, command: Command) -> None:
            super()._publish_command(command)
            stopped = self._executor.supervisor.e_stopped
            if stopped and not self.was_stopped:
                self.braked.append(time.monotonic())
            self.was_stopped = stopped

        def deactivate(self) -> None:
            super().deactivate()
            np.save(os.environ["RECORD_E_STOP"], np.array(self.braked))

    return spin_node(RecordingExecutor)


def flood(large_mb: float) -> None:
    """Until it is terminated."""
    import rclpy
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Bool

    from vla_ros.core.robot import RobotSpec
    from vla_ros.msg import ActionChunk, ActionPart
    from vla_ros.nodes.qos import COMMAND_QOS, profile

    rclpy.init()
    node = rclpy.create_node("flood")
    button = node.create_publisher(Bool, "e_stop", profile(10, reliable=True))
    chunks = node.create_publisher(ActionChunk, "action_chunk", COMMAND_QOS)
    names = list(RobotSpec.load(ROBOT).joint_names)

    def chunk(rows: int) -> ActionChunk:
        part = ActionPart(names=names, data=array("d", bytes(8 * len(names) * rows)))
        return ActionChunk(parts=[part], horizon=rows, step_dt=0.01, session=1)

    usual, large = chunk(1000), serialize_message(chunk(round(large_mb * 1e6) // (8 * len(names))))
    every = 1000 if large_mb <= 2 else 50
    begin = time.monotonic()
    for number in range(sys.maxsize):
        button.publish(Bool())
        if number % 20 == 0:
            chunks.publish(large if number % every == 0 else usual)
        time.sleep(max(begin + number * 0.001 - time.monotonic(), 0))


def measure(rate: float, presses: int, priority: int, policy: Path, large: float, folder: Path) -> dict:
    from std_msgs.msg import Bool
    from std_srvs.srv import Trigger

    from vla_ros.msg import ExecutorStatus
    from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

    robot_file, recorded = folder / "robot.yaml", folder / "braked.npy"
    robot_file.write_text(yaml.safe_dump(yaml.safe_load(ROBOT.read_text()) | {"control_rate": float(rate)}))
    pressed: list[float] = []
    moving = 0
    with live_graph(
        folder / "graph",
        policy=policy,
        executor={"robot": str(robot_file), "realtime_priority": priority},
        modules={"executor_node": "e_stop_latency"},
        environment={"RECORD_E_STOP": str(recorded)},
    ) as graph:
        state: dict[str, int] = {}
        graph.node.create_subscription(
            ExecutorStatus, "executor_node/status", lambda m: state.update(now=m.state), STATUS_QOS
        )
        reset = graph.node.create_client(Trigger, "executor_node/reset_e_stop")
        button = graph.node.create_publisher(Bool, "e_stop", COMMAND_QOS)
        graph.wait_for(lambda: button.get_subscription_count() >= 2, "the executor's subscriptions")
        load = subprocess.Popen([sys.executable, str(HERE / "e_stop_latency.py"), "--flood", str(large)])
        if priority:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))

        def released() -> bool:
            """Resets as often as it takes: the last `true` of a press may come after a reset."""
            if state.get("now") == ExecutorStatus.E_STOPPED:
                graph.call(reset, Trigger.Request())
                time.sleep(0.2)
            return state.get("now") != ExecutorStatus.E_STOPPED

        def following() -> bool:
            return released() and state.get("now") in (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING)

        try:
            for _ in range(presses):
                graph.wait_until(following, PATIENCE)
                graph.wait_for(released, "the reset")
                time.sleep(random.uniform(0.1, 0.6))
                moving += state.get("now") in (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING)
                pressed.append(time.monotonic())
                for _ in range(TRUES):
                    button.publish(Bool(data=True))
                    time.sleep(PRESS / TRUES)
                button.publish(Bool(data=False))
                graph.wait_until(lambda: state.get("now") == ExecutorStatus.E_STOPPED, LOST)
        finally:
            if priority:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            load.kill()
            load.wait()
    braked = np.load(recorded)
    first = np.searchsorted(braked, pressed)
    took = np.append(braked, np.inf)[first] - pressed
    found = took[took < LOST] * 1000
    p50, p99 = np.percentile(found, [50, 99])
    return {"priority": priority, "presses": presses, "following": moving, "lost": presses - len(found),
            "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1),
            "longest_ms": round(float(found.max()), 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presses", type=int, default=200, help="of each way")
    parser.add_argument("--rate", type=float, default=100.0, help="of the executor, Hz")
    parser.add_argument("--priority", type=int, default=50, help="realtime_priority of the second way; 0 leaves it out")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--large", type=float, default=2.0, help="MB of the largest chunks of the flood")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    for priority in sorted({0, args.priority}):
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(args.rate, args.presses, priority, args.policy, args.large, Path(folder)))
        print(", ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
    print(f"goal of p99 with real-time priority: {2000 / args.rate + 5:g} ms")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    if "--flood" in sys.argv:
        flood(float(sys.argv[-1]))
    elif "--ros-args" in sys.argv:
        sys.exit(recording_executor())
    else:
        main()
