"""What a page asks for, read from its JSON. All raise InputError for another type or value."""

from typing import Any

from vla_ros.core.errors import InputError

_LONGEST_LIMIT = 86_400.0  # s of a task


def text(wish: dict[str, Any], name: str) -> str:
    value = wish.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a text")
    return value


def number(wish: dict[str, Any], name: str, default: float) -> float:
    value = wish.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: expected a number")
    return value


def flag(wish: dict[str, Any], name: str) -> bool:
    value = wish.get(name)
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected true or false")
    return value


def seconds(wish: dict[str, Any]) -> float:
    """The time limit of a task, 0 for none."""
    value = number(wish, "limit", 0.0)
    if not 0 <= value <= _LONGEST_LIMIT:
        raise InputError(f"time limit: expected 0 (none) to {_LONGEST_LIMIT:g} s")
    return float(value)
