"""Configuration of a RoboVLM."""

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
        backbone: size of one of BACKBONES; in a mapping `kind` selects it.
        head: a key of HEADS.
        hidden: width of the head.
        reads: input of the head: learned action tokens after the text, or the backbone's output for the "text", the
            "vision" or "all" tokens.
        latent: number of action tokens or, with `pooling`, of tokens that remain after max pooling.
        history: "post": the steps of a window are read one by one, and combined in the head; "pre": they are read
            together, one after another. On a robot the input is always one step.
        window: steps of a window in training, and of the head's memory.
        chunk: rows that are predicted from each step in training.
        decoded: rows that a discrete head decodes; 0: the whole chunk.
        resampler: a perceiver reduces each image to 64 tokens.
        gripper: the last dimension is predicted as open or closed (1, -1), by a separate part of the head.
        gripper_weight: of its loss.
        prompt: a key of PROMPTS.
        text_length: largest number of tokens of a prompt.
        asked: number of rows named in the question to a discrete head.
        image_place: column of the text before which images are inserted, 1 if it starts with a start token.
        behind: columns of the text after the action token.
        action_end: of a discrete head, id after the last action token; the `bins` ids before it are actions from
            `lowest` to `highest`; `stop`: id of the token after the answer.
        decoding: tokens that a discrete head may generate, "all" or only "actions".
        mu_law: small actions are expanded.
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
    state_width = 0  # it only reads images and text
    token_rows = property(attrgetter("backbone.vocabulary"))
    past = property(lambda self: self.window - 1)
    remembers = property(lambda self: self.head in ("lstm", "gpt"))
    horizon = property(lambda self: self.decoded if self.head == "discrete" and self.decoded else self.chunk)
    image_size = property(lambda self: (self.backbone.image, self.backbone.image))
    pose_dim = property(lambda self: self.action_dim - self.gripper)
    columns = property(lambda self: self.latent * self.backbone.width)  # input of the head for one step

    @property
    def tokens(self) -> Discretiser:
        """Action tokens of a discrete head."""
        return Discretiser(self.bins, self.lowest, self.highest, self.action_end + BEHIND, 0)

    @property
    def kind(self) -> str:
        """Kind of the backbone, a key of BACKBONES."""
        return next(name for name, each in BACKBONES.items() if isinstance(self.backbone, each.Size))

    @property
    def tokenizer_of(self) -> str:
        return f"the tokenizer of its {self.kind} backbone"

    @property
    def spatial(self) -> str:
        """Description of actions that only a tool can follow; "" if they are joints."""
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
