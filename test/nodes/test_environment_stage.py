"""A benchmark's environment as a robot on topics: what it measures, and what it is told to be at rest."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import BaseWriter, CommandWriter
from vla_ros.messages.joints import measured
from vla_ros.messages.stamps import NS
from vla_ros.nodes.sim.environment import check_robot, environment_stage
from vla_ros.nodes.sim.lockstep import LockstepLoop
from vla_ros.nodes.sim.loops import Loop
from vla_ros.nodes.streams import message_class
from vla_ros.sim.environments import BENCHMARKS, Environment

PLACE = np.arange(14) / 10


class Node:
    """Keeps what is subscribed to and published."""

    def __init__(self) -> None:
        self.takes, self.said = {}, {}
        self.get_logger = lambda: SimpleNamespace(warning=print, info=print)

    def create_subscription(self, kind, topic, take, qos):
        self.takes[topic] = take

    def create_publisher(self, kind, topic, qos):
        return SimpleNamespace(publish=lambda message: self.said.update({topic: message}))


class Waiting(Loop):
    """A world's thread that only does what it is asked."""

    def bodies(self):
        return [self.simulate]

    def simulate(self) -> None:
        while not self.stopping.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._asked or self.stopping.is_set(), timeout=1.0)
            self._answer()

    def publish_task(self) -> None:
        pass


def test_who_asks_a_world_that_has_ended_is_told_so():
    said, answers = [], []
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(fatal=said.append))
    loop = Waiting(SimpleNamespace(node=node, commands=SimpleNamespace(arrived=threading.Condition())))

    def broken() -> None:
        raise InputError("environment x: its process ended with -9")

    loop.start()
    asking = threading.Thread(
        target=lambda: answers.extend(loop.ask(what, 3600.0) for what in (lambda: None, broken, lambda: None)),
        daemon=True,
    )
    asking.start()
    asking.join(60.0)
    assert answers == [True, False, False] and loop.failure == "environment x: its process ended with -9"
    loop.stop()
    assert said == ["the simulation stopped: environment x: its process ended with -9"]


@pytest.mark.parametrize("time_limit, ended", [(9.0, "task failed"), (0.0, "")])
def test_a_run_ends_when_its_task_cannot_succeed_any_more(time_limit, ended):
    said, nothing = [], SimpleNamespace(publish=lambda *given: None, publishers=[])
    task = SimpleNamespace(failed=False, restart=lambda world: None, publish=lambda *given, **row: said.append(row))
    nothing.publisher = SimpleNamespace(get_subscription_count=lambda: 0)
    loop = LockstepLoop(SimpleNamespace(
        node=Node(), period=0.01, task=task, states=nothing, scans=nothing, cubes=nothing, cameras=[],
        world=SimpleNamespace(joint_positions=list, poses=dict), show=lambda *given: None, step=lambda: False,
        commands=SimpleNamespace(arrived=threading.Condition(), lacking=lambda now: []),
    ), image_rate=10.0, patience=1.0, chunks=False)  # fmt: skip
    loop.time_limit = time_limit
    loop.begin()
    loop._run_period()
    assert said[-1]["state"] == "running"
    task.failed = True
    for _ in range(20):
        loop._run_period()
        if ended:
            break
    assert (said[-1]["state"], said[-1]["ended_by"]) == ("paused" if ended else "running", ended)


@pytest.fixture
def world(monkeypatch):
    """LIBERO's, without its process."""
    made = Environment.__new__(Environment)
    told = []

    def ask(do, **request):
        told.append(request.get("action"))
        return {"state": PLACE.tolist(), "reward": 0.0, "success": False}, {}

    made.name, made.benchmark, made._ask, made.told = "libero/goal/0", BENCHMARKS["libero/goal/0"], ask, told
    roles = [channel.role for channel in made.benchmark.channels]
    made._measured, made._velocities = np.array([[role == one for role in roles] for one in ("measured", "velocity")])
    made._scale, made._offset = np.ones(14), np.zeros(14)
    return made


def test_velocities_are_odometry_and_rest_is_none(world):
    robot, node = RobotSpec.load("libero"), Node()
    stage = environment_stage(node, robot, world, 10)
    stage.reset(0)
    stage.states.publish(world, 5 * NS)
    found = {}
    for stream in (robot.stream(name) for name in robot.state_streams):
        names, values = measured(stream, node.said[stream.topic])
        found |= dict(zip(names, values, strict=True))
    assert [found[name] for name in robot.joint_names] == pytest.approx(PLACE.tolist())
    assert stage.targets.tolist() == [*PLACE[:8], *[0.0] * 6]
    stage.step()  # nothing is commanded yet
    assert world.told[-1] == pytest.approx([*PLACE[:8], *[0.0] * 6])
    speed = np.array([0.1, -0.2, 0.3, 1.0, -2.0, 3.0])
    for group in robot.groups:
        kind = message_class("geometry_msgs/msg/TwistStamped" if group.of_base else "sensor_msgs/msg/JointState")
        writer = BaseWriter(group, kind()) if group.of_base else CommandWriter(group, kind())
        held = PLACE[[robot.joint_names.index(name) for name in group.joints]]
        node.takes[group.topic](writer.fill(speed if group.of_base else held, 6 * NS))
    stage.step()
    assert world.told[-1] == pytest.approx([*PLACE[:8], *speed])


def test_a_robot_of_positions_does_not_fit(world):
    with pytest.raises(InputError, match=r"environment libero/goal/0 has .*'yaw.vel'\): take robot libero"):
        check_robot(RobotSpec.load("metaworld"), world)
