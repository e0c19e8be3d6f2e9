"""Sizes and conventions of a π0-FAST policy, and their form in LeRobot's config.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Dimensions, Range, Rows, Words, record
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.formats.lerobot_steps import ACTION_TOKENS
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.pi0.config import GEMMA, VISION, paligemma_sizes, vision_row, with_towers
from vla_ros.policies.pi0.names import EMBEDDING, openpi_name

DECODING = ("free", "actions")
# Our name: LeRobot's.
LEROBOT_FIELDS = {
    "text_length": "tokenizer_max_length", "max_action_tokens": "max_action_tokens",
    "max_decoding_steps": "max_decoding_steps", "skip_tokens": "fast_skip_tokens", "temperature": "temperature",
    "check_opening": "validate_action_token_prefix",
}
READ_ELSEWHERE = (
    "n_obs_steps", "input_features", "output_features", "normalization_mapping", "paligemma_variant", "chunk_size",
    "n_action_steps", "image_resolution", "action_tokenizer_name", "use_relative_actions", "relative_exclude_joints",
    "action_feature_names",
)
# Not used: there is no expert, states and actions are not padded, keys and values are always cached, absent cameras are
# omitted, the tokenizer is the folder's, and the type of the weights is an option of loading.
NOT_USED = (
    "action_expert_variant", "max_state_dim", "max_action_dim", "use_kv_cache", "empty_cameras", "text_tokenizer_name",
    "dtype", "vlm_model_name",
)


@dataclass(frozen=True)
class Pi0FastConfig:
    """Configuration of a policy. The defaults are LeRobot's.

    Attributes:
        vision: the vision tower; SigLIP for the published sizes, the keypoint stem for small policies.
        prefix: the tower of all tokens.
        vocabulary: rows of the text embedding.
        cameras: names of the policy's image inputs, in the order of their tokens.
        state_dim: numbers of the state, which are words of the prompt.
        action_dim: D; horizon: H: a chunk is H · D coefficients.
        text_length: largest number of tokens of the prompt; longer ones are cut.
        max_action_tokens: largest number of tokens of a chunk in training; longer ones are cut.
        max_decoding_steps: largest number of generated tokens.
        skip_tokens: number of tokens at the end of the text vocabulary, before which those for actions are.
        temperature: 0 selects the most likely token, otherwise one is drawn.
        check_opening: whether a chunk must begin with "Action:".
        decoding: "free": any token may be generated, and an answer that is not a chunk is refused; "actions": the
            opening is given, and only tokens of actions and the end may be generated.
        tied: whether logits are computed with the embedding matrix.
    """

    vision: SiglipSize | KeypointStemSize = VISION["siglip_so400m"]
    prefix: GemmaSize = GEMMA["gemma_2b"]
    vocabulary: Words = 257_152
    cameras: Cameras = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    state_dim: Dimensions = 32
    action_dim: Annotated[int, Range(1, 10_000)] = 32
    horizon: Annotated[int, Range(1, 1000)] = 50
    text_length: Rows = 200
    max_action_tokens: Annotated[int, Range(2, 10_000)] = 256
    max_decoding_steps: Rows = 256
    skip_tokens: Annotated[int, Range(0, 10_000_000)] = 128
    temperature: Annotated[float, Range(0, 1000)] = 0.0
    check_opening: bool = True
    decoding: str = "free"
    tied: bool = False

    n_obs_steps = 1
    needs_every_camera = False
    prompt = "fast"
    tokenizer_of = "PaliGemma's tokenizer"
    token_rows = property(attrgetter("vocabulary"))  # number of tokens that can be embedded

    def __post_init__(self) -> None:
        if self.decoding not in DECODING:
            raise InputError(f"pi0_fast: decoding {self.decoding!r}, expected one of {DECODING}")

    @property
    def image_size(self) -> tuple[int, int]:
        return self.vision.image, self.vision.image

    def to_dict(self) -> dict[str, Any]:
        """A mapping for config.json that `from_dict` reads back."""
        return asdict(self) | {"vision": vision_row(self.vision)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "pi0_fast") -> "Pi0FastConfig":
        """From a mapping; towers are names of published sizes or mappings of their fields. Raises InputError."""
        return record(cls, with_towers(values, where, "prefix"), where)

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder, options: LoadOptions) -> "Pi0FastConfig":
        """Raises InputError that names the field."""
        data, where = folder.config, f"checkpoint {folder.path}"
        check_fields(data, (*LEROBOT_FIELDS.values(), *READ_ELSEWHERE, *NOT_USED), folder.path)
        rows = data.get("n_action_steps", 50)
        if rows != data.get("chunk_size", 50) and "horizon" not in options.overrides:
            raise InputError(
                f"{where}: n_action_steps {rows}, chunk_size {data.get('chunk_size', 50)}: LeRobot trains on chunks of "
                "chunk_size rows and decodes n_action_steps; expected the same number, or overrides.horizon in the "
                "policy file that says how many rows its tokens are"
            )
        values = {name: data[theirs] for name, theirs in LEROBOT_FIELDS.items() if theirs in data} | dict(
            cameras=tuple(feature.name.removeprefix("observation.images.") for feature in folder.images),
            horizon=rows, state_dim=folder.state_dim, action_dim=folder.action_dim,
        )
        step = folder.step(ACTION_TOKENS)
        for name, usual in (("max_action_tokens", 256), ("fast_skip_tokens", 128)):
            if step and step.config.get(name, data.get(name, usual)) != data.get(name, usual):
                raise InputError(f"{where}: {ACTION_TOKENS}.{name}: {shown(step.config[name])}, expected "
                                 f"{shown(data.get(name, usual))}, as in config.json")
        if folder.text_length:
            values["text_length"] = folder.text_length
        shapes = open_tensors(folder.path, options.base)[0].shapes
        values["tied"] = all(openpi_name(key) != EMBEDDING for key in shapes)  # LeRobot then embeds with the head
        sizes = paligemma_sizes(shapes, data, where)
        config = record(cls, sizes | values, f"{where}: config.json")
        resolution = data.get("image_resolution", list(config.image_size))
        if resolution != list(config.image_size):
            raise InputError(f"{where}: config.json: image_resolution {shown(resolution)}, its weights are for "
                             f"{config.vision.image}")
        if not config.state_dim:
            raise InputError(f"{where}: config.json: no observation.state among input_features, which the prompt holds")
        return config

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        vision = "SigLIP" if isinstance(self.vision, SiglipSize) else "keypoint stem"
        chosen = f"drawn at temperature {self.temperature:g}" if self.temperature else "the most likely"
        size = self.prefix
        return {
            "model": "π0-FAST",
            "vision": f"{vision}, {self.vision.tokens} tokens a camera",
            "language model": f"width {size.width}, depth {size.depth}, MLP {size.mlp}",
            "decoding": f"up to {self.max_decoding_steps} tokens, {chosen} of {self.decoding}",
            "prompt": f"instruction and state, up to {self.text_length} tokens",
        }
