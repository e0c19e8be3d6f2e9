"""Samples of a dataset, in an order that depends only on the seed and the step."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.stream import COMMAND, JOINT_STATES
from vla_ros.datasets.check import other_joints
from vla_ros.datasets.index import Episode
from vla_ros.datasets.lerobot import Dataset, frames_of
from vla_ros.policies.processor import Processor
from vla_ros.training import augment
from vla_ros.training.config import AugmentationConfig


def chosen(dataset: Dataset, outcome: str) -> list[Episode]:
    """The episodes with that outcome, or all if it is "". Raises InputError if there are none."""
    found = [episode for episode in dataset.episodes if outcome in ("", dataset.outcome(episode))]
    if not found:
        said = Counter(dataset.outcome(episode) or "unknown" for episode in dataset.episodes)
        raise InputError(f"dataset {dataset.path}: no episode with the outcome {outcome}, it has "
                         f"{', '.join(f'{count} {name}' for name, count in sorted(said.items()))}")
    return found


def split(episodes: Sequence[Episode], held_out: float, seed: int) -> tuple[list[Episode], list[Episode]]:
    """Episodes for training and for evaluation, drawn by the seed. Raises InputError when none is left to train."""
    order = np.random.default_rng([seed, 1]).permutation(len(episodes))
    count = max(1, round(held_out * len(episodes))) if held_out > 0 else 0
    if count >= len(episodes):
        raise InputError(f"held_out {held_out}: {count} of {len(episodes)} episodes, which leaves none to train on; "
                         "set held_out: 0 in the training config to train on all of them, without an evaluation")
    chosen = set(order[:count].tolist())
    return ([e for k, e in enumerate(episodes) if k not in chosen], [e for k, e in enumerate(episodes) if k in chosen])


class Samples:
    """Frames of some episodes as `Sample`s for a processor.

    Row k of a sample's actions at frame t is the command at `t + (first_action_step + k) * step_dt`; after the end of
    the episode the last command is repeated (before its start the first) and `action_is_pad` says so. Observation
    steps before the start repeat the first; a command before the start is the state. A joint without actions keeps its
    observed position. Poses of a tool follow the joints. Only colour images are augmented.

    Frames that a person commanded are sampled `corrections` times as often as those of a policy: in an epoch, which has
    as many samples as there are frames, each occurs in proportion to its weight, to within one.

    Attributes:
        commanded: columns of the samples' actions that are not made from states.

    Raises:
        InputError: when the dataset lacks a joint or a camera of the policy, or their clocks do not fit.
    """

    def __init__(
        self, dataset: Dataset, episodes: Sequence[Episode], processor: Processor,
        cache: str | Path | None = None, progress: Callable[[str, int, int], None] | None = None,
        corrections: float = 1.0,
    ) -> None:
        self.processor, self.episodes = processor, tuple(episodes)
        if why := other_joints(dataset):
            raise InputError(f"dataset {dataset.path}: {why}")
        if sorted(processor.joints) != sorted(dataset.joint_names):
            raise InputError(f"dataset {dataset.path}: joints {dataset.joint_names}, the policy expects "
                             f"{processor.joints}")
        for camera in processor.cameras:
            if camera not in dataset.camera_names:
                why = dataset.unreadable.get(camera, f"no such camera, it has {dataset.camera_names}")
                raise InputError(f"dataset {dataset.path}: {camera}: {why}")
        self.stride = round(processor.step_dt * dataset.fps)
        if self.stride < 1 or abs(self.stride / dataset.fps - processor.step_dt) > 1e-3 * processor.step_dt:
            raise InputError(f"dataset {dataset.path}: {dataset.fps} Hz does not divide the policy's steps of "
                             f"{processor.step_dt} s")
        order = [dataset.joint_names.index(name) for name in processor.joints]
        self._dataset = dataset
        self._targets = dataset.targets
        self._states = dataset.states[:, order]
        self._actions = np.concatenate([self._targets[:, order], dataset.poses], axis=1)
        held = [processor.joints.index(name) for name in dataset.hold]
        self.commanded = [k for k in range(self._actions.shape[1]) if k not in held]

        def told(name: str) -> Callable[[int, int], None] | None:
            return (lambda done, total: progress(name, done, total)) if progress else None

        self._frames = {
            camera: dataset.frames(camera, cache=cache, progress=told(camera)) for camera in processor.cameras
        }
        self._commands = {
            name: dataset.command_columns(name.removeprefix(COMMAND))
            for name in processor.streams if name.startswith(COMMAND)
        }  # fmt: skip
        self._values = {}  # reading -> (its stream, (N, ...))
        for name in set(processor.streams).difference(self._commands):
            self._values[name] = name, dataset.values(name, cache, told(name))
            if f"{name}_count" in dataset.streams:
                self._values[f"{name}_count"] = name, dataset.values(f"{name}_count")
        lengths = [episode.length for episode in episodes]
        self._first = np.repeat([episode.start for episode in episodes], lengths)
        self._last = np.repeat([episode.stop - 1 for episode in episodes], lengths)
        self._index = frames_of(episodes)
        self._outcome = np.repeat([dataset.outcome(episode) for episode in episodes], lengths)
        self._shares: np.ndarray | None = None  # (N,) up to and with each frame
        if corrections != 1:
            by_person = dataset.by_person[self._index]
            if not by_person.any():
                raise InputError(f"dataset {dataset.path}: corrections {corrections:g}, but no training frame was "
                                 "commanded by a person, expected some in the column intervention")
            self._shares = np.cumsum(np.where(by_person, corrections, 1.0))
            self._shares /= self._shares[-1]

    def __len__(self) -> int:
        """Number of frames to start a sample at."""
        return len(self._index)

    def order(self, seed: int, first: int, count: int) -> np.ndarray:
        """Sample numbers at places `first` to `first + count` of an endless sequence of shuffled epochs, (count,)."""
        places = np.arange(first, first + count)
        epochs = places // len(self)
        shuffled = {e: self._epoch(np.random.default_rng([seed, 2, e])) for e in np.unique(epochs).tolist()}
        return np.array([shuffled[e][p] for e, p in zip(epochs.tolist(), (places % len(self)).tolist(), strict=True)])

    def _epoch(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) sample numbers."""
        if self._shares is None:
            return rng.permutation(len(self))
        drawn = np.searchsorted(self._shares, (np.arange(len(self)) + rng.random()) / len(self), side="right")
        return rng.permutation(np.minimum(drawn, len(self) - 1))

    def get(
        self, numbers: np.ndarray, augmentation: AugmentationConfig | None = None,
        rng: np.random.Generator | None = None, training: bool = True,
    ) -> list[Sample]:
        """The samples with these numbers (B,), augmented with draws from `rng` if requested.

        Without `training` they are as in serving: with its observation steps, without actions.
        """
        frame, first, last = self._index[numbers], self._first[numbers], self._last[numbers]
        offsets = self.processor.steps(training)
        wanted = {name: frame[:, None] + np.array(row) * self.stride for name, row in offsets.items()}
        seen = {name: np.maximum(rows, first[:, None]) for name, rows in wanted.items()}  # each (B, T)
        steps = np.arange(self.processor.first_action_step, self.processor.horizon)
        ahead = frame[:, None] + steps * self.stride  # (B, H), and rows of the past in front where the policy has them
        is_pad = (ahead > last[:, None]) | (ahead < first[:, None])
        states = self._states[seen.get(JOINT_STATES, frame[:, None])].astype(np.float64)
        actions = self._actions[np.clip(ahead, first[:, None], last[:, None])].astype(np.float64)
        images = self._images(seen, augmentation, rng)
        values = {reading: rows[seen[name]] for reading, (name, rows) in self._values.items()}
        for name, columns in self._commands.items():  # there is none before the first frame: the state
            late = (wanted[name] < first[:, None])[..., None]
            rows = np.where(late, self._dataset.states[seen[name]], self._targets[seen[name]])
            values[name] = rows[..., columns].astype(np.float64)
        return [
            Sample(
                images={camera: values[b] for camera, values in images.items()},
                state=states[b],
                instruction=self._dataset.tasks[self._dataset.task_of[frame[b]]],
                actions=actions[b] if training else None,
                action_is_pad=is_pad[b] if training else None,
                values={name: rows[b] for name, rows in values.items()},
                remaining=int(last[b] - frame[b]) // self.stride if training else None,
                outcome=str(self._outcome[number]) if training else "",
            )
            for b, number in enumerate(numbers)
        ]

    def _images(self, seen, augmentation, rng) -> dict[str, np.ndarray]:
        images = {camera: frames[seen[camera]] for camera, frames in self._frames.items()}  # (B, T, h, w, 3)
        if augmentation is None:
            return images
        draws = augment.draw(augmentation, len(next(iter(seen.values()))), rng)
        for camera, values in images.items():
            if augmentation.shift:
                values = augment.shift(values, augmentation.shift, rng)
            if augmentation.brightness or augmentation.contrast or augmentation.saturation:
                values = augment.colour(values, draws)
            images[camera] = values
        return images
