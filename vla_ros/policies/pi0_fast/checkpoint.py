"""Declaration of the π0-FAST family."""

from pathlib import Path
from typing import Any

import torch

from vla_ros.core.records import Rows, value_of
from vla_ros.policies.family import Family, lerobot
from vla_ros.policies.options import LoadOptions, TrainingData, read_config
from vla_ros.policies.pi0_fast.config import Pi0FastConfig
from vla_ros.policies.pi0_fast.export import to_lerobot
from vla_ros.policies.pi0_fast.model import Pi0Fast
from vla_ros.policies.pi0_fast.names import rename
from vla_ros.policies.pi0_fast.processor import Pi0FastProcessor
from vla_ros.policies.pi0_fast.tokens import END, OPENING, FastTokenizer, find_actions, fresh_actions
from vla_ros.policies.tokenizer import COMMON_WORDS, Tokenizer, instruction_words, word_tokenizer

# Text of prompts and chunks besides the instruction.
PROMPT = f"Task: , State: -; {OPENING}{END} {' '.join(map(str, range(256)))}"
HORIZON = Pi0FastConfig.__dataclass_fields__["horizon"].default


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """A tokenizer of the instructions' words, with places for one in which every coefficient is a token."""
    rows, width = value_of(Rows, values.get("horizon", HORIZON), "policy.horizon"), data.action_dim
    actions = fresh_actions(rows)
    text = word_tokenizer([*data.instructions, PROMPT], places=actions.size)
    for name in ("max_action_tokens", "max_decoding_steps"):
        values.setdefault(name, rows * width + 8)
    sizes = {"cameras": data.cameras, "vocabulary": text.size, "state_dim": len(data.joints), "action_dim": width}
    return sizes, FastTokenizer(text, actions)


def _silence_other_words(policy: Pi0Fast, tokenizer: Tokenizer, data: TrainingData) -> None:
    """Set the embeddings of words that do not occur in training to zero: random vectors would have an arbitrary
    effect."""
    seen = instruction_words([*data.instructions, PROMPT])
    tokens = [token for word in COMMON_WORDS if word not in seen for token in tokenizer.encode(word)]
    with torch.no_grad():
        policy.embedding.weight[[*tokens, tokenizer.unknown]] = 0.0


def _tokens(path: Path, options: LoadOptions, text: Tokenizer) -> Tokenizer:
    given = options.overrides.get("action_tokenizer")
    return FastTokenizer(text, find_actions(path, given, read_config(path).get("action_tokenizer_name")))


FAMILY = Family(
    "pi0_fast", Pi0FastConfig, Pi0Fast, Pi0FastProcessor, title="π0-FAST",
    layouts={"lerobot": lerobot(
        "pi0_fast", rename=rename, fit="pad_unrounded", overrides=("action_tokenizer",), export=to_lerobot
    )},
    normalisation="quantiles",
    defaults={"skip_tokens": 0, "decoding": "actions"},
    overrides=("text_length", "max_decoding_steps", "horizon", "temperature", "decoding"),
    fresh=_fresh,
    begin=_silence_other_words,
    tokens=_tokens,
)
