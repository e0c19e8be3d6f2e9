"""Training steps per second: ours beside the same networks in other people's code, turn by turn in one run.

    python benchmarks/training_step.py --lerobot-python /path/to/python

A step is what every trainer does: gradients to zero, loss, backward, clipping, AdamW; random weights and one random
batch, the same shapes for both. π0 is compared with transformers, ACT and Diffusion Policy with LeRobot in its own
Python (not measured without --lerobot-python). "tiny" has the widths of the small configurations in config/train, but a
vision tower that the others have too; "mid" is 100 M parameters for π0, the published defaults for ACT and Diffusion.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from vla_ros.bench.peers import transformers_pi0_inputs, transformers_pi0_model
from vla_ros.bench.subjects import pi0_config, random_batch, random_pi0
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.act.model import ACT
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.diffusion.model import DiffusionPolicy

CAMERAS, JOINTS = ("front", "wrist"), 6
CPU = torch.device("cpu")
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "act": {
        "tiny": {"image_size": (96, 96), "chunk_size": 16, "n_action_steps": 16, "dim_model": 128, "n_heads": 4,
                 "dim_feedforward": 512, "n_encoder_layers": 2, "n_vae_encoder_layers": 2},
        "mid": {"image_size": (224, 224)},
    },
    "diffusion": {
        "tiny": {"image_size": (96, 96), "down_dims": (64, 128, 256)},
        "mid": {"image_size": (96, 96)},
    },
}  # fmt: skip
LEROBOT = """
import json, sys, time
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
family, sizes, cameras, joints, batch_size, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
if family == "act":
    from lerobot.policies.act.configuration_act import ACTConfig as Config
    from lerobot.policies.act.modeling_act import ACTPolicy as Policy
else:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as Config
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy as Policy
sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
height, width = sizes.pop("image_size")
inputs = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, height, width)) for name in cameras}
inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (joints,))
config = Config(input_features=inputs, output_features={"action": PolicyFeature(FeatureType.ACTION, (joints,))},
                pretrained_backbone_weights=None, device="cpu", **sizes)
policy = Policy(config).train()
rows = config.chunk_size if family == "act" else config.horizon
steps = () if family == "act" else (config.n_obs_steps,)
batch = {f"observation.images.{name}": torch.rand(batch_size, *steps, 3, height, width) for name in cameras}
batch["observation.state"] = torch.randn(batch_size, *steps, joints)
batch |= {"action": torch.rand(batch_size, rows, joints) * 2 - 1,
          "action_is_pad": torch.zeros(batch_size, rows, dtype=torch.bool)}
parameters = [p for p in policy.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4)
print(json.dumps(sum(p.numel() for p in parameters)), flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
        optimizer.zero_grad(set_to_none=True)
        policy.forward(batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    print(json.dumps(time.perf_counter() - began), flush=True)
"""  # fmt: skip


class Local:
    """A network of this process. `loss`: () -> scalar."""

    def __init__(self, model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
        self._loss = loss
        model.train().requires_grad_(True)
        loss().backward()  # what the loss does not reach (an output layer for text, say) is not trained
        self._trained = [p for p in model.parameters() if p.grad is not None]
        self._optimizer = torch.optim.AdamW(self._trained, lr=1e-4)
        self.parameters = sum(p.numel() for p in self._trained)

    def run(self, steps: int) -> float:
        """s that so many steps take."""
        began = time.perf_counter()
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            self._loss().backward()
            nn.utils.clip_grad_norm_(self._trained, 1.0)
            self._optimizer.step()
        return time.perf_counter() - began


class LeRobot:
    """A policy of LeRobot in a Python of its own, which waits between the turns."""

    def __init__(self, python: str, *settings: object) -> None:
        self._process = subprocess.Popen(
            [python, "-c", LEROBOT, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.parameters = self._answer()

    def run(self, steps: int) -> float:
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> float:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("LeRobot's process ended, see above")
        return json.loads(line)


def pi0(size: str, batch_size: int) -> tuple[Local, Local]:
    """Ours and transformers'."""
    if size == "tiny":
        tower = SiglipSize(hidden=128, depth=4, heads=4, mlp=512, patch=16, image=96)
        config = replace(pi0_config("tiny", len(CAMERAS)), vision=tower)
    else:
        config = pi0_config("100m", len(CAMERAS))
    ours = random_pi0(config, CPU, torch.float32)
    one = random_batch(ours)
    batch = {name: value.expand(batch_size, *value.shape[1:]).contiguous() for name, value in one.items()}
    shape = (batch_size, config.horizon, config.action_dim)
    batch |= {"actions": torch.randn(shape), "action_is_pad": torch.zeros(shape[:2], dtype=torch.bool)}
    theirs = transformers_pi0_model(config, CPU, torch.float32, config.num_steps)
    inputs = transformers_pi0_inputs(config, batch, CPU, torch.float32)
    return (
        Local(ours, lambda: ours.loss(batch)["loss"]),
        Local(theirs, lambda: theirs(**inputs, actions=batch["actions"]).loss.mean()),
    )


def local(family: str, size: str, batch_size: int) -> Local:
    """Our ACT or Diffusion Policy, as LeRobot's constructor makes it."""
    common = {"action_dim": JOINTS, "state_dim": JOINTS, "cameras": CAMERAS, **SIZES[family][size]}
    if family == "act":
        config = ACTConfig(**common)
        model, rows, steps = ACT(config), config.chunk_size, ()
    else:
        config = DiffusionConfig(**common)
        model, rows, steps = DiffusionPolicy(config), config.unet_horizon, (config.n_obs_steps,)
    batch = {
        "images": torch.rand(batch_size, *steps, len(CAMERAS), 3, *config.image_size),
        "state": torch.randn(batch_size, *steps, JOINTS),
        "actions": torch.rand(batch_size, rows, JOINTS) * 2 - 1,
        "action_is_pad": torch.zeros(batch_size, rows, dtype=torch.bool),
    }
    return Local(model, lambda: model.loss(batch)["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=("pi0", *SIZES), default=["pi0", *SIZES])
    parser.add_argument("--sizes", nargs="+", choices=("tiny", "mid"), default=["tiny", "mid"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each, after one that does not count")
    parser.add_argument("--steps", type=int, default=5, help="in a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lerobot-python", help="a Python that imports lerobot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table("policy", "size", "peer", "M parameters (peer)", "steps/s", "peer steps/s", "ratio", "of rounds",
                  title=f"training steps, batch {args.batch_size}, float32, {args.threads} CPU thread(s), "
                        f"torch {torch.__version__}")  # fmt: skip
    for family in args.families:
        for size in args.sizes:
            torch.manual_seed(0)
            if family == "pi0":
                name, (ours, theirs) = "transformers", pi0(size, args.batch_size)
            elif args.lerobot_python:
                name, ours = "LeRobot", local(family, size, args.batch_size)
                theirs = LeRobot(args.lerobot_python, family, SIZES[family][size], CAMERAS, JOINTS, args.batch_size,
                                 args.threads)  # fmt: skip
            else:
                continue
            steps = args.steps if size == "tiny" else 1
            turns = np.array([(ours.run(steps), theirs.run(steps)) for _ in range(args.rounds + 1)])[1:]
            if isinstance(theirs, LeRobot):
                theirs.close()
            rates, ratios = steps / np.median(turns, axis=0), turns[:, 1] / turns[:, 0]
            table.add_row(
                family, size, name, f"{ours.parameters / 1e6:.1f} ({theirs.parameters / 1e6:.1f})", f"{rates[0]:.2f}",
                f"{rates[1]:.2f}", f"{np.median(ratios):.2f}", f"{ratios.min():.2f} to {ratios.max():.2f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
