"""What a RoboVLM is made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Dimensions, Range, Rows, Width, Words, record
from vla_ros.policies.robovlms.actions import BEHIND, Discretiser
from vla_ros.policies.robovlms.backbone import Backbone
from vla_ros.policies.robovlms.kosmos import Kosmos
from vla_ros.policies.robovlms.llava import Llava
from vla_ros.policies.robovlms.paligemma import PaliGemma
from vla_ros.policies.robovlms.prompts import LONGEST, PROMPTS
from vla_ros.policies.robovlms.stem import Stem
from vla_ros.policies.tool_actions import NO_TOOL

BACKBONES: dict[str, type[Backbone]] = {"kosmos": Kosmos, "paligemma": PaliGemma, "llava": Llava, "stem": Stem}
HEADS = {
    "lstm": "LSTM over the window",
    "gpt": "GPT-2 over the window",
    "fc": "of the newest observation only",
    "discrete": "action tokens one after the other",
}
READS = ("action", "text", "vision", "all")
HISTORIES = ("post", "pre")
SPACES = ("joint_position", "end_effector_delta")
LSTM_LAYERS, GPT_LAYERS, GPT_HEADS = 4, 8, 8


@dataclass(frozen=True)
class RoboVLMConfig:
    """Sizes.

    Attributes:
        backbone: of one of BACKBONES; in a mapping `kind` says which.
        head: a key of HEADS.
        hidden: width of the head.
        reads: what the head sees: learned action tokens behind the text, or what the backbone made of the "text", the
            "vision" or "all" tokens.
        latent: how many action tokens; or, with `pooling`, to how many the tokens are reduced by their maxima.
        history: "post": a window's steps are read one by one, and meet in the head; "pre": together, one behind the
            other. A robot is always shown one step at a time.
        window: steps of a window, in training, and of what the head remembers.
        chunk: rows that each step answers in training.
        decoded: of a discrete head, rows that are decoded; 0: all of the chunk.
        resampler: a perceiver reduces each image to 64 tokens.
        gripper: the last dimension is told as open or shut (1, -1), by a part of the head of its own.
        gripper_weight: of its loss.
        prompt: a key of PROMPTS.
        text_length: most tokens of a prompt.
        asked: rows that the question to a discrete head names.
        image_place: column of the text before which images stand, 1 where it starts with a token of its own.
        behind: columns of the text behind the action token.
        action_end: of a discrete head, id behind the last action token, `bins` before it are actions from `lowest` to
            `highest`; `stop`: id of the token behind the answer.
        decoding: which tokens a discrete head may write, "all" or "actions" alone.
        mu_law: small actions are spread.
        space: of the actions, one of SPACES.
    """

    action_dim: Dimensions
    cameras: Cameras
    backbone: Any
    head: str = "lstm"
    hidden: Width = 1024
    reads: str = "action"
    latent: Rows = 1
    pooling: bool = False
    history: str = "post"
    window: Rows = 8
    chunk: Rows = 10
    decoded: Annotated[int, Range(0, 10_000)] = 0
    resampler: bool = False
    gripper: bool = True
    gripper_weight: Annotated[float, Range(0, 1000)] = 0.01
    prompt: str = "kosmos"
    text_length: Annotated[int, Range(3, 10_000)] = LONGEST
    asked: Rows = 1
    image_place: Annotated[int, Range(0, 1)] = 1
    behind: Annotated[int, Range(0, 1)] = 1
    action_end: Words = 257
    stop: Annotated[int, Range(0, 10_000_000)] = 2
    bins: Annotated[int, Range(2, 100_000)] = 256
    lowest: float = -1.0
    highest: float = 1.0
    decoding: str = "all"
    mu_law: bool = False
    space: str = "joint_position"

    def __post_init__(self) -> None:
        for name, choices in (("head", HEADS), ("reads", READS), ("history", HISTORIES), ("prompt", PROMPTS),
                              ("space", SPACES), ("decoding", ("all", "actions"))):
            if getattr(self, name) not in choices:
                raise InputError(f"robovlms: {name} {shown(getattr(self, name))}, expected one of {sorted(choices)}")
        if not self.cameras or self.pose_dim < 1:
            raise InputError(f"robovlms: {len(self.cameras)} cameras, {self.action_dim} action dimensions; expected at "
                             f"least one camera and {2 if self.gripper else 1} dimensions")
        if self.head != "discrete" and self.reads != "action" and not self.pooling:
            raise InputError(f"robovlms: reads {self.reads!r} without pooling, expected pooling: true, or 'action'")
        if self.head == "gpt" and self.hidden % GPT_HEADS:
            raise InputError(f"robovlms: hidden {self.hidden}, expected a multiple of {GPT_HEADS} for head 'gpt'")
        if self.decoded > self.chunk:
            raise InputError(f"robovlms: decoded {self.decoded}, expected at most the chunk's {self.chunk}")
        if self.head == "discrete" and not (
                self.bins < self.action_end <= self.backbone.vocabulary > self.stop and self.lowest < self.highest):
            raise InputError(f"robovlms: {self.bins} bins from {self.lowest} to {self.highest}, action_end "
                             f"{self.action_end}, stop {self.stop}: expected bounds in their order and tokens of the "
                             f"vocabulary of {self.backbone.vocabulary}")

    n_obs_steps = 1
    state_width = 0  # it reads images and text alone
    token_rows = property(attrgetter("backbone.vocabulary"))
    past = property(lambda self: self.window - 1)
    remembers = property(lambda self: self.head in ("lstm", "gpt"))
    horizon = property(lambda self: self.decoded if self.head == "discrete" and self.decoded else self.chunk)
    image_size = property(lambda self: (self.backbone.image, self.backbone.image))
    pose_dim = property(lambda self: self.action_dim - self.gripper)
    columns = property(lambda self: self.latent * self.backbone.width)  # that the head sees of a step

    @property
    def tokens(self) -> Discretiser:
        """Actions as a discrete head writes them."""
        return Discretiser(self.bins, self.lowest, self.highest, self.action_end + BEHIND, 0)

    @property
    def kind(self) -> str:
        """Of the backbone, a key of BACKBONES."""
        return next(name for name, each in BACKBONES.items() if isinstance(self.backbone, each.Size))

    @property
    def tokenizer_of(self) -> str:
        return f"the tokenizer of its {self.kind} backbone"

    @property
    def spatial(self) -> str:
        """What its actions are that only a tool can follow; "" if they are joints."""
        return "" if self.space == "joint_position" else NO_TOOL

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "RoboVLMConfig":
        """Raises InputError that names a field that is unknown or out of range."""
        said = values.get("backbone")
        if isinstance(said, Mapping):
            row = dict(said)
            kind = row.pop("kind", None)
            if kind not in BACKBONES:
                raise InputError(f"{where}.backbone: kind {shown(kind)}, expected one of {sorted(BACKBONES)}")
            said = record(BACKBONES[kind].Size, row, f"{where}.backbone")
        if not isinstance(said, tuple(each.Size for each in BACKBONES.values())):
            raise InputError(f"{where}.backbone: {shown(said)}, expected a mapping of its kind and sizes")
        return record(cls, {**values, "backbone": said}, where)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "backbone": {"kind": self.kind, **asdict(self.backbone)}}

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        size, reads = self.backbone, "action token" if self.reads == "action" else f"{self.reads} tokens, pooled"
        row = {
            "backbone": f"{self.kind}, {size.width} wide, images of {size.image} pixels",
            "head": f"{self.head}: {HEADS[self.head]}",
            "window": f"{self.window} steps, {self.history}",
            "space": self.space.replace("_", " "),
        }
        return row if self.head == "discrete" else row | {"head reads": f"{self.latent} {reads}"}
