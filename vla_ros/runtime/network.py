"""How the two stages of a policy are run: operation by operation, or from recordings.

Both networks have `run(batch, steer, timer) -> Answer` on the device, where `batch` is on the CPU. They mark the timer
before `encode`, between the stages, and at the end.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Policy, Steer
from vla_ros.runtime.stages import StageTimer

Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]


@dataclass
class Held:
    """Tensors that a session keeps at fixed addresses, where recordings read them.

    Attributes:
        steer: None if the policy is never guided.
    """

    memory: Memory
    draws: Draws
    fixed: Fixed
    steer: Steer | None = None


def private_copy(policy: Policy) -> Policy:
    """A copy of the policy's modules in evaluation mode, with the same weights, without gradients.

    What a session does to it (compiling, for example) does not change the original policy.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in policy.buffers()}
    for parameter in policy.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(policy, shared).eval()


def copy_into(targets: Any, sources: Any, rows: list[int] | None = None) -> None:
    """Copy the tensors of one tree into those of another of the same shapes and types, or only some rows of them.

    Raises ValueError where the trees differ.
    """
    into, kind = pytree.tree_flatten(targets)
    values, other = pytree.tree_flatten(sources)
    if kind != other or described(into) != described(values):
        raise ValueError(f"expected tensors as in {described(targets)}, got {described(sources)}")
    for target, value in zip(into, values, strict=True):
        if isinstance(target, Tensor):
            if rows is None:
                target.copy_(value)
            else:
                target[rows] = value[rows].to(target)


def described(tree: Any) -> str:
    """Shapes and types of a tree's tensors, for messages."""
    return str(pytree.tree_map_only(Tensor, lambda v: f"{v.dtype} {list(v.shape)}", tree))


def shapes_of(batch: Batch) -> tuple:
    """The shapes that a recording depends on: two batches with the same shapes share one."""
    return tuple((name, tuple(batch[name].shape), batch[name].dtype) for name in sorted(batch))


class PlainNetwork:
    """Runs the policy operation by operation: the CPU's way, and the GPU's without recordings."""

    def __init__(self, policy: Policy, held: Held, device: torch.device) -> None:
        self.policy, self._held, self._device = policy, held, device

    def holds(self, shapes: tuple) -> bool:
        """Whether a batch of these shapes needs no new recording."""
        return True

    def run(self, batch: Batch, steer: Steer | None, timer: StageTimer) -> Answer:
        held = self._held
        inputs = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
        timer.mark()
        context = self.policy.encode(inputs, held.memory, held.draws)
        timer.mark()
        answer = self.policy.act(context, held.draws, held.fixed, steer)
        timer.mark()
        return answer


class RecordedNetwork:
    """A recording of each stage for each set of input shapes, the least recently used dropped.

    A CUDA graph replays the recorded kernels on the same addresses: so inputs are copied into fixed buffers, and the
    result is the same as without recording. It saves the launches of thousands of small kernels by the host. Stages
    that a policy does not name `recordable`, and `act` under exact guidance, run
    plainly.

    Args:
        capture: records a function without arguments; gives a function that repeats it, and its result, whose tensors
            are filled again by each repetition. Default: CUDA graphs.
    """

    def __init__(
        self, policy: Policy, held: Held, device: torch.device, capacity: int, capture: Capture | None = None
    ) -> None:
        self._policy, self._held, self._device = policy, held, device
        self._capacity, self._capture = capacity, capture
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()

    def holds(self, shapes: tuple) -> bool:
        """Whether there is a recording for a batch of these shapes."""
        return shapes in self._recordings

    def run(self, batch: Batch, steer: Steer | None, timer: StageTimer) -> Answer:
        key = shapes_of(batch)
        recording = self._recordings.get(key)
        if recording is None:
            while len(self._recordings) >= self._capacity:
                self._recordings.popitem(last=False)
            capture = self._capture or CudaCapture(self._device)
            recording = self._recordings[key] = _Recording(self._policy, self._held, batch, self._device, capture)
        self._recordings.move_to_end(key)
        return recording.run(batch, steer, timer)

    def __len__(self) -> int:
        return len(self._recordings)


class CudaCapture:
    """Records CUDA graphs in one memory pool, so that one can read what another has written."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, None

    def __call__(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose algorithms and take workspaces outside of the recording
                function()
        torch.cuda.current_stream(self._device).wait_stream(side)
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()
        self._pool = graph.pool()
        return graph.replay, result


class _Recording:
    def __init__(self, policy: Policy, held: Held, batch: Batch, device: torch.device, capture: Capture) -> None:
        self._policy, self._held = policy, held
        # The host writes into pinned memory, from where the copy to the device runs beside other work.
        pinned = device.type == "cuda"
        self._pinned = {name: torch.empty_like(value, pin_memory=pinned) for name, value in batch.items()}
        self._inputs = {name: torch.empty_like(value, device=device) for name, value in batch.items()}
        self._fill(batch)
        stages = policy.traits.recordable
        exact = held.steer is not None and held.steer.exact  # recordings cannot hold its backward pass
        self._encode = self._act = None
        if "encode" in stages:
            self._encode, self._context = capture(self._run_encode)
            self._encode()
        else:
            self._context = pytree.tree_map_only(Tensor, Tensor.clone, self._run_encode())
        if "act" in stages and not exact:
            self._act, self._answer = capture(lambda: self._run_act(held.steer))

    def _fill(self, batch: Batch) -> None:
        for name, value in batch.items():
            self._pinned[name].copy_(value)
            self._inputs[name].copy_(self._pinned[name], non_blocking=True)

    def _run_encode(self) -> Any:
        return self._policy.encode(self._inputs, self._held.memory, self._held.draws)

    def _run_act(self, steer: Steer | None) -> Answer:
        return self._policy.act(self._context, self._held.draws, self._held.fixed, steer)

    def run(self, batch: Batch, steer: Steer | None, timer: StageTimer) -> Answer:
        self._fill(batch)
        timer.mark()
        if self._encode is not None:
            self._encode()
        elif self._act is not None:  # its recording reads the context where it lies
            copy_into(self._context, self._run_encode())
        else:
            self._context = self._run_encode()
        timer.mark()
        if self._act is not None:
            self._act()
            answer = self._answer
        else:
            answer = self._run_act(steer)
        timer.mark()
        return answer
