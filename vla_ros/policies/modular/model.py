"""A policy of parts: towers see the images, projectors and encoders bring what is seen and measured to the width of a
language model, which reads it before the instruction, and a head makes actions of its hidden states.

The tokens are [images of the first tower, camera by camera] .. [sensors][joints][instruction]; a token sees those
before it. A head that reads a window of steps is trained on windows and shown one step at a time, as RoboVLMs' are.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vla_ros.nn.keypoint_stem import text_summary
from vla_ros.nn.norms import rms_normalised
from vla_ros.policies.modular.config import ModularConfig
from vla_ros.policies.modular.fit import checked, described
from vla_ros.policies.openvla.heads import Projector as Numbers
from vla_ros.policies.parts.kinds import Features
from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Policy, Steer, Traits, tensors
from vla_ros.policies.robovlms.actions import chunks
from vla_ros.policies.window import Window


@tensors
class Seen:
    """What the head reads of the newest step, and what is remembered of those before, None: nothing ever."""

    features: Features
    memory: Memory


class Modular(Policy):
    """A batch holds
        images: (B, L, N, 3, image, image) uint8; L steps, oldest first, of N cameras.
        state: (B, L, S) normalised, where the policy reads it.
        tokens: (B, T) int64, the instruction; token_mask: (B, T) bool, padding on the right.
        stream NAME: (B, L, *shape) float32, count NAME: (B, L) int64 of streams of varying length, and
            there NAME: (B, L) bool of streams that may be missing.

    In training "actions" are (B, L - 1 + H, D), from the window's first step on; L is 1 for heads that remember
    nothing.
    """

    config: ModularConfig
    compiled = ("encode", "step")

    def __init__(self, config: ModularConfig) -> None:
        super().__init__()
        self.config = config
        self.language = config.language.make()
        width = self.language.width
        self.vision = nn.ModuleList(one.make(len(config.cameras), width) for one in config.vision)
        self.projectors = nn.ModuleList(
            one.make(tower.width, tower.tokens, width) for one, tower in zip(config.projector, self.vision, strict=True)
        )
        self.encoders = nn.ModuleDict(
            {name: one.make(config.shapes[name], width) for name, one in config.encoders.items()}
        )
        self.sources = {"images": len(config.cameras) * sum(one.tokens for one in self.projectors)}
        self.sources |= {name: one.tokens for name, one in self.encoders.items()}
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(self.encoders[name].tokens, width)) for name in config.missing}
        )
        self.fusion = config.fusion.make(width, self.sources) if config.fusion else None
        if config.reads_state:
            self.state = Numbers(config.state_dim, width)
        self.temporal = config.temporal.make(width) if config.temporal else None
        self.head = config.head.make(width, config.horizon, config.action_dim)
        # Made here: a tensor of Python's numbers is a copy from the host, which CUDA refuses while a graph is recorded.
        pixels = torch.tensor([[tower.mean, tower.std] for tower in self.vision], dtype=torch.float32, device="cpu")
        self.register_buffer("pixels", pixels[..., None, None], persistent=False)
        parts = {name: self.get_submodule(name) for name in config.choices}
        self.float32 = tuple(
            name.replace(".", r"\.") + rf"\.{pattern}" for name, part in parts.items() for pattern in part.float32
        )
        self.traits = Traits(guidance=self.head.guidance, paced=config.window > 1)
        if not self.head.steps:
            self.compiled = ("encode",)
        checked(self)
        self.train()

    @property
    def prefix(self) -> int:
        """Tokens before the instruction."""
        return (self.fusion.tokens if self.fusion else sum(self.sources.values())) + self.config.reads_state

    def drawn(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        return described(self)

    def train(self, mode: bool = True) -> "Modular":
        super().train(mode)
        for name, choice in self.config.choices.items():
            if choice.frozen:
                self.get_submodule(name).eval()
        return self

    def begin(self, size: int) -> Memory:
        if self.config.window == 1:
            return None
        if self.temporal:
            return self.temporal.begin(size, self.config.window, self.language.width)
        return Window.empty(next(self.head.parameters()), size, self.config.window, self.language.width)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return self.head.draws(size)

    def prepare(self, num_steps: int | None = None) -> Fixed:
        return self.head.prepare(num_steps) if self.head.steps else super().prepare(num_steps)

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> Seen:
        """All but the head; what is remembered is void after a gap longer than the window."""
        features = self.features(batch)
        return Seen(features, memory if memory is None else memory.after(batch["elapsed"]))

    def step(self, ready: Any, x: Tensor, constants: Any) -> Tensor:
        """One step of a head that denoises, (B, H, D)."""
        return self.head.step(ready, x, constants)

    def act(
        self, context: Seen, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """(B, H, D)."""
        memory = context.memory
        if memory is None:
            return Answer(self.head.act(context.features, draws, fixed, steer, self.step))
        if self.temporal is None:
            memory = memory.with_newest(context.features.summary.to(memory.window.dtype))
            return Answer(self.head.decode(memory.newest(self.head.read(memory.window))), memory)
        summary, memory = self.temporal.remember(memory, context.features.summary)
        features = remembering(context.features, summary)
        return Answer(self.head.act(features, draws, fixed, steer, self.step), memory)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """The head's, over the rows that are not padding."""
        actions, pad, steps = batch["actions"], batch.get("action_is_pad"), batch["images"].shape[1]
        features = self.features(batch)
        if self.config.window == 1:
            return self.head.loss(features, actions, pad, **draws)
        kept = torch.ones_like(actions[..., 0], dtype=torch.bool) if pad is None else ~pad
        rows, kept = (chunks(one, steps, self.config.horizon) for one in (actions, kept))
        summaries = features.summary.unflatten(0, (-1, steps))
        if self.temporal is None:
            return self.head.losses(summaries.to(self.head.dtype), rows, kept)
        features = remembering(features, self.temporal(summaries).flatten(0, 1))
        return self.head.loss(features, rows.flatten(0, 1), ~kept.flatten(0, 1), **draws)

    def features(self, batch: Batch) -> Features:
        """Hidden states of B * L observations."""
        steps = batch["images"].shape[1]
        ids, valid = (batch[name].repeat_interleave(steps, dim=0) for name in ("tokens", "token_mask"))
        text = self.language.embed(ids)
        parts = [*self.read(batch, text, valid), text]
        before = sum(part.shape[1] for part in parts[:-1])
        valid = torch.cat([valid.new_ones(len(valid), before), valid], dim=1)
        hidden = self.language(torch.cat([part.to(text.dtype) for part in parts], dim=1), valid)
        last = (valid * torch.arange(valid.shape[1], device=valid.device)).argmax(dim=1)
        summary = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        return Features(hidden, valid, summary) if self.head.reads == "tokens" else Features(None, None, summary)

    def read(self, batch: Batch, text: Tensor, valid: Tensor) -> list[Tensor]:
        """What stands before the (N, T, width) instruction: (N, n, width) each."""
        images = batch["images"].flatten(0, 1)
        summary = rms_normalised(text_summary(text, valid), 1e-6)
        sources = {"images": torch.cat([self.look(i, images, summary) for i in range(len(self.vision))], dim=1)}
        for name, encoder in self.encoders.items():
            count = batch[f"count {name}"].flatten(0, 1) if encoder.counted else None
            beside = [images[:, self.config.cameras.index(encoder.camera)].float() / 255] if encoder.camera else []
            sources[name] = encoder(batch[f"stream {name}"].flatten(0, 1), count, *beside)
            if name in self.absent:
                sources[name] = self._known(name, sources[name], batch[f"there {name}"])
        seen = [self.fusion(sources)] if self.fusion else list(sources.values())
        return [*seen, self.state(batch["state"].flatten(0, 1))[:, None]] if self.config.reads_state else seen

    def _known(self, name: str, tokens: Tensor, there: Tensor) -> Tensor:
        """(N, n, width) tokens of a stream where it is (B, L) there; learned ones where it is not, or where training
        leaves it out."""
        if self.training:
            there = there & (torch.rand(len(there), 1, device=there.device) >= self.config.missing[name])
        return torch.where(there.flatten()[:, None, None], tokens, self.absent[name].to(tokens.dtype))

    def look(self, number: int, images: Tensor, summary: Tensor) -> Tensor:
        """(N, cameras, 3, image, image) uint8 to the tower's tokens at the language model's width, (N, n, width)."""
        tower, projector = self.vision[number], self.projectors[number]
        mean, std = self.pixels[number]
        seen = tower((images.float() / 255 - mean) / std, summary)
        return projector(seen.flatten(0, 1)).unflatten(0, images.shape[:2]).flatten(1, 2)


def remembering(features: Features, summary: Tensor) -> Features:
    """Features with another (N, width) summary, which is a token more for a head that reads all."""
    if features.tokens is None:
        return Features(None, None, summary)
    tokens = torch.cat([features.tokens, summary[:, None].to(features.tokens.dtype)], dim=1)
    return Features(tokens, torch.cat([features.valid, features.valid.new_ones(len(summary), 1)], dim=1), summary)
