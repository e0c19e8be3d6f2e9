"""Success of the scripted experts on unseen layouts, in the simulator alone.

    python benchmarks/expert.py --layouts 100 [--json expert.json]

Prints a table: task, successes, and the simulated time until success (mean and longest, s).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.worlds import WORLDS, expert_of


def measure(world: Simulated, kind: TaskKind, layouts: int) -> dict:
    """Each layout once, colours in turn."""
    times, failed = [], []
    for seed in range(layouts):
        world.reset(seed)
        task = Task(kind, world.colours[seed % len(world.colours)])
        expert, tracker = expert_of(world, task), SuccessTracker(task, world)
        while world.time < world.time_limit and not tracker.update():
            world.step(expert.command())
        if tracker.succeeded:
            times.append(tracker.success_time)
        else:
            failed.append(seed)
    return {
        "layouts": layouts,
        "successes": len(times),
        "failed_seeds": failed,
        "mean_time_s": round(float(np.mean(times)), 2),
        "longest_time_s": round(float(np.max(times)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    print(f"{'task':6} {'success':>9} {'mean s':>8} {'longest s':>10}")
    worlds = [made() for made in WORLDS]
    for world, kind in ((one, kind) for one in worlds for kind in one.kinds):
        result = results[kind.value] = measure(world, kind, args.layouts)
        share = f"{result['successes']}/{args.layouts}"
        print(f"{kind.value:6} {share:>9} {result['mean_time_s']:8.2f} {result['longest_time_s']:10.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
