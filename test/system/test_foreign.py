"""Policies of another package that decode tokens, remember, and plan: found by entry points, served to an executor."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import families
import numpy as np
import outside
import pytest
from system.robot import ROBOT_FILE
from system.support import Lasting, free_domain
from system.test_policy_node import STATUS, Policy
from training_data import write_dataset

from vla_ros.graph.processes import Graph, GraphError
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.stamps import NS, stamp_ns
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import STATUS_QOS
from vla_ros.policies import registry
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer

SOURCE = Path(__file__).parents[1] / "foreign"
STEP = NS // 10
EXECUTOR = "executor_node/status"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with outside.installed(SOURCE, tmp_path_factory.mktemp("foreign")) as environment:
        assert set(families.FOREIGN) <= set(registry.families())
        yield environment


@pytest.fixture(scope="module")
def checkpoints(environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    settings = {
        "dataset": str(write_dataset(folder / "data", episodes=3)), "steps": 10, "batch_size": 8, "save_every": 10,
        "held_out": 0.0, "log_every": 10, "ema_decay": 0.0,
    }  # fmt: skip
    for family in families.FOREIGN:
        policy = {"language": True} if family == "tokens" else {}
        changes = {"output": str(folder / family), "family": family, "policy": policy}
        Trainer(TrainConfig.from_dict(settings | changes)).run()
    return {family: folder / family / "checkpoints" / "last" for family in families.FOREIGN}


class Pair(Policy):
    """A policy node and an executor that takes what a robot which never moves is told."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.probe.record(EXECUTOR, ExecutorStatus, STATUS_QOS)
        patient = {"following_limit": 0.0, "joint_state_timeout": 10.0, "max_chunk_age": 60.0, "jump_limit": 60.0,
                   "overrun_limit": 10.0, "resume": "automatic"}  # fmt: skip
        parameters = {"robot": str(ROBOT_FILE), "reliable_sensors": True, **patient}
        graph.start("executor_node", parameters=parameters)
        graph.configure("executor_node")

    @property
    def accepted(self) -> int:
        status = self.probe.last(EXECUTOR)
        return status.accepted_chunks if status else 0

    def drive(self, robot) -> int:
        """Observations, until the executor has taken a chunk; its count."""
        before, last = self.accepted, 0.0

        def taken() -> bool:
            nonlocal last
            if time.monotonic() - last > 0.2:  # s, so that the nodes have time for it; how often matters to nothing
                last = time.monotonic()
                robot.observe()
            return self.accepted > before

        self.probe.wait_for(taken, "a chunk that the executor takes")
        return self.accepted


@pytest.fixture
def pair(lasting: Lasting, environment, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    @contextmanager
    def make() -> Iterator[Pair]:
        with Graph(tmp_path_factory.mktemp("graph"), domain=free_domain(), environment=environment) as graph:
            yield Pair(graph)

    return lasting.get(make)


@pytest.mark.parametrize("family", families.FOREIGN)
def test_the_executor_follows_it(pair: Pair, checkpoints: dict[str, Path], family: str):
    with pair.up(checkpoints[family], max_age=30.0) as robot:
        before = len(pair.probe.messages(EXECUTOR))
        stamp = robot.observe()
        pair.graph.activate_when_ready("executor_node")
        pair.tell("go to 1")
        chunk = read_chunk(pair.chunk_of(stamp))  # one observation is enough, whatever must be recorded first
        (part,) = chunk.targets.parts
        assert part.names == robot.spec.joint_names and 1 <= chunk.targets.horizon <= 6
        assert (chunk.targets.horizon == 6 or family == "tokens") and chunk.step_dt == pytest.approx(0.1)
        pair.drive(robot)
        pair.tell("go to 2 by another way")
        moving = (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING)

        def moves() -> bool:  # not in the first 0.3 s of commands
            pair.drive(robot)
            return any(status.state in moving for status in pair.probe.messages(EXECUTOR)[before:])

        pair.probe.wait_for(moves, "the executor to follow")
        pair.tell("")
    pair.graph.deactivate("executor_node")


def test_one_that_remembers_is_asked_once_every_step_and_begins_anew_with_a_new_instruction(pair, checkpoints):
    """The robot shows the same all the time: what differs is what is remembered."""
    with pair.up(checkpoints["recurrent"], max_age=30.0) as robot:
        base = robot.now() - 5 * NS
        known = len(pair.probe.messages("action_chunk"))

        def answer(step: int) -> np.ndarray:
            stamp = robot.observe(base + step * STEP)
            return read_chunk(pair.chunk_of(stamp)).targets.parts[0].data

        pair.tell("go to 1")
        first = answer(0)
        for part in (STEP // 3, 2 * STEP // 3):
            told = len(pair.probe.messages(STATUS))
            robot.observe(base + part)
            pair.probe.wait_for(lambda told=told: len(pair.probe.messages(STATUS)) > told + 1, "the node's word")
        assert not np.array_equal(answer(1), first) and not np.array_equal(answer(2), first)
        stamps = [stamp_ns(message) - base for message in pair.probe.messages("action_chunk")[known:]]
        assert stamps == [0, STEP, 2 * STEP]
        pair.tell("go to 2")
        np.testing.assert_array_equal(answer(3), first)
        pair.tell("")


@pytest.mark.parametrize("family", families.FOREIGN)
def test_real_time_chunking_is_refused_in_one_line(pair, checkpoints, family):
    pair.set(policy=str(checkpoints[family]), rtc=True)
    with pytest.raises(GraphError) as error:
        pair.graph.configure("policy_node")
    assert "guidance 'prior'" in str(error.value).splitlines()[-1] and "takes none" in str(error.value)
    pair.set(rtc=False)
