"""Our server's description of its policy: the entry `vla_ros` of the metadata. Also access to entries of messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vla_ros.core.chunk import SPATIAL, Space
from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Rows
from vla_ros.policies.server_file import Keys

LONGEST = 600.0  # s that an observation may reach back
OWN = "vla_ros"  # entry of the metadata, and of the requests and answers of our own clients


@dataclass(frozen=True)
class Columns:
    """Columns of the actions that belong together; the fields of `core.chunk.Part`, `space` by its name."""

    names: tuple[str, ...]
    space: str
    group: str
    frame: str

    def __post_init__(self) -> None:
        if self.space not in Space.__members__ or not self.names:
            raise InputError(f"space {shown(self.space)} of {shown(self.names)}, expected one of "
                             f"{list(Space.__members__)}, and names")


@dataclass(frozen=True)
class Described:
    """Description of a policy for clients.

    Attributes:
        policy: its family.
        joints: J names in the order of the state, rad or m.
        keys: of observations and answers.
        streams: further streams that it reads -> their keys.
        steps: stream -> offsets of its observation steps in `step_dt`, see `Interface.steps`.
        step_dt: s between rows.
        horizon: rows of an answer.
        parts: what the columns of the actions are, in order.
        paced: it has a memory, and is asked once every `step_dt`.
        digest: of its checkpoint.
    """

    policy: str
    joints: tuple[str, ...]
    keys: Keys
    streams: Mapping[str, str]
    steps: Mapping[str, tuple[int, ...]]
    step_dt: float
    horizon: Rows
    parts: tuple[Columns, ...]
    paced: bool = False
    digest: str = ""

    def __post_init__(self) -> None:
        numbers = sum(self.keys.state.values())
        if not self.step_dt > 0 or not self.parts or not self.joints or numbers != len(self.joints):
            raise InputError(f"step_dt {self.step_dt}, {len(self.parts)} parts, {len(self.joints)} joints, keys of "
                             f"{numbers} numbers: expected more than none of each, and as many numbers as joints")
        if len(self.policy) > 100:
            raise InputError(f"policy {shown(self.policy)}: {len(self.policy)} characters, expected at most 100")
        if len(self.digest) > 100:
            raise InputError(f"digest {shown(self.digest)}: {len(self.digest)} characters, expected at most 100")
        offsets = [offset for row in self.steps.values() for offset in row]
        if not all(self.steps.values()) or len(offsets) > 10_000 or not all(-1000 <= offset <= 0 for offset in offsets):
            raise InputError(f"steps {shown(self.steps)}, expected offsets from -1000 to 0")
        if -min(offsets, default=0) * self.step_dt > LONGEST or self.step_dt > LONGEST:
            raise InputError(f"step_dt {self.step_dt} s, steps {shown(self.steps)}: expected at most {LONGEST:g} s")

    @property
    def tool(self) -> tuple[str, str] | None:
        """As `Interface.tool`."""
        part = next((part for part in self.parts if Space[part.space] in SPATIAL), None)
        if part is None:
            return None
        return "pose" if Space[part.space] == Space.END_EFFECTOR_POSE else "delta", part.frame

    @property
    def path(self) -> bool:
        """As `Interface.path`."""
        return any(Space[part.space] == Space.BASE_PATH for part in self.parts)


def put(message: dict[str, Any], key: str, value: Any) -> None:
    """Set an entry; a dot leads into a map."""
    *outer, last = key.split(".")
    for name in outer:
        message = message.setdefault(name, {})
    message[last] = value


def find(message: Any, key: str) -> Any:
    """An entry, None if there is none."""
    for name in key.split("."):
        message = message.get(name) if isinstance(message, Mapping) else None
    return message
