"""How late the executor's ticks are, with two cameras running and a policy inferring, beside a bare loop.

    python benchmarks/executor_lateness.py [--seconds 60] [--rates 100 200 500] [--priority 0] [--json FILE]

Starts the simulator in real time (two cameras of 640x480 at 30 Hz), the shipped policy with an instruction, the
executor, and a bare loop: a process with the same absolute deadlines that does nothing else. All run at once, so the
bare loop's figures are those of the machine under this very load. Prints p50, p99 and the longest lateness in ms,
how many ticks came later than one period, and the ratio of the p99.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_ros.cli.graph import Graph
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.base import COMMAND_QOS, POLICY_STATUS_QOS, STATUS_QOS, sensor_qos

HERE = Path(__file__).resolve().parent
ROBOT = HERE.parent / "config" / "robots" / "so101.yaml"
POLICY = HERE.parent / "vla_ros" / "data" / "checkpoints" / "pi0_tiny"


def row(kind: str, rate: float, late: np.ndarray, ticks: int) -> dict:
    late = late[-ticks:]  # the same stretch of time for both, without the start
    p50, p99 = np.percentile(late, [50, 99]) * 1000
    return {"what": kind, "rate_hz": rate, "ticks": len(late), "p50_ms": round(float(p50), 3),
            "p99_ms": round(float(p99), 3), "longest_ms": round(float(late.max()) * 1000, 3),
            "over_a_period": int((late > 1 / rate).sum())}  # fmt: skip


def measure(rate: float, seconds: float, priority: int, policy: Path, folder: Path) -> list[dict]:
    robot = yaml.safe_load(ROBOT.read_text()) | {"control_rate": float(rate)}
    robot_file = folder / "robot.yaml"
    robot_file.write_text(yaml.safe_dump(robot))
    common = {"robot": str(ROBOT)}  # the simulator keeps to 100 Hz, the executor alone goes faster
    recorded = {kind: folder / f"{kind}.npy" for kind in ("executor", "bare loop")}
    modules = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    states: dict[str, Any] = {}
    with Graph(folder / "graph") as graph:
        node = graph.node
        node.create_subscription(
            ExecutorStatus, "executor_node/status", lambda m: states.update(executor=m.state), STATUS_QOS
        )
        node.create_subscription(
            PolicyStatus, "policy_node/status", lambda m: states.update(chunks=m.chunks), POLICY_STATUS_QOS
        )
        node.create_subscription(JointState, "joint_states", lambda m: states.update(joints=1), sensor_qos())
        instruction = node.create_publisher(String, "instruction", COMMAND_QOS)
        graph.start("sim_node", parameters=common)
        graph.start("policy_node", parameters=common | {"policy": str(policy), "threads": 1})
        graph.start(
            "executor_node",
            "recording_executor",
            parameters={"robot": str(robot_file), "realtime_priority": priority},
            environment=modules | {"RECORD_LATENESS": str(recorded["executor"])},
        )
        graph.wait_for(lambda: states.get("joints"), "the simulator's joint states")
        graph.bring_up("policy_node", "executor_node")
        graph.wait_for(lambda: instruction.get_subscription_count() >= 3, "the listeners of the instruction")
        instruction.publish(String(data="touch the red cube"))
        graph.wait_for(lambda: states.get("chunks"), "the policy's chunks", 300.0)
        bare = subprocess.Popen(
            [sys.executable, str(HERE / "recording_executor.py"), "--bare", str(round(1e9 / rate)), str(priority)],
            env=os.environ | {"RECORD_LATENESS": str(recorded["bare loop"])},
        )
        try:
            time.sleep(seconds)
            graph.deactivate("executor_node")
        finally:
            bare.send_signal(signal.SIGINT)
            bare.wait()
    return [row(kind, rate, np.load(path), int((seconds - 1) * rate)) for kind, path in recorded.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[100.0, 200.0, 500.0])
    parser.add_argument("--priority", type=int, default=0, help="realtime_priority, of the bare loop too")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    print(f"{'':10} {'Hz':>5} {'ticks':>7} {'p50 ms':>8} {'p99 ms':>8} {'longest':>8} {'> period':>8} {'p99 ratio':>9}")
    for rate in args.rates:
        with tempfile.TemporaryDirectory() as folder:
            executor, bare = measure(rate, args.seconds, args.priority, args.policy, Path(folder))
        executor["p99_ratio"] = round(executor["p99_ms"] / bare["p99_ms"], 2)
        for result in (executor, bare):
            results.append(result)
            print(
                f"{result['what']:10} {result['rate_hz']:5.0f} {result['ticks']:7} {result['p50_ms']:8.3f} "
                f"{result['p99_ms']:8.3f} {result['longest_ms']:8.2f} {result['over_a_period']:8} "
                f"{result.get('p99_ratio', ''):>9}"
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
