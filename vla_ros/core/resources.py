"""Where the configuration files that come with the package lie."""

import os
import sys
from pathlib import Path

from vla_ros.core.errors import InputError


def config_file(name: str) -> Path:
    """The path of a file under `config/`, for example "robots/so101.yaml".

    Looked for in a source tree, in every ROS prefix (`AMENT_PREFIX_PATH`), then in Python's own prefix.
    Raises InputError that says where it was looked for.
    """
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    folders = [Path(__file__).parents[2] / "config"]
    folders += [Path(prefix) / "share" / "vla_ros" / "config" for prefix in (*prefixes, sys.prefix)]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"configuration file {name}: in none of {', '.join(map(str, folders))}")
