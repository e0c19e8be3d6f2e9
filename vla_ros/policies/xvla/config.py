"""Configuration of X-VLA, and its form in LeRobot's config.json."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Annotated

from vla_ros.core.errors import InputError
from vla_ros.core.records import (
    Cameras,
    Count,
    Dimensions,
    Layers,
    Pixels,
    Range,
    Rows,
    Width,
    check_only,
    record,
    value_of,
)
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.xvla.actions import Mode, find_mode
from vla_ros.policies.xvla.florence import FlorenceSize

LEROBOT_FIELDS = (
    "chunk_size", "hidden_size", "depth", "num_heads", "mlp_ratio", "num_domains", "len_soft_prompts", "dim_time",
    "max_len_seq", "use_hetero_proj", "action_mode", "use_proprio", "max_state_dim", "max_action_dim",
    "freeze_vision_encoder", "freeze_language_encoder", "train_policy_transformer",
    "train_soft_prompts",
)
READ_ELSEWHERE = (
    "n_obs_steps", "input_features", "output_features", "normalization_mapping", "florence_config", "num_image_views",
    "resize_imgs_with_padding", "empty_cameras", "tokenizer_max_length", "tokenizer_padding_side", "pad_language_to",
    "domain_feature_key", "num_denoising_steps",
)
NOT_USED = ("n_action_steps", "dtype", "tokenizer_name")  # the executor follows time; type and tokenizer are options
TRANSPOSED = "image_projection"  # Microsoft's name of a matrix, the transpose of transformers'


@dataclass(frozen=True)
class XvlaConfig:
    """Sizes and options of an X-VLA.

    Attributes:
        florence: the image and text encoder.
        stem: in place of its image encoder, this project's small tower, which locates what the text names.
        cameras: names of the policy's images; the first is encoded with the text, the others only go to the
            transformer.
        views: number of images of the transformer; those without a camera are zeros.
        image_size: height and width, pixels.
        state_dim, real_action_dim: of the robot's state and actions before padding.
        max_state_dim: what states are padded to; max_action_dim: likewise actions in mode "auto".
        chunk_size: H, rows of a chunk.
        text_length: tokens of every prompt, including padding.
        domain_id: the domain of the robot and its data, one of num_domains; None: unknown.
        transposed: whether the image projection is stored as in Microsoft's files.
        The others have the names of LeRobot's configuration.
    """

    cameras: Cameras
    state_dim: Dimensions
    real_action_dim: Annotated[int, Range(1, 10_000)]
    florence: FlorenceSize = field(default_factory=FlorenceSize)
    stem: KeypointStemSize | None = None
    views: Count = 3
    image_size: tuple[Pixels, Pixels] = (224, 224)
    max_state_dim: Dimensions = 32
    max_action_dim: Dimensions = 20
    chunk_size: Rows = 32
    text_length: Rows = 64
    hidden_size: Width = 1024
    depth: Layers = 24
    num_heads: Count = 16
    mlp_ratio: Annotated[float, Range(0.1, 16)] = 4.0
    num_domains: Count = 30
    domain_id: Annotated[int, Range(0, 999)] | None = None
    len_soft_prompts: Annotated[int, Range(0, 1000)] = 32
    dim_time: Width = 32
    max_len_seq: Rows = 512
    use_hetero_proj: bool = False
    action_mode: str = "ee6d"
    num_steps: Rows = 10
    use_proprio: bool = True
    transposed: bool = False
    freeze_vision_encoder: bool = False
    freeze_language_encoder: bool = False
    train_policy_transformer: bool = True
    train_soft_prompts: bool = True

    n_obs_steps = 1
    pads = True
    own_dims = "real_action_dim"
    needs_every_camera = property(lambda self: self.stem is not None)  # it identifies cameras by their position
    tokenizer_of = "BART's tokenizer"
    horizon = property(attrgetter("chunk_size"))
    action_dim = property(attrgetter("mode.width"))
    token_rows = property(attrgetter("florence.vocabulary"))  # number of tokens that can be embedded

    def __post_init__(self) -> None:
        self.mode  # noqa: B018  raises for an unknown one
        if self.hidden_size % self.num_heads:
            raise InputError(f"xvla: num_heads {self.num_heads}, expected a divisor of hidden_size {self.hidden_size}")
        if not 0 < len(self.cameras) <= self.views:
            raise InputError(f"xvla: {len(self.cameras)} cameras, expected 1 to {self.views}, the views it has")
        if self.use_proprio and self.state_dim > self.max_state_dim:
            raise InputError(f"xvla: state of {self.state_dim} dimensions, expected at most {self.max_state_dim}")
        if self.domain_id is not None and self.domain_id >= self.num_domains:
            raise InputError(f"xvla: domain_id {self.domain_id}, expected 0 to {self.num_domains - 1}")
        if self.stem and self.image_size != (self.stem.image,) * 2:
            raise InputError(f"xvla: image_size {list(self.image_size)}, expected that of the stem, "
                             f"{[self.stem.image] * 2}")
        image = self.stem.tokens if self.stem else 1 + math.prod(self.florence.grid(*self.image_size))
        for what, length, most in (
            ("max_position_embeddings", image + self.text_length, self.florence.text_positions),
            ("max_len_seq", self.chunk_size + self.views * image + self.text_length, self.max_len_seq),
        ):
            if length > most:
                raise InputError(f"xvla: {length} tokens of {self.views} images, {self.text_length} of text and "
                                 f"{self.chunk_size} actions, expected at most {what} {most}")

    @cached_property
    def mode(self) -> Mode:
        """The action mode."""
        return find_mode(self.action_mode, self.real_action_dim, self.max_action_dim)

    @property
    def state_width(self) -> int:
        """What states are padded to; 0: the policy reads none."""
        return self.max_state_dim if self.use_proprio and self.state_dim else 0

    @property
    def unserved(self) -> str:
        """Why a robot cannot follow its actions; "" if it can."""
        return "" if self.domain_id is not None else DOMAIN

    @property
    def spatial(self) -> str:
        """Description of actions that only a tool can follow; "" if they are joints."""
        return "" if not self.mode.poses else (
            f"action_mode {self.action_mode}: its actions are poses of end effectors: `tool` of a policy file says "
            "which dimensions a tool follows (frame, rotation)"
        )

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder, options: LoadOptions) -> "XvlaConfig":
        """Raises InputError that names a field that is unknown or not supported."""
        where, config = f"{folder.path / 'config.json'}", folder.config
        check_fields(config, (*LEROBOT_FIELDS, *READ_ELSEWHERE, *NOT_USED), folder.path)
        step = folder.step("tokenizer_processor")
        said = {
            "padding_side": config.get("tokenizer_padding_side"), "padding": config.get("pad_language_to"),
            **(step.config if step else {}),
        }
        said |= {name: config.get(name) for name in ("n_obs_steps", "domain_feature_key")}
        only = {"n_obs_steps": 1, "domain_feature_key": None, "padding": "max_length", "padding_side": "right"}
        check_only({name: value for name, value in said.items() if value is not None}, only, where)
        resize, sizes = config.get("resize_imgs_with_padding"), sorted({feature.shape[1:] for feature in folder.images})
        if resize is None and len(sizes) != 1:
            raise InputError(f"{where}: images of sizes {sizes} that are not resized, expected one size")
        empty = value_of(Annotated[int, Range(0, 100)], config.get("empty_cameras", 0), f"{where}: empty_cameras")
        views = value_of(Count | None, config.get("num_image_views"), f"{where}: num_image_views") or 1
        domain = folder.step("xvla_add_domain_id")
        values = {name: config[name] for name in LEROBOT_FIELDS if name in config} | dict(
            florence=FlorenceSize.from_files(config.get("florence_config"), f"{where}: florence_config"),
            cameras=tuple(f.name for f in folder.images), views=max(views, len(folder.images) + empty),
            state_dim=folder.state_dim, real_action_dim=folder.action_dim,
            image_size=sizes[0] if resize is None else resize,
            num_steps=config.get("num_denoising_steps", 10),
            text_length=folder.text_length or config.get("tokenizer_max_length", 64),
            domain_id=None if domain is None else domain.config.get("domain_id", 0),
            transposed=any(key.endswith(f".{TRANSPOSED}") for key in open_tensors(folder.path, options.base)[0].shapes),
        )
        if "domain_id" in options.overrides:
            values["domain_id"] = None
        sizes = record(cls, values, where)
        tool = options.embodiment.tool if options.embodiment else None
        if sizes.spatial and options.serves and tool is None:  # before the number of joints is checked
            raise InputError(f"checkpoint {folder.path}: {sizes.spatial}")
        return sizes

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        real = f", {self.mode.real} of {self.mode.width} dimensions" if self.mode.real != self.mode.width else ""
        return {
            "vision": f"{'keypoint stem' if self.stem else 'DaViT'}, {len(self.cameras)} of {self.views} views",
            "language": f"{self.text_length} tokens, padding included",
            "transformer": f"width {self.hidden_size}, depth {self.depth}, {self.len_soft_prompts} soft prompts",
            "action mode": f"{self.action_mode}{real}",
            "domain": f"{self.domain_id} of {self.num_domains}" if self.domain_id is not None else DOMAIN,
            "denoising": f"{self.num_steps} steps",
        }


DOMAIN = "it does not contain the domain it was trained for; set overrides.domain_id in the policy file"
