"""An X-VLA in the form of LeRobot 0.6.1, with Florence-2 in transformers' names."""

import json
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.policies.formats.lerobot_writer import DEVICE, FIRST, Form
from vla_ros.policies.tokenizer import JsonTokenizer, Tokenizer
from vla_ros.policies.xvla.config import DOMAIN, LEROBOT_FIELDS
from vla_ros.policies.xvla.florence import TEXT, VISION, FlorenceSize
from vla_ros.policies.xvla.model import Xvla
from vla_ros.policies.xvla.processor import XvlaProcessor

INSTANTS = 100  # rows of Florence's embedding of time; the first is used
BART, BART_WORDS = "facebook/bart-large", 50_265
_PROJECTOR = "vlm.multi_modal_projector"
NAMES = (  # prefix of a module's name, and LeRobot's
    ("vision_tower.", "vlm.vision_tower."),
    ("language.", "vlm.language_model.encoder."),
    ("projector.matrix", f"{_PROJECTOR}.image_projection.weight"),
    ("projector.norm.", f"{_PROJECTOR}.image_proj_norm."),
    ("projector.rows", f"{_PROJECTOR}.image_position_embed.row_embeddings.weight"),
    ("projector.columns", f"{_PROJECTOR}.image_position_embed.column_embeddings.weight"),
    ("", "transformer."),
)


def to_lerobot(policy: Xvla, processor: XvlaProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config, tokenizer = policy.config, processor.ask_tokenizer()
    if config.stem:
        raise InputError("export: stem, which LeRobot does not have; expected Florence-2's image encoder")
    if config.domain_id is None:
        raise InputError(f"export: {DOMAIN}")
    known = tokenizer.words == BART_WORDS
    name = BART if known else "."
    fields = {name: getattr(config, name) for name in LEROBOT_FIELDS} | {
        "type": "xvla", "n_obs_steps": 1, "n_action_steps": config.chunk_size, "dtype": "float32",
        "florence_config": florence_config(config.florence), "num_denoising_steps": config.num_steps,
        "use_proprio": config.state_width > 0, "num_image_views": config.views, "empty_cameras": 0,
        "resize_imgs_with_padding": None if processor.fit == "exact" else list(config.image_size),
        "tokenizer_name": name, "tokenizer_max_length": config.text_length, "tokenizer_padding_side": "right",
        "pad_language_to": "max_length", "domain_feature_key": None,
    }  # fmt: skip
    steps = FIRST | {
        "tokenizer_processor": {"max_length": config.text_length, "task_key": "task", "padding_side": "right",
                                "padding": "max_length", "truncation": True, "tokenizer_name": name},
        "xvla_image_to_float": {"image_keys": None, "validate_range": True},
        "xvla_imagenet_normalize": {"image_keys": None}, "xvla_add_domain_id": {"domain_id": config.domain_id},
    } | DEVICE | {"normalizer_processor": {}}  # fmt: skip
    files = {} if known else {"tokenizer_config.json": json.dumps(_about(tokenizer))}
    notes = () if known else ("its tokenizer is not BART's: LeRobot finds it where it is started in the folder",)
    return Form(fields, steps, {"exact": "", "pad_unrounded_mean": ""}, _tensors(policy), files, notes=notes)


def _about(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json, which transformers needs to read a tokenizer.json. Raises InputError."""
    if not isinstance(tokenizer, JsonTokenizer):
        raise InputError(f"export: a tokenizer of {tokenizer.words} tokens that is no {JsonTokenizer.FILE}, which "
                         "LeRobot's policy reads")
    return {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": tokenizer.inner.id_to_token(tokenizer.padding)}


def florence_config(size: FlorenceSize) -> dict[str, Any]:
    """`florence_config`, which `FlorenceSize.from_files` reads."""
    vision, text = ({names[-1]: getattr(size, ours) for ours, names in part.items()} for part in (VISION, TEXT))
    vision |= {"projection_dim": size.width, "max_temporal_embeddings": INSTANTS, "in_channels": 3, "qkv_bias": True}
    text |= {
        "model_type": "bart", "attention_dropout": size.dropout, "activation_dropout": size.dropout,
        "scale_embedding": False, "activation_function": "gelu", "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2,
        # LeRobot builds a decoder and then removes it.
        "decoder_layers": 1, "decoder_attention_heads": size.text_heads, "decoder_ffn_dim": size.mlp,
    }  # fmt: skip
    return {"vision_config": vision, "text_config": text}


def _tensors(policy: Xvla) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in policy.state_dict().items():
        ours, theirs = next(pair for pair in NAMES if name.startswith(pair[0]))
        turned = name == "projector.matrix" and policy.config.transposed
        yield f"model.{theirs}{name.removeprefix(ours)}", tensor.T if turned else tensor
    width = policy.config.florence.widths[-1]
    rates = torch.exp(torch.arange(width // 2) * (-math.log(10_000) / (width // 2)))
    angles = torch.arange(INSTANTS)[:, None] * rates
    yield f"model.{_PROJECTOR}.visual_temporal_embed.pos_idx_to_embed", torch.stack(
        [angles.sin(), angles.cos()], dim=-1).flatten(1)
