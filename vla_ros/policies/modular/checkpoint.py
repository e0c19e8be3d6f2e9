"""The family of composed policies: what it declares."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.hub import folder_of
from vla_ros.policies.family import Family
from vla_ros.policies.modular.config import ModularConfig
from vla_ros.policies.modular.model import Modular
from vla_ros.policies.modular.processor import ModularProcessor
from vla_ros.policies.options import TrainingData
from vla_ros.policies.parts.choice import chosen
from vla_ros.policies.parts.registry import ENCODERS, LANGUAGES
from vla_ros.policies.tokenizer import Tokenizer, instruction_words, load_tokenizer, word_tokenizer


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """The tokenizer of the language model's folder, else one of the instructions' words."""
    said = values.get("language")
    language = chosen(LANGUAGES, said, "policy.language")
    folder = folder_of(Path(language.folder)) if language.folder else None
    tokenizer = load_tokenizer(folder) if folder else word_tokenizer(data.instructions)
    if not language.size.vocabulary:
        values["language"] = {**(said if isinstance(said, Mapping) else {"kind": said}), "vocabulary": tokenizer.size}
    encoders = values.get("encoders", {})
    names = list(encoders) if isinstance(encoders, Mapping) else []
    if missing := [name for name in names if name not in data.streams]:
        raise InputError(f"policy.encoders.{missing[0]}: the dataset has no such stream, only "
                         f"{shown(sorted(data.streams))}")
    for name in names:
        choice = chosen(ENCODERS, encoders[name], f"policy.encoders.{name}")
        if f"{name}_count" in data.streams and not choice.part.counted:
            raise InputError(f"policy.encoders.{name}: {choice.title} reads no number of rows, which differs in this "
                             "stream (`points`); expected an encoder of points, as 'points'")
    shapes = {name: tuple(data.streams[name]) for name in names}
    sizes = {"cameras": data.cameras, "state_dim": data.widths[0], "action_dim": data.widths[1], "shapes": shapes}
    return sizes, tokenizer


def _begin(policy: Modular, tokenizer: Tokenizer, data: TrainingData) -> None:
    """Pretrained weights, and zeros as embeddings of words that training will never show where they are fresh."""
    for name, choice in policy.config.choices.items():
        if choice.folder:
            policy.get_submodule(name).take(Path(choice.folder))
    if not policy.config.language.folder:
        seen = {token for word in instruction_words(data.instructions) for token in tokenizer.encode(word)}
        policy.language.forget([token for token in range(tokenizer.size) if token not in seen])



FAMILY = Family(
    "modular", ModularConfig, Modular, ModularProcessor, title="composed of parts", fit="bicubic", fresh=_fresh,
    begin=_begin, overrides=("text_length",),
)
