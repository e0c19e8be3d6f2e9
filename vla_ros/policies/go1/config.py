"""Configuration of GO-1, and its form in the published config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import (
    Cameras,
    Count,
    Dimensions,
    Inner,
    Layers,
    Range,
    Rows,
    Width,
    Words,
    check_only,
    record,
    value_of,
)
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize

CAMERAS = ("top", "right", "left")  # head, right and left wrist, as the published server names them, in order
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")  # of DDPM and of the solver alike
IMAGE_TOKEN = 92546  # <IMG_CONTEXT> of InternVL2.5, used if config.json does not contain it
# Fields of config.json and its parts that change the computation, with the supported values.
EXPECTED = {
    "": {"select_layer": -1, "ps_version": "v2", "pad2square": False, "dynamic_image_size": False},
    "vision_config": {
        "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm", "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    },
    "llm_config": {"bias": False, "hidden_act": "silu"},
    "action_config": {"bias": False, "hidden_act": "silu", "state_token_num": 3},
    "latent_planner_config": {"bias": False, "hidden_act": "silu", "state_token_num": 0, "action_dim": 1},
    "noise_scheduler_config": {"prediction_type": "sample"},
}
KINDS = {  # with other `architectures`, GO-1's own code silently uses the defaults of its classes
    "llm_config": "InternLM2ForCausalLM", "action_config": "ActionExpertModel",
    "latent_planner_config": "ActionExpertModel",
}
# Defaults of the class of action expert and planner; `bias` too, but no published weights have one.
DEFAULTS = {
    "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_theta": 10_000,
}


@dataclass(frozen=True)
class TowerSize:
    """An InternLM2 tower: `heads` query and `kv_heads` key/value heads of `head_dim`; `theta` of its rotations."""

    width: Width
    depth: Layers
    heads: Count
    kv_heads: Count
    head_dim: Count
    mlp: Inner
    epsilon: Annotated[float, Range(1e-12, 1)] = 1e-5
    theta: Annotated[float, Range(1, 1e12)] = 1e6
    head_norm = False  # see `nn.llama.TextSize`

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise InputError(f"heads {self.heads}, kv_heads {self.kv_heads}, head_dim {self.head_dim}: expected a "
                             "multiple of kv_heads and an even head_dim")


@dataclass(frozen=True)
class GO1Config:
    """Sizes and options of GO-1 (AgiBot-World 2025, https://arxiv.org/abs/2503.06669).

    Attributes:
        vision: InternViT; or this project's small tower that locates what the text names.
        shuffle: its square is the number of patches that form a token.
        text: InternLM2, of which only keys and values are read.
        expert: the action expert.
        planner: the latent planner; None: GO-1 Air.
        vocabulary: rows of the text embedding.
        image_token: id of the placeholders that the images' tokens replace.
        cameras: names of the policy's images, in the order of their tokens.
        state_dim: S; action_dim: D; horizon: H, rows of a chunk.
        num_train_timesteps, beta_schedule: of the noise, as diffusers defines them.
        num_steps: steps of the solver.
        control_frequency: Hz, an input of the policy; None: 1 / step_dt.
        text_length: largest number of tokens of an instruction; longer ones are cut.
    """

    vision: KeypointStemSize | SiglipSize
    text: TowerSize
    expert: TowerSize
    planner: TowerSize | None
    vocabulary: Words
    image_token: Annotated[int, Range(0, 10_000_000)]
    cameras: Cameras
    state_dim: Dimensions
    action_dim: Dimensions
    shuffle: Annotated[int, Range(1, 64)] = 2
    horizon: Rows = 30
    num_train_timesteps: Annotated[int, Range(1, 100_000)] = 1000
    beta_schedule: str = "squaredcos_cap_v2"
    num_steps: Rows = 5
    control_frequency: Annotated[float, Range(0.001, 10_000)] | None = None
    text_length: Rows = 256

    def __post_init__(self) -> None:
        towers = {"text": self.text, "expert": self.expert, "planner": self.planner}
        for name, tower in towers.items():
            for what in ("depth", "kv_heads"):
                if tower is not None and getattr(tower, what) != getattr(self.text, what):
                    raise InputError(f"go1: {what} of {name} {getattr(tower, what)} and of text "
                                     f"{getattr(self.text, what)}: expected the same, because layers read the layers "
                                     "of the same number")
        if self.text.depth < 1 or min(self.state_dim, self.action_dim) < 1:
            raise InputError(f"go1: depth {self.text.depth}, state_dim {self.state_dim}, action_dim {self.action_dim}: "
                             "expected one or more")
        if not self.has_stem and self.vision.hidden % self.vision.heads:
            raise InputError(f"go1: vision: hidden {self.vision.hidden}, expected a multiple of heads "
                             f"{self.vision.heads}")
        if not self.has_stem and self.vision.image % (self.vision.patch * self.shuffle):
            raise InputError(f"go1: vision: image {self.vision.image}, expected a multiple of patch x shuffle "
                             f"{self.vision.patch * self.shuffle}")
        if self.beta_schedule not in SCHEDULES:
            raise InputError(f"go1: beta_schedule {self.beta_schedule!r}, expected one of {SCHEDULES}")
        if self.num_steps > self.num_train_timesteps:
            raise InputError(f"go1: num_steps {self.num_steps}, expected at most num_train_timesteps "
                             f"{self.num_train_timesteps}")
        if not self.cameras:
            raise InputError("go1: no image among the inputs, expected at least one")
        if not self.image_token < self.vocabulary:
            raise InputError(f"go1: image_token {self.image_token}, expected one below vocabulary {self.vocabulary}")

    n_obs_steps = 1
    tokenizer_of = "InternLM2's tokenizer"
    token_rows = property(attrgetter("vocabulary"))  # number of tokens that can be embedded
    has_stem = property(lambda self: isinstance(self.vision, KeypointStemSize))
    needs_every_camera = property(attrgetter("has_stem"))  # the stem identifies cameras by their position

    @property
    def image_size(self) -> tuple[int, int]:
        return self.vision.image, self.vision.image

    @property
    def image_tokens(self) -> int:
        """Tokens of an image."""
        return self.vision.tokens // (1 if self.has_stem else self.shuffle**2)

    @property
    def positions(self) -> int:
        """Largest number of positions of prompt, latent tokens and actions; 100 are for the text around images and
        question."""
        return len(self.cameras) * (self.image_tokens + 2) + self.text_length + 100 + self.horizon + 7

    @classmethod
    def from_published(cls, data: Mapping[str, Any], where: str) -> "GO1Config":
        """From config.json. Raises InputError that names a field that is missing or not supported."""
        parts = {name: value_of(dict, data.get(name) or {}, f"{where}: {name}") for name in EXPECTED if name}
        if "ps_version" not in data:  # the class's default differs from the published value
            raise InputError(f"{where}: missing ps_version, expected 'v2'")
        limits: dict[str, int] = {}
        for part, fields in EXPECTED.items():
            if part == "latent_planner_config" and not data.get("latent_planning"):
                continue
            row, place = (parts[part], f"{where}: {part}") if part else (data, where)
            check_only(row, fields, place)
            if kind := KINDS.get(part):
                found = value_of(list[str], row.get("architectures") or [], f"{place}: architectures")
                if found[:1] != [kind]:
                    raise InputError(f"{place}: architectures {shown(found)}, expected [{kind!r}]")
            scaling = value_of(dict, row.get("rope_scaling") or {}, f"{place}: rope_scaling")
            if scaling and scaling.get("type") != "dynamic":  # which only scales beyond `max_position_embeddings`
                raise InputError(f"{place}: rope_scaling {shown(scaling)}, expected none, or type dynamic")
            if scaling:
                most = value_of(Words, row.get("max_position_embeddings"), f"{place}: max_position_embeddings")
                limits[f"{place}: max_position_embeddings"] = most
        vision, text, expert = (parts[name] for name in ("vision_config", "llm_config", "action_config"))
        noise, ratio = parts["noise_scheduler_config"], data.get("downsample_ratio", 0.5)
        if ratio not in (0.25, 0.5, 1.0):
            raise InputError(f"{where}: downsample_ratio {shown(ratio)}, expected 0.25, 0.5 or 1")
        vision = _renamed(vision, f"{where}: vision_config", hidden="hidden_size", depth="num_hidden_layers",
                          heads="num_attention_heads", mlp="intermediate_size", patch="patch_size", image="image_size")
        if data.get("force_image_size", vision["image"]) != vision["image"]:
            raise InputError(f"{where}: force_image_size {shown(data['force_image_size'])}, expected image_size of "
                             f"vision_config {shown(vision['image'])}: other sizes are not supported")
        planner = None
        if value_of(bool, data.get("latent_planning"), f"{where}: latent_planning"):
            planner = _tower(DEFAULTS | parts["latent_planner_config"], f"{where}: latent_planner_config")
        values = {
            "vision": vision,
            "text": _tower({"rms_norm_eps": 1e-6, "rope_theta": 10_000} | text, f"{where}: llm_config"),
            "expert": _tower(DEFAULTS | expert, f"{where}: action_config"),
            "planner": planner,
            "image_token": data.get("img_context_token_id", IMAGE_TOKEN), "cameras": CAMERAS,
            "shuffle": round(1 / ratio),
            **_renamed({"state_dim": 8, "action_dim": 7, "action_chunk_size": 30} | expert, where,
                       state_dim="state_dim", action_dim="action_dim", horizon="action_chunk_size"),
            **_renamed(text, f"{where}: llm_config", vocabulary="vocab_size"),
            **_renamed(noise, f"{where}: noise_scheduler_config", num_train_timesteps="num_train_timesteps",
                       beta_schedule="beta_schedule", num_steps="num_inference_timesteps"),
        }  # fmt: skip
        config = record(cls, values, where)
        for name, most in limits.items():
            if most < config.positions:
                raise InputError(f"{name} {most}, expected {config.positions} or more: rope_scaling is not supported")
        return config

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        towers = {"text tower": self.text, "latent planner": self.planner, "action expert": self.expert}
        vision = "keypoint stem" if self.has_stem else f"InternViT of width {self.vision.hidden}"
        told = "1 / step_dt" if self.control_frequency is None else f"{self.control_frequency:g} Hz"
        return {
            "vision": f"{vision}, {self.image_tokens} tokens a camera",
            **{
                name: "none (GO-1 Air)" if tower is None else f"width {tower.width}, {tower.depth} layers"
                for name, tower in towers.items()
            },
            "language": f"instructions of up to {self.text_length} tokens",
            "denoising": f"{self.num_steps} steps of DPM-Solver++",
            "control frequency": told,
        }


def _renamed(row: Mapping[str, Any], where: str, **names: str) -> dict[str, Any]:
    """Our name -> value under the published name. Raises InputError if one is missing."""
    for theirs in names.values():
        if theirs not in row:
            raise InputError(f"{where}: missing {theirs}")
    return {ours: row[theirs] for ours, theirs in names.items()}


def _tower(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    values = _renamed(row, where, width="hidden_size", depth="num_hidden_layers", heads="num_attention_heads",
                      mlp="intermediate_size", epsilon="rms_norm_eps", theta="rope_theta")
    width, heads = value_of(Width, values["width"], where), value_of(Count, values["heads"], where)
    said = row.get("head_dim")
    return values | {"kv_heads": row.get("num_key_value_heads", heads), "head_dim": said or width // heads}
