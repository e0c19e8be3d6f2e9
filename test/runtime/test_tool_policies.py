"""Policies whose actions are a tool's: served, and refused for what needs joint positions."""

from dataclasses import replace
from pathlib import Path

import families
import numpy as np
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


def test_real_time_chunking_guides_poses(policy):
    """The tail in the policy's space is the chunk that was answered, from the new observation on."""
    session = open_session(policy, ROBOT, "cpu", options=SessionOptions(guided=True))
    processor = session.processor
    step = round(processor.step_dt * 1e9)
    (answer,) = session.infer([families.sample(processor, stamp_ns=10 * step)])
    (part,) = answer.targets.parts
    assert part.space == Space.END_EFFECTOR_POSE
    session.delivered(processor.step_dt)
    new = families.sample(processor, stamp_ns=12 * step)
    actions, frozen, overlap = session._running[0].tail(new)
    assert (frozen, overlap) == (1, processor.horizon - 2)
    (again,) = processor.outputs(actions[None], [new])
    np.testing.assert_allclose(again.parts[0].data[:overlap], part.data[2:], atol=1e-4)
    (guided,) = session.infer([new])
    (free,) = open_session(policy, ROBOT, "cpu").infer([new])
    error = [np.abs(one.targets.parts[0].data[:frozen] - part.data[2 : 2 + frozen]).max() for one in (guided, free)]
    assert error[0] < error[1]


def test_real_time_chunking_of_differences_is_refused_before_the_robot_moves(policy, tmp_path):
    other = tmp_path / "policy.yaml"
    said = yaml.safe_load(policy.read_text())
    said |= {"checkpoint": str(policy.parent / "pi0"), "tool": said["tool"] | {"space": "delta"}}
    other.write_text(yaml.safe_dump(said))
    with pytest.raises(InputError, match="rtc: true, and the policy's actions are differences of a tool's pose: .*; "
                                         "expected rtc: false, and mode latest or ensemble"):
        open_session(other, ROBOT, "cpu", options=SessionOptions(guided=True))
    session = open_session(other, ROBOT, "cpu", options=SessionOptions())
    (answer,) = session.infer([families.sample(session.processor)])
    assert [part.space for part in answer.targets.parts] == [Space.END_EFFECTOR_DELTA]


def test_replay_asks_for_the_urdf_that_says_where_the_tool_was(policy, tmp_path, capsys):
    """Before a bag is read."""
    from bags.factory import messages, write_bag

    bag = write_bag(tmp_path / "bag", messages(1.0))
    assert main(["replay", str(bag), "--robot", "so101", "--policy", str(policy)]) == 2
    said = capsys.readouterr().err.strip()
    assert "policy.yaml: its actions are a tool's, expected --urdf FILE: it gives the tool's pose" in said
    assert "\n" not in said


def test_joint_actions_are_refused_for_an_arm_that_takes_poses_of_its_tool(tmp_path):
    registry.save(tmp_path / "pi0", families.fresh("pi0"))
    robot = replace(ROBOT, groups=(CommandGroup("all", "target", "pose_stamped", ROBOT.joint_names),))
    said = "^the policy's actions are joint positions, robot so101 commands all by pose_stamped; expected actions"
    with pytest.raises(InputError, match=said):
        open_session(tmp_path / "pi0", robot, "cpu")
