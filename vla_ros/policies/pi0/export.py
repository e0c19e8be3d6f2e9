"""A π0 or π0.5 as LeRobot 0.6.1 holds it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.policies.formats.inverse import published
from vla_ros.policies.formats.lerobot_rtc import write_guidance
from vla_ros.policies.formats.lerobot_writer import RELATIVE, Form
from vla_ros.policies.pi0.config import GEMMA, LEROBOT_FIELDS, VISION
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import EMBEDDING, HEAD, RULES
from vla_ros.policies.processor import StandardProcessor

OLD = "num_steps", "train_state_proj"  # fields until LeRobot 0.3
VARIANTS = "gemma_2b", "gemma_300m"  # that LeRobot has
VOCABULARY = 257_152  # of PaliGemma, which LeRobot fixes
CLEANED = "LeRobot does not take underscores and line feeds out of an instruction, as this policy does"


def to_lerobot(policy: Pi0, processor: StandardProcessor) -> Form:
    """Raises InputError that names what LeRobot has not."""
    config = policy.config
    towers = {}
    for name in ("prefix", "expert"):
        towers[name] = next((v for v in VARIANTS if GEMMA[v] == getattr(config, name)), None)
        if towers[name] is None:
            raise InputError(f"export: {name} of width {getattr(config, name).width}, LeRobot has {list(VARIANTS)}")
    if config.vision != VISION["siglip_so400m"]:
        raise InputError("export: vision is not 'siglip_so400m', which LeRobot has alone")
    if config.vocabulary != VOCABULARY:
        raise InputError(f"export: vocabulary of {config.vocabulary} tokens, LeRobot has {VOCABULARY} alone")
    if config.prompt == "pi05_padded" or config.adaptive != (config.prompt == "pi05"):
        raise InputError(f"export: prompt {config.prompt!r}, LeRobot 0.6.1 has {'pi05' if config.adaptive else 'pi0'}")
    alpha, beta = config.time_beta
    fields = {theirs: getattr(config, ours) for theirs, ours in LEROBOT_FIELDS.items() if theirs not in OLD} | {
        "type": "pi05" if config.adaptive else "pi0", "n_obs_steps": 1, "n_action_steps": config.horizon,
        "paligemma_variant": towers["prefix"], "action_expert_variant": towers["expert"], "dtype": "float32",
        "max_state_dim": config.state_dim, "max_action_dim": config.action_dim,
        "image_resolution": list(config.image_size), "rtc_config": write_guidance(config.guidance), "empty_cameras": 0,
        "time_sampling_beta_alpha": alpha, "time_sampling_beta_beta": beta,
    }  # fmt: skip
    tokenizer = {"max_length": config.text_length, "task_key": "task", "padding_side": "right",
                 "padding": "max_length", "truncation": True, "tokenizer_name": "google/paligemma-3b-pt-224"}
    first = {"rename_observations_processor": {"rename_map": {}}, "to_batch_processor": {}}
    device = {"device_processor": {"device": "cpu", "float_dtype": None}}
    middle = {RELATIVE: {}, "normalizer_processor": {}}
    if config.adaptive:
        steps = first | middle | {"pi05_prepare_state_tokenizer_processor_step": {}, "tokenizer_processor": tokenizer}
        steps |= device
    else:
        steps = first | {"pi0_new_line_processor": {}, "tokenizer_processor": tokenizer} | device | middle
    rounded = "LeRobot does not round the pixels of a scaled image, as this policy does"
    notes = (CLEANED,) if config.prompt == "pi0" else ()
    return Form(
        fields, steps, {"pad_unrounded": "", "pad": rounded}, _tensors(policy), relative=True, notes=notes,
    )


def _tensors(policy: Pi0) -> Iterator[tuple[str, Tensor]]:
    # The time MLP has two names, of which the inverse takes the first.
    rules = RULES[::-1] if policy.config.adaptive else RULES
    for key, tensor in published(policy.state_dict(), rules):
        yield f"model.{key}", tensor
        if key == EMBEDDING:  # what LeRobot's file holds, and no policy reads
            yield f"model.{HEAD}", tensor
            width = policy.config.expert.width
            yield "model.paligemma_with_expert.gemma_expert.lm_head.weight", torch.zeros(len(tensor), width)
