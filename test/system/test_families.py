"""Published folders of every family but π0 in the graph: what a peer sees of their chunks."""

from collections.abc import Iterator
from contextlib import contextmanager

import groot_folders
import numpy as np
import openvla_folders
import pytest
import real_families
import torch
import yaml
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import Image
from system.robot import ROBOT_FILE, image_message
from system.support import Lasting, free_domain
from system.test_base import LIMITS, NAMES, ROBOT, Cart
from system.test_policy_node import Policy

from vla_ros.core.chunk import PATH, Space
from vla_ros.core.instruction import instruction_id
from vla_ros.core.tool import rotation_form
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.stamps import NS
from vla_ros.msg import PolicyStatus
from vla_ros.nodes.qos import sensor_qos
from vla_ros.policies import TrainingData, build, load, save
from vla_ros.policies.path_actions import driven
from vla_ros.policies.rows import Rows
from vla_ros.sim.description import urdf
from vla_ros.sim.world import World
from vla_ros.training.config import TrainConfig

TEXT = "pick up the red cube"


@pytest.fixture
def policy(lasting: Lasting, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """One process for all families; each configures it for itself and cleans it up."""
    @contextmanager
    def make() -> Iterator[Policy]:
        with Graph(tmp_path_factory.mktemp("graph"), domain=free_domain()) as graph:
            yield Policy(graph)

    return lasting.get(make)


@pytest.mark.parametrize("family, rows", [
    ("act", 12), ("diffusion", 15), ("smolvla", 10), ("pi0_fast", 5), ("xvla", 5), ("go1", 6),
])
def test_a_published_folder_serves(policy, tmp_path, family, rows):
    folder = real_families.make(tmp_path / family, family)
    processor = load(folder, robot=real_families.ROBOT).processor
    statistics, step_dt = processor.actions.statistics, processor.step_dt
    with policy.up(folder, max_age=30.0) as robot:
        policy.tell(TEXT)
        for _ in range(2):  # the second has a history where the policy reads one
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            assert chunk.targets.parts[0].names == robot.spec.joint_names
            assert chunk.targets.parts[0].data.shape == (rows, 6)
            assert chunk.step_dt == pytest.approx(step_dt)
            assert chunk.instruction_id == instruction_id(TEXT)
            # Near the actions of the statistics: they were applied, in rad.
            assert (np.abs(chunk.targets.parts[0].data - statistics["mean"]) < 20 * statistics["std"]).all()
        policy.tell("")


def test_tokens_that_are_no_chunk_are_named_and_counted_and_nothing_is_published(policy, tmp_path):
    folder = real_families.make(tmp_path / "pi0_fast", "pi0_fast")
    tensors = load_file(folder / "model.safetensors")
    tensors[next(key for key in tensors if key.endswith("lm_head.weight"))] *= -1  # words before actions
    save_file(tensors, folder / "model.safetensors")
    with policy.up(folder, max_age=30.0) as robot:
        policy.tell(TEXT)
        robot.observe()
        status = policy.wait_status(lambda s: s.refused_observations and "tokens" in s.message, "the refused tokens")
        assert status.state == PolicyStatus.FAILED and status.chunks == 0
        assert "expected actions," in status.message and "\n" not in status.message
        policy.tell("")


def test_a_second_instruction_does_not_inherit_what_a_robovlm_remembers(policy, tmp_path):
    """The robot shows the same all the time: an instruction's first answer is the same whatever was before it."""
    folder = real_families.make(tmp_path / "robovlms", "robovlms")
    with policy.up(folder, max_age=60.0) as robot:
        base, answers = robot.now() - 5 * NS, []
        for step, text in enumerate(("touch", "touch", "touch", "pick", "pick", "touch", "pick")):
            if step not in (1, 2, 4):
                policy.tell(text)
            stamp = robot.observe(base + step * NS // 10)
            [part] = read_chunk(policy.chunk_of(stamp)).targets.parts
            assert part.names == robot.spec.joint_names and part.data.shape == (3, 6)
            answers.append(part.data)
        touch, pick = answers[0], answers[3]
        np.testing.assert_array_equal(answers[5], touch)
        np.testing.assert_array_equal(answers[6], pick)
        assert all(not np.array_equal(one, other) for one, other in ((answers[1], touch), (answers[2], answers[1]),
                                                                     (answers[4], pick), (touch, pick)))
        policy.tell("")


def test_joints_of_openvla_oft_are_served_and_an_end_effector_is_refused(policy, tmp_path):
    openvla_folders.write_oft(tmp_path / "aloha", 14, 14)
    openvla_folders.write(tmp_path / "bridge")
    policy.set(policy=str(tmp_path / "bridge"))
    with pytest.raises(GraphError, match="end effector's pose: `tool` of a policy file says how"):
        policy.graph.configure("policy_node")
    rows = [*openvla_folders.SO101, *[{"joint": None}] * 8]
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({
        "checkpoint": "aloha", "step_dt": 0.04, "state": rows,
        "cameras": {"full_image": "front", "left_wrist_image": "wrist"},
    }))
    with policy.up(tmp_path / "policy.yaml", max_age=30.0) as robot:
        policy.tell(TEXT)
        chunk = read_chunk(policy.chunk_of(robot.observe()))
        [part] = chunk.targets.parts
        assert part.names == robot.spec.joint_names and part.data.shape == (25, 6)
        bounds = openvla_folders.norm_stats(14, 14, 3)["action"]
        width = np.array(bounds["max"]) - np.array(bounds["min"])
        assert (np.abs(part.data) < 20 * width[:6]).all() and np.ptp(part.data) > 1e-3
        policy.tell("")


def test_differences_of_a_tool_are_served_with_a_policy_file_that_names_it(policy, tmp_path):
    """OFT's for LIBERO, whose state is the pose of the tool."""
    openvla_folders.write_oft(tmp_path / "libero", 7, 8)
    (tmp_path / "arm.urdf").write_text(urdf(World().model, "so101"))
    nothing, pose = [{"joint": None}] * 6, {"frame": "base", "first": 0}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({
        "checkpoint": "libero", "step_dt": 0.05, "cameras": {"full_image": "front", "wrist_image": "wrist"},
        "state": [*nothing, "gripper", {"joint": None}],
        "actions": [*nothing, {"joint": "gripper", "scale": 0.5208, "offset": 0.0909}],
        "tool": {"space": "delta", "rotation": "vector", **pose},
        "tool_state": {"urdf": "arm.urdf", "link": "tip", "rotation": "vector", **pose},
        "hold": list(real_families.ROBOT.joint_names[:5]),
    }))  # fmt: skip
    with policy.up(tmp_path / "policy.yaml", max_age=30.0) as robot:
        policy.tell(TEXT)
        tool, gripper = read_chunk(policy.chunk_of(robot.observe())).targets.parts
        assert (tool.space, tool.frame, rotation_form(tool.names)) == (Space.END_EFFECTOR_DELTA, "base", "vector")
        assert tool.data.shape == (8, 6) and gripper.data.shape == (8, 1) and gripper.names == ("gripper",)
        assert np.ptp(tool.data) > 1e-4 and np.abs(tool.data).max() < 20
        policy.tell("")


@pytest.mark.parametrize("layout", ["lerobot", "nvidia"])
def test_a_folder_of_groot_serves(policy, tmp_path, layout):
    """LeRobot's as it is; NVIDIA's through a policy file that leaves a joint out."""
    path = tmp_path / "checkpoint"
    if layout == "lerobot":
        groot_folders.make_lerobot(path)
        rows = groot_folders.statistics({"observation.state": 6, "action": 6})["action"]
    else:
        groot_folders.make_nvidia(path, "n1.7")
        rows = [*groot_folders.statistics({"single_arm": 4, "gripper": 1}, 1).values()]
        rows = {key: rows[0][key] + rows[1][key] for key in ("min", "max")}
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump(groot_folders.POLICY_FILE | {"checkpoint": "checkpoint"}))
    with policy.up(path, max_age=30.0) as robot:
        policy.tell(TEXT)
        for _ in range(2):  # the second has the state before, which this N1.7 reads
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            [part] = chunk.targets.parts
            assert part.data.shape == ((6, 6) if layout == "lerobot" else (5, 5))
            assert ("wrist_roll" in part.names) == (layout == "lerobot")
            assert chunk.step_dt == pytest.approx(1 / 30 if layout == "lerobot" else 0.1)
            # Clipped to the bounds of the statistics, which are in rad.
            low, high = (np.array(rows[name]) for name in ("min", "max"))
            assert (part.data >= low - 1e-6).all() and (part.data <= high + 1e-6).all()
        policy.tell("")


def path_checkpoint(folder, row):
    """A random policy of the cart whose head answers (H, 4) `row`: a path (x, y, yaw), then the joint."""
    values = TrainConfig.load("config/train/multi_sensor_tiny.yaml", dataset="d", output="o").policy
    config = {name: values[name] for name in ("vision", "projector", "language", "text_length")}
    config["vision"] |= {"image": 24, "width": 32}
    config["language"] |= {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    config |= {"head": {"kind": "mlp", "hidden": 16, "layers": 1}, "horizon": len(row)}
    rows = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 3))
    statistics = {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}
    statistics |= {"q01": statistics["min"], "q99": statistics["max"]}
    loaded = build("modular", config, TrainingData(
        tuple(NAMES), ("front",), 0.1, {"observation.state": statistics, "action": statistics}, ("go",),
        rows=Rows(tuple(NAMES), rows, rows, (40,), 0.1), path={"x": "x.vel", "yaw": "theta.vel"},
    ))  # fmt: skip
    answer = torch.from_numpy(loaded.processor.actions.normalise(row)).float()
    with torch.no_grad():
        loaded.policy.head.out.weight.normal_(std=1e-4)
        loaded.policy.head.out.bias.copy_(answer.flatten())
    save(folder, loaded)


def test_a_path_that_a_policy_answers_drives_the_base(policy, tmp_path):
    """policy_node, executor_node and the wheels, in real time."""
    row = np.hstack([driven(np.tile([0.3, 0.0, 0.6], (16, 1)), 0.1), np.zeros((16, 1))])
    path_checkpoint(tmp_path / "path", row)
    graph, probe = policy.graph, policy.probe
    robot = ROBOT.replace("cameras: []", "cameras: [{name: front, topic: front, width: 32, height: 24}]")
    robot = robot.replace("control_rate: 50.0", "control_rate: 20.0")
    cart = Cart(graph, probe, robot, jump_limit=30.0, max_chunk_age=30.0)
    policy.set(robot=str(cart.file), policy=str(tmp_path / "path"), max_age=30.0)
    graph.bring_up("policy_node")
    front = probe.publisher("front", Image, sensor_qos(True))
    timers = [graph.node.create_timer(0.05, cart.step),
              graph.node.create_timer(0.5, lambda: front.publish(image_message(90, cart.now_ns, 32, 24)))]  # fmt: skip
    cart.wait(lambda status: np.isfinite(status.measured).all(), "odometry and joint states")
    graph.activate("executor_node")
    policy.tell("go")
    probe.wait_for(lambda: (cart.speed > [0.2, 0.2]).all() and cart.pose[0] > 0.1, "a base that drives along the path")
    (arm, path) = read_chunk(probe.last("action_chunk")).targets.parts
    assert (arm.names, path.names, path.space) == (("turn",), PATH, Space.BASE_PATH)
    np.testing.assert_allclose(path.data, row[:, :3], atol=2e-3)
    policy.tell("")
    cart.stands()
    stamps, speeds = cart.said()
    changes = np.abs(np.diff(speeds, axis=0)) - LIMITS[:, 1] * np.diff(stamps)[:, None]
    assert (np.abs(speeds) <= LIMITS[:, 0]).all() and changes.max() <= 1e-6 and cart.pose[2] > 0.05
    for timer in timers:
        timer.cancel()
    graph.kill("executor_node")
    graph.deactivate("policy_node")
    graph.cleanup("policy_node")
    policy.set(robot=str(ROBOT_FILE))
