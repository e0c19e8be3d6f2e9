"""The picture that vla-ros top draws of chunks in time."""

from types import SimpleNamespace

from rich.console import Console

from vla_ros.cli.top import _PAST, _WIDTH, joints_table, timeline
from vla_ros.messages.stamps import NS


def test_a_chunk_begins_at_its_stamp_and_ends_with_its_last_row():
    line = timeline([(10 * NS, 1.5, 7)], now_ns=11 * NS)[0]
    scale = _WIDTH / 5.0
    assert line.index("─") == round((_PAST - 1.0) * scale)
    assert line.rindex("━") == round((_PAST + 0.5) * scale)
    assert line[round(_PAST * scale)] == "|"
    assert "#7, observed 1.00 s ago" in line


def test_a_chunk_out_of_view_draws_nothing_but_now():
    line = timeline([(0, 1.0, 1)], now_ns=100 * NS)[0]
    assert "─" not in line and "━" not in line and "|" in line


def test_the_table_of_joints_says_what_the_last_seconds_were_like():
    status = SimpleNamespace(
        names=["turn", "lift"], position=[0.5, 0.2], measured=[0.48, 0.2], velocity=[0.1, 0.0], limited=["turn"],
        limits=["velocity"], deviation=[0.125, 0.0], reversals=[3.25, 0.0], limited_share=[0.5, 0.0],
    )  # fmt: skip
    console = Console(width=120, record=True)
    console.print(joints_table(status))
    turn, lift = console.export_text().splitlines()[1:]
    assert turn.split()[:8] == ["turn", "0.500", "0.480", "+0.020", "0.125", "+0.10", "3.2/s", "50%"]
    assert turn.split()[8:] == ["at", "its", "velocity", "limit"]
    assert lift.split() == ["lift", "0.200", "0.200", "+0.000", "0.000", "+0.00", "0.0/s", "0%"]
