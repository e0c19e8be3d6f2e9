"""A π0-FAST in the form of LeRobot 0.6.1."""

import re
from collections.abc import Iterator

from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.policies.formats.inverse import published
from vla_ros.policies.formats.lerobot_writer import DEVICE, FIRST, RELATIVE, ROUNDED, Form
from vla_ros.policies.pi0.export import PALIGEMMA, paligemma_variant
from vla_ros.policies.pi0.names import HEAD, RULES
from vla_ros.policies.pi0_fast.config import LEROBOT_FIELDS
from vla_ros.policies.pi0_fast.model import Pi0Fast
from vla_ros.policies.pi0_fast.processor import Pi0FastProcessor
from vla_ros.policies.pi0_fast.tokens import FOLDER, PUBLISHED, is_published


def to_lerobot(policy: Pi0Fast, processor: Pi0FastProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config, actions = policy.config, processor.ask_tokenizer().actions
    variant = paligemma_variant(config)
    if config.decoding != "free":
        raise InputError(f"export: decoding {config.decoding!r}, LeRobot has 'free' alone; overrides.decoding in a "
                         "policy file says so, where the policy writes chunks without being held to them")
    known = is_published(actions)
    name = PUBLISHED if known else f"./{FOLDER}"
    fields = {theirs: getattr(config, ours) for ours, theirs in LEROBOT_FIELDS.items()} | {
        "type": "pi0_fast", "n_obs_steps": 1, "chunk_size": config.horizon, "n_action_steps": config.horizon,
        "paligemma_variant": variant, "action_expert_variant": "gemma_300m", "dtype": "float32",
        "max_state_dim": 32, "max_action_dim": 32, "image_resolution": list(config.image_size),
        "text_tokenizer_name": PALIGEMMA, "action_tokenizer_name": name, "empty_cameras": 0, "use_kv_cache": True,
        "rtc_config": None,
    }  # fmt: skip
    steps = FIRST | {
        RELATIVE: {}, "normalizer_processor": {}, "pi0_fast_prepare_state_tokenizer_processor_step": {},
        "tokenizer_processor": {"max_length": config.text_length, "task_key": "task", "padding_side": "right",
                                "padding": "max_length", "truncation": True, "tokenizer_name": PALIGEMMA},
        "action_tokenizer_processor": {"trust_remote_code": True, "max_action_tokens": config.max_action_tokens,
                                       "action_tokenizer_name": name},
    } | DEVICE  # fmt: skip
    notes = () if known else (f"its action tokenizer is not {PUBLISHED}: LeRobot finds {FOLDER}/ where it is started "
                              "in the folder, and needs the files of FAST's processor there",)
    return Form(
        fields, steps, {"pad_unrounded": "", "pad": ROUNDED}, lerobot_tensors(policy), relative=True, notes=notes,
    )


def lerobot_tensors(policy: Pi0Fast) -> Iterator[tuple[str, Tensor]]:
    """Each key of LeRobot's file and its tensor."""
    head = re.escape(HEAD), "embedding.weight" if policy.config.tied else "head.weight"
    for key, tensor in published(policy.state_dict(), (head, *RULES)):
        yield f"model.{key}", tensor
