"""Statistics of every type, mode and place in LeRobot's folders mean what LeRobot makes of them, or are refused."""

import json
import struct

import lerobot_checkpoints
import lerobot_folders
import numpy as np
import pytest
import torch
from real_families import LEROBOT, ROBOT, make
from safetensors.torch import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.policies import describe, load
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.registry import find_family

STATE = "policy_preprocessor_step_5_normalizer_processor.safetensors"
TYPES = [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32,
         torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool]


@pytest.fixture
def folder(tmp_path):
    return lerobot_folders.write(tmp_path / "theirs", "smolvla")


def set_statistic(folder, key, value):
    for file in folder.glob("policy_*.safetensors"):
        save_file(load_file(file) | {key: value}, file)


def parts(folder, family="smolvla"):
    """All that a folder says but its weights."""
    return find_family(family).open(folder, "lerobot", LoadOptions(robot=ROBOT))[1]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_statistics_of_every_type_are_read(folder, dtype):
    values = torch.tensor([1, 0, 1, 1, 0, 1]).to(dtype)
    set_statistic(folder, "action.mean", values)
    assert parts(folder).actions.statistics["mean"].tolist() == values.double().tolist()


@pytest.mark.parametrize(("name", "size"), [("F4", 3), ("F6_E2M3", 3), ("C64", 48), ("NEW", 6)])
def test_a_type_that_is_no_number_is_named(folder, name, size):
    shape = [4] if name == "F6_E2M3" else [6]
    header = json.dumps({"observation.state.mean": {"dtype": name, "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    (folder / STATE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(InputError, match=rf"{STATE}.*(observation.state.mean|{name})"):
        describe(folder, robot=ROBOT)


def test_statistics_that_were_never_set_do_not_keep_info_from_answering(folder):
    set_statistic(folder, "observation.state.std", torch.full((6,), torch.inf))
    assert "observation.state.std was never set" in describe(folder, robot=ROBOT)["notes"]
    with pytest.raises(InputError, match=r"observation.state.std was never set: .*overrides.statistics"):
        load(folder, robot=ROBOT)


def test_a_folder_without_the_files_of_its_statistics_is_described(folder):
    (folder / STATE).unlink()
    load(folder, robot=ROBOT)  # the postprocessor's file has the same
    for file in folder.glob("policy_*.safetensors"):
        file.unlink()
    assert f"lack ['mean', 'std'] ({STATE}, " in describe(folder, robot=ROBOT)["notes"]
    with pytest.raises(InputError, match=f"{STATE}.*: not in the folder.*overrides.statistics"):
        load(folder, robot=ROBOT)


def test_the_two_processors_must_agree(folder):
    file = folder / "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    save_file(load_file(file) | {"action.mean": torch.ones(6)}, file)
    with pytest.raises(InputError, match=r"action.mean is .*policy_preprocessor.*policy_postprocessor"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize("which", ["preprocessor", "postprocessor"])
@pytest.mark.parametrize(("change", "said"), [
    ({"eps": 1e-6}, "eps"), ({"norm_map": {"ACTION": "MIN_MAX"}}, "ACTION"),
    ({"normalize_observation_keys": ["observation.state"]}, "normalize_observation_keys"),
])  # fmt: skip
def test_settings_of_a_normaliser_are_honoured_or_refused(folder, which, change, said):
    file = folder / f"policy_{which}.json"
    data = json.loads(file.read_text())
    step = next(step for step in data["steps"] if "normalizer" in step["registry_name"])
    step["config"] |= change
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=said):
        load(folder, robot=ROBOT)


NORMALISED = {  # by LeRobot's rule: the modes' two bounds go to -1 and 1; the statistics of a state of 0.3
    "IDENTITY": 0.3, "MEAN_STD": (0.3 - 0.1) / (0.5 + 1e-8), "MIN_MAX": 2 * (0.3 + 1) / 3 - 1,
    "QUANTILES": 2 * (0.3 + 0.8) / 2.4 - 1, "QUANTILE10": 2 * (0.3 + 0.5) / 1.5 - 1,
}
VALUES = {"mean": 0.1, "std": 0.5, "min": -1, "max": 2, "q01": -0.8, "q99": 1.6, "q10": -0.5, "q90": 1.0}


@pytest.mark.parametrize("family", LEROBOT)
def test_a_mode_means_the_same_in_every_family(tmp_path, family):
    folder = make(tmp_path / family, family)
    for file in folder.glob("policy_*.safetensors"):
        images = {key: value for key, value in load_file(file).items() if "images" in key}
        rows = {f"{feature}.{name}": torch.full((6,), float(value))
                for feature in ("observation.state", "action") for name, value in VALUES.items()}
        save_file(images | rows, file)
    for mode, expected in NORMALISED.items():
        for file in folder.glob("policy_*.json"):
            data = json.loads(file.read_text())
            for step in data["steps"]:
                if "norm_map" in step.get("config", {}):
                    step["config"]["norm_map"] |= {"STATE": mode, "ACTION": mode}
            file.write_text(json.dumps(data))
        found = parts(folder, "pi0" if family == "pi05" else family)
        for normalisation in (found.state, found.actions):
            np.testing.assert_allclose(normalisation.normalise(np.full(6, 0.3)), expected, rtol=1e-6)
            np.testing.assert_allclose(normalisation.restore(np.full(6, expected)), 0.3, rtol=1e-6)


def test_a_folder_that_names_no_modes_means_its_class_default(tmp_path):
    """As lerobot/pi05_base; without processors too."""
    for name, mode in (("pi05", "quantiles"), ("pi0", "mean_std"), ("smolvla", "mean_std")):
        folder = lerobot_folders.write(tmp_path / name, name, normalization_mapping=None)
        for file in folder.glob("policy_*"):
            file.unlink()
        assert describe(folder)["state"].endswith(f"normalised by {mode}")


def test_images_of_several_sets_are_normalised_alike_or_the_policy_is_not_loaded(tmp_path):
    """A file of statistics, or of those of the data, does not bring the images'."""
    folder = lerobot_checkpoints.make(tmp_path / "act", "act", cameras=("front",), old=True)
    tensors = load_file(folder / "model.safetensors")
    other = {key.replace("buffer_", "b_buffer_"): value.clone() for key, value in tensors.items() if "buffer_" in key}
    save_file(tensors | other, folder / "model.safetensors")
    policy = load(folder, robot=ROBOT, without_statistics=True).policy
    np.testing.assert_allclose(policy.image_mean.flatten(), [0.4] * 3, rtol=1e-6)
    key = "normalize_inputs.b_buffer_observation_images_front.mean"
    save_file(tensors | other | {key: other[key] + 0.1}, folder / "model.safetensors")
    assert "'b'" in describe(folder)["notes"]
    with pytest.raises(InputError, match="mean of the image 'observation.images.front': 3 numbers"):
        load(folder, robot=ROBOT, without_statistics=True)
