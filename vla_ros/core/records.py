"""The one strict reader of mappings (YAML, JSON) into dataclasses."""

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from vla_ros.core.errors import InputError

T = TypeVar("T")
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", type(None): "null"}


def read_mapping(path: str | Path, what: str) -> dict[str, Any]:
    """The mapping that a YAML or .json file holds. `what` ("robot file") names it in errors. Raises InputError."""
    path = Path(path)
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if kind == "JSON" else yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}: not {kind}: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{what} {path}: expected a mapping at the top, got {type(data).__name__}")
    return data


def record(kind: type[T], row: Any, where: str = "") -> T:
    """An instance of the dataclass `kind` from a mapping; fields that `row` leaves out take their defaults.

    Integers, and texts such as "1e-4" (YAML reads them so), are taken for a float; lists for a tuple. Nothing else
    is converted, and numbers must be finite.

    Args:
        where: path of `row` in its file ("joints[0]"); begins the error messages.

    Raises:
        InputError: an unknown, missing or mistyped field, by its path; what `kind` itself refuses.
    """
    if isinstance(row, kind):
        return row
    if not isinstance(row, Mapping):
        raise InputError(f"{where or kind.__name__}: {row!r}, expected a mapping")
    hints = get_type_hints(kind)
    known = {field.name.rstrip("_"): field for field in fields(kind) if field.init}  # with_: `with` is a keyword
    for name in row:
        if name not in known:
            raise InputError(f"{_join(where, name)}: unknown field, expected some of {sorted(known)}")
    values = {
        known[name].name: value_of(hints[known[name].name], value, _join(where, name)) for name, value in row.items()
    }
    missing = [
        name for name, field in known.items()
        if name not in row and field.default is MISSING and field.default_factory is MISSING
    ]  # fmt: skip
    if missing:
        raise InputError(f"{where + ': ' if where else ''}missing {', '.join(missing)}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") if where else error from None


def value_of(kind: Any, value: Any, where: str) -> Any:
    """`value` as a field of type `kind` holds it. Raises InputError that begins with `where`."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        choices = [choice for choice in inner if choice is not type(None)]
        if value is None and len(choices) < len(inner):
            return None
        for choice in choices:
            try:
                return value_of(choice, value, where)
            except InputError as error:
                message = str(error)
        alone = message.startswith(f"{where}: ") and ", expected " in message  # not a field further inside
        raise InputError(f"{where}: {value!r}, expected {_words(kind)}" if alone else message)
    if is_dataclass(kind):
        return record(kind, value, where)
    if origin in (tuple, list, Sequence):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: {value!r}, expected {_words(kind)}")
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if fixed and len(value) != len(inner):
            raise InputError(f"{where}: {list(value)!r}, expected {len(inner)} values")
        kinds = inner if fixed else (inner[0],) * len(value)
        items = [value_of(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: {value!r}, expected a mapping")
        key, content = inner or (Any, Any)
        return {value_of(key, k, f"{where}: key"): value_of(content, v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise InputError(f"{where}: {value!r}, expected a number") from None
        if not math.isfinite(number):
            raise InputError(f"{where}: {value}, expected a finite number")
        return number
    if type(value) is not kind:
        raise InputError(f"{where}: {value!r}, expected {_words(kind)}")
    return value


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in inner)
    if origin in (tuple, list, Sequence):
        return f"a list, each {_words(inner[0])}"
    return WORDS.get(kind, "a mapping" if is_dataclass(kind) or origin else getattr(kind, "__name__", str(kind)))


def _join(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)
