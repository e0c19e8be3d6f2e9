"""Success of a policy in the simulator in one process, without ROS: a fifth of the processor time of `vla-ros eval`.

    python benchmarks/in_process.py --policy runs/bench_tiny/checkpoints/last --scene bench --tasks touch place

Layouts, colours and sentences are those of `vla-ros eval` with the same `--tasks`, `--layouts`, `--seed`, `--wordings`
and `--control`; the policy infers 10 times a second, and the executor that executor_node feeds blends its chunks as
config/executor_demo.yaml says. There are no messages, so a chunk comes one control period after its images.
"""

import argparse
import json
import os
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from vla_ros.cli.at_work import PERIOD_NS, AtWork
from vla_ros.cli.eval import Episode, episodes, wilson
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.runtime.engines.backends import NAMES
from vla_ros.runtime.session import SessionOptions
from vla_ros.sim.demonstrations import Recording
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.worlds import SCENES, scene_with, tracker_of


def run(world: Simulated, policy: AtWork, episode: Episode) -> float | None:
    """s until success, None without."""
    world.reset(episode.seed)
    tracker = tracker_of(world, world.understand(episode.judged))
    ticks = round(episode.time_limit * 1e9 / PERIOD_NS)
    for _ in islice(policy.commands(world, episode.instruction, episode.seed), ticks):
        if tracker.update():
            return world.time
        if tracker.failed:
            break
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--scene", choices=SCENES, default="")
    parser.add_argument("--tasks", nargs="+", default=["touch", "pick"])
    parser.add_argument("--layouts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wordings", choices=("trained", "held_out"), default="trained")
    parser.add_argument("--control", choices=("none", "wrong_colour"), default="none")
    parser.add_argument("--engine", choices=NAMES, default="torch", help="what runs the network (default: %(default)s)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    robot = RobotSpec.load(config_file("robots/so101.yaml"))
    kind = scene_with(robot, args.scene, args.tasks)
    everything = Recording(lambda picture: picture)
    policy = AtWork(args.policy, robot, everything, options=SessionOptions(engine=args.engine))
    world, results = kind(), {}
    for name in args.tasks:
        plan = episodes(name, args.layouts, args.seed, args.control, None, kind, args.wordings)
        times = {episode.seed: run(world, policy, episode) for episode in plan}
        done = [time for time in times.values() if time is not None]
        low, high = wilson(len(done), len(plan))
        results[name] = {"layouts": len(plan), "successes": len(done), "times": times}
        median = f"{np.median(done):.1f} s" if done else "-"
        print(f"{name:12} {len(done)}/{len(plan)}  {100 * low:.1f} to {100 * high:.1f} %  {median}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(vars(args) | {"tasks": results}, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
