"""Small checkpoint folders as LeRobot writes them, with random weights, in the layout of today and the older one."""

import json
from functools import cache
from pathlib import Path

import lerobot_folders
import numpy as np
import tokenizers
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.act.model import ACT
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.smolvla.config import SmolVLAConfig, VlmSize

STATE, ACTION = "observation.state", "action"
JOINTS = 6  # of the SO-101
# What config.json holds besides the sizes; none of it changes a prediction.
COMMON = {
    "device": "cuda", "use_amp": False, "push_to_hub": True, "repo_id": "someone/something", "private": None,
    "tags": None, "license": None, "pretrained_path": None, "optimizer_lr": 1e-5, "optimizer_weight_decay": 1e-4,
}
ACT_CONFIG = {
    "type": "act", "n_obs_steps": 1, "chunk_size": 12, "n_action_steps": 12, "vision_backbone": "resnet18",
    "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1", "replace_final_stride_with_dilation": 0,
    "pre_norm": False, "dim_model": 32, "n_heads": 4, "dim_feedforward": 64, "feedforward_activation": "relu",
    "n_encoder_layers": 2, "n_decoder_layers": 1, "use_vae": True, "latent_dim": 4, "n_vae_encoder_layers": 2,
    "temporal_ensemble_coeff": None, "dropout": 0.1, "kl_weight": 10.0, "optimizer_lr_backbone": 1e-5,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
}
DIFFUSION_CONFIG = {
    "type": "diffusion", "n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "drop_n_last_frames": 7,
    "vision_backbone": "resnet18", "crop_shape": [40, 56], "crop_is_random": True,
    "pretrained_backbone_weights": None, "use_group_norm": True, "spatial_softmax_num_keypoints": 4,
    "use_separate_rgb_encoder_per_camera": False, "down_dims": [16, 32], "kernel_size": 5, "n_groups": 8,
    "diffusion_step_embed_dim": 16, "use_film_scale_modulation": True, "noise_scheduler_type": "DDPM",
    "num_train_timesteps": 10, "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02,
    "prediction_type": "epsilon", "clip_sample": True, "clip_sample_range": 1.0, "num_inference_steps": None,
    "do_mask_loss_for_padding": False, "scheduler_name": "cosine", "scheduler_warmup_steps": 500,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
}
SMOLVLA_CONFIG = {
    "type": "smolvla", "n_obs_steps": 1, "chunk_size": 10, "n_action_steps": 10, "max_state_dim": 32,
    "max_action_dim": 32, "resize_imgs_with_padding": [32, 32], "empty_cameras": 0, "adapt_to_pi_aloha": False,
    "use_delta_joint_actions_aloha": False, "tokenizer_max_length": 48, "num_steps": 4, "use_cache": True,
    "freeze_vision_encoder": True, "train_expert_only": True, "train_state_proj": True, "vlm_model_name": "vlm",
    "load_vlm_weights": True, "add_image_special_tokens": False, "attention_mode": "cross_attn", "prefix_length": -1,
    "pad_language_to": "longest", "num_expert_layers": -1, "num_vlm_layers": 2, "self_attn_every_n_layers": 2,
    "expert_width_multiplier": 0.75, "min_period": 4e-3, "max_period": 4.0,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
}
SMOLVLM_CONFIG = {
    "model_type": "smolvlm", "scale_factor": 2,
    "vision_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
                      "patch_size": 8, "image_size": 32},
    "text_config": {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
                    "intermediate_size": 48, "vocab_size": 60, "rms_norm_eps": 1e-5},
}


def make(
    path: Path, family: str, cameras=("front", "wrist"), old: bool = False, joints: int = JOINTS, **changes
) -> Path:
    """Write a folder of a family and return it. Its weights depend on the family and the number of cameras alone.

    Args:
        cameras: names after "observation.images.".
        old: statistics as buffers among the weights, instead of processor files.
        changes: fields of config.json.
    """
    path.mkdir(parents=True, exist_ok=True)
    base = {"act": ACT_CONFIG, "diffusion": DIFFUSION_CONFIG, "smolvla": SMOLVLA_CONFIG}[family]
    images = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 48, 64]} for name in cameras}
    config = COMMON | base | {
        "input_features": {STATE: {"type": "STATE", "shape": [joints]}, **images},
        "output_features": {ACTION: {"type": "ACTION", "shape": [joints]}},
    } | changes
    (path / "config.json").write_text(json.dumps(config))
    if family == "smolvla":
        write_smolvlm(path / "vlm")
    tensors = _weights(family, len(cameras), joints)
    statistics = make_statistics(list(images), joints)
    if old:
        tensors = tensors | _old_statistics(statistics)
    else:
        _processor_files(path, config, statistics)
    save_file(tensors, path / "model.safetensors")
    return path


@cache
def _weights(family: str, cameras: int, joints: int) -> dict[str, torch.Tensor]:
    """Made once a test run: a ResNet has many."""
    torch.manual_seed(0)
    sizes = dict(action_dim=joints, state_dim=joints, cameras=tuple("abc"[:cameras]), image_size=(48, 64))
    if family == "act":
        policy = ACT(ACTConfig(**sizes | _taken(ACTConfig, ACT_CONFIG)))
        return {f"model.{key}": value for key, value in policy.state_dict().items()}
    if family == "diffusion":
        policy = DiffusionPolicy(
            DiffusionConfig(**sizes | _taken(DiffusionConfig, DIFFUSION_CONFIG, horizon="unet_horizon"))
        )
        return {diffusion_key(key): value for key, value in policy.state_dict().items()}
    vlm = VlmSize.from_transformers(SMOLVLM_CONFIG, "test")
    config = SmolVLAConfig(vlm=vlm, cameras=("a",), state_dim=joints, real_action_dim=joints,
                           num_vlm_layers=SMOLVLA_CONFIG["num_vlm_layers"])
    shapes = smolvla_shapes(config)
    return {key: torch.randn(shape) * (0.2 if len(shape) > 1 else 0.1) for key, shape in shapes.items()}


def make_statistics(images: list[str], joints: int = JOINTS) -> dict[str, dict[str, np.ndarray]]:
    """Of joints within about a rad."""
    rng = np.random.default_rng(0)
    statistics = {}
    for feature in (STATE, ACTION):
        mean, std = rng.normal(0, 0.1, joints), rng.uniform(0.1, 0.3, joints)
        statistics[feature] = {"mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 2 * std}
    for image in images:
        statistics[image] = {"mean": np.full((3, 1, 1), 0.4), "std": np.full((3, 1, 1), 0.25),
                             "min": np.zeros((3, 1, 1)), "max": np.ones((3, 1, 1))}
    return {name: {key: np.float32(value) for key, value in rows.items()} for name, rows in statistics.items()}


def _processor_files(path, config, statistics):
    flat = {f"{feature}.{name}": value for feature, rows in statistics.items() for name, value in rows.items()}
    features = config["input_features"] | config["output_features"]
    settings = {"eps": 1e-8, "features": features, "norm_map": config["normalization_mapping"]}
    both = lerobot_folders.pipelines(config["type"], settings, config.get("tokenizer_max_length", 48))
    for which, steps in zip(("preprocessor", "postprocessor"), both, strict=True):
        for number, step in enumerate(steps):
            if "normalizer" in step["registry_name"]:
                step["state_file"] = f"policy_{which}_step_{number}_{step['registry_name']}.safetensors"
                save_arrays(flat, path / step["state_file"])
        (path / f"policy_{which}.json").write_text(json.dumps({"name": f"policy_{which}", "steps": steps}))


def _old_statistics(statistics):
    tensors = {}
    for feature, rows in statistics.items():
        sides = ("normalize_targets", "unnormalize_outputs") if feature == ACTION else ("normalize_inputs",)
        for side in sides:
            for name, value in rows.items():
                tensors[f"{side}.buffer_{feature.replace('.', '_')}.{name}"] = torch.from_numpy(value.copy())
    return tensors


def _taken(kind, config, **renamed):
    known = set(kind.__dataclass_fields__) | set(renamed)
    values = {renamed.get(name, name): value for name, value in config.items() if name in known}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def write_smolvlm(folder: Path) -> None:
    """The two files of a SmolVLM folder that are needed: config.json and tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SMOLVLM_CONFIG))
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "pick", "touch", "the", "up", "red", "green", "cube", "\n"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|endoftext|>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\n|[^\s]+"), "removed", invert=True)
    inner.save(str(folder / "tokenizer.json"))


def diffusion_key(key: str) -> str:
    """The reverse of `module_key`: the names that a LeRobot file has."""
    names = [("conv1.", "0."), ("bn1.", "1."), *((f"layer{i}.", f"{i + 3}.") for i in range(1, 5))]
    for ours, theirs in names:
        head, mark, tail = key.partition("backbone.")
        if mark and tail.startswith(ours):
            return f"diffusion.{head}backbone.{theirs}{tail.removeprefix(ours)}"
    return f"diffusion.{key}"


def smolvla_shapes(config: SmolVLAConfig) -> dict[str, tuple[int, ...]]:
    """Every key of a LeRobot file with its shape, as the specification lists them."""
    text, vision, width, mlp = config.vlm.text, config.vlm.vision, config.expert_width, config.expert_mlp
    shared, inner = text.kv_heads * text.head_dim, text.heads * text.head_dim
    vlm, expert = "model.vlm_with_expert.vlm.model.", "model.vlm_with_expert.lm_expert."

    def both(name, rows, *columns):
        return {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}

    def layer(prefix, size, hidden, kv):
        return {
            f"{prefix}.self_attn.q_proj.weight": (inner, size), f"{prefix}.self_attn.o_proj.weight": (size, inner),
            f"{prefix}.self_attn.k_proj.weight": (shared, kv), f"{prefix}.self_attn.v_proj.weight": (shared, kv),
            f"{prefix}.mlp.gate_proj.weight": (hidden, size), f"{prefix}.mlp.up_proj.weight": (hidden, size),
            f"{prefix}.mlp.down_proj.weight": (size, hidden), f"{prefix}.input_layernorm.weight": (size,),
            f"{prefix}.post_attention_layernorm.weight": (size,),
        }

    shapes = both(f"{vlm}vision_model.embeddings.patch_embedding", vision.hidden, 3, vision.patch, vision.patch)
    shapes[f"{vlm}vision_model.embeddings.position_embedding.weight"] = (vision.tokens, vision.hidden)
    for i in range(vision.depth):
        prefix = f"{vlm}vision_model.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= both(f"{prefix}.self_attn.{name}", vision.hidden, vision.hidden)
        shapes |= both(f"{prefix}.layer_norm1", vision.hidden) | both(f"{prefix}.layer_norm2", vision.hidden)
        shapes |= both(f"{prefix}.mlp.fc1", vision.mlp, vision.hidden)
        shapes |= both(f"{prefix}.mlp.fc2", vision.hidden, vision.mlp)
    shapes |= both(f"{vlm}vision_model.post_layernorm", vision.hidden)
    shapes[f"{vlm}connector.modality_projection.proj.weight"] = (text.width, vision.hidden * config.vlm.shuffle**2)
    shapes[f"{vlm}text_model.embed_tokens.weight"] = (text.vocabulary, text.width)
    shapes["model.vlm_with_expert.vlm.lm_head.weight"] = (text.vocabulary, text.width)
    shapes[f"{vlm}text_model.norm.weight"], shapes[f"{expert}norm.weight"] = (text.width,), (width,)
    for i in range(config.num_vlm_layers):
        shapes |= layer(f"{vlm}text_model.layers.{i}", text.width, text.mlp, text.width)
        shapes |= layer(f"{expert}layers.{i}", width, mlp, shared if i % 2 else width)
    shapes |= both("model.state_proj", text.width, config.max_state_dim)
    shapes |= both("model.action_in_proj", width, config.max_action_dim)
    shapes |= both("model.action_out_proj", config.max_action_dim, width)
    return shapes | both("model.action_time_mlp_in", width, 2 * width) | both("model.action_time_mlp_out", width, width)
