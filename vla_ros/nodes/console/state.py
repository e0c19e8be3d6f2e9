"""The state that the page always shows, as values for JSON."""

import math
from typing import Any

from vla_ros.core.robot import RobotSpec
from vla_ros.core.text import plain
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.console.words import executor_words, policy_words
from vla_ros.nodes.names import CAUSES, EXECUTOR_STATES, POLICY_STATES

_LONGEST = 500  # characters of a text of another node
_MOST = 64  # refusal reasons, and joints of a table


def finite(value: float, digits: int = 4) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def robot_facts(robot: RobotSpec) -> dict[str, Any]:
    """Constant facts of the robot; limits are those that apply, less the margin."""
    return {
        "robot": robot.name,
        "joints": [{"name": j.name, "unit": j.unit, "lower": j.lower + robot.margin(j),
                    "upper": j.upper - robot.margin(j)} for j in robot.joints],
        "cameras": [{"name": camera.name, "topic": camera.topic} for camera in robot.cameras],
    }  # fmt: skip


def policy_state(status: PolicyStatus | None) -> dict[str, Any] | None:
    if status is None:
        return None
    what, ends = policy_words(status.state)
    return {
        "state": POLICY_STATES[status.state], "what": what, "ends": ends,
        "message": plain(status.message, _LONGEST), "policy": plain(status.policy, _LONGEST),
        "instruction": plain(status.instruction, _LONGEST), "rate": finite(status.rate, 2),
        "chunks": status.chunks, "refused": status.refused_observations,
    }  # fmt: skip


def executor_state(status: ExecutorStatus | None) -> dict[str, Any] | None:
    if status is None:
        return None
    what, ends = executor_words(status.state, status.cause)
    reasons = list(zip(status.refusal_reasons, status.refusal_counts, strict=False))[:_MOST]
    return {
        "state": EXECUTOR_STATES[status.state],
        "cause": CAUSES[status.cause] if status.cause else "",
        "what": what, "ends": ends, "message": plain(status.message, _LONGEST), "mode": plain(status.mode, 40),
        "taken_over_by": plain(status.taken_over_by, 120),
        "dry_run": status.dry_run, "instruction": plain(status.instruction, _LONGEST),
        "accepted": status.accepted_chunks, "refused": status.refused_chunks, "live": status.live_chunks,
        "refusals": [[plain(reason, 60), count] for reason, count in reasons if count],
        "last_refusal": plain(status.last_refusal, _LONGEST), "rate": finite(status.control_rate, 1),
        "lateness": finite(status.lateness, 6), "overruns": status.overruns, "progress": finite(status.progress_age, 1),
        "joints": {
            plain(name, 80): [finite(deviation), finite(reversals, 2), finite(share, 3), name in status.limited]
            for name, deviation, reversals, share in list(zip(
                status.names, status.deviation, status.reversals, status.limited_share, strict=False))[:_MOST]
        },
    }  # fmt: skip


def latency(
    policy: PolicyStatus | None, executor: ExecutorStatus | None, budget: float, period: float
) -> dict[str, Any] | None:
    """s of each part of the latency from the observation's stamp to the first command; None without inference.

    `budget`: s, duration of a chunk from its stamp. `period`: s between commands, since the first one waits for its
    tick.
    """
    if policy is None or executor is None or policy.state != PolicyStatus.RUNNING:
        return None
    whole, network = policy.inference_time, policy.encode_time + policy.act_time + policy.flight_time
    on_its_way = executor.chunk_latency - policy.observation_age
    parts = [
        ("camera to inference", policy.observation_age - whole), ("encode (prefix)", policy.encode_time),
        ("act (denoise)", policy.act_time), ("flight", policy.flight_time), ("before and after", whole - network),
        ("to the executor", on_its_way), ("first command", period),
    ]  # fmt: skip
    shown = [[name, max(finite(value) or 0.0, 0.0)] for name, value in parts]
    return {"parts": [part for part in shown if part[0] != "flight" or part[1]], "budget": finite(budget)}

