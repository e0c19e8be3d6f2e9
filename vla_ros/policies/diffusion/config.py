"""Configuration of Diffusion Policy, and its form in LeRobot's config.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Count, Dimensions, Inner, Layers, Pixels, Range, Rows, Width, Words, record
from vla_ros.policies.backbones import KEYPOINT_STEM, check_backbone
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.options import LoadOptions

# Copied from config.json; the other fields of DiffusionConfig come from the features or are ours.
LEROBOT_FIELDS = (
    "n_obs_steps", "n_action_steps", "vision_backbone", "resize_shape", "crop_ratio", "crop_shape",
    "crop_is_random", "use_group_norm", "spatial_softmax_num_keypoints", "use_separate_rgb_encoder_per_camera",
    "down_dims", "kernel_size", "n_groups", "diffusion_step_embed_dim", "use_film_scale_modulation",
    "noise_scheduler_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type",
    "clip_sample", "clip_sample_range", "num_inference_steps", "do_mask_loss_for_padding", "clip_text",
    "language_dim", "language_dropout",
)
READ_ELSEWHERE = ("horizon", "input_features", "output_features", "normalization_mapping")
MOST_NOISE = 100_000_000  # numbers
NOT_USED = ("drop_n_last_frames",)  # frames that LeRobot's sampler skips


@dataclass(frozen=True)
class ClipText:
    """The fields of transformers' CLIPTextConfig that a policy may set, with its defaults."""

    vocab_size: Words = 49408
    hidden_size: Width = 512
    intermediate_size: Inner = 2048
    projection_dim: Width = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Rows = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: Annotated[float, Range(0, 0.999)] = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    eos_token_id: int | None = 49407

    def __post_init__(self) -> None:
        if self.hidden_act not in ("quick_gelu", "gelu", "relu"):
            raise InputError(f"hidden_act {shown(self.hidden_act)}, expected quick_gelu, gelu or relu")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size}, expected a multiple of num_attention_heads {self.num_attention_heads}"
            )


@dataclass(frozen=True)
class DiffusionConfig:
    """Sizes and options of a Diffusion Policy (Chi et al. 2023, https://arxiv.org/abs/2303.04137).

    Attributes:
        action_dim: D of an action.
        state_dim: S, size of the robot's state.
        environment_dim: size of the environment's state, 0 for none.
        cameras: names of the policy's images, in the order of their features.
        image_size: (height, width) of every image before resizing and cropping, pixels.
        n_obs_steps: T, observation steps.
        unet_horizon: rows of the network (LeRobot's `horizon`); the first T - 1 are before the newest observation.
        n_action_steps: rows that LeRobot's runner executes before the next inference; not used here, the executor
            follows time.
        resize_shape, crop_shape: (height, width) or None; crop_ratio below 1 derives the crop from the resized size.
        crop_is_random: crop anywhere in training (always in the centre otherwise).
        use_group_norm: group instead of batch normalisation in the backbone.
        spatial_softmax_num_keypoints: K; an image becomes 2 K features.
        down_dims: channels of the U-Net's stages.
        noise_scheduler_type: "DDPM" or "DDIM", as diffusers defines them.
        prediction_type: "epsilon" or "sample", what the network predicts.
        num_inference_steps: denoising steps, None for num_train_timesteps.
        clip_text: sizes of a CLIP text encoder (fields of transformers' CLIPTextConfig) for the language-conditioned
            variant, None for a policy without it.
        language_dim: width to which the text's vector is projected.
        vocabulary: ours: words of the instructions, a small text encoder in place of CLIP; empty for none.
        vision_backbone: resnet18 to resnet152; ours: "keypoint_stem", a small one that locates what the text names.
        stem_width: ours: features of an image from the small backbone.
        backbone_width: ours: channels of the backbone's first stage.
    """

    action_dim: Dimensions
    state_dim: Dimensions
    environment_dim: Dimensions = 0
    cameras: Cameras = ()
    image_size: tuple[Pixels, Pixels] = (96, 96)
    n_obs_steps: Count = 2
    unet_horizon: Rows = 16
    n_action_steps: Rows = 8
    vision_backbone: str = "resnet18"
    resize_shape: tuple[Pixels, Pixels] | None = None
    crop_ratio: Annotated[float, Range(0.01, 1)] = 1.0
    crop_shape: tuple[Pixels, Pixels] | None = None
    crop_is_random: bool = True
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: Width = 32
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: Annotated[tuple[Width, ...], Range(1, 12)] = (512, 1024, 2048)
    kernel_size: Annotated[int, Range(1, 99)] = 5
    n_groups: Count = 8
    diffusion_step_embed_dim: Width = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: str = "DDPM"
    num_train_timesteps: Annotated[int, Range(1, 100_000)] = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: Rows | None = None
    do_mask_loss_for_padding: bool = False
    clip_text: Mapping[str, Any] | None = field(default=None, hash=False)
    language_dim: Width = 32
    language_dropout: Annotated[float, Range(0, 0.999)] = 0.1
    vocabulary: tuple[str, ...] = ()
    backbone_width: Width = 64
    stem_width: Width = 128

    def __post_init__(self) -> None:
        check_backbone("diffusion", self.vision_backbone, self.vocabulary, self.image_size)
        for name, options in (
            ("noise_scheduler_type", ("DDPM", "DDIM")), ("prediction_type", ("epsilon", "sample")),
            ("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2")),
        ):
            if getattr(self, name) not in options:
                raise InputError(f"diffusion: {name} {getattr(self, name)!r}, expected one of {options}")
        if self.unet_horizon % 2 ** len(self.down_dims):
            raise InputError(f"diffusion: horizon {self.unet_horizon}, expected a multiple of "
                             f"{2 ** len(self.down_dims)} for {len(self.down_dims)} stages of down_dims")
        if any(width % self.n_groups for width in self.down_dims):
            raise InputError(f"diffusion: down_dims {self.down_dims}, expected multiples of n_groups {self.n_groups}")
        if not (self.cameras or self.environment_dim):
            raise InputError("diffusion: neither an image nor an environment state among the inputs, expected one")
        if not 1 <= self.n_obs_steps <= self.unet_horizon:
            raise InputError(f"diffusion: n_obs_steps {self.n_obs_steps}, expected 1 to horizon {self.unet_horizon}")
        if self.num_inference_steps is not None and not 1 <= self.num_inference_steps <= self.num_train_timesteps:
            raise InputError(f"diffusion: num_inference_steps {self.num_inference_steps}, expected 1 to "
                             f"num_train_timesteps {self.num_train_timesteps}")
        if self.clip_text is not None and self.vocabulary:
            raise InputError("diffusion: clip_text and vocabulary are both set, expected one text encoder")
        if self.clip_text is not None:
            record(ClipText, self.clip_text, "diffusion: clip_text")
        if (noise := self.num_train_timesteps * self.unet_horizon * self.action_dim) > MOST_NOISE:
            raise InputError(
                f"diffusion: num_train_timesteps x horizon x action_dim is {noise}, expected at most "
                f"{MOST_NOISE}: the noise of all steps is kept in memory"
            )
        crop, size = self.crop_size, self.resize_shape or self.image_size
        if crop is not None and (min(crop) < 1 or crop[0] > size[0] or crop[1] > size[1]):
            raise InputError(f"diffusion: crop {list(crop)}, expected one that fits into images of {list(size)}")

    @property
    def horizon(self) -> int:
        """H, rows of a chunk: the network's rows from the newest observation on."""
        return self.unet_horizon - self.past

    @property
    def past(self) -> int:
        """Rows of the network before the newest observation."""
        return self.n_obs_steps - 1

    @property
    def num_steps(self) -> int:
        """Denoising steps at inference."""
        return self.num_inference_steps or self.num_train_timesteps

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """(height, width) of the crop, None if there is none. With a resize, `crop_ratio` is used, not `crop_shape`."""
        if self.resize_shape is None:
            return self.crop_shape
        if self.crop_ratio == 1:
            return None
        return int(self.resize_shape[0] * self.crop_ratio), int(self.resize_shape[1] * self.crop_ratio)

    @property
    def has_text(self) -> bool:
        return self.clip_text is not None or bool(self.vocabulary)

    @property
    def step_condition_dim(self) -> int:
        """Features of one observation step."""
        images = 2 * (self.stem_width if self.vision_backbone == KEYPOINT_STEM else self.spatial_softmax_num_keypoints)
        text = self.language_dim if self.has_text else 0
        return self.state_dim + len(self.cameras) * images + self.environment_dim + text

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder, options: LoadOptions) -> "DiffusionConfig":
        """Raises InputError that names a field that is unknown or not supported."""
        where, config = folder.path / "config.json", folder.config
        check_fields(config, (*LEROBOT_FIELDS, *READ_ELSEWHERE, *NOT_USED), folder.path)
        if not folder.state_dim:
            raise InputError(f"{where}: input_features {sorted(folder.inputs)}, expected observation.state among them")
        values = {name: config[name] for name in LEROBOT_FIELDS if name in config}
        values |= {"unet_horizon": config["horizon"]} if "horizon" in config else {}
        return record(cls, values | folder.sizes(), str(where))

    @property
    def tokenizer_of(self) -> str | None:
        """The model whose tokenizer the policy needs, None without CLIP."""
        return None if self.clip_text is None else "CLIP's tokenizer"

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        language = f"{len(self.vocabulary)} words" if self.vocabulary else "CLIP"
        return {
            "vision": self.vision_backbone,
            "U-Net": f"widths {', '.join(str(width) for width in self.down_dims)}, {self.unet_horizon} rows",
            "language": language if self.has_text else "none: the text only starts and stops",
            "history": f"{self.n_obs_steps} observations",
            "denoising": f"{self.num_steps} steps of {self.noise_scheduler_type}",
        }
