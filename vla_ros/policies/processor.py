"""From observations to a policy's tensors, and from its answers to joint targets: the part that all built-in families
share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError, shown
from vla_ros.core.observation import Sample
from vla_ros.core.stream import JOINT_STATES
from vla_ros.policies.dimension import Dimension, dimensions_statistics
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.images import FITS
from vla_ros.policies.normalisation import Normalisation, widened
from vla_ros.policies.options import ACTION, STATE, TrainingData
from vla_ros.policies.policy import Batch
from vla_ros.policies.rows import chunk_statistics, with_path
from vla_ros.policies.tokenizer import Tokenizer


class Interface:
    """What a policy reads from a robot and commands, wherever the policy runs.

    Attributes:
        joints: J robot joint names in the robot file's order, which is that of `Sample.state` and `Sample.actions`.
        cameras: names of the robot's cameras that the policy uses.
        step_dt: s between action rows (and between observation steps of a history).
        n_obs_steps: T, observation steps of a Sample.
        horizon: rows per chunk.
        streams: names of the robot file's other streams that the policy reads.
        optional: those of them that it can do without, now and then or always.
        tool: ("pose" or "delta", frame) of actions that move the robot's tool; None where they move joints alone.
        path: whether some of the actions are a path of the base.
    """

    joints: tuple[str, ...]
    cameras: tuple[str, ...]
    step_dt: float
    n_obs_steps: int = 1
    horizon: int
    streams: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def tool(self) -> tuple[str, str] | None:
        said = getattr(getattr(self, "embodiment", None), "tool", None)
        return (said.space, said.frame) if said else None

    @property
    def path(self) -> bool:
        return getattr(getattr(self, "embodiment", None), "path", None) is not None

    def steps(self, training: bool = False) -> dict[str, tuple[int, ...]]:
        """stream -> offsets of its observation steps in `step_dt`, oldest first; "joint_states" is the state.

        They may differ between streams, and between training and serving: (0,), (-15, 0), or in training (-7, ..., 0).
        """
        steps = tuple(range(1 - self.n_obs_steps, 1))
        return dict.fromkeys((*self.cameras, "joint_states", *self.streams), steps)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of an instruction that map to <unk>, or to nothing, because they are not in the policy's vocabulary."""
        return ()


class Processor(Interface, ABC):
    """From samples to batches, and from the policy's answers to targets.

    Attributes:
        first_action_step: in training, the first row of `Sample.actions` is for t + first_action_step * step_dt and
            the last for t + (horizon - 1) * step_dt; negative for policies whose network covers the past as well.
    """

    first_action_step: int = 0

    @abstractmethod
    def inputs(self, samples: Sequence[Sample]) -> Batch:
        """A batch on the CPU, all (B, ...): images (uint8 where the policy can), state and text; with `actions`
        (B, H, D) and `action_is_pad` (B, H) when the samples have them. Raises InputError for a sample that does
        not fit."""

    @abstractmethod
    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        """The policy's answer as targets for the robot, one for each sample. Deterministic.

        Args:
            answer: (B, H, D) normalised actions, or (B, L) int64 tokens.
            samples: the B samples of that answer; actions that are differences are added to their newest state.

        Raises InputError for tokens that are not a chunk.
        """

    @abstractmethod
    def normalise(self, targets: Sequence[Targets], samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """The inverse of `outputs`: (B, H, D) float32 normalised actions, and (B, H) bool, the rows that `outputs`
        would restore (a normalisation that flattens or clips a value loses it)."""

    def with_statistics(self, data: TrainingData) -> "Processor":
        """The same processor, normalising by other data. Raises InputError if the dimensions differ, or the family does
        not support it."""
        raise InputError(f"{type(self).__name__} cannot take other statistics: train with --statistics keep")


@dataclass(frozen=True)
class StandardProcessor(Processor):
    """Order, as published: units and signs of the embodiment, absolute to delta, normalise, pad.

    Attributes:
        config: the policy's sizes; see `Family.config`.
        embodiment: the robot's cameras and joints.
        state, actions: normalisations of the (S,) state and (A,) actions in the policy's units.
        fit: how an image gets its size, a key of `images.FITS`.
        tokenizer: of the prompt, where the policy reads tokens.
    """

    config: Any
    embodiment: Embodiment
    state: Normalisation
    actions: Normalisation
    fit: str
    tokenizer: Tokenizer | None = None

    def __post_init__(self) -> None:
        """Raises InputError if embodiment, statistics and policy do not fit together."""
        config, embodiment = self.config, self.embodiment
        if self.fit not in FITS:
            raise InputError(f"image fit {self.fit!r}, expected one of {sorted(FITS)}")
        if set(embodiment.cameras) != set(self.image_names):
            raise InputError(f"cameras: the map names {sorted(embodiment.cameras)}, the policy expects "
                             f"{sorted(self.image_names)}; map each to a camera of the robot, or to null where it is "
                             "absent")
        absent = [name for name in self.image_names if embodiment.cameras[name] is None]
        if absent and (not self.cameras or getattr(config, "needs_every_camera", True)):
            raise InputError(f"cameras {absent} are declared absent, the policy needs "
                             f"{'every one it was trained with' if self.cameras else 'at least one'}")
        if getattr(config, "spatial", "") and embodiment.tool and self.state_width and embodiment.tool_state is None:
            raise InputError("state: the policy reads the pose of its tool, which joint states do not contain; "
                             "expected `tool_state` in the policy file")
        if embodiment.path and self.first_action_step:
            raise InputError(f"path: the actions of a sample begin {-self.first_action_step} steps before its newest "
                             "observation, and a path begins there; expected a policy that reads one observation")
        for what, width, limit, normalisation in (
            ("state", len(embodiment.state), self.state_width, self.state),
            ("action", len(embodiment.actions), config.action_dim, self.actions),
        ):
            if limit and (width > limit or width < limit and not getattr(config, "pads", False)):
                raise InputError(f"{what} of {width} dimensions, the policy takes "
                                 f"{'at most ' if getattr(config, 'pads', False) else ''}{limit}")
            try:
                if not normalisation.missing:
                    normalisation.normalise(np.zeros(width))
            except InputError as error:
                raise InputError(f"{what}: {error}") from None
        rows = getattr(config, "token_rows", None)
        # Tokens that were added to the vocabulary may have no embedding: in π0, PaliGemma's image token has none.
        if self.tokenizer is not None and rows is not None and self.tokenizer.words > rows:
            raise InputError(f"tokenizer of {self.tokenizer.words} tokens, the policy has {rows} embeddings: not its "
                             "tokenizer")

    joints = property(attrgetter("embodiment.joints"))
    step_dt = property(attrgetter("embodiment.step_dt"))
    horizon = property(attrgetter("config.horizon"))
    n_obs_steps = property(attrgetter("config.n_obs_steps"))
    image_names = property(attrgetter("config.cameras"))  # the policy's images in order

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c for c in self.robot_cameras if c is not None))

    @property
    def first_action_step(self) -> int:
        return -getattr(self.config, "past", 0)

    @property
    def present(self) -> list[str]:
        """Those of `image_names` whose camera is not declared absent."""
        return [name for name in self.image_names if self.embodiment.cameras[name] is not None]

    @property
    def robot_cameras(self) -> tuple[str | None, ...]:
        """The robot's camera of each of `image_names`, None if it is declared absent."""
        return tuple(self.embodiment.cameras[name] for name in self.image_names)

    @property
    def state_width(self) -> int:
        """What states are padded to; 0 if the policy reads none."""
        return getattr(self.config, "state_width", getattr(self.config, "state_dim", len(self.embodiment.state)))

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        """`state` (B, S) and `images` (B, N, 3, height, width), if the policy has them, and `targets`."""
        states = self.states(samples)
        batch = {"state": self.policy_states(states)[:, -1]} if self.state_width else {}
        if self.image_names:
            batch["images"] = self.images(samples)[:, -1]
        return batch | self.targets(samples, states)

    def size_of(self, image: str) -> tuple[int, int]:
        """(height, width) of one of `image_names`, pixels."""
        sizes = getattr(self.config, "image_sizes", ())
        return sizes[self.image_names.index(image)] if sizes else self.config.image_size

    def depth(self, samples: Sequence[Sample], stream: str) -> int:
        """T, observation steps of a stream in these samples: those of training if they have actions."""
        return len(self.steps(training=samples[0].actions is not None)[stream])

    def states(self, samples: Sequence[Sample]) -> np.ndarray:
        """(B, T, J) joint positions, rad or m. Raises InputError for another number of joints or steps."""
        if size := getattr(self.config, "environment_dim", 0):
            raise InputError(f"the policy reads observation.environment_state ({size} numbers), which no topic of a "
                             "robot file brings")
        expected = self.depth(samples, JOINT_STATES), len(self.joints)
        for sample in samples:
            if sample.state.shape != expected:
                raise InputError(f"state of {sample.state.shape} (steps, joints), the policy reads {expected}: "
                                 f"{list(self.joints)}")
        return np.stack([sample.state for sample in samples])

    def policy_states(self, states: np.ndarray) -> Tensor:
        """(..., J) joint positions to (..., S) float32 normalised and padded with zeros."""
        return padded(self.state.normalise(self.embodiment.state_to_policy(states)), self.state_width)

    def images(self, samples: Sequence[Sample], names: Sequence[str] | None = None) -> Tensor:
        """(B, T, N, 3, height, width) of the named images, all by default. Raises InputError.

        They are uint8, or float32 in [-1, 1] if `fit` does not round."""
        cameras = [self.embodiment.cameras[name] for name in (self.image_names if names is None else names)]
        steps = self.depth(samples, cameras[0]) if cameras else 0
        shape = (len(samples), steps, len(cameras), *self.config.image_size, 3)
        fit = FITS[self.fit]
        sizes = [self.size_of(name) for name in (self.image_names if names is None else names)]
        images = np.zeros(shape, dtype=fit.dtype)  # around an image that is smaller than the largest
        for b, sample in enumerate(samples):
            for n, camera in enumerate(cameras):
                if camera not in sample.images:
                    raise InputError(f"no image of camera {camera!r}, only of {sorted(sample.images)}")
                frames = sample.images[camera]
                if len(frames) != steps:
                    raise InputError(f"{len(frames)} images of camera {camera!r}, expected {steps}")
                for t, frame in enumerate(frames):
                    try:
                        height, width = sizes[n]
                        images[b, t, n, :height, :width] = fit.resize(frame, height, width)
                    except InputError as error:
                        raise InputError(f"camera {camera!r}: {error}") from None
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 1, 2, 5, 3, 4)))

    def targets(self, samples: Sequence[Sample], states: np.ndarray) -> Batch:
        """`actions` (B, H, D) and `action_is_pad` (B, H) of training samples; nothing when serving."""
        batch = {}
        if samples[0].actions is not None:
            actions = np.stack([sample.actions for sample in samples])
            batch["actions"] = self.normalise_actions(actions, states[:, -1])
        if samples[0].action_is_pad is not None:
            batch["action_is_pad"] = torch.from_numpy(np.stack([sample.action_is_pad for sample in samples]))
        return batch

    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        """(B, H, D) to the commanded joints' positions, (H, joints) each, and the tool's rows."""
        states = _newest(samples)
        return self.embodiment.targets(self.policy_actions(answer, states), states)

    def normalise(self, targets: Sequence[Targets], samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """(B, H, D) and (B, H); joints that are not in the targets keep their position."""
        states = _newest(samples)
        actions = self._rows(targets, states)
        normalised = self.normalise_actions(actions, states)
        back = self._restored(normalised, states)
        survives = np.isclose(back, actions, rtol=1e-4, atol=1e-4).all(axis=-1)
        return normalised, torch.from_numpy(survives)

    def _restored(self, answer: Tensor, states: np.ndarray) -> np.ndarray:
        """(B, H, D) normalised actions and (B, J) states to (B, H, J) joint targets (held joints keep their position),
        followed by a tool's rows."""
        actions, tool = self.policy_actions(answer, states), self.embodiment.tool
        rows = self.embodiment.actions_to_robot(actions, states)
        if tool is None:
            return rows
        told = np.stack([tool.part(row, self.embodiment.actions).data for row in actions])
        return np.concatenate([rows, told], axis=-1)

    def _rows(self, targets: Sequence[Targets], states: np.ndarray) -> np.ndarray:
        """(B, H, J) joint targets, what they leave out where it is in (B, J), and a tool's rows behind them."""
        found = [self.embodiment.joint_rows(one, state) for one, state in zip(targets, states, strict=True)]
        if self.embodiment.tool:
            found = [np.concatenate([rows, one.spatial.data], axis=1) for rows, one in zip(found, targets, strict=True)]
        return np.stack(found)

    def policy_actions(self, answer: Tensor, states: np.ndarray) -> np.ndarray:
        """(B, H, D) normalised actions and (B, J) states to (B, H, A) float64 actions in the policy's units."""
        return self.actions.restore(answer.detach().cpu().double().numpy()[..., : len(self.embodiment.actions)])

    def normalise_actions(self, actions: np.ndarray, states: np.ndarray) -> Tensor:
        """(B, H, J) joint targets, followed by a tool's rows, and (B, J) newest states to (B, H, D) float32
        normalised actions."""
        tool = self.embodiment.tool
        if actions.shape[-1] not in (len(self.joints), len(self.joints) + (len(tool.columns) if tool else 0)):
            raise InputError(f"actions of {actions.shape[-1]} joints, expected {len(self.joints)}")
        values = self.actions.normalise(self.embodiment.actions_to_policy(actions, states))
        return padded(values, self.config.action_dim)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return () if self.tokenizer is None else self.tokenizer.unknown_words(text)

    def embedded(self, prompts: list[list[int]], samples: Sequence[Sample]) -> list[list[int]]:
        """The ids of the samples' prompts, unchanged. Raises InputError for one that the policy cannot embed."""
        for ids, sample in zip(prompts, samples, strict=True):
            if max(ids, default=0) >= self.config.token_rows:
                raise InputError(f"instruction {shown(sample.instruction)}: token {max(ids)}, the policy embeds "
                                 f"{self.config.token_rows}; expected words, none of the tokenizer's special tokens")
        return prompts

    def ask_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InputError if the checkpoint has none."""
        if self.tokenizer is None:
            raise InputError(f"the checkpoint has no tokenizer; give the folder of {self.config.tokenizer_of}")
        return self.tokenizer

    def with_statistics(self, data: TrainingData) -> "StandardProcessor":
        """The same processor, normalising by the data. Raises InputError if the data have other joints."""
        if sorted(data.joints) != sorted(self.joints):
            raise InputError(f"statistics of the joints {list(data.joints)}, the policy expects {list(self.joints)}")
        state, actions = self._of_all_rows(self.embodiment.state, data, STATE), self.action_statistics(data)
        if path := self.embodiment.path:
            said = self.embodiment.actions, data.rows, range(self.horizon), self.step_dt or data.step_dt
            actions = with_path(actions, path, *said)
        return replace(
            self, state=replace(self.state, statistics=state), actions=replace(self.actions, statistics=actions)
        )

    def action_statistics(self, data: TrainingData) -> dict[str, np.ndarray]:
        """Statistics of the data in the policy's units, (A,) each. If any action is a difference, they are over all
        chunks, as LeRobot's are (`recompute_stats` with `relative_action`), otherwise over all rows. Raises
        InputError."""
        return self.statistics_of(self.embodiment.named_actions, data)

    def statistics_of(
        self, actions: Sequence[Dimension], data: TrainingData, rows: int = 0
    ) -> dict[str, np.ndarray]:
        """Statistics of some actions: (D,) each, or (rows, D) of each row of a chunk. Raises InputError."""
        if not rows and all(d.joint is None or d.mode == "absolute" for d in actions):
            return self._of_all_rows(actions, data, ACTION)
        if data.rows is None:
            raise InputError("statistics of differences follow from the rows of a dataset, not from its statistics")
        steps = range(self.first_action_step, rows or self.horizon)
        return chunk_statistics(actions, data.rows, steps, self.step_dt or data.step_dt, bool(rows))

    def _of_all_rows(self, dimensions: Sequence[Dimension], data: TrainingData, feature: str) -> dict[str, np.ndarray]:
        """Of joint positions or targets, (D,) each. A linkage is not linear: then they are computed from the rows."""
        if data.rows is not None and any(d.linkage for d in dimensions):
            rows = data.rows if feature == ACTION else replace(data.rows, actions=data.rows.states)
            return chunk_statistics(dimensions, rows, (0,), data.step_dt)
        names = data.actions if feature == ACTION else data.joints
        return dimensions_statistics(dimensions, widened(data.statistics[feature]), names)


def short_name(image: str) -> str:
    """What a policy file calls an image: "observation.images.top" is "top", "observation.image" is "image"."""
    return image.removeprefix("observation.images.").removeprefix("observation.")


def padded(values: np.ndarray, width: int) -> Tensor:
    """(..., n) to (..., width) float32, filled up with zeros."""
    return functional.pad(torch.from_numpy(np.asarray(values, np.float32)), (0, width - values.shape[-1]))


def _newest(samples: Sequence[Sample]) -> np.ndarray:
    """(B, J) float64 newest joint positions, rad or m."""
    return np.stack([np.asarray(sample.state[-1], dtype=np.float64) for sample in samples])
