"""`rtc_config` of a LeRobot folder: its settings of real-time chunking."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Range, Rows, record
from vla_ros.policies.flow import USUAL, Guidance
from vla_ros.policies.formats.lerobot import LeRobotFolder

SCHEDULES = {"LINEAR": "linear", "EXP": "exp", "ONES": "ones", "ZEROS": "zeros"}  # LeRobot's name: ours


@dataclass(frozen=True)
class _RtcConfig:
    """LeRobot's class of that name, with its defaults."""

    enabled: bool = True
    prefix_attention_schedule: str = "LINEAR"
    max_guidance_weight: Annotated[float, Range(0, 1e6)] = 10.0
    execution_horizon: Rows = 10
    debug: bool = False
    debug_maxlen: int = 100


def untold(guidance: Guidance) -> tuple[str, ...]:
    """What `write_guidance` cannot express, in words."""
    rows = guidance.trained_rows
    return (f"it was trained to continue a chunk (trained_rows {rows}), which is not written: LeRobot guides it "
            "instead, and so does vla_ros once it reads the folder",) if rows else ()


def write_guidance(guidance: Guidance) -> dict[str, Any] | None:
    """What `read_guidance` reads, None for our own way."""
    theirs = {ours: name for name, ours in SCHEDULES.items()}
    if replace(guidance, trained_rows=0) == USUAL:
        return None
    return {"enabled": True, "prefix_attention_schedule": theirs[guidance.schedule],
            "max_guidance_weight": guidance.maximum, "execution_horizon": guidance.horizon or 10}


def read_guidance(folder: LeRobotFolder) -> tuple[Guidance, str]:
    """The folder's settings, and a note on which of them are used. Raises InputError that names the field."""
    said: Mapping[str, Any] | None = folder.config.get("rtc_config")
    where = f"{folder.path / 'config.json'}: rtc_config"
    if said is None or not (config := record(_RtcConfig, said, where)).enabled:
        return USUAL, ""
    if config.prefix_attention_schedule not in SCHEDULES:
        raise InputError(f"{where}.prefix_attention_schedule {shown(config.prefix_attention_schedule)}, expected one "
                         f"of {sorted(SCHEDULES)}")
    guidance = Guidance(
        SCHEDULES[config.prefix_attention_schedule], config.execution_horizon, config.max_guidance_weight
    )
    return guidance, (f"real-time chunking over {guidance.horizon} rows, weights {guidance.schedule}, at most "
                      f"{guidance.maximum:g} (policy_node's rtc_max_guidance says otherwise)")
