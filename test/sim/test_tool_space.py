"""Demonstrations in the space of the tool: those of joints by forward kinematics, and the executor does the tasks."""

import numpy as np
import pytest
from control.tool_robots import SO101, so101
from sim.test_demonstrations import BlindWorld

from vla_ros.cli.demonstrate import ToolPoses
from vla_ros.cli.eval import episodes
from vla_ros.cli.main import main
from vla_ros.control.executor import Executor
from vla_ros.control.settings import Settings
from vla_ros.core.chunk import ActionChunk, Part, Space, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.datasets.lerobot import Dataset
from vla_ros.messages.stamps import NS
from vla_ros.sim import demonstrations
from vla_ros.sim.expert import Expert
from vla_ros.sim.tasks import SuccessTracker, parse_instruction
from vla_ros.sim.world import World

PERIOD_NS, ROWS, EVERY = NS // 100, 16, 10  # a chunk of 16 rows every 10 control periods, both 0.1 s apart
TEXT = "go"


def test_they_are_the_joint_demonstrations_by_forward_kinematics(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demonstrations, "World", BlindWorld)
    monkeypatch.setattr(demonstrations, "_world", None)
    common = ["--episodes", "2", "--tasks", "pick", "--image-size", "16"]
    for space in ("joint", "tool"):
        assert main(["demos", str(tmp_path / space), "--space", space, *common]) == 0
    joint, tool = Dataset(tmp_path / "joint"), Dataset(tmp_path / "tool")
    np.testing.assert_array_equal(tool.states, joint.states)
    assert tool.tasks == joint.tasks and np.ptp(tool.poses[:, 0]) > 0.01
    for targets, row in zip(joint.actions.astype(np.float64), tool.actions, strict=True):
        place, rotation = so101()[1].pose(targets)
        np.testing.assert_allclose(row, [*place, *rotation[:, 0], *rotation[:, 1], targets[5]], atol=1e-6)
    assert main(["demos", str(tmp_path / "bags"), "--bags", "--space", "tool"]) == 2
    assert "--space with --bags, expected only one of them" in capsys.readouterr().err


def recorded(world: World, episode) -> np.ndarray:
    """(T, 6) the expert's joint targets, rad, until a while after its success."""
    world.reset(episode.seed)
    task = parse_instruction(episode.judged)
    expert, tracker, commands, after = Expert(world, task), SuccessTracker(task, world), [], 0
    while after < 50:
        commands.append(expert.command())
        world.step(commands[-1])
        tracker.update()
        after += tracker.succeeded
        assert len(commands) < 1000, episode
    return np.array(commands)


@pytest.mark.parametrize("kind", ["touch", "pick"])
def test_the_executor_does_the_tasks_by_them(kind):
    world, tool, (limits, arm) = World(), ToolPoses(SO101), so101()
    width = len(tool.columns.pose)
    for episode in episodes(kind, 2, 7):
        commands = recorded(world, episode)
        world.reset(episode.seed)
        tracker = SuccessTracker(parse_instruction(episode.judged), world)
        executor = Executor(limits, 100.0, Settings(mode="ensemble", ensemble_m=-1.0), True, arm)
        executor.set_instruction(TEXT)
        now = 1000 * NS
        for k in range(len(commands) + 50):
            executor.joint_state(now, list(SO101.joint_names), list(world.joint_positions()), now_ns=now)
            if k == 0:
                executor.activate(now)
            if k % EVERY == 0:
                rows = tool.actions(commands[np.minimum(k + EVERY * np.arange(ROWS), len(commands) - 1)])
                parts = (Part(tool.columns.pose, rows[:, :width], Space.END_EFFECTOR_POSE, "", tool.columns.frame),
                         Part(tool.columns.joints, rows[:, width:]))
                chunk = ActionChunk(now, 0.1, Targets(parts), instruction_id(TEXT), k + 1, 1)
                answer = executor.add_chunk(chunk, now)
                assert isinstance(answer, ActionChunk), answer
            command = executor.tick(now, now)
            expected = commands[min(k, len(commands) - 1)]
            away = np.linalg.norm(arm.pose(command.position)[0] - arm.pose(expected)[0])
            assert away < 0.006, (episode, k, away)  # m
            world.step(command.position)
            tracker.update()
            now += PERIOD_NS
        assert tracker.succeeded, episode
