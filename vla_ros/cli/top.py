"""Watch a running graph live: states, rates, latencies, chunks on a time line, refusals and limits.

    vla-ros top

If the output is not a terminal, it prints a line whenever a state changes. It only subscribes. Ctrl-C ends it.
"""

import argparse
import math
import time
from collections import deque
from itertools import islice
from typing import Any

from vla_ros.cli import options
from vla_ros.core.discovery import discovery_line
from vla_ros.core.terminal import Terminal
from vla_ros.core.text import plain
from vla_ros.messages.stamps import stamp_ns

_WIDTH = 60  # characters of the time line
_PAST, _FUTURE = 2.0, 3.0  # s of it
_LONGEST_CHUNK = 1e6  # s
_MOST_ROWS = 64  # of a table of joints


def arguments(parser: argparse.ArgumentParser) -> None:
    options.namespace(parser)
    options.duration(parser)


class Chunks:
    """The newest chunks and their rate. Callbacks run in the graph's thread; readers take copies."""

    def __init__(self, graph: Any) -> None:
        from vla_ros.msg import ActionChunk
        from vla_ros.nodes.qos import COMMAND_QOS

        self._arrivals: deque[float] = deque(maxlen=200)
        self.newest: deque[tuple[int, float, int]] = deque(maxlen=8)  # stamp ns, duration s, sequence
        graph.node.create_subscription(ActionChunk, "action_chunk", self._take, COMMAND_QOS)

    def _take(self, message: Any) -> None:
        self._arrivals.append(time.monotonic())
        duration = message.horizon * message.step_dt
        if not 0.0 <= duration < _LONGEST_CHUNK:
            return  # the executor refuses it and says so
        self.newest.append((stamp_ns(message), duration, message.sequence))

    def rate(self) -> float:
        """Hz, over the last three seconds."""
        recent = [moment for moment in list(self._arrivals) if moment > time.monotonic() - 3.0]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


def timeline(chunks: list[tuple[int, float, int]], now_ns: int) -> list[str]:
    """One line per chunk: the time that it covers, around now. `|` is now."""
    lines = []
    scale = _WIDTH / (_PAST + _FUTURE)
    now_column = round(_PAST * scale)
    for stamp, duration, sequence in chunks:
        begin = (stamp - now_ns) * 1e-9
        row = [" "] * (_WIDTH + 1)
        first = max(0, round((begin + _PAST) * scale))
        last = min(_WIDTH, round((begin + duration + _PAST) * scale))
        for column in range(first, last + 1):
            row[column] = "─" if column < now_column else "━"
        row[now_column] = "|"
        lines.append("".join(row) + f" #{sequence}, observed {-begin:.2f} s ago")
    return lines


def joints_table(status: Any) -> Any:
    """Each joint now, and its largest difference, reversals and share of time at a limit in the last seconds."""
    from rich.table import Table
    from rich.text import Text

    from vla_ros.graph.watch import LONGEST

    table = Table(box=None, padding=(0, 2))
    for title in ("joint", "command", "measured", "difference", "largest", "velocity", "reversals", "limited", ""):
        table.add_column(title, justify="left" if title in ("joint", "") else "right")
    columns = ("position", "measured", "deviation", "velocity", "reversals", "limited_share")
    limits = dict(zip(status.limited, status.limits, strict=False))
    rows = zip(status.names, *(getattr(status, column) for column in columns), strict=False)
    for name, *values in islice(rows, _MOST_ROWS):
        position, measured, deviation, velocity, reversals, share = values
        words = f"at its {plain(limits.get(name, ''), LONGEST)} limit".replace("  ", " ")
        limited = Text(words, style="yellow") if name in status.limited else ""
        table.add_row(
            plain(name, LONGEST), f"{position:.3f}", f"{measured:.3f}", f"{position - measured:+.3f}",
            f"{deviation:.3f}", f"{velocity:+.2f}", f"{reversals:.1f}/s", f"{share:.0%}", limited,
        )  # fmt: skip
    return table


def view(watch: Any, chunks: Chunks) -> list[Any]:
    """What is shown in a terminal."""
    from vla_ros.graph.watch import LONGEST, grid

    executor = watch.executor
    lines = [grid(watch.rows()), f"\nchunks, {chunks.rate():.1f} Hz"]
    if executor is not None:
        lines.append("\n".join(timeline(list(chunks.newest), stamp_ns(executor))) or "none yet")
        refusals = zip(executor.refusal_reasons, executor.refusal_counts, strict=False)
        words = ", ".join(f"{count} {reason}" for reason, count in refusals if count) or "none"
        lines += [f"\nrefused: {plain(words, LONGEST)}", plain(executor.last_refusal, LONGEST)]
        lines.append(joints_table(executor))
        if math.isfinite(executor.progress_age):
            lines.append(f"\nlast progress {executor.progress_age:.1f} s ago")
    return lines


def main(args: argparse.Namespace) -> int:
    from vla_ros.graph.peer import peer
    from vla_ros.graph.watch import Display, Watch

    with peer(args.namespace, enclave="viewer") as graph:
        watch, chunks = Watch(graph), Chunks(graph)
        end = time.monotonic() + args.duration if args.duration else None
        console = Terminal()
        console.print(discovery_line(), soft_wrap=True)
        with Display(console) as display:
            while end is None or time.monotonic() < end:
                display.show(view(watch, chunks), watch.summary() or "nothing heard yet")
                time.sleep(0.1)
    return 0
