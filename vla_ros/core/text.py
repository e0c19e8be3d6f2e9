"""Show texts from files and other machines so that nothing in them can control a terminal."""

import re
import sys
from contextlib import nullcontext, suppress

# Control characters except newline and tab, direction marks, and bytes of a file name that are not UTF-8.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str, most: int | None = None) -> str:
    """The text with control characters spelled out, cut after `most` characters."""
    if most is not None and len(text) > most:
        text = f"{text[:most]}… ({len(text)} characters)"
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a line on standard output or standard error at once. A closed standard error is ignored."""
    with suppress(OSError) if error else nullcontext():  # the terminal may be gone
        print(plain(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)
