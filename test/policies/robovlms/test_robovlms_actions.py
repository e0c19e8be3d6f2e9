"""Actions of RoboVLMs against the published code's, and what the guide says of them."""

from types import SimpleNamespace

import golden_vectors
import numpy as np
import pytest
import torch
from training_data import REPOSITORY

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.policies.normalisation import Normalisation
from vla_ros.policies.robovlms.actions import (
    BEHIND,
    Discretiser,
    Normaliser,
    chunks,
    grips,
    mu_law,
    opened,
    to_tool,
    to_world,
)
from vla_ros.training.samples import Samples

VECTORS, SAID, _ = golden_vectors.load("robovlms_actions")


def known(name: str) -> np.ndarray:
    return VECTORS[name].numpy()


def equal(ours, theirs, atol=1e-12):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["065", "asym"])
@pytest.mark.parametrize("kept", [False, True])
def test_bounds(name, kept):
    normaliser = Normaliser(*SAID["norm"][name], gripper=not kept)
    suffix = "keep" if kept else "all"
    actions = known("action").copy()
    ours = normaliser.normalise(actions)
    equal(ours, known(f"normalized_{name}_{suffix}"))
    equal(normaliser.inverse(ours), known(f"unnormalized_{name}_{suffix}"))
    equal(actions, known("action"))  # untouched


def test_quantiles_then_bounds_as_the_policies_of_open_x_embodiment():
    low, high = np.array([-0.02, -0.1, 0.0]), np.array([0.03, 0.1, 1.0])
    twice = Normaliser(low, high, (-0.65, 0.65))
    first, second = Normaliser(low, high, gripper=True), Normaliser(-0.65, 0.65)
    actions = np.array([[0.01, -0.05, 0.0], [0.5, 0.02, 1.0], [-0.019, 0.0, 1.0]])
    ours = twice.normalise(actions)
    equal(ours, second.normalise(first.normalise(actions)))
    assert ours[:, -1].tolist() == [-1, 1, 1]  # the gripper, 0 or 1 in the data, is not stretched beyond
    # By hand: 0.01 lies 0.2 above the middle of half-width 1, and 0.2 / 0.65 of the bounds.
    assert ours[0, 0] == pytest.approx(0.2 / 0.65) and ours[1, 0] == 1
    cut = np.clip(actions, low + 0.175 * (high - low), high - 0.175 * (high - low))
    equal(twice.inverse(ours)[:, :-1], cut[:, :-1])
    equal(twice.inverse(ours)[:, -1], actions[:, -1])


@pytest.mark.parametrize(("low", "high", "bounds"), [
    (0.65, -0.65, None), (0.0, 0.0, None), (float("nan"), 1.0, None), ([0.0, 0.0], [1.0, 0.0], None),
    (-1.0, 1.0, (0.5, 0.5)),
])  # fmt: skip
def test_bounds_that_are_none(low, high, bounds):
    with pytest.raises(InputError, match="expected finite numbers, the first smaller"):
        Normaliser(np.array(low), np.array(high), bounds)


def test_mu_law_keeps_the_gripper():
    one, two = known("mulaw_in_1d"), known("mulaw_in_2d")
    equal(mu_law(one, SAID["mu"]), known("mulaw_1d"))
    equal(mu_law(known("mulaw_1d"), SAID["mu"], inverse=True), known("mulaw_inverse_1d"))
    ours, theirs = mu_law(two), known("mulaw_2d")
    equal(ours, [mu_law(row) for row in two])
    # Published, the last row of an array stays as it is, and grippers do not.
    equal(ours[:-1, :-1], theirs[:-1, :-1])
    equal(theirs[-1], two[-1])
    assert not np.allclose(ours[-1, :-1], two[-1, :-1]) and not np.allclose(theirs[:-1, -1], two[:-1, -1])
    equal(ours[:, -1], two[:, -1])


def test_mean_and_deviation_keep_the_gripper():
    rows = {"mean": known("reg_mean"), "std": known("reg_std"), "mask": np.array([1.0] * 6 + [0.0])}
    normalisation = Normalisation("mean_std", rows, "openpi")
    one, two = known("mulaw_in_1d"), known("mulaw_in_2d")
    equal(normalisation.normalise(one), known("regularized_1d"))
    equal(normalisation.restore(known("regularized_1d")), known("unregularized_1d"))
    ours, theirs = normalisation.normalise(two), known("regularized_2d")
    equal(ours[:-1, :-1], theirs[:-1, :-1])
    equal(theirs[-1], two[-1])  # published, the last row is kept, and so wrong
    assert not np.allclose(ours[-1, :-1], theirs[-1, :-1])
    equal(ours[:, -1], two[:, -1])


def discretiser(name: str) -> Discretiser:
    said = SAID["tokenizer"]
    low, high = (-1, 1) if name == "bins256" else (SAID["bins64"]["min"], SAID["bins64"]["max"])
    return Discretiser(int(name.removeprefix("bins")), low, high, said["vocab_size"], said["special_tokens_count"])


@pytest.mark.parametrize("name", ["bins256", "bins64"])
def test_action_tokens(name):
    ours, said = discretiser(name), SAID["tokenizer"]
    assert (BEHIND, ours.end) == (said["offset"], said["orig_size"])
    ids = ours.ids(VECTORS["discretiser_in"])
    assert torch.equal(ids, VECTORS[f"{name}_ids"])
    assert torch.equal(ours.ids(known("discretiser_in")), ids)
    assert ids.min() >= ours.first and ids.max() < ours.end
    equal(ours.values(ids), known(f"{name}_decoded"))
    equal(ours.values(VECTORS[f"{name}_all_ids"]), known(f"{name}_all_values"))
    if name == "bins256":
        assert ours.first == said["begin_idx"] + 1 and ours.end == said["end_idx"]
        within = np.linspace(-1, 1, 5001)
        assert np.abs(ours.values(ours.ids(within)) - within).max() <= 1 / 255 + 1e-12


def test_the_guides_tokens_are_others():
    values = known("discretiser_in")
    guide = np.floor((np.clip(values, -1, 1) + 1) * 255 / 2)
    equal(guide, known("guide_discretiser_index"))
    ours = discretiser("bins256")
    ids = ours.ids(values).numpy()
    equal(ours.end - 1 - ids, guide)  # the same bins, counted from the other end
    middle = np.abs(values) < 0.9
    assert (np.abs(ours.values(ours.first + guide[middle]) - values[middle]) > np.abs(values[middle])).mean() > 0.9


@pytest.mark.parametrize(("change", "words"), [
    ({"bins": 1}, "1 bins"), ({"low": 1.0}, "1 bins|bins from 1.0"), ({"high": float("inf")}, "to inf"),
    ({"vocabulary": 272}, "this has 272"), ({"special": -1}, "expected a vocabulary"),
])  # fmt: skip
def test_tokens_that_cannot_be(change, words):
    Discretiser(256, -1.0, 1.0, 273, 7)
    with pytest.raises(InputError, match=words):
        Discretiser(**{"bins": 256, "low": -1.0, "high": 1.0, "vocabulary": 273, "special": 7} | change)


def test_frames():
    actions, rotations = known("frame_action"), known("frame_robot_obs")[..., 3:6]
    tool = to_tool(actions, rotations)
    equal(tool, known("tcp_action"), 2e-5)  # theirs in float32, rotations times 100
    equal(to_world(known("tcp_action"), rotations), known("world_action_again"), 3e-5)
    equal(to_world(tool, rotations), actions, 1e-9)


def test_a_turn_across_the_half_circle_stays_small():
    rotations = np.array([[np.pi - 0.001, 0.1, 0.2]])
    actions = np.array([[0.0, 0, 0, 0.5, 0, 0, 1]])
    equal(to_world(to_tool(actions, rotations), rotations), actions, 1e-9)


def test_grippers():
    logits = np.array([-3.0, -1e-3, 1e-3, 4.0])
    ours = grips(logits)
    assert ours.tolist() == [-1, -1, 1, 1]
    asked = (1 / (1 + np.exp(-logits)) > 0.5).astype(float)
    for low, high in ((-0.65, 0.65), (-0.4, 0.8)):  # the published way to it, of CALVIN
        assert (np.sign((0.5 * (asked + 1) * (high - low) + low - 0.5) * 2) == ours).all()
    # and of Open X-Embodiment, whose gripper's quantiles are 0 and 1: above 0.5 is open
    again = 0.5 * ((0.5 * (asked + 1) * 1.3 - 0.65 - 0.5) * 2 + 1)
    assert (np.where(again > 0.5, 1, -1) == ours).all()
    told = np.array([1, -1, 1, 1, 1, -1, 1, -1])
    assert opened(told).tolist() == [-1, -1, -1, 1, 1, -1, -1, -1]
    assert opened(told, 1).tolist() == told.tolist() and opened(told[:0]).shape == (0,)


def test_chunks():
    assert torch.equal(chunks(VECTORS["chunk_in"], 4, 3), VECTORS["chunk_w4_c3"])
    assert torch.equal(chunks(VECTORS["tensor_chunk_in"][None], 4, 3)[0], VECTORS["tensor_chunk_3"])
    assert chunks(torch.zeros(2, 4, 5), 1, 4).shape == (2, 1, 4, 5)


@pytest.mark.parametrize(("window", "chunk", "length"), [(4, 3, 6), (1, 2, 5)])
def test_the_trainers_windows_are_theirs(tmp_path, window, chunk, length):
    robot = RobotSpec.load(REPOSITORY / "config/robots/so101.yaml")
    writer = DatasetWriter(tmp_path / "data", robot, fps=10)
    images = np.zeros((length, 16, 16, 3), np.uint8)
    for episode in range(2):
        rows = (10 * episode + np.arange(length))[:, None] * np.full(6, 0.01)
        writer.add_episode({"front": images, "wrist": images}, rows, rows, "go")
    writer.finish()
    dataset = Dataset(tmp_path / "data")
    processor = SimpleNamespace(
        joints=dataset.joint_names, cameras=(), streams=(), step_dt=0.1, first_action_step=1 - window, horizon=chunk,
        steps=lambda training: {"joint_states": tuple(range(1 - window, 1))},
    )
    samples = Samples(dataset, dataset.episodes, processor).get(length + np.arange(length))
    for padded in (True, False):
        name = f"episode_w{window}_c{chunk}_L{length}_pad{int(padded)}"
        if f"{name}_index" not in VECTORS:
            continue
        index, mask = known(f"{name}_index")[:, :-1] - 100, known(f"{name}_mask")[:, :-1]  # they drop the last
        ours = samples if padded else samples[window - 1 :]
        assert len(ours) == len(index)
        for sample, row, real in zip(ours, index, mask, strict=True):
            equal(sample.actions[:, 0], 0.1 + 0.01 * row, 1e-6)
            equal(sample.state[:, 0], 0.1 + 0.01 * row[:window], 1e-6)
            assert (sample.action_is_pad == ~real).all()
