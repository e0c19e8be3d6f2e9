"""What a LeRobot folder means on a robot: differences and units, of every real family."""

import json
from dataclasses import replace

import numpy as np
import pytest
import real_families
import torch
import yaml
from real_families import LEROBOT, RELATIVE, ROBOT, add_step, make_relative
from safetensors.numpy import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.policies import describe, load, save
from vla_ros.policies.dimension import not_rad
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.normalisation import write_statistics
from vla_ros.policies.registry import export

JOINTS = ROBOT.joint_names
CAMERAS = {name: name for name in ROBOT.camera_names}
MODES = ["delta"] * 5 + ["absolute"]


@pytest.fixture(params=LEROBOT)
def folder(request, tmp_path):
    return real_families.make(tmp_path / "theirs", request.param)


def embodiment(modes, state=None):
    state = state or [Dimension(name) for name in JOINTS]
    actions = [Dimension(name, mode=mode) for name, mode in zip(JOINTS, modes, strict=True)]
    return Embodiment(CAMERAS, tuple(state), tuple(actions), 0.1)


@pytest.mark.parametrize("name", ["relative_actions_processor", "delta_actions_processor"])
def test_actions_are_differences_where_the_folder_says_so(folder, name):
    loaded = load(make_relative(folder, name), robot=ROBOT)
    assert [d.mode for d in loaded.processor.embodiment.actions] == MODES
    load(folder, robot=ROBOT, embodiment=embodiment(MODES))
    assert "delta, but absolute: gripper, normalised" in describe(folder, robot=ROBOT)["actions"]
    processor, one = loaded.processor, real_families.sample(loaded)
    state = one.state[-1]
    values = processor.actions.normalise(np.full((1, processor.horizon, 6), 0.25))
    answer = torch.zeros(1, processor.horizon, processor.config.action_dim)
    answer[..., :6] = torch.from_numpy(values)
    written, fine = answer, 1e-6
    if hasattr(processor, "written"):  # tokens of rounded coefficients
        written, fine = torch.tensor([processor.written(values[0])[1:]]), 0.1
    [targets] = processor.outputs(written, [one])
    expected = np.append(state[:5] + 0.25, 0.25)  # LeRobot adds the state to all but the gripper
    np.testing.assert_allclose(targets.parts[0].data, np.tile(expected, (processor.horizon, 1)), atol=fine)
    back, survives = processor.normalise([targets], [one])
    assert survives.all()
    torch.testing.assert_close(back[..., :6], answer[..., :6], atol=10 * fine, rtol=1e-5)


@pytest.mark.parametrize(("modes", "message"), [
    (["delta"] * 6, r"action 5 \(gripper\) is delta, but its preprocessor makes it absolute"),
    (["absolute"] * 6, r"action 0 \(shoulder_pan\) is absolute, but its preprocessor makes it delta"),
])  # fmt: skip
def test_a_policy_file_that_says_otherwise_is_refused(folder, modes, message):
    with pytest.raises(InputError, match=message):
        load(make_relative(folder), robot=ROBOT, embodiment=embodiment(modes))


def test_own_checkpoints_refuse_it_too(tmp_path):
    folder = real_families.make(tmp_path / "theirs", "pi05")
    save(tmp_path / "ours", load(make_relative(folder), robot=ROBOT))
    with pytest.raises(InputError, match=r"action 5 \(gripper\) is delta, .* absolute"):
        load(tmp_path / "ours", robot=ROBOT, embodiment=embodiment(["delta"] * 6))
    load(tmp_path / "ours", robot=ROBOT, embodiment=embodiment(MODES))


def test_a_difference_is_to_the_state_of_the_same_number(tmp_path):
    folder = real_families.make(tmp_path / "theirs", "pi05")
    state = [Dimension(name) for name in JOINTS]
    state[1] = replace(state[1], offset=0.5)
    with pytest.raises(InputError, match=r"action 1 \(shoulder_lift\) is a difference to number 1 of the state, .*0.5"):
        load(make_relative(folder), robot=ROBOT, embodiment=embodiment(MODES, state))


@pytest.mark.parametrize("which", ["preprocessor", "postprocessor"])
def test_both_directions_are_checked(tmp_path, which):
    folder = real_families.make(tmp_path / "theirs", "pi05")
    name = {"preprocessor": "relative_actions_processor", "postprocessor": "absolute_actions_processor"}[which]
    add_step(folder, which, name, RELATIVE if which == "preprocessor" else {"enabled": True})
    with pytest.raises(InputError, match="actions as differences to the state, .* both enabled or neither"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize(("change", "modes"), [
    ({"enabled": False}, ["absolute"] * 6), ({"exclude_joints": []}, ["delta"] * 6),
    ({"action_names": None}, ["delta"] * 6),
    ({"exclude_joints": ["wrist", ""]}, ["delta"] * 3 + ["absolute"] * 2 + ["delta"]),
])  # fmt: skip
def test_which_joints_are_differences(tmp_path, change, modes):
    folder = real_families.make(tmp_path / "theirs", "pi05")
    add_step(folder, "preprocessor", "relative_actions_processor", RELATIVE | change)
    add_step(folder, "postprocessor", "absolute_actions_processor", {"enabled": change.get("enabled", True)})
    assert [d.mode for d in load(folder, robot=ROBOT).processor.embodiment.actions] == modes


def in_unit(folder, factor, offset=0.0):
    """The folder's statistics of state and actions in another unit: factor · rad + offset."""
    for file in folder.glob("*normalizer_processor.safetensors"):
        rows = load_file(file)
        for key, values in rows.items():
            if key.startswith(("observation.state", "action")):
                moved = values * np.float32(factor)
                rows[key] = moved if key.endswith("std") else moved + np.float32(offset)
        save_file(rows, file)
    return folder


LIMITS = [-1.5, 1.7]
UNITS = {"degrees": (57.29578, 0.0), "range_m100_100": (200 / 3.2, -100 + 1.5 * 200 / 3.2),
         "range_0_100": (100 / 3.2, 150 / 3.2)}  # fmt: skip


@pytest.mark.parametrize(("family", "unit"), [
    *((family, "degrees") for family in LEROBOT), ("pi05", "range_m100_100"), ("smolvla", "range_0_100"),
])  # fmt: skip
def test_data_that_cannot_be_rad_need_their_unit(family, unit, tmp_path):
    folder = real_families.make(tmp_path / "theirs", family)
    plain = load(folder, robot=ROBOT)
    one = real_families.sample(plain)
    wanted = plain.processor.policy_states(one.state)
    in_unit(folder, *UNITS[unit])
    names = {"checkpoint": str(folder), "cameras": CAMERAS, "step_dt": 0.1}
    for said in ({"robot": ROBOT}, {"robot": ROBOT, "embodiment": embodiment(["absolute"] * 6)}):
        with pytest.raises(InputError, match=r"reaches [\d.]+, which cannot be rad or m; give each joint's unit, as in "
                                             r"`- \{joint: \w+, unit: degrees\}` in a policy file"):  # fmt: skip
            load(folder, **said)
    row = {"unit": unit} if unit == "degrees" else {"unit": unit, "range": LIMITS}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(names | {"state": [{"joint": name, **row} for name in JOINTS]}))
    processor = load(path, robot=ROBOT).processor
    torch.testing.assert_close(processor.policy_states(one.state), wanted, atol=2e-4, rtol=1e-4)


def test_a_deviation_counts_too(tmp_path):
    """Old folders hold mean and std alone; an arm recorded around its middle in degrees has small means."""
    folder = real_families.make(tmp_path / "act", "act")
    for file in folder.glob("*normalizer_processor.safetensors"):
        rows = load_file(file)
        kept = {key: values for key, values in rows.items() if not key.endswith((".min", ".max"))}
        for feature in ("observation.state", "action"):
            kept |= {f"{feature}.mean": np.float32([0.4, -3.2, 5.1, 2, -1.1, 6])}
            kept |= {f"{feature}.std": np.float32([24, 31, 28, 19, 22, 18])}
        save_file(kept, file)
    with pytest.raises(InputError, match=r"observation.state: shoulder_pan reaches 48.4 \(mean ± 2 std\), which"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize("bounds", [("min", "max"), ("q01", "q99"), ("min", "max", "q01", "q99")], ids=str)
def test_a_deviation_does_not_count_beside_bounds(bounds):
    """A wrist that turns by 6.3 rad and is at either end for most of the time: two deviations are 9.2 rad."""
    values = np.array([0.1] * 4 + [6.2] * 6)
    rows = {"mean": [values.mean()], "std": [values.std()]} | {
        name: [values.min() if name in ("min", "q01") else values.max()] for name in bounds}
    wrist = [Dimension("wrist")]
    assert not not_rad(wrist, rows)
    assert "wrist reaches 355.2, which cannot" in not_rad(wrist, {k: np.degrees(v) for k, v in rows.items()})
    assert "(mean ± 2 std), which cannot" in not_rad(wrist, {name: rows[name] for name in ("mean", "std")})


@pytest.mark.parametrize(("row", "message"), [
    ({"unit": ["degrees"]}, r"unit \['degrees'\], expected one of"),
    ({"unit": "turns"}, r"unit 'turns', expected one of \['degrees', 'range_m100_100', 'range_0_100'\]"),
    ({"range": [0, 1]}, "unit None, expected one of"),
    ({"unit": "degrees", "scale": 2.0}, "unit degrees and a scale or offset, expected one or the other"),
    ({"unit": "degrees", "range": [0, 1]}, r"range \[0, 1\], expected none with the unit degrees"),
    ({"unit": "range_0_100"}, r"range \(rad or m at 0 and 100\): None, expected a list"),
    ({"unit": "range_0_100", "range": [1, 1]}, r"range \[1, 1\], expected two different positions"),
])  # fmt: skip
def test_units_that_say_nothing(row, message):
    with pytest.raises(InputError, match=rf"^embodiment: state\[0\].*{message}"):
        Embodiment.from_dict({"cameras": {}, "state": [{"joint": "a", **row}]})


@pytest.mark.parametrize("family", LEROBOT)
def test_shapes_with_the_channels_last(tmp_path, family):
    folder = real_families.make(tmp_path / "theirs", family)
    first = load(folder, robot=ROBOT)
    config = json.loads((folder / "config.json").read_text())
    for feature in config["input_features"].values():
        if feature["type"] == "VISUAL":
            feature["shape"] = feature["shape"][1:] + feature["shape"][:1]
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder, robot=ROBOT).policy.config == first.policy.config
    config["input_features"]["observation.images.front"]["shape"] = [48, 64, 1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"images.front: type 'VISUAL', shape \(48, 64, 1\); .*3 channels, height"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_the_loss_covers_the_robots_own_dimensions(tmp_path, family):
    """As in LeRobot; openpi's covers the padding too."""
    loaded = load(real_families.make(tmp_path / "theirs", family), robot=ROBOT)
    one = real_families.sample(loaded)
    horizon = loaded.processor.horizon
    one = replace(one, actions=np.zeros((horizon, 6)), action_is_pad=np.zeros(horizon, bool))
    loaded.policy.train().loss(loaded.processor.inputs([one]))["loss"].backward()
    rows = loaded.policy.action_out.weight.grad.abs().sum(dim=1) > 0
    assert rows.tolist() == [True] * 6 + [False] * 26


def test_cameras_of_two_sizes(tmp_path):
    """Each at its own size: with a wrist camera that is turned, every camera has the tokens of a policy of its own."""
    folder = real_families.make(tmp_path / "theirs", "act")
    same = load(folder, robot=ROBOT)
    config = json.loads((folder / "config.json").read_text())
    config["input_features"]["observation.images.wrist"]["shape"] = [3, 96, 32]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load(folder, robot=ROBOT)
    assert "64x48 and 32x96 pixels" in describe(folder, robot=ROBOT)["images"]
    one = real_families.sample(same)
    images = dict(one.images, wrist=np.random.default_rng(0).integers(0, 256, (1, 96, 32, 3), np.uint8))
    with pytest.raises(InputError, match="camera 'wrist': image of 64x48 pixels.*32x96.*aspect"):
        loaded.processor.inputs([one])
    batch = loaded.processor.inputs([replace(one, images=images)])
    with torch.no_grad():
        tokens, places = loaded.policy.image_tokens(batch["images"])
        front, _ = same.policy.image_tokens(same.processor.inputs([one])["images"])
        wrist = (torch.from_numpy(images["wrist"]).permute(0, 3, 1, 2) / 255 - 0.4) / (0.25 + 1e-8)
        features = loaded.policy.encoder_img_feat_input_proj(loaded.policy.backbone(wrist)).flatten(2).transpose(1, 2)
        answer = loaded.policy.predict(batch)
    number = front.shape[1] // 2
    torch.testing.assert_close(tokens[:, :number], front[:, :number], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[:, number:], features, atol=1e-5, rtol=1e-5)
    assert places.shape == tokens.shape[1:]
    save(tmp_path / "ours", loaded)
    torch.testing.assert_close(load(tmp_path / "ours").policy.predict(batch), answer)
    export(tmp_path / "out", loaded, "lerobot")
    torch.testing.assert_close(load(tmp_path / "out").policy.predict(batch), answer)


def test_names_of_the_actions_go_before_their_order(tmp_path):
    folder = real_families.make(tmp_path / "theirs", "pi05")
    one = real_families.sample(load(folder, robot=ROBOT))
    data = json.loads((folder / "config.json").read_text())
    for names, expected in ((JOINTS[::-1], JOINTS[::-1]), (("x", "y", "z", "a", "b", "c"), JOINTS)):
        (folder / "config.json").write_text(json.dumps(data | {"action_feature_names": [f"{n}.pos" for n in names]}))
        processor = load(folder, robot=ROBOT).processor
        assert [d.joint for d in processor.embodiment.actions] == list(expected)
    part = processor.outputs(torch.zeros(1, processor.horizon, 6), [one])[0].parts[0]
    assert part.names == JOINTS
    (folder / "config.json").write_text(json.dumps(data | {"action_feature_names": [*JOINTS[:4], "x", "y"]}))
    with pytest.raises(InputError, match=r"its actions are \[.*'x', 'y'\], robot .* say which is which in a policy"):
        load(folder, robot=ROBOT)


def test_a_camera_that_was_renamed_is_not_found_by_its_new_name(tmp_path):
    folder = real_families.make(tmp_path / "theirs", "act")
    pairs = ("front", "wrist"), ("wrist", "front")
    swapped = {f"observation.images.{a}": f"observation.images.{b}" for a, b in pairs}
    file = folder / "policy_preprocessor.json"
    data = json.loads(file.read_text())
    steps = [step for step in data["steps"] if step["registry_name"] != "rename_observations_processor"]
    rename = {"registry_name": "rename_observations_processor", "config": {"rename_map": swapped}}
    file.write_text(json.dumps(data | {"steps": [rename, *steps]}))
    assert load(folder, robot=ROBOT).processor.robot_cameras == tuple(
        {"front": "wrist", "wrist": "front"}[name.removeprefix("observation.images.")]
        for name in load(folder, robot=ROBOT).processor.image_names
    )


def test_statistics_of_several_sizes_are_refused(tmp_path):
    folder = real_families.make(tmp_path / "theirs", "act")
    rows = {"mean": [0.0] * 6, "std": [1.0] * 5}
    (tmp_path / "stats.json").write_text(json.dumps({"observation.state": rows, "action": rows}))
    with pytest.raises(InputError, match=r"statistics of \{'mean': 6, 'std': 5\} numbers"):
        load(folder, robot=ROBOT, overrides={"statistics": tmp_path / "stats.json"})
    rows = {name: [value] * 7 for name, value in (("mean", 0.0), ("std", 0.1), ("min", -1.0), ("max", 1.0))}
    (tmp_path / "stats.json").write_text(json.dumps({"observation.state": rows, "action": rows}))
    with pytest.raises(InputError, match=r"observation.state: statistics of \[7\] numbers, expected 6"):
        load(folder, robot=ROBOT, overrides={"statistics": tmp_path / "stats.json"})


@pytest.mark.parametrize(("family", "field", "value", "message"), [
    ("diffusion", "beta_schedule", "x", "beta_schedule 'x', expected one of"),
    ("pi0_fast", "image_resolution", 224, "image_resolution 224, its weights are for"),
    ("openvla", "text_config", {"num_hidden_layers": [None]}, "num_hidden_layers: \\[None\\], expected an integer"),
])  # fmt: skip
def test_a_field_of_another_kind_is_refused(tmp_path, family, field, value, message):
    folder = real_families.make(tmp_path / "theirs", family)
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {field: value}))
    with pytest.raises(InputError, match=message):
        describe(folder)


def test_statistics_of_joints_are_not_those_of_differences(tmp_path):
    folder, file = real_families.make(tmp_path / "theirs", "pi05"), tmp_path / "statistics.json"
    rows = {name: np.full(6, value) for name, value in (
        ("min", -1.5), ("max", 1.5), ("mean", 0.0), ("std", 0.5), ("q01", -1.4), ("q99", 1.4))}
    write_statistics(file, {"observation.state": rows, "action": rows})
    loaded = load(folder, robot=ROBOT, overrides={"statistics": str(file)})
    np.testing.assert_array_equal(loaded.processor.actions.statistics["q99"], rows["q99"])
    with pytest.raises(InputError, match="overrides.statistics .* actions are differences to the state.*leave it out"):
        load(make_relative(folder), robot=ROBOT, overrides={"statistics": str(file)})
