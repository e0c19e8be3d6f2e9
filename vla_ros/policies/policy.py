"""What every policy family provides."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError

Batch = dict[str, Tensor]
Draws = dict[str, Tensor]
# Dataclasses of a family, decorated with `tensors`: its memory between answers, its encoding of an observation, and
# what depends only on the weights and the number of steps.
Memory = Any
Context = Any
Fixed = Any


def tensors(kind: type) -> type:
    """Class decorator: a dataclass whose fields are tensors, lists or dicts of them, other such dataclasses, or None.

    Registered with torch, so that sessions can copy it, CUDA graphs keep it in place and `torch.export` accepts it. A
    length must be a shape or a tensor in it, never a Python counter: a recorded graph keeps the values that Python
    computed while recording.

    Raises TypeError if one field's name is a prefix of another's (`c`, `count`): torch's exported modules confuse them.
    """
    kind = dataclass(kind)
    for name, other in permutations((field.name for field in fields(kind)), 2):
        if other.startswith(name):
            raise TypeError(f"{kind.__name__}: the field {name!r} begins {other!r}, which torch.export mixes up; "
                            "rename one")
    torch.export.register_dataclass(kind)
    return kind


@dataclass(frozen=True)
class Traits:
    """What a loaded policy can do and needs; made from its configuration, not from its class.

    Attributes:
        recordable: stages that never wait for the device, and whose operations depend only on shapes, never on values.
        guidance: forms of `Steer` that `act` accepts: "prior"; "exact", for which `act` runs unrecorded.
        paced: it has a memory, so it is asked exactly once every step_dt; the batch then contains `elapsed`, (B,)
            int64: steps since the last answer, 0 at the start of an episode.
        pads: padding does not change the answer. If False, all rows of a batch have one length, and a new instruction
            may have another one.
    """

    recordable: tuple[str, ...] = ("encode", "act")
    guidance: tuple[str, ...] = ()
    paced: bool = False
    pads: bool = True


@tensors
class Steer:
    """What the robot executes during inference, for real-time chunking; the policy computes weights from the two
    counts.

    Attributes:
        actions: (B, H, D) of the running chunk, normalised; row 0 coincides with the first row of the next chunk.
        frozen: (B,) int64, rows that will have passed when the new chunk arrives.
        overlap: (B,) int64, rows that the running chunk covers; with 0 the result is exactly that without a running
            chunk.
        exact: guide with the vector-Jacobian product instead of its stop-gradient form.
        max_guidance: the bound β of the guidance weight of flows.
    """

    actions: Tensor
    frozen: Tensor
    overlap: Tensor
    exact: bool = False
    max_guidance: float = 5.0


@tensors
class Answer:
    """What a policy answers.

    Attributes:
        actions: (B, H, D) normalised actions, or (B, L) int64 tokens that the processor reads.
        memory: for the next observation, tensors of the same shapes as `begin` returns; None: no memory.
    """

    actions: Tensor
    memory: Memory = None


def mean_of_valid(error: Tensor, pad: Tensor | None) -> Tensor:
    """Mean of the (B, H, D) error over the rows that are not padding, 0 if there are none; pad None: over all rows."""
    if pad is None:
        return error.mean()
    kept = (~pad)[..., None]
    return (error * kept).sum() / (kept.sum() * error.shape[-1]).clamp(min=1)


class Policy(nn.Module, ABC):
    """A network from a batch of prepared observations to chunks of normalised actions.

    Row b of every tensor (batch, memory, draws, steer, answer) is episode b. Numbers of a batch and draws are float32,
    int64, bool or uint8 whatever the type of the weights: each part casts its inputs, except ids.

    `encode` and `act` change neither their arguments nor the policy: the same call gives the same answer.

    Attributes:
        config: the family's frozen config dataclass. It has at least `horizon` (H), `action_dim` (D) and
            `n_obs_steps` (T).
        traits: its capabilities and needs.
        stages: the methods that are timed, recorded and exported.
        compiled: names of the methods that the runtime compiles with torch.compile on request: a step, not its loop.
        float32: regular expressions; parameters whose names begin with one stay float32 whatever the rest is in.
    """

    config: Any
    traits: Traits = Traits()
    stages = ("encode", "act")
    compiled: tuple[str, ...] = ("encode", "act")
    float32: tuple[str, ...] = ()

    def prepare(self, num_steps: int | None = None) -> Fixed:
        """What depends only on weights and number of steps, computed once; None: nothing. None steps: the config's
        number.

        Raises InputError if a number of steps is given to a policy without steps.
        """
        if num_steps is not None:
            raise InputError(f"num_steps {num_steps}: {type(self).__name__} does not work in steps; remove it")
        return None

    def begin(self, size: int) -> Memory:
        """The memory at the start of `size` episodes, all tensors (size, ...), always of the same shapes; None:
        none."""
        return None

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        """Name -> (size, ...), the standard normal float32 numbers that `encode` and `act` need; {} for none."""
        return {}

    @abstractmethod
    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> Context:
        """Computed once for each observation; contains what `act` needs from the memory."""

    @abstractmethod
    def act(
        self, context: Context, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """A head, a loop of steps, a decoding, a search. `fixed` is the result of `prepare`; None: of `prepare()`."""

    @abstractmethod
    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Scalars of a training step: one for each name in `groups`, which is minimised, and others to log.

        Besides the inputs, the batch contains "actions" (B, H, D) normalised and "action_is_pad" (B, H), and windows of
        steps if serving uses a memory. `draws` replaces the random numbers, for parity tests.
        """

    def store_as(self, dtype: torch.dtype) -> "Policy":
        """Convert each parameter to the type that loading would give it for weights of `dtype`; buffers keep theirs."""
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(self.stored_dtype(name, dtype))
        return self

    def stored_dtype(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """The type of the parameter `name` if the weights are `dtype`."""
        return torch.float32 if any(re.match(pattern, name) for pattern in self.float32) else dtype

    def with_elapsed(self, batch: Batch, elapsed: Sequence[int] | None = None) -> Batch:
        """The batch, for a `paced` policy with the number of steps since the last answer; None: zeros (a new
        episode)."""
        if not self.traits.paced:
            return batch
        rows = next(iter(batch.values()))
        steps = rows.new_zeros(len(rows), dtype=torch.int64) if elapsed is None else torch.tensor(elapsed)
        return batch | {"elapsed": steps}

    def require_guidance(self, form: str) -> None:
        """Raises InputError unless `act` accepts this form of `Steer`: "prior" or "exact"."""
        if form not in self.traits.guidance:
            raise InputError(f"real-time chunking, guidance {form!r}: {type(self).__name__} takes "
                             f"{list(self.traits.guidance) or 'none'}; use another blending mode of the executor")

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Name of a loss -> the parameters that it trains, with an optimiser of its own."""
        return {"loss": list(self.parameters())}

    def updated(self) -> None:
        """Called after each optimiser step, for target networks."""

    @torch.no_grad()
    def predict(
        self, batch: Batch, draws: Draws | None = None, steer: Steer | None = None, num_steps: int | None = None
    ) -> Tensor:
        """The first answer of an episode, (B, H, D) or (B, L); `draws` that are not given come from torch's random
        state."""
        size, device = len(next(iter(batch.values()))), next(self.parameters()).device
        batch = self.with_elapsed(batch)
        draws = dict(draws or {})
        if steer is not None:
            self.require_guidance("exact" if steer.exact else "prior")
        for name, shape in self.draws(size).items():
            if name not in draws:
                draws[name] = torch.randn(shape, device=device)
        context = self.encode(batch, self.begin(size), draws)
        return self.act(context, draws, self.prepare(num_steps), steer).actions
