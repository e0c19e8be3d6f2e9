"""The exception whose message is for the user, and how it shows values from files."""

import re
import reprlib
from typing import Any

from vla_ros.core.text import plain

LONGEST_TEXT = 4000  # characters of an error; a value in a file can be far longer
LONGEST_VALUE = 100
_BREAK = re.compile(r"\r?\n(?!  )")  # our own lists of problems continue with two blanks


class InputError(ValueError):
    """Bad input from outside: a file, a message, a parameter.

    The message names the thing, the value and what was expected. Commands print it without a traceback,
    lifecycle nodes log it and refuse the transition. It is one line, even if names and texts in it contain line breaks;
    a list of problems has one line for each.
    """

    def __init__(self, text: str) -> None:
        text = _BREAK.sub(r"\\n", plain(text))
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ...")


class NotYet(InputError):
    """What is missing may still arrive without a change of the input."""


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = LONGEST_VALUE

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() < 10_000 else f"<integer of {value.bit_length()} bits>"


def shown(value: Any) -> str:
    """`repr` of a value from a file, at most 100 characters; only the part that is shown is visited."""
    text = _Short().repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 4]} ..."
