"""Statuses as `/diagnostics`: OK, WARN (worth a look), ERROR (it does not work)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from vla_ros.control.admission import Reason
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.base import ManagedNode

_IDLE = (ExecutorStatus.CAUSE_NO_CHUNK, ExecutorStatus.CAUSE_TAKEOVER_PAUSED)  # it waits for something
PERIOD = 1.0  # s, what diagnostic aggregators expect
LONG_WITHOUT_PROGRESS = 5.0  # s
OFTEN_LIMITED = 0.5  # share of the time


def publish_diagnostics(node: ManagedNode, make: Callable[[], DiagnosticStatus]) -> None:
    """Publish the result of `make` on /diagnostics at 1 Hz, by a steady clock."""
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish() -> None:
        status = make()
        status.name = node.get_fully_qualified_name().lstrip("/") + ": " + status.name
        publisher.publish(set_stamp(DiagnosticArray(status=[status]), node.now_ns()))

    node.create_steady_timer(PERIOD, publish)


def policy_diagnostic(status: PolicyStatus) -> DiagnosticStatus:
    """ERROR when the last inference failed, WARN while an input is missing or stale."""
    levels = {PolicyStatus.FAILED: DiagnosticStatus.ERROR, PolicyStatus.WAITING: DiagnosticStatus.WARN}
    words = {
        PolicyStatus.UNCONFIGURED: "unconfigured",
        PolicyStatus.INACTIVE: "inactive",
        PolicyStatus.IDLE: "no instruction",
        PolicyStatus.WAITING: "waiting for inputs",
        PolicyStatus.RUNNING: "publishing chunks",
        PolicyStatus.FAILED: "inference failed",
    }
    return DiagnosticStatus(
        level=levels.get(status.state, DiagnosticStatus.OK),
        name="inference",
        message=words[status.state] + (f": {status.message}" if status.message else ""),
        hardware_id=status.policy,
        values=_values(
            {
                "instruction": status.instruction,
                "rate (Hz)": status.rate,
                "inference time (s)": status.inference_time,
                "encode time (s)": status.encode_time,
                "act time (s)": status.act_time,
                "flight time (s)": status.flight_time,
                "observation age (s)": status.observation_age,
                "chunks": status.chunks,
                "refused observations": status.refused_observations,
                "waiting for": ", ".join(status.waiting_for),
            }
        ),
    )


def faulty(status: ExecutorStatus) -> int:
    """How many chunks were refused because of a fault; those refused as `taken_over` do not count."""
    counts = dict(zip(status.refusal_reasons, status.refusal_counts, strict=False))
    return status.refused_chunks - counts.get(Reason.TAKEN_OVER, 0)


class ExecutorDiagnostic:
    """ERROR while stopped; WARN without chunks, for reversals, and for new refusals and overruns."""

    def __init__(self) -> None:
        self._refused = 0
        self._overruns = 0

    def __call__(self, status: ExecutorStatus, hindered: bool = False) -> DiagnosticStatus:
        """`hindered`: the robot may not reach its commands; the status message says why."""
        words = {
            ExecutorStatus.UNCONFIGURED: "unconfigured",
            ExecutorStatus.INACTIVE: "inactive",
            ExecutorStatus.APPROACHING: "approaching the first chunk",
            ExecutorStatus.EXECUTING: "following chunks",
            ExecutorStatus.HOLDING: "holding",
            ExecutorStatus.STOPPED: "stopped",
            ExecutorStatus.E_STOPPED: "emergency stop",
            ExecutorStatus.TAKEN_OVER: "taken over",
        }
        level = DiagnosticStatus.WARN if hindered else DiagnosticStatus.OK
        notes = [status.message] if status.message else []
        if status.state in (ExecutorStatus.STOPPED, ExecutorStatus.E_STOPPED):
            level = DiagnosticStatus.ERROR
        elif status.state == ExecutorStatus.HOLDING and status.cause in _IDLE:
            level = DiagnosticStatus.WARN
        elif status.state in (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING):
            level = DiagnosticStatus.WARN if status.message else level
            notes += hindrances(status)
        # Counters restart at activation, so only an increase counts.
        for grown, what in (
            (faulty(status) - self._refused, f"refused chunks, last: {status.last_refusal}"),
            (status.overruns - self._overruns, "ticks late by more than a period"),
        ):
            if grown > 0:
                level = max(level, DiagnosticStatus.WARN)
                notes.append(f"{grown} {what}")
        self._refused, self._overruns = faulty(status), status.overruns
        refusals = zip(status.refusal_reasons, status.refusal_counts, strict=True)
        return DiagnosticStatus(
            level=level,
            name="control",
            message=": ".join([words[status.state], "; ".join(notes)] if notes else [words[status.state]]),
            hardware_id="",
            values=_values(
                {
                    "instruction": status.instruction,
                    "mode": status.mode,
                    "taken over by": status.taken_over_by,
                    "dry run": status.dry_run,
                    "control rate (Hz)": status.control_rate,
                    "lateness (s)": status.lateness,
                    "overruns": status.overruns,
                    "live chunks": status.live_chunks,
                    "chunk age (s)": status.chunk_age,
                    "chunk latency (s)": status.chunk_latency,
                    "accepted chunks": status.accepted_chunks,
                    "refused chunks": status.refused_chunks,
                    **{f"refused: {reason}": count for reason, count in refusals},
                    "at a limit": ", ".join(map(" ".join, zip(status.limited, status.limits, strict=False))),
                    "deviation (rad or m)": _by_joint(status.names, status.deviation, "{:.3g}"),
                    "reversals (1/s)": _by_joint(status.names, status.reversals, "{:.3g}"),
                    "held back by a limit": _by_joint(status.names, status.limited_share, "{:.0%}"),
                    "time without progress (s)": status.progress_age,
                }
            ),
        )


def hindrances(status: ExecutorStatus) -> list[str]:
    """Why a robot that follows chunks may make no progress. A completed task looks the same, so this is no warning."""
    found = []
    if status.progress_age >= LONG_WITHOUT_PROGRESS:
        found.append(f"no progress for {status.progress_age:.0f} s")
    shares = zip(status.names, status.limited_share, strict=False)  # viewers also pass statuses of other nodes
    often = {name: share for name, share in shares if share > OFTEN_LIMITED}
    if often:
        found.append(f"held back by a limit: {_by_joint(often, often.values(), '{:.0%}')} of the time")
    return found


def _by_joint(names: Iterable[str], values: Iterable[float], form: str) -> str:
    """The joints with values above 0, the greatest first."""
    found = sorted(zip(values, names, strict=True), reverse=True)
    return ", ".join(f"{name} {form.format(value)}" for value, name in found if value > 0)


def _values(values: dict[str, Any]) -> list[KeyValue]:
    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}" if math.isfinite(value) else "none"
        return str(value)

    return [KeyValue(key=key, value=text(value)) for key, value in values.items()]
