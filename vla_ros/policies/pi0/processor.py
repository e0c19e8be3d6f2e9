"""Samples to π0 batches and normalised actions to joint targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.embodiment import Embodiment, dimensions_statistics
from vla_ros.policies.images import resize_with_pad
from vla_ros.policies.normalisation import Normalisation, widened
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.prompt import padded, prompt_ids, prompt_length
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import Processor
from vla_ros.policies.tokenizer import Tokenizer


@dataclass(frozen=True)
class Pi0Processor(Processor):
    """In the published order: units and signs, absolute to delta, normalise, tokenise, pad to the policy's width.

    Attributes:
        config: of the policy.
        embodiment: the robot's cameras and joints.
        state: normalisation of the (S,) state in the policy's units.
        actions: normalisation of the (A,) actions in the policy's units.
        tokenizer: None only where the policy is not fed text, as in a benchmark of the network.
    """

    config: Pi0Config
    embodiment: Embodiment
    state: Normalisation
    actions: Normalisation
    tokenizer: Tokenizer | None

    def __post_init__(self) -> None:
        """Raises InputError where embodiment, statistics and policy do not fit together."""
        config, embodiment = self.config, self.embodiment
        if set(embodiment.cameras) != set(config.cameras):
            raise InputError(
                f"cameras: the map names {sorted(embodiment.cameras)}, the policy expects {sorted(config.cameras)}; "
                "map each to a camera of the robot, or to null where it is absent"
            )
        if not self.cameras:
            raise InputError("cameras: all are declared absent, expected at least one")
        for what, width, limit, normalisation in (
            ("state", len(embodiment.state), config.state_dim, self.state),
            ("action", len(embodiment.actions), config.action_dim, self.actions),
        ):
            if width > limit:
                raise InputError(f"{what} of {width} dimensions, the policy takes at most {limit}")
            try:
                normalisation.normalise(np.zeros(width))
            except InputError as error:
                raise InputError(f"{what}: {error}") from None
        if self.tokenizer is not None and self.tokenizer.size > config.vocabulary:
            raise InputError(
                f"tokenizer of {self.tokenizer.size} tokens, the policy embeds {config.vocabulary}: not its tokenizer"
            )

    @property
    def joints(self) -> tuple[str, ...]:
        return self.embodiment.joints

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c for c in self._robot_cameras if c is not None))

    @property
    def step_dt(self) -> float:
        return self.config.step_dt

    @property
    def horizon(self) -> int:
        return self.config.horizon

    @property
    def _robot_cameras(self) -> list[str | None]:
        return [self.embodiment.cameras[name] for name in self.config.cameras]

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        """A batch as `Pi0` takes it. Images stay bytes: (B, C, 3, size, size) uint8.

        Absent cameras and most of the prompt's padding are left out, since masked tokens take no positions and are
        seen by none: the actions are the same, a two-camera robot saves a quarter of the work of three cameras.
        Prompts are padded to a few lengths, so that a new instruction rarely makes a new shape.
        """
        if self.tokenizer is None:
            raise InputError("the checkpoint brings no tokenizer; give the folder of PaliGemma's tokenizer")
        state = np.stack([self._state(sample) for sample in samples])
        policy_state = self.state.normalise(self.embodiment.state_to_policy(state))
        told = policy_state
        if self.config.prompt == "pi05_padded":
            told = _padded(policy_state, self.config.state_dim).numpy()
        ids = [
            prompt_ids(self.tokenizer, sample.instruction, self.config.prompt, row)
            for sample, row in zip(samples, told, strict=True)
        ]
        length = prompt_length(max(len(row) for row in ids), self.config.text_length)
        prompts = [padded(row, length) for row in ids]
        images = np.stack([self._images(sample) for sample in samples])
        batch = {
            "images": torch.from_numpy(images),
            "image_mask": torch.ones(images.shape[:2], dtype=torch.bool),
            "tokens": torch.from_numpy(np.stack([tokens for tokens, _ in prompts])),
            "token_mask": torch.from_numpy(np.stack([mask for _, mask in prompts])),
            "state": _padded(policy_state, self.config.state_dim),
        }
        present = [index for index, camera in enumerate(self._robot_cameras) if camera is not None]
        if len(present) < len(self.config.cameras):
            batch["cameras"] = torch.tensor(present)
        if samples[0].actions is not None:
            batch["actions"] = self.normalise_actions(np.stack([sample.actions for sample in samples]), state)
        if samples[0].action_is_pad is not None:
            batch["action_is_pad"] = torch.from_numpy(np.stack([sample.action_is_pad for sample in samples]))
        return batch

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return () if self.tokenizer is None else self.tokenizer.unknown_words(text)

    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        rows = self._restored(answer, np.stack([self._state(sample) for sample in samples]))
        columns = [self.joints.index(name) for name in self.embodiment.commanded]
        return [Targets((Part(self.embodiment.commanded, row[:, columns]),)) for row in rows]

    def normalise(self, targets: Sequence[Targets], samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        states = np.stack([self._state(sample) for sample in samples])
        actions = np.stack([t.joint_positions(self.joints, state) for t, state in zip(targets, states, strict=True)])
        normalised = self.normalise_actions(actions, states)
        survives = np.isclose(self._restored(normalised, states), actions, rtol=1e-4, atol=1e-4).all(axis=-1)
        return normalised, torch.from_numpy(survives)

    def _restored(self, answer: Tensor, states: np.ndarray) -> np.ndarray:
        values = answer.detach().cpu().double().numpy()[..., : len(self.embodiment.actions)]
        return self.embodiment.actions_to_robot(self.actions.restore(values), states)

    def normalise_actions(self, actions: np.ndarray, state: np.ndarray) -> Tensor:
        if actions.shape[-2:] != (self.horizon, len(self.joints)):
            raise InputError(f"actions {actions.shape}, expected (B, {self.horizon}, {len(self.joints)})")
        values = self.actions.normalise(self.embodiment.actions_to_policy(actions, state))
        return _padded(values, self.config.action_dim)

    def with_statistics(self, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> "Pi0Processor":
        """The same processor, normalising with the statistics of other data, told in rad and m.

        Raises InputError where the policy's actions are differences: their statistics do not follow from those of
        the targets.
        """
        state, actions = (
            dimensions_statistics(dimensions, widened(statistics[feature]), self.joints)
            for dimensions, feature in (
                (self.embodiment.state, "observation.state"),
                (self.embodiment.actions, "action"),
            )
        )
        return replace(
            self,
            state=replace(self.state, statistics=state),
            actions=replace(self.actions, statistics=actions),
        )

    def _state(self, sample: Sample) -> np.ndarray:
        """(J,) the newest joint positions of a sample."""
        if sample.state.shape[-1] != len(self.joints):
            raise InputError(
                f"state of {sample.state.shape[-1]} joints, the policy reads {len(self.joints)}: {list(self.joints)}"
            )
        return sample.state[-1]

    def _images(self, sample: Sample) -> np.ndarray:
        """(C, 3, size, size) uint8 of the cameras that are there. Raises InputError if one is missing."""
        size = self.config.vision.image
        images = []
        for camera in self._robot_cameras:
            if camera is None:
                continue
            if camera not in sample.images:
                raise InputError(f"no image of camera {camera!r}, only of {sorted(sample.images)}")
            images.append(resize_with_pad(sample.images[camera][-1], size, size))
        return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _padded(values: np.ndarray, width: int) -> Tensor:
    """(..., n) to (..., width) float32, filled up with zeros."""
    room = [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])]
    return torch.from_numpy(np.pad(values, room).astype(np.float32))
