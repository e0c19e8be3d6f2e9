"""Samples to GR00T's batches, and its answers to joint targets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.stream import JOINT_STATES
from vla_ros.policies.dimension import check_start
from vla_ros.policies.groot.groups import POSES, by_name, check_statistics, to_network, to_robot
from vla_ros.policies.groot.images import prepared
from vla_ros.policies.groot.prompts import check_tokenizer, left_padded, padding_token, prompt_ids
from vla_ros.policies.normalisation import Normalisation
from vla_ros.policies.options import TrainingData
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor, padded


@dataclass(frozen=True)
class GrootProcessor(StandardProcessor):
    """The batch is described at `Groot`. Absent cameras are omitted.

    If the sizes have groups, the statistics of `state` and `actions` are stored one group after another.
    """

    horizon = property(attrgetter("config.valid_horizon"))

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.config
        if self.tokenizer is not None:
            check_tokenizer(config, self.tokenizer)
        for what, groups, dimensions, normalisation in (
            ("state", config.state_groups, self.embodiment.state, self.state),
            ("actions", config.action_groups, self.embodiment.actions, self.actions),
        ):
            size = sum(group.size for group in groups)
            if not normalisation.missing:
                check_statistics(groups, normalisation.statistics, what)
            if groups and len(dimensions) != size:
                raise InputError(f"{what} of {len(dimensions)} dimensions, the groups "
                                 f"{[f'{g.name} ({g.size})' for g in groups]} have {size}")
        absent = by_name(config.state_groups, np.array([d.joint is None for d in self.embodiment.state]))
        for group in config.state_groups:
            if group.turned and absent[group.name].any():
                raise InputError(f"state {group.name!r} is a rotation ({group.described()}), of which the robot has no "
                                 "joints: such a policy can be described and measured, not served; or leave the group "
                                 "out of overrides.state_groups")
        for group in config.action_groups:
            if group.relative in POSES and absent[group.reference].any():
                raise InputError(f"actions {group.name!r} are relative to the pose {group.reference!r}, of which the "
                                 "robot has no joints: such a policy can be described and measured, not served")
        self._check_starts()

    def _check_starts(self) -> None:
        """Raises InputError unless each number of a relative group has the same joint as the one that it is relative
        to."""
        config, state, actions = self.config, self.embodiment.state, self.embodiment.actions
        first, own = by_name(config.state_groups, np.arange(len(state))), np.arange(len(actions))
        for group, numbers in zip(config.action_groups, by_name(config.action_groups, own).values(), strict=True):
            if group.difference:
                for index in numbers:
                    if actions[index].joint is not None and actions[index].mode == "absolute":
                        raise InputError(
                            f"action {index} ({actions[index].joint}) of {group.name!r} is absolute, but the "
                            "checkpoint's are differences; expected mode: delta (to the observed state) or rate (to "
                            "the row before) in the policy file")
            for index, start in zip(numbers, first[group.reference], strict=True) if group.relative else ():
                action, where = actions[index], f"action {index} ({actions[index].joint}) of {group.name!r}"
                if action.joint is None:
                    continue
                if action.mode != "absolute":
                    raise InputError(f"{where} is {action.mode}, but the group is relative to the state already; "
                                     "expected mode: absolute in the policy file")
                check_start(action, state[start], int(start), where)

    def steps(self, training: bool = False) -> dict[str, tuple[int, ...]]:
        config = self.config
        return dict.fromkeys(self.cameras, config.video_steps) | {JOINT_STATES: config.state_steps}

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        config, states = self.config, self.states(samples)
        runs = self._pictures(samples)
        grids = [config.grid(*run.shape[3:]) for run in runs for _ in range(run.shape[1])]
        tokenizer = self.ask_tokenizer()
        rows = [prompt_ids(config, tokenizer, sample.instruction, grids) for sample in samples]
        step = 32 if config.padding_is_masked else 1  # few lengths where it changes no answer
        tokens, mask = left_padded(rows, padding_token(config, tokenizer), step)
        batch = {
            **{f"images_{n}" if n else "images": run for n, run in enumerate(runs)}, "tokens": tokens,
            "token_mask": mask, "state": self.policy_states(states),
            "embodiment": torch.full((len(samples),), config.embodiment),
        }
        if config.generation == "n1.7":
            batch["positions"] = torch.ones(len(rows), 3, tokens.shape[1], dtype=torch.int64)
            for to, row in zip(batch["positions"], rows, strict=True):
                to[:, tokens.shape[1] - len(row) :] = mrope_positions(row, config.image_token, grids)
        return batch | self.targets(samples, states)

    def _pictures(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Consecutive images of the same size stacked, (B, N, 3, h, w) uint8 each, ordered by time."""
        config = self.config
        cameras = [camera for camera in self.robot_cameras if camera is not None]
        steps = len(self.steps()[cameras[0]])
        columns: list[np.ndarray] = []
        for step in range(steps):
            for camera in cameras:
                frames = []
                for sample in samples:
                    if camera not in sample.images:
                        raise InputError(f"no image of camera {camera!r}, only of {sorted(sample.images)}")
                    if len(sample.images[camera]) != steps:
                        raise InputError(f"{len(sample.images[camera])} images of camera {camera!r}, expected {steps}")
                    try:
                        frame = sample.images[camera][step]
                        frames.append(prepared(frame, config.image_path, config.image_size, config.crop,
                                               config.image_unit))
                    except InputError as error:
                        raise InputError(f"camera {camera!r}: {error}") from None
                if len({frame.shape for frame in frames}) > 1:
                    raise InputError(f"camera {camera!r}: images of {sorted({f.shape[:2] for f in frames})} in one "
                                     "batch, expected one aspect")
                columns.append(np.stack(frames))
        runs: list[list[np.ndarray]] = []
        for column in columns:
            if not runs or runs[-1][0].shape != column.shape:
                runs.append([])
            runs[-1].append(column)
        return [torch.from_numpy(np.ascontiguousarray(np.stack(run, axis=1).transpose(0, 1, 4, 2, 3))) for run in runs]

    def policy_states(self, states: np.ndarray) -> Tensor:
        groups = self.config.state_groups
        if not groups:
            return super().policy_states(states)
        values = self.embodiment.state_to_policy(states)
        return padded(to_network(groups, values, self._statistics(self.state)), self.state_width)

    def targets(self, samples: Sequence[Sample], states: np.ndarray) -> Batch:
        """Like the base class; rows that this embodiment does not have are padding."""
        batch = super().targets(samples, states)
        if "actions" in batch:
            pad = batch.get("action_is_pad", torch.zeros(len(samples), self.horizon, dtype=torch.bool))
            batch["action_is_pad"] = functional.pad(pad, (0, self.config.chunk_size - pad.shape[1]), value=True)
        return batch

    def normalise_actions(self, actions: np.ndarray, states: np.ndarray) -> Tensor:
        """(B, h, J) joint targets and (B, J) newest states to (B, H, D); rows beyond h <= H are zero."""
        groups = self.config.action_groups
        if not groups:
            values = super().normalise_actions(actions, states)
        else:
            if actions.shape[-1] != len(self.joints):
                raise InputError(f"actions of {actions.shape[-1]} joints, expected {len(self.joints)}")
            values = self.embodiment.actions_to_policy(actions, states)
            values = to_network(groups, values, self._statistics(self.actions), self._reference(states))
            values = padded(values, self.config.action_dim)
        return functional.pad(values, (0, 0, 0, self.config.chunk_size - values.shape[-2]))

    def normalise(self, targets: Sequence[Targets], samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """(B, H, D) and (B, H); rows that this embodiment does not have are marked as lost."""
        normalised, survives = super().normalise(targets, samples)
        return normalised, functional.pad(survives, (0, normalised.shape[1] - survives.shape[1]), value=False)

    def policy_actions(self, answer: Tensor, states: np.ndarray) -> np.ndarray:
        groups, answer = self.config.action_groups, answer[:, : self.horizon]
        if not groups:
            return super().policy_actions(answer, states)
        values = answer.detach().cpu().double().numpy()[..., : self.config.action_width]
        return to_robot(groups, values, self._statistics(self.actions), self._reference(states))

    def _reference(self, states: np.ndarray) -> dict[str, np.ndarray]:
        return by_name(self.config.state_groups, self.embodiment.state_to_policy(states))

    def with_statistics(self, data: TrainingData) -> "GrootProcessor":
        for group in (*self.config.state_groups, *self.config.action_groups):
            if group.rotation or group.relative in POSES:
                raise InputError(f"group {group.name!r} is {group.described()}: its statistics do not follow from "
                                 "joints; keep the checkpoint's (--statistics keep)")
        return super().with_statistics(data)

    def action_statistics(self, data: TrainingData) -> dict[str, np.ndarray]:
        """Like the base class, one group after another: for relative groups over all chunks, as in Isaac GR00T and
        LeRobot, for each row if the group has statistics for each."""
        groups, parts, start = self.config.action_groups, [], 0
        for group in groups:
            own = self.embodiment.named_actions[start : start + group.size]
            start += group.size
            said = [replace(d, mode="delta") for d in own] if group.relative else own
            parts.append(self.statistics_of(said, data, group.rows))
        if not groups:
            return super().action_statistics(data)
        names = set.intersection(*map(set, parts))
        return {name: np.concatenate([part[name].reshape(-1) for part in parts]) for name in names}

    @staticmethod
    def _statistics(normalisation: Normalisation) -> dict[str, np.ndarray]:
        if normalisation.missing:
            raise InputError("normalisation: the checkpoint has no statistics")
        return dict(normalisation.statistics)


def mrope_positions(tokens: Sequence[int], image_token: int, grids: Sequence[tuple[int, int]]) -> Tensor:
    """(3, L) int64 positions of time, row and column, as Qwen3-VL counts them.

    Text increases all three together; the tokens of an image have the same time, and rows and columns counted from it.

    Args:
        grids: rows and columns of each image's tokens, in order.
    """
    result, count, images, skip = [], 0, iter(grids), 0
    for token in tokens:
        if skip:
            skip -= 1
        elif token == image_token:
            rows, columns = next(images)
            result += [(count, count + row, count + column) for row in range(rows) for column in range(columns)]
            count, skip = count + max(rows, columns), rows * columns - 1
        else:
            result.append((count,) * 3)
            count += 1
    return torch.tensor(result).T
