"""RoboVLMs (Li et al. 2024, https://arxiv.org/abs/2412.14058): a vision-language model reads images and text, and a
head with memory computes actions from its output.

The tokens are [start][last camera] .. [first camera][text][action token][end]. In training a window of steps is read,
which are combined in the head ("post") or in the language model ("pre"); on a robot the input is one step at a time,
and the memory contains the head's inputs of the last `window` steps. A discrete head decodes tokens instead, without
memory.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.attention import KeyValueCache
from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Policy, Steer, Traits, tensors
from vla_ros.policies.robovlms.actions import chunks
from vla_ros.policies.robovlms.config import BACKBONES, RoboVLMConfig
from vla_ros.policies.robovlms.heads import Head, joined, losses
from vla_ros.policies.robovlms.resampler import PerceiverResampler
from vla_ros.policies.window import Window

IGNORED = -100


@tensors
class Seen:
    """Features of one step, (B, latent * width), and the memory of earlier ones; None: the policy has no memory."""

    features: Tensor
    memory: Window | None


@tensors
class Written:
    """What a discrete policy has read, and the first token that it generates.

    Attributes:
        cache: (2, layers, B, heads, P, head_dim) keys and values.
        valid: (B, P) bool.
        token: (B,) int64.
    """

    cache: Tensor
    valid: Tensor
    token: Tensor


class RoboVLM(Policy):
    """A batch contains
        images: (B, L, N, 3, image, image) uint8, or normalised float; L steps, oldest first, of N cameras.
        tokens: (B, T) int64, the prompt; token_mask: (B, T) bool, padding on the right.

    In training "actions" are (B, L - 1 + chunk, D), from the window's first step on. It answers (B, chunk, D), or
    tokens of a discrete head, (B, horizon * D) int64.
    """

    config: RoboVLMConfig

    def __init__(self, config: RoboVLMConfig) -> None:
        super().__init__()
        self.config = config
        self.traits = Traits(paced=config.remembers, pads=False)
        if config.head == "discrete":
            self.compiled = ("encode",)  # generated tokens have growing caches
        self.backbone = BACKBONES[config.kind](config.backbone, len(config.cameras))
        self.float32 = (r".*norm", *(rf"backbone\.{name}" for name in self.backbone.float32))
        if config.resampler:
            self.vision_resampler = PerceiverResampler(config.backbone.width)
        if config.head != "discrete":
            hidden = config.hidden * (1 if config.head == "gpt" else config.latent)
            self.head = Head(config.head, config.columns, hidden, config.window, config.chunk, config.pose_dim,
                             config.gripper)
            if config.reads == "action":
                self.action_token = nn.Parameter(torch.zeros(config.backbone.width))
        names = len(config.cameras)
        self.register_buffer("image_mean", torch.zeros(names, 3, 1, 1, device="cpu"), persistent=False)
        self.register_buffer("image_std", torch.ones(names, 3, 1, 1, device="cpu"), persistent=False)

    def begin(self, size: int) -> Memory:
        config = self.config
        if not config.remembers:
            return None
        return Window.empty(next(self.head.parameters()), size, config.window, config.columns)

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> Seen | Written:
        """The backbone's computation. The memory is emptied after a gap as long as the window."""
        if self.config.head == "discrete":
            return self._prompted(batch)
        if memory is not None:
            memory = memory.after(batch["elapsed"])
        return Seen(self.features(batch)[:, -1], memory)

    def act(
        self, context: Seen | Written, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """The head's answer for the newest step, with a recurrent state that starts at zero; or the most likely tokens.

        As published: once there are more steps than fit in a window, the state is recomputed from the last ones. In
        both cases this is one pass over the memory.
        """
        if self.config.head == "discrete":
            return Answer(self._decoded(context))
        memory, newest = context.memory, context.features
        if memory is None:
            return Answer(joined(*self.head.decode(self.head.body(newest[:, None])[:, 0])))
        memory = memory.with_newest(newest)
        hidden = memory.newest(self.head.body(memory.window))
        return Answer(joined(*self.head.decode(hidden)), memory)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Huber of the poses (delta 1) and binary cross entropy of the grippers, weighted means over the rows that
        are not padding; or cross entropy of the action tokens and the stop token. Training does not use the memory."""
        config = self.config
        actions, pad = batch["actions"], batch.get("action_is_pad")
        kept = torch.ones_like(actions[..., 0], dtype=torch.bool) if pad is None else ~pad
        steps = batch["images"].shape[1]
        actions, kept = (chunks(rows, steps, config.chunk) for rows in (actions, kept))
        if config.head == "discrete":
            return {"loss": self.token_loss(batch, config.tokens.ids(actions.contiguous()), kept)}
        pose, logits = self.head.decode(self.head.body(self.features(batch)))
        return self.losses(pose, logits, actions, kept)

    def losses(self, pose: Tensor, logits: Tensor | None, actions: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Losses of (B, L, chunk, pose_dim) poses and (B, L, chunk) logits for (B, L, chunk, D) actions, over those
        `kept`."""
        return losses(pose, logits, actions, kept, self.config.gripper_weight)

    def features(self, batch: Batch) -> Tensor:
        """Input of the head for each step, (B, L, latent * width)."""
        config, read = self.config, self.tokens_read(batch)
        if config.pooling:
            flat = read.flatten(0, 1).transpose(1, 2)
            pooled = functional.adaptive_max_pool1d(flat, config.latent).transpose(1, 2)
            read = pooled.unflatten(0, read.shape[:2])
        return read.flatten(2).to(next(self.head.parameters()).dtype)

    def tokens_read(self, batch: Batch) -> Tensor:
        """The backbone's output for the tokens that the head reads: (B, L, tokens, width)."""
        config, sizes = self.config, batch["images"].shape[:2]
        x, valid = self.embedded(batch)
        hidden = self.read(x, valid, sizes)
        end = hidden.shape[1] - config.behind
        text = config.image_place + self._seen_tokens(hidden, batch)
        first, last = {
            "action": (end - config.latent, end), "text": (text, end), "vision": (config.image_place, text),
            "all": (0, hidden.shape[1]),
        }[config.reads]
        return hidden[:, first:last].unflatten(0, sizes)

    def read(self, x: Tensor, valid: Tensor, sizes: tuple[int, int]) -> Tensor:
        """Hidden states of (B * L, S, width) embeddings, the same shape; with history "pre" the steps of a window
        attend to earlier ones."""
        if self.config.history == "post" and self.config.head != "discrete":
            return self.backbone.read(x, valid)
        whole, seen = x.unflatten(0, sizes).flatten(1, 2), valid.unflatten(0, sizes).flatten(1, 2)
        return self.backbone.read(whole, seen).unflatten(1, (sizes[1], -1)).flatten(0, 1)

    def embedded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B * L, S, width) embeddings of all tokens of each step, and their (B * L, S) validity."""
        config, steps = self.config, batch["images"].shape[1]
        ids, valid = (batch[name].repeat_interleave(steps, dim=0) for name in ("tokens", "token_mask"))
        text = self.backbone.embedding(ids)
        seen = self.see(batch["images"].flatten(0, 1), text, valid)
        place, end = config.image_place, text.shape[1] - config.behind
        parts, masks = [text[:, :place], seen, text[:, place:end]], [valid[:, :place], _all(seen), valid[:, place:end]]
        if config.reads == "action" and config.head != "discrete":
            token = self.action_token.to(text.dtype).expand(len(text), config.latent, -1)
            parts.append(token), masks.append(_all(token))
        return torch.cat([*parts, text[:, end:]], dim=1), torch.cat([*masks, valid[:, end:]], dim=1)

    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        """(N, C, 3, image, image) of C cameras to (N, C * tokens, width), the last camera first."""
        if images.dtype == torch.uint8:
            images = (images.float() / 255 - self.image_mean) / self.image_std
        seen = self.backbone.see(images, text, valid)
        if self.config.resampler:
            seen = self.vision_resampler(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return seen.flip(1).flatten(1, 2).to(text.dtype)

    def token_loss(self, batch: Batch, ids: Tensor, kept: Tensor) -> Tensor:
        """Mean cross entropy of (B, L, chunk, D) action tokens, in the (B, L, chunk) rows that are kept, and of the
        stop token after each step's. The steps of a window are read together, each with the answers before it."""
        config, sizes = self.config, ids.shape[:2]
        ids = ids.flatten(2).flatten(0, 1)
        labels = ids.masked_fill(~kept.flatten(0, 1).repeat_interleave(config.action_dim, dim=1), IGNORED)
        stop = torch.full_like(ids[:, :1], config.stop)
        prompt, valid = (batch[name].repeat_interleave(sizes[1], dim=0) for name in ("tokens", "token_mask"))
        # The answer follows the prompt's last word, padding follows the answer.
        place = valid.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1] + 1, device=ids.device)
        told = functional.pad(prompt, (0, ids.shape[1] + 1)).scatter(1, place, torch.cat([ids, stop], dim=1))
        wanted = torch.full_like(told, IGNORED).scatter(1, place, torch.cat([labels, stop], dim=1))
        # The vision tower gets only the prompt, never the answer.
        seen = self.see(batch["images"].flatten(0, 1), self.backbone.embedding(prompt), valid)
        valid = functional.pad(valid, (0, ids.shape[1] + 1)).scatter(1, place, True)
        text, at = self.backbone.embedding(told), config.image_place
        x = torch.cat([text[:, :at], seen, text[:, at:]], dim=1)
        valid = torch.cat([valid[:, :at], _all(seen), valid[:, at:]], dim=1)
        logits = self.backbone.words(self.read(x, valid, sizes))[:, seen.shape[1] :]
        # After the images the columns are those of the text: a token is predicted from the column before its own.
        return functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), wanted[:, 1:], ignore_index=IGNORED)

    def _prompted(self, batch: Batch) -> Written:
        """Only the newest step, as published."""
        x, valid = self.embedded(batch | {"images": batch["images"][:, -1:]})
        cache = self.backbone.cache(*x.shape[:2])
        hidden = self.backbone.read(x, valid, cache)[:, -1]
        return Written(cache.stored(), valid, self._chosen(hidden))

    def _decoded(self, context: Written) -> Tensor:
        count = self.config.horizon * self.config.action_dim
        written, valid = [context.token], context.valid
        cache = KeyValueCache(context.cache, count - 1)
        for _ in range(count - 1):
            valid = functional.pad(valid, (0, 1), value=True)
            hidden = self.backbone.read(self.backbone.embedding(written[-1])[:, None], valid, cache)
            written.append(self._chosen(hidden[:, 0]))
        return torch.stack(written, dim=1)

    def _chosen(self, hidden: Tensor) -> Tensor:
        """(B, width) to the most likely ids (B,); -1, which is no id, if the logits are not finite."""
        logits, config = self.backbone.words(hidden), self.config
        first = config.action_end - config.bins if config.decoding == "actions" else 0
        chosen = first + logits[:, first : config.action_end if first else None].argmax(-1)
        return chosen.masked_fill(logits.isnan().any(-1), -1)

    def _seen_tokens(self, hidden: Tensor, batch: Batch) -> int:
        """Number of image tokens in (N, S, width)."""
        token = self.config.latent if self.config.reads == "action" else 0
        return hidden.shape[1] - batch["tokens"].shape[1] - token


def _all(x: Tensor) -> Tensor:
    """(N, S) True for (N, S, width)."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
