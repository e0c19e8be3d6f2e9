"""Policies whose actions are a tool's: served, and refused for what needs joint positions."""

from dataclasses import replace
from pathlib import Path

import families
import pytest
import yaml

from vla_ros.cli.main import main
from vla_ros.core.chunk import Space
from vla_ros.core.errors import InputError
from vla_ros.core.robot import CommandGroup, RobotSpec
from vla_ros.policies import registry
from vla_ros.runtime.serving import open_session
from vla_ros.runtime.session import SessionOptions

ROBOT = RobotSpec.load("so101")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """π0, which takes guidance, as a policy file makes its actions poses."""
    folder = tmp_path_factory.mktemp("tool")
    registry.save(folder / "pi0", families.fresh("pi0"))
    (folder / "policy.yaml").write_text(yaml.safe_dump({
        "checkpoint": "pi0", "cameras": {name: name for name in families.CAMERAS}, "state": list(ROBOT.joint_names),
        "actions": [{"joint": None}] * 6, "tool": {"space": "pose", "rotation": "vector", "frame": "base"},
        "hold": list(ROBOT.joint_names),
    }))  # fmt: skip
    return folder / "policy.yaml"


def test_real_time_chunking_is_refused_before_the_robot_moves(policy):
    said = "rtc: true, and the policy's actions are a tool's, .*; expected rtc: false, and mode latest or ensemble"
    with pytest.raises(InputError, match=said):
        open_session(policy, ROBOT, "cpu", options=SessionOptions(guided=True))
    session = open_session(policy, ROBOT, "cpu", options=SessionOptions())
    (answer,) = session.infer([families.sample(session.processor)])
    assert [part.space for part in answer.targets.parts] == [Space.END_EFFECTOR_POSE]


def test_replay_does_not_judge_it_by_recorded_joints(policy, tmp_path, capsys):
    """Before the bag is read: there is none."""
    assert main(["replay", str(tmp_path / "no_bag"), "--robot", "so101", "--policy", str(policy)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith("policy.yaml: its actions are a tool's, expected joints: they are compared with recorded ones")
    assert "\n" not in said


def test_joint_actions_are_refused_for_an_arm_that_takes_poses_of_its_tool(tmp_path):
    registry.save(tmp_path / "pi0", families.fresh("pi0"))
    robot = replace(ROBOT, groups=(CommandGroup("all", "target", "pose_stamped", ROBOT.joint_names),))
    said = "^the policy's actions are joint positions, robot so101 commands all by pose_stamped; expected actions"
    with pytest.raises(InputError, match=said):
        open_session(tmp_path / "pi0", robot, "cpu")
