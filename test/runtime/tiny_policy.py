"""A policy and a processor of a few lines, for tests of what surrounds them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.policies.policy import DenoisingPolicy, Policy, Prefix
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy


@dataclass(frozen=True)
class Config:
    horizon: int = 8
    action_dim: int = 4
    n_obs_steps: int = 1
    num_steps: int = 5


class Denoiser(DenoisingPolicy):
    """Moves noise towards a vector read from image and state; counts its calls."""

    def __init__(self, config=None):
        super().__init__()
        self.config = config or Config()
        self.encode = nn.Linear(3 + 2, self.config.action_dim)
        self.calls = {"prefix": 0, "denoise": 0}

    def encode_prefix(self, batch):
        self.calls["prefix"] += 1
        colour = batch["image"].float().mean(dim=(1, 2, 3)) / 255
        return Prefix({"goal": self.encode(torch.cat([colour, batch["state"][:, -1]], dim=-1))})

    def denoise(self, prefix, noisy, time):
        self.calls["denoise"] += 1
        return noisy - prefix.tensors["goal"][:, None]

    def sample(self, prefix, noise, prior=None, num_steps=None):
        steps = num_steps or self.config.num_steps
        for k in range(steps):
            velocity = self.denoise(prefix, noise, torch.full(noise.shape[:1], 1 - k / steps))
            if prior is not None:
                velocity = velocity - prior.weights[..., None] * (prior.actions - noise)
            noise = noise - velocity / steps
        return noise

    def loss(self, batch, **draws):
        raise NotImplementedError("not trained in these tests")


class Regressor(Policy):
    def __init__(self):
        super().__init__()
        self.config = Config()
        self.encode = nn.Linear(2, 4)

    def predict(self, batch, noise=None, prior=None):
        return self.encode(batch["state"][:, -1])[:, None].expand(-1, 8, -1)

    def loss(self, batch, **draws):
        raise NotImplementedError("not trained in these tests")


class TinyProcessor(Processor):
    """Joints j0, j1 in the first two of four action dimensions; actions are relative to the state, halved."""

    joints = ("j0", "j1")
    cameras = ("front",)
    step_dt = 0.1
    horizon = 8

    def __init__(self, n_obs_steps=1):
        self.n_obs_steps = n_obs_steps

    def inputs(self, samples):
        words = [len(sample.instruction.split()) for sample in samples]
        if max(words) > 20:
            raise InputError(f"instruction of {max(words)} words, expected at most 20")
        length = 8 if max(words) <= 8 else 20  # two lengths of prompt
        return {
            "image": torch.stack([torch.as_tensor(sample.images["front"]) for sample in samples]),
            "state": torch.stack([torch.as_tensor(sample.state, dtype=torch.float32) for sample in samples]),
            "text": torch.zeros(len(samples), length, dtype=torch.long),
        }

    def outputs(self, answer, samples):
        starts = np.stack([sample.state[-1] for sample in samples])
        rows = 2.0 * answer[..., :2].double().numpy() + starts[:, None]
        return [Targets((Part(self.joints, row),)) for row in rows]

    def normalise(self, targets, samples):
        starts = np.stack([sample.state[-1] for sample in samples])
        rows = np.stack([t.joint_positions(self.joints, start) for t, start in zip(targets, starts, strict=True)])
        relative = torch.as_tensor((rows - starts[:, None]) / 2, dtype=torch.float32)
        return torch.nn.functional.pad(relative, (0, 2)), torch.ones(rows.shape[:2], dtype=torch.bool)


def loaded(kind=Denoiser, n_obs_steps=1):
    torch.manual_seed(0)
    return LoadedPolicy("tiny", kind(), TinyProcessor(n_obs_steps))


def robot():
    from vla_ros.core.robot import RobotSpec

    joint = {"lower": -1.0, "upper": 1.0, "velocity": 1.0, "acceleration": 1.0}
    return RobotSpec.from_dict(
        {
            "name": "tiny",
            "cameras": [{"name": "front", "topic": "front", "width": 6, "height": 4}],
            "joints": [{"name": "j0", **joint}, {"name": "j1", **joint}],
            "groups": [
                {"name": "arm", "topic": "arm", "interface": "float64_multi_array", "joints": ["j0", "j1"]}
            ],
        }
    )


def sample(value=100, state=(0.1, 0.2), instruction="touch the red cube", steps=1):
    from vla_ros.core.observation import Sample

    images = {"front": np.full((steps, 4, 6, 3), value, np.uint8)}
    return Sample(images, np.tile(np.array(state), (steps, 1)), instruction)
