"""The same policy run by another engine, taking turns with torch."""

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from vla_ros.bench.lerobot_peer import PAUSE
from vla_ros.bench.timing import Timing, peak_memory
from vla_ros.policies.policy import Batch, Draws, Policy
from vla_ros.runtime.engines.backends import Backend
from vla_ros.runtime.engines.engaged import TOLERANCE, Engaged, difference
from vla_ros.runtime.network import Held, PlainNetwork
from vla_ros.runtime.stages import StageTimer

_CPU = torch.device("cpu")


class EnginePeer:
    """Its graphs are made only for the benchmark, and not kept."""

    def __init__(self, backend: type[Backend]) -> None:
        version = backend.version().partition("-")[0]  # OpenVINO appends commit and branch of its build
        self._backend, self.name, self._times = backend, f"vla_ros, {backend.name} {version}", []

    @torch.inference_mode()
    def set_inputs(self, policy: Policy, batch: Batch, draws: Draws, steps: int | None) -> None:
        """Make the graphs. Raises InputError if the policy cannot be converted."""
        self._stages = policy.stages
        self._batch, copied = policy.with_elapsed(batch), self._backend.copied(policy)
        self._network = PlainNetwork(copied, Held(policy.begin(1), draws, policy.prepare(steps)), _CPU)
        with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as folder:
            Engaged(copied, self._backend, Path(folder) / "graphs")
            self._actions = self._network.run(self._batch, None, StageTimer(_CPU)).actions

    @torch.inference_mode()
    def turn(self, number: int) -> None:
        """One inference; negative numbers are the warm-up."""
        time.sleep(PAUSE)
        timer = StageTimer(_CPU)
        self._actions = self._network.run(self._batch, None, timer).actions
        if number >= 0:
            self._times.append(timer.seconds())
        time.sleep(PAUSE)

    def timing(self, ours: Tensor) -> Timing:
        """Times of the turns so far; none if its actions differ from torch's, (1, H, D)."""
        error = difference(self._actions, ours)
        if not error <= TOLERANCE and self._backend.exact:
            return Timing(self.name, problem=f"its actions differ by {error:.1e} of their range")
        stages = dict(zip(self._stages, map(list, zip(*self._times, strict=True)), strict=True))
        stages["total"] = [sum(times) for times in self._times]
        return Timing(f"{self.name} (actions within {error:.0e})", stages, peak_memory(_CPU))
