"""Cost of one control tick, without ROS, against the number of live chunks and joints.

    python benchmarks/tick_cost.py [--ticks 2000] [--json tick_cost.json]

Prints a table: mode, interpolation, joints, live chunks, and µs of processor time per tick (p50, p99).
A tick watches time and joint states, evaluates and blends every live chunk, and bounds the command.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Settings
from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import CommandGroup, Joint, RobotSpec

NS, RATE, HORIZON = 1_000_000_000, 100.0, 50


def robot(joints: int) -> RobotSpec:
    made = tuple(Joint(f"joint{i}", -2.0, 2.0, velocity=3.0, acceleration=20.0) for i in range(joints))
    group = CommandGroup("all", "command", "joint_trajectory", tuple(joint.name for joint in made))
    return RobotSpec(name="bench", cameras=(), joints=made, groups=(group,))


def measure(mode: str, cubic: bool, joints: int, chunks: int, ticks: int) -> dict:
    """The chunks' rows lie far enough apart that all of them stay live throughout."""
    executor = Executor(
        Limits.merge(robot(joints)), RATE, Settings(mode=mode, interpolation="cubic" if cubic else "linear")
    )
    executor.set_instruction("go")
    names, now = executor.limits.names, 1000 * NS
    executor.joint_state(now, names, np.zeros(joints), now)
    executor.activate(now)
    rng, costs = np.random.default_rng(0), np.empty(ticks)
    rows = np.cumsum(rng.normal(size=(HORIZON, joints)) * 0.01, axis=0)
    for i in range(ticks):
        if i % 100 == 0:  # a second of time: fresh chunks
            executor.timeline.clear()
            for k in range(chunks):
                stamp, sequence = now - (chunks - k) * NS // 1000, i * chunks + k
                targets = Targets((Part(names, rows + executor.limiter.position),))
                chunk = ActionChunk(stamp, 0.1, targets, instruction_id("go"), sequence, session=1)
                executor.add_chunk(chunk, now)
            assert len(executor.timeline) == chunks, executor.admission.last
        now += round(NS / RATE)
        executor.joint_state(now, names, executor.limiter.position, now)
        begin = time.perf_counter_ns()
        executor.tick(now, now)
        costs[i] = (time.perf_counter_ns() - begin) / 1000
    p50, p99 = np.percentile(costs, [50, 99])
    interpolation = "cubic" if cubic else "linear"
    return {"mode": mode, "interpolation": interpolation, "joints": joints, "chunks": chunks,
            "p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = [("ensemble", False, joints, chunks) for joints in (6, 14, 28) for chunks in (1, 4, 16, 64, 256)]
    cases += [("ensemble", True, 6, 16), ("latest", False, 6, 16), ("rtc", False, 6, 16)]
    results = []
    print(f"{'mode':9} {'between':7} {'joints':>6} {'chunks':>6} {'p50 µs':>8} {'p99 µs':>8}")
    for case in cases:
        row = measure(*case, args.ticks)
        results.append(row)
        print("{mode:9} {interpolation:7} {joints:6} {chunks:6} {p50_us:8.1f} {p99_us:8.1f}".format(**row))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
