"""Conventions of robots as data: signs, units, grippers, differences."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.dimension import Dimension, Linkage, dimensions_statistics
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.processor import Interface
from vla_ros.policies.registry import LoadOptions, resolve
from vla_ros.runtime.serving import check_robot

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config" / "policies").glob("*.yaml"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home directory with the folders that the shipped files name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in FILES:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = data | data.get("overrides", {})
        for name in {"checkpoint", "tokenizer", "action_tokenizer"} & named.keys():
            Path(named[name]).expanduser().mkdir(parents=True, exist_ok=True)


def load(name):
    return resolve(ROOT / "config" / "policies" / f"{name}.yaml", LoadOptions())[1].embodiment


def motion(embodiment, seed=0, horizon=6):
    """Joint targets within the fingers' range, and an observed state."""
    rng = np.random.default_rng(seed)
    actions, state = rng.uniform(0.02, 0.05, (2, horizon, len(embodiment.joints))), rng.uniform(
        0.02, 0.05, (2, len(embodiment.joints))
    )
    return actions, state


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_policy_file_is_read_and_invertible(path):
    folder, options = resolve(path, LoadOptions())
    assert folder.is_absolute()
    given = "tokenizer" in yaml.safe_load(path.read_text(encoding="utf-8"))
    assert options.tokenizer.is_absolute() if given else not options.tokenizer
    embodiment = options.embodiment
    assert Embodiment.from_dict(yaml.safe_load(yaml.safe_dump(embodiment.to_dict()))) == embodiment
    actions, state = motion(embodiment)
    moved = [embodiment.joints.index(name) for name in embodiment.commanded]
    if embodiment.tool:
        with pytest.raises(InputError, match="joint targets cannot be converted to end-effector actions"):
            embodiment.actions_to_policy(actions, state)
        rows = np.random.default_rng(1).normal(size=(2, 6, len(embodiment.tool.columns)))
        there = embodiment.actions_to_policy(np.concatenate([actions, rows], axis=-1), state)
        np.testing.assert_allclose(embodiment.tool.part(there[1], embodiment.actions).data, rows[1], atol=1e-9)
        back = embodiment.actions_to_robot(there, state)[..., moved]
        np.testing.assert_allclose(back, actions[..., moved], atol=1e-9)
        return
    there = embodiment.actions_to_policy(actions, state)
    assert there.shape == (2, 6, len(embodiment.actions))
    assert embodiment.actions_to_robot(there, state)[..., moved] == pytest.approx(actions[..., moved], abs=1e-9)


@pytest.mark.parametrize(("name", "opened"), [("libero_lerobot", -1.0), ("openvla_oft_libero", 1.0)])
def test_libero_s_actions_become_what_its_environment_makes_of_them(name, opened):
    robot, embodiment = RobotSpec.load("libero"), load(name).in_order(RobotSpec.load("libero").joint_names)
    assert embodiment.joints == robot.joint_names and len(embodiment.state) == 8
    action = np.array([[0.5, -1.0, 0.25, 1.0, -0.5, 0.1, opened]])
    told = embodiment.actions_to_robot(action, np.zeros(14))[0]
    assert told[8:] / (20 * np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])) == pytest.approx(action[0, :6], abs=1e-15)
    assert told[6] == pytest.approx(0.04)  # m


def test_so101_speaks_degrees_and_percent():
    embodiment = load("so101_lerobot")
    robot = RobotSpec.load(ROOT / "config" / "robots" / "so101.yaml")
    assert embodiment.joints == robot.joint_names
    assert set(embodiment.cameras.values()) == set(robot.camera_names)
    gripper = robot.joints[-1]
    closed, opened = (np.array([np.pi / 2, 0, 0, 0, 0, value]) for value in (gripper.lower, gripper.upper))
    assert embodiment.state_to_policy(closed) == pytest.approx([90, 0, 0, 0, 0, 0], abs=1e-3)
    assert embodiment.state_to_policy(opened) == pytest.approx([90, 0, 0, 0, 0, 100], abs=1e-3)


def test_lekiwi_s_base_turns_in_degrees_a_second():
    embodiment = load("lekiwi_lerobot")
    assert embodiment.joints == RobotSpec.load("lekiwi").joint_names
    driving = embodiment.state_to_policy(np.array([0.0] * 5 + [-0.17453, 0.1, -0.2, np.pi / 2]))
    assert driving == pytest.approx([0.0] * 6 + [0.1, -0.2, 90.0], abs=1e-3)


def test_aloha_follows_openpi():
    """The numbers of openpi's aloha policy, written out: flips, the crank's angle, differences but for grippers."""
    embodiment = load("pi0_aloha")
    state = np.linspace(-0.6, 0.7, 14)
    state[[6, 13]] = 0.03, 0.05
    flip = np.array([1, -1, -1, 1, 1, 1, 1] * 2)

    def crank(x):
        return np.arcsin((0.022**2 + x**2 - 0.036**2) / (2 * 0.022 * x))

    expected = state * flip
    expected[[6, 13]] = [(crank(x) - 0.5476) / (1.6296 - 0.5476) for x in (0.03, 0.05)]
    assert embodiment.state_to_policy(state) == pytest.approx(expected, abs=1e-4)
    targets = np.tile(state, (3, 1)) + 0.01 * np.arange(3)[:, None]
    moved = embodiment.actions_to_policy(targets, state)
    arms = [i for i in range(14) if i not in (6, 13)]
    assert moved[:, arms] == pytest.approx(((targets - state) * flip)[:, arms], abs=1e-12)
    assert moved[2, 6] == pytest.approx(crank(targets[2, 6]) - 0.5476)


def test_droid_adds_up_steps_of_a_fifth_of_a_radian():
    embodiment = load("pi0_droid")
    state = np.linspace(0, 0.7, 8)
    actions = np.zeros((3, 8))
    actions[:, 0] = [1.0, 1.0, -0.5]
    actions[:, 7] = 0.5
    targets = embodiment.actions_to_robot(actions, state)
    assert targets[:, 0] == pytest.approx(state[0] + np.array([0.2, 0.4, 0.3]))
    assert targets[:, 7] == pytest.approx(0.4)  # half closed, wherever it was
    assert embodiment.cameras["right_wrist_0_rgb"] is None


@pytest.mark.parametrize(("arm", "horn"), [(-1, 0.1), (0.036, 0), (0.02, 0.03)])
def test_a_linkage_that_cannot_be_built_is_refused(arm, horn):
    with pytest.raises(InputError, match="horn_radius"):
        Linkage(arm_length=arm, horn_radius=horn)


def test_a_linkage_is_invertible():
    linkage = Linkage(arm_length=0.036, horn_radius=0.022)
    positions = np.linspace(0.0185, 0.0575, 50)
    assert linkage.position(linkage.angle(positions)) == pytest.approx(positions, abs=1e-9)


def test_dimensions_the_robot_lacks_and_joints_that_are_held():
    embodiment = Embodiment(
        cameras={"a": "front"},
        state=(Dimension("pan"), Dimension(None)),
        actions=(Dimension("pan"), Dimension(None)),
        hold=("lift",),
    )
    assert embodiment.joints == ("pan", "lift")
    assert embodiment.state_to_policy(np.array([0.3, 0.4])).tolist() == [0.3, 0.0]
    targets = embodiment.actions_to_robot(np.full((2, 2), 0.9), np.array([0.3, 0.4]))
    assert targets.tolist() == [[0.9, 0.4]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": [{"joint": "pan", "scale": 0}]}, "scale 0"),
        ({"state": [{"joint": "pan", "mode": "relative"}]}, "relative"),
        ({"state": [{"joint": "pan", "unit": "deg"}]}, "unit"),
        ({"state": ["pan", "pan"]}, "duplicated"),
        ({"actions": ["lift"]}, "neither in actions nor in hold"),
        ({"step_dt": 0}, "step_dt"),
        ({"camera": {}}, "camera"),
        ({"cameras": ["front"]}, "cameras"),
        ({"state": [{"joint": "pan", "scale": "much"}]}, "much"),
    ],
)
def test_a_bad_policy_file_is_named(change, message, tmp_path):
    data = {"checkpoint": "c", "cameras": {"a": "front"}, "state": ["pan"], "step_dt": 0.1} | change
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(data))
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match=message) as error:
        resolve(path, LoadOptions())
    assert "policy.yaml" in str(error.value)


def test_a_policy_file_without_checkpoint_is_named(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("cameras: {a: front}")
    with pytest.raises(InputError, match="checkpoint"):
        resolve(path, LoadOptions())


def test_statistics_are_told_in_the_policys_units():
    dimensions = (Dimension("lift", scale=-2.0, offset=1.0), Dimension("pan"), Dimension(None))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(200, 2))
    policy = np.stack([data[:, 1] * -2 + 1, data[:, 0]], axis=1)

    def rows(x):
        low, high = np.quantile(x, (0.01, 0.99), axis=0)
        return {"mean": x.mean(0), "std": x.std(0), "min": x.min(0), "max": x.max(0), "q01": low, "q99": high}

    told = dimensions_statistics(dimensions, rows(data), ("pan", "lift"))
    for name, values in rows(policy).items():
        assert told[name][:2] == pytest.approx(values), name
    assert np.isfinite(told["std"]).all() and told["std"][2] == 1
    for wrong in (Dimension("pan", mode="delta"), Dimension("pan", linkage=Linkage(0.036, 0.022))):
        with pytest.raises(InputError, match="keep"):
            dimensions_statistics((wrong,), rows(data), ("pan", "lift"))
    with pytest.raises(InputError, match="2 joints, expected 3"):
        dimensions_statistics(dimensions, rows(data), ("pan", "lift", "roll"))


class _Processor(Interface):
    joints = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    cameras = ("front",)
    streams = ()


def test_check_robot_names_what_does_not_fit():
    robot = RobotSpec.load(ROOT / "config" / "robots" / "so101.yaml")
    processor = _Processor()
    check_robot(processor, robot)
    processor.cameras = ("side",)
    with pytest.raises(InputError, match=r"'side'.*front"):
        check_robot(processor, robot)
    processor.cameras, processor.joints = (), processor.joints[::-1]
    with pytest.raises(InputError, match="works in the order"):
        check_robot(processor, robot)
