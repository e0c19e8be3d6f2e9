"""States and actions in groups, against the original code's normalisers and LeRobot's packing and decoding."""


import golden_vectors
import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.records import record
from vla_ros.core.rotations import SIZES, from_matrix, to_matrix
from vla_ros.policies.groot.groups import (
    Group,
    bounds,
    by_name,
    check_references,
    check_statistics,
    regrouped,
    to_network,
    to_robot,
)
from vla_ros.policies.groot.images import PATHS, prepared
from vla_ros.policies.groot.metadata import from_modalities
from vla_ros.policies.options import ACTION, STATE


@pytest.fixture(scope="module")
def normalisers():
    tensors, _, _ = golden_vectors.load("groot_normalisers")
    tensors = {name: value.double().numpy() for name, value in tensors.items()}
    return tensors, {name: tensors[f"stat_{name}"] for name in ("min", "max", "mean", "std", "q01", "q99")}


@pytest.mark.parametrize(
    ("theirs", "group"),
    [("n15_min_max", Group("a", 5, "min_max")), ("n15_q99", Group("a", 5, "q99")),
     ("n15_mean_std", Group("a", 5, "mean_std")), ("n15_binary", Group("a", 5, "binary")),
     ("n15_scale", Group("a", 5, "scale")), ("n16_minmax", Group("a", 5, clip_back=True)),
     ("n16_minmax_clipped", Group("a", 5, clip=True)), ("n16_meanstd", Group("a", 5, "mean_std_passed")),
     ("n16_per_step_minmax", Group("a", 5, clip_back=True, rows=6)), ("n16_sincos", Group("a", 5, "sin_cos"))],
)
def test_every_mode_of_the_original(normalisers, theirs, group):
    tensors, rows = normalisers
    if group.rows:
        rows = {name: tensors[f"step_{name}"].reshape(-1) for name in ("min", "max")}
    check_statistics([group], {name: rows[name] for name in rows}, "state")
    got = to_network([group], tensors["x"], rows)
    np.testing.assert_allclose(got, tensors[theirs], atol=2e-6)
    inverse = tensors.get(f"{theirs}_inverse")
    if inverse is not None:
        np.testing.assert_allclose(to_robot([group], tensors["normalised"], rows), inverse, atol=2e-6)


@pytest.fixture(scope="module")
def packing():
    tensors, said, _ = golden_vectors.load("lerobot_groot_n17_processor")
    return {name: value.numpy() for name, value in tensors.items()}, said


SWITCHES = {"use_percentiles": True, "clip_outliers": True, "use_relative_action": True}


def described(said, which="modality_config"):
    fields, statistics = from_modalities(said[which], said["raw_stats"], SWITCHES, "test")
    check_references(fields["action_groups"], fields["state_groups"])
    return fields, statistics


def test_poses_joints_and_grippers_relative_and_absolute_as_lerobot_decodes_them(packing):
    tensors, said = packing
    fields, statistics = described(said)
    states, actions = fields["state_groups"], fields["action_groups"]
    assert [(g.size, g.relative, g.rows) for g in actions] == [(9, "pose", 4), (3, "joints", 4), (1, "", 0)]
    state = tensors["state"].astype(np.float64)
    packed = to_network(states, state[:, None], statistics[STATE])
    np.testing.assert_allclose(packed, tensors["packed_state"][..., :13], atol=2e-6)
    assert not tensors["packed_state"][..., 13:].any()
    valid = fields["valid_rows"]
    answer = tensors["model_actions"][:, :valid, :13].astype(np.float64)
    got = to_robot(actions, answer, statistics[ACTION], by_name(states, state))
    np.testing.assert_allclose(got, tensors["decoded_actions"], atol=1e-5)
    again = to_network(actions, got, statistics[ACTION], by_name(states, state))
    back = to_robot(actions, again, statistics[ACTION], by_name(states, state))
    np.testing.assert_allclose(back[..., 9:], got[..., 9:], atol=1e-9)  # whole chunks, row by row, there and back


def test_relative_joints_as_lerobot_packs_them_for_training(packing):
    tensors, said = packing
    fields, statistics = described(said, "modality_config_joints")
    states, actions = fields["state_groups"], fields["action_groups"]
    state = tensors["joint_state"].astype(np.float64)
    np.testing.assert_allclose(
        to_network(states, state[:, None], statistics[STATE]), tensors["packed_joint_state"][..., :4], atol=2e-6
    )
    got = to_network(actions, tensors["joint_actions"].astype(np.float64), statistics[ACTION], by_name(states, state))
    kept = tensors["packed_joint_mask"][:, :4, :4].astype(bool)
    np.testing.assert_allclose(got[kept], tensors["packed_joint_actions"][:, :4, :4][kept], atol=2e-6)


@pytest.mark.parametrize("which", ["wide", "tall"])
@pytest.mark.parametrize(
    ("theirs", "path"), [("torch", "square"), ("letterbox", "letterbox_square"), ("albumentations", "shortest")]
)
def test_images_of_n1_7(packing, which, theirs, path):
    tensors, said = packing
    crop = said["image"]["crop_fraction"] if path == "shortest" else 29 / 32
    got = PATHS[path](tensors[f"image_{which}"], (32, 32), crop)
    expected = tensors[f"image_{which}_{theirs}"]
    np.testing.assert_array_equal(got, expected if path == "shortest" else expected.transpose(1, 2, 0))


def test_images_of_n1_to_n1_6():
    tensors, _, _ = golden_vectors.load("groot_go1_preprocessing")
    tensors = {name: value.numpy() for name, value in tensors.items()}
    for number in (0, 1):
        frame = tensors[f"raw_{number}"]
        for path, crop in (("isaac", 0.95), ("lerobot", 1.0)):
            got = prepared(frame, path, (224, 224), crop, 14)
            np.testing.assert_array_equal(got, tensors[f"n15_{path}_frame_{number}"])
        np.testing.assert_array_equal(PATHS["letterbox"](frame, (256, 256), 0.95), tensors[f"n16_frame_{number}"])
    got = prepared(tensors["raw_0"], "letterbox", (256, 256), 0.95, 28)
    np.testing.assert_array_equal(got, tensors["n16_model_input_0"])
    np.testing.assert_array_equal(prepared(tensors["raw_1"], "pil", (224, 224), 1, 28), tensors["n1_frame_of_raw_1"])


@pytest.mark.parametrize(
    ("values", "message"),
    [(dict(mode="max"), "mode 'max'"), (dict(rotation="rotvec"), "rotation as 'rotvec'"),
     (dict(rotation="vector", size=4), "4 numbers, a rotation as vector has 3"), (dict(relative="pose"), "9"),
     (dict(relative="elbow"), "relative 'elbow'")],
)
def test_groups_that_cannot_be_are_named(values, message):
    with pytest.raises(InputError, match=message):
        record(Group, {"name": "arm", "size": 6} | values)


@pytest.mark.parametrize(("form", "seen", "most"), [
    ("euler_xyz", "rotation_6d_rows", 1.0), ("quaternion_wxyz", "vector", np.pi), ("vector", "euler_zyx", np.pi),
])
def test_a_rotation_is_seen_in_another_form_and_comes_back(form, seen, most):
    group = Group("wrist", SIZES[form], rotation=form, seen=seen)
    rows = {name: np.array(values) for name, values in bounds(group).items()}
    check_statistics([group], rows, "state")
    turns = to_matrix(np.random.default_rng(0).uniform(-1, 1, (2, 5, 3)), "vector")
    y = to_network([group], from_matrix(turns, form), rows)
    np.testing.assert_allclose(y, from_matrix(turns, seen) / most, atol=1e-12)
    np.testing.assert_allclose(to_matrix(to_robot([group], y, rows), form), turns, atol=1e-9)


@pytest.mark.parametrize(("said", "message"), [
    ("quaternion", "numbers that are no rotation as quaternion_wxyz, expected a rotation"),
    ("min_max identity", "'min_max identity', expected one of"),
    ("axis_angle rotation_6d", "'axis_angle rotation_6d', expected one of"),
    ("rotvec", "mode 'rotvec', expected one of"),
])
def test_what_a_policy_file_says_of_a_group_is_checked(said, message):
    with pytest.raises(InputError, match=message):
        regrouped([Group("arm", 3)], {"arm": said}, "overrides.state_groups")
    with pytest.raises(InputError, match="mean_std vector as rotation_6d_rows, expected .* mode min_max or identity"):
        regrouped([Group("arm", 3, rotation="vector")], {"arm": "rotation_6d mean_std"}, "overrides.state_groups")
    with pytest.raises(InputError, match="mode identity: it is a difference"):
        regrouped([Group("arm", 3, rotation="vector", difference=True)], {"arm": "rotation_6d min_max"}, "x")


def test_references_and_statistics_that_are_missing_are_named():
    arm = Group("arm", 3, relative="joints", reference="joints")
    with pytest.raises(InputError, match="action 'arm' is relative to the state 'joints', expected one of 3"):
        check_references([arm], [Group("arm", 3)])
    with pytest.raises(InputError, match="mode sin_cos, expected one with an inverse"):
        check_references([Group("arm", 3, "sin_cos")], [])
    with pytest.raises(InputError, match="state 'arm' is normalised by percentiles: 0 numbers of 'q01'"):
        check_statistics([Group("arm", 3, "percentiles")], {"min": np.zeros(3)}, "state")
