"""The executor against everything that may reach it, in explicit time, each command checked by somebody else.

    python benchmarks/adversary.py [--ticks 10000000] [--workers 2] [--seed 0] [--json FILE]
    python benchmarks/adversary.py --seed 0 --episode 17        one episode again, with its first violations
    python benchmarks/adversary.py --sabotage NAME              an executor broken on purpose: the check must see it

Every episode draws a robot (the SO-101, or one with other ranges, limits and rates from 1 to 1000 Hz, some with jerk
limits; a quarter of them on a base that drives), settings, and then for each control period what arrives: plans, wild
and malformed chunks, instructions, e-stops, rivals, a policy that dies, joint states that freeze, jump or cease,
ticks that come late, clocks that are set, deactivation and activation in motion, publishers that nobody has
discovered yet, and a source that takes over and gives back, moves, jumps, falls silent or says NaN. A tenth of the
episodes are of the SO-101 with its tool, and most of their chunks are the tool's. `command_check.py` decides about
the commands; what else must hold is decided here, by a model of what was done to the executor: whether there may be a
command at all, whether the e-stop is latched, where the first command after a silence may be, whether a source may be
followed, and that a base is told to stand before commands cease.

What the documentation exempts is counted as such: after a stall longer than `overrun_limit` the robot has stood at its
last command and starts there from rest; after a silence it starts from rest at a measured position, or goes on from
the last command.
"""

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path

from adversary_episode import MORE_KINDS, Episode, Result
from command_check import KINDS
from sabotage import SABOTAGES

from vla_ros.control.executor import Executor

TICKS = 2000  # of an episode


def run_episodes(seed: int, numbers: list[int], ticks: int, sabotage: str) -> Result:
    """What a worker does."""
    make = SABOTAGES[sabotage][0] if sabotage else Executor
    total = Result()
    for number in numbers:
        total.add(Episode(seed, number, make).run(ticks))
    return total


def table(total: Result, seconds: float) -> str:
    lines = [
        f"{'ticks':40} {total.ticks:>12,}   in {seconds:.0f} s",
        f"{'commands checked':40} {total.commands:>12,}   of which {total.moving:,} move",
        f"{'ticks led by a source':40} {total.led:>12,}",
        f"{'faults and messages':40} {sum(total.faults.values()):>12,}",
        *(f"    {name:36} {count:>12,}" for name, count in sorted(total.faults.items())),
        f"{'stops':40} {sum(total.stops.values()):>12,}",
        *(f"    {name:36} {count:>12,}" for name, count in sorted(total.stops.items())),
        "exempt by the documentation",
        *(f"    {name:36} {count:>12,}" for name, count in sorted(total.exempt.items())),
        *(f"{f'greatest share of the {name} limit':40} {share:>12.6f}" for name, share in total.share.items()),
        f"{'violations':40} {sum(total.violations.values()):>12,}",
    ]
    for kind in (*KINDS, *MORE_KINDS):
        lines.append(f"    {kind:36} {total.violations[kind]:>12,}")
        lines += [f"        --episode {number}: {words}" for number, words in total.first.get(kind, [])]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episode", type=int, help="this one alone")
    parser.add_argument("--sabotage", default="", choices=["", *SABOTAGES], help="what to break in the executor")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begin, total = time.monotonic(), Result()
    if args.episode is not None:
        total = run_episodes(args.seed, [args.episode], TICKS, args.sabotage)
    else:
        numbers = list(range(max(args.ticks // TICKS, 1)))
        batches = [numbers[i : i + 20] for i in range(0, len(numbers), 20)]
        jobs = [(args.seed, batch, TICKS, args.sabotage) for batch in batches]
        with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
            for done in pool.imap(run_starred, jobs):
                total.add(done)
    seconds = time.monotonic() - begin
    print(table(total, seconds))
    if args.json:
        result = vars(total) | {"seed": args.seed, "seconds": round(seconds, 1)}
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(bool(total.violations))


def run_starred(job: tuple[int, list[int], int, str]) -> Result:
    return run_episodes(*job)


if __name__ == "__main__":
    sys.exit(main())
