"""Policies with random weights and an observation for each, to measure without a checkpoint."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from safetensors.torch import save_file

from vla_ros.bench.lerobot_server import TOWERS
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.act.model import ACT
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.formats.lerobot import read_folder
from vla_ros.policies.options import ACTION, STATE, LoadOptions, TrainingData
from vla_ros.policies.pi0.config import GEMMA, Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0_fast.config import LEROBOT_FIELDS, Pi0FastConfig
from vla_ros.policies.pi0_fast.export import lerobot_tensors
from vla_ros.policies.pi0_fast.model import Pi0Fast
from vla_ros.policies.policy import Batch, Policy
from vla_ros.policies.registry import build, export, find_family, read_config
from vla_ros.policies.smolvla.config import VLMS, TextSize, VlmSize
from vla_ros.policies.smolvla.model import SmolVLA
from vla_ros.policies.xvla.export import florence_config
from vla_ros.policies.xvla.florence import FlorenceSize
from vla_ros.policies.xvla.model import Xvla

MID_PREFIX = GemmaSize(width=640, depth=8, mlp=2560, heads=8, kv_heads=1, head_dim=64)
MID_EXPERT = GemmaSize(width=384, depth=8, mlp=1536, heads=8, kv_heads=1, head_dim=64)
MID_VISION = SiglipSize(hidden=384, depth=10, heads=6, mlp=1536, patch=14, image=224)
SIZES = dict.fromkeys(("pi0", "pi05", "pi0_fast"), ("tiny", "100m", "full")) | dict.fromkeys(
    ("act", "diffusion", "smolvla", "xvla"), ("tiny", "full")
) | {"groot": ("tiny",)}
# LeRobot's own defaults except for these; images of ALOHA and of PushT.
_FULL: dict[str, dict[str, Any]] = {
    "act": {"image": (480, 640)},
    "diffusion": {
        "image": (96, 96), "crop_shape": (84, 84), "noise_scheduler_type": "DDIM", "num_inference_steps": 10,
        # as published; LeRobot's defaults differ from one version to the next
        "use_group_norm": True, "use_separate_rgb_encoder_per_camera": False,
    },
    "smolvla": {"image": (512, 512), "vlm": VLMS["SmolVLM2-500M-Video-Instruct"]},
    "xvla": {
        "image": (224, 224), "florence": FlorenceSize(), "chunk_size": 30, "n_action_steps": 30, "max_state_dim": 20,
        "tokenizer_max_length": 50, "num_image_views": 3, "action_mode": "auto",
    },
}  # fmt: skip
_TINY: dict[str, dict[str, Any]] = {
    "act": {
        "image": (64, 96), "chunk_size": 8, "n_action_steps": 8, "dim_model": 32, "n_heads": 4, "dim_feedforward": 64,
    },
    "diffusion": _FULL["diffusion"] | {"down_dims": (32, 64), "diffusion_step_embed_dim": 16},
    "smolvla": {
        "image": (64, 64), "resize_imgs_with_padding": (64, 64), "num_vlm_layers": 4, "chunk_size": 8,
        "n_action_steps": 8,
        "vlm": VlmSize(SiglipSize(32, 2, 4, 64, 8, 64), 4, TextSize(48, 6, 2, 8, 96, 300)),
    },
    "xvla": _FULL["xvla"] | {
        "image": (64, 64), "chunk_size": 8, "n_action_steps": 8, "tokenizer_max_length": 8, "hidden_size": 48,
        "depth": 2, "num_heads": 4, "num_domains": 2, "len_soft_prompts": 2,
        "florence": FlorenceSize(
            widths=(16, 32), depths=(1, 1), heads=(2, 4), groups=(2, 4), patches=(7, 3), strides=(4, 4),
            margins=(3, 1), norm_first=(False, True), window=4, width=32, vocabulary=300, layers=2, text_heads=4,
            mlp=64, text_positions=64,
        ),
    },
}  # fmt: skip
_GROOT = {  # N1.7, as a training config says it
    "generation": "n1.7", "vision": {"hidden": 32, "depth": 2, "heads": 2, "mlp": 64, "patch": 4, "grid": 6,
                                     "deepstack": [0]},
    "text": {"width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 128, "head_norm": True, "epsilon": 1e-6},
    "text_layers": 2, "mrope": [4, 2, 2], "feature_dim": 64, "vl_layers": 1, "vl_heads": 1, "hidden": 32, "width": 48,
    "dit_layers": 4, "dit_heads": 1, "chunk_size": 8, "max_seq_len": 16, "image_size": [64, 64], "image_path": "square",
    "dropout": 0.0,
}  # fmt: skip
_JOINTS = 6
_PATTERN = 1_000_003  # random numbers; a prime, so that the rows of a matrix differ


def pi0_config(size: str, cameras: int, adaptive: bool = False) -> Pi0Config:
    """tiny: as the shipped demo policy; 100m: about 100 million parameters; full: the published π0 (or π0.5)."""
    names = tuple(f"camera_{index}" for index in range(cameras))
    pi05 = {"adaptive": True, "prompt": "pi05", "text_length": 200} if adaptive else {}
    if size == "tiny":
        return Pi0Config(vision=KeypointStemSize(), prefix=GEMMA["tiny_prefix"], expert=GEMMA["tiny_expert"],
                         vocabulary=64, cameras=names, state_dim=6, action_dim=6, horizon=16,
                         **{"text_length": 16, **pi05})  # fmt: skip
    if size == "100m":
        return Pi0Config(vision=MID_VISION, prefix=MID_PREFIX, expert=MID_EXPERT, vocabulary=32_000, cameras=names,
                         **pi05)  # fmt: skip
    if size == "full":
        return Pi0Config(cameras=names, **pi05)
    raise InputError(f"size {size!r}, expected one of {SIZES['pi0']}")


def random_pi0(config: Pi0Config, device: torch.device, dtype: torch.dtype) -> Pi0:
    """With random weights."""
    return random_policy(lambda: Pi0(config), device, dtype)


def random_policy(make: Callable[[], Policy], device: torch.device, dtype: torch.dtype) -> Policy:
    """Random weights made on the device itself, in their final type: a full-size policy never exists in float32.

    A block of random numbers is repeated, since three billion of them would take longer than the measurement.
    Raises InputError for buffers that only a checkpoint fills.
    """
    with without_numbers():
        policy = make()
    known = {name: buffer for name, buffer in policy.named_buffers() if not buffer.is_meta}
    policy = policy.store_as(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    pattern = torch.randn(_PATTERN, device=device, generator=generator).to(dtype)
    with torch.no_grad():
        for parameter in policy.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.02
            for part in parameter.view(-1).split(_PATTERN):
                torch.mul(pattern[: part.numel()], scale, out=part)
            pattern = pattern.roll(1)  # a head that is the embedding would write its input again and again
        for name, buffer in policy.named_buffers():
            if name in known:
                buffer.copy_(known[name])
                continue
            raise InputError(f"policy: buffer {name} of {tuple(buffer.shape)} has no value without a checkpoint")
    return policy.eval().requires_grad_(False)


def write_groot(folder: Path, size: str, cameras: int) -> tuple[Policy, Batch]:
    """A small GR00T N1.7 with random weights, written as LeRobot has it, and one observation for it.

    Raises InputError for another size: LeRobot makes the published one of files from the hub alone.
    """
    _check_size("groot", size)
    names = tuple(f"camera_{index}" for index in range(cameras))
    rows = {name: np.full(_JOINTS, value) for name, value in (("mean", 0), ("std", 1), ("min", -1), ("max", 1))}
    joints = tuple(f"joint_{index}" for index in range(_JOINTS))
    data = TrainingData(joints, names, 0.1, {STATE: rows, ACTION: rows}, ("touch",))
    torch.manual_seed(0)
    loaded = build("groot", _GROOT, data)
    for parameter in loaded.policy.parameters():  # weights that begin as zeros would hide differences
        torch.nn.init.normal_(parameter, std=0.02 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    export(folder, loaded, "lerobot")
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (1, 64, 64, 3), np.uint8) for name in names}
    return loaded.policy, loaded.processor.inputs([Sample(images, np.zeros((1, _JOINTS)), "touch")])


def random_pi0_fast(size: str, cameras: int, device: torch.device, dtype: torch.dtype) -> Pi0Fast:
    """As `pi0_config` has the sizes, but the smallest has SigLIP as well, as LeRobot's has. Raises InputError."""
    _check_size("pi0_fast", size)
    names = tuple(f"camera_{index}" for index in range(cameras))
    sizes = {
        "tiny": {"vision": SiglipSize(32, 2, 4, 64, 8, 64), "prefix": GEMMA["tiny_prefix"], "vocabulary": 300,
                 "text_length": 16, "max_decoding_steps": 32, "state_dim": _JOINTS, "action_dim": _JOINTS},
        "100m": {"vision": MID_VISION, "prefix": MID_PREFIX, "vocabulary": 32_000},
        "full": {},
    }  # fmt: skip
    return random_policy(lambda: Pi0Fast(Pi0FastConfig(cameras=names, **sizes[size])), device, dtype)


def write_pi0_fast(folder: Path, policy: Pi0Fast) -> None:
    """LeRobot's files of it: weights, config.json, and the sizes of the towers, which LeRobot has no field for."""
    config = policy.config
    fields = {theirs: getattr(config, ours) for ours, theirs in LEROBOT_FIELDS.items()}
    fields |= dict(chunk_size=config.horizon, n_action_steps=config.horizon, image_resolution=list(config.image_size))
    _write_config(folder, "pi0_fast", len(config.cameras), config.image_size, fields)
    sizes = {"vision": asdict(config.vision), "prefix": asdict(config.prefix), "vocabulary": config.vocabulary}
    (folder / TOWERS).write_text(json.dumps(sizes), encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in lerobot_tensors(policy)}, folder / "model.safetensors")


def write_lerobot_config(folder: Path, family: str, size: str, cameras: int) -> None:
    """`config.json` of LeRobot's policy of that family ("act", "diffusion", "smolvla", "xvla"), without weights.

    SmolVLA's language model is described in `vlm/config.json`, with a tokenizer of no words beside it, so that nothing
    is looked up on the network.
    Raises InputError for another size.
    """
    _check_size(family, size)
    chosen = dict((_FULL if size == "full" else _TINY)[family])
    image = chosen.pop("image")
    vlm, florence = chosen.pop("vlm", None), chosen.pop("florence", None)
    if florence is not None:
        chosen["florence_config"] = florence_config(florence)
    elif vlm is not None:
        chosen |= {"vlm_model_name": str(folder / "vlm"), "load_vlm_weights": False}
        (folder / "vlm").mkdir()
        (folder / "vlm" / "config.json").write_text(json.dumps(_smolvlm_config(vlm)), encoding="utf-8")
        words = tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")
        tokenizers.Tokenizer(words).save(str(folder / "vlm" / "tokenizer.json"))
    else:
        chosen["pretrained_backbone_weights"] = None
    _write_config(folder, family, cameras, image, chosen)


def _write_config(folder: Path, family: str, cameras: int, image: tuple[int, int], fields: dict[str, Any]) -> None:
    inputs = {"observation.state": {"type": "STATE", "shape": (_JOINTS,)}}
    inputs |= {f"observation.images.camera_{i}": {"type": "VISUAL", "shape": (3, *image)} for i in range(cameras)}
    config = fields | {
        "type": family,
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": (_JOINTS,)}},
        "normalization_mapping": dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY"),
        "push_to_hub": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "train_config.json").write_text(json.dumps({"env": {"fps": 30}}), encoding="utf-8")


def _check_size(family: str, size: str) -> None:
    if size not in SIZES[family]:
        raise InputError(f"size {size!r}, expected one of {SIZES[family]}")


def random_lerobot(folder: Path, device: torch.device, dtype: torch.dtype) -> Policy:
    """The network that a folder's config.json describes, with random weights."""
    config = read_config(folder)
    family = find_family(config["type"])
    if not (weights := folder / "model.safetensors").exists():
        save_file({}, weights)  # X-VLA asks it which way a matrix lies
    torch.manual_seed(0)
    policy = family.policy(family.config.from_lerobot(read_folder(folder, config), LoadOptions()))
    return policy.store_as(dtype).to(device).eval().requires_grad_(False)


def _smolvlm_config(size: VlmSize) -> dict[str, Any]:
    """As in a SmolVLM's folder."""
    vision, text = size.vision, size.text
    return {
        "model_type": "smolvlm", "scale_factor": size.shuffle, "image_token_id": text.vocabulary - 1,
        "vision_config": {
            "hidden_size": vision.hidden, "num_hidden_layers": vision.depth, "num_attention_heads": vision.heads,
            "intermediate_size": vision.mlp, "patch_size": vision.patch, "image_size": vision.image,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": text.width, "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads, "head_dim": text.head_dim, "intermediate_size": text.mlp,
            "vocab_size": text.vocabulary, "rms_norm_eps": text.epsilon, "num_hidden_layers": 32,
        },
    }  # fmt: skip


def random_batch(policy: Policy) -> Batch:
    """One observation on the CPU: every camera there, a prompt of full length."""
    config, generator = policy.config, torch.Generator().manual_seed(1)
    cameras = len(config.cameras)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    steps = (config.n_obs_steps,) if isinstance(policy, DiffusionPolicy) else ()
    shape = (1, *steps, cameras, 3, *config.image_size)
    batch = {"images": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)}
    if isinstance(policy, ACT | DiffusionPolicy):
        return batch | {"state": numbers(1, *steps, config.state_dim)}
    if isinstance(policy, Xvla):
        vocabulary, length, state = config.florence.vocabulary, config.text_length, config.max_state_dim
        batch["domain"] = torch.zeros(1, dtype=torch.int64)
    elif isinstance(policy, SmolVLA):
        vocabulary, length, state = config.vlm.text.vocabulary, config.tokenizer_max_length, config.max_state_dim
    else:
        vocabulary, length, state = config.vocabulary, config.text_length, config.state_dim
    if isinstance(policy, Pi0Fast):
        batch |= {"start": torch.tensor([2]), "end": torch.tensor([vocabulary - 1])}
        batch |= dict.fromkeys(("opening", "span"), torch.zeros(1, 2, dtype=torch.int64))
    return batch | {
        "image_mask": torch.ones(1, cameras, dtype=torch.bool),
        "tokens": torch.randint(0, vocabulary, (1, length), generator=generator),
        "token_mask": torch.ones(1, length, dtype=torch.bool),
        "state": numbers(1, state),
    }
