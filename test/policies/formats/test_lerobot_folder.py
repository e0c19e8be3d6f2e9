"""Features, modes and statistics of LeRobot folders, in the layout with processor files and in the older one."""

import json
import re

import lerobot_folders
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from vla_ros.core.errors import InputError
from vla_ros.policies.formats.lerobot import check_fields, read_folder
from vla_ros.policies.formats.lerobot_statistics import find_statistics, is_statistic
from vla_ros.policies.formats.weights import TensorFolder, load_weights

CONFIG = {
    "type": "act",
    "input_features": {
        "observation.images.top": {"type": "VISUAL", "shape": [3, 48, 64]},
        "observation.state": {"type": "STATE", "shape": [2]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"},
}
F = np.float32


def write_new(path, config=CONFIG, steps=None):
    (path / "config.json").write_text(json.dumps(config))
    file = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    before, after = lerobot_folders.pipelines("act", {
        "eps": 1e-6, "features": config["input_features"], "norm_map": config["normalization_mapping"],
    })  # fmt: skip
    before[0]["config"]["rename_map"] = {"front": "top"}
    before[-1]["state_file"] = after[0]["state_file"] = file
    for name, rows in (("policy_preprocessor", steps or before), ("policy_postprocessor", after)):
        (path / f"{name}.json").write_text(json.dumps({"name": name, "steps": rows}))
    save_file(
        {"observation.state.mean": F([1, 2]), "observation.state.std": F([3, 4]), "action.min": F([0, 0]),
         "action.max": F([1, 1]), "observation.images.top.mean": np.zeros((3, 1, 1), F)},
        path / file,
    )
    save_file({"model.w": np.ones(1, F)}, path / "model.safetensors")


def test_reads_features_modes_and_statistics_from_the_processor_files(tmp_path):
    write_new(tmp_path)
    folder = read_folder(tmp_path, CONFIG)
    assert [feature.name for feature in folder.images] == ["observation.images.top"]
    assert (folder.state_dim, folder.action_dim, folder.environment_dim, folder.epsilon) == (2, 2, 0, 1e-6)
    assert folder.renamed == {"front": "top"}
    statistics, lacks = find_statistics(folder, TensorFolder(tmp_path))
    assert not lacks
    np.testing.assert_array_equal(statistics["observation.state"]["std"], [3, 4])
    assert statistics["observation.images.top"]["mean"].shape == (3,)


def legacy(path, **changes):
    tensors = {"model.w": np.ones(1, F)}
    for side in ("normalize_inputs.buffer", *changes.pop("extra", ())):
        tensors |= {f"{side}_observation_state.mean": F([1, 2]), f"{side}_observation_state.std": F([3, 4]),
                    f"{side}_observation_images_top.mean": np.zeros((3, 1, 1), F)}
    for side in ("normalize_targets", "unnormalize_outputs"):
        tensors |= {f"{side}.buffer_action.min": F([0, 0]), f"{side}.buffer_action.max": F([1, 1])}
    save_file(tensors | changes, path / "model.safetensors")


def test_reads_statistics_from_the_buffers_of_the_old_layout(tmp_path):
    legacy(tmp_path)
    tensors = TensorFolder(tmp_path)
    statistics, lacks = find_statistics(read_folder(tmp_path, CONFIG), tensors)
    assert not lacks
    np.testing.assert_array_equal(statistics["observation.state"]["mean"], [1, 2])
    np.testing.assert_array_equal(statistics["action"]["max"], [1, 1])
    assert [key for key in tensors.shapes if not is_statistic(key)] == ["model.w"]


def test_several_sets_of_old_statistics_need_a_choice(tmp_path):
    legacy(tmp_path, extra=("normalize_inputs.so100-blue_buffer",))
    folder, tensors = read_folder(tmp_path, CONFIG), TensorFolder(tmp_path)
    assert "so100-blue" in find_statistics(folder, tensors)[1]
    assert find_statistics(folder, tensors, "so100-blue")[0]["observation.state"]["mean"].tolist() == [1, 2]
    with pytest.raises(InputError, match="no statistics 'panda'"):
        find_statistics(folder, tensors, variant="panda")


def test_statistics_that_were_never_set_or_are_missing_are_told(tmp_path):
    legacy(tmp_path, **{"normalize_inputs.buffer_observation_state.std": F([np.inf, np.inf])})
    _, lacks = find_statistics(read_folder(tmp_path, CONFIG), TensorFolder(tmp_path))
    assert "observation.state.std was never set" in lacks
    save_file({"model.w": np.ones(1, F)}, tmp_path / "model.safetensors")
    _, lacks = find_statistics(read_folder(tmp_path, CONFIG), TensorFolder(tmp_path))
    assert re.match(r"observation.state is normalised by MEAN_STD.*mean.*std", lacks)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input_features": None}, "input_features"),
        ({"output_features": {}}, "'action'"),
        ({"input_features": {"x": {"type": "AUDIO", "shape": [1]}}}, "AUDIO"),
        ({"normalization_mapping": {"STATE": "GUESS"}}, "GUESS"),
    ],
)
def test_bad_fields_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_folder(tmp_path, CONFIG | change)


def test_unknown_step_and_unknown_field_are_named(tmp_path):
    write_new(tmp_path, steps=[{"registry_name": "turn_upside_down", "config": {}}])
    with pytest.raises(InputError, match="turn_upside_down"):
        read_folder(tmp_path, CONFIG)
    with pytest.raises(InputError, match="new_trick"):
        check_fields(CONFIG | {"new_trick": 1, "optimizer_lr": 1, "repo_id": "x"}, CONFIG, tmp_path)


def test_every_missing_extra_and_misshapen_tensor_is_in_one_error(tmp_path):
    save_file({"weight": np.ones((2, 2), F), "spare": np.ones(1, F)}, tmp_path / "model.safetensors")
    with torch.device("meta"):
        module = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match=r"1 missing: bias; 1 extra: spare; 1 misshapen: weight \[2, 2\]") as error:
        load_weights(module, TensorFolder(tmp_path), "here")
    assert "expected [2, 3]" in str(error.value)


def test_a_truncated_file_is_an_error_that_names_it(tmp_path):
    save_file({"weight": np.ones((64, 64), F)}, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="model.safetensors: cannot be read, is it complete"):
        TensorFolder(tmp_path)
