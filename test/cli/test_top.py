"""The picture that vla-ros top draws of chunks in time."""

from vla_ros.cli.top import _PAST, _WIDTH, timeline
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
