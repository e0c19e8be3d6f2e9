"""A part as given in a configuration: "siglip-base", or a mapping of its kind and sizes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import record, value_of
from vla_ros.policies.parts.kinds import Part
from vla_ros.policies.parts.registry import Registry


@dataclass(frozen=True)
class Choice:
    """A part and its sizes.

    Attributes:
        kind: name in `registry`.
        size: an instance of the part's `Size`.
        frozen: its parameters are not trained, and it stays in evaluation mode.
        folder: of pretrained weights, with which a new part starts; "" for none.
    """

    registry: Registry
    kind: str
    size: Any
    frozen: bool = False
    folder: str = ""

    @property
    def part(self) -> type[Part]:
        return self.registry[self.kind]

    @property
    def title(self) -> str:
        """Kind and name, for messages."""
        return f"{self.registry.kind} {self.kind!r}"

    def make(self, *context: Any) -> Part:
        """The part with fresh weights. Raises InputError that names it."""
        try:
            part = self.part(self.size, *context)
        except InputError as error:
            raise InputError(f"policy: {self.title}: {error}") from None
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"  # torch's or foreign
            raise InputError(f"policy: {self.title} cannot be made as {shown(self.to_dict())}: {said}") from error
        if self.frozen:
            part.requires_grad_(False)
        return part

    def to_dict(self) -> dict[str, Any]:
        """A mapping that `chosen` reads; without the folder, since a checkpoint contains the weights."""
        return {"kind": self.kind, **({"frozen": True} if self.frozen else {}), **asdict(self.size)}


def chosen(registry: Registry, value: Any, where: str) -> Choice:
    """Read a name, or a mapping of `kind`, `frozen`, `folder` and fields of the part's `Size`, which override the sizes
    of a preset or a folder.

    Raises InputError that names the field.
    """
    if isinstance(value, Choice):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {shown(value)}, expected the name of a {registry.kind}, or a mapping with its kind")
    row = dict(value)
    name = row.pop("kind", None)
    preset = dict(registry.presets.get(name, {})) if isinstance(name, str) else {}
    kind = preset.pop("kind", name)
    frozen = value_of(bool, row.pop("frozen", False), f"{where}.frozen")
    folder = value_of(str, row.pop("folder", ""), f"{where}.folder")
    try:
        part = registry[kind]
        known = dict(part.folder_size(Path(folder))) if folder else {}
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Choice(registry, kind, record(part.Size, {**preset, **known, **row}, where), frozen, folder)
