"""What a LeRobot folder means on a robot: differences and units, of every real family."""

import json
from dataclasses import replace

import numpy as np
import pytest
import real_families
import torch
import yaml
from real_families import FAMILIES, ROBOT
from safetensors.numpy import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.policies import load, save
from vla_ros.policies.embodiment import Dimension, Embodiment

JOINTS = ROBOT.joint_names
CAMERAS = {name: name for name in ROBOT.camera_names}
RELATIVE = {"enabled": True, "exclude_joints": ["gripper"], "action_names": [f"{name}.pos" for name in JOINTS]}
MODES = ["delta"] * 5 + ["absolute"]


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    return real_families.make(tmp_path / "theirs", request.param)


def add_step(folder, which, name, config):
    file = folder / f"policy_{which}.json"
    data = json.loads(file.read_text())
    data["steps"].append({"registry_name": name, "config": config})
    file.write_text(json.dumps(data))


def make_relative(folder, name="relative_actions_processor", config=RELATIVE):
    add_step(folder, "preprocessor", name, config)
    add_step(folder, "postprocessor", "absolute_actions_processor", {"enabled": True})
    return folder


def embodiment(modes, state=None):
    state = state or [Dimension(name) for name in JOINTS]
    actions = [Dimension(name, mode=mode) for name, mode in zip(JOINTS, modes, strict=True)]
    return Embodiment(CAMERAS, tuple(state), tuple(actions), 0.1)


@pytest.mark.parametrize("name", ["relative_actions_processor", "delta_actions_processor"])
def test_actions_are_differences_where_the_folder_says_so(folder, name):
    loaded = load(make_relative(folder, name), robot=ROBOT)
    assert [d.mode for d in loaded.processor.embodiment.actions] == MODES
    load(folder, robot=ROBOT, embodiment=embodiment(MODES))
    processor, one = loaded.processor, real_families.sample(loaded)
    state = one.state[-1]
    values = processor.actions.normalise(np.full((1, processor.horizon, 6), 0.25))
    answer = torch.zeros(1, processor.horizon, processor.config.action_dim)
    answer[..., :6] = torch.from_numpy(values)
    [targets] = processor.outputs(answer, [one])
    expected = np.append(state[:5] + 0.25, 0.25)  # LeRobot adds the state to all but the gripper
    np.testing.assert_allclose(targets.parts[0].data, np.tile(expected, (processor.horizon, 1)), atol=1e-6)
    back, survives = processor.normalise([targets], [one])
    assert survives.all()
    torch.testing.assert_close(back[..., :6], answer[..., :6], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("modes", "message"), [
    (["delta"] * 6, r"action 5 \(gripper\) is delta, but its preprocessor makes it absolute"),
    (["absolute"] * 6, r"action 0 \(shoulder_pan\) is absolute, but its preprocessor makes it delta"),
])  # fmt: skip
def test_a_policy_file_that_says_otherwise_is_refused(folder, modes, message):
    with pytest.raises(InputError, match=message):
        load(make_relative(folder), robot=ROBOT, embodiment=embodiment(modes))


def test_own_checkpoints_refuse_it_too(folder, tmp_path):
    save(tmp_path / "ours", load(make_relative(folder), robot=ROBOT))
    with pytest.raises(InputError, match=r"action 5 \(gripper\) is delta, .* absolute"):
        load(tmp_path / "ours", robot=ROBOT, embodiment=embodiment(["delta"] * 6))
    load(tmp_path / "ours", robot=ROBOT, embodiment=embodiment(MODES))


def test_a_difference_is_to_the_state_of_the_same_number(folder):
    state = [Dimension(name) for name in JOINTS]
    state[1] = replace(state[1], offset=0.5)
    with pytest.raises(InputError, match=r"action 1 \(shoulder_lift\) is a difference to number 1 of the state, .*0.5"):
        load(make_relative(folder), robot=ROBOT, embodiment=embodiment(MODES, state))


@pytest.mark.parametrize("which", ["preprocessor", "postprocessor"])
def test_both_directions_are_checked(folder, which):
    name = {"preprocessor": "relative_actions_processor", "postprocessor": "absolute_actions_processor"}[which]
    add_step(folder, which, name, RELATIVE if which == "preprocessor" else {"enabled": True})
    with pytest.raises(InputError, match="actions as differences to the state, .* both enabled or neither"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize(("change", "modes"), [
    ({"enabled": False}, ["absolute"] * 6), ({"exclude_joints": []}, ["delta"] * 6),
    ({"action_names": None}, ["delta"] * 6), ({"exclude_joints": ["wrist", ""]}, ["delta"] * 3 + ["absolute"] * 2 + ["delta"]),
])  # fmt: skip
def test_which_joints_are_differences(tmp_path, change, modes):
    folder = real_families.make(tmp_path / "act", "act")
    add_step(folder, "preprocessor", "relative_actions_processor", RELATIVE | change)
    add_step(folder, "postprocessor", "absolute_actions_processor", {"enabled": change.get("enabled", True)})
    assert [d.mode for d in load(folder, robot=ROBOT).processor.embodiment.actions] == modes

