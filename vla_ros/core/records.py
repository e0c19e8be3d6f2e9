"""The one strict reader of mappings (YAML, JSON) into dataclasses."""

import json
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import read_bytes

T = TypeVar("T")
MOST_JSON, MOST_YAML = 32 << 20, 1 << 20  # bytes of a file; YAML is parsed slowly
DEEPEST = 100  # nested lists and mappings
MOST_VALUES = 100_000  # of a YAML file; what an alias stands for is counted each time
_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,20},\d{1,20}")
LONGEST_NUMBER = 64  # characters; YAML parses 1:2:3 as a number, in quadratic time


@dataclass(frozen=True)
class Range:
    """Allowed range of a number, or of the length of a list: `Annotated[int, Range(1, 1000)]`."""

    low: float
    high: float


# Sizes of networks and of their inputs and outputs: larger ones would fill the memory, or run for hours before they
# fail.
Width = Annotated[int, Range(1, 16_384)]  # of a layer
Inner = Annotated[int, Range(1, 262_144)]  # of the hidden layer of an MLP
Pixels = Annotated[int, Range(1, 8192)]  # of one side of an image
Dimensions = Annotated[int, Range(0, 10_000)]  # of a state or an action; 0: none
Rows = Annotated[int, Range(1, 10_000)]  # of a chunk, tokens of a prompt, steps
Layers = Annotated[int, Range(0, 1_000)]
Count = Annotated[int, Range(1, 1_000)]  # of heads, groups, observation steps
Cameras = Annotated[tuple[str, ...], Range(0, 100)]
Words = Annotated[int, Range(1, 10_000_000)]  # of a vocabulary

WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", type(None): "null"}


def read_mapping(path: str | Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML or .json file. `what` ("robot file") names the file in errors. Raises InputError."""
    path = Path(path)
    kind, most = ("JSON", MOST_JSON) if path.suffix == ".json" else ("YAML", MOST_YAML)
    data = parsed(read_bytes(path, what, most), kind, f"{what} {path}")
    if not isinstance(data, dict):
        raise InputError(f"{what} {path}: expected a mapping at the top, got {type(data).__name__}")
    return data


def parsed(data: str | bytes, kind: str, where: str) -> Any:
    """The value of a text of `kind` "JSON" or "YAML". Raises InputError that begins with `where`."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text) if kind == "JSON" else yaml.load(text, _BoundedLoader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not {kind}: {' '.join(str(error)[:1000].split())}") from error
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _contents(outer)]:
        depth += 1
        if depth > DEEPEST:
            raise InputError(f"{where}: more than {DEEPEST} nested lists and mappings")
        for inner in level:
            if isinstance(inner, int) and inner.bit_length() > 64:
                raise InputError(f"{where}: {shown(inner)}, expected integers of at most 64 bits")
    return value


def _contents(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


class _BoundedLoader(yaml.SafeLoader):
    """Counts the values of a file: a few lines of aliases can expand to more than fits into memory."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.values = 0
        self.sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias, before = self.check_event(yaml.AliasEvent), self.values
        node = super().compose_node(parent, index)
        if alias and node not in self.sizes:
            raise yaml.composer.ComposerError(None, None, "an alias to something that contains it", node.start_mark)
        self.values += self.sizes[node] if alias else 1
        self.sizes[node] = self.values - before
        if self.values > MOST_VALUES:
            raise yaml.composer.ComposerError(None, None, f"more than {MOST_VALUES} values", node.start_mark)
        numeric = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if numeric and isinstance(node, yaml.ScalarNode) and len(node.value) > LONGEST_NUMBER:
            said = f"a number of {len(node.value)} characters, expected at most {LONGEST_NUMBER}"
            raise yaml.composer.ComposerError(None, None, said, node.start_mark)
        return node


def record(kind: type[T], row: Any, where: str = "") -> T:
    """An instance of the dataclass `kind` from a mapping; fields that `row` leaves out take their defaults.

    Integers, and texts such as "1e-4" (YAML reads it as a text), are accepted for a float, and lists for a tuple.
    Nothing else is converted, and numbers must be finite.

    Args:
        where: path of `row` in its file ("joints[0]"); begins the error messages.

    Raises:
        InputError: an unknown, missing or mistyped field, with its path; also raised by `kind` itself.
    """
    if isinstance(row, kind):
        return row
    if not isinstance(row, Mapping):
        raise InputError(f"{where or kind.__name__}: {shown(row)}, expected a mapping")
    hints = get_type_hints(kind, include_extras=True)
    known = {field.name.rstrip("_"): field for field in fields(kind) if field.init}  # with_: a keyword
    for name in row:
        if name not in known:
            comma = isinstance(name, int) and row[name] is None  # {lower: -1,5} means {lower: -1, 5: null}
            hint = "; decimals have a point, and a comma begins the next field" if comma else ""
            raise InputError(f"{_join(where, name)}: unknown field, expected some of {sorted(known)}{hint}")
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
    """`value` converted for a field of type `kind`. Raises InputError that begins with `where`."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        value, span = value_of(inner[0], value, where), inner[1]
        if isinstance(value, (tuple, list)) and not span.low <= len(value) <= span.high:
            raise InputError(f"{where}: {len(value)} values, expected {span.low} to {span.high}")
        if isinstance(value, (int, float)) and not span.low <= value <= span.high:
            raise InputError(f"{where}: {shown(value)}, expected {span.low} to {span.high}")
        return value
    if origin in (Union, types.UnionType):
        choices = [choice for choice in inner if choice is not type(None)]
        if value is None and len(choices) < len(inner):
            return None
        message, meant = "", False  # the first dataclass that has all of the mapping's names
        for choice in choices:
            try:
                return value_of(choice, value, where)
            except InputError as error:
                message = message if meant else str(error)
                if is_dataclass(choice) and isinstance(value, Mapping):
                    meant = meant or value.keys() <= {field.name for field in fields(choice)}
        alone = message.startswith(f"{where}: ") and ", expected " in message  # not a field further inside
        alone &= not (isinstance(value, Mapping) and any(map(is_dataclass, choices)))  # nor the dataclass's own
        raise InputError(f"{where}: {shown(value)}, expected {_words(kind)}" if alone else message)
    if is_dataclass(kind):
        return record(kind, value, where)
    if origin in (tuple, list, Sequence):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: {shown(value)}, expected {_words(kind)}")
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if fixed and len(value) != len(inner):
            commas = len(value) == 2 * len(inner) and all(isinstance(number, int) for number in value)
            hint = "; decimals have a point, and a comma begins the next value" if commas else ""
            raise InputError(f"{where}: {shown(list(value))}, expected {len(inner)} values{hint}")
        kinds = inner if fixed else (inner[0],) * len(value)
        items = [value_of(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: {shown(value)}, expected a mapping")
        key, content = inner or (Any, Any)
        return {value_of(key, k, f"{where}: key"): value_of(content, v, _join(where, k)) for k, v in value.items()}
    return _scalar(kind, value, where)


def check_only(said: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises InputError if a field is present with a value other than the only supported one."""
    for name, value in expected.items():
        if said.get(name, value) != value:
            raise InputError(f"{where}: {name} {shown(said[name])}, expected {value!r}: nothing else is supported")


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            comma = isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value)
            hint = f"; decimals have a point: {value.replace(',', '.')}" if comma else ""
            raise InputError(f"{where}: {shown(value)}, expected a number{hint}") from None
        if not math.isfinite(number):
            raise InputError(f"{where}: {number}, expected a finite number")
        return number
    if type(value) is not kind:
        raise InputError(f"{where}: {shown(value)}, expected {_words(kind)}")
    return value


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in inner)
    if origin in (tuple, list, Sequence):
        return f"a list, each {_words(inner[0])}"
    return WORDS.get(kind, "a mapping" if is_dataclass(kind) or origin else getattr(kind, "__name__", str(kind)))


def _join(where: str, name: Any) -> str:
    name = name[:LONGEST_NUMBER] if isinstance(name, str) else shown(name)
    return f"{where}.{name}" if where else name
