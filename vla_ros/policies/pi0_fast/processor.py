"""From samples to π0-FAST's batches, and from its tokens to chunks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.pi0.processor import Pi0Processor
from vla_ros.policies.pi0_fast.tokens import OPENING, FastTokenizer
from vla_ros.policies.policy import Batch
from vla_ros.policies.tokenizer import cut, filled

STEP = 32  # tokens: chunks are padded to few lengths


@dataclass(frozen=True)
class Pi0FastProcessor(Pi0Processor):
    """The batch is described at `Pi0Fast`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer is None:
            return
        if self.span[0] < 0:
            raise InputError(f"tokenizer of {self.tokenizer.words} tokens, fast_skip_tokens {self.config.skip_tokens}: "
                             f"expected place for {self.tokenizer.actions.size} action tokens before them")

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last token that stands for actions; their ids count downwards from the last."""
        tokenizer: FastTokenizer = self.ask_tokenizer()
        last = tokenizer.words - 1 - self.config.skip_tokens
        return last - tokenizer.actions.size + 1, last

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        batch, tokenizer, rows = super().inputs(samples), self.ask_tokenizer(), len(samples)
        batch |= {
            "start": torch.full((rows,), tokenizer.bos), "end": torch.full((rows,), tokenizer.end),
            "opening": torch.tensor([tokenizer.opening] * rows), "span": torch.tensor([self.span] * rows),
        }
        if "actions" in batch:
            chunks = [self.written(actions) for actions in batch["actions"].double().numpy()]
            most = self.config.max_action_tokens
            batch["action_tokens"], batch["action_token_mask"] = filled([cut(c, most) for c in chunks], most, STEP)
        return batch

    def written(self, actions: np.ndarray) -> list[int]:
        """Tokens of (H, D) normalised actions, from <bos> to the end."""
        tokenizer = self.ask_tokenizer()
        ids = [self.span[1] - token for token in tokenizer.actions.encode(actions)]
        end = [tokenizer.end, *([] if tokenizer.eos is None else [tokenizer.eos])]
        return [tokenizer.bos, *tokenizer.opening, *ids, *end]

    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        """(B, L) tokens to targets. Raises InputError for tokens that are not a chunk."""
        chunks = np.stack([self.read(row) for row in answer.tolist()])
        return super().outputs(torch.from_numpy(chunks), samples)

    def read(self, row: Sequence[int]) -> np.ndarray:
        """(H, D) normalised actions of one row of tokens. Raises InputError for tokens that are not a chunk."""
        tokenizer, (low, high) = self.ask_tokenizer(), self.span
        opening, end = tokenizer.opening, tokenizer.end
        ids = list(row[: row.index(end)] if end in row else row)
        said = f"policy: {len(row)} tokens {row[:8]}..."
        if self.config.check_opening and ids[:2] != opening[:2]:
            raise InputError(f"{said}, expected a chunk that begins with {OPENING!r}: {opening}")
        start = 0
        while start <= len(ids) - len(opening):  # at any position, as published
            if ids[start : start + len(opening)] == opening:
                del ids[start : start + len(opening)]
            else:
                start += 1
        for place, token in enumerate(ids):
            if not low <= token <= high:
                raise InputError(f"{said}: token {token} at {place}, expected actions, {low} to {high}, then {end}")
        rows, width = self.config.horizon, self.config.action_dim
        try:
            return tokenizer.actions.decode([high - token for token in ids], rows, width, ended=end in row)
        except InputError as error:
            raise InputError(f"policy: {error}; expected a chunk of {rows} rows of {width}") from None
