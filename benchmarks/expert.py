"""Success of the scripted experts on unseen layouts, in the simulator alone.

    python benchmarks/expert.py --layouts 100 [--scenes bench] [--tasks stack place+press]

Prints a table: scene, task, successes, and the simulated time until success (mean and longest, s).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from vla_ros.sim.scene import COLOURS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import task_of
from vla_ros.sim.worlds import SCENES, WORLDS, expert_of, tracker_of


def measure(world: Simulated, name: str, layouts: int) -> dict:
    """Each layout once, colours in turn."""
    times, failed = [], []
    for seed in range(layouts):
        world.reset(seed)
        task = world.suited(task_of(name, COLOURS[seed % len(COLOURS)]), seed)
        expert, tracker = expert_of(world, task), tracker_of(world, task)
        while world.time < world.limit(task) and not tracker.update():
            world.step(expert.command())
        if tracker.succeeded:
            times.append(tracker.success_time)
        else:
            failed.append(seed)
    return {
        "layouts": layouts,
        "successes": len(times),
        "failed_seeds": failed,
        "mean_time_s": round(float(np.mean(times)), 2) if times else None,
        "longest_time_s": round(float(np.max(times)), 2) if times else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", type=int, default=100)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    parser.add_argument("--tasks", nargs="+", help="default: all of each scene")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    print(f"{'scene':6} {'task':16} {'success':>9} {'mean s':>8} {'longest s':>10}")
    worlds = [made() for made in WORLDS if made.scene in args.scenes]
    for world, name in ((one, name) for one in worlds for name in args.tasks or one.kinds):
        result = results[f"{world.scene} {name}"] = measure(world, name, args.layouts)
        share = f"{result['successes']}/{args.layouts}"
        times = f"{result['mean_time_s'] or '-':>8} {result['longest_time_s'] or '-':>10}"
        print(f"{world.scene:6} {name:16} {share:>9} {times}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
