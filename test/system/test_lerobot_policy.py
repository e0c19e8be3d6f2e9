"""A π0 folder as LeRobot writes it, served through a policy file against the simulator."""

from pathlib import Path

import numpy as np
import pi0_folders
import pytest
import yaml
from system.support import Probe, free_domain
from system.test_policy_node import Policy

from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.evaluation import EvaluationGraph
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.messages.chunks import read_chunk
from vla_ros.msg import ActionChunk
from vla_ros.nodes.qos import COMMAND_QOS
from vla_ros.policies.dimension import read_dimension
from vla_ros.sim.world import HOME

ROOT = Path(__file__).parents[2]
ROBOT_FILE = ROOT / "config" / "robots" / "so101.yaml"
ROBOT = RobotSpec.load(ROBOT_FILE)
STEP_DT = 0.1
CAMERAS = {"base_0_rgb": "front", "left_wrist_0_rgb": "wrist", "right_wrist_0_rgb": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint, tokenizer and policy file; the checkpoint speaks degrees and percent, near the arm's home."""
    folder = tmp_path_factory.mktemp("lerobot")
    dimensions = yaml.safe_load((ROOT / "config" / "policies" / "so101_lerobot.yaml").read_text())["state"]
    rows = [read_dimension(row, "state") for row in dimensions]
    scale, offset = (np.array([getattr(row, key) for row in rows]) for key in ("scale", "offset"))
    centre = (HOME * scale + offset).astype(np.float32)
    rows = {name: {"mean": centre, "std": np.ones(6, np.float32)} for name in ("observation.state", "action")}
    pi0_folders.write_lerobot(folder / "checkpoint", pi0_folders.TINY, "pi0", 6, tuple(CAMERAS), rows=rows)
    pi0_folders.write_sentencepiece(folder / "tokenizer.model")
    write_policy_file(folder / "policy.yaml", dimensions, CAMERAS)
    write_policy_file(folder / "wrong_camera.yaml", dimensions, CAMERAS | {"left_wrist_0_rgb": "hand"})
    write_policy_file(folder / "unmapped_camera.yaml", dimensions, {"base_0_rgb": "front"})
    write_policy_file(folder / "wrong_state.yaml", dimensions[:5], CAMERAS)
    (folder / "cut").mkdir()
    for file in (folder / "checkpoint").iterdir():
        data = file.read_bytes()
        (folder / "cut" / file.name).write_bytes(data[:-1000] if file.name == "model.safetensors" else data)
    write_policy_file(folder / "truncated.yaml", dimensions, CAMERAS, checkpoint="cut")
    return folder


def write_policy_file(path: Path, state: list, cameras: dict, checkpoint: str = "checkpoint") -> None:
    data = {"checkpoint": checkpoint, "tokenizer": "tokenizer.model", "step_dt": STEP_DT, "cameras": cameras,
            "state": state}  # fmt: skip
    path.write_text(yaml.safe_dump(data))


def test_chunks_have_the_robots_joints_and_units(folder: Path, tmp_path: Path):
    with EvaluationGraph(tmp_path, str(ROBOT_FILE), str(folder / "policy.yaml"), domain=free_domain()) as evaluation:
        probe = Probe(evaluation.graph)
        probe.record("action_chunk", ActionChunk, COMMAND_QOS)
        evaluation.bring_up()
        evaluation.run_to_end(1, "touch the red cube", 0.5)
        probe.wait_for(lambda: len(probe.messages("action_chunk")) >= 2, "two chunks")
    for message in probe.messages("action_chunk"):
        chunk = read_chunk(message)
        (part,) = chunk.targets.parts
        assert part.names == ROBOT.joint_names
        assert part.data.shape == (pi0_folders.TINY.horizon, 6) and chunk.step_dt == STEP_DT
        assert chunk.instruction_id == instruction_id("touch the red cube")
        # One degree of deviation in the checkpoint's units: a few hundredths of a radian around home, and not home.
        assert 1e-4 < np.abs(part.data - HOME).max() < 0.3


def test_what_does_not_fit_stops_configure(folder: Path, tmp_path: Path):
    cases = {
        "wrong_camera": ["camera 'hand'", "front", "wrist"],
        "unmapped_camera": ["cameras", "left_wrist_0_rgb"],
        "wrong_state": ["state of 6 dimensions", "gives 5"],
        "truncated": ["model.safetensors", "complete"],
    }
    with Graph(tmp_path, domain=free_domain()) as graph:
        policy = Policy(graph)
        for name, words in cases.items():
            policy.set(policy=str(folder / f"{name}.yaml"))
            with pytest.raises(GraphError) as error:
                graph.configure("policy_node")
            for word in words:
                assert word in str(error.value).splitlines()[-1], f"{name}: {error.value}"
