"""Small folders of GR00T as NVIDIA and LeRobot write them: the golden vectors' networks with the files around them."""

import json
from pathlib import Path

import golden_vectors
import numpy as np
import tokenizers
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from vla_ros.policies.groot.config import GENERATIONS

VECTORS = {"n1": "groot_n1", "n1.5": "groot_n15", "n1.6": "groot_n16", "n1.7": "groot_n17"}
WORDS = ("system You are a helpful assistant . user pick up touch the red green cube perform task image 1 2 > "
         "< [' '] , \n").split(" ")
MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<|vision_start|>", "<|vision_end|>")
JOINTS = 6


def write_tokenizer(folder: Path, image: str, number: int, size: int) -> None:
    """A word-level tokenizer.json whose image token has that number."""
    words = list(dict.fromkeys(["<unk>", *MARKS, *WORDS, *(f"word{n}" for n in range(size))]))
    vocabulary = {word: n for n, word in enumerate([*words[:number], image, *words[number:]][:size])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens([*MARKS, image])
    inner.save(str(folder / "tokenizer.json"))


def statistics(sizes: dict[str, int], seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """Of groups, in rad."""
    rng, result = np.random.default_rng(seed), {}
    for name, size in sizes.items():
        mean, std = rng.normal(0, 0.1, size), rng.uniform(0.1, 0.3, size)
        row = {"mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 2 * std}
        row |= {"q01": mean - 1.9 * std, "q99": mean + 1.9 * std}
        result[name] = {key: value.tolist() for key, value in row.items()}
    return result


def write_weights(path: Path, shapes: dict, shards: int, prefix: str = "") -> None:
    tensors = {f"{prefix}{key}": golden_vectors.fill(key, shape) for key, shape in shapes.items()}
    if shards == 1:
        save_file(tensors, path / "model.safetensors")
        return
    weight_map = {}
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = {key: value for i, (key, value) in enumerate(tensors.items()) if i % shards == n}
        save_file(part, path / name)
        weight_map |= dict.fromkeys(part, name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def make_nvidia(path: Path, generation: str, tag: str = "new_embodiment", arm: int = 4, **changes) -> Path:
    """A sharded folder of one embodiment, an arm of `arm` joints and a gripper, cameras "front" and "wrist".

    Args:
        changes: fields of `processor_kwargs` (N1.6, N1.7).
    """
    path.mkdir(parents=True, exist_ok=True)
    _, said, shapes = golden_vectors.load(VECTORS[generation])
    # The vectors' networks know five actions: with a longer arm, as many as it has with its gripper.
    groups, actions = {"single_arm": arm, "gripper": 1}, max(arm + 1, 5)
    shapes = {key: (shape[0], actions, *shape[2:]) if key.endswith("action_encoder.W1.W") else
              (*shape[:-1], actions) if "action_decoder.layer2" in key else shape for key, shape in shapes.items()}
    rows = {kind: statistics(groups, seed) for seed, kind in enumerate(("state", "action"))}
    if generation == "n1" or (generation, tag) == ("n1.5", "new_embodiment"):  # whose number is high
        shapes = {key: (32, *shape[1:]) if key.endswith((".W", ".b")) else shape for key, shape in shapes.items()}
        said = said | {"action_head_cfg": said["action_head_cfg"] | {"max_num_embodiments": 32}}
    image, number = ("<|image_pad|>", 300) if generation == "n1.7" else ("<IMG_CONTEXT>", 311)
    write_tokenizer(path, image, number, 320)
    (path / "vlm").mkdir(exist_ok=True)
    vlm = said.get("vlm") or said["eagle"] | {"image_token_index": 311}
    (path / "vlm" / "config.json").write_text(json.dumps(vlm))
    types = {"n1": "gr00t_n1", "n1.5": "gr00t_n1_5", "n1.6": "Gr00tN1d6", "n1.7": "Gr00tN1d7"}
    config = {"model_type": types[generation], "architectures": ["GR00T"], "torch_dtype": "bfloat16",
              "transformers_version": "4.51.3"}
    if generation in ("n1", "n1.5"):
        config |= {name: said[name] for name in ("backbone_cfg", "action_head_cfg", "action_horizon")}
        config |= {"action_dim": actions, "action_head_cfg": said["action_head_cfg"] | {"action_dim": actions}}
        modalities = {kind: {name: {"absolute": True, "rotation_type": None, "shape": [size], "continuous": True}
                             for name, size in groups.items()} for kind in ("state", "action")}
        video = {name: {"resolution": [64, 48], "channels": 3, "fps": 10.0} for name in ("front", "wrist")}
        about = {"statistics": rows, "modalities": modalities | {"video": video}, "embodiment_tag": tag}
        (path / "experiment_cfg").mkdir(exist_ok=True)
        (path / "experiment_cfg" / "metadata.json").write_text(json.dumps({tag: about}))
    else:
        config |= said["gr00t"] | {"max_action_dim": actions}
        if generation == "n1.7":
            config |= SEEN_IN_N1_7
        steps = [-1, 0] if generation == "n1.7" else [0]
        keys = {"modality_keys": list(groups), "sin_cos_embedding_keys": None, "mean_std_embedding_keys": None}
        modality = {
            "video": {"delta_indices": [0], "modality_keys": ["front", "wrist"]},
            "state": {"delta_indices": steps, **keys}, "action": {"delta_indices": [0, 1, 2, 3, 4], **keys},
            "language": {"delta_indices": [0], "modality_keys": ["annotation.human.task_description"]},
        }
        kwargs = {"modality_configs": {tag: modality}, "image_target_size": None, "image_crop_size": None,
                  "shortest_image_edge": 64, "crop_fraction": 0.95, "use_albumentations": True,
                  "formalize_language": True, "use_percentiles": False, "clip_outliers": True, "model_type": "qwen",
                  "apply_sincos_state_encoding": False, "use_relative_action": False} | changes
        (path / "processor_config.json").write_text(json.dumps({"processor_kwargs": kwargs}))
        (path / "statistics.json").write_text(json.dumps({tag: rows}))
        (path / "embodiment_id.json").write_text(json.dumps({tag: 3}))
    (path / "config.json").write_text(json.dumps(config))
    write_weights(path, shapes, 2)
    return path


# Fields of the published N1.7's config.json besides those of the class that the vectors were made with.
SEEN_IN_N1_7 = {
    "apply_sincos_state_encoding": False, "exclude_state": False, "letter_box_transform": False,
    "random_history_crop": True, "random_rotation_angle": 0, "rtc_ramp_rate": 6.0, "use_future_tokens": False,
    "use_mean_std": False, "use_percentiles": True, "use_vl_self_attention": True, "use_albumentations": True,
    "state_gaussian_noise_std": 0.0, "tune_linear": True, "image_target_size": [256, 256], "crop_fraction": 0.95,
}
POLICY_FILE = {"cameras": {"front": "front", "wrist": "wrist"}, "step_dt": 0.1, "hold": ["wrist_roll"], "state": [
    "shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "gripper"]}
assert set(GENERATIONS) == set(VECTORS)

# Sizes of a published N1.7, made small; how many heads a width has stays as published.
SMALL = {2048: 64, 1536: 48, 1024: 32, 3072: 96, 4096: 128, 6144: 192, 8192: 256, 2304: 36, 151_936: 128, 128: 16,
         132: 8, 32: 12, 16: 4}
FEWER = {"visual.blocks": 2, "deepstack_merger_list": 1, "language_model.layers": 2, "model.transformer_blocks": 4,
         "vl_self_attention.transformer_blocks": 1}
QWEN = {
    "image_token_id": 120,
    "text_config": {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2,
                    "head_dim": 16, "vocab_size": 128, "rms_norm_eps": 1e-6, "rope_theta": 5_000_000,
                    "rope_scaling": {"mrope_section": [4, 2, 2], "mrope_interleaved": True}},
    "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 128, "num_heads": 2, "patch_size": 4,
                      "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 36,
                      "deepstack_visual_indexes": [0]},
}


def published(generation: str) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """(config and counts, every key with its shape) of a published checkpoint."""
    said = json.loads((Path(__file__).parent / "data" / "groot_keys.json").read_text())[generation]
    shapes = {key.format(first + n * step): tuple(shape) for key, first, step, count, shape in said["keys"]
              for n in range(count)}
    return said, shapes


def small_shapes(sizes=SMALL, depths=FEWER) -> dict[str, tuple[int, ...]]:
    """Keys of N1.7 with other sizes and numbers of layers than the published ones."""
    said, result = json.loads((Path(__file__).parent / "data" / "groot_keys.json").read_text())["n1.7"], {}
    for key, first, step, count, shape in said["keys"]:
        last = next((n for part, n in depths.items() if f"{part}.{{}}" in key), first + count * step)
        for index in range(first, last if "{}" in key else first + 1, step):
            result[key.format(index)] = tuple(sizes.get(n, n) for n in shape)
    return {key: shape for key, shape in result.items() if "embed_tokens" not in key}  # as LeRobot stores it


PROCESSOR = {"state_horizon": 1, "action_horizon": 6, "valid_action_horizon": 6, "video_horizon": None,
             "max_state_dim": 8, "max_action_dim": 8, "language_key": "task", "formalize_language": True,
             "embodiment_tag": "new_embodiment", "embodiment_mapping": {"new_embodiment": 10, "libero_sim": 2},
             "normalize_min_max": True, "state_dropout_prob": 0.0, "clip_outliers": True, "use_percentiles": False,
             "video_modality_keys": None, "raw_stats": {}, "modality_config": {}}
IMAGES = {"model_name": "nvidia/Cosmos-Reason2-2B", "image_crop_size": [29, 29], "image_target_size": [32, 32],
          "shortest_image_edge": None, "crop_fraction": None, "use_albumentations": False,
          "letter_box_transform": False, "device": "cpu"}


def make_lerobot(path: Path, cameras=("front", "wrist")) -> Path:
    """A LeRobot 0.6 folder (N1.7) of six joints that brings all it needs."""
    path.mkdir(parents=True, exist_ok=True)
    write_tokenizer(path, "<|image_pad|>", 120, 128)
    (path / "vlm").mkdir()
    (path / "vlm" / "config.json").write_text(json.dumps(QWEN))
    torch.manual_seed(0)
    write_weights(path, small_shapes(), 1, "_groot_model.")
    images = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 48, 64]} for name in cameras}
    config = {
        "type": "groot", "n_obs_steps": 1, "device": "cpu", "chunk_size": 6, "n_action_steps": 6, "max_state_dim": 8,
        "max_action_dim": 8, "base_model_path": "nvidia/GR00T-N1.7-3B", "embodiment_tag": "new_embodiment",
        "tune_llm": False, "tune_visual": False, "tune_projector": True, "tune_diffusion_model": True,
        "use_relative_actions": False, "num_inference_timesteps": None, "rtc_ramp_rate": None,
        "normalization_mapping": dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY"),
        "input_features": {"observation.state": {"type": "STATE", "shape": [JOINTS]}, **images},
        "output_features": {"action": {"type": "ACTION", "shape": [JOINTS]}},
    }
    (path / "config.json").write_text(json.dumps(config))
    unpack = {"env_action_dim": JOINTS, "normalize_min_max": True, "clip_normalized_action": True,
              "libero_gripper_action": False, "libero_gripper_binarize": True}
    before = [("groot_n1_7_pack_inputs_v1", PROCESSOR, True), ("groot_n1_7_vlm_encode_v1", IMAGES, False)]
    write_processors(path, before, [("groot_action_unpack_unnormalize_v2", unpack, True)])
    return path


def write_processors(path: Path, before: list, after: list, size: int = JOINTS) -> None:
    """Processor files of (registered name, config, whether it has statistics) steps."""
    rows = statistics({"observation.state": size, "action": size})
    flat = {f"{name}.{key}": np.float32(value) for name, row in rows.items() for key, value in row.items()}
    for which, steps in (("preprocessor", before), ("postprocessor", after)):
        written = [{"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}]
        for number, (name, config, stateful) in enumerate(steps):
            written.append({"registry_name": name, "config": config})
            if stateful:
                written[-1]["state_file"] = f"policy_{which}_step_{number}_{name}.safetensors"
                save_arrays(flat, path / written[-1]["state_file"])
        (path / f"policy_{which}.json").write_text(json.dumps({"name": f"policy_{which}", "steps": written}))
