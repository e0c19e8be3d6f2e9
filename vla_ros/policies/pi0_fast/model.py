"""π0-FAST: PaliGemma without an expert, which generates action tokens one after another (Pertsch et al. 2025, arXiv
2501.09747).

The order of the tokens is [images][text][<bos>][action tokens]. Images and text attend to each other, an action token
attends to them and to the action tokens before it. While decoding, images and text also attend to <bos>, as in LeRobot
0.6.1; in training it is the first of the action tokens, to which they do not attend.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.nn.attention import KeyValueCache, causal_mask
from vla_ros.nn.embeddings import rotary_table
from vla_ros.nn.gemma import GemmaTower
from vla_ros.policies.pi0.vision import ImageTokens, prefix_tokens
from vla_ros.policies.pi0_fast.config import Pi0FastConfig
from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Policy, Steer, Traits, tensors

NONE = -1  # in place of a token whose logits are not finite


@tensors
class FastContext:
    """Images and text as input of the action tokens, and the allowed tokens.

    Attributes:
        cache: (2, layers, B, kv_heads, P, head_dim) keys and values of P tokens.
        valid: (B, P) bool, False for padding.
        start, end: (B,) int64, <bos> and the token after a chunk.
        opening: (B, K) int64, first tokens of a chunk.
        span: (B, 2) int64, the first and the last token that stands for actions.
    """

    cache: Tensor
    valid: Tensor
    start: Tensor
    end: Tensor
    opening: Tensor
    span: Tensor


class Pi0Fast(Policy):
    """A batch contains images, image_mask, cameras, tokens and token_mask as `Pi0` describes them, and

    start, end: (B,) int64; opening: (B, K) int64; span: (B, 2) int64, see `FastContext`.
    action_tokens: (B, L) int64 from <bos> on and action_token_mask: (B, L) bool, for training.

    The answer is (B, max_decoding_steps) int64 tokens, 0 after the end.
    """

    config: Pi0FastConfig
    traits = Traits(recordable=("encode",))
    compiled = ("encode",)

    def __init__(self, config: Pi0FastConfig) -> None:
        super().__init__()
        self.config = config
        width = config.prefix.width
        self.image_tokens = ImageTokens(config.vision, width, len(config.cameras), long_prompts=True)
        self.embedding = nn.Embedding(config.vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # unit variance after scaling
        self.prefix = GemmaTower(config.prefix)
        if not config.tied:
            self.head = nn.Linear(width, config.vocabulary, bias=False)
        # As in LeRobot: norms and image patches.
        self.float32 = (r".*norm", r"image_tokens\.tower\.(patches|positions)")
        if self.image_tokens.reads_text:
            self.float32 += (r"image_tokens\.tower\.",)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"chance": (size, self.config.max_decoding_steps)} if self.config.temperature > 0 else {}

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> FastContext:
        """Keys and values of images and text, which also attend to the <bos> after them."""
        x, valid = prefix_tokens(self.image_tokens, self.embedding, batch)
        x = torch.cat([x, self.embed(batch["start"][:, None]).to(x.dtype)], dim=1)
        cache = self._fill(x, F.pad(valid, (0, 1), value=True), extra=0).stored()
        names = ("start", "end", "opening", "span")
        # The first step of decoding runs <bos> once more, for its logits.
        return FastContext(cache[..., :-1, :], valid, **{name: batch[name].clone() for name in names})

    def act(
        self, context: FastContext, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """Tokens (B, max_decoding_steps), each from those before it, until every row has its end token."""
        steps, opening = self.config.max_decoding_steps, context.opening
        cache, count = KeyValueCache(context.cache, steps), context.valid.sum(dim=1, keepdim=True)
        written = torch.zeros(len(count), steps, dtype=torch.int64, device=count.device)
        ended = torch.zeros(len(count), dtype=torch.bool, device=count.device)
        last = context.start
        for step in range(steps):
            key_mask = F.pad(context.valid, (0, step + 1), value=True)[:, None, None]
            rotary = rotary_table(count + step, self.config.prefix.head_dim)
            x = self.prefix(self.embed(last[:, None]), rotary, cache, key_mask, keep=True)
            last = self.choose(self.logits(x[:, 0]), context, step, None if not draws else draws["chance"][:, step])
            if self.config.decoding == "actions" and step < opening.shape[1]:
                last = opening[:, step]
            written[:, step] = last.where(~ended, 0)
            ended = ended | (last == context.end)
            last = last.clamp(min=0)
            if ended.all():
                break
        return Answer(written)

    def choose(self, logits: Tensor, context: FastContext, step: int, chance: Tensor | None) -> Tensor:
        """(B,) tokens of (B, vocabulary) float32 logits: the most likely, or drawn with the (B,) standard normals."""
        if self.config.decoding == "actions":
            tokens = torch.arange(logits.shape[1], device=logits.device)
            low, high = context.span[:, :1], context.span[:, 1:]
            allowed = (tokens >= low) & (tokens <= high) | (tokens == context.end[:, None])
            if step == context.opening.shape[1]:  # a chunk is not empty
                allowed &= tokens != context.end[:, None]
            logits = logits.where(allowed | logits.isnan(), -torch.inf)
        if self.config.temperature > 0:  # the first token whose cumulative probability reaches a uniform number
            sums = torch.softmax(logits.double() / self.config.temperature, dim=-1).cumsum(dim=-1)
            uniform = torch.special.ndtr(chance.double())[:, None] * sums[:, -1:]
            chosen = (sums < uniform).sum(dim=-1).clamp(max=logits.shape[1] - 1)
        else:
            chosen = logits.argmax(dim=-1)
        return chosen.where(~logits.isnan().any(dim=-1), NONE)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, S) tokens to (B, S, width) in the tower's type."""
        embedded = self.embedding(tokens) * self.config.prefix.width**0.5
        return embedded.to(self.prefix.layers[0].qkv.weight.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """(..., width) of the tower to (..., vocabulary) float32."""
        matrix = (self.embedding if self.config.tied else self.head).weight
        return F.linear(x.to(matrix.dtype), matrix).float()

    def training_logits(self, batch: Batch) -> Tensor:
        """(B, L, vocabulary) logits of the token after each of the action tokens."""
        x, valid = prefix_tokens(self.image_tokens, self.embedding, batch)
        tokens, mask = batch["action_tokens"], batch["action_token_mask"]
        cache = self._fill(x, valid, extra=tokens.shape[1])
        positions = valid.sum(dim=1, keepdim=True) + mask.cumsum(dim=1) - 1
        size = self.config.prefix
        key_mask = causal_mask(mask, size.heads // size.kv_heads, valid)
        return self.logits(self.prefix(self.embed(tokens), rotary_table(positions, size.head_dim), cache, key_mask))

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy of each action token from those before it; <bos> itself is not predicted."""
        logits, mask = self.training_logits(batch)[:, :-1], batch["action_token_mask"][:, 1:]
        error = F.cross_entropy(logits.transpose(1, 2), batch["action_tokens"][:, 1:], reduction="none")
        return {"loss": (error * mask).sum() / mask.sum().clamp(min=1)}

    def _fill(self, x: Tensor, valid: Tensor, extra: int) -> KeyValueCache:
        """The cache of (B, P, width) tokens that all attend to each other, with space for `extra` more."""
        size, matrix = self.config.prefix, self.prefix.layers[0].qkv.weight
        known = matrix.new_empty(2, size.depth, len(x), size.kv_heads, 0, size.head_dim)
        cache = KeyValueCache(known, valid.shape[1] + extra)
        # Masked tokens have no positions, so a masked camera or longer padding does not change the result.
        rotary = rotary_table((valid.cumsum(dim=1) - 1).clamp(min=0), size.head_dim)
        self.prefix.fill(x.to(matrix.dtype), rotary, cache, valid[:, None, None])
        return cache
