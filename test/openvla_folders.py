"""Folders as OpenVLA and OpenVLA-OFT publish them, small or of the published shapes."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.tokenizer import word_tokenizer

FULL = {"dino": (1024, 24, 4096), "siglip": (1152, 27, 4304), "llama": (4096, 32, 11008), "patch": 14, "image": 224}
TINY = {"dino": (32, 2, 48), "siglip": (32, 2, 40), "llama": (16, 2, 24), "patch": 14, "image": 28}
TIMM = ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
VOCABULARY = 32064
MEANS, STDS = ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5)), ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5))


def tower(prefix, width, depth, mlp, sizes, dino=False, film=0):
    shapes = {"pos_embed": (1, (sizes["image"] // sizes["patch"]) ** 2, width)}
    if dino:
        shapes |= {"cls_token": (1, 1, width), "reg_token": (1, 4, width)}

    def linear(name, rows, *columns):
        shapes.update({f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)})

    def norm(name):
        linear(name, width)

    linear("patch_embed.proj", width, 3, sizes["patch"], sizes["patch"])
    for i in range(depth):
        block = f"blocks.{i}.block" if film else f"blocks.{i}"
        norm(f"{block}.norm1"), norm(f"{block}.norm2")
        linear(f"{block}.attn.qkv", 3 * width, width), linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", mlp, width), linear(f"{block}.mlp.fc2", width, mlp)
        if dino:
            shapes |= {f"{block}.{name}.scale_factor": (width,) for name in ("ls1", "ls2")}
        if film:
            linear(f"blocks.{i}.scale", width, film), linear(f"blocks.{i}.shift", width, film)
    norm("norm")
    if not dino:
        shapes["attn_pool.latent"] = (1, 1, width)
        for name, rows in (("q", width), ("kv", 2 * width), ("proj", width)):
            linear(f"attn_pool.{name}", rows, width)
        norm("attn_pool.norm"), linear("attn_pool.mlp.fc1", mlp, width), linear("attn_pool.mlp.fc2", width, mlp)
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def vision(sizes, fused=True, film=0):
    towers = {"featurizer": "dino", "fused_featurizer": "siglip"} if fused else {"featurizer": "siglip"}
    shapes = {}
    for key, name in towers.items():
        shapes |= tower(f"vision_backbone.{key}", *sizes[name], sizes, name == "dino", film)
    return shapes


def shapes_of(sizes, fused=True):
    """Of the safetensors."""
    width, layers, mlp = sizes["llama"]
    hidden = sizes["siglip"][0] + (sizes["dino"][0] if fused else 0)
    steps = (hidden, 4 * hidden, width, width) if fused else (hidden, width, width)
    shapes = vision(sizes, fused)
    for i, (columns, rows) in enumerate(zip(steps, steps[1:], strict=False)):
        shapes |= {f"projector.fc{i + 1}.weight": (rows, columns), f"projector.fc{i + 1}.bias": (rows,)}
    llama = "language_model.model"
    shapes |= {f"{llama}.embed_tokens.weight": (VOCABULARY, width), f"{llama}.norm.weight": (width,),
               "language_model.lm_head.weight": (VOCABULARY, width)}
    for i in range(layers):
        shapes |= {f"{llama}.layers.{i}.{n}layernorm.weight": (width,) for n in ("input_", "post_attention_")}
        shapes |= {f"{llama}.layers.{i}.self_attn.{n}_proj.weight": (width, width) for n in "qkvo"}
        shapes |= {f"{llama}.layers.{i}.mlp.{n}_proj.weight": (mlp, width) for n in ("gate", "up")}
        shapes[f"{llama}.layers.{i}.mlp.down_proj.weight"] = (width, mlp)
    return shapes


def parts_of(sizes, action_dim, state_dim, diffusion=False):
    """Of OFT's further files."""
    width = sizes["llama"][0]

    def linear(rows, columns):
        return {"weight": (rows, columns), "bias": (rows,)}

    def projector(inputs):
        return {f"fc{n}.{k}": v for n, i in ((1, inputs), (2, width)) for k, v in linear(width, i).items()}

    head = {}
    for name, row in (
        ("layer_norm1", {"weight": (action_dim * width,), "bias": (action_dim * width,)}),
        ("fc1", linear(width, action_dim * width)),
        *((f"mlp_resnet_blocks.{i}.ffn.0", {"weight": (width,), "bias": (width,)}) for i in range(2)),
        *((f"mlp_resnet_blocks.{i}.ffn.1", linear(width, width)) for i in range(2)),
        ("layer_norm2", {"weight": (width,), "bias": (width,)}), ("fc2", linear(action_dim, width)),
    ):
        prefix = "noise_predictor.mlp_resnet." if diffusion else "model."
        head |= {f"{prefix}{name}.{key}": shape for key, shape in row.items()}
    parts = {"action_head": head, "proprio_projector": projector(state_dim)}
    return parts | ({"noisy_action_projector": projector(1)} if diffusion else {})


def weights(shapes, seed=0, kind=torch.bfloat16):
    """Small numbers; words are unlikely answers."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator) / (math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 10)
        if len(shape) == 1 and key.endswith(("weight", "scale_factor")):
            value += 1
        if key == "language_model.lm_head.weight":
            value[:31744] *= 0.05
            value[32000:] *= 0.05
        values[key] = value.to(kind)
    return values


def config_json(sizes, fused=True, norm_stats=None, **changes):
    width, layers, mlp = sizes["llama"]
    llama = {} if sizes is FULL else {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": mlp,
        "num_attention_heads": max(width // 128, 2),
    }
    towers = slice(0, 2) if fused else slice(1, 2)
    return {
        "model_type": "openvla", "architectures": ["OpenVLAForActionPrediction"], "n_action_bins": 256,
        "arch_specifier": "no-align+fused-gelu-mlp" if fused else "no-align+gelu-mlp",
        "use_fused_vision_backbone": fused,
        "timm_model_ids": TIMM[towers], "timm_override_act_layers": [None, None][towers],
        "image_sizes": [sizes["image"]] * (2 if fused else 1), "image_resize_strategy": "resize-naive",
        "llm_backbone_id": "llama2-7b-pure" if fused else "vicuna-v15-7b", "llm_max_length": 2048,
        "pad_token_id": 32000, "pad_to_multiple_of": 64, "output_projector_states": False,
        "text_config": {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16",
                        "vocab_size": VOCABULARY, **llama},
        "norm_stats": norm_stats or {}, **changes,
    }


def norm_stats(action_dim, state_dim=0, seed=0, mask=None):
    rng = np.random.default_rng(seed)
    rows = {}
    for name, width in (("action", action_dim), ("proprio", state_dim)):
        low, high = -rng.uniform(0.2, 0.4, width), rng.uniform(0.2, 0.4, width)
        values = {"mean": 0 * low, "std": high / 2, "min": low * 1.5, "max": high * 1.5, "q01": low, "q99": high}
        rows[name] = {key: value.tolist() for key, value in values.items()}
    rows["action"]["mask"] = mask or [True] * action_dim
    return rows | {"num_transitions": 10, "num_trajectories": 1}


def write(path: Path, sizes=TINY, fused=True, statistics=None, means=MEANS, stds=STDS, **changes):
    """A folder of OpenVLA itself, in two shards; its tokenizer knows words alone."""
    path.mkdir(parents=True, exist_ok=True)
    statistics = statistics or {"tiny": norm_stats(7, mask=[True] * 6 + [False])}
    (path / "config.json").write_text(json.dumps(config_json(sizes, fused, statistics, **changes)))
    values = weights(shapes_of(sizes, fused))
    names = sorted(values)
    shards = {f"model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
    for file, keys in shards.items():
        save_file({key: values[key] for key in keys}, path / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    means, stds = (rows if fused else rows[1:] for rows in (means, stds))
    (path / "preprocessor_config.json").write_text(json.dumps({
        "means": means, "stds": stds,
        "interpolations": ["bicubic"] * len(means), "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, sizes["image"], sizes["image"]]] * len(means),
    }))
    word_tokenizer(["in: what action should the robot take to touch the red cube? out:"]).save(path)
    return path


def write_oft(path: Path, action_dim, state_dim, diffusion=False, film=False, sizes=TINY):
    """A folder of OFT: parts as torch writes them, with DDP's prefix; with FiLM, adapters that were not merged."""
    write(path, sizes)
    (path / "dataset_statistics.json").write_text(json.dumps({"theirs": norm_stats(action_dim, state_dim, 3)}))
    for name, shapes in parts_of(sizes, action_dim, state_dim, diffusion).items():
        kind = torch.bfloat16 if name == "action_head" else torch.float32
        values = weights(shapes, 5, kind)
        torch.save({f"module.{key}": v for key, v in values.items()}, path / f"{name}--100_checkpoint.pt")
    if film:
        shapes = vision(sizes, film=sizes["llama"][0])
        torch.save(adapted(weights(shapes, 7)), path / "vision_backbone--100_checkpoint.pt")
    return path


def adapted(values, rank=32):
    """As peft names linear layers and convolutions that it has wrapped; FiLM's own layers are not."""
    found = {}
    for key, value in values.items():
        module, _, leaf = key.rpartition(".")
        if any(word in module.rsplit(".", 1)[-1] for word in ("norm", "scale", "shift")) or value.ndim == 3 or (
                leaf == "scale_factor"):
            found[key] = value
            continue
        found[f"{module}.base_layer.{leaf}"] = value
        if leaf == "weight":
            down = (rank, *value.shape[1:])
            up = (value.shape[0], rank, *[1] * (value.ndim - 2))
            pair = weights({"a": down, "b": up}, len(found))
            found |= {f"{module}.lora_A.default.weight": pair["a"], f"{module}.lora_B.default.weight": pair["b"]}
    return found


def write_for_robot(path: Path, joints, cameras=("front", "wrist")):
    """A folder of OpenVLA that says which joints and cameras it is of."""
    write(path, statistics={"tiny": norm_stats(len(joints), seed=2)})
    dimensions = tuple(map(Dimension, joints))
    Embodiment({name: name for name in cameras}, dimensions, dimensions, 0.1).save(path / "embodiment.yaml")
    return path


SO101 = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
