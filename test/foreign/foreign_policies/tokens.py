"""A decoder: actions are words of one vocabulary, written one after the other until it writes the end."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreign_policies.parts import Look, Sizes
from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.policy import Answer, Batch, Policy, Traits, tensors
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.registry import Family

FIRST = 257_001  # the ids before it are those of a language model's text; bfloat16 holds multiples of 1024 up here


@dataclass(frozen=True)
class TokenSizes(Sizes):
    """Ids from FIRST on: the bins of an action, the end, the unknown word, the words."""

    vocabulary: tuple[str, ...] = ()
    bins: int = 101

    @property
    def end(self) -> int:
        return FIRST + self.bins


@tensors
class Prompt:
    """Keys and values of what the picture and the P words say, (B, 1 + P, W) each."""

    keys: Tensor
    values: Tensor


class TokenPolicy(Policy):
    """`images` and `state`, `words` (B, P) int64 to (B, L) int64: whole rows of D bins, the end, and ends behind it."""

    traits = Traits(recordable=("encode",), pads=False)
    compiled = ("encode",)

    def __init__(self, config: TokenSizes) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.longest = config.horizon * config.action_dim + 1  # ids of a whole chunk and its end
        self.look, self.place = Look(config), nn.Embedding(self.longest, width)
        self.embed = nn.Embedding(config.bins + 2 + len(config.vocabulary), width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, config.bins + 1)

    def encode(self, batch, memory=None, draws=None) -> Prompt:
        x = torch.cat([self.look(batch)[:, None], self.embed(batch["words"] - FIRST)], dim=1)
        return Prompt(self.key(x), self.value(x))

    def logits(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, W) to (B, L, bins + 1) float32."""
        seen = functional.scaled_dot_product_attention(self.query(x), keys, values, mask)
        return self.head(functional.silu(x + seen)).float()

    def act(self, context: Prompt, draws=None, fixed=None, steer=None) -> Answer:
        keys, values, config = context.keys, context.values, self.config
        size, device = len(keys), keys.device
        written = [torch.full((size,), config.end, device=device)]
        ended = torch.zeros(size, dtype=torch.bool, device=device)
        choices = torch.arange(config.bins + 1, device=device)
        for place in range(self.longest):
            x = (self.embed(written[-1] - FIRST) + self.place.weight[place])[:, None]
            keys, values = torch.cat([keys, self.key(x)], 1), torch.cat([values, self.value(x)], 1)
            logits = self.logits(x, keys, values)[:, 0]
            if place == self.longest - 1 or place % config.action_dim or place == 0:  # the end stands behind whole rows
                logits = logits.where((choices == config.bins) == (place == self.longest - 1), -torch.inf)
            chosen = torch.where(logits.isnan().any(-1), -1, FIRST + logits.argmax(-1))  # -1: no token
            written.append(torch.where(ended, config.end, chosen))
            ended = ended | (written[-1] == config.end)
            if ended.all():
                break
        return Answer(torch.stack(written[1:], dim=1))

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Cross entropy of `tokens` (B, L), up to the first end; `words_is_pad` (B, P) hides what fills up prompts."""
        tokens, end = batch["tokens"], self.config.end
        prompt = self.encode(batch)
        before = functional.pad(tokens[:, :-1], (1, 0), value=end)
        x = self.embed(before - FIRST) + self.place.weight
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril().expand(len(x), -1, -1)
        shown = functional.pad(~batch["words_is_pad"], (1, 0), value=True)[:, None].expand(-1, x.shape[1], -1)
        keys, values = torch.cat([prompt.keys, self.key(x)], 1), torch.cat([prompt.values, self.value(x)], 1)
        logits = self.logits(x, keys, values, torch.cat([shown, causal], dim=2))
        counted = (before != end) | (torch.arange(x.shape[1], device=x.device) == 0)
        return {"loss": functional.cross_entropy(logits[counted], (tokens - FIRST)[counted])}


class TokenProcessor(StandardProcessor):
    def inputs(self, samples: Sequence[Sample]) -> Batch:
        batch, end = super().inputs(samples), self.config.end
        index = {word: end + 2 + i for i, word in enumerate(self.config.vocabulary)}
        prompts = [[index.get(word, end + 1) for word in words.split(sample.instruction)] for sample in samples]
        lengths = [len(prompt) for prompt in prompts]
        if "actions" not in batch and len(set(lengths)) > 1:
            raise InputError(f"instructions of {sorted(set(lengths))} words in one batch, expected one length: tokens "
                             "are not padded; ask for them one by one")
        longest = max(lengths)
        batch["words"] = torch.tensor([prompt + [end + 1] * (longest - len(prompt)) for prompt in prompts])
        if "actions" in batch:
            batch["words_is_pad"] = torch.arange(longest) >= torch.tensor(lengths)[:, None]
            bins = ((batch["actions"].clamp(-1, 1) + 1) / 2 * (self.config.bins - 1)).round().long()
            ids = torch.where(batch["action_is_pad"][..., None], end, FIRST + bins).flatten(1)
            batch["tokens"] = functional.pad(ids, (0, 1), value=end)
        return batch

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return words.unknown(text, self.config.vocabulary)

    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        targets, width, end = [], self.config.action_dim, self.config.end
        for ids, sample in zip(answer.tolist(), samples, strict=True):
            bins = [token - FIRST for token in ids[: ids.index(end) if end in ids else None]]
            if end not in ids or not bins or len(bins) % width or not all(0 <= b < self.config.bins for b in bins):
                raise InputError(f"policy: {len(ids)} tokens {ids[:8]}..., expected rows of {width} ids from {FIRST} "
                                 f"to {end - 1} and {end} behind them")
            rows = torch.tensor(bins, dtype=torch.float64).reshape(1, -1, width) / (self.config.bins - 1) * 2 - 1
            targets += super().outputs(rows, [sample])
        return targets


FAMILY = Family("tokens", TokenSizes, TokenPolicy, TokenProcessor, title="decoder of tokens", normalisation="min_max")
