"""LeRobot's own class of a policy, in a separate process, taking turns with ours.

LeRobot needs other versions of libraries, so it runs in a Python that has them. It loads the same folder, gets the same
inputs and noise, and its chunk is compared with ours, because a ratio between different computations would be
meaningless.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from vla_ros.bench.timing import Timing
from vla_ros.core import processes
from vla_ros.core.errors import InputError
from vla_ros.policies.act.model import ACT
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.images import signed
from vla_ros.policies.pi0_fast.model import Pi0Fast
from vla_ros.policies.policy import Batch, Draws, Policy
from vla_ros.policies.smolvla.model import SmolVLA
from vla_ros.policies.xvla.model import Xvla

COMPARED = ("act", "diffusion", "smolvla", "xvla", "groot", "pi0_fast")
SERVER = Path(__file__).with_name("lerobot_server.py")
PAUSE = 0.05  # s between turns: threads that wait busily for more work have gone to sleep by then
AGREEMENT = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest value


def find_python(given: str | None) -> str:
    """The Python to run LeRobot with: the given one, else this one. Raises InputError if it has no lerobot."""
    if given is not None:
        return given
    if find_spec("lerobot") is None:
        raise InputError("this Python has no lerobot; give one that does with --lerobot-python")
    return sys.executable


class LeRobotPeer:
    """A context that ends the process. Raises InputError with LeRobot's message if something fails."""

    def __init__(
        self, python: str, folder: Path, device: torch.device, dtype: str, threads: int, steps: int | None
    ) -> None:
        self.dtype, self._turns, self._memory = dtype, [], 0
        with ExitStack() as stack:
            self._place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vla_ros_bench_")))
            self._log = stack.enter_context(open(self._place / "log", "w+", encoding="utf-8"))
            try:
                self._process = subprocess.Popen(
                    [python, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
                )
            except OSError as error:
                raise InputError(f"--lerobot-python {python}: {error.strerror}") from error
            stack.callback(processes.end, self._process, 10.0)
            said = self._ask(
                "open", folder=str(folder.resolve()), device=str(device), dtype=dtype, threads=threads, steps=steps
            )
            self._opened = stack.pop_all()
        self.name = f"LeRobot {said['lerobot']}, {dtype}"
        if said["torch"] != torch.__version__:
            self.name += f", torch {said['torch']}"

    def __enter__(self) -> "LeRobotPeer":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def _ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps({"do": order} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._log.seek(0)
            said = self._log.read().strip().splitlines()
            raise InputError(f"LeRobot's process ended: {said[-1] if said else 'it printed nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise InputError(answer["error"])
        return answer

    def set_inputs(self, policy: Policy, batch: Batch, draws: Draws, steps: int | None) -> None:
        """Set the inputs of LeRobot's class, and run it once."""
        file = self._place / "inputs.safetensors"
        tensors = lerobot_inputs(policy, batch, draws, steps)
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, file)
        self._ask("inputs", file=str(file))
        self._ask("run")

    def turn(self, number: int) -> None:
        """One inference; negative numbers are the warm-up."""
        time.sleep(PAUSE)
        said = self._ask("run")
        if number >= 0:
            self._turns.append(said["seconds"])
        self._memory = max(self._memory, said["memory"])
        time.sleep(PAUSE)

    def actions(self) -> Tensor:
        """(1, rows, D) of the last turn, or (1, L) tokens."""
        file = self._place / "output.safetensors"
        self._ask("output", file=str(file))
        return load_file(file)["actions"]

    def timing(self, ours: Tensor) -> Timing:
        """Times of the turns so far; none if its actions differ from ours, (1, H, D), or tokens, (1, L)."""
        theirs = self.actions()
        error = float((ours[tuple(map(slice, theirs.shape))] - theirs).abs().max() / theirs.abs().max())
        if error > AGREEMENT[self.dtype]:
            return Timing(self.name, problem=f"its actions differ by {error:.1e} of the largest: not the same policy")
        return Timing(f"{self.name} (actions within {error:.0e})", {"total": self._turns}, self._memory)


def lerobot_inputs(policy: Policy, batch: Batch, draws: Draws, steps: int | None = None) -> dict[str, Tensor]:
    """Our batch under LeRobot's names, (1, ...) each, with images already in the values that its network takes.

    Args:
        draws: of one episode.
        steps: of denoising, None for the policy's own number.

    Raises InputError for families and options that cannot be compared.
    """
    if isinstance(policy, ACT | DiffusionPolicy):
        pictures = (batch["images"].float() / 255 - policy.image_mean.cpu()) / (policy.image_std.cpu() + 1e-8)
        if policy.config.vocabulary:
            raise InputError("LeRobot has no such policy that reads the instruction")
    if isinstance(policy, ACT):
        named = dict(zip(policy.config.cameras, pictures.unbind(1), strict=True))
        return named | {"observation.state": batch["state"]}
    if isinstance(policy, DiffusionPolicy):
        if any(step.spread for step in policy.prepare(steps)):
            raise InputError("DDPM draws noise at each step, so that two runs cannot be compared; DDIM can")
        rows = torch.cat([policy.past_noise.cpu(), draws["noise"].cpu()], dim=1)
        return {"observation.images": pictures, "observation.state": batch["state"], "noise": rows}
    if isinstance(policy, SmolVLA):
        if policy.reads_text:
            raise InputError("LeRobot has no SmolVLA with this vision tower")
        kept = {name: batch[name] for name in ("tokens", "token_mask", "state")}
        return kept | {"images": signed(batch["images"]), "noise": draws["noise"]}
    if isinstance(policy, Pi0Fast):
        if policy.config.decoding != "free" or policy.config.temperature:
            raise InputError(f"decoding {policy.config.decoding!r} at temperature {policy.config.temperature:g} cannot "
                             "be compared, expected 'free' at 0; overrides in a policy file say so")
        kept = {name: batch[name] for name in ("tokens", "token_mask", "start", "end")}
        return kept | {"images": signed(batch["images"])}
    if isinstance(policy, Xvla):
        return _xvla_inputs(policy, batch, draws)
    if isinstance(policy, Groot):
        return _groot_inputs(policy, batch, draws)
    raise InputError(f"{type(policy).__name__}: compared with LeRobot are {', '.join(COMPARED)}")


def _xvla_inputs(policy: Xvla, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """Absent views are zeros."""
    pictures = ((signed(batch["images"]) + 1) / 2 - policy.pixel_mean.cpu()) / policy.pixel_std.cpu()
    more = policy.config.views - pictures.shape[1]
    return {
        "image_input": functional.pad(pictures, (0, 0, 0, 0, 0, 0, 0, more)),
        "image_mask": functional.pad(batch["image_mask"], (0, more)), "input_ids": batch["tokens"],
        "domain_id": batch["domain"], "noise": draws["noise"], "proprio": batch.get("state", torch.zeros(1, 0)),
    }  # fmt: skip


def _groot_inputs(policy: Groot, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """Pictures as Qwen3-VL's processor gives them: (patches, 3 · 2 · side²), each shown twice, four neighbours (two
    rows of two) one after the other."""
    config = policy.config
    if config.generation != "n1.7":
        raise InputError(f"LeRobot 0.6.1 has no GR00T {config.generation.upper()}")
    side, patches, grids = config.vision.patch, [], []
    for name in sorted((name for name in batch if name.startswith("images")), key=lambda name: (len(name), name)):
        for picture in signed(batch[name])[0]:
            blocks = picture.unflatten(2, (-1, 2, side)).unflatten(1, (-1, 2, side))  # (3, R, 2, side, C, 2, side)
            blocks = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5).expand(-1, -1, -1, -1, -1, 2, -1, -1)
            patches.append(blocks.reshape(-1, 3 * 2 * side * side))
            grids.append([1, picture.shape[1] // side, picture.shape[2] // side])
    return {
        "pixel_values": torch.cat(patches), "image_grid_thw": torch.tensor(grids), "input_ids": batch["tokens"],
        "attention_mask": batch["token_mask"].long(), "state": batch["state"], "embodiment_id": batch["embodiment"],
        "noise": draws["noise"],
    }  # fmt: skip
