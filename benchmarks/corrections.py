"""A policy learns from corrections: success over rounds in which the scripted expert takes over when it strays.

    python benchmarks/corrections.py --output runs/corrections

A weak policy is made first: the shipped one, which was never shown a push, learns from a few demonstrations. In each
round it then tries pushes in new layouts through the graph, in lockstep; the expert watches, and where the arm comes no
nearer to its goal for a second it takes over through the executor for two, as a person with a leader arm would.
Everything is recorded; the frames that the expert commanded count `--weight` times as much as the policy's own in the
next training, from the last checkpoint, on demonstrations and corrections together. After each training success is
measured as `vla-ros eval` does, nobody helping, in layouts that no round has seen. What is there already in the
folder is not made again, so that an interrupted run goes on. `success.json` and `success.png` hold the result.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from vla_ros.bags.build import build_dataset
from vla_ros.bags.episodes import CutOptions
from vla_ros.cli.demo import CHECKPOINT
from vla_ros.cli.eval import Episode, episodes, wilson
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset
from vla_ros.graph.evaluation import EvaluationGraph
from vla_ros.graph.simulation import TaskStatus
from vla_ros.msg import Outcome
from vla_ros.nodes.qos import COMMAND_QOS
from vla_ros.policies.images import resize_within

KIND, ROBOT = "push", "so101"
ALONE, HELPED = 6.0, 12.0  # s of simulated time for an episode
SEEN = 100  # seed of the layouts of the first round; evaluation has seed 0
EXECUTOR = {"takeover_blend": 0.3, "takeover_timeout": 1.0}  # s


class CorrectionGraph(EvaluationGraph):
    """Policy, executor, simulator, the expert who takes over, and a recorder."""

    acknowledged = True

    def bring_up(self) -> None:
        graph = self.graph
        graph.start("expert_node", parameters=self.common | {"takeover": True})
        graph.start("recorder_node", parameters=self.common | {"compressed_images": True})
        super().bring_up()
        graph.bring_up("expert_node")
        graph.configure("recorder_node")
        self._outcome = graph.node.create_publisher(Outcome, "outcome", COMMAND_QOS)

    def correct(self, bag: Path, episode: Episode) -> bool:
        """One episode to a new bag; whether it ended in success, with whatever help."""
        self.graph.set_parameters("recorder_node", {"output": str(bag.resolve())})
        return self.run_to_end(episode.seed, episode.instruction, episode.time_limit, episode.judged).success

    def play(self) -> TaskStatus:
        self.graph.activate("recorder_node")
        status = super().play()
        outcome = Outcome.SUCCESS if status.success else Outcome.FAILURE
        self._outcome.publish(Outcome(outcome=outcome, by="sim_node", message=status.values["ended_by"]))
        self.graph.deactivate("recorder_node")
        return status


def vla_ros(*arguments: Any) -> None:
    """A command, in a process of its own."""
    subprocess.run([sys.executable, "-P", "-m", "vla_ros.cli.main", *map(str, arguments)], check=True)


def train(output: Path, data: Path, start: Path, args: argparse.Namespace, *more: Any) -> Path:
    """The checkpoint."""
    if not (checkpoint := output / "checkpoints" / "last").exists():
        vla_ros("train", "--config", config_file("train/fine_tune.yaml"), "--dataset", data, "--output", output,
                "--start", start, "--statistics", "keep", "--steps", args.steps, "--threads", args.threads, *more,
                *(["--resume"] if (output / "state.pt").exists() else []))  # fmt: skip
    return checkpoint


def build(output: Path, bags: list[Path]) -> Path:
    """The dataset of bags, with pictures of the size that the policy sees."""
    if not output.exists():
        robot = RobotSpec.load(config_file("robots/so101.yaml"))
        report = build_dataset(
            bags, output, robot, CutOptions(fps=10.0, min_seconds=0.5), skip_bad=True,
            resize=lambda image: resize_within(image, 96, 96),
        )  # fmt: skip
        for problem in report.problems:
            print(f"left out: {problem}")
    return output


def correct(folder: Path, policy: Path, number: int, args: argparse.Namespace) -> list[Path]:
    """The bags of a round."""
    plan = episodes(KIND, args.episodes, SEEN + number, time_limit=HELPED)
    bags = [folder / f"bags_{number}" / f"{episode.seed}" for episode in plan]
    if all((bag / "metadata.yaml").exists() for bag in bags):
        return bags
    params = folder / "executor.yaml"
    params.write_text(yaml.safe_dump({"/**/executor_node": {"ros__parameters": EXECUTOR}}))
    with CorrectionGraph(folder / f"logs_{number}", ROBOT, str(policy), params=[str(params)]) as graph:
        graph.bring_up()
        for bag, episode in zip(bags, plan, strict=True):
            if not (bag / "metadata.yaml").exists():
                print(f"round {number}, layout {episode.seed}: success {graph.correct(bag, episode)}", flush=True)
    return bags


def measure(folder: Path, policy: Path, number: int, args: argparse.Namespace) -> dict[str, Any]:
    """What `vla-ros eval` says of a policy."""
    if not (file := folder / f"eval_{number}.json").exists():
        vla_ros("eval", "--policy", policy, "--tasks", KIND, "--layouts", args.layouts, "--jobs", args.jobs,
                "--time-limit", ALONE, "-o", file)  # fmt: skip
    found = json.loads(file.read_text())["tasks"][KIND]
    return {"round": number, "successes": found["successes"], "layouts": found["layouts"]}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rates = [100 * row["successes"] / row["layouts"] for row in rows]
    ends = [[100 * end for end in wilson(row["successes"], row["layouts"])] for row in rows]
    figure, axes = plt.subplots(figsize=(5.5, 3.5))
    away = [[rate - low for rate, (low, _) in zip(rates, ends, strict=True)],
            [high - rate for rate, (_, high) in zip(rates, ends, strict=True)]]  # fmt: skip
    axes.errorbar([row["round"] for row in rows], rates, away, fmt="o-", capsize=4)
    axes.set(xlabel="rounds of corrections", ylabel="success (%), 95 % interval", ylim=(-3, 103),
             xticks=[row["round"] for row in rows])  # fmt: skip
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; one that is there goes on")
    parser.add_argument("--demonstrations", type=int, default=20, help="of the weak policy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20, help="of a round")
    parser.add_argument("--weight", type=float, default=100.0, help="of what the expert commanded")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--layouts", type=int, default=50, help="of each evaluation")
    parser.add_argument("--jobs", type=int, default=1, help="of the evaluation")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the training")
    args = parser.parse_args()
    folder = args.output
    folder.mkdir(parents=True, exist_ok=True)
    shown = folder / "demonstrations"
    if not shown.exists():
        vla_ros("demos", shown, "--bags", "--episodes", args.demonstrations, "--tasks", KIND)
    bags = sorted(path for path in shown.iterdir() if path.is_dir())
    policy = train(folder / "policy_0", build(folder / "data_0", bags), Path(CHECKPOINT), args)
    rows = [measure(folder, policy, 0, args)]
    for number in range(1, args.rounds + 1):
        bags += correct(folder, policy, number, args)
        data = build(folder / f"data_{number}", bags)
        rows[-1]["helped"] = int(Dataset(data).by_person.sum())
        policy = train(folder / f"policy_{number}", data, policy, args, "--corrections", args.weight)
        rows.append(measure(folder, policy, number, args))
        (folder / "success.json").write_text(json.dumps(rows, indent=1))
        plot(rows, folder / "success.png")
    for row in rows:
        print(f"round {row['round']}: {row['successes']} of {row['layouts']}")


if __name__ == "__main__":
    main()
