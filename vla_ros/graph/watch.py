"""The statuses of a graph's nodes, as a table in the terminal."""

import math
import time
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vla_ros.control import remedies
from vla_ros.core.instruction import Agreement
from vla_ros.core.reminder import without_quantities
from vla_ros.core.terminal import Terminal
from vla_ros.core.text import plain
from vla_ros.graph.processes import Graph
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.names import CAUSES, EXECUTOR_STATES, POLICY_STATES
from vla_ros.nodes.qos import STATUS_QOS

_STATUSES = ("policy_node/status", "executor_node/status")
_GOOD = ("running", "executing", "approaching", "taken over")
_BAD = ("failed", "stopped", "e stopped", "unconfigured")
_AGAIN, _STAYS = 10.0, 2.0  # s
LONGEST = 300  # characters of a text that are shown


def state_text(name: str) -> Text:
    style = "green" if name in _GOOD else "bold red" if name in _BAD else "yellow"
    return Text(name, style=style)


def milliseconds(seconds: float) -> str:
    return "–" if not math.isfinite(seconds) else f"{seconds * 1e3:.1f} ms"


class Watch:
    """The newest status of policy and executor. Callbacks run in the graph's thread.

    Attributes:
        policy, executor: the newest message, None before the first.
        inference_times: s, of every inference.
        control_rates: Hz, of every status of an executor that moves the robot.
    """

    def __init__(self, graph: Graph) -> None:
        self.policy: PolicyStatus | None = None
        self.executor: ExecutorStatus | None = None
        self.inference_times: list[float] = []
        self.control_rates: list[float] = []
        self._node, self._agreement = graph.node, Agreement()
        policy, executor = _STATUSES
        graph.node.create_subscription(PolicyStatus, policy, self._take_policy, STATUS_QOS)
        graph.node.create_subscription(ExecutorStatus, executor, self._take_executor, STATUS_QOS)

    def _take_policy(self, message: PolicyStatus) -> None:
        new = self.policy is None or message.inferences != self.policy.inferences
        if new and message.state == PolicyStatus.RUNNING:
            self.inference_times.append(message.inference_time)
        self.policy = message

    def _take_executor(self, message: ExecutorStatus) -> None:
        if message.state in (ExecutorStatus.EXECUTING, ExecutorStatus.APPROACHING):
            self.control_rates.append(message.control_rate)
        self.executor = message

    def warnings(self) -> list[str]:
        """Warnings that need both statuses. Called at intervals."""
        policy, executor, found = self.policy, self.executor, []
        both = policy and executor and PolicyStatus.UNCONFIGURED != policy.state and executor.state
        alike = not both or policy.instruction_id == executor.instruction_id
        told = (policy.instruction, executor.instruction) if both else ("", "")
        words = self._agreement.problem(*told, alike, time.monotonic())
        found += [words] if words and words not in executor.message else []
        for topic in _STATUSES:
            if (count := self._node.count_publishers(topic)) > 1:
                found.append(f"{count} nodes publish {topic}: two robots under one name, or one that ended just now")
        return found

    def sections(self) -> list[str]:
        """Sections of the documentation for what is shown; empty if all is well."""
        policy, executor, found = self.policy, self.executor, []
        if policy is not None and POLICY_STATES[policy.state] in remedies.POLICY:
            found.append(remedies.section(POLICY_STATES[policy.state]))
        if executor is not None:
            found.append(remedies.about(executor.state, executor.cause))
            found += [remedies.section(words) for words in remedies.SAID if words in executor.message]
            last = executor.last_refusal.partition(":")[0]
            if executor.refused_chunks and executor.cause == ExecutorStatus.CAUSE_NO_CHUNK:  # they may be the reason
                found += [remedies.section(reason) for reason in remedies.REASONS if reason == last]
        return list(filter(None, found))

    def rows(self) -> list[tuple[str, Any]]:
        """(title, value) pairs for a table."""
        policy, executor = self.policy, self.executor
        rows: list[tuple[str, Any]] = []
        if policy is None:
            rows.append(("policy", "…"))
        else:
            rows.append(("instruction", plain(policy.instruction, LONGEST) or "(none)"))
            rows.append(("policy", state_text(POLICY_STATES[policy.state])))
            rows.append(("inference", f"{milliseconds(policy.inference_time)} "
                                      f"(encode {milliseconds(policy.encode_time)}, "
                                      f"act {milliseconds(policy.act_time)}"
                                      + (f", flight {milliseconds(policy.flight_time)}" if policy.flight_time else "")
                                      + f"), {policy.rate:.1f} Hz"))
            if policy.message:
                rows.append(("", Text(plain(policy.message, LONGEST), style="yellow")))
        rows += [("", Text(words, style="bold red")) for words in self.warnings()]
        if executor is None:
            rows.append(("executor", "…"))
        else:
            state = state_text(EXECUTOR_STATES[executor.state])
            if executor.cause:
                state.append(f" ({CAUSES[executor.cause]})")
            if executor.dry_run:
                state.append(", dry run: commands nothing")
            rows.append(("executor", state))
            rows.append(("control rate", f"{executor.control_rate:.1f} Hz, worst lateness "
                                         f"{milliseconds(executor.lateness)}"))
            rows.append(("chunks", f"{executor.accepted_chunks} taken, {executor.refused_chunks} refused, "
                                   f"{executor.live_chunks} live, latency {milliseconds(executor.chunk_latency)}"))
            if executor.message:
                rows.append(("", Text(plain(executor.message, LONGEST), style="yellow")))
        if sections := self.sections():
            rows.append(("what to do", "\n".join(sections)))
        return rows

    def summary(self) -> str:
        """One line, for output that is not a terminal."""
        policy, executor = self.policy, self.executor
        parts = []
        if policy is not None:
            parts.append(f"policy {POLICY_STATES[policy.state]}")
            if policy.message:
                parts.append(plain(policy.message, LONGEST))
            parts.append(f"instruction {plain(policy.instruction, LONGEST)!r}")
        if executor is not None:
            parts.append(f"executor {EXECUTOR_STATES[executor.state]}" + (", dry run" if executor.dry_run else ""))
            if executor.message:
                parts.append(plain(executor.message, LONGEST))
        parts += self.warnings()
        if sections := self.sections():
            parts.append(f"what to do: {' '.join(sections)}")
        return ", ".join(parts)


def grid(rows: list[tuple[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", justify="right")
    table.add_column()
    for title, value in rows:
        table.add_row(title, value)
    return table


class Display:
    """Shows a renderable that changes: live in a terminal, otherwise one line whenever the line changes.

    A line that was shown less than 10 s ago is repeated only after 2 s, so that an input that comes and goes does not
    fill the log.
    """

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._line = self._next = ""
        self._since = 0.0  # when `_next` was seen first, s, steady
        self._said: dict[str, float] = {}  # line -> when it was shown last
        self._shown = 0.0

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, lines: list[Any], line: str) -> None:
        """`lines` for a terminal, `line` for a file or pipe."""
        if self._live:
            if time.monotonic() - self._shown > 0.1:
                self._shown = time.monotonic()
                self._live.update(Group(*lines))
        elif self._is_due(without_quantities(line), time.monotonic()):
            self._console.print(line, soft_wrap=True)

    def _is_due(self, line: str, now: float) -> bool:
        if line != self._next:
            self._next, self._since = line, now
        self._said = {line: at for line, at in self._said.items() if now - at < _AGAIN}
        if line == self._line or line in self._said and now - self._since < _STAYS:
            return False
        self._line, self._said[line] = line, now
        return True
