"""Changed processors of LeRobot folders: what LeRobot computes with them, or one line that refuses them.

`data/lerobot_061/pipelines.json` holds the answers of LeRobot's own code (`lerobot_pipelines.py`).
"""

import json

import groot_folders
import lerobot_checkpoints
import lerobot_folders
import lerobot_pipelines
import numpy as np
import pytest
import torch
from lerobot_pipelines import IMAGES, PROBE
from real_families import ROBOT

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import describe
from vla_ros.policies.images import IMAGENET
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.registry import find_family

THEIRS = json.loads((lerobot_folders.FOLDER / "pipelines.json").read_text())
FAMILY = {"pi05_relative": "pi0"}
STATE = np.array(PROBE["state"])


def folder_of(name, path):
    if name == "act":
        return lerobot_checkpoints.make(path, name)
    return lerobot_folders.write_fast(path) if name == "pi0_fast" else lerobot_folders.write(path, name)


def in_joints(dimensions, values, joints):
    """(..., n) numbers of the policy as the robot's joints have them."""
    row = np.zeros((*values.shape[:-1], len(joints)))
    row[..., [joints.index(dimension.joint) for dimension in dimensions]] = values
    return row


def ours(name, folder):
    """The same answer as `lerobot_pipelines` takes from LeRobot, without weights. Raises InputError as `load` does."""
    family = find_family(FAMILY.get(name, name))
    sizes, parts = family.open(folder, "lerobot", LoadOptions(robot=ROBOT))
    if said := parts.no_statistics or "; ".join(parts.missing):
        raise InputError(said)
    embodiment = parts.embodiment
    processor = family.processor(sizes, embodiment, parts.state, parts.actions, parts.fit, parts.tokenizer)
    joints = processor.joints
    states = in_joints(embodiment.state, STATE, joints)[None]
    pixels = dict(zip(ROBOT.camera_names, PROBE["pixels"], strict=True))
    frames = {camera: np.zeros((1, 48, 64, 3), np.uint8) for camera in pixels}
    sample = Sample(frames, states, PROBE["task"])
    batch = processor.inputs([sample])
    chunk = torch.tensor([PROBE["answer"]])
    positions = StandardProcessor.outputs(processor, chunk, [sample])[0].parts[0].data
    columns = [embodiment.commanded.index(dimension.joint) for dimension in embodiment.actions]
    actions = in_joints(embodiment.actions, np.array([PROBE["actions"]]), joints)
    answer = {"state": processor.policy_states(states)[0, :6], "actions": positions[:, columns],
              "trained": processor.normalise_actions(actions, states)[0, :, :6], "images": []}  # fmt: skip
    for image in IMAGES:
        full = image if image in processor.image_names else image.removeprefix("observation.images.")
        rows = IMAGENET if name == "xvla" else parts.images[image]
        value = pixels[embodiment.cameras[full]]
        answer["images"].append([(value - m) / s for m, s in zip(rows["mean"], rows["std"], strict=True)])
    if "tokens" in batch:
        answer["tokens"] = (batch["tokens"][batch["token_mask"]] if "token_mask" in batch else batch["tokens"]).ravel()
    if "domain" in batch:
        answer["domain"] = int(batch["domain"])
    return answer


def differs(answer, theirs):
    """Names of what is not the same in both."""
    assert answer.keys() == theirs.keys()
    return [key for key, value in theirs.items()
            if np.shape(answer[key]) != np.shape(value) or not np.allclose(answer[key], value, atol=2e-5)]


@pytest.mark.parametrize("name", THEIRS)
def test_a_changed_processor_gives_what_lerobot_makes_of_it_or_is_refused(tmp_path, name):
    folder = folder_of(name, tmp_path / "theirs")
    files, theirs, taken = lerobot_pipelines.files_of(folder), THEIRS[name], 0
    plain = theirs["as it is"]
    for change, changed in lerobot_pipelines.changes(files):
        lerobot_pipelines.write(folder, changed)
        said = theirs[change]  # what fails in LeRobot may be taken here, if it changes nothing
        expected = plain | ({} if said == "fails" else said)
        try:
            answer = ours(name, folder)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500, change
            assert change != "as it is", error
            continue
        taken += 1
        assert not differs(answer, expected), (change, differs(answer, expected))
    assert taken > len(theirs) / 5


def steps_of(folder, which):
    file = folder / lerobot_pipelines.NAMES[which]
    return file, json.loads(file.read_text())["steps"]


@pytest.mark.parametrize(("which", "name", "change", "said"), [
    (0, "pack_inputs", None, r"policy_preprocessor.json: steps \['groot_n1_7_vlm_encode_v1'\], expected"),
    (0, "vlm_encode", None, r"policy_preprocessor.json: steps \['groot_n1_7_pack_inputs_v1'\], expected"),
    (1, "unpack", None, r"policy_postprocessor.json: steps \[\], expected"),
    (0, "pack_inputs", "last", "groot_n1_7_pack_inputs_v1: it is after groot_n1_7_vlm_encode_v1, expected before"),
    (0, "pack_inputs", {"language_key": "annotation"}, "language_key 'annotation', expected 'task'"),
    (0, "pack_inputs", {"new_setting": 1}, "unknown fields"),
    (1, "unpack", {"normalize_min_max": False}, "normalize_min_max: False, expected True as in groot_n1_7_pack"),
    (1, "unpack", {"env_action_dim": 5}, "env_action_dim: 5, expected 6"),
    (1, "unpack", "stateless", "action.min is not that of groot_n1_7_pack_inputs_v1"),
])  # fmt: skip
def test_steps_of_groot_count_by_what_they_do_too(tmp_path, which, name, change, said):
    folder = groot_folders.make_lerobot(tmp_path / "theirs")
    describe(folder)
    file, steps = steps_of(folder, which)
    step = next(step for step in steps if name in step["registry_name"])
    if isinstance(change, dict):
        step["config"] |= change
    elif change == "stateless":
        step.pop("state_file")
    else:
        steps.remove(step)
        steps += [step] if change == "last" else []
    file.write_text(json.dumps({"steps": steps}))
    with pytest.raises(InputError, match=said):
        describe(folder)


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_has_both_processors_or_none(tmp_path, which):
    folder = lerobot_checkpoints.make(tmp_path / "theirs", "act")
    (folder / lerobot_pipelines.NAMES[which]).unlink()
    with pytest.raises(InputError, match=f"{lerobot_pipelines.NAMES[which]}: not there, expected it"):
        describe(folder)


def test_a_folder_whose_processors_do_nothing_is_none_of_before_them(tmp_path):
    folder = lerobot_checkpoints.make(tmp_path / "theirs", "act")
    lerobot_pipelines.write(folder, ([], []))
    with pytest.raises(InputError, match="no step normalizer_processor, expected one, since ACTION is normalised by"):
        describe(folder)


def test_a_tokenizer_of_actions_is_that_of_the_configuration(tmp_path):
    folder = lerobot_folders.write_fast(tmp_path / "theirs")
    file, steps = steps_of(folder, 0)
    next(step for step in steps if "action_tokenizer" in step["registry_name"])["config"]["max_action_tokens"] = 9
    file.write_text(json.dumps({"steps": steps}))
    with pytest.raises(InputError, match="action_tokenizer_processor.max_action_tokens: 9, expected 256, as in config"):
        describe(folder)
