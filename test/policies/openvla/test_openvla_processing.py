"""Images, action tokens, normalisation and prompts against the published code's."""

from dataclasses import replace

import golden_vectors
import numpy as np
import openvla_folders
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.policies import load
from vla_ros.policies.images import FITS, centre, cover, letterbox, resize_bicubic, resize_lanczos
from vla_ros.policies.normalisation import Normalisation
from vla_ros.policies.openvla import tokens
from vla_ros.policies.openvla.config import PROMPTS

VECTORS, SAID, _ = golden_vectors.load("openvla_processing")
IMAGE = VECTORS["image"].numpy()


@pytest.mark.parametrize(("fit", "name"), [
    (resize_bicubic, "resize_naive"), (letterbox, "letterbox"), (cover, "resize_crop"),
])
def test_resized_bytes_are_identical(fit, name):
    assert np.array_equal(fit(IMAGE, 224, 224), VECTORS[f"{name}_uint8_siglip"].numpy())
    assert np.array_equal(fit(fit(IMAGE, 224, 224), 224, 224), fit(IMAGE, 224, 224))


@pytest.mark.parametrize(("fit", "name", "stats"), [
    (resize_bicubic, "resize_naive_pixel_values_subsampled", "image_processor"),
    (resize_bicubic, "resize_naive_bf16stats_subsampled", "image_processor_bf16stats"),
    (letterbox, "letterbox_pixel_values_subsampled", "image_processor"),
    (cover, "resize_crop_pixel_values_subsampled", "image_processor"),
])  # fmt: skip
def test_pixels_are_normalised_by_the_folders_numbers_for_each_tower(tmp_path, fit, name, stats):
    path = openvla_folders.write(tmp_path / "theirs", means=SAID[stats]["means"], stds=SAID[stats]["stds"])
    policy = load(path).policy
    pixels = torch.from_numpy(fit(IMAGE, 224, 224).transpose(2, 0, 1).copy())[None, None]
    ours = policy._normalised(pixels)[0, 0].flatten(0, 1)
    known = VECTORS[name]
    step = 224 // known.shape[-1]
    torch.testing.assert_close(ours[:, ::step, ::step], known, rtol=0, atol=1e-6)


def test_the_central_crop_is_identical_and_lanczos_nearly():
    assert np.array_equal(
        centre(VECTORS["policy_resized"].numpy(), 224, 224), VECTORS["center_cropped"].numpy()
    )
    ours = centre(VECTORS["jpeg_roundtrip"].numpy(), 224, 224).astype(int)
    off = np.abs(ours - VECTORS["center_cropped"].numpy())
    assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_through_jpeg():
    ours = FITS["jpeg"].resize(IMAGE, 224, 224).astype(int)
    away = np.abs(ours - VECTORS["policy_resized"].numpy())
    without = np.abs(resize_lanczos(IMAGE, 224, 224) - VECTORS["policy_resized"].numpy().astype(int))
    # The same file; TensorFlow decodes it by another transform.
    assert away.max() <= 10 and away.mean() < 1.5 and without.max() > 30 and without.mean() > 3 * away.mean()
    kept = VECTORS["policy_resized"].numpy()
    assert FITS["jpeg"].resize(kept, 224, 224) is kept
    assert np.array_equal(FITS["jpeg_centre"].resize(kept, 224, 224), VECTORS["center_cropped"].numpy())
    cropped = FITS["jpeg_centre"].resize(IMAGE, 224, 224).astype(int) - VECTORS["center_cropped"].numpy()
    assert np.abs(cropped).max() <= 10


def test_action_tokens():
    for values, ids in (("token_values", "token_ids"), ("token_values_f32", "token_ids_f32")):
        assert torch.equal(tokens.encode(VECTORS[values], 32000), VECTORS[ids])
    np.testing.assert_array_equal(tokens.decode(VECTORS["decode_ids"].numpy(), 32000), VECTORS["decode_values"].numpy())
    actions = torch.linspace(-1.5, 1.5, 3001, dtype=torch.float64)
    back = tokens.decode(tokens.encode(actions, 32000).numpy(), 32000)
    assert np.abs(back - actions.clamp(-1, 1).numpy()).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(("mode", "name"), [
    ("quantiles", "bounds_q99"), ("min_max", "bounds"), ("mean_std", "normal"),
])  # fmt: skip
@pytest.mark.parametrize("feature", ["action", "proprio"])
def test_normalisation_of_the_data(mode, name, feature):
    rows = {key.rsplit("_", 1)[1]: value.double().numpy() for key, value in VECTORS.items()
            if key.startswith(f"norm_meta_{feature}_")}
    known = VECTORS[f"norm_{name}_{feature}"].numpy()
    for style in ("openvla", "openvla_oft"):
        normalisation = Normalisation(mode, rows, style)
        ours = normalisation.normalise(VECTORS[f"norm_{feature}_in"].numpy())
        np.testing.assert_allclose(ours, known, atol=2e-6)
        flat = rows["min"] == rows["max"]
        kept = (np.abs(ours) < 1) & ~flat
        back = normalisation.restore(ours)
        np.testing.assert_allclose(back[kept], VECTORS[f"norm_{feature}_in"].numpy()[kept], atol=1e-7)


def test_restoring_adds_what_each_generation_adds():
    rows = {"q01": np.array([0.0, 0.0]), "q99": np.array([2.0, 2.0]), "mask": np.array([1.0, 0.0])}
    x = np.array([1.0, 1.0])
    assert Normalisation("quantiles", rows, "openvla").restore(x).tolist() == [2.0, 1.0]
    assert Normalisation("quantiles", rows, "openvla_oft").restore(x).tolist() == [2.0 + 1e-8, 1.0]


def test_prompts():
    for row in SAID["prompts"]:
        for kind, name in (("openvla", "prompt"), ("vicuna", "prompt_v01")):
            assert PROMPTS[kind].format(row["instruction"].lower()) == row[name]


class Asked:
    """Llama's tokenizer, of these prompts alone."""

    special, bos, words = frozenset(), 1, 0

    def encode(self, text):
        found = [row[ids][1:] for row in SAID["prompts"] for prompt, ids in PROMPT_IDS if row[prompt] == text]
        return list(found[0]) if found else [7]  # the end of the prompt alone, which is asked where one is too long


PROMPT_IDS = (("prompt", "ids"), ("prompt_v01", "ids_v01"))


@pytest.mark.parametrize(("kind", "name"), [("openvla", "ids"), ("vicuna", "ids_v01")])
def test_ids_of_prompts(tmp_path, kind, name):
    processor = load(openvla_folders.write(tmp_path / "theirs"), overrides={"prompt": kind}).processor
    asked = replace(processor, tokenizer=Asked())
    for row in SAID["prompts"]:
        assert asked.prompt_ids(row["instruction"]) == row[name]


@pytest.mark.parametrize(("gripper", "name"), [("opening", "in"), ("binary", "binarized"), ("libero", "inverted")])
def test_grippers(tmp_path, gripper, name):
    processor = load(openvla_folders.write(tmp_path / "theirs"), overrides={"gripper": gripper}).processor
    as_they_are = replace(processor, actions=Normalisation("identity", {}))
    (targets,) = as_they_are.outputs(VECTORS["eval_gripper_in"][None], [None])
    np.testing.assert_allclose(targets.parts[0].data, VECTORS[f"eval_gripper_{name}"].numpy(), atol=1e-12)
    half = torch.full((1, 1, 7), 0.5)
    assert as_they_are.outputs(half, [None])[0].parts[0].data[0, -1] == (0.5 if gripper == "opening" else 0)
    if gripper != "opening":
        with pytest.raises(InputError, match=f"gripper '{gripper}' with joint positions, expected 'opening'"):
            replace(processor.config, space="joint_position")
        assert "leave overrides.gripper out" in processor.config.unserved


def test_jpeg_is_an_override(tmp_path):
    path = openvla_folders.write(tmp_path / "theirs")
    assert load(path, overrides={"jpeg": True}).processor.fit == "jpeg"
    assert load(path, overrides={"jpeg": True, "centre_crop": True}).processor.fit == "jpeg_centre"
    assert load(path, overrides={"jpeg": False}).processor.fit == load(path).processor.fit == "bicubic"
    with pytest.raises(InputError, match="overrides.jpeg: 'no', expected true or false"):
        load(path, overrides={"jpeg": "no"})
