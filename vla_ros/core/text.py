"""Texts that come from files and from other machines, on their way to people: nothing in them steers a terminal."""

import re
import sys
from contextlib import nullcontext, suppress

# Control characters but newline and tab, marks of direction, and what a file name holds that is not in UTF-8.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str, most: int | None = None) -> str:
    """The text with what would steer a terminal spelled out, cut after `most` characters."""
    if most is not None and len(text) > most:
        text = f"{text[:most]}… ({len(text)} characters)"
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """One line for standard output, or for standard error; it comes at once. A closed standard error is no failure."""
    with suppress(OSError) if error else nullcontext():  # the terminal may be gone
        print(plain(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)
