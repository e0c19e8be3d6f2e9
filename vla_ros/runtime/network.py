"""How the network of a session is run: plainly, or from a recorded CUDA graph.

Both have `run(batch, noise, prior, timer) -> (B, H, D)` on the device, where `batch` is on the CPU. They mark the
timer before the prefix, between prefix and denoising, and at the end.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from vla_ros.policies.policy import Batch, DenoisingPolicy, Policy, Prior
from vla_ros.runtime.stages import StageTimer


def forward(policy: Policy, batch: Batch, noise: Tensor, prior: Prior | None, num_steps: int | None,
            timer: StageTimer | None = None) -> Tensor:
    """One inference on the device; the prefix is computed once, whatever the number of steps."""
    if timer:
        timer.mark()
    if isinstance(policy, DenoisingPolicy):
        prefix = policy.encode_prefix(batch)
        if timer:
            timer.mark()
        actions = policy.sample(prefix, noise, prior, num_steps)
    else:
        if timer:
            timer.mark()
        actions = policy.predict(batch, noise=noise, prior=prior)
    if timer:
        timer.mark()
    return actions


class PlainNetwork:
    """Runs the policy operation by operation: the CPU's way, and the GPU's without graphs."""

    def __init__(self, policy: Policy, device: torch.device, num_steps: int | None) -> None:
        self._policy, self._device, self._num_steps = policy, device, num_steps

    def run(self, batch: Batch, noise: Tensor, prior: Prior | None, timer: StageTimer) -> Tensor:
        on_device = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
        return forward(self._policy, on_device, noise, prior, self._num_steps, timer)


def shapes_of(batch: Batch) -> tuple:
    """What a recorded graph depends on: two batches with the same shapes share one."""
    return tuple((name, tuple(batch[name].shape), batch[name].dtype) for name in sorted(batch))


class RecordedNetwork:
    """One pair of CUDA graphs (prefix, denoising) for each set of input shapes, the least recently used dropped.

    A graph replays the very kernels that were recorded, on the same addresses: so inputs are copied into buffers
    that stay where they are, and the result is the one of the plain way. What is gained is the launch of thousands
    of small kernels by the host.
    """

    def __init__(self, policy: Policy, device: torch.device, num_steps: int | None, capacity: int) -> None:
        self._policy, self._device, self._num_steps = policy, device, num_steps
        self._capacity = capacity
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()

    def run(self, batch: Batch, noise: Tensor, prior: Prior | None, timer: StageTimer) -> Tensor:
        key = (shapes_of(batch), prior is not None)
        recording = self._recordings.get(key)
        if recording is None:
            while len(self._recordings) >= self._capacity:
                self._recordings.popitem(last=False)
            recording = _Recording(self._policy, self._device, self._num_steps, batch, noise, prior)
            self._recordings[key] = recording
        self._recordings.move_to_end(key)
        return recording.replay(batch, noise, prior, timer)

    def __len__(self) -> int:
        return len(self._recordings)


class _Recording:
    def __init__(self, policy: Policy, device: torch.device, num_steps: int | None, batch: Batch, noise: Tensor,
                 prior: Prior | None) -> None:
        # The host writes into pinned memory, from where the copy to the device runs beside other work.
        self._pinned = {name: torch.empty_like(value, pin_memory=True) for name, value in batch.items()}
        self._inputs = {name: torch.empty_like(value, device=device) for name, value in batch.items()}
        self._noise = torch.empty_like(noise)
        self._prior = None
        if prior is not None:
            self._prior = Prior(
                prior.actions.clone(), prior.weights.clone(), exact=prior.exact, max_guidance=prior.max_guidance
            )
        self._fill(batch, noise, prior)
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose algorithms and take workspaces outside of the recording
                forward(policy, self._inputs, self._noise, self._prior, num_steps)
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        self._prefix_graph = torch.cuda.CUDAGraph()
        self._graph = torch.cuda.CUDAGraph()
        if isinstance(policy, DenoisingPolicy):
            with torch.cuda.graph(self._prefix_graph):
                self._prefix = policy.encode_prefix(self._inputs)
            # The prefix stays alive in the pool that both share, so the second graph reads it where it lies.
            with torch.cuda.graph(self._graph, pool=self._prefix_graph.pool()):
                self._actions = policy.sample(self._prefix, self._noise, self._prior, num_steps)
        else:
            self._prefix = None
            with torch.cuda.graph(self._graph):
                self._actions = policy.predict(self._inputs, noise=self._noise, prior=self._prior)

    def _fill(self, batch: Batch, noise: Tensor, prior: Prior | None) -> None:
        for name, value in batch.items():
            self._pinned[name].copy_(value)
            self._inputs[name].copy_(self._pinned[name], non_blocking=True)
        self._noise.copy_(noise)
        if prior is not None:
            self._prior.actions.copy_(prior.actions)
            self._prior.weights.copy_(prior.weights)

    def replay(self, batch: Batch, noise: Tensor, prior: Prior | None, timer: StageTimer) -> Tensor:
        self._fill(batch, noise, prior)
        timer.mark()
        if self._prefix is not None:
            self._prefix_graph.replay()
        timer.mark()
        self._graph.replay()
        timer.mark()
        return self._actions
