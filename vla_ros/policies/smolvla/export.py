"""A SmolVLA in the form of LeRobot 0.6.1."""

import json
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.inverse import published
from vla_ros.policies.formats.lerobot_rtc import untold, write_guidance
from vla_ros.policies.formats.lerobot_writer import DEVICE, FIRST, ROUNDED, Form
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.smolvla.config import LEROBOT_FIELDS, VLMS, VlmSize
from vla_ros.policies.smolvla.model import SmolVLA
from vla_ros.policies.smolvla.names import RULES

VLM = "vlm"  # folder of a vision-language model that is not published


def to_lerobot(policy: SmolVLA, processor: StandardProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config, vlm = policy.config, policy.config.vlm
    if not isinstance(vlm.vision, SiglipSize):
        raise InputError("export: vision 'keypoint_stem', which LeRobot does not have; expected a SigLIP")
    known = next((f"HuggingFaceTB/{name}" for name, size in VLMS.items() if size == vlm), None)
    name = known or VLM
    fields = {name: getattr(config, name) for name in LEROBOT_FIELDS} | {
        "type": "smolvla", "n_obs_steps": 1, "vlm_model_name": name, "load_vlm_weights": False, "empty_cameras": 0,
        "resize_imgs_with_padding": list(config.image_size), "add_image_special_tokens": False,
        "use_delta_joint_actions_aloha": False, "adapt_to_pi_aloha": False, "prefix_length": -1, "use_cache": True,
        "pad_language_to": "longest", "rtc_config": write_guidance(config.guidance),
    }  # fmt: skip
    steps = FIRST | {
        "smolvla_new_line_processor": {},
        "tokenizer_processor": {"max_length": config.tokenizer_max_length, "task_key": "task", "padding_side": "right",
                                "padding": "longest", "truncation": True, "tokenizer_name": name},
    } | DEVICE | {"normalizer_processor": {}}  # fmt: skip
    files = {} if known else {f"{VLM}/config.json": json.dumps(_transformers(vlm), indent=2)}
    notes = () if known else ("its vision-language model is not a published one: LeRobot finds vlm/ where it is "
                              "started in the folder, and needs the files of its processor there",)
    return Form(
        fields, steps, {"pad_unrounded_top_left": "", "pad_top_left": ROUNDED}, _tensors(policy), files,
        notes=notes + untold(config.guidance),
    )


def _transformers(vlm: VlmSize) -> dict[str, Any]:
    """config.json of the SmolVLM, which `VlmSize.from_transformers` reads."""
    vision, text = vlm.vision, vlm.text
    return {
        "model_type": "smolvlm", "scale_factor": vlm.shuffle,
        "vision_config": {"hidden_size": vision.hidden, "num_hidden_layers": vision.depth, "patch_size": vision.patch,
                          "num_attention_heads": vision.heads, "intermediate_size": vision.mlp,
                          "image_size": vision.image},
        "text_config": {"model_type": "llama", "hidden_size": text.width, "num_attention_heads": text.heads,
                        "num_key_value_heads": text.kv_heads, "head_dim": text.head_dim, "vocab_size": text.vocabulary,
                        "intermediate_size": text.mlp, "rms_norm_eps": text.epsilon, "num_hidden_layers": 32,
                        "rope_theta": 100_000},
    }  # fmt: skip


def _tensors(policy: SmolVLA) -> Iterator[tuple[str, Tensor]]:
    places = {"query": 0, "key": 1, "value": 2}  # of a cross layer, whose matrices are separate

    def alias(name: str) -> str:
        cross = re.fullmatch(r"(expert\.\d+)\.(query|key|value)\.weight", name)
        return f"{cross[1]}.qkv.weight[{places[cross[2]]}]" if cross else name

    start = "model.vlm_with_expert.vlm"
    for key, tensor in published(policy.state_dict(), RULES, alias):
        yield f"model.{key}", tensor
        if "embed_tokens" in key:  # in LeRobot's file, but not read by any policy
            yield f"{start}.lm_head.weight", tensor
            yield f"{start}.model.text_model.norm.weight", torch.ones(tensor.shape[1])
