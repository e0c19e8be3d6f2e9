"""What several commands read from their arguments in the same way."""

from pathlib import Path

from vla_ros.core.errors import InputError
from vla_ros.core.resources import config_file


def resolve_robot(text: str) -> Path:
    """A robot file by its path, or by the name of one that comes with the package. Raises InputError."""
    path = Path(text).expanduser()
    if path.is_file():
        return path.resolve()
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"robot file {path}: no such file")
    return config_file(f"robots/{text}.yaml")
