"""openpi's checkpoint folders: statistics in assets/, no description of the robot."""

from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import read_mapping
from vla_ros.policies.formats.lerobot_robot import nameless
from vla_ros.policies.normalisation import Normalisation, Statistics, statistics_of
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts


def openpi_parts(path: Path, config: Any, mode: str, options: LoadOptions, fit: str) -> Parts:
    """The parts of such a folder, also of transformers' folders, which contain no statistics.

    Args:
        config: the policy's sizes: cameras, state_dim, action_dim.
        mode: of the normalisation, a key of `normalisation.MODES`.

    Raises InputError.
    """
    statistics, note = options.statistics(sets=True), f"statistics of {options.overrides.get('statistics')}"
    if statistics is None:
        statistics, note = norm_stats(path, options)
    state, actions = (Normalisation(mode, statistics.get(name, {}), "openpi") for name in (STATE, ACTION))
    widths = [
        min(limit, *(len(values) for values in rows.statistics.values())) if rows.statistics else limit
        for rows, limit in ((state, config.state_dim), (actions, config.action_dim))
    ]
    return Parts(
        options.embodiment or nameless(config.cameras, widths[0], ["absolute"] * widths[1]), state, actions, {}, fit,
        no_statistics="" if statistics else note, notes=(note,) if statistics else (),
    )


def norm_stats(path: Path, options: LoadOptions) -> tuple[Statistics, str]:
    """Statistics of `assets/<name>/norm_stats.json` ("state", "actions"), and a note. Raises InputError."""
    files = {str(f.parent.relative_to(path / "assets")): f for f in sorted((path / "assets").rglob("norm_stats.json"))}
    said = options.overrides.get("assets", options.overrides.get("statistics"))
    if said is None and len(files) != 1:
        return {}, (f"it contains the assets {sorted(files)}; choose one with overrides.statistics" if files
                    else "no assets/*/norm_stats.json")
    chosen = next(iter(files)) if said is None else str(said)
    if chosen not in files:
        raise InputError(f"checkpoint {path}: no statistics {shown(chosen)}: neither a file nor a set in assets/, "
                         f"which has {sorted(files) or 'none'}")
    rows = read_mapping(files[chosen], "statistics")
    found = statistics_of(rows.get("norm_stats", rows), str(files[chosen]))
    if missing := {"state", "actions"} - found.keys():
        raise InputError(f"{files[chosen]}: no {sorted(missing)}, expected norm_stats with state and actions")
    return {STATE: found["state"], ACTION: found["actions"]}, f"statistics of assets/{chosen}"
