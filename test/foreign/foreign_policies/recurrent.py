"""An LSTM: it sees one observation at a time and remembers the others; in training it sees windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreign_policies.parts import Look, Sizes, mean_error
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Answer, Batch, Policy, Traits, tensors
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.registry import Family


@dataclass(frozen=True)
class RecurrentSizes(Sizes):
    """`window` (K): steps of a window in training."""

    window: int = 8


@tensors
class State:
    """h, c: (B, W). window: (B, K, W), features of the newest K steps. steps: (B,) int64, steps that h and c hold."""

    h: Tensor
    c: Tensor
    window: Tensor
    steps: Tensor


@tensors
class Seen:
    """Features of T steps, (B, T, W), and what is remembered of those before."""

    features: Tensor
    state: State


class RecurrentPolicy(Policy):
    """`images` (B, T, N, 3, height, width) and `state` (B, T, D), oldest first; serving brings one step, T = 1."""

    traits = Traits(paced=True)

    def __init__(self, config: RecurrentSizes) -> None:
        super().__init__()
        self.config = config
        self.look, self.cell = Look(config), nn.LSTMCell(config.width, config.width)
        self.head = nn.Linear(config.width, config.horizon * config.action_dim)

    def begin(self, size: int) -> State:
        zeros = self.head.weight.new_zeros(size, self.config.width)
        window = zeros[:, None].repeat(1, self.config.window, 1)
        return State(zeros, zeros.clone(), window, torch.zeros(size, dtype=torch.int64, device=zeros.device))

    def encode(self, batch: Batch, memory: State, draws=None) -> Seen:
        """After a gap as long as a window, what it remembers is void."""
        void, fresh = batch["elapsed"] > self.config.window, self.begin(len(memory.h))
        kept = [torch.where(void.view(-1, *[1] * (old.dim() - 1)), new, old) for new, old in (
            (fresh.h, memory.h), (fresh.c, memory.c), (fresh.window, memory.window), (fresh.steps, memory.steps))]
        return Seen(self.look(batch), State(*kept))

    def act(self, context: Seen, draws=None, fixed=None, steer=None) -> Answer:
        """After 2 K steps h and c are those of the last K, as in training they are never of more."""
        state, length = context.state, self.config.window
        h, c = self.run(context.features, state.h, state.c)
        window = torch.cat([state.window, context.features], dim=1)[:, -length:]
        steps = state.steps + context.features.shape[1]
        due = steps >= 2 * length
        zeros = torch.zeros_like(h)
        fresh = self.run(window, zeros, zeros)
        h, c = (torch.where(due[:, None], new, old) for new, old in zip(fresh, (h, c), strict=True))
        actions = self.head(h).float().unflatten(1, (self.config.horizon, -1))
        return Answer(actions, State(h, c, window, torch.where(due, length, steps)))

    def run(self, features: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        for step in features.unbind(1):
            h, c = self.cell(step, (h, c))
        return h, c

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        features = self.look(batch)
        return {"loss": mean_error(self.act(Seen(features, self.begin(len(features)))).actions, batch)}


class RecurrentProcessor(StandardProcessor):
    def steps(self, training: bool = False) -> dict[str, tuple[int, ...]]:
        steps = tuple(range(1 - self.config.window, 1)) if training else (0,)
        return dict.fromkeys((*self.cameras, "joint_states"), steps)

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        batch = {"images": self.images(samples), "state": self.policy_states(states)}
        return batch | self.targets(samples, states)


FAMILY = Family("recurrent", RecurrentSizes, RecurrentPolicy, RecurrentProcessor, title="LSTM")
