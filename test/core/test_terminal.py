"""Foreign texts in a terminal: shown as they are, and nothing in them steers it."""

import io
from contextlib import nullcontext

import pytest
from rich.table import Table
from rich.text import Text

from vla_ros.core.terminal import Terminal, progress
from vla_ros.core.text import plain, say

MARKUP = "[/x] [red]a[/red] [link=http://x]b[/link] :smile: [@click=f]"
STEERING = "\x1b]0;title\x07\x1b[2J\x9b31m\rnew\u202eover\udcff\x00"


def shown(renderable, method: str) -> str:
    console = Terminal(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    with getattr(console, method)(renderable) or nullcontext():
        pass
    return console.file.getvalue()


def table(text) -> Table:
    made = Table(title=text, caption=text)
    made.add_column(text)
    made.add_row(text)
    return made


@pytest.mark.parametrize("make", [str, Text, table, lambda text: table(Text(text))])
@pytest.mark.parametrize("method", ["print", "status"])
def test_markup_is_shown_and_nothing_steers(make, method):
    assert MARKUP in shown(make(MARKUP), method)
    said = shown(make(STEERING), method)
    frames = shown(make("harmless"), method)
    harmful = {character for character in STEERING if not character.isprintable()} - set(frames)
    assert not harmful & set(said), repr(said)
    assert "\x1b]" not in said and "\x1b[2J" not in said


def test_a_progress_bar_takes_no_markup():
    console = Terminal(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    with progress("{task.description}", console=console) as bar:
        bar.add_task(f"{MARKUP} {STEERING}")
    said = console.file.getvalue()
    assert MARKUP in said and "\x1b]" not in said and "\x07" not in said


def test_lines_outside_tables(capsys):
    say(f"{MARKUP} {STEERING} ä π\tz")
    said = capsys.readouterr().out
    assert said.startswith(MARKUP) and said.endswith("ä π\tz\n") and r"\x1b]0;title\x07" in said
    assert said.strip("\n").replace("\t", "").isprintable()


def test_long_texts_are_cut():
    assert plain("x" * 300, 300) == "x" * 300
    assert plain("x" * 1_000_000, 300) == "x" * 300 + "… (1000000 characters)"


def test_a_table_of_such_texts_stays_a_table():
    made = Table()
    made.add_column("name")
    made.add_row("\x1b[1m" + "a\x00b")
    console = Terminal(file=io.StringIO(), width=60)
    console.print(made)
    assert len({len(line) for line in console.file.getvalue().splitlines()}) == 1
