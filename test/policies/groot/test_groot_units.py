"""What GR00T's groups mean on a robot: relative joints, differences, rotations, units and clocks."""

import json
import re
import shutil

import groot_folders
import numpy as np
import pytest
import torch
import yaml
from groot_folders import POLICY_FILE, make_lerobot, make_nvidia
from real_families import ROBOT
from safetensors.torch import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.policies import describe, load, save
from vla_ros.policies.formats.adapter import PREFIX

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


def test_a_unit_other_than_rad_is_seen_behind_statistics_of_each_row(tmp_path):
    folder = make_relative(tmp_path / "n", gripper=(0.0, 100.0))
    refused(policy_file(tmp_path / "policy.yaml", folder), "action: gripper reaches 100, which cannot be rad or m")
    # A difference has no offset: 10 degrees are 0.17 rad, whatever the joint's zero is.
    edited(folder / "statistics.json", lambda rows: [
        rows["new_embodiment"]["relative_action"]["single_arm"].update({name: [[value] * 4] * 5})
        for name, value in (("min", -10.0), ("max", 10.0), ("mean", 0.0), ("std", 5.0))])
    rows = [{"joint": name, "unit": "degrees"} for name in JOINTS[:4]]
    rows[0] = {"joint": JOINTS[0], "scale": 57.29578, "offset": 900.0}
    edited(folder / "statistics.json", lambda data: [
        data["new_embodiment"]["state"]["single_arm"][name].__setitem__(0, 900.0 + value)
        for name, value in (("min", -9.0), ("max", 9.0), ("mean", 0.0), ("q01", -8.0), ("q99", 8.0))])
    gripper = {"joint": "gripper", "unit": "range_0_100", "range": [0.0, 1.5]}
    path = policy_file(tmp_path / "policy.yaml", folder, state=[*rows, gripper])
    loaded = load(path, robot=ROBOT)
    [part] = loaded.processor.outputs(torch.ones(1, 6, 5), [sample(loaded)])[0].parts
    np.testing.assert_allclose(part.data[:, 0], 0.7 + np.radians(10), atol=1e-6)
    edited(folder / "statistics.json", lambda rows: rows["new_embodiment"]["relative_action"]["single_arm"].update(
        max=[[10.0] * 4] * 4 + [[900.0] * 4]))
    refused(path, "action: shoulder_pan reaches 15.71")


def test_statistics_of_joints_are_not_those_of_differences(tmp_path):
    folder, rows = make_relative(tmp_path / "n"), groot_folders.statistics({"observation.state": 5, "action": 5})
    file = tmp_path / "statistics.json"
    file.write_text(json.dumps(rows))
    refused(policy_file(tmp_path / "policy.yaml", folder), "'single_arm' is min_max relative to single_arm: its "
            "statistics do not follow from those of joint targets", overrides={"statistics": str(file)})
    save(tmp_path / "ours", load(tmp_path / "policy.yaml", robot=ROBOT))
    refused(tmp_path / "ours", "overrides.statistics.*is min_max relative", overrides={"statistics": str(file)})
    absolute = make_nvidia(tmp_path / "a", "n1.7")
    loaded = load(policy_file(tmp_path / "policy.yaml", absolute), robot=ROBOT, overrides={"statistics": str(file)})
    np.testing.assert_allclose(loaded.processor.actions.statistics["max"], rows["action"]["max"])


def lerobot_folder(path, pack=(), encode=(), decode=(), groups=True):
    """N1.7 of LeRobot, with a relative arm where there are `groups`; changes of its steps' fields."""
    folder = make_lerobot(path)
    pack, encode = groot_folders.PROCESSOR | dict(pack), groot_folders.IMAGES | dict(encode)
    last = ("groot_action_unpack_unnormalize_v2", {"env_action_dim": 6, "normalize_min_max": True,
                                                   "clip_normalized_action": True, **dict(decode)}, True)
    if groups:
        sizes = {"arm": 5, "gripper": 1}
        raw = {name: groot_folders.statistics(sizes, seed) for seed, name in enumerate(("state", "action"))}
        raw["relative_action"] = {"arm": {name: [value] * 5 for name, value in (
            ("min", -0.2), ("max", 0.2), ("mean", 0.0), ("std", 0.1))}}
        modality = {"state": {"modality_keys": [*sizes]}, "action": {
            "modality_keys": [*sizes], "delta_indices": [0, 1, 2, 3],
            "action_configs": [{"rep": "RELATIVE", **KIND}, {"rep": "ABSOLUTE", **KIND}]}}
        both = {"raw_stats": raw, "modality_config": modality}
        pack |= both
        last = ("groot_n1_7_action_decode_v1", both | {"use_percentiles": False, "use_relative_action": True}
                | dict(decode), False)
    groot_folders.write_processors(folder, [("groot_n1_7_pack_inputs_v1", pack, not groups),
                                            ("groot_n1_7_vlm_encode_v1", encode, False)], [last])
    return folder


@pytest.mark.parametrize(("said", "rows"), [({"valid_action_horizon": None}, 4), ({"valid_action_horizon": 3}, 3)])
def test_a_chunk_has_the_rows_that_the_actions_were_trained_with(said, rows, tmp_path):
    assert load(lerobot_folder(tmp_path / "n", said), robot=ROBOT).processor.horizon == rows


def test_no_camera_of_groot_is_left_out(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.5", "so100")
    refused(policy_file(tmp_path / "policy.yaml", folder, cameras={"front": "front", "wrist": None}),
            r"cameras \['wrist'\] are declared absent, the policy needs every one it was trained with")


DELTAS = [{"joint": name, "mode": "delta"} for name in JOINTS[:4]] + [{"joint": "gripper"}]


def moved(path):
    """(H, 5) targets of a network's answer of ones, at a state of 0.7."""
    loaded = load(path, robot=ROBOT)
    config = loaded.policy.config
    answer = torch.ones(1, config.horizon, config.action_dim)
    return loaded.processor.outputs(answer, [sample(loaded)])[0].parts[0].data, loaded


@pytest.mark.parametrize("generation", ["n1.5", "n1.7"])
def test_differences_in_the_data_need_a_mode_that_says_so(generation, tmp_path):
    path = tmp_path / "policy.yaml"
    if generation == "n1.7":
        folder = make_relative(tmp_path / "n", rep="DELTA")
        other = make_nvidia(tmp_path / "o", "n1.7")
    else:
        folder, other = (make_nvidia(tmp_path / name, "n1.5", "so100") for name in "no")
        edited(folder / "experiment_cfg" / "metadata.json", lambda data: data["so100"]["modalities"]["action"][
            "single_arm"].update(absolute=False))
    refused(policy_file(path, folder), r"action 0 \(shoulder_pan\) of 'single_arm' is absolute, but the checkpoint's "
            "are differences; expected mode: delta")
    got, loaded = moved(policy_file(path, folder, actions=DELTAS))
    high = loaded.processor.actions.statistics["max"]
    np.testing.assert_allclose(got[0], [*(0.7 + high[:4]), high[4]], atol=1e-6)
    rate = [row | {"mode": "rate"} for row in DELTAS[:4]]
    got, _ = moved(policy_file(path, folder, actions=[*rate, *DELTAS[4:]]))
    np.testing.assert_allclose(got[1, :4], 0.7 + 2 * high[:4], atol=1e-6)
    assert "single_arm (4, min_max differences)" in describe(folder)["groups"]
    refused(policy_file(path, other, actions=DELTAS), "expected mode: absolute in the policy file")
    refused(policy_file(path, folder, actions=DELTAS[:4] + [{"joint": "gripper", "mode": "delta"}]),
            r"action 4 \(gripper\) is delta.*expected mode: absolute")


def test_groups_of_metadata_are_chosen_in_an_order(tmp_path):
    folder, path = make_nvidia(tmp_path / "n", "n1.5", "so100"), tmp_path / "policy.yaml"
    usual = load(policy_file(path, folder), robot=ROBOT).processor.state.statistics["max"]
    turned = [JOINTS[4], *JOINTS[:4]]
    modes = {"gripper": "min_max", "single_arm": "q99"}
    chosen = load(policy_file(path, folder, state=turned, overrides={"state_groups": modes, "action_groups": modes}),
                  robot=ROBOT)
    assert [(g.name, g.mode) for g in chosen.policy.config.action_groups] == [*modes.items()]
    np.testing.assert_array_equal(chosen.processor.state.statistics["max"], np.roll(usual, 1))
    alone = load(policy_file(path, folder, state=JOINTS[:4], actions=JOINTS,
                             overrides={"state_groups": {"single_arm": "min_max"}}), robot=ROBOT)
    np.testing.assert_array_equal(alone.processor.state.statistics["max"], usual[:4])


def test_rotations_of_metadata_are_seen_as_isaacs_data_configurations_show_them(tmp_path):
    """States as six numbers, actions as they are, unless a policy file says otherwise."""
    folder, path = make_nvidia(tmp_path / "n", "n1.5", "so100"), tmp_path / "policy.yaml"
    turn = {"absolute": True, "rotation_type": "axis_angle", "shape": [3], "continuous": True}

    def change(data):
        row = data["so100"]
        row["modalities"]["state"] = {"single_arm": turn | {"rotation_type": None, "shape": [1]}, "wrist": turn}
        row["modalities"]["action"] = {"wrist": turn, "gripper": row["modalities"]["action"]["gripper"]}
        row["statistics"]["state"] = groot_folders.statistics({"single_arm": 1, "wrist": 3})
        row["statistics"]["action"]["wrist"] = groot_folders.statistics({"wrist": 3}, 1)["wrist"]

    edited(folder / "experiment_cfg" / "metadata.json", change)
    said = describe(folder)
    assert "wrist (3, min_max vector as rotation_6d_rows)" in said["groups"]
    assert "actions wrist (3, min_max vector)" in said["groups"]
    measured = load(folder)
    processor, joints = measured.processor, measured.processor.joints
    one = Sample({name: np.zeros((1, 48, 64, 3), np.uint8) for name in ("front", "wrist")},
                 np.linspace(0.1, 0.4, len(joints))[None], "pick")
    values = processor.embodiment.state_to_policy(one.state[-1])
    six = from_matrix(to_matrix(values[1:], "vector"), "rotation_6d_rows")
    np.testing.assert_allclose(processor.inputs([one])["state"][0, 0, 1:7], six, atol=1e-6)
    high = np.array(groot_folders.statistics({"wrist": 3}, 1)["wrist"]["max"])
    answer = torch.ones(1, measured.policy.config.horizon, measured.policy.config.action_dim)
    np.testing.assert_allclose(processor.outputs(answer, [one])[0].parts[0].data[0, :3], high, atol=1e-6)
    forms = {"state_groups": {"single_arm": "min_max", "wrist": "euler_angles_rpy"},
             "action_groups": {"wrist": "quaternion identity", "gripper": "min_max"}}
    other = load(folder, overrides=forms)
    angles = from_matrix(to_matrix(values[1:], "vector"), "euler_xyz") / np.pi
    np.testing.assert_allclose(other.processor.inputs([one])["state"][0, 0, 1:4], angles, atol=1e-6)
    quaternion = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0])[None, None].repeat(1, 6, 1)  # a quarter turn about z
    got = other.processor.outputs(quaternion, [one])[0].parts[0].data[0, :3]
    np.testing.assert_allclose(got, [0, 0, np.pi / 2], atol=1e-6)
    save(tmp_path / "ours", other)
    assert load(tmp_path / "ours").policy.config.state_groups == other.policy.config.state_groups
    refused(folder, r"actions \['wrist'\] are poses of an end effector")
    absent = [{"joint": name} for name in (JOINTS[0], None, None, None)]
    refused(policy_file(path, folder, state=absent, actions=JOINTS[:4], hold=["wrist_roll", "gripper"]),
            "state 'wrist' is a rotation .*, of which the robot has no joints: .* described and measured, not served")
    given = {"state_groups": {"single_arm": "min_max"}}
    assert load(policy_file(path, folder, state=JOINTS[:1], actions=JOINTS[:4], hold=["wrist_roll", "gripper"],
                            overrides=given), robot=ROBOT)


def test_states_that_are_differences_are_not_served(tmp_path):
    folder, path = make_nvidia(tmp_path / "n", "n1.5", "so100"), tmp_path / "policy.yaml"
    edited(folder / "experiment_cfg" / "metadata.json", lambda data: data["so100"]["modalities"]["state"][
        "gripper"].update(absolute=False))
    refused(policy_file(path, folder), "state 'gripper': absolute false, expected true")


def test_no_clock_is_made_up(tmp_path):
    path, folder = tmp_path / "policy.yaml", make_nvidia(tmp_path / "n", "n1.7")
    refused(policy_file(path, folder, step_dt=None), "does not contain the time between action rows; set step_dt")
    assert load(policy_file(path, folder), robot=ROBOT).processor.step_dt == 0.1
    folder = make_nvidia(tmp_path / "m", "n1.5", "so100")
    assert load(policy_file(path, folder, step_dt=None), robot=ROBOT).processor.step_dt == 0.1  # of the cameras
    edited(folder / "experiment_cfg" / "metadata.json", lambda data: data["so100"]["modalities"]["video"][
        "wrist"].update(fps=30.0))
    refused(policy_file(path, folder, step_dt=None), r"cameras of \[10.0, 30.0\] frames per second.*set step_dt")
    assert load(policy_file(path, folder, step_dt=0.05), robot=ROBOT).processor.step_dt == 0.05


@pytest.mark.parametrize(
    ("groups", "step", "said", "message"),
    [
        (False, "pack", {"exclude_state": True}, "groot_n1_7_pack_inputs_v1: exclude_state True, expected False"),
        (False, "pack", {"use_mean_std": True}, "groot_n1_7_pack_inputs_v1: use_mean_std True, expected False"),
        (True, "pack", {"state_horizon": 2}, "groot_n1_7_pack_inputs_v1: state_horizon 2, expected 1"),
        (True, "pack", {"gain": 3}, r"groot_n1_7_pack_inputs_v1: unknown fields \['gain'\]"),
        (False, "encode", {"rotate": 1}, r"groot_n1_7_vlm_encode_v1: unknown fields \['rotate'\]"),
        (True, "decode", {"libero_gripper_action": True}, r"decode_v1: unknown fields \['libero_gripper_action'\]"),
        (True, "decode", {"action_decode_transform": "libero"}, "action_decode_transform 'libero', expected None"),
        (False, "decode", {"libero_gripper_action": True}, "v2: libero_gripper_action True, expected False"),
    ],
)
def test_fields_of_lerobots_steps_are_honoured_or_refused(groups, step, said, message, tmp_path):
    refused(lerobot_folder(tmp_path / "n", groups=groups, **{step: said}), message)


def test_a_tag_that_lerobot_does_not_know_is_number_zero(tmp_path):
    folder = lerobot_folder(tmp_path / "n", {"embodiment_tag": "my_robot"}, groups=False)
    loaded = load(folder, robot=ROBOT)
    assert (loaded.policy.config.embodiment_tag, loaded.policy.config.embodiment) == ("my_robot", 0)
    said = describe(folder)["notes"]
    assert "embodiment_tag 'my_robot' is not one of ['libero_sim', 'new_embodiment']: number 0" in said
    known = load(lerobot_folder(tmp_path / "k", groups=False), robot=ROBOT)
    assert known.policy.config.embodiment == 10
    refused(folder, "embodiment_tag 'my_robot', expected one of", overrides={"embodiment_tag": "my_robot"})


def test_an_adapter_over_lerobots_folder_takes_its_sizes_from_the_base(tmp_path):
    base = make_lerobot(tmp_path / "base")
    adapter = shutil.copytree(base, tmp_path / "adapter", ignore=shutil.ignore_patterns("model.safetensors"))
    key = "action_head.model.transformer_blocks.0.attn1.to_q.weight"
    old = load_file(base / "model.safetensors")[f"_groot_model.{key}"]
    a, b = torch.ones(2, old.shape[1]), torch.ones(old.shape[0], 2)
    stem = f"{PREFIX}_groot_model.{key.removesuffix('.weight')}"
    save_file({f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}, adapter / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "someone/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    plain, merged = load(base, robot=ROBOT).policy, load(adapter, robot=ROBOT, base=base).policy
    changed = [name for name, value in merged.state_dict().items() if not torch.equal(value, plain.state_dict()[name])]
    assert len(changed) == 1
    moved = merged.state_dict()[changed[0]] - plain.state_dict()[changed[0]]
    assert float(moved.max()) == pytest.approx(2.0, abs=1e-5) and "generation" in describe(adapter, base=base)
