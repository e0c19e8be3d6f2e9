"""From what a user names (a checkpoint folder or a policy file, a robot, a device) to a session that is warm."""

from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.base import LoadedPolicy
from vla_ros.policies.embodiment import Embodiment, check_robot, read_yaml
from vla_ros.policies.registry import load
from vla_ros.runtime.devices import resolve_device, resolve_dtype
from vla_ros.runtime.session import PolicySession, SessionOptions, example_sample


def read_policy(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder and the options of `load` that a user's `policy` stands for.

    A folder is a checkpoint. A policy file is the YAML of an `Embodiment` with two fields more: `checkpoint`, a
    folder, and `tokenizer`, a folder of tokenizer files, both relative to the policy file.

    Raises InputError.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return path, {}
    if not path.exists():
        raise InputError(f"policy {path}: no such checkpoint folder or policy file")
    data = read_yaml(path)
    if not isinstance(data, dict) or not isinstance(data.get("checkpoint"), str):
        raise InputError(f"policy file {path}: expected a mapping with the field 'checkpoint', a folder")
    data = dict(data)
    options: dict[str, Any] = {}
    folder = path.parent / Path(data.pop("checkpoint")).expanduser()
    if "tokenizer" in data:
        options["tokenizer"] = path.parent / Path(str(data.pop("tokenizer"))).expanduser()
    if data:
        options["embodiment"] = Embodiment.from_dict(data, f"policy file {path}")
    return folder, options


def open_policy(
    path: str | Path, robot: RobotSpec, device: str = "auto", dtype: str = "auto", tokenizer: str | None = None
) -> LoadedPolicy:
    """Load a policy and check it against the robot. Raises InputError that names what does not fit."""
    folder, options = read_policy(path)
    target = resolve_device(device)
    if tokenizer:
        options["tokenizer"] = tokenizer
    loaded = load(folder, device=target, dtype=resolve_dtype(dtype, target), **options)
    check_robot(loaded.processor, robot)
    return loaded


def open_session(
    path: str | Path,
    robot: RobotSpec,
    device: str = "auto",
    dtype: str = "auto",
    options: SessionOptions | None = None,
    tokenizer: str | None = None,
) -> PolicySession:
    """`open_policy` and a warm-up, so that the first inference takes as long as every other. Raises InputError."""
    session = PolicySession(open_policy(path, robot, device, dtype, tokenizer), options)
    session.warm_up(example_sample(robot, session.processor))
    return session
