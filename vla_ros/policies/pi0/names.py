"""Names of published π0 weights and where they go.

Three published layouts contain the same tensors under different names. `RENAMES` converts every name to openpi's,
`RULES` maps an openpi tensor to our parameter (or to rows of a fused one), or to the reason why it is not needed.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from vla_ros.policies.formats.transformers_names import decoder, siglip
from vla_ros.policies.formats.weights import Rename, Unused, plain_name, renamed

P = "paligemma_with_expert.paligemma.model"
X = "paligemma_with_expert.gemma_expert.model"
EMBEDDING = f"{P}.language_model.embed_tokens.weight"
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"

# Applied to every key in this order. The replacement may use the groups of the pattern.
RENAMES: tuple[tuple[str, str, str], ...] = (
    # which layout, pattern, replacement
    ("LeRobot", r"model\.(?=paligemma_with_expert|action_|state_proj|time_mlp)", ""),
    ("LeRobot until 0.3", r"paligemma_with_expert\.paligemma\.language_model\.model\.", f"{P}.language_model."),
    ("LeRobot until 0.3", r"paligemma_with_expert\.paligemma\.language_model\.lm_head\.", HEAD.removesuffix("weight")),
    ("LeRobot until 0.3", r"paligemma_with_expert\.paligemma\.(vision_tower|multi_modal_projector)\.", rf"{P}.\1."),
    ("transformers, in memory", r"model\.vlm\.", f"{P}."),
    ("transformers, in memory", r"model\.dit\.", f"{X}."),
    ("transformers, in memory", r"embed_action_time\.", ""),
    ("transformers, saved", rf"{re.escape(P)}\.language_model\.model\.", f"{P}.language_model."),
    ("transformers from 5.6", rf"{re.escape(P)}\.vision_tower\.(?!vision_model\.)", f"{P}.vision_tower.vision_model."),
)
# openpi's name -> ours. The time MLP has two names, which do not tell the two models apart.
RULES: tuple[tuple[str, str], ...] = (
    *siglip(re.escape(f"{P}.vision_tower.vision_model"), "image_tokens.tower"),
    (re.escape(f"{P}.multi_modal_projector.linear") + r"\.(.*)", r"image_tokens.projector.\1"),
    (re.escape(EMBEDDING), "embedding.weight"),
    (re.escape("paligemma_with_expert.gemma_expert.lm_head.weight"), Unused("the expert writes no text")),
    (re.escape(f"{X}.embed_tokens.weight"), Unused("the expert writes no text")),
    *decoder(re.escape(f"{P}.language_model"), "prefix.layers"),
    (re.escape(f"{P}.language_model.norm.") + "(.*)", r"prefix.norm.\1"),
    *decoder(re.escape(X), "expert.layers"),
    (re.escape(f"{X}.norm.") + "(.*)", r"expert.norm.\1"),
    (r"state_proj\.(.*)", r"state_in.\1"),
    (r"action_(in|out)_proj\.(.*)", r"action_\1.\2"),
    (r"action_time_mlp_(in|out)\.(.*)", r"time_\1.\2"),
    (r"time_mlp_(in|out)\.(.*)", r"time_\1.\2"),
)
_ADAPTIVE = (
    (r"state_proj\..*", Unused("π0.5 reads the state in the prompt")),
    (rf"{re.escape(X)}\.(.*layernorm|norm)\.weight", Unused("π0.5's expert has adaptive norms")),
)


def openpi_name(key: str) -> str:
    """openpi's name for a tensor of any published layout."""
    key = plain_name(key)
    for _, pattern, replacement in RENAMES:
        key = re.sub(f"^{pattern}", replacement, key)
    return key


def is_old(key: str) -> bool:
    """Whether a tensor has the name that LeRobot used until 0.3."""
    key = key.removeprefix("model.")
    return any(who == "LeRobot until 0.3" and re.match(pattern, key) for who, pattern, _ in RENAMES)


def rename(config: Any, keys: Collection[str]) -> Rename:
    """From each of a published file's `keys` to the module's name, for a `Pi0Config`."""
    # openpi's files only contain the head, which is tied to the embedding.
    tied = all(openpi_name(key) != EMBEDDING for key in keys)
    head = (re.escape(HEAD), "embedding.weight" if tied else Unused("the policy writes no text"))
    return by_rules((*(_ADAPTIVE if config.adaptive else ()), head, *RULES))


def by_rules(rules: Sequence[tuple[str, str]]) -> Rename:
    """Apply the first rule that matches openpi's name of a key; a key without a rule keeps its name."""
    return lambda key: name if (name := renamed(openpi_name(key), rules)) != openpi_name(key) else key
