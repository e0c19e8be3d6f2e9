"""A policy family that reads every sensor of `sensors.robot()` and answers with what it read, number by number."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vla_ros.core.chunk import Part, Targets
from vla_ros.policies.policy import Answer, Policy
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy

NAME = "sensing"
STREAMS = ("imu", "shake", "depth", "markers", "mass", "mode", "pressed", "keys", "command/arm")


@dataclass(frozen=True)
class Config:
    horizon: int = 24
    action_dim: int = 2
    n_obs_steps: int = 2


class Sensing(Policy):
    """(B, H, 2): the numbers of the batch in the order of their names, of a picture its first pixel and its mean."""

    config = Config()

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def encode(self, batch, memory=None, draws=None):
        parts = []
        for name in sorted(batch):
            value = batch[name].flatten(1).float()
            parts.append(value if value.shape[1] < 32 else torch.stack([value[:, 0], value.mean(1)], dim=1))
        return torch.cat(parts, dim=1)

    def act(self, context, draws=None, fixed=None, steer=None):
        size = self.config.horizon * self.config.action_dim
        padded = nn.functional.pad(context * self.one, (0, size - context.shape[1]))
        return Answer(padded.unflatten(1, (self.config.horizon, self.config.action_dim)))

    def loss(self, batch, **draws):
        raise NotImplementedError("not trained in these tests")


class Reader(Processor):
    """Two steps of some streams, and the command before the newest observation."""

    joints, cameras, step_dt, horizon, n_obs_steps = ("a", "b"), ("front",), 0.1, Config().horizon, 2
    streams = STREAMS

    def steps(self, training=False):
        return dict.fromkeys((*self.cameras, "joint_states", *STREAMS), (0,)) | {
            "imu": (-2, 0), "depth": (-1, 0), "command/arm": (-1,), "joint_states": (-1, 0)
        }  # fmt: skip

    def inputs(self, samples):
        rows = [{**sample.images, **sample.values, "joint_states": sample.state} for sample in samples]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        batch["mode"] = np.array([[len(text) for text in row.ravel()] for row in batch["mode"]])
        return {name: torch.from_numpy(np.array(value)) for name, value in batch.items()}

    def outputs(self, answer, samples):
        return [Targets((Part(self.joints, row),)) for row in answer.double().numpy()]

    def normalise(self, targets, samples):
        raise NotImplementedError("not trained in these tests")


def recognise(path, config):
    return "vla_ros" if config.get("family") == NAME else None


def load(path, layout, options):
    return LoadedPolicy(NAME, Sensing().eval(), Reader())


def checkpoint(path):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"family": NAME}))
    return path
