"""Several training processes (torchrun), or one."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from vla_ros.runtime.serving import resolve_device


@dataclass(frozen=True)
class Processes:
    """This process among `count`; `rank` 0 evaluates, logs and saves."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def start(cls, device: str = "auto") -> "Processes":
        """Join the group that torchrun describes in the environment, if there is one. Raises InputError for a missing
        device."""
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        chosen = resolve_device(device)
        if chosen == torch.device("cuda"):
            chosen = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        if count > 1:
            if chosen.type == "cuda":
                torch.cuda.set_device(chosen)
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(rank, count, chosen)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def broadcast(self, module: nn.Module) -> None:
        """Give every process the weights of the first."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes; a parameter without one counts as zero."""
        if self.count == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def sum_values(self, values: torch.Tensor) -> torch.Tensor:
        """Add up a small tensor, (...), over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait for every process."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()
