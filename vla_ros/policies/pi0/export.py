"""A π0 or π0.5 in the form of LeRobot 0.6.1."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.nn.gemma import GemmaSize
from vla_ros.policies.formats.inverse import published
from vla_ros.policies.formats.lerobot_rtc import untold, write_guidance
from vla_ros.policies.formats.lerobot_writer import DEVICE, FIRST, RELATIVE, ROUNDED, Form
from vla_ros.policies.pi0.config import GEMMA, LEROBOT_FIELDS, VISION
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import EMBEDDING, HEAD, RULES
from vla_ros.policies.processor import StandardProcessor

OLD = "num_steps", "train_state_proj"  # fields until LeRobot 0.3
VARIANTS = "gemma_2b", "gemma_300m"  # that LeRobot has
VOCABULARY = 257_152  # of PaliGemma, which LeRobot fixes
PALIGEMMA = "google/paligemma-3b-pt-224"  # whose tokenizer is named
CLEANED = "LeRobot does not remove underscores and line feeds from an instruction, as this policy does"


def to_lerobot(policy: Pi0, processor: StandardProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config = policy.config
    prefix, expert = paligemma_variant(config), _variant("expert", config.expert)
    if config.prompt == "pi05_padded" or config.adaptive != (config.prompt == "pi05"):
        raise InputError(f"export: prompt {config.prompt!r}, LeRobot 0.6.1 has {'pi05' if config.adaptive else 'pi0'}")
    alpha, beta = config.time_beta
    fields = {theirs: getattr(config, ours) for theirs, ours in LEROBOT_FIELDS.items() if theirs not in OLD} | {
        "type": "pi05" if config.adaptive else "pi0", "n_obs_steps": 1, "n_action_steps": config.horizon,
        "paligemma_variant": prefix, "action_expert_variant": expert, "dtype": "float32",
        "max_state_dim": config.state_dim, "max_action_dim": config.action_dim,
        "image_resolution": list(config.image_size), "rtc_config": write_guidance(config.guidance), "empty_cameras": 0,
        "time_sampling_beta_alpha": alpha, "time_sampling_beta_beta": beta,
    }  # fmt: skip
    tokenizer = {"max_length": config.text_length, "task_key": "task", "padding_side": "right",
                 "padding": "max_length", "truncation": True, "tokenizer_name": PALIGEMMA}
    middle = {RELATIVE: {}, "normalizer_processor": {}}
    if config.adaptive:
        steps = FIRST | middle | {"pi05_prepare_state_tokenizer_processor_step": {}, "tokenizer_processor": tokenizer}
        steps |= DEVICE
    else:
        steps = FIRST | {"pi0_new_line_processor": {}, "tokenizer_processor": tokenizer} | DEVICE | middle
    notes = ((CLEANED,) if config.prompt == "pi0" else ()) + untold(config.guidance)
    return Form(
        fields, steps, {"pad_unrounded": "", "pad": ROUNDED}, _tensors(policy), relative=True, notes=notes,
    )


def paligemma_variant(config: Any) -> str:
    """LeRobot's name of a configuration's `prefix`. Raises InputError for anything that is not a PaliGemma."""
    name = _variant("prefix", config.prefix)
    if config.vision != VISION["siglip_so400m"]:
        raise InputError("export: vision is not 'siglip_so400m', the only one that LeRobot has")
    if config.vocabulary != VOCABULARY:
        raise InputError(f"export: vocabulary of {config.vocabulary} tokens, LeRobot has {VOCABULARY} alone")
    return name


def _variant(what: str, size: GemmaSize) -> str:
    name = next((variant for variant in VARIANTS if GEMMA[variant] == size), None)
    if name is None:
        raise InputError(f"export: {what} of width {size.width}, LeRobot has {list(VARIANTS)}")
    return name


def _tensors(policy: Pi0) -> Iterator[tuple[str, Tensor]]:
    # The time MLP has two names; the inverse uses the first.
    rules = RULES[::-1] if policy.config.adaptive else RULES
    for key, tensor in published(policy.state_dict(), rules):
        yield f"model.{key}", tensor
        if key == EMBEDDING:  # in LeRobot's file, but not read by any policy
            yield f"model.{HEAD}", tensor
            width = policy.config.expert.width
            yield "model.paligemma_with_expert.gemma_expert.lm_head.weight", torch.zeros(len(tensor), width)
