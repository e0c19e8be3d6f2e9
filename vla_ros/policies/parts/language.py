"""Language models of transformers: Qwen2, Llama (SmolLM2 is one) and Phi-3, of any size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Count, Inner, Range, Width, value_of
from vla_ros.nn.attention import causal_mask
from vla_ros.policies.parts.kinds import Language
from vla_ros.policies.parts.pretrained import said, take_folder, with_numbers

Depth = Annotated[int, Range(1, 1000)]


@dataclass(frozen=True)
class LanguageSize:
    """Under transformers' names; `vocabulary`: number of tokens, 0: as many as the tokenizer has."""

    hidden_size: Width = 128
    num_hidden_layers: Depth = 4
    num_attention_heads: Count = 4
    num_key_value_heads: Count = 2
    intermediate_size: Inner = 384
    vocabulary: Annotated[int, Range(0, 10_000_000)] = 0
    rope_theta: Annotated[float, Range(1, 1e12)] = 10_000.0
    rms_norm_eps: Annotated[float, Range(0, 1)] = 1e-6

    def __post_init__(self) -> None:
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % (2 * heads) or heads % shared:
            raise InputError(f"hidden_size {self.hidden_size}, {heads} heads, {shared} of keys: expected heads of an "
                             "even width, as many queries for each key")


class TransformersLanguage(Language):
    """A causal decoder of transformers; padding has no position."""

    Size = LanguageSize
    kind: ClassVar[str]
    # Further fields of config.json with their allowed values; None: must not be set.
    fixed: ClassVar[Mapping[str, Any]] = {
        "hidden_act": "silu", "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "partial_rotary_factor": 1.0,
    }

    def __init__(self, size: LanguageSize) -> None:
        super().__init__()
        self.width, self.vocabulary = size.hidden_size, size.vocabulary
        self.model = with_numbers(self.make({
            "hidden_size": size.hidden_size, "num_hidden_layers": size.num_hidden_layers,
            "num_attention_heads": size.num_attention_heads, "num_key_value_heads": size.num_key_value_heads,
            "intermediate_size": size.intermediate_size, "vocab_size": size.vocabulary,
            "rope_parameters": {"rope_type": "default", "rope_theta": size.rope_theta},
            # Of fresh weights: layers preserve the variance, however narrow the model is.
            "initializer_range": size.hidden_size**-0.5, "rms_norm_eps": size.rms_norm_eps,
            "attention_dropout": 0.0, "use_cache": False,
            "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,  # else the embedding has a row of zeros
        }))

    @staticmethod
    def make(row: Mapping[str, Any]) -> nn.Module:
        """transformers' module."""
        raise NotImplementedError

    @classmethod
    def folder_size(cls, folder: Path) -> Mapping[str, Any]:
        row = said(folder, (cls.kind,), cls.fixed)
        rope = row.get("rope_parameters") or {"rope_theta": row.get("rope_theta", 10_000.0)}
        if rope.get("rope_type", "default") != "default":
            raise InputError(f"{folder}: rope_type {rope['rope_type']!r}, expected 'default', as nothing else is "
                             "supported")
        if missing := [name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
                       if name not in row]:
            raise InputError(f"{folder}: config.json lacks {', '.join(missing)}")
        width = value_of(Width, row["hidden_size"], f"{folder}: config.json: hidden_size")
        heads = value_of(Count, row["num_attention_heads"], f"{folder}: config.json: num_attention_heads")
        if row.get("head_dim") not in (None, width // heads):
            raise InputError(f"{folder}: head_dim {shown(row['head_dim'])}, expected {width // heads}, hidden_size / "
                             "num_attention_heads")
        names = set(LanguageSize.__dataclass_fields__) - {"vocabulary", "rope_theta"}
        found = {name: row[name] for name in names if name in row}
        found.setdefault("num_key_value_heads", row.get("num_attention_heads"))
        return found | {"vocabulary": row.get("vocab_size"), "rope_theta": rope.get("rope_theta", 10_000.0)}

    def take(self, folder: Path) -> None:
        take_folder(self.model, folder)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.model.embed_tokens(tokens)

    def forget(self, tokens: Sequence[int]) -> None:
        with torch.no_grad():
            self.model.embed_tokens.weight[list(tokens)] = 0.0

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        places = (valid.cumsum(dim=1) - 1).clamp(min=0)
        # A four-dimensional mask is used unchanged: transformers does not inspect its values.
        out = self.model(inputs_embeds=x.to(self.dtype), attention_mask=causal_mask(valid, 1), position_ids=places)
        return out.last_hidden_state


class Qwen2(TransformersLanguage):
    kind = "qwen2"
    fixed = TransformersLanguage.fixed | {"use_sliding_window": False}

    @staticmethod
    def make(row: Mapping[str, Any]) -> nn.Module:
        from transformers import Qwen2Config, Qwen2Model  # takes a second, rarely needed

        return Qwen2Model(Qwen2Config(**row))


class Llama(TransformersLanguage):
    kind = "llama"

    @staticmethod
    def make(row: Mapping[str, Any]) -> nn.Module:
        from transformers import LlamaConfig, LlamaModel

        return LlamaModel(LlamaConfig(**row))


class Phi3(TransformersLanguage):
    """Beyond `most` tokens Phi-3-mini-4k uses sliding-window attention, which is not implemented here."""

    kind, most = "phi3", 2047

    @staticmethod
    def make(row: Mapping[str, Any]) -> nn.Module:
        from transformers import Phi3Config, Phi3Model

        return Phi3Model(Phi3Config(**row))
