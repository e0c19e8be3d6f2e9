"""What other packages offer by entry points."""

from importlib.metadata import EntryPoint
from typing import Any

from vla_ros.core.errors import InputError


def loaded(point: EntryPoint, kind: str) -> Any:
    """What an entry point names; `kind`: of it, for messages. Raises InputError if another package's cannot be
    imported."""
    if point.dist is None:  # our own
        return point.load()
    try:
        return point.load()
    except Exception as error:  # of any kind: it is foreign code
        raise InputError(
            f"{kind} {point.name!r} of package {point.dist.name}: {point.value} cannot be imported: "
            f"{type(error).__name__}: {error}; expected a package that imports, or none of that name"
        ) from error
