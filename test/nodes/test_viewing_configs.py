"""The configurations of RViz, Foxglove and diagnostic_aggregator speak of topics, fields and names that exist."""

import json
import re
import tomllib
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from rclpy.serialization import serialize_message

from vla_ros.core.robot import RobotSpec
from vla_ros.graph.security import FRAMES, enclaves
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus, PolicyStatus
from vla_ros.nodes.diagnostics import ExecutorDiagnostic, policy_diagnostic
from vla_ros.nodes.marker_node import MarkerNode
from vla_ros.sim.description import ROOT

PROJECT = Path(__file__).parents[2]
CONFIG = PROJECT / "config"
MESSAGES = {"/executor_node/status": ExecutorStatus, "/policy_node/status": PolicyStatus}


def published() -> set[str]:
    """Every topic that some node of the simulated graph publishes."""
    made = enclaves(RobotSpec.load("so101"))
    names = {node: made[node].publish for node in ("policy_node", "executor_node", "sim_node", "marker_node")}
    entries = {(node, entry) for node, topics in names.items() for entry in topics}
    return {e if e.startswith("/") else f"/{node}{e[1:]}" if e.startswith("~") else f"/{e}" for node, e in entries}


def found(value, key: str):
    """All values under `key` in nested lists and mappings."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if name == key:
            yield inner
        if isinstance(inner, (dict, list)):
            yield from found(inner, key)


def test_rviz():
    config = yaml.safe_load((CONFIG / "rviz" / "vla.rviz").read_text(encoding="utf-8"))
    topics = [topic["Value"] for key in ("Topic", "Description Topic") for topic in found(config, key)]
    assert set(topics) <= published() and f"/{FRAMES[0]}" in topics and "/marker_node/markers" in topics
    assert list(found(config, "Fixed Frame")) == [ROOT]


def test_foxglove():
    config = json.loads((CONFIG / "foxglove" / "vla.json").read_text(encoding="utf-8"))
    panels = config["configById"]
    assert set(re.findall(r'"(\w+!\w+)"', json.dumps(config["layout"]))) == set(panels)
    topics = {name for key in ("imageTopic", "calibrationTopic", "topicToRender") for name in found(panels, key)}
    topics |= set(panels["3D!arm"]["topics"])
    for path in [row["value"] for rows in found(panels, "paths") for row in rows]:
        topic, field = path.removesuffix("[:]").split(".")
        assert hasattr(MESSAGES[topic](), field)
        topics.add(topic)
    assert topics <= published()


def test_diagnostics_are_called_what_the_aggregator_looks_for():
    config = yaml.safe_load((CONFIG / "diagnostics" / "aggregator.yaml").read_text(encoding="utf-8"))
    names = {f"policy_node: {policy_diagnostic(PolicyStatus()).name}",
             f"executor_node: {ExecutorDiagnostic()(ExecutorStatus()).name}"}  # fmt: skip
    assert {name for names in found(config, "contains") for name in names} == names


def test_all_of_config_is_installed():
    """By pip as well as by colcon, which takes the whole folder."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = [each for row in project["tool"]["setuptools"]["data-files"].values() for each in row]
    taken = {path for each in globs for path in PROJECT.glob(each)}
    assert {path for path in CONFIG.rglob("*") if path.is_file()} == taken


@pytest.mark.parametrize(("joint", "kept"), [("turn", 1), ("elsewhere", 0)])
def test_a_chunk_for_other_joints_is_not_drawn(joint, kept):
    node = SimpleNamespace(_names=("turn",), _largest_chunk=10_000, _seen={}, _tool=None)
    message = ActionChunk(step_dt=0.1, horizon=2, parts=[ActionPart(names=[joint], data=array("d", [0.0, 0.1]))])
    MarkerNode._take_chunk(node, serialize_message(message))
    assert len(node._seen) == kept
