"""The loop: the expert is recorded, bags become a dataset, the dataset a better policy, and that policy serves."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from system.support import Probe, free_domain

from vla_ros.bags.build import plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import read_frames
from vla_ros.bags.reader import Bag
from vla_ros.cli.demo import CHECKPOINT
from vla_ros.cli.main import main as vla_ros
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.demonstrations import DISTURBANCE, DemonstrationGraph
from vla_ros.graph.evaluation import EvaluationGraph
from vla_ros.msg import ActionChunk
from vla_ros.nodes.qos import COMMAND_QOS
from vla_ros.sim.demonstrations import layout_seed
from vla_ros.sim.expert import Expert
from vla_ros.sim.tasks import Task, TaskKind
from vla_ros.sim.world import World

ROBOT_FILE = Path(__file__).parents[2] / "config" / "robots" / "so101.yaml"
ROBOT = RobotSpec.load(ROBOT_FILE)
TASK = Task(TaskKind.PUSH, "green")  # the shipped policy has never seen a push
TEXT = TASK.instruction()
TRAINING = {
    "steps": 40, "batch_size": 16, "seed": 0, "held_out": 0.0, "ema_decay": 0.0,
    "optimizer": {"learning_rate": 5e-4, "final_learning_rate": 1e-5, "warmup_steps": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five pushes; the last one is not disturbed, and not for training."""
    folder = tmp_path_factory.mktemp("loop")
    paths = [folder / f"push_{index}" for index in range(5)]
    with DemonstrationGraph(folder / "graph", ROBOT_FILE, domain=free_domain()) as graph:
        graph.bring_up()
        for index, path in enumerate(paths):
            last = index == len(paths) - 1
            assert graph.record(path, TASK, TEXT, layout_seed(0, index, 0), 0.0 if last else DISTURBANCE)
    return paths


def test_a_bag_holds_what_the_expert_did(bags: list[Path]):
    """The same run without ROS: the same commands, and joint states that are theirs."""
    index, episodes, problems = plan_bag(bags[-1], ROBOT, CutOptions())
    assert not problems and [episode.cut.instruction for episode in episodes] == [TEXT]
    with Bag(bags[-1]) as bag:
        frames = list(read_frames(bag, ROBOT, index, episodes))
    world_seed = layout_seed(0, len(bags) - 1, 0)
    world = World(world_seed)
    order = [world.joint_names.index(name) for name in ROBOT.joint_names]
    expert = Expert(world, TASK)
    assert len(frames) > 20
    for frame in frames:
        np.testing.assert_allclose(frame.observation.state, world.joint_positions()[order], atol=1e-6)
        assert set(frame.observation.images) == {"front", "wrist"}
        for tick in range(10):
            command = expert.command()
            if tick == 0:
                np.testing.assert_allclose(frame.action, command[order], atol=1e-6)
            world.step(command)
    begun = World(world_seed).cube_positions()["green"]
    assert world.cube_positions()["green"][1] > begun[1] + 0.05


def test_a_policy_learns_from_bags_and_serves(bags: list[Path], tmp_path: Path):
    robot = ["--robot", str(ROBOT_FILE)]
    dataset, run, report = tmp_path / "dataset", tmp_path / "run", tmp_path / "report"
    train_bags = [str(path) for path in bags[:-1]]
    assert vla_ros(["dataset", "build", *train_bags, "-o", str(dataset), *robot, "--image-size", "96"]) == 0
    config = tmp_path / "push.yaml"
    config.write_text(yaml.safe_dump(TRAINING))
    start = ["--start", str(CHECKPOINT), "--statistics", "keep", "--device", "cpu", "--threads", "1"]
    assert vla_ros(["train", "--config", str(config), "--dataset", str(dataset), "--output", str(run), *start]) == 0
    taught = run / "checkpoints" / "last"

    policies = ["--policy", str(CHECKPOINT), "--policy", str(taught)]
    evaluate = ["replay", str(bags[-1]), *robot, *policies, "-o", str(report), "--every", "2", "--device", "cpu"]
    assert vla_ros(evaluate) == 0
    results = json.loads((report / "report.json").read_text())
    before, after, _ = (policy["score"] for policy in results["policies"])
    assert after < before

    # and on the graph it speaks for the joints of the robot
    with EvaluationGraph(tmp_path / "graph", str(ROBOT_FILE), str(taught), device="cpu", domain=free_domain()) as graph:
        probe = Probe(graph.graph)
        probe.record("action_chunk", ActionChunk, COMMAND_QOS)
        graph.bring_up()
        graph.run_to_end(3, TEXT, 0.3)
        chunk = probe.wait_message("action_chunk", lambda m: m.instruction_id == instruction_id(TEXT), "a chunk")
    (part,) = chunk.parts
    assert tuple(part.names) == ROBOT.joint_names and chunk.step_dt == pytest.approx(0.1)
    rows = np.array(part.data).reshape(chunk.horizon, len(part.names))
    lower, upper = np.array([(joint.lower, joint.upper) for joint in ROBOT.joints]).T
    assert (rows > lower - 0.2).all() and (rows < upper + 0.2).all()
