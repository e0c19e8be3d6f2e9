"""Finding the configuration files that are installed with the package."""

import os
import sys
from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.hub import no_folder
from vla_ros.core.records import read_mapping

SCHEMES = ("ws://", "wss://")  # of a policy on another machine


def config_file(name: str) -> Path:
    """The path of a file under `config/`, for example "robots/so101.yaml".

    Searched in a source tree, in every ROS prefix (`AMENT_PREFIX_PATH`), then in Python's own prefix. Raises InputError
    with the folders that were searched.
    """
    folders = _folders()
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"configuration file {name}: in none of {', '.join(map(str, folders))}")


def resolve_robot(robot: str | Path) -> Path:
    """The path of a robot file that is given by its path, or by its name in `config/robots` (`so101`).

    Raises InputError with the names there are.
    """
    path = Path(robot).expanduser()
    if path.is_file():
        return path.resolve()
    known = {file.stem: file for folder in reversed(_folders()) for file in (folder / "robots").glob("*.yaml")}
    if str(robot) in known:
        return known[str(robot)]
    what = "not a regular file" if path.exists() else "no such file"
    raise InputError(f"robot {str(robot)!r}: {what}, expected a path or one of {', '.join(sorted(known))}")


def is_server(policy: str | Path) -> bool:
    """Whether a policy is given as a server's URL (a Path of it has lost one of the slashes)."""
    return str(policy).startswith(tuple(scheme[:-1] for scheme in SCHEMES))


def server_mapping(policy: str | Path) -> dict[str, Any] | None:
    """The mapping of a policy on another machine, with `server`: from its URL or its policy file; None for every other
    policy. Raises InputError for a file that cannot be read."""
    if is_server(policy):
        return {"server": str(policy)}
    path = Path(policy).expanduser()
    if not path.is_file() or path.suffix not in (".yaml", ".yml", ".json"):
        return None
    data = read_mapping(path, "policy file")
    return data if "server" in data else None


def resolve_policy(policy: str) -> str:
    """What a node in any working directory understands: a server's URL as it is, otherwise the absolute path of a
    checkpoint or policy file. Raises InputError where there is none."""
    if is_server(policy):
        return policy
    path = Path(policy).expanduser()
    if not path.exists():
        what = no_folder(path, policy).replace("folder", "file or folder", 1)
        raise InputError(f"policy {policy}: {what}, expected a checkpoint folder, a policy file, or ws://HOST:PORT of "
                         "a server")
    return str(path.resolve())


def _folders() -> list[Path]:
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    shares = [Path(prefix) / "share" / "vla_ros" / "config" for prefix in (*prefixes, sys.prefix)]
    return [Path(__file__).parents[2] / "config", *shares]
