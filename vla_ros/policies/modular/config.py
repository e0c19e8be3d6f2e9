"""Which parts a composed policy has."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any

from torch import nn

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Dimensions, Range, Rows, record
from vla_ros.policies.parts.choice import Choice, chosen
from vla_ros.policies.parts.registry import ENCODERS, FUSIONS, HEADS, LANGUAGES, PROJECTORS, TEMPORALS, VISION

MOST_TOWERS = 16
_NAMED = (nn.ModuleDict, nn.ParameterDict)  # which have their modules and parameters as attributes
Shape = tuple[Annotated[int, Range(1, 1_000_000)], ...]


@dataclass(frozen=True)
class ModularConfig:
    """The parts.

    Attributes:
        vision: a tower or a list of towers, which all see every image; their tokens stand one behind the other.
        projector: of every tower, or a list with one for each.
        language: the language model.
        head: what makes actions of its hidden states.
        encoders: name of a stream of the robot file -> what makes tokens of it.
        shapes: of a value of each of these streams; the dataset says it.
        missing: those of these streams that may be absent on the robot -> the share of training samples that are
            trained without them. A robot that lacks another one is refused.
        fusion: what joins images and sensors; None: their tokens stand one behind the other.
        temporal: what reads the last tokens' hidden states of a window of steps before the head does; None: the head
            sees the newest observation alone, or remembers itself.
        horizon: rows of a chunk.
        reads_state: the joints are a token, too.
        text_length: most tokens of an instruction.
    """

    action_dim: Annotated[int, Range(1, 10_000)]
    state_dim: Dimensions
    cameras: Cameras
    vision: Any
    language: Any
    head: Any
    projector: Any = "mlp"
    encoders: Any = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    missing: dict[str, Annotated[float, Range(0, 0.9)]] = field(default_factory=dict)
    fusion: Any = None
    temporal: Any = None
    horizon: Rows = 16
    reads_state: bool = True
    text_length: Rows = 128

    def __post_init__(self) -> None:
        towers = self.vision
        if not self.cameras or not towers:
            raise InputError(f"{len(self.cameras)} cameras, {len(towers)} vision towers; expected one or more of each")
        if len(towers) > MOST_TOWERS or len(self.projector) != len(towers):
            raise InputError(f"{len(towers)} vision towers, {len(self.projector)} projectors; expected one for all or "
                             f"one for each, of {MOST_TOWERS} at most")
        if self.encoders.keys() != self.shapes.keys():
            raise InputError(f"encoders of {sorted(self.encoders)}, the dataset has {sorted(self.shapes)}; expected "
                             "streams of the dataset")
        if taken := [n for n in self.encoders if n == "images" or any(hasattr(kind(), n) for kind in _NAMED)]:
            raise InputError(f"encoders: stream {taken[0]!r}, a name that the policy uses for something else; expected "
                             "another name in the robot file")
        if unknown := [name for name in self.missing if name not in self.encoders]:
            raise InputError(f"missing: {unknown[0]!r}, expected some of the streams with an encoder: "
                             f"{sorted(self.encoders)}")
        if self.temporal and self._head_window > 1:
            raise InputError(f"{self.temporal.title}, {self.head.title} of a window of {self._head_window}; expected "
                             "one that remembers")
        if self.language.size.vocabulary < 1:
            raise InputError("language: vocabulary 0, expected the number of the tokenizer's tokens")

    n_obs_steps = 1
    _head_window = property(lambda self: getattr(self.head.size, "window", 1))
    window = property(lambda self: self.temporal.size.window if self.temporal else self._head_window)
    past = property(lambda self: self.window - 1)
    token_rows = property(lambda self: self.language.size.vocabulary)
    state_width = property(lambda self: self.state_dim if self.reads_state else 0)
    tokenizer_of = property(lambda self: f"the tokenizer of its language model, {self.language.kind}")
    image_size = property(lambda self: (self._pixels, self._pixels))

    @property
    def choices(self) -> dict[str, Choice]:
        """All parts by the names of the modules."""
        numbered = ((f"{name}.{i}", one) for name, many in (("vision", self.vision), ("projectors", self.projector))
                    for i, one in enumerate(many))
        rows = dict(numbered) | {f"encoders.{name}": one for name, one in self.encoders.items()}
        rows |= {name: one for name in ("fusion", "temporal") if (one := getattr(self, name))}
        return rows | {"language": self.language, "head": self.head}

    @cached_property
    def _pixels(self) -> int:
        size = self.vision[0].size
        return getattr(size, "image_size", 0) or getattr(size, "image", 0) or self.summary_network.vision[0].image

    @cached_property
    def summary_network(self) -> Any:
        """The network without numbers."""
        from vla_ros.nn.meta import without_numbers
        from vla_ros.policies.modular.model import Modular  # which stands on this module

        with without_numbers():
            return Modular(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "ModularConfig":
        """Raises InputError that names a field that is unknown or out of range."""
        row = dict(values)
        known = {f.name for f in fields(cls)}
        if missing := [name for name in ("vision", "language", "head") if name not in row]:
            raise InputError(f"{where}: missing {', '.join(missing)}")
        if unknown := [name for name in row if name not in known]:
            raise InputError(f"{where}.{unknown[0]}: unknown field, expected some of {sorted(known)}")
        row["vision"] = _several(VISION, row["vision"], f"{where}.vision")
        single = not isinstance(row.get("projector"), (list, tuple))
        found = _several(PROJECTORS, row.get("projector", cls.projector), f"{where}.projector")
        row["projector"] = found * len(row["vision"]) if single else found
        row["language"] = chosen(LANGUAGES, row["language"], f"{where}.language")
        row["head"] = chosen(HEADS, row["head"], f"{where}.head")
        encoders = row.get("encoders", {})
        if not isinstance(encoders, Mapping):
            raise InputError(f"{where}.encoders: {shown(encoders)}, expected a mapping of streams to encoders")
        row["encoders"] = {n: chosen(ENCODERS, one, f"{where}.encoders.{n}") for n, one in encoders.items()}
        for name, registry in (("fusion", FUSIONS), ("temporal", TEMPORALS)):
            if row.get(name) is not None:
                row[name] = chosen(registry, row[name], f"{where}.{name}")
        return record(cls, row, where)

    def to_dict(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("vision", "projector"):
            row[name] = [one.to_dict() for one in row[name]]
        for name in ("language", "head", "fusion", "temporal"):
            row[name] = row[name] and row[name].to_dict()
        return row | {"encoders": {name: one.to_dict() for name, one in self.encoders.items()}}

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`: the composition from top to bottom."""
        return self.summary_network.drawn()


def _several(registry: Any, value: Any, where: str) -> tuple[Choice, ...]:
    if not isinstance(value, (list, tuple)):
        return (chosen(registry, value, where),)
    return tuple(chosen(registry, one, f"{where}[{i}]") for i, one in enumerate(value))
