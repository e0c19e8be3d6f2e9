"""Configuration of OpenVLA and OpenVLA-OFT, and how it is read from config.json and the shapes of the tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Count, Dimensions, Layers, Range, Rows, Words, check_only, record, value_of
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.llama import TextSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.openvla.tokens import BINS
from vla_ros.policies.tool_actions import NO_TOOL

HEADS = {
    "autoregressive": "action tokens one after the other",
    "tokens": "all action tokens at once",
    "l1": "regression",
    "diffusion": "denoising",
}
SPACES = ("joint_position", "end_effector_delta")
GRIPPERS = {  # after the end effector's differences
    "opening": "as in the data, where 1 is open",
    "binary": "-1, shut, or 1, open",
    "libero": "1, shut, or -1, open, as LIBERO's simulator takes it",
}
_QUESTION = "What action should the robot take to {}?"
PROMPTS = {
    "openvla": f"In: {_QUESTION}\nOut:",
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
              f"detailed, and polite answers to the user's questions. USER: {_QUESTION} ASSISTANT:",
}
# timm's name of a tower: its heads and, at its published width, how many blocks it has.
TOWERS = {
    "vit_large_patch14_reg4_dinov2.lvd142m": (16, {1024: 24}),
    "vit_so400m_patch14_siglip_224": (16, {1152: 27}),
    "vit_so400m_patch14_siglip_384": (16, {1152: 27}),
}
# Defaults of LlamaConfig for fields that text_config omits, and fields with only one supported value.
LLAMA = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "vocab_size": 32000, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
LLAMA_ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
              "rope_scaling": None}


@dataclass(frozen=True)
class TowerSize(SiglipSize):
    """`prefix`: class token and registers before the patches; DINOv2 has five, SigLIP none."""

    prefix: Annotated[int, Range(0, 100)] = 0
    layer_scale: bool = False


@dataclass(frozen=True)
class DiffusionSchedule:
    """OFT's schedule, in the form of `policies.diffusion.schedule`."""

    num_train_timesteps: int
    noise_scheduler_type = "DDIM"
    beta_schedule, beta_start, beta_end = "squaredcos_cap_v2", 0.0001, 0.02
    clip_sample, clip_sample_range, prediction_type = True, 1.0, "epsilon"


@dataclass(frozen=True)
class OpenVLAConfig:
    """Sizes.

    Attributes:
        dino, siglip: towers whose features are joined; older policies only have the second.
        stem: in their place, this project's small tower, which locates what the prompt names.
        text, layers, theta: the Llama.
        head: how actions are computed, a key of HEADS; all but "autoregressive" are OFT's.
        chunk: rows of an answer.
        state_dim: of the proprioception, one token of its own; 0: it reads none.
        film: the towers get the prompt's mean embedding.
        prompt: a key of PROMPTS.
        action_end: id after the last action token; the 256 ids before it are actions.
        blank, stop: ids of the token between prompt and actions, and of the one after the actions.
        text_length: largest number of tokens of a prompt.
        num_train_timesteps, num_steps: of the denoising, in training and at inference.
        space: of the actions, one of SPACES.
        gripper: a key of GRIPPERS.
    """

    action_dim: Dimensions
    cameras: Cameras
    text: TextSize
    siglip: TowerSize | None = None
    dino: TowerSize | None = None
    stem: KeypointStemSize | None = None
    layers: Layers = 32
    theta: Annotated[float, Range(1, 1e9)] = 10_000.0
    head: str = "autoregressive"
    chunk: Rows = 1
    state_dim: Dimensions = 0
    film: bool = False
    prompt: str = "openvla"
    action_end: Words = 32_000
    blank: Annotated[int, Range(0, 10_000_000)] = 29_871
    stop: Annotated[int, Range(0, 10_000_000)] = 2
    text_length: Rows = 128
    num_train_timesteps: Rows = 50
    num_steps: Rows = 50
    space: str = "joint_position"
    gripper: str = "opening"

    def __post_init__(self) -> None:
        for name, choices in (("head", HEADS), ("prompt", PROMPTS), ("space", SPACES), ("gripper", GRIPPERS)):
            if getattr(self, name) not in choices:
                raise InputError(f"openvla: {name} {shown(getattr(self, name))}, expected one of {sorted(choices)}")
        if not self.cameras or not self.action_dim:
            raise InputError(f"openvla: {len(self.cameras)} cameras, {self.action_dim} action dimensions; expected at "
                             "least one of each")
        if self.gripper != "opening" and self.space == "joint_position":
            raise InputError(f"openvla: gripper {self.gripper!r} with joint positions, expected 'opening'")
        if self.head == "autoregressive" and (self.state_dim or self.film):
            raise InputError(f"openvla: state_dim {self.state_dim}, film {self.film} with head 'autoregressive', "
                             "expected 0 and false")
        if not BINS < self.action_end <= self.text.vocabulary or max(self.blank, self.stop) >= self.text.vocabulary:
            raise InputError(f"openvla: action_end {self.action_end}, blank {self.blank}, stop {self.stop}: expected "
                             f"tokens of the vocabulary of {self.text.vocabulary}, {BINS} of them actions")
        if self.num_steps > self.num_train_timesteps:
            raise InputError(f"openvla: num_steps {self.num_steps}, expected at most num_train_timesteps "
                             f"{self.num_train_timesteps}")
        if bool(self.siglip) == bool(self.stem) or self.dino and self.stem or self.stem and self.film:
            raise InputError(f"openvla: towers {list(self.towers)}, film {self.film}: expected siglip, alone or beside "
                             "dino, or stem, which needs no FiLM to read the prompt")
        for name, size in {} if self.stem else self.towers.items():
            if size.depth < 2 or size.hidden % size.heads or size.image < size.patch:
                raise InputError(f"openvla: {name}: depth {size.depth}, hidden {size.hidden}, heads {size.heads}, "
                                 f"image {size.image}, patch {size.patch}: expected two blocks or more, a width that "
                                 "the heads divide and an image of one patch or more")
        if self.text.heads % self.text.kv_heads or self.text.head_dim % 2:
            raise InputError(f"openvla: text: {self.text.heads} heads, {self.text.kv_heads} of keys, each of "
                             f"{self.text.head_dim}: expected the second to divide the first, the third to be even")
        if len({size.tokens for size in self.towers.values()}) > 1 or len({t.image for t in self.towers.values()}) > 1:
            raise InputError("openvla: towers of different images or numbers of patches, expected the same")

    n_obs_steps = 1
    horizon = property(attrgetter("chunk"))
    token_rows = property(attrgetter("text.vocabulary"))
    parallel = property(lambda self: self.head != "autoregressive")
    answers = property(lambda self: self.chunk * self.action_dim)  # numbers, or tokens, of an answer

    @property
    def schedule(self) -> "DiffusionSchedule":
        return DiffusionSchedule(self.num_train_timesteps)

    @property
    def towers(self) -> dict[str, TowerSize | KeypointStemSize]:
        return {name: size for name in ("dino", "siglip", "stem") if (size := getattr(self, name))}

    @property
    def image_tokens(self) -> int:
        """Tokens of an image."""
        return (self.stem or self.siglip).tokens

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the towers, each of which has its own mean and std of pixels."""
        return tuple(self.towers)

    @property
    def tokenizer_of(self) -> str:
        return "Llama 2's tokenizer"

    @property
    def image_size(self) -> tuple[int, int]:
        side = (self.stem or self.siglip).image
        return side, side

    @property
    def unserved(self) -> str:
        """Why no robot can follow its actions yet; "" if one can."""
        return "" if self.gripper == "opening" else (
            f"its gripper is answered as {GRIPPERS[self.gripper]}; leave overrides.gripper out"
        )

    @property
    def spatial(self) -> str:
        """Description of actions that only a tool can follow; "" if they are joints."""
        return "" if self.space == "joint_position" else NO_TOOL

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        towers = "keypoint stem" if self.stem else " and ".join(
            f"{'DINOv2' if n == 'dino' else 'SigLIP'} of width {s.hidden}" for n, s in self.towers.items())
        steps = f", {self.num_steps} of {self.num_train_timesteps} steps" if self.head == "diffusion" else ""
        return {
            "vision": f"{towers}, {self.image_tokens} tokens a camera{', FiLM' if self.film else ''}",
            "text tower": f"Llama of width {self.text.width}, {self.layers} layers",
            "head": f"{self.head}: {HEADS[self.head]}{steps}",
            "space": self.space.replace("_", " ") + (
                f", gripper {GRIPPERS[self.gripper]}" if self.gripper != "opening" else ""),
        }


def text_sizes(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`text`, `layers`, `theta` of a config.json. Raises InputError for unsupported values."""
    said = value_of(dict[str, Any], config.get("text_config") or {}, f"{where}: text_config")
    check_only(said, LLAMA_ONLY, f"{where}: text_config")
    rope = value_of(dict[str, Any], said.get("rope_parameters") or {}, f"{where}: text_config.rope_parameters")
    if rope.keys() - {"rope_theta", "rope_type"} or rope.get("rope_type", "default") != "default":
        raise InputError(f"{where}: text_config.rope_parameters {shown(rope)}, expected rope_theta alone")
    said |= {name: rope[name] for name in rope.keys() & {"rope_theta"}}  # where newer releases of transformers store it
    row = LLAMA | {name: value for name, value in said.items() if name in LLAMA and value is not None}
    heads = value_of(Count, row["num_attention_heads"], f"{where}: text_config.num_attention_heads")
    width = value_of(int, row["hidden_size"], f"{where}: text_config.hidden_size")
    head_dim = said.get("head_dim") or width // heads
    text = {
        "width": width, "heads": heads, "kv_heads": said.get("num_key_value_heads") or heads, "head_dim": head_dim,
        "mlp": row["intermediate_size"], "vocabulary": row["vocab_size"], "epsilon": row["rms_norm_eps"],
    }
    return {
        "text": record(TextSize, text, f"{where}: text_config"),
        "layers": value_of(Layers, row["num_hidden_layers"], f"{where}: text_config.num_hidden_layers"),
        "theta": value_of(float, row["rope_theta"], f"{where}: text_config.rope_theta"),
    }


def towers(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, TowerSize]:
    """`siglip`, and `dino` of a fused backbone, by the names in config.json and the shapes of the tensors.

    Raises InputError.
    """
    names = value_of(list[str], config.get("timm_model_ids"), f"{where}: timm_model_ids")
    sides = value_of(list[int], config.get("image_sizes"), f"{where}: image_sizes")
    layers = value_of(list[str | None], config.get("timm_override_act_layers") or [], f"{where}: act layers")
    if any(layers):
        raise InputError(f"{where}: timm_override_act_layers {shown(layers)}, expected null: nothing else is supported")
    keys = ("featurizer", "fused_featurizer")[: len(names)]
    if len(names) not in (1, 2) or len(sides) != len(names) or "siglip" not in names[-1] or (
            len(names) == 2 and "dinov2" not in names[0]):
        raise InputError(f"{where}: timm_model_ids {shown(names)}, image_sizes {shown(sides)}; expected a SigLIP, or a "
                         "DINOv2 and a SigLIP")
    return {
        "dino" if "dinov2" in name else "siglip": _tower(name, side, f"vision_backbone.{key}", shapes, where)
        for name, side, key in zip(names, sides, keys, strict=True)
    }


def _tower(name: str, side: int, key: str, shapes: Mapping[str, tuple[int, ...]], where: str) -> TowerSize:
    if name not in TOWERS:
        raise InputError(f"{where}: timm_model_ids: {shown(name)}, expected some of {sorted(TOWERS)}")
    heads, depths = TOWERS[name]
    patch = shapes.get(f"{key}.patch_embed.proj.weight", ())
    if len(patch) != 4:
        raise InputError(f"{where}: no tensor {key}.patch_embed.proj.weight of four dimensions for {name}")
    blocks = [match for k in shapes if (match := re.fullmatch(rf"{key}\.blocks\.(\d{{1,4}})\.(?:block\.)?(.+)", k))]
    depth = 1 + max((int(match[1]) for match in blocks), default=-1)
    if depth != depths.get(patch[0], depth):
        raise InputError(f"{where}: {name} of {depth} blocks, expected {depths[patch[0]]}")
    mlp = next((shapes[match[0]] for match in blocks if match[2] == "mlp.fc1.bias"), ())
    first = [(*shapes.get(f"{key}.{token}", ()), 0, 0)[1] for token in ("cls_token", "reg_token")]
    row = {
        "hidden": patch[0], "depth": depth, "heads": heads, "mlp": sum(mlp), "patch": patch[-1], "image": side,
        "prefix": sum(first), "layer_scale": any(match[2].startswith("ls1") for match in blocks),
    }
    return record(TowerSize, row, f"{where}: {name}")
