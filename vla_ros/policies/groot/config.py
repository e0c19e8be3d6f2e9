"""Configuration of GR00T; its generations are sizes and switches of one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.records import Cameras, Count, Dimensions, Layers, Pixels, Range, Rows, Width, record
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.llama import TextSize
from vla_ros.policies.dimension import Dimension
from vla_ros.policies.groot.groups import Group, check_references, plain_statistics
from vla_ros.policies.groot.vision import VisionSize

Share = Annotated[float, Range(0, 1)]
Offsets = Annotated[tuple[Annotated[int, Range(-10_000, 0)], ...], Range(1, 100)]

# Differences of the generations, besides the sizes, which are in `published.py`.
GENERATIONS: dict[str, dict[str, Any]] = {
    "n1": {"shuffle": "position", "connector_layers": 2, "projected": True, "vl_norm": False, "vl_layers": 0,
           "future_tokens": 0, "rope_theta": 130_000.0},
    "n1.5": {"rope_theta": 1e6},
    "n1.6": {"shuffle": "channel", "connector_layers": 2, "vl_layers": 0, "future_tokens": 0, "alternate": True,
             "image_path": "letterbox", "formalise": True, "rope_theta": 1e6},
    "n1.7": {"shuffle": "channel", "connector_layers": 2, "future_tokens": 0, "alternate": True, "formalise": True,
             "image_path": "shortest", "rope_theta": 5e6, "mrope": (24, 20, 20)},
}
# How images are resized, and whose method it is; see `images.py` in this folder.
IMAGE_PATHS = ("isaac", "lerobot", "pil", "letterbox", "shortest", "square", "letterbox_square")
WHOLE, ASPECT_KEPT = ("lerobot", "pil"), ("letterbox", "shortest")  # no crop; width depends on the image


@dataclass(frozen=True)
class GrootConfig:
    """Sizes and options.

    Attributes:
        generation: "n1", "n1.5", "n1.6" or "n1.7".
        vision, text: towers; the text tower has `text_layers` of its layers. The vision tower may be replaced
            by this project's small one, which locates what the prompt names.
        state_dim, real_action_dim: numbers of the robot's state and actions before padding.
        state_groups, action_groups: how their parts are normalised; (): all in the same way.
        state_steps, video_steps: offsets of the observation steps, in `step_dt`.
        vision_select, shuffle, connector_layers: see `EagleVision`.
        feature_dim: width of the features that the action head attends to; `projected`: by a linear layer of its own.
        reproject_vision: image tokens skip the text tower (N1).
        max_state_dim, max_action_dim: what states and actions are padded to; max_action_dim is D.
        chunk_size: H, rows of a chunk; `valid_rows`: how many of them this embodiment has.
        hidden, width: of the embodiment-specific layers, and of the DiT.
        alternate: DiT layers attend to either text or images: of the layers that attend to features, each
            `text_every`-th attends to the text, the others to the images. If not set, they attend to all features,
            including padding.
        embodiment_tag, embodiment: the embodiment whose weights of the embodiment-specific layers are used, and its
            number.
        num_steps, buckets: Euler steps, and the time's resolution.
        noise_beta, noise_s: of the times in training.
        ramp_rate: of N1.7's real-time chunking.
        image_size, crop, image_path: height and width of resized images, the share of a side that a centre crop
            keeps (1 if the path does not crop), a name of IMAGE_PATHS.
        tokenizer_max_length: largest number of tokens of a prompt, each image counted as one.
        formalise, listed: the prompt's text in lower case without punctuation; in brackets as in Isaac's N1.5.
        tune_llm, ...: what is trained; `tune_top_llm_layers` counts from the last one that is run.
    """

    generation: str
    vision: KeypointStemSize | VisionSize
    text: TextSize
    cameras: Cameras
    state_dim: Dimensions
    real_action_dim: Dimensions
    state_groups: tuple[Group, ...] = ()
    action_groups: tuple[Group, ...] = ()
    state_steps: Offsets = (0,)
    video_steps: Offsets = (0,)
    text_layers: Layers = 12
    rope_theta: Annotated[float, Range(1, 1e12)] = 1e6
    mrope: tuple[Count, ...] = ()
    vision_select: Annotated[int, Range(-1000, -1)] = -1
    shuffle: str = ""
    connector_layers: Annotated[int, Range(1, 2)] = 1
    feature_dim: Width = 2048
    projected: bool = False
    reproject_vision: bool = False
    max_state_dim: Dimensions = 64
    max_action_dim: Dimensions = 32
    chunk_size: Rows = 16
    valid_rows: Annotated[int, Range(0, 10_000)] = 0
    hidden: Width = 1024
    width: Width = 1536
    dit_layers: Layers = 16
    dit_heads: Count = 32
    vl_norm: bool = True
    vl_layers: Layers = 4
    vl_heads: Count = 32
    future_tokens: Annotated[int, Range(0, 10_000)] = 32
    max_seq_len: Rows = 1024
    embodiments: Count = 32
    embodiment_tag: str = "new_embodiment"
    embodiment: Annotated[int, Range(0, 999)] = 0
    alternate: bool = False
    text_every: Count = 2
    num_steps: Rows = 4
    buckets: Rows = 1000
    noise_beta: tuple[Annotated[float, Range(0.01, 100)], Annotated[float, Range(0.01, 100)]] = (1.5, 1.0)
    noise_s: Annotated[float, Range(0.01, 1)] = 0.999
    ramp_rate: Annotated[float, Range(1e-3, 1000)] = 6.0
    dropout: Share = 0.2
    state_dropout: Share = 0.0
    has_mask_token: bool = False
    image_token: Annotated[int, Range(0, 10_000_000)] = 0
    image_size: tuple[Pixels, Pixels] = (224, 224)
    crop: Annotated[float, Range(0.1, 1)] = 0.95
    image_path: str = "isaac"
    formalise: bool = False
    listed: bool = False
    tokenizer_max_length: Rows = 200
    tune_llm: bool = False
    tune_visual: bool = False
    tune_projector: bool = True
    tune_diffusion_model: bool = True
    tune_vlln: bool = True
    tune_top_llm_layers: Layers = 0

    def __post_init__(self) -> None:
        vision, text = self.vision, self.text
        check_references(self.action_groups, self.state_groups)
        for name, value, known in (
            ("generation", self.generation, tuple(GENERATIONS)), ("image_path", self.image_path, IMAGE_PATHS),
            ("shuffle", self.shuffle, ("", "position", "channel")),
        ):
            if value not in known:
                raise InputError(f"groot: {name} {value!r}, expected one of {list(known)}")
        if self.image_path in WHOLE and self.crop != 1:
            raise InputError(f"groot: crop {self.crop:g}, but image_path {self.image_path!r} shows the whole frame: "
                             "expected crop: 1, or another image_path")
        for name, size, parts in (
            ("width", self.width, self.dit_heads), ("feature_dim", self.feature_dim, self.vl_heads),
            ("text.heads", text.heads, text.kv_heads),
            *(() if self.has_stem else (("vision.hidden", vision.hidden, vision.heads),)),
        ):
            if size % parts and (name != "feature_dim" or self.vl_layers):
                raise InputError(f"groot: {name} {size}, expected a multiple of {parts}")
        if not self.projected and self.feature_dim != text.width:
            raise InputError(f"groot: feature_dim {self.feature_dim}, the text tower's width is {text.width}: expected "
                             "the same, or projected: true")
        for what, size, limit in (
            ("state", sum(g.width for g in self.state_groups) or self.state_dim, self.max_state_dim),
            ("action", sum(g.width for g in self.action_groups) or self.real_action_dim, self.max_action_dim),
            ("horizon", self.chunk_size, self.max_seq_len), ("valid_rows", self.valid_rows, self.chunk_size),
        ):
            if size > limit:
                raise InputError(f"groot: {what} of {size}, expected at most {limit}")
        if self.embodiment >= self.embodiments:
            raise InputError(f"groot: embodiment_tag {self.embodiment_tag!r} is number {self.embodiment}, the network "
                             f"has weights of {self.embodiments}; set overrides.embodiment_tag to another one")
        if self.image_token >= text.vocabulary:
            raise InputError(f"groot: image_token {self.image_token}, the text tower has {text.vocabulary} embeddings")
        if not self.has_stem and vision.depth + 1 + self.vision_select < 1:
            raise InputError(f"groot: vision_select {self.vision_select}, expected a layer of {vision.depth}")
        if self.has_stem and (self.generation == "n1.7" or self.image_path in ASPECT_KEPT or len(self.video_steps) > 1):
            raise InputError(f"groot: the keypoint stem with generation {self.generation}, image_path "
                             f"{self.image_path!r}, video_steps {list(self.video_steps)}; expected another generation "
                             "than n1.7, images of one size and of one time")
        side, unit = vision.image if self.has_stem else vision.grid * vision.patch, self.image_unit
        fixed = self.has_stem or self.generation in ("n1", "n1.5")
        if fixed and (self.image_size != (side, side) or side % unit):
            raise InputError(f"groot: image_size {list(self.image_size)}, expected {[side, side]}, whole blocks of "
                             f"{unit} pixels")
        if not self.cameras:
            raise InputError("groot: no image among the inputs, expected at least one")
        if self.generation == "n1.7" and sum(self.mrope) * 2 != text.head_dim:
            raise InputError(f"groot: mrope {list(self.mrope)}, expected a sum of half the head, {text.head_dim // 2}")

    pads = True
    needs_every_camera = True  # omitting one would change the numbers of the images
    n_obs_steps = 1
    horizon = property(attrgetter("chunk_size"))
    action_dim = property(attrgetter("max_action_dim"))
    state_width = property(attrgetter("max_state_dim"))
    token_rows = property(attrgetter("text.vocabulary"))

    @property
    def tokenizer_of(self) -> str:
        whose = {"n1": "SmolLM2's with Eagle's tokens", "n1.7": "Qwen3-VL's (Cosmos-Reason2)"}
        return f"the tokenizer.json of {whose.get(self.generation, 'Qwen3 with the tokens of Eagle')}"

    has_stem = property(lambda self: isinstance(self.vision, KeypointStemSize))

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image of this size."""
        return (1, self.vision.tokens) if self.has_stem else (rows // self.image_unit, columns // self.image_unit)

    @property
    def image_unit(self) -> int:
        """Pixels; the sides of an image are multiples of it."""
        if self.has_stem:
            return 8 * self.vision.grid
        return self.vision.patch * (2 if self.shuffle or self.generation == "n1.7" else 1)

    @property
    def valid_horizon(self) -> int:
        """Number of rows of a chunk that this embodiment uses."""
        return self.valid_rows or self.chunk_size

    @property
    def action_width(self) -> int:
        """How many of the network's D action numbers this robot uses."""
        return sum(group.width for group in self.action_groups) or self.real_action_dim

    @property
    def state_history(self) -> int:
        """K, number of states in one observation."""
        return len(self.state_steps)

    def check_file_of_statistics(self, file: str) -> None:
        """Raises InputError if a file of joints' statistics cannot replace the checkpoint's."""
        for group in (*self.state_groups, *self.action_groups):
            if group.rotation or group.relative:
                raise InputError(f"overrides.statistics {file!r}: group {group.name!r} is {group.described()}: its "
                                 "statistics do not follow from those of joint targets; leave it out, and the "
                                 "checkpoint's are taken")

    def plain_statistics(
        self, feature: str, dimensions: Sequence[Dimension], statistics: Mapping[str, np.ndarray]
    ) -> tuple[tuple[Dimension, ...], dict[str, np.ndarray]]:
        """See `groups.plain_statistics`; `feature`: "observation.state" or "action"."""
        return plain_statistics(getattr(self, f"{feature.rpartition('.')[2]}_groups"), dimensions, statistics)

    @property
    def new_clock(self) -> bool:
        """Whether times are drawn, and the loss is divided, as in N1.6 and N1.7."""
        return self.generation in ("n1.6", "n1.7")

    @property
    def ramps(self) -> bool:
        """Whether real-time chunking uses N1.7's own ramp."""
        return self.generation == "n1.7"

    @property
    def padding_is_masked(self) -> bool:
        """Whether the features of padding are masked."""
        return self.alternate and not self.vl_layers

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "groot") -> "GrootConfig":
        """From our own config.json or a training file; switches that are not given are those of the generation.

        Raises InputError that names the field.
        """
        said = GENERATIONS.get(str(values.get("generation")), {})
        return record(cls, {**said, **values}, where)

    @property
    def image_title(self) -> str:
        """How images are resized, for `vla-ros info`."""
        rows, columns = self.image_size
        size = f"a shorter side of {min(rows, columns)}" if self.image_path in ASPECT_KEPT else f"{columns}x{rows}"
        crop = f"centre crop {self.crop:g}" if self.crop != 1 else "the whole frame"
        return f"{size} pixels, {crop} (image_path {self.image_path})"

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        return {
            "generation": self.generation.upper(),
            "vision": f"{'Qwen3-VL' if self.generation == 'n1.7' else 'SigLIP'} of width {self.vision.hidden}"
                      if not self.has_stem else "keypoint stem",
            "text tower": f"width {self.text.width}, {self.text_layers} layers",
            "action head": f"DiT of width {self.width}, {self.dit_layers} layers",
            "embodiment": f"{self.embodiment_tag}, number {self.embodiment} of {self.embodiments}",
            "groups": "; ".join(
                f"{what} {', '.join(f'{g.name} ({g.size}, {g.described()})' for g in groups)}"
                for what, groups in (("state", self.state_groups), ("actions", self.action_groups)) if groups
            ),
            "denoising": f"{self.num_steps} steps",
        }
