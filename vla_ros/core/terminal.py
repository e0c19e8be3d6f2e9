"""Tables, live views and progress bars that show names and texts literally: brackets are not markup."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.segment import Segment
from rich.text import Text

from vla_ros.core.text import plain


class Terminal(Console):
    """A rich console that shows texts literally."""

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
