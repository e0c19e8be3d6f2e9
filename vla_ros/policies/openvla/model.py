"""OpenVLA (Kim et al. 2024, https://arxiv.org/abs/2406.09246) and OpenVLA-OFT (Kim et al. 2025,
https://arxiv.org/abs/2502.19645): a Llama that reads images and generates actions.

The tokens are [start][images][proprioception][time][rest of the prompt][blank][actions][stop]; padding of a prompt is
before the blank, has no positions and is masked. OpenVLA's attention is causal, and it generates one token after
another. OFT's is not: all actions are computed at once, each from the hidden state one position before it; the actions'
own embeddings are zeros or, while denoising, noisy actions.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.attention import KeyValueCache, causal_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary, rotary_table, time_features
from vla_ros.nn.llama import LlamaLayer, LlamaNorm
from vla_ros.policies.openvla import tokens
from vla_ros.policies.openvla.config import OpenVLAConfig
from vla_ros.policies.openvla.heads import ActionHead, Projector
from vla_ros.policies.openvla.vision import Vision
from vla_ros.policies.policy import Answer, Batch, Draws, Memory, Policy, Steer, tensors


@tensors
class Written:
    """What an autoregressive policy has read, and the first token that it generates.

    Attributes:
        cache: (2, layers, B, kv_heads, P, head_dim) keys and values.
        seen: (B, 1, 1, P + H * D - 1) bool, which of them and of the following tokens are visible.
        rotary: of the following tokens.
        token: (B,) int64.
    """

    cache: Tensor
    seen: Tensor
    rotary: Rotary
    token: Tensor


@tensors
class Sequence:
    """The whole sequence of a policy that computes all actions at once.

    Attributes:
        embedded: (B, S, width), zeros at the positions of actions and time.
        seen: (B, 1, 1, S) bool.
        rotary: of all tokens.
    """

    embedded: Tensor
    seen: Tensor
    rotary: Rotary


class OpenVLA(Policy):
    """A batch contains
        images: (B, N, 3, image, image) uint8, or (B, N, towers, 3, image, image) normalised for each tower.
        tokens: (B, T) int64, the prompt with its start, without the blank; token_mask: (B, T) bool.
        state: (B, S) normalised, if the policy reads proprioception.

    It answers tokens, (B, chunk * action_dim) int64, or with a head of its own (B, chunk, action_dim).
    """

    config: OpenVLAConfig
    float32 = (r".*norm", r"proprio\.", r"vision\.stem\.")

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        self.config, text = config, config.text
        self.compiled = ("encode", "hidden") if config.parallel else ("encode",)  # generated tokens have growing caches
        self.vision = Vision(config)
        self.embedding = nn.Embedding(text.vocabulary, text.width)
        self.layers = nn.ModuleList(LlamaLayer(text, text.width, text.mlp) for _ in range(config.layers))
        self.norm = LlamaNorm(text.width, text.epsilon)
        self.head = nn.Linear(text.width, text.vocabulary, bias=False)
        if config.state_dim:
            self.proprio = Projector(config.state_dim, text.width)
        if config.head in ("l1", "diffusion"):
            self.action_head = ActionHead(config.action_dim, text.width)
        if config.head == "diffusion":
            self.noisy_actions = Projector(1, text.width)
        names = len(config.pictures)
        self.register_buffer("image_mean", torch.zeros(names, 3, 1, 1, device="cpu"), persistent=False)
        self.register_buffer("image_std", torch.ones(names, 3, 1, 1, device="cpu"), persistent=False)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        config = self.config
        return {"noise": (size, config.chunk, config.action_dim)} if config.head == "diffusion" else {}

    def prepare(self, num_steps: int | None = None) -> Any:
        """The coefficients of each step of denoising."""
        if self.config.head != "diffusion":
            return super().prepare(num_steps)
        from vla_ros.policies.diffusion.schedule import make_steps  # imports diffusers, which few policies need

        return make_steps(self.config.schedule, self.config.num_steps if num_steps is None else num_steps)

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> Written | Sequence:
        """Run the prompt, or compute the input of the language model's layers."""
        config = self.config
        if config.parallel:
            return self.sequence(batch)
        x, valid = self.prompt(batch, self._ids(batch["tokens"], config.blank))
        size, extra = config.text, config.answers - 1
        known = x.new_empty(2, config.layers, len(x), size.kv_heads, 0, size.head_dim)
        cache = KeyValueCache(known, x.shape[1])
        places = valid.cumsum(dim=1) - 1
        hidden = self.layered(x, self._rotary(places), self._causal(valid), cache)[:, -1]
        following = places[:, -1:] + 1 + torch.arange(extra, device=x.device)
        seen = functional.pad(valid, (0, extra), value=True)[:, None, None]
        return Written(cache.stored(), seen, self._rotary(following), self._chosen(hidden))

    def act(
        self, context: Written | Sequence, draws: Draws | None = None, fixed: Any = None, steer: Steer | None = None
    ) -> Answer:
        """The most likely tokens, or the head's output for the hidden states."""
        config = self.config
        if not config.parallel:
            written, cache = [context.token], KeyValueCache(context.cache, config.answers - 1)
            for place in range(config.answers - 1):
                written.append(self.write(context, cache, written[-1], place))
            return Answer(torch.stack(written, dim=1))
        if config.head == "diffusion":
            return Answer(self._denoised(context, draws["noise"], self.prepare() if fixed is None else fixed))
        hidden = self.hidden(context)[:, :-1]
        return Answer(self._chosen(hidden) if config.head == "tokens" else self.action_head(hidden))

    def write(self, context: Written, cache: KeyValueCache, token: Tensor, place: int) -> Tensor:
        """The (B,) token after the (B,) `token`, which is number `place` of the answer."""
        cos, sin = (part[:, :, place : place + 1] for part in context.rotary)
        seen = context.seen[..., : context.cache.shape[4] + place + 1]
        return self._chosen(self.layered(self.embedding(token)[:, None], (cos, sin), seen, cache)[:, 0])

    def hidden(self, context: Sequence, noisy: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        """Hidden states before each action and before the stop, (B, H * D + 1, width); noisy actions (B, H, D) at
        (B,) times."""
        config, x = self.config, context.embedded
        start = x.shape[1] - 1 - config.answers
        if noisy is not None:
            place = 1 + len(config.cameras) * config.image_tokens + bool(config.state_dim)
            period = 2 * math.pi
            features = time_features(time, config.text.width, period, period * 10_000)[:, None].to(x.dtype)
            slots = self.noisy_actions(noisy.flatten(1)[..., None]).to(x.dtype)
            x = torch.cat([x[:, :place], features, x[:, place + 1 : start], slots, x[:, -1:]], dim=1)
        return self.layered(x, context.rotary, context.seen)[:, start - 1 : -1]

    def layered(self, x: Tensor, rotary: Rotary, mask: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(B, S, width) embeddings through all layers and the last norm, (B, S, width); they attend to the contents of
        the cache."""
        x = x.to(self.layers[0].qkv.weight.dtype)
        for i, layer in enumerate(self.layers):
            query, key, value = layer.project(x, rotary)
            if cache is not None:
                key, value = cache.store(i, key, value)
            x = layer.finish(x, grouped_attention(query, key, value, mask))
        return self.norm(x)

    def sequence(self, batch: Batch) -> Sequence:
        """The sequence with zeros for the actions."""
        config, ids = self.config, batch["tokens"]
        actions = self._ids(ids, 0).expand(-1, config.answers)
        tail = torch.cat([self._ids(ids, config.blank), actions, self._ids(ids, config.stop)], dim=1)
        x, valid = self.prompt(batch, tail, config.answers)
        return Sequence(x, valid[:, None, None], self._rotary(valid.cumsum(dim=1) - 1))

    def prompt(self, batch: Batch, tail: Tensor, actions: int = 0) -> tuple[Tensor, Tensor]:
        """(B, S, width) embeddings of everything, including the ids `tail` (B, L) after the prompt, and (B, S)
        validity.

        `actions` embeddings of the tail, from the second on, are replaced by zeros.
        """
        config, ids, mask = self.config, batch["tokens"], batch["token_mask"]
        text, behind = self.embedding(ids), self.embedding(tail)
        if actions:
            zeros = behind.new_zeros(len(behind), actions, behind.shape[-1])
            behind = torch.cat([behind[:, :1], zeros, behind[:, 1 + actions :]], dim=1)
        mean = None
        if config.film or config.stem:  # of all tokens except actions
            total = (text * mask[..., None]).sum(dim=1) + behind[:, 0] + behind[:, -1]
            mean = total / (mask.sum(dim=1, keepdim=True) + 2)
        seen = [self.vision(self._normalised(batch["images"]), mean).to(text.dtype)]
        if config.state_dim:
            seen.append(self.proprio(batch["state"])[:, None].to(text.dtype))
        if config.head == "diffusion":
            seen.append(text.new_zeros(len(text), 1, text.shape[-1]))
        x = torch.cat([text[:, :1], *seen, text[:, 1:], behind], dim=1)
        front, back = (mask.new_ones(len(mask), n) for n in (sum(part.shape[1] for part in seen), tail.shape[1]))
        return x, torch.cat([mask[:, :1], front, mask[:, 1:], back], dim=1)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the action tokens and the stop, or, over rows that are not padding, the mean of |error| of
        the actions (l1) or of error² of the noise (diffusion: `noise` like actions, `time` (B,) int64)."""
        config, actions = self.config, batch["actions"]
        pad = batch.get("action_is_pad")
        kept = torch.ones_like(actions[..., 0], dtype=torch.bool) if pad is None else ~pad
        if config.head in ("autoregressive", "tokens"):
            return {"loss": self.token_loss(batch, tokens.encode(actions, config.action_end), kept)}
        context = self.sequence(batch)
        if config.head == "l1":
            error = (self.action_head(self.hidden(context)[:, :-1]) - actions).abs()
        else:
            noise = draws["noise"] if "noise" in draws else torch.randn_like(actions)
            time = draws.get("time")
            if time is None:
                time = torch.randint(0, config.num_train_timesteps, (len(actions),), device=actions.device)
            noisy = self.noised(actions, noise, time)
            error = (self.action_head(self.hidden(context, noisy, time)[:, :-1]) - noise).square()
        return {"loss": (error * kept[..., None]).sum() / (kept.sum() * config.action_dim).clamp(min=1)}

    def token_loss(self, batch: Batch, ids: Tensor, kept: Tensor) -> Tensor:
        """Mean cross entropy of (B, H, D) action tokens, in the (B, H) rows that are kept, and of the stop token."""
        config = self.config
        ids = ids.flatten(1)
        if config.parallel:
            hidden = self.hidden(self.sequence(batch))
        else:
            x, valid = self.prompt(batch, torch.cat([self._ids(ids, config.blank), ids], dim=1))
            hidden = self.layered(x, self._rotary(valid.cumsum(dim=1) - 1), self._causal(valid))
            hidden = hidden[:, -1 - ids.shape[1] :]
        labels = torch.cat([ids, self._ids(ids, config.stop)], dim=1)
        counted = functional.pad(kept.repeat_interleave(config.action_dim, dim=1), (0, 1), value=True)
        losses = functional.cross_entropy(self.head(hidden).float().transpose(1, 2), labels, reduction="none")
        return (losses * counted).sum() / counted.sum()

    def noised(self, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """(B, H, D) noisy actions at (B,) steps of the denoising."""
        from vla_ros.policies.diffusion.schedule import make_scheduler

        return make_scheduler(self.config.schedule).add_noise(actions, noise, time)

    def _denoised(self, context: Sequence, x: Tensor, steps: Any) -> Tensor:
        """(B, H, D) actions from noise; as published, the estimate of the actions is clipped, but that of the noise is
        not recomputed from it."""
        for step in steps:
            time = torch.full((len(x),), step.time, dtype=torch.float32, device=x.device)
            epsilon = self.action_head(self.hidden(context, x, time)[:, :-1])
            clean = ((x - step.noise_level * epsilon) / step.signal).clamp(-1, 1)
            x = step.clean * clean + step.noise * epsilon
        return x

    def _normalised(self, images: Tensor) -> Tensor:
        """uint8 pixels normalised for each tower; on the device, so that images are uploaded as bytes."""
        if images.dtype != torch.uint8:
            return images
        return (images[:, :, None].float() / 255 - self.image_mean) / self.image_std

    def _chosen(self, hidden: Tensor) -> Tensor:
        """(..., width) to the most likely ids (...); -1, which is no id, if the logits are not finite."""
        logits = self.head(hidden)
        return logits.argmax(-1).masked_fill(logits.isnan().any(-1), -1)

    @staticmethod
    def _ids(like: Tensor, token: int) -> Tensor:
        """(B, 1) ids, created on the device, which does not wait for the host."""
        return torch.full_like(like[:, :1], token)

    def _rotary(self, places: Tensor) -> Rotary:
        return rotary_table(places.clamp(min=0), self.config.text.head_dim, self.config.theta)

    def _causal(self, valid: Tensor) -> Tensor:
        return causal_mask(valid, self.config.text.heads // self.config.text.kv_heads)
