"""Published π0 folders, made up: names and shapes of the real ones (openpi, LeRobot, transformers), any numbers."""

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import golden_vectors
import lerobot_folders
import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.options import TrainingData
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0_fast.checkpoint import FAMILY

Shapes = dict[str, tuple[int, ...]]
P, X = "paligemma_with_expert.paligemma", "paligemma_with_expert.gemma_expert"

TINY = Pi0Config(
    vision=SiglipSize(hidden=32, depth=2, heads=16, mlp=48, patch=14, image=28),
    prefix=GemmaSize(width=64, depth=2, mlp=96, heads=8, kv_heads=1, head_dim=16),
    expert=GemmaSize(width=32, depth=2, mlp=48, heads=8, kv_heads=1, head_dim=16),
    vocabulary=300,
    horizon=5,
    num_steps=3,
)


def openpi_shapes(config: Pi0Config, adaptive: bool) -> Shapes:
    """Every tensor of openpi's PyTorch model, written out from its published table of keys."""
    v, p, x = config.vision, config.prefix, config.expert
    shapes: Shapes = {}
    vision = f"{P}.model.vision_tower.vision_model"
    shapes[f"{vision}.embeddings.patch_embedding.weight"] = (v.hidden, 3, v.patch, v.patch)
    shapes[f"{vision}.embeddings.patch_embedding.bias"] = (v.hidden,)
    shapes[f"{vision}.embeddings.position_embedding.weight"] = (v.tokens, v.hidden)
    for i in range(v.depth):
        layer = f"{vision}.encoder.layers.{i}"
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"):
            shapes |= {f"{layer}.{name}.weight": (v.hidden, v.hidden), f"{layer}.{name}.bias": (v.hidden,)}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{name}.weight": (v.hidden,), f"{layer}.{name}.bias": (v.hidden,)}
        shapes |= {f"{layer}.mlp.fc1.weight": (v.mlp, v.hidden), f"{layer}.mlp.fc1.bias": (v.mlp,)}
        shapes |= {f"{layer}.mlp.fc2.weight": (v.hidden, v.mlp), f"{layer}.mlp.fc2.bias": (v.hidden,)}
    shapes |= {f"{vision}.post_layernorm.weight": (v.hidden,), f"{vision}.post_layernorm.bias": (v.hidden,)}
    projector = f"{P}.model.multi_modal_projector.linear"
    shapes |= {f"{projector}.weight": (p.width, v.hidden), f"{projector}.bias": (p.width,)}
    shapes[f"{P}.model.language_model.embed_tokens.weight"] = (config.vocabulary, p.width)
    shapes[f"{P}.lm_head.weight"] = (config.vocabulary, p.width)
    shapes[f"{X}.lm_head.weight"] = (config.vocabulary, x.width)
    for tower, size, norms_adapt in ((f"{P}.model.language_model", p, False), (f"{X}.model", x, adaptive)):
        inner = size.heads * size.head_dim

        def norm(name, width=size.width, norms_adapt=norms_adapt):
            if not norms_adapt:
                return {f"{name}.weight": (width,)}
            return {f"{name}.dense.weight": (3 * width, width), f"{name}.dense.bias": (3 * width,)}

        for i in range(size.depth):
            layer = f"{tower}.layers.{i}"
            shapes |= norm(f"{layer}.input_layernorm") | norm(f"{layer}.post_attention_layernorm")
            shapes[f"{layer}.self_attn.q_proj.weight"] = (inner, size.width)
            shapes[f"{layer}.self_attn.k_proj.weight"] = (size.head_dim, size.width)
            shapes[f"{layer}.self_attn.v_proj.weight"] = (size.head_dim, size.width)
            shapes[f"{layer}.self_attn.o_proj.weight"] = (size.width, inner)
            shapes[f"{layer}.mlp.gate_proj.weight"] = (size.mlp, size.width)
            shapes[f"{layer}.mlp.up_proj.weight"] = (size.mlp, size.width)
            shapes[f"{layer}.mlp.down_proj.weight"] = (size.width, size.mlp)
        shapes |= norm(f"{tower}.norm")
    linear = {"action_in_proj": (x.width, config.action_dim), "action_out_proj": (config.action_dim, x.width)}
    if adaptive:
        linear |= {"time_mlp_in": (x.width, x.width), "time_mlp_out": (x.width, x.width)}
    else:
        linear |= {"state_proj": (x.width, config.state_dim), "action_time_mlp_in": (x.width, 2 * x.width)}
        linear |= {"action_time_mlp_out": (x.width, x.width)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def legacy_name(key: str) -> str:
    """LeRobot's name of before 0.4: the parts of PaliGemma were one level higher."""
    for new, old in (
        (f"{P}.model.language_model.", f"{P}.language_model.model."),
        (f"{P}.lm_head.", f"{P}.language_model.lm_head."),
        (f"{P}.model.", f"{P}."),
    ):
        if key.startswith(new):
            return "model." + old + key.removeprefix(new)
    return "model." + key


def transformers_name(key: str) -> str:
    """The name in transformers' PI0ForConditionalGeneration, version 5.5."""
    for openpi, theirs in (
        (f"{X}.lm_head.", "model.dit.embed_tokens."),
        (f"{X}.model.", "model.dit."),
        (f"{P}.model.", "model.vlm."),
        ("action_out_proj.", "action_out_proj."),
        ("", "embed_action_time."),
    ):
        if key.startswith(openpi):
            return theirs + key.removeprefix(openpi)
    raise AssertionError(key)


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> None:
    """A safetensors file of any size that takes no room: a true header, and a hole where the numbers would be."""
    header, offset = {}, 0
    for key, shape in shapes.items():
        size = int(np.prod(shape)) * {"BF16": 2, "F32": 4}[dtype]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def lerobot_config(config: Pi0Config, kind: str, dims: int, cameras: tuple[str, ...], variants: bool) -> dict:
    """config.json as LeRobot writes it; `variants` False names sizes that only the tensors tell."""
    image = {"type": "VISUAL", "shape": [3, config.vision.image, config.vision.image]}
    mode = "QUANTILES" if kind == "pi05" else "MEAN_STD"
    return {
        "type": kind,
        "n_obs_steps": 1,
        "chunk_size": config.horizon,
        "n_action_steps": config.horizon,
        "max_state_dim": config.state_dim,
        "max_action_dim": config.action_dim,
        "num_inference_steps": config.num_steps,
        "image_resolution": [config.vision.image] * 2,
        "paligemma_variant": "gemma_2b" if variants else "custom",
        "action_expert_variant": "gemma_300m" if variants else "custom",
        "tokenizer_max_length": 48 if kind == "pi0" else 200,
        "use_relative_actions": False,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "input_features": {f"observation.images.{name}": image for name in cameras}
        | {"observation.state": {"type": "STATE", "shape": [dims]}},
        "output_features": {"action": {"type": "ACTION", "shape": [dims]}},
    }


def statistics(dims: int, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    result = {}
    for feature in ("observation.state", "action"):
        low = rng.uniform(-2, -1, dims).astype(np.float32)
        result[feature] = {
            "mean": rng.normal(size=dims).astype(np.float32), "std": rng.uniform(0.5, 2, dims).astype(np.float32),
            "min": low, "max": low + 4, "q01": low + 0.5, "q99": low + 3,
        }  # fmt: skip
    return result


def write_lerobot(folder: Path, config: Pi0Config, kind: str, dims: int, cameras: tuple[str, ...],
                  relative: dict | None = None, rows: dict | None = None) -> None:  # fmt: skip
    """A LeRobot folder with processors and their statistics (`rows`) in files of their own; weights from `fill`."""
    folder.mkdir(parents=True)
    data = lerobot_config(config, kind, dims, cameras, variants=False)
    (folder / "config.json").write_text(json.dumps(data))
    shapes = openpi_shapes(config, adaptive=kind == "pi05")
    save_file({f"model.{key}": golden_vectors.fill(key, s) for key, s in shapes.items()}, folder / "model.safetensors")
    write_processors(folder, data, dims, relative, rows)


def write_pi0_fast(folder: Path, dims: int, cameras: tuple[str, ...]) -> Path:
    """A LeRobot folder of π0-FAST with its tokenizers, whose weights prefer tokens of actions to all others."""
    folder.mkdir(parents=True)
    sizes, tokenizer = FAMILY.fresh({"horizon": TINY.horizon}, TrainingData(
        tuple(f"joint_{k}" for k in range(dims)), cameras, 0.1, {}, ("touch the red cube",)))  # fmt: skip
    config = replace(TINY, vocabulary=sizes["vocabulary"])
    tokenizer.save(folder)
    data = lerobot_config(config, "pi0_fast", dims, cameras, variants=False) | {
        "max_decoding_steps": TINY.horizon * dims, "fast_skip_tokens": 0, "validate_action_token_prefix": False,
        "action_tokenizer_name": "lerobot/fast-action-tokenizer", "temperature": 0.0, "use_kv_cache": True,
    }  # fmt: skip
    data.pop("num_inference_steps")
    (folder / "config.json").write_text(json.dumps(data))
    shapes = {key: shape for key, shape in openpi_shapes(config, False).items() if key.startswith(P)}
    tensors = {key: golden_vectors.fill(key, shape) for key, shape in shapes.items()}
    tensors[f"{P}.model.language_model.embed_tokens.weight"][:, 0] = 2.0
    head = tensors[f"{P}.lm_head.weight"]
    head[:, 0] = -3.0
    head[-tokenizer.actions.size :, 0] = 3.0
    save_file({f"model.{key}": tensor for key, tensor in tensors.items()}, folder / "model.safetensors")
    write_processors(folder, data, dims)
    return folder


def write_processors(folder: Path, data: dict, dims: int, relative=None, rows: dict | None = None) -> None:
    """The two pipelines of a folder with that config.json, and their statistics."""
    flat = {f"{f}.{n}": v for f, each in (rows or statistics(dims)).items() for n, v in each.items()}
    settings = {"eps": 1e-8, "features": data["input_features"] | data["output_features"],
                "norm_map": data["normalization_mapping"]}  # fmt: skip
    before, after = lerobot_folders.pipelines(data["type"], settings, data.get("tokenizer_max_length", 200))
    if relative is not None:
        place = next(i for i, step in enumerate(before) if step["registry_name"] == "normalizer_processor")
        before.insert(place, {"registry_name": "relative_actions_processor", "config": relative})
        after.append({"registry_name": "absolute_actions_processor", "config": {"enabled": relative["enabled"]}})
    for stem, steps in (("policy_preprocessor", before), ("policy_postprocessor", after)):
        for step in steps:
            if "normalizer" in step["registry_name"]:
                step["state_file"] = f"{stem}_step_0_{step['registry_name']}.safetensors"
                save_arrays(flat, folder / step["state_file"])
        (folder / f"{stem}.json").write_text(json.dumps({"name": stem, "steps": steps}))


def write_legacy_lerobot(folder: Path, config: Pi0Config, dims: int, cameras: tuple[str, ...]) -> None:
    """LeRobot's old layout: other names, statistics among the weights, no processor files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(lerobot_config(config, "pi0", dims, cameras, variants=False)))
    tensors = {legacy_name(key): golden_vectors.fill(key, s) for key, s in openpi_shapes(config, False).items()}
    arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
    for start, feature in (("normalize_inputs", "observation.state"), ("normalize_targets", "action"),
                           ("unnormalize_outputs", "action")):  # fmt: skip
        for name in ("mean", "std"):
            arrays[f"{start}.buffer_{feature.replace('.', '_')}.{name}"] = statistics(dims)[feature][name]
    save_arrays(arrays, folder / "model.safetensors")


def write_openpi(folder: Path, config: Pi0Config, adaptive: bool, dims: int, shards: int = 1) -> None:
    """openpi's folder: the embedding is stored as lm_head alone, statistics lie in assets/."""
    folder.mkdir(parents=True)
    said = {"action_dim": config.action_dim, "action_horizon": config.horizon, "paligemma_variant": "custom",
            "action_expert_variant": "custom", "precision": "bfloat16"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said))
    shapes = openpi_shapes(config, adaptive)
    tensors = {key: golden_vectors.fill(key, shape) for key, shape in shapes.items()}
    tensors[f"{P}.lm_head.weight"] = tensors.pop(f"{P}.model.language_model.embed_tokens.weight")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        weight_map = {key: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, key in enumerate(tensors)}
        for file in set(weight_map.values()):
            save_file({key: tensors[key] for key in tensors if weight_map[key] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    rows = {
        name: {key: values.tolist() for key, values in statistics(dims)[feature].items() if key not in ("min", "max")}
        for name, feature in (("state", "observation.state"), ("actions", "action"))
    }
    (folder / "assets" / "robot").mkdir(parents=True)
    (folder / "assets" / "robot" / "norm_stats.json").write_text(json.dumps({"norm_stats": rows}))


def write_transformers(folder: Path, config: Pi0Config) -> None:
    """transformers' folder: sizes in config.json, no statistics and no names of cameras."""
    folder.mkdir(parents=True)
    texts = [
        {"model_type": "gemma", "hidden_size": size.width, "num_hidden_layers": size.depth, "head_dim": size.head_dim,
         "intermediate_size": size.mlp, "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads,
         "vocab_size": config.vocabulary} for size in (config.prefix, config.expert)
    ]  # fmt: skip
    vision = config.vision
    vision = {"model_type": "siglip_vision_model", "hidden_size": vision.hidden, "num_hidden_layers": vision.depth,
              "num_attention_heads": vision.heads, "intermediate_size": vision.mlp, "patch_size": vision.patch,
              "image_size": vision.image, "vision_use_head": False}  # fmt: skip
    vlm = {"model_type": "paligemma", "text_config": texts[0], "vision_config": vision, "image_token_id": 7,
           "projection_dim": config.prefix.width}  # fmt: skip
    said = {"model_type": "pi0", "vlm_config": vlm, "dit_config": texts[1], "chunk_size": config.horizon,
            "max_state_dim": config.state_dim, "max_action_dim": config.action_dim}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said))
    tensors = {transformers_name(key): golden_vectors.fill(key, shape)
               for key, shape in openpi_shapes(config, False).items() if "paligemma.lm_head" not in key}  # fmt: skip
    save_file(tensors, folder / "model.safetensors")


def write_sentencepiece(path: Path, vocabulary: int = 200) -> None:
    """A tiny SentencePiece model with Gemma's special tokens."""
    import io

    import sentencepiece

    words = "touch pick up lift the red green blue cube block Task State Action move arm to left right".split()
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(words, 8)) + ", " + " ".join(map(str, rng.integers(-1, 256, 6))) for _ in range(400)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=vocabulary, model_type="bpe", pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, byte_fallback=False, user_defined_symbols=["\n"], remove_extra_whitespaces=False,
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
