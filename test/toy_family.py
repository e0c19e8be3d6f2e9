"""A policy family small enough to train in milliseconds: mean colours and joints in, a chunk out."""

import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.policies import registry
from vla_ros.policies.policy import Answer, Policy
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy

NAME = "toy"


@dataclass(frozen=True)
class ToyConfig:
    width: int = 16
    action_dim: int = 6
    horizon: int = 4
    cameras: int = 2
    n_obs_steps = 1


class ToyPolicy(Policy):
    """Noise is drawn in the loss, so that what is random in training is covered."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(3 * config.cameras + config.action_dim, config.width)
        self.second = nn.Linear(config.width, config.width)
        self.last = nn.Linear(config.width, config.horizon * config.action_dim)

    def encode(self, batch, memory=None, draws=None):
        colours = batch["images"].float().mean(dim=(2, 3)).flatten(1) / 255
        return torch.relu(self.first(torch.cat([colours, batch["state"]], dim=1)))

    def act(self, context, draws=None, fixed=None, steer=None):
        return Answer(self.last(torch.relu(self.second(context))).unflatten(1, (self.config.horizon, -1)))

    def loss(self, batch, **draws):
        _die_at_step()
        noise = draws.get("noise", 0.1 * torch.randn_like(batch["actions"]))
        error = (self.act(self.encode(batch)).actions - batch["actions"] - noise).square().mean(-1)
        kept = (~batch["action_is_pad"]).float()
        return {"loss": (error * kept).sum() / kept.sum()}


_calls = 0


def _die_at_step() -> None:
    """End the process as the kernel would, at the loss whose number TOY_DIE_AT gives."""
    global _calls
    _calls += 1
    if _calls == int(os.environ.get("TOY_DIE_AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)


class ToyProcessor(Processor):
    def __init__(self, joints, cameras, step_dt, horizon, mean, std) -> None:
        self.joints, self.cameras, self.step_dt, self.horizon = tuple(joints), tuple(cameras), step_dt, horizon
        self.mean, self.std = np.asarray(mean), np.asarray(std)

    def inputs(self, samples):
        state = np.stack([sample.state[-1] for sample in samples])
        images = np.stack([[sample.images[name][-1] for name in self.cameras] for sample in samples])
        batch = {
            "state": torch.from_numpy(((state - self.mean) / self.std).astype(np.float32)),
            "images": torch.from_numpy(images),
        }
        if samples[0].actions is not None:
            rows = np.stack([sample.actions for sample in samples])
            batch["actions"] = torch.from_numpy(((rows - self.mean) / self.std).astype(np.float32))
            batch["action_is_pad"] = torch.from_numpy(np.stack([sample.action_is_pad for sample in samples]))
        return batch

    def outputs(self, answer, samples):
        rows = answer.numpy().astype(np.float64) * self.std + self.mean
        return [Targets((Part(self.joints, row),)) for row in rows]

    def normalise(self, targets, samples):
        pairs = zip(targets, samples, strict=True)
        rows = np.stack([one.joint_positions(self.joints, sample.state[-1]) for one, sample in pairs])
        normalised = torch.from_numpy(((rows - self.mean) / self.std).astype(np.float32))
        return normalised, torch.ones(rows.shape[:2], dtype=torch.bool)

    def with_statistics(self, data):
        action = data.statistics["action"]
        if np.shape(action["mean"]) != self.mean.shape:
            raise InputError(f"statistics of {np.size(action['mean'])} dimensions, expected {self.mean.size}")
        return ToyProcessor(self.joints, self.cameras, self.step_dt, self.horizon, action["mean"], action["std"])


def build(config, data) -> LoadedPolicy:
    sizes = ToyConfig(**config, action_dim=len(data.joints), cameras=len(data.cameras))
    action = data.statistics["action"]
    processor = ToyProcessor(data.joints, data.cameras, data.step_dt, sizes.horizon, action["mean"], action["std"])
    return LoadedPolicy(NAME, ToyPolicy(sizes), processor)


def recognise(path, config):
    return "vla_ros" if config.get("family") == NAME else None


def describe(path, layout, options):
    return {}


def load(path, layout, options) -> LoadedPolicy:
    config = json.loads((path / "config.json").read_text())
    if "statistics" not in config:
        raise InputError(f"checkpoint {path}: statistics are missing")
    policy = ToyPolicy(ToyConfig(**config["policy"]))
    policy.load_state_dict(load_file(path / "model.safetensors"))
    processor = ToyProcessor(*config["processor"], *config["statistics"])
    return LoadedPolicy(NAME, policy, processor)


def save(path: Path, loaded: LoadedPolicy) -> None:
    partial = path.with_name(path.name + ".writing")
    partial.mkdir(parents=True)
    p = loaded.processor
    config = {
        "family": NAME,
        "policy": asdict(loaded.policy.config),
        "processor": [p.joints, p.cameras, p.step_dt, p.horizon],
        "statistics": [p.mean.tolist(), p.std.tolist()],
    }
    (partial / "config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in loaded.policy.state_dict().items()},
              partial / "model.safetensors")
    shutil.rmtree(path, ignore_errors=True)
    os.rename(partial, path)


def register() -> None:
    registry.BUILT_IN = {NAME: "toy_family"}


if __name__ == "__main__":  # the vla-ros command with this family: python test/toy_family.py train ...
    import sys

    register()
    sys.modules["toy_family"] = sys.modules["__main__"]
    from vla_ros.cli.main import main

    sys.exit(main())
