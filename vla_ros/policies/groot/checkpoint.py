"""Declaration of the GR00T family."""

from collections.abc import Mapping
from typing import Any

from vla_ros.core.records import value_of
from vla_ros.policies.family import Family, Layout
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.export import to_lerobot
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.groot.names import rename
from vla_ros.policies.groot.processor import GrootProcessor
from vla_ros.policies.groot.prompts import image_mark
from vla_ros.policies.groot.published import TUNED, is_nvidia, read_lerobot, read_nvidia
from vla_ros.policies.options import TrainingData
from vla_ros.policies.tokenizer import JsonTokenizer, Tokenizer, word_tokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<|vision_start|>", "<|vision_end|>")


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """A tokenizer of the instructions' words and the prompt's special tokens; its size is set in `text`."""
    words = word_tokenizer(data.instructions)
    mark = image_mark(value_of(str, values.get("generation"), "policy.generation"))
    words.inner.add_special_tokens([*SPECIAL, mark])
    tokenizer = JsonTokenizer(words.inner, words.where)
    if isinstance(values.get("text"), Mapping):
        values["text"] = {**values["text"], "vocabulary": tokenizer.size}
    for name, width in zip(("max_state_dim", "max_action_dim"), data.widths, strict=True):
        values.setdefault(name, width)
    said = {"state_dim": data.widths[0], "real_action_dim": data.widths[1], "cameras": data.cameras}
    return said | {"image_token": tokenizer.inner.token_to_id(mark)}, tokenizer


OVERRIDES = ("embodiment_tag", "state_groups", "action_groups")
FAMILY = Family(
    "groot", GrootConfig, lambda config: Groot(config).freeze(), GrootProcessor, title="GR00T",
    layouts={
        "nvidia": Layout(is_nvidia, read_nvidia, rename, overrides=OVERRIDES),
        "lerobot": Layout(lambda config: config.get("type") == "groot", read_lerobot, rename,
                          overrides=(*OVERRIDES, "base_model_path"), export=to_lerobot),
    },
    fit="exact", normalisation="min_max",
    defaults={"embodiments": 1, "tune_llm": True, "tune_visual": True, "dropout": 0.0},
    overrides=("num_steps", "image_path", "crop", "listed", "formalise", *TUNED),
    fresh=_fresh,
)
