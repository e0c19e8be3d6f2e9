"""The workbench as the simulator's node has it: what is judged, what an expert is told, and the arm."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from diagnostic_msgs.msg import DiagnosticStatus

from vla_ros.nodes.sim.streams import CubePublisher, read_cubes
from vla_ros.nodes.sim.task import TaskWatch
from vla_ros.sim.bench import COLOURS
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.description import urdf
from vla_ros.sim.world import World


class Node:
    """Keeps what is published, by topic."""

    def __init__(self) -> None:
        self.said: dict[str, list] = {}

    def create_publisher(self, kind, topic, qos):
        return SimpleNamespace(publish=self.said.setdefault(topic, []).append)


@pytest.fixture(scope="module")
def world() -> Bench:
    return Bench(5)


def test_a_sentence_is_judged_by_what_is_there(world):
    node = Node()
    watch = TaskWatch(node)
    absent = next(colour for colour in COLOURS if colour not in world.layout.colours)
    watch.follow(f"put the {absent} cube in the bowl", world)
    watch.publish(world, 1)
    status = node.said["~/task"][-1].status[0]
    assert status.level == DiagnosticStatus.WARN and f"no {absent} cube in this layout" in status.message
    watch.follow("Open the drawer, then press the button.", world)
    for name, value in (("drawer", 0.055), ("button_cap", 0.005)):
        world.data.qpos[world._slide[name]] = value
        for _ in range(60):
            watch.update()
            world.step(world.data.ctrl)
        if name == "drawer":
            assert not watch.succeeded
    watch.publish(world, 2)
    values = {item.key: item.value for item in node.said["~/task"][-1].status[0].values}
    assert watch.succeeded and values["kind"] == "open+press" and values["success"] == "true"


def test_an_expert_is_told_where_everything_is(world):
    node, other = Node(), Bench(6)
    CubePublisher(node).publish(world, 1)
    other.place(world.joint_positions(), read_cubes(node.said["~/cubes"][-1]))
    for name, pose in world.poses().items():
        np.testing.assert_allclose(other.poses()[name], pose, atol=1e-9, err_msg=name)


def test_the_arm_is_the_same_as_before_three_cubes(world):
    assert urdf(world.model, "so101") == urdf(World().model, "so101")
