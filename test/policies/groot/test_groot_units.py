"""What GR00T's groups mean on a robot: relative joints, differences, rotations, units and clocks."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from groot_folders import POLICY_FILE, make_nvidia
from real_families import ROBOT

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import describe, load, save

JOINTS = POLICY_FILE["state"]
KIND = {"type": "NON_EEF", "format": "DEFAULT", "state_key": None}


def policy_file(path, folder, **changes):
    data = POLICY_FILE | {"checkpoint": str(folder)} | changes
    path.write_text(yaml.safe_dump({name: value for name, value in data.items() if value is not None}))
    return path


def edited(file, change):
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def make_relative(path, rep="RELATIVE", gripper=None):
    """N1.7 with statistics of each row; `gripper`: bounds of the gripper's actions."""
    folder = make_nvidia(path, "n1.7", use_relative_action=True)
    low = -np.linspace(0.1, 0.5, 5)[:, None].repeat(4, 1)
    relative = {"single_arm": {name: value.tolist() for name, value in (
        ("min", low), ("max", -low), ("mean", 0 * low), ("std", -low))}}

    def change(rows):
        rows["new_embodiment"]["relative_action"] = relative
        if gripper:
            rows["new_embodiment"]["action"]["gripper"].update(min=[gripper[0]], max=[gripper[1]])

    edited(folder / "statistics.json", change)
    configs = [{"rep": rep, **KIND}, {"rep": "ABSOLUTE", **KIND}]
    edited(folder / "processor_config.json", lambda data: data["processor_kwargs"]["modality_configs"][
        "new_embodiment"]["action"].update(action_configs=configs))
    return folder


def sample(loaded, state=0.7):
    images = {name: np.zeros((1, 48, 64, 3), np.uint8) for name in ("front", "wrist")}
    return Sample(images, np.full((len(loaded.policy.config.state_steps), 6), state), "pick")


def refused(path, message, **options):
    with pytest.raises(InputError, match=message) as error:
        load(path, robot=ROBOT, **options)
    assert "\n" not in str(error.value)


def test_relative_joints_start_at_their_own_number_of_the_state(tmp_path):
    folder, path = make_relative(tmp_path / "n"), tmp_path / "policy.yaml"
    rows = [{"joint": name} for name in JOINTS]
    degrees = [{"joint": name, "unit": "degrees"} for name in JOINTS]
    said = "action 0 (shoulder_pan) of 'single_arm' is a difference to number 0 of the state, which the policy file " \
           "gives as {}, expected the same joint, scale and offset in both"
    for state, given in (
        ([{"joint": None}, *rows[1:]], "None, scale 1, offset 0"),
        ([*degrees[:1], *rows[1:]], "shoulder_pan, scale 57.2958, offset 0"),
        ([rows[1], rows[0], *rows[2:]], "shoulder_lift, scale 1, offset 0"),
    ):
        message = re.escape(said.format(given).replace(", expected", "; expected"))
        refused(policy_file(path, folder, state=state, actions=rows), message)
    refused(policy_file(path, folder, state=rows, actions=[{**rows[0], "mode": "rate"}, *rows[1:]]),
            r"action 0 \(shoulder_pan\) of 'single_arm' is rate, .* expected mode: absolute")
    assert "relative to single_arm" in describe(folder)["groups"]  # also without a robot
    # The gripper is absolute, and a number that no joint follows is relative to nothing.
    loose = [{"joint": None}, *rows[1:-1], {"joint": "gripper", "scale": 2.0}]
    held = {"hold": ["wrist_roll", "shoulder_pan"]}
    loaded = load(policy_file(path, folder, state=[{"joint": None}, *rows[1:]], actions=loose, **held), robot=ROBOT)
    [part] = loaded.processor.outputs(torch.zeros(1, 6, 5), [sample(loaded)])[0].parts
    np.testing.assert_allclose(part.data[:, :3], 0.7)
    save(tmp_path / "ours", loaded)
    refused(policy_file(path, tmp_path / "ours", state=degrees, actions=rows), "a difference to number 0")
