"""The network of a GR00T N1.7 for LeRobot: the name of a published base model, or files in a folder."""

import json
from typing import Any

from safetensors.torch import save

from vla_ros.core.errors import InputError
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.sizes import HEAD, PUBLISHED, vlm_fields
from vla_ros.policies.tokenizer import JsonTokenizer, Tokenizer

BASE, VLM = "nvidia/GR00T-N1.7-3B", "nvidia/Cosmos-Reason2-2B"
FOLDER, VLM_FOLDER = "base", "vlm"  # for networks that are not published
BASE_HEAD = {  # of the published base model, under our names
    "text_layers": 16, "feature_dim": 2048, "max_state_dim": 132, "max_action_dim": 132, "chunk_size": 40,
    "hidden": 1024, "width": 1536, "dit_layers": 32, "dit_heads": 32, "vl_norm": True, "vl_layers": 4, "vl_heads": 32,
    "max_seq_len": 1024, "embodiments": 32, "alternate": True, "text_every": 2, "buckets": 1000,
}  # fmt: skip
_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{% for part in turn.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)


def base_files(config: GrootConfig, tokenizer: Tokenizer) -> tuple[str, str, dict[str, str | bytes]]:
    """Values of `base_model_path` and of the processor's `model_name`, and the files that they need.

    Raises InputError for a tokenizer that LeRobot cannot read from a folder.
    """
    published = GrootConfig.from_dict({
        "generation": "n1.7", "cameras": config.cameras, "state_dim": 1, "real_action_dim": 1,
        **vlm_fields("n1.7", PUBLISHED["n1.7"], "published sizes"), **BASE_HEAD,
    })  # fmt: skip
    of_vlm = ("vision", "text", "rope_theta", "mrope", "image_token")
    vlm = VLM if all(getattr(config, name) == getattr(published, name) for name in of_vlm) else f"./{VLM_FOLDER}"
    files: dict[str, str | bytes] = {}
    if vlm != VLM:
        files = {f"{VLM_FOLDER}/{name}": text for name, text in _vlm_files(config, tokenizer).items()}
    elif all(getattr(config, name) == value for name, value in BASE_HEAD.items()):
        return BASE, VLM, {}
    files[f"{FOLDER}/config.json"] = json.dumps(_network(config, vlm), indent=2)
    # LeRobot reads a base model's weights first, then the policy's own, which replace all of them.
    files[f"{FOLDER}/model.safetensors"] = save({}, metadata={"format": "pt"})
    return f"./{FOLDER}", vlm, files


def _network(config: GrootConfig, vlm: str) -> dict[str, Any]:
    """The base model's config.json, which `sizes.head_fields` reads."""
    attention = {"positional_embeddings": None, "dropout": config.dropout, "final_dropout": True}
    old = ("action_dim", "num_target_vision_tokens")  # of earlier generations
    return {theirs: getattr(config, ours) for theirs, ours in HEAD.items() if theirs not in old} | {
        "model_type": "Gr00tN1d7", "architectures": ["Gr00tN1d7"], "dtype": "float32", "model_dtype": "float32",
        "model_name": vlm, "backbone_model_type": "qwen", "select_layer": config.text_layers,
        "state_history_length": config.state_history, "noise_beta_alpha": config.noise_beta[0],
        "noise_beta_beta": config.noise_beta[1],
        "diffusion_model_cfg": attention | {
            "num_layers": config.dit_layers, "num_attention_heads": config.dit_heads,
            "attention_head_dim": config.width // config.dit_heads, "norm_type": "ada_norm",
            "output_dim": config.hidden, "interleave_self_attention": True,
        },
        "vl_self_attention_cfg": attention | {
            "num_layers": config.vl_layers, "num_attention_heads": config.vl_heads,
            "attention_head_dim": config.feature_dim // config.vl_heads,
        },
    }  # fmt: skip


def _vlm_files(config: GrootConfig, tokenizer: Tokenizer) -> dict[str, str]:
    """A Qwen3-VL's configuration, which `sizes.qwen_fields` reads, and its processor."""
    if not isinstance(tokenizer, JsonTokenizer):
        raise InputError(f"export: a tokenizer of {tokenizer.words} tokens that is no {JsonTokenizer.FILE}, which "
                         "LeRobot's policy reads")
    vision, text = config.vision, config.text
    mark = {name: tokenizer.token(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    model = {
        "model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": True,
        "image_token_id": config.image_token, "video_token_id": text.vocabulary,  # none
        "vision_start_token_id": mark["vision_start"], "vision_end_token_id": mark["vision_end"],
        "text_config": {
            "model_type": "qwen3_vl_text", "hidden_size": text.width, "num_hidden_layers": config.text_layers,
            "num_attention_heads": text.heads, "num_key_value_heads": text.kv_heads, "head_dim": text.head_dim,
            "intermediate_size": text.mlp, "vocab_size": text.vocabulary, "rms_norm_eps": text.epsilon,
            "rope_theta": config.rope_theta, "attention_bias": False, "hidden_act": "silu", "tie_word_embeddings": True,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": list(config.mrope), "rope_type": "default"},
        },
        "vision_config": {
            "model_type": "qwen3_vl", "depth": vision.depth, "hidden_size": vision.hidden, "num_heads": vision.heads,
            "intermediate_size": vision.mlp, "patch_size": vision.patch, "num_position_embeddings": vision.grid**2,
            "deepstack_visual_indexes": list(vision.deepstack), "out_hidden_size": text.width, "in_channels": 3,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "hidden_act": "gelu_pytorch_tanh",
        },
    }  # fmt: skip
    images = {
        "size": {"shortest_edge": config.image_unit**2, "longest_edge": 1 << 24}, "patch_size": vision.patch,
        "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>", "chat_template": _TEMPLATE}
    return {
        "config.json": json.dumps(model, indent=2), "tokenizer.json": tokenizer.inner.to_str(),
        "tokenizer_config.json": json.dumps(about),
        "preprocessor_config.json": json.dumps(images | {"image_processor_type": "Qwen2VLImageProcessor"}),
        "video_preprocessor_config.json": json.dumps(images | {"video_processor_type": "Qwen3VLVideoProcessor"}),
    }  # fmt: skip
