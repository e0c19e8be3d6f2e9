"""How long it takes from a camera's stamp to the command that follows what it saw, with the policy and without.

    python benchmarks/camera_to_command.py [--seconds 30] [--rate 100] [--priority 0] [--json FILE]

Simulator in real time (two cameras of 640x480 at 30 Hz), the shipped policy and the executor, as processes. "Without
the network" is the same graph whose policy takes, decodes and resizes the images and then answers at once: what the
graph itself costs. The time counts from the stamp of the newest image of an observation (the instant that the
simulator begins to render) to the publishing of the first command that follows its chunk, rendering, transport, waiting
for an inference that is under way, and the wait for the next control tick included. Each accepted chunk counts once.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from live_graph import POLICY, ROBOT, live_graph

HEADER = ("", "chunks", "arrival p50 ms", "p99 ms", "command p50 ms", "p99 ms", "longest ms")


def measure(rate: float, seconds: float, priority: int, policy: Path, network: bool, folder: Path) -> dict:
    robot_file, recorded = folder / "robot.yaml", folder / "latency.npy"
    robot_file.write_text(yaml.safe_dump(yaml.safe_load(ROBOT.read_text()) | {"control_rate": float(rate)}))
    modules = {"executor_node": "recording_latency"} | ({} if network else {"policy_node": "recording_latency"})
    with live_graph(
        folder / "graph",
        policy=policy,
        executor={"robot": str(robot_file), "realtime_priority": priority},
        modules=modules,
        environment={"RECORD_LATENCY": str(recorded)},
    ):
        time.sleep(seconds)
    arrival, command = np.load(recorded).T * 1000
    return {
        "what": "with the policy" if network else "without the network",
        "chunks": len(command),
        "arrival_p50_ms": round(float(np.percentile(arrival, 50)), 1),
        "arrival_p99_ms": round(float(np.percentile(arrival, 99)), 1),
        "command_p50_ms": round(float(np.percentile(command, 50)), 1),
        "command_p99_ms": round(float(np.percentile(command, 99)), 1),
        "command_longest_ms": round(float(command.max()), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each way")
    parser.add_argument("--rate", type=float, default=100.0, help="of the executor, Hz")
    parser.add_argument("--priority", type=int, default=0, help="realtime_priority of the executor")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    print("".join(f"{word:>20}" if not i else f"{word:>15}" for i, word in enumerate(HEADER)))
    for network in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            result = measure(args.rate, args.seconds, args.priority, args.policy, network, Path(folder))
        results.append(result)
        print("".join(f"{value:>20}" if not i else f"{value:>15}" for i, value in enumerate(result.values())))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
