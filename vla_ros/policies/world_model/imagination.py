"""A world model's predictions for a recorded episode, beside what happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.policies.world_model.model import WorldModel, scaled
from vla_ros.policies.world_model.rssm import Belief


@dataclass(frozen=True)
class Imagined:
    """K steps after `first`, for the commands that were executed: observed and predicted.

    Attributes:
        first: the step of the episode from which on the model gets no observations.
        images: (2, K, N, S, S, 3) uint8 of N cameras.
        joints: (2, K, S) in the policy's units, rad and m.
        closeness: (2, K) to success, 0 to 1; observed: that of the belief after the observation.
        still: (N, S, S, 3) and (S,), the last observation, for comparison.
    """

    first: int
    images: np.ndarray
    joints: np.ndarray
    closeness: np.ndarray
    still: tuple[np.ndarray, np.ndarray]


def check(loaded: LoadedPolicy) -> WorldModel:
    """The policy. Raises InputError if it has no world model, or moves a tool."""
    if not isinstance(loaded.policy, WorldModel):
        raise InputError(f"policy of the family {loaded.family}: it has no world model; expected world_model")
    if loaded.processor.tool:
        raise InputError("actions of a tool: commands of joints do not say them; expected a policy that moves joints")
    return loaded.policy


@torch.no_grad()
def imagine(loaded: LoadedPolicy, samples: Sequence[Sample], commands: np.ndarray) -> Iterator[Imagined]:
    """Predict H steps from every H-th step of an episode on; fewer at its end.

    Args:
        samples: its T frames, one per step of the policy.
        commands: (T, J) joint targets commanded at them, rad or m.

    Raises InputError if the policy has no world model.
    """
    policy, processor = check(loaded), loaded.processor
    device = next(policy.parameters()).device
    batch = {name: rows.to(device) for name, rows in processor.inputs(list(samples)).items()}
    states = np.stack([sample.state[-1] for sample in samples])
    actions = processor.normalise_actions(commands[:, None], states)[:, 0].to(device)
    words = policy.told(batch)
    embeddings = policy.seen(batch, words)[:, 0]
    found = _beliefs(policy, embeddings, actions)
    horizon = policy.config.horizon
    for first in range(0, len(samples) - 1, horizon):
        last = min(first + horizon, len(samples) - 1)
        start = Belief(found.h[first : first + 1], found.s[first : first + 1])
        expected = policy.world.rssm.imagine(start, actions[None, first:last]).features[0]
        seen = slice(first + 1, last + 1)
        images = torch.stack([scaled(batch["images"][seen, 0]), policy.world.decoder(expected).float()])
        joints = torch.stack([batch["state"][seen, 0], policy.joints(expected)])
        features = torch.stack([found.features[seen], expected])
        closeness = policy.closeness(torch.cat([features, words[first].expand(*features.shape[:2], -1)], dim=-1))
        still = _pixels(scaled(batch["images"][first, 0])), _units(loaded, batch["state"][first, 0])
        yield Imagined(first, _pixels(images), _units(loaded, joints), closeness.cpu().numpy(), still)


def _beliefs(policy: WorldModel, embeddings: Tensor, actions: Tensor) -> Belief:
    """(T, ...) beliefs after each of T frames, each from the window of frames that ends there, as in training."""
    window = min(policy.config.window, len(embeddings))
    rows = torch.cat([embeddings, functional.pad(actions[:-1], (0, 0, 1, 0))], dim=-1)
    found = []
    for t in range(len(rows)):
        part = rows[None, max(0, t + 1 - window) : t + 1].clone()
        part[:, 0, embeddings.shape[-1] :] = 0  # commands before a window are unknown to the model
        embedded, before = part.split((embeddings.shape[-1], actions.shape[-1]), dim=-1)
        beliefs, _, _ = policy.world.rssm.observe(policy.world.rssm.begin(1), before, embedded)
        found.append(Belief(beliefs.h[:, -1], beliefs.s[:, -1]))
    return Belief(torch.cat([one.h for one in found]), torch.cat([one.s for one in found]))


def _pixels(images: Tensor) -> np.ndarray:
    """(..., 3, S, S) in [-1, 1] to (..., S, S, 3) uint8."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().movedim(-3, -1).cpu().numpy()


def _units(loaded: LoadedPolicy, states: Tensor) -> np.ndarray:
    """Normalised states to the policy's units."""
    return loaded.processor.state.restore(states.cpu().double().numpy())


@dataclass
class Errors:
    """Sums over all starts, for each of H steps ahead."""

    horizon: int

    def __post_init__(self) -> None:
        self.count = np.zeros(self.horizon)
        self._sums = np.zeros((5, self.horizon))

    def add(self, one: Imagined) -> None:
        steps = len(one.joints[0])
        images, joints = one.images.astype(float), one.joints
        rows = (
            np.abs(images[1] - images[0]).mean(axis=(1, 2, 3, 4)), np.abs(one.still[0] - images[0]).mean((1, 2, 3, 4)),
            np.abs(joints[1] - joints[0]).mean(axis=1), np.abs(one.still[1] - joints[0]).mean(axis=1),
            np.abs(one.closeness[1] - one.closeness[0]),
        )
        self.count[:steps] += 1
        self._sums[:, :steps] += rows

    @property
    def means(self) -> np.ndarray:
        """(5, H): errors of images (colour levels), the same if nothing moved, of joints, the same if nothing moved, of
        closeness."""
        return self._sums / np.maximum(self.count, 1)
