"""Sizes and conventions of a π0 or π0.5 policy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize

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
_KINDS = {"siglip": SiglipSize, "keypoint_stem": KeypointStemSize}
PROMPTS = ("pi0", "pi05", "pi05_padded")


@dataclass(frozen=True)
class Pi0Config:
    """One policy. The defaults are the published π0.

    Attributes:
        vision: the vision tower; SigLIP for the published sizes, the keypoint stem for small policies.
        prefix: the tower of image and text tokens.
        expert: the tower of state and action tokens.
        vocabulary: rows of the text embedding.
        cameras: names of the policy's image inputs, in the order of their tokens.
        state_dim: width of the state vector, robots with fewer joints are padded with zeros.
        action_dim: D, likewise.
        horizon: H, rows per chunk.
        step_dt: s between rows.
        text_length: tokens of the prompt, longer ones are cut.
        adaptive: π0.5: time enters through the expert's norms, and there is no state token.
        prompt: "pi0" (the instruction), "pi05" (the instruction and the state in 256 steps) or "pi05_padded" (with
            the state's padding, as LeRobot wrote it until 0.4).
        num_steps: Euler steps of a prediction.
        loss_dims: how many of the D action dimensions the loss covers, all when None (the rest is padding).
    """

    vision: SiglipSize | KeypointStemSize = VISION["siglip_so400m"]
    prefix: GemmaSize = GEMMA["gemma_2b"]
    expert: GemmaSize = GEMMA["gemma_300m"]
    vocabulary: int = 257_152
    cameras: tuple[str, ...] = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    state_dim: int = 32
    action_dim: int = 32
    horizon: int = 50
    step_dt: float = 0.02
    text_length: int = 48
    adaptive: bool = False
    prompt: str = "pi0"
    num_steps: int = 10
    loss_dims: int | None = None
    time_beta: tuple[float, float] = (1.5, 1.0)
    time_scale: float = 0.999
    time_offset: float = 0.001
    min_period: float = 4e-3
    max_period: float = 4.0

    n_obs_steps = 1

    def __post_init__(self) -> None:
        for name in ("depth", "heads", "kv_heads", "head_dim"):
            if getattr(self.prefix, name) != getattr(self.expert, name):
                raise InputError(
                    f"pi0: {name} of prefix {getattr(self.prefix, name)} and of expert {getattr(self.expert, name)}: "
                    "expected the same, both towers share one attention"
                )
        if self.prompt not in PROMPTS:
            raise InputError(f"pi0: prompt {self.prompt!r}, expected one of {PROMPTS}")
        positive = ("vocabulary", "state_dim", "action_dim", "horizon", "step_dt", "text_length", "num_steps")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(f"pi0: {name} {getattr(self, name)}, expected more than zero")

    @property
    def state_token(self) -> bool:
        """Whether the state is a token of the expert (π0), rather than words of the prompt (π0.5)."""
        return not self.adaptive

    def to_dict(self) -> dict[str, Any]:
        """A mapping for config.json that `from_dict` reads back."""
        kind = next(name for name, size in _KINDS.items() if isinstance(self.vision, size))
        return asdict(self) | {"vision": {"kind": kind, **asdict(self.vision)}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "pi0") -> "Pi0Config":
        """From a mapping; towers are names of published sizes or mappings of their fields. Raises InputError."""
        values = dict(data)
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise InputError(f"{where}: unknown field {name!r}, expected some of {sorted(known)}")
        for name in ("prefix", "expert"):
            if name in values:
                values[name] = _size(values[name], GEMMA, lambda row: GemmaSize(**row), f"{where}.{name}")
        if "vision" in values:
            values["vision"] = _size(values["vision"], VISION, _vision, f"{where}.vision")
        for name in ("cameras", "time_beta"):
            if name in values:
                values[name] = tuple(values[name])
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"{where}: {error}") from None


def _vision(row: Mapping[str, Any]) -> SiglipSize | KeypointStemSize:
    row = dict(row)
    kind = row.pop("kind", None)
    if kind not in _KINDS:
        raise InputError(f"kind {kind!r}, expected one of {sorted(_KINDS)}")
    if "channels" in row:
        row["channels"] = tuple(row["channels"])
    return _KINDS[kind](**row)


def _size(value: Any, named: Mapping[str, Any], make: Any, where: str) -> Any:
    if isinstance(value, tuple(type(size) for size in named.values())):
        return value
    if isinstance(value, str) and value in named:
        return named[value]
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r}, expected one of {sorted(named)} or a mapping of sizes")
    try:
        return make(value)
    except (TypeError, InputError) as error:
        raise InputError(f"{where}: {error}") from None
