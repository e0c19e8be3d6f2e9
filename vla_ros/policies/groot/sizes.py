"""Sizes of the network from the original's files, as fields of `GrootConfig`."""

from collections.abc import Collection, Mapping
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Count, Pixels, check_only, value_of
from vla_ros.policies.groot.config import GENERATIONS

# Fields that describe how a checkpoint was trained or stored, and do not affect inference.
STORED = frozenset(
    "architectures torch_dtype dtype transformers_version _name_or_path model_type model_dtype compute_dtype "
    "_attn_implementation attn_implementation use_flash_attention load_bf16 auto_map return_dict output_hidden_states "
    "model_name model_revision backbone_model_type eagle_path eagle_collator collator_overwrite_image_inputs "
    "tune_llm tune_visual tune_projector tune_diffusion_model tune_vlln tune_top_llm_layers "
    "backbone_trainable_params_fp32 random_rotation_angle color_jitter_params extra_augmentation_config "
    "attn_dropout state_additive_noise_scale expand_batch load_pretrained_det_decode_layer_path detection_coeff "
    "freeze_decode_layer max_action_dim output_attentions state_gaussian_noise_std state_dropout_prob_per_embodiment "
    "random_history_crop tune_linear soft_prompt_num_tokens allow_reshape_visual load_pretrained_det_eagle_path "
    "use_local_eagle_hg_model".split()
)
# Read from the processor's files instead, which contain the same.
PROCESSING = frozenset(
    "image_crop_size image_target_size shortest_image_edge crop_fraction use_albumentations_transforms "
    "use_albumentations "
    "letter_box_transform formalize_language apply_sincos_state_encoding use_percentiles use_relative_action".split()
)
HEAD = {  # published name: ours
    "hidden_size": "hidden", "input_embedding_dim": "width", "max_state_dim": "max_state_dim",
    "max_seq_len": "max_seq_len", "max_num_embodiments": "embodiments", "num_inference_timesteps": "num_steps",
    "num_timestep_buckets": "buckets", "noise_s": "noise_s", "use_vlln": "vl_norm",
    "backbone_embedding_dim": "feature_dim", "num_target_vision_tokens": "future_tokens",
    "action_horizon": "chunk_size", "action_dim": "max_action_dim", "max_action_dim": "max_action_dim",
    "use_alternate_vl_dit": "alternate", "attend_text_every_n_blocks": "text_every",
    "state_dropout_prob": "state_dropout", "rtc_ramp_rate": "ramp_rate",
}
EXPECTED = {  # fields with their only supported value
    "add_pos_embed": True, "reproject_vision": False, "scale_image_resolution": 1, "exclude_state": False,
    "strict_action_padding_mask": False, "use_future_tokens": False, "use_soft_prompts": False, "remove_llm": False,
    "use_mean_std": False,
}
_DIT = {"interleave_self_attention": True, "norm_type": "ada_norm", "positional_embeddings": None}

_QWEN = {"head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16,
         "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000, "vocab_size": 151_680}
_SIGLIP = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304,
           "patch_size": 14, "image_size": 224}
# The vision-language models of the published checkpoints, whose files do not contain their sizes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "n1": {
        "vision_config": _SIGLIP, "use_pixel_shuffle": True, "mlp_connector_layers": 2, "image_token_index": 49_154,
        "text_config": {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
                        "num_key_value_heads": 32, "rms_norm_eps": 1e-5, "rope_theta": 130_000, "vocab_size": 49_164},
    },
    "n1.5": {"vision_config": _SIGLIP, "text_config": _QWEN, "use_pixel_shuffle": False, "mlp_connector_layers": 1,
             "image_token_index": 151_669},
    "n1.6": {"vision_config": {**_SIGLIP, "num_patches": 256}, "text_config": _QWEN, "use_pixel_shuffle": True,
             "mlp_connector_layers": 2, "image_token_index": 151_669},
    "n1.7": {
        "text_config": {**_QWEN, "rope_theta": 5_000_000, "vocab_size": 151_936,
                        "rope_scaling": {"mrope_section": [24, 20, 20]}},
        "vision_config": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
                          "num_position_embeddings": 2304, "patch_size": 16, "deepstack_visual_indexes": [5, 11, 17]},
        "image_token_id": 151_655,
    },
}


def vlm_fields(generation: str, vlm: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields from the vision-language model's own config.json. Raises InputError."""
    read = qwen_fields if generation == "n1.7" else lambda vlm, where: eagle_fields(generation, vlm, where)
    try:
        return read(vlm, where)
    except KeyError as error:
        raise InputError(f"{where}: not the configuration of {generation.upper()}'s vision-language model: {error} is "
                         "missing") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:  # a value of another type
        raise InputError(f"{where}: not the configuration of {generation.upper()}'s vision-language model: "
                         f"{shown(str(error))}") from error


def eagle_fields(generation: str, vlm: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of an Eagle (`eagle_chat`, `eagle_2_5_vl`, `eagle_3_vl`)."""
    vision = _mapping(vlm, "vision_config", where)
    text = _mapping(vlm, "text_config" if "text_config" in vlm else "llm_config", where)
    patch = value_of(Count, vision["patch_size"], f"{where}: vision_config.patch_size")
    if generation == "n1.6":
        check_only(vision, {"use_rope": False, "use_windows_attn": False}, where)
        side = value_of(Pixels, vision["num_patches"], f"{where}: vision_config.num_patches") ** 0.5 * patch
    else:
        side = vlm.get("force_image_size") or vision["image_size"]
    grid = int(value_of(float, side, f"{where}: vision_config.image_size")) // patch
    size = {
        "hidden": vision["hidden_size"], "depth": vision["num_hidden_layers"], "heads": vision["num_attention_heads"],
        "mlp": vision["intermediate_size"], "patch": patch, "grid": grid,
    }
    fields = {
        "vision": size, "text": _text(text, qwen=generation != "n1"), "vision_select": vlm.get("select_layer", -1),
        "rope_theta": text["rope_theta"],
    }
    if generation != "n1.6":
        fields["image_size"] = (grid * patch, grid * patch)
    if generation != "n1":
        shuffled = value_of(bool, vlm["use_pixel_shuffle"], f"{where}: use_pixel_shuffle")
        fields["shuffle"] = GENERATIONS[generation].get("shuffle", "position") if shuffled else ""
        fields["connector_layers"] = vlm["mlp_connector_layers"]
    if "image_token_index" in vlm:
        fields["image_token"] = vlm["image_token_index"]
    return fields


def qwen_fields(vlm: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of a Qwen3-VL."""
    vision, text = _mapping(vlm, "vision_config", where), _mapping(vlm, "text_config", where)
    check_only(vision, {"temporal_patch_size": 2, "spatial_merge_size": 2}, where)
    positions = value_of(Pixels, vision["num_position_embeddings"], f"{where}: num_position_embeddings")
    # transformers 5 stores the rotation in one mapping, older releases in two places.
    rope = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    return {
        "vision": {
            "hidden": vision["hidden_size"], "depth": vision["depth"], "heads": vision["num_heads"],
            "mlp": vision["intermediate_size"], "patch": vision["patch_size"], "grid": round(positions**0.5),
            "deepstack": tuple(vision["deepstack_visual_indexes"]),
        },
        "text": _text(text, qwen=True), "rope_theta": text.get("rope_theta") or rope["rope_theta"],
        "mrope": tuple(rope["mrope_section"]), "image_token": vlm["image_token_id"],
    }


def head_fields(generation: str, said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields from a checkpoint's config.json, or from its part outside the vision-language model.

    Raises InputError that names a field that is unknown or not supported.
    """
    parts = {"": said}
    if generation in ("n1", "n1.5"):
        parts |= {name: _mapping(said, name, where) for name in ("backbone_cfg", "action_head_cfg")}
    fields: dict[str, Any] = {"generation": generation}
    for prefix, part in parts.items():
        place = f"{where}: {prefix}." if prefix else f"{where}: "
        for name, value in part.items():
            if name in EXPECTED and name != "reproject_vision":
                check_only(part, {name: EXPECTED[name]}, where)
            elif name in HEAD and not (prefix == "" and generation in ("n1", "n1.5") and name == "hidden_size"):
                fields |= {} if value is None else {HEAD[name]: value}
            elif name not in _ELSEWHERE and name not in STORED and name not in PROCESSING:
                raise InputError(f"{place}{name}: unknown field, and it may change what the policy computes")
    backbone, head = parts.get("backbone_cfg", said), parts.get("action_head_cfg", said)
    fields["text_layers"] = backbone.get("select_layer", 12)
    fields["reproject_vision"] = backbone.get("reproject_vision", False)
    if fields["reproject_vision"] and generation != "n1":
        check_only(backbone, {"reproject_vision": False}, where)
    fields["noise_beta"] = head.get("noise_beta_alpha", 1.5), head.get("noise_beta_beta", 1.0)
    if generation == "n1":
        fields["feature_dim"] = head.get("input_embedding_dim", 1536)
    else:
        fields["projected"] = backbone.get("project_to_dim") is not None
    fields["state_steps"] = tuple(range(1 - value_of(Count, head.get("state_history_length", 1), where), 1))
    dit = _mapping(head, "diffusion_model_cfg", where)
    check_only(dit, _DIT, f"{where}: diffusion_model_cfg")
    width = fields.get("width", 1536)
    heads, size = dit.get("num_attention_heads", 32), dit.get("attention_head_dim", 48)
    if value_of(Count, heads, where) * value_of(Count, size, where) != width:
        raise InputError(f"{where}: diffusion_model_cfg of {heads} heads of {size}, input_embedding_dim is {width}: "
                         "expected their product")
    fields |= {"dit_heads": heads, "dit_layers": dit.get("num_layers", 16), "dropout": dit.get("dropout", 0.2)}
    if generation == "n1.6":
        fields["has_mask_token"] = bool(fields.get("state_dropout"))
    attention = head.get("vl_self_attention_cfg") if generation in ("n1.5", "n1.7") else None
    if not value_of(bool, head.get("use_vl_self_attention", True), f"{where}: use_vl_self_attention"):
        attention = None
    fields["vl_layers"] = 0
    if attention is not None and fields.get("vl_norm", True):
        attention = value_of(dict[str, Any], attention, f"{where}: vl_self_attention_cfg")
        check_only(attention, {"positional_embeddings": None}, f"{where}: vl_self_attention_cfg")
        fields |= {"vl_layers": attention.get("num_layers", 4), "vl_heads": attention.get("num_attention_heads", 32)}
    return fields


_ELSEWHERE = frozenset(
    "backbone_cfg action_head_cfg diffusion_model_cfg vl_self_attention_cfg select_layer reproject_vision "
    "noise_beta_alpha noise_beta_beta project_to_dim state_history_length projector_dim processor_cfg "
    "hidden_size use_vl_self_attention".split()
)


def _text(text: Mapping[str, Any], qwen: bool) -> dict[str, Any]:
    heads = text["num_attention_heads"]
    return {
        "width": text["hidden_size"], "heads": heads, "kv_heads": text["num_key_value_heads"],
        "head_dim": text.get("head_dim") or text["hidden_size"] // heads, "mlp": text["intermediate_size"],
        "vocabulary": text["vocab_size"], "epsilon": text["rms_norm_eps"], "head_norm": qwen,
    }


def _mapping(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    return value_of(dict[str, Any], values.get(name), f"{where}: {name}")


def known(values: Collection[str]) -> bool:
    """Whether the config.json has fields that no other family has."""
    return {"backbone_cfg", "action_head_cfg"} <= set(values)
