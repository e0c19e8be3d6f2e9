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
from vla_ros.policies.robovlms.actions import BEHIND, Discretiser, chunks, mu_law
from vla_ros.training.samples import Samples

VECTORS, SAID, _ = golden_vectors.load("robovlms_actions")


def known(name: str) -> np.ndarray:
    return VECTORS[name].numpy()


def equal(ours, theirs, atol=1e-12):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=atol)


def bounds(low, high, kept: bool) -> Normalisation:
    """Of actions within [low, high], the gripper among them or not."""
    rows = {"q01": np.broadcast_to(low, 7), "q99": np.broadcast_to(high, 7)}
    return Normalisation("quantiles", rows | {"mask": np.array([1.0] * 6 + [1.0 - kept])}, "openvla")


@pytest.mark.parametrize("name", ["065", "asym"])
@pytest.mark.parametrize("kept", [False, True])
def test_bounds(name, kept):
    normalisation, suffix = bounds(*SAID["norm"][name], kept), "keep" if kept else "all"
    ours = normalisation.normalise(known("action"))
    equal(ours, known(f"normalized_{name}_{suffix}"), 2e-8)  # 1e-8 against a width of zero
    equal(normalisation.restore(known(f"normalized_{name}_{suffix}")), known(f"unnormalized_{name}_{suffix}"))


def test_two_normalisations_are_one():
    rng = np.random.default_rng(0)
    first, last = np.sort(rng.normal(size=(2, 7)), axis=0)
    actions = rng.normal(size=(500, 7))
    low, high = SAID["norm"]["asym"]
    once = np.clip(2 * (np.clip(actions, first, last) - first) / (last - first) - 1, low, high)
    twice = 2 * (once - low) / (high - low) - 1
    centre, half = (first + last) / 2, (last - first) / 2
    ours = bounds(centre + low * half, centre + high * half, kept=False)
    equal(ours.normalise(actions), twice, 1e-6)
    back = 0.5 * (0.5 * (twice + 1) * (high - low) + low + 1) * (last - first) + first
    equal(ours.restore(twice), back)


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
