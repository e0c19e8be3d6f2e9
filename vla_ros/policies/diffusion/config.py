"""What a Diffusion Policy is made of, and how LeRobot's config.json says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.records import record
from vla_ros.policies.backbones import KEYPOINT_STEM, check_backbone
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.options import LoadOptions

# Read from config.json as they are; the rest of DiffusionConfig comes from the features or is ours.
LEROBOT_FIELDS = (
    "n_obs_steps", "n_action_steps", "vision_backbone", "resize_shape", "crop_ratio", "crop_shape",
    "crop_is_random", "use_group_norm", "spatial_softmax_num_keypoints", "use_separate_rgb_encoder_per_camera",
    "down_dims", "kernel_size", "n_groups", "diffusion_step_embed_dim", "use_film_scale_modulation",
    "noise_scheduler_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type",
    "clip_sample", "clip_sample_range", "num_inference_steps", "do_mask_loss_for_padding", "clip_text",
    "language_dim", "language_dropout",
)
READ_ELSEWHERE = ("horizon", "input_features", "output_features", "normalization_mapping")
NOT_USED = ("drop_n_last_frames",)  # which frames LeRobot's sampler leaves out


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
        unet_horizon: rows of the network (LeRobot's `horizon`); the first T - 1 lie before the newest observation.
        n_action_steps: rows that LeRobot's runner executes before it infers again; ours follows time instead.
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
        vision_backbone: resnet18 to resnet152; ours: "keypoint_stem", a small one that looks for what the text names.
        stem_width: ours: features that the small backbone makes of an image.
        backbone_width: ours: channels of the backbone's first stage.
    """

    action_dim: int
    state_dim: int
    environment_dim: int = 0
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] = (96, 96)
    n_obs_steps: int = 2
    unet_horizon: int = 16
    n_action_steps: int = 8
    vision_backbone: str = "resnet18"
    resize_shape: tuple[int, int] | None = None
    crop_ratio: float = 1.0
    crop_shape: tuple[int, int] | None = None
    crop_is_random: bool = True
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: int = 32
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    kernel_size: int = 5
    n_groups: int = 8
    diffusion_step_embed_dim: int = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: str = "DDPM"
    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None
    do_mask_loss_for_padding: bool = False
    clip_text: Mapping[str, Any] | None = field(default=None, hash=False)
    language_dim: int = 32
    language_dropout: float = 0.1
    vocabulary: tuple[str, ...] = ()
    backbone_width: int = 64
    stem_width: int = 128

    def __post_init__(self) -> None:
        check_backbone("diffusion", self.vision_backbone, self.vocabulary, self.image_size)
        for name, options in (("noise_scheduler_type", ("DDPM", "DDIM")), ("prediction_type", ("epsilon", "sample"))):
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
        crop, size = self.crop_size, self.resize_shape or self.image_size
        if crop is not None and (min(crop) < 1 or crop[0] > size[0] or crop[1] > size[1]):
            raise InputError(f"diffusion: crop {list(crop)}, expected one that fits into images of {list(size)}")

    @property
    def horizon(self) -> int:
        """H, rows of a chunk: those of the network from the newest observation on."""
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
        """(height, width) of the crop, None where there is none. A resize makes the ratio count, not the shape."""
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
        """Whose tokenizer the policy needs, None for one without CLIP."""
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
