"""Configuration of SmolVLA, and its form in LeRobot's config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import (
    Cameras,
    Count,
    Dimensions,
    Layers,
    Range,
    Rows,
    Width,
    check_only,
    read_mapping,
    record,
    value_of,
)
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.llama import TextSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.backbones import KEYPOINT_STEM, vision_size
from vla_ros.policies.flow import USUAL, Guidance
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.formats.lerobot_robot import check_aloha
from vla_ros.policies.formats.lerobot_rtc import read_guidance
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.tokenizer import part_folders

LEROBOT_FIELDS = (
    "chunk_size", "n_action_steps", "max_state_dim", "max_action_dim", "adapt_to_pi_aloha", "tokenizer_max_length",
    "num_steps", "freeze_vision_encoder", "train_expert_only", "train_state_proj", "attention_mode",
    "num_expert_layers", "num_vlm_layers", "self_attn_every_n_layers", "expert_width_multiplier", "min_period",
    "max_period",
)
READ_ELSEWHERE = (
    "n_obs_steps", "input_features", "output_features", "normalization_mapping", "vlm_model_name",
    "resize_imgs_with_padding", "add_image_special_tokens", "use_delta_joint_actions_aloha",
)
# Not used: masked padding has no effect, the prefix is always cached, the weights always come from the folder, and
# absent cameras are omitted instead of black and masked, which is the same.
NOT_USED = (
    "empty_cameras", "use_cache", "load_vlm_weights", "prefix_length", "pad_language_to", "fine_tune_vision_encoder",
    "vision_encoder_lr_multiplier",
)


@dataclass(frozen=True)
class VlmSize:
    """A SmolVLM: its vision tower, the number of patches that form a token (`shuffle` squared), its text tower.

    Ours: in place of SigLIP, the small vision tower that locates what the text names (`shuffle` is then 1).
    """

    vision: SiglipSize | KeypointStemSize
    shuffle: Annotated[int, Range(1, 64)]
    text: TextSize

    @property
    def image_tokens(self) -> int:
        """Tokens of an image."""
        return self.vision.tokens // self.shuffle**2

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], where: str) -> "VlmSize":
        """From the config.json of a SmolVLM folder. Raises InputError that names what is missing."""
        vision, text = (value_of(dict, config.get(n), f"{where}: {n}") for n in ("vision_config", "text_config"))
        try:
            heads, width = text["num_attention_heads"], text["hidden_size"]
            head_dim = text.get("head_dim") or value_of(Width, width, where) // value_of(Count, heads, where)
            row = {
                "shuffle": config.get("scale_factor", 2),
                "vision": {
                    "hidden": vision["hidden_size"], "depth": vision.get("num_hidden_layers", 12),
                    "heads": vision["num_attention_heads"], "mlp": vision.get("intermediate_size", 3072),
                    "patch": vision["patch_size"], "image": vision["image_size"],
                },
                "text": {
                    "width": width, "heads": heads, "kv_heads": text.get("num_key_value_heads", heads),
                    "head_dim": head_dim, "mlp": text["intermediate_size"], "vocabulary": text["vocab_size"],
                    "epsilon": text.get("rms_norm_eps", 1e-5),
                },
            }
        except KeyError as error:
            raise InputError(f"{where}: not the configuration of a SmolVLM: {error} is missing") from error
        return record(cls, row, where)

    @classmethod
    def find(cls, folder: LeRobotFolder, options: LoadOptions) -> "VlmSize":
        """From its own config.json, if it exists, else by its name. Raises InputError."""
        where = f"{folder.path / 'config.json'}: vlm_model_name"
        name = value_of(str, folder.config.get("vlm_model_name", "SmolVLM2-500M-Video-Instruct"), where)
        places = [Path(options.tokenizer)] if options.tokenizer else []
        for place in (*places, *part_folders(folder.path, "vlm", name)):
            file = place / "config.json"
            if file.exists():
                return cls.from_transformers(read_mapping(file, "vision-language model"), str(file))
        known = VLMS.get(name.rpartition("/")[2])
        if known is None:
            raise InputError(
                f"checkpoint {folder.path}: vlm_model_name {shown(name)} is neither a folder inside of it, where alone "
                f"it is looked for, nor one of {sorted(VLMS)}; name as tokenizer the folder with its config.json and "
                "tokenizer.json"
            )
        return known


_VISION = SiglipSize(hidden=768, depth=12, heads=12, mlp=3072, patch=16, image=512)
VLMS = {
    "SmolVLM2-500M-Video-Instruct": VlmSize(_VISION, 4, TextSize(960, 15, 5, 64, 2560, 49280)),
    "SmolVLM2-256M-Video-Instruct": VlmSize(_VISION, 4, TextSize(576, 9, 3, 64, 1536, 49280)),
}


@dataclass(frozen=True)
class SmolVLAConfig:
    """Sizes and options of a SmolVLA (Shukor et al. 2025, https://arxiv.org/abs/2506.01844).

    Attributes:
        vlm: the vision-language model; its text tower is cut to `num_vlm_layers`.
        cameras: names of the policy's images, in the order of their tokens.
        state_dim, real_action_dim: sizes of the robot's state and actions before padding; 0: no state (fed as zeros).
        max_state_dim, max_action_dim: what they are padded to; max_action_dim is D.
        chunk_size: H, rows of a chunk.
        tokenizer_max_length: largest number of text tokens.
        num_steps: Euler steps.
        attention_mode: "cross_attn" interleaves, "self_attn" has joint self-attention in every layer.
        self_attn_every_n_layers: with "cross_attn", every n-th layer is still joint self-attention.
        expert_width_multiplier: ratio of the expert's width to the text tower's.
        min_period, max_period: of the time's sinusoids.
        adapt_to_pi_aloha: state and actions are in π's ALOHA convention, which the policy file expresses by scales.
        guidance: of real-time chunking.
        freeze_vision_encoder, train_expert_only, train_state_proj: what is not trained.
    """

    vlm: VlmSize
    cameras: Cameras
    state_dim: Dimensions
    real_action_dim: Dimensions
    max_state_dim: Dimensions = 32
    max_action_dim: Dimensions = 32
    chunk_size: Rows = 50
    n_action_steps: Rows = 50
    tokenizer_max_length: Rows = 48
    num_steps: Rows = 10
    num_vlm_layers: Layers = 16
    num_expert_layers: Annotated[int, Range(-1, 1000)] = -1
    attention_mode: str = "cross_attn"
    self_attn_every_n_layers: Annotated[int, Range(-1, 1000)] = 2
    expert_width_multiplier: Annotated[float, Range(0.01, 16)] = 0.75
    min_period: Annotated[float, Range(1e-9, 1e9)] = 4e-3
    max_period: Annotated[float, Range(1e-9, 1e9)] = 4.0
    adapt_to_pi_aloha: bool = False
    guidance: Guidance = USUAL
    freeze_vision_encoder: bool = True
    train_expert_only: bool = True
    train_state_proj: bool = True

    def __post_init__(self) -> None:
        if self.attention_mode not in ("cross_attn", "self_attn"):
            raise InputError(f"smolvla: attention_mode {self.attention_mode!r}, expected cross_attn or self_attn")
        if self.num_expert_layers > 0 and self.num_expert_layers != self.num_vlm_layers:
            raise InputError(f"smolvla: num_expert_layers {self.num_expert_layers}, expected -1 or num_vlm_layers "
                             f"{self.num_vlm_layers}: an expert with fewer layers is not supported")
        for what, size, limit in (
            ("state", self.state_dim, self.max_state_dim), ("action", self.real_action_dim, self.max_action_dim),
        ):
            if size > limit:
                raise InputError(f"smolvla: {what} of {size} dimensions, expected at most {limit}")
        if not self.cameras:
            raise InputError("smolvla: no image among the inputs, expected at least one")
        if self.num_steps < 1 or self.chunk_size < 1:
            raise InputError(f"smolvla: num_steps {self.num_steps}, chunk_size {self.chunk_size}; expected positive")
        self.guidance.check(self.chunk_size)

    n_obs_steps = 1
    pads = True
    own_dims = "real_action_dim"
    tokenizer_of = "SmolVLM2's tokenizer"
    horizon = property(attrgetter("chunk_size"))
    action_dim = property(attrgetter("max_action_dim"))
    state_width = property(attrgetter("max_state_dim"))
    token_rows = property(attrgetter("vlm.text.vocabulary"))  # number of tokens that can be embedded

    @property
    def needs_every_camera(self) -> bool:
        """The small vision tower identifies cameras by their position."""
        return isinstance(self.vlm.vision, KeypointStemSize)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.vlm.vision.image, self.vlm.vision.image

    @property
    def expert_width(self) -> int:
        return int(self.vlm.text.width * self.expert_width_multiplier)

    @property
    def expert_mlp(self) -> int:
        """Two thirds of four times the width, rounded up to a multiple of 256."""
        return -(-int(4 * int(2 * self.expert_width / 3)) // 256) * 256

    def is_cross(self, layer: int) -> bool:
        """Whether the expert's layer only attends to the text tower's keys and values."""
        every = self.self_attn_every_n_layers
        return self.attention_mode == "cross_attn" and not (every > 0 and layer % every == 0)

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder, options: LoadOptions) -> "SmolVLAConfig":
        """Raises InputError that names a field that is unknown or not supported."""
        where, config, vlm = folder.path / "config.json", folder.config, VlmSize.find(folder, options)
        check_fields(config, (*LEROBOT_FIELDS, *READ_ELSEWHERE, *NOT_USED), folder.path)
        only = {"n_obs_steps": 1, "add_image_special_tokens": False, "use_delta_joint_actions_aloha": False}
        check_only(config, only | {"resize_imgs_with_padding": [vlm.vision.image] * 2}, str(where))
        check_aloha(folder, options)
        values = {name: config[name] for name in LEROBOT_FIELDS if name in config} | dict(
            vlm=vlm, cameras=tuple(f.name for f in folder.images),
            state_dim=folder.state_dim, real_action_dim=folder.action_dim, guidance=read_guidance(folder)[0],
        )
        if folder.text_length:
            values["tokenizer_max_length"] = folder.text_length
        return record(cls, values, str(where))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "smolvla") -> "SmolVLAConfig":
        """From our own config.json or a training file. Raises InputError that names the field."""
        values = dict(values)
        if isinstance(values.get("vlm"), Mapping):
            vlm = dict(values["vlm"])
            if vlm.get("vision") == KEYPOINT_STEM:
                vlm.setdefault("shuffle", 1)
            if "vision" in vlm:
                vlm["vision"] = vision_size(vlm["vision"], {KEYPOINT_STEM: KeypointStemSize()}, f"{where}.vlm.vision")
            values["vlm"] = vlm
        return record(cls, values, where)

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        vision = self.vlm.vision
        return {
            "vision": "keypoint stem" if isinstance(vision, KeypointStemSize) else
                      f"SigLIP of width {vision.hidden}, {self.vlm.image_tokens} tokens a camera",
            "text tower": f"width {self.vlm.text.width}, {self.num_vlm_layers} layers",
            "expert": f"width {self.expert_width}, {self.attention_mode}",
            "language": f"up to {self.tokenizer_max_length} tokens",
            "denoising": f"{self.num_steps} steps",
        }
