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

import numpy as np
import yaml
from live_graph import HERE, POLICY, ROBOT, live_graph


def row(kind: str, rate: float, late: np.ndarray, ticks: int) -> dict:
    late = late[-ticks:]  # the same stretch of time for both, without the start
    p50, p99 = np.percentile(late, [50, 99]) * 1000
    return {"what": kind, "rate_hz": rate, "ticks": len(late), "p50_ms": round(float(p50), 3),
            "p99_ms": round(float(p99), 3), "longest_ms": round(float(late.max()) * 1000, 3),
            "over_a_period": int((late > 1 / rate).sum())}  # fmt: skip


def measure(rate: float, seconds: float, priority: int, policy: Path, folder: Path) -> list[dict]:
    robot_file = folder / "robot.yaml"  # the simulator keeps to 100 Hz, the executor alone goes faster
    robot_file.write_text(yaml.safe_dump(yaml.safe_load(ROBOT.read_text()) | {"control_rate": float(rate)}))
    recorded = {kind: folder / f"{kind}.npy" for kind in ("executor", "bare loop")}
    with live_graph(
        folder / "graph",
        policy=policy,
        executor={"robot": str(robot_file), "realtime_priority": priority},
        modules={"executor_node": "recording_executor"},
        environment={"RECORD_LATENESS": str(recorded["executor"])},
    ):
        bare = subprocess.Popen(
            [sys.executable, str(HERE / "recording_executor.py"), "--bare", str(round(1e9 / rate)), str(priority)],
            env=os.environ | {"RECORD_LATENESS": str(recorded["bare loop"])},
        )
        try:
            time.sleep(seconds)
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
