"""Declaration of the GO-1 family, and its published folders."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping, value_of
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.family import Family, Layout
from vla_ros.policies.formats.lerobot_robot import nameless
from vla_ros.policies.go1.config import GO1Config
from vla_ros.policies.go1.model import GO1
from vla_ros.policies.go1.names import rename
from vla_ros.policies.go1.processor import IMAGE, TOKENS, GO1Processor
from vla_ros.policies.normalisation import Normalisation, Statistics, statistics_of
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts, TrainingData, read_config
from vla_ros.policies.tokenizer import Tokenizer, word_tokenizer

STATISTICS = "dataset_stats.json"


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    tokenizer = word_tokenizer(data.instructions, TOKENS)
    return {
        "state_dim": len(data.joints), "action_dim": data.action_dim, "cameras": data.cameras,
        "vocabulary": tokenizer.size, "image_token": tokenizer.token(IMAGE),
    }, tokenizer


def _read(family: Family, path: Path, options: LoadOptions) -> tuple[GO1Config, Parts]:
    data, where = read_config(path), f"checkpoint {path}: config.json"
    sizes = GO1Config.from_published(data, where)
    mode, statistics, lacks = "identity", {}, ""
    if value_of(bool, data.get("norm", False), f"{where}: norm"):
        mode, statistics = "mean_std", options.statistics() or _statistics(path)
        lacks = "" if statistics else f"state and actions are normalised by mean_std, and it lacks {STATISTICS}"
    elif "statistics" in options.overrides:
        raise InputError(f"{where}: norm false: nothing is normalised, expected no overrides.statistics")
    file = path / "embodiment.yaml"
    embodiment = options.embodiment or (Embodiment.load(file) if file.exists() else None)
    if embodiment is None:
        embodiment = nameless(sizes.cameras, sizes.state_dim, ["absolute"] * sizes.action_dim)
    if embodiment.step_dt is None and options.data is not None:
        embodiment = replace(embodiment, step_dt=options.data.step_dt)
    state, actions = (Normalisation(mode, statistics.get(name, {}), "go1") for name in (STATE, ACTION))
    return sizes, Parts(embodiment, state, actions, {}, family.fit, no_statistics=lacks)


def _statistics(path: Path) -> Statistics:
    """Of state and actions in `dataset_stats.json`; {} if there is no such file. Raises InputError."""
    if not (path / STATISTICS).exists():
        return {}
    rows: Mapping[str, Any] = read_mapping(path / STATISTICS, "statistics")
    found = statistics_of({name: rows.get(name) for name in ("state", "action")}, str(path / STATISTICS))
    return {STATE: found["state"], ACTION: found["action"]}


FAMILY = Family(
    "go1", GO1Config, GO1, GO1Processor, title="GO-1",
    layouts={"go1": Layout(lambda config: config.get("model_type") == "go1", _read, rename)},
    fit="bicubic",
    overrides=("num_steps", "control_frequency", "text_length"),
    fresh=_fresh,
)
