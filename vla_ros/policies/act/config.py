"""Configuration of ACT, and its form in LeRobot's config.json."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Count, Dimensions, Inner, Layers, Pixels, Range, Rows, Width, record
from vla_ros.nn.resnet import NORMS
from vla_ros.policies.backbones import check_backbone
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.options import LoadOptions

ACTIVATIONS = ("relu", "gelu")
# Copied from config.json; the other fields of ACTConfig come from the features or are ours.
LEROBOT_FIELDS = (
    "chunk_size", "n_action_steps", "vision_backbone", "replace_final_stride_with_dilation", "pre_norm", "dim_model",
    "n_heads", "dim_feedforward", "feedforward_activation", "n_encoder_layers", "n_decoder_layers", "use_vae",
    "latent_dim", "n_vae_encoder_layers", "dropout", "kl_weight",
)
READ_ELSEWHERE = ("n_obs_steps", "input_features", "output_features", "normalization_mapping")
NOT_USED = ("temporal_ensemble_coeff",)  # the executor blends chunks, and its parameter says how


@dataclass(frozen=True)
class ACTConfig:
    """Sizes and options of an ACT (Zhao et al. 2023, https://arxiv.org/abs/2304.13705).

    Attributes:
        action_dim: D of an action.
        state_dim: size of the robot's state, 0 for a policy without one.
        environment_dim: size of the environment's state, 0 for none.
        cameras: names of the policy's images, in the order of their tokens.
        image_size: (height, width) of every image, pixels; with `image_sizes` that of a canvas with room for the
            largest.
        image_sizes: (height, width) of each image if they differ; each is at the upper left of the canvas.
        chunk_size: H, rows of a chunk.
        n_action_steps: rows that LeRobot's runner executes before the next inference; not used here, the executor
            follows time.
        vision_backbone: resnet18 to resnet152; ours: "keypoint_stem", a small one that locates what the text names.
        replace_final_stride_with_dilation: dilate the last stage instead of striding it (resnet50 and deeper).
        pre_norm: normalise before each sub-layer, and once more after the encoder.
        latent_dim: L of the variational latent; it is zero at inference.
        kl_weight: weight of the KL divergence in the loss.
        loss_mean: "valid" divides the L1 error by what is not padding, "all" by everything (LeRobot up to 0.5.1).
        vocabulary: ours: words of the instructions; empty for a policy that reads none, like published ones.
        backbone_width: ours: channels of the backbone's first stage.
        backbone_norm: ours: "frozen_batch" as published, "group" for training from scratch.
    """

    action_dim: Dimensions
    state_dim: Dimensions = 0
    environment_dim: Dimensions = 0
    cameras: Cameras = ()
    image_size: tuple[Pixels, Pixels] = (480, 640)
    image_sizes: tuple[tuple[Pixels, Pixels], ...] = ()
    chunk_size: Rows = 100
    n_action_steps: Rows = 100
    vision_backbone: str = "resnet18"
    replace_final_stride_with_dilation: bool = False
    pre_norm: bool = False
    dim_model: Width = 512
    n_heads: Count = 8
    dim_feedforward: Inner = 3200
    feedforward_activation: str = "relu"
    n_encoder_layers: Layers = 4
    n_decoder_layers: Layers = 1
    use_vae: bool = True
    latent_dim: Width = 32
    n_vae_encoder_layers: Layers = 4
    dropout: Annotated[float, Range(0, 0.999)] = 0.1
    kl_weight: float = 10.0
    loss_mean: str = "valid"
    vocabulary: tuple[str, ...] = ()
    backbone_width: Width = 64
    backbone_norm: str = "frozen_batch"

    n_obs_steps = 1
    horizon = property(attrgetter("chunk_size"))

    def __post_init__(self) -> None:
        check_backbone("act", self.vision_backbone, self.vocabulary, self.image_size)
        largest = tuple(map(max, zip(*self.image_sizes, strict=True)))
        if self.image_sizes and (len(self.image_sizes) != len(self.cameras) or largest != tuple(self.image_size)):
            raise InputError(f"act: image_sizes {self.image_sizes} of {len(self.cameras)} cameras, expected one each; "
                             f"image_size {self.image_size}, expected their largest sides")
        if self.image_sizes and not self.vision_backbone.startswith("resnet"):
            raise InputError(f"act: image_sizes with {self.vision_backbone}, expected none: it takes one size")
        if self.feedforward_activation not in ACTIVATIONS:
            # LeRobot also lists "glu", which halves the width, so that the next layer would not fit.
            raise InputError(f"act: feedforward_activation {self.feedforward_activation!r}, expected one of "
                             f"{ACTIVATIONS}")
        if self.dim_model % self.n_heads or self.dim_model % 4:
            raise InputError(f"act: dim_model {self.dim_model}, expected a multiple of n_heads {self.n_heads} and of 4")
        if not (self.cameras or self.environment_dim):
            raise InputError("act: neither an image nor an environment state among the inputs, expected one")
        if self.loss_mean not in ("valid", "all"):
            raise InputError(f"act: loss_mean {self.loss_mean!r}, expected 'valid' or 'all'")
        if self.backbone_norm not in NORMS:
            raise InputError(f"act: backbone_norm {self.backbone_norm!r}, expected one of {sorted(NORMS)}")
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise InputError(f"act: n_action_steps {self.n_action_steps}, expected 1 to chunk_size {self.chunk_size}")

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder, options: LoadOptions) -> "ACTConfig":
        """Raises InputError that names a field that is unknown or not supported."""
        config = folder.config
        check_fields(config, (*LEROBOT_FIELDS, *READ_ELSEWHERE, *NOT_USED), folder.path)
        if config.get("n_obs_steps", 1) != 1:
            said = shown(config["n_obs_steps"])
            raise InputError(f"{folder.path / 'config.json'}: n_obs_steps {said}, expected 1 for ACT")
        values = {name: config[name] for name in LEROBOT_FIELDS if name in config}
        values["replace_final_stride_with_dilation"] = bool(values.get("replace_final_stride_with_dilation", False))
        return record(cls, values | folder.sizes(several=True), str(folder.path / "config.json"))

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        return {
            "vision": self.vision_backbone,
            "transformer": f"width {self.dim_model}, {self.n_encoder_layers} encoder and {self.n_decoder_layers} "
                           "decoder layers",
            "language": f"{len(self.vocabulary)} words" if self.vocabulary else "none: the text only starts and stops",
            "denoising": "none",
        }
