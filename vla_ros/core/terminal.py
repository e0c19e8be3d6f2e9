"""What is written to a terminal: the only place that writes there.

Names and texts come from files and from other machines. They are shown as they are: brackets are no markup, and what
would steer the terminal (escape sequences, carriage returns, marks that turn the direction of writing) is spelled out.
"""

import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.segment import Segment
from rich.text import Text

# Control characters but newline and tab, marks of direction, and what a file name holds that is not in UTF-8.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str, most: int | None = None) -> str:
    """The text with what would steer a terminal spelled out, cut after `most` characters."""
    if most is not None and len(text) > most:
        text = f"{text[:most]}… ({len(text)} characters)"
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """One line for standard output, or for standard error; it comes at once."""
    print(plain(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)


class Terminal(Console):
    """A rich console that shows texts as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=plain(part.text))

    def status(self, status: Any, **options: Any) -> Any:
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def progress(*columns: Any, **options: Any) -> Progress:
    """A progress bar on standard error; a column that is a string is a format of the task, such as "{task.total}"."""
    made = [TextColumn(column, markup=False) if isinstance(column, str) else column for column in columns]
    return Progress(*made, **{"console": Terminal(stderr=True)} | options)
