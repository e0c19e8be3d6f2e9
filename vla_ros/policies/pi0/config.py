"""Sizes and conventions of a π0 or π0.5 policy, and their form in LeRobot's and openpi's config.json."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Dimensions, Range, Rows, Words, check_only, record, value_of
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.backbones import vision_size
from vla_ros.policies.flow import USUAL, Guidance
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.formats.lerobot_robot import check_aloha
from vla_ros.policies.formats.lerobot_rtc import read_guidance
from vla_ros.policies.formats.weights import Shape
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.pi0.names import EMBEDDING, HEAD, P, X, openpi_name
from vla_ros.policies.pi0.versions import find_version

GEMMA = {
    "gemma_2b": GemmaSize(width=2048, depth=18, mlp=16384, heads=8, kv_heads=1, head_dim=256),
    "gemma_300m": GemmaSize(width=1024, depth=18, mlp=4096, heads=8, kv_heads=1, head_dim=256),
    "dummy": GemmaSize(width=64, depth=4, mlp=128, heads=8, kv_heads=1, head_dim=16),
    "tiny_prefix": GemmaSize(width=128, depth=3, mlp=256, heads=4, kv_heads=1, head_dim=32),
    "tiny_expert": GemmaSize(width=256, depth=3, mlp=768, heads=4, kv_heads=1, head_dim=32),
}
VISION = {
    "siglip_so400m": SiglipSize(hidden=1152, depth=27, heads=16, mlp=4304, patch=14, image=224),
    "keypoint_stem": KeypointStemSize(),
}
PROMPTS = ("pi0", "pi0_verbatim", "pi05", "pi05_padded")
TEXT_LENGTH = {False: 48, True: 200}  # by `adaptive`

LEROBOT_FIELDS = {  # in config.json: our name
    "chunk_size": "horizon", "tokenizer_max_length": "text_length", "num_inference_steps": "num_steps",
    "num_steps": "num_steps",  # until 0.3
    "time_sampling_scale": "time_scale", "time_sampling_offset": "time_offset", "min_period": "min_period",
    "max_period": "max_period", "freeze_vision_encoder": "freeze_vision_encoder",
    "train_expert_only": "train_expert_only", "train_state_proj": "train_state_proj",
}
READ_ELSEWHERE = (
    "n_obs_steps", "input_features", "output_features", "normalization_mapping", "max_state_dim", "max_action_dim",
    "paligemma_variant", "action_expert_variant", "image_resolution", "resize_imgs_with_padding",
    "time_sampling_beta_alpha", "time_sampling_beta_beta", "use_relative_actions", "relative_exclude_joints",
    "action_feature_names", "adapt_to_pi_aloha", "use_delta_joint_actions_aloha",
)
# Not used: the executor follows time, the expert's width comes from the tensors, the prefix is always cached, all kinds
# of attention give the same result, the type is an option of loading, and absent cameras are omitted.
NOT_USED = ("n_action_steps", "proj_width", "use_cache", "attention_implementation", "dtype", "empty_cameras")


@dataclass(frozen=True)
class Pi0Config:
    """Configuration of a policy. The defaults are the published π0.

    Attributes:
        vision: the vision tower; SigLIP for the published sizes, the keypoint stem for small policies.
        prefix: the tower of image and text tokens.
        expert: the tower of state and action tokens.
        vocabulary: rows of the text embedding.
        cameras: names of the policy's image inputs, in the order of their tokens.
        state_dim: width of the state vector, robots with fewer joints are padded with zeros.
        action_dim: D, likewise.
        horizon: H, rows per chunk.
        text_length: largest number of tokens of the prompt; longer ones are cut.
        adaptive: π0.5: time enters through the expert's norms, and there is no state token.
        prompt: "pi0" (the instruction, without underscores, line feeds and blanks at its ends, as openpi has it),
            "pi0_verbatim" (the instruction unchanged, as in LeRobot and transformers), "pi05" (the instruction
            and the state in 256 steps) or "pi05_padded" (with the state's padding, as LeRobot wrote it until 0.4).
        num_steps: Euler steps of a prediction.
        guidance: of real-time chunking.
        freeze_vision_encoder, train_expert_only, train_state_proj: what is not trained.
        loss_dims: how many of the D action dimensions the loss covers, all when None (the rest is padding).
    """

    vision: SiglipSize | KeypointStemSize = VISION["siglip_so400m"]
    prefix: GemmaSize = GEMMA["gemma_2b"]
    expert: GemmaSize = GEMMA["gemma_300m"]
    vocabulary: Words = 257_152
    cameras: Cameras = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    state_dim: Dimensions = 32
    action_dim: Dimensions = 32
    horizon: Rows = 50
    text_length: Rows = 48
    adaptive: bool = False
    prompt: str = "pi0"
    num_steps: Rows = 10
    loss_dims: Dimensions | None = None
    guidance: Guidance = USUAL
    freeze_vision_encoder: bool = False
    train_expert_only: bool = False
    train_state_proj: bool = True
    time_beta: tuple[float, float] = (1.5, 1.0)
    time_scale: float = 0.999
    time_offset: float = 0.001
    min_period: Annotated[float, Range(1e-9, 1e9)] = 4e-3
    max_period: Annotated[float, Range(1e-9, 1e9)] = 4.0

    n_obs_steps = 1
    pads = True
    needs_every_camera = False
    own_dims = "loss_dims"
    tokenizer_of = "PaliGemma's tokenizer"
    token_rows = property(attrgetter("vocabulary"))  # number of tokens that can be embedded

    def __post_init__(self) -> None:
        for name in ("depth", "heads", "kv_heads", "head_dim"):
            if getattr(self.prefix, name) != getattr(self.expert, name):
                raise InputError(f"pi0: {name} of prefix {getattr(self.prefix, name)} and of expert "
                                 f"{getattr(self.expert, name)}: expected the same, both towers share one attention")
        if self.prompt not in PROMPTS:
            raise InputError(f"pi0: prompt {self.prompt!r}, expected one of {PROMPTS}")
        for name in ("vocabulary", "state_dim", "action_dim", "horizon", "text_length", "num_steps"):
            if not getattr(self, name) > 0:
                raise InputError(f"pi0: {name} {getattr(self, name)}, expected more than zero")
        self.guidance.check(self.horizon)

    @property
    def state_token(self) -> bool:
        """Whether the state is a token of the expert (π0), rather than words of the prompt (π0.5)."""
        return not self.adaptive

    @property
    def image_size(self) -> tuple[int, int]:
        return self.vision.image, self.vision.image

    def to_dict(self) -> dict[str, Any]:
        """A mapping for config.json that `from_dict` reads back."""
        return asdict(self) | {"vision": vision_row(self.vision)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "pi0") -> "Pi0Config":
        """From a mapping; towers are names of published sizes or mappings of their fields. Raises InputError."""
        return record(cls, with_towers(values, where, "prefix", "expert"), where)

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder, options: LoadOptions) -> "Pi0Config":
        """Raises InputError that names a field that is unknown or not supported."""
        data, adaptive, where = folder.config, folder.config["type"] == "pi05", f"checkpoint {folder.path}: config.json"
        check_fields(data, (*LEROBOT_FIELDS, *READ_ELSEWHERE, *NOT_USED), folder.path)
        check_aloha(folder, options)
        values = dict(
            cameras=tuple(feature.name.removeprefix("observation.images.") for feature in folder.images),
            adaptive=adaptive,
            prompt=find_version(folder, options)[0].prompt(adaptive),
            text_length=TEXT_LENGTH[adaptive],
            loss_dims=folder.action_dim,
            guidance=read_guidance(folder)[0],
            time_beta=[data.get("time_sampling_beta_alpha", 1.5), data.get("time_sampling_beta_beta", 1.0)],
        )
        values |= {name: data[theirs] for theirs, name in LEROBOT_FIELDS.items() if theirs in data}
        if folder.text_length:
            values["text_length"] = folder.text_length
        config = record(cls, _sizes(open_tensors(folder.path, options.base)[0].shapes, data, where) | values, where)
        size = list(config.image_size)
        check_only(data, {"n_obs_steps": 1, "use_delta_joint_actions_aloha": False, "image_resolution": size,
                          "resize_imgs_with_padding": size}, where)
        return config

    @classmethod
    def from_openpi(cls, data: Mapping[str, Any], shapes: Mapping[str, Shape], where: str) -> "Pi0Config":
        """The file does not contain which of the two models it is; adaptive norms show it. Raises InputError."""
        names = {openpi_name(key) for key in shapes}
        adaptive = bool(data.get("pi05", any(name.startswith(X) and ".dense." in name for name in names)))
        values = dict(
            horizon=data["action_horizon"],
            text_length=data.get("max_token_len") or TEXT_LENGTH[adaptive],
            adaptive=adaptive,
            prompt="pi05" if adaptive and data.get("discrete_state_input", True) is not False else "pi0",
        )
        return record(cls, _sizes(shapes, data, where) | values, f"{where}: config.json")

    @classmethod
    def from_transformers(cls, data: Mapping[str, Any], where: str) -> "Pi0Config":
        """Raises InputError."""
        from transformers import PI0Config  # adds the defaults of its classes

        try:
            whole = PI0Config(**{name: value for name, value in data.items() if name != "model_type"})
            text, vision, expert = whole.vlm_config.text_config, whole.vlm_config.vision_config, whole.dit_config
            towers = {
                name: {
                    "width": size.hidden_size, "depth": size.num_hidden_layers, "mlp": size.intermediate_size,
                    "heads": size.num_attention_heads, "kv_heads": size.num_key_value_heads, "head_dim": size.head_dim,
                }
                for name, size in (("prefix", text), ("expert", expert))
            }
            values = dict(
                vision=dict(
                    hidden=vision.hidden_size, depth=vision.num_hidden_layers, heads=vision.num_attention_heads,
                    mlp=vision.intermediate_size, patch=vision.patch_size, image=vision.image_size,
                ),
                vocabulary=text.vocab_size,
                state_dim=whole.max_state_dim, action_dim=whole.max_action_dim, horizon=whole.chunk_size,
                num_steps=whole.num_inference_steps,
                time_beta=(whole.time_sampling_beta_alpha, whole.time_sampling_beta_beta),
                time_scale=whole.time_sampling_scale, time_offset=whole.time_sampling_offset,
                min_period=whole.min_period, max_period=whole.max_period, prompt="pi0_verbatim",
            )
        except Exception as error:  # the library checks little; its classes fail when they use a value
            raise InputError(f"{where}: not a configuration of π0: {' '.join(str(error).split())}") from error
        return cls.from_dict(values | towers, where)

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        vision = "SigLIP" if isinstance(self.vision, SiglipSize) else "keypoint stem"
        prefix, expert = (
            f"width {size.width}, depth {size.depth}, MLP {size.mlp}" for size in (self.prefix, self.expert)
        )
        return {
            "model": "π0.5 (adaptive norms)" if self.adaptive else "π0",
            "vision": f"{vision}, {self.vision.tokens} tokens a camera",
            "prefix": prefix,
            "expert": expert,
            "denoising": f"{self.num_steps} steps",
            "prompt": f"{self.prompt}, up to {self.text_length} tokens",
        }


def with_towers(values: Mapping[str, Any], where: str, *towers: str) -> dict[str, Any]:
    """The mapping with sizes in place of the names of published towers. Raises InputError."""
    values = dict(values)
    for name in towers:
        said = values.get(name, {})
        if isinstance(said, str):
            if said not in GEMMA:
                raise InputError(f"{where}.{name}: {shown(said)}, expected one of {sorted(GEMMA)} or their fields")
            values[name] = GEMMA[said]
    if "vision" in values:
        values["vision"] = vision_size(values["vision"], VISION, f"{where}.vision")
    return values


def vision_row(size: SiglipSize | KeypointStemSize) -> dict[str, Any]:
    """A vision tower in the form that `backbones.vision_size` reads."""
    return {"kind": "siglip" if isinstance(size, SiglipSize) else "keypoint_stem", **asdict(size)}


def _sizes(shapes: Mapping[str, Shape], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Sizes of the towers: by the names of their variants, or from the tensors if the name is not known.

    Raises InputError if a tensor that the sizes are read from is missing.
    """
    names, shape = _named(shapes, where)
    variant = value_of(str, data.get("action_expert_variant", "gemma_300m"), f"{where}: action_expert_variant")
    state = shape(2, "state_proj.weight")[1] if "state_proj.weight" in names else data.get("action_dim", 32)
    return paligemma_sizes(shapes, data, where) | {
        "expert": GEMMA.get(variant) or _gemma_of(X, names, shape),
        "action_dim": data.get("max_action_dim", data.get("action_dim", shape(1, "action_out_proj.bias")[0])),
        "state_dim": data.get("max_state_dim", state),
    }


def paligemma_sizes(shapes: Mapping[str, Shape], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same only for the vision-language model: `vision`, `prefix` and `vocabulary`."""
    names, shape = _named(shapes, where)
    variant = value_of(str, data.get("paligemma_variant", "gemma_2b"), f"{where}: paligemma_variant")
    prefix = GEMMA.get(variant)
    return {
        "vision": VISION["siglip_so400m"] if prefix else _siglip(names, shape),
        "prefix": prefix or _gemma_of(f"{P}.language_model", names, shape),
        "vocabulary": shape(2, EMBEDDING, HEAD)[0],
    }


def _named(shapes: Mapping[str, Shape], where: str) -> tuple[dict[str, Shape], Any]:
    """openpi's name -> shape, and a function that returns the shape of the first existing name."""
    names = {openpi_name(key): shape for key, shape in shapes.items()}

    def shape(dims: int, *choices: str) -> Shape:
        for name in choices:
            if name in names:
                if len(names[name]) != dims or min(names[name]) < 1:
                    raise InputError(f"{where}: {name} {list(names[name])}, expected {dims} sizes above zero")
                return names[name]
        raise InputError(f"{where}: its tensors do not fit a π0: 1 missing: {choices[0]}")

    return names, shape


def _gemma_of(tower: str, names: Mapping[str, Shape], shape: Any) -> GemmaSize:
    """Every published variant has one key/value head, so the number of the key's rows is the width of a head."""
    layer = f"{tower}.layers.0"
    inner, width = shape(2, f"{layer}.self_attn.q_proj.weight")
    head_dim = shape(2, f"{layer}.self_attn.k_proj.weight")[0]
    mlp = shape(2, f"{layer}.mlp.up_proj.weight")[0]
    values = (width, _depth(f"{tower}.layers.", names), mlp, inner // head_dim, 1, head_dim)
    return record(GemmaSize, dict(zip(GemmaSize.__dataclass_fields__, values, strict=True)), tower)


def _siglip(names: Mapping[str, Shape], shape: Any) -> SiglipSize:
    """SigLIP of any size with the 16 heads of so400m, which is not visible in the tensors."""
    vision = f"{P}.vision_tower.vision_model"
    hidden, _, patch, _ = shape(4, f"{vision}.embeddings.patch_embedding.weight")
    tokens = shape(2, f"{vision}.embeddings.position_embedding.weight")[0]
    mlp = shape(2, f"{vision}.encoder.layers.0.mlp.fc1.weight")[0]
    depth = _depth(f"{vision}.encoder.layers.", names)
    values = (hidden, depth, VISION["siglip_so400m"].heads, mlp, patch, round(tokens**0.5) * patch)
    return record(SiglipSize, dict(zip(SiglipSize.__dataclass_fields__, values, strict=True)), vision)


def _depth(start: str, names: Mapping[str, Shape]) -> int:
    numbers = (re.match(r"\d{1,4}(?=\.)", name[len(start) :]) for name in names if name.startswith(start))
    return 1 + max((int(number[0]) for number in numbers if number), default=-1)
