"""A policy and a processor of a few lines, for tests of what surrounds them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Answer, Policy, Traits, tensors
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy


@dataclass(frozen=True)
class Config:
    horizon: int = 8
    action_dim: int = 4
    n_obs_steps: int = 1


@tensors
class Sum:
    """Of all states that an episode has shown, and how many."""

    total: torch.Tensor
    count: torch.Tensor


@tensors
class Seen:
    state: torch.Tensor
    before: Sum


class Rememberer(Policy):
    """Answers with the mean of all states of the episode, and with the steps that passed in the third dimension."""

    traits = Traits(paced=True)

    def __init__(self):
        super().__init__()
        self.config = Config()
        self.scale = nn.Parameter(torch.ones(()))

    def begin(self, size):
        return Sum(self.scale.new_zeros(size, 2), torch.zeros(size, dtype=torch.int64))

    def encode(self, batch, memory=None, draws=None):
        elapsed = batch["elapsed"][:, None].float()
        return Seen(torch.cat([batch["state"][:, -1] * self.scale, elapsed, elapsed * 0], dim=-1), memory)

    def act(self, context, draws=None, fixed=None, steer=None):
        now = Sum(context.before.total + context.state[:, :2], context.before.count + 1)
        # An odd count of 100 would be remembered for ever: what is not finite is in the memory, not in the answer.
        total = now.total + torch.where(context.state[:, :1] == 100, torch.inf, 0.0)
        mean = torch.cat([now.total / now.count[:, None], context.state[:, 2:]], dim=-1)
        return Answer(mean[:, None].expand(-1, 8, -1), Sum(total, now.count))

    def loss(self, batch, **draws):
        raise NotImplementedError("not trained in these tests")


class Speaker(Policy):
    """Answers with as many tokens as the prompt is long; ids above what bfloat16 can tell apart."""

    traits = Traits(recordable=("encode",), pads=False)

    def __init__(self):
        super().__init__()
        self.config = Config()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, batch, memory=None, draws=None):
        return batch["text"]

    def act(self, context, draws=None, fixed=None, steer=None):
        return Answer(257_023 + context + torch.arange(context.shape[1]))

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
        if not answer.is_floating_point():
            answer = (answer[:, :1, None] - 257_023).expand(-1, 8, 4).float()
        starts = np.stack([sample.state[-1] for sample in samples])
        rows = 2.0 * answer[..., :2].double().numpy() + starts[:, None]
        return [Targets((Part(self.joints, row),)) for row in rows]

    def normalise(self, targets, samples):
        starts = np.stack([sample.state[-1] for sample in samples])
        rows = np.stack([t.joint_positions(self.joints, start) for t, start in zip(targets, starts, strict=True)])
        relative = torch.as_tensor((rows - starts[:, None]) / 2, dtype=torch.float32)
        return torch.nn.functional.pad(relative, (0, 2)), torch.ones(rows.shape[:2], dtype=torch.bool)


def loaded(kind=Rememberer, n_obs_steps=1):
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


def sample(value=100, state=(0.1, 0.2), instruction="touch the red cube", steps=1, stamp_ns=0):
    from vla_ros.core.observation import Sample

    images = {"front": np.full((steps, 4, 6, 3), value, np.uint8)}
    return Sample(images, np.tile(np.array(state), (steps, 1)), instruction, stamp_ns=stamp_ns)
