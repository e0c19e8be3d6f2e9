"""Which frames and commands a sample holds, and that training sees what serving sees."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from families import FAMILIES, fresh
from training_data import write_dataset

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.datasets.check import check
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies.processor import Processor
from vla_ros.runtime.history import make_sample
from vla_ros.training.config import AugmentationConfig
from vla_ros.training.samples import Samples, chosen, split


class Reader(Processor):
    def __init__(self, **fields):
        vars(self).update(fields)

    def inputs(self, samples): ...
    def outputs(self, answer, samples): ...
    def normalise(self, targets, samples): ...


def processor(dataset, **changes):
    return Reader(**(dict(joints=dataset.joint_names, cameras=("wrist",), step_dt=0.1, horizon=4) | changes))


def test_rows_follow_the_frame_and_stop_at_the_end(dataset):
    data = Dataset(dataset)
    episode = data.episodes[1]
    samples = Samples(data, [episode], processor(data))
    assert len(samples) == episode.length
    middle, near_end = samples.get(np.array([3, episode.length - 2]))
    np.testing.assert_array_equal(middle.actions, data.actions[episode.start + 3 : episode.start + 7])
    np.testing.assert_array_equal(middle.state, data.states[episode.start + 3][None])
    np.testing.assert_array_equal(middle.images["wrist"], data.frames("wrist")[episode.start + 3][None])
    assert set(middle.images) == {"wrist"} and middle.instruction == episode.instruction
    assert not middle.action_is_pad.any()
    np.testing.assert_array_equal(near_end.actions[1:], np.repeat(data.actions[episode.stop - 1][None], 3, axis=0))
    assert near_end.action_is_pad.tolist() == [False, False, True, True]


def test_frames_of_persons_are_drawn_as_often_as_asked(tmp_path):
    data = Dataset(write_dataset(tmp_path / "d", episodes=4, marked=True))
    samples = Samples(data, data.episodes[1:], processor(data), corrections=4.0)
    first, count = data.episodes[1].start, len(samples)
    by_person = data.by_person[first:]
    assert 0 < by_person.sum() < count
    shares = np.where(by_person, 4.0, 1.0)
    for epoch in range(2):
        order = samples.order(7, epoch * count, count)
        drawn = np.bincount(order, minlength=count)
        assert (np.abs(drawn - shares / shares.sum() * count) < 1).all()
        assert not np.array_equal(order, np.sort(order))
    assert np.array_equal(samples.order(7, count - 5, 10)[5:], samples.order(7, count, 5))  # whatever is asked together
    plain = Samples(data, data.episodes[1:], processor(data)).order(7, 0, count)
    assert sorted(plain) == list(range(count))
    data = Dataset(write_dataset(tmp_path / "none", episodes=2))
    with pytest.raises(InputError, match="corrections 4, but no training frame was commanded by a person"):
        Samples(data, data.episodes, processor(data), corrections=4.0)


def test_episodes_of_an_outcome(tmp_path, capsys):
    data = Dataset(write_dataset(tmp_path / "d", episodes=4, marked=True))
    assert [episode.index for episode in chosen(data, "failure")] == [1, 3]
    assert chosen(data, "") == data.episodes
    with pytest.raises(InputError, match="no episode with the outcome aborted, it has 2 failure, 2 success"):
        chosen(data, "aborted")
    table = data.path / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["outcome"]), table)  # LeRobot's: `next.success` alone
    assert [episode.index for episode in chosen(Dataset(data.path), "failure")] == [1, 3]
    for command in (["check", "--rows-only"], ["show", "-o", ""]):
        assert vla_ros(["dataset", *command, str(data.path)]) == 0
        told = capsys.readouterr().out
        assert "outcomes: 2 failure, 2 success" in told and "unknown" not in told
    assert [one.episode for one in check(Dataset(data.path), pictures=False) if one.kind == "outcome"] == [1, 3]


def test_histories_and_past_rows_stop_at_the_start(dataset):
    data = Dataset(dataset)
    first, second = data.episodes[:2]
    samples = Samples(data, [first, second], processor(data, n_obs_steps=3, first_action_step=-2, horizon=2))
    (sample,) = samples.get(np.array([first.length + 1]))  # the second frame of the second episode
    rows = [second.start, second.start, second.start + 1]
    np.testing.assert_array_equal(sample.state, data.states[rows])
    np.testing.assert_array_equal(sample.images["wrist"], data.frames("wrist")[rows])
    np.testing.assert_array_equal(sample.actions, data.actions[[*rows, second.start + 2]])
    assert sample.action_is_pad.tolist() == [True, False, False, False]


def test_a_slower_policy_takes_every_other_frame(dataset):
    data = Dataset(dataset)
    samples = Samples(data, data.episodes[:1], processor(data, step_dt=0.2, n_obs_steps=2))
    (sample,) = samples.get(np.array([4]))
    np.testing.assert_array_equal(sample.actions, data.actions[[4, 6, 8, 10]])
    np.testing.assert_array_equal(sample.state, data.states[[2, 4]])
    with pytest.raises(InputError, match="10.0 Hz does not divide"):
        Samples(data, data.episodes, processor(data, step_dt=0.15))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frame", [0, 7])
def test_training_and_serving_see_the_same(dataset, family, frame):
    """A sample of the dataset and one made of observations of these instants give the same inputs, byte for byte."""
    data, chosen = Dataset(dataset), fresh(family).processor
    text = data.episodes[0].instruction
    (trained,) = Samples(data, data.episodes, chosen).get(np.array([frame]))
    images = {camera: data.frames(camera) for camera in data.camera_names}
    seen = [
        Observation(k, {camera: frames[k] for camera, frames in images.items()}, data.states[k].astype(float), text)
        for k in range(frame + 1)
    ]
    past = chosen.steps()["joint_states"][0] - chosen.steps(training=True)["joint_states"][0]  # a window in training
    served = [chosen.inputs([make_sample(seen[: max(frame - k, 0) + 1], chosen, text)]) for k in range(past, -1, -1)]
    one, two = chosen.inputs([trained]), served[-1]
    of_training = {"action_tokens", "action_token_mask", "remaining", "success"}
    assert set(one) - of_training == {*two, "actions", "action_is_pad"}
    for name in two:
        theirs = torch.cat([batch[name] for batch in served], dim=1) if past and two[name].dim() > 2 else two[name]
        assert one[name].numpy().tobytes() == theirs.numpy().tobytes(), name


def test_every_frame_comes_once_an_epoch(dataset):
    data = Dataset(dataset)
    samples = Samples(data, data.episodes[:3], processor(data))
    count = len(samples)
    sequence = np.concatenate([samples.order(0, first, 5) for first in range(0, 2 * count, 5)])[: 2 * count]
    assert sorted(sequence[:count]) == sorted(sequence[count:]) == list(range(count))
    assert sequence[:count].tolist() != sequence[count:].tolist()
    np.testing.assert_array_equal(samples.order(0, count - 3, 7), sequence[count - 3 : count + 4])


def test_augmented_images_are_a_function_of_the_draws(dataset):
    data = Dataset(dataset)
    samples = Samples(data, data.episodes, processor(data, cameras=("front", "wrist")))
    strong = AugmentationConfig(brightness=0.5, contrast=0.5, saturation=0.5, shift=2)
    numbers = np.array([0, 20, 40])

    def images(seed, config):
        got = samples.get(numbers, config, np.random.default_rng(seed))
        return np.stack([[sample.images[name] for name in ("front", "wrist")] for sample in got])

    plain = images(0, AugmentationConfig())
    np.testing.assert_array_equal(images(1, strong), images(1, strong))
    assert (images(1, strong) != images(2, strong)).any()
    assert (images(1, strong) != plain).any()
    np.testing.assert_array_equal(images(5, AugmentationConfig()), plain)
    brighter = images(3, AugmentationConfig(brightness=0.2)).astype(float)
    factors = np.random.default_rng(3).uniform(0.8, 1.2, 3).astype(np.float32)
    expected = np.clip(plain * factors.reshape(3, 1, 1, 1, 1, 1), 0, 255)
    assert np.abs(brighter - expected).max() <= 0.51


def test_held_out_episodes_are_apart(dataset):
    episodes = Dataset(dataset).episodes
    training, held_out = split(episodes, 0.2, seed=0)
    assert len(held_out) == round(0.2 * len(episodes))
    assert sorted(e.index for e in training + held_out) == [e.index for e in episodes]
    assert [e.index for e in split(episodes, 0.2, seed=1)[1]] != [e.index for e in held_out]
    assert split(episodes, 0.0, seed=0)[1] == []
