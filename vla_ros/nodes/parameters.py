"""Node parameters, declared once: descriptors, validation and the documentation come from one dataclass.

    @dataclass(frozen=True)
    class Parameters(NodeParameters):
        rate: float = parameter(100.0, "commands published", unit="Hz", low=1.0, high=1000.0)

This module needs no ROS until `descriptor` is called.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.records import value_of

# Python type of a field: constant of rcl_interfaces/ParameterType
_TYPES = {bool: 1, int: 2, float: 3, str: 4, tuple[int, ...]: 7, tuple[float, ...]: 8, tuple[str, ...]: 9}


@dataclass(frozen=True)
class Rule:
    """Properties of a parameter besides its type and default.

    Attributes:
        description: one line, lower case, no full stop.
        unit: "s", "Hz", "rad", ...; empty for none.
        low, high: the range, both ends included; None for no bound.
        choices: the texts allowed; empty for any.
        live: may change at any time. Otherwise it is read in `configure`, and changes are refused after that.
        read_only: fixed when the process starts.
    """

    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    read_only: bool = False


def parameter(default: Any, description: str, **limits: Any) -> Any:
    """A dataclass field that is a node parameter; `limits`: the other fields of `Rule`."""
    return field(default=default, metadata={"rule": Rule(description, **limits)})


@dataclass(frozen=True)
class NodeParameters:
    """Parameters of every node of vla_ros."""

    robot: str = parameter("", "path of the robot file, or the name of a shipped one (so101)")
    autostart: bool = parameter(False, "configure and activate by itself when the process starts", read_only=True)
    reliable_sensors: bool = parameter(
        False, "ask for reliable images and joint states (simulation in lockstep; real drivers are best effort)"
    )


def rule(item: Field) -> Rule:
    return item.metadata["rule"]


def check(item: Field, value: Any) -> Any:
    """The value in the field's own type. Raises InputError that names parameter, value and expectation."""
    name, limits = item.name, rule(item)
    if hasattr(value, "tolist"):  # rclpy gives lists of numbers as arrays
        value = value.tolist()
    value = value_of(item.type, value, f"parameter {name}")
    for each in value if isinstance(value, tuple) else (value,):
        if limits.choices and each not in limits.choices:
            raise InputError(f"parameter {name}: {each!r}, expected one of {_choices(limits)}")
        below = limits.low is not None and each < limits.low
        above = limits.high is not None and each > limits.high
        if below or above:
            unit = f" {limits.unit}" if limits.unit else ""
            raise InputError(f"parameter {name}: {each}{unit}, expected {_range(limits)}{unit}")
    return value


def _choices(limits: Rule) -> str:
    return ", ".join(choice or "empty" for choice in limits.choices)


def _range(limits: Rule) -> str:
    if limits.low is None and limits.high is None:
        return ""
    if limits.high is None:
        return f"at least {limits.low:g}"
    if limits.low is None:
        return f"at most {limits.high:g}"
    return f"{limits.low:g} to {limits.high:g}"


def build(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `kind` from raw values; missing ones take their default. Raises InputError."""
    known = {item.name: item for item in fields(kind)}
    for name in values:
        if name not in known:
            raise InputError(f"parameter {name}: unknown, expected some of {sorted(known)}")
    return kind(**{name: check(known[name], value) for name, value in values.items()})


def descriptor(item: Field) -> Any:
    """The rcl_interfaces/ParameterDescriptor of a field."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    limits = rule(item)
    unit = f" [{limits.unit}]" if limits.unit else ""
    result = ParameterDescriptor(
        name=item.name,
        type=_TYPES[item.type],
        description=limits.description + unit,
        additional_constraints=f"one of: {_choices(limits)}" if limits.choices else "",
        read_only=limits.read_only,
        # rclpy takes an empty list for an array of bytes, so lists are checked by `check` alone
        dynamic_typing=item.type not in (bool, int, float, str),
    )
    if limits.low is not None or limits.high is not None:
        if item.type is float:
            low = -math.inf if limits.low is None else float(limits.low)
            high = math.inf if limits.high is None else float(limits.high)
            result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif item.type is int:
            low = -(2**63) if limits.low is None else int(limits.low)
            high = 2**63 - 1 if limits.high is None else int(limits.high)
            result.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return result


def table(kind: type) -> str:
    """The parameters as a Markdown table, for the documentation."""
    lines = ["| parameter | default | unit | range | meaning |", "| --- | --- | --- | --- | --- |"]
    for item in fields(kind):
        limits = rule(item)
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        allowed = _choices(limits) if limits.choices else _range(limits)
        when = " (any time)" if limits.live else " (at start only)" if limits.read_only else ""
        shown = str(default).lower() if isinstance(default, bool) else default
        lines.append(f"| `{item.name}` | `{shown}` | {limits.unit} | {allowed} | {limits.description}{when} |")
    return "\n".join(lines) + "\n"
